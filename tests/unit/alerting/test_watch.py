"""Watching: from the ledger to a webhook, in storms, with channels that fail and a ledger that is full."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clock import MemoryClock
from xmode_transfer import telemetry
from xmode_transfer.alerting import channels
from xmode_transfer.alerting.alerts import Message
from xmode_transfer.alerting.health_records import Health
from xmode_transfer.alerting.watch import MOST_MESSAGES, Watch, assess_all, current_alerts
from xmode_transfer.config import Channel, Configuration, Customer, Destination, Feed, Heartbeat, Service
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import LedgerFull, NotificationFailed
from xmode_transfer.model.health import SourceScan
from xmode_transfer.model.records import Delivery, Failure, Status

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SECRET = "s3cr3t-path-of-the-webhook"


@dataclass
class Hook:
    """A webhook on this machine: what it got, and what it answers."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    beats: int = 0
    status: int = 204

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(body["event"], body["cause"]) for body in self.bodies]


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hook.status < 300:
                hook.bodies.append(body)
                hook.tokens.append(self.headers["Authorization"])
            self.send_response(hook.status)
            self.end_headers()

        def do_GET(self) -> None:
            hook.beats += 1
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hook
    server.shutdown()
    server.server_close()


@pytest.fixture
def clock() -> MemoryClock:
    return MemoryClock(NOW)


@pytest.fixture
def ledger(tmp_path: Path, clock: MemoryClock) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    yield opened
    opened.close()


def configured(customers: int = 1, **service: Any) -> Configuration:
    feed = Feed(name="us-daily", source="/data", period="day", partition="%Y/%m/%d")
    made = {
        f"c{number:03}": Customer(
            name=f"c{number:03}",
            company="Acme Corp",
            external_id=f"Acme{number}",
            role_arn=f"arn:aws:iam::{number:012}:role/XMode",
            destination=Destination(bucket="acme-data", prefix=f"x{number}/"),
            feeds=("us-daily",),
        )
        for number in range(1, customers + 1)
    }
    return Configuration(Service(**service), {"us-daily": feed}, made, {})


