"""Notices: what a customer that wants it is told, by a file in its own bucket, of its deliveries.

Three kinds: a period is late, a delivery is paused until the customer acts, a period was corrected. The first
two end with the period's manifest, so no notice says that all is well again. The words are the customer's
own: no path of ours, and no hint that is meant for our operators. docs/manifest.md has the format.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from xmode_transfer.alerting.health import Assessment, CustomerHealth, Health, SubscriptionHealth
from xmode_transfer.config import Configuration, Customer, CustomerState
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.keys import manifest_key, notice_key
from xmode_transfer.model.manifest import canonical, timestamp
from xmode_transfer.model.notices import LONGEST_PAUSE, Mark, Notice, NoticeKind, NoticeStatus
from xmode_transfer.model.records import Delivery

FORMAT = "xmode-notice/1"
CORRECTED_WITHIN = timedelta(days=3)
"""Older corrections are not told any more: neither after an outage of ours that was longer, nor when a
customer begins to want notices."""
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
"""While a delivery waits for one of these, a notice would meet the same: it is not tried, and it is no way to
tell that the delivery is paused."""
PAUSED_FOR = timedelta(minutes=5)
"""A delivery that was paused for less may be paused for a moment only: a notice cannot be taken back."""


class Happening(NamedTuple):
    """Something to tell: what, since when, by which cause."""

    mark: Mark
    since_at: datetime
    cause: str = ""


def wanting(configuration: Configuration) -> dict[str, Customer]:
    """The customers who want notices."""
    return {
        name: customer
        for name, customer in configuration.customers.items()
        if customer.notices and customer.state is CustomerState.ACTIVE
    }


def happenings(
    customers: Mapping[str, Customer],
    assessment: Assessment,
    corrections: Iterable[Delivery],
) -> list[Happening]:
    """What there is to tell these customers at the moment of the assessment, told already or not, the oldest
    first."""
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


def _of_subscription(fares: SubscriptionHealth, held_at: datetime) -> Iterator[Happening]:
    begun = {item.delivery.period: item.delivery.revision for item in fares.open}
    issue = fares.issue
    paused = None
    if fares.health is Health.BLOCKED and issue is not None and issue.period is not None:
        paused = issue.period
        if issue.since_at <= held_at and issue.cause not in SHUT:
            mark = Mark(fares.customer, fares.feed, paused, NoticeKind.PAUSED, begun[paused])
            yield Happening(mark, issue.since_at, issue.cause)
    late = fares.overdue
    if late is None or late.period is None or late.period == paused:
        return
    revision = begun.get(late.period) or _next_revision(fares.last_delivered, late.period)
    if revision is not None:
        mark = Mark(fares.customer, fares.feed, late.period, NoticeKind.LATE, revision)
        yield Happening(mark, late.since_at, late.cause)


def _next_revision(last: Delivery | None, period: str) -> int | None:
    """Of a period that is not begun. None for an older one than was delivered last: whether it is a
    correction is known when it is begun."""
    if last is None or last.period < period:
        return 1
    return last.revision + 1 if last.period == period else None


def untold(found: Iterable[Happening], known: Iterable[Notice]) -> list[Happening]:
    """Those of which no notice is recorded. One that was withdrawn before it was put counts for nothing."""
    marks = {notice.mark for notice in known if notice.status is not NoticeStatus.WITHDRAWN}
    return [item for item in found if item.mark not in marks]


def overtaken(
    planned: Iterable[Notice], customers: Mapping[str, Customer], found: Iterable[Happening]
) -> list[Notice]:
    """Those that need not be put any more: the customer wants none, or what they tell of is over."""
    marks = {item.mark for item in found}
    return [
        notice
        for notice in planned
        if notice.mark.customer not in customers
        or (notice.mark.kind is not NoticeKind.CORRECTED and notice.mark not in marks)
    ]


def is_shut(health: CustomerHealth | None) -> bool:
    """Whether the customer's bucket would not let a notice in either."""
    return health is None or any(issue.cause in SHUT for issue in health.issues)


def ready(planned: Sequence[Notice], now: datetime) -> bool:
    """Whether a customer's oldest notice may be tried. A pause that is longer than any can be was noted while
    the clock was wrong."""
    at = planned[0].next_attempt_at
    return at is None or at <= now or at > now + LONGEST_PAUSE


def notice(item: Happening, customer: Customer, now: datetime) -> Notice:
    """The notice of a happening, to be recorded and put."""
    mark, prefix = item.mark, customer.destination.prefix
    manifest = manifest_key(prefix, mark.feed, mark.period, mark.revision)
    message, action, responsible = _words(item, prefix, manifest)
    body = {
        "action": action,
        "feed": mark.feed,
        "format": FORMAT,
        "kind": str(mark.kind),
        "made_at": timestamp(now),
        "manifest": manifest,
        "message": message,
        "responsible": str(responsible),
        "period": mark.period,
        "revision": mark.revision,
        "since_at": timestamp(item.since_at),
    }
    key = notice_key(prefix, now, mark.feed, mark.period, mark.kind)
    return Notice(mark, key, canonical(body), now)


# --- The words -----------------------------------------------------------------------------------------

_POLICY = (
    "Give your role the permission policy of the setup kit that you have from us (permission-policy.json; "
    "setup.sh puts it in place), or go through the permission policy in the setup guide once more."
)
_TAKEN = (
    "an object that is not ours lies where one of this delivery belongs, and we overwrite nothing",
    "Move what others have written below {place} away; ask us which keys they are.",
)
_ASKED: Mapping[str, tuple[str, str]] = {
    "access_denied": ("your role's permission policy refuses a right that we need", _POLICY),
    "multipart_denied": ("your role's permission policy does not let large files in", _POLICY),
    "kms_denied": (
        "the KMS key of your bucket refuses us",
        f"{_POLICY} The key's own policy must let the role use it, too (key-policy-statement.json).",
    ),
    "object_exists": _TAKEN,
}
_ANYTHING = (
    "something in your account stops it ({cause})",
    "Ask us what it is: we have AWS's answer.",
)
_GOES_ON = "Deliveries then go on by themselves, the oldest first."


def _words(item: Happening, prefix: str, manifest: str) -> tuple[str, str | None, Responsible]:
    """The message, what the customer has to do (None: nothing), and who must act."""
    mark, at = item.mark, f"{item.since_at:%Y-%m-%d %H:%M} UTC"
    what = "The next batch" if mark.period == "none" else f"Period {mark.period}"
    if mark.kind is NoticeKind.PAUSED:
        why, action = _ASKED.get(item.cause, _ANYTHING)
        known = {"cause": item.cause, "place": f"{prefix}{mark.feed}/"}
        message = f"{what} of {mark.feed} is paused since {at}: {why.format(**known)}."
        return message, f"{action.format(**known)} {_GOES_ON}", Responsible.CUSTOMER
    if mark.kind is NoticeKind.LATE:
        why = (
            "its files are not complete on our side yet"
            if item.cause == "no_source"
            else "we are at work on it"
        )
        message = (
            f"{what} of {mark.feed} was to be delivered by {at} and is late: {why}. "
            "It is here when its manifest is."
        )
        return message, None, Responsible.VENDOR
    message = f"{what} of {mark.feed} was corrected: revision {mark.revision} was delivered at {at}."
    return (
        message,
        f"Read the period again by its new manifest, {manifest}: it replaces the one before.",
        Responsible.CUSTOMER,
    )
