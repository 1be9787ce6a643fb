"""Looks at sources: what each feed's source had when it was last looked at for a customer."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.subject import Subject
from xmode_transfer.adapters.ledger.tables import LOOK, looks, passed_over
from xmode_transfer.domain.looks import Look
from xmode_transfer.domain.records import Delivery, Status


class Sources(Subject):
    """What was seen at the sources, and what is not to be delivered of it."""

    def record(self, look: Look) -> Look:
        """Remembers a look at a feed's source for a customer, in place of the one before; answers it with
        what the one before knew (``Look.after``). A delivery of a due period that is closed later takes that
        period out again."""

        def action(connection: Connection) -> Look:
            known = look.after(_last(connection, look.customer, look.feed))
            _put(connection, self._database, known)
            return known

        return self._write(action)

    def last(self, customer: str, feed: str) -> Look | None:
        """The last look."""
        return self._read(lambda c: _last(c, customer, feed))

    def pass_over(self, customer: str, feed: str, markers: Mapping[str, str], passed_at: datetime) -> None:
        """Remembers periods (by label, with the source's completeness mark) that are not delivered unless
        somebody names them, or the source declares them anew. Idempotent."""
        rows = [
            {"customer": customer, "feed": feed, "period": period, "marker": marker, "passed_at": passed_at}
            for period, marker in markers.items()
        ]
        if rows:
            self._write(lambda c: c.execute(self._database.upsert(passed_over), rows))

    def passed_over(self, customer: str, feed: str) -> dict[str, str]:
        """Such periods by label, with the mark for which they were passed over."""
        query = select(passed_over.c.period, passed_over.c.marker).filter_by(customer=customer, feed=feed)
        return {row.period: row.marker for row in self._rows(query)}


def settle(connection: Connection, database: Database, delivery: Delivery) -> None:
    """Takes a period that was delivered out of the last look."""
    if delivery.status is not Status.DELIVERED:
        return
    look = _last(connection, delivery.customer, delivery.feed)
    if look is not None and delivery.period in look.due:
        _put(connection, database, look.without(delivery.period, delivery.updated_at))


def _last(connection: Connection, customer: str, feed: str) -> Look | None:
    row = connection.execute(select(looks).filter_by(customer=customer, feed=feed)).one_or_none()
    return None if row is None else LOOK.record(row)


def _put(connection: Connection, database: Database, look: Look) -> None:
    connection.execute(database.upsert(looks).values(LOOK.values(look)))
