"""Notices for customers."""

from collections.abc import Iterable

from sqlalchemy import select

from xmode_transfer.adapters.ledger.subject import Subject
from xmode_transfer.adapters.ledger.tables import NOTICE, notices
from xmode_transfer.domain.notices import Notice, NoticeStatus
from xmode_transfer.domain.records import Lease


class Notices(Subject):
    """What customers were told, or are to be, in their buckets."""

    def find(
        self, customer: str | None = None, statuses: Iterable[NoticeStatus] | None = None
    ) -> list[Notice]:
        """The oldest first."""
        query = select(notices).order_by(notices.c.made_at, notices.c.key)
        if customer is not None:
            query = query.where(notices.c.customer == customer)
        if statuses is not None:
            query = query.where(notices.c.status.in_(list(statuses)))
        return [NOTICE.record(row) for row in self._rows(query)]

    def record(self, lease: Lease, changed: Iterable[Notice]) -> None:
        """Adds notices, or overwrites those of the same mark. All of it or nothing."""
        rows = [NOTICE.values(notice) for notice in changed]
        self._fenced(lease, lambda c: rows and c.execute(self._database.upsert(notices), rows))
