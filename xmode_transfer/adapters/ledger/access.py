"""The history of the checks of customers' access."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from xmode_transfer.adapters.ledger.tables import (
    CHECK,
    FINDING,
    LEFTOVER,
    access_checks,
    access_findings,
    access_leftovers,
)
from xmode_transfer.domain.findings import AccessReport


def record(connection: Connection, report: AccessReport) -> None:
    """Adds a check, if it is not there. Fixes are left out: they hold the customer's external ID, which the
    ledger does not."""
    values = {**CHECK.values(report), "outcome": report.outcome}
    if connection.execute(select(access_checks.c.id).filter_by(**values)).first() is not None:
        return
    added = connection.execute(insert(access_checks).values(values))
    assert added.inserted_primary_key is not None  # one row was added
    check_id = added.inserted_primary_key[0]
    findings = [FINDING.values(item) for item in report.findings]
    left = [LEFTOVER.values(item) for item in report.left]
    for table, rows in ((access_findings, findings), (access_leftovers, left)):
        if rows:
            connection.execute(
                insert(table),
                [{"check_id": check_id, "number": number, **row} for number, row in enumerate(rows)],
            )


def newest(connection: Connection, customer: str | None, limit: int) -> list[AccessReport]:
    query = select(access_checks).order_by(access_checks.c.checked_at.desc(), access_checks.c.id.desc())
    if customer is not None:
        query = query.where(access_checks.c.customer == customer)
    return [_report(connection, row) for row in connection.execute(query.limit(limit)).all()]


def _report(connection: Connection, row: Any) -> AccessReport:
    return CHECK.record(
        row,
        findings=tuple(FINDING.record(item, fix=None) for item in _rows(connection, access_findings, row.id)),
        left=tuple(LEFTOVER.record(item) for item in _rows(connection, access_leftovers, row.id)),
    )


def _rows(connection: Connection, table: Any, check_id: int) -> Sequence[Any]:
    return connection.execute(
        select(table).where(table.c.check_id == check_id).order_by(table.c.number)
    ).all()
