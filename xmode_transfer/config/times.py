"""When a customer is due, what to catch up, and when a delivery is late. A schedule only starts a scan; the
ledger and the source decide what is due. A missed time or a clock that jumps loses and repeats nothing."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from cronsim import CronSim

from xmode_transfer.config import CatchUp, Customer, Feed, Schedule
from xmode_transfer.config.schedule import weekdays
from xmode_transfer.model.periods import Period, PeriodKind

OUTAGE = timedelta(minutes=10)  # a shorter gap between two ticks is a restart
HOUSEKEEPING_SPREAD_SECONDS = 3600  # of the cleanups and access checks of all customers

_SECOND = timedelta(seconds=1)


class Work(StrEnum):
    DELIVER = "deliver"
    CLEANUP = "cleanup"
    CHECK_ACCESS = "check_access"
    RECALL = "recall"


@dataclass(frozen=True, slots=True)
class Times:
    """The times (UTC) of a schedule, all moved by ``shift``. As in Debian's cron, a local time that the
    clocks skip comes right after the gap, and a fixed time in a repeated hour comes once."""

    cron: str
    timezone: str = "UTC"
    shift: timedelta = timedelta()

    def next(self, after: datetime) -> datetime:
        found = next(CronSim(self.cron, self._local(after - self.shift)))
        return found.astimezone(UTC) + self.shift

    def last(self, now: datetime) -> datetime:
        """Return the last time until ``now``."""
        # In reverse, cronsim starts before the given second, and in a repeated half hour (Lord Howe) it finds
        # times that it does not find forward. Forward counts.
        for found in CronSim(self.cron, self._local(now - self.shift + _SECOND), reverse=True):
            moment: datetime = found.astimezone(UTC)
            if next(CronSim(self.cron, self._local(moment - _SECOND))).astimezone(UTC) == moment:
                return moment + self.shift
        raise AssertionError("a schedule that never comes is refused by the configuration")

    def _local(self, moment: datetime) -> datetime:
        # A time is reached when its second begins.
        whole = moment.astimezone(UTC).replace(microsecond=0)
        return whole if self.timezone == "UTC" else whole.astimezone(ZoneInfo(self.timezone))


def times_of(schedule: Schedule, customer: str, spread_seconds: int) -> Times:
    """Return the customer's times, with a constant offset within ``spread_seconds``."""
    shift = 0
    if spread_seconds > 0:
        name = f"{customer}\n{schedule.cron}\n{schedule.timezone}".encode()
        shift = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % spread_seconds
    return Times(schedule.cron, schedule.timezone, timedelta(seconds=shift))


def due_at(times: Times, served_at: datetime | None, now: datetime) -> datetime | None:
    """Return the time of the schedule that is due at ``now``, if any. ``served_at`` is the last one served;
    in the future, it was recorded by a wrong clock and does not count."""
    last = times.last(now)
    return last if served_at is None or served_at < last or served_at > now else None


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without a running daemon."""

    began_at: datetime
    ended_at: datetime


def outage(ticked_at: datetime | None, now: datetime) -> Outage | None:
    """Return the outage that ends now, if any; ``ticked_at`` is the last tick of the ledger's daemons."""
    if ticked_at is None or now - ticked_at <= OUTAGE:
        return None
    return Outage(ticked_at, now)


def was_missed(times: Times | None, gap: Outage) -> bool:
    """Return whether a time of the customer was in the outage. Without a schedule, every tick counts."""
    return times is None or times.last(gap.ended_at) > gap.began_at


def periods_to_skip(catch_up: CatchUp, due: Sequence[Period], begun: Collection[Period]) -> list[Period]:
    """Return the due periods that are not caught up after an outage in which the customer missed a time.
    Planned deliveries of ``begun`` periods are always finished. A drop folder skips nothing."""
    if catch_up is CatchUp.ALL:
        return []
    periods = sorted(period for period in due if period.kind is not PeriodKind.NONE)
    if catch_up is CatchUp.LATEST:
        periods = periods[:-1]
    return [period for period in periods if period not in begun]


# From a period's end until it is late: time for the producer to finish it, and for two scans.
DEFAULT_HOURS = {
    PeriodKind.HOUR: 3,
    PeriodKind.DAY: 24,
    PeriodKind.WEEK: 72,
    PeriodKind.MONTH: 120,
    PeriodKind.NONE: 24,
}
AFTER_SCHEDULE = timedelta(hours=1)  # in which we scan once more and deliver


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When the periods of a subscription are late: ``within`` after their end, and with a ``schedule``, an
    hour after its next time. Periods that begin on other ``weekdays`` (0 is Monday) are not expected."""

    kind: PeriodKind
    within: timedelta
    schedule: tuple[str, str] | None = None  # cron and time zone
    weekdays: frozenset[int] = frozenset(range(7))

    def of(self, period: Period) -> datetime:
        """Return the time after which the period is late. Not for a drop folder."""
        return self.allowance(period.end.replace(tzinfo=UTC))

    def allowance(self, begins_at: datetime) -> datetime:
        deadline = begins_at + self.within
        if self.schedule is None:
            return deadline
        return Times(*self.schedule).next(deadline - _SECOND) + AFTER_SCHEDULE

    def expects(self, period: Period) -> bool:
        return period.kind is PeriodKind.NONE or period.start.weekday() in self.weekdays

    def newest_expected(self, now: datetime) -> Period | None:
        """Return the newest period whose deadline has passed; None for a drop folder."""
        if self.kind is PeriodKind.NONE:
            return None
        scanned_at = now
        if self.schedule is not None:
            scanned_at = Times(*self.schedule).last(now - AFTER_SCHEDULE)
        period = Period.around(scanned_at - self.within, self.kind).step(-1)
        while not self.expects(period):
            period = period.step(-1)
        return period

    def next_expected(self, period: Period) -> Period:
        """Return the first expected period after that one."""
        following = period.step(1)
        while not self.expects(following):
            following = following.step(1)
        return following


def deadlines_of(customer: Customer | None, feed: Feed) -> Deadlines:
    """Return the deadlines of a subscription, or of the feed itself. The customer's setting overrides the
    feed's."""
    hours = (customer and customer.freshness.within_hours) or feed.freshness.within_hours
    days = weekdays(feed.freshness.days)
    if hours is not None:
        return Deadlines(feed.period, timedelta(seconds=round(hours * 3600)), None, days)
    schedule = (
        (customer.schedule.cron, customer.schedule.timezone) if customer and customer.schedule else None
    )
    return Deadlines(feed.period, timedelta(hours=DEFAULT_HOURS[feed.period]), schedule, days)
