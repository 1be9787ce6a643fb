"""List a customer's destination and compare it with the ledger."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from xmode_transfer.aws.policy import Step
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.keys import is_notice, merge_join
from xmode_transfer.model.periods import Period, period_labelled
from xmode_transfer.model.records import DeliveredKey, ListedObject, Status, same_object
from xmode_transfer.model.verification import Scope
from xmode_transfer.transfer.context import Context, opened
from xmode_transfer.transfer.layout import Layout, Place


class Standing(StrEnum):
    """The state of a key at the destination according to the ledger."""

    OURS = "ours"  # delivered by us, with the size and ETag as delivered
    MANIFEST = "manifest"  # one of our manifests
    CHANGED = "changed"  # delivered by us, but the size or ETag differs
    MISSING = "missing"  # delivered by us, but no longer there
    ELSEWHERE = "elsewhere"  # delivered by us under an earlier prefix, which is not listed
    NOTICE = "notice"  # a notice to the customer; not part of a delivery
    SUPERSEDED = "superseded"  # of a revision that was never published; no manifest lists it
    UNMANAGED = "unmanaged"  # under our prefix, but not in our ledger


class ListedKey(NamedTuple):
    """One key. ``there`` is from the bucket, ``known`` from the ledger; one of them may be None. ``attested``
    is false for a key of a delivery that our signature does not attest."""

    standing: Standing
    key: str
    there: ListedObject | None
    known: DeliveredKey | None
    attested: bool = True


@dataclass(slots=True)
class Sum:
    """The number of keys of each state, their bytes in the bucket, and how many are not attested by our
    signature."""

    counts: Counter[Standing] = field(default_factory=Counter)
    bytes: int = 0
    not_attested: int = 0

    def add(self, item: ListedKey) -> None:
        self.counts[item.standing] += 1
        self.not_attested += not item.attested
        self.bytes += item.there.size if item.there else 0


@dataclass(slots=True)
class Listing:
    """A listing. Iterate over it once; its sums are then complete. Memory grows with the number of periods,
    not of keys."""

    context: Context
    customer: Customer
    feeds: Mapping[str, Feed]
    feed: str | None = None
    period: str | None = None
    whole: Sum = field(default_factory=Sum)
    places: dict[Place, Sum] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ListedKey]:
        """Yields every key under the customer's prefix (of one feed or period, if named) in key order. Only
        lists and reads. An unmanaged key belongs to the period of its directory. Raises what the role or
        the store refuses, and Interrupted."""
        prefix = self.customer.destination.prefix
        layout = Layout(prefix, self.feeds)
        below = prefix + (f"{self.feed}/" if self.feed else "")
        unattested = not_attested(self.context, self.customer.name, self.feed)
        with opened(self.context, self.customer, Step.LIST) as store:
            known = self.context.ledger.keys.delivered(self.customer.name, self.feed)
            for compared in compare(store.list(below), known, prefix):
                item = compared
                self.context.check_stop("run the listing again: it starts from the beginning")
                record = item.known
                place = Place(record.feed, record.period) if record is not None else layout.place(item.key)
                if self.period is not None and place.period != self.period:
                    continue
                if record is not None and (record.feed, record.period, record.revision) in unattested:
                    item = item._replace(attested=False)
                self.whole.add(item)
                self.places.setdefault(place, Sum()).add(item)
                yield item

    @property
    def sums(self) -> list[tuple[Place, Sum]]:
        """The sums by feed and period; keys without either come last."""
        return sorted(self.places.items(), key=lambda pair: [(part is None, part or "") for part in pair[0]])


def not_attested(context: Context, customer: str, feed: str | None = None) -> dict[tuple[str, str, int], str]:
    """Returns the deliveries (feed, period, revision) that our signature does not attest, and why."""
    return {
        (item.feed, item.period, item.revision): item.not_attested
        for item in context.ledger.deliveries.find(customer, feed)
        if item.not_attested is not None
    }


def compare(there: Iterable[ListedObject], known: Iterable[DeliveredKey], prefix: str) -> Iterator[ListedKey]:
    """Joins both sides in the order of keys. ``prefix`` is the destination's."""
    for item, record in merge_join(there, known, attrgetter("key"), attrgetter("key")):
        if item is None:
            assert record is not None
            if not record.superseded:  # else gone, as it should be
                standing = Standing.MISSING if record.key.startswith(prefix) else Standing.ELSEWHERE
                yield ListedKey(standing, record.key, None, record)
        elif record is None:
            standing = Standing.NOTICE if is_notice(prefix, item.key) else Standing.UNMANAGED
            yield ListedKey(standing, item.key, item, None)
        else:
            yield ListedKey(_standing(item, record), item.key, item, record)


def _standing(there: ListedObject, known: DeliveredKey) -> Standing:
    if known.superseded:
        return Standing.SUPERSEDED
    if known.etag is None:
        return Standing.MANIFEST
    return Standing.OURS if same_object(known, there) else Standing.CHANGED


def check_scope(
    ledger: Ledger,
    configuration: Configuration,
    customer: Customer,
    feed: str | None,
    periods: Iterable[str | None],
) -> None:
    """Raises ConfigError for a feed that the customer neither subscribes to nor has ever received, and for a
    period that is not written as its feed's periods are."""
    if (
        feed is not None
        and feed not in customer.feeds
        and not ledger.deliveries.find(customer.name, feed, limit=1)
    ):
        raise ConfigError(
            f"{customer.name} has never received a feed {feed}",
            hint=f"its feeds: {', '.join(customer.feeds)}",
        )
    configured = configuration.feeds.get(feed) if feed is not None else None
    for label in periods:
        if label is None:
            continue
        try:
            known = Period.parse(label, configured.period) if configured else period_labelled(label)
        except ValueError as error:
            raise ConfigError(
                f"{feed}: {error}", hint="`xmode-transfer list --summary` has them all"
            ) from None
        if known is None:
            raise ConfigError(
                f"{label!r} is no period",
                hint="write it like 2026-11-22T05, 2026-11-22, 2026-W47, 2026-11 or none",
            )


def check_delivered(ledger: Ledger, customer: Customer, feed: str | None, period: str) -> None:
    """Raises ConfigError for a period of which no delivery to the customer was ever begun: nothing can be
    proven of it, and "nothing is wrong" would be taken for a proof."""
    if not ledger.deliveries.find(customer.name, feed, period, limit=1):
        what = f"{feed} {period}" if feed is not None else period
        raise ConfigError(
            f"nothing of {what} was ever delivered to {customer.name}",
            hint=f"`xmode-transfer status --customer {customer.name}` has what is due, `xmode-transfer list "
            f"--customer {customer.name} --summary` what was delivered",
        )


def why_nothing(ledger: Ledger, customer: Customer, scope: Scope) -> str:
    """Why the ledger has no key that is meant."""
    delivered = ledger.deliveries.find(customer.name, scope.feed, scope.period, [Status.DELIVERED])
    if any(scope.covers(item.feed, item.period) and item.object_count for item in delivered):
        return "cleanups have removed all that was delivered"
    if scope == Scope():
        return "nothing has been delivered yet"
    return "nothing has been delivered of what is named"
