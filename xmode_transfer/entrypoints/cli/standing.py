"""How everybody fares, for a terminal: the summary first, then the causes, then who is in trouble."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from xmode_transfer.domain.alerts import Alert, by_cause
from xmode_transfer.domain.errors import Party
from xmode_transfer.domain.health import (
    SOUND,
    Assessment,
    CustomerHealth,
    Health,
    SubscriptionHealth,
    Trouble,
)
from xmode_transfer.domain.looks import OpenDelivery
from xmode_transfer.entrypoints.cli import words
from xmode_transfer.entrypoints.cli.terminal import style

COLOURS = {
    Health.HEALTHY: "green",
    Health.DUE: "cyan",
    Health.LATE: "magenta",
    Health.NO_SOURCE: "magenta",
    Health.ATTENTION: "yellow",
    Health.BLOCKED: "yellow",
    Health.FAILING: "red",
    Health.BROKEN: "red",
    Health.PENDING: "bright_black",
    Health.RETIRED: "bright_black",
}
WHO = {Party.US: "we", Party.CUSTOMER: "the customer", Party.AWS: "AWS"}
_SHOWN_PERIODS = 5
_SHOWN_IN_TROUBLE = 30
_SHOWN_SOUND = 10
_INDENT = 11


def lines(
    assessment: Assessment, engine: str, *, everybody: bool, warnings: Sequence[str] = ()
) -> Iterator[str]:
    """All of it. Without ``everybody`` many customers who fare well are only named, and of very many in
    trouble the first ones told."""
    if not assessment.customers:
        yield "no customer is configured; see docs/configuration.md"
    if len(assessment.customers) > 1:
        yield _summary(assessment)
    yield from _service(assessment)
    ordered = sorted(assessment.customers, key=lambda item: (tuple(Health).index(item.health), item.customer))
    troubled = [item for item in ordered if item.health not in SOUND]
    sound = [item for item in ordered if item.health in SOUND]
    if len(troubled) > 1:
        yield from _causes(by_cause(assessment.all_troubles()))
    shown = troubled if everybody else troubled[:_SHOWN_IN_TROUBLE]
    for item in shown:
        yield from _customer(item)
    yield from _named(troubled[len(shown) :])
    if everybody or len(sound) <= _SHOWN_SOUND:
        for item in sound:
            yield from _customer(item)
    else:
        caring = [item for item in sound if item.cares or any(of.not_attested for of in item.subscriptions)]
        for item in caring[:_SHOWN_IN_TROUBLE]:
            yield from _customer(item)
        yield from _named([item for item in sound if item not in caring[:_SHOWN_IN_TROUBLE]])
    for warning in warnings:
        yield _wrapped(f"{style('warning', fg='yellow', bold=True)}: {warning}", 0)
    yield f"engine {engine}"


def _summary(assessment: Assessment) -> str:
    counts = ", ".join(
        style(f"{count:,} {word}", fg=COLOURS[word]) for word, count in assessment.counts.items() if count
    )
    total = words.count(len(assessment.customers), "customer")
    return f"{style(total, bold=True)}: {counts}; {assessment.assessed_at:%Y-%m-%d %H:%M} UTC"


def _service(assessment: Assessment) -> Iterator[str]:
    daemon = assessment.daemon
    if daemon is not None and daemon.is_alive(assessment.assessed_at):
        ago = words.duration(max((assessment.assessed_at - daemon.ticked_at).total_seconds(), 0))
        stopping = ", stopping" if daemon.stopping else ""
        yield f"daemon: {daemon.busy} of {daemon.workers} workers busy, ticked {ago} ago{stopping}"
    for care in assessment.cares:
        yield from _trouble(care, "the service")


def _causes(found: Iterable[Alert]) -> Iterator[str]:
    """What is wrong by cause, where that says it shorter."""
    many = sorted(
        (alert for alert in found if alert.customer_count > 1),
        key=lambda alert: -alert.customer_count,
    )
    for alert in many:
        yield style(alert.summary, bold=True)
        yield _wrapped(alert.message, _INDENT)
        yield _wrapped(f"{WHO[alert.party]} must act: {alert.hint}", _INDENT)


def _customer(item: CustomerHealth) -> Iterator[str]:
    head = style(f"{item.health:<10}", fg=COLOURS[item.health], bold=True)
    yield f"{head} {style(item.customer, bold=True)}"
    for problem in item.problems:
        yield _wrapped(problem, _INDENT)
    for subscription in item.subscriptions:
        yield from _subscription(subscription)
    left = item.left_behind
    if left is not None and not left.kept and left.ends_at is not None:
        uploads = words.count(left.count, "multipart upload")
        yield _wrapped(
            f"{uploads} left behind ({words.size(left.bytes)}): we may not abort them. "
            f"The bucket's own lifecycle rule frees them by {left.ends_at:%Y-%m-%d}",
            _INDENT,
        )
    for care in item.cares:
        yield from _trouble(care, "", _INDENT)


def _subscription(item: SubscriptionHealth) -> Iterator[str]:
    yield f"{' ' * _INDENT}{item.feed}: {_last(item)}{_due(item)}"
    if item.not_attested:
        told = "1 delivery" if item.not_attested == 1 else f"{item.not_attested:,} deliveries"
        yield f"{' ' * (_INDENT + 2)}not attested: {told} taken back without our signature (docs/verify.md)"
    trouble = item.trouble
    for begun in item.open:
        yield from _begun(begun)
        if trouble is not None and trouble.period == begun.delivery.period:
            yield from _next(trouble)
    if trouble is not None and trouble.period not in {begun.delivery.period for begun in item.open}:
        yield _wrapped(f"{item.health} since {_moment(trouble)}: {trouble.message}", _INDENT + 2)
        yield from _next(trouble)
    if item.look is not None:
        for period, reason in item.look.waiting[-_SHOWN_PERIODS:]:
            yield f"{' ' * (_INDENT + 2)}waiting {period}: {reason}"


def _begun(begun: OpenDelivery) -> Iterator[str]:
    delivery = begun.delivery
    head = (
        f"{delivery.status} {delivery.period} r{delivery.revision} since {begun.since_at:%Y-%m-%d %H:%M} UTC"
    )
    why = f": {delivery.failure.message}" if delivery.failure else ""
    yield _wrapped(f"{head}{why}", _INDENT + 2)


def _next(trouble: Trouble) -> Iterator[str]:
    if trouble.hint:
        yield _wrapped(f"{WHO[trouble.party]} must act: {trouble.hint}", _INDENT + 4)


def _trouble(trouble: Trouble, whose: str, indent: int = 0) -> Iterator[str]:
    about = f"{whose}: " if whose else ""
    yield _wrapped(f"{about}{trouble.message} (since {_moment(trouble)})", indent)
    yield _wrapped(f"{WHO[trouble.party]} must act: {trouble.hint}", indent + 2)


def _named(rest: Sequence[CustomerHealth]) -> Iterator[str]:
    """Customers of one word on a line or two, by name."""
    for word in Health:
        names = [item.customer for item in rest if item.health is word]
        if names:
            few = ", ".join(names[:_SHOWN_SOUND])
            more = f" and {len(names) - _SHOWN_SOUND:,} more (--all)" if len(names) > _SHOWN_SOUND else ""
            yield f"{style(f'{word:<10}', fg=COLOURS[word], bold=True)} {few}{more}"


def _last(item: SubscriptionHealth) -> str:
    last = item.last_delivered
    if last is None or last.delivered_at is None:
        seen = "" if item.look is not None else ", and nobody has looked at its source"
        return f"nothing delivered yet{seen}"
    missing = f"{last.missing_count:,} missing, " if last.missing_count else ""
    return (
        f"last {last.period} r{last.revision}, {words.count(last.object_count, 'object')}, {missing}"
        f"{words.size(last.total_bytes)}, {last.delivered_at:%Y-%m-%d %H:%M} UTC"
    )


def _due(item: SubscriptionHealth) -> str:
    if not item.due:
        return ""
    rest = item.due_count - len(item.due[:_SHOWN_PERIODS])
    more = f" and {rest} more" if rest > 0 else ""
    return f"; due: {', '.join(item.due[:_SHOWN_PERIODS])}{more}"


def _moment(trouble: Trouble) -> str:
    return f"{trouble.since_at:%Y-%m-%d %H:%M} UTC"


def _wrapped(text: str, indent: int) -> str:
    return words.wrapped(text, indent) if text else textwrap.indent(text, " " * indent)
