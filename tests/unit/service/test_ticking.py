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


def test_no_day_is_skipped_when_the_clocks_are_set_forward() -> None:
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


def test_weekdays_are_those_of_crontab() -> None:
    trigger = CronSimTrigger(Times("0 0 * * 1-5"))
    friday = datetime(2026, 11, 27, tzinfo=UTC)
    assert trigger.get_next_fire_time(friday, friday).strftime("%A") == "Monday"
    assert trigger.get_next_fire_time(None, friday - timedelta(seconds=1)) == friday


def test_it_ticks_now_and_again(ticker: Ticker) -> None:
    ticks = threading.Semaphore(0)
    ticker.every("tick", 0.2, ticks.release)
    for _ in range(3):
        assert ticks.acquire(timeout=120)
    ticker.every("tick", 3600, lambda: None)  # replaced
    time.sleep(1)  # what had fired before
    while ticks.acquire(blocking=False):
        pass
    assert not ticks.acquire(timeout=0.5)


def test_it_calls_at_the_times_of_a_schedule(ticker: Ticker) -> None:
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


def test_a_wall_clock_that_is_set_back_stops_the_ticks_until_it_is_set_right(ticker: Ticker) -> None:
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