@pytest.fixture
def service(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OPS_WEBHOOK", hook.url)
    monkeypatch.setenv("OPS_TOKEN", "t0ken-of-the-webhook")
    monkeypatch.setenv("HEART", hook.url)
    return {
        "alerts": [{"name": "ops", "webhook": "env:OPS_WEBHOOK", "token": "env:OPS_TOKEN"}],
        "alerting": {"heartbeat": {"url": "env:HEART", "every_seconds": 60}},
    }


@pytest.fixture
def watching(ledger: Ledger, clock: MemoryClock) -> Callable[[], Watch]:
    """A watch as a process has it; called again, it is another process's."""
    return lambda: Watch(ledger, clock, "host-a", channels.send, channels.beat)


def refuse(ledger: Ledger, customer: str, at: datetime, cause: str = "role_refused") -> Delivery:
    delivery = Delivery(
        f"id-{customer}",
        customer,
        "us-daily",
        "2026-11-24",
        1,
        Status.BLOCKED,
        at,
        at,
        failure=Failure(cause, "customer", "the role refuses us", "send the trust policy"),
    )
    lease = ledger.leases.claim(f"delivery/{customer}", "h", 90)
    ledger.deliveries.create(lease, delivery)
    return delivery


def deliver(ledger: Ledger, delivery: Delivery, at: datetime) -> None:
    lease = ledger.leases.claim(f"mend/{delivery.customer}", "h", 90)
    ledger.sources.record(SourceScan(delivery.customer, "us-daily", at, at))
    ledger.deliveries.update(
        lease, Delivery(delivery.id, delivery.customer, "us-daily", "2026-11-24", 1, Status.DELIVERED, at, at)
    )


def minutes(clock: MemoryClock, count: float) -> None:
    clock.advance(count * 60)


def test_an_alert_is_opened_not_repeated_and_resolved(
    ledger: Ledger, clock: MemoryClock, hook: Hook, service: dict[str, Any], watching: Callable[[], Watch]
) -> None:
    configuration = configured(**service)
    delivery = refuse(ledger, "c001", clock.now())
    watch = watching()
    assessment = watch.run_once(configuration)
    assert hook.events == [("opened", "role_refused")]
    assert assessment is not None
    assert assessment.customers[0].health is Health.BLOCKED
    for number in range(30):
        (watch if number % 2 else watching()).run_once(configuration)  # restarts repeat nothing
        minutes(clock, 1)
    assert hook.events == [("opened", "role_refused")]
    deliver(ledger, delivery, clock.now())
    for _ in range(10):
        watch.run_once(configuration)
        minutes(clock, 1)
    assert hook.events == [("opened", "role_refused"), ("resolved", "role_refused")]
    opened, resolved = hook.bodies
    assert opened["fingerprint"] == resolved["fingerprint"]
    assert (opened["state"], resolved["state"]) == ("open", "resolved")
    assert opened["customers"] == ["c001"]
    assert opened["hint"] == "send the trust policy"
    assert hook.tokens == ["Bearer t0ken-of-the-webhook"] * 2


def test_an_alert_is_repeated_after_the_interval(
    ledger: Ledger, clock: MemoryClock, hook: Hook, service: dict[str, Any], watching: Callable[[], Watch]
) -> None:
    refuse(ledger, "c001", clock.now() - timedelta(hours=1))
    watch, configuration = watching(), configured(**service)
    for _ in range(9 * 4):
        watch.run_once(configuration)
        minutes(clock, 15)
    assert [event for event, cause in hook.events if cause == "role_refused"] == [
        "opened",
        "repeated",
        "repeated",
    ]


def test_a_storm_of_500_customers_is_one_message(
    ledger: Ledger, clock: MemoryClock, hook: Hook, service: dict[str, Any], watching: Callable[[], Watch]
) -> None:
    for number in range(1, 501):
        refuse(ledger, f"c{number:03}", clock.now() - timedelta(minutes=number % 30))
    watch, configuration = watching(), configured(500, **service)
    for _ in range(8):
        watch.run_once(configuration)
        minutes(clock, 1)
    (message,) = hook.bodies
    assert message["customer_count"] == 500
    assert message["summary"].startswith("500 customers: AssumeRole is refused since 2026-11-25 11:31")
    assert (message["responsible"], message["urgent"]) == ("vendor", True)
    assert len(message["customers"]) == 200


def test_a_channel_that_fails_is_retried_and_delays_no_other(
    ledger: Ledger,
    clock: MemoryClock,
    hook: Hook,
    service: dict[str, Any],
    watching: Callable[[], Watch],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    telemetry.configure(json=True)
    monkeypatch.setenv("DEAD", "http://127.0.0.1:9/another-s3cret-path")
    service["alerts"].append({"name": "dead", "webhook": "env:DEAD"})
    service["alerts"].append({"name": "unset", "webhook": "env:NOBODY_SET_THIS"})
    refuse(ledger, "c001", clock.now() - timedelta(hours=1))
    watch, configuration = watching(), configured(**service)
    hook.status = 503
    watch.run_once(configuration)
    assert hook.events == []
    hook.status = 204
    watch.run_once(configuration)
    assert hook.events == []
    minutes(clock, 1)
    watching().run_once(configuration)
    assert hook.events == [("opened", "role_refused")]
    (alert,) = ledger.alerts.known()
    assert {name for name, known in alert.notifications.items() if known.attempts} == {"dead", "unset"}
    assert "NOBODY_SET_THIS is not set" in alert.notifications["unset"].error
    log = capsys.readouterr().err
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert "alert.not_sent" in {event["event"] for event in events}
    assert "alert.opened" in {event["event"] for event in events}
    recorded = json.dumps([known.error for known in alert.notifications.values()])
    for secret in (SECRET, "t0ken-of-the-webhook", "another-s3cret-path"):
        assert secret not in log
        assert secret not in recorded


def test_a_read_only_ledger_is_one_alert(
    ledger: Ledger,
    clock: MemoryClock,
    hook: Hook,
    service: dict[str, Any],
    watching: Callable[[], Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse(ledger, "c001", clock.now() - timedelta(hours=1))
    watch, configuration = watching(), configured(**service)

    def full(*arguments: object, **options: object) -> None:
        raise LedgerFull("the disk is full", hint="free space")

    with monkeypatch.context() as broken:
        broken.setattr(ledger.alerts, "record", full)
        for _ in range(10):
            watch.run_once(configuration)
            minutes(clock, 1)
        broken.setattr(ledger.leases, "claim", full)
        broken.setattr(ledger, "snapshot", full)
        for _ in range(10):
            watch.run_once(configuration)
            minutes(clock, 1)
        assert hook.events == [("opened", "role_refused"), ("opened", "ledger_full")]
        assert ledger.alerts.known() == []
        beats = hook.beats
    for _ in range(10):
        watch.run_once(configuration)
        minutes(clock, 1)
    assert hook.events[2:] == [("resolved", "ledger_full")]
    assert {alert.cause: str(alert.state) for alert in ledger.alerts.known()} == {
        "role_refused": "open",
        "ledger_full": "resolved",
    }
    assert all(list(alert.notifications) == ["ops"] for alert in ledger.alerts.known())
    assert hook.beats > beats


def test_a_ledger_outage_below_two_minutes_is_no_alert(
    ledger: Ledger,
    clock: MemoryClock,
    hook: Hook,
    service: dict[str, Any],
    watching: Callable[[], Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, configuration = watching(), configured(**service)

    def full(*arguments: object, **options: object) -> None:
        raise LedgerFull("the disk is full", hint="free space")

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "snapshot", full)
        for _ in range(2):
            assert watch.run_once(configuration) is None
            minutes(clock, 1)
        assert hook.beats == 0
    for _ in range(5):
        watch.run_once(configuration)
        minutes(clock, 1)
    assert (hook.events, ledger.alerts.known()) == ([], [])
    assert hook.beats > 0


def test_the_heartbeat_is_sent_only_while_all_is_well(
    ledger: Ledger, clock: MemoryClock, hook: Hook, service: dict[str, Any], watching: Callable[[], Watch]
) -> None:
    watch, configuration = watching(), configured(**service)
    for _ in range(3):
        watch.run_once(configuration)
        minutes(clock, 0.5)
    assert hook.beats == 2
    refuse(ledger, "c001", clock.now() - timedelta(hours=1), "vendor_identity")
    minutes(clock, 2)
    watch.run_once(configuration)
    assert hook.beats == 2
    assert hook.events == [("opened", "vendor_identity")]


class Beats:
    """Remembers when the heartbeat was sent; it may not get through."""

    def __init__(self, clock: MemoryClock) -> None:
        self._clock = clock
        self.at: list[float] = []
        self.fails = False

    def __call__(self, heartbeat: Heartbeat) -> None:
        if self.fails:
            raise NotificationFailed("no answer")
        self.at.append(self._clock.monotonic())


def beating(every_seconds: int) -> Configuration:
    return configured(alerting={"heartbeat": {"url": "env:HEART", "every_seconds": every_seconds}})


def live(watch: Watch, clock: MemoryClock, configuration: Configuration, seconds: int) -> None:
    """As the daemon does: it attends every second or so, and rounds come by the minute, a bit late."""
    late = itertools.cycle([0.02, 0.9, 0.0, 0.4, 0.01])
    round_at = 60.0 * (clock.monotonic() // 60 + 1)
    for _ in range(seconds):
        clock.advance(1.0)
        if clock.monotonic() >= round_at:
            round_at = 60.0 * (clock.monotonic() // 60 + 1) + next(late)
            watch.run_once(configuration)
        elif watch.beat_is_due:
            watch.run_once(configuration)


@pytest.mark.parametrize("every_seconds", [60, 100])
def test_the_heartbeat_is_independent_of_the_passes(
    ledger: Ledger, clock: MemoryClock, every_seconds: int
) -> None:
    beats, configuration = Beats(clock), beating(every_seconds)
    watch = Watch(ledger, clock, "host-a", channels.send, beats)
    clock.advance(7.3)  # the daemon does not begin at a full minute
    watch.run_once(configuration)
    live(watch, clock, configuration, 900)
    assert len(beats.at) == 1 + 900 // every_seconds
    gaps = [later - earlier for earlier, later in itertools.pairwise(beats.at)]
    assert max(gaps) <= every_seconds + 1
    assert min(gaps) >= every_seconds - 1


def test_a_failed_heartbeat_is_retried_by_the_next_pass(ledger: Ledger, clock: MemoryClock) -> None:
    beats, configuration = Beats(clock), beating(300)
    watch = Watch(ledger, clock, "host-a", channels.send, beats)
    watch.run_once(configuration)
    beats.fails = True
    live(watch, clock, configuration, 320)
    assert len(beats.at) == 1
    beats.fails = False
    live(watch, clock, configuration, 60)
    assert len(beats.at) == 2
    # a new configuration: nobody waits for the old distance to pass
    live(watch, clock, beating(60), 180)
    assert len(beats.at) == 4


def test_one_of_two_processes_sends(
    ledger: Ledger, clock: MemoryClock, hook: Hook, service: dict[str, Any], watching: Callable[[], Watch]
) -> None:
    refuse(ledger, "c001", clock.now() - timedelta(hours=1))
    ledger.leases.claim("watch", "host-b", 90)
    assert watching().run_once(configured(**service)) is None
    assert hook.events == []


def test_messages_are_limited_and_urgent_ones_go_first(ledger: Ledger, clock: MemoryClock) -> None:
    causes = [f"cause_{number}" for number in range(MOST_MESSAGES + 3)]
    for number, cause in enumerate([*causes, "vendor_identity"], 1):
        refuse(ledger, f"c{number:03}", clock.now() - timedelta(hours=1), cause)
    got: list[str] = []

    def send(channel: Channel, message: Message) -> str:
        got.append(message.alert.cause)
        return "taken"

    watch = Watch(ledger, clock, "host-a", send, channels.beat)
    configuration = configured(len(causes) + 1, alerts=[{"name": "wire", "webhook": "env:WIRE"}])
    watch.run_once(configuration)
    assert len(got) == MOST_MESSAGES
    assert got[0] == "vendor_identity"
    minutes(clock, 1)
    watch.run_once(configuration)
    assert sorted(got) == sorted([*causes, "vendor_identity"])


def test_the_list_of_alerts_needs_no_daemon(ledger: Ledger, clock: MemoryClock) -> None:
    configuration = configured()
    assert current_alerts(configuration, ledger, clock) == []
    refuse(ledger, "c001", clock.now() - timedelta(hours=1))
    (alert,) = current_alerts(configuration, ledger, clock)
    assert (str(alert.state), alert.notifications) == ("open", {})
    assert ledger.alerts.known() == []
    assert assess_all(configuration, ledger, clock).customers[0].issues
