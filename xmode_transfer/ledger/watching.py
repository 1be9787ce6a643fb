"""What is watched and reported: sources, daemons, access checks, discrepancies, alerts and notices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select

from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.tables import (
    ALERT,
    CAPABILITIES,
    CHALLENGE,
    CHECK,
    DAEMON,
    DISCREPANCY,
    FINDING,
    LEFTOVER,
    NOTICE,
    SCAN,
    access_checks,
    access_findings,
    access_leftovers,
    alerts,
    capabilities,
    challenges,
    daemons,
    discrepancies,
    notices,
    scans,
    skipped_periods,
    visits,
)
from xmode_transfer.ledger.writer import LedgerPart, only
from xmode_transfer.model.findings import AccessReport, Challenge
from xmode_transfer.model.health import Alert, Notice, NoticeStatus, SourceScan
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import Capabilities, Delivery, Lease, Status
from xmode_transfer.model.upkeep import Discrepancy, Scope

_DAEMONS_KEPT = timedelta(days=30)


class Sources(LedgerPart):
    """The last scan of each source, and skipped periods."""

    def record(self, scan: SourceScan) -> SourceScan:
        """Replace the last scan of a source; return ``scan.after`` the one before."""

        def action(connection: Connection) -> SourceScan:
            known = scan.after(_last(connection, scan.customer, scan.feed))
            _put(connection, self._database, known)
            return known

        return self._write(action)

    def last(self, customer: str, feed: str) -> SourceScan | None:
        return self._read(lambda c: _last(c, customer, feed))

    def skip(self, customer: str, feed: str, markers: Mapping[str, str], skipped_at: datetime) -> None:
        """Record periods, with their completeness marks, that are not delivered unless a person names them or
        the source declares them anew. Idempotent."""
        rows = [
            {"customer": customer, "feed": feed, "period": period, "marker": marker, "passed_at": skipped_at}
            for period, marker in markers.items()
        ]
        if rows:
            self._write(lambda c: c.execute(self._database.upsert(skipped_periods), rows))

    def skipped(self, customer: str, feed: str) -> dict[str, str]:
        """Return the marks of the skipped periods."""
        query = select(skipped_periods).filter_by(customer=customer, feed=feed)
        return {row.period: row.marker for row in self._rows(query)}


def settle(connection: Connection, database: Database, delivery: Delivery) -> None:
    """Remove a delivered period from the last scan."""
    if delivery.status is Status.DELIVERED:
        scan = _last(connection, delivery.customer, delivery.feed)
        if scan is not None and delivery.period in scan.due:
            _put(connection, database, scan.without(delivery.period, delivery.updated_at))


def _last(connection: Connection, customer: str, feed: str) -> SourceScan | None:
    row = connection.execute(select(scans).filter_by(customer=customer, feed=feed)).one_or_none()
    return None if row is None else SCAN.record(row)


def _put(connection: Connection, database: Database, scan: SourceScan) -> None:
    connection.execute(database.upsert(scans).values(SCAN.values(scan)))


class Discrepancies(LedgerPart):
    """The results of the last verification of each period; the snapshot has them."""

    def record(self, customer: str, scope: Scope, found: Iterable[Discrepancy]) -> None:
        """Replace what is known of the scope; a discrepancy that was known keeps its ``since_at``."""
        items = list(found)

        def action(connection: Connection) -> None:
            rows = connection.execute(select(discrepancies).filter_by(customer=customer)).all()
            since = {
                (row.feed, row.period, row.flaw): row.since_at
                for row in rows
                if scope.covers(row.feed, row.period)
            }
            for feed, period in {(feed, period) for feed, period, _ in since}:
                of_period = delete(discrepancies).filter_by(customer=customer, feed=feed, period=period)
                connection.execute(of_period)
            values = [
                {
                    "customer": customer,
                    **DISCREPANCY.values(item),
                    "since_at": since.get((item.feed, item.period, item.flaw), item.since_at),
                }
                for item in items
            ]
            if values:
                connection.execute(insert(discrepancies), values)

        self._write(action)


class Alerts(LedgerPart):
    def known(self) -> list[Alert]:
        return self._records(ALERT, select(alerts).order_by(alerts.c.fingerprint))

    def record(self, lease: Lease, changed: Iterable[Alert] = (), forgotten: Iterable[str] = ()) -> None:
        """Add or overwrite alerts, and delete those of the ``forgotten`` fingerprints: all or nothing."""
        rows = [ALERT.values(alert) for alert in changed]
        forgetting = delete(alerts).where(alerts.c.fingerprint.in_(list(forgotten)))

        def action(connection: Connection) -> None:
            if rows:
                connection.execute(self._database.upsert(alerts), rows)
            connection.execute(forgetting)

        self._fenced(lease, action)


class Notices(LedgerPart):
    def find(
        self, customer: str | None = None, statuses: Iterable[NoticeStatus] | None = None
    ) -> list[Notice]:
        """Return notices, oldest first."""
        query = select(notices).order_by(notices.c.made_at, notices.c.key)
        wanted = ((notices.c.customer, customer), (notices.c.status, statuses))
        return self._records(NOTICE, only(query, *wanted))

    def record(self, lease: Lease, changed: Iterable[Notice]) -> None:
        """Add notices, or overwrite those of the same identity: all or nothing."""
        rows = [NOTICE.values(notice) for notice in changed]
        self._fenced(lease, lambda c: rows and c.execute(self._database.upsert(notices), rows))


class Checks(LedgerPart):
    """The history of access checks, and the capabilities of destinations."""

    def record(self, report: AccessReport) -> None:
        """Add an access check. Idempotent. Fixes are not stored: they follow from the cause and the
        customer's file."""
        values = {**CHECK.values(report), "outcome": report.outcome}
        kept = replace(report, findings=tuple(replace(item, fix=None) for item in report.findings))
        findings = [FINDING.values(item) for item in report.findings]
        left = [LEFTOVER.values(item) for item in report.left]

        def action(connection: Connection) -> None:
            alike = connection.execute(select(access_checks).filter_by(**values)).all()
            if any(_report(connection, row) == kept for row in alike):
                return
            added = connection.execute(insert(access_checks).values(values))
            assert added.inserted_primary_key is not None  # one row was added
            check_id = added.inserted_primary_key[0]
            for table, rows in ((access_findings, findings), (access_leftovers, left)):
                if rows:
                    connection.execute(
                        insert(table),
                        [{"check_id": check_id, "number": number, **row} for number, row in enumerate(rows)],
                    )

        self._write(action)

    def last(self, customer: str) -> AccessReport | None:
        """Return the newest check, without fixes."""
        return next(iter(self.newest(customer, 1)), None)

    def newest(self, customer: str | None = None, limit: int = 20) -> list[AccessReport]:
        query = select(access_checks).order_by(access_checks.c.checked_at.desc(), access_checks.c.id.desc())
        newest = only(query, (access_checks.c.customer, customer)).limit(limit)
        return self._read(lambda c: [_report(c, row) for row in c.execute(newest).all()])

    def capabilities(self, customer: str) -> Capabilities:
        query = select(capabilities).where(capabilities.c.customer == customer)
        return self._first(CAPABILITIES, query) or Capabilities()

    def learn(self, customer: str, learned: Capabilities) -> None:
        """Record what is not None."""
        values = CAPABILITIES.values(learned)
        adding = self._database.insert(capabilities).values(customer=customer, **values)
        merging = adding.on_conflict_do_update(
            index_elements=["customer"],
            set_={name: func.coalesce(adding.excluded[name], capabilities.c[name]) for name in values},
        )
        self._write(lambda c: c.execute(merging))


