"""`xmode-transfer ledger`: our durable record as a file: backed up, restored, checked."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xmode_transfer.domain.errors import ExitCode
from xmode_transfer.entrypoints.cli import Shell, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xmode_transfer.adapters.ledger.consistency import Contents
    from xmode_transfer.adapters.ledger.files import Copied, LedgerCheck, Told

_FILE = click.Path(dir_okay=False, path_type=Path)
_SHOWN_PROBLEMS = 20


@click.group(name="ledger")
def command() -> None:
    """The ledger's file: back it up while the service runs, restore it, check it.

    \b
    xmode-transfer ledger backup /backup/ledger-$(date +%F).db
    xmode-transfer ledger check /backup/ledger-2026-11-22.db
    xmode-transfer ledger restore /backup/ledger-2026-11-22.db
    """


@command.command()
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Replace FILE if it is there already.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def backup(shell: Shell, file: Path, force: bool, as_json: bool) -> int:
    """Copy the ledger into FILE, as it is at this moment; deliveries may go on meanwhile.

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
    """Check the ledger, or FILE (a backup): SQLite's integrity check, the schema's version, our own rules.

    Reads the whole file and changes nothing; the service may go on meanwhile.
    """
    from xmode_transfer.adapters.ledger import files

    found = files.check(_url(shell), file)
    if as_json:
        click.echo(json.dumps(_document(found), ensure_ascii=False))
    else:
        _tell(found, is_backup=file is not None)
    return ExitCode.DONE if found.is_sound else ExitCode.WILL_RETRY


def _url(shell: Shell) -> str:
    from xmode_transfer.adapters import config_files
    from xmode_transfer.adapters.secrets import ledger_url

    return ledger_url(config_files.load(shell.config_dir).service.ledger)


@contextmanager
def _shown(what: str) -> "Iterator[Told | None]":
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
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
        f"{click.style(word, fg='green', bold=True)} {made.path} ({words.size(made.size_bytes)}): ", nl=False
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
        "ledger": str(found.path),
        "outcome": outcome,
        "problems": [*found.damage, *found.contradictions],
        "needs_migration": found.older,
        **(found.contents._asdict() if found.contents else {}),
    }


def _tell(found: "LedgerCheck", *, is_backup: bool) -> None:
    if found.contents:
        click.echo(f"{found.path}: {_counted(found.contents)}")
    else:
        click.echo(f"{found.path}: too damaged to be counted")
    if found.older:
        click.echo("  an earlier version made it: the next start brings it up to date; our rules wait")
    problems = [*found.damage, *found.contradictions]
    for problem in problems[:_SHOWN_PROBLEMS]:
        click.echo(f"  {click.style(problem, fg='red')}")
    if len(problems) > _SHOWN_PROBLEMS:
        click.echo(f"  and {len(problems) - _SHOWN_PROBLEMS} more: see --json")
    if found.damage and is_backup:
        click.secho("damaged", fg="red", bold=True)
        click.echo(words.wrapped("it cannot be restored: take another backup", 2, "what to do"))
    elif found.damage:
        click.secho("damaged", fg="red", bold=True)
        hint = (
            "stop the service, keep this file with its -wal and -shm, and restore the last backup: "
            "`xmode-transfer ledger restore FILE`; then `list --adopt` takes back what was delivered since"
        )
        click.echo(words.wrapped(hint, 2, "what to do"))
    elif found.contradictions:
        click.secho("inconsistent", fg="red", bold=True)
        hint = "the file is whole and says what cannot be: keep a backup of it, and report it as a defect"
        click.echo(words.wrapped(hint, 2, "what to do"))
    else:
        click.secho("ok", fg="green", bold=True)
