"""A person's decision about what is quarantined: release it as it is, or reject it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration
from xmode_transfer.delivery.judging import NO_PERIOD, rejected
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.checks import Decision, Judgement, Release, Verdict, in_force
from xmode_transfer.model.errors import AlreadyRunning, ConfigError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Delivery, Status
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import held, of_delivery
from xmode_transfer.transfer.sending import failure_of

_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """``customer`` and ``file`` (of a drop folder) are None for all."""

    feed: str
    period: str
    customer: str | None
    file: str | None
    decision: Decision
    person: str
    reason: str


class Decided(NamedTuple):
    """``customers`` are those whose delivery waited for it."""

    judgements: Sequence[Judgement]
    customers: Sequence[str]


def decide(
    configuration: Configuration, ledger: Ledger, clock: Clock, holder: str, request: Request
) -> Decided:
    """Record the decision on each quarantined item of the request; the waiting deliveries are due at once, or
    with a rejection end. Raises ConfigError if nothing of it is quarantined."""
    found = _quarantined(configuration, ledger, request)
    now, customer = clock.now(), request.customer or ""
    decisions = [
        Release(
            item.feed,
            item.period,
            item.name,
            item.fingerprint,
            customer,
            request.decision,
            request.person,
            request.reason,
            now,
            item.failed,
        )
        for item in found
    ]
    ledger.judgements.decide(decisions)
    is_release = request.decision is Decision.RELEASED
    for item in found:
        telemetry.log(
            Event.PERIOD_RELEASED if is_release else Event.PERIOD_REJECTED,
            feed=item.feed,
            period=item.period,
            name=item.name or None,
            customer=request.customer,
            by=request.person,
            reason=request.reason,
        )
    of_feed = (request.customer, request.feed, request.period)
    waiting = ledger.deliveries.find(*of_feed, statuses=[Status.QUARANTINED])
    for delivery in sorted(waiting, key=lambda item: item.customer):
        for decision in decisions:
            if request.period == NO_PERIOD or delivery.fingerprint == decision.fingerprint:
                _settle(ledger, clock, holder, delivery, decision)
                break
    return Decided(found, sorted({item.customer for item in waiting}))


def _quarantined(configuration: Configuration, ledger: Ledger, request: Request) -> list[Judgement]:
    feed, customer = request.feed, request.customer
    if feed not in configuration.feeds:
        hint = f"feeds: {', '.join(sorted(configuration.feeds))}"
        raise ConfigError(f"there is no feed {feed}", hint=hint)
    if customer is not None and feed not in configuration.customer(customer, "nothing was decided").feeds:
        raise ConfigError(f"{customer} does not subscribe to the feed {feed}")
    if request.file is not None and request.period != NO_PERIOD:
        raise ConfigError("--file is for a drop folder (--period none); a period is released as a whole")
    found = [
        item
        for item in ledger.judgements.find(feed, request.period, [Verdict.QUARANTINED])
        if request.file in (None, item.name)
    ]
    decisions = ledger.judgements.decisions(feed, request.period)
    last = {item.name: in_force(decisions, customer or "", item.fingerprint, item.name) for item in found}
    undecided = [item for item in found if not _is_same(last[item.name], request)]
    if undecided:
        return undecided
    what = f"{feed} {request.file or request.period}"
    decided = next(filter(None, last.values()), None)
    if decided is not None:
        when = f"{decided.decided_at:%Y-%m-%d %H:%M} UTC"
        raise ConfigError(f"{what} was {decided.decision} by {decided.person} on {when} already")
    raise ConfigError(
        f"nothing of {what} is quarantined",
        hint=f"`xmode-transfer config check --feed {feed} --period {request.period}` shows the verdict",
    )


def _is_same(last: Release | None, request: Request) -> bool:
    return last is not None and last.decision is request.decision


def _settle(ledger: Ledger, clock: Clock, holder: str, delivery: Delivery, decision: Release) -> None:
    """Make a waiting delivery due at once, or with a rejection end it."""
    ends = decision.decision is Decision.REJECTED and delivery.period != NO_PERIOD
    name = of_delivery(delivery.customer, delivery.feed, delivery.period)
    with suppress(AlreadyRunning), held(ledger, name, holder, wait_seconds=_WAIT_SECONDS) as lease:
        latest = ledger.deliveries.latest(delivery.customer, delivery.feed, delivery.period)
        if latest is None or latest.id != delivery.id or latest.status is not Status.QUARANTINED:
            return  # its source was corrected meanwhile
        latest = replace(latest, next_attempt_at=None, updated_at=clock.now())
        if ends:
            marker = {latest.period: latest.marker}
            ledger.sources.skip(latest.customer, latest.feed, marker, clock.now())
            latest = replace(latest, status=Status.SKIPPED, failure=failure_of(rejected(decision)))
        ledger.deliveries.update(lease, latest)
