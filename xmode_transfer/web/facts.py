"""Data for the pages: from the ledger, the configuration in use and the daemon's status."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.alerting.health import assess
from xmode_transfer.alerting.health_records import Assessment, Health
from xmode_transfer.aws.policy.documents import setup_values
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.config.times import deadlines_of
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.findings import AccessReport, Finding
from xmode_transfer.model.health import Alert, Snapshot
from xmode_transfer.model.jobs import QueueEntry
from xmode_transfer.model.keys import MANIFESTS
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.process import Clock, DaemonRecord
from xmode_transfer.model.records import Delivery, PlannedObject, Run
from xmode_transfer.web import plot
from xmode_transfer.web.calendar import FeedRecord, sheets, window

KEPT_SECONDS = 3.0  # how long an assessment is shared by all viewers
OBJECTS_SHOWN = 100
RUNS_SHOWN = 50
FEW = 12
BATCHES_SHOWN = 30
PLOTS_SHOWN = 8
VERDICTS_SHOWN = 30

_Value = TypeVar("_Value")


class StatusView(Protocol):
    """The daemon's own state, for any thread. It returns copies and never blocks."""

    def jobs(self) -> Sequence[QueueEntry]: ...

    def status(self) -> DaemonRecord: ...


class Cached(Generic[_Value]):
    """A value that is computed again when it is ``seconds`` old. Thread-safe; errors are not cached."""

    def __init__(self, compute: Callable[[], _Value], seconds: float, clock: Clock) -> None:
        self._compute = compute
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, _Value] | None = None

    def get(self) -> _Value:
        with self._lock:
            if self._known is None or self._clock.monotonic() - self._known[0] >= self._seconds:
                value = self._compute()
                self._known = self._clock.monotonic(), value
            return self._known[1]


@dataclass(frozen=True, slots=True)
class Moment:
    """The health of every customer at one moment."""

    at: datetime
    configuration: Configuration
    snapshot: Snapshot
    assessment: Assessment
    alerts: Sequence[Alert]
    jobs: Mapping[str, QueueEntry]
    status: DaemonRecord


