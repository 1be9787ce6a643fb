"""What Prometheus scrapes: how everybody fares by the one evaluator, how the daemon fares, and what this
process has sent. docs/metrics.md has a row for each; names, units and labels are public.

There are few series: one a customer for its health, four for each of its feeds, and further ones only where
there is something to tell of. Nothing here has a histogram, and nothing a label without bounds.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import XmodeError
from xmode_transfer.domain.health import Assessment, CustomerHealth, SubscriptionHealth
from xmode_transfer.domain.periods import PeriodKind, period_labelled
from xmode_transfer.ports import Clock
from xmode_transfer.ports.board import Board, TurnState
from xmode_transfer.telemetry import Event

KEPT_SECONDS = 5.0
"""Several servers that scrape at the same time share one evaluation."""


@dataclass(frozen=True, slots=True)
class Described:
    """One metric: its name as Prometheus stores it, what it says, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        return self.name.endswith("_total")

    def family(self) -> Metric:
        if self.is_counter:
            return CounterMetricFamily(self.name.removesuffix("_total"), self.help, labels=self.labels)
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)


_SUBSCRIPTION = ("customer", "feed")

BUILD_INFO = Described("xmode_build_info", "Always 1; which version runs.", ("version",))
ASSESSED = Described("xmode_assessed_timestamp_seconds", "When the ledger was last evaluated.")
LEDGER_READABLE = Described("xmode_ledger_readable", "1 while the ledger can be evaluated, else 0.")
LEDGER_FREE = Described("xmode_ledger_free_bytes", "Room left on the ledger's disk.")
LEDGER_USED = Described("xmode_ledger_used_bytes", "Room that the ledger takes.")
CUSTOMERS = Described("xmode_customers", "Customers by health.", ("health",))
TROUBLED = Described(
    "xmode_customers_troubled",
    "Customers that something keeps from being delivered to, by the word and the cause.",
    ("health", "cause", "party"),
)
CARES = Described(
    "xmode_customers_with_care",
    "Customers with something to look after that stops no delivery yet, by cause.",
    ("cause", "party"),
)
SERVICE_TROUBLES = Described(
    "xmode_service_trouble", "1 for each trouble of the service as a whole.", ("cause", "party")
)
ALERTS_OPEN = Described("xmode_alerts_open", "Open alerts by cause.", ("cause",))
LEFT_BEHIND = Described(
    "xmode_left_behind_bytes", "Parts of uploads that we may not abort, in all customers' buckets."
)
BACKLOG = Described("xmode_backlog_bytes", "Bytes of the deliveries that are planned and not delivered.")
PERIODS_DUE = Described(
    "xmode_periods_due", "Complete periods that wait to be delivered, of all active customers."
)

CUSTOMER_HEALTH = Described(
    "xmode_customer_health", "Always 1; the customer's health is the label.", ("customer", "health")
)
CUSTOMER_LEFT_BEHIND = Described(
    "xmode_customer_left_behind_bytes", "Parts left behind, where there are some.", ("customer",)
)
DELIVERED = Described(
    "xmode_subscription_delivered_timestamp_seconds",
    "When the newest period was delivered.",
    _SUBSCRIPTION,
)
FRESHNESS = Described(
    "xmode_subscription_freshness_seconds",
    "How old the customer's newest data is: since the end of the newest delivered period.",
    _SUBSCRIPTION,
)
FRESH_UNTIL = Described(
    "xmode_subscription_fresh_until_timestamp_seconds",
    "By when the next period is to be delivered.",
    _SUBSCRIPTION,
)
DELIVERED_BYTES = Described(
    "xmode_subscription_delivered_bytes", "What the newest delivery holds.", _SUBSCRIPTION
)
SUBSCRIPTION_DUE = Described(
    "xmode_subscription_periods_due", "Complete periods that wait, where there are some.", _SUBSCRIPTION
)
SUBSCRIPTION_OPEN = Described(
    "xmode_subscription_deliveries_open", "Deliveries that were begun, where there are some.", _SUBSCRIPTION
)
SUBSCRIPTION_BACKLOG = Described(
    "xmode_subscription_backlog_bytes", "What those that were begun hold in all, where known.", _SUBSCRIPTION
)

