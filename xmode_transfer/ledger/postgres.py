"""A ledger's database on a PostgreSQL server: how a transaction begins and ends, and what is done when the
server is away."""

import pickle
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.exc import DBAPIError

from xmode_transfer.ledger import postgres_connection, postgres_errors
from xmode_transfer.ledger.database import BEGIN, Database, closed, is_dead, pooled
from xmode_transfer.ledger.postgres_connection import Address, Presence, is_gone
from xmode_transfer.ledger.postgres_errors import Answers, Asking, Patience
from xmode_transfer.ledger.tables import staged_objects
from xmode_transfer.ledger.tables.base import metadata
from xmode_transfer.model.errors import ConfigError, LedgerMissing, XmodeError

if TYPE_CHECKING:
    from xmode_transfer.model.process import Clock

T = TypeVar("T")

_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '60s'"
"""A writer whose machine was cut off keeps its locks no longer than that."""
_OTHERWISE = "BEGIN ISOLATION LEVEL READ COMMITTED"
_SCHEMA_LOCK = 0x786D6F6465  # "xmode"
_OLDEST_VERSION = 13
_SPOOLED_AT_A_TIME = 1_000
_SPOOL_MEMORY_BYTES = 4 * 1024 * 1024

# A commit is on disk when it returns: a server that is set up otherwise is told so for our connections.
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
    """Readers see one state and block nobody. Writers do not wait for each other but where they write the
    same rows: a lease's row is locked by whoever writes under it.

    A connection that breaks is replaced, and the whole transaction run again, also where it was lost during
    the commit and nobody knows whether that was written: what is written twice is there once.
    """

    def __init__(self, where: Address, holder: str) -> None:
        self._patience = Patience(where.where, where.patience_seconds)
        self._answers = Answers(self._patience.gone)
        engine = pooled(
            "postgresql+psycopg://",
            lambda: _open(where, self._answers),
            _OTHERWISE,
            paramstyle="format",  # what runs for every object goes to the driver with plain tuples
            use_native_hstore=False,
        )
        super().__init__(where.where, engine)
        self._presence = Presence(holder, lambda: _open(where, self._answers))
        self._closed = threading.Event()

    # --- Transactions

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._translated_on(self._patience.run(lambda: self._begun(_READ))) as connection:
            yield connection
            connection.commit()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        begun = self._patience.run(lambda: self._begun(_WRITE))
        with self._translated_on(begun) as connection, _committed(connection):
            yield connection

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        with self._translated_on(self._patience.run(self._connection)) as connection:
            yield connection

    @contextmanager
    def begin_writing(self, connection: Connection) -> Iterator[None]:
        connection.execution_options(**{BEGIN: _WRITE})
        connection.begin()
        try:
            with _committed(connection):
                yield
        finally:
            connection.execution_options(**{BEGIN: _OTHERWISE})

    def patiently(self, work: Callable[[], T]) -> T:
        return self._patience.run(work)

    @contextmanager
    def repeatable(self, rows: Iterable[T]) -> Iterator[Iterable[T]]:
        """On disk, but for a few: what comes from a listing comes once, and may be millions."""
        with tempfile.SpooledTemporaryFile(_SPOOL_MEMORY_BYTES) as file:
            source = iter(rows)
            while some := list(islice(source, _SPOOLED_AT_A_TIME)):
                pickle.dump(some, file, pickle.HIGHEST_PROTOCOL)
            yield _Spooled(file)

    def hurry(self) -> None:
        self._patience.end()
        self._answers.hurry()

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, psycopg.Error) as error:
            raise self._told(error) from error

    def _connection(self) -> Connection:
        if self._closed.is_set():
            raise closed(self.where)
        try:
            return self._engine.connect()
        except (DBAPIError, psycopg.Error) as error:
            raise postgres_errors.from_connecting(
                getattr(error, "orig", None) or error, self.where
            ) from error

    def _begun(self, how: str) -> Connection:
        """A connection in a transaction, on which the server has answered."""
        connection = self._connection()
        try:
            with self.translated():
                connection.execution_options(**{BEGIN: how})
                connection.begin()
        except BaseException:
            _throw_away(connection)
            raise
        return connection

    @contextmanager
    def _translated_on(self, connection: Connection) -> Iterator[Connection]:
        """Closes the connection at the end; one that broke is not used again, nor are those like it."""
        try:
            yield connection
        except (DBAPIError, psycopg.Error) as error:
            told = self._told(error)
            if isinstance(told, postgres_errors.Away | postgres_errors.Standby):
                _throw_away(connection)
                self._engine.dispose()
            raise told from error
        except postgres_errors.PASSING as error:
            if not isinstance(error, postgres_errors.Contended):
                _throw_away(connection)
                self._engine.dispose()
            raise
        finally:
            with suppress(DBAPIError, psycopg.Error):
                connection.close()

    def _told(self, error: DBAPIError | psycopg.Error) -> XmodeError:
        return postgres_errors.from_server(getattr(error, "orig", None) or error, self.where)

    # --- Statements

    def stage(self, connection: Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        """By COPY, which is quicker than row by row and knows no ON CONFLICT."""
        with closing(_cursor(connection)) as cursor:
            cursor.execute(_INCOMING)
            with cursor.copy(_COPY_INCOMING) as copy:
                for row in {row[0]: row for row in rows}.values():
                    copy.write_row(row)
            cursor.execute(_STAGE_INCOMING)

    def insert(self, table: Table) -> Insert:
        return postgres_insert(table)

    # --- Leases

    def now(self, connection: Connection, clock: "Clock") -> datetime:
        """The server's, since the clocks of the machines that claim leases differ."""
        found = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        assert isinstance(found, datetime)
        return found.astimezone(UTC)

    def presence(self, holder: str) -> str | None:
        if holder != self._presence.holder:
            return None
        return self._patience.run(self._present)

    def _present(self) -> str:
        if self._closed.is_set():
            raise closed(self.where)
        try:
            return self._presence.mark()
        except psycopg.Error as error:
            raise postgres_errors.from_connecting(error, self.where) from error

    def is_dead(self, connection: Connection, holder: str, presence: str | None) -> bool:
        known = is_dead(holder)
        return (presence is not None and is_gone(connection, holder, presence)) if known is None else known

    # --- The database itself

    def lock_schema(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})

    def corrupt(self, detail: str) -> XmodeError:
        return postgres_errors.NOT_OURS.error(self.where, detail)

    def space(self) -> tuple[int | None, int]:
        """Indexes included."""
        names = {"names": [table.name for table in metadata.sorted_tables]}
        return None, int(self.read(lambda c: c.execute(_USED_BYTES, names).scalar_one()))

    def close(self) -> None:
        self.hurry()
        self._closed.set()
        self._answers.close()
        self._presence.close()
        with self.translated():
            self._engine.dispose()


