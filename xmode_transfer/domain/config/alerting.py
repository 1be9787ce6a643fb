"""Whom alerts are sent to, and when."""

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from xmode_transfer.domain.config.base import SLUG_PATTERN, Model, check_slug
from xmode_transfer.domain.config.schedule import TimeOfDay, Timezone
from xmode_transfer.domain.config.secret import Secret
from xmode_transfer.domain.errors import Party


class Channel(Model):
    """One way to tell somebody: a webhook of ours, or an address that Apprise knows."""

    name: Annotated[str, AfterValidator(check_slug), Field(json_schema_extra={"pattern": SLUG_PATTERN})] = (
        Field(examples=["on-call"])
    )
    """A name for it, as `alerts test --channel` and the log say it."""
    webhook: Secret | None = Field(default=None, examples=["env:ALERT_WEBHOOK"])
    """Where its URL is kept; each message is one POST of JSON (docs/alerts.md)."""
    token: Secret | None = Field(default=None, examples=["file:/run/secrets/webhook-token"])
    """Where the webhook's bearer token is kept. Left out: none is sent."""
    apprise: Secret | None = Field(default=None, examples=["file:/run/secrets/slack-url"])
    """Where an Apprise URL is kept: Slack, PagerDuty, e-mail, SNS and many more. Needs the extra `alerts`."""
    parties: tuple[Party, ...] = Field(
        default=tuple(Party), examples=[["us", "aws"]], json_schema_extra={"minItems": 1}
    )
    """Who must act in the alerts that it gets: us, customer, aws. Left out: all."""
    only_urgent: bool = False
    """Whether it gets only what cannot wait, such as a pager."""

    @field_validator("parties")
    @classmethod
    def _some_parties(cls, value: tuple[Party, ...]) -> tuple[Party, ...]:
        if not value:
            raise ValueError("name at least one of us, customer and aws, or remove the key for all")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> "Channel":
        if (self.webhook is None) == (self.apprise is None):
            raise ValueError("give one of webhook and apprise: where its URL is kept")
        if self.token is not None and self.webhook is None:
            raise ValueError("token goes with webhook; an Apprise URL holds its own")
        return self


class QuietHours(Model):
    """When only what is urgent is sent. The rest follows when they end, if it still holds."""

    begins: TimeOfDay = Field(alias="from", examples=["22:00"])
    """Time of day at which they begin."""
    until: TimeOfDay = Field(examples=["07:00"])
    """Time of day at which they end; earlier than `from`: on the next day."""
    timezone: Timezone = Field(default="UTC", examples=["Europe/Berlin"])
    """IANA name of the time zone that both are read in."""

    @model_validator(mode="after")
    def _some_hours(self) -> "QuietHours":
        if self.begins == self.until:
            raise ValueError("from and until are the same time; remove quiet_hours, or make them differ")
        return self

    def holds(self, now: datetime) -> bool:
        """Whether it is quiet; over midnight where ``until`` comes before ``from``."""
        local = now.astimezone(ZoneInfo(self.timezone)).time()
        if self.begins < self.until:
            return self.begins <= local < self.until
        return local >= self.begins or local < self.until


class Heartbeat(Model):
    """A ping that says that we are alive and well; who waits for it raises the alarm when it stays out."""

    url: Secret = Field(examples=["env:HEARTBEAT_URL"])
    """Where the URL is kept that is asked for (GET) while no urgent alert is open."""
    every_seconds: int = Field(default=300, ge=60, le=86_400)
    """Seconds between two pings."""


class Alerting(Model):
    """When alerts are repeated and sent."""

    repeat_hours: float = Field(default=4, gt=0, le=720)
    """Hours after which an open alert is sent again."""
    quiet_hours: QuietHours | None = None
    """When only what is urgent is sent. Left out: never."""
    heartbeat: Heartbeat | None = None
    """A ping to a service that raises the alarm when it stays out. Left out: none."""


def check_names(channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    names = [channel.name for channel in channels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two channels are called {twice}; give each a name of its own")
    return channels
