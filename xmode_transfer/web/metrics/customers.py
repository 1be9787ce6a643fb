"""Metrics of customers, from one assessment."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from xmode_transfer import telemetry
from xmode_transfer.alerting.health_records import Assessment, CustomerHealth, Health, SubscriptionHealth
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.jobs import JobState, QueueEntry, WorkerRecord, WorkQueue
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import Event
from xmode_transfer.web.metrics import catalogue as of
from xmode_transfer.web.metrics.catalogue import (
    FLEET_BUSY,
    FLEET_CUSTOMERS,
    FLEET_OLDEST,
    FLEET_SLOTS,
    FLEET_WAITING,
    FLEET_WORKERS,
    Described,
    alone,
    counted,
    labelled,
)

_WORKING, _TROUBLED, _STOPPING, _SILENT = "working", "troubled", "stopping", "silent"


class FleetMetrics:
    """Metrics of a fleet."""

    def __init__(self, queue: WorkQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Raises LedgerError."""
        yield from self._of_customers(self._queue.snapshot())
        yield from self._of_workers(self._queue.workers())

    def _of_customers(self, entries: list[QueueEntry]) -> Iterator[Metric]:
        states = Counter(entry.state for entry in entries)
        yield counted(FLEET_CUSTOMERS, {str(state): states[state] for state in JobState})
        now = self._clock.now()
        # Suspended customers have their own queue, which may be slow.
        queued = [entry.since_at for entry in entries if entry.state is JobState.QUEUED and not entry.reason]
        yield alone(FLEET_OLDEST, max(0.0, (now - min(queued, default=now)).total_seconds()))

    def _of_workers(self, workers: list[WorkerRecord]) -> Iterator[Metric]:
        known = [(self._state(worker), worker) for worker in workers if worker.stopped_at is None]
        states = Counter(state for state, _ in known)
        yield counted(
            FLEET_WORKERS, {state: states[state] for state in (_WORKING, _TROUBLED, _STOPPING, _SILENT)}
        )
        working = [worker for state, worker in known if state == _WORKING]
        yield alone(FLEET_SLOTS, sum(worker.places for worker in working))
        # A stopping worker keeps its jobs; those of a silent one are taken over.
        living = [worker for state, worker in known if state != _SILENT]
        yield alone(FLEET_BUSY, sum(worker.busy for worker in living))
        yield alone(FLEET_WAITING, sum(worker.waiting for worker in living))

    def _state(self, worker: WorkerRecord) -> str:
        if not worker.is_alive(self._clock.now()):
            return _SILENT
        if worker.stopping:
            return _STOPPING
        return _TROUBLED if worker.trouble else _WORKING


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
    if part.due and part.scan is not None and part.scan.due_since_at is not None:
        yield part.scan.due_since_at
    yield from (item.since_at for item in part.open)


KEPT_SECONDS = 5.0
"""How long an assessment is cached, so that several Prometheus servers share it."""


class CustomerMetrics:
    """All metrics from the ledger, rendered once per assessment."""

    def __init__(
        self,
        assessment: Callable[[], Assessment],
        clock: Clock,
        open_alerts: Callable[[], Iterable[str]] | None,
        fleet: FleetMetrics | None,
    ) -> None:
        self._assessment = assessment
        self._clock = clock
        self._open_alerts = open_alerts
        self._fleet = fleet
        self._lock = threading.Lock()
        self._kept: tuple[float, bytes] | None = None

    def render(self) -> bytes:
        with self._lock:
            now = self._clock.monotonic()
            if self._kept is None or now - self._kept[0] >= KEPT_SECONDS:
                text = self._rendered()
                self._kept = self._clock.monotonic(), text
            return self._kept[1]

    def _rendered(self) -> bytes:
        try:
            found = self._assessment()
            alerts = Counter(self._open_alerts()) if self._open_alerts is not None else None
            fleet = list(self._fleet.collect()) if self._fleet is not None else []
        except XmodeError as error:
            telemetry.warn(Event.METRICS_INCOMPLETE, **error.log_context())
            return _text([alone(of.LEDGER_READABLE, 0)])
        families = [alone(of.LEDGER_READABLE, 1), *_together(found), *fleet, *_each(found)]
        if alerts is not None:
            families.append(counted(of.ALERTS_OPEN, alerts))
        return _text(families)


