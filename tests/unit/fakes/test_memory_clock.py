from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.fakes import MemoryClock


def test_time_stands_until_it_is_moved():
    clock = MemoryClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert clock.now() == clock.now() == datetime(2026, 3, 1, 12, tzinfo=UTC)
    clock.advance(90.5)
    assert clock.now() == datetime(2026, 3, 1, 12, 1, 30, 500_000, tzinfo=UTC)
    assert clock.monotonic() == 90.5


def test_the_wall_clock_may_go_back_and_the_monotonic_never():
    clock = MemoryClock()
    clock.advance(10)
    clock.set(datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == datetime(2020, 1, 1, tzinfo=UTC)
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() == 10
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_time_without_a_zone_is_no_time():
    with pytest.raises(ValueError, match="no time zone"):
        MemoryClock(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="no time zone"):
        MemoryClock().set(datetime(2026, 1, 1))  # noqa: DTZ001
