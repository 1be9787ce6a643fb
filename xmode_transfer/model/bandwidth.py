"""How much may be sent at what time of day."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

_DAYS_BACK = 7  # the last change of a week that has only one
ALL_DAYS = frozenset(range(7))


class Change(NamedTuple):
    """From a time of day on, at most ``limit`` bytes per second, or without limit (None), until the next
    change. ``weekdays`` are those on which it comes: 0 is Monday."""

    at: time
    limit: int | None
    weekdays: frozenset[int] = ALL_DAYS


@dataclass(frozen=True, slots=True)
class Timetable:
    """The changes of a week, which begins anew when it is over. One limit for all times is a single change;
    without any there is no limit. The times are those of the clocks on the wall in ``timezone`` (IANA)."""

    changes: tuple[Change, ...] = ()
    timezone: str = "UTC"

    @staticmethod
    def always(limit: int | None) -> "Timetable":
        return Timetable() if limit is None else Timetable((Change(time(0), limit),))

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at any time."""
        return any(change.limit is not None for change in self.changes)

    @property
    def is_constant(self) -> bool:
        """Whether the limit is the same at all times."""
        return len({change.limit for change in self.changes}) <= 1


def limit_at(timetable: Timetable, now: datetime) -> int | None:
    """Bytes per second that may be sent at ``now`` (aware); None: without limit.

    A change that has come stays: when the clocks are set back and the hour comes again, what held at its end
    goes on. A change at a time that the clocks leave out comes when they are set forward.
    """
    if timetable.is_constant:
        return timetable.changes[0].limit if timetable.changes else None
    zone = ZoneInfo(timetable.timezone)
    local = now.astimezone(zone)
    # Tomorrow too: clocks that are set back shortly after midnight show yesterday's date again.
    for days in range(-1, _DAYS_BACK + 1):
        day = local.date() - timedelta(days=days)
        come = [change for change in _of_day(timetable, day) if _has_come(day, change.at, local, zone)]
        if come:
            return max(come, key=lambda change: change.at).limit
    raise AssertionError("each change comes once in a week")


def same_moment(changes: Iterable[Change]) -> tuple[Change, Change] | None:
    """Two changes that come at the same moment of the week, so that nobody could say which holds; None when
    there are none."""
    seen: dict[tuple[int, time], Change] = {}
    for change in changes:
        for weekday in sorted(change.weekdays):
            other = seen.setdefault((weekday, change.at), change)
            if other is not change:
                return other, change
    return None


def _of_day(timetable: Timetable, day: date) -> list[Change]:
    weekday = day.weekday()
    return [change for change in timetable.changes if weekday in change.weekdays]


def _has_come(day: date, at: time, local: datetime, zone: ZoneInfo) -> bool:
    wall = datetime.combine(day, at)
    if wall <= local.replace(tzinfo=None, fold=0):
        return True
    # Later by the clocks on the wall, but if they were set back, it came before that. fold=0 is the first of
    # the two times that are called the same.
    return wall.replace(tzinfo=zone).astimezone(UTC) <= local.astimezone(UTC)
