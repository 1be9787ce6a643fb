"""Watching over deliveries: how everybody fares, by the ledger alone, and who is told of it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from xmode_transfer import telemetry
from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.alerts import (
    Alert,
    AlertState,
    Condition,
    Message,
    Quiet,
    Rules,
    Telling,
    advance,
    conditions,
    fingerprint,
    next_message,
    not_told,
    told,
)
from xmode_transfer.domain.alerts import Event as Told
from xmode_transfer.domain.config import Alerting, Configuration, Service
from xmode_transfer.domain.errors import (
    AlreadyRunning,
    LeaseLost,
    LedgerError,
    Party,
    XmodeError,
)
from xmode_transfer.domain.health import Assessment, Trouble, assess
from xmode_transfer.domain.records import Lease
from xmode_transfer.ports import Clock, Heart, Notifier
from xmode_transfer.services import leasing
from xmode_transfer.telemetry import Event

MOST_MESSAGES = 10
"""So many messages a channel gets in one round at most, urgent ones first; the rest follows in the next."""
_LEASE = "watch"
_Key = tuple[str, str]


def assess_all(configuration: Configuration, ledger: Ledger, clock: Clock) -> Assessment:
    """How every configured customer fares now: the one evaluator behind `status`, the page, the metrics and
    the alerts. Reads the ledger and calls nobody; costs by the number of subscriptions, not by the length of
    their history. For one customer's calendar of periods see ``ledger.deliveries.calendar``. Raises
    LedgerError."""
    return assess(configuration, ledger.survey(), clock.now())


def open_causes(ledger: Ledger) -> list[str]:
    """The cause of each alert that is open. Raises LedgerError."""
    return [alert.condition.cause for alert in ledger.alerts.known() if alert.state is AlertState.OPEN]


def rules_of(alerting: Alerting) -> Rules:
    quiet = alerting.quiet_hours
    return Rules(
        timedelta(seconds=alerting.hold_seconds),
        timedelta(hours=alerting.repeat_hours),
        Quiet(*quiet.span, quiet.timezone) if quiet else None,
    )


class Watch:
    """Opens, repeats and resolves alerts, tells the channels, and keeps the heart beating.

    ``round`` is called about once a minute, and when ``beat_is_due``, by one thread. It raises nothing that
    is not a defect: a channel that does not answer costs some seconds and is tried again, and while the
    ledger takes nothing, what became of the alerts is kept in memory, with an alert about the ledger among
    them. Several processes may watch over one ledger: one of them at a time does.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        holder: str,
        notifiers: Callable[[Service], Sequence[Notifier]],
        heart: Callable[[Service], Heart | None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._holder = holder
        self._notifiers = notifiers
        self._heart = heart
        self._alerts: dict[str, Alert] = {}
        self._tellings: dict[_Key, Telling] = {}
        # What the ledger has not taken yet.
        self._unrecorded: set[str] = set()
        self._unrecorded_tellings: set[_Key] = set()
        self._forgotten: set[str] = set()
        self._trouble: Trouble | None = None
        # On the monotonic clock. The heartbeat keeps to times of its own, whatever the rounds' distance is.
        self._beat_at: float | None = None
        self._round_at = -math.inf

    @property
    def beat_is_due(self) -> bool:
        """Whether the time of the next heartbeat has come since the last round began. Any thread may ask."""
        beat_at = self._beat_at
        return beat_at is not None and self._round_at < beat_at <= self._clock.monotonic()

    def round(self, configuration: Configuration) -> Assessment | None:
        """One look at everybody; answers what was found, or None when the ledger could not be read or another
        process watches."""
        self._round_at = self._clock.monotonic()
        try:
            with self._turn() as lease:
                return self._round(configuration, lease)
        except AlreadyRunning:
            return None
        except LeaseLost:
            telemetry.log(Event.LEASE_LOST, lease=_LEASE)
            return None

    @contextmanager
    def _turn(self) -> Iterator[Lease | None]:
        """The right to watch; None where the ledger cannot even give that."""
        try:
            turn = leasing.held(self._ledger, _LEASE, self._holder)
            lease = turn.__enter__()
        except LedgerError as error:
            self._note(error)
            yield None
            return
        try:
            yield lease
        finally:
            try:
                turn.__exit__(None, None, None)
            except LedgerError as error:
                self._note(error)

    def _round(self, configuration: Configuration, lease: Lease | None) -> Assessment | None:
        service = configuration.service
        rules = rules_of(service.alerting)
        now = self._clock.now()
        assessment = self._read(configuration)
        found = self._conditions(assessment)
        step = advance(self._alerts.values(), found, rules, now)
        self._alerts = dict(step.alerts)
        self._unrecorded |= {alert.fingerprint for alert in step.changed}
        self._forgotten |= set(step.forgotten)
        for mark in step.forgotten:
            self._unrecorded.discard(mark)
            for key in [key for key in self._tellings if key[0] == mark]:
                del self._tellings[key]
                self._unrecorded_tellings.discard(key)
        for alert in step.opened:
            telemetry.error(Event.ALERT_OPENED, **_fields(alert))
        for alert in step.resolved:
            telemetry.log(Event.ALERT_RESOLVED, **_fields(alert))
        self._record(lease)
        self._tell(self._notifiers(service), rules, lease)
        self._beat(service)
        return assessment

    # --- The ledger

    def _read(self, configuration: Configuration) -> Assessment | None:
        """What the ledger knows takes the place of what is in memory, but for what it has not taken yet."""
        try:
            assessment = assess_all(configuration, self._ledger, self._clock)
            alerts = {alert.fingerprint: alert for alert in self._ledger.alerts.known()}
            tellings = {(item.fingerprint, item.channel): item for item in self._ledger.alerts.tellings()}
        except LedgerError as error:
            self._note(error)
            return None
        alerts |= {mark: self._alerts[mark] for mark in self._unrecorded}
        tellings |= {key: self._tellings[key] for key in self._unrecorded_tellings}
        self._alerts = {mark: alert for mark, alert in alerts.items() if mark not in self._forgotten}
        self._tellings = {key: item for key, item in tellings.items() if key[0] in self._alerts}
        return assessment

    def _conditions(self, assessment: Assessment | None) -> tuple[Condition, ...]:
        """Without an assessment nothing is known to be well again."""
        of_ledger = () if self._trouble is None else conditions([("", self._trouble)])
        if assessment is not None:
            troubles = list(assessment.all_troubles())
            if self._trouble is not None:
                troubles.append(("", self._trouble))
            return conditions(troubles)
        marks = {condition.fingerprint for condition in of_ledger}
        still = [
            alert.condition
            for alert in self._alerts.values()
            if alert.state is not AlertState.RESOLVED and alert.fingerprint not in marks
        ]
        return (*still, *of_ledger)

    def _record(self, lease: Lease | None) -> None:
        if lease is None:
            return
        if not (self._unrecorded or self._forgotten or self._unrecorded_tellings) and self._trouble is None:
            return
        try:
            self._ledger.alerts.record(
                lease,
                [self._alerts[mark] for mark in sorted(self._unrecorded)],
                sorted(self._forgotten),
                [self._tellings[key] for key in sorted(self._unrecorded_tellings)],
            )
        except LedgerError as error:
            self._note(error)
            return
        self._unrecorded.clear()
        self._forgotten.clear()
        self._unrecorded_tellings.clear()
        self._trouble = None

    def _note(self, error: LedgerError) -> None:
        since_at = self._trouble.since_at if self._trouble else self._clock.now()
        self._trouble = Trouble(
            error.code, error.party, error.message, error.hint, since_at, retryable=error.retryable
        )
        telemetry.error(Event.ALERTS_NOT_RECORDED, **error.log_context())

    # --- The channels

    def _tell(self, notifiers: Sequence[Notifier], rules: Rules, lease: Lease | None) -> None:
        """Each channel in a thread of its own, so that one that hangs holds up no other."""
        due = [(notifier, self._due(notifier, rules)) for notifier in notifiers]
        due = [(notifier, messages) for notifier, messages in due if messages]
        if not due:
            return
        with ThreadPoolExecutor(len(due), thread_name_prefix="notify") as threads:
            answers = threads.map(lambda item: list(self._send(*item)), due)
            for answered in answers:
                for telling in answered:
                    self._tellings[telling.fingerprint, telling.channel] = telling
                    self._unrecorded_tellings.add((telling.fingerprint, telling.channel))
                self._record(lease)

    def _due(self, notifier: Notifier, rules: Rules) -> list[Message]:
        now = self._clock.now()
        messages = []
        for alert in self._alerts.values():
            telling = self._tellings.get((alert.fingerprint, notifier.route.channel))
            event = next_message(alert, telling, notifier.route, rules, now)
            if event is not None:
                messages.append(Message(event, alert, now))
        messages.sort(key=lambda message: (not message.alert.condition.urgent, message.alert.first_seen_at))
        return messages[:MOST_MESSAGES]

    def _send(self, notifier: Notifier, messages: Iterable[Message]) -> Iterator[Telling]:
        """Until the channel takes one no more: the others need not try it in this round."""
        channel = notifier.route.channel
        for message in messages:
            alert, now = message.alert, self._clock.now()
            known = {"channel": channel, "message_kind": str(message.event), **_fields(alert)}
            try:
                answer = notifier.send(message)
            except XmodeError as error:
                telemetry.warn(Event.ALERT_NOT_SENT, **known, error=error.message, hint=error.hint)
                before = self._tellings.get((alert.fingerprint, channel))
                yield not_told(alert, before, channel, error.message, now)
                return
            telemetry.log(Event.ALERT_SENT, **known, answer=answer)
            yield told(alert, channel, message.event, now)

    def _beat(self, service: Service) -> None:
        """Only while all is sound: the ledger takes what we write, and no urgent alert is open. A beat that
        did not get through is tried again by the next round."""
        heart = self._heart(service)
        if heart is None:
            self._beat_at = None
            return
        now = self._clock.monotonic()
        # a shorter distance than before, from a new configuration, counts at once
        due_at = now if self._beat_at is None else min(self._beat_at, now + heart.every_seconds)
        self._beat_at = due_at
        if now < due_at or self._trouble is not None:
            return
        if any(alert.state is AlertState.OPEN and alert.condition.urgent for alert in self._alerts.values()):
            return
        try:
            heart.beat()
        except XmodeError as error:
            telemetry.warn(Event.HEARTBEAT_FAILED, **error.log_context())
            return
        # counted from when it was due, so that a beat that is a little late does not put off all others
        following = due_at + heart.every_seconds
        self._beat_at = following if following > now else now + heart.every_seconds


def _fields(alert: Alert) -> Mapping[str, object]:
    condition = alert.condition
    return {
        "fingerprint": condition.fingerprint,
        "cause": condition.cause,
        "party": str(condition.party),
        "urgent": condition.urgent,
        "summary": condition.summary,
        "customers": condition.customer_count,
        "since_at": condition.since_at.isoformat(),
    }


def current_alerts(configuration: Configuration, ledger: Ledger, clock: Clock) -> list[Alert]:
    """What is remembered of alerts, brought up to this moment; writes nothing and tells nobody. Open ones
    first, then those that are not told yet, then the resolved ones; the oldest of each first."""
    assessment = assess_all(configuration, ledger, clock)
    found = conditions(assessment.all_troubles())
    here = {condition.fingerprint: condition for condition in found}
    now = clock.now()
    alerts = {alert.fingerprint: alert for alert in ledger.alerts.known()}
    for mark, condition in here.items():
        known = alerts.get(mark)
        if known is None or known.state is AlertState.RESOLVED:
            alerts[mark] = Alert(condition, known.episode + 1 if known else 1, now, now)
        else:
            alerts[mark] = replace(known, condition=condition)
    shown = [
        alert
        for alert in alerts.values()
        if alert.state is not AlertState.PENDING or alert.fingerprint in here
    ]
    order = (AlertState.OPEN, AlertState.PENDING, AlertState.RESOLVED)
    return sorted(shown, key=lambda alert: (order.index(alert.state), alert.condition.since_at))


def send_test(notifier: Notifier, clock: Clock) -> str:
    """Sends a message that says that it is a test, and ends what it may have begun; answers what the channel
    said. Raises NotificationFailed."""
    now = clock.now()
    condition = Condition(
        fingerprint("test", notifier.route.channel),
        "test",
        notifier.route.channel,
        Party.US,
        False,
        f"this is a test of the channel {notifier.route.channel}",
        "Somebody has called `xmode-transfer alerts test`: nothing is wrong.",
        "nothing; you see that messages arrive",
        now,
    )
    alert = Alert(condition, 1, now, now, opened_at=now)
    answer = notifier.send(Message(Told.TEST, alert, now))
    notifier.send(Message(Told.RESOLVED, replace(alert, resolved_at=now), now))
    return answer