class Facts:
    """Thread-safe. Every method may raise a LedgerError."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        configuration: Callable[[], Configuration],
        status_view: StatusView,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._configuration = configuration
        self._status_view = status_view
        self.moment = Cached(self._assess, KEPT_SECONDS, clock).get

    def _assess(self) -> Moment:
        configuration = self._configuration()
        snapshot = self._ledger.snapshot()
        at = self._clock.now()
        return Moment(
            at,
            configuration,
            snapshot,
            assess(configuration, snapshot, at),
            self._ledger.alerts.known(),
            {entry.customer: entry for entry in self._status_view.jobs()},
            self._status_view.status(),
        )

    def customer(self, name: str, back: int = 0) -> dict[str, Any] | None:
        """Return everything about one customer; None if it is not configured. ``customer`` is None if its
        file is invalid. ``batches`` has the newest deliveries to each drop folder, old to new;
        ``plots`` those of the first feeds."""
        moment = self.moment()
        health = moment.assessment.customer(name)
        if health is None:
            return None
        known = moment.configuration
        customer = None if name in known.broken else known.customers.get(name)
        feeds = [known.feeds[feed] for feed in customer.feeds if feed in known.feeds] if customer else []
        records = list(self._records(moment, customer, feeds, back)) if customer else []
        batches = {
            feed.name: self._ledger.deliveries.find(name, feed.name, limit=plot.SHOWN)[::-1]
            for feed in feeds
            if feed.period is PeriodKind.NONE
        }
        plots = (
            *(
                plot.of_subscription(it, window(it.deadlines.kind, moment.at, back)[-1], moment.at)
                for it in records
            ),
            *(plot.of_batches(feed, found) for feed, found in batches.items()),
        )
        return {
            "health": health,
            "customer": customer,
            "job": moment.jobs.get(name),
            "sheets": list(sheets(records, moment.at, back)),
            "batches": {feed: found[-BATCHES_SHOWN:] for feed, found in batches.items()},
            "plots": [item for item in plots if item is not None][:PLOTS_SHOWN],
            "deliveries": self._ledger.deliveries.find(name, limit=FEW),
            "runs": self._with_deliveries(self._ledger.runs.newest(name, limit=FEW)),
            "check": self.access(name),
            "tables": [item for item in self._ledger.tables.find(name) if item.version >= 0],
            "operations": self._ledger.operations.newest(name, limit=FEW),
        }

    def _records(
        self, moment: Moment, customer: Customer, feeds: Sequence[Feed], back: int
    ) -> Iterator[FeedRecord]:
        for feed in feeds:
            if feed.period is PeriodKind.NONE:
                continue
            shown = window(feed.period, moment.at, back)
            oldest = min(shown[0], plot.periods_until(shown[-1])[0]).label
            deliveries = self._ledger.deliveries.calendar(customer.name, feed.name, oldest)
            yield FeedRecord(
                feed.name,
                deadlines_of(customer, feed),
                {delivery.period: delivery for delivery in deliveries},
                moment.snapshot.scans.get((customer.name, feed.name)),
                self._ledger.sources.skipped(customer.name, feed.name),
                customer.state is CustomerState.ACTIVE,
            )

    def feed(self, name: str) -> dict[str, Any] | None:
        """Return everything about one feed; None if it is not configured. ``failed`` has the verdicts that
        are not sound, the newest first."""
        moment = self.moment()
        feed = moment.configuration.feeds.get(name)
        if feed is None:
            return None
        found, summaries = {}, {}
        if feed.period is not PeriodKind.NONE:
            oldest = plot.periods_until(Period.around(moment.at, feed.period))[0].label
            found = {item.period: item for item in self._ledger.judgements.since(name, oldest)}
            summaries = {item.period: item for item in self._ledger.deliveries.by_period(name, oldest)}
        drawn = plot.of_feed(name, deadlines_of(None, feed), summaries, found, moment.at)
        return {
            "feed": feed,
            "plots": [drawn] if drawn is not None else [],
            "failed": sorted(
                moment.snapshot.verdicts.get(name, ()), key=lambda it: it.judgement.judged_at, reverse=True
            )[:VERDICTS_SHOWN],
            "subscriptions": [
                part
                for customer in moment.assessment.customers
                if customer.health not in (Health.PENDING, Health.RETIRED)
                for part in customer.subscriptions
                if part.feed == name
            ],
        }

    def access(self, name: str) -> AccessReport | None:
        """Return the last access check, with its fixes rebuilt from the causes."""
        report = self._ledger.checks.last(name)
        configuration = self._configuration()
        customer = configuration.customers.get(name)
        if report is None or customer is None:
            return report
        region = self._ledger.checks.capabilities(name).region
        known = setup_values(customer, configuration.service.vendor.principal_arn, region=region)

        def with_fix(item: Finding) -> Finding:
            if item.cause is None:
                return item
            return replace(item, fix=finding(Cause(item.cause), item.probe, known).fix)

        return replace(report, findings=tuple(with_fix(item) for item in report.findings))

    def delivery(self, delivery_id: str, after: str, find: str) -> dict[str, Any] | None:
        """Return one delivery with its revisions, its runs, and one page of its objects; None if it does not
        exist."""
        delivery = self._ledger.deliveries.get(delivery_id)
        if delivery is None:
            return None
        page = self._ledger.objects.page(delivery_id, after=after, containing=find, limit=OBJECTS_SHOWN + 1)
        subscription = delivery.customer, delivery.feed
        manifests = self._ledger.native.find(*subscription, delivery.period)
        return {
            "delivery": delivery,
            "customer": self._configuration().customers.get(delivery.customer),
            "revisions": self._ledger.deliveries.find(*subscription, delivery.period, limit=BATCHES_SHOWN),
            "table": self._ledger.tables.of_delivery(delivery),
            "native": [item for item in manifests if item.revision == delivery.revision],
            "runs": [(run, delivery) for run in self._ledger.runs.newest(delivery_id=delivery_id)],
            "objects": page[:OBJECTS_SHOWN],
            "more": len(page) > OBJECTS_SHOWN,
            "after": after,
            "find": find,
        }

    def runs(self) -> Sequence[tuple[Run, Delivery | None]]:
        return self._with_deliveries(self._ledger.runs.newest(limit=RUNS_SHOWN))

    def _with_deliveries(self, runs: Iterable[Run]) -> list[tuple[Run, Delivery | None]]:
        return [(run, self._ledger.deliveries.get(run.delivery_id)) for run in runs]

    def search(self, text: str) -> "Hits":
        return search(self._configuration(), self._ledger, text)


HITS_SHOWN = 50  # of each kind
_SUBSCRIPTIONS_SEARCHED = 200  # under whose prefix an object's key could be; with its bucket there is one
_ObjectHit = tuple[Delivery, PlannedObject | None]  # None for a manifest


@dataclass(slots=True)
class Hits:
    """``cut`` is True if there are more than shown."""

    customers: list[Customer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    feeds: list[tuple[Feed, int]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    objects: list[_ObjectHit] = field(default_factory=list)
    cut: bool = False

    def __len__(self) -> int:
        found = (self.customers, self.broken, self.feeds, self.deliveries, self.objects)
        return sum(len(kind) for kind in found)


def search(configuration: Configuration, ledger: Ledger, text: str) -> Hits:
    """Search for customers and feeds in any case, deliveries by their ID, and objects by the start of their
    key, with or without ``s3://bucket/``. Reads only by indexes of the ledger."""
    hits, wanted = Hits(), text.strip()
    if not wanted:
        return hits
    folded = wanted.casefold()
    hits.broken = [name for name in configuration.broken if folded in name]
    hits.customers = [
        item
        for item in configuration.customers.values()
        if folded in _words_of(item) and item.name not in configuration.broken
    ]
    for feed in configuration.feeds.values():
        if folded in feed.name:
            subscribers = sum(feed.name in item.feeds for item in configuration.customers.values())
            hits.feeds.append((feed, subscribers))
    if (delivery := ledger.deliveries.get(wanted)) is not None:
        hits.deliveries.append(delivery)
    hits.objects = list(islice(_objects(configuration, ledger, wanted, hits), HITS_SHOWN + 1))
    for found in (hits.customers, hits.broken, hits.feeds, hits.objects):
        if len(found) > HITS_SHOWN:
            hits.cut = True
            del found[HITS_SHOWN:]
    return hits


