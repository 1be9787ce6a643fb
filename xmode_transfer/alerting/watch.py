"""Watching over deliveries: the health of all customers, by the ledger alone, and alerts."""

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

from xmode_transfer import telemetry
from xmode_transfer.alerting.alerts import Message, advance, by_cause, fingerprint, next_event
from xmode_transfer.alerting.health import Assessment, Issue, assess
from xmode_transfer.config import Channel, Configuration, Heartbeat, Service
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.alerts import Alert, AlertState, Notification
from xmode_transfer.model.alerts import Event as Kind
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost, LedgerError, Responsible, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Lease
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import leasing

MOST_MESSAGES = 10
"""So many messages a channel gets in one round at most, urgent ones first; the rest follows in the next."""
LEDGER_PATIENCE = timedelta(minutes=2)
"""A ledger that comes back within this, as a server does that fails over, is no alert."""
_LEASE = "watch"

Send = Callable[[Channel, Message], str]
"""Sends a message; answers what the channel said to it, in a few words and without secrets. Sending a message
twice does no harm. Thread-safe; takes some seconds at most. Raises NotificationFailed or ConfigError."""


def assess_all(configuration: Configuration, ledger: Ledger, clock: Clock) -> Assessment:
    """Assess every configured customer: the one evaluator behind `status`, the page, the metrics and
    the alerts. Reads the ledger and calls nobody; costs by the number of subscriptions, not by the length of
    their history. For one customer's calendar of periods see ``ledger.deliveries.calendar``. Raises
    LedgerError."""
    return assess(configuration, ledger.survey(), clock.now())


def open_causes(ledger: Ledger) -> list[str]:
    """The cause of each alert that is open. Raises LedgerError."""
    return [alert.cause for alert in ledger.alerts.known() if alert.state is AlertState.OPEN]


