"""When we look for something to deliver."""

import re
from datetime import UTC, datetime, time
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator

from xmode_transfer.domain.config.base import Model, did_you_mean

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
            f"{value!r} is no time zone; write an IANA name like America/New_York{_zone_meant(value)}"
        ) from None
    return value


def _time_of_day(value: object) -> time:
    if isinstance(value, time):
        return value
    if not isinstance(value, str) or re.fullmatch(_TIME_PATTERN, value) is None:
        meant = " (did you mean 00:00?)" if value == "24:00" else ""
        raise ValueError(f"{value!r} is no time of day; write it like 08:00 or 18:30{meant}")
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
        raise ValueError(f"{value!r} is no cron expression: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError(f"{value!r} names a day that never comes") from None


def _zone_meant(value: str) -> str:
    """Suggests a zone, for a city alone too."""
    wanted = value.strip().replace(" ", "_")
    zones = sorted(available_timezones())
    cities = {zone.rpartition("/")[2].casefold(): zone for zone in reversed(zones)}
    city = cities.get(wanted.casefold())
    return f" (did you mean {city}?)" if city else did_you_mean(wanted, zones)
