"""A ledger in an SQLite file: opening it, its transactions and its errors."""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError

from xmode_transfer.ledger.database import BEGIN, OTHER, Database, Message, closed, missing, pooled
from xmode_transfer.model.errors import (
    ConfigError,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerReadOnly,
    XmodeError,
)

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

LOCKED = Message(
    LedgerLocked,
    "The ledger {where} is locked by another process",
    "Nothing was written. The write is retried. If this continues, find the process that holds the file open "
    "(`fuser -v {where}`), often a database shell or a backup, and end it.",
)
READ_ONLY = Message(
    LedgerReadOnly,
    "The ledger {where} cannot be written",
    "Nothing was written. The operator has to give the service's user write permission on the file and on "
    "its directory ({directory}), or mount the file system read-write, and start again.",
)
FULL = Message(
    LedgerFull,
    "There is no room left for the ledger {where}",
    "Nothing was written. The operator has to free space on the file system of {directory} (`df -h`); "
    "deliveries then continue from what is recorded.",
)
CORRUPT = Message(
    LedgerCorrupt,
    "The ledger {where} is damaged or is not a ledger",
    "Do not delete it: it is the record of what was delivered. The operator has to check the path, stop the "
    "service, copy {where} with its -wal and -shm files, and restore the last backup (docs/ledger.md). The "
    "ledger must be on a local disk, not on a network file system.",
)
_NO_FILE = Message(
    LedgerError,
    "The ledger {where} cannot be opened",
    "Set `ledger:` in service.yaml to a file (not a directory) in a directory that the service's user may "
    "write, and check that the process may open more files (`ulimit -n`).",
)
_DISK = Message(
    LedgerError,
    "The disk under the ledger {where} failed",
    "Nothing was written. The operator has to check the disk (`dmesg`); the ledger must be on a local disk, "
    "not on a network file system.",
)
# SQLite's primary result codes, the low byte of extended ones (https://www.sqlite.org/rescode.html).
_BY_CODE = {
    **dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), LOCKED),
    **dict.fromkeys((sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH), READ_ONLY),
    sqlite3.SQLITE_FULL: FULL,
    **dict.fromkeys((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB), CORRUPT),
    sqlite3.SQLITE_CANTOPEN: _NO_FILE,
    sqlite3.SQLITE_IOERR: _DISK,
}
_BY_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), READ_ONLY),
}


def from_sqlite(error: BaseException, where: str) -> XmodeError:
    detail = str(error).rstrip(".") or type(error).__name__
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.DatabaseError) and "not a database" in detail:
        code = sqlite3.SQLITE_NOTADB  # the module itself raises this one without a result code
    message = OTHER if code is None else _BY_CODE.get(code & 0xFF, OTHER)
    if message is _NO_FILE:
        # SQLite has one code for every reason why a file cannot be opened.
        path, effective = Path(where), os.access in os.supports_effective_ids
        for checked, wanted in ((path, os.W_OK), (path.parent, os.W_OK | os.X_OK)):
            if checked.exists() and not os.access(checked, wanted, effective_ids=effective):
                return READ_ONLY.error(where, f"{checked} is not writable for this user")
    return message.error(where, detail)


def from_os(error: OSError, where: str) -> XmodeError:
    detail = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return _BY_ERRNO.get(error.errno or 0, _NO_FILE).error(where, detail)


BUSY_TIMEOUT_SECONDS = 30.0


