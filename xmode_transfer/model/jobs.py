"""Jobs: the queue of customers with something to deliver, and when a failed delivery is retried.

A job delivers one period of one customer. The work queue orders jobs by a weighted round robin in virtual
time: a job costs its customer ``1 / weight``, and the customer that has spent least goes first. A customer
that was resting returns at the present virtual time, without a credit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from xmode_transfer.model.errors import ExitCode, ObjectExists, PartsRefused
from xmode_transfer.model.process import FleetStatus, WorkerRecord
from xmode_transfer.model.recall import RecallProgress
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Lease, Status

# More due periods of a feed that span this time are a backfill. The number alone would also match every
# customer of an hourly feed when the fleet is some hours late.
BACKFILL_PERIODS = 2
BACKFILL_SPAN = timedelta(days=1)
BACKFILL_HANDICAP = 8.0  # a backfill goes behind this many jobs of customers that keep up
PRIORITY_STEPS = 1024  # of one job of weight 1; within a step: first come, first served
BUSY_SECONDS = 5.0  # a customer whose lease a ``run`` holds is retried after this


@dataclass(frozen=True, slots=True)
class JobRequest:
    """``skip_backoff`` retries failed deliveries at once; ``serving_at`` is the schedule's time."""

    customer: str
    skip_backoff: bool = False
    serving_at: datetime | None = None

    @property
    def is_live(self) -> bool:
        """True for requests of a schedule or a person: they get no backfill handicap."""
        return self.skip_backoff or self.serving_at is not None

    def merged(self, other: "JobRequest | None") -> "JobRequest":
        if other is None:
            return self
        times = filter(None, (self.serving_at, other.serving_at))
        return JobRequest(self.customer, self.skip_backoff or other.skip_backoff, max(times, default=None))


def merged(requests: Iterable[JobRequest]) -> dict[str, JobRequest]:
    found: dict[str, JobRequest] = {}
    for request in requests:
        found[request.customer] = request.merged(found.get(request.customer))
    return found


def is_backfill(due_periods: int, span: timedelta) -> bool:
    """``span`` is the time between the starts of the oldest and the newest due period of a feed."""
    return due_periods > BACKFILL_PERIODS and span >= BACKFILL_SPAN


def priority(spent: float, *, backfill: bool) -> int:
    """Return the priority; higher goes first. ``spent`` is in virtual time, at least the present one."""
    return -int((spent + (BACKFILL_HANDICAP if backfill else 0.0)) * PRIORITY_STEPS)


def customer_lease(customer: str) -> str:
    """Return the name of the lease that a run or a job claims to deliver to a customer."""
    return f"customer/{customer}"


class JobState(StrEnum):
    """The state of a customer in the queue."""

    RESTING = "resting"  # nothing is due before ``next_at``
    QUEUED = "queued"  # due, and waiting for a slot
    RUNNING = "running"  # a worker delivers one of its periods
    SUSPENDED = "suspended"  # the last attempt was refused or failed; retried at ``next_at``


