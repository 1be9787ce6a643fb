"""The part of the port ``Ledger`` for those who watch over deliveries: looks at sources, health, alerts,
notices, and the daemons and their visits."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import Connection

from xmode_transfer.adapters.ledger import alerts, daemons, discrepancies, leases, looks, notices
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.writer import GroupCommit
from xmode_transfer.domain.alerts import Alert
from xmode_transfer.domain.daemons import DaemonRecord
from xmode_transfer.domain.looks import Look, Survey
from xmode_transfer.domain.notices import Notice, NoticeStatus
from xmode_transfer.domain.records import Delivery, Lease
from xmode_transfer.domain.verification import Discrepancy, Scope


class Watched:
    """A part of ``SqlLedger``."""

    def __init__(self, database: Database, writer: GroupCommit) -> None:
        self._database = database
        self._writer = writer

    def calendar(self, customer: str, feed: str | None = None, since: str | None = None) -> list[Delivery]:
        return self._database.read(lambda c: looks.calendar(c, customer, feed, since))

    # --- Looks, and how everybody stands

    def record_look(self, look: Look) -> Look:
        return self._writer.call(lambda c: looks.record(c, self._database, look))

    def last_look(self, customer: str, feed: str) -> Look | None:
        return self._database.read(lambda c: looks.last(c, customer, feed))

    def survey(self) -> Survey:
        return looks.survey(self._database)

    def record_discrepancies(self, customer: str, scope: Scope, found: Iterable[Discrepancy]) -> None:
        told = list(found)
        self._writer.call(lambda c: discrepancies.replace(c, customer, scope, told))

    # --- Alerts

    def alerts(self) -> list[Alert]:
        return self._database.read(lambda c: alerts.known(c))

    def record_alerts(
        self, lease: Lease, changed: Iterable[Alert] = (), forgotten: Iterable[str] = ()
    ) -> None:
        news, gone = list(changed), list(forgotten)

        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            alerts.write(connection, self._database, news, gone)

        self._writer.call(action)

    # --- Notices

    def notices(
        self, customer: str | None = None, statuses: Iterable[NoticeStatus] | None = None
    ) -> list[Notice]:
        wanted = None if statuses is None else list(statuses)
        return self._database.read(lambda c: notices.known(c, customer, wanted))

    def record_notices(self, lease: Lease, changed: Iterable[Notice]) -> None:
        news = list(changed)

        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            notices.write(connection, self._database, news)

        self._writer.call(action)

    def corrections(self, since: datetime) -> list[Delivery]:
        return self._database.read(lambda c: notices.corrections(c, since))

    # --- Daemons and their visits

    def note_daemon(self, lease: Lease, daemon: DaemonRecord) -> None:
        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            daemons.note(connection, self._database, daemon)

        self._writer.call(action)

    def daemons(self, limit: int = 10) -> list[DaemonRecord]:
        return self._database.read(lambda c: daemons.newest(c, limit))

    def served(self) -> dict[tuple[str, str], datetime]:
        return self._database.read(lambda c: daemons.served(c))

    def serve(self, customer: str, work: str, served_at: datetime) -> None:
        self._writer.call(lambda c: daemons.serve(c, self._database, customer, work, served_at))

    def pass_over(self, customer: str, feed: str, markers: Mapping[str, str], passed_at: datetime) -> None:
        self._writer.call(lambda c: daemons.pass_over(c, self._database, customer, feed, markers, passed_at))

    def passed_over(self, customer: str, feed: str) -> dict[str, str]:
        return self._database.read(lambda c: daemons.passed_over(c, customer, feed))
