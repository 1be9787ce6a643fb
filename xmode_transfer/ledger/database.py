"""What the ledger needs of a database, SQLite or PostgreSQL, and the identity of the processes that hold
leases in it."""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

import sqlalchemy
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql import ClauseElement

from xmode_transfer.model.errors import LedgerError, LedgerMissing, XmodeError

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

    from xmode_transfer.model.process import Clock

_PROC = Path("/proc")
_UNKNOWN = "-"


def this_process() -> str:
    """Return this process as a holder: ``host/boot-id/pid/start-time``, with ``-`` for what is unknown."""
    pid = os.getpid()
    _, started = _state_and_start(pid) or ("", _UNKNOWN)
    return f"{_host()}/{_boot()}/{pid}/{started}"


def is_dead(holder: str) -> bool | None:
    """Return True if the holder is known to have ended, False if it is known to live, otherwise None, such as
    for another host, boot or process-ID namespace, or without /proc (macOS)."""
    parts = holder.split("/")
    if len(parts) != 4 or _UNKNOWN in parts or not parts[2].isdigit():
        return None
    host, boot, pid_text, started = parts
    if host != _host() or boot != _boot():
        return None
    pid = int(pid_text)
    try:
        # Signal 0 sends nothing. Unlike /proc it works where the processes of other users are hidden.
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as another user
    except (OverflowError, OSError):
        return None
    seen = _state_and_start(pid)
    if seen is None:
        return None
    state, start = seen
    return start != started or state in "ZX"  # a zombie has ended; only its parent has not asked yet


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
    """Return fields 3 and 22 of proc(5)'s ``stat``; the start time is in clock ticks since boot."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command in parentheses and may contain spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if len(fields) < 20 else (fields[0], fields[19])


class Message(NamedTuple):
    """Both texts may name ``{where}``, those about a file also its ``{directory}``."""

    kind: type[XmodeError]
    text: str
    hint: str

    def error(self, where: str, detail: str) -> XmodeError:
        names = {"where": where, "directory": Path(where).parent}
        return self.kind(f"{self.text.format(**names)}: {detail}.", hint=self.hint.format(**names))


UNSTORABLE = Message(
    LedgerError,
    "The ledger {where} cannot hold a value",
    "Nothing of it was written. A file name has to be Unicode text; rename the file at the source.",
)
OTHER = Message(
    LedgerError,
    "The ledger {where} refused an operation",
    "Nothing of it was written. If it happens again, keep the log and report it as a defect.",
)


def closed(where: str) -> LedgerError:
    return LedgerError(
        f"The ledger {where} is closed.",
        hint="Nothing was written. Part of the program used the ledger after its end; report it as a defect.",
    )


def missing(where: str) -> LedgerMissing:
    return LedgerMissing(
        f"There is no ledger at {where}.",
        hint="Check `ledger:` in service.yaml. The first `xmode-transfer run` or `daemon` creates one.",
    )


T = TypeVar("T")
RowTuples = list[tuple[Any, ...]]

BEGIN = "xmode_begin"
"""The option of a connection: the statement that begins its next transaction."""


def pooled(dialect: str, connect: Callable[[], Any], begin: str, **more: Any) -> Engine:
    """Return an engine whose connections begin a transaction with ``begin``, or with their option ``BEGIN``;
    the driver itself must not."""

    def begins(connection: Connection) -> None:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(connection.get_execution_options().get(BEGIN, begin))

    engine = sqlalchemy.create_engine(
        dialect,
        creator=connect,
        # A pool without an upper bound: a thread that reads must never wait for another reader.
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=-1,
        **more,
    )
    event.listen(engine, "begin", begins)
    return engine


class Prepared:
    """A statement that is compiled once and runs on the driver's plain tuples, for a million rows."""

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

    def arguments(self, **values: object) -> tuple[object, ...]:
        """Return the values in the order of the statement's placeholders."""
        given = self._fixed | values
        return tuple(given[name] for name in self._compiled.positiontup or ())

    def fetch(self, **values: object) -> RowTuples:
        """Return all rows, in a transaction of its own."""
        return self._database.read(lambda connection: self.run(connection, **values))

    def run(self, connection: Connection, **values: object) -> RowTuples:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(self.sql, self.arguments(**values))
            return cast("RowTuples", cursor.fetchall() if cursor.description else [])

    def run_many(
        self, connection: Connection, rows: Sequence[tuple[object, ...]], *, staged: bool = False
    ) -> None:
        """Run it for each row of arguments; an INSERT takes them in the order of the table's columns."""
        run = self._database.stage if staged else self._database.run_many
        try:
            run(connection, self.sql, rows)
        except (UnicodeEncodeError, OverflowError) as error:
            raise UNSTORABLE.error(self._database.where, str(error)) from error


