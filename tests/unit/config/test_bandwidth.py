"""The limit at a time: over the day, the week, midnight, and when the clocks are changed."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmode_transfer.config import BandwidthLimit, Day
from xmode_transfer.config.schedule import BandwidthChange

ALL_DAYS = tuple(Day)
WEDNESDAYS = (Day.WED,)
WORKING_DAYS = ALL_DAYS[:5]


def change(starts: time, limit: int | None, days: tuple[Day, ...] = ALL_DAYS) -> BandwidthChange:
    return BandwidthChange(**{"from": starts, "limit": limit, "days": days})


def limit_at(changes: Sequence[BandwidthChange], now: datetime, zone: str = "UTC") -> int | None:
    return BandwidthLimit(bandwidth_bytes_per_second=tuple(changes), timezone=zone).limit_at(now)


OFFICE = (change(time(8), 10), change(time(18), None))
WORKING_HOURS = (change(time(8), 10, WORKING_DAYS), change(time(18), None, WORKING_DAYS))
NIGHTLY = (change(time(22), 500), change(time(6), 50))
WEEKLY = (change(time(12), 7, WEDNESDAYS), change(time(12), 9, (Day.SAT,)))


def at(text: str, zone: str = "UTC", fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


@pytest.mark.parametrize(
    ("changes", "now", "limit"),
    [
        (OFFICE, "2026-11-23T07:59:59.999999", None),
        (OFFICE, "2026-11-23T08:00", 10),
        (OFFICE, "2026-11-23T17:59:59", 10),
        (OFFICE, "2026-11-23T18:00", None),
        (OFFICE, "2026-11-24T00:00", None),
        # over midnight, whatever the order in which they are written
        (NIGHTLY, "2026-11-23T21:59", 50),
        (NIGHTLY, "2026-11-23T22:00", 500),
        (NIGHTLY, "2026-11-24T00:00", 500),
        (NIGHTLY, "2026-11-24T05:59", 500),
        (NIGHTLY, "2026-11-24T06:00", 50),
        (NIGHTLY[::-1], "2026-11-24T00:30", 500),
        # 2026-11-23 is a Monday
        (WORKING_HOURS, "2026-11-23T07:00", None),
        (WORKING_HOURS, "2026-11-23T09:00", 10),
        (WORKING_HOURS, "2026-11-27T17:00", 10),
        (WORKING_HOURS, "2026-11-28T09:00", None),
        (WORKING_HOURS, "2026-11-29T09:00", None),
        # changes days apart; before the first of a week that of the week before goes on
        (WEEKLY, "2026-11-23T00:00", 9),
        (WEEKLY, "2026-11-25T11:59", 9),
        (WEEKLY, "2026-11-25T12:00", 7),
        (WEEKLY, "2026-11-28T11:59", 7),
        (WEEKLY, "2026-11-28T12:00", 9),
        ((change(time(12), 7, WEDNESDAYS), change(time(11), 9, WEDNESDAYS)), "2026-11-25T10:59", 7),
        ((change(time(11), 7, WEDNESDAYS), change(time(12), 9, WEDNESDAYS)), "2026-11-25T10:59", 9),
        ((change(time(12), 7, WEDNESDAYS),), "2026-11-25T11:59", 7),
    ],
)  # fmt: skip
def test_the_last_change_that_came_holds(
    changes: tuple[BandwidthChange, ...], now: str, limit: int | None
) -> None:
    assert limit_at(changes, at(now)) == limit


@pytest.mark.parametrize("limit", [None, 1, 10**9])
def test_one_limit_for_all_times(limit: int | None) -> None:
    always = BandwidthLimit(bandwidth_bytes_per_second=limit)
    assert always.limit_at(at("2026-11-23T08:00")) == limit
    assert always.is_limited is (limit is not None)


def test_a_timetable_is_limited_when_it_is_so_at_any_time() -> None:
    assert BandwidthLimit(bandwidth_bytes_per_second=OFFICE).is_limited
    assert not BandwidthLimit(bandwidth_bytes_per_second=(change(time(3), None),)).is_limited


@pytest.mark.parametrize(
    ("now", "limit"),
    [
        ("2026-11-23T06:59", None),
        ("2026-11-23T07:00", 10),
        ("2026-07-23T05:59", None),
        ("2026-07-23T06:00", 10),
    ],
)
def test_the_time_is_read_in_its_zone(now: str, limit: int | None) -> None:
    assert limit_at(OFFICE, at(now), "Europe/Berlin") == limit


@pytest.mark.parametrize(
    ("now", "limit"),
    [
        # Berlin, 2026-03-29: after 01:59:59 it is 03:00, at 01:00 UTC
        ("2026-03-29T00:59:59", 1),
        ("2026-03-29T01:00:00", 3),
        ("2026-03-29T01:59:59", 3),
        ("2026-03-29T02:00:00", 4),
    ],
)
def test_a_change_in_the_hour_that_is_left_out_comes_with_the_next(now: str, limit: int) -> None:
    changes = (change(time(1), 1), change(time(2), 2), change(time(2, 30), 3), change(time(4), 4))
    assert limit_at(changes, at(now), "Europe/Berlin") == limit


@pytest.mark.parametrize(
    ("now", "limit"),
    [
        # Berlin, 2026-10-25: after 02:59:59 it is 02:00 again, at 01:00 UTC
        ("2026-10-25T00:29:59", 2),
        ("2026-10-25T00:30:00", 3),
        ("2026-10-25T00:59:59", 3),
        ("2026-10-25T01:00:00", 3),  # 02:00 for the second time
        ("2026-10-25T01:30:00", 3),
        ("2026-10-25T02:00:00", 4),
    ],
)
def test_a_change_that_came_stays_when_its_hour_comes_again(now: str, limit: int) -> None:
    changes = (change(time(2), 2), change(time(2, 30), 3), change(time(3), 4))
    assert limit_at(changes, at(now), "Europe/Berlin") == limit


def test_a_change_at_midnight_stays_when_yesterday_comes_again() -> None:
    # St John's, 2010-11-07: after 00:00:59 it is 23:01 of the day before, at 02:31 UTC
    timetable, zone = (change(time(12), 12), change(time(0), 24)), "America/St_Johns"
    assert limit_at(timetable, at("2010-11-07T02:29:59"), zone) == 12
    assert limit_at(timetable, at("2010-11-07T02:30:00"), zone) == 24
    again = at("2010-11-07T03:00:00")
    assert again.astimezone(ZoneInfo(zone)).isoformat() == "2010-11-06T23:30:00-03:30"
    assert limit_at(timetable, again, zone) == 24


def test_two_changes_at_one_moment_are_refused() -> None:
    mondays = change(time(8), 1, (Day.MON,))
    assert (
        limit_at([mondays, change(time(8), 2, (Day.TUE,)), change(time(9), 2)], at("2026-11-23T08:00")) == 1
    )
    with pytest.raises(ValueError, match="two changes come at 08:00 of the same day"):
        limit_at([mondays, change(time(8), 2)], at("2026-11-23T08:00"))


def clash(changes: Sequence[BandwidthChange]) -> bool:
    moments = [(one.starts, day) for one in changes for day in one.days]
    return len(set(moments)) < len(moments)


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
]
changes = st.lists(
    st.builds(
        change,
        st.times().map(lambda one: one.replace(second=0, microsecond=0, fold=0)),
        st.none() | st.integers(1, 10**9),
        st.frozensets(st.sampled_from(Day), min_size=1).map(tuple),
    ),
    min_size=1,
    max_size=5,
).filter(lambda made: not clash(made))
CLOCKS_CHANGE = [
    "2010-11-07T02:31",
    "2026-03-29T01:00",
    "2026-10-25T01:00",
    "2026-11-01T06:00",
    "2026-10-03T15:30",
]
moments = st.one_of(
    st.datetimes(datetime(2010, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.builds(
        lambda text, minutes: at(text) + timedelta(minutes=minutes),
        st.sampled_from(CLOCKS_CHANGE),
        st.integers(-200, 200),
    ),
)


def begins(change: BandwidthChange, day: datetime, zone: ZoneInfo) -> datetime:
    """When a change comes on a day: the first minute at which the clocks show that time or a later one."""
    wall = datetime.combine(day, change.starts)
    moment = wall.replace(tzinfo=zone).astimezone(UTC) - timedelta(minutes=70)
    while moment.astimezone(zone).replace(tzinfo=None, fold=0) < wall:
        moment += timedelta(minutes=1)
    return moment


@settings(deadline=None)
@given(made=changes, zone=st.sampled_from(ZONES), now=moments)
def test_what_holds_is_what_came_last(made: list[BandwidthChange], zone: str, now: datetime) -> None:
    """Against a clock that is watched minute by minute, from eight days before."""
    clocks = ZoneInfo(zone)
    midnight = datetime.combine(now.astimezone(clocks).date(), time())
    came = [
        (begun, datetime.combine(day, change.starts), change.limit)
        for days in range(-1, 9)
        for day in [midnight - timedelta(days=days)]
        for change in made
        if ALL_DAYS[day.weekday()] in change.days
        if abs(datetime.combine(day, change.starts, UTC) - now) < timedelta(days=9)
        for begun in [begins(change, day, clocks)]
        if begun <= now
    ]
    assert limit_at(made, now, zone) == max(came, key=lambda one: one[:2])[2]


@given(made=changes, now=moments)
def test_the_order_in_which_it_is_written_says_nothing(made: list[BandwidthChange], now: datetime) -> None:
    assert limit_at(made, now) == limit_at(made[::-1], now)


@given(made=changes, now=moments, days=st.sampled_from([7, 70, 364]))
def test_each_week_is_like_the_last(made: list[BandwidthChange], now: datetime, days: int) -> None:
    later = now + timedelta(days=days)
    assert limit_at(made, now) == limit_at(made, later)
