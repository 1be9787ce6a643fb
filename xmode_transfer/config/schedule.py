"""Settings that depend on the time."""

import re
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from operator import itemgetter
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, WithJsonSchema, field_validator

from xmode_transfer.config.base import ByteCount, Model, did_you_mean

_DAYS_BACK = 7  # the last change of a week with only one
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
TimeOfDay = Annotated[
    time, BeforeValidator(_time_of_day), WithJsonSchema({"type": "string", "pattern": _TIME_PATTERN})
]


@cache  # thousands of customers share a few expressions
def _check_cron(value: str) -> str:
    if value.startswith("@"):
        meant = _CRON_NAMES.get(value.lower())
        suggestion = f" (did you mean {meant}?)" if meant else ""
        raise ValueError(f"write five fields, like 30 6 * * *{suggestion}")
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
    return value


class Schedule(Model):
    cron: Annotated[str, AfterValidator(_check_cron)] = Field(examples=["30 6 * * *"])
    """Five fields as in crontab: minute, hour, day of month, month, day of week (0 and 7 are Sunday)."""
    timezone: Timezone = Field(default="UTC", examples=["America/New_York"])
    """IANA name of cron's time zone."""


def _zone_meant(value: str) -> str:
    wanted = value.strip().replace(" ", "_")
    zones = sorted(available_timezones())
    cities = {zone.rpartition("/")[2].casefold(): zone for zone in reversed(zones)}
    city = cities.get(wanted.casefold())
    return f" (did you mean {city}?)" if city else did_you_mean(wanted, zones)


Rate = Annotated[ByteCount, Field(ge=1)]


class Day(StrEnum):
    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


@cache
def weekdays(days: tuple[Day, ...]) -> frozenset[int]:
    """Return the numbers of the days; 0 is Monday."""
    return frozenset(tuple(Day).index(day) for day in days)


class BandwidthChange(Model):
    """A change of the limit at a time of day, until the next change of the timetable."""

    starts: TimeOfDay = Field(alias="from", examples=["08:00"])
    """Time of day from which the limit applies, until the next change: 00:00 to 23:59."""
    limit: Rate | None = Field(examples=["10MB"])
    """Bytes per second from then on, or like 10MB; null: no limit."""
    days: tuple[Day, ...] = Field(default=tuple(Day), min_length=1, examples=[["mon", "fri"]])
    """Days of the change: mon tue wed thu fri sat sun. Default: every day."""


_SIZE: TypeAdapter[int] = TypeAdapter(Rate)
_CHANGES: TypeAdapter[tuple[BandwidthChange, ...]] = TypeAdapter(tuple[BandwidthChange, ...])


class BandwidthLimit(Model):
    """A limit on bandwidth: one for all times, or a timetable that repeats each week."""

    bandwidth_bytes_per_second: Rate | tuple[BandwidthChange, ...] | None = Field(
        default=None,
        examples=["50MB", [{"from": "08:00", "limit": "10MB"}, {"from": "18:00", "limit": None}]],
    )
    """Most bytes per second, or like 50MB; or a timetable, a list of {from: "08:00", limit: 10MB}. Default:
    no limit."""
    timezone: Timezone = Field(default="UTC", examples=["Europe/Berlin"])
    """IANA name of the timetable's time zone."""

    @field_validator("bandwidth_bytes_per_second", mode="before")
    @classmethod
    def _one_form(cls, value: object) -> object:
        # Chosen by its shape, so that pydantic reports a mistake once, not for each form.
        if value is None:
            return value
        if isinstance(value, dict):
            raise ValueError('write a size, like 50MB, or a list, like [{from: "08:00", limit: 10MB}]')
        if not isinstance(value, list | tuple):
            return _SIZE.validate_python(value)
        if not value:
            raise ValueError("the timetable is empty; write a change, or remove the key")
        changes = _CHANGES.validate_python(value)
        moments = Counter((change.starts, day) for change in changes for day in {*change.days})
        (starts, _), count = max(moments.items(), key=itemgetter(1))
        if count > 1:
            raise ValueError(f"two changes come at {starts:%H:%M} of the same day; only one of them can hold")
        return changes

    @property
    def is_limited(self) -> bool:
        limit = self.bandwidth_bytes_per_second
        return any(change.limit for change in limit) if isinstance(limit, tuple) else limit is not None

    def limit_at(self, now: datetime) -> int | None:
        """Return the bytes per second, or None. After the clocks are set back, the limit at the end of the
        repeated hour still applies; a change that they skip comes when they are set forward."""
        changes = self.bandwidth_bytes_per_second
        if not isinstance(changes, tuple):
            return changes
        zone = ZoneInfo(self.timezone)
        local = now.astimezone(zone)
        # Tomorrow too: clocks that are set back shortly after midnight show yesterday's date again.
        for days in range(-1, _DAYS_BACK + 1):
            day = local.date() - timedelta(days=days)
            past = [
                change
                for change in changes
                if day.weekday() in weekdays(change.days) and _is_past(day, change.starts, local, zone)
            ]
            if past:
                return max(past, key=lambda change: change.starts).limit
        raise AssertionError("each change comes once in a week")


def _is_past(day: date, at: time, local: datetime, zone: ZoneInfo) -> bool:
    wall = datetime.combine(day, at)
    if wall <= local.replace(tzinfo=None, fold=0):
        return True
    # The wall clock shows an earlier time, but it may have been set back since. fold=0 is the first of two
    # equal times.
    return wall.replace(tzinfo=zone).astimezone(UTC) <= local.astimezone(UTC)


class Freshness(Model):
    within_hours: float | None = Field(default=None, gt=0, le=8784, examples=[6])
    """Hours after a period's end until its delivery is late. Default: 3 for a feed by the hour, 24 by the
    day, 72 by the week, 120 by the month, 24 for a drop folder, and one hour after the schedule's next
    time."""


class FeedFreshness(Freshness):
    """When a delivery of a feed counts as late, and which periods are expected."""

    days: tuple[Day, ...] = Field(
        default=tuple(Day), min_length=1, examples=[["mon", "tue", "wed", "thu", "fri"]]
    )
    """Days with expected periods, for a feed by the hour or the day. Default: every day."""
