"""A ledger's SQLite file: how it is opened, and how a transaction begins."""

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
from sqlalchemy import URL, Connection, Engine, Table
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import ArgumentError, DBAPIError

from xmode_transfer.ledger.database import BEGIN, OTHER, Database, Said, closed, missing, pooled
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

LOCKED = Said(
    LedgerLocked,
    "The ledger {where} is locked by another process",
    "Nothing was written, and it is tried again. If it goes on, find the process that holds the file open "
    "(`fuser -v {where}`), often a database shell or a backup, and end it.",
)
READ_ONLY = Said(
    LedgerReadOnly,
    "The ledger {where} cannot be written",
    "Nothing was written. The operator has to give the service's user write permission on the file and on "
    "its directory ({directory}), or mount the file system read-write, and start again.",
)
FULL = Said(
    LedgerFull,
    "There is no room left for the ledger {where}",
    "Nothing was written. The operator has to free space on the file system of {directory} (`df -h`); the "
    "deliveries then go on from what is recorded.",
)
CORRUPT = Said(
    LedgerCorrupt,
    "The ledger {where} is damaged or is not a ledger",
    "Do not delete it: it is the record of what was delivered. The operator has to check the path, stop the "
    "service, copy {where} with its -wal and -shm files, and restore the last backup (docs/ledger.md). The "
    "ledger must lie on a local disk, not on a network file system.",
)
_NO_FILE = Said(
    LedgerError,
    "The ledger {where} cannot be opened",
    "Set `ledger:` in service.yaml to a file (not a directory) in a directory that the service's user may "
    "write, and check that the process may open more files (`ulimit -n`).",
)
_DISK = Said(
    LedgerError,
    "The disk under the ledger {where} failed",
    "Nothing was written. The operator has to look at the disk (`dmesg`); the ledger must lie on a local "
    "disk, not on a network file system.",
)
# By the primary result codes of SQLite (https://www.sqlite.org/rescode.html); extended codes carry them in
# the low byte.
_BY_CODE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_PERM: READ_ONLY,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_AUTH: READ_ONLY,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CORRUPT: CORRUPT,
    sqlite3.SQLITE_NOTADB: CORRUPT,
    sqlite3.SQLITE_CANTOPEN: _NO_FILE,
    sqlite3.SQLITE_IOERR: _DISK,
}
_BY_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.EROFS: READ_ONLY,
}


def replaced(where: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} was moved, removed or replaced while it was in use.",
        hint="Nothing was written. The operator has to stop the service, put the right file in its place "
        "(without the -wal and -shm files of another), and start again.",
    )


def from_sqlite(error: BaseException, where: str) -> XmodeError:
    """The domain error for a ``sqlite3.Error``."""
    detail = str(error).rstrip(".") or type(error).__name__
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.DatabaseError) and "not a database" in detail:
        code = sqlite3.SQLITE_NOTADB  # Python's own module raises this one without a result code
    said = OTHER if code is None else _BY_CODE.get(code & 0xFF, OTHER)
    if said is _NO_FILE:
        # SQLite has one code for every reason why a file cannot be opened, so the reason is looked up.
        path, effective = Path(where), os.access in os.supports_effective_ids
        for asked, wanted in ((path, os.W_OK), (path.parent, os.W_OK | os.X_OK)):
            if asked.exists() and not os.access(asked, wanted, effective_ids=effective):
                return READ_ONLY.error(where, f"{asked} is not writable for this user")
    return said.error(where, detail)


def from_os(error: OSError, where: str) -> XmodeError:
    """The domain error for an OSError while the ledger's file or directory is made."""
    detail = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return _BY_ERRNO.get(error.errno or 0, _NO_FILE).error(where, detail)


BUSY_TIMEOUT_SECONDS = 30.0


