"""Alerts, and what each channel was told of them."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.rows import maybe_text_of, maybe_time_of, text_of, time_of
from xmode_transfer.adapters.ledger.tables import alerts, tellings
from xmode_transfer.domain.alerts import Alert, Condition, Event, Telling
from xmode_transfer.domain.errors import Party


def known(connection: Connection) -> list[Alert]:
    return [_alert_of(row) for row in connection.execute(select(alerts).order_by(alerts.c.fingerprint))]


def tellings_of(connection: Connection) -> list[Telling]:
    query = select(tellings).order_by(tellings.c.fingerprint, tellings.c.channel)
    return [_telling_of(row) for row in connection.execute(query)]


def write(
    connection: Connection,
    database: Database,
    changed: Iterable[Alert],
    forgotten: Iterable[str],
    told: Iterable[Telling],
) -> None:
    for alert in changed:
        _put(connection, database, alerts, _alert_values(alert))
    for telling in told:
        _put(connection, database, tellings, _telling_values(telling))
    gone = list(forgotten)
    if gone:
        connection.execute(delete(tellings).where(tellings.c.fingerprint.in_(gone)))
        connection.execute(delete(alerts).where(alerts.c.fingerprint.in_(gone)))


def _put(connection: Connection, database: Database, table: Table, values: dict[str, object]) -> None:
    key = [column.name for column in table.primary_key]
    adding = database.insert(table).values(values)
    connection.execute(
        adding.on_conflict_do_update(
            index_elements=key, set_={name: adding.excluded[name] for name in values if name not in key}
        )
    )


def _alert_values(alert: Alert) -> dict[str, object]:
    condition = alert.condition
    return {
        "fingerprint": condition.fingerprint,
        "cause": condition.cause,
        "detail": condition.detail,
        "party": str(condition.party),
        "urgent": condition.urgent,
        "summary": condition.summary,
        "message": condition.message,
        "hint": condition.hint,
        "since_at": text_of(condition.since_at),
        "customers": json.dumps(condition.customers),
        "customer_count": condition.customer_count,
        "episode": alert.episode,
        "first_seen_at": text_of(alert.first_seen_at),
        "last_seen_at": text_of(alert.last_seen_at),
        "opened_at": maybe_text_of(alert.opened_at),
        "resolved_at": maybe_text_of(alert.resolved_at),
    }


def _alert_of(row: Any) -> Alert:
    condition = Condition(
        row.fingerprint,
        row.cause,
        row.detail,
        Party(row.party),
        bool(row.urgent),
        row.summary,
        row.message,
        row.hint,
        time_of(row.since_at),
        tuple(json.loads(row.customers)),
        row.customer_count,
    )
    return Alert(
        condition,
        row.episode,
        time_of(row.first_seen_at),
        time_of(row.last_seen_at),
        maybe_time_of(row.opened_at),
        maybe_time_of(row.resolved_at),
    )


def _telling_values(telling: Telling) -> dict[str, object]:
    return {
        "fingerprint": telling.fingerprint,
        "channel": telling.channel,
        "episode": telling.episode,
        "told": telling.told and str(telling.told),
        "told_at": maybe_text_of(telling.told_at),
        "customers": json.dumps(telling.customers),
        "customer_count": telling.customer_count,
        "attempts": telling.attempts,
        "next_attempt_at": maybe_text_of(telling.next_attempt_at),
        "error": telling.error,
    }


def _telling_of(row: Any) -> Telling:
    return Telling(
        row.fingerprint,
        row.channel,
        row.episode,
        row.told and Event(row.told),
        maybe_time_of(row.told_at),
        tuple(json.loads(row.customers)),
        row.customer_count,
        row.attempts,
        maybe_time_of(row.next_attempt_at),
        row.error,
    )
