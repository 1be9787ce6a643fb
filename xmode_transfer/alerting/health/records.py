"""What is said of how customers fare."""

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

    BROKEN = "broken"  # the configuration: nothing is delivered until we mend it
    BLOCKED = "blocked"  # a delivery waits for the customer
    FAILING = "failing"  # a delivery failed; it is tried again
    NO_SOURCE = "no-source"  # there is nothing to deliver, though there should be
    LATE = "late"  # there is something to deliver, and it should have been by now
    ATTENTION = "attention"  # deliveries work; what was delivered was changed, or a cleanup is refused
    DUE = "due"  # there is something to deliver, and there is time yet
    HEALTHY = "healthy"  # everything that is complete at the source was delivered
    PENDING = "pending"  # signed up; nothing is delivered yet
    RETIRED = "retired"  # nothing is delivered any more


SOUND = frozenset({Health.DUE, Health.HEALTHY, Health.PENDING, Health.RETIRED})
"""Nobody needs to act."""
GRAVITY = tuple(Health)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, who must act, since when, and what to do next.

    ``cause`` is a stable word for programs (docs/operations.md has a row for each). ``detail`` tells apart
    what has one cause word and is mended apart: the feed of a source that is missing, what an access check
    found.
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
    first period that should have been delivered by now, whatever else is said of the subscription.
    ``not_attested`` counts deliveries that our signature does not vouch for."""

    customer: str
    feed: str
    health: Health
    trouble: Trouble | None = None
    last_delivered: Delivery | None = None
    open: tuple[OpenDelivery, ...] = ()
    due: tuple[str, ...] = ()
    due_count: int = 0
    look: SourceScan | None = None
    fresh_until_at: datetime | None = None
    overdue: Trouble | None = None
    not_attested: int = 0

    @property
    def looked_at(self) -> datetime | None:
        return self.look.looked_at if self.look else None


@dataclass(frozen=True, slots=True)
class CustomerHealth:
    """One customer. ``troubles`` are what keeps its deliveries from it, the gravest first; ``cares`` what
    does not, and should be looked after all the same: what was delivered and was changed since, its access,
    cleanups, and what is left in its bucket.
    ``lifecycle_rule`` is one that frees these, where the bucket has none."""

    customer: str
    company: str
    health: Health
    troubles: tuple[Trouble, ...] = ()
    cares: tuple[Trouble, ...] = ()
    subscriptions: tuple[SubscriptionHealth, ...] = ()
    problems: tuple[str, ...] = ()
    capabilities: Capabilities = field(default_factory=Capabilities)
    left_behind: OrphanedUploads | None = None
    check: CheckSummary | None = None
    lifecycle_rule: dict[str, Any] | None = None

    @property
    def trouble(self) -> Trouble | None:
        """The gravest."""
        return self.troubles[0] if self.troubles else None

    @property
    def pressing(self) -> Trouble | None:
        """The gravest, or the first care where deliveries work."""
        return next(iter((*self.troubles, *self.cares)), None)


@dataclass(frozen=True, slots=True)
class Assessment:
    """How everybody fares at one moment, customers by name. ``cares`` concern the service as a whole;
    ``daemon`` is the one that ticked last, alive or not."""

    assessed_at: datetime
    customers: tuple[CustomerHealth, ...]
    cares: tuple[Trouble, ...] = ()
    ledger_free_bytes: int | None = None
    ledger_used_bytes: int = 0
    daemon: DaemonRecord | None = None

    def customer(self, name: str) -> CustomerHealth | None:
        return next((item for item in self.customers if item.customer == name), None)

    @property
    def counts(self) -> Mapping[Health, int]:
        """How many customers fare how; every word is there."""
        counts = dict.fromkeys(Health, 0)
        for item in self.customers:
            counts[item.health] += 1
        return counts

    @property
    def sound(self) -> bool:
        """Whether nobody needs to act."""
        return all(item.health in SOUND for item in self.customers)

    def all_troubles(self) -> Iterator[tuple[str, Trouble]]:
        """Every trouble and care with its customer's name; the service's own with an empty one."""
        for care in self.cares:
            yield "", care
        for item in self.customers:
            for trouble in (*item.troubles, *item.cares):
                yield item.customer, trouble


def worst(words: Iterable[Health]) -> Health:
    """The gravest of them; healthy where there is none."""
    return min(words, key=GRAVITY.index, default=Health.HEALTHY)
