"""When something is looked at, and what an outage leaves undone.

Work is keyed by period: a time of a schedule only says "look now". What is due then, the ledger and the
source decide (delivery/due.py). So a missed time, a restart, a clock that jumps or a change of daylight
saving time loses nothing and repeats nothing; at worst something is looked at once more, and there is nothing
to do.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from xmode_transfer.config import CatchUp, Customer, Day, Feed, Schedule
from xmode_transfer.model.periods import Period, PeriodKind

OUTAGE = timedelta(minutes=10)
"""A gap between two ticks that is no longer than this is a restart, not an outage."""
HOUSEKEEPING_SPREAD_SECONDS = 3600
"""Cleanups and access checks of all customers begin within this time."""

_SECOND = timedelta(seconds=1)


class Work(StrEnum):
    """What a customer is visited for; each has a schedule of its own."""

    DELIVER = "deliver"
    CLEANUP = "cleanup"
    CHECK_ACCESS = "check_access"


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a schedule, each moved by the same ``shift``.

    They follow Debian's cron: a local time that the clocks skip comes right after the gap, a fixed time in a
    repeated hour comes once. All times that go in and come out are aware; what comes out is UTC.
    """

    cron: str
    timezone: str = "UTC"
    shift: timedelta = timedelta()

    def next(self, after: datetime) -> datetime:
        """The first time later than ``after``."""
        found = next(CronSim(self.cron, self._local(after - self.shift)))
        return found.astimezone(UTC) + self.shift

    def last(self, now: datetime) -> datetime:
        """The last time that is not later than ``now``."""
        # Going back, cronsim begins before the given second, and in a repeated half hour (Lord Howe) it finds
        # times that it does not find going forward. What counts is forward.
        for found in CronSim(self.cron, self._local(now - self.shift + _SECOND), reverse=True):
            moment: datetime = found.astimezone(UTC)
            if next(CronSim(self.cron, self._local(moment - _SECOND))).astimezone(UTC) == moment:
                return moment + self.shift
        raise AssertionError("a schedule that never comes is refused by the configuration")

    def _local(self, moment: datetime) -> datetime:
        # Without the fraction of a second: a time is reached when its second begins.
        whole = moment.astimezone(UTC).replace(microsecond=0)
        return whole if self.timezone == "UTC" else whole.astimezone(ZoneInfo(self.timezone))


def times_of(schedule: Schedule, customer: str, spread_seconds: int) -> Times:
    """The customer's own times. ``spread_seconds`` is how far customers with the same schedule are pulled
    apart, so that they do not all begin in one moment: each always by the same number of seconds, whatever
    the machine and the version, by a hash of its name and the schedule."""
    shift = 0
    if spread_seconds > 0:
        name = f"{customer}\n{schedule.cron}\n{schedule.timezone}".encode()
        shift = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % spread_seconds
    return Times(schedule.cron, schedule.timezone, timedelta(seconds=shift))


def due_at(times: Times, served_at: datetime | None, now: datetime) -> datetime | None:
    """The time for which the customer is to be visited now, if it is. ``served_at`` is the time of the
    schedule that was served last. One that lies in the future was noted while the clock was wrong: it counts
    for nothing, so that nobody waits until the clock has come there again."""
    last = times.last(now)
    return last if served_at is None or served_at < last or served_at > now else None


# --- After an outage -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which no daemon looked."""

    began_at: datetime
    ended_at: datetime


def outage(ticked_at: datetime | None, now: datetime) -> Outage | None:
    """The outage that ends now, if there was one. ``ticked_at`` is the last tick of any daemon of this
    ledger; without one there never was a daemon, and what was there before it is no outage."""
    if ticked_at is None or now - ticked_at <= OUTAGE:
        return None
    return Outage(ticked_at, now)


def was_missed(times: Times | None, gap: Outage) -> bool:
    """Whether a time of the customer's fell into the outage. Without a schedule it would have been looked at
    at every tick."""
    return times is None or times.last(gap.ended_at) > gap.began_at


def passed_over(catch_up: CatchUp, due: Sequence[Period], begun: Collection[Period]) -> list[Period]:
    """Which of a feed's due periods are not made up for after an outage in which the customer was missed.

    ``due`` are complete at the source, inside the look-back window and not delivered; ``begun`` are those of
    which a delivery was planned already: they are always finished. A drop folder knows files, not periods:
    nothing of it is passed over.
    """
    if catch_up is CatchUp.ALL:
        return []
    periods = sorted(period for period in due if period.kind is not PeriodKind.NONE)
    if catch_up is CatchUp.LATEST:
        periods = periods[:-1]
    return [period for period in periods if period not in begun]


DEFAULT_HOURS = {
    PeriodKind.HOUR: 3,
    PeriodKind.DAY: 24,
    PeriodKind.WEEK: 72,
    PeriodKind.MONTH: 120,
    PeriodKind.NONE: 24,
}
"""Hours after a period's end by which it is delivered where nobody says otherwise: time for the producer to
finish it, and for us to look twice."""
AFTER_SCHEDULE = timedelta(hours=1)
"""What a customer's own schedule adds: we look once more at its next time, and deliver within this."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When the periods of one subscription are late: ``within`` after their end, and where there is a
    ``schedule``, an hour after its next time then. Periods that begin on other ``weekdays`` (0 is Monday) are
    not expected."""

    kind: PeriodKind
    within: timedelta
    schedule: tuple[str, str] | None = None  # cron and time zone
    weekdays: frozenset[int] = frozenset(range(7))

    def of(self, period: Period) -> datetime:
        """The moment after which the period is late, UTC-aware. Not for a drop folder."""
        return self.allowance(period.end.replace(tzinfo=UTC))

    def allowance(self, begins_at: datetime) -> datetime:
        """Until when something is to be delivered that could be from that moment on."""
        deadline = begins_at + self.within
        if self.schedule is None:
            return deadline
        return Times(*self.schedule).next(deadline - _SECOND) + AFTER_SCHEDULE

    def expects(self, period: Period) -> bool:
        return period.kind is PeriodKind.NONE or period.start.weekday() in self.weekdays

    def newest_expected(self, now: datetime) -> Period | None:
        """The newest period whose deadline has passed; None for a drop folder, of which nothing is
        expected."""
        if self.kind is PeriodKind.NONE:
            return None
        looked_at = now
        if self.schedule is not None:
            looked_at = Times(*self.schedule).last(now - AFTER_SCHEDULE)
        period = Period.around(looked_at - self.within, self.kind).step(-1)
        while not self.expects(period):
            period = period.step(-1)
        return period

    def next_expected(self, period: Period) -> Period:
        """The first expected period after that one."""
        following = period.step(1)
        while not self.expects(following):
            following = following.step(1)
        return following


def deadlines_of(customer: Customer, feed: Feed) -> Deadlines:
    """The customer's own word counts before the feed's, and that before the default."""
    said = customer.freshness.within_hours or feed.freshness.within_hours
    weekdays = _weekdays(feed.freshness.days)
    if said is not None:
        return Deadlines(feed.period, timedelta(seconds=round(said * 3600)), None, weekdays)
    schedule = (customer.schedule.cron, customer.schedule.timezone) if customer.schedule else None
    return Deadlines(feed.period, timedelta(hours=DEFAULT_HOURS[feed.period]), schedule, weekdays)


@cache
def _weekdays(days: tuple[Day, ...]) -> frozenset[int]:
    return frozenset(tuple(Day).index(day) for day in days)
