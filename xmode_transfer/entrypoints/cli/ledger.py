"""`xmode-transfer ledger`: our durable record as a whole: backed up, restored, checked, moved."""

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xmode_transfer.domain.errors import ExitCode
from xmode_transfer.entrypoints.cli import Shell, streams, words
from xmode_transfer.entrypoints.cli.terminal import bare, secho, style

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xmode_transfer.adapters.ledger.consistency import Contents, LedgerCheck
    from xmode_transfer.adapters.ledger.copying import Moved
    from xmode_transfer.adapters.ledger.files import Copied, Told
    from xmode_transfer.domain.config import SecretRef

_FILE = click.Path(dir_okay=False, path_type=Path)
_SHOWN_PROBLEMS = 20


@click.group(name="ledger")
def command() -> None:
    """The ledger as a whole: back it up while the service runs, restore it, check it, move it.

    \b
    xmode-transfer ledger backup /backup/ledger-$(date +%F).db
    xmode-transfer ledger check /backup/ledger-2026-11-22.db
    xmode-transfer ledger restore /backup/ledger-2026-11-22.db
    xmode-transfer ledger copy postgresql://xmode@db.internal/xmode
    """


@command.command()
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Replace FILE if it is there already.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def backup(shell: Shell, file: Path, force: bool, as_json: bool) -> int:
    """Copy the ledger into FILE, as it is at this moment; deliveries may go on meanwhile. A ledger on
    PostgreSQL is backed up by pg_dump: the refusal says how.

    The copy is one file, readable by its owner only, and is checked before it gets its name: a backup that is
    there is whole.
    """
    from xmode_transfer.adapters.ledger import files

    with _shown("backing up") as told:
        made = files.backup(_url(shell), file, overwrite=force, told=told)
    _tell_copied("backed up", made, as_json=as_json)
    return ExitCode.DONE


@command.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def restore(shell: Shell, file: Path, as_json: bool) -> int:
    """Put the backup FILE in the ledger's place; what was there is renamed and kept beside it.

    Stop the service first: while a process holds a lease, nothing is replaced. What was delivered after the
    backup is in the customers' buckets, and `list --adopt` takes it back (docs/operations.md).
    """
    from xmode_transfer.adapters.clock import SystemClock
    from xmode_transfer.adapters.ledger import files

    with _shown("restoring") as told:
        made = files.restore(_url(shell), file, SystemClock().now(), told=told)
    _tell_copied("restored", made, as_json=as_json)
    return ExitCode.DONE


@command.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def check(shell: Shell, file: Path | None, as_json: bool) -> int:
    """Check the ledger, or FILE (a backup): the database's own checks, the schema's version, our own rules.

    Reads everything and changes nothing; the service may go on meanwhile.
    """
    from xmode_transfer.adapters.ledger import files

    found = files.check(_url(shell), file)
    if as_json:
        click.echo(json.dumps(_document(found), ensure_ascii=False))
    else:
        _tell(found, is_backup=file is not None)
    return ExitCode.DONE if found.is_sound else ExitCode.WILL_RETRY


