"""The channels on the wire: our webhook, and what Apprise sends for us."""

import json
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from xmode_transfer.alerting.alerts import Message
from xmode_transfer.alerting.channels import beat, send
from xmode_transfer.config import Channel, Heartbeat
from xmode_transfer.model.errors import ConfigError, NotificationFailed, Responsible
from xmode_transfer.model.health import Alert, Event

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ALERT = Alert(
    "0123456789abcdef",
    "role_refused",
    "",
    Responsible.CUSTOMER,
    False,
    "2 customers: AssumeRole is refused",
    "the role refuses us",
    "send the trust policy",
    NOW,
    ("acme", "globex"),
    2,
    opened_at=NOW,
)
HOOK = Channel(name="ops", webhook="env:HOOK")


class Far:
    """The far side: what it got, and what it answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.status, self.says, self.sends_to = 200, b"", ""
        self.address = ""


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            far.requests.append(
                (self.command, self.path, dict(self.headers), json.loads(raw) if raw else None)
            )
            self.send_response(far.status)
            if far.sends_to:
                self.send_header("Location", far.sends_to)
            self.send_header("Content-Length", str(len(far.says)))
            self.end_headers()
            self.wfile.write(far.says)

        do_GET = do_POST

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    far.address = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield far
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_the_whole_state(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"http://{far.address}/alerts")
    answer = send(HOOK, Message(Event.OPENED, ALERT, NOW))
    ((method, path, headers, body),) = far.requests
    assert (method, path, answer) == ("POST", "/alerts", "200 OK")
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers
    assert body["format"] == "xmode-alert/1"
    assert (body["event"], body["state"], body["fingerprint"]) == ("opened", "open", "0123456789abcdef")
    assert (body["customers"], body["customer_count"], body["responsible"]) == (
        ["acme", "globex"],
        2,
        "customer",
    )
    assert (body["opened_at"], body["resolved_at"]) == ("2026-11-25T12:00:00.000000Z", None)
    assert "Responsible: customer" in body["text"]


def test_a_replaced_secret_file_takes_effect_at_once(far: Far, tmp_path: Any) -> None:
    secret = tmp_path / "url"
    channel = Channel(name="ops", webhook=f"file:{secret}")
    with pytest.raises(ConfigError, match="cannot be read"):
        send(channel, Message(Event.OPENED, ALERT, NOW))
    secret.write_text(f"http://{far.address}/new\n")
    send(channel, Message(Event.OPENED, ALERT, NOW))
    assert far.requests[0][1] == "/new"


def test_an_error_has_the_answer_and_no_secret(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"http://{far.address}/very-s3cret-path")
    far.status, far.says = 403, b"no such hook: /very-s3cret-path"
    with pytest.raises(NotificationFailed, match="403 Forbidden") as caught:
        send(HOOK, Message(Event.OPENED, ALERT, NOW))
    assert "very-s3cret-path" not in str(caught.value)
    assert caught.value.retryable


def test_a_redirect_is_not_followed(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"http://{far.address}/a")
    far.status, far.sends_to = 302, f"http://{far.address}/elsewhere"
    with pytest.raises(NotificationFailed, match="302"):
        send(HOOK, Message(Event.OPENED, ALERT, NOW))
    assert len(far.requests) == 1


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense", "http://127.0.0.1:9/x"]
)
def test_an_unusable_url_is_reported(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", url)
    with pytest.raises(NotificationFailed, match=r"alerts\.ops\.webhook"):
        send(HOOK, Message(Event.OPENED, ALERT, NOW))


def test_the_heartbeat_is_a_get(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEART", f"http://{far.address}/ping")
    heartbeat = Heartbeat(url="env:HEART")
    beat(heartbeat)
    assert [(method, path) for method, path, _, _ in far.requests] == [("GET", "/ping")]
    far.status = 500
    with pytest.raises(NotificationFailed, match="500"):
        beat(heartbeat)


@pytest.mark.parametrize(
    ("user", "credentials"),
    [
        ("ops:s3cret-word", "ops:s3cret-word"),
        ("ops:p%40ss%3Aword", "ops:p@ss:word"),
        ("only-a-token", "only-a-token:"),
    ],
)
def test_user_and_password_in_the_url_are_basic_authentication(
    far: Far, monkeypatch: pytest.MonkeyPatch, user: str, credentials: str
) -> None:
    monkeypatch.setenv("HOOK", f"http://{user}@{far.address}/alerts?to=ops")
    send(HOOK, Message(Event.OPENED, ALERT, NOW))
    beat(Heartbeat(url="env:HOOK"))
    assert [(method, path) for method, path, _, _ in far.requests] == [
        ("POST", "/alerts?to=ops"),
        ("GET", "/alerts?to=ops"),
    ]
    for _, _, headers, _ in far.requests:
        scheme, _, told = headers["Authorization"].partition(" ")
        assert (scheme, b64decode(told).decode()) == ("Basic", credentials)
        assert headers["Host"] == far.address


def test_a_user_in_the_url_and_a_token_are_refused(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"http://ops:s3cret-word@{far.address}/alerts")
    monkeypatch.setenv("TOKEN", "t0ken")
    channel = Channel(name="ops", webhook="env:HOOK", token="env:TOKEN")
    with pytest.raises(NotificationFailed, match="a token is configured beside it") as raised:
        send(channel, Message(Event.OPENED, ALERT, NOW))
    assert "s3cret-word" not in raised.value.message + raised.value.hint
    assert far.requests == []


# --- Apprise

# It loads a module of Python's that is on its way out.
ON_ITS_WAY_OUT = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def apprise_channel(monkeypatch: pytest.MonkeyPatch, url: str) -> Channel:
    pytest.importorskip("apprise", reason="needs the extra `alerts`")
    monkeypatch.setenv("APPRISE", url)
    return Channel(name="chat", apprise="env:APPRISE")


@ON_ITS_WAY_OUT
def test_apprise_sends_title_and_text(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = apprise_channel(monkeypatch, f"json://{far.address}/hook")
    assert send(channel, Message(Event.OPENED, ALERT, NOW)) == "taken"
    send(channel, Message(Event.RESOLVED, ALERT, NOW))
    opened, resolved = (body for _, _, _, body in far.requests)
    assert opened["title"] == "2 customers: AssumeRole is refused"
    assert "Responsible: customer. Send the trust policy" in opened["message"]
    assert (opened["type"], resolved["type"]) == ("warning", "success")
    assert resolved["title"].startswith("resolved: ")


@ON_ITS_WAY_OUT
def test_pagerduty_gets_the_alerts_key_and_its_resolution(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = pytest.importorskip("apprise.plugins.pagerduty", reason="needs the extra `alerts`")
    monkeypatch.setitem(plugin.PAGERDUTY_API_LOOKUP, "us", f"http://{far.address}/v2/enqueue")
    far.status = 202
    channel = apprise_channel(
        monkeypatch, "pagerduty://routing-key-0001@api-key-0001/xmode/transfer?region=us"
    )
    for event in (Event.OPENED, Event.REPEATED, Event.RESOLVED):
        send(channel, Message(event, ALERT, NOW))
    sent = [body for _, _, _, body in far.requests]
    assert [body["event_action"] for body in sent] == ["trigger", "trigger", "resolve"]
    assert {body["dedup_key"] for body in sent} == {"0123456789abcdef"}
    assert {body["routing_key"] for body in sent} == {"routing-key-0001"}
    assert "AssumeRole is refused" in sent[0]["payload"]["summary"]


@ON_ITS_WAY_OUT
def test_a_rejection_by_apprise_is_reported_without_secrets(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.status = 500
    channel = apprise_channel(monkeypatch, f"json://user:passw0rd-of-chat@{far.address}/hook-t0ken-of-chat")
    with pytest.raises(NotificationFailed, match=r"alerts\.chat\.apprise") as caught:
        send(channel, Message(Event.OPENED, ALERT, NOW))
    assert "passw0rd-of-chat" not in str(caught.value)
    assert "t0ken-of-chat" not in str(caught.value)
    assert "500" in str(caught.value)
    with pytest.raises(NotificationFailed, match="not an Apprise URL"):
        send(apprise_channel(monkeypatch, "nosuch://x"), Message(Event.OPENED, ALERT, NOW))


def test_apprise_is_imported_only_to_send() -> None:
    program = "import sys\nfrom xmode_transfer.alerting import channels\nprint('apprise' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setenv("APPRISE", "json://127.0.0.1/x")
    with pytest.raises(NotificationFailed, match="not installed") as caught:
        send(Channel(name="chat", apprise="env:APPRISE"), Message(Event.OPENED, ALERT, NOW))
    assert "xmode-transfer[alerts]" in caught.value.hint
