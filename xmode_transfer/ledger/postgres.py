"""A ledger in a database on a PostgreSQL server: opening it, and its transactions."""

import pickle
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from xmode_transfer.ledger import postgres_errors
from xmode_transfer.ledger.database import BEGIN, Database, closed, is_dead, pooled
from xmode_transfer.ledger.postgres_connection import (
    Address,
    Liveness,
    ReconnectPolicy,
    Watchdog,
    WatchedConnection,
    is_gone,
    parse,
)
from xmode_transfer.ledger.tables import metadata, staged_objects
from xmode_transfer.model.errors import ConfigError, LedgerMissing

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

T = TypeVar("T")

_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '60s'"
"""A writer that lost its connection keeps its locks no longer."""
_DEFAULT = "BEGIN ISOLATION LEVEL READ COMMITTED"
_SCHEMA_LOCK = 0x786D6F6465  # "xmode"
_OLDEST_VERSION = 13
_SPOOLED_AT_A_TIME = 1_000
_SPOOL_MEMORY_BYTES = 4 * 1024 * 1024

# A commit is on disk when it returns, whatever the server's default.
_DURABLE = """
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
_UNTIMED = """
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout',
                   'transaction_timeout')
"""
_USED_BYTES = text(
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname = ANY(:names)"
)

_COLUMNS = [column.name for column in staged_objects.columns]
_INCOMING = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming_objects (LIKE staged_objects) ON COMMIT DELETE ROWS"
)
_COPY_INCOMING = f"COPY incoming_objects ({', '.join(_COLUMNS)}) FROM STDIN"
_STAGE_INCOMING = (
    f"INSERT INTO staged_objects ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} FROM incoming_objects "
    f"ON CONFLICT (name) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)


class PostgresDatabase(Database):
    """Writers wait for each other only where they write the same rows. If a connection breaks, the whole
    transaction is run again, also if it broke during the commit and the outcome is unknown."""

    no_ledger = postgres_errors.NOT_OURS

    def __init__(self, address: Address, holder: str) -> None:
        self._policy = ReconnectPolicy(address.where, address.patience_seconds)
        self._watchdog = Watchdog(self._policy.gone)
        engine = pooled(
            "postgresql+psycopg://",
            lambda: _open(address, self._watchdog),
            _DEFAULT,
            paramstyle="format",  # the statements for every object get the driver's plain tuples
            use_native_hstore=False,
        )
        super().__init__(address.where, engine)
        self._liveness = Liveness(holder, lambda: _open(address, self._watchdog))
        self._closed = threading.Event()

    def reading(self) -> AbstractContextManager[Connection]:
        return self._transaction(_READ)

    def writing(self) -> AbstractContextManager[Connection]:
        return self._transaction(_WRITE)

    @contextmanager
    def _transaction(self, how: str) -> Iterator[Connection]:
        begun = self._policy.run(lambda: self._begun(how))
        with self._translated_on(begun) as connection, _committed(connection):
            yield connection

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        opened = self._policy.run(lambda: self._connecting(self._engine.connect))
        with self._translated_on(opened) as connection:
            yield connection

    @contextmanager
    def begin_writing(self, connection: Connection) -> Iterator[None]:
        connection.execution_options(**{BEGIN: _WRITE})
        connection.begin()
        try:
            with _committed(connection):
                yield
        finally:
            connection.execution_options(**{BEGIN: _DEFAULT})

    def retrying(self, work: Callable[[], T]) -> T:
        return self._policy.run(work)

    @contextmanager
    def repeatable(self, rows: Iterable[T]) -> Iterator[Callable[[], Iterator[T]]]:
        """A listing can be read once, and may have millions of rows: they are on disk."""
        with tempfile.SpooledTemporaryFile(_SPOOL_MEMORY_BYTES) as file:
            source = iter(rows)
            while some := list(islice(source, _SPOOLED_AT_A_TIME)):
                pickle.dump(some, file, pickle.HIGHEST_PROTOCOL)
            end = file.tell()

            def again() -> Iterator[T]:
                file.seek(0)
                while file.tell() < end:
                    yield from pickle.load(file)

            yield again

    def hurry(self) -> None:
        self._policy.end()
        self._watchdog.hurry()

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, psycopg.Error) as error:
            raise postgres_errors.from_server(error, self.where) from error

    def _connecting(self, connect: Callable[[], T]) -> T:
        if self._closed.is_set():
            raise closed(self.where)
        try:
            return connect()
        except (DBAPIError, psycopg.Error) as error:
            raise postgres_errors.from_connecting(error, self.where) from error

    def _begun(self, how: str) -> Connection:
        """Return a connection in a transaction that the server has begun."""
        connection = self._connecting(self._engine.connect)
        try:
            with self.translated():
                connection.execution_options(**{BEGIN: how})
                connection.begin()
        except BaseException:
            _discard(connection)
            raise
        return connection

    @contextmanager
    def _translated_on(self, connection: Connection) -> Iterator[Connection]:
        """Close the connection at the end; if it broke, close all pooled connections too."""
        try:
            with self.translated():
                yield connection
        except (postgres_errors.Away, postgres_errors.Standby):
            _discard(connection)
            self._engine.dispose()
            raise
        finally:
            with suppress(DBAPIError, psycopg.Error):
                connection.close()

    def stage(self, connection: Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        """With COPY, which is faster than row by row but has no ON CONFLICT."""
        with closing(cast("psycopg.Cursor[Any]", connection.connection.cursor())) as cursor:
            cursor.execute(_INCOMING)
            with cursor.copy(_COPY_INCOMING) as copy:
                for row in {row[0]: row for row in rows}.values():
                    copy.write_row(row)
            cursor.execute(_STAGE_INCOMING)

    def now(self, connection: Connection, clock: "Clock") -> datetime:
        """Return the server's time: the clocks of the machines that claim leases differ."""
        found = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        assert isinstance(found, datetime)
        return found.astimezone(UTC)

    def presence(self, holder: str) -> str | None:
        if holder != self._liveness.holder:
            return None
        return self._policy.run(lambda: self._connecting(self._liveness.mark))

    def is_dead(self, connection: Connection, holder: str, presence: str | None) -> bool:
        known = is_dead(holder)
        return known if known is not None else presence is not None and is_gone(connection, holder, presence)

    def lock_schema(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})

    def space(self) -> tuple[int | None, int]:
        names = {"names": [table.name for table in metadata.sorted_tables]}
        return None, int(self.read(lambda c: c.execute(_USED_BYTES, names).scalar_one()))

    def close(self) -> None:
        self.hurry()
        self._closed.set()
        self._watchdog.close()
        self._liveness.close()
        with self.translated():
            self._engine.dispose()


