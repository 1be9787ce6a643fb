"""List a customer's destination and compare it with the ledger."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from xmode_transfer.aws.policy import Step
from xmode_transfer.config import Customer, Feed
from xmode_transfer.model.keys import is_notice
from xmode_transfer.model.merge_join import merge_join
from xmode_transfer.model.records import DeliveredKey, ListedObject, same_object
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.destination import opened
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
    UNMANAGED = "foreign"  # under our prefix, but not in our ledger


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
