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
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Lease, Status

BACKFILL_PERIODS = 2
BACKFILL_SPAN = timedelta(days=1)
"""A customer is backfilling if more than this many periods of a feed are due and they span this time. The
number alone would also match every customer of an hourly feed when the fleet is some hours late."""
BACKFILL_HANDICAP = 8.0
"""A backfill goes behind this many jobs of customers that keep up."""
PRIORITY_STEPS = 1024
"""Priority steps of one job of weight 1; a job of weight 100 has ten. Within a step: first come, first
served."""
BUSY_SECONDS = 5.0
"""A customer whose lease a ``run`` holds is retried after this."""


# --- Requests and priorities


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request to enqueue a job. ``skip_backoff`` retries failed deliveries at once. ``serving_at`` is the
    time of the customer's schedule that the job serves."""

    customer: str
    skip_backoff: bool = False
    serving_at: datetime | None = None

    @property
    def is_live(self) -> bool:
        """True for requests of a schedule or a person: they get no backfill handicap."""
        return self.skip_backoff or self.serving_at is not None

    def merged(self, other: "JobRequest | None") -> "JobRequest":
        """Return one request for both."""
        if other is None:
            return self
        times = filter(None, (self.serving_at, other.serving_at))
        return JobRequest(self.customer, self.skip_backoff or other.skip_backoff, max(times, default=None))


def merged(requests: Iterable[JobRequest]) -> dict[str, JobRequest]:
    """Return one request for each customer."""
    found: dict[str, JobRequest] = {}
    for request in requests:
        found[request.customer] = request.merged(found.get(request.customer))
    return found


def is_backfill(due_periods: int, span: timedelta) -> bool:
    """Return whether a customer is backfilling. ``span`` is the time between the starts of the oldest and the
    newest due period of a feed."""
    return due_periods > BACKFILL_PERIODS and span >= BACKFILL_SPAN


def priority(spent: float, *, backfill: bool) -> int:
    """Return the priority of a queued job; higher goes first. ``spent`` is what the customer's jobs have
    cost, at least the present virtual time."""
    return -int((spent + (BACKFILL_HANDICAP if backfill else 0.0)) * PRIORITY_STEPS)


def customer_lease(customer: str) -> str:
    """Return the name of the lease that a run or a job claims to deliver to a customer."""
    return f"customer/{customer}"


# --- Jobs and queue entries


class JobState(StrEnum):
    """The state of a customer in the queue."""

    RESTING = "resting"  # nothing is due before ``next_at``
    QUEUED = "queued"  # due, and waiting for a slot
    RUNNING = "running"  # a worker delivers one of its periods
    SUSPENDED = "suspended"  # the last attempt was refused or failed; retried at ``next_at``