class Watch:
    """Opens, repeats and resolves alerts, sends them to the channels, and sends the heartbeat.

    ``run_once`` is called about once a minute, and when ``beat_is_due``, by one thread. It raises nothing
    that is not a defect: a channel that does not answer costs some seconds and is tried again, and while the
    ledger takes nothing, the alerts are kept in memory, with one about the ledger among them. Several
    processes may watch one ledger: one of them at a time does.
    """

    def __init__(
        self, ledger: Ledger, clock: Clock, holder: str, send: Send, beat: Callable[[Heartbeat], None]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._holder = holder
        self._send = send
        self._beat = beat
        self._alerts: dict[str, Alert] = {}
        self._unrecorded: set[str] = set()  # fingerprints of what the ledger has not taken yet
        self._issue: Issue | None = None  # the ledger's, from its first refusal to the last
        self._issue_lasted = timedelta(0)
        # On the monotonic clock. The heartbeat keeps to times of its own, whatever the rounds' distance is.
        self._beat_at: float | None = None
        self._round_at = -math.inf

    @property
    def beat_is_due(self) -> bool:
        """Whether the time of the next heartbeat has come since the last round began. Any thread may ask."""
        beat_at = self._beat_at
        return beat_at is not None and self._round_at < beat_at <= self._clock.monotonic()

    def run_once(self, configuration: Configuration) -> Assessment | None:
        """Looks at all customers once; answers what was found, or None when the ledger could not be read or
        another process watches."""
        self._round_at = self._clock.monotonic()
        assessment = None
        try:
            with ExitStack() as stack:
                assessment = self._run_once(configuration, self._claim(stack))
        except AlreadyRunning:
            pass
        except LeaseLost:
            telemetry.log(Event.LEASE_LOST, lease=_LEASE)
            return None
        except LedgerError as error:  # when the lease is given back
            self._note(error)
        return assessment

    def _claim(self, stack: ExitStack) -> Lease | None:
        """The right to watch; None where the ledger cannot even give that."""
        try:
            return stack.enter_context(leasing.held(self._ledger, _LEASE, self._holder))
        except LedgerError as error:
            self._note(error)
            return None

    def _run_once(self, configuration: Configuration, lease: Lease | None) -> Assessment | None:
        assessment = self._read(configuration)
        if assessment is None:
            lease = None  # what cannot be read is not written: it is kept in memory
        before = self._alerts
        self._alerts = advance(before, self._found(assessment), self._clock.now())
        for mark in before.keys() | self._alerts.keys():
            was, alert = before.get(mark), self._alerts.get(mark)
            if alert == was:
                continue
            self._unrecorded.add(mark)
            was_open = was is not None and was.state is AlertState.OPEN
            if alert is not None and was_open != (alert.state is AlertState.OPEN):
                if was_open:
                    telemetry.log(Event.ALERT_RESOLVED, **_fields(alert))
                else:
                    telemetry.error(Event.ALERT_OPENED, **_fields(alert))
        self._record(lease)
        self._notify(configuration.service, lease)
        self._heartbeat(configuration.service.alerting.heartbeat)
        return assessment

    # --- The ledger

    def _read(self, configuration: Configuration) -> Assessment | None:
        """What the ledger knows takes the place of what is in memory, but for what it has not taken yet."""
        try:
            assessment = assess_all(configuration, self._ledger, self._clock)
            known = {alert.fingerprint: alert for alert in self._ledger.alerts.known()}
        except LedgerError as error:
            self._note(error)
            return None
        newer = {mark: self._alerts[mark] for mark in self._unrecorded if mark in self._alerts}
        self._alerts = {mark: known[mark] for mark in known.keys() - self._unrecorded} | newer
        return assessment

    def _found(self, assessment: Assessment | None) -> Iterable[Alert]:
        """What is wrong now. Without an assessment nothing is known to be well again."""
        issues = list(assessment.all_issues()) if assessment is not None else []
        if self._issue and self._issue_lasted >= LEDGER_PATIENCE:
            issues.append(("", self._issue))
        found = {alert.fingerprint: alert for alert in by_cause(issues)}
        if assessment is None:
            still = {mark: alert for mark, alert in self._alerts.items() if alert.state is AlertState.OPEN}
            found = still | found
        return found.values()

    def _record(self, lease: Lease | None) -> None:
        if lease is None or not (self._unrecorded or self._issue):
            return
        changed = [self._alerts[mark] for mark in sorted(self._unrecorded) if mark in self._alerts]
        try:
            self._ledger.alerts.record(lease, changed, sorted(self._unrecorded - self._alerts.keys()))
        except LedgerError as error:
            self._note(error)
            return
        self._unrecorded.clear()
        self._issue = None

    def _note(self, error: LedgerError) -> None:
        now = self._clock.now()
        since_at = self._issue.since_at if self._issue else now
        self._issue_lasted = now - since_at
        self._issue = Issue(
            error.code, error.responsible, error.message, error.hint, since_at, retryable=error.retryable
        )
        telemetry.error(Event.ALERTS_NOT_RECORDED, **error.log_context())

    # --- The channels

    def _notify(self, service: Service, lease: Lease | None) -> None:
        """Each channel in a thread of its own, so that one that hangs holds up no other."""
        due = [(channel, self._due(channel, service)) for channel in service.alerts]
        due = [(channel, messages) for channel, messages in due if messages]
        if not due:
            return
        with ThreadPoolExecutor(len(due), thread_name_prefix="notify") as threads:
            sent = threads.map(lambda item: self._send_all(*item), due)
            for (channel, _), notifications in zip(due, sent, strict=True):
                for mark, notification in notifications.items():
                    alert = self._alerts[mark]
                    known = {**alert.notifications, channel.name: notification}
                    self._alerts[mark] = replace(alert, notifications=known)
                self._unrecorded |= notifications.keys()
                self._record(lease)

    def _due(self, channel: Channel, service: Service) -> list[Message]:
        now = self._clock.now()
        alerts = sorted(self._alerts.values(), key=lambda alert: (not alert.urgent, alert.since_at))
        events = [(alert, next_event(alert, channel, service.alerting, now)) for alert in alerts]
        return [Message(event, alert, now) for alert, event in events if event is not None][:MOST_MESSAGES]

    def _send_all(self, channel: Channel, messages: Iterable[Message]) -> dict[str, Notification]:
        """Until the channel takes one no more: the others need not try it in this round."""
        done: dict[str, Notification] = {}
        for message in messages:
            alert = message.alert
            known = {"channel": channel.name, "message_kind": str(message.event), **_fields(alert)}
            try:
                answer = self._send(channel, message)
            except XmodeError as error:
                telemetry.warn(Event.ALERT_NOT_SENT, **known, error=error.message, hint=error.hint)
                before = alert.notifications.get(channel.name, Notification())
                done[alert.fingerprint] = before.failed(error.message, self._clock.now())
                break
            telemetry.log(Event.ALERT_SENT, **known, answer=answer)
            done[alert.fingerprint] = Notification(message.event, self._clock.now(), alert.urgent)
        return done

    def _heartbeat(self, heartbeat: Heartbeat | None) -> None:
        """Only while all is sound: the ledger takes what we write, and no urgent alert is open. A beat that
        did not get through is tried again by the next round."""
        if heartbeat is None:
            self._beat_at = None
            return
        now = self._clock.monotonic()
        # a shorter distance than before, from a new configuration, counts at once
        due_at = now if self._beat_at is None else min(self._beat_at, now + heartbeat.every_seconds)
        self._beat_at = due_at
        if now < due_at or self._issue is not None:
            return
        if any(alert.state is AlertState.OPEN and alert.urgent for alert in self._alerts.values()):
            return
        try:
            self._beat(heartbeat)
        except XmodeError as error:
            telemetry.warn(Event.HEARTBEAT_FAILED, **error.log_context())
            return
        # counted from when it was due, so that a beat that is a little late does not put off all others
        following = due_at + heartbeat.every_seconds
        self._beat_at = following if following > now else now + heartbeat.every_seconds


def _fields(alert: Alert) -> Mapping[str, object]:
    return {
        "fingerprint": alert.fingerprint,
        "cause": alert.cause,
        "responsible": str(alert.responsible),
        "urgent": alert.urgent,
        "summary": alert.summary,
        "customers": alert.customer_count,
        "since_at": alert.since_at.isoformat(),
    }


def current_alerts(configuration: Configuration, ledger: Ledger, clock: Clock) -> list[Alert]:
    """The alerts of the ledger, brought up to this moment; writes and sends nothing. Open ones first, then
    the resolved ones; the oldest of each first. Raises LedgerError."""
    known = {alert.fingerprint: alert for alert in ledger.alerts.known()}
    found = by_cause(assess_all(configuration, ledger, clock).all_issues())
    alerts = advance(known, found, clock.now()).values()
    return sorted(alerts, key=lambda alert: (alert.state is AlertState.RESOLVED, alert.since_at))


def send_test(channel: Channel, send: Send, clock: Clock) -> str:
    """Sends a message that says that it is a test, and ends what it may have begun; answers what the channel
    said. Raises NotificationFailed."""
    now = clock.now()
    alert = Alert(
        fingerprint("test", channel.name),
        "test",
        channel.name,
        Responsible.VENDOR,
        False,
        f"this is a test of the channel {channel.name}",
        "Somebody has called `xmode-transfer alerts test`: nothing is wrong.",
        "nothing; you see that messages arrive",
        now,
        opened_at=now,
    )
    answer = send(channel, Message(Kind.TEST, alert, now))
    send(channel, Message(Kind.RESOLVED, replace(alert, resolved_at=now), now))
    return answer
