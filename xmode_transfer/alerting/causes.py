"""The issue or warning of each cause, in words: what happened, since when, and what to do."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from xmode_transfer.alerting.health_records import CustomerHealth, Health, Issue, SubscriptionHealth
from xmode_transfer.config import Configuration, Feed
from xmode_transfer.model.checks import Judgement, next_step
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.health import (
    CheckSummary,
    CleanupSummary,
    OpenDelivery,
    OpenRecall,
    OrphanedUploads,
    Snapshot,
    SourceScan,
    SupersededLeft,
)
from xmode_transfer.model.keys import visible
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import Failure
from xmode_transfer.model.upkeep import Discrepancy

_NAMED_PERIODS = 3
_NAMED_CHECKS = 3
WARNED_FOR = timedelta(days=3)  # from the verdict of a check that only warns
LEAST_FREE_BYTES = 1024**3  # on the ledger's disk; with less, warn


def warnings_of_service(snapshot: Snapshot, now: datetime) -> Iterator[Issue]:
    if snapshot.free_bytes is not None and snapshot.free_bytes < LEAST_FREE_BYTES:
        yield Issue(
            "ledger_disk_low",
            Responsible.VENDOR,
            f"the ledger's disk has {snapshot.free_bytes / 1e6:,.0f} MB left",
            "free space, or move the ledger to a larger disk, before deliveries stop (docs/ledger.md)",
            now,
        )

    daemon = snapshot.daemon
    if daemon is None or daemon.stopped_at is not None:
        return  # there is none, or a person stopped it: late deliveries are issues of their own
    if not daemon.is_alive(now):
        yield Issue(
            "daemon_silent",
            Responsible.VENDOR,
            f"the daemon has not ticked since {daemon.ticked_at:%Y-%m-%d %H:%M} UTC: it was killed or hangs",
            "check it (`systemctl status xmode-transfer`) and the end of its log; then restart it",
            daemon.ticked_at,
        )
    if daemon.configuration_problems:
        yield Issue(
            "config_invalid",
            Responsible.VENDOR,
            _first(daemon.configuration_problems),
            "fix the lines that `xmode-transfer config check` reports; the last valid version stays in use",
            daemon.ticked_at,
        )
    if daemon.trouble is not None:
        yield of_failure(daemon.trouble, daemon.ticked_at)


def broken(configuration: Configuration, name: str, now: datetime) -> CustomerHealth:
    problems = tuple(str(problem) for problem in configuration.broken[name])
    customer = configuration.customers.get(name)
    issue = Issue(
        "config_invalid",
        Responsible.VENDOR,
        _first(problems) if problems else "its configuration has errors",
        "fix the lines that `xmode-transfer config check` reports; nothing is delivered until then",
        now,
    )
    company = customer.company if customer else name
    return CustomerHealth(name, company, Health.BROKEN, (issue,), problems=problems)


def _first(problems: Sequence[str]) -> str:
    return problems[0] + (f", and {len(problems) - 1} more" if len(problems) > 1 else "")


def of_failure(
    failure: Failure | None, since_at: datetime, hint: str = "", detail: str = "", **of: str
) -> Issue:
    """``hint`` is for a failure that has none."""
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


def refusal(item: OpenDelivery, hint: str = "", detail: str = "") -> Issue:
    delivery = item.delivery
    return of_failure(
        delivery.failure, item.since_at, hint, detail, feed=delivery.feed, period=delivery.period
    )


def quarantined(item: OpenDelivery) -> Issue:
    """The verdict is the same for all customers, so the detail makes it one alert for the feed and period."""
    feed, period = item.delivery.feed, item.delivery.period
    return refusal(item, next_step(feed, period), detail=f"{feed} {period}")


def quarantined_files(feed: Feed, failed: Sequence[Judgement]) -> Issue:
    """Of a drop folder, the files that are left out of its batches."""
    files = "1 file is" if len(failed) == 1 else f"{len(failed):,} files are"
    message = f"{files} quarantined in the drop folder {feed.name}: {_findings(failed)}"
    return _judged("quarantined", feed, "none", message, next_step(feed.name, "none"), failed)


def warned(feed: Feed, period: str, failed: Sequence[Judgement]) -> Issue:
    where = f"the drop folder {feed.name}" if period == "none" else f"{feed.name} {period}"
    hint = (
        f"check it in {feed.source}. If it is wrong, correct it there: the next run delivers the correction. "
        f"This warning ends after {WARNED_FOR.days} days"
    )
    return _judged("check_warned", feed, period, f"checks warn of {where}: {_findings(failed)}", hint, failed)


def _judged(
    cause: str, feed: Feed, period: str, message: str, hint: str, failed: Sequence[Judgement]
) -> Issue:
    since_at = min(item.judged_at for item in failed)
    detail = feed.name if period == "none" else f"{feed.name} {period}"
    return Issue(cause, Responsible.VENDOR, message, hint, since_at, detail, feed.name, period)


def _findings(failed: Sequence[Judgement]) -> str:
    """Name the first checks that failed, with their figures."""
    every = [
        f"{visible(check.file)}: {check.message}" if check.file else check.message
        for item in failed
        for check in item.failed
    ]
    more = len(every) - _NAMED_CHECKS
    return "; ".join(every[:_NAMED_CHECKS]) + (f"; and {more:,} more" if more > 0 else "")


def unreadable(feed: Feed, scan: SourceScan) -> Issue:
    since_at = scan.failing_since_at or scan.looked_at
    return of_failure(scan.failure, since_at, f"check {feed.source}", feed.name, feed=feed.name)


def missed(feed: Feed, known: SubscriptionHealth, period: Period, since_at: datetime) -> Issue:
    label, scan, by = period.label, known.scan, f"{since_at:%Y-%m-%d %H:%M} UTC"
    begun = {item.delivery.period for item in known.open}
    if label in begun or any(period >= label for period in begun.difference(known.quarantined)):
        return undelivered(feed, label, since_at, sending=True)
    if any(due >= label for due in known.due):
        return undelivered(feed, label, since_at, sending=False)
    if scan is None or scan.looked_at < since_at:
        when = f"since {scan.looked_at:%Y-%m-%d %H:%M} UTC" if scan else "yet"
        return _overdue(
            "not_looked",
            f"the source of {feed.name} has not been scanned {when}; "
            f"{label} should have been delivered by {by}",
            "check that the daemon runs (`systemctl status xmode-transfer`), or run `xmode-transfer run`",
            since_at,
            feed,
            label,
        )
    reason = next((item.reason for item in scan.waiting if item.period == label), None)
    what = f"is incomplete: {reason}" if reason else "is missing"
    return _overdue(
        "no_source",
        f"{feed.name} {label} {what}; it should have been delivered by {by}",
        f"ask the producer of the feed; the period is delivered once it is complete in {feed.source}",
        since_at,
        feed,
        label,
        detail=feed.name,
    )


def undelivered(feed: Feed, label: str, since_at: datetime, *, sending: bool) -> Issue:
    what = "is being sent" if sending else "is complete at the source"
    return _overdue(
        "late",
        f"{feed.name} {label} {what} and should have been delivered by {since_at:%Y-%m-%d %H:%M} UTC",
        "see what the daemon is working on (`xmode-transfer status`, docs/operations.md), "
        "or deliver by hand (`xmode-transfer run --customer`)",
        since_at,
        feed,
        label,
    )


def _overdue(
    cause: str, message: str, hint: str, since_at: datetime, feed: Feed, label: str, detail: str = ""
) -> Issue:
    return Issue(cause, Responsible.VENDOR, message, hint, since_at, detail, feed.name, label, retryable=True)


def drift(name: str, check: CheckSummary) -> Issue:
    return Issue(
        "access_drift",
        Responsible(check.responsible) if check.responsible else Responsible.VENDOR,
        f"the last access check found: {check.message}",
        f"`xmode-transfer check-access --customer {name}` shows the fix to send",
        check.bad_since_at or check.checked_at,
        detail=" ".join(check.causes),
    )


def orphaned(left: OrphanedUploads, rule: dict[str, Any]) -> Issue:
    uploads = "1 upload" if left.count == 1 else f"{left.count:,} uploads"
    return Issue(
        "orphaned_uploads",
        Responsible.CUSTOMER,
        f"{uploads} orphaned in its bucket, {left.bytes / 1e6:,.1f} MB: the role may not abort them",
        "the customer adds this lifecycle rule to the bucket, which then deletes them: "
        + json.dumps({"Rules": [rule]}),
        left.oldest_at,
    )


def differing(name: str, found: Sequence[Discrepancy]) -> Iterator[Issue]:
    """Yield one warning per responsible party."""
    for responsible in Responsible:
        theirs = [item for item in found if item.flaw.responsible is responsible]
        if not theirs:
            continue
        counts = Counter[str]()
        for item in theirs:
            counts[str(item.flaw).replace("_", " ")] += item.keys
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        periods = list(dict.fromkeys(f"{item.feed} {item.period}" for item in theirs))
        more = len(periods) - _NAMED_PERIODS
        yield Issue(
            "delivered_changed",
            responsible,
            f"delivered objects: {kinds} (first: {theirs[0].first_key}); "
            f"in {', '.join(periods[:_NAMED_PERIODS])}" + (f" and {more:,} more periods" if more > 0 else ""),
            f"`xmode-transfer verify --customer {name}` lists each key and its fix; `--repair` delivers "
            "missing objects again. The warning lasts until a verification finds no discrepancy",
            min(item.since_at for item in theirs),
        )


def superseded(name: str, left: SupersededLeft) -> Issue:
    objects = "1 object" if left.count == 1 else f"{left.count:,} objects"
    return Issue(
        "superseded_left",
        Responsible.CUSTOMER,
        f"{objects} in its bucket, {left.bytes / 1e6:,.1f} MB, that no manifest lists: they belong to a "
        "revision that was never published, and the role may not delete them",
        "the customer grants s3:DeleteObject (see the setup guide), or deletes the keys that `xmode-transfer "
        f"list --customer {name}` marks superseded; then run `xmode-transfer cleanup --customer {name}`",
        left.since_at,
    )


def cleanup(name: str, cleanup: CleanupSummary) -> Issue:
    hint = f"`xmode-transfer cleanup --customer {name} --dry-run` shows what it would do"
    return of_failure(cleanup.failure, cleanup.finished_at, hint, "cleanup")


_RECALL_BEGINS = timedelta(hours=1)  # a command or the daemon carries it out meanwhile


def recalls(name: str, found: Sequence[OpenRecall], now: datetime) -> Iterator[Issue]:
    """Yield a warning for each recall that is blocked, fails, or is not carried out by anybody."""
    for item in found:
        progress, failure = item.progress, item.progress.failure
        if failure is None and now - progress.updated_at < _RECALL_BEGINS:
            continue
        responsible = Responsible(failure.responsible) if failure is not None else Responsible.VENDOR
        why = failure.message if failure is not None else "it is recorded, and nothing carries it out"
        again = f"run `xmode-transfer recall retry {progress.recall}`"
        fix = failure.hint if failure is not None and failure.hint else "start the daemon"
        yield Issue(
            "recall_open",
            responsible,
            f"the recall {progress.recall} of {item.feed} is not finished for {name}: {why}",
            f"{fix}. The daemon tries again by itself; to try at once, {again}",
            item.started_at,
            detail=f"{progress.recall} {responsible}",
            feed=item.feed,
        )
