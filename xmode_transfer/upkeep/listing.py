"""List a customer's destination and compare it with the ledger."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.delta import is_log_key
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.keys import is_notice, is_token, merge_join
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.periods import Period, period_labelled
from xmode_transfer.model.records import DeliveredKey, ListedObject, Status, same_object
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.transfer.context import Context, opened
from xmode_transfer.transfer.manifest_reading import parse_manifest_key


class KeyPeriod(NamedTuple):
    """None if the key does not tell."""

    feed: str | None
    period: str | None


def period_of(key: str, prefix: str, layouts: Mapping[str, Layout]) -> KeyPeriod:
    """Return the feed and the period of any key. ``prefix`` is the destination's."""
    name, _, rest = key.removeprefix(prefix).partition("/")
    if name not in layouts or not rest:
        return KeyPeriod(None, None)
    manifest = parse_manifest_key(prefix, key)
    if manifest is not None:
        return KeyPeriod(name, manifest.period)
    period = layouts[name].period_of(rest)
    return KeyPeriod(name, period.label if period is not None else None)


class Standing(StrEnum):
    """The state of a key at the destination according to the ledger."""

    OURS = "ours"  # delivered by us, with the size and ETag as delivered
    MANIFEST = "manifest"  # one of our manifests, or a native one
    CHANGED = "changed"  # delivered by us, but the size or ETag differs
    MISSING = "missing"  # delivered by us, but no longer there
    ELSEWHERE = "elsewhere"  # delivered by us under an earlier prefix, which is not listed
    TABLE = "table"  # of the log of a feed's table
    NOTICE = "notice"  # a notice or a token for the customer; not part of a delivery
    SUPERSEDED = "superseded"  # of a revision that was never published; no manifest lists it
    WITHDRAWN = "withdrawn"  # delivered by us and withdrawn by a recall, but still there
    UNMANAGED = "unmanaged"  # under our prefix, but not in our ledger


class ListedKey(NamedTuple):
    """``there`` is from the bucket, ``known`` from the ledger; one of them may be None. ``attested`` is false
    for a key of a delivery that our signature does not attest."""

    standing: Standing
    key: str
    there: ListedObject | None
    known: DeliveredKey | None
    attested: bool = True


@dataclass(slots=True)
class Sum:
    """The number of keys of each state, their bytes, and how many our signature does not attest."""

    counts: Counter[Standing] = field(default_factory=Counter)
    bytes: int = 0
    not_attested: int = 0

    def add(self, item: ListedKey) -> None:
        self.counts[item.standing] += 1
        self.not_attested += not item.attested
        self.bytes += item.there.size if item.there else 0


@dataclass(slots=True)
class Listing:
    """Iterate over it once; its sums are then complete. Memory grows with the periods, not the keys."""

    context: Context
    customer: Customer
    feeds: Mapping[str, Feed]
    feed: str | None = None
    period: str | None = None
    whole: Sum = field(default_factory=Sum)
    _by_period: dict[KeyPeriod, Sum] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ListedKey]:
        """Yield the keys in order. An unmanaged key belongs to the period of its directory."""
        prefix = self.customer.destination.prefix
        layouts = {name: self.customer.layout(feed) for name, feed in self.feeds.items()}
        below = prefix + (f"{self.feed}/" if self.feed else "")
        unattested = not_attested(self.context, self.customer.name, self.feed)
        with opened(self.context, self.customer, Step.LIST) as store:
            known = self.context.ledger.keys.delivered(self.customer.name, self.feed)
            roots = table_roots(self.context, self.customer.name)
            for item in compare(store.list(below), known, prefix, roots):
                self.context.check_stop("run the listing again: it starts from the beginning")
                listed, record = item, item.known
                if record is not None:
                    period = KeyPeriod(record.feed, record.period)
                    attested = (*period, record.revision) not in unattested
                    listed = item._replace(attested=attested)
                else:
                    period = period_of(item.key, prefix, layouts)
                if self.period in (None, period.period):
                    self.whole.add(listed)
                    self._by_period.setdefault(period, Sum()).add(listed)
                    yield listed

    @property
    def sums(self) -> list[tuple[KeyPeriod, Sum]]:
        """The sums by feed and period; keys without either come last."""
        return sorted(
            self._by_period.items(), key=lambda pair: [(part is None, part or "") for part in pair[0]]
        )


