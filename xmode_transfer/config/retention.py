"""How long delivered objects stay."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from xmode_transfer.config.base import ByteCount, Model

_PERCENT = re.compile(r"([0-9]{1,3})\s*%")


class By(StrEnum):
    """The date of a delivery, for its age and order."""

    PERIOD = "period"  # the end of its period
    DELIVERY = "delivery"  # when it was delivered


class Policy(Model):
    """Which deliveries stay. Those past ``days`` or ``max_bytes`` expire, except for ``keep_last``; alone,
    ``keep_last`` is the limit."""

    days: int | None = Field(default=None, ge=1, le=36_500, examples=[30])
    """Days that deliveries stay."""
    keep_last: int | None = Field(default=None, ge=1, examples=[7])
    """Newest periods of each feed that always stay, despite days and max_bytes; alone: only these stay."""
    max_bytes: ByteCount | None = Field(default=None, ge=1, examples=["500GB"])
    """Total bytes of delivered objects, or like 500GB: the oldest expire first."""
    by: By = By.PERIOD
    """Age and order of deliveries: by period (its end) or by delivery (when it was delivered)."""

    @property
    def is_empty(self) -> bool:
        return self.days is None and self.keep_last is None and self.max_bytes is None


class FeedPolicy(Policy):
    """The policy of one feed, which replaces the customer's completely."""

    @model_validator(mode="after")
    def _says_something(self) -> "FeedPolicy":
        if self.is_empty:
            raise ValueError("give at least one of days, keep_last and max_bytes; to keep a feed, hold it")
        return self


def _fraction(value: object) -> object:
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip())):
        return int(match[1]) / 100
    return value


Fraction = Annotated[
    float,
    BeforeValidator(_fraction),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^[0-9]{1,3}\s*%$"},
            ]
        }
    ),
]


class Caps(Model):
    """Limits of one cleanup unless a person confirms it."""

    max_objects: int | None = Field(default=None, ge=1, examples=[100_000])
    """Most objects that one cleanup deletes. Default: no cap."""
    max_fraction: Fraction = Field(default=0.5, gt=0, le=1, examples=["50%"])
    """Largest fraction of the customer's delivered objects that one cleanup deletes: 0.5 or 50%."""


class Retention(Policy):
    """How long delivered objects stay; without it, forever."""

    feeds: dict[str, FeedPolicy] = Field(default={}, examples=[{"us-daily": {"keep_last": 7}}])
    """Policies of single feeds, which replace the one above."""
    caps: Caps = Caps()
    """Limits of one cleanup without --confirm."""

    @model_validator(mode="after")
    def _says_something(self) -> "Retention":
        if self.is_empty and not self.feeds:
            raise ValueError(
                "give at least one of days, keep_last and max_bytes, or leave retention out to keep all"
            )
        return self

    def policy_of(self, feed: str) -> Policy | None:
        """Return the policy of a feed; None if its deliveries stay forever."""
        return self.feeds.get(feed) or (None if self.is_empty else self)
