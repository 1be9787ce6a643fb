"""Checks of a ledger; backup and restore of its file, with SQLite's online backup: a copy by `cp` may be
inconsistent, and misses the -wal file (https://www.sqlite.org/backup.html)."""

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from shlex import quote as shell_quoted
from urllib.parse import parse_qsl, quote, urlsplit

import sqlalchemy as sa

from xmode_transfer.config.secrets import shown
from xmode_transfer.ledger import schema, sqlite
from xmode_transfer.ledger.database import Database, is_dead, missing
from xmode_transfer.ledger.schema import Contents, LedgerCheck, is_postgres
from xmode_transfer.ledger.sqlite import BUSY_TIMEOUT_SECONDS, path_of
from xmode_transfer.ledger.tables import SCHEMA_VERSION, metadata
from xmode_transfer.model.errors import AlreadyRunning, ConfigError, LedgerCorrupt
from xmode_transfer.model.records import holder_shown

Progress = Callable[[int, int], None]
"""A callback with the amount done and the total: pages of a file, or rows."""
BESIDE = ("-wal", "-shm", "-journal")
_PAGES_AT_A_TIME = 4096
_PASSWORD = "The command asks for the password, or takes it from PGPASSFILE or PGPASSWORD."
_OUR_SCHEMA = "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
_UNPROVEN = sa.text(
    "SELECT conrelid::regclass::text || ': the constraint ' || conname || ' was never validated' "
    f"FROM pg_constraint WHERE NOT convalidated AND connamespace = {_OUR_SCHEMA} "
    "UNION ALL SELECT indrelid::regclass::text || ': the index ' || indexrelid::regclass::text "
    "|| ' is not valid' FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
    f"WHERE NOT indisvalid AND relnamespace = {_OUR_SCHEMA}"
)


@dataclass(frozen=True, slots=True)
class Copied:
    """``kept`` is the new name of the ledger that a restore replaced."""

    path: Path
    contents: Contents
    size_bytes: int
    kept: Path | None = None


def check(url: str, file: Path | None = None) -> LedgerCheck:
    """Check the ledger, or another file such as a backup, while others use it. Raises LedgerErrors, and
    ConfigError for a ``file`` that does not exist."""
    if file is None and is_postgres(url):
        with closing(schema.connect(url, create=False)) as database:
            return database.read(lambda connection: _check_server(database, connection))
    path = path_of(url) if file is None else _named(file)
    with ExitStack() as stack:
        if file is not None:
            stack.enter_context(_as_backup(path, path))
        connection = stack.enter_context(_reading(path))
        found = _version(connection, path)
        damage = tuple(_damage(connection))
        try:
            return schema.checked(connection.execute, str(path), found, damage)
        except sqlite3.DatabaseError:
            if not damage:
                raise
        contents = None
        with suppress(sqlite3.DatabaseError):
            contents = schema.contents(connection.execute, found)
        return LedgerCheck(str(path), contents, damage, (), older=found != SCHEMA_VERSION)


