"""What the daemon is doing at this moment: for the status page, the metrics and whoever looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from xmode_transfer.model.jobs import QueueEntry


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

    def turns(self) -> Sequence[QueueEntry]:
        """One for each active customer, by name."""
        ...

    def pulse(self) -> Pulse: ...
