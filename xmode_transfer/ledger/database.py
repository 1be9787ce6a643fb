"""The database under the ledger: what every one of them can do.

What is not the same in SQLite and in PostgreSQL is behind this class, one room each; ``engine`` chooses by
the URL. Everything else in this package is said once, in SQLAlchemy's words.
"""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql import ClauseElement

from xmode_transfer.model.errors import LedgerError, LedgerMissing, XmodeError

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
    from sqlalchemy.sql.compiler import SQLCompiler

    from xmode_transfer.model.process import Clock

_PROC = Path("/proc")
_UNKNOWN = "-"
_ENDED_STATES = frozenset("ZX")  # a zombie has ended; only its parent has not asked yet


def this_process() -> str:
    """This process as a holder: ``host/boot-id/pid/start-time``, with ``-`` for what the system does not
    tell."""
    pid = os.getpid()
    _, started = _state_and_start(pid) or ("", _UNKNOWN)
    return f"{_host()}/{_boot()}/{pid}/{started}"


def is_dead(holder: str) -> bool | None:
    """True when the holder is known to have ended, False when it is known to live, None when nobody here can
    tell.

    Only a holder of this host, this boot and this process-ID namespace can be judged. Where there is no /proc
    (macOS) the answer is None, and the lease has to expire.
    """
    parts = holder.split("/")
    if len(parts) != 4 or _UNKNOWN in parts or not parts[2].isdigit():
        return None
    host, boot, pid_text, started = parts
    if host != _host() or boot != _boot():
        return None
    pid = int(pid_text)
    try:
        # Signal 0 sends nothing. Unlike a look into /proc it also answers where /proc hides others'
        # processes.
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and belongs to another user
    except (OverflowError, OSError):
        return None
    seen = _state_and_start(pid)
    if seen is None:
        return None
    state, start = seen
    return start != started or state in _ENDED_STATES


def _host() -> str:
    return socket.gethostname().replace("/", "_") or _UNKNOWN


def _boot() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return _UNKNOWN
    return f"{boot}.{namespace}"


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """The state letter and the start time in clock ticks since boot (proc(5), fields 3 and 22 of
    ``stat``)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    return fields[0], fields[19]


class Said(NamedTuple):
    """An error, but for where the ledger is and the database's own words. Both texts may name ``{where}``,
    those about a file its ``{directory}`` too."""

    kind: type[XmodeError]
    message: str
    hint: str

    def error(self, where: str, detail: str) -> XmodeError:
        names = {"where": where, "directory": Path(where).parent}
        return self.kind(f"{self.message.format(**names)}: {detail}.", hint=self.hint.format(**names))


UNSTORABLE = Said(
    LedgerError,
    "The ledger {where} cannot hold a value",
    "Nothing of it was written. A file name has to be Unicode text; rename the file at the source.",
)
OTHER = Said(
    LedgerError,
    "The ledger {where} refused an operation",
    "Nothing of it was written. If it happens again, keep the log and report it as a defect.",
)


def closed(where: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} is closed.",
        hint="Nothing was written. A part of the program went on after the end; report it as a defect.",
    )


def missing(where: str) -> LedgerMissing:
    return LedgerMissing(
        f"There is no ledger at {where}.",
        hint="Check `ledger:` in service.yaml. The first `xmode-transfer run` or `daemon` makes a new one.",
    )


T = TypeVar("T")
Rows = list[tuple[Any, ...]]

BEGIN = "xmode_begin"
"""The option of a connection that says how its next transaction begins."""


def pooled(dialect: str, connect: Callable[[], Any], begin: str, **more: Any) -> Engine:
    """An engine whose connections begin a transaction with ``begin``, or with what their option ``BEGIN``
    says. The driver must not begin any by itself."""

    def begins(connection: Connection) -> None:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(connection.get_execution_options().get(BEGIN, begin))

    engine = sqlalchemy.create_engine(
        dialect,
        creator=connect,
        # A pool without an upper bound: a thread that reads must never wait for another thread that does.
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=-1,
        **more,
    )
    event.listen(engine, "begin", begins)
    return engine


class Prepared:
    """One statement as the driver takes it, compiled when it is first used. The driver runs it on plain
    tuples, without a word in between for each of a million rows."""

    def __init__(self, database: "Database", statement: ClauseElement) -> None:
        self._database = database
        self._statement = statement

    @cached_property
    def sql(self) -> str:
        return str(self._compiled)

    @cached_property
    def _compiled(self) -> "SQLCompiler":
        return cast("SQLCompiler", self._statement.compile(dialect=self._database.dialect))

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        return dict(self._compiled.params)

    def fetch(self, **values: object) -> Rows:
        """All rows, read outside of any transaction of the caller."""
        return self._database.fetch(self.sql, self.arguments(**values))

    def arguments(self, **values: object) -> tuple[object, ...]:
        """The values in the order in which the statement's text wants them."""
        given = self._fixed | values
        return tuple(given[name] for name in self._compiled.positiontup or ())

    def run(self, connection: Connection, **values: object) -> Rows:
        """Once, in the transaction of the caller; the rows that it answers, if it answers any."""
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(self.sql, self.arguments(**values))
            return cast("Rows", cursor.fetchall() if cursor.description else [])

    def run_many(
        self, connection: Connection, rows: Sequence[tuple[object, ...]], *, staged: bool = False
    ) -> None:
        """Once for each row of arguments; an INSERT wants them in the order of the table's columns."""
        run = self._database.stage if staged else self._database.run_many
        try:
            run(connection, self.sql, rows)
        except (UnicodeEncodeError, OverflowError) as error:
            raise UNSTORABLE.error(self._database.where, str(error)) from error


