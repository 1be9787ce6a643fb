"""A clock that ticks: APScheduler in memory, with times of our own.

It only wakes somebody up. Its own CronTrigger is not used: it skips the day after the clocks are set forward
(apscheduler 3.11.3, ``hour=0`` in Europe/Berlin fires on 29 March 2026 and then on 31 March) and counts
weekdays from Monday.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from xmode_transfer.config.times import Times

Call = Callable[[], None]


class CronSimTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires at the times of a schedule. What was missed is not fired for: whoever is woken looks by itself
    what is due."""

    def __init__(self, times: Times) -> None:
        self.times = times

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        # Asked with a time that has just fired and may be a hair in the future, or with none.
        return self.times.next(max(now, previous) if previous is not None else now)


class _Every(BaseTrigger):  # type: ignore[misc]
    """Fires at once, then every so many seconds after it has fired."""

    def __init__(self, seconds: float) -> None:
        self._pause = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        if previous is None:
            return now
        return previous + self._pause if previous + self._pause > now else now + self._pause


class Ticker:
    """Calls what it was told to, in threads of its own; a call must return at once. Thread-safe."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.start()

    def every(self, name: str, seconds: float, call: Call) -> None:
        """Calls now and every ``seconds``. A name that is known already is replaced."""
        self._scheduler.add_job(call, _Every(seconds), id=name, replace_existing=True)

    def at(self, name: str, times: Times, call: Call) -> None:
        """Calls at each of the times to come. A name that is known already is replaced."""
        self._scheduler.add_job(call, CronSimTrigger(times), id=name, replace_existing=True)

    def keep(self, names: set[str]) -> None:
        """Forgets all others."""
        for job in self._scheduler.get_jobs():
            if job.id not in names:
                self._scheduler.remove_job(job.id)

    def set_right(self) -> None:
        """Counts all times anew from now: APScheduler waits for the wall clock, and one that was set back by
        an hour would keep it waiting for an hour."""
        for job in self._scheduler.get_jobs():
            self._scheduler.reschedule_job(job.id, trigger=job.trigger)

    def close(self) -> None:
        """Idempotent."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
