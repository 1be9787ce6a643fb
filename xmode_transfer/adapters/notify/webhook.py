"""A webhook that gets the whole state of an alert, and the heartbeat: plain HTTP."""

import json
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from xmode_transfer import telemetry
from xmode_transfer.adapters.secrets import read_secret
from xmode_transfer.domain.alerts import Message, Route
from xmode_transfer.domain.config import Channel, Heartbeat
from xmode_transfer.domain.errors import NotificationFailed
from xmode_transfer.domain.manifest import timestamp
from xmode_transfer.domain.visible import visible

TIMEOUT_SECONDS = 10.0
"""For each piece that comes."""
LONGEST_SECONDS = 30.0
"""For the whole, so that an answer that comes byte by byte holds no other alert up."""
FORMAT = "xmode-alert/1"
_READ_BYTES = 200


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would send the token, and a POST as a GET, to who knows where."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class WebhookNotifier:
    """POSTs one JSON document a message (docs/alerts.md). Secrets are read at each message, so that one that
    was replaced counts at once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.route = Route(channel.name, frozenset(channel.parties), channel.only_urgent)

    def send(self, message: Message) -> str:
        channel = self._channel
        assert channel.webhook is not None  # the configuration sees to it
        place = f"alerts.{channel.name}"
        url = read_secret(channel.webhook, f"{place}.webhook")
        headers = {"Content-Type": "application/json", "User-Agent": "xmode-transfer"}
        if channel.token is not None:
            headers["Authorization"] = f"Bearer {read_secret(channel.token, f'{place}.token')}"
        body = json.dumps(document(message), ensure_ascii=False).encode()
        return _ask(url, f"{place}.webhook", headers, body)


class HeartbeatUrl:
    """Asks for a URL (GET): a dead man's switch raises the alarm when that stays out."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self.every_seconds = heartbeat.every_seconds

    def beat(self) -> None:
        key = "alerting.heartbeat.url"
        _ask(read_secret(self._heartbeat.url, key), key, {"User-Agent": "xmode-transfer"}, None)


def document(message: Message) -> dict[str, Any]:
    """The message as programs read it; keys may be added, none is taken away within ``FORMAT``."""
    alert, condition = message.alert, message.alert.condition
    return {
        "format": FORMAT,
        "event": str(message.event),
        "state": str(alert.state),
        "fingerprint": condition.fingerprint,
        "episode": alert.episode,
        "cause": condition.cause,
        "detail": condition.detail,
        "party": str(condition.party),
        "urgent": condition.urgent,
        "title": message.title,
        "text": message.body,
        "summary": condition.summary,
        "message": condition.message,
        "hint": condition.hint,
        "customers": list(condition.customers),
        "customer_count": condition.customer_count,
        "since_at": timestamp(condition.since_at),
        "opened_at": timestamp(alert.opened_at) if alert.opened_at else None,
        "resolved_at": timestamp(alert.resolved_at) if alert.resolved_at else None,
        "sent_at": timestamp(message.sent_at),
    }


def _without_user(url: str) -> tuple[str, str | None]:
    """The URL without the user and password that stand in it, and the header that carries them (RFC 7617):
    Python's client would take them for a part of the host's name."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = (unquote(piece) for piece in user.partition(":"))
    encoded = b64encode(f"{name}:{password}".encode()).decode()
    telemetry.protect(password, user.partition(":")[2], encoded)
    return urlunsplit(parts._replace(netloc=host)), f"Basic {encoded}"


def _ask(url: str, key: str, headers: dict[str, str], body: bytes | None) -> str:
    """What the other side answered, such as ``204 No Content``."""
    if not url.lower().startswith(("http://", "https://")):
        raise NotificationFailed(
            f"{key}: what the secret holds is no http(s) URL", hint="put the whole URL there, https://..."
        )
    telemetry.protect(urlsplit(url).path, urlsplit(url).query)
    url, basic = _without_user(url)
    if basic is not None:
        if "Authorization" in headers:
            raise NotificationFailed(
                f"{key}: the URL has a user and a password, and a token is configured beside it",
                hint="one request carries one of the two: take the user out of the URL, or remove `token`",
            )
        headers = {**headers, "Authorization": basic}
    try:
        request = urllib.request.Request(url, data=body, headers=headers)
        return _within(LONGEST_SECONDS, lambda: _answer_of(request))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(_READ_BYTES).decode(errors="replace").strip()
        raise NotificationFailed(
            telemetry.redact_text(
                f"{key}: the other side answered {error.code} {visible(str(error.reason)[:_READ_BYTES])}: "
                f"{visible(said)}"
            ),
            hint="see whether the URL and the token are still right",
            http_status=error.code,
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NotificationFailed(
            telemetry.redact_text(f"{key}: {type(error).__name__}: {reason}"),
            hint="see whether the other side is up, and this machine reaches it",
        ) from None


def _answer_of(request: urllib.request.Request) -> str:
    answer: HTTPResponse
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
        return f"{answer.status} {visible(answer.reason[:_READ_BYTES])}"


def _within(seconds: float, ask: Callable[[], str]) -> str:
    """Raises TimeoutError when there is no answer by then; whoever waits for it on is left alone."""
    answered: Future[str] = Future()

    def work() -> None:
        try:
            answered.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - it belongs to the one who waits
            answered.set_exception(error)

    threading.Thread(target=work, name="webhook", daemon=True).start()
    try:
        return answered.result(seconds)
    except FutureTimeoutError:
        if answered.done():
            raise
        raise TimeoutError(f"no whole answer within {seconds:.0f} s") from None