def _report(connection: Connection, row: Any) -> AccessReport:
    def parts(table: Table) -> Sequence[Any]:
        query = select(table).where(table.c.check_id == row.id).order_by(table.c.number)
        return connection.execute(query).all()

    return CHECK.record(
        row,
        findings=tuple(FINDING.record(item, fix=None) for item in parts(access_findings)),
        left=tuple(LEFTOVER.record(item) for item in parts(access_leftovers)),
    )


class Challenges(LedgerPart):
    """The last ownership challenge of each customer."""

    def last(self, customer: str) -> Challenge | None:
        return self._first(CHALLENGE, select(challenges).filter_by(customer=customer))

    def record(self, lease: Lease, challenge: Challenge) -> None:
        """Add or overwrite. Idempotent."""
        recording = self._database.upsert(challenges).values(CHALLENGE.values(challenge))
        self._fenced(lease, lambda c: c.execute(recording))


class Daemons(LedgerPart):
    """The daemons that use this ledger, and the scheduled work that they have done."""

    def note(self, lease: Lease, daemon: DaemonRecord) -> None:
        """Add or overwrite the daemon; delete old ones."""
        noting = self._database.upsert(daemons).values(DAEMON.values(daemon))
        forgetting = delete(daemons).where(
            daemons.c.ticked_at < daemon.ticked_at - _DAEMONS_KEPT, daemons.c.holder != daemon.holder
        )

        def action(connection: Connection) -> None:
            connection.execute(noting)
            connection.execute(forgetting)

        self._fenced(lease, action)

    def newest(self, limit: int = 10) -> list[DaemonRecord]:
        return self._read(lambda c: newest(c, limit))

    def served(self) -> dict[tuple[str, str], datetime]:
        """Return the last scheduled times that were served, by customer and work."""
        return {(row.customer, row.work): row.served_at for row in self._rows(select(visits))}

    def serve(self, customer: str, work: str, served_at: datetime) -> None:
        self._write(lambda c: serve(c, self._database, customer, work, served_at))


def newest(connection: Connection, limit: int) -> list[DaemonRecord]:
    query = select(daemons).order_by(daemons.c.ticked_at.desc(), daemons.c.started_at.desc()).limit(limit)
    return [DAEMON.record(row) for row in connection.execute(query)]


def serve(connection: Connection, database: Database, customer: str, work: str, served_at: datetime) -> None:
    visited = {"customer": customer, "work": work, "served_at": served_at}
    connection.execute(database.upsert(visits).values(visited))