class Database(ABC):
    """A ledger's database. ``where`` is its location for messages, without a password. Raises LedgerErrors,
    never the driver's own errors. Thread-safe."""

    no_ledger: ClassVar[Message]

    def __init__(self, where: str, engine: Engine) -> None:
        self.where = where
        self.dialect = engine.dialect
        self._engine = engine
        self._prepared: dict[ClauseElement, Prepared] = {}

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """One view of the database until the block ends; blocks no other transaction."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that writes: committed at the end of the block, rolled back by an error."""

    @abstractmethod
    def connected(self) -> AbstractContextManager[Connection]:
        """A connection without a transaction, for several of them."""

    @abstractmethod
    def begin_writing(self, connection: Connection) -> AbstractContextManager[None]:
        """``writing`` on an open connection."""

    def read(self, action: Callable[[Connection], T]) -> T:
        """Run the action in a transaction that reads. It may run again if the connection is lost: it must not
        consume an iterator of the caller."""
        return self.retrying(lambda: _within(self.reading(), action))

    def write(self, action: Callable[[Connection], T]) -> T:
        """Run the action in a transaction that writes. It may run again after a commit without an answer: the
        effect must be the same."""
        return self.retrying(lambda: _within(self.writing(), action))

    def retrying(self, work: Callable[[], T]) -> T:
        """Do the work, one whole transaction; again after a short outage of the database."""
        return work()

    def repeatable(self, rows: Iterable[T]) -> AbstractContextManager[Callable[[], Iterable[T]]]:
        """A function that returns the rows, as often as ``retrying`` may need them."""
        return nullcontext(lambda: rows)

    def hurry(self) -> None:  # noqa: B027  a file is never away
        """Stop waiting for a database that is away; called before the process ends."""

    @abstractmethod
    def translated(self) -> AbstractContextManager[None]:
        """Raise the ledger's errors instead of the driver's."""

    def prepared(self, statement: ClauseElement) -> Prepared:
        if statement not in self._prepared:
            self._prepared[statement] = Prepared(self, statement)
        return self._prepared[statement]

    def upserting(self, table: Table) -> Prepared:
        """``upsert`` for rows with a value for every column, in the columns' order."""
        return Prepared(self, self.upsert(table))

    def run_many(self, connection: Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        with closing(connection.connection.cursor()) as cursor:
            cursor.executemany(sql, rows)

    def stage(self, connection: Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Add rows to ``staged_objects``; of a name that comes twice the last one stays."""
        self.run_many(connection, sql, rows)

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT that supports ON CONFLICT."""
        return postgresql.insert(table) if self.dialect.name == "postgresql" else sqlite.insert(table)

    def upsert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT whose row replaces the one with the same primary key."""
        adding, key = self.insert(table), [column.name for column in table.primary_key]
        replaced = {name: value for name, value in adding.excluded.items() if name not in key}
        return adding.on_conflict_do_update(index_elements=key, set_=replaced)

    @abstractmethod
    def now(self, connection: Connection, clock: "Clock") -> datetime:
        """Return the time in UTC, by one clock for all processes that claim leases."""

    def presence(self, holder: str) -> str | None:
        """Show that the holder lives, in a way that ends with its process; return the mark for its leases, or
        None for another process's holder or without such a way."""
        return None

    def is_dead(self, connection: Connection, holder: str, presence: str | None) -> bool:
        """Return True if a lease's holder is known to have ended."""
        return is_dead(holder) is True

    def lock_schema(self, connection: Connection) -> None:  # noqa: B027  SQLite has one writer at a time
        """Prevent other processes from changing the schema until the transaction ends."""

    def corrupt(self, detail: str) -> XmodeError:
        return self.no_ledger.error(self.where, detail)

    @abstractmethod
    def space(self) -> tuple[int | None, int]:
        """Return the bytes that are free on the ledger's disk, if known, and those that the ledger uses."""

    @abstractmethod
    def close(self) -> None: ...


def _within(transaction: AbstractContextManager[Connection], action: Callable[[Connection], T]) -> T:
    with transaction as connection:
        return action(connection)
