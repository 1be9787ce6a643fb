"""What a text leads to: customers, feeds, deliveries, objects."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.keys import MANIFESTS
from xmode_transfer.model.records import Delivery, PlannedObject

MOST = 50
"""Hits of one kind that are shown."""
_MOST_TRIED = 200
"""Subscriptions below whose prefixes an object is looked for; with its bucket there is one."""


@dataclass(slots=True)
class Hits:
    """What was found; an object is None for a manifest. ``cut`` when there is more than is shown."""

    customers: list[Customer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    feeds: list[tuple[Feed, int]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    objects: list[tuple[Delivery, PlannedObject | None]] = field(default_factory=list)
    cut: bool = False

    def __len__(self) -> int:
        found = (self.customers, self.broken, self.feeds, self.deliveries, self.objects)
        return sum(len(kind) for kind in found)


def search(configuration: Configuration, ledger: Ledger, text: str) -> Hits:
    """Customers by name, company, external ID, role and bucket, feeds by name, in whatever case; deliveries
    by their ID; objects by the beginning of their key, with or without ``s3://bucket/``. Only what an index
    of the ledger leads to is read, so it is fast whatever the ledger holds. Raises LedgerError."""
    hits = Hits()
    wanted = text.strip()
    if not wanted:
        return hits
    folded = wanted.casefold()
    hits.customers = [item for item in configuration.customers.values() if folded in _words_of(item)]
    hits.broken = [name for name in configuration.broken if folded in name]
    hits.customers = [item for item in hits.customers if item.name not in configuration.broken]
    for feed in configuration.feeds.values():
        if folded in feed.name:
            subscribers = sum(feed.name in item.feeds for item in configuration.customers.values())
            hits.feeds.append((feed, subscribers))
    if (delivery := ledger.deliveries.get(wanted)) is not None:
        hits.deliveries.append(delivery)
    hits.objects = list(_objects(configuration, ledger, wanted, hits))
    for found in (hits.customers, hits.broken, hits.feeds, hits.objects):
        if len(found) > MOST:
            hits.cut = True
            del found[MOST:]
    return hits


def _words_of(customer: Customer) -> str:
    destination = f"s3://{customer.destination.bucket}/{customer.destination.prefix}"
    words = [customer.name, customer.company, customer.external_id, customer.role_arn, destination]
    return "\n".join(words).casefold()


def _objects(
    configuration: Configuration, ledger: Ledger, text: str, hits: Hits
) -> Iterator[tuple[Delivery, PlannedObject | None]]:
    """Objects whose keys begin with the text. The key says feed, period and name, so that each is looked up
    where it would be."""
    bucket, key = None, text
    if match := re.fullmatch(r"s3://([^/]+)/(.*)", text):
        bucket, key = match[1], match[2]
    found = tried = 0
    for customer in configuration.customers.values():
        destination = customer.destination
        if (bucket is not None and destination.bucket != bucket) or not key.startswith(destination.prefix):
            continue
        rest = key.removeprefix(destination.prefix)
        for feed_name in customer.feeds:
            feed = configuration.feeds.get(feed_name)
            if feed is None or not rest.startswith(f"{feed_name}/"):
                continue
            tried += 1
            if tried > _MOST_TRIED:
                hits.cut = True
                return
            for hit in _in_feed(ledger, customer, feed, rest.removeprefix(f"{feed_name}/"), key):
                yield hit
                found += 1
                if found > MOST:
                    return


def _in_feed(
    ledger: Ledger, customer: Customer, feed: Feed, path: str, key: str
) -> Iterator[tuple[Delivery, PlannedObject | None]]:
    if match := re.fullmatch(rf"{MANIFESTS}/([^/]+)/([0-9]+)\.json", path):
        for delivery in ledger.deliveries.find(customer.name, feed.name, match[1], limit=MOST):
            if delivery.manifest_key == key:
                yield delivery, None
        return
    label = _period_label(feed, path)
    if label is None:
        return
    name = re.sub(
        r"(^|/)_r[0-9]+/", r"\1", path, count=1
    )  # a correction has its own directory below the period
    for delivery in ledger.deliveries.find(customer.name, feed.name, label, limit=MOST):
        for item, _ in ledger.objects.page(delivery.id, beginning=name, limit=MOST + 1):
            if item.key.startswith(key):
                yield delivery, item


def _period_label(feed: Feed, path: str) -> str | None:
    """The label of the period in whose directory a path lies; None where it names none as a whole."""
    partition = feed.partition_template
    if partition is None:
        return "none"
    segments = path.split("/")
    depth = len(partition.segments)
    period = partition.period("/".join(segments[:depth])) if len(segments) >= depth else None
    return period.label if period is not None else None
