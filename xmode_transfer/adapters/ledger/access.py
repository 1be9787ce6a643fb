"""The history of the checks of customers' access."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from xmode_transfer.adapters.ledger.rows import text_of, time_of
from xmode_transfer.adapters.ledger.tables import access_checks, access_findings, access_leftovers
from xmode_transfer.domain.errors import Party
from xmode_transfer.domain.findings import (
    AccessReport,
    Cause,
    Finding,
    Leftover,
    LeftoverKind,
    Result,
    Severity,
)


def record(connection: Connection, report: AccessReport) -> None:
    """Adds a check. Fixes are left out: they hold the customer's external ID, which the ledger does not."""
    added = connection.execute(
        insert(access_checks).values(
            customer=report.customer,
            checked_at=text_of(report.checked_at),
            outcome=report.outcome,
            interrupted=report.interrupted,
            seconds=report.seconds,
        )
    )
    assert added.inserted_primary_key is not None  # one row was added
    check_id = added.inserted_primary_key[0]
    findings = [
        {
            "check_id": check_id,
            "number": number,
            "probe": item.probe,
            "result": str(item.result),
            "cause": item.cause and str(item.cause),
            "party": item.party and str(item.party),
            "severity": str(item.severity),
            "message": item.message,
            "request_id": item.request_id,
            "said": item.said,
        }
        for number, item in enumerate(report.findings)
    ]
    left = [
        {
            "check_id": check_id,
            "number": number,
            "kind": str(item.kind),
            "key": item.key,
            "bytes": item.bytes,
            "id": item.id,
        }
        for number, item in enumerate(report.left)
    ]
    if findings:
        connection.execute(insert(access_findings), findings)
    if left:
        connection.execute(insert(access_leftovers), left)


def newest(connection: Connection, customer: str | None, limit: int) -> list[AccessReport]:
    query = select(access_checks).order_by(access_checks.c.checked_at.desc(), access_checks.c.id.desc())
    if customer is not None:
        query = query.where(access_checks.c.customer == customer)
    return [_report(connection, row) for row in connection.execute(query.limit(limit)).all()]


def _report(connection: Connection, row: Any) -> AccessReport:
    findings = _rows(connection, access_findings, row.id)
    left = _rows(connection, access_leftovers, row.id)
    return AccessReport(
        row.customer,
        time_of(row.checked_at),
        tuple(
            Finding(
                item.probe,
                Result(item.result),
                item.cause and Cause(item.cause),
                item.party and Party(item.party),
                Severity(item.severity),
                item.message,
                None,
                item.request_id,
                item.said,
            )
            for item in findings
        ),
        tuple(Leftover(LeftoverKind(item.kind), item.key, item.bytes, item.id) for item in left),
        row.seconds,
        bool(row.interrupted),
    )


def _rows(connection: Connection, table: Any, check_id: int) -> Sequence[Any]:
    return connection.execute(
        select(table).where(table.c.check_id == check_id).order_by(table.c.number)
    ).all()
