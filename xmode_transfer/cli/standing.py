"""Health for a terminal: the summary first, then the causes, then the customers that need attention."""

from collections.abc import Iterable, Iterator, Sequence

from xmode_transfer.alerting.alerts import by_cause
from xmode_transfer.alerting.health_records import (
    SOUND,
    Assessment,
    CustomerHealth,
    Health,
    Issue,
    SubscriptionHealth,
)
from xmode_transfer.cli.terminal import Line, minute, state
from xmode_transfer.model.health import Alert
from xmode_transfer.web import states

_SHOWN_PERIODS = 5
_SHOWN_IN_TROUBLE = 30
_SHOWN_SOUND = 10
_INDENT = 11


def lines(
    assessment: Assessment, engine: str, *, everybody: bool, warnings: Sequence[str] = ()
) -> Iterator[Line]:
    """The whole view. Without ``everybody``, long lists are cut: healthy customers are only named, and only
    the first of the others are shown."""
    if not assessment.customers:
        yield Line(("no customers are configured; see docs/configuration.md",))
    if len(assessment.customers) > 1:
        yield _summary(assessment)
    yield from _service(assessment)
    ordered = sorted(assessment.customers, key=lambda item: (tuple(Health).index(item.health), item.customer))
    troubled = [item for item in ordered if item.health not in SOUND]
    sound = [item for item in ordered if item.health in SOUND]
    if len(troubled) > 1:
        yield from _causes(by_cause(assessment.all_issues()))
    shown = troubled if everybody else troubled[:_SHOWN_IN_TROUBLE]
    for item in shown:
        yield from _customer(item)
    yield from _named(troubled[len(shown) :])
    if everybody or len(sound) <= _SHOWN_SOUND:
        for item in sound:
            yield from _customer(item)
    else:
        caring = [
            item for item in sound if item.warnings or any(of.not_attested for of in item.subscriptions)
        ]
        for item in caring[:_SHOWN_IN_TROUBLE]:
            yield from _customer(item)
        yield from _named([item for item in sound if item not in caring[:_SHOWN_IN_TROUBLE]])
    for warning in warnings:
        yield Line((state("warning"), f": {warning}"))
    yield Line((f"engine {engine}",))


def _summary(assessment: Assessment) -> Line:
    counts = [(f"{count:,} {word}", states.style(word)) for word, count in assessment.counts.items() if count]
    parted = [part for count in counts for part in (", ", count)]
    total = states.count(len(assessment.customers), "customer")
    return Line(((total, "bold"), ": ", *parted[1:], f"; {minute(assessment.assessed_at)}"))


def _service(assessment: Assessment) -> Iterator[Line]:
    daemon = assessment.daemon
    if daemon is not None and daemon.is_alive(assessment.assessed_at):
        ago = states.duration(max((assessment.assessed_at - daemon.ticked_at).total_seconds(), 0))
        stopping = ", stopping" if daemon.stopping else ""
        yield Line((f"daemon: {daemon.busy} of {daemon.workers} workers busy, ticked {ago} ago{stopping}",))
    for care in assessment.warnings:
        yield from _trouble(care, "the service: ")


def _causes(found: Iterable[Alert]) -> Iterator[Line]:
    """Causes that concern several customers."""
    many = sorted(
        (alert for alert in found if alert.customer_count > 1),
        key=lambda alert: -alert.customer_count,
    )
    for alert in many:
        yield Line(((alert.summary, "bold"),))
        yield Line((alert.message,), indent=_INDENT)
        yield _must_act(alert.responsible, alert.hint, _INDENT)


def _customer(item: CustomerHealth) -> Iterator[Line]:
    yield Line(((item.customer, "bold"),), state(item.health, _INDENT))
    for problem in item.problems:
        yield Line((problem,), indent=_INDENT)
    for subscription in item.subscriptions:
        yield from _subscription(subscription)
    left = item.left_behind
    if left is not None and not left.kept and left.ends_at is not None:
        uploads = states.count(left.count, "orphaned multipart upload")
        told = f"{uploads} ({states.size(left.bytes)}): we may not abort them"
        rule = f"the bucket's lifecycle rule removes them by {left.ends_at:%Y-%m-%d}"
        yield Line((f"{told}; {rule}",), indent=_INDENT)
    for care in item.warnings:
        yield from _trouble(care, "", _INDENT)


def _subscription(item: SubscriptionHealth) -> Iterator[Line]:
    below = _INDENT + 2
    yield Line((f"{_last(item)}{_due(item)}",), f"{item.feed}: ", _INDENT)
    if item.not_attested:
        count = states.count(item.not_attested, "delivery")
        told = f"not attested: {count} recovered without our signature (docs/verify.md)"
        yield Line((told,), indent=below)
    trouble = item.issue
    for begun in item.open:
        delivery = begun.delivery
        head = f"{delivery.status} {delivery.period} r{delivery.revision} since {minute(begun.since_at)}"
        why = f": {delivery.failure.message}" if delivery.failure else ""
        yield Line((f"{head}{why}",), indent=below)
        if trouble is not None and trouble.hint and trouble.period == delivery.period:
            yield _must_act(trouble.responsible, trouble.hint, below + 2)
    if trouble is not None and trouble.period not in {begun.delivery.period for begun in item.open}:
        yield Line((f"{item.health} since {minute(trouble.since_at)}: {trouble.message}",), indent=below)
        if trouble.hint:
            yield _must_act(trouble.responsible, trouble.hint, below + 2)
    if item.scan is not None:
        for period, reason in item.scan.waiting[-_SHOWN_PERIODS:]:
            yield Line((f"waiting {period}: {reason}",), indent=below)


def _trouble(trouble: Issue, whose: str, indent: int = 0) -> Iterator[Line]:
    yield Line((f"{whose}{trouble.message} (since {minute(trouble.since_at)})",), indent=indent)
    yield _must_act(trouble.responsible, trouble.hint, indent + 2)


def _must_act(responsible: str, hint: str, indent: int) -> Line:
    return Line((hint,), f"{states.RESPONSIBLE[responsible]} must act: ", indent)


def _named(rest: Sequence[CustomerHealth]) -> Iterator[Line]:
    """Names of customers, grouped by health."""
    for word in Health:
        names = [item.customer for item in rest if item.health is word]
        if names:
            few = ", ".join(names[:_SHOWN_SOUND])
            more = f" and {len(names) - _SHOWN_SOUND:,} more (--all)" if len(names) > _SHOWN_SOUND else ""
            yield Line((f"{few}{more}",), state(word, _INDENT))


def _last(item: SubscriptionHealth) -> str:
    last = item.last_delivered
    if last is None or last.delivered_at is None:
        seen = "" if item.scan is not None else ", source not scanned yet"
        return f"nothing delivered yet{seen}"
    missing = f"{last.missing_count:,} missing, " if last.missing_count else ""
    return (
        f"last {last.period} r{last.revision}, {states.count(last.object_count, 'object')}, {missing}"
        f"{states.size(last.total_bytes)}, {minute(last.delivered_at)}"
    )


def _due(item: SubscriptionHealth) -> str:
    if not item.due:
        return ""
    rest = item.due_count - len(item.due[:_SHOWN_PERIODS])
    more = f" and {rest} more" if rest > 0 else ""
    return f"; due: {', '.join(item.due[:_SHOWN_PERIODS])}{more}"
