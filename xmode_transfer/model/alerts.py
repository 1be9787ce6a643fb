"""Alerts, as the ledger has them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.manifest import timestamp

_FIRST_RETRY = timedelta(minutes=1)


_LONGEST_RETRY = timedelta(minutes=30)


class AlertState(StrEnum):
    """Whether an alert needs somebody."""

    OPEN = "open"
    RESOLVED = "resolved"


class Event(StrEnum):
    """Why a message is sent."""

    OPENED = "opened"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Notification:
    """What one channel knows of an alert. ``sent`` is the last message that it took, and ``urgent`` what that
    one said. While ``attempts`` is not 0, the next one did not get through: it is tried again at
    ``next_attempt_at``; ``error`` says why."""

    sent: Event | None = None
    sent_at: datetime | None = None
    urgent: bool = False
    attempts: int = 0
    next_attempt_at: datetime | None = None
    error: str = ""

    def failed(self, error: str, now: datetime) -> "Notification":
        """The pauses double."""
        pause = min(_FIRST_RETRY * 2 ** min(self.attempts, 10), _LONGEST_RETRY)
        return replace(self, attempts=self.attempts + 1, next_attempt_at=now + pause, error=error)


@dataclass(frozen=True, slots=True)
class Alert:
    """What is wrong, for one cause. The fingerprint is the same for the same cause and detail, at any time
    and in any process: it is PagerDuty's deduplication key too. ``customers`` are sorted by name, and empty
    when the alert concerns the service as a whole. ``notifications`` are by channel."""

    fingerprint: str
    cause: str
    detail: str
    responsible: Responsible
    urgent: bool
    summary: str
    message: str
    hint: str
    since_at: datetime
    customers: tuple[str, ...] = ()
    customer_count: int = 0
    opened_at: datetime | None = None
    resolved_at: datetime | None = None
    notifications: Mapping[str, Notification] = field(default_factory=dict)

    @property
    def state(self) -> AlertState:
        return AlertState.OPEN if self.resolved_at is None else AlertState.RESOLVED

    def document(self) -> dict[str, Any]:
        """The alert as programs read it, in ``alerts list --json`` and in a webhook's body."""
        return {
            "fingerprint": self.fingerprint,
            "state": str(self.state),
            "cause": self.cause,
            "detail": self.detail,
            "responsible": str(self.responsible),
            "urgent": self.urgent,
            "summary": self.summary,
            "message": self.message,
            "hint": self.hint,
            "customers": list(self.customers),
            "customer_count": self.customer_count,
            "since_at": timestamp(self.since_at),
            "opened_at": timestamp(self.opened_at) if self.opened_at else None,
            "resolved_at": timestamp(self.resolved_at) if self.resolved_at else None,
        }


FIRST_PAUSE = timedelta(minutes=1)


LONGEST_PAUSE = timedelta(hours=1)


class NoticeKind(StrEnum):
    """What a notice tells."""

    LATE = "late"  # the period should have been delivered by now
    PAUSED = "paused"  # its delivery is stopped until the customer acts
    CORRECTED = "corrected"  # a later revision of it was delivered


class NoticeStatus(StrEnum):
    """How far a notice has come."""

    PLANNED = "planned"  # recorded, and not known to be in the bucket
    PUT = "put"  # it lies in the bucket, or did until the customer took it away
    WITHDRAWN = "withdrawn"  # overtaken by events before it could be put


class Mark(NamedTuple):
    """What is told once."""

    customer: str
    feed: str
    period: str
    kind: NoticeKind
    revision: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice as it is recorded before it is put. ``body`` is what is put: trying again puts the same
    bytes. ``error`` says why the last try did not get through."""

    mark: Mark
    key: str
    body: str
    made_at: datetime
    status: NoticeStatus = NoticeStatus.PLANNED
    attempts: int = 0
    next_attempt_at: datetime | None = None
    put_at: datetime | None = None
    error: str = ""

    @property
    def token(self) -> str:
        """What marks the object as this very notice, in its metadata."""
        return hashlib.sha256(f"{self.mark.customer}\0{self.key}\0{self.body}".encode()).hexdigest()[:32]

    def put(self, now: datetime) -> "Notice":
        return replace(self, status=NoticeStatus.PUT, put_at=now, next_attempt_at=None, error="")

    def refused(self, error: str, now: datetime) -> "Notice":
        """Tried again after a pause that doubles."""
        pause = min(FIRST_PAUSE * 2 ** min(self.attempts, 10), LONGEST_PAUSE)
        return replace(self, attempts=self.attempts + 1, next_attempt_at=now + pause, error=error)

    def withdrawn(self) -> "Notice":
        return replace(self, status=NoticeStatus.WITHDRAWN, next_attempt_at=None)
