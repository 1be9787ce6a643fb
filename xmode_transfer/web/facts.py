"""Data for the pages, read from the ledger, the configuration in use and the daemon's status. Only this
module knows the sources of the data; the pages lay it out.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, Protocol

from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.alerting.health import assess
from xmode_transfer.alerting.health_records import Assessment, CustomerHealth
from xmode_transfer.aws.denials import facts_of
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.config.times import deadlines_of
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.alerts import Alert
from xmode_transfer.model.findings import AccessReport, Finding
from xmode_transfer.model.jobs import QueueEntry
from xmode_transfer.model.operations import OperationRecord
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Delivery, PlannedObject, Receipt, Run
from xmode_transfer.model.source_scans import Snapshot
from xmode_transfer.web.calendar import FeedRecord, Sheet, sheets, window
from xmode_transfer.web.search import Hits, search


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The daemon's own health.

    ``ticked_at`` is the time of the last tick; if it is older than a few ticks, the daemon hangs.
    ``workers`` is the number of slots, ``busy`` the number of slots in use. ``configuration_problems`` has
    one line for each mistake in the files on disk; the last valid configuration stays in use meanwhile.
    """

    started_at: datetime
    ticked_at: datetime
    stopping: bool
    workers: int
    busy: int
    configuration_loaded_at: datetime
    configuration_problems: tuple[str, ...] = ()


class StatusView(Protocol):
    """Any thread may read it at any time. It returns copies and never blocks."""

    def jobs(self) -> Sequence[QueueEntry]:
        """Return the queue entry of each active customer, by name."""
        ...

    def status(self) -> DaemonStatus: ...


KEPT_SECONDS = 3.0
"""How long an assessment is shared by all viewers."""
OBJECTS_SHOWN = 100
RUNS_SHOWN = 50
FEW = 12
BATCHES_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Moment:
    """The health of every customer at one moment. Without a daemon there are no ``jobs`` and no
    ``status``."""

    at: datetime
    configuration: Configuration
    snapshot: Snapshot
    assessment: Assessment
    alerts: Sequence[Alert] = ()
    jobs: Mapping[str, QueueEntry] = field(default_factory=dict)
    status: DaemonStatus | None = None


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run and its delivery."""

    run: Run
    delivery: Delivery | None

    @property
    def bytes_per_second(self) -> float | None:
        """Average throughput; None if it sent nothing or is not finished."""
        return self.run.bytes / self.run.seconds if self.run.bytes and self.run.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Batches:
    """A drop folder's newest deliveries, old to new: each is a revision of its one period."""

    feed: str
    deliveries: tuple[Delivery, ...]


class CustomerFacts(NamedTuple):
    """Everything about one customer. ``customer`` is None if its file is invalid."""

    health: CustomerHealth
    customer: Customer | None
    job: QueueEntry | None
    sheets: tuple[Sheet, ...]
    batches: tuple[Batches, ...]
    deliveries: Sequence[Delivery]
    runs: Sequence[ShownRun]
    check: AccessReport | None
    acts: Sequence[OperationRecord]


class DeliveryFacts(NamedTuple):
    """One delivery: its revisions (newest first), its runs, and one page of its objects. ``more`` is True
    when others follow; ``after`` and ``find`` are the page's query."""

    delivery: Delivery
    customer: Customer | None
    revisions: Sequence[Delivery]
    runs: Sequence[ShownRun]
    objects: Sequence[tuple[PlannedObject, Receipt | None]]
    more: bool
    after: str
    find: str


