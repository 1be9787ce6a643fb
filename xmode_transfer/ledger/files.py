"""The ledger as a whole: a backup of its file while the service runs, a restore that loses nothing, a check.

A copy made by `cp` may be torn, and misses what still lies in the -wal file. SQLite's online backup copies
one consistent state, while others write (https://www.sqlite.org/backup.html).
"""

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from urllib.parse import quote

from xmode_transfer.ledger import schema, server, sqlite
from xmode_transfer.ledger.database import is_dead, missing
from xmode_transfer.ledger.schema import Contents, LedgerCheck, is_postgres, path_of
from xmode_transfer.ledger.sqlite import BUSY_TIMEOUT_SECONDS
from xmode_transfer.ledger.tables.base import SCHEMA_VERSION
from xmode_transfer.model.errors import AlreadyRunning, ConfigError, LedgerCorrupt
from xmode_transfer.model.records import holder_shown

Told = Callable[[int, int], None]
"""Told how much is done, of how much: pages of a file, or rows."""
_PAGES_AT_A_TIME = 4096
BESIDE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Copied:
    """A finished backup or restore. ``kept`` is where a restore has put the ledger that was there before."""

    path: Path
    contents: Contents
    size_bytes: int
    kept: Path | None = None


def check(url: str, file: Path | None = None) -> LedgerCheck:
    """Checks the ledger, or another file such as a backup. Raises LedgerError when there is none or it cannot
    be read, LedgerTooNew, LedgerCorrupt when it is no ledger at all, and ConfigError when there is no
    ``file``."""
    if file is None and is_postgres(url):
        return server.check(url)
    path = path_of(url) if file is None else _named(file)
    with ExitStack() as stack:
        if file is not None:
            stack.enter_context(_as_backup(path, path))
        connection = stack.enter_context(_reading(path))
        found = _version(connection, path)
        damage = tuple(_damage(connection))
        older = found != SCHEMA_VERSION
        told: tuple[str, ...] = ()
        counted = None
        try:
            counted = schema.contents(connection.execute, found)
            told = () if older else tuple(schema.contradictions(connection.execute))
        except sqlite3.DatabaseError:
            if not damage:
                raise
        return LedgerCheck(str(path), counted, damage, told, older)


