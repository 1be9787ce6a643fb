"""Health: the records that it is computed from, and the alerts and customer notices that result from it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.model.errors import Responsible, SourcePartlyUnreadable
from xmode_transfer.model.manifest import timestamp
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import Capabilities, Delivery, Failure
from xmode_transfer.model.upkeep import Discrepancy

KEPT_PERIODS = 200
"""The number of due and of waiting periods that a source scan names; it counts all of them."""


class Waiting(NamedTuple):
    """A period that is at the source but incomplete, and the reason as text."""

    period: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceScan:
    """The result of the last scan of a feed's source for a customer.

    ``newest_complete`` is the label of the newest complete period, delivered or not. ``due`` has the labels,
    oldest first, of complete periods that were not delivered when the scan ended; the ledger drops those that
    are delivered later. ``due_since_at`` is when the oldest of them was first seen to be due. ``waiting`` has
    the incomplete periods. ``failure`` is why the source, or a part of it, cannot be read, and
    ``failing_since_at`` since when. ``after`` carries over ``first_looked_at``, ``due_since_at`` and
    ``failing_since_at``.
    """

    customer: str
    feed: str
    looked_at: datetime
    first_looked_at: datetime
    newest_complete: str | None = None
    due_count: int = 0
    due: tuple[str, ...] = ()
    due_since_at: datetime | None = None
    waiting_count: int = 0
    waiting: tuple[Waiting, ...] = ()
    failure: Failure | None = None
    failing_since_at: datetime | None = None

    def after(self, previous: "SourceScan | None") -> "SourceScan":
        """Returns this scan with the start times that the previous one knew. A scan that failed as a whole
        keeps what the previous one had seen."""
        seen = replace(self, failing_since_at=self.looked_at if self.failure else None)
        if previous is not None:
            seen = replace(seen, first_looked_at=previous.first_looked_at)
            if self.failure is not None and previous.failing_since_at is not None:
                seen = replace(seen, failing_since_at=previous.failing_since_at)
            if self.failure is not None and self.failure.cause != SourcePartlyUnreadable.code:
                return replace(
                    previous,
                    looked_at=self.looked_at,
                    failure=self.failure,
                    failing_since_at=seen.failing_since_at,
                )
            same = bool(self.due and previous.due) and self.due[0] == previous.due[0]
            if same and previous.due_since_at is not None:
                return replace(seen, due_since_at=previous.due_since_at)
        return replace(seen, due_since_at=self.looked_at if self.due else None)

    def without(self, period: str, at: datetime) -> "SourceScan":
        """Returns the scan after that period was delivered."""
        if period not in self.due:
            return self
        due = tuple(label for label in self.due if label != period)
        since = self.due_since_at if self.due[0] != period else at
        return replace(
            self, due=due, due_count=max(self.due_count - 1, len(due)), due_since_at=since if due else None
        )


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """The newest revision of a period that was begun and is not delivered. ``since_at`` is when a run for it
    first failed or was refused, or when it was planned. ``sent_bytes`` counts what has a receipt. For a plan
    with very many objects it may be 0, because a snapshot reads a limited number of receipts."""

    delivery: Delivery
    since_at: datetime
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """The last check of a customer's access. ``causes`` are those of its grave findings that no run has
    disproved since; ``responsible`` and ``message`` are those of the first. ``bad_since_at`` is the time of
    the first in the latest sequence of checks that were not ok."""

    checked_at: datetime
    outcome: str
    causes: tuple[str, ...] = ()
    responsible: str | None = None
    message: str = ""
    bad_since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OrphanedUploads:
    """Orphaned multipart uploads of a customer: we may not abort them. ``bytes`` is their size. ``kept``
    counts those that no lifecycle rule of the bucket aborts. ``ends_at`` is when the rule has aborted the
    last of the others."""

    count: int
    bytes: int
    oldest_at: datetime
    kept: int
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CleanupSummary:
    """The last finished cleanup of a customer's bucket."""

    finished_at: datetime
    outcome: str
    failed: int
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class SupersededLeft:
    """Objects in a customer's bucket that no manifest ever listed, because their revisions were never
    published, and that the bucket does not allow us to delete. ``since_at`` is the first refusal."""

    count: int
    bytes: int
    since_at: datetime


