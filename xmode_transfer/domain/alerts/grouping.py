"""From everybody's troubles to one condition a cause."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from xmode_transfer.domain.alerts.causes import URGENT, in_words
from xmode_transfer.domain.alerts.records import KEPT_CUSTOMERS, Condition
from xmode_transfer.domain.errors import Party
from xmode_transfer.domain.health import Trouble

MOST_DETAILS = 5
"""With more than so many feeds, findings and the like under one cause, they are told as one."""
WIDESPREAD_CUSTOMERS = 5
TOGETHER = timedelta(hours=1)
_MOST_PART = 0.75

_Member = tuple[str, Trouble]


def conditions(troubles: Iterable[_Member]) -> tuple[Condition, ...]:
    """One for each cause, and each detail of it where there are few, in the order of fingerprints. A trouble
    without a customer concerns the service as a whole."""
    by_cause: dict[str, dict[str, list[_Member]]] = {}
    for customer, trouble in troubles:
        by_cause.setdefault(trouble.cause, {}).setdefault(trouble.detail, []).append((customer, trouble))
    found = []
    for cause, details in by_cause.items():
        for detail, members in _few(details).items():
            found.append(_condition(cause, detail, members))
    return tuple(sorted(found, key=lambda condition: condition.fingerprint))


def fingerprint(cause: str, detail: str = "") -> str:
    """Short, and the same everywhere: it is PagerDuty's deduplication key, too."""
    return hashlib.sha256(f"{cause}\n{detail}".encode()).hexdigest()[:16]


def _few(details: Mapping[str, list[_Member]]) -> Mapping[str, list[_Member]]:
    if len(details) <= MOST_DETAILS:
        return details
    return {"": [member for members in details.values() for member in members]}


def _condition(cause: str, detail: str, members: Sequence[_Member]) -> Condition:
    members = sorted(members, key=lambda member: (member[1].since_at, member[0]))
    customers = sorted({customer for customer, _ in members if customer})
    first_customer, first = members[0]
    party, urgent, message, hint = first.party, cause in URGENT, first.message, first.hint
    if len(customers) > 1:
        message = f"For example {first_customer}: {message}" if first_customer else message
    together = _together(members) if party is Party.CUSTOMER else None
    if together is not None:
        party, urgent = Party.US, True
        message = f"{together}. {message}"
        hint = (
            "so many at once point to our side: see that our key works and is the same user's "
            "(`aws sts get-caller-identity`; a user that was made anew is refused by every customer), "
            "then at what was changed then"
        )
    return Condition(
        fingerprint(cause, detail),
        cause,
        detail,
        party,
        urgent,
        _summary(cause, detail, customers, first),
        message,
        hint,
        first.since_at,
        tuple(customers[:KEPT_CUSTOMERS]),
        len(customers),
    )


def _summary(cause: str, detail: str, customers: Sequence[str], first: Trouble) -> str:
    words = in_words(cause)
    if first.feed is not None and detail == first.feed:
        words = f"{words} ({detail})"
    since = f" since {first.since_at:%Y-%m-%d %H:%M} UTC"
    if not customers:
        return f"{words}{since}"
    return f"{customers[0] if len(customers) == 1 else f'{len(customers):,} customers'}: {words}{since}"


def _together(members: Sequence[_Member]) -> str | None:
    """When many customers' own fault began for most of them at one time, it is hardly theirs."""
    begun: dict[str, datetime] = {}
    for customer, trouble in members:  # the first trouble of each customer
        begun.setdefault(customer, trouble.since_at)
    times = sorted(begun.values())
    if len(times) < WIDESPREAD_CUSTOMERS:
        return None
    best, ended, left = 0, 0, 0
    for right, at in enumerate(times):
        while at - times[left] > TOGETHER:
            left += 1
        if right - left + 1 > best:
            best, ended = right - left + 1, right
    if best < WIDESPREAD_CUSTOMERS or best < _MOST_PART * len(times):
        return None
    first_at, last_at = times[ended - best + 1], times[ended]
    if first_at == last_at:
        return f"It began for {best:,} customers at {first_at:%Y-%m-%d %H:%M} UTC"
    return (
        f"It began for {best:,} customers between {first_at:%Y-%m-%d %H:%M} and {last_at:%Y-%m-%d %H:%M} UTC"
    )