def backup(url: str, target: Path, *, overwrite: bool = False, told: Told | None = None) -> Copied:
    """Copies the ledger, as it is at this moment, into a file of its own; others may go on writing. The copy
    is checked before it gets its name. Raises ConfigError when there is something at ``target`` already, or
    no such directory."""
    if is_postgres(url):
        server.refuse_backup(url, target)
    source, target = path_of(url), target.absolute()
    if target == source:
        raise ConfigError(f"{target} is the ledger itself", hint="take another name for the backup")
    if target.exists() and not overwrite:
        raise ConfigError(f"there is a file {target} already", hint="take another name, or say --force")
    if not target.parent.is_dir():
        raise ConfigError(f"there is no directory {target.parent}", hint="make it, or take another name")
    partial = _partial(target)
    try:
        with _reading(source) as connection:
            _version(connection, source)
            _copy(connection, partial, told)
        counted = _proven(partial)
        _put(partial, target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return Copied(target, counted, target.stat().st_size)


def restore(url: str, file: Path, now: datetime, *, told: Told | None = None) -> Copied:
    """Puts a backup in the ledger's place. What was there is renamed and kept.

    Refused (AlreadyRunning) while a process holds a lease in the ledger that is there. A ledger that is too
    damaged to say so is no hindrance: that is what a restore is for. Leases in the backup are given back.
    """
    if is_postgres(url):
        server.refuse_restore(url, file)
    source, target = _named(file), path_of(url)
    if source == target:
        raise ConfigError(f"{source} is the ledger itself", hint="name the backup to restore")
    partial = _partial(target)
    try:
        with _as_backup(source, partial):
            with _reading(source) as connection:
                _version(connection, source)
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copy(connection, partial, told)
            _give_leases_back(partial)
            counted, size = _proven(partial), partial.stat().st_size
        with _alone(target.parent), _nobody_writes(target, now):
            kept = _set_aside(target, now)
            _put(partial, target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return Copied(target, counted, size, kept)


def _partial(target: Path) -> Path:
    """Beside the file that it becomes. The process's number alone would do, were there one machine."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")


def _named(file: Path) -> Path:
    """A file that somebody named on the command line."""
    path = file.absolute()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="check the path of the backup")
    return path


@contextmanager
def _as_backup(source: Path, partial: Path) -> Iterator[None]:
    """The advice for a damaged ledger is not what helps with a damaged backup, nor with a copy of it that
    nobody knows of."""
    try:
        yield
    except LedgerCorrupt as error:
        raise LedgerCorrupt(
            error.message.replace(str(partial), str(source)),
            hint="Nothing was changed. Take another backup; keep this file until one is found to be good.",
        ) from error


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One state of the file, for as long as the block lasts."""
    if not path.is_file():
        raise missing(str(path))
    with _translated(path), closing(_connect(path, "ro")) as connection:
        connection.execute("BEGIN")
        yield connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_SECONDS
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise sqlite.from_sqlite(error, str(path)) from error
    except OSError as error:
        raise sqlite.from_os(error, str(path)) from error


def _version(connection: sqlite3.Connection, path: Path) -> str:
    has_one = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if has_one else None
    if row is None:
        raise sqlite.CORRUPT.error(str(path), "it has no schema version")
    return schema.known(str(row[0]), str(path))


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    """What SQLite finds wrong with the file itself, a line each."""
    for (line,) in connection.execute(f"PRAGMA integrity_check({schema.MOST_PROBLEMS})"):
        if line != "ok":
            yield str(line)
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"{table}: a row refers to a row of {parent} that is not there"


def _copy(connection: sqlite3.Connection, partial: Path, told: Told | None) -> None:
    """The reading connection's transaction is open, so the copy does not begin anew when others write."""
    with _translated(partial):
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(_connect(partial, "rw")) as copy:
            connection.backup(
                copy,
                pages=_PAGES_AT_A_TIME,
                progress=None if told is None else lambda _, left, total: told(total - left, total),
                sleep=0.001,
            )
            # One file, without a -wal that could be forgotten; an opened ledger goes back to it.
            copy.execute("PRAGMA journal_mode = DELETE")


def _proven(partial: Path) -> Contents:
    """Raises LedgerCorrupt when the copy is not sound in itself: then so was what it was made of."""
    with _reading(partial) as connection:
        damage = list(_damage(connection))
        if damage:
            raise sqlite.CORRUPT.error(str(partial), f"{damage[0]} ({len(damage)} problems)")
        return schema.contents(connection.execute, _version(connection, partial))


def _give_leases_back(partial: Path) -> None:
    with _translated(partial), closing(_connect(partial, "rw")) as connection:
        connection.execute("UPDATE leases SET holder = NULL, claimed_at = NULL, expires_at = NULL")


def _put(partial: Path, target: Path) -> None:
    """Gives the finished file its name, on disk when this returns."""
    with _translated(target):
        for path in (partial, target.parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if path == partial:
                partial.replace(target)


@contextmanager
def _nobody_writes(target: Path, now: datetime) -> Iterator[None]:
    """Holds the write lock of the ledger that is there while it is replaced: a process that had it open finds
    another file at its next write, and is refused."""
    if not target.exists():
        yield
        return
    try:
        connection = _connect(target, "rw")
    except sqlite3.Error:
        yield
        return
    with closing(connection):
        try:
            # what is set aside is then one whole file
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            held = connection.execute(
                "SELECT name, holder, claimed_at, expires_at FROM leases WHERE holder IS NOT NULL"
            ).fetchall()
        except sqlite3.OperationalError as error:
            told = sqlite.from_sqlite(error, str(target))
            if told.retryable:  # locked: somebody works with it
                raise told from error
            held = []
        except sqlite3.DatabaseError:
            held = []
        for name, holder, claimed_at, expires_at in held:
            if datetime.fromisoformat(expires_at) > now and not is_dead(holder):
                who = f"{holder_shown(holder)} since {claimed_at}"
                raise AlreadyRunning(
                    f"{name} is being worked on, by {who}: the ledger is not replaced.",
                    hint="Stop the service (and every run), then restore again. Nothing was changed.",
                )
        yield


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One restore after the other, so that each keeps what the one before has put in place. Where the file
    system knows no locks, nobody waits."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _new_name(wanted: Path) -> Path:
    """The name, or the first with a number behind it, that nothing has. It is taken when this returns, by an
    empty file: a rename would replace whatever has it."""
    for name in chain([wanted], (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))):
        with suppress(FileExistsError):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            return name
    raise AssertionError("numbers have no end")


def _set_aside(target: Path, now: datetime) -> Path | None:
    """Renames the ledger that is there, with the files that belong to it."""
    if not target.exists():
        return None
    with _translated(target):
        kept = _new_name(target.with_name(f"{target.name}.before-restore-{now:%Y%m%dT%H%M%SZ}"))
        target.rename(kept)
        for suffix in BESIDE:
            beside = target.with_name(target.name + suffix)
            if beside.exists():
                beside.rename(kept.with_name(kept.name + suffix))
    return kept