def _words_of(customer: Customer) -> str:
    destination = f"s3://{customer.destination.bucket}/{customer.destination.prefix}"
    words = [customer.name, customer.company, customer.external_id, customer.role_arn, destination]
    return "\n".join(words).casefold()


def _objects(configuration: Configuration, ledger: Ledger, text: str, hits: Hits) -> Iterator[_ObjectHit]:
    """Yield objects with keys that start with the text: by its feed and period, it can be in one delivery."""
    bucket, key = None, text
    if match := re.fullmatch(r"s3://([^/]+)/(.*)", text):
        bucket, key = match[1], match[2]
    searched = 0
    for customer in configuration.customers.values():
        destination = customer.destination
        if (bucket is not None and destination.bucket != bucket) or not key.startswith(destination.prefix):
            continue
        feed_name, slash, path = key.removeprefix(destination.prefix).partition("/")
        feed = configuration.feeds.get(feed_name)
        if feed is None or not slash or feed_name not in customer.feeds:
            continue
        searched += 1
        if searched > _SUBSCRIPTIONS_SEARCHED:
            hits.cut = True
            return
        yield from _in_feed(ledger, customer, feed, path, key)


def _in_feed(ledger: Ledger, customer: Customer, feed: Feed, path: str, key: str) -> Iterator[_ObjectHit]:
    if match := re.fullmatch(rf"{MANIFESTS}/([^/]+)/([0-9]+)\.json", path):
        for delivery in ledger.deliveries.find(customer.name, feed.name, match[1], limit=HITS_SHOWN):
            if delivery.manifest_key == key:
                yield delivery, None
        return
    layout = customer.layout(feed)
    period = layout.period_of(path)
    if period is None:
        return
    # a correction has its own directory below the period
    name = re.sub(r"(^|/)_r[0-9]+/", r"\1", path, count=1)
    keeps = layout.keeps_paths and layout.head == layout.directory
    how = {"beginning": name} if keeps else {"containing": name.rpartition("/")[2]}
    for delivery in ledger.deliveries.find(customer.name, feed.name, period.label, limit=HITS_SHOWN):
        for item, _ in ledger.objects.page(delivery.id, **how, limit=HITS_SHOWN + 1):
            if item.key.startswith(key):
                yield delivery, item
