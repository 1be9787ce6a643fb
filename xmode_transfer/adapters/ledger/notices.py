"""Notices for customers, and the corrections that they tell of."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, exists, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.rows import delivery_of, maybe_text_of, maybe_time_of, text_of, time_of
from xmode_transfer.adapters.ledger.tables import deliveries, notices, periods
from xmode_transfer.domain.notices import Mark, Notice, NoticeKind, NoticeStatus
from xmode_transfer.domain.records import Delivery, Status

_MARK = ("customer", "feed", "period", "kind", "revision")


def known(
    connection: Connection, customer: str | None, statuses: Iterable[NoticeStatus] | None
) -> list[Notice]:
    query = select(notices).order_by(notices.c.made_at, notices.c.key)
    if customer is not None:
        query = query.where(notices.c.customer == customer)
    if statuses is not None:
        query = query.where(notices.c.status.in_([str(status) for status in statuses]))
    return [_notice_of(row) for row in connection.execute(query)]


def write(connection: Connection, database: Database, changed: Iterable[Notice]) -> None:
    for notice in changed:
        adding = database.insert(notices).values(_values(notice))
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
    delivered = str(Status.DELIVERED)
    query = (
        select(deliveries, periods.c.customer, periods.c.feed, periods.c.period)
        .join_from(deliveries, periods)
        .where(
            deliveries.c.status == delivered,
            deliveries.c.updated_at >= text_of(since),
            deliveries.c.delivered_at >= text_of(since),
            periods.c.period != "none",
            exists().where(
                earlier.c.period_id == deliveries.c.period_id,
                earlier.c.revision < deliveries.c.revision,
                earlier.c.status == delivered,
            ),
        )
        .order_by(deliveries.c.delivered_at)
    )
    return [delivery_of(row) for row in connection.execute(query)]


def _values(notice: Notice) -> dict[str, object]:
    return {
        **notice.mark._asdict(),
        "kind": str(notice.mark.kind),
        "key": notice.key,
        "body": notice.body,
        "made_at": text_of(notice.made_at),
        "status": str(notice.status),
        "attempts": notice.attempts,
        "next_attempt_at": maybe_text_of(notice.next_attempt_at),
        "put_at": maybe_text_of(notice.put_at),
        "error": notice.error,
    }


def _notice_of(row: Any) -> Notice:
    return Notice(
        Mark(row.customer, row.feed, row.period, NoticeKind(row.kind), row.revision),
        row.key,
        row.body,
        time_of(row.made_at),
        NoticeStatus(row.status),
        row.attempts,
        maybe_time_of(row.next_attempt_at),
        maybe_time_of(row.put_at),
        row.error,
    )