Subscription = tuple[str, str]
"""Customer and feed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that health is computed from, read in one consistent snapshot of the ledger. It may contain
    customers and feeds that are no longer configured. ``skipped`` has the newest period that was skipped
    after an outage, ``discrepancies`` what the last verification of each period found. ``not_attested``
    counts deliveries. ``daemon`` is the one that ticked last."""

    scans: Mapping[Subscription, SourceScan] = field(default_factory=dict)
    delivered: Mapping[Subscription, Delivery] = field(default_factory=dict)
    open: Mapping[Subscription, tuple[OpenDelivery, ...]] = field(default_factory=dict)
    capabilities: Mapping[str, Capabilities] = field(default_factory=dict)
    orphaned: Mapping[str, OrphanedUploads] = field(default_factory=dict)
    checks: Mapping[str, CheckSummary] = field(default_factory=dict)
    cleanups: Mapping[str, CleanupSummary] = field(default_factory=dict)
    discrepancies: Mapping[str, tuple[Discrepancy, ...]] = field(default_factory=dict)
    superseded: Mapping[str, SupersededLeft] = field(default_factory=dict)
    skipped: Mapping[Subscription, str] = field(default_factory=dict)
    not_attested: Mapping[Subscription, int] = field(default_factory=dict)
    daemon: DaemonRecord | None = None
    free_bytes: int | None = None
    used_bytes: int = 0


# --- Alerts

_LONGEST_ALERT_PAUSE = timedelta(minutes=30)
LONGEST_PAUSE = timedelta(hours=1)


def _pause(attempts: int, longest: timedelta) -> timedelta:
    return min(timedelta(minutes=2 ** min(attempts, 10)), longest)


class AlertState(StrEnum):
    """The state of an alert."""

    OPEN = "open"
    RESOLVED = "resolved"


class Event(StrEnum):
    """The event that a message reports."""

    OPENED = "opened"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Notification:
    """The notification of one channel about an alert. ``sent`` and ``urgent`` are of the last message that it
    accepted. While ``attempts`` is not 0, the next message failed for ``error``, and is retried at
    ``next_attempt_at``."""

    sent: Event | None = None
    sent_at: datetime | None = None
    urgent: bool = False
    attempts: int = 0
    next_attempt_at: datetime | None = None
    error: str = ""

    def failed(self, error: str, now: datetime) -> "Notification":
        """Return the notification after a failed attempt; pauses double."""
        next_at = now + _pause(self.attempts, _LONGEST_ALERT_PAUSE)
        return replace(self, attempts=self.attempts + 1, next_attempt_at=next_at, error=error)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert for each cause. The fingerprint depends on cause and detail only, and is PagerDuty's
    deduplication key too. ``customers`` are sorted, and empty if the alert concerns the whole service.
    ``notifications`` are by channel."""

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
        """Return the alert for ``alerts list --json`` and webhooks."""
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


# --- Notices


class NoticeKind(StrEnum):
    """The subject of a notice."""

    LATE = "late"  # the period is not delivered in time
    PAUSED = "paused"  # its delivery is blocked until the customer acts
    CORRECTED = "corrected"  # a later revision of it was delivered


class NoticeStatus(StrEnum):
    """The state of a notice."""

    PLANNED = "planned"  # recorded; it may not be in the bucket yet
    PUT = "put"  # put into the bucket
    WITHDRAWN = "withdrawn"  # obsolete before it could be put


class Mark(NamedTuple):
    """The identity of a notice, which is put once."""

    customer: str
    feed: str
    period: str
    kind: NoticeKind
    revision: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice, recorded before it is put. A retry puts the same ``body``. ``error`` is that of the last
    attempt."""

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
        """The token in the object's metadata that identifies this notice."""
        return hashlib.sha256(f"{self.mark.customer}\0{self.key}\0{self.body}".encode()).hexdigest()[:32]

    def put(self, now: datetime) -> "Notice":
        return replace(self, status=NoticeStatus.PUT, put_at=now, next_attempt_at=None, error="")

    def refused(self, error: str, now: datetime) -> "Notice":
        """Return the notice after a failed attempt; pauses double."""
        next_at = now + _pause(self.attempts, LONGEST_PAUSE)
        return replace(self, attempts=self.attempts + 1, next_attempt_at=next_at, error=error)

    def withdrawn(self) -> "Notice":
        return replace(self, status=NoticeStatus.WITHDRAWN, next_attempt_at=None)
