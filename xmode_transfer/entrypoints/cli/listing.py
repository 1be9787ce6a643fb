"""`xmode-transfer list`: what lies at a destination, beside what the ledger says."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from xmode_transfer.domain.errors import ExitCode, XmodeError
from xmode_transfer.domain.manifest import timestamp
from xmode_transfer.domain.visible import visible
from xmode_transfer.entrypoints.cli import Shell, streams, words
from xmode_transfer.entrypoints.cli.streaming import JsonDocument
from xmode_transfer.entrypoints.cli.terminal import style
from xmode_transfer.services.listing import ListedKey, Listing, Standing, Sum

if TYPE_CHECKING:
    from xmode_transfer.domain.config import Configuration, Customer
    from xmode_transfer.services.workbench import Workbench

_COLOURS = {
    Standing.OURS: "green",
    Standing.MANIFEST: "cyan",
    Standing.NOTICE: "cyan",
    Standing.CHANGED: "red",
    Standing.MISSING: "red",
    Standing.ELSEWHERE: "yellow",
    Standing.SUPERSEDED: "yellow",
    Standing.FOREIGN: "bright_black",
}


@click.command(name="list")
@click.option("--customer", "-c", "name", metavar="C", required=True, help="The customer.")
@click.option("--feed", "-f", metavar="F", help="Only below this feed.")
@click.option("--period", "-p", metavar="P", help="Only this period, as 2026-11-22 or 2026-W47.")
@click.option("--summary", is_flag=True, help="Only the sums of each feed and period, not every key.")
@click.option("--adopt", is_flag=True, help="Take what our manifests list back into a lost ledger.")
@click.option("--dry-run", is_flag=True, help="With --adopt: prove everything, record nothing.")
@click.option("--by", metavar="NAME", help="Who asks for --adopt. Default: the user of the system.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, written as it comes.")
@click.pass_obj
def command(
    shell: Shell,
    name: str,
    feed: str | None,
    period: str | None,
    summary: bool,
    adopt: bool,
    dry_run: bool,
    by: str | None,
    as_json: bool,
) -> int:
    """List what lies at a customer's destination, beside what the ledger says should.

    Each key is ours (as delivered, by size and ETag), a manifest or a notice of ours, changed since, missing,
    superseded (of a revision that was never published: no manifest names it), foreign (below our prefix and
    not put by us), or elsewhere: delivered below another prefix than today's.
    Only lists and reads; foreign objects are nobody's business but the customer's. A million keys are no
    trouble. `verify` proves more.

    --adopt is for a ledger that was lost (docs/operations.md): each delivery that only its manifest knows is
    recorded again, after size, checksum and mark of every object have been proven.

    \b
    xmode-transfer list --customer acme --summary
    xmode-transfer list --customer acme --feed us-daily --period 2026-11-22
    xmode-transfer list --customer acme --json | jq -r '.objects[] | select(.standing == "missing").key'
    xmode-transfer list --customer acme --adopt --dry-run
    """
    if adopt:
        from xmode_transfer.entrypoints.cli import adopting

        return adopting.adopt(shell, name, feed, period, by, dry_run=dry_run, as_json=as_json)
    if dry_run or by:
        raise click.UsageError("--dry-run and --by belong to --adopt; a listing changes nothing anyway")
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.entrypoints.cli import stopping
    from xmode_transfer.entrypoints.cli.tally import Tally
    from xmode_transfer.services.due import check_scope
    from xmode_transfer.services.run import active_customer

    configuration = config_files.load(shell.config_dir)
    customer = active_customer(configuration, name)
    with stopping.on_signals() as stop, bootstrap.workbench(configuration, Tally(), stop) as bench:
        check_scope(bench.ledger, configuration, customer, feed, [period])
        return _list(bench, configuration, customer, feed, period, summary=summary, as_json=as_json)


def _list(
    bench: "Workbench",
    configuration: "Configuration",
    customer: "Customer",
    feed: str | None,
    period: str | None,
    *,
    summary: bool,
    as_json: bool,
) -> int:
    place = f"s3://{customer.destination.bucket}/{customer.destination.prefix}"
    feeds = {name: configuration.feeds[name] for name in customer.feeds if name in configuration.feeds}
    listing = Listing(bench, customer, feeds, feed, period)
    document = JsonDocument(sys.stdout, "objects", customer=customer.name, destination=place)
    try:
        for item in listing:
            if summary:
                continue
            if as_json:
                document.row(_document(item))
            else:
                sys.stdout.write(_line(item))
    except XmodeError as error:
        if not as_json or not document.begun:
            raise
        # the document is begun: it ends whole, and says that it is not all
        document.end(complete=False, **_sums(listing), error=error.log_context())
        return error.exit_code
    if as_json:
        document.end(complete=True, **_sums(listing))
    else:
        _tell_sums(place, listing)
    return ExitCode.DONE


def _document(item: ListedKey) -> dict[str, object]:
    there, known = item.there, item.known
    return {
        "key": item.key,
        "standing": str(item.standing),
        "size": there.size if there else None,
        "modified_at": timestamp(there.modified_at) if there else None,
        "feed": known.feed if known else None,
        "period": known.period if known else None,
        "revision": known.revision if known else None,
        "delivered_at": timestamp(known.delivered_at) if known else None,
        "attested": item.attested if known else None,
    }


def _counts(of: Sum) -> dict[str, int]:
    return {str(standing): of.counts[standing] for standing in Standing}


def _sums(listing: Listing) -> dict[str, object]:
    return {
        "counts": _counts(listing.whole),
        "bytes": listing.whole.bytes,
        "not_attested": listing.whole.not_attested,
        "periods": [
            {
                "feed": place.feed,
                "period": place.period,
                "counts": _counts(of),
                "bytes": of.bytes,
                "not_attested": of.not_attested,
            }
            for place, of in listing.sums
        ],
    }


def _line(item: ListedKey) -> str:
    absent = "gone" if item.standing is Standing.MISSING else ""
    size = words.size(item.there.size) if item.there else absent
    at = item.there.modified_at if item.there else item.known.delivered_at if item.known else None
    standing = _coloured(item.standing)
    doubt = "" if item.attested else "  (not attested)"
    return f"{standing} {size:>10}  {_minute(at)}  {visible(item.key)}{doubt}\n"


def _coloured(standing: Standing) -> str:
    text = f"{standing:<10}"
    wanted = streams.colours_wanted()
    return style(text, fg=_COLOURS[standing]) if wanted or (wanted is None and sys.stdout.isatty()) else text


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""


def _tell_sums(place: str, listing: Listing) -> None:
    for where, of in listing.sums:
        label = f"{where.feed} {where.period or '(no period)'}" if where.feed else "(no feed)"
        click.echo(f"{label}: {_told(of)}")
    click.echo(f"{place}: {_told(listing.whole)}")


def _told(of: Sum) -> str:
    told = ", ".join(f"{of.counts[standing]:,} {standing}" for standing in Standing if of.counts[standing])
    doubt = f"; {of.not_attested:,} not attested" if of.not_attested else ""
    return f"{told or 'nothing'}; {words.size(of.bytes)}{doubt}"
