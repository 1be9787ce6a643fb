"""The objects of deliveries: those that are planned, and the receipts of those that are delivered."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from itertools import chain, islice, pairwise
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, func, insert, select
from sqlalchemy.schema import CreateTable, DropTable
from sqlalchemy.sql import ClauseElement

from xmode_transfer.ledger import deliveries, statements
from xmode_transfer.ledger.database import Database, Prepared
from xmode_transfer.ledger.rows import text_of, time_of
from xmode_transfer.ledger.statements import LIKE_ESCAPE, SAME_OBJECT
from xmode_transfer.ledger.tables import MISSING, missing, objects, receipts, staged_objects
from xmode_transfer.ledger.tables import deliveries as deliveries_
from xmode_transfer.ledger.writer import GroupCommit, Journal, LedgerPart
from xmode_transfer.model.errors import LedgerError
from xmode_transfer.model.records import (
    Checksum,
    Lease,
    MissingObject,
    MissingReason,
    PlannedObject,
    Receipt,
    SourceFile,
)

T = TypeVar("T")

_STAGED_AT_A_TIME = 5_000
_FIRST_PAGE, _LARGEST_PAGE = 250, 2_000
_NAMED_AT_A_TIME = 500
_REVISION, _REMOVED, _SUPERSEDED = 14, 15, 16  # the columns after an object's and its receipt's


class Objects(LedgerPart):
    def __init__(self, database: Database, writer: GroupCommit) -> None:
        super().__init__(database, writer)
        # A foreign key refuses the receipt of an object that was never planned.
        self._receipts = Journal(deliveries.known_place, database.upserting(receipts))

    def plan(self, lease: Lease, delivery_id: str, planned: Iterable[PlannedObject]) -> int:
        """Add or replace planned objects by name, streamed; return their number. One with a receipt stays as
        it is; a ``carried`` one gets a copy of its receipt in an earlier revision, which must exist."""
        with self._database.repeatable(planned) as repeatable:
            return self._database.retrying(lambda: self._plan(lease, delivery_id, repeatable()))

    def _plan(self, lease: Lease, delivery_id: str, planned: Iterable[PlannedObject]) -> int:
        with self._database.connected() as connection:
            try:
                count = stage(connection, self._database, planned)
                with self._database.begin_writing(connection):
                    self._writer.guard(connection, lease)
                    self._merge_stage(connection, delivery_id)
            except BaseException:
                connection.invalidate()  # the staged objects go with the connection
                raise
            if not connection.invalidated:
                with connection.begin():
                    connection.execute(DropTable(staged_objects, if_exists=True))
        return count

    def _merge_stage(self, connection: Connection, delivery_id: str) -> None:
        period_id, revision = deliveries.known_place(connection, delivery_id)
        place = {"period_id": period_id, "revision": revision}
        merging = self._database.upsert(objects).from_select(*statements.MERGED)
        for statement in (merging, statements.NOT_MISSING, statements.COPY_CARRIED):
            Prepared(self._database, statement).run(connection, **place)
        ((count, first),) = self._database.prepared(statements.NOT_CARRIED).run(connection, **place)
        if count:
            raise LedgerError(
                f"{count} objects are to be carried from an earlier revision that has no receipt for them, "
                f"the first of them {first}.",
                hint="Nothing was written. This is a defect; the next run plans the delivery anew.",
            )

    def restamp(
        self, lease: Lease, customer: str, feed: str, period: str, files: Iterable[SourceFile]
    ) -> None:
        """Record the new ``modified_ns`` and ``identity`` of files with unchanged content, on the objects of
        ``delivered``."""
        touched = list(files)
        statement = self._database.prepared(statements.RESTAMP_OBJECT)

        def action(connection: Connection) -> None:
            number = deliveries.period_id(connection, customer, feed, period)
            if number is None:
                return
            rows = []
            for file in touched:
                new = {"new_modified_ns": file.modified_ns, "new_identity": file.identity}
                rows.append(statement.arguments(of_period=number, of_name=file.name, **new))
            statement.run_many(connection, rows)

        self._fenced(lease, action)

    def forget(self, lease: Lease, delivery_id: str, names: Iterable[str]) -> int:
        """Delete planned objects without a receipt; return their number."""
        gone = list(names)
        is_pending = ~exists().where(SAME_OBJECT)
        return self._change(lease, delivery_id, lambda c, place: _drop(c, objects, place, gone, is_pending))

    def clear(self, lease: Lease, delivery_id: str) -> None:
        """Delete the plan of a delivery that was never published, and its receipts."""

        def action(connection: Connection, place: tuple[int, int]) -> None:
            for table in (receipts, objects, missing):
                of_delivery = (table.c.period_id == place[0], table.c.revision == place[1])
                connection.execute(delete(table).where(*of_delivery))

        self._change(lease, delivery_id, action)

    def send_again(self, lease: Lease, delivery_id: str, again: Sequence[PlannedObject]) -> None:
        """Delete the receipts of objects that are gone from the bucket, and replace what was planned under
        their names."""

        def action(connection: Connection, place: tuple[int, int]) -> None:
            _drop(connection, receipts, place, [item.name for item in again])
            rows = [(*place, *item) for item in again]
            self._database.upserting(objects).run_many(connection, rows)

        self._change(lease, delivery_id, action)

    def leave_out(self, lease: Lease, delivery_id: str, gone: Sequence[MissingObject]) -> None:
        """Take objects and their receipts out of the delivery, until they are planned again; its manifest
        does not list them."""
        names = [item.name for item in gone]

        def action(connection: Connection, place: tuple[int, int]) -> None:
            for table in (receipts, objects, missing):
                _drop(connection, table, place, names)
            if gone:
                of_delivery = {"period_id": place[0], "revision": place[1]}
                connection.execute(insert(missing), [of_delivery | MISSING.values(item) for item in gone])

        self._change(lease, delivery_id, action)

    def spread_receipts(self, lease: Lease, delivery_id: str) -> None:
        """Copy the delivery's receipts to all other revisions of its period that list the same keys: an
        object that was delivered again under its key is another object for all of them."""
        spreading = self._database.prepared(statements.SPREAD_RECEIPTS)
        self._change(
            lease, delivery_id, lambda c, place: spreading.run(c, period_id=place[0], revision=place[1])
        )

    def _change(
        self, lease: Lease, delivery_id: str, action: Callable[[Connection, tuple[int, int]], T]
    ) -> T:
        """Run the action under the lease, with the delivery's ``period_id`` and revision."""
        return self._fenced(lease, lambda c: action(c, deliveries.known_place(c, delivery_id)))

    def record_receipt(self, lease: Lease, delivery_id: str, receipt: Receipt) -> Future[None]:
        """The future is done when the receipt is on disk."""
        return self._writer.record(self._receipts, lease, delivery_id, receipt_row(receipt))

    def totals(self, delivery_id: str) -> tuple[int, int]:
        """Return the number of planned objects and their bytes."""
        counted = select(func.count(), func.coalesce(func.sum(objects.c.size), 0))
        query = counted.select_from(objects.join(deliveries_)).where(deliveries_.c.id == delivery_id)
        ((count, total),) = self._rows(query)
        return int(count), int(total)

    def last_proof(self, delivery_id: str) -> datetime | None:
        """Return the time of the delivery's newest receipt."""
        # Through the plan: a drop folder's period has the receipts of all its batches.
        query = (
            select(func.max(receipts.c.delivered_at))
            .select_from(objects.join(deliveries_).join(receipts, SAME_OBJECT))
            .where(deliveries_.c.id == delivery_id)
        )
        ((found,),) = self._rows(query)
        return cast("datetime | None", found)

    def planned(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt | None]]:
        """Yield the delivery's objects by name, each with its receipt if it has one."""
        return pairs_of(self._walk(statements.PLANNED_PAGE, delivery_id))

    def proven(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt]]:
        """Yield the objects with a receipt, by name. The receipt says if its object was removed since."""
        return _proven(self._walk(statements.PROVEN_PAGE, delivery_id))

    def page(
        self,
        delivery_id: str,
        *,
        after: str = "",
        beginning: str = "",
        containing: str = "",
        limit: int = 100,
    ) -> list[tuple[PlannedObject, Receipt | None]]:
        """Return the first objects with names after ``after`` that begin with ``beginning`` and contain
        ``containing``, case-insensitively. A receipt says if its object was removed since."""
        found = self._read(lambda c: deliveries.place(c, delivery_id))
        if found is None:
            return []
        text = re.sub(r"[\\%_]", lambda match: LIKE_ESCAPE + match[0], containing)
        page = self._database.prepared(statements.FOUND_PAGE).fetch(
            period_id=found[0],
            revision=found[1],
            after=after,
            first=beginning,
            last=f"{beginning}\U0010ffff",
            pattern=f"%{text}%",
            limit=limit,
        )
        return list(pairs_of(page))

    def pending(self, delivery_id: str) -> Iterator[PlannedObject]:
        """Yield the planned objects without a receipt, by name. One that gets it meanwhile may appear."""
        return objects_of(self._walk(statements.PENDING_PAGE, delivery_id))

    def collisions(self, delivery_id: str) -> list[tuple[PlannedObject, str]]:
        """Return the delivery's objects without a receipt whose key another name of the period has too, in
        the delivery or with a receipt, each with that name."""
        rows = self._of_delivery(statements.COLLISIONS, delivery_id)
        return [(item, str(row[6])) for row in rows for item in objects_of([row[:6]])]

    def other_name(self, delivery_id: str, name: str, key: str) -> str | None:
        """Return another name of the delivery's period that has the key, as ``collisions`` does."""
        ((found,),) = self._of_delivery(statements.OTHER_NAME, delivery_id, name=name, key=key)
        return cast("str | None", found)

    def _of_delivery(
        self, statement: ClauseElement, delivery_id: str, **values: str
    ) -> list[tuple[Any, ...]]:
        found = self._read(lambda c: deliveries.known_place(c, delivery_id))
        return list(self._database.prepared(statement).fetch(period_id=found[0], revision=found[1], **values))

    def left_out(self, delivery_id: str) -> Iterator[MissingObject]:
        """Yield what ``leave_out`` took out of the delivery, by name."""
        for name, key, size, *checksum, reason in self._walk(statements.MISSING_PAGE, delivery_id):
            yield MissingObject(name, key, size, Checksum(*checksum), MissingReason(reason))

    def delivered(self, customer: str, feed: str, period: str) -> Iterator[tuple[PlannedObject, Receipt]]:
        """Yield every source name that was ever delivered in the period, in order, with its object of the
        highest revision. The receipt says if its object was removed since, and if its revision was
        superseded."""
        number = self._read(lambda c: deliveries.period_id(c, customer, feed, period))
        if number is None:
            return
        rows = _walk(self._database, statements.DELIVERED_PAGE, period_id=number)
        # The revisions of one name follow each other, the highest last.
        highest = (row for row, following in pairwise(chain(rows, [("",)])) if row[0] != following[0])
        yield from _proven(highest)

    def receipts(self, customer: str, feed: str, period: str) -> Iterator[Receipt]:
        """Yield the receipts of all revisions of the period, by name and revision. Each says if its object
        was removed since, and if its revision was superseded."""
        number = self._read(lambda c: deliveries.period_id(c, customer, feed, period))
        if number is not None:
            rows = _walk(self._database, statements.DELIVERED_PAGE, period_id=number)
            yield from (receipt for _, receipt in _proven(rows))

    def _walk(self, statement: ClauseElement, delivery_id: str) -> Iterator[tuple[Any, ...]]:
        found = self._read(lambda c: deliveries.place(c, delivery_id))
        if found is not None:
            yield from _walk(self._database, statement, period_id=found[0], revision=found[1])


