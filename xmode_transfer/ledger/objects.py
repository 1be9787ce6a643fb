"""The plan of a delivery and the receipts of its objects."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from itertools import chain, islice, pairwise
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, func, insert, select
from sqlalchemy.schema import CreateTable, DropTable
from sqlalchemy.sql import ClauseElement

from xmode_transfer.ledger import deliveries, leases, statements
from xmode_transfer.ledger.database import Database, Prepared, Rows
from xmode_transfer.ledger.leases import Subject
from xmode_transfer.ledger.statements import LIKE_ESCAPE, SAME_OBJECT
from xmode_transfer.ledger.tables import MISSING, missing, objects, receipts, staged_objects
from xmode_transfer.ledger.tables import deliveries as deliveries_
from xmode_transfer.ledger.tables.base import text_of, time_of
from xmode_transfer.ledger.writer import GroupCommit, Journal
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

_STAGED_AT_A_TIME = 5_000
_FIRST_PAGE, _LARGEST_PAGE = 250, 2_000
_NAMED_AT_A_TIME = 500
_REMOVED, _SUPERSEDED = 15, 16  # the columns after an object's, its receipt's and the revision


class Objects(Subject):
    """The objects of deliveries: what is planned, and what is proven."""

    def __init__(self, database: Database, writer: GroupCommit) -> None:
        super().__init__(database, writer)
        # A receipt of an object that was never planned breaks a foreign key, and is refused.
        self._receipts = Journal(deliveries.known_place, database.upserting(receipts))

    # --- Writing

    def plan(self, lease: Lease, delivery_id: str, planned: Iterable[PlannedObject]) -> int:
        """Adds or replaces planned objects by name, in bulk, streaming; returns their number. An object that
        has a receipt is left as it is. ``carried`` objects must have had a receipt in an earlier revision,
        which is copied."""
        with self._database.repeatable(planned) as repeatable:
            return self._database.patiently(lambda: self._plan(lease, delivery_id, repeatable))

    def _plan(self, lease: Lease, delivery_id: str, planned: Iterable[PlannedObject]) -> int:
        with self._database.connected() as connection:
            try:
                count = stage(connection, self._database, planned)
                with self._database.begin_writing(connection):
                    leases.check(connection, lease)
                    self._merge_stage(connection, delivery_id)
            except BaseException:
                connection.invalidate()  # what is staged goes with the connection
                raise
            if not connection.invalidated:
                clear_stage(connection)
        return count

    def _merge_stage(self, connection: Connection, delivery_id: str) -> None:
        """Puts what was staged into the plan, and copies what is carried."""
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
        """The files' content is what was delivered, though their times changed: remembers the new
        ``modified_ns`` and ``identity`` on the objects that ``delivered`` answers for these names."""
        touched = list(files)
        statement = self._database.prepared(statements.RESTAMP_OBJECT)

        def action(connection: Connection) -> None:
            number = deliveries.period_id(connection, customer, feed, period)
            if number is not None:
                rows = [
                    statement.arguments(
                        of_period=number,
                        of_name=file.name,
                        new_modified_ns=file.modified_ns,
                        new_identity=file.identity,
                    )
                    for file in touched
                ]
                statement.run_many(connection, rows)

        self._fenced(lease, action)

    def forget(self, lease: Lease, delivery_id: str, names: Iterable[str]) -> int:
        """Takes planned objects without a receipt out of the plan again (their source file is gone)."""
        gone = list(names)
        is_pending = ~exists().where(SAME_OBJECT)
        return self._fenced(
            lease, lambda c: _drop(c, objects, deliveries.known_place(c, delivery_id), gone, is_pending)
        )

    def send_again(self, lease: Lease, delivery_id: str, again: Sequence[PlannedObject]) -> None:
        """Their objects are gone: takes their receipts out of the delivery, so that they are pending, and
        replaces what was planned under their names."""

        def action(connection: Connection) -> None:
            place = deliveries.known_place(connection, delivery_id)
            _drop(connection, receipts, place, [item.name for item in again])
            rows = [(*place, *item) for item in again]
            self._database.upserting(objects).run_many(connection, rows)

        self._fenced(lease, action)

    def leave_out(self, lease: Lease, delivery_id: str, gone: Sequence[MissingObject]) -> None:
        """Takes them, and their receipts, out of the delivery, and remembers that its manifest does not list
        them. What is planned again under such a name is in the delivery again."""
        names = [item.name for item in gone]

        def action(connection: Connection) -> None:
            place = deliveries.known_place(connection, delivery_id)
            for table in (receipts, objects, missing):
                _drop(connection, table, place, names)
            if gone:
                connection.execute(
                    insert(missing),
                    [{"period_id": place[0], "revision": place[1], **MISSING.values(item)} for item in gone],
                )

        self._fenced(lease, action)

    def spread_receipts(self, lease: Lease, delivery_id: str) -> None:
        """Gives the delivery's receipts to all other revisions of the period that name the same keys: what
        was delivered again under its key is another object now, for all of them."""

        def action(connection: Connection) -> None:
            period_id, revision = deliveries.known_place(connection, delivery_id)
            spreading = self._database.prepared(statements.SPREAD_RECEIPTS)
            spreading.run(connection, period_id=period_id, revision=revision)

        self._fenced(lease, action)

    def record_receipt(self, lease: Lease, delivery_id: str, receipt: Receipt) -> Future[None]:
        """Group commit: the future is done when the receipt is on disk."""
        return self._writer.record(self._receipts, lease, delivery_id, receipt_row(receipt))

    # --- Reading

    def totals(self, delivery_id: str) -> tuple[int, int]:
        """How many objects are planned, and their bytes."""
        query = (
            select(func.count(), func.coalesce(func.sum(objects.c.size), 0))
            .select_from(objects.join(deliveries_))
            .where(deliveries_.c.id == delivery_id)
        )
        ((count, total),) = self._rows(query)
        return int(count), int(total)

    def last_proof(self, delivery_id: str) -> datetime | None:
        """When the newest of the delivery's receipts says that its object was delivered; None when it has no
        receipt."""
        # Through the plan, since a drop folder's period has the receipts of all its batches.
        query = (
            select(func.max(receipts.c.delivered_at))
            .select_from(objects.join(deliveries_).join(receipts, SAME_OBJECT))
            .where(deliveries_.c.id == delivery_id)
        )
        ((found,),) = self._rows(query)
        return cast("datetime | None", found)

    def planned(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt | None]]:
        """The delivery's objects in the order of their names, streamed, each with its receipt if it has
        one."""
        for page in _pages(self._database, statements.PLANNED_PAGE, delivery_id):
            yield from pairs_of(page)

    def proven(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt]]:
        """As ``planned``, those that have a receipt. A receipt says whether its object was removed since."""
        for page in _pages(self._database, statements.PROVEN_PAGE, delivery_id):
            for item, receipt in pairs_of(page):
                assert receipt is not None  # the rows have receipts
                yield item, receipt

    def page(
        self,
        delivery_id: str,
        *,
        after: str = "",
        beginning: str = "",
        containing: str = "",
        limit: int = 100,
    ) -> list[tuple[PlannedObject, Receipt | None]]:
        """As ``planned``, but only the first ``limit`` objects whose names come after ``after``, begin with
        ``beginning``, and have ``containing`` somewhere in them, in whatever case. A receipt says whether its
        object was removed since."""
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
        """The planned objects without a receipt, in the order of their names, streamed. What is acknowledged
        while the iterator runs may or may not still appear."""
        for page in _pages(self._database, statements.PENDING_PAGE, delivery_id):
            yield from objects_of(page)

    def left_out(self, delivery_id: str) -> Iterator[MissingObject]:
        """What ``leave_out`` took out of the delivery, in the order of names, streamed."""
        for page in _pages(self._database, statements.MISSING_PAGE, delivery_id):
            for name, key, size, algorithm, value, reason in page:
                yield MissingObject(name, key, size, Checksum(algorithm, value), MissingReason(reason))

    def delivered(self, customer: str, feed: str, period: str) -> Iterator[tuple[PlannedObject, Receipt]]:
        """For every source name ever delivered in that (customer, feed, period), the object of its highest
        revision, in the order of names, streamed. A drop folder's plan is made against this. A receipt says
        whether its object was removed since, and whether its revision was superseded."""
        number = self._read(lambda c: deliveries.period_id(c, customer, feed, period))
        if number is None:
            return
        rows = _delivered_rows(self._database, number)
        # The revisions of one name come one after the other, the highest last.
        highest = (row for row, following in pairwise(chain(rows, [("",)])) if row[0] != following[0])
        for item, receipt in pairs_of(highest):
            assert receipt is not None  # the rows are receipts
            yield item, receipt


def stage(connection: Connection, database: Database, planned: Iterable[PlannedObject]) -> int:
    """Sets the objects aside in a table of this connection alone; answers their number.

    The source is still being listed while this goes on, which may take minutes, so no lock is held.
    """
    with connection.begin():
        connection.execute(DropTable(staged_objects, if_exists=True))
        connection.execute(CreateTable(staged_objects))
    count, source, staging = 0, iter(planned), database.upserting(staged_objects)
    while rows := list(islice(source, _STAGED_AT_A_TIME)):
        count += len(rows)
        with connection.begin():
            staging.run_many(connection, rows, staged=True)
    return count


def clear_stage(connection: Connection) -> None:
    with connection.begin():
        connection.execute(DropTable(staged_objects, if_exists=True))


def _drop(
    connection: Connection,
    table: Table,
    place: tuple[int, int],
    names: Sequence[str],
    *which: ColumnElement[bool],
) -> int:
    """Takes rows of a delivery out of a table by their names; answers how many there were."""
    count, source = 0, iter(names)
    while some := list(islice(source, _NAMED_AT_A_TIME)):
        of_delivery = (table.c.period_id == place[0], table.c.revision == place[1])
        count += connection.execute(
            delete(table).where(*of_delivery, table.c.name.in_(some), *which)
        ).rowcount
    return count


def _delivered_rows(database: Database, period_id: int) -> Iterator[tuple[Any, ...]]:
    """A period's receipts with their objects, in the order of names and then revisions."""
    query, after, after_revision = database.prepared(statements.DELIVERED_PAGE), "", 0
    for size in _page_sizes():
        page = query.fetch(period_id=period_id, after=after, after_revision=after_revision, limit=size)
        yield from page
        if len(page) < size:
            return
        after, after_revision = page[-1][0], page[-1][14]


