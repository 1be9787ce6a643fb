"""Turns of customers on several machines: whose turn is how urgent, and what is known of the workers.

A turn is one customer's one period. A work queue gives turns out by priority, and remembers what each
customer's turns have cost so far: a weighted round robin, as virtual time. A turn costs ``1/weight``; who has
had the least goes first; who has rested comes back without a credit.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from xmode_transfer.domain.records import Lease

BACKFILL_PERIODS = 2
BACKFILL_SPAN = timedelta(days=1)
"""A customer with more due periods of one feed than this is filling back, not keeping up, if they reach over
so long a time. By their number alone all customers of an hourly feed would, as soon as the fleet is some
hours late, and those who have waited longest would be put behind the others."""
BACKFILL_HANDICAP = 8.0
"""Turns by which a backfill is put behind those who keep up. It is not put behind them for ever: after so
many turns of theirs it is its turn."""
_STEPS = 1024
"""Steps of priority to one turn of weight 1: ten to one of weight 100. Within a step it is first come, first
served."""
_LEAST_PRIORITY = -(2**31)
SILENT_AFTER = timedelta(seconds=30)
"""A worker that has not been heard of for so long is not counted any more."""
QUIET_AFTER = timedelta(seconds=10)
"""A worker that has missed two signs of life: it is asked whether its process is known to have ended."""


class FleetState(StrEnum):
    """Where a customer stands, for the whole fleet."""

    RESTING = "resting"
    QUEUED = "queued"
    RUNNING = "running"
    BROKEN_OFF = "broken_off"


def customer_lease(customer: str) -> str:
    """The name of what is claimed by whoever delivers to a customer: a run, or a worker for a turn. Of two
    that believe to hold it, the ledger knows one by its generation."""
    return f"customer/{customer}"


def cost(weight: int) -> float:
    """What one turn costs a customer."""
    return 1.0 / weight


def entering(spent: float, clock: float) -> float:
    """What a customer who is queued counts as having spent: nobody comes back from a rest with a credit.
    ``clock`` is the virtual time of the fleet, what the customer whose turn began last had spent."""
    return max(spent, clock)


def priority(spent: float, *, backfill: bool) -> int:
    """The priority of a queued turn: higher goes first, among equals who was queued first. Fits 32 bits."""
    late = BACKFILL_HANDICAP if backfill else 0.0
    return max(_LEAST_PRIORITY, -int((spent + late) * _STEPS))


def is_backfill(due_periods: int, span: timedelta) -> bool:
    """Whether a customer fills back of which so many periods of a feed are due; ``span`` lies between the
    beginnings of the oldest and of the newest."""
    return due_periods > BACKFILL_PERIODS and span >= BACKFILL_SPAN


@dataclass(frozen=True, slots=True)
class FleetTurn:
    """One customer's place in the fleet, as the ledger has it.

    ``serial`` grows with each change of any customer's place, over all of them, so that a reader asks for
    what changed since. ``ended_serial`` is the serial at which its last turn ended (0: none did). ``holder``
    is the process whose turn runs. The fields from ``again`` on say how the last turn ended; ``looked`` and
    the rest as in ``services.daemon.turns.TurnEnd``.
    """

    customer: str
    state: FleetState
    since_at: datetime
    serial: int
    ended_serial: int = 0
    holder: str | None = None
    stop_asked: bool = False
    feed: str | None = None
    period: str | None = None
    next_at: datetime | None = None
    reason: str = ""
    again: bool = False
    looked: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A customer is to have a turn; ``hurried`` and ``serving_at`` as in ``Fleet.call``."""

    customer: str
    hurried: bool = False
    serving_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FleetTurnEnd:
    """How a turn ended, for the ledger. ``backfill``: what is still due makes it one (``is_backfill``).
    ``broken_off`` and ``ailing`` follow from ``reason``. ``reread_at`` is when sources without markers were
    last read again."""

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
class Ticket:
    """The right to take a customer's turn, from its beginning to its end. ``lease`` is
    ``customer/<customer>`` and is renewed by whoever holds the ticket. ``hurried`` as in ``Turns.hurry``.
    ``follows`` is the serial at which the customer's last turn ended: who took that turn itself still knows
    what is due."""

    customer: str
    lease: Lease
    hurried: bool = False
    follows: int = 0
    reread_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One life of a worker process, brought up to date every few seconds. ``places`` is how many turns it
    takes at once, ``busy`` how many it has, ``waiting`` how many more make no progress and sit in its waiting
    room. ``trouble`` is one sentence on what of ours keeps it from taking turns; ``gone`` when its process is
    known to have ended without a word."""

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
class Standing:
    """What a worker is told when it gives a sign of life: how many workers live (itself included), how many
    customers are queued in the regular queue, and which of its own turns are to be stopped where they can be
    resumed."""

    workers: int
    queued: int
    to_stop: frozenset[str] = field(default_factory=frozenset)
