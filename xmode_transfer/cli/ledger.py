"""`xmode-transfer ledger`: back up, restore, check or copy the ledger."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import FILE, Shell
from xmode_transfer.cli.terminal import counted
from xmode_transfer.model.errors import ConfigError, ExitCode, Interrupted
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.ledger.copying import Moved
    from xmode_transfer.ledger.files import Copied
    from xmode_transfer.ledger.schema import Contents, LedgerCheck

_SHOWN_PROBLEMS = 20


@click.group(name="ledger")
def command() -> None:
    """Back up, restore, check or copy the ledger.

    \b
    xmode-transfer ledger backup /backup/ledger-$(date +%F).db
    xmode-transfer ledger check /backup/ledger-2026-11-22.db
    xmode-transfer ledger restore /backup/ledger-2026-11-22.db
    xmode-transfer ledger copy postgresql://xmode@db.internal/xmode
    """


@command.command()
@click.argument("file", type=FILE)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@opening.with_json
def backup(shell: Shell, file: Path, force: bool, as_json: bool) -> int:
    """Back up the ledger to FILE while the service runs. Use pg_dump for a ledger on PostgreSQL.

    The backup is one file that only its owner can read. It gets its name after it has been checked.
    """
    from xmode_transfer.ledger import files

    with counted("backing up") as progress:
        made = files.backup(_url(shell), file, overwrite=force, progress=progress)
    _show_copied("backed up", made, as_json=as_json)
    return ExitCode.DONE


@command.command()
@click.argument("file", type=FILE)
@opening.with_json
def restore(shell: Shell, file: Path, as_json: bool) -> int:
    """Replace the ledger with the backup FILE, and keep the old one beside it.

    Stop the service first: nothing is replaced while a process holds a lease. Deliveries made after the
    backup are in the customers' buckets; `list --adopt` recovers them (docs/operations.md).
    """
    from xmode_transfer.ledger import files

    with counted("restoring") as progress:
        made = files.restore(_url(shell), file, SystemClock().now(), progress=progress)
    _show_copied("restored", made, as_json=as_json)
    return ExitCode.DONE


@command.command()
@click.argument("file", type=FILE, required=False)
@opening.with_json
def check(shell: Shell, file: Path | None, as_json: bool) -> int:
    """Check the ledger, or a backup in FILE: the database, the schema's version and our own rules.

    Everything is read and nothing changed. The service may run.
    """
    from xmode_transfer.ledger import files

    found = files.check(_url(shell), file)
    outcome = "ok" if found.is_sound else "damaged" if found.damage else "inconsistent"
    if as_json:
        document = {
            "ledger": found.where,
            "outcome": outcome,
            "problems": [*found.damage, *found.contradictions],
            "needs_migration": found.older,
            **(found.contents._asdict() if found.contents else {}),
        }
        terminal.answer(document)
    else:
        _show_check(found, outcome, is_backup=file is not None)
    return ExitCode.DONE if found.is_sound else ExitCode.WILL_RETRY


@command.command()
@click.argument("target")
@click.option("--dry-run", is_flag=True, help="Check whether the copy is possible; write nothing.")
@click.option("--keep", is_flag=True, help="Keep the old ledger in use: the copy is a trial.")
@opening.with_json
def copy(shell: Shell, target: str, dry_run: bool, keep: bool, as_json: bool) -> int:
    """Copy the ledger into an empty database at TARGET, such as PostgreSQL, and compare both.

    TARGET is a URL, or env:NAME or file:PATH with one, to keep a password off the command line. Stop the
    service first: nothing is copied while a process uses the ledger. Afterwards, the old ledger is marked as
    moved, so that no process uses it by mistake. Then write TARGET into service.yaml.

    \b
    Exit codes: 0 copied; 2 TARGET is not a URL, or not empty; 3 a database is unusable, or the ledger is
    inconsistent; 5 a process uses the ledger; 130 interrupted. Unless the code is 0, TARGET is unchanged.
    """
    from xmode_transfer.config import secrets
    from xmode_transfer.ledger import copying

    try:
        place = secrets.ledger_location(target, str(Path.cwd()))
    except ValueError as error:
        raise ConfigError(f"TARGET: {error}") from None
    start = f"{secrets.SQLITE}:///"
    if isinstance(place, str) and place.startswith(start) and not place.startswith(f"{start}/"):
        place = f"{start}{Path(place.removeprefix(start)).absolute()}"
    url = secrets.ledger_url(place, "TARGET")
    started = time.monotonic()
    try:
        with counted("copying") as progress:
            moved = copying.copy(
                _url(shell), url, SystemClock(), dry_run=dry_run, keep=keep, progress=progress
            )
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was copied, and TARGET is unchanged") from None
    has_password = isinstance(place, str) and secrets.passwords_of(place)
    line = None if has_password else f"ledger: {place}"
    if not as_json:
        _show_moved(moved, line, dry_run=dry_run, keep=keep)
        return ExitCode.DONE
    terminal.answer(
        {
            "outcome": "would_copy" if dry_run else "copied",
            "ledger": moved.source,
            **terminal.picked(moved, "target", "rows", "leases_given_back"),
            "retired": not keep and not dry_run,
            **moved.contents._asdict(),
            "tables": [
                {"table": table.name, "rows": table.rows, "checksum": table.checksum or None}
                for table in moved.tables
            ],
            "seconds": round(time.monotonic() - started, 3),
            "service_yaml": line,
        }
    )
    return ExitCode.DONE


def _show_moved(moved: "Moved", line: str | None, *, dry_run: bool, keep: bool) -> None:
    word = "would copy" if dry_run else "copied"
    terminal.say((word, "bold green"), f" {moved.source} to {moved.target}:")
    terminal.say(_counted(moved.contents), indent=2)
    rows = states.count(moved.rows, "row")
    if dry_run:
        terminal.say(f"{rows}; nothing was written", indent=2)
        return
    tables = states.count(len(moved.tables), "table")
    terminal.say(f"{tables}, {rows}: counts and checksums are equal on both sides", indent=2)
    if keep:
        terminal.say("the old ledger is still in use: the copy does not get later deliveries", indent=2)
        return
    terminal.say(f"{moved.source} is marked as moved: no process uses it any more", indent=2)
    if line is None:
        terminal.fact(
            "next",
            "put the URL into a file that only the service's user can read, write `ledger: file:PATH` into "
            "service.yaml on every machine, and start the service",
            0,
        )
    else:
        terminal.fact("next", "write this line into service.yaml on every machine, and start the service:", 0)
        terminal.fact("", line, 0)


def _url(shell: Shell) -> str:
    from xmode_transfer.config.secrets import ledger_url

    return ledger_url(shell.configuration().service.ledger)


def _show_copied(word: str, made: "Copied", *, as_json: bool) -> None:
    if as_json:
        terminal.answer(
            {
                "outcome": word.replace(" ", "_"),
                "ledger": made.path,
                **terminal.picked(made, "size_bytes", "kept"),
                **made.contents._asdict(),
            }
        )
        return
    contents = f" {made.path} ({states.size(made.size_bytes)}): {_counted(made.contents)}"
    terminal.say((word, "bold green"), contents)
    if made.kept:
        terminal.say(f"previous ledger: {made.kept}", indent=2)


def _counted(contents: "Contents") -> str:
    return (
        f"{states.count(contents.customers, 'customer')}, {states.count(contents.deliveries, 'delivery')}, "
        f"{states.count(contents.receipts, 'receipt')}, {states.size(contents.bytes)}; "
        f"schema {contents.schema_version}"
    )


def _show_check(found: "LedgerCheck", outcome: str, *, is_backup: bool) -> None:
    contents = _counted(found.contents) if found.contents else "too damaged to count"
    terminal.say(f"{found.where}: {contents}")
    if found.older:
        terminal.say("from an earlier version: the next start migrates it and checks our rules", indent=2)
    problems = [*found.damage, *found.contradictions]
    for problem in problems[:_SHOWN_PROBLEMS]:
        terminal.say((problem, "red"), indent=2)
    terminal.more(len(problems), _SHOWN_PROBLEMS, "problem")
    terminal.say(terminal.state(outcome))
    if found.damage and is_backup:
        fix = "this backup cannot be restored: take another one"
    elif found.damage:
        kept, restored = "this file with its -wal and -shm", "backup: `xmode-transfer ledger restore FILE`"
        if found.on_server:
            kept, restored = "a copy of the server's data", "dump"
        fix = (
            f"stop the service on all machines, keep {kept}, and restore the last {restored}; then "
            "`xmode-transfer list --adopt` recovers later deliveries"
        )
    elif found.contradictions:
        fix = "the records contradict each other: keep a backup, and report a bug"
    else:
        return
    terminal.fact("fix", fix)