def _pages(database: Database, statement: ClauseElement, delivery_id: str) -> Iterator[Rows]:
    """A delivery's rows in the order of names, page by page.

    Each page is a query of its own, so that a reader that takes hours (an upload) holds neither a
    connection nor an old state of the database, which would keep SQLite from emptying its log.
    """
    found = database.read(lambda c: deliveries.place(c, delivery_id))
    if found is None:
        return
    query, after = database.prepared(statement), ""
    for size in _page_sizes():
        page = query.fetch(period_id=found[0], revision=found[1], after=after, limit=size)
        yield page
        if len(page) < size:
            return
        after = page[-1][0]


def _page_sizes() -> Iterator[int]:
    """Small at first, for those who only want to see whether there is anything."""
    size = _FIRST_PAGE
    while True:
        yield size
        size = min(size * 2, _LARGEST_PAGE)


# --- Rows, of which there may be millions, as the driver takes and answers them


def receipt_row(receipt: Receipt) -> tuple[object, ...]:
    """The columns of a receipt."""
    name, key, size, checksum, etag, delivered_at, version_id, sha256, _, _ = receipt
    return (name, key, size, *checksum, etag, text_of(delivered_at), version_id, sha256)


def objects_of(page: Iterable[tuple[Any, ...]]) -> Iterator[PlannedObject]:
    """Rows of the columns of an object."""
    for name, key, size, modified_ns, identity, carried in page:
        yield PlannedObject._make((name, key, size, modified_ns, identity, carried == 1))


def pairs_of(page: Iterable[tuple[Any, ...]]) -> Iterator[tuple[PlannedObject, Receipt | None]]:
    """Rows of the columns of an object, then those of its receipt (null where there is none), then, where the
    query asks for them, the revision, whether the object was removed, and whether the revision was
    superseded."""
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
