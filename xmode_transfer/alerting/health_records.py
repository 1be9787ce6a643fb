"""The records of health, and the issues and warnings that they contain."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.health import (
    CheckSummary,
    OpenDelivery,
    OrphanedUploads,
    SourceScan,
)
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import Capabilities, Delivery


class Health(StrEnum):
    """One word for a subscription, and for a customer: its worst subscription's. Gravest first."""

    BROKEN = "broken"  # its configuration: nothing is delivered until the vendor fixes it
    BLOCKED = "blocked"  # a delivery waits for the customer
    FAILING = "failing"  # a delivery failed; it is retried
    QUARANTINED = "quarantined"  # a check before release failed: nothing of it is sent
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
    """``cause`` is a stable word for programs (docs/operations.md has a row for each). ``detail`` separates
    issues of one cause that are fixed separately: a feed, a period, the findings of an access check."""

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
    """``due`` are labels of complete periods that wait to be delivered, ``open`` the deliveries that were
    begun; oldest first. ``fresh_until_at`` is the deadline of the next expected period (None for a drop
    folder, and before the first delivery). ``not_attested`` counts deliveries without our signature.
    ``quarantined`` has the labels of quarantined periods, or the files of a drop folder. ``further`` are the
    issues besides ``issue``, with their words. ``overdue`` counts quarantined periods too: the customer
    waits for them."""

    customer: str
    feed: str
    health: Health
    issue: Issue | None = None
    last_delivered: Delivery | None = None
    open: tuple[OpenDelivery, ...] = ()
    due: tuple[str, ...] = ()
    due_count: int = 0
    scan: SourceScan | None = None
    fresh_until_at: datetime | None = None
    overdue: Issue | None = None
    not_attested: int = 0
    quarantined: tuple[str, ...] = ()
    further: tuple[tuple[Health, Issue], ...] = ()

    @property
    def issues(self) -> tuple[tuple[Health, Issue], ...]:
        """Every issue with its word, the most severe first."""
        return ((self.health, self.issue), *self.further) if self.issue is not None else ()


@dataclass(frozen=True, slots=True)
class CustomerHealth:
    """``issues`` stop deliveries, the most severe first; ``warnings`` do not, but need attention.
    ``lifecycle_rule`` deletes orphaned uploads, where the bucket has no such rule."""

    customer: str
    company: str
    health: Health
    issues: tuple[Issue, ...] = ()
    warnings: tuple[Issue, ...] = ()
    subscriptions: tuple[SubscriptionHealth, ...] = ()
    problems: tuple[str, ...] = ()
    capabilities: Capabilities = field(default_factory=Capabilities)
    orphaned: OrphanedUploads | None = None
    check: CheckSummary | None = None
    lifecycle_rule: dict[str, Any] | None = None

    @property
    def pressing(self) -> Issue | None:
        return next(iter((*self.issues, *self.warnings)), None)


@dataclass(frozen=True, slots=True)
class Assessment:
    """``warnings`` concern the service as a whole; ``daemon`` is the one that ticked last, alive or not."""

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
        found = Counter(item.health for item in self.customers)
        return {health: found[health] for health in Health}

    def all_issues(self) -> Iterator[tuple[str, Issue]]:
        """Every issue and warning with its customer's name; the service's own with an empty one."""
        for warning in self.warnings:
            yield "", warning
        for item in self.customers:
            for issue in (*item.issues, *item.warnings):
                yield item.customer, issue


def worst(words: Iterable[Health]) -> Health:
    return min(words, key=GRAVITY.index, default=Health.HEALTHY)
