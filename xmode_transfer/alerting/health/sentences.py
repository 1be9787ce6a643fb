"""Every trouble in words: what happened, who must act, and what to do next. docs/operations.md has a row for
each cause."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from xmode_transfer.alerting.health.records import CustomerHealth, Health, Trouble
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
"""With less room than this on the ledger's disk somebody should look, before it is full."""


def cares_of_service(survey: Survey, now: datetime) -> Iterator[Trouble]:
    if survey.free_bytes is not None and survey.free_bytes < LEAST_FREE_BYTES:
        yield Trouble(
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
        yield Trouble(
            DAEMON_SILENT,
            Responsible.VENDOR,
            f"the daemon has not ticked since {daemon.ticked_at:%Y-%m-%d %H:%M} UTC: killed, or it hangs",
            "look at it (`systemctl status xmode-transfer`) and at the end of its log; start it again",
            daemon.ticked_at,
        )
    if daemon.configuration_problems:
        more = len(daemon.configuration_problems) - 1
        yield Trouble(
            CONFIG_INVALID,
            Responsible.VENDOR,
            f"{daemon.configuration_problems[0]}{f', and {more} more' if more else ''}",
            "mend the lines that `xmode-transfer config check` names; what was in order before stays in use",
            daemon.ticked_at,
        )
    if daemon.trouble is not None:
        yield of_failure(daemon.trouble, daemon.ticked_at)


def broken(configuration: Configuration, name: str, now: datetime) -> CustomerHealth:
    problems = tuple(str(problem) for problem in configuration.broken[name])
    customer = configuration.customers.get(name)
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    trouble = Trouble(
        CONFIG_INVALID,
        Responsible.VENDOR,
        f"{problems[0]}{more}" if problems else "its configuration has mistakes",
        "mend the lines that `xmode-transfer config check` names; nothing is delivered until then",
        now,
    )
    company = customer.company if customer else name
    return CustomerHealth(name, company, Health.BROKEN, (trouble,), problems=problems)


def of_failure(
    failure: Failure | None, since_at: datetime, hint: str = "", detail: str = "", **of: str
) -> Trouble:
    """What failed, in its own words; ``hint`` is for one that has none. ``of`` is its feed and period."""
    assert failure is not None
    return Trouble(
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


def refusal(item: OpenDelivery) -> Trouble:
    delivery = item.delivery
    return of_failure(delivery.failure, item.since_at, feed=delivery.feed, period=delivery.period)


def unreadable(feed: Feed, look: SourceScan) -> Trouble:
    since_at = look.failing_since_at or look.looked_at
    return of_failure(look.failure, since_at, f"look below {feed.source}", feed.name, feed=feed.name)


def missed(
    feed: Feed,
    period: Period,
    since_at: datetime,
    look: SourceScan | None,
    begun: Sequence[OpenDelivery],
    due: Sequence[str],
) -> Trouble:
    """A period that should have been delivered: is it at the source, does nobody look, or is it not there?"""
    label = period.label
    if any(item.delivery.period >= label for item in begun):
        return undelivered(feed, label, since_at, sending=True)
    if any(known >= label for known in due):
        return undelivered(feed, label, since_at, sending=False)
    if look is None or look.looked_at < since_at:
        when = f"since {look.looked_at:%Y-%m-%d %H:%M} UTC" if look else "yet"
        return Trouble(
            NOT_LOOKED,
            Responsible.VENDOR,
            f"nobody has looked at the source of {feed.name} {when}; "
            f"{label} should have been delivered by {since_at:%Y-%m-%d %H:%M} UTC",
            "see that the daemon runs (`systemctl status xmode-transfer`), or `xmode-transfer run`",
            since_at,
            feed=feed.name,
            period=label,
            retryable=True,
        )
    reason = next((item.reason for item in look.waiting if item.period == label), None)
    what = f"is not complete: {reason}" if reason else "is not there"
    return Trouble(
        NO_SOURCE,
        Responsible.VENDOR,
        f"{feed.name} {label} {what}; it should have been delivered by {since_at:%Y-%m-%d %H:%M} UTC",
        f"ask whoever produces it; it is looked for below {feed.source} and delivered once complete",
        since_at,
        detail=feed.name,
        feed=feed.name,
        period=label,
        retryable=True,
    )


def undelivered(feed: Feed, label: str, since_at: datetime, *, sending: bool) -> Trouble:
    what = "is being sent" if sending else "is complete at the source"
    return Trouble(
        LATE,
        Responsible.VENDOR,
        f"{feed.name} {label} {what} and should have been delivered by {since_at:%Y-%m-%d %H:%M} UTC",
        "see what the daemon is busy with (`xmode-transfer status`, docs/operations.md), "
        "or run the customer by hand",
        since_at,
        feed=feed.name,
        period=label,
        retryable=True,
    )


def drift(name: str, check: CheckSummary) -> Trouble:
    return Trouble(
        ACCESS_DRIFT,
        Responsible(check.responsible) if check.responsible else Responsible.VENDOR,
        f"the last check of its access found: {check.message}",
        f"`xmode-transfer check-access --customer {name}` says what to send",
        check.bad_since_at or check.checked_at,
        detail=" ".join(check.causes),
    )


def left_behind(left: OrphanedUploads, rule: dict[str, Any]) -> Trouble:
    uploads = "1 upload" if left.count == 1 else f"{left.count:,} uploads"
    return Trouble(
        LEFT_BEHIND,
        Responsible.CUSTOMER,
        f"{uploads} left behind in its bucket, {left.bytes / 1e6:,.1f} MB: we may not abort them",
        "this lifecycle rule frees them; the customer adds it to those of the bucket: "
        + json.dumps({"Rules": [rule]}),
        left.oldest_at,
    )


def differing(name: str, found: Sequence[Discrepancy]) -> Iterator[Trouble]:
    """What verifications found, for each who must act."""
    for responsible in Responsible:
        theirs = [item for item in found if item.flaw.responsible is responsible]
        if not theirs:
            continue
        counts = Counter[str]()
        for item in theirs:
            counts[str(item.flaw).replace("_", " ")] += item.keys
        told = ", ".join(f"{count:,} {flaw}" for flaw, count in counts.items())
        places = [f"{item.feed} {item.period}" for item in theirs]
        named = ", ".join(dict.fromkeys(places[:_NAMED_PERIODS]))
        more = len(set(places)) - _NAMED_PERIODS
        yield Trouble(
            DELIVERED_CHANGED,
            responsible,
            f"of what was delivered, {told} (first: {theirs[0].first_key}); in {named}"
            + (f" and {more:,} periods more" if more > 0 else ""),
            f"`xmode-transfer verify --customer {name}` names each key and what to do; `--repair` delivers "
            "again what is missing. This stands until a verification finds all as delivered",
            min(item.since_at for item in theirs),
        )


def superseded(name: str, left: SupersededLeft) -> Trouble:
    objects = "1 object" if left.count == 1 else f"{left.count:,} objects"
    return Trouble(
        SUPERSEDED_LEFT,
        Responsible.CUSTOMER,
        f"{objects} in its bucket, {left.bytes / 1e6:,.1f} MB, that no manifest names: they belong to a "
        "revision that was never published, and the bucket does not let us remove them",
        f"the customer grants s3:DeleteObject, as the setup guide does, or deletes what `xmode-transfer list "
        f"--customer {name}` calls superseded; then `xmode-transfer cleanup --customer {name}`",
        left.since_at,
    )


def cleanup(name: str, cleanup: CleanupSummary) -> Trouble:
    hint = f"`xmode-transfer cleanup --customer {name} --dry-run` shows what it would do"
    return of_failure(cleanup.failure, cleanup.finished_at, hint, "cleanup")
