"""Group commit, and the base class of the ledger's parts, which write through it.

A durable commit costs about as much for one record as for five hundred, so one thread writes for all: what
arrived during the last commit goes into the next. A future is done when its record is on disk. Within a batch
records (receipts, parts) precede calls, which keep their order; between threads no order is promised.

On PostgreSQL a batch holds the row locks of all its items until the commit. A call that waits for locks of
other processes' batches gets its own transaction (``alone``): otherwise two processes could each hold what
the other waits for.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Select, Table, update

from xmode_transfer.ledger.database import Database, Prepared, closed
from xmode_transfer.ledger.rows import Rows
from xmode_transfer.model.errors import (
    LeaseLost,
    LedgerCorrupt,
    LedgerError,
    LedgerLocked,
    LedgerUnreachable,
    XmodeError,
)
from xmode_transfer.model.records import Lease

T = TypeVar("T")

BATCH_RECORDS = 500
LINGER_SECONDS = 0.02
"""How long a record waits for others to share its commit."""
BUSY_RECORDS = 40
BUSY_LINGER_SECONDS = 0.04
"""If so many records arrive within the linger time, the batch waits that much longer."""
_OWNERS_KEPT = 10_000


class Journal:
    """The table for records of one kind. ``find`` returns the columns that identify a record's owner, or
    raises LedgerError; ``add`` takes rows of the owner's columns, then the record's."""

    def __init__(self, find: Callable[[Connection, str], tuple[object, ...]], add: Prepared) -> None:
        self._find = find
        self._owners: dict[str, tuple[object, ...]] = {}
        self.add = add.run_many

    def owner(self, connection: Connection, name: str) -> tuple[object, ...]:
        found = self._owners.get(name)
        if found is None:
            if len(self._owners) >= _OWNERS_KEPT:
                self._owners.clear()
            found = self._owners[name] = self._find(connection, name)
        return found


class _Record(NamedTuple):
    journal: Journal
    lease: Lease
    owner: str
    values: tuple[object, ...]
    future: "Future[None]"


class _Call(NamedTuple):
    action: Callable[[Connection], Any]
    future: "Future[Any]"
    alone: bool


_Item = _Record | _Call
_Outcome = tuple["Future[Any]", Any, BaseException | None]


class GroupCommit:
    """The thread that writes. ``guard`` raises LeaseLost in the transaction if a lease was lost."""

    def __init__(self, database: Database, guard: Callable[[Connection, Lease], None]) -> None:
        self.guard = guard
        self._database = database
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._door = threading.Lock()
        self._closed = False
        self._called = threading.Event()
        # A daemon thread: a process that ends without close() has not been promised what is still queued.
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def record(
        self, journal: Journal, lease: Lease, owner: str, values: tuple[object, ...]
    ) -> "Future[None]":
        future: Future[None] = Future()
        self._put(_Record(journal, lease, owner, values, future))
        return future

    def call(self, action: Callable[[Connection], T], *, alone: bool = False) -> T:
        """Run the action in a transaction, ``alone`` or with other items; return after the commit."""
        if threading.current_thread() is self._thread:
            # A future's callback: its record is committed, and this thread cannot wait for itself.
            return self._database.write(action)
        future: Future[T] = Future()
        self._put(_Call(action, future, alone))
        self._called.set()
        return future.result()

    def close(self) -> None:
        """Write what is queued, then end the thread. Idempotent."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
                self._called.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _put(self, item: _Item) -> None:
        with self._door:
            # After a fork the thread does not exist, and no answer would ever come.
            if self._closed or not self._thread.is_alive():
                raise closed(self._database.where)
            self._queue.put(item)

    def _run(self) -> None:
        for batch in self._batches():
            together = [item for item in batch if isinstance(item, _Record) or not item.alone]
            if together:
                self._write(together)
            for item in batch:
                if isinstance(item, _Call) and item.alone:
                    self._write([item])

    def _batches(self) -> Iterator[list[_Item]]:
        while (item := self._queue.get()) is not None:
            # Wait for more records, but not while a caller waits.
            called = isinstance(item, _Call) or self._called.wait(LINGER_SECONDS)
            if not called and self._queue.qsize() >= BUSY_RECORDS:
                self._called.wait(BUSY_LINGER_SECONDS)
            self._called.clear()
            batch, ended = [item], False
            try:
                while len(batch) < BATCH_RECORDS:
                    following = self._queue.get_nowait()
                    if following is None:
                        ended = True
                        break
                    batch.append(following)
            except Empty:
                pass
            # From here on a future cannot be cancelled; a cancelled one is left out.
            if alive := [item for item in batch if item.future.set_running_or_notify_cancel()]:
                yield alive
            if ended:
                return

    def _write(self, batch: list[_Item]) -> None:
        """Write the batch in one transaction; if that fails, each item in its own."""
        error = self._try(batch)
        if error is None:
            return
        for index, item in enumerate(batch):
            if len(batch) == 1 or _concerns_all(error):
                for rest in batch[index:]:
                    rest.future.set_exception(_copied(error))
                return
            alone = self._try([item])
            if alone is not None:
                item.future.set_exception(alone)
                error = alone

    def _try(self, batch: list[_Item]) -> BaseException | None:
        """Commit the batch and complete its futures; return the error if nothing was written."""
        try:
            outcomes = self._database.write(lambda connection: self._apply(connection, batch))
        except BaseException as error:  # noqa: BLE001  it is raised in the threads that wait
            return error
        for future, result, refusal in outcomes:
            if refusal is None:
                future.set_result(result)
            else:
                future.set_exception(refusal)
        return None

    def _apply(self, connection: Connection, batch: list[_Item]) -> list[_Outcome]:
        outcomes = self._add_records(connection, [item for item in batch if isinstance(item, _Record)])
        for item in batch:
            if not isinstance(item, _Call):
                continue
            if len(batch) == 1:
                outcomes.append((item.future, item.action(connection), None))
                continue
            try:
                with connection.begin_nested(), self._database.translated():
                    outcome = item.future, item.action(connection), None
                outcomes.append(outcome)
            except XmodeError as refusal:
                if _concerns_all(refusal):
                    raise
                outcomes.append((item.future, None, refusal))
        return outcomes

    def _add_records(self, connection: Connection, records: list[_Record]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        lost: dict[tuple[str, int], LeaseLost | None] = {}
        rows: dict[Journal, list[tuple[object, ...]]] = {}
        for record in records:
            lease = (record.lease.name, record.lease.generation)
            if lease not in lost:
                lost[lease] = None
                try:
                    self.guard(connection, record.lease)
                except LeaseLost as error:
                    lost[lease] = error
            refusal: XmodeError | None = lost[lease]
            if refusal is None:
                try:
                    owner = record.journal.owner(connection, record.owner)
                    rows.setdefault(record.journal, []).append(owner + record.values)
                except LedgerError as error:
                    refusal = error
            outcomes.append((record.future, None, refusal and _copied(refusal)))
        for journal, added in rows.items():
            journal.add(connection, added)
        return outcomes


def _concerns_all(error: BaseException) -> bool:
    """The database itself failed: no item would succeed alone."""
    return isinstance(error, LedgerLocked | LedgerUnreachable | LedgerCorrupt) or not isinstance(
        error, Exception
    )


def _copied(error: BaseException) -> BaseException:
    """An exception that several threads raise mixes up their tracebacks."""
    if not isinstance(error, XmodeError):
        return error
    copy = type(error)(error.message, hint=error.hint)
    copy.__cause__ = error.__cause__
    return cast("BaseException", copy)


class LedgerPart:
    """The queries about one subject."""

    def __init__(self, database: Database, writer: GroupCommit) -> None:
        self._database = database
        self._writer = writer
        self._read = database.read
        self._write = writer.call  # the effect of an action must be the same if it is run twice

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return self._read(lambda connection: connection.execute(query).all())

    def _records(self, rows: Rows[T], query: Select[Any]) -> list[T]:
        return [rows.record(row) for row in self._rows(query)]

    def _first(self, rows: Rows[T], query: Select[Any]) -> T | None:
        return next(iter(self._records(rows, query)), None)

    def _fenced(self, lease: Lease, action: Callable[[Connection], T]) -> T:
        """Write if the lease is still ours, and stays so until the commit."""

        def fenced(connection: Connection) -> T:
            self._writer.guard(connection, lease)
            return action(connection)

        return self._write(fenced)

    def _overwrite(
        self, lease: Lease, table: Table, what: str, record_id: str, values: Mapping[str, Any]
    ) -> None:
        """Update the row of that ID. Raises LedgerError if there is none."""
        changing = update(table).where(table.c.id == record_id).values(values)

        def action(connection: Connection) -> None:
            if connection.execute(changing).rowcount == 0:
                raise unknown(what, record_id)

        self._fenced(lease, action)


def only(query: Select[Any], *wanted: tuple[ColumnElement[Any], str | Iterable[str] | None]) -> Select[Any]:
    """Restrict each column to a value, or to one of several; None does not restrict it."""
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value if isinstance(value, str) else column.in_(list(value)))
    return query


def unknown(what: str, name: str) -> LedgerError:
    return LedgerError(
        f"The ledger has no {what} {name}.",
        hint="Nothing was written. Either the ledger was replaced by an older copy while we ran, or this is "
        "a defect.",
    )
