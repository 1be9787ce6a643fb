"""Deliveries, their runs, and what the destinations were found to allow."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.tables import (
    CAPABILITIES,
    DELIVERY,
    RUN,
    capabilities,
    deliveries,
    periods,
    runs,
)
from xmode_transfer.domain.errors import LedgerError
from xmode_transfer.domain.records import Capabilities, Delivery, Run, Status

_DELIVERIES: Select[Any] = select(deliveries, periods.c.customer, periods.c.feed, periods.c.period).join_from(
    deliveries, periods
)


_FOR_GOOD = ("id", "created_at")
"""What an update leaves as it is."""


def unknown(what: str, name: str) -> LedgerError:
    return LedgerError(
        f"The ledger knows no {what} {name}.",
        hint="Nothing was written. Either the ledger was replaced by an older copy while we ran, or this is "
        "a defect.",
    )


def latest(connection: Connection, customer: str, feed: str, period: str) -> Delivery | None:
    row = connection.execute(
        _DELIVERIES.where(periods.c.customer == customer, periods.c.feed == feed, periods.c.period == period)
        .order_by(deliveries.c.revision.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else DELIVERY.record(row)


def newest(
    connection: Connection,
    customer: str | None,
    feed: str | None,
    period: str | None,
    statuses: Iterable[Status] | None,
    limit: int | None,
    since: str | None,
) -> list[Delivery]:
    query = _DELIVERIES.order_by(
        deliveries.c.updated_at.desc(), deliveries.c.period_id.desc(), deliveries.c.revision.desc()
    )
    for column, wanted in (
        (periods.c.customer, customer),
        (periods.c.feed, feed),
        (periods.c.period, period),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if statuses is not None:
        query = query.where(deliveries.c.status.in_(list(statuses)))
    if since is not None:
        query = query.where(periods.c.period >= since)
    if limit is not None:
        query = query.limit(limit)
    return [DELIVERY.record(row) for row in connection.execute(query)]


def by_id(connection: Connection, delivery_id: str) -> Delivery | None:
    row = connection.execute(_DELIVERIES.where(deliveries.c.id == delivery_id)).one_or_none()
    return None if row is None else DELIVERY.record(row)


def create(connection: Connection, database: Database, delivery: Delivery) -> None:
    known = select(deliveries.c.id).where(deliveries.c.id == delivery.id)
    if connection.execute(known).one_or_none() is not None:
        return
    names = {"customer": delivery.customer, "feed": delivery.feed, "period": delivery.period}
    connection.execute(database.insert(periods).values(names).on_conflict_do_nothing())
    period_id = connection.execute(select(periods.c.id).filter_by(**names)).scalar_one()
    taken = select(deliveries.c.id).filter_by(period_id=period_id, revision=delivery.revision)
    if (other := connection.execute(taken).scalar_one_or_none()) is not None:
        raise LedgerError(
            f"The delivery {delivery.label} exists already, under the ID {other}.",
            hint="Nothing was written. Two processes have planned the same revision; the next run goes on "
            "with the one that is there.",
        )
    connection.execute(
        insert(deliveries).values(
            period_id=period_id, revision=delivery.revision, **DELIVERY.values(delivery)
        )
    )


def overwrite(connection: Connection, delivery: Delivery) -> None:
    values = DELIVERY.values(delivery)
    changed = connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery.id)
        .values({name: value for name, value in values.items() if name not in _FOR_GOOD})
    )
    if changed.rowcount == 0:
        raise unknown("delivery", delivery.id)


def place(connection: Connection, delivery_id: str) -> tuple[int, int] | None:
    """Where the delivery's objects are: its period's number, and its revision."""
    row = connection.execute(
        select(deliveries.c.period_id, deliveries.c.revision).where(deliveries.c.id == delivery_id)
    ).one_or_none()
    return None if row is None else (row.period_id, row.revision)


def period_id(connection: Connection, customer: str, feed: str, period: str) -> int | None:
    return connection.execute(
        select(periods.c.id).filter_by(customer=customer, feed=feed, period=period)
    ).scalar_one_or_none()


def start_run(connection: Connection, database: Database, run: Run) -> None:
    if place(connection, run.delivery_id) is None:
        raise unknown("delivery", run.delivery_id)
    connection.execute(database.insert(runs).values(RUN.values(run)).on_conflict_do_nothing())


def finish_run(connection: Connection, run: Run) -> None:
    changed = connection.execute(update(runs).where(runs.c.id == run.id).values(RUN.values(run)))
    if changed.rowcount == 0:
        raise unknown("run", run.id)


def newest_runs(
    connection: Connection, customer: str | None, limit: int, delivery_id: str | None
) -> list[Run]:
    query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
    if customer is not None:
        query = (
            query.join(deliveries, deliveries.c.id == runs.c.delivery_id)
            .join(periods, periods.c.id == deliveries.c.period_id)
            .where(periods.c.customer == customer)
        )
    if delivery_id is not None:
        query = query.where(runs.c.delivery_id == delivery_id)
    return [RUN.record(row) for row in connection.execute(query)]


def known_capabilities(connection: Connection, customer: str) -> Capabilities:
    row = connection.execute(select(capabilities).where(capabilities.c.customer == customer)).one_or_none()
    return Capabilities() if row is None else CAPABILITIES.record(row)


def learn(connection: Connection, database: Database, customer: str, learned: Capabilities) -> None:
    values = CAPABILITIES.values(learned)
    adding = database.insert(capabilities).values(customer=customer, **values)
    connection.execute(
        adding.on_conflict_do_update(
            index_elements=["customer"],
            set_={name: func.coalesce(adding.excluded[name], capabilities.c[name]) for name in values},
        )
    )
