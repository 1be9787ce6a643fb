"""Messages and hints for every issue. docs/operations.md has a row for each cause."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from xmode_transfer.alerting.health.records import CustomerHealth, Health, Issue
from xmode_transfer.config import Configuration, Feed
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import Failure
from xmode_transfer.model.source_scans import (
    CheckSummary,
    CleanupSummary,
    OpenDelivery,
    OrphanedUploads,
    SourceScan,
    SupersededLeft,
    Survey,
)
from xmode_transfer.model.verification import Discrepancy

NO_SOURCE = "no_source"
LATE = "late"
NOT_LOOKED = "not_looked"
ACCESS_DRIFT = "access_drift"
LEFT_BEHIND = "left_behind"
DELIVERED_CHANGED = "delivered_changed"
SUPERSEDED_LEFT = "superseded_left"
CONFIG_INVALID = "config_invalid"
DAEMON_SILENT = "daemon_silent"
LEDGER_DISK_LOW = "ledger_disk_low"

_NAMED_PERIODS = 3
LEAST_FREE_BYTES = 1024**3
"""Warn when the ledger's disk has less free space than this."""


def warnings_of_service(survey: Survey, now: datetime) -> Iterator[Issue]:
    if survey.free_bytes is not None and survey.free_bytes < LEAST_FREE_BYTES:
        yield Issue(
            LEDGER_DISK_LOW,
            Responsible.VENDOR,
            f"the ledger's disk has {survey.free_bytes / 1e6:,.0f} MB left",
            "free space, or move the ledger to a larger disk, before deliveries stop (docs/ledger.md)",
            now,
        )

    daemon = survey.daemon
    if daemon is None or daemon.stopped_at is not None:
        return  # nobody runs one, or a person stopped it: deliveries that are late say so themselves
    if not daemon.is_alive(now):
        yield Issue(
            DAEMON_SILENT,
            Responsible.VENDOR,
            f"the daemon has not ticked since {daemon.ticked_at:%Y-%m-%d %H:%M} UTC: it was killed or hangs",
            "check it (`systemctl status xmode-transfer`) and the end of its log; then restart it",
            daemon.ticked_at,
        )
    if daemon.configuration_problems:
        more = len(daemon.configuration_problems) - 1
        yield Issue(
            CONFIG_INVALID,
            Responsible.VENDOR,
            f"{daemon.configuration_problems[0]}{f', and {more} more' if more else ''}",
            "fix the lines that `xmode-transfer config check` reports; the last valid version stays in use",
            daemon.ticked_at,
        )
    if daemon.trouble is not None:
        yield of_failure(daemon.trouble, daemon.ticked_at)


def broken(configuration: Configuration, name: str, now: datetime) -> CustomerHealth:
    problems = tuple(str(problem) for problem in configuration.broken[name])
    customer = configuration.customers.get(name)
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    issue = Issue(
        CONFIG_INVALID,
        Responsible.VENDOR,
        f"{problems[0]}{more}" if problems else "its configuration has errors",
        "fix the lines that `xmode-transfer config check` reports; nothing is delivered until then",
        now,
    )
    company = customer.company if customer else name
    return CustomerHealth(name, company, Health.BROKEN, (issue,), problems=problems)


def of_failure(
    failure: Failure | None, since_at: datetime, hint: str = "", detail: str = "", **of: str
) -> Issue:
    """What failed, in its own words; ``hint`` is for one that has none. ``of`` is its feed and period."""
    assert failure is not None
    return Issue(
        failure.cause,
        Responsible(failure.responsible),
        failure.message,
        failure.hint or hint,
        since_at,
        detail,
        retryable=failure.retryable,
        request_id=failure.request_id,
        **of,
    )


def refusal(item: OpenDelivery) -> Issue:
    delivery = item.delivery
    return of_failure(delivery.failure, item.since_at, feed=delivery.feed, period=delivery.period)


def unreadable(feed: Feed, look: SourceScan) -> Issue:
    since_at = look.failing_since_at or look.looked_at
    return of_failure(look.failure, since_at, f"check {feed.source}", feed.name, feed=feed.name)


