"""The daemon's current status, for the status page and the metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from xmode_transfer.model.jobs import QueueEntry


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The daemon's own health.

    ``ticked_at`` is the time of the last tick; if it is older than a few ticks, the daemon hangs.
    ``workers`` is the number of slots, ``busy`` the number of slots in use. ``configuration_problems`` has
    one line for each mistake in the files on disk; the last valid configuration stays in use meanwhile.
    """

    started_at: datetime
    ticked_at: datetime
    stopping: bool
    workers: int
    busy: int
    configuration_loaded_at: datetime
    configuration_problems: tuple[str, ...] = ()


class StatusView(Protocol):
    """Any thread may read it at any time. It returns copies and never blocks."""

    def jobs(self) -> Sequence[QueueEntry]:
        """Return the queue entry of each active customer, by name."""
        ...

    def status(self) -> DaemonStatus: ...
