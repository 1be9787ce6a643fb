"""Assessment of each subscription by its records."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from xmode_transfer.alerting import health_records
from xmode_transfer.alerting.health_records import (
    GRAVITY,
    Assessment,
    CustomerHealth,
    Health,
    Issue,
    SubscriptionHealth,
    worst,
)
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.config.times import Deadlines, deadlines_of
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import UNSAFE
from xmode_transfer.model.health import OpenDelivery, Snapshot, SourceScan
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Capabilities, Delivery, Status
from xmode_transfer.model.upkeep import free_unfinished_uploads


def assess(configuration: Configuration, snapshot: Snapshot, now: datetime) -> Assessment:
    """Assess all configured customers."""
    judge = _Judge(snapshot, now)
    names = sorted({*configuration.customers, *configuration.broken})
    customers = [
        health_records.broken(configuration, name, now)
        if name in configuration.broken
        else judge.customer(configuration, configuration.customers[name])
        for name in names
    ]
    return Assessment(
        now,
        tuple(customers),
        tuple(health_records.warnings_of_service(snapshot, now)),
        snapshot.free_bytes,
        snapshot.used_bytes,
        snapshot.daemon,
    )


class _Judge:
    """One evaluation, which caches what subscriptions share."""

    def __init__(self, snapshot: Snapshot, now: datetime) -> None:
        self._snapshot = snapshot
        self._now = now
        self._expected: dict[Deadlines, Period | None] = {}
        self._fresh: dict[tuple[Deadlines, str], datetime | None] = {}

    def customer(self, configuration: Configuration, customer: Customer) -> CustomerHealth:
        name = customer.name
        known: dict[str, Any] = {
            "capabilities": self._snapshot.capabilities.get(name, Capabilities()),
            "left_behind": self._snapshot.orphaned.get(name),
            "check": self._snapshot.checks.get(name),
        }
        left = self._snapshot.orphaned.get(name)
        if left is not None and left.kept:
            known["lifecycle_rule"] = free_unfinished_uploads(customer.destination.prefix)
        active = customer.state is CustomerState.ACTIVE
        feeds = [configuration.feeds[feed] for feed in customer.feeds if feed in configuration.feeds]
        subscriptions = tuple(self._subscription(customer, feed, active=active) for feed in feeds)
        if not active:
            word = Health.PENDING if customer.state is CustomerState.PENDING else Health.RETIRED
            return CustomerHealth(name, customer.company, word, subscriptions=subscriptions, **known)
        unhealthy = sorted(
            (item for item in subscriptions if item.issue), key=lambda item: GRAVITY.index(item.health)
        )
        issues = tuple(item.issue for item in unhealthy if item.issue)
        words = [item.health for item in subscriptions]
        cleanup = self._snapshot.cleanups.get(name)
        if self._snapshot.discrepancies.get(name) or (cleanup and cleanup.outcome == "blocked"):
            words.append(Health.ATTENTION)
        return CustomerHealth(
            name,
            customer.company,
            worst(words),
            issues,
            tuple(self._warnings(name, known.get("lifecycle_rule"), issues)),
            subscriptions,
            **known,
        )

    # --- One subscription

    def _subscription(self, customer: Customer, feed: Feed, *, active: bool) -> SubscriptionHealth:
        key = (customer.name, feed.name)
        look = self._snapshot.scans.get(key)
        last = self._snapshot.delivered.get(key)
        begun = self._snapshot.open.get(key, ())
        labels = {item.delivery.period for item in begun}
        due = tuple(label for label in look.due if label not in labels) if look else ()
        due_count = max(look.due_count - (len(look.due) - len(due)), len(due)) if look else 0
        deadlines = deadlines_of(customer, feed)
        word, issue, overdue = Health.HEALTHY, None, None
        if active:
            passed = self._snapshot.skipped.get(key)
            overdue = self._late(feed, deadlines, look, last, begun, due, passed)
            word, issue = _verdict(feed, look, begun, due, overdue)
        return SubscriptionHealth(
            customer.name,
            feed.name,
            word,
            issue,
            last,
            begun,
            due,
            due_count,
            look,
            self._fresh_until(feed, deadlines, last.period) if active and last else None,
            overdue,
            self._snapshot.not_attested.get(key, 0),
        )

    def _late(
        self,
        feed: Feed,
        deadlines: Deadlines,
        look: SourceScan | None,
        last: Delivery | None,
        begun: Sequence[OpenDelivery],
        due: Sequence[str],
        passed: str | None,
    ) -> Issue | None:
        missing = self._missing(feed, deadlines, last, look, passed)
        if missing is not None:
            period, since_at = missing
            return health_records.missed(feed, period, since_at, look, begun, due)
        # A late older period, or a correction: by when it was first seen.
        waiting = [(item.delivery.period, item.since_at) for item in begun]
        if due and look is not None and look.due_since_at is not None:
            waiting.append((due[0], look.due_since_at))
        for label, seen_at in sorted(waiting, key=lambda item: item[1]):
            deadline = deadlines.allowance(seen_at)
            if deadline <= self._now:
                return health_records.undelivered(
                    feed, label, deadline, sending=any(item.delivery.period == label for item in begun)
                )
        return None

    def _missing(
        self,
        feed: Feed,
        deadlines: Deadlines,
        last: Delivery | None,
        look: SourceScan | None,
        passed: str | None,
    ) -> tuple[Period, datetime] | None:
        """Return the first expected period past its deadline that is not delivered, and since when it is
        late. Periods from before the first source scan and skipped periods are never late."""
        expected = self._newest_expected(deadlines)
        if expected is None or (last is None and look is None):
            return None
        first = expected
        settled = [label for label in (last.period if last else None, passed) if label is not None]
        delivered = max(filter(None, (_period(label, feed.period) for label in settled)), default=None)
        if delivered is not None:
            if expected <= delivered:
                return None
            first = deadlines.next_expected(delivered)
        since_at = deadlines.of(first)
        if look is not None:
            since_at = max(since_at, deadlines.allowance(look.first_looked_at))
        return (first, since_at) if since_at <= self._now else None

    def _newest_expected(self, deadlines: Deadlines) -> Period | None:
        if deadlines not in self._expected:
            self._expected[deadlines] = deadlines.newest_expected(self._now)
        return self._expected[deadlines]

    def _fresh_until(self, feed: Feed, deadlines: Deadlines, label: str) -> datetime | None:
        if (deadlines, label) not in self._fresh:
            newest = _period(label, feed.period)
            if newest is None or newest.kind is PeriodKind.NONE:
                self._fresh[deadlines, label] = None
            else:
                self._fresh[deadlines, label] = deadlines.of(deadlines.next_expected(newest))
        return self._fresh[deadlines, label]

    # --- Warnings

    def _warnings(self, name: str, rule: dict[str, Any] | None, issues: Sequence[Issue]) -> Iterator[Issue]:
        yield from health_records.differing(name, self._snapshot.discrepancies.get(name, ()))
        check = self._snapshot.checks.get(name)
        # A check after a refusal finds the same cause, which is reported once, as the refusal. A role that
        # anybody can assume is a separate cause.
        refused = any(issue.responsible is Responsible.CUSTOMER for issue in issues)
        if check is not None and check.causes and not (refused and UNSAFE.isdisjoint(check.causes)):
            yield health_records.drift(name, check)
        left = self._snapshot.orphaned.get(name)
        if left is not None and rule is not None:
            yield health_records.left_behind(left, rule)
        superseded = self._snapshot.superseded.get(name)
        if superseded is not None:
            yield health_records.superseded(name, superseded)
        cleanup = self._snapshot.cleanups.get(name)
        if cleanup is not None and cleanup.failure is not None:
            yield health_records.cleanup(name, cleanup)


def _verdict(
    feed: Feed,
    look: SourceScan | None,
    begun: Sequence[OpenDelivery],
    due: Sequence[str],
    overdue: Issue | None,
) -> tuple[Health, Issue | None]:
    """Return the most severe health and its issue."""
    for health in (Health.BLOCKED, Health.FAILING):
        hurt = next((item for item in begun if _stopped(item.delivery) is health), None)
        if hurt is not None:
            return health, health_records.refusal(hurt)
    if look is not None and look.failure is not None:
        return Health.NO_SOURCE, health_records.unreadable(feed, look)
    if overdue is not None:
        return (Health.NO_SOURCE if overdue.cause == health_records.NO_SOURCE else Health.LATE), overdue
    return (Health.DUE if begun or due else Health.HEALTHY), None


@lru_cache(maxsize=10_000)
def _period(label: str, kind: PeriodKind) -> Period | None:
    """Return None if the feed's period kind has changed since. Cached, because subscriptions share few
    labels."""
    try:
        return Period.parse(label, kind)
    except ValueError:
        return None


def _stopped(delivery: Delivery) -> Health | None:
    """Return the health of a stopped delivery, else None. A retried delivery keeps its health until it
    ends."""
    failure = delivery.failure
    if failure is None or failure.cause == "superseded":
        return None
    if delivery.status is Status.BLOCKED:
        return Health.BLOCKED
    if delivery.status is Status.RUNNING and failure.responsible == Responsible.CUSTOMER:
        return Health.BLOCKED
    return Health.FAILING
