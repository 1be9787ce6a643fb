"""Notices in a customer's bucket: a period is late, or paused until the customer acts, or was corrected, or
files of it were withdrawn. Its manifest ends the first two, so no notice reports recovery. The text is for
customers: no vendor paths and no hints for operators. docs/manifest.md has the format."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from xmode_transfer.alerting.health_records import Assessment, CustomerHealth, Health, SubscriptionHealth
from xmode_transfer.config import Configuration, Customer, CustomerState
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.health import LONGEST_PAUSE, Mark, Notice, NoticeKind, NoticeStatus
from xmode_transfer.model.keys import count, manifest_key, notice_key
from xmode_transfer.model.manifest import canonical, timestamp
from xmode_transfer.model.records import Delivery
from xmode_transfer.model.upkeep import Removal, RemovalOutcome

FORMAT = "xmode-notice/1"
CORRECTED_WITHIN = timedelta(days=3)
"""No older corrections are reported after an outage, or when a customer first turns notices on."""
SHUT = frozenset(
    {
        "role_refused",
        "unsafe_role",
        "bucket_missing",
        "bucket_other_owner",
        "vendor_identity",
        "clock_skew",
        "session_expired",
        "throttled",
        "unavailable",
    }
)
"""Causes that would also stop a notice: while a delivery waits for one of them, no notice is tried."""
PAUSED_FOR = timedelta(minutes=5)
"""Shorter pauses are not reported: a notice cannot be withdrawn from the bucket."""


NAMED_KEYS = 1000  # in a notice; the manifest lists all that was withdrawn
_LEFT = frozenset(
    {RemovalOutcome.HIDDEN, RemovalOutcome.RETAINED, RemovalOutcome.ELSEWHERE, RemovalOutcome.FAILED}
)


class Happening(NamedTuple):
    """``removals`` are those of a recall, whose ID is the ``cause``, and ``newest`` is then the revision to
    read: the mark of a second recall of the period has another one."""

    mark: Mark
    since_at: datetime
    cause: str = ""
    removals: tuple[Removal, ...] = ()
    newest: int | None = None


def wanting(configuration: Configuration) -> dict[str, Customer]:
    return {
        name: customer
        for name, customer in configuration.customers.items()
        if customer.notices and customer.state is CustomerState.ACTIVE
    }


def happenings(
    customers: Mapping[str, Customer], assessment: Assessment, corrections: Iterable[Delivery]
) -> list[Happening]:
    """Return the events of these customers, reported already or not, oldest first."""
    found = [
        item
        for health in assessment.customers
        if health.customer in customers
        for subscription in health.subscriptions
        for item in _of_subscription(subscription, assessment.assessed_at - PAUSED_FOR)
    ]
    for delivery in corrections:
        customer = customers.get(delivery.customer)
        if customer is not None and delivery.feed in customer.feeds and delivery.delivered_at is not None:
            mark = Mark(
                delivery.customer, delivery.feed, delivery.period, NoticeKind.CORRECTED, delivery.revision
            )
            found.append(Happening(mark, delivery.delivered_at))
    return sorted(found, key=lambda item: (item.since_at, item.mark))


def _of_subscription(health: SubscriptionHealth, held_at: datetime) -> Iterator[Happening]:
    begun = {item.delivery.period: item.delivery.revision for item in health.open}
    issue = health.issue
    paused = None
    if health.health is Health.BLOCKED and issue is not None and issue.period is not None:
        paused = issue.period
        if issue.since_at <= held_at and issue.cause not in SHUT:
            mark = Mark(health.customer, health.feed, paused, NoticeKind.PAUSED, begun[paused])
            yield Happening(mark, issue.since_at, issue.cause)
    late = health.overdue
    if late is None or late.period is None or late.period == paused:
        return
    revision = begun.get(late.period) or _next_revision(health.last_delivered, late.period)
    if revision is not None:
        mark = Mark(health.customer, health.feed, late.period, NoticeKind.LATE, revision)
        yield Happening(mark, late.since_at, late.cause)


def _next_revision(last: Delivery | None, period: str) -> int | None:
    """Return the revision of a period that is not begun. None for one older than the last delivered: whether
    it is a correction is only known when it begins."""
    if last is None or last.period < period:
        return 1
    return last.revision + 1 if last.period == period else None


def withdrawals(
    customer: str, recall: str, removals: Iterable[Removal], deliveries: Iterable[Delivery]
) -> list[Happening]:
    """Return what a recall has withdrawn from a customer, by period. ``deliveries`` are those of its feed."""
    newest: dict[tuple[str, str], int] = {}
    for delivery in deliveries:
        if delivery.delivered_at is not None:
            place = delivery.feed, delivery.period
            newest[place] = max(newest.get(place, 1), delivery.revision)
    found = []
    for (feed, period), some in groupby(removals, lambda item: (item.feed, item.period)):
        objects = tuple(
            item for item in some if not item.manifest and item.outcome is not RemovalOutcome.HELD
        )
        if objects:
            revision = newest.get((feed, period), 1)
            mark = Mark(customer, feed, period, NoticeKind.WITHDRAWN, revision)
            found.append(Happening(mark, max(item.at for item in objects), recall, objects, revision))
    return found


def unreported_withdrawals(found: Iterable[Happening], known: Iterable[Notice]) -> list[Happening]:
    """Return those that no notice reports: one for each recall and period, whatever its revision now."""
    reported = [notice for notice in known if notice.mark.kind is NoticeKind.WITHDRAWN]
    recalls = {(notice.mark[:3], json.loads(notice.body)["recall"]) for notice in reported}
    marks = {notice.mark for notice in reported}
    fresh = []
    for item in found:
        if (item.mark[:3], item.cause) not in recalls:
            mark = item.mark
            while mark in marks:  # two recalls of one period, reported at once
                mark = mark._replace(revision=mark.revision - 1)
            marks.add(mark)
            fresh.append(item._replace(mark=mark))
    return fresh


def unreported(found: Iterable[Happening], known: Iterable[Notice]) -> list[Happening]:
    marks = {notice.mark for notice in known if notice.status is not NoticeStatus.WITHDRAWN}
    return [item for item in found if item.mark not in marks]


def overtaken(
    planned: Iterable[Notice], customers: Mapping[str, Customer], found: Iterable[Happening]
) -> list[Notice]:
    """Return the notices that the customer turned off, and those of events that are over. What was withdrawn
    is always reported."""
    marks = {item.mark for item in found}
    return [
        notice
        for notice in planned
        if notice.mark.kind is not NoticeKind.WITHDRAWN
        and (
            notice.mark.customer not in customers
            or (notice.mark.kind is not NoticeKind.CORRECTED and notice.mark not in marks)
        )
    ]


def is_shut(health: CustomerHealth | None) -> bool:
    """The customer's bucket would refuse a notice too."""
    return health is None or any(issue.cause in SHUT for issue in health.issues)