@dataclass(frozen=True, slots=True)
class Job:
    """The right to deliver to a customer, from ``next`` to ``done``.

    ``lease`` is ``customer/<customer>``; the holder renews it. ``follows`` is the lease generation of the
    customer's previous job: the worker that did it still knows what is due. ``reread_at`` is when sources
    without markers were last reread. ``number`` is the queue's own.
    """

    customer: str
    lease: Lease
    skip_backoff: bool = False
    serving_at: datetime | None = None
    follows: int = 0
    reread_at: datetime | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of a job. ``again``: more can be delivered at once. ``looked``: everything that was due at
    the last scan is delivered or recorded. ``next_at``: the time of the next retry. ``reason``: why the
    customer is suspended, if it is; ``refused`` if the customer is responsible. ``backfill``: the remaining
    periods are a backfill."""

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
    """One customer in the queue, in ``state`` since ``since_at``. ``feed`` and ``period`` are delivered now,
    or were refused. ``reason``, ``again``, ``looked`` and ``refused`` are those of the last ``JobResult``;
    ``ended`` is the generation of that job's lease (0: no job has ended). ``holder`` is the process that runs
    the current job."""

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
    """The queue of all customers; each has at most one running job.

    ``service.local_queue`` is the queue of a daemon that delivers itself. ``ledger.work_queue`` is that of a
    fleet, on Procrastinate: any number of daemons enqueue, any number of workers take jobs. Every method may
    raise the errors of ``Ledger`` and can be called again after one. Thread-safe. Where machines have to
    agree, times are the database's.
    """

    # --- daemons

    def register(self, weights: Mapping[str, int], known: Iterable[QueueEntry] = ()) -> None:
        """Set the customers and their weights. Others leave the queue, and their running jobs are asked to
        stop. ``known`` has an earlier daemon's entries of customers that are new here. Idempotent: each
        daemon calls it."""
        ...

    def enqueue(self, requests: Iterable[JobRequest]) -> None:
        """Queue a job for each customer. A queued job keeps its position and merges with the request; a live
        request removes a backfill's handicap. A running job is followed by another. Unregistered customers
        are skipped."""
        ...

    def stop(self, customer: str) -> None:
        """Ask the customer's running job, if any, to stop where it can be resumed."""
        ...

    def snapshot(self) -> list[QueueEntry]:
        """Return the entry of each registered customer, by name. A change of ``ended`` shows that a job has
        ended."""
        ...

    def reap(self) -> list[str]:
        """Requeue jobs that are no longer held, because the worker is dead or its lease has ended, and return
        their customers. Leases that the worker held for them (``customer/...``,
        ``delivery/<customer>/...``) are revoked, so that it cannot write if it resumes."""
        ...

    def workers(self) -> list[WorkerRecord]:
        """Return live workers and those that ended in the last hour, last seen first."""
        ...

    # --- workers

    def next(self, holder: str, ttl_seconds: float, *, suspended: bool) -> Job | None:
        """Take the most urgent job, of ``suspended`` customers or of the others; None if there is none. A
        customer to which a ``run`` delivers is skipped for a few seconds."""
        ...

    def delivers(self, job: Job, feed: str, period: str) -> None:
        """Record what the job delivers now. Raises LeaseLost."""
        ...

    def done(self, job: Job, result: JobResult) -> None:
        """End the job, release its lease, and requeue the customer for ``again`` or for a request that came
        meanwhile. If ``looked``, the schedule's time is recorded as served; otherwise the next job serves it.
        Raises LeaseLost, and changes nothing, if another process has taken over."""
        ...

    def beat(self, worker: WorkerRecord) -> FleetStatus:
        """Record a heartbeat."""
        ...


# --- Retries


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that doubles with each failure. The ledger keeps it as the time from a delivery's
    ``updated_at`` to its ``next_attempt_at``, so that it survives the process."""

    first_seconds: float = 30.0
    longest_seconds: float = 900.0

    def next_attempt_at(self, earlier: Delivery | None, now: datetime) -> datetime:
        """Return the time of the next attempt after a failure at ``now``. ``earlier`` is the delivery as
        recorded before this attempt."""
        pause = self.first_seconds
        if earlier is not None and earlier.failure is not None and earlier.next_attempt_at is not None:
            before = (earlier.next_attempt_at - earlier.updated_at).total_seconds()
            pause = max(self.first_seconds, 2 * before)
        return now + timedelta(seconds=min(pause, self.longest_seconds))


def may_be_tried(latest: Delivery | None, now: datetime) -> bool:
    """Return whether the delivery's pause is over. A pause that begins in the future was recorded by a wrong
    clock, and does not count."""
    if latest is None or latest.next_attempt_at is None:
        return True
    return latest.next_attempt_at <= now or latest.updated_at > now


def suspends(outcome: DeliveryOutcome) -> bool:
    """Return whether the customer's other deliveries would fail the same way and have to wait: the role or
    the bucket refuses us, or the destination throttles or does not answer."""
    if outcome.exit_code in (ExitCode.DONE, ExitCode.ALREADY_RUNNING, ExitCode.INTERRUPTED):
        return False
    return outcome.ends_run or (outcome.failure is not None and outcome.failure.retryable)


def has_suspended(delivery: Delivery) -> bool:
    """Return the same for a delivery as the ledger has it."""
    return delivery.failure is not None and (
        (delivery.status is Status.BLOCKED and delivery.failure.cause not in _OF_ONE_DELIVERY)
        or (delivery.status is Status.FAILED and delivery.failure.retryable)
    )


_OF_ONE_DELIVERY = frozenset({ObjectExists.code, PartsRefused.code, "incomplete"})
"""Causes for which the customer is responsible, and which do not affect its other deliveries."""
