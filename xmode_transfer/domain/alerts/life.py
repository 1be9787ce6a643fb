"""When an alert opens and is resolved, and what each channel is to be told of it: pure, and remembered in the
ledger, so that a restart repeats nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from xmode_transfer.domain.alerts.records import Alert, AlertState, Condition, Event, Telling
from xmode_transfer.domain.errors import Party

GROWTH_INTERVAL = timedelta(minutes=30)
"""A channel hears of more customers under an alert that it knows not more often than this."""
REMEMBERED = timedelta(days=30)
"""A resolved alert is forgotten after this."""
_FIRST_RETRY, _LONGEST_RETRY = timedelta(minutes=1), timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours in which only urgent alerts are sent; over midnight where ``until`` comes before ``begins``."""

    begins: time
    until: time
    timezone: str

    def holds(self, now: datetime) -> bool:
        local = now.astimezone(ZoneInfo(self.timezone)).time()
        if self.begins < self.until:
            return self.begins <= local < self.until
        return local >= self.begins or local < self.until


@dataclass(frozen=True, slots=True)
class Rules:
    """``hold`` is how long something must be wrong before it is told, and well before it is resolved."""

    hold: timedelta = timedelta(minutes=5)
    repeat: timedelta = timedelta(hours=4)
    quiet: Quiet | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """What one channel gets."""

    channel: str
    parties: frozenset[Party] = frozenset(Party)
    only_urgent: bool = False

    def takes(self, condition: Condition) -> bool:
        return condition.party in self.parties and (condition.urgent or not self.only_urgent)


@dataclass(frozen=True, slots=True)
class Step:
    """What became of the alerts in one round: ``changed`` are to be written, ``forgotten`` fingerprints to be
    removed; ``opened`` and ``resolved`` are the alerts that came into that state now."""

    alerts: Mapping[str, Alert]
    changed: tuple[Alert, ...] = ()
    forgotten: tuple[str, ...] = ()
    opened: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()


def advance(known: Iterable[Alert], found: Iterable[Condition], rules: Rules, now: datetime) -> Step:
    """The next state of every alert. What has been wrong for longer than ``hold`` by its own record opens at
    once, also after a restart; what comes and goes within it is never told."""
    before = {alert.fingerprint: alert for alert in known}
    here = {condition.fingerprint: condition for condition in found}
    after: dict[str, Alert] = {}
    forgotten = []
    for mark in before.keys() | here.keys():
        alert = _next(before.get(mark), here.get(mark), rules, now)
        if alert is None:
            forgotten.append(mark)
        else:
            after[mark] = alert
    changed = tuple(alert for mark, alert in sorted(after.items()) if before.get(mark) != alert)
    came = [(alert, before.get(alert.fingerprint)) for alert in changed]
    return Step(
        dict(sorted(after.items())),
        changed,
        tuple(sorted(forgotten)),
        tuple(
            alert
            for alert, was in came
            if alert.state is AlertState.OPEN
            and (was is None or was.state is not AlertState.OPEN or was.episode != alert.episode)
        ),
        tuple(
            alert
            for alert, was in came
            if alert.state is AlertState.RESOLVED and was is not None and was.state is AlertState.OPEN
        ),
    )


def _next(alert: Alert | None, condition: Condition | None, rules: Rules, now: datetime) -> Alert | None:
    if condition is not None:
        if alert is None or alert.state is AlertState.RESOLVED:
            alert = Alert(condition, alert.episode + 1 if alert else 1, now, now)
        opened_at = alert.opened_at
        if opened_at is None and now - min(alert.first_seen_at, condition.since_at) >= rules.hold:
            opened_at = now
        return replace(alert, condition=condition, last_seen_at=now, opened_at=opened_at)
    assert alert is not None  # one of the two is there
    if alert.state is AlertState.PENDING:
        # It came back and did not last: the number of its episodes stays known.
        return None if alert.episode == 1 else replace(alert, resolved_at=now)
    if alert.state is AlertState.OPEN:
        return replace(alert, resolved_at=now) if now - alert.last_seen_at >= rules.hold else alert
    assert alert.resolved_at is not None
    return alert if now - alert.resolved_at < REMEMBERED else None


def next_message(
    alert: Alert, telling: Telling | None, route: Route, rules: Rules, now: datetime
) -> Event | None:
    """What the channel is to be told now of that alert, if anything: of each episode that it opened once,
    that it is resolved once if it heard that it opened, and in between that it grew or still is."""
    event: Event | None = None
    same = telling is not None and telling.episode == alert.episode
    believes_open = telling is not None and telling.told in (Event.OPENED, Event.GREW, Event.REPEATED)
    if alert.state is AlertState.OPEN:
        if not route.takes(alert.condition):
            return None
        if telling is None or telling.told_at is None or not (same and believes_open):
            event = Event.OPENED
        elif now - telling.told_at >= rules.repeat:
            event = Event.REPEATED
        elif _grew(alert.condition, telling) and now - telling.told_at >= GROWTH_INTERVAL:
            event = Event.GREW
    elif believes_open and (alert.state is AlertState.RESOLVED or not same):
        event = Event.RESOLVED  # also of an episode that ended before the channel could be told
    if event is None or (telling is not None and telling.next_attempt_at and now < telling.next_attempt_at):
        return None
    if rules.quiet is not None and not alert.condition.urgent and rules.quiet.holds(now):
        return None
    return event


def _grew(condition: Condition, telling: Telling) -> bool:
    if condition.customer_count > telling.customer_count:
        return True
    return bool(set(condition.customers) - set(telling.customers)) and (
        condition.customer_count == len(condition.customers)
    )


def told(alert: Alert, channel: str, event: Event, now: datetime) -> Telling:
    """The channel took the message."""
    condition = alert.condition
    return Telling(
        alert.fingerprint,
        channel,
        alert.episode,
        event,
        now,
        condition.customers,
        condition.customer_count,
    )


def not_told(alert: Alert, telling: Telling | None, channel: str, error: str, now: datetime) -> Telling:
    """The channel did not take it: it is tried again, at first soon. What it heard before stays."""
    if telling is None:
        telling = Telling(alert.fingerprint, channel, alert.episode)
    attempts = telling.attempts + 1
    pause = min(_FIRST_RETRY * 2 ** min(attempts - 1, 10), _LONGEST_RETRY)
    return replace(telling, attempts=attempts, next_attempt_at=now + pause, error=error)
