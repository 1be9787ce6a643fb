"""Acts on customers' buckets, and the keys that they removed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    and_,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from xmode_transfer.adapters.ledger import deliveries
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.removed import was_removed
from xmode_transfer.adapters.ledger.statements import Statements
from xmode_transfer.adapters.ledger.tables import ACT, REMOVAL, acts, periods, receipts, removals
from xmode_transfer.adapters.ledger.tables import deliveries as deliveries_
from xmode_transfer.domain.acts import Act, ActKind, Removal, RemovalOutcome
from xmode_transfer.domain.records import Holding

_PAGE = 1_000
_INTENDED = (RemovalOutcome.PLANNED, RemovalOutcome.DOUBTFUL)


def start(connection: Connection, database: Database, act: Act) -> None:
    connection.execute(database.insert(acts).values(ACT.values(act)).on_conflict_do_nothing())


def finish(connection: Connection, act: Act) -> None:
    changed = connection.execute(update(acts).where(acts.c.id == act.id).values(ACT.values(act)))
    if changed.rowcount == 0:
        raise deliveries.unknown("act", act.id)


def newest(
    connection: Connection, customer: str | None, kind: ActKind | None, limit: int | None
) -> list[Act]:
    query = select(acts).order_by(acts.c.started_at.desc(), acts.c.id.desc())
    if customer is not None:
        query = query.where(acts.c.customer == customer)
    if kind is not None:
        query = query.where(acts.c.kind == kind)
    if limit is not None:
        query = query.limit(limit)
    return [ACT.record(row) for row in connection.execute(query)]


def record(connection: Connection, statements: Statements, act_id: str, found: Iterable[Removal]) -> None:
    customer = connection.execute(select(acts.c.customer).where(acts.c.id == act_id)).scalar_one_or_none()
    if customer is None:
        raise deliveries.unknown("act", act_id)
    numbers: dict[tuple[str, str], int] = {}
    rows = []
    for item in found:
        place = (item.feed, item.period)
        if place not in numbers:
            number = deliveries.period_id(connection, customer, *place)
            if number is None:
                raise deliveries.unknown("period", f"{customer}/{item.feed}/{item.period}")
            numbers[place] = number
        rows.append((numbers[place], act_id, *REMOVAL.stored(item)))
    statements.add_removal.run_many(connection, rows)


def of_act(
    database: Database,
    act_id: str,
    feed: str | None,
    period: str | None,
    outcomes: Iterable[RemovalOutcome] | None,
) -> Iterator[Removal]:
    """Page by page, each a query of its own, so that what is read may be changed meanwhile."""
    query = (
        select(removals, periods.c.feed, periods.c.period)
        .join(periods, periods.c.id == removals.c.period_id)
        .join(acts, and_(acts.c.id == removals.c.act_id, acts.c.customer == periods.c.customer))
        .where(removals.c.act_id == act_id)
        .order_by(removals.c.period_id, removals.c.key)
        .limit(_PAGE)
    )
    for column, wanted in ((periods.c.feed, feed), (periods.c.period, period)):
        if wanted is not None:
            query = query.where(column == wanted)
    if outcomes is not None:
        query = query.where(removals.c.outcome.in_(list(outcomes)))
    last: tuple[int, str] | None = None
    while True:
        after = query
        if last is not None:
            after = query.where(tuple_(removals.c.period_id, removals.c.key) > tuple_(*last))
        rows = _rows(database, after)
        for row in rows:
            yield REMOVAL.record(row)
        if len(rows) < _PAGE:
            return
        last = (rows[-1].period_id, rows[-1].key)


def settle(
    connection: Connection,
    customer: str,
    keys: Iterable[str],
    outcome: RemovalOutcome,
    at: datetime,
    unfinished: Iterable[str],
) -> set[str]:
    """Keys that unfinished acts had meant to remove get that outcome; answers them, also those that got it at
    this moment already."""
    of_customer = select(periods.c.id).where(periods.c.customer == customer)
    settled: set[str] = set()
    source = iter(keys)
    while some := list(islice(source, 500)):
        meant = and_(
            removals.c.period_id.in_(of_customer),
            removals.c.key.in_(some),
            removals.c.act_id.in_(list(unfinished)),
            or_(removals.c.outcome.in_(_INTENDED), and_(removals.c.outcome == outcome, removals.c.at == at)),
        )
        settled |= set(connection.execute(select(removals.c.key).where(meant)).scalars())
        connection.execute(update(removals).where(meant).values(outcome=outcome, at=at))
    return settled


def forget_planned(connection: Connection, act_id: str) -> int:
    customer = select(acts.c.customer).where(acts.c.id == act_id).scalar_subquery()
    of_customer = select(periods.c.id).where(periods.c.customer == customer)
    return connection.execute(
        delete(removals).where(
            removals.c.period_id.in_(of_customer),
            removals.c.act_id == act_id,
            removals.c.outcome.in_(_INTENDED),
        )
    ).rowcount


def holdings(database: Database, customer: str) -> list[Holding]:
    """Grouped twice: a key that several revisions name counts once, with the last of them. A delivery with
    nothing but its manifest is named too."""
    of_customer = periods.c.customer == customer
    keys = (
        select(
            receipts.c.period_id,
            receipts.c.key,
            func.max(receipts.c.revision).label("revision"),
            func.max(receipts.c.size).label("size"),
        )
        .join(periods, periods.c.id == receipts.c.period_id)
        .where(of_customer, ~was_removed(receipts))
        .group_by(receipts.c.period_id, receipts.c.key)
        .subquery()
    )
    objects = select(
        keys.c.period_id,
        keys.c.revision,
        func.count().label("count"),
        func.sum(keys.c.size).label("bytes"),
    ).group_by(keys.c.period_id, keys.c.revision)
    manifests = (
        select(deliveries_.c.period_id, deliveries_.c.revision, literal(0), literal(0))
        .join(periods, periods.c.id == deliveries_.c.period_id)
        .where(
            of_customer,
            deliveries_.c.delivered_at.is_not(None),
            ~was_removed(deliveries_, deliveries_.c.manifest_key),
        )
    )
    parts = union_all(objects, manifests).subquery()
    query = (
        select(
            periods.c.feed,
            periods.c.period,
            parts.c.revision,
            func.sum(parts.c.count),
            func.sum(parts.c.bytes),
        )
        .join_from(parts, periods, periods.c.id == parts.c.period_id)
        .group_by(periods.c.feed, periods.c.period, parts.c.revision)
        .order_by(periods.c.feed, periods.c.period, parts.c.revision)
    )
    return [
        Holding(feed, period, revision, int(count), int(size))
        for feed, period, revision, count, size in _rows(database, query)
    ]


def _rows(database: Database, query: Select[Any]) -> Sequence[Any]:
    return database.read(lambda connection: connection.execute(query).all())