def _together(found: Assessment) -> Iterator[Metric]:
    yield alone(of.ASSESSED, found.assessed_at.timestamp())
    if found.ledger_free_bytes is not None:
        yield alone(of.LEDGER_FREE, found.ledger_free_bytes)
    yield alone(of.LEDGER_USED, found.ledger_used_bytes)
    yield counted(of.CUSTOMERS, {str(word): count for word, count in found.counts.items()})
    unhealthy: set[tuple[str, tuple[str, ...]]] = set()
    warnings: set[tuple[str, tuple[str, ...]]] = set()
    for item in found.customers:
        words = {id(part.issue): part.health for part in item.subscriptions}
        for issue in item.issues:
            word = words.get(id(issue), item.health)
            unhealthy.add((item.customer, (str(word), issue.cause, str(issue.responsible))))
        for warning in item.warnings:
            warnings.add((item.customer, (warning.cause, str(warning.responsible))))
    yield labelled(of.UNHEALTHY, Counter(labels for _, labels in unhealthy))
    yield labelled(of.WARNINGS, Counter(labels for _, labels in warnings))
    yield labelled(
        of.SERVICE_ISSUES, {(warning.cause, str(warning.responsible)): 1 for warning in found.warnings}
    )
    yield alone(of.LEFT_BEHIND, sum(item.left_behind.bytes for item in found.customers if item.left_behind))
    parts = [part for item in found.customers for part in item.subscriptions]
    yield alone(of.BACKLOG, sum(left_of(part) for part in parts))
    yield from _work(found)
    yield alone(of.PERIODS_DUE, sum(part.due_count for part in parts))


def _each(found: Assessment) -> list[Metric]:
    families = {
        item: item.family()
        for item in (
            of.CUSTOMER_HEALTH,
            of.CUSTOMER_LEFT_BEHIND,
            of.DELIVERED,
            of.FRESHNESS,
            of.FRESH_UNTIL,
            of.DELIVERED_BYTES,
            of.SUBSCRIPTION_DUE,
            of.SUBSCRIPTION_OPEN,
            of.SUBSCRIPTION_BACKLOG,
        )
    }
    for customer in found.customers:
        for described, labels, value in _of_customer(customer, found.assessed_at):
            families[described].add_metric(labels, value)  # type: ignore[attr-defined]
    return list(families.values())


class _Fixed(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _text(families: list[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(families))
    return generate_latest(registry)


_Sample = tuple[Described, tuple[str, ...], float]


def _of_customer(item: CustomerHealth, now: datetime) -> Iterator[_Sample]:
    yield of.CUSTOMER_HEALTH, (item.customer, str(item.health)), 1
    if item.left_behind is not None:
        yield of.CUSTOMER_LEFT_BEHIND, (item.customer,), item.left_behind.bytes
    for part in item.subscriptions:
        yield from _of_subscription(part, now)


def _of_subscription(part: SubscriptionHealth, now: datetime) -> Iterator[_Sample]:
    labels = (part.customer, part.feed)
    last = part.last_delivered
    if last is not None and last.delivered_at is not None:
        yield of.DELIVERED, labels, last.delivered_at.timestamp()
        yield of.DELIVERED_BYTES, labels, last.total_bytes
        yield (
            of.FRESHNESS,
            labels,
            max(0.0, (now - (_end_of(last.period) or last.delivered_at)).total_seconds()),
        )
    if part.fresh_until_at is not None:
        yield of.FRESH_UNTIL, labels, part.fresh_until_at.timestamp()
    if part.due_count:
        yield of.SUBSCRIPTION_DUE, labels, part.due_count
    if part.open:
        yield of.SUBSCRIPTION_OPEN, labels, len(part.open)
        yield of.SUBSCRIPTION_BACKLOG, labels, left_of(part)


def _work(found: Assessment) -> Iterator[Metric]:
    work = work_of(found)
    yield alone(of.WORK, work.bytes)
    waited = 0.0 if work.oldest_at is None else (found.assessed_at - work.oldest_at).total_seconds()
    yield alone(of.WORK_OLDEST, max(0.0, waited))


@lru_cache(maxsize=10_000)
def _end_of(label: str) -> datetime | None:
    """When the period ended, by the calendar in UTC; None for a drop folder, whose period never ends."""
    period = period_labelled(label)
    if period is None or period.kind is PeriodKind.NONE:
        return None
    return period.end.replace(tzinfo=UTC)
