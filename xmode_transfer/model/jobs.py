"""Jobs of customers on one machine or on several: which is how urgent, and what is known of the workers.

A job delivers one period of one customer. A work queue hands jobs out by priority and remembers what each
customer's jobs have cost so far: a weighted round robin, as virtual time. A job costs ``1 / weight``; whoever
has had the least goes first; whoever has rested comes back without a credit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from xmode_transfer.model.errors import ExitCode, ObjectExists, PartsRefused
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Failure, Lease, Status

BACKFILL_PERIODS = 2
BACKFILL_SPAN = timedelta(days=1)
"""A customer with more due periods of one feed than this is filling back, not keeping up, if they reach over
so long a time. By their number alone all customers of an hourly feed would, as soon as the fleet is some
hours late, and those who have waited longest would be put behind the others."""
BACKFILL_HANDICAP = 8.0
"""Jobs by which a backfill is put behind those who keep up. It is not put behind them for ever: after so
many jobs of theirs it goes next."""
PRIORITY_STEPS = 1024
"""Steps of priority to one job of weight 1: ten to one of weight 100. Within a step it is first come, first
served."""
SILENT_AFTER = timedelta(seconds=30)
"""A worker that has not been heard of for so long is not counted any more."""
QUIET_AFTER = timedelta(seconds=10)
"""A worker that has missed two signs of life: it is asked whether its process is known to have ended."""
BUSY_SECONDS = 5.0
"""A customer whose lease a ``run`` holds is tried again after this."""


class JobState(StrEnum):
    """Where a customer is in the queue."""

    RESTING = "resting"  # nothing is due before its next time
    QUEUED = "queued"  # it is due, and waits for a slot
    RUNNING = "running"  # a worker delivers one of its periods
    SUSPENDED = "suspended"  # the last try was refused or failed: it is tried again at its next time


def customer_lease(customer: str) -> str:
    """The name of what is claimed by whoever delivers to a customer: a run, or a worker for a job. Of two
    that believe to hold it, the ledger knows one by its generation."""
    return f"customer/{customer}"


def priority(spent: float, *, backfill: bool) -> int:
    """The priority of a queued job: higher goes first, among equals who was queued first. ``spent`` is what
    the customer counts as having had when it is queued: what its jobs have cost, and no less than the present
    virtual time."""
    return -int((spent + (BACKFILL_HANDICAP if backfill else 0.0)) * PRIORITY_STEPS)


def is_backfill(due_periods: int, span: timedelta) -> bool:
    """Whether a customer fills back of which so many periods of a feed are due; ``span`` is the time between
    the beginnings of the oldest and of the newest."""
    return due_periods > BACKFILL_PERIODS and span >= BACKFILL_SPAN


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A customer is to have a job. ``skip_backoff`` tries at once what waits for its next attempt.
    ``serving_at`` is the time of the customer's schedule that the job serves."""

    customer: str
    skip_backoff: bool = False
    serving_at: datetime | None = None

    @property
    def is_live(self) -> bool:
        """Whether it comes from a schedule or from a person: then a backfill's handicap does not count."""
        return self.skip_backoff or self.serving_at is not None

    def merged(self, other: "JobRequest | None") -> "JobRequest":
        """What both ask for."""
        if other is None:
            return self
        times = filter(None, (self.serving_at, other.serving_at))
        return JobRequest(self.customer, self.skip_backoff or other.skip_backoff, max(times, default=None))


def merged(requests: Iterable[JobRequest]) -> dict[str, JobRequest]:
    """One request a customer."""
    found: dict[str, JobRequest] = {}
    for request in requests:
        found[request.customer] = request.merged(found.get(request.customer))
    return found


