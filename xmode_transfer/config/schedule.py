"""What goes by the time of day or the day: schedules, limits of bandwidth, and when a delivery is late."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, WithJsonSchema, field_validator

from xmode_transfer.config.base import ByteCount, Model, did_you_mean

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


_TIME_PATTERN = r"^([01]?[0-9]|2[0-3]):[0-5][0-9]$"
_CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@cache
def _check_timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{value!r} is not a time zone; write an IANA name like America/New_York{_zone_meant(value)}"
        ) from None
    return value


def _time_of_day(value: object) -> time:
    if isinstance(value, time):
        return value
    if not isinstance(value, str) or re.fullmatch(_TIME_PATTERN, value) is None:
        meant = " (did you mean 00:00?)" if value == "24:00" else ""
        raise ValueError(f"{value!r} is not a time of day; write it like 08:00 or 18:30{meant}")
    hour, minute = value.split(":")
    return time(int(hour), int(minute))


Timezone = Annotated[str, AfterValidator(_check_timezone)]
"""An IANA name."""
TimeOfDay = Annotated[
    time, BeforeValidator(_time_of_day), WithJsonSchema({"type": "string", "pattern": _TIME_PATTERN})
]


class Schedule(Model):
    """When we look for something to deliver. What is delivered, the ledger decides."""

    cron: str = Field(examples=["30 6 * * *"])
    """Five fields as in crontab: minute, hour, day of month, month, day of week (0 and 7 are Sunday)."""
    timezone: Timezone = Field(default="UTC", examples=["America/New_York"])
    """IANA name of the time zone that cron is read in."""

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        _check_cron(value)
        return value


@cache
def _check_cron(value: str) -> None:
    """Cached because thousands of customers share a few expressions."""
    if value.startswith("@"):
        meant = _CRON_NAMES.get(value.lower())
        raise ValueError(
            "write five fields, like 30 6 * * *" + (f" (did you mean {meant}?)" if meant else "")
        )
    count = len(value.split())
    if count != 5:
        raise ValueError(
            "cron has five fields (minute, hour, day of month, month, day of week), like 30 6 * * *; "
            f"this has {count}"
        )
    try:
        next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"{value!r} is not a cron expression: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError(f"{value!r} has no matching day") from None


def _zone_meant(value: str) -> str:
    """Suggests a zone, for a city alone too."""
    wanted = value.strip().replace(" ", "_")
    zones = sorted(available_timezones())
    cities = {zone.rpartition("/")[2].casefold(): zone for zone in reversed(zones)}
    city = cities.get(wanted.casefold())
    return f" (did you mean {city}?)" if city else did_you_mean(wanted, zones)


# --- Bandwidth

_TIMETABLE_EXAMPLE = [{"from": "08:00", "limit": "10MB"}, {"from": "18:00", "limit": None}]

Rate = Annotated[ByteCount, Field(ge=1)]


class Day(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class BandwidthChange(Model):
    """From a time of day on, a limit, until the next change of the timetable."""

    starts: TimeOfDay = Field(alias="from", examples=["08:00"])
    """Time of day from which the limit holds, until the next change: 00:00 to 23:59."""
    limit: Rate | None = Field(examples=["10MB"])
    """Bytes per second from then on, or like 10MB; null: no limit."""
    days: tuple[Day, ...] = Field(default=tuple(Day), min_length=1, examples=[["mon", "fri"]])
    """Days on which the change comes: mon tue wed thu fri sat sun. Left out: every day."""

    @property
    def change(self) -> Change:
        weekdays = frozenset(tuple(Day).index(day) for day in self.days)
        return Change(self.starts, self.limit, weekdays)


_SIZE: TypeAdapter[int] = TypeAdapter(Rate)
_CHANGES: TypeAdapter[tuple[BandwidthChange, ...]] = TypeAdapter(tuple[BandwidthChange, ...])


class BandwidthLimit(Model):
    """What may be sent in a second."""

    bandwidth_bytes_per_second: Rate | tuple[BandwidthChange, ...] | None = Field(
        default=None, examples=["50MB", _TIMETABLE_EXAMPLE]
    )
    """What is sent at most, in bytes per second or like 50MB; or a timetable, a list of
    {from: "08:00", limit: 10MB}. Left out: no limit."""
    timezone: Timezone = Field(default="UTC", examples=["Europe/Berlin"])
    """IANA name of the time zone that a timetable is read in."""

    @field_validator("bandwidth_bytes_per_second", mode="before")
    @classmethod
    def _one_way(cls, value: object) -> object:
        """The form is chosen by its shape, so that a mistake is reported once, not once for each form."""
        if value is None:
            return value
        if isinstance(value, dict):
            raise ValueError('write a size, like 50MB, or a list, like [{from: "08:00", limit: 10MB}]')
        if not isinstance(value, list | tuple):
            return _SIZE.validate_python(value)
        if not value:
            raise ValueError("the timetable is empty; write a change, or remove the key")
        changes = _CHANGES.validate_python(value)
        if twice := same_moment(change.change for change in changes):
            raise ValueError(
                f"two changes come at {twice[0].at:%H:%M} of the same day; only one of them can hold"
            )
        return changes

    @property
    def bandwidth(self) -> Timetable:
        """The limit by the time of day."""
        said = self.bandwidth_bytes_per_second
        if said is None or isinstance(said, int):
            return Timetable.always(said)
        return Timetable(tuple(change.change for change in said), self.timezone)


# --- Freshness


class Freshness(Model):
    """When a delivery counts as late."""

    within_hours: float | None = Field(default=None, gt=0, le=8784, examples=[6])
    """Hours after a period's end by which it is delivered. Left out: 3 for a feed by the hour, 24 by the day,
    72 by the week, 120 by the month, 24 for a drop folder, and one hour after the schedule's next time."""


class FeedFreshness(Freshness):
    """When a delivery of a feed counts as late, and which periods come at all."""

    days: tuple[Day, ...] = Field(
        default=tuple(Day), min_length=1, examples=[["mon", "tue", "wed", "thu", "fri"]]
    )
    """Days whose periods are expected at the source, of a feed by the hour or the day. Left out: every
    day."""