@command.command()
@click.argument("target")
@click.option("--dry-run", is_flag=True, help="Look whether it could be done; write nothing.")
@click.option("--keep", is_flag=True, help="Leave the old ledger in use: the copy is a trial.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def copy(shell: Shell, target: str, dry_run: bool, keep: bool, as_json: bool) -> int:
    """Copy the ledger into an empty one at TARGET, such as from SQLite to PostgreSQL, and compare both.

    TARGET is a URL, or where one is kept: env:NAME or file:PATH, which keeps a password off the command line.
    Stop the service first: while a process works with the ledger, nothing is copied. In the end the old
    ledger is marked as moved: nobody goes on with it by mistake. Write TARGET into service.yaml then.

    \b
    Exit codes: 0 copied; 2 TARGET is no URL, or not empty; 3 a database cannot be used, or the ledger is not
    sound; 5 a process works with the ledger; 130 interrupted. Unless it is 0, TARGET is as it was.
    """
    from xmode_transfer.adapters.clock import SystemClock
    from xmode_transfer.adapters.ledger import copying
    from xmode_transfer.adapters.secrets import ledger_url
    from xmode_transfer.domain.errors import Interrupted

    place = _target(target)
    started = time.monotonic()
    try:
        with _shown("copying") as told:
            moved = copying.copy(
                _url(shell),
                ledger_url(place, "TARGET"),
                SystemClock(),
                dry_run=dry_run,
                keep=keep,
                told=told,
            )
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was copied, and TARGET is as it was") from None
    seconds = time.monotonic() - started
    if as_json:
        document = _moved_document(moved, _line(place), seconds, dry_run=dry_run, keep=keep)
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        _tell_moved(moved, _line(place), dry_run=dry_run, keep=keep)
    return ExitCode.DONE


def _target(text: str) -> "str | SecretRef":
    """What is written on a command line is relative to where one stands."""
    from xmode_transfer.domain.config.ledger_url import SQLITE, ledger_place
    from xmode_transfer.domain.errors import ConfigError

    try:
        place = ledger_place(text, str(Path.cwd()))
    except ValueError as error:
        raise ConfigError(f"TARGET: {error}") from None
    start = f"{SQLITE}:///"
    if isinstance(place, str) and place.startswith(start) and not place.startswith(f"{start}/"):
        return f"{start}{Path(place.removeprefix(start)).absolute()}"
    return place


def _line(place: "str | SecretRef") -> str | None:
    """The line of service.yaml that names the copy; None where the URL has a password in it."""
    from xmode_transfer.domain.config.ledger_url import passwords_of

    return None if isinstance(place, str) and passwords_of(place) else f"ledger: {place}"


def _moved_document(
    moved: "Moved", line: str | None, seconds: float, *, dry_run: bool, keep: bool
) -> dict[str, object]:
    return {
        "outcome": "would_copy" if dry_run else "copied",
        "ledger": moved.source,
        "target": moved.target,
        "retired": not keep and not dry_run,
        "rows": moved.rows,
        **moved.contents._asdict(),
        "leases_given_back": moved.leases_given_back,
        "tables": [
            {"table": table.name, "rows": table.rows, "checksum": table.checksum or None}
            for table in moved.tables
        ],
        "seconds": round(seconds, 3),
        "service_yaml": line,
    }


def _tell_moved(moved: "Moved", line: str | None, *, dry_run: bool, keep: bool) -> None:
    word = "would copy" if dry_run else "copied"
    click.echo(f"{style(word, fg='green', bold=True)} {moved.source} to {moved.target}:")
    click.echo(f"  {_counted(moved.contents)}")
    if dry_run:
        click.echo(f"  {words.count(moved.rows, 'row')}; nothing was written")
        return
    click.echo(
        f"  {words.count(len(moved.tables), 'table')}, {words.count(moved.rows, 'row')}: counts and "
        "checksums are the same on both sides"
    )
    if keep:
        click.echo("  the old ledger is still in use: what is delivered from now on is not in the copy")
        return
    click.echo(f"  {moved.source} is marked as moved: no process goes on with it")
    if line is None:
        click.echo("what to do   put the URL into a file that only the service's user can read, write")
        click.echo(
            "             `ledger: file:PATH` into service.yaml on every machine, and start the service"
        )
    else:
        click.echo("what to do   write this line into service.yaml on every machine, and start the service:")
        click.echo(f"             {line}")


def _url(shell: Shell) -> str:
    from xmode_transfer.adapters import config_files
    from xmode_transfer.adapters.secrets import ledger_url

    return ledger_url(config_files.load(shell.config_dir).service.ledger)


@contextmanager
def _shown(what: str) -> "Iterator[Told | None]":
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or streams.is_dumb():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=bare(sys.stderr)), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _tell_copied(word: str, made: "Copied", *, as_json: bool) -> None:
    if as_json:
        document = {
            "outcome": word.replace(" ", "_"),
            "ledger": str(made.path),
            "size_bytes": made.size_bytes,
            "kept": str(made.kept) if made.kept else None,
            **made.contents._asdict(),
        }
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    click.echo(
        f"{style(word, fg='green', bold=True)} {made.path} ({words.size(made.size_bytes)}): ", nl=False
    )
    click.echo(_counted(made.contents))
    if made.kept:
        click.echo(f"  the ledger that was there is {made.kept}")


def _counted(contents: "Contents") -> str:
    return (
        f"{words.count(contents.customers, 'customer')}, {_deliveries(contents.deliveries)}, "
        f"{words.count(contents.receipts, 'receipt')}, {words.size(contents.bytes)}; "
        f"schema {contents.schema_version}"
    )


def _deliveries(count: int) -> str:
    return f"{count:,} {'delivery' if count == 1 else 'deliveries'}"


def _document(found: "LedgerCheck") -> dict[str, object]:
    outcome = "ok" if found.is_sound else "damaged" if found.damage else "inconsistent"
    return {
        "ledger": found.where,
        "outcome": outcome,
        "problems": [*found.damage, *found.contradictions],
        "needs_migration": found.older,
        **(found.contents._asdict() if found.contents else {}),
    }


def _tell(found: "LedgerCheck", *, is_backup: bool) -> None:
    if found.contents:
        click.echo(f"{found.where}: {_counted(found.contents)}")
    else:
        click.echo(f"{found.where}: too damaged to be counted")
    if found.older:
        click.echo("  an earlier version made it: the next start brings it up to date; our rules wait")
    problems = [*found.damage, *found.contradictions]
    for problem in problems[:_SHOWN_PROBLEMS]:
        click.echo(f"  {style(problem, fg='red')}")
    if len(problems) > _SHOWN_PROBLEMS:
        click.echo(f"  and {len(problems) - _SHOWN_PROBLEMS} more: see --json")
    if found.is_sound:
        secho("ok", fg="green", bold=True)
        return
    secho("damaged" if found.damage else "inconsistent", fg="red", bold=True)
    if not found.damage:
        hint = "it is whole and says what cannot be: keep a backup of it, and report it as a defect"
    elif is_backup:
        hint = "it cannot be restored: take another backup"
    elif found.on_server:
        hint = (
            "stop the service on all machines, keep a copy of the server's data, and restore the last dump; "
            "then `list --adopt` takes back what was delivered since"
        )
    else:
        hint = (
            "stop the service, keep this file with its -wal and -shm, and restore the last backup: "
            "`xmode-transfer ledger restore FILE`; then `list --adopt` takes back what was delivered since"
        )
    click.echo(words.wrapped(hint, 2, "what to do"))
