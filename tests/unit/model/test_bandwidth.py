"""Which limit holds when: over the day, the week, midnight, and when the clocks are changed."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmode_transfer.config.schedule import ALL_DAYS, Change, Timetable, limit_at, same_moment

MON, TUE, WED, THU, FRI, SAT, SUN = range(7)
WEDNESDAYS = frozenset({WED})
WORKING_DAYS = frozenset({MON, TUE, WED, THU, FRI})
OFFICE = (Change(time(8), 10), Change(time(18), None))
WORKING_HOURS = (Change(time(8), 10, WORKING_DAYS), Change(time(18), None, WORKING_DAYS))
NIGHTLY = (Change(time(22), 500), Change(time(6), 50))
WEEKLY = (Change(time(12), 7, frozenset({WED})), Change(time(12), 9, frozenset({SAT})))


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
        ((Change(time(12), 7, WEDNESDAYS), Change(time(11), 9, WEDNESDAYS)), "2026-11-25T10:59", 7),
        ((Change(time(11), 7, WEDNESDAYS), Change(time(12), 9, WEDNESDAYS)), "2026-11-25T10:59", 9),
        ((Change(time(12), 7, frozenset({WED})),), "2026-11-25T11:59", 7),
    ],
)  # fmt: skip
def test_the_last_change_that_came_holds(changes: tuple[Change, ...], now: str, limit: int | None) -> None:
    assert limit_at(Timetable(changes), at(now)) == limit


@pytest.mark.parametrize("limit", [None, 1, 10**9])
def test_one_limit_for_all_times(limit: int | None) -> None:
    timetable = Timetable.always(limit)
    assert limit_at(timetable, at("2026-11-23T08:00")) == limit
    assert timetable.is_limited is (limit is not None)
    assert timetable.is_constant


def test_a_timetable_is_limited_when_it_is_so_at_any_time() -> None:
    assert Timetable(OFFICE).is_limited
    assert not Timetable(OFFICE).is_constant
    assert not Timetable((Change(time(3), None),)).is_limited


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
    assert limit_at(Timetable(OFFICE, "Europe/Berlin"), at(now)) == limit


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
    changes = (Change(time(1), 1), Change(time(2), 2), Change(time(2, 30), 3), Change(time(4), 4))
    assert limit_at(Timetable(changes, "Europe/Berlin"), at(now)) == limit


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
    changes = (Change(time(2), 2), Change(time(2, 30), 3), Change(time(3), 4))
    assert limit_at(Timetable(changes, "Europe/Berlin"), at(now)) == limit


def test_a_change_at_midnight_stays_when_yesterday_comes_again() -> None:
    # St John's, 2010-11-07: after 00:00:59 it is 23:01 of the day before, at 02:31 UTC
    timetable = Timetable((Change(time(12), 12), Change(time(0), 24)), "America/St_Johns")
    assert limit_at(timetable, at("2010-11-07T02:29:59")) == 12
    assert limit_at(timetable, at("2010-11-07T02:30:00")) == 24
    again = at("2010-11-07T03:00:00")
    assert again.astimezone(ZoneInfo("America/St_Johns")).isoformat() == "2010-11-06T23:30:00-03:30"
    assert limit_at(timetable, again) == 24


def test_two_changes_at_one_moment_are_found() -> None:
    mondays = Change(time(8), 1, frozenset({MON}))
    assert same_moment([mondays, Change(time(8), 2, frozenset({TUE})), Change(time(9), 2)]) is None
    every_day = Change(time(8), 2)
    assert same_moment([mondays, every_day]) == (mondays, every_day)


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
        Change,
        st.times().map(lambda one: one.replace(second=0, microsecond=0, fold=0)),
        st.none() | st.integers(1, 10**9),
        st.frozensets(st.sampled_from(range(7)), min_size=1),
    ),
    min_size=1,
    max_size=5,
).filter(lambda made: same_moment(made) is None)
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


def begins(change: Change, day: datetime, zone: ZoneInfo) -> datetime:
    """When a change comes on a day: the first minute at which the clocks show that time or a later one."""
    wall = datetime.combine(day, change.at)
    moment = wall.replace(tzinfo=zone).astimezone(UTC) - timedelta(minutes=70)
    while moment.astimezone(zone).replace(tzinfo=None, fold=0) < wall:
        moment += timedelta(minutes=1)
    return moment


@settings(deadline=None)
@given(made=changes, zone=st.sampled_from(ZONES), now=moments)
def test_what_holds_is_what_came_last(made: list[Change], zone: str, now: datetime) -> None:
    """Against a clock that is watched minute by minute, from eight days before."""
    place = ZoneInfo(zone)
    midnight = datetime.combine(now.astimezone(place).date(), time())
    came = [
        (begun, datetime.combine(day, change.at), change.limit)
        for days in range(-1, 9)
        for day in [midnight - timedelta(days=days)]
        for change in made
        if day.weekday() in change.weekdays
        if abs(datetime.combine(day, change.at, UTC) - now) < timedelta(days=9)
        for begun in [begins(change, day, place)]
        if begun <= now
    ]
    assert limit_at(Timetable(tuple(made), zone), now) == max(came, key=lambda one: one[:2])[2]


@given(made=changes, now=moments)
def test_the_order_in_which_it_is_written_says_nothing(made: list[Change], now: datetime) -> None:
    assert limit_at(Timetable(tuple(made)), now) == limit_at(Timetable(tuple(reversed(made))), now)


@given(made=changes, now=moments, days=st.sampled_from([7, 70, 364]))
def test_each_week_is_like_the_last(made: list[Change], now: datetime, days: int) -> None:
    later = now + timedelta(days=days)
    assert limit_at(Timetable(tuple(made)), now) == limit_at(Timetable(tuple(made)), later)


def test_every_day_is_every_day() -> None:
    assert Change(time(8), 1).weekdays == ALL_DAYS == {MON, TUE, WED, THU, FRI, SAT, SUN}
