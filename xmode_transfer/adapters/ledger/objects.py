"""The plan of a delivery and the receipts of its objects."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice, pairwise
from typing import Any, cast

from sqlalchemy import Connection, Table, and_, delete, exists, func, insert, select
from sqlalchemy.schema import CreateTable, DropTable

from xmode_transfer.adapters.ledger import deliveries
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.statements import LIKE_ESCAPE, Prepared, Rows, Statements
from xmode_transfer.adapters.ledger.tables import (
    MISSING,
    OBJECT,
    missing,
    objects,
    receipts,
    staged_objects,
    text_of,
    time_of,
)
from xmode_transfer.domain.errors import LedgerError
from xmode_transfer.domain.records import (
    Checksum,
    MissingObject,
    MissingReason,
    PlannedObject,
    Receipt,
    SourceFile,
)

_STAGED_AT_A_TIME = 5_000
_FIRST_PAGE, _LARGEST_PAGE = 250, 2_000
_PLACES_KEPT = 10_000
_NAMED_AT_A_TIME = 500


class Receipts:
    """The journal of receipts (``writer.Journal``)."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._places: dict[str, tuple[int, int]] = {}

    def place(self, connection: Connection, owner: str) -> tuple[object, ...]:
        found = self._places.get(owner)
        if found is None:
            found = deliveries.place(connection, owner)
            if found is None:
                raise deliveries.unknown("delivery", owner)
            if len(self._places) >= _PLACES_KEPT:
                self._places.clear()
            self._places[owner] = found
        return found

    def add(self, connection: Connection, rows: list[tuple[object, ...]]) -> None:
        # A receipt of an object that was never planned breaks a foreign key, and is refused.
        self._statements.add_receipt.run_many(connection, rows)


def stage(connection: Connection, statements: Statements, planned: Iterable[PlannedObject]) -> int:
    """Sets the objects aside in a table of this connection alone; answers their number.

    The source is still being listed while this goes on, which may take minutes, so no lock is held.
    """
    with connection.begin():
        connection.execute(DropTable(staged_objects, if_exists=True))
        connection.execute(CreateTable(staged_objects))
    count = 0
    source = iter(planned)
    while rows := [OBJECT.stored(item) for item in islice(source, _STAGED_AT_A_TIME)]:
        count += len(rows)
        with connection.begin():
            statements.stage_object.stage(connection, rows)
    return count


def clear_stage(connection: Connection) -> None:
    with connection.begin():
        connection.execute(DropTable(staged_objects, if_exists=True))


def merge_stage(connection: Connection, statements: Statements, delivery_id: str) -> None:
    """Puts what was staged into the plan, in the transaction of the caller, and copies what is carried."""
    period_id, revision = _place(connection, delivery_id)
    place = {"period_id": period_id, "revision": revision}
    statements.merge_staged.run(connection, **place)
    statements.not_missing.run(connection, **place)
    statements.copy_carried.run(connection, **place)
    ((count, first),) = statements.not_carried.run(connection, **place)
    if count:
        raise LedgerError(
            f"{count} objects are to be carried from an earlier revision that has no receipt for them, "
            f"the first of them {first}.",
            hint="Nothing was written. This is a defect; the next run plans the delivery anew.",
        )


def restamp(
    connection: Connection,
    statements: Statements,
    customer: str,
    feed: str,
    period: str,
    files: Iterable[SourceFile],
) -> None:
    number = deliveries.period_id(connection, customer, feed, period)
    if number is None:
        return
    statement = statements.restamp_object
    source = iter(files)
    while some := list(islice(source, _STAGED_AT_A_TIME)):
        statement.run_many(
            connection,
            [
                statement.arguments(
                    of_period=number,
                    of_name=file.name,
                    new_modified_ns=file.modified_ns,
                    new_identity=file.identity,
                )
                for file in some
            ],
        )


def forget(connection: Connection, delivery_id: str, names: Iterable[str]) -> int:
    period_id, revision = _place(connection, delivery_id)
    has_receipt = exists().where(
        receipts.c.period_id == objects.c.period_id,
        receipts.c.revision == objects.c.revision,
        receipts.c.name == objects.c.name,
    )
    count = 0
    source = iter(names)
    while some := list(islice(source, _NAMED_AT_A_TIME)):
        count += connection.execute(
            delete(objects).where(
                objects.c.period_id == period_id,
                objects.c.revision == revision,
                objects.c.name.in_(some),
                ~has_receipt,
            )
        ).rowcount
    return count


def send_again(
    connection: Connection, statements: Statements, delivery_id: str, again: Iterable[PlannedObject]
) -> None:
    rows = [OBJECT.stored(item) for item in again]
    place = _place(connection, delivery_id)
    _drop(connection, receipts, place, [str(row[0]) for row in rows])
    statements.replace_object.run_many(connection, [(*place, *row) for row in rows])


def leave_out(connection: Connection, delivery_id: str, gone: Iterable[MissingObject]) -> None:
    place = _place(connection, delivery_id)
    source = iter(gone)
    while some := list(islice(source, _NAMED_AT_A_TIME)):
        names = [item.name for item in some]
        for table in (receipts, objects, missing):
            _drop(connection, table, place, names)
        connection.execute(
            insert(missing),
            [{"period_id": place[0], "revision": place[1], **MISSING.values(item)} for item in some],
        )


