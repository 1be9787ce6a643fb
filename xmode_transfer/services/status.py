"""Who has what: per subscription the last delivery, what is due or waits, and who must act."""

from dataclasses import dataclass, field
from typing import Any

from xmode_transfer.domain.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.domain.errors import SourceError
from xmode_transfer.domain.lifecycle import free_unfinished_uploads
from xmode_transfer.domain.records import (
    Capabilities,
    Delivery,
    Failure,
    MultipartUpload,
    Status,
    UploadStatus,
)
from xmode_transfer.ports import Clock, Ledger, SourceFactory
from xmode_transfer.services.run import CustomerRun, Selection, due
from xmode_transfer.services.sending import failure_of


@dataclass(slots=True)
class SubscriptionStatus:
    """One customer's feed. ``due`` are labels of complete periods that are to be looked at; ``waiting`` of
    incomplete ones, with the reason. ``open`` are deliveries that were begun and are not delivered, oldest
    period first."""

    feed: str
    last_delivered: Delivery | None = None
    open: list[Delivery] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    source_failure: Failure | None = None


@dataclass(slots=True)
class CustomerStatus:
    """One customer. ``left_behind`` are multipart uploads that we may not abort: only the customer's
    lifecycle rule frees their bytes. ``lifecycle_rule`` is one that does, where the bucket has none."""

    customer: str
    state: str
    problems: tuple[str, ...] = ()
    subscriptions: list[SubscriptionStatus] = field(default_factory=list)
    capabilities: Capabilities = field(default_factory=Capabilities)
    left_behind: list[MultipartUpload] = field(default_factory=list)
    lifecycle_rule: dict[str, Any] | None = None

    @property
    def word(self) -> str:
        """One word for the whole: broken, blocked, failing, due, or healthy."""
        if self.problems:
            return "broken"
        if self.state != CustomerState.ACTIVE:
            return self.state
        states = {delivery.status for item in self.subscriptions for delivery in item.open}
        if Status.BLOCKED in states:
            return "blocked"
        if Status.FAILED in states or any(item.source_failure for item in self.subscriptions):
            return "failing"
        if states or any(item.due for item in self.subscriptions):
            return "due"
        return "healthy"


def status_of(
    configuration: Configuration, ledger: Ledger, sources: SourceFactory, clock: Clock, name: str
) -> CustomerStatus:
    """Reads the ledger and looks at the source; calls nobody."""
    if name in configuration.broken:
        problems = tuple(str(problem) for problem in configuration.broken[name])
        return CustomerStatus(name, "broken", problems)
    customer = configuration.customers[name]
    result = CustomerStatus(name, str(customer.state), capabilities=ledger.capabilities(name))
    result.left_behind = ledger.uploads(customer=name, statuses=[UploadStatus.LEFT_BEHIND])
    if any(upload.abort_at is None for upload in result.left_behind):
        result.lifecycle_rule = free_unfinished_uploads(customer.destination.prefix)
    for feed_name in customer.feeds:
        feed = configuration.feeds[feed_name]
        result.subscriptions.append(_subscription(ledger, sources, clock, customer, feed))
    return result


def _subscription(
    ledger: Ledger, sources: SourceFactory, clock: Clock, customer: Customer, feed: Feed
) -> SubscriptionStatus:
    item = SubscriptionStatus(feed.name)
    seen: set[str] = set()
    newest: dict[str, Delivery] = {}
    for delivery in ledger.deliveries(customer.name, feed.name):
        known = newest.get(delivery.period)
        if known is None or known.revision < delivery.revision:
            newest[delivery.period] = delivery
    for delivery in newest.values():
        if delivery.status is not Status.DELIVERED:
            item.open.append(delivery)
            seen.add(delivery.period)
        elif item.last_delivered is None or item.last_delivered.period < delivery.period:
            item.last_delivered = delivery
    item.open.sort(key=lambda delivery: delivery.period)
    if customer.state is not CustomerState.ACTIVE:
        return item
    looked_at = CustomerRun(customer.name)
    try:
        for state in due(sources, ledger, clock, customer, feed, Selection(), looked_at):
            label = state.period.label
            done = newest.get(label)
            settled = done is not None and done.status is Status.DELIVERED and not state.marker
            if label not in seen and not settled:
                item.due.append(label)
    except SourceError as error:
        item.source_failure = failure_of(error)
    item.waiting = [(state.period.label, state.reason) for _, state in looked_at.waiting]
    return item