class Facts:
    """Thread-safe. Every method may raise a LedgerError."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        configuration: Callable[[], Configuration],
        status_view: StatusView | None,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._configuration = configuration
        self._status_view = status_view
        self._lock = threading.Lock()
        self._known: tuple[float, Moment] | None = None

    def moment(self) -> Moment:
        """Return the health of every customer, at most a few seconds old."""
        with self._lock:
            now = self._clock.monotonic()
            if self._known is None or now - self._known[0] > KEPT_SECONDS:
                self._known = now, self._assess()
            return self._known[1]

    def _assess(self) -> Moment:
        configuration = self._configuration()
        snapshot = self._ledger.snapshot()
        at = self._clock.now()
        assessment = assess(configuration, snapshot, at)
        alerts = self._ledger.alerts.known()
        if self._status_view is None:
            return Moment(at, configuration, snapshot, assessment, alerts)
        jobs = {entry.customer: entry for entry in self._status_view.jobs()}
        return Moment(at, configuration, snapshot, assessment, alerts, jobs, self._status_view.status())

    def customer(self, name: str, back: int = 0) -> CustomerFacts | None:
        """Return None if the customer is not configured. ``back`` is how many calendar pages to go back."""
        moment = self.moment()
        health = moment.assessment.customer(name)
        if health is None:
            return None
        customer = None if name in moment.configuration.broken else moment.configuration.customers.get(name)
        feeds = self._feeds(moment, customer)
        return CustomerFacts(
            health=health,
            customer=customer,
            job=moment.jobs.get(name),
            sheets=tuple(self._sheets(moment, customer, feeds, back)) if customer else (),
            batches=tuple(
                Batches(
                    feed.name,
                    tuple(reversed(self._ledger.deliveries.find(name, feed.name, limit=BATCHES_SHOWN))),
                )
                for feed in feeds
                if feed.period is PeriodKind.NONE
            ),
            deliveries=self._ledger.deliveries.find(name, limit=FEW),
            runs=self._with_deliveries(self._ledger.runs.newest(name, limit=FEW)),
            check=self.access(name),
            acts=self._ledger.operations.newest(name, limit=FEW),
        )

    def access(self, name: str) -> AccessReport | None:
        """Return the last access check of a customer, with its fixes rebuilt from the causes."""
        report = self._ledger.checks.last(name)
        configuration = self._configuration()
        customer = configuration.customers.get(name)
        if report is None or customer is None:
            return report
        region = self._ledger.checks.capabilities(name).region
        known = facts_of(customer, configuration.service.vendor.principal_arn, region=region)

        def with_fix(item: Finding) -> Finding:
            if item.cause is None:
                return item
            return replace(item, fix=finding(Cause(item.cause), item.probe, known).fix)

        return replace(report, findings=tuple(with_fix(item) for item in report.findings))

    def delivery(self, delivery_id: str, after: str = "", find: str = "") -> DeliveryFacts | None:
        """Return None if the delivery does not exist."""
        delivery = self._ledger.deliveries.get(delivery_id)
        if delivery is None:
            return None
        page = self._ledger.objects.page(delivery_id, after=after, containing=find, limit=OBJECTS_SHOWN + 1)
        return DeliveryFacts(
            delivery=delivery,
            customer=self._configuration().customers.get(delivery.customer),
            revisions=self._ledger.deliveries.find(
                delivery.customer, delivery.feed, delivery.period, limit=BATCHES_SHOWN
            ),
            runs=[ShownRun(run, delivery) for run in self._ledger.runs.newest(delivery_id=delivery_id)],
            objects=page[:OBJECTS_SHOWN],
            more=len(page) > OBJECTS_SHOWN,
            after=after,
            find=find,
        )

    def runs(self) -> Sequence[ShownRun]:
        """Return the newest runs of all customers."""
        return self._with_deliveries(self._ledger.runs.newest(limit=RUNS_SHOWN))

    def search(self, text: str) -> Hits:
        """Search for a text."""
        return search(self._configuration(), self._ledger, text)

    def _with_deliveries(self, runs: Iterable[Run]) -> list[ShownRun]:
        return [ShownRun(run, self._ledger.deliveries.get(run.delivery_id)) for run in runs]

    @staticmethod
    def _feeds(moment: Moment, customer: Customer | None) -> list[Feed]:
        known = moment.configuration.feeds
        return [known[name] for name in customer.feeds if name in known] if customer else []

    def _sheets(
        self, moment: Moment, customer: Customer, feeds: Sequence[Feed], back: int
    ) -> Iterable[Sheet]:
        records = []
        for feed in feeds:
            if feed.period is PeriodKind.NONE:
                continue
            oldest = window(feed.period, moment.at, back)[0].label
            records.append(
                FeedRecord(
                    feed.name,
                    deadlines_of(customer, feed),
                    {
                        delivery.period: delivery
                        for delivery in self._ledger.deliveries.calendar(customer.name, feed.name, oldest)
                    },
                    moment.snapshot.scans.get((customer.name, feed.name)),
                    self._ledger.sources.passed_over(customer.name, feed.name),
                    customer.state is CustomerState.ACTIVE,
                )
            )
        return sheets(records, moment.at, back)
