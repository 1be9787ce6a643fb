"""A clock that stands until it is moved."""

import threading
from datetime import UTC, datetime, timedelta


class MemoryClock:
    """Implements ``model.process.Clock``. Thread-safe."""

    def __init__(self, start: datetime = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)) -> None:
        self._lock = threading.Lock()
        self._now = _aware(start)
        self._monotonic = 0.0

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Lets time pass on both clocks. Raises ValueError for less than nothing."""
        if seconds < 0:
            raise ValueError("time does not go back; use set() to turn the wall clock back")
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds

    def set(self, now: datetime) -> None:
        """Puts the wall clock somewhere else, also back, as NTP or an operator does. The monotonic clock
        goes on."""
        with self._lock:
            self._now = _aware(now)


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(UTC)
