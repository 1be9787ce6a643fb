"""How long delivered objects stay, and what stays whatever else is said."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from xmode_transfer.config.base import ByteCount, Model, check_slug
from xmode_transfer.model.periods import period_labelled

_PERCENT = re.compile(r"([0-9]{1,3})\s*%")


class By(StrEnum):
    """What dates a delivery."""

    PERIOD = "period"  # the end of the period that it covers
    DELIVERY = "delivery"  # when it arrived


class Policy(Model):
    """What stays. ``days`` and ``max_bytes`` are limits: what is past either goes. ``keep_last`` stays
    whatever they say; alone, it is the limit too."""

    days: int | None = Field(default=None, ge=1, le=36_500, examples=[30])
    """Days that deliveries stay."""
    keep_last: int | None = Field(default=None, ge=1, examples=[7])
    """How many of the newest periods of each feed stay, whatever days and max_bytes say; alone: only they."""
    max_bytes: ByteCount | None = Field(default=None, ge=1, examples=["500GB"])
    """Bytes that the delivered objects may take together, or like 500GB: the oldest go first."""
    by: By = By.PERIOD
    """What age and order go by: period (the end of what a delivery covers) or delivery (when it arrived)."""

    @property
    def is_empty(self) -> bool:
        return self.days is None and self.keep_last is None and self.max_bytes is None


class FeedPolicy(Policy):
    """The policy of one feed. It takes the place of the customer's: nothing of that is mixed in."""

    @model_validator(mode="after")
    def _says_something(self) -> "FeedPolicy":
        if self.is_empty:
            raise ValueError("give at least one of days, keep_last and max_bytes; to keep a feed, hold it")
        return self


def _fraction(value: object) -> object:
    """0.5 from 50%; other forms pass to pydantic."""
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
    """What one cleanup removes at most unless a person confirms it."""

    max_objects: int | None = Field(default=None, ge=1, examples=[100_000])
    """Objects that one cleanup removes at most. Left out: no such cap."""
    max_fraction: Fraction = Field(default=0.5, gt=0, le=1, examples=["50%"])
    """The part of the customer's delivered objects that one cleanup removes at most: 0.5 or 50%."""


class Retention(Policy):
    """How long delivered objects stay. Left out as a whole, they stay for good."""

    feeds: dict[str, FeedPolicy] = Field(default={}, examples=[{"us-daily": {"keep_last": 7}}])
    """Policies of single feeds, in place of the one above."""
    caps: Caps = Caps()
    """What one cleanup removes at most without --confirm."""

    @model_validator(mode="after")
    def _says_something(self) -> "Retention":
        if self.is_empty and not self.feeds:
            raise ValueError(
                "give at least one of days, keep_last and max_bytes, or leave retention out to keep all"
            )
        return self

    def policy_of(self, feed: str) -> Policy | None:
        """What holds for a feed; None: it stays for good."""
        own = self.feeds.get(feed)
        if own is not None:
            return own
        return None if self.is_empty else self


def parse_hold(value: object) -> object:
    """One form for ``true`` and for a list, so that a mistake is reported once, not once for each form."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "yes", "on"):
            return True
        if word in ("false", "no", "off"):
            return False
        raise ValueError(f"write true, or a list (did you mean [{value}]?)")
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("write true, or a list like [us-daily, us-daily/2026-11-22]")
    if not value:
        raise ValueError("an empty list holds nothing; write true, name what is held, or remove the key")
    for item in value:
        _check_held(item)
    return tuple(value)


def _check_held(item: str) -> None:
    feed, slash, period = item.partition("/")
    check_slug(feed)
    if slash and period_labelled(period) is None:
        raise ValueError(f"{item!r}: {period!r} is no period; write it like {feed}/2026-11-22")


Hold = Annotated[
    bool | tuple[str, ...],
    BeforeValidator(parse_hold),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
"""What is held: everything, or feeds and periods by name (``us-daily``, ``us-daily/2026-11-22``)."""


def held_by(hold: bool | tuple[str, ...], feed: str, period: str) -> str | None:
    """What of a hold a period falls under, as it is written; None when it is free."""
    if isinstance(hold, bool):
        return "true" if hold else None
    return next((item for item in (feed, f"{feed}/{period}") if item in hold), None)
