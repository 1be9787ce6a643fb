"""Notices for customers."""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from xmode_transfer.adapters.ledger.subject import Subject
from xmode_transfer.adapters.ledger.tables import NOTICE, notices
from xmode_transfer.domain.notices import Mark, Notice, NoticeStatus
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

        def action(connection: Connection) -> None:
            for values in rows:
                adding = self._database.insert(notices).values(values)
                connection.execute(adding.on_conflict_do_update(index_elements=Mark._fields, set_=values))

        self._fenced(lease, action)
