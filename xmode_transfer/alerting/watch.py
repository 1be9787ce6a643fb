"""The alert watcher: assesses all customers from the ledger, and manages alerts and the heartbeat."""

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

from xmode_transfer import telemetry
from xmode_transfer.alerting.alerts import Message, advance, by_cause, fingerprint, next_event
from xmode_transfer.alerting.health import assess
from xmode_transfer.alerting.health_records import Assessment, Issue
from xmode_transfer.config import Channel, Configuration, Heartbeat, Service
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost, LedgerError, Responsible, XmodeError
from xmode_transfer.model.health import Alert, AlertState, Notification
from xmode_transfer.model.health import Event as Kind
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Lease
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import context

MOST_MESSAGES = 10  # per channel and pass, urgent ones first; the rest follows in the next pass
LEDGER_GRACE = timedelta(minutes=2)  # a shorter outage of the ledger, such as a failover, raises no alert
_LEASE = "watch"

Send = Callable[[Channel, Message], str]
"""As ``channels.send``: thread-safe, seconds at most, harmless when repeated; its answer has no secrets."""


def assess_all(configuration: Configuration, ledger: Ledger, clock: Clock) -> Assessment:
    """The one evaluator behind `status`, the page, the metrics and the alerts. The cost grows with the number
    of subscriptions, not with their history. Raises LedgerError."""
    return assess(configuration, ledger.snapshot(), clock.now())


def open_causes(ledger: Ledger) -> list[str]:
    return [alert.cause for alert in ledger.alerts.known() if alert.state is AlertState.OPEN]


class Watch:
    """One thread calls ``run_once`` about once a minute, and when ``beat_is_due``. It raises defects only: a
    channel that does not answer is tried again, and while the ledger fails, the alerts are kept in memory,
    one about the ledger included. If several processes watch one ledger, one of them at a time does."""

    def __init__(
        self, ledger: Ledger, clock: Clock, holder: str, send: Send, beat: Callable[[Heartbeat], None]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._holder = holder
        self._send = send
        self._beat = beat
        self._alerts: dict[str, Alert] = {}
        self._unrecorded: set[str] = set()  # fingerprints of alerts that are not yet in the ledger
        self._issue: Issue | None = None  # the ledger's own, while it fails
        self._issue_lasted = timedelta(0)
        # On the monotonic clock. The heartbeat keeps to times of its own, independent of the passes.
        self._beat_at: float | None = None
        self._pass_at = -math.inf

    @property
    def beat_is_due(self) -> bool:
        """A heartbeat became due since the last pass began. Any thread may call it."""
        beat_at = self._beat_at
        return beat_at is not None and self._pass_at < beat_at <= self._clock.monotonic()

    def run_once(self, configuration: Configuration) -> Assessment | None:
        """Return None when the ledger could not be read or another process watches."""
        self._pass_at = self._clock.monotonic()
        assessment = lease = None
        try:
            with ExitStack() as stack:
                try:
                    lease = stack.enter_context(context.held(self._ledger, _LEASE, self._holder))
                except LedgerError as error:
                    self._note(error)
                assessment = self._run_once(configuration, lease)
        except AlreadyRunning:
            pass
        except LeaseLost:
            telemetry.log(Event.LEASE_LOST, lease=_LEASE)
            return None
        except LedgerError as error:  # when the lease is given back
            self._note(error)
        return assessment

    def _run_once(self, configuration: Configuration, lease: Lease | None) -> Assessment | None:
        assessment = self._read(configuration)
        if assessment is None:
            lease = None  # keep the alerts in memory
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

    def _read(self, configuration: Configuration) -> Assessment | None:
        """Assess, and refresh the alerts in memory from the ledger, except those not recorded yet."""
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
        """Without an assessment, open alerts stay open."""
        issues = list(assessment.all_issues()) if assessment is not None else []
        if self._issue and self._issue_lasted >= LEDGER_GRACE:
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

    def _notify(self, service: Service, lease: Lease | None) -> None:
        """Notify each channel in its own thread, so that a slow one delays no other."""
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
        """Send until the channel fails; the rest waits for the next pass."""
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
        """Only if the ledger accepts writes and no urgent alert is open. The next pass retries a failure."""
        if heartbeat is None:
            self._beat_at = None
            return
        now = self._clock.monotonic()
        # A new configuration's shorter distance counts at once.
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
    """Open alerts first, each kind oldest first; write and send nothing. Raises LedgerError."""
    known = {alert.fingerprint: alert for alert in ledger.alerts.known()}
    found = by_cause(assess_all(configuration, ledger, clock).all_issues())
    alerts = advance(known, found, clock.now()).values()
    return sorted(alerts, key=lambda alert: (alert.state is AlertState.RESOLVED, alert.since_at))


def send_test(channel: Channel, send: Send, clock: Clock) -> str:
    """Send a test message and resolve it; return the channel's answer. Raises NotificationFailed."""
    now = clock.now()
    alert = Alert(
        fingerprint("test", channel.name),
        "test",
        channel.name,
        Responsible.VENDOR,
        False,
        f"this is a test of the channel {channel.name}",
        "This is a test sent by `xmode-transfer alerts test`: nothing is wrong.",
        "no action needed: messages arrive",
        now,
        opened_at=now,
    )
    answer = send(channel, Message(Kind.TEST, alert, now))
    send(channel, Message(Kind.RESOLVED, replace(alert, resolved_at=now), now))
    return answer
