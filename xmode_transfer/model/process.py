"""Processes: the clock, progress callbacks, and the ledger's records of running daemons and workers."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from xmode_transfer.model.records import Failure

SILENT_AFTER = timedelta(seconds=30)  # without a heartbeat; then a worker is no longer counted
QUIET_AFTER = timedelta(seconds=10)  # two missed heartbeats: its host is asked if the process has ended
SILENT_AFTER_TICKS = 3  # a daemon that has missed so many hangs, or has died
_SLACK = timedelta(seconds=60)


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; they never go back."""
        ...


class Progress(Protocol):
    """Callbacks during deliveries, from several threads. They must neither raise nor block."""

    def delivery_started(
        self, customer: str, feed: str, period: str, objects: int, total_bytes: int
    ) -> None: ...

    def bytes_sent(self, count: int) -> None: ...

    def bytes_resumed(self, count: int) -> None:
        """Report bytes of this delivery that an earlier run sent."""
        ...

    def object_finished(self, name: str, size: int, outcome: str) -> None: ...

    def delivery_finished(self) -> None: ...


def longest_silence(tick_seconds: int) -> timedelta:
    """Return the longest time that a live daemon may go without a tick."""
    return timedelta(seconds=SILENT_AFTER_TICKS * tick_seconds) + _SLACK


@dataclass(frozen=True, slots=True)
class DaemonRecord:
    """One life of a daemon, updated at each tick. ``holder`` is ``host/boot-id/pid/start-time``. ``trouble``
    is a problem of ours that stops all customers. ``stopped_at`` is set when it ends cleanly."""

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
        return self.stopped_at is None and now - self.ticked_at <= longest_silence(self.tick_seconds)


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One life of a worker. ``places`` are its slots; ``waiting`` counts further jobs that make no progress
    or whose customers are suspended. ``trouble`` is a problem of ours that keeps it from taking jobs.
    ``gone``: its process ended without stopping cleanly."""

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
    """The response to a worker's heartbeat: live workers, itself included; queued customers that are not
    suspended; customers of its jobs that should stop."""

    workers: int
    queued: int
    to_stop: frozenset[str] = frozenset()
