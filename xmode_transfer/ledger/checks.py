"""Checks of customers' access, and what the destinations were found to allow."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, func, insert, select

from xmode_transfer.ledger.subject import Subject, only
from xmode_transfer.ledger.tables import (
    CAPABILITIES,
    CHECK,
    FINDING,
    LEFTOVER,
    access_checks,
    access_findings,
    access_leftovers,
    capabilities,
)
from xmode_transfer.model.findings import AccessReport
from xmode_transfer.model.records import Capabilities


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
