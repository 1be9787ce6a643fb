"""Metrics for Prometheus: health of customers, status of the daemon and the fleet, counters of this process.
There are no histograms and no unbounded labels."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.metadata import version

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from xmode_transfer import telemetry
from xmode_transfer.alerting.health_records import Assessment, CustomerHealth, Health, SubscriptionHealth
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.health import OpenDelivery
from xmode_transfer.model.jobs import JobState, QueueEntry, WorkQueue
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.process import Clock, WorkerRecord
from xmode_transfer.telemetry import Event
from xmode_transfer.web import catalogue as of
from xmode_transfer.web.catalogue import Described
from xmode_transfer.web.facts import Cached, StatusView

KEPT_SECONDS = 5.0  # metrics from the ledger are cached: several Prometheus servers share them


def renderer(
    assessment: Callable[[], Assessment],
    clock: Clock,
    status_view: StatusView,
    counters: "Counters",
    open_alerts: Callable[[], Iterable[str]],
    fleet: WorkQueue | None,
) -> Callable[[], bytes]:
    """Return a function that renders a scrape (Prometheus text format 0.0.4), for any thread. If the ledger
    cannot be read, the text says so and has the metrics that need no ledger."""
    process = _registry(counters.collect, partial(_of_daemon, status_view))

    def of_ledger() -> bytes:
        try:
            found, alerts = assessment(), Counter(open_alerts())
            metrics = [
                of.LEDGER_READABLE.metric(1),
                *_totals(found),
                *(_of_fleet(fleet, clock.now()) if fleet is not None else ()),
                *_of_customers(found),
                of.ALERTS_OPEN.metric(alerts),
            ]
        except XmodeError as error:
            telemetry.warn(Event.METRICS_INCOMPLETE, **error.log_context())
            metrics = [of.LEDGER_READABLE.metric(0)]
        return generate_latest(_Collected(lambda: metrics))

    ledger = Cached(of_ledger, KEPT_SECONDS, clock)
    return lambda: generate_latest(process) + ledger.get()


def of_process(counters: "Counters") -> Callable[[], bytes]:
    """Like ``renderer``, for a worker: metrics of the process alone."""
    return partial(generate_latest, _registry(counters.collect))


@dataclass(frozen=True)
class _Collected(Collector):
    function: Callable[[], Iterable[Metric]]

    def collect(self) -> Iterable[Metric]:
        return self.function()


def _registry(*functions: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    for function in functions:
        registry.register(_Collected(function))
    return registry


class Counters:
    """Counts what this process has done since it started; implements ``Progress``. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Successes and failures start at 0, so that a rate can be computed from the first one.
        self._objects = Counter(delivered=0, failed=0)
        self._bytes = Counter(delivered=0, failed=0)
        self._started = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        with self._lock:
            self._started += 1

    def bytes_sent(self, count: int) -> None:
        """Whole objects are counted instead: parts that are sent again would count twice."""

    def bytes_resumed(self, count: int) -> None:
        pass

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        with self._lock:
            self._objects[outcome] += 1
            self._bytes[outcome] += size

    def delivery_finished(self) -> None:
        pass

    def collect(self) -> Iterator[Metric]:
        yield of.BUILD_INFO.metric({version("xmode-transfer"): 1})
        with self._lock:
            objects, sizes, started = dict(self._objects), dict(self._bytes), self._started
        yield of.OBJECTS.metric(objects)
        yield of.OBJECT_BYTES.metric(sizes)
        yield of.DELIVERIES_STARTED.metric(started)


def _of_daemon(status_view: StatusView) -> Iterator[Metric]:
    status = status_view.status()
    yield of.STARTED.metric(status.started_at.timestamp())
    yield of.TICKED.metric(status.ticked_at.timestamp())
    yield of.STOPPING.metric(status.stopping)
    yield of.SLOTS.metric(status.workers)
    yield of.SLOTS_BUSY.metric(status.busy)
    if status.configuration_loaded_at is not None:
        yield of.CONFIGURATION_LOADED.metric(status.configuration_loaded_at.timestamp())
    yield of.CONFIGURATION_PROBLEMS.metric(len(status.configuration_problems))
    yield of.QUEUE_STATES.metric(_by_state(status_view.jobs()))


def _by_state(entries: Iterable[QueueEntry]) -> dict[str, int]:
    counts = Counter(entry.state for entry in entries)
    return {state: counts[state] for state in JobState}


def _of_fleet(queue: WorkQueue, now: datetime) -> Iterator[Metric]:
    entries = queue.snapshot()
    yield of.FLEET_CUSTOMERS.metric(_by_state(entries))
    # Suspended customers have their own queue, which may be slow.
    queued = [entry.since_at for entry in entries if entry.state is JobState.QUEUED and not entry.reason]
    yield of.FLEET_OLDEST.metric(max(0.0, (now - min(queued, default=now)).total_seconds()))
    workers: dict[str, list[WorkerRecord]] = {"working": [], "troubled": [], "stopping": [], "silent": []}
    for worker in queue.workers():
        if worker.stopped_at is None:
            state = "stopping" if worker.stopping else "troubled" if worker.trouble else "working"
            workers[state if worker.is_alive(now) else "silent"].append(worker)
    yield of.FLEET_WORKERS.metric({state: len(found) for state, found in workers.items()})
    yield of.FLEET_SLOTS.metric(sum(worker.places for worker in workers["working"]))
    # A stopping worker keeps its jobs; those of a silent one are taken over.
    living = [*workers["working"], *workers["troubled"], *workers["stopping"]]
    yield of.FLEET_BUSY.metric(sum(worker.busy for worker in living))
    yield of.FLEET_STALLED.metric(sum(worker.waiting for worker in living))


