"""Records of health."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from xmode_transfer.model.daemons import DaemonRecord
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.records import Capabilities, Delivery
from xmode_transfer.model.source_scans import CheckSummary, OpenDelivery, OrphanedUploads, SourceScan


class Health(StrEnum):
    """One word for a subscription, and for a customer: its worst subscription's. Gravest first."""

    BROKEN = "broken"  # its configuration: nothing is delivered until the vendor fixes it
    BLOCKED = "blocked"  # a delivery waits for the customer
    FAILING = "failing"  # a delivery failed; it is retried
    NO_SOURCE = "no-source"  # there is nothing to deliver, though there should be
    LATE = "late"  # there is something to deliver, and it should have been by now
    ATTENTION = "attention"  # deliveries work; what was delivered was changed, or a cleanup is refused
    DUE = "due"  # there is something to deliver, and there is time yet
    HEALTHY = "healthy"  # everything that is complete at the source was delivered
    PENDING = "pending"  # signed up; nothing is delivered yet
    RETIRED = "retired"  # nothing is delivered any more


SOUND = frozenset({Health.DUE, Health.HEALTHY, Health.PENDING, Health.RETIRED})
"""No action needed."""
GRAVITY = tuple(Health)


@dataclass(frozen=True, slots=True)
class Issue:
    """What is wrong, who is responsible, since when, and how to fix it.

    ``cause`` is a stable word for programs (docs/operations.md has a row for each). ``detail`` separates
    issues of one cause that are fixed separately: the feed of a missing source, the findings of an access
    check.
    """

    cause: str
    responsible: Responsible
    message: str
    hint: str
    since_at: datetime
    detail: str = ""
    feed: str | None = None
    period: str | None = None
    retryable: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionHealth:
    """One customer's feed. ``due`` are labels of complete periods that wait to be delivered, oldest first;
    ``open`` the deliveries that were begun, oldest period first. ``fresh_until_at`` is the deadline of the
    next period that is expected (None for a drop folder, and before the first delivery). ``overdue`` is the
    first period that should have been delivered by now, whatever its health.
    ``not_attested`` counts deliveries without our signature."""

    customer: str
    feed: str
    health: Health
    issue: Issue | None = None
    last_delivered: Delivery | None = None
    open: tuple[OpenDelivery, ...] = ()
    due: tuple[str, ...] = ()
    due_count: int = 0
    look: SourceScan | None = None
    fresh_until_at: datetime | None = None
    overdue: Issue | None = None
    not_attested: int = 0

    @property
    def looked_at(self) -> datetime | None:
        return self.look.looked_at if self.look else None


@dataclass(frozen=True, slots=True)
class CustomerHealth:
    """One customer. ``issues`` stop its deliveries, the most severe first. ``warnings`` do not, but need
    attention: changed objects, access, cleanups, and orphaned uploads. ``lifecycle_rule`` deletes the latter,
    where the bucket has no such rule."""

    customer: str
    company: str
    health: Health
    issues: tuple[Issue, ...] = ()
    warnings: tuple[Issue, ...] = ()
    subscriptions: tuple[SubscriptionHealth, ...] = ()
    problems: tuple[str, ...] = ()
    capabilities: Capabilities = field(default_factory=Capabilities)
    left_behind: OrphanedUploads | None = None
    check: CheckSummary | None = None
    lifecycle_rule: dict[str, Any] | None = None

    @property
    def issue(self) -> Issue | None:
        """The most severe issue."""
        return self.issues[0] if self.issues else None

    @property
    def pressing(self) -> Issue | None:
        """The most severe issue, or the first warning where deliveries work."""
        return next(iter((*self.issues, *self.warnings)), None)


@dataclass(frozen=True, slots=True)
class Assessment:
    """The health of all customers at one moment, by name. ``warnings`` concern the service as a whole;
    ``daemon`` is the one that ticked last, alive or not."""

    assessed_at: datetime
    customers: tuple[CustomerHealth, ...]
    warnings: tuple[Issue, ...] = ()
    ledger_free_bytes: int | None = None
    ledger_used_bytes: int = 0
    daemon: DaemonRecord | None = None

    def customer(self, name: str) -> CustomerHealth | None:
        return next((item for item in self.customers if item.customer == name), None)

    @property
    def counts(self) -> Mapping[Health, int]:
        """Number of customers by health, including zeros."""
        counts = dict.fromkeys(Health, 0)
        for item in self.customers:
            counts[item.health] += 1
        return counts

    @property
    def sound(self) -> bool:
        """True if no customer needs attention."""
        return all(item.health in SOUND for item in self.customers)

    def all_issues(self) -> Iterator[tuple[str, Issue]]:
        """Every issue and warning with its customer's name; the service's own with an empty one."""
        for warning in self.warnings:
            yield "", warning
        for item in self.customers:
            for issue in (*item.issues, *item.warnings):
                yield item.customer, issue


def worst(words: Iterable[Health]) -> Health:
    """Return the most severe health; healthy if there is none."""
    return min(words, key=GRAVITY.index, default=Health.HEALTHY)