@dataclass(frozen=True, slots=True)
class Job:
    """The right to deliver to a customer, from ``next`` to ``done``. ``lease`` is ``customer/<customer>`` and
    is renewed by whoever holds the job. ``follows`` is the generation of the customer's last job that ended:
    the worker that did it still knows what is due. ``reread_at`` is when sources without markers were last
    read again. ``number`` is the queue's own."""

    customer: str
    lease: Lease
    skip_backoff: bool = False
    serving_at: datetime | None = None
    follows: int = 0
    reread_at: datetime | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job came to. ``again``: there is more to deliver at once. ``looked``: everything that was due at
    the last look is delivered or noted. ``next_at``: when something that failed may be tried again.
    ``reason``: why the customer is suspended, if it is; ``refused`` when it is the customer who must act.
    ``backfill``: what is still due reaches far back. ``reread_at`` as in ``Job``."""

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
    """One customer in the queue. ``since_at`` is when it came into this state; ``next_at`` when it is looked
    at next, where a time is set. ``feed`` and ``period`` are what is being delivered, or what was refused;
    ``reason`` is one sentence on why the last job broke off, which ``again``, ``looked`` and ``refused``
    describe too (``JobResult``). ``ended`` is the generation of that job's lease (0: none has ended).
    ``holder`` is the process that has the running job."""

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
        """What is known of the customer when the job has ended and none is queued."""
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


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One life of a worker process, brought up to date every few seconds. ``places`` is how many jobs it
    takes at once, ``busy`` how many it has, ``waiting`` how many more make no progress or belong to customers
    that are suspended. ``trouble`` is one sentence on what of ours keeps it from taking jobs; ``gone`` when
    its process is known to have ended without a word."""

    holder: str
    started_at: datetime
    seen_at: datetime
    places: int
    busy: int = 0
    waiting: int = 0
    stopping: bool = False
    stopped_at: datetime | None = None
    version: str = ""
    trouble: str = ""
    gone: bool = False

    def is_alive(self, now: datetime) -> bool:
        return self.stopped_at is None and not self.gone and now - self.seen_at <= SILENT_AFTER


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """What a worker is told when it gives a sign of life: how many workers live (itself included), how many
    customers are queued that are not suspended, and which of its own jobs are to be stopped where they can
    be resumed."""

    workers: int
    queued: int
    to_stop: frozenset[str] = field(default_factory=frozenset)


SILENT_AFTER_TICKS = 3
"""A daemon that has not ticked for so many ticks hangs, or has died."""
_SLACK = timedelta(seconds=60)


def longest_silence(tick_seconds: int) -> timedelta:
    """How long a daemon that is alive may go without a tick."""
    return timedelta(seconds=SILENT_AFTER_TICKS * tick_seconds) + _SLACK


@dataclass(frozen=True, slots=True)
class DaemonRecord:
    """One life of a daemon, brought up to date at each tick.

    ``holder`` is its process (``host/boot-id/pid/start-time``). ``configuration_problems`` is a line for each
    mistake in the files as they are on disk; ``trouble`` is what of ours stops all customers at this moment,
    such as an AWS key that is refused. ``stopped_at`` is set when it ended by itself: a daemon without it
    that no longer ticks was killed, or hangs.
    """

    holder: str
    started_at: datetime
    ticked_at: datetime
    tick_seconds: int
    workers: int
    busy: int = 0
    configuration_loaded_at: datetime | None = None
    configuration_problems: tuple[str, ...] = ()
    trouble: Failure | None = None
    stopping: bool = False
    stopped_at: datetime | None = None

    def is_alive(self, now: datetime) -> bool:
        """Whether it has ticked as it should, by the ledger alone."""
        return self.stopped_at is None and now - self.ticked_at <= longest_silence(self.tick_seconds)