def ready(planned: Sequence[Notice], now: datetime) -> bool:
    # A pause longer than the maximum was recorded while the clock was wrong.
    at = planned[0].next_attempt_at
    return at is None or at <= now or at > now + LONGEST_PAUSE


def notice(item: Happening, customer: Customer, now: datetime) -> Notice:
    mark, prefix = item.mark, customer.destination.prefix
    revision = item.newest or mark.revision
    manifest = manifest_key(prefix, mark.feed, mark.period, revision)
    message, action, responsible = _words(item, prefix, manifest)
    body: dict[str, object] = {
        "action": action,
        "feed": mark.feed,
        "format": FORMAT,
        "kind": str(mark.kind),
        "made_at": timestamp(now),
        "manifest": manifest,
        "message": message,
        "responsible": str(responsible),
        "period": mark.period,
        "revision": revision,
        "since_at": timestamp(item.since_at),
    }
    if mark.kind is NoticeKind.WITHDRAWN:
        body["recall"], body["count"] = item.cause, len(item.removals)
        body["keys"] = [removal.key for removal in item.removals[:NAMED_KEYS]]
        body["left"] = [removal.key for removal in item.removals if removal.outcome in _LEFT][:NAMED_KEYS]
    key = notice_key(prefix, now, mark.feed, mark.period, mark.kind)
    return Notice(mark, key, canonical(body), now)


_POLICY = (
    "Give your role the permission policy of our setup kit (permission-policy.json; "
    "setup.sh applies it), or check it against the permission policy in the setup guide."
)
_TAKEN = (
    "an object that we did not write has the key of one of this delivery's objects, and we never overwrite",
    "Move objects written by others out of {place}; ask us for their keys.",
)
_ASKED: Mapping[str, tuple[str, str]] = {
    "access_denied": ("your role's permission policy denies a permission that we need", _POLICY),
    "multipart_denied": (
        "your role's permission policy denies multipart uploads, which large files need",
        _POLICY,
    ),
    "kms_denied": (
        "the KMS key of your bucket denies access",
        f"{_POLICY} The key policy must also allow the role to use the key (key-policy-statement.json).",
    ),
    "object_exists": _TAKEN,
    "table_conflict": (
        "another program has written to the log of our Delta table, and we never overwrite",
        "End that program, and remove its commits from {place}_delta_log/; ask us for their keys.",
    ),
}
_ANYTHING = ("something in your account stops it ({cause})", "Ask us for details: we have AWS's response.")


def _words(item: Happening, prefix: str, manifest: str) -> tuple[str, str | None, Responsible]:
    """Return the message, the action (None: nothing to do), and who is responsible."""
    mark, at = item.mark, f"{item.since_at:%Y-%m-%d %H:%M} UTC"
    what = "The next batch" if mark.period == "none" else f"Period {mark.period}"
    if mark.kind is NoticeKind.PAUSED:
        why, action = _ASKED.get(item.cause, _ANYTHING)
        known = {"cause": item.cause, "place": f"{prefix}{mark.feed}/"}
        message = f"{what} of {mark.feed} is paused since {at}: {why.format(**known)}."
        action = f"{action.format(**known)} Deliveries then resume automatically, oldest first."
        return message, action, Responsible.CUSTOMER
    if mark.kind is NoticeKind.LATE:
        incomplete = item.cause == "no_source"
        why = "its files are not complete on our side yet" if incomplete else "we are working on it"
        message = (
            f"{what} of {mark.feed} was due by {at} and is late: {why}. "
            "It is complete when its manifest is there."
        )
        return message, None, Responsible.VENDOR
    if mark.kind is NoticeKind.WITHDRAWN:
        files = count(len(item.removals), "file")
        message = (
            f"{files} of {mark.feed}, period {mark.period}, must not be used any more: withdrawn at {at}."
        )
        action = (
            "Delete your own copies of the files in `keys`, and what you derived from them. Read the period "
            f"again by its newest manifest; {manifest} and later ones list all that was withdrawn."
        )
        if any(removal.outcome in _LEFT for removal in item.removals):
            action += (
                " The keys in `left` are still in your bucket, or old versions of them, because we may not "
                "delete them: delete these too, with all versions."
            )
        return message, action, Responsible.CUSTOMER
    message = f"{what} of {mark.feed} was corrected: revision {mark.revision} was delivered at {at}."
    action = f"Read the period again by its new manifest, {manifest}: it replaces the one before."
    return message, action, Responsible.CUSTOMER
