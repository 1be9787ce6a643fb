"""What the ledger remembers of the daemons that worked with it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from xmode_transfer.model.records import Failure

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
