"""What the daemon is doing at this moment: for the status page, the metrics and whoever looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class TurnState(StrEnum):
    """Where a customer stands in the daemon's round."""

    RUNNING = "running"  # a worker delivers one of its periods
    QUEUED = "queued"  # it is due, and waits for a worker
    RESTING = "resting"  # nothing is due before its next time
    BROKEN_OFF = "broken_off"  # the last try was refused or failed: it is tried again at its next time


@dataclass(frozen=True, slots=True)
class Turn:
    """One customer's place in the round. ``since_at`` is when it came into this state; ``next_at`` when it is
    looked at next, where a time is set. ``feed`` and ``period`` are what is being delivered, or what was
    refused; ``reason`` is one sentence on why it is broken off."""

    customer: str
    state: TurnState
    since_at: datetime
    next_at: datetime | None = None
    feed: str | None = None
    period: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pulse:
    """The daemon's own health. ``ticked_at`` is when its clock last ticked: one that is older than a few
    ticks means that the daemon hangs. ``workers`` is the size of the pool, ``busy`` how many of them work.
    ``configuration_problems`` is a line for each mistake in the files as they are on disk now; while there
    are some, what was in order before is still in use."""

    started_at: datetime
    ticked_at: datetime
    stopping: bool
    workers: int
    busy: int
    configuration_loaded_at: datetime
    configuration_problems: tuple[str, ...] = ()


class Board(Protocol):
    """Read at any time from any thread; answers copies, waits for nobody and calls nobody."""

    def turns(self) -> Sequence[Turn]:
        """One for each active customer, by name."""
        ...

    def pulse(self) -> Pulse: ...
