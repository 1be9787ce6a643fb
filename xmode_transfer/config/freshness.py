"""Until when each period is to be delivered, and which one should have been by now."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from xmode_transfer.config import Customer, Day, Feed
from xmode_transfer.config.times import Times
from xmode_transfer.model.periods import Period, PeriodKind

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

_SECOND = timedelta(seconds=1)


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
