"""Alerts: one per cause, sent when it opens, repeated while it lasts, and resolved when it ends.

Pure. The ledger holds the state, so a restart repeats nothing. Alertmanager or a pager handles hold times,
growth and escalation (rules: deploy/prometheus).
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from xmode_transfer.alerting.health_records import Issue
from xmode_transfer.config import Alerting, Channel
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.health import Alert, AlertState, Event, Notification

KEPT_CUSTOMERS = 200  # names in one alert; the count covers all customers
MOST_DETAILS = 5  # a cause with more (feeds, access findings) becomes one alert instead of one per detail
WIDESPREAD_CUSTOMERS = 5
TOGETHER = timedelta(hours=1)
REMEMBERED = timedelta(days=30)  # then a resolved alert is removed
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Message:
    event: Event
    alert: Alert
    sent_at: datetime

    @property
    def title(self) -> str:
        words = {Event.RESOLVED: "resolved: ", Event.REPEATED: "still: ", Event.TEST: "test: "}
        return f"{words.get(self.event, '')}{self.alert.summary}"

    @property
    def body(self) -> str:
        """A few lines of plain text."""
        alert = self.alert
        if self.event is Event.RESOLVED:
            since = f" Open since {_moment(alert.opened_at)}." if alert.opened_at else ""
            return f"Resolved.{since} No action needed.\nCause: {alert.cause}"
        responsible = "AWS" if alert.responsible is Responsible.AWS else str(alert.responsible)
        lines = [
            alert.message,
            f"Responsible: {responsible}. {alert.hint[:1].upper()}{alert.hint[1:]}".rstrip(),
            f"Since {_moment(alert.since_at)}; cause: {alert.cause}",
        ]
        if alert.customer_count > 1:
            more = alert.customer_count - min(len(alert.customers), _NAMED)
            named = ", ".join(alert.customers[:_NAMED])
            lines.append(f"Customers: {named}{f' and {more:,} more' if more > 0 else ''}")
        return "\n".join(lines)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def fingerprint(cause: str, detail: str = "") -> str:
    """Stable across versions: the ledger keeps alerts by it."""
    return hashlib.sha256(f"{cause}\n{detail}".encode()).hexdigest()[:16]


_Member = tuple[str, Issue]


def by_cause(issues: Iterable[_Member]) -> tuple[Alert, ...]:
    """Group issues into alerts by cause, and by detail where there are few; sorted by fingerprint. An empty
    customer's name stands for the service as a whole."""
    causes: dict[str, dict[str, list[_Member]]] = {}
    for customer, issue in issues:
        causes.setdefault(issue.cause, {}).setdefault(issue.detail, []).append((customer, issue))
    found = []
    for cause, details in causes.items():
        if len(details) > MOST_DETAILS:
            details = {"": [member for members in details.values() for member in members]}
        found += [_alert(cause, detail, members) for detail, members in details.items()]
    return tuple(sorted(found, key=lambda alert: alert.fingerprint))


def _alert(cause: str, detail: str, members: list[_Member]) -> Alert:
    members.sort(key=lambda member: (member[1].since_at, member[0]))
    customers = sorted({customer for customer, _ in members if customer})
    first_customer, first = members[0]
    responsible, urgent, message, hint = first.responsible, cause in URGENT, first.message, first.hint
    if len(customers) > 1 and first_customer and any(issue.message != message for _, issue in members):
        message = f"For example {first_customer}: {message}"
    widespread = _widespread(members) if responsible is Responsible.CUSTOMER else None
    if widespread is not None:
        responsible, urgent, message = Responsible.VENDOR, True, f"{widespread}. {message}"
        hint = (
            "so many at once point to the vendor's side. 1. Check that our key works and belongs to the "
            "same user (`aws sts get-caller-identity`): every customer refuses a re-created user. "
            "2. Check what changed at that time"
        )
    words = SUMMARIES.get(cause, cause.replace("_", " "))
    if first.feed is not None and detail in (first.feed, f"{first.feed} {first.period}"):
        words = f"{words} ({detail})"
    if customers:
        words = f"{customers[0] if len(customers) == 1 else f'{len(customers):,} customers'}: {words}"
    return Alert(
        fingerprint(cause, detail),
        cause,
        detail,
        responsible,
        urgent,
        f"{words} since {_moment(first.since_at)}",
        message,
        hint,
        first.since_at,
        tuple(customers[:KEPT_CUSTOMERS]),
        len(customers),
    )


def _widespread(members: Sequence[_Member]) -> str | None:
    """Describe an issue that began for most customers at once: the vendor is probably responsible."""
    begun: dict[str, datetime] = {}
    for customer, issue in members:  # the oldest first
        begun.setdefault(customer, issue.since_at)
    times = sorted(begun.values())
    counts = [bisect_right(times, at + TOGETHER) - index for index, at in enumerate(times)]
    count = max(counts)
    if count < WIDESPREAD_CUSTOMERS or count < 0.75 * len(times):
        return None
    first_at = times[counts.index(count)]
    last_at = times[counts.index(count) + count - 1]
    if first_at == last_at:
        return f"It began for {count:,} customers at {_moment(first_at)}"
    return f"It began for {count:,} customers between {first_at:%Y-%m-%d %H:%M} and {_moment(last_at)}"