def backup(url: str, target: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Copied:
    """Copy the ledger into a file while others write. The copy is checked before it gets its name. Raises
    ConfigError for an unsuitable target or a ledger on a server."""
    if is_postgres(url):
        names = dict(parse_qsl(urlsplit(url).query))
        only = f"--schema={shell_quoted(names['schema'])} " if "schema" in names else ""
        raise ConfigError(
            "the ledger is on a server, whose own tool backs it up: "
            f"pg_dump --format=custom {only}--file={shell_quoted(str(target))} {_for_libpq(url)}",
            hint=f"The service may run meanwhile. {_PASSWORD}",
        )
    source, target = path_of(url), target.absolute()
    if target == source:
        raise ConfigError(f"{target} is the ledger itself", hint="choose another name for the backup")
    if target.exists() and not overwrite:
        raise ConfigError(f"there is a file {target} already", hint="choose another name, or use --force")
    if not target.parent.is_dir():
        raise ConfigError(f"there is no directory {target.parent}", hint="create it, or choose another name")
    with _partial(target) as partial:
        with _reading(source) as connection:
            _version(connection, source)
            _copy(connection, partial, progress)
        contents = _proven(partial)
        _put(partial, target)
    return Copied(target, contents, target.stat().st_size)


def restore(url: str, file: Path, now: datetime, *, progress: Progress | None = None) -> Copied:
    """Replace the ledger with a backup; leases in it are returned. The old ledger is renamed and kept. Raises
    ConfigError, and AlreadyRunning while a process holds a lease in the old ledger, unless it is too damaged
    to tell."""
    if is_postgres(url):
        raise ConfigError(
            "the ledger is on a server, whose own tool restores it: pg_restore --clean --if-exists "
            f"--single-transaction --no-owner --dbname={_for_libpq(url)} {shell_quoted(str(file))}",
            hint=f"Stop the service on all machines first. {_PASSWORD}",
        )
    source, target = _named(file), path_of(url)
    if source == target:
        raise ConfigError(f"{source} is the ledger itself", hint="name the backup to restore")
    with _partial(target) as partial:
        with _as_backup(source, partial):
            with _reading(source) as connection:
                _version(connection, source)
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copy(connection, partial, progress)
            with _translated(partial), closing(_connect(partial, "rw")) as copy:
                copy.execute("UPDATE leases SET holder = NULL, claimed_at = NULL, expires_at = NULL")
            contents, size = _proven(partial), partial.stat().st_size
        with _one_at_a_time(target.parent), _without_writers(target, now):
            kept = _set_aside(target, now)
            _put(partial, target)
    return Copied(target, contents, size, kept)


def _for_libpq(url: str) -> str:
    """Quote the URL for a shell, without a password and our own parameters."""
    base, _, query = shown(url).partition("?")
    ours = ("patience", "timeout", "schema")
    kept = [pair for pair in query.split("&") if pair and pair.partition("=")[0] not in ours]
    return shell_quoted(base + (f"?{'&'.join(kept)}" if kept else ""))


def _check_server(database: Database, connection: sa.Connection) -> LedgerCheck:
    found = schema.version_of(connection, database)
    if found is None:
        raise missing(database.where)
    # What the server does not enforce, or should have prevented.
    damage = [str(line) for line in connection.execute(_UNPROVEN).scalars()]
    for table in metadata.sorted_tables:
        for constraint in sorted(table.foreign_key_constraints, key=lambda item: str(item.name)):
            damage += _orphans(connection, constraint)
    query = connection.exec_driver_sql
    return schema.checked(query, database.where, found, tuple(damage), on_server=True)


def _orphans(connection: sa.Connection, constraint: sa.ForeignKeyConstraint) -> list[str]:
    table, parent = constraint.table, constraint.referred_table.alias("parent")
    pairs = [(element.parent, parent.c[element.column.name]) for element in constraint.elements]
    lost = (
        sa.select(table.c[pairs[0][0].name])
        .where(
            *(child.is_not(None) for child, _ in pairs),
            ~sa.exists().where(*(child == column for child, column in pairs)),
        )
        .limit(schema.MOST_PROBLEMS)
        .subquery()
    )
    found = connection.execute(sa.select(sa.func.count()).select_from(lost)).scalar_one()
    return [_orphan(table.name, constraint.referred_table.name)] * found


def _orphan(table: str, parent: str) -> str:
    return f"{table}: a row refers to a row of {parent} that is not there"


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A path beside the target for the unfinished file, which is gone at the end. On a shared directory the
    process ID is not unique."""
    partial = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield partial
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _named(file: Path) -> Path:
    path = file.absolute()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="check the path of the backup")
    return path


@contextmanager
def _as_backup(source: Path, partial: Path) -> Iterator[None]:
    try:
        yield
    except LedgerCorrupt as error:
        raise LedgerCorrupt(
            error.message.replace(str(partial), str(source)),
            hint="Nothing was changed. Use another backup; keep this file until one proves good.",
        ) from error


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
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
    for (line,) in connection.execute(f"PRAGMA integrity_check({schema.MOST_PROBLEMS})"):
        if line != "ok":
            yield str(line)
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield _orphan(table, parent)


def _copy(connection: sqlite3.Connection, partial: Path, progress: Progress | None) -> None:
    """In the connection's open transaction, so the copy does not restart when others write."""
    with _translated(partial):
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(_connect(partial, "rw")) as copy:
            connection.backup(
                copy,
                pages=_PAGES_AT_A_TIME,
                progress=progress and (lambda _, left, total: progress(total - left, total)),
                sleep=0.001,
            )
            # One file, without a -wal that could be forgotten; a ledger that is opened switches back.
            copy.execute("PRAGMA journal_mode = DELETE")


def _proven(partial: Path) -> Contents:
    """Raise LedgerCorrupt if the copy is damaged: then its source is, too."""
    with _reading(partial) as connection:
        damage = list(_damage(connection))
        if damage:
            raise sqlite.CORRUPT.error(str(partial), f"{damage[0]} ({len(damage)} problems)")
        return schema.contents(connection.execute, _version(connection, partial))


def _put(partial: Path, target: Path) -> None:
    """Give the finished file its name, durably."""
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
def _without_writers(target: Path, now: datetime) -> Iterator[None]:
    """Hold the old ledger's write lock while it is replaced: a process that has it open finds another file at
    its next write."""
    try:
        connection = _connect(target, "rw")
    except sqlite3.Error:  # missing, or too damaged
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
        except sqlite3.DatabaseError as error:
            known = sqlite.from_sqlite(error, str(target))
            if known.retryable:  # locked: another process uses it
                raise known from error
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
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """One restore after the other, so that each keeps what the one before has put in place. Has no effect on
    a file system without locks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _set_aside(target: Path, now: datetime) -> Path | None:
    if not target.exists():
        return None
    wanted = f"{target.name}.before-restore-{now:%Y%m%dT%H%M%SZ}"
    with _translated(target):
        for number in count(1):
            kept = target.with_name(wanted if number == 1 else f"{wanted}-{number}")
            # An empty file reserves the name: a rename would replace another's.
            with suppress(FileExistsError):
                os.close(os.open(kept, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                break
        target.rename(kept)
        for suffix in BESIDE:
            beside = target.with_name(target.name + suffix)
            if beside.exists():
                beside.rename(kept.with_name(kept.name + suffix))
    return kept
