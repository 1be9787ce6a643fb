"""Jobs of customers on one machine or on several: which is how urgent, and what is known of the workers.

A job delivers one period of one customer. A work queue hands jobs out by priority and remembers what each
customer's jobs have cost so far: a weighted round robin, as virtual time. A job costs ``1 / weight``; whoever
has had the least goes first; whoever has rested comes back without a credit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from xmode_transfer.model.records import Lease

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
