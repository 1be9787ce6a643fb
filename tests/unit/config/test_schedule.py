"""When something is looked at: by the wall clock of six zones, over years, whatever stops in between."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.forms import IS_SOAK
from xmode_transfer.config import CatchUp, Schedule
from xmode_transfer.config.times import (
    OUTAGE,
    Outage,
    Times,
    due_at,
    outage,
    periods_to_skip,
    times_of,
    was_missed,
)
from xmode_transfer.model.periods import Period, PeriodKind, look_back_start

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "UTC",
)
CRONS = ("30 6 * * *", "0 0 * * *", "30 2 * * *", "30 * * * *", "*/20 * * * *", "5 1,2,3 * * 1-5")
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def day(number: int) -> Period:
    return Period.parse(f"2026-01-{number + 1:02}", PeriodKind.DAY)


# --- The times of a schedule ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "after", "then"),
    [
        # the day after the clocks are set forward is not left out
        ("0 0 * * *", "Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("0 0 * * *", "America/New_York", "2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00"),
        # Monday to Friday: from Friday to Monday
        ("0 0 * * 1-5", "UTC", "2026-03-27T00:00+00:00", "2026-03-30T00:00+00:00"),
        ("0 0 * * 0", "UTC", "2026-03-27T00:00+00:00", "2026-03-29T00:00+00:00"),
        ("0 0 * * 7", "UTC", "2026-03-27T00:00+00:00", "2026-03-29T00:00+00:00"),
        # a time that the clocks skip comes right after the gap
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00+10:30", "2026-10-04T02:30+11:00"),
        # a time in a repeated hour comes once, the first time
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),
        ("0 6 29 2 *", "UTC", "2024-02-29T06:00+00:00", "2028-02-29T06:00+00:00"),
        ("30 6 * * *", "Asia/Kolkata", "2026-11-22T06:29:59+05:30", "2026-11-22T06:30+05:30"),
    ],
)
def test_the_next_time(cron: str, zone: str, after: str, then: str) -> None:
    times = Times(cron, zone)
    assert times.next(at(after)) == at(then)
    assert times.last(at(then)) == at(then)
    assert times.last(at(then) - SECOND) <= at(after)


@given(
    st.sampled_from(ZONES),
    st.sampled_from(CRONS),
    st.integers(0, 10 * 365 * 86_400).map(lambda seconds: at("2024-01-01T00:00+00:00") + seconds * SECOND),
    st.integers(0, 86_400),
)
def test_last_and_next_are_two_sides_of_one_list(zone: str, cron: str, now: datetime, shift: int) -> None:
    times = Times(cron, zone, timedelta(seconds=shift))
    last, then = times.last(now), times.next(now)
    assert last <= now < then
    assert times.next(last) == then
    assert times.last(then) == then
    assert times.last(then - SECOND) == last


def test_customers_are_spread_each_always_to_the_same_place() -> None:
    schedule = Schedule(cron="30 6 * * *", timezone="America/New_York")
    shifts = [times_of(schedule, f"customer-{n}", 60).shift.total_seconds() for n in range(3000)]
    assert times_of(schedule, "acme", 60).shift == timedelta(seconds=49)
    assert times_of(schedule, "acme", 0).shift == timedelta()
    counts = Counter(shifts)
    assert set(counts) == set(range(60))
    assert max(counts.values()) < 90  # 50 each on average


# --- Due -----------------------------------------------------------------------------------------------


def test_due_once_for_each_time() -> None:
    times = Times("30 6 * * *")
    half_past = at("2026-11-22T06:30+00:00")
    assert due_at(times, None, half_past) == half_past  # never served
    assert due_at(times, half_past, half_past + SECOND) is None
    assert due_at(times, half_past, half_past + DAY) == half_past + DAY
    assert due_at(times, half_past, half_past + 5 * DAY) == half_past + 5 * DAY  # once, not five times
    assert due_at(times, half_past + 400 * DAY, half_past) == half_past  # noted while the clock was wrong


def test_a_restart_is_no_outage_and_neither_is_a_clock_set_back() -> None:
    now = at("2026-11-22T06:30+00:00")
    assert outage(None, now) is None
    assert outage(now - OUTAGE, now) is None
    assert outage(now + DAY, now) is None
    assert outage(now - OUTAGE - SECOND, now) == Outage(now - OUTAGE - SECOND, now)


def test_who_was_missed() -> None:
    gap = Outage(at("2026-11-22T05:00+00:00"), at("2026-11-22T07:00+00:00"))
    assert was_missed(Times("30 6 * * *"), gap)
    assert was_missed(None, gap)
    assert not was_missed(Times("30 4 * * *"), gap)
    assert not was_missed(Times("0 5 * * *"), gap)  # was served before it


@pytest.mark.parametrize(
    ("catch_up", "begun", "expected"),
    [
        (CatchUp.ALL, [], []),
        (CatchUp.LATEST, [], [0, 1, 2]),
        (CatchUp.LATEST, [1], [0, 2]),  # what was begun is finished
        (CatchUp.NONE, [], [0, 1, 2, 3]),
        (CatchUp.NONE, [0, 3], [1, 2]),
    ],
)
def test_what_is_passed_over(catch_up: CatchUp, begun: list[int], expected: list[int]) -> None:
    due = [day(n) for n in (2, 0, 1, 3)]
    assert periods_to_skip(catch_up, due, {day(n) for n in begun}) == [day(n) for n in expected]
    assert periods_to_skip(catch_up, [Period.none()], ()) == []


# --- Years in six zones ----------------------------------------------------------------------------


def local_times(zone: str, hour: int, minute: int, first: date, last: date) -> Iterator[datetime]:
    """A daily time by the wall clock alone, without cron: a time in a gap comes at its end."""
    tz = ZoneInfo(zone)
    for number in range((last - first).days):
        local = datetime.combine(first + timedelta(days=number), time(hour, minute), tzinfo=tz)
        moment = local.astimezone(UTC)
        back = moment.astimezone(tz)
        if back.replace(tzinfo=None) != local.replace(tzinfo=None):  # in a gap: its end
            gap = back.utcoffset() - (moment - timedelta(hours=3)).astimezone(tz).utcoffset()  # type: ignore[operator]
            moment = next(
                m
                for minutes in range(24 * 60)
                if (m := moment - gap + timedelta(minutes=minutes)).astimezone(tz).utcoffset()
                != (moment - timedelta(hours=3)).astimezone(tz).utcoffset()
            )
        yield moment


@dataclass
class Life:
    """A daemon's life with one customer: it dies and comes back, its clock is set wrong and right again. The
    ledger (``served_at``, ``delivered``) survives."""

    zone: str
    cron: str
    random: Random
    steady: bool = False  # nothing goes wrong
    served_at: datetime | None = None
    delivered: dict[datetime, datetime] = field(default_factory=dict)
    order: list[datetime] = field(default_factory=list)
    looks: Counter[datetime] = field(default_factory=Counter)
    crashes: int = 0
    jumps: int = 0
    restarts: int = 0

    def live(self, start: datetime, end: datetime) -> None:
        shift = timedelta(seconds=self.random.randrange(60))
        times = Times(self.cron, self.zone, shift)
        self.shift = shift
        self.complete = {
            start + n * DAY: start + (n + 1) * DAY + timedelta(minutes=self.random.randrange(300))
            for n in range((end - start).days)
        }
        now, skew = start, timedelta()  # true time; how far the machine's clock is off
        waiting = sorted(self.complete)
        while now < end:
            self.tick(times, now, now + skew, waiting)
            now = max(now + SECOND, times.next(now + skew) - skew)
            if self.steady:
                continue
            chance = self.random.random()
            if chance < 0.03:  # killed or stopped; comes back after minutes to weeks
                self.restarts += 1
                now += timedelta(minutes=self.random.choice([1, 5, 90, 60 * 24 * 9]))
            elif chance < 0.05:  # the clock is set wrong, up to three days either way
                self.jumps += 1
                skew = timedelta(minutes=self.random.randrange(-4320, 4320))
            elif chance < 0.15:
                skew = timedelta()  # NTP mends it
            elif chance < 0.2:  # a tick between two times finds nothing to do
                self.tick(times, now - timedelta(minutes=1), now - timedelta(minutes=1) + skew, waiting)
        self.tick(times, end + 2 * DAY, end + 2 * DAY, waiting)

    def tick(self, times: Times, now: datetime, wall: datetime, waiting: list[datetime]) -> None:
        due = due_at(times, self.served_at, wall)
        if due is None:
            return
        self.looks[due] += 1
        oldest = look_back_start(PeriodKind.DAY, 31, wall).replace(tzinfo=UTC)
        for period in [p for p in waiting if oldest <= p and self.complete[p] <= now]:
            assert period not in self.delivered, f"{period} twice"
            self.delivered[period] = now
            self.order.append(period)
            waiting.remove(period)
            if not self.steady and self.random.random() < 0.01:
                self.crashes += 1
                return  # killed before the time is noted as served: it is looked at again
        self.served_at = due


def many_years(crons: list[str], years: int) -> list[str]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    end = start.replace(year=start.year + years)
    lines = []
    for zone in ZONES:
        for cron in crons:
            life = Life(zone, cron, Random(f"{zone} {cron}"))
            life.live(start, end)
            assert set(life.delivered) == set(life.complete), f"{zone} {cron}: lost"
            assert life.order == sorted(life.order), f"{zone} {cron}: out of order"
            lines.append(
                f"{years} years, {zone:<19} {cron:<12} {len(life.order)} periods once each, in order: "
                f"{life.restarts} restarts, {life.crashes} kills in mid-look, {life.jumps} clock jumps, "
                f"{sum(life.looks.values())} looks"
            )
    return lines


def test_years_lose_nothing_and_repeat_nothing(figures: Callable[..., None]) -> None:
    figures(*many_years(["30 6 * * *"], 3))


@pytest.mark.slow
def test_ten_years_of_more_schedules_lose_nothing_and_repeat_nothing(figures: Callable[..., None]) -> None:
    crons = ["30 6 * * *", "0 0 * * *", "30 2 * * *", "0 2 * * 1-5", "15 */6 * * *", "30 * * * *"]
    figures(*many_years(crons, 10))


@pytest.mark.short
@pytest.mark.parametrize("zone", ZONES)
def test_steady_years_look_at_each_wall_clock_time_once(zone: str) -> None:
    start = datetime(2026, 1, 2, tzinfo=UTC)
    life = Life(zone, "30 2 * * *", Random(1), steady=True)
    life.live(start, start + (10 if IS_SOAK else 3) * 365 * DAY)
    looked = sorted(moment - life.shift for moment in life.looks)[2:-2]
    expected = [
        moment
        for moment in local_times(zone, 2, 30, date(2025, 12, 30), date(2036, 1, 10))
        if looked[0] <= moment <= looked[-1]
    ]
    assert looked == expected
    assert set(life.looks.values()) == {1}