def advance(known: Mapping[str, Alert], found: Iterable[Alert], now: datetime) -> dict[str, Alert]:
    """Return the next state of every alert, by fingerprint. ``found`` are the alerts that hold now."""
    here = {alert.fingerprint: alert for alert in found}
    after = {}
    for mark in sorted(known.keys() | here.keys()):
        was, alert = known.get(mark), here.get(mark)
        if alert is not None and was is not None:
            opened_at = was.opened_at if was.state is AlertState.OPEN else now
            after[mark] = replace(alert, opened_at=opened_at, notifications=was.notifications)
        elif alert is not None:
            after[mark] = replace(alert, opened_at=now)
        elif was is not None and was.resolved_at is None:
            after[mark] = replace(was, resolved_at=now)
        elif was is not None and was.resolved_at is not None and now - was.resolved_at < REMEMBERED:
            after[mark] = was
    return after


def next_event(alert: Alert, channel: Channel, alerting: Alerting, now: datetime) -> Event | None:
    """Return the event to send to the channel now, or None."""
    known = alert.notifications.get(channel.name, Notification())
    heard = known.sent in (Event.OPENED, Event.REPEATED)
    event = None
    if alert.state is AlertState.RESOLVED:
        event = Event.RESOLVED if heard else None
    elif alert.responsible in channel.responsible and (alert.urgent or not channel.only_urgent):
        if not heard or known.sent_at is None or (alert.urgent and not known.urgent):
            event = Event.OPENED
        elif now - known.sent_at >= timedelta(hours=alerting.repeat_hours):
            event = Event.REPEATED
    if known.next_attempt_at is not None and now < known.next_attempt_at:
        return None
    quiet = alerting.quiet_hours
    return None if quiet is not None and not alert.urgent and quiet.holds(now) else event


# docs/operations.md has a row for each.
SUMMARIES = MappingProxyType(
    {
        # The customer's side
        "role_refused": "AssumeRole is refused",
        "unsafe_role": "the role does not require its external ID",
        "access_denied": "S3 denies a permission",
        "kms_denied": "the KMS key denies access",
        "bucket_missing": "the bucket does not exist",
        "bucket_other_owner": "the bucket belongs to another account",
        "multipart_denied": "multipart uploads are refused",
        "object_exists": "an unmanaged object has our key",
        "table_conflict": "a table has a commit that is not ours",
        "listing_empty": "the listing of the bucket is empty though it should not be",
        "access_drift": "the access check found a problem",
        "orphaned_uploads": "uploads are orphaned",
        "delivered_changed": "delivered objects are missing or changed",
        "recall_open": "a recall is not finished",
        "superseded_left": "objects that no manifest lists cannot be deleted",
        # Our side
        "vendor_identity": "AWS refuses our own credentials",
        "clock_skew": "this machine's clock is wrong",
        "access_denied_by_us": "a vendor policy denies a permission",
        "config_invalid": "the configuration has errors",
        "quarantined": "a check before release failed",
        "check_warned": "a check before release warns",
        "key_collision": "two files of one period would have one key",
        "schema_changed": "a file does not fit the feed's table",
        "table_refused": "the configuration does not agree with a table",
        "late": "a delivery is late",
        "not_looked": "the source is not scanned",
        "no_source": "the source has nothing to deliver",
        "source_missing": "the source does not exist",
        "source_unreadable": "the source cannot be read",
        "source_partly_unreadable": "a part of the source cannot be read",
        "source_changed": "source files change while they are read",
        "source_error": "the source reports an error",
        "incomplete": "some files are not delivered",
        "needs_confirmation": "a cleanup needs confirmation",
        "daemon_silent": "the daemon is silent",
        "ledger_disk_low": "the ledger's disk is nearly full",
        "ledger_locked": "the ledger is locked",
        "ledger_unreachable": "the ledger's database server does not answer",
        "ledger_refused": "the ledger's database server refuses the login",
        "ledger_missing": "the configured ledger does not exist",
        "ledger_read_only": "the ledger is read-only",
        "ledger_full": "the ledger's disk is full",
        "ledger_corrupt": "the ledger is damaged",
        "ledger_too_new": "the ledger has a newer schema",
        "ledger_error": "the ledger reports an error",
        "request_refused": "S3 rejects a malformed request",
        "object_not_found": "a delivered object is missing",
        "upload_not_found": "a multipart upload no longer exists",
        "lease_lost": "another process took over the work",
        "defect": "a defect in xmode-transfer",
        # AWS and the network
        "throttled": "AWS throttles requests",
        "unavailable": "AWS is unreachable",
        "session_expired": "role sessions expire too early",
        "checksum_mismatch": "bytes are corrupted in transit",
        "store_error": "S3 returns an unknown error",
    }
)

URGENT = frozenset(
    {"vendor_identity", "clock_skew", "daemon_silent", "defect"}
    | {cause for cause in SUMMARIES if cause.startswith("ledger_")}
)
"""They stop or endanger all deliveries, and are sent in quiet hours too."""
