"""Health: the records that it is computed from, and the alerts and customer notices that result from it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.model.checks import Judgement
from xmode_transfer.model.errors import Responsible, SourcePartlyUnreadable
from xmode_transfer.model.manifest import timestamp
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.recall import RecallProgress
from xmode_transfer.model.records import Capabilities, Delivery, Failure
from xmode_transfer.model.upkeep import Discrepancy

KEPT_PERIODS = 200  # of due and of waiting ones, that a source scan names; it counts all


class Waiting(NamedTuple):
    """A period that is at the source but incomplete, and the reason as text."""

    period: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceScan:
    """The last scan of a feed's source for a customer. ``newest_complete`` may be delivered already; ``due``
    has the complete periods that are not, oldest first (the ledger drops those that are delivered later), and
    ``waiting`` the incomplete ones. ``due_since_at`` is when the oldest was first seen to be due."""

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
        """Carry over the previous scan's start times; all it saw, if this one failed as a whole."""
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
        if period not in self.due:
            return self
        due = tuple(label for label in self.due if label != period)
        since = self.due_since_at if self.due[0] != period else at
        return replace(
            self, due=due, due_count=max(self.due_count - 1, len(due)), due_since_at=since if due else None
        )


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """``since_at`` is when a run for it first failed or was refused, or when it was planned. ``sent_bytes``
    may be 0 for a plan with very many objects: a snapshot reads a limited number of receipts."""

    delivery: Delivery
    since_at: datetime
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """The last access check. ``causes`` has grave ones that no run has disproved; ``responsible`` and
    ``message`` are of the first. ``bad_since_at``: the first of the latest checks that were not ok."""

    checked_at: datetime
    outcome: str
    causes: tuple[str, ...] = ()
    responsible: str | None = None
    message: str = ""
    bad_since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OrphanedUploads:
    """Multipart uploads that we may not abort. ``kept`` counts those that no lifecycle rule of the bucket
    aborts; ``ends_at`` is when the rule has aborted the last of the others."""

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
    """Objects of unpublished revisions that the bucket does not allow us to delete, since ``since_at``."""

    count: int
    bytes: int
    since_at: datetime


class FailedVerdict(NamedTuple):
    """A verdict that is not sound, and for whom a person has decided on it: customers, or all (empty)."""

    judgement: Judgement
    decided: frozenset[str] = frozenset()

    def holds_for(self, customer: str) -> bool:
        return self.decided.isdisjoint(("", customer))


class PeriodSummary(NamedTuple):
    """A period of a feed for all customers, by the newest revision of each: numbers of customers, the largest
    delivery, and when the first had it."""

    period: str
    customers: int
    delivered: int
    quarantined: int
    rejected: int
    files: int
    bytes: int
    revision: int
    first_delivered_at: datetime | None


class OpenRecall(NamedTuple):
    """A recall that is not finished for a customer."""

    feed: str
    started_at: datetime
    progress: RecallProgress


Subscription = tuple[str, str]  # customer and feed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that health is computed from, consistent. It may contain customers and feeds that are no
    longer configured. ``skipped`` has the newest period that was skipped after an outage, ``verdicts`` the
    newest failed ones of each feed."""

    scans: Mapping[Subscription, SourceScan] = field(default_factory=dict)
    delivered: Mapping[Subscription, Delivery] = field(default_factory=dict)
    open: Mapping[Subscription, tuple[OpenDelivery, ...]] = field(default_factory=dict)
    capabilities: Mapping[str, Capabilities] = field(default_factory=dict)
    orphaned: Mapping[str, OrphanedUploads] = field(default_factory=dict)
    checks: Mapping[str, CheckSummary] = field(default_factory=dict)
    cleanups: Mapping[str, CleanupSummary] = field(default_factory=dict)
    discrepancies: Mapping[str, tuple[Discrepancy, ...]] = field(default_factory=dict)
    superseded: Mapping[str, SupersededLeft] = field(default_factory=dict)
    recalls: Mapping[str, tuple[OpenRecall, ...]] = field(default_factory=dict)
    skipped: Mapping[Subscription, str] = field(default_factory=dict)
    not_attested: Mapping[Subscription, int] = field(default_factory=dict)
    verdicts: Mapping[str, tuple[FailedVerdict, ...]] = field(default_factory=dict)
    daemon: DaemonRecord | None = None
    free_bytes: int | None = None
    used_bytes: int = 0


LONGEST_PAUSE = timedelta(hours=1)  # of notices


def _pause(attempts: int, longest: timedelta) -> timedelta:
    return min(timedelta(minutes=2 ** min(attempts, 10)), longest)


class AlertState(StrEnum):
    OPEN = "open"
    RESOLVED = "resolved"


class Event(StrEnum):
    OPENED = "opened"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Notification:
    """The state of one channel and alert. ``sent`` and ``urgent`` are of the last message that it accepted;
    ``attempts`` counts failures of the next one."""

    sent: Event | None = None
    sent_at: datetime | None = None
    urgent: bool = False
    attempts: int = 0
    next_attempt_at: datetime | None = None
    error: str = ""

    def failed(self, error: str, now: datetime) -> "Notification":
        next_at = now + _pause(self.attempts, timedelta(minutes=30))
        return replace(self, attempts=self.attempts + 1, next_attempt_at=next_at, error=error)


@dataclass(frozen=True, slots=True)
class Alert:
    """The fingerprint depends on cause and detail only, and is PagerDuty's deduplication key too.
    ``customers`` is empty if the alert concerns the whole service; ``notifications`` are by channel."""

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


class NoticeKind(StrEnum):
    LATE = "late"  # the period is not delivered in time
    PAUSED = "paused"  # its delivery is blocked until the customer acts
    CORRECTED = "corrected"  # a later revision of it was delivered
    WITHDRAWN = "withdrawn"  # files of it were recalled: always put, since the customer has to act


class NoticeStatus(StrEnum):
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
    """One notice, recorded before it is put. A retry puts the same ``body``."""

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
        """The token in the object's metadata."""
        return hashlib.sha256(f"{self.mark.customer}\0{self.key}\0{self.body}".encode()).hexdigest()[:32]

    def put(self, now: datetime) -> "Notice":
        return replace(self, status=NoticeStatus.PUT, put_at=now, next_attempt_at=None, error="")

    def refused(self, error: str, now: datetime) -> "Notice":
        next_at = now + _pause(self.attempts, LONGEST_PAUSE)
        return replace(self, attempts=self.attempts + 1, next_attempt_at=next_at, error=error)

    def withdrawn(self) -> "Notice":
        return replace(self, status=NoticeStatus.WITHDRAWN, next_attempt_at=None)
