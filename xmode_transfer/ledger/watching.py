"""What is watched, and what is reported: sources, discrepancies, alerts, and notices for customers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.leases import Subject, only
from xmode_transfer.ledger.tables import (
    ALERT,
    CAPABILITIES,
    CHECK,
    DAEMON,
    DISCREPANCY,
    FINDING,
    LEFTOVER,
    LOOK,
    NOTICE,
    access_checks,
    access_findings,
    access_leftovers,
    alerts,
    capabilities,
    daemons,
    discrepancies,
    looks,
    notices,
    passed_over,
    visits,
)
from xmode_transfer.model.findings import AccessReport
from xmode_transfer.model.health import Alert, Notice, NoticeStatus, SourceScan
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import Capabilities, Delivery, Lease, Status
from xmode_transfer.model.upkeep import Discrepancy, Scope


class Sources(Subject):
    """What was seen at the sources, and what is not to be delivered of it."""

    def record(self, look: SourceScan) -> SourceScan:
        """Remembers a look at a feed's source for a customer, in place of the one before; answers it with
        what the one before knew (``SourceScan.after``). A delivery of a due period that is closed later takes
        that period out again."""

        def action(connection: Connection) -> SourceScan:
            known = look.after(_last(connection, look.customer, look.feed))
            _put(connection, self._database, known)
            return known

        return self._write(action)

    def last(self, customer: str, feed: str) -> SourceScan | None:
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


def _last(connection: Connection, customer: str, feed: str) -> SourceScan | None:
    row = connection.execute(select(looks).filter_by(customer=customer, feed=feed)).one_or_none()
    return None if row is None else LOOK.record(row)


def _put(connection: Connection, database: Database, look: SourceScan) -> None:
    connection.execute(database.upsert(looks).values(LOOK.values(look)))


class Discrepancies(Subject):
    """What the last verification of each period found; the snapshot has it."""

    def record(self, customer: str, scope: Scope, found: Iterable[Discrepancy]) -> None:
        """What a verification of the scope found, in place of what was known of it. What was found before
        keeps since when."""
        items = list(found)

        def action(connection: Connection) -> None:
            rows = connection.execute(select(discrepancies).filter_by(customer=customer)).all()
            since = {
                (row.feed, row.period, row.flaw): row.since_at
                for row in rows
                if scope.covers(row.feed, row.period)
            }
            for feed, period in dict.fromkeys((feed, period) for feed, period, _ in since):
                connection.execute(
                    delete(discrepancies).filter_by(customer=customer, feed=feed, period=period)
                )
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


def known_discrepancies(connection: Connection) -> dict[str, tuple[Discrepancy, ...]]:
    """By customer, in the order of feeds and periods."""
    columns = discrepancies.c
    query = select(discrepancies).order_by(columns.customer, columns.feed, columns.period, columns.flaw)
    found: dict[str, list[Discrepancy]] = {}
    for row in connection.execute(query):
        found.setdefault(row.customer, []).append(DISCREPANCY.record(row))
    return {customer: tuple(items) for customer, items in found.items()}


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


class Notices(Subject):
    """What customers were told, or are to be, in their buckets."""

    def find(
        self, customer: str | None = None, statuses: Iterable[NoticeStatus] | None = None
    ) -> list[Notice]:
        """The oldest first."""
        query = select(notices).order_by(notices.c.made_at, notices.c.key)
        return self._records(
            NOTICE, only(query, (notices.c.customer, customer), (notices.c.status, statuses))
        )

    def record(self, lease: Lease, changed: Iterable[Notice]) -> None:
        """Adds notices, or overwrites those of the same mark. All of it or nothing."""
        rows = [NOTICE.values(notice) for notice in changed]
        self._fenced(lease, lambda c: rows and c.execute(self._database.upsert(notices), rows))


class Checks(Subject):
    """The history of checks, and the capabilities of destinations."""

    def record(self, report: AccessReport) -> None:
        """Adds a check of a customer's access to the history, if it is not there. Fixes are not kept: they
        are made anew from the cause and the customer's file, which the ledger does not repeat."""
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
        """The newest, its findings in their order and without fixes."""
        found = self.newest(customer, 1)
        return found[0] if found else None

    def newest(self, customer: str | None = None, limit: int = 20) -> list[AccessReport]:
        """Newest first, as ``last``."""
        query = select(access_checks).order_by(access_checks.c.checked_at.desc(), access_checks.c.id.desc())
        newest = only(query, (access_checks.c.customer, customer)).limit(limit)
        return self._read(lambda c: [_report(c, row) for row in c.execute(newest).all()])

    def capabilities(self, customer: str) -> Capabilities:
        """What the customer's destination was found to allow."""
        rows = self._rows(select(capabilities).where(capabilities.c.customer == customer))
        return CAPABILITIES.record(rows[0]) if rows else Capabilities()

    def learn(self, customer: str, learned: Capabilities) -> None:
        """Remembers what is not None; the rest stays as it was."""
        values = CAPABILITIES.values(learned)
        adding = self._database.insert(capabilities).values(customer=customer, **values)
        merging = adding.on_conflict_do_update(
            index_elements=["customer"],
            set_={name: func.coalesce(adding.excluded[name], capabilities.c[name]) for name in values},
        )
        self._write(lambda c: c.execute(merging))


def _report(connection: Connection, row: Any) -> AccessReport:
    return CHECK.record(
        row,
        findings=tuple(
            FINDING.record(item, fix=None) for item in _parts(connection, access_findings, row.id)
        ),
        left=tuple(LEFTOVER.record(item) for item in _parts(connection, access_leftovers, row.id)),
    )


def _parts(connection: Connection, table: Any, check_id: int) -> Sequence[Any]:
    return connection.execute(
        select(table).where(table.c.check_id == check_id).order_by(table.c.number)
    ).all()


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