def _totals(found: Assessment) -> Iterator[Metric]:
    yield of.ASSESSED.metric(found.assessed_at.timestamp())
    if found.ledger_free_bytes is not None:
        yield of.LEDGER_FREE.metric(found.ledger_free_bytes)
    yield of.LEDGER_USED.metric(found.ledger_used_bytes)
    yield of.CUSTOMERS.metric(found.counts)
    unhealthy: set[tuple[str, tuple[str, ...]]] = set()  # a customer counts once for each cause
    warnings: set[tuple[str, tuple[str, ...]]] = set()
    for item in found.customers:
        words = {id(issue): word for part in item.subscriptions for word, issue in part.issues}
        for issue in item.issues:
            word = words.get(id(issue), item.health)
            unhealthy.add((item.customer, (word, issue.cause, issue.responsible)))
        warnings |= {(item.customer, (warning.cause, warning.responsible)) for warning in item.warnings}
    yield of.UNHEALTHY.metric(Counter(labels for _, labels in sorted(unhealthy)))
    yield of.WARNINGS.metric(Counter(labels for _, labels in sorted(warnings)))
    yield of.SERVICE_ISSUES.metric({(warning.cause, warning.responsible): 1 for warning in found.warnings})
    yield of.ORPHANED.metric(sum(item.orphaned.bytes for item in found.customers if item.orphaned))
    parts = [part for item in found.customers for part in item.subscriptions]
    yield of.BACKLOG.metric(sum(left_of(part) for part in parts))
    size, oldest_at = work_of(found)
    yield of.WORK.metric(size)
    waited = found.assessed_at - (oldest_at or found.assessed_at)
    yield of.WORK_OLDEST.metric(max(0.0, waited.total_seconds()))
    held: dict[str, set[str]] = {part.feed: set() for part in parts}
    for part in parts:
        held[part.feed].update(part.quarantined)
    yield of.QUARANTINED.metric({feed: len(names) for feed, names in sorted(held.items())})
    yield of.PERIODS_DUE.metric(sum(part.due_count for part in parts))


def _of_customers(found: Assessment) -> list[Metric]:
    samples: dict[Described, dict[tuple[str, ...], float]] = {
        described: {} for described in of.CATALOGUE if described.labels[:1] == ("customer",)
    }
    for item in found.customers:
        for described, labels, value in _of_customer(item, found.assessed_at):
            samples[described][labels] = value
    return [described.metric(values) for described, values in samples.items()]


def _of_customer(item: CustomerHealth, now: datetime) -> Iterator[tuple[Described, tuple[str, ...], float]]:
    yield of.CUSTOMER_HEALTH, (item.customer, item.health), 1
    if item.orphaned is not None:
        yield of.CUSTOMER_ORPHANED, (item.customer,), item.orphaned.bytes
    for part in item.subscriptions:
        labels = (part.customer, part.feed)
        last = part.last_delivered
        if last is not None and last.delivered_at is not None:
            fresh_at = _end_of(last.period) or last.delivered_at
            yield of.DELIVERED, labels, last.delivered_at.timestamp()
            yield of.DELIVERED_BYTES, labels, last.total_bytes
            yield of.FRESHNESS, labels, max(0.0, (now - fresh_at).total_seconds())
        if part.fresh_until_at is not None:
            yield of.FRESH_UNTIL, labels, part.fresh_until_at.timestamp()
        if part.due_count:
            yield of.SUBSCRIPTION_DUE, labels, part.due_count
        if part.open:
            yield of.SUBSCRIPTION_OPEN, labels, len(part.open)
            yield of.SUBSCRIPTION_BACKLOG, labels, left_of(part)


@lru_cache(maxsize=10_000)
def _end_of(label: str) -> datetime | None:
    """Return when the period ended in UTC; None for a drop folder: its period never ends."""
    period = period_labelled(label)
    if period is None or period.kind is PeriodKind.NONE:
        return None
    return period.end.replace(tzinfo=UTC)


_NOT_WORKABLE = frozenset({Health.BROKEN, Health.BLOCKED, Health.PENDING, Health.RETIRED})


def left_of(part: SubscriptionHealth) -> int:
    """Return the bytes left to send in a subscription's started deliveries."""
    return sum(max(0, item.delivery.total_bytes - item.sent_bytes) for item in _sendable(part))


def _sendable(part: SubscriptionHealth) -> list[OpenDelivery]:
    return [item for item in part.open if item.delivery.period not in part.quarantined]


def work_of(found: Assessment) -> tuple[int, datetime | None]:
    """Return the bytes that workers could send now, and since when the oldest of that work has waited. A due
    period is estimated by the subscription's newest delivery, or the feed's average over all customers."""
    parts = [(customer, part) for customer in found.customers for part in customer.subscriptions]
    sizes: dict[str, list[int]] = defaultdict(list)
    for _, part in parts:
        if part.last_delivered is not None:
            sizes[part.feed].append(part.last_delivered.total_bytes)
    usual = {feed: sum(each) / len(each) for feed, each in sizes.items()}
    size, waiting_since = 0, []
    for customer, part in parts:
        if customer.health in _NOT_WORKABLE or part.health is Health.FAILING:
            continue
        last = part.last_delivered
        each = usual.get(part.feed, 0.0) if last is None else last.total_bytes
        size += left_of(part) + round(part.due_count * each)
        if part.due and part.scan is not None and part.scan.due_since_at is not None:
            waiting_since.append(part.scan.due_since_at)
        waiting_since += [item.since_at for item in _sendable(part)]
    return size, min(waiting_since, default=None)
