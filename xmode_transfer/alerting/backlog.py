"""The amount of data to send: planned deliveries, and an estimate for periods not planned yet."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from xmode_transfer.alerting.health import Assessment, Health, SubscriptionHealth

_NOT_WORKABLE = frozenset({Health.BROKEN, Health.BLOCKED, Health.PENDING, Health.RETIRED})
"""Customers with this health receive nothing, however many workers there are."""


@dataclass(frozen=True, slots=True)
class Work:
    """Work for the workers. ``bytes`` is partly an estimate; ``oldest_at`` is since when the oldest work has
    waited, None if there is none."""

    bytes: int
    oldest_at: datetime | None


def left_of(part: SubscriptionHealth) -> int:
    """Return the bytes left to send in a subscription's started deliveries."""
    return sum(max(0, item.delivery.total_bytes - item.sent_bytes) for item in part.open)


def work_of(found: Assessment) -> Work:
    """Return the work that workers could do now.

    A waiting period is estimated by the newest delivery of its subscription; without one, by the feed's
    average over other customers. Excludes suspended customers and subscriptions with failing deliveries.
    """
    usual = _usual_bytes(found)
    size, oldest = 0, None
    for part in _workable(found):
        last = part.last_delivered
        each = usual.get(part.feed, 0.0) if last is None else last.total_bytes
        size += left_of(part) + round(part.due_count * each)
        for since_at in _since(part):
            oldest = since_at if oldest is None else min(oldest, since_at)
    return Work(size, oldest)


def _workable(found: Assessment) -> Iterator[SubscriptionHealth]:
    for customer in found.customers:
        if customer.health not in _NOT_WORKABLE:
            yield from (part for part in customer.subscriptions if part.health is not Health.FAILING)


def _usual_bytes(found: Assessment) -> dict[str, float]:
    sizes: dict[str, list[int]] = defaultdict(list)
    for customer in found.customers:
        for part in customer.subscriptions:
            if part.last_delivered is not None:
                sizes[part.feed].append(part.last_delivered.total_bytes)
    return {feed: sum(each) / len(each) for feed, each in sizes.items()}


def _since(part: SubscriptionHealth) -> Iterator[datetime]:
    if part.due and part.look is not None and part.look.due_since_at is not None:
        yield part.look.due_since_at
    yield from (item.since_at for item in part.open)
