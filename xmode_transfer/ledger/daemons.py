"""Daemons, and the visits that they have paid."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.subject import Subject
from xmode_transfer.ledger.tables import DAEMON, daemons, visits
from xmode_transfer.model.daemons import DaemonRecord
from xmode_transfer.model.records import Lease

_REMEMBERED = timedelta(days=30)


class Daemons(Subject):
    """Which daemons work with this ledger, and what they have done by schedule."""

    def note(self, lease: Lease, daemon: DaemonRecord) -> None:
        """Adds the daemon, or overwrites what is known of that holder. Daemons that ended long ago are
        forgotten."""
        noting = self._database.upsert(daemons).values(DAEMON.values(daemon))

        def action(connection: Connection) -> None:
            connection.execute(noting)
            connection.execute(
                delete(daemons).where(
                    daemons.c.ticked_at < daemon.ticked_at - _REMEMBERED, daemons.c.holder != daemon.holder
                )
            )

        self._fenced(lease, action)

    def newest(self, limit: int = 10) -> list[DaemonRecord]:
        """The one that ticked last, first."""
        return self._read(lambda c: newest(c, limit))

    def served(self) -> dict[tuple[str, str], datetime]:
        """By customer and work, the time of the schedule for which the customer was visited last."""
        return {(row.customer, row.work): row.served_at for row in self._rows(select(visits))}

    def serve(self, customer: str, work: str, served_at: datetime) -> None:
        """Remembers such a time; it replaces the one before."""
        self._write(lambda c: serve(c, self._database, customer, work, served_at))


def newest(connection: Connection, limit: int) -> list[DaemonRecord]:
    query = select(daemons).order_by(daemons.c.ticked_at.desc(), daemons.c.started_at.desc()).limit(limit)
    return [DAEMON.record(row) for row in connection.execute(query)]


def serve(connection: Connection, database: Database, customer: str, work: str, served_at: datetime) -> None:
    visited = {"customer": customer, "work": work, "served_at": served_at}
    connection.execute(database.upsert(visits).values(visited))