class _Spooled(Iterable[T]):
    """What was pickled into a file, list by list, as often as it is asked for."""

    def __init__(self, file: "tempfile.SpooledTemporaryFile[bytes] | IO[bytes]") -> None:
        self._file = file
        self._end = file.tell()

    def __iter__(self) -> Iterator[T]:
        self._file.seek(0)
        while self._file.tell() < self._end:
            yield from pickle.load(self._file)


def connect(url: str, *, holder: str, waits: bool = True) -> PostgresDatabase:
    """Opens the database that the URL names. A server that is starting is waited for, unless the caller does
    that itself; one that is not there is not, since then more likely the URL is wrong."""
    where = postgres_connection.parse(url)
    database = PostgresDatabase(where, holder)
    try:
        (database._patience if waits else Patience(where.where, 0)).run(lambda: _prove(where))
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def connected(url: str) -> Iterator[tuple["psycopg.Connection[Any]", str]]:
    """A connection beside the ledger's own, which commits each statement, and the database's name in
    messages. Raises LedgerError instead of the driver's errors, also for what the block does."""
    where = postgres_connection.parse(url)
    try:
        connection = psycopg.connect(where.conninfo, autocommit=True)
    except psycopg.Error as error:
        raise postgres_errors.from_connecting(error, where.where) from error
    try:
        with connection:
            yield connection, where.where
    except psycopg.Error as error:
        raise postgres_errors.from_server(error, where.where) from error


def _prove(where: Address) -> None:
    try:
        connection = _open(where)
    except psycopg.Error as error:
        told = postgres_errors.from_connecting(error, where.where)
        if isinstance(told, postgres_errors.UnknownHost):
            raise LedgerMissing(told.message, hint=told.hint) from error
        if isinstance(told, postgres_errors.Away) and not postgres_errors.is_starting(told):
            raise postgres_errors.for_good(told, 0) from error
        raise told from error
    with connection:
        version = connection.info.server_version
        if version < _OLDEST_VERSION * 10_000:
            raise ConfigError(
                f"ledger: the server of {where.where} is PostgreSQL {version // 10_000}, which is too old.",
                hint=f"The operator has to upgrade it to PostgreSQL {_OLDEST_VERSION} or later.",
            )
        encoding = connection.info.parameter_status("server_encoding") or ""
        if encoding != "UTF8":
            raise ConfigError(
                f"ledger: the database {where.where} has the encoding {encoding}, which cannot hold every "
                "name.",
                hint="The operator has to make one with UTF8: `createdb --encoding=UTF8 --template=template0 "
                "NAME`.",
            )


def _open(where: Address, answers: Answers | None = None) -> Asking:
    connection = Asking.connect(where.conninfo, autocommit=True)
    if answers is not None:
        answers.expect(connection)
    try:
        waited = f"{int(where.lock_seconds * 1000)}"
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [waited])
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


def _cursor(connection: Connection) -> "psycopg.Cursor[Any]":
    return cast("psycopg.Cursor[Any]", connection.connection.cursor())


def _throw_away(connection: Connection) -> None:
    with suppress(DBAPIError, psycopg.Error):
        if not connection.closed and not connection.invalidated:
            connection.invalidate()
    with suppress(DBAPIError, psycopg.Error):
        connection.close()