class Database(ABC):
    """A database that a ledger lies in. Thread-safe. ``where`` names it to people, without a password.

    What its methods raise are LedgerErrors; the driver's own errors do not leave this package.
    """

    def __init__(self, where: str, engine: Engine) -> None:
        self.where = where
        self.dialect = engine.dialect
        self._engine = engine
        self._prepared: dict[ClauseElement, Prepared] = {}

    # --- Transactions

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """One consistent view of the database for as long as the block lasts; blocks nobody."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that writes: committed at the end of the block, rolled back by an error."""

    @abstractmethod
    def connected(self) -> AbstractContextManager[Connection]:
        """A connection without a transaction, for what needs several."""

    @abstractmethod
    def begin_writing(self, connection: Connection) -> AbstractContextManager[None]:
        """As ``writing``, on a connection that is there."""

    def read(self, action: Callable[[Connection], T]) -> T:
        """What the action answers in a transaction that reads. Where the connection can be lost, the action
        is run again in another one, so it must not take anything from an iterator of the caller's."""

        def once() -> T:
            with self.reading() as connection:
                return action(connection)

        return self.patiently(once)

    def write(self, action: Callable[[Connection], T]) -> T:
        """As ``read``, in a transaction that writes. The action is run again also where it was committed and
        the answer was lost: what it writes twice must be there once."""

        def once() -> T:
            with self.writing() as connection:
                return action(connection)

        return self.patiently(once)

    def patiently(self, work: Callable[[], T]) -> T:
        """Does the work, which is one whole transaction, again where the database was away for a moment."""
        return work()

    def repeatable(self, rows: Iterable[T]) -> AbstractContextManager[Iterable[T]]:
        """The rows of an iterator, in a form that ``patiently`` can walk again where that may be needed."""
        return nullcontext(rows)

    def hurry(self) -> None:  # noqa: B027  nobody waits for a file
        """From now on nobody waits for a database that is away. Said before the end."""

    @abstractmethod
    def translated(self) -> AbstractContextManager[None]:
        """Makes the driver's errors the ledger's."""

    # --- Statements

    def fetch(self, sql: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        """All rows of one query, as the driver gives them: for pages of millions of rows."""

        def action(connection: Connection) -> list[tuple[Any, ...]]:
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall()  # type: ignore[return-value]

        return self.read(action)

    def prepared(self, statement: ClauseElement) -> Prepared:
        """The statement, compiled once for this database."""
        found = self._prepared.get(statement)
        if found is None:
            found = self._prepared[statement] = Prepared(self, statement)
        return found

    def upserting(self, table: Table) -> Prepared:
        """As ``upsert``, for rows with a value for every column, in their order."""
        return Prepared(self, self.upsert(table))

    def run_many(self, connection: Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        """One statement for each row of arguments, in the transaction of the caller."""
        with closing(connection.connection.cursor()) as cursor:
            cursor.executemany(sql, rows)

    def stage(self, connection: Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Adds rows to ``staged_objects``; of a name that comes twice the last one stays."""
        self.run_many(connection, sql, rows)

    @abstractmethod
    def insert(self, table: Table) -> "SqliteInsert | PostgresInsert":
        """An INSERT that knows ON CONFLICT."""

    def upsert(self, table: Table) -> "SqliteInsert | PostgresInsert":
        """An INSERT whose row takes the place of the one that has the same primary key."""
        adding, key = self.insert(table), [column.name for column in table.primary_key]
        replaced = {name: value for name, value in adding.excluded.items() if name not in key}
        return adding.on_conflict_do_update(index_elements=key, set_=replaced)

    # --- Leases

    @abstractmethod
    def now(self, connection: Connection, clock: "Clock") -> datetime:
        """The time by which leases end, in UTC: one clock for all who may claim them."""

    def presence(self, holder: str) -> str | None:
        """Shows that the holder lives, if it is this process's, in a way that ends with the process; answers
        the mark that goes into its leases. None where there is no such way."""
        return None

    def is_dead(self, connection: Connection, holder: str, presence: str | None) -> bool:
        """Whether a lease's holder is known to have ended. False where nobody can tell."""
        return is_dead(holder) is True

    # --- The database itself

    def lock_schema(self, connection: Connection) -> None:  # noqa: B027  SQLite's writers are alone anyway
        """Keeps every other process from changing the schema until the transaction ends."""

    @abstractmethod
    def corrupt(self, detail: str) -> XmodeError:
        """The error for a database that does not hold what a ledger holds."""

    @abstractmethod
    def space(self) -> tuple[int | None, int]:
        """Bytes that the ledger's disk has left for us (None where nobody can say), and those that the ledger
        takes."""

    @abstractmethod
    def close(self) -> None: ...
