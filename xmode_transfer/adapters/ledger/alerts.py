"""Alerts, and what each channel knows of them."""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, delete, select

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.rows import maybe_text_of, maybe_time_of, text_of, time_of
from xmode_transfer.adapters.ledger.tables import alerts
from xmode_transfer.domain.alerts import Alert, Event, Notification
from xmode_transfer.domain.errors import Party
from xmode_transfer.domain.manifest import timestamp

_FIELDS = [field.name for field in fields(Alert)]


def known(connection: Connection) -> list[Alert]:
    return [_alert_of(row) for row in connection.execute(select(alerts).order_by(alerts.c.fingerprint))]


def write(
    connection: Connection, database: Database, changed: Iterable[Alert], forgotten: Iterable[str]
) -> None:
    for alert in changed:
        adding = database.insert(alerts).values(_values(alert))
        connection.execute(
            adding.on_conflict_do_update(
                index_elements=["fingerprint"], set_={name: adding.excluded[name] for name in _FIELDS[1:]}
            )
        )
    connection.execute(delete(alerts).where(alerts.c.fingerprint.in_(list(forgotten))))


def _values(alert: Alert) -> dict[str, object]:
    return {name: getattr(alert, name) for name in _FIELDS} | {
        "party": str(alert.party),
        "since_at": text_of(alert.since_at),
        "customers": json.dumps(alert.customers),
        "opened_at": maybe_text_of(alert.opened_at),
        "resolved_at": maybe_text_of(alert.resolved_at),
        "notifications": json.dumps(
            {channel: asdict(item) for channel, item in alert.notifications.items()}, default=timestamp
        ),
    }


def _alert_of(row: Any) -> Alert:
    values = row._asdict() | {
        "party": Party(row.party),
        "urgent": bool(row.urgent),
        "since_at": time_of(row.since_at),
        "customers": tuple(json.loads(row.customers)),
        "opened_at": maybe_time_of(row.opened_at),
        "resolved_at": maybe_time_of(row.resolved_at),
        "notifications": {
            channel: Notification(
                item["sent"] and Event(item["sent"]),
                maybe_time_of(item["sent_at"]),
                item["urgent"],
                item["attempts"],
                maybe_time_of(item["next_attempt_at"]),
                item["error"],
            )
            for channel, item in json.loads(row.notifications).items()
        },
    }
    return Alert(**values)