class WorkQueue(Protocol):
    """The jobs of all customers; a customer has one that runs at a time, wherever it runs.

    ``service.local_queue`` is that of a daemon that delivers itself. ``ledger.work_queue`` is that
    of a fleet, over Procrastinate: any number of daemons enqueue, any number of workers take what is next,
    and what is queued or running is read from Procrastinate's own tables. Every method may raise what
    ``Ledger`` raises, and can be called again where it did. Thread-safe. Times are the database's own where
    machines have to agree.
    """

    # --- daemons

    def register(self, weights: Mapping[str, int], known: Iterable[QueueEntry] = ()) -> None:
        """The customers that take part from now on, with their weights. Who no longer does is taken out of
        the queue, and its running job is asked to stop. ``known`` is what an earlier daemon left behind of
        customers that are new to this queue. Idempotent: each daemon does it."""
        ...

    def enqueue(self, requests: Iterable[JobRequest]) -> None:
        """Gives each of these customers a job as soon as it is its turn. One that is queued stays in its
        place, and what is asked for is added; a backfill is raised by a request that is live. One whose job
        runs has another when that ends. Who does not take part is skipped."""
        ...

    def stop(self, customer: str) -> None:
        """Asks the customer's running job, if there is one, to end where it can be resumed."""
        ...

    def snapshot(self) -> list[QueueEntry]:
        """Each customer that takes part, by name. Whoever follows the snapshots ends up with what is true,
        and sees by ``ended`` that another job has ended."""
        ...

    def reap(self) -> list[str]:
        """Queues those again whose job is held by nobody any more: its worker is dead, or its lease has
        ended. What that worker held of the customer (``customer/...``, ``delivery/<customer>/...``) is taken
        from it, so that it cannot write when it wakes. Answers whose jobs were taken over. Any process may do
        it at any time."""
        ...

    def workers(self) -> list[WorkerRecord]:
        """Those that live, and those that ended in the last hour; the one seen last first."""
        ...

    # --- workers

    def next(self, holder: str, ttl_seconds: float, *, suspended: bool) -> Job | None:
        """Takes the most urgent job, of customers that get on or of those that are ``suspended``. None when
        there is none. A customer to whom a ``run`` delivers is skipped, and comes again a few seconds
        later."""
        ...

    def delivers(self, job: Job, feed: str, period: str) -> None:
        """What the job delivers now. Raises LeaseLost."""
        ...

    def done(self, job: Job, result: JobResult) -> None:
        """The job has ended: its lease is given back, and the customer is queued again where there is more to
        do (``again``, or a request came meanwhile). When everything was looked at, the time of the schedule
        that the job served is remembered; otherwise the customer's next job serves
        it. Raises LeaseLost, and changes nothing, when somebody else has taken over."""
        ...

    def beat(self, worker: WorkerRecord) -> FleetStatus:
        """A sign of life, every few seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that doubles with each failure, from the first to the longest. It is kept in the ledger, as the
    time between a delivery's ``updated_at`` and its ``next_attempt_at``, so that it outlives the process."""

    first_seconds: float = 30.0
    longest_seconds: float = 900.0

    def next_attempt_at(self, earlier: Delivery | None, now: datetime) -> datetime:
        """When to try again after a failure that is noted at ``now``; ``earlier`` is the delivery as the
        ledger had it before this attempt."""
        pause = self.first_seconds
        if earlier is not None and earlier.failure is not None and earlier.next_attempt_at is not None:
            before = (earlier.next_attempt_at - earlier.updated_at).total_seconds()
            pause = max(self.first_seconds, 2 * before)
        return now + timedelta(seconds=min(pause, self.longest_seconds))


def breaks_off(outcome: DeliveryOutcome) -> bool:
    """Whether the customer's other deliveries would meet the same, so that they wait for this one: a refusal
    of the role or the bucket, a destination that throttles or does not answer. A file that cannot be read, or
    a key that is taken, is this delivery's own trouble."""
    if outcome.exit_code in (ExitCode.DONE, ExitCode.ALREADY_RUNNING, ExitCode.INTERRUPTED):
        return False
    return outcome.ends_run or (outcome.failure is not None and outcome.failure.retryable)


def broke_off(delivery: Delivery) -> bool:
    """The same for a delivery as the ledger has it, whose outcome nobody remembers."""
    return delivery.failure is not None and (
        (delivery.status is Status.BLOCKED and delivery.failure.cause not in _OF_ONE_DELIVERY)
        or (delivery.status is Status.FAILED and delivery.failure.retryable)
    )


_OF_ONE_DELIVERY = frozenset({ObjectExists.code, PartsRefused.code, "incomplete"})
"""Causes for which the customer must act, and its other deliveries go through."""


def may_be_tried(latest: Delivery | None, now: datetime) -> bool:
    """Whether the delivery's pause is over. A pause that is longer than any can be was noted while the clock
    was wrong, and counts for nothing."""
    if latest is None or latest.next_attempt_at is None:
        return True
    return latest.next_attempt_at <= now or latest.updated_at > now
