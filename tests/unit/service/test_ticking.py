"""The clock that ticks: our own times in APScheduler, and a wall clock that is set back."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

from xmode_transfer.config.times import Times
from xmode_transfer.service.scheduler import CronSimTrigger, Ticker


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    made = Ticker()
    yield made
    made.close()
    made.close()


def test_no_day_is_skipped_when_clocks_go_forward() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)

    def midnights(trigger: BaseTrigger) -> list[str]:
        found, now, previous = [], start, None
        for _ in range(3):
            previous = now = trigger.get_next_fire_time(previous, now)
            found.append(now.astimezone(UTC).isoformat(timespec="minutes"))
        return found

    expected = ["2026-03-28T23:00+00:00", "2026-03-29T22:00+00:00", "2026-03-30T22:00+00:00"]
    assert midnights(CronSimTrigger(Times("0 0 * * *", "Europe/Berlin"))) == expected
    assert midnights(CronTrigger(hour=0, timezone="Europe/Berlin")) != expected  # why we have our own


def test_an_interval_fires_at_once_and_repeats(ticker: Ticker) -> None:
    ticks = threading.Semaphore(0)
    ticker.every("tick", 0.2, ticks.release)
    for _ in range(3):
        assert ticks.acquire(timeout=120)
    ticker.every("tick", 3600, lambda: None)  # replaced
    time.sleep(1)  # what had fired before
    while ticks.acquire(blocking=False):
        pass
    assert not ticks.acquire(timeout=0.5)


def test_a_timer_fires_at_scheduled_times(ticker: Ticker) -> None:
    called = threading.Event()
    other = threading.Event()
    soon = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251
    # the next full minute, moved to a second from now
    shift = (soon + timedelta(seconds=1)) - soon.replace(second=0)
    ticker.at("customer acme", Times("* * * * *", "UTC", shift % timedelta(minutes=1)), called.set)
    ticker.at("customer globex", Times("* * * * *", "UTC", shift % timedelta(minutes=1)), other.set)
    ticker.keep({"customer acme"})
    assert called.wait(120)
    assert not other.is_set()


def test_reset_after_the_wall_clock_was_set_back(ticker: Ticker) -> None:
    ticks = threading.Semaphore(0)
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    with time_machine.travel(now, tick=True):
        ticker.every("tick", 0.3, ticks.release)
        assert ticks.acquire(timeout=120)
        assert ticks.acquire(timeout=120)
    with time_machine.travel(now - timedelta(hours=1), tick=True):
        time.sleep(1)  # what had fired before
        while ticks.acquire(blocking=False):
            pass
        assert not ticks.acquire(timeout=0.8)  # APScheduler waits for an hour to pass
        ticker.reset()
        assert ticks.acquire(timeout=120)
        assert ticks.acquire(timeout=120)