class SqliteDatabase(Database):
    """An SQLite file.

    A writer takes the database's write lock as it begins, so that what it has read stays true until it
    commits. There is one such lock: the writers of this process queue for it in memory, which is fair and
    wakes at once, and only then wait for other processes, up to the busy timeout.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        super().__init__(str(path), engine)
        self._path = path
        self._file = _file_number(path)
        self._turn = threading.Lock()
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
        with self._turn:
            # IMMEDIATE takes the write lock now. A transaction that reads first and asks for the lock later
            # can be refused at that moment without any waiting, when another has written in between.
            connection.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
            try:
                with connection.begin():
                    if _file_number(self._path) != self._file:
                        raise replaced(self.where)
                    yield
            finally:
                connection.execution_options(**{BEGIN: "BEGIN"})

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            raise from_sqlite(getattr(error, "orig", None) or error, self.where) from error

    def insert(self, table: Table) -> Insert:
        return sqlite_insert(table)

    def now(self, connection: Connection, clock: "Clock") -> datetime:
        """This machine's: nobody else has the file."""
        return clock.now()

    def corrupt(self, detail: str) -> XmodeError:
        return CORRUPT.error(self.where, detail)

    def space(self) -> tuple[int | None, int]:
        """As the port says; the log counts too."""
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
    """Opens the database; a new file is made, readable by its owner only, if ``create`` allows it."""
    parsed = _parse(url)
    path = _path(parsed)
    engine = _engine(parsed, path)
    _make_file(path, create=create)
    database = SqliteDatabase(engine, path)
    try:
        with database.connected() as connection:
            _use_write_ahead_log(connection, _timeout_seconds(parsed))
    except BaseException:
        database.close()
        raise
    return database


def path_of(url: str) -> Path:
    """The file that a ledger's URL names. Raises ConfigError for a URL that names none."""
    return _path(_parse(url))


def _parse(url: str) -> URL:
    try:
        parsed = sqlalchemy.make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            f"ledger: {url!r} is not a database URL.", hint="Write it as sqlite:///var/ledger.db."
        ) from error
    if parsed.get_backend_name() != "sqlite":
        raise ConfigError(
            f"ledger: {parsed.get_backend_name()!r} is not a database that the ledger can lie in.",
            hint="Write it as sqlite:///var/ledger.db, or as postgresql://user@host/database.",
        )
    return parsed


def _path(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError(
            "ledger: the URL names no file; a ledger in memory would forget what was delivered.",
            hint="Write it as sqlite:///var/ledger.db.",
        )
    return Path(url.database).absolute()


def _timeout_seconds(url: URL) -> float:
    text = url.query.get("timeout", str(BUSY_TIMEOUT_SECONDS))
    try:
        return float(str(text))
    except ValueError as error:
        raise ConfigError(f"ledger: timeout={text} is not a number of seconds.") from error


def _engine(url: URL, path: Path) -> Engine:
    seconds = _timeout_seconds(url)
    # The mode keeps SQLite from making a new, empty file where an operator has moved ours away.
    uri = f"file:{quote(str(path))}?mode=rw"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, check_same_thread=False, timeout=seconds, isolation_level=None
        )
        for pragma in (
            f"busy_timeout = {int(seconds * 1000)}",
            "synchronous = FULL",  # a commit is on disk when it returns, whatever happens to the power
            "foreign_keys = ON",
            "cache_size = -16000",  # 16 MB
            "journal_size_limit = 67108864",  # after a large plan the log shrinks to 64 MiB
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    return pooled("sqlite://", connect, "BEGIN")


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
    """Tells the file apart from another one that has taken its place."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _use_write_ahead_log(connection: Connection, seconds: float) -> None:
    """Readers then never block the writer, nor the writer them. The file remembers it, so this is done
    once.

    SQLite waits for readers here by its busy timeout, but refuses at once where another is about to write,
    as one that turns to the log itself at this moment is: each would wait for the other. So the refused one
    lets go and asks again, for as long as anything else would wait for a lock."""
    deadline = time.monotonic() + seconds
    with closing(connection.connection.cursor()) as cursor:
        while cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
