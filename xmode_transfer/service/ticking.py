"""Timers: APScheduler in memory, with our own triggers.

Timers only wake the daemon. APScheduler's CronTrigger is not used: it skips the day after the clocks are set
forward (apscheduler 3.11.3, ``hour=0`` in Europe/Berlin fires on 29 March 2026 and then on 31 March) and
counts weekdays from Monday.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from xmode_transfer.config.times import Times

Call = Callable[[], None]


class CronSimTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires at the times of a schedule. Missed times do not fire: the daemon computes what is due itself."""

    def __init__(self, times: Times) -> None:
        self.times = times

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        # ``previous`` has just fired and may be slightly in the future, or is None.
        return self.times.next(max(now, previous) if previous is not None else now)


class _Every(BaseTrigger):  # type: ignore[misc]
    """Fires at once, then repeatedly after a number of seconds."""

    def __init__(self, seconds: float) -> None:
        self._pause = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        if previous is None:
            return now
        return previous + self._pause if previous + self._pause > now else now + self._pause


class Ticker:
    """Runs callbacks in its own threads; a callback must return at once. Thread-safe."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.start()

    def every(self, name: str, seconds: float, call: Call) -> None:
        """Call now and every ``seconds``. Replaces a timer of the same name."""
        self._scheduler.add_job(call, _Every(seconds), id=name, replace_existing=True)

    def at(self, name: str, times: Times, call: Call) -> None:
        """Call at each future time. Replaces a timer of the same name."""
        self._scheduler.add_job(call, CronSimTrigger(times), id=name, replace_existing=True)

    def keep(self, names: set[str]) -> None:
        """Remove all other timers."""
        for job in self._scheduler.get_jobs():
            if job.id not in names:
                self._scheduler.remove_job(job.id)

    def reset(self) -> None:
        """Recompute all timers from now: APScheduler waits for the wall clock, and would wait an hour after
        the clock is set back by an hour."""
        for job in self._scheduler.get_jobs():
            self._scheduler.reschedule_job(job.id, trigger=job.trigger)

    def close(self) -> None:
        """Idempotent."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