def not_attested(context: Context, customer: str, feed: str | None = None) -> dict[tuple[str, str, int], str]:
    """Return the deliveries (feed, period, revision) that our signature does not attest, and why."""
    return {
        (item.feed, item.period, item.revision): item.not_attested
        for item in context.ledger.deliveries.find(customer, feed)
        if item.not_attested is not None
    }


def table_roots(context: Context, customer: str) -> list[str]:
    return [table.root for table in context.ledger.tables.find(customer)]


def compare(
    there: Iterable[ListedObject], known: Iterable[DeliveredKey], prefix: str, roots: Collection[str] = ()
) -> Iterator[ListedKey]:
    """Joins both sides in the order of keys. ``prefix`` is the destination's, ``roots`` those of tables."""
    for item, record in merge_join(there, known, attrgetter("key"), attrgetter("key")):
        if item is None:
            assert record is not None
            if record.superseded or record.withdrawn:  # it should be gone
                continue
            standing = Standing.MISSING if record.key.startswith(prefix) else Standing.ELSEWHERE
            yield ListedKey(standing, record.key, None, record)
            continue
        if record is None:
            standing = Standing.UNMANAGED
            if is_notice(prefix, item.key) or is_token(prefix, item.key):
                standing = Standing.NOTICE
            elif any(is_log_key(root, item.key) for root in roots):
                standing = Standing.TABLE
        elif record.withdrawn and same_object(record, item):
            standing = Standing.WITHDRAWN
        elif record.superseded:
            standing = Standing.SUPERSEDED
        elif not same_object(record, item):
            standing = Standing.CHANGED
        else:
            standing = Standing.MANIFEST if record.is_manifest else Standing.OURS
        yield ListedKey(standing, item.key, item, record)


def check_scope(
    ledger: Ledger,
    configuration: Configuration,
    customer: Customer,
    feed: str | None,
    periods: Iterable[str | None],
) -> None:
    """Raise ConfigError for an invalid period, or a feed neither subscribed to nor ever received."""
    subscribed = feed is None or feed in customer.feeds
    if not subscribed and not ledger.deliveries.find(customer.name, feed, limit=1):
        hint = f"its feeds: {', '.join(customer.feeds)}"
        raise ConfigError(f"{customer.name} has never received a feed {feed}", hint=hint)
    configured = configuration.feeds.get(feed) if feed is not None else None
    for label in periods:
        if label is None:
            continue
        try:
            known = Period.parse(label, configured.period) if configured else period_labelled(label)
        except ValueError as error:
            hint = "`xmode-transfer list --summary` shows all periods"
            raise ConfigError(f"{feed}: {error}", hint=hint) from None
        if known is None:
            hint = "write it like 2026-11-22T05, 2026-11-22, 2026-W47, 2026-11 or none"
            raise ConfigError(f"{label!r} is no period", hint=hint)


def check_delivered(ledger: Ledger, customer: Customer, feed: str | None, period: str) -> None:
    """Raise ConfigError if no delivery of the period was begun: "nothing is wrong" would be no proof."""
    if not ledger.deliveries.find(customer.name, feed, period, limit=1):
        what = f"{feed} {period}" if feed is not None else period
        raise ConfigError(
            f"nothing of {what} was ever delivered to {customer.name}",
            hint=f"`xmode-transfer status --customer {customer.name}` shows what is due, "
            f"`xmode-transfer list --customer {customer.name} --summary` what was delivered",
        )


def why_nothing(ledger: Ledger, customer: Customer, scope: Scope) -> str:
    """Return why the ledger has no key in the scope."""
    delivered = ledger.deliveries.find(customer.name, scope.feed, scope.period, [Status.DELIVERED])
    if any(scope.covers(item.feed, item.period) and item.object_count for item in delivered):
        return "cleanups have removed all that was delivered"
    if scope == Scope():
        return "nothing has been delivered yet"
    return "nothing has been delivered of what is named"
