"""Until when a period is to be delivered, so that it is not late."""

from pydantic import Field, field_validator

from xmode_transfer.domain.config.bandwidth import Day
from xmode_transfer.domain.config.base import Model


class Freshness(Model):
    """When a delivery counts as late."""

    within_hours: float | None = Field(default=None, gt=0, le=8784, examples=[6])
    """Hours after a period's end by which it is delivered. Left out: 3 for a feed by the hour, 24 by the day,
    72 by the week, 120 by the month, 24 for a drop folder, and one hour after the schedule's next time."""


class FeedFreshness(Freshness):
    """When a delivery of a feed counts as late, and which periods come at all."""

    days: tuple[Day, ...] = Field(
        default=tuple(Day), examples=[["mon", "tue", "wed", "thu", "fri"]], json_schema_extra={"minItems": 1}
    )
    """Days whose periods are expected at the source, of a feed by the hour or the day. Left out: every
    day."""

    @field_validator("days")
    @classmethod
    def _some_days(cls, value: tuple[Day, ...]) -> tuple[Day, ...]:
        if not value:
            raise ValueError("name at least one day, or remove the key for every day")
        return value