@dataclass(frozen=True, slots=True)
class Job:
    """The right to deliver to a customer, from ``next`` to ``done``; the holder renews the lease. ``follows``
    is the lease generation of the customer's previous job: the worker that did it still knows what is due.
    ``reread_at`` is when sources without markers were last reread."""

    customer: str
    lease: Lease
    skip_backoff: bool = False
    serving_at: datetime | None = None
    follows: int = 0
    reread_at: datetime | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class JobResult:
    """``again``: more can be delivered at once. ``looked``: everything that was due at the last scan is
    delivered or recorded. ``reason``: why the customer is suspended; ``refused`` if it is responsible."""

    again: bool = False
    looked: bool = False
    next_at: datetime | None = None
    feed: str | None = None
    period: str | None = None
    reason: str = ""
    refused: bool = False
    backfill: bool = False
    reread_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One customer in the queue. ``feed`` and ``period`` are delivered now, or were refused. ``reason``,
    ``again``, ``looked`` and ``refused`` are of the last ``JobResult``, ``ended`` is that job's lease
    generation (0: none has ended). ``holder`` is the process that runs the current job."""

    customer: str
    state: JobState
    since_at: datetime
    next_at: datetime | None = None
    feed: str | None = None
    period: str | None = None
    reason: str = ""
    again: bool = False
    looked: bool = False
    refused: bool = False
    ended: int = 0
    holder: str | None = None

    @staticmethod
    def after(job: Job, result: JobResult, now: datetime) -> "QueueEntry":
        """Return the entry after a job has ended and none is queued."""
        return QueueEntry(
            customer=job.customer,
            state=JobState.SUSPENDED if result.reason else JobState.RESTING,
            since_at=now,
            next_at=result.next_at,
            feed=result.feed,
            period=result.period,
            reason=result.reason,
            again=result.again,
            looked=result.looked,
            refused=result.refused,
            ended=job.lease.generation,
        )


class WorkQueue(Protocol):
    """The queue of all customers; each has at most one running job. Thread-safe. Every method may raise the
    errors of ``Ledger`` and can be called again after one. Where machines have to agree, times are the
    database's."""

    # --- daemons

    def register(self, weights: Mapping[str, int], known: Iterable[QueueEntry] = ()) -> None:
        """Set the customers and their weights. Running jobs of others are asked to stop. ``known`` has an
        earlier daemon's entries of customers that are new here. Idempotent: each daemon calls it."""
        ...

    def enqueue(self, requests: Iterable[JobRequest]) -> None:
        """Queue a job for each registered customer. A queued job keeps its position; a live request removes
        a backfill's handicap. A running job is followed by another."""
        ...

    def stop(self, customer: str) -> None:
        """Ask the customer's running job, if any, to stop where it can be resumed."""
        ...

    def snapshot(self) -> list[QueueEntry]:
        """Return the entries, by name. A change of ``ended`` shows that a job has ended."""
        ...

    def reap(self) -> list[str]:
        """Requeue jobs whose worker is dead or whose lease has ended, and return their customers. Leases of
        the worker for them are revoked, so that it cannot write if it resumes."""
        ...

    def workers(self) -> list[WorkerRecord]:
        """Return live workers and those that ended in the last hour, last seen first."""
        ...

    # --- workers

    def next(self, holder: str, ttl_seconds: float, *, suspended: bool) -> Job | None:
        """Take the most urgent job, of ``suspended`` customers or of the others. A customer to which a
        ``run`` delivers is skipped for a few seconds."""
        ...

    def delivers(self, job: Job, feed: str, period: str) -> None:
        """Record what the job delivers now. Raises LeaseLost."""
        ...

    def done(self, job: Job, result: JobResult) -> None:
        """End the job, release its lease, and requeue the customer for ``again`` or for a later request.
        Unless ``looked``, the next job serves the schedule's time. Raises LeaseLost, and changes nothing, if
        another process has taken over."""
        ...

    def beat(self, worker: WorkerRecord) -> FleetStatus:
        """Record a heartbeat."""
        ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that doubles with each failure. It is the time from a delivery's ``updated_at`` to its
    ``next_attempt_at``, so that it survives the process."""

    first_seconds: float = 30.0
    longest_seconds: float = 900.0

    def next_attempt_at(self, earlier: Delivery | RecallProgress | None, now: datetime) -> datetime:
        """``earlier`` is what was recorded before the attempt that failed at ``now``."""
        pause = self.first_seconds
        if earlier is not None and earlier.failure is not None and earlier.next_attempt_at is not None:
            before = (earlier.next_attempt_at - earlier.updated_at).total_seconds()
            pause = max(self.first_seconds, 2 * before)
        return now + timedelta(seconds=min(pause, self.longest_seconds))


def may_be_tried(latest: Delivery | None, now: datetime) -> bool:
    """Return whether its pause is over. One that begins in the future was recorded by a wrong clock."""
    if latest is None or latest.next_attempt_at is None:
        return True
    return latest.next_attempt_at <= now or latest.updated_at > now


def suspends(outcome: DeliveryOutcome) -> bool:
    """Return whether the customer's other deliveries would fail the same way and have to wait."""
    if outcome.exit_code in (ExitCode.DONE, ExitCode.ALREADY_RUNNING, ExitCode.INTERRUPTED):
        return False
    return outcome.ends_run or (outcome.failure is not None and outcome.failure.retryable)


def has_suspended(delivery: Delivery) -> bool:
    """Return ``suspends`` for a delivery as the ledger has it."""
    return delivery.failure is not None and (
        (delivery.status is Status.BLOCKED and delivery.failure.cause not in _OF_ONE_DELIVERY)
        or (delivery.status is Status.FAILED and delivery.failure.retryable)
    )


_OF_ONE_DELIVERY = frozenset({ObjectExists.code, PartsRefused.code, "incomplete"})  # does not affect others