STARTED = Described("xmode_daemon_started_timestamp_seconds", "When this daemon was started.")
TICKED = Described("xmode_daemon_ticked_timestamp_seconds", "When its clock last ticked.")
STOPPING = Described("xmode_daemon_stopping", "1 while it ends what it does and takes nothing new, else 0.")
WORKERS = Described("xmode_daemon_workers", "How many customers it can deliver to at once.")
BUSY = Described("xmode_daemon_workers_busy", "How many it is delivering to: deliveries in flight.")
TURNS = Described("xmode_daemon_customers", "Active customers by where they stand in its round.", ("state",))
CONFIGURATION_LOADED = Described(
    "xmode_configuration_loaded_timestamp_seconds", "When the configuration that is in use was read."
)
CONFIGURATION_PROBLEMS = Described(
    "xmode_configuration_problems", "Mistakes in the files as they are on disk now."
)

OBJECTS = Described(
    "xmode_objects_total", "Objects that this process was done with, by what became of them.", ("outcome",)
)
OBJECT_BYTES = Described(
    "xmode_object_bytes_total", "Bytes of the objects that this process was done with.", ("outcome",)
)
BEGUN = Described("xmode_deliveries_begun_total", "Deliveries and cleanups that this process has begun.")

CATALOGUE: tuple[Described, ...] = tuple(item for item in list(globals().values()) if type(item) is Described)


