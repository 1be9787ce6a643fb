"""Group commit: one thread writes for all, many records to a transaction.

A durable commit costs about as much for one record as for five hundred, so whatever has come in while the
last commit was on its way to the disk goes into the next one together. A future is done only when its record
is on disk.

Within a batch the records (receipts, parts) come first and the calls after them in their order. That is the
order in which one thread asked, since it waits for a call before it goes on; between threads no order was
promised.

Where rows are locked, a batch holds the locks of all that is in it until it is committed. What waits for
locks that others hold for the length of a batch of theirs therefore has a transaction of its own (``alone``):
two processes never each hold what the other waits for.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import Connection

from xmode_transfer.ledger.database import Database, Prepared, closed
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
"""How long a record waits for others to share its commit. A commit costs some milliseconds of work; without
this, fast answers would come to disk a few at a time."""
BUSY_RECORDS = 40
BUSY_LINGER_SECONDS = 0.04
"""When so many have come by then, more are coming just as fast, and they wait that much longer."""
_PLACES_KEPT = 10_000


class Journal:
    """Where the records of one kind go. ``find`` answers the columns that stand for a record's owner, and
    raises LedgerError when there is no such owner; ``add`` takes rows, each the owner's columns followed by
    the record's values."""

    def __init__(self, find: Callable[[Connection, str], tuple[object, ...]], add: Prepared) -> None:
        self._find = find
        self._places: dict[str, tuple[object, ...]] = {}
        self.add = add.run_many

    def place(self, connection: Connection, owner: str) -> tuple[object, ...]:
        found = self._places.get(owner)
        if found is None:
            if len(self._places) >= _PLACES_KEPT:
                self._places.clear()
            found = self._places[owner] = self._find(connection, owner)
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
    """The writer. ``guard`` raises LeaseLost inside the transaction when a lease is not the holder's any
    more."""

    def __init__(self, database: Database, guard: Callable[[Connection, Lease], None]) -> None:
        self._database = database
        self._guard = guard
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
        """Runs the action in a transaction of the writer, ``alone`` or with what else is to be written, and
        returns after the commit."""
        if threading.current_thread() is self._thread:
            # A callback of a future: what it reacts to is committed, and waiting for ourselves would be for
            # ever.
            return self._database.write(action)
        future: Future[T] = Future()
        self._put(_Call(action, future, alone))
        self._called.set()
        return future.result()

    def close(self) -> None:
        """Writes what is queued, then ends the thread. Idempotent."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
                self._called.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _put(self, item: _Item) -> None:
        with self._door:
            # In a process that was forked off, the thread does not exist, and nobody would ever answer.
            if self._closed or not self._thread.is_alive():
                raise closed(self._database.where)
            self._queue.put(item)

    def _run(self) -> None:
        for batch in self._batches():
            for together in _apart(batch):
                self._write(together)

    def _batches(self) -> Iterator[list[_Item]]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, _Record):
                self._linger()
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
            # From here on a future cannot be cancelled; one that was is left out.
            if alive := [item for item in batch if item.future.set_running_or_notify_cancel()]:
                yield alive
            if ended:
                return

    def _linger(self) -> None:
        """Where one record comes, more follow; who calls meanwhile is not kept waiting."""
        called = self._called.wait(LINGER_SECONDS)
        if not called and self._queue.qsize() >= BUSY_RECORDS:
            self._called.wait(BUSY_LINGER_SECONDS)

    def _write(self, batch: list[_Item]) -> None:
        """One transaction for the batch. If it fails, one for each item, so that nobody fails for another's
        record."""
        error = self._try(batch)
        if error is None:
            return
        for index, item in enumerate(batch):
            if len(batch) == 1 or _concerns_all(error):
                for rest in batch[index:]:
                    rest.future.set_exception(_again(error))
                return
            alone = self._try([item])
            if alone is not None:
                item.future.set_exception(alone)
                error = alone

    def _try(self, batch: list[_Item]) -> BaseException | None:
        """Commits the batch and completes its futures; or says why nothing of it was written."""
        try:
            outcomes = self._database.write(lambda connection: self._apply(connection, batch))
        except BaseException as error:  # noqa: BLE001  it is handed to those who wait
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
                    result = item.action(connection)
            except XmodeError as refusal:
                if _concerns_all(refusal):
                    raise
                outcomes.append((item.future, None, refusal))
            else:
                outcomes.append((item.future, result, None))
        return outcomes

    def _add_records(self, connection: Connection, records: list[_Record]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        lost: dict[tuple[str, int], LeaseLost | None] = {}
        rows: dict[Journal, list[tuple[object, ...]]] = {}
        for record in records:
            lease = (record.lease.name, record.lease.generation)
            if lease not in lost:
                lost[lease] = self._refusal(connection, record.lease)
            refusal: XmodeError | None = lost[lease]
            if refusal is None:
                try:
                    place = record.journal.place(connection, record.owner)
                    rows.setdefault(record.journal, []).append(place + record.values)
                except LedgerError as error:
                    refusal = error
            outcomes.append((record.future, None, refusal and _again(refusal)))
        for journal, added in rows.items():
            journal.add(connection, added)
        return outcomes

    def _refusal(self, connection: Connection, lease: Lease) -> LeaseLost | None:
        try:
            self._guard(connection, lease)
        except LeaseLost as refusal:
            return refusal
        return None


def _apart(batch: list[_Item]) -> Iterator[list[_Item]]:
    """What is written in one transaction each."""
    together = [item for item in batch if isinstance(item, _Record) or not item.alone]
    if together:
        yield together
    for item in batch:
        if isinstance(item, _Call) and item.alone:
            yield [item]


def _concerns_all(error: BaseException) -> bool:
    """Whether the database itself is out of reach, so that nobody's record would fare better alone."""
    return isinstance(error, LedgerLocked | LedgerUnreachable | LedgerCorrupt) or not isinstance(
        error, Exception
    )


def _again(error: BaseException) -> BaseException:
    """An exception of its own for each who waits: one that is raised in several threads mixes up their
    tracebacks."""
    if not isinstance(error, XmodeError):
        return error
    copy = type(error)(error.message, hint=error.hint)
    copy.__cause__ = error.__cause__
    return cast("BaseException", copy)
