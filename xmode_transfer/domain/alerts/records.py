"""An alert: one cause, however many customers it hurts, from when it was first seen until it is resolved."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from xmode_transfer.domain.errors import Party

KEPT_CUSTOMERS = 200
"""How many customers an alert names; it counts all."""


class AlertState(StrEnum):
    """Where an alert is in its life."""

    PENDING = "pending"  # seen, and not long enough to tell anybody
    OPEN = "open"
    RESOLVED = "resolved"


class Event(StrEnum):
    """Why a message is sent."""

    OPENED = "opened"
    GREW = "grew"  # customers came to it since the last message
    REPEATED = "repeated"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Condition:
    """What is wrong now, for one cause. ``fingerprint`` is the same for the same cause and detail at any time
    and in any process. ``customers`` are sorted by name, empty when it concerns the service as a whole."""

    fingerprint: str
    cause: str
    detail: str
    party: Party
    urgent: bool
    summary: str
    message: str
    hint: str
    since_at: datetime
    customers: tuple[str, ...] = ()
    customer_count: int = 0


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition with its history. ``episode`` counts how often it came back: what was told of an earlier
    episode says nothing of this one."""

    condition: Condition
    episode: int
    first_seen_at: datetime
    last_seen_at: datetime
    opened_at: datetime | None = None
    resolved_at: datetime | None = None

    @property
    def fingerprint(self) -> str:
        return self.condition.fingerprint

    @property
    def state(self) -> AlertState:
        if self.resolved_at is not None:
            return AlertState.RESOLVED
        return AlertState.PENDING if self.opened_at is None else AlertState.OPEN


@dataclass(frozen=True, slots=True)
class Telling:
    """What a channel was told of an alert. ``told`` is the last message that it took, ``customers`` those
    that it named. While ``attempts`` is not 0 the next message did not get through: it is tried again at
    ``next_attempt_at``, and ``error`` says why."""

    fingerprint: str
    channel: str
    episode: int
    told: Event | None = None
    told_at: datetime | None = None
    customers: tuple[str, ...] = ()
    customer_count: int = 0
    attempts: int = 0
    next_attempt_at: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to a channel."""

    event: Event
    alert: Alert
    sent_at: datetime

    @property
    def title(self) -> str:
        """One line."""
        words = {Event.RESOLVED: "resolved: ", Event.REPEATED: "still: ", Event.TEST: "test: "}
        return f"{words.get(self.event, '')}{self.alert.condition.summary}"

    @property
    def body(self) -> str:
        """A few lines of plain text: what happened, who must act, what to do, and who is hurt."""
        condition = self.alert.condition
        who = {Party.US: "we", Party.CUSTOMER: "the customer", Party.AWS: "AWS"}[condition.party]
        if self.event is Event.RESOLVED:
            opened_at = self.alert.opened_at
            since = f" It was open since {_moment(opened_at)}." if opened_at else ""
            return f"It is well again.{since} Nothing more to do.\nCause: {condition.cause}"
        lines = [
            condition.message,
            f"Who must act: {who}. {_sentence(condition.hint)}".rstrip(),
            f"Since {_moment(condition.since_at)}; cause: {condition.cause}",
        ]
        if condition.customer_count > 1:
            named = ", ".join(condition.customers[:_NAMED])
            more = condition.customer_count - min(len(condition.customers), _NAMED)
            lines.append(f"Customers: {named}{f' and {more:,} more' if more > 0 else ''}")
        return "\n".join(lines)


_NAMED = 20


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