def left_out(database: Database, statements: Statements, delivery_id: str) -> Iterator[MissingObject]:
    for page in _pages(database, statements.missing_page, delivery_id):
        for name, key, size, algorithm, value, reason in page:
            yield MissingObject(name, key, size, Checksum(algorithm, value), MissingReason(reason))


def spread_receipts(connection: Connection, statements: Statements, delivery_id: str) -> None:
    period_id, revision = _place(connection, delivery_id)
    statements.spread_receipts.run(connection, period_id=period_id, revision=revision)


def last_proof(connection: Connection, delivery_id: str) -> datetime | None:
    found = deliveries.place(connection, delivery_id)
    if found is None:
        return None
    # Through the plan, since a drop folder's period has the receipts of all its batches.
    query = (
        select(func.max(receipts.c.delivered_at))
        .select_from(objects)
        .join(
            receipts,
            and_(
                receipts.c.period_id == objects.c.period_id,
                receipts.c.name == objects.c.name,
                receipts.c.revision == objects.c.revision,
            ),
        )
        .where(objects.c.period_id == found[0], objects.c.revision == found[1])
    )
    return cast("datetime | None", connection.execute(query).scalar_one())


def _place(connection: Connection, delivery_id: str) -> tuple[int, int]:
    found = deliveries.place(connection, delivery_id)
    if found is None:
        raise deliveries.unknown("delivery", delivery_id)
    return found


def _drop(connection: Connection, table: Table, place: tuple[int, int], names: Sequence[str]) -> None:
    source = iter(names)
    while some := list(islice(source, _NAMED_AT_A_TIME)):
        connection.execute(
            delete(table).where(
                table.c.period_id == place[0], table.c.revision == place[1], table.c.name.in_(some)
            )
        )


def proven(
    database: Database, statements: Statements, delivery_id: str
) -> Iterator[tuple[PlannedObject, Receipt]]:
    for page in _pages(database, statements.proven_page, delivery_id):
        for item, receipt in pairs_of(page):
            assert receipt is not None  # the rows have receipts
            yield item, receipt


def planned(
    database: Database, statements: Statements, delivery_id: str
) -> Iterator[tuple[PlannedObject, Receipt | None]]:
    for page in _pages(database, statements.planned_page, delivery_id):
        yield from pairs_of(page)


def planned_page(
    database: Database,
    statements: Statements,
    delivery_id: str,
    after: str,
    beginning: str,
    containing: str,
    limit: int,
) -> list[tuple[PlannedObject, Receipt | None]]:
    found = database.read(lambda c: deliveries.place(c, delivery_id))
    if found is None:
        return []
    text = re.sub(r"[\\%_]", lambda match: LIKE_ESCAPE + match[0], containing)
    page = statements.found_page.fetch(
        period_id=found[0],
        revision=found[1],
        after=after,
        first=beginning,
        last=f"{beginning}\U0010ffff",
        pattern=f"%{text}%",
        limit=limit,
    )
    return list(pairs_of(page))


def pending(database: Database, statements: Statements, delivery_id: str) -> Iterator[PlannedObject]:
    for page in _pages(database, statements.pending_page, delivery_id):
        yield from objects_of(page)


def delivered(
    database: Database, statements: Statements, customer: str, feed: str, period: str
) -> Iterator[tuple[PlannedObject, Receipt]]:
    number = database.read(lambda c: deliveries.period_id(c, customer, feed, period))
    if number is None:
        return
    rows = _delivered_rows(statements, number)
    # The revisions of one name come one after the other, the highest last.
    highest = (row for row, following in pairwise(chain(rows, [("",)])) if row[0] != following[0])
    for item, receipt in pairs_of(highest):
        assert receipt is not None  # the rows are receipts
        yield item, receipt


def totals(connection: Connection, delivery_id: str) -> tuple[int, int]:
    """How many objects a delivery has, and their bytes."""
    found = deliveries.place(connection, delivery_id)
    if found is None:
        return 0, 0
    query = select(func.count(), func.coalesce(func.sum(objects.c.size), 0)).where(
        objects.c.period_id == found[0], objects.c.revision == found[1]
    )
    count, total = connection.execute(query).one()
    return int(count), int(total)


def _delivered_rows(statements: Statements, period_id: int) -> Iterator[tuple[Any, ...]]:
    """A period's receipts with their objects, in the order of names and then revisions."""
    after, after_revision = "", 0
    for size in _page_sizes():
        page = statements.delivered_page.fetch(
            period_id=period_id, after=after, after_revision=after_revision, limit=size
        )
        yield from page
        if len(page) < size:
            return
        after, after_revision = page[-1][0], page[-1][14]


def _pages(database: Database, query: Prepared, delivery_id: str) -> Iterator[Rows]:
    """A delivery's rows in the order of names, page by page.

    Each page is a query of its own, so that a reader that takes hours (an upload) holds neither a
    connection nor an old state of the database, which would keep SQLite from emptying its log.
    """
    found = database.read(lambda c: deliveries.place(c, delivery_id))
    if found is None:
        return
    after = ""
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


# --- Rows, as the driver answers them: there may be millions

_REMOVED, _SUPERSEDED = 15, 16  # the columns after an object's, its receipt's and the revision


def receipt_row(receipt: Receipt) -> tuple[object, ...]:
    """The columns of a receipt. By hand, in a third of the time that ``Rows.stored`` takes."""
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