def stage(connection: Connection, database: Database, planned: Iterable[PlannedObject]) -> int:
    """Put the objects into a table of this connection alone; return their number. The source is still being
    listed meanwhile, which may take minutes, so no lock is held."""
    with connection.begin():
        connection.execute(DropTable(staged_objects, if_exists=True))
        connection.execute(CreateTable(staged_objects))
    count, source, staging = 0, iter(planned), database.upserting(staged_objects)
    while rows := list(islice(source, _STAGED_AT_A_TIME)):
        count += len(rows)
        with connection.begin():
            staging.run_many(connection, rows, staged=True)
    return count


def _drop(
    connection: Connection,
    table: Table,
    place: tuple[int, int],
    names: Sequence[str],
    *which: ColumnElement[bool],
) -> int:
    count = 0
    dropping = delete(table).where(table.c.period_id == place[0], table.c.revision == place[1], *which)
    for start in range(0, len(names), _NAMED_AT_A_TIME):
        some = names[start : start + _NAMED_AT_A_TIME]
        count += connection.execute(dropping.where(table.c.name.in_(some))).rowcount
    return count


def _walk(database: Database, statement: ClauseElement, **values: int) -> Iterator[tuple[Any, ...]]:
    """Yield a statement's rows, read in pages, which are small at first, for callers that need only few.

    Each page is a query of its own, so that a reader that takes hours (an upload) holds neither a
    connection nor an old state of the database, which would prevent SQLite from emptying its log.
    """
    query, after, revision, size = database.prepared(statement), "", 0, _FIRST_PAGE
    while True:
        page = query.fetch(**values, after=after, after_revision=revision, limit=size)
        yield from page
        if len(page) < size:
            return
        after, revision = page[-1][0], page[-1][_REVISION] if len(page[-1]) > _REVISION else 0
        size = min(size * 2, _LARGEST_PAGE)