def missed(
    feed: Feed,
    period: Period,
    since_at: datetime,
    look: SourceScan | None,
    begun: Sequence[OpenDelivery],
    due: Sequence[str],
) -> Issue:
    """Return the issue for an overdue period: undelivered, source not scanned, or missing at the source."""
    label = period.label
    if any(item.delivery.period >= label for item in begun):
        return undelivered(feed, label, since_at, sending=True)
    if any(known >= label for known in due):
        return undelivered(feed, label, since_at, sending=False)
    if look is None or look.looked_at < since_at:
        when = f"since {look.looked_at:%Y-%m-%d %H:%M} UTC" if look else "yet"
        return Issue(
            NOT_LOOKED,
            Responsible.VENDOR,
            f"the source of {feed.name} has not been scanned {when}; "
            f"{label} should have been delivered by {since_at:%Y-%m-%d %H:%M} UTC",
            "check that the daemon runs (`systemctl status xmode-transfer`), or run `xmode-transfer run`",
            since_at,
            feed=feed.name,
            period=label,
            retryable=True,
        )
    reason = next((item.reason for item in look.waiting if item.period == label), None)
    what = f"is incomplete: {reason}" if reason else "is missing"
    return Issue(
        NO_SOURCE,
        Responsible.VENDOR,
        f"{feed.name} {label} {what}; it should have been delivered by {since_at:%Y-%m-%d %H:%M} UTC",
        f"ask the producer of the feed; the period is delivered once it is complete in {feed.source}",
        since_at,
        detail=feed.name,
        feed=feed.name,
        period=label,
        retryable=True,
    )


def undelivered(feed: Feed, label: str, since_at: datetime, *, sending: bool) -> Issue:
    what = "is being sent" if sending else "is complete at the source"
    return Issue(
        LATE,
        Responsible.VENDOR,
        f"{feed.name} {label} {what} and should have been delivered by {since_at:%Y-%m-%d %H:%M} UTC",
        "see what the daemon is working on (`xmode-transfer status`, docs/operations.md), "
        "or deliver by hand (`xmode-transfer run --customer`)",
        since_at,
        feed=feed.name,
        period=label,
        retryable=True,
    )


def drift(name: str, check: CheckSummary) -> Issue:
    return Issue(
        ACCESS_DRIFT,
        Responsible(check.responsible) if check.responsible else Responsible.VENDOR,
        f"the last access check found: {check.message}",
        f"`xmode-transfer check-access --customer {name}` shows the fix to send",
        check.bad_since_at or check.checked_at,
        detail=" ".join(check.causes),
    )


def left_behind(left: OrphanedUploads, rule: dict[str, Any]) -> Issue:
    uploads = "1 upload" if left.count == 1 else f"{left.count:,} uploads"
    return Issue(
        LEFT_BEHIND,
        Responsible.CUSTOMER,
        f"{uploads} orphaned in its bucket, {left.bytes / 1e6:,.1f} MB: the role may not abort them",
        "the customer adds this lifecycle rule to the bucket, which then deletes them: "
        + json.dumps({"Rules": [rule]}),
        left.oldest_at,
    )


def differing(name: str, found: Sequence[Discrepancy]) -> Iterator[Issue]:
    """Yield one warning per responsible party for the discrepancies that verifications found."""
    for responsible in Responsible:
        theirs = [item for item in found if item.flaw.responsible is responsible]
        if not theirs:
            continue
        counts = Counter[str]()
        for item in theirs:
            counts[str(item.flaw).replace("_", " ")] += item.keys
        told = ", ".join(f"{count:,} {flaw}" for flaw, count in counts.items())
        periods = [f"{item.feed} {item.period}" for item in theirs]
        named = ", ".join(dict.fromkeys(periods[:_NAMED_PERIODS]))
        more = len(set(periods)) - _NAMED_PERIODS
        yield Issue(
            DELIVERED_CHANGED,
            responsible,
            f"delivered objects: {told} (first: {theirs[0].first_key}); in {named}"
            + (f" and {more:,} more periods" if more > 0 else ""),
            f"`xmode-transfer verify --customer {name}` lists each key and its fix; `--repair` delivers "
            "missing objects again. The warning lasts until a verification finds no discrepancy",
            min(item.since_at for item in theirs),
        )


def superseded(name: str, left: SupersededLeft) -> Issue:
    objects = "1 object" if left.count == 1 else f"{left.count:,} objects"
    return Issue(
        SUPERSEDED_LEFT,
        Responsible.CUSTOMER,
        f"{objects} in its bucket, {left.bytes / 1e6:,.1f} MB, that no manifest lists: they belong to a "
        "revision that was never published, and the role may not delete them",
        f"the customer grants s3:DeleteObject (see the setup guide), or deletes the keys that "
        f"`xmode-transfer list "
        f"--customer {name}` marks superseded; then run `xmode-transfer cleanup --customer {name}`",
        left.since_at,
    )


def cleanup(name: str, cleanup: CleanupSummary) -> Issue:
    hint = f"`xmode-transfer cleanup --customer {name} --dry-run` shows what it would do"
    return of_failure(cleanup.failure, cleanup.finished_at, hint, "cleanup")