class SqliteDatabase(Database):
    """A writer takes the file's only write lock when it begins: what it reads stays true until the commit.
    The writers of this process queue in memory, which is fair and wakes at once; one then waits for other
    processes, up to the busy timeout."""

    no_ledger = CORRUPT

    def __init__(self, engine: Engine, path: Path) -> None:
        super().__init__(str(path), engine)
        self._path = path
        self._file = _file_number(path)
        self._writers = threading.Lock()
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.connected() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self.connected() as connection, self.begin_writing(connection):
            yield connection

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        if self._closed:
            raise closed(self.where)
        with self.translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def begin_writing(self, connection: Connection) -> Iterator[None]:
        with self._writers:
            # A transaction that reads first and locks later is refused, without waiting, if another has
            # written in between.
            connection.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
            try:
                with connection.begin():
                    if _file_number(self._path) != self._file:
                        raise LedgerError(
                            f"The ledger {self.where} was moved, removed or replaced while it was in use.",
                            hint="Nothing was written. The operator has to stop the service, put the right "
                            "file in its place (without the -wal and -shm files of another), and start "
                            "again.",
                        )
                    yield
            finally:
                connection.execution_options(**{BEGIN: "BEGIN"})

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            raise from_sqlite(getattr(error, "orig", None) or error, self.where) from error

    def now(self, connection: Connection, clock: "Clock") -> datetime:
        return clock.now()

    def space(self) -> tuple[int | None, int]:
        used = 0
        for end in ("", "-wal"):
            with suppress(OSError):
                used += self._path.with_name(self._path.name + end).stat().st_size
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return None, used
        return disk.f_bavail * disk.f_frsize, used

    def close(self) -> None:
        self._closed = True
        with self.translated():
            self._engine.dispose()


def connect(url: str, *, create: bool) -> SqliteDatabase:
    """Open the file; ``create`` allows a new one, readable by its owner only."""
    path, seconds = _parse(url)
    # The mode prevents a new, empty file where an operator has moved ours away.
    uri = f"file:{quote(str(path))}?mode=rw"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, check_same_thread=False, timeout=seconds, isolation_level=None
        )
        for pragma in (
            f"busy_timeout = {int(seconds * 1000)}",
            "synchronous = FULL",  # a commit that has returned survives a power cut
            "foreign_keys = ON",
            "cache_size = -16000",  # 16 MB
            "journal_size_limit = 67108864",  # after a large plan the log shrinks to 64 MiB
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    _make_file(path, create=create)
    database = SqliteDatabase(pooled("sqlite://", connect, "BEGIN"), path)
    try:
        with database.connected() as connection:
            _use_write_ahead_log(connection, seconds)
    except BaseException:
        database.close()
        raise
    return database


def path_of(url: str) -> Path:
    """Raise ConfigError for a URL without a file."""
    return _parse(url)[0]


def _parse(text: str) -> tuple[Path, float]:
    """Return the file and the busy timeout in seconds."""
    try:
        url = sqlalchemy.make_url(text)
    except ArgumentError as error:
        raise ConfigError(
            f"ledger: {text!r} is not a database URL.", hint="Write it as sqlite:///var/ledger.db."
        ) from error
    if url.get_backend_name() != "sqlite":
        raise ConfigError(
            f"ledger: {url.get_backend_name()!r} is not a database for the ledger.",
            hint="Write it as sqlite:///var/ledger.db, or as postgresql://user@host/database.",
        )
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError(
            "ledger: the URL names no file; a ledger in memory would forget what was delivered.",
            hint="Write it as sqlite:///var/ledger.db.",
        )
    timeout = str(url.query.get("timeout", BUSY_TIMEOUT_SECONDS))
    try:
        return Path(url.database).absolute(), float(timeout)
    except ValueError as error:
        raise ConfigError(f"ledger: timeout={timeout} is not a number of seconds.") from error


def _make_file(path: Path, *, create: bool) -> None:
    try:
        if path.exists():
            return
        if not create:
            raise missing(str(path))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise from_os(error, str(path)) from error


def _file_number(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _use_write_ahead_log(connection: Connection, seconds: float) -> None:
    """Switch the file, once for good, to a log with which readers and the writer do not block each other. The
    busy timeout does not cover a process that switches at the same moment, so a refused one retries."""
    deadline = time.monotonic() + seconds
    with closing(connection.connection.cursor()) as cursor:
        while cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