def receipt_row(receipt: Receipt) -> tuple[object, ...]:
    name, key, size, checksum, etag, delivered_at, version_id, sha256, _, _ = receipt
    return (name, key, size, *checksum, etag, text_of(delivered_at), version_id, sha256)


def objects_of(page: Iterable[tuple[Any, ...]]) -> Iterator[PlannedObject]:
    for name, key, size, modified_ns, identity, carried in page:
        yield PlannedObject._make((name, key, size, modified_ns, identity, carried == 1))


def pairs_of(page: Iterable[tuple[Any, ...]]) -> Iterator[tuple[PlannedObject, Receipt | None]]:
    """Read rows of an object's columns, its receipt's (null without one), and, in some queries, the revision,
    ``removed`` and ``superseded``."""
    for row in page:
        name, key, size, modified_ns, identity, carried = row[:6]
        item = PlannedObject._make((name, key, size, modified_ns, identity, carried == 1))
        key, size, algorithm, value, etag, delivered_at, version_id, sha256 = row[6:14]
        if key is None:
            yield item, None
            continue
        checksum = Checksum._make((algorithm, value))
        removed = len(row) > _REMOVED and row[_REMOVED] == 1
        superseded = len(row) > _SUPERSEDED and row[_SUPERSEDED] == 1
        at = time_of(delivered_at)
        proof = (name, key, size, checksum, etag, at, version_id, sha256, removed, superseded)
        yield item, Receipt._make(proof)


def _proven(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[PlannedObject, Receipt]]:
    return cast("Iterator[tuple[PlannedObject, Receipt]]", pairs_of(rows))
