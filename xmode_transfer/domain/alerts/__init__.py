"""Alerts: told once by cause, with what to do, repeated while they last, and resolved."""

from xmode_transfer.domain.alerts.causes import SUMMARIES, URGENT
from xmode_transfer.domain.alerts.grouping import conditions, fingerprint
from xmode_transfer.domain.alerts.life import (
    GROWTH_INTERVAL,
    Quiet,
    Route,
    Rules,
    Step,
    advance,
    next_message,
    not_told,
    told,
)
from xmode_transfer.domain.alerts.records import Alert, AlertState, Condition, Event, Message, Telling

__all__ = [
    "GROWTH_INTERVAL",
    "SUMMARIES",
    "URGENT",
    "Alert",
    "AlertState",
    "Condition",
    "Event",
    "Message",
    "Quiet",
    "Route",
    "Rules",
    "Step",
    "Telling",
    "advance",
    "conditions",
    "fingerprint",
    "next_message",
    "not_told",
    "told",
]
