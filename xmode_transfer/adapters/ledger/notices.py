"""Notices for customers, and the corrections that they tell of."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, exists, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.tables import DELIVERY, NOTICE, deliveries, notices, periods
from xmode_transfer.domain.notices import Mark, Notice, NoticeStatus
from xmode_transfer.domain.records import Delivery, Status

_MARK = Mark._fields


def known(
    connection: Connection, customer: str | None, statuses: Iterable[NoticeStatus] | None
) -> list[Notice]:
    query = select(notices).order_by(notices.c.made_at, notices.c.key)
    if customer is not None:
        query = query.where(notices.c.customer == customer)
    if statuses is not None:
        query = query.where(notices.c.status.in_(list(statuses)))
    return [NOTICE.record(row) for row in connection.execute(query)]


def write(connection: Connection, database: Database, changed: Iterable[Notice]) -> None:
    for notice in changed:
        adding = database.insert(notices).values(NOTICE.values(notice))
        connection.execute(
            adding.on_conflict_do_update(
                index_elements=_MARK,
                set_={
                    column.name: adding.excluded[column.name]
                    for column in notices.columns
                    if column.name not in _MARK
                },
            )
        )


def corrections(connection: Connection, since: datetime) -> list[Delivery]:
    earlier = deliveries.alias("earlier")
    delivered = Status.DELIVERED
    query = (
        select(deliveries, periods.c.customer, periods.c.feed, periods.c.period)
        .join_from(deliveries, periods)
        .where(
            deliveries.c.status == delivered,
            deliveries.c.updated_at >= since,
            deliveries.c.delivered_at >= since,
            periods.c.period != "none",
            exists().where(
                earlier.c.period_id == deliveries.c.period_id,
                earlier.c.revision < deliveries.c.revision,
                earlier.c.status == delivered,
            ),
        )
        .order_by(deliveries.c.delivered_at)
    )
    return [DELIVERY.record(row) for row in connection.execute(query)]
