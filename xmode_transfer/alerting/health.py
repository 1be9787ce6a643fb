"""Assessment of each subscription by its records."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from xmode_transfer.alerting import causes
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
from xmode_transfer.model.checks import Judgement, Verdict
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import UNSAFE
from xmode_transfer.model.health import FailedVerdict, Snapshot
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import QUARANTINED, Capabilities, Delivery, Status
from xmode_transfer.model.upkeep import free_unfinished_uploads


def assess(configuration: Configuration, snapshot: Snapshot, now: datetime) -> Assessment:
    judge = _Judge(snapshot, now)
    names = sorted({*configuration.customers, *configuration.broken})
    customers = [
        causes.broken(configuration, name, now)
        if name in configuration.broken
        else judge.customer(configuration, configuration.customers[name])
        for name in names
    ]
    unknown = [
        issue
        for name, found in snapshot.recalls.items()
        if name not in names
        for issue in causes.recalls(name, found, now)
    ]
    return Assessment(
        now,
        tuple(customers),
        (*causes.warnings_of_service(snapshot, now), *unknown),
        snapshot.free_bytes,
        snapshot.used_bytes,
        snapshot.daemon,
    )


class _Judge:
    """One evaluation, which caches what subscriptions share."""

    def __init__(self, snapshot: Snapshot, now: datetime) -> None:
        self._snapshot = snapshot
        self._now = now
        self._newest_expected = cache(lambda deadlines: deadlines.newest_expected(now))
        self._fresh_until = cache(_fresh_until)
        self._warned = cache(self._warn)

    def customer(self, configuration: Configuration, customer: Customer) -> CustomerHealth:
        name = customer.name
        left = self._snapshot.orphaned.get(name)
        known: dict[str, Any] = {
            "capabilities": self._snapshot.capabilities.get(name, Capabilities()),
            "orphaned": left,
            "check": self._snapshot.checks.get(name),
        }
        if left is not None and left.kept:
            known["lifecycle_rule"] = free_unfinished_uploads(customer.destination.prefix)
        active = customer.state is CustomerState.ACTIVE
        feeds = [configuration.feeds[feed] for feed in customer.feeds if feed in configuration.feeds]
        subscriptions = tuple(self._subscription(customer, feed, active=active) for feed in feeds)
        recalls = tuple(causes.recalls(name, self._snapshot.recalls.get(name, ()), self._now))
        if not active:
            word = Health.PENDING if customer.state is CustomerState.PENDING else Health.RETIRED
            word = Health.ATTENTION if recalls else word
            return CustomerHealth(name, customer.company, word, (), recalls, subscriptions, **known)
        by_gravity = sorted(subscriptions, key=lambda item: GRAVITY.index(item.health))
        issues = tuple(issue for item in by_gravity for _, issue in item.issues)
        words = [item.health for item in subscriptions]
        cleanup = self._snapshot.cleanups.get(name)
        if recalls or self._snapshot.discrepancies.get(name) or (cleanup and cleanup.outcome == "blocked"):
            words.append(Health.ATTENTION)
        warnings = (
            *recalls,
            *self._warnings(name, known.get("lifecycle_rule"), issues),
            *(it for feed in feeds if feed.name in self._snapshot.verdicts for it in self._warned(feed)),
        )
        word = worst(words)
        return CustomerHealth(name, customer.company, word, issues, warnings, subscriptions, **known)

    def _subscription(self, customer: Customer, feed: Feed, *, active: bool) -> SubscriptionHealth:
        key = (customer.name, feed.name)
        scan = self._snapshot.scans.get(key)
        last = self._snapshot.delivered.get(key)
        begun = self._snapshot.open.get(key, ())
        labels = {item.delivery.period for item in begun}
        due = tuple(label for label in scan.due if label not in labels) if scan else ()
        known = SubscriptionHealth(
            customer.name,
            feed.name,
            Health.HEALTHY,
            last_delivered=last,
            open=begun,
            due=due,
            due_count=max(scan.due_count - (len(scan.due) - len(due)), len(due)) if scan else 0,
            scan=scan,
            not_attested=self._snapshot.not_attested.get(key, 0),
        )
        if not active:
            return known
        deadlines = deadlines_of(customer, feed)
        held, names = self._quarantined(customer, feed, known)
        known = replace(known, quarantined=names)
        overdue = late = self._late(feed, deadlines, known)
        if names and feed.period is not PeriodKind.NONE:  # one that is quarantined is not also reported late
            late = self._late(feed, deadlines, known, names)
        word, issue = _verdict(feed, known, late)
        found = [(word, issue)] if issue is not None else []
        found += [(Health.QUARANTINED, item) for item in held]
        found.sort(key=lambda item: GRAVITY.index(item[0]))
        word, issue = found[0] if found else (word, None)
        fresh_until_at = self._fresh_until(deadlines, last.period, feed.period) if last else None
        return replace(
            known,
            health=word,
            issue=issue,
            further=tuple(found[1:]),
            overdue=overdue,
            fresh_until_at=fresh_until_at,
        )

    def _quarantined(
        self, customer: Customer, feed: Feed, known: SubscriptionHealth
    ) -> tuple[list[Issue], tuple[str, ...]]:
        """Return the issues of what is quarantined for the customer, and the periods, or the files of a drop
        folder. What a person has decided on is not quarantined any more."""
        verdicts = self._snapshot.verdicts.get(feed.name, ())
        if feed.period is PeriodKind.NONE:
            files = [item.judgement for item in verdicts if _is_held(item, customer.name)]
            issues = [causes.quarantined_files(feed, files)] if files else []
            return issues, tuple(judgement.name for judgement in files)
        decided = {
            (item.judgement.period, item.judgement.fingerprint)
            for item in verdicts
            if not item.holds_for(customer.name)
        }
        held = [
            item
            for item in known.open
            if _stopped(item.delivery) is Health.QUARANTINED
            and (item.delivery.period, item.delivery.fingerprint) not in decided
        ]
        return [causes.quarantined(item) for item in held], tuple(it.delivery.period for it in held)

    def _warn(self, feed: Feed) -> tuple[Issue, ...]:
        periods: dict[str, list[Judgement]] = {}
        for judgement, _ in self._snapshot.verdicts.get(feed.name, ()):
            lasts = self._now - judgement.judged_at < causes.WARNED_FOR
            if judgement.verdict is Verdict.WARNED and lasts:
                periods.setdefault(judgement.period, []).append(judgement)
        return tuple(causes.warned(feed, period, failed) for period, failed in periods.items())

    def _late(
        self, feed: Feed, deadlines: Deadlines, known: SubscriptionHealth, but: Collection[str] = ()
    ) -> Issue | None:
        missing = self._missing(feed, deadlines, known, but)
        if missing is not None:
            return causes.missed(feed, known, *missing)
        # A late older period, or a correction: by when it was first seen.
        waiting = [(it.delivery.period, it.since_at) for it in known.open if it.delivery.period not in but]
        if known.due and known.scan is not None and known.scan.due_since_at is not None:
            waiting.append((known.due[0], known.scan.due_since_at))
        for label, seen_at in sorted(waiting, key=lambda item: item[1]):
            deadline = deadlines.allowance(seen_at)
            if deadline <= self._now:
                sending = any(item.delivery.period == label for item in known.open)
                return causes.undelivered(feed, label, deadline, sending=sending)
        return None

    def _missing(
        self, feed: Feed, deadlines: Deadlines, known: SubscriptionHealth, but: Collection[str]
    ) -> tuple[Period, datetime] | None:
        """Return the first overdue period, and since when it is late. Skipped periods, and those from before
        the first source scan, are never late."""
        last, scan = known.last_delivered, known.scan
        first = expected = self._newest_expected(deadlines)
        if expected is None or (last is None and scan is None):
            return None
        skipped = self._snapshot.skipped.get((known.customer, known.feed))
        settled = [label for label in (last.period if last else None, skipped) if label is not None]
        delivered = max(filter(None, (_period(label, feed.period) for label in settled)), default=None)
        if delivered is not None:
            if expected <= delivered:
                return None
            first = deadlines.next_expected(delivered)
        while first.label in but:
            if first >= expected:
                return None
            first = deadlines.next_expected(first)
        since_at = deadlines.of(first)
        if scan is not None:
            since_at = max(since_at, deadlines.allowance(scan.first_looked_at))
        return (first, since_at) if since_at <= self._now else None

    def _warnings(self, name: str, rule: dict[str, Any] | None, issues: Sequence[Issue]) -> Iterator[Issue]:
        yield from causes.differing(name, self._snapshot.discrepancies.get(name, ()))
        check = self._snapshot.checks.get(name)
        # A check after a refusal finds the same cause, which is reported once, as the refusal. A role that
        # anybody can assume is a separate cause.
        refused = any(issue.responsible is Responsible.CUSTOMER for issue in issues)
        if check is not None and check.causes and not (refused and UNSAFE.isdisjoint(check.causes)):
            yield causes.drift(name, check)
        left = self._snapshot.orphaned.get(name)
        if left is not None and rule is not None:
            yield causes.orphaned(left, rule)
        superseded = self._snapshot.superseded.get(name)
        if superseded is not None:
            yield causes.superseded(name, superseded)
        cleanup = self._snapshot.cleanups.get(name)
        if cleanup is not None and cleanup.failure is not None:
            yield causes.cleanup(name, cleanup)


def _verdict(feed: Feed, known: SubscriptionHealth, overdue: Issue | None) -> tuple[Health, Issue | None]:
    for health in (Health.BLOCKED, Health.FAILING):
        hurt = next((item for item in known.open if _stopped(item.delivery) is health), None)
        if hurt is not None:
            return health, causes.refusal(hurt)
    if known.scan is not None and known.scan.failure is not None:
        return Health.NO_SOURCE, causes.unreadable(feed, known.scan)
    if overdue is not None:
        return (Health.NO_SOURCE if overdue.cause == "no_source" else Health.LATE), overdue
    return (Health.DUE if known.open or known.due else Health.HEALTHY), None


def _fresh_until(deadlines: Deadlines, label: str, kind: PeriodKind) -> datetime | None:
    newest = _period(label, kind)
    if newest is None or newest.kind is PeriodKind.NONE:
        return None
    return deadlines.of(deadlines.next_expected(newest))


@lru_cache(maxsize=10_000)
def _period(label: str, kind: PeriodKind) -> Period | None:
    """None if the feed's period kind has changed since. Cached, because subscriptions share few labels."""
    try:
        return Period.parse(label, kind)
    except ValueError:
        return None


def _is_held(item: FailedVerdict, customer: str) -> bool:
    return item.judgement.verdict is Verdict.QUARANTINED and item.holds_for(customer)


def _stopped(delivery: Delivery) -> Health | None:
    """None: not stopped. A retried delivery keeps its health until it ends."""
    failure = delivery.failure
    if failure is None or failure.cause == "superseded":
        return None
    if failure.cause == QUARANTINED:
        return Health.QUARANTINED
    waits_again = delivery.status is Status.RUNNING and failure.responsible == Responsible.CUSTOMER
    return Health.BLOCKED if waits_again or delivery.status is Status.BLOCKED else Health.FAILING
