"""Alerts, and what each channel knows of them."""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from xmode_transfer.adapters.ledger.subject import Subject
from xmode_transfer.adapters.ledger.tables import ALERT, alerts
from xmode_transfer.domain.alerts import Alert
from xmode_transfer.domain.records import Lease


class Alerts(Subject):
    """Which causes are alerts, and who was notified."""

    def known(self) -> list[Alert]:
        """All that are remembered, in the order of fingerprints."""
        rows = self._rows(select(alerts).order_by(alerts.c.fingerprint))
        return [ALERT.record(row, notifications=row.notifications) for row in rows]

    def record(self, lease: Lease, changed: Iterable[Alert] = (), forgotten: Iterable[str] = ()) -> None:
        """Adds or overwrites alerts; forgets those of these fingerprints. All of it or nothing."""
        rows = [{**ALERT.values(alert), "notifications": alert.notifications} for alert in changed]
        forgetting = delete(alerts).where(alerts.c.fingerprint.in_(list(forgotten)))

        def action(connection: Connection) -> None:
            if rows:
                connection.execute(self._database.upsert(alerts), rows)
            connection.execute(forgetting)

        self._fenced(lease, action)