class Counters:
    """What this process has done since it started: a ``Progress`` to hand to its workbench. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._begun = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        with self._lock:
            self._begun += 1

    def bytes_sent(self, count: int) -> None:
        """Whole objects are counted instead: parts that are sent anew would count twice."""

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        with self._lock:
            self._objects[outcome] += 1
            self._bytes[outcome] += size

    def delivery_finished(self) -> None:
        pass

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            objects, sizes, begun = dict(self._objects), dict(self._bytes), self._begun
        # What goes well is there from the start, so that a rate can be made of the first.
        yield _counted(OBJECTS, {"delivered": 0, "failed": 0} | objects)
        yield _counted(OBJECT_BYTES, {"delivered": 0, "failed": 0} | sizes)
        yield _alone(BEGUN, begun)


def renderer(
    assessment: Callable[[], Assessment],
    clock: Clock,
    board: Board | None = None,
    counters: Counters | None = None,
    open_alerts: Callable[[], Iterable[str]] | None = None,
) -> Callable[[], bytes]:
    """What answers the text for a scrape (Prometheus text format 0.0.4), from any thread.

    ``assessment`` is called for it, at most once in five seconds; when the ledger cannot be read, the text
    says that and what is known without it. ``open_alerts`` answers the cause of each open alert.
    """
    process = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=process)
    PlatformCollector(registry=process)
    process.register(_Process(board, counters))
    everybody = _Everybody(assessment, clock, open_alerts)

    def render() -> bytes:
        return generate_latest(process) + everybody.render()

    return render


class _Process(Collector):
    """This process, from memory: asked anew at each scrape."""

    def __init__(self, board: Board | None, counters: Counters | None) -> None:
        self._board = board
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield _counted(BUILD_INFO, {version("xmode-transfer"): 1})
        if self._counters is not None:
            yield from self._counters.collect()
        if self._board is None:
            return
        pulse = self._board.pulse()
        yield _alone(STARTED, pulse.started_at.timestamp())
        yield _alone(TICKED, pulse.ticked_at.timestamp())
        yield _alone(STOPPING, pulse.stopping)
        yield _alone(WORKERS, pulse.workers)
        yield _alone(BUSY, pulse.busy)
        yield _alone(CONFIGURATION_LOADED, pulse.configuration_loaded_at.timestamp())
        yield _alone(CONFIGURATION_PROBLEMS, len(pulse.configuration_problems))
        standing = Counter(str(turn.state) for turn in self._board.turns())
        yield _counted(TURNS, {str(state): standing[state] for state in TurnState})


class _Everybody:
    """All that comes from the ledger, rendered once for each evaluation."""

    def __init__(
        self,
        assessment: Callable[[], Assessment],
        clock: Clock,
        open_alerts: Callable[[], Iterable[str]] | None,
    ) -> None:
        self._assessment = assessment
        self._clock = clock
        self._open_alerts = open_alerts
        self._turn = threading.Lock()
        self._kept: tuple[float, bytes] | None = None

    def render(self) -> bytes:
        with self._turn:
            now = self._clock.monotonic()
            if self._kept is None or now - self._kept[0] >= KEPT_SECONDS:
                text = self._rendered()
                self._kept = self._clock.monotonic(), text
            return self._kept[1]

    def _rendered(self) -> bytes:
        try:
            found = self._assessment()
            alerts = Counter(self._open_alerts()) if self._open_alerts is not None else None
        except XmodeError as error:
            telemetry.warn(Event.METRICS_INCOMPLETE, **error.log_context())
            return _text([_alone(LEDGER_READABLE, 0)])
        families = [_alone(LEDGER_READABLE, 1), *_fleet(found), *_each(found)]
        if alerts is not None:
            families.append(_counted(ALERTS_OPEN, alerts))
        return _text(families)


def _fleet(found: Assessment) -> Iterator[Metric]:
    yield _alone(ASSESSED, found.assessed_at.timestamp())
    if found.ledger_free_bytes is not None:
        yield _alone(LEDGER_FREE, found.ledger_free_bytes)
    yield _alone(LEDGER_USED, found.ledger_used_bytes)
    yield _counted(CUSTOMERS, {str(word): count for word, count in found.counts.items()})
    troubled: set[tuple[str, tuple[str, ...]]] = set()
    cares: set[tuple[str, tuple[str, ...]]] = set()
    for item in found.customers:
        words = {id(part.trouble): part.health for part in item.subscriptions}
        for trouble in item.troubles:
            word = words.get(id(trouble), item.health)
            troubled.add((item.customer, (str(word), trouble.cause, str(trouble.party))))
        cares |= {(item.customer, (care.cause, str(care.party))) for care in item.cares}
    yield _labelled(TROUBLED, Counter(labels for _, labels in troubled))
    yield _labelled(CARES, Counter(labels for _, labels in cares))
    yield _labelled(SERVICE_TROUBLES, {(care.cause, str(care.party)): 1 for care in found.cares})
    yield _alone(LEFT_BEHIND, sum(item.left_behind.bytes for item in found.customers if item.left_behind))
    parts = [part for item in found.customers for part in item.subscriptions]
    yield _alone(BACKLOG, sum(_backlog_bytes(part) for part in parts))
    yield _alone(PERIODS_DUE, sum(part.due_count for part in parts))


def _each(found: Assessment) -> list[Metric]:
    families = {
        item: item.family()
        for item in (
            CUSTOMER_HEALTH,
            CUSTOMER_LEFT_BEHIND,
            DELIVERED,
            FRESHNESS,
            FRESH_UNTIL,
            DELIVERED_BYTES,
            SUBSCRIPTION_DUE,
            SUBSCRIPTION_OPEN,
            SUBSCRIPTION_BACKLOG,
        )
    }
    for customer in found.customers:
        for described, labels, value in _of_customer(customer, found.assessed_at):
            families[described].add_metric(labels, value)  # type: ignore[attr-defined]
    return list(families.values())


_Sample = tuple[Described, tuple[str, ...], float]


def _of_customer(item: CustomerHealth, now: datetime) -> Iterator[_Sample]:
    yield CUSTOMER_HEALTH, (item.customer, str(item.health)), 1
    if item.left_behind is not None:
        yield CUSTOMER_LEFT_BEHIND, (item.customer,), item.left_behind.bytes
    for part in item.subscriptions:
        yield from _of_subscription(part, now)


def _of_subscription(part: SubscriptionHealth, now: datetime) -> Iterator[_Sample]:
    labels = (part.customer, part.feed)
    last = part.last_delivered
    if last is not None and last.delivered_at is not None:
        yield DELIVERED, labels, last.delivered_at.timestamp()
        yield DELIVERED_BYTES, labels, last.total_bytes
        yield FRESHNESS, labels, max(0.0, (now - (_end_of(last.period) or last.delivered_at)).total_seconds())
    if part.fresh_until_at is not None:
        yield FRESH_UNTIL, labels, part.fresh_until_at.timestamp()
    if part.due_count:
        yield SUBSCRIPTION_DUE, labels, part.due_count
    if part.open:
        yield SUBSCRIPTION_OPEN, labels, len(part.open)
        yield SUBSCRIPTION_BACKLOG, labels, _backlog_bytes(part)


def _backlog_bytes(part: SubscriptionHealth) -> int:
    return sum(item.delivery.total_bytes for item in part.open)


@lru_cache(maxsize=10_000)
def _end_of(label: str) -> datetime | None:
    """When the period ended, by the calendar in UTC; None for a drop folder, whose period never ends."""
    period = period_labelled(label)
    if period is None or period.kind is PeriodKind.NONE:
        return None
    return period.end.replace(tzinfo=UTC)


def _alone(described: Described, value: float) -> Metric:
    family = described.family()
    family.add_metric((), value)  # type: ignore[attr-defined]
    return family


def _counted(described: Described, values: Mapping[str, int]) -> Metric:
    """One sample for each value of the only label."""
    return _labelled(described, {(label,): value for label, value in values.items()})


def _labelled(described: Described, values: Mapping[tuple[str, ...], int]) -> Metric:
    family = described.family()
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


class _Fixed(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _text(families: list[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(families))
    return generate_latest(registry)
