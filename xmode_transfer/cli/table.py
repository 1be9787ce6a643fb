"""`xmode-transfer table`: begin, end and list Delta tables."""

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.model.errors import ExitCode
from xmode_transfer.web import states

_INDENT = 11
_SHOWN = 10

_one_feed_option = click.option("--feed", "-f", metavar="F", required=True, help="The feed.")


@click.group()
def command() -> None:
    """Begin, end or list Delta tables of customers' feeds.

    With `table: delta`, a Parquet feed is a Delta table at its destination too: Athena, Databricks,
    Snowflake, DuckDB, Polars and Spark read `s3://bucket/prefix/feed`. Each delivery is one version of it.

    \b
    xmode-transfer table create --customer acme --feed us-daily --dry-run
    xmode-transfer table create --customer acme --feed us-daily
    xmode-transfer table list
    xmode-transfer table end --customer acme --feed us-daily
    """


@command.command()
@opening.customer_option
@_one_feed_option
@click.option("--dry-run", is_flag=True, help="Read the files' schemas and compare them; put nothing.")
@opening.with_json
def create(shell: Shell, name: str, feed: str, dry_run: bool, as_json: bool) -> int:
    """Begin the table of a feed that was delivered before.

    A new feed needs no command: its first delivery begins the table. This one reads the footers of what was
    delivered, from the bucket, and adds one version for each period, oldest first. If the schemas do not fit
    together, nothing is put. After an interruption, call it again: it continues.

    Set `table: delta` in the feed's or the customer's file first.

    \b
    xmode-transfer table create --customer acme --feed us-daily --dry-run
    xmode-transfer table create --customer acme --feed us-daily
    """
    from xmode_transfer.upkeep import tables

    configuration = shell.configuration()
    with shell.opened(configuration, as_json=as_json) as opened:
        made = tables.create(opened.context, configuration, name, feed, dry_run=dry_run)
    if as_json:
        terminal.answer(terminal.picked(made, *_CREATED))
        return ExitCode.DONE
    figures = (
        f"{states.count(made.periods, 'delivery')}, {states.count(made.files, 'file')}, {made.rows:,} rows"
    )
    if not made.periods:
        figures = "nothing to add"
    known = f"; {states.count(made.known, 'delivery')} in the table before" if made.known else ""
    terminal.say(f"{name} {feed}: {figures}{known}", label=terminal.state(made.outcome, _INDENT))
    if made.version >= 0:
        terminal.say(f"the table has version {made.version}", indent=_INDENT)
    if made.missing:
        gone = f"{states.count(made.missing, 'file')} left out: gone from the bucket"
        terminal.say(f"{gone}. `xmode-transfer verify` names them", indent=_INDENT)
    return ExitCode.DONE


_CREATED = ("customer", "feed", "outcome", "version", "periods", "known", "files", "rows", "missing")


@command.command()
@opening.customer_option
@_one_feed_option
@opening.with_json
def end(shell: Shell, name: str, feed: str, as_json: bool) -> int:
    """End a table: delete its log. The data and the manifests stay.

    Remove `table: delta` from the feed's or the customer's file first. Only files of the log that are as we
    put them are deleted. After an interruption, call it again: it continues.

    \b
    xmode-transfer table end --customer acme --feed us-daily
    """
    from xmode_transfer.upkeep import tables

    configuration = shell.configuration()
    with shell.opened(configuration, as_json=as_json) as opened:
        ended = tables.end(opened.context, configuration, name, feed)
    if as_json:
        terminal.answer({**terminal.picked(ended, *_ENDED), "why": ended.why or None})
        return ended.exit_code
    deleted = f"{name} {feed}: {states.count(ended.deleted, 'file')} of the log deleted; the data stay"
    terminal.say(deleted, label=terminal.state(ended.outcome, _INDENT))
    if ended.why:
        terminal.say(f"the log stays: {ended.why}", indent=_INDENT)
    for key in ended.left[:_SHOWN]:
        terminal.say(f"stays: {key}", indent=_INDENT)
    terminal.more(len(ended.left), _SHOWN, "key", _INDENT)
    return ended.exit_code


_ENDED = ("customer", "feed", "outcome", "deleted", "left")


@command.command(name="list")
@opening.one_customer_option
@opening.with_json
def list_(shell: Shell, name: str | None, as_json: bool) -> int:
    """List the tables with their versions, files and rows.

    \b
    xmode-transfer table list
    xmode-transfer table list --customer acme --json
    """
    from xmode_transfer.service import assembly
    from xmode_transfer.upkeep import tables

    configuration = shell.configuration()
    with assembly.ledger(configuration.service) as (ledger, _):
        found = list(tables.listed(ledger, name))
    if as_json:
        rows = [
            {
                **terminal.picked(item.table, "customer", "feed", "root", "version"),
                **terminal.picked(item, "files", "rows"),
                "since": item.table.created_at,
                "ending": item.table.ending_at is not None,
            }
            for item in found
        ]
        terminal.answer({"tables": rows})
        return ExitCode.DONE
    for item in found:
        table = item.table
        figures = f"version {table.version}, {states.count(item.files, 'file')}, {item.rows:,} rows"
        since = f"since {terminal.minute(table.created_at)}"
        ending = "; being ended" if table.ending_at is not None else ""
        terminal.say(f"{figures}, {since}{ending}", label=f"{table.customer} {table.feed}  ")
    if not found:
        terminal.say("no feed is a table")
    return ExitCode.DONE
