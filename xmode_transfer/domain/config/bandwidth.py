"""What may be sent in a second, at all times or by the time of day: for the process, and for a customer."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, TypeAdapter, field_validator

from xmode_transfer.domain.bandwidth import Change, Timetable, same_moment
from xmode_transfer.domain.config.base import ByteCount, Model
from xmode_transfer.domain.config.schedule import TimeOfDay, Timezone

_EXAMPLE = [{"from": "08:00", "limit": "10MB"}, {"from": "18:00", "limit": None}]

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
    days: tuple[Day, ...] = Field(
        default=tuple(Day), examples=[["mon", "fri"]], json_schema_extra={"minItems": 1}
    )
    """Days on which the change comes: mon tue wed thu fri sat sun. Left out: every day."""

    @field_validator("days")
    @classmethod
    def _some_days(cls, value: tuple[Day, ...]) -> tuple[Day, ...]:
        if not value:
            raise ValueError("name at least one day, or remove the key for every day")
        return value

    @property
    def change(self) -> Change:
        weekdays = frozenset(tuple(Day).index(day) for day in self.days)
        return Change(self.starts, self.limit, weekdays)


_SIZE: TypeAdapter[int] = TypeAdapter(Rate)
_CHANGES: TypeAdapter[tuple[BandwidthChange, ...]] = TypeAdapter(tuple[BandwidthChange, ...])


class BandwidthLimit(Model):
    """What may be sent in a second."""

    bandwidth_bytes_per_second: Rate | tuple[BandwidthChange, ...] | None = Field(
        default=None, examples=["50MB", _EXAMPLE]
    )
    """What is sent at most, in bytes per second or like 50MB; or a timetable, a list of
    {from: "08:00", limit: 10MB}. Left out: no limit."""
    timezone: Timezone = Field(default="UTC", examples=["Europe/Berlin"])
    """IANA name of the time zone that a timetable is read in."""

    @field_validator("bandwidth_bytes_per_second", mode="before")
    @classmethod
    def _one_way(cls, value: object) -> object:
        """The form is chosen by its shape, so that a mistake is told once and not once for each form."""
        if value is None:
            return value
        if isinstance(value, dict):
            raise ValueError('write a size, like 50MB, or a list, like [{from: "08:00", limit: 10MB}]')
        if not isinstance(value, list | tuple):
            return _SIZE.validate_python(value)
        if not value:
            raise ValueError("an empty timetable says nothing; write a change, or remove the key")
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