def connect(url: str, *, holder: str, waits: bool = True) -> PostgresDatabase:
    """Open the database. ``waits`` waits for a server that is starting, but not for one that cannot be
    reached: the URL is more likely wrong."""
    address = parse(url)
    database = PostgresDatabase(address, holder)
    try:
        policy = database._policy if waits else ReconnectPolicy(address.where, 0)
        policy.run(lambda: _prove(address))
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def connected(url: str) -> Iterator[tuple["psycopg.Connection[Any]", str]]:
    """A connection that commits each statement, and the database's name for messages. Raises LedgerErrors,
    also for the block."""
    address = parse(url)
    try:
        connection = psycopg.connect(address.conninfo, autocommit=True)
    except psycopg.Error as error:
        raise postgres_errors.from_connecting(error, address.where) from error
    try:
        with connection:
            yield connection, address.where
    except psycopg.Error as error:
        raise postgres_errors.from_server(error, address.where) from error


def _prove(address: Address) -> None:
    """Raise ConfigError for a server that is too old, or a database that cannot store every name."""
    try:
        connection = _open(address)
    except psycopg.Error as error:
        known = postgres_errors.from_connecting(error, address.where)
        if isinstance(known, postgres_errors.UnknownHost):
            raise LedgerMissing(known.message, hint=known.hint) from error
        if isinstance(known, postgres_errors.Away) and not postgres_errors.is_starting(known):
            raise postgres_errors.final(known) from error
        raise known from error
    with connection:
        version = connection.info.server_version
        if version < _OLDEST_VERSION * 10_000:
            raise ConfigError(
                f"ledger: the server of {address.where} is PostgreSQL {version // 10_000}, which is too old.",
                hint=f"The operator has to upgrade it to PostgreSQL {_OLDEST_VERSION} or later.",
            )
        encoding = connection.info.parameter_status("server_encoding") or ""
        if encoding != "UTF8":
            raise ConfigError(
                f"ledger: the database {address.where} has the encoding {encoding}, which cannot hold every "
                "name.",
                hint="The operator has to make one with UTF8: `createdb --encoding=UTF8 --template=template0 "
                "NAME`.",
            )


def _open(address: Address, watchdog: Watchdog | None = None) -> WatchedConnection:
    connection = WatchedConnection.connect(address.conninfo, autocommit=True)
    if watchdog is not None:
        watchdog.watch(connection)
    try:
        timeout = f"{int(address.lock_seconds * 1000)}"
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [timeout])
        connection.execute(_DURABLE)
        connection.execute(_UNTIMED)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _committed(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(DBAPIError, psycopg.Error):
            connection.rollback()
        raise
    connection.commit()


def _discard(connection: Connection) -> None:
    with suppress(DBAPIError, psycopg.Error):
        if not connection.closed and not connection.invalidated:
            connection.invalidate()
    with suppress(DBAPIError, psycopg.Error):
        connection.close()
