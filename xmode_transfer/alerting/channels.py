"""Sends alerts and the heartbeat by HTTP, or by Apprise (the extra ``alerts``). Secrets are read for each
message, so that a replaced one takes effect at once."""

import importlib
import io
import json
import logging
import re
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from http.client import HTTPException, HTTPResponse
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from xmode_transfer import telemetry
from xmode_transfer.alerting.alerts import Message
from xmode_transfer.config import Channel, Heartbeat
from xmode_transfer.config.secrets import read_secret
from xmode_transfer.model.errors import NotificationFailed
from xmode_transfer.model.health import Event
from xmode_transfer.model.keys import visible
from xmode_transfer.model.manifest import timestamp

TIMEOUT_SECONDS = 10.0  # per read
LONGEST_SECONDS = 30.0  # of the whole request: a slow response must not delay other alerts
FORMAT = "xmode-alert/1"
_READ_BYTES = 200
_TYPES = {Event.RESOLVED: "success", Event.TEST: "info", Event.REPEATED: "warning"}
_SECRET_LENGTH = 8
_capturing = threading.Lock()


def send(channel: Channel, message: Message) -> str:
    """Return the channel's answer in a few words. Raises NotificationFailed, or ConfigError for a secret that
    cannot be read."""
    key = f"alerts.{channel.name}"
    if channel.apprise is not None:
        return _by_apprise(read_secret(channel.apprise, f"{key}.apprise"), message, f"{key}.apprise")
    assert channel.webhook is not None  # the configuration requires one of the two
    url = read_secret(channel.webhook, f"{key}.webhook")
    # docs/alerts.md; within FORMAT, keys may be added but not removed.
    document = {
        "format": FORMAT,
        "event": str(message.event),
        **message.alert.document(),
        "title": message.title,
        "text": message.body,
        "sent_at": timestamp(message.sent_at),
    }
    headers = {"Content-Type": "application/json"}
    if channel.token is not None:
        headers["Authorization"] = f"Bearer {read_secret(channel.token, f'{key}.token')}"
    return _ask(url, f"{key}.webhook", headers, json.dumps(document, ensure_ascii=False).encode())


def beat(heartbeat: Heartbeat) -> None:
    """Send the heartbeat, a GET: a dead-man's switch alerts when it stops. Raises as ``send`` does."""
    key = "alerting.heartbeat.url"
    _ask(read_secret(heartbeat.url, key), key)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would send the token to another server, and a POST as a GET."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _without_user(url: str) -> tuple[str, str | None]:
    """Split the user and password off a URL, into an Authorization header (RFC 7617): Python's client would
    take them for a part of the host name."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = (unquote(piece) for piece in user.partition(":"))
    encoded = b64encode(f"{name}:{password}".encode()).decode()
    telemetry.protect(password, user.partition(":")[2], encoded)
    return urlunsplit(parts._replace(netloc=host)), f"Basic {encoded}"


def _ask(
    url: str, key: str, headers: Mapping[str, str] = MappingProxyType({}), body: bytes | None = None
) -> str:
    """Return the answer, such as ``204 No Content``. Raises NotificationFailed."""
    headers = {"User-Agent": "xmode-transfer", **headers}
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
        return _answer_of(request)
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
    """Raise TimeoutError after LONGEST_SECONDS; the request is then abandoned."""
    answered: Future[str] = Future()

    def work() -> None:
        answer: HTTPResponse
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
                words = f"{answer.status} {visible(answer.reason[:_READ_BYTES])}"
            answered.set_result(words)
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            answered.set_exception(error)

    threading.Thread(target=work, name="webhook", daemon=True).start()
    try:
        return answered.result(LONGEST_SECONDS)
    except FutureTimeoutError:
        if answered.done():
            raise
        raise TimeoutError(f"no whole answer within {LONGEST_SECONDS:.0f} s") from None


def _by_apprise(url: str, message: Message, key: str) -> str:
    # Apprise logs pieces of a URL: a token, a password, a webhook's path.
    pieces = re.split(r"[/@:?&=]+", url.partition("://")[2])
    telemetry.protect(*(piece for piece in pieces if len(piece) >= _SECRET_LENGTH))
    try:
        target = importlib.import_module("apprise").Apprise()
    except ImportError:
        raise NotificationFailed(
            f"{key}: Apprise is not installed",
            hint="install the extra: pip install 'xmode-transfer[alerts]'; or use webhook instead",
        ) from None
    if not target.add(_with_state(url, message)):
        raise NotificationFailed(
            f"{key}: the secret is not an Apprise URL",
            hint="see https://appriseit.com/services/ for the format; test it with `alerts test`",
        )
    # Apprise returns True or False; it only logs the reason.
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logger = logging.getLogger("apprise")
    with _capturing:
        logger.addHandler(handler)
        try:
            taken = target.notify(
                title=visible(message.title),
                body=visible(message.body, "\n"),
                notify_type=_TYPES.get(message.event, "failure" if message.alert.urgent else "warning"),
            )
        finally:
            logger.removeHandler(handler)
    if not taken:
        reason = " ".join(said.getvalue().split())[:300]
        raise NotificationFailed(
            telemetry.redact_text(f"{key}: {reason or 'the channel rejected it without a reason'}"),
            hint="check the URL; test it with `alerts test`",
        )
    return "taken"


def _with_state(url: str, message: Message) -> str:
    """Add the incident to a PagerDuty URL: ``dedup`` is the alert's fingerprint, and ``action`` ends the
    incident (https://appriseit.com/services/pagerduty/). Apprise keeps no state itself."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("pagerduty", "pagerdutys"):
        return url
    path, _, query = rest.partition("?")
    said = [(name, value) for name, value in parse_qsl(query) if name not in ("dedup", "action")]
    action = "resolve" if message.event is Event.RESOLVED else "trigger"
    said += [("dedup", message.alert.fingerprint), ("action", action)]
    return f"{scheme}://{path}?{urlencode(said)}"
