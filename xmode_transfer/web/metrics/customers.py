"""Metrics of customers, from one assessment."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from xmode_transfer import telemetry
from xmode_transfer.alerting.backlog import left_of, work_of
from xmode_transfer.alerting.health import Assessment, CustomerHealth, SubscriptionHealth
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import Event
from xmode_transfer.web.metrics import catalogue as of
from xmode_transfer.web.metrics.catalogue import Described, alone, counted, labelled
from xmode_transfer.web.metrics.fleet import FleetMetrics

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
