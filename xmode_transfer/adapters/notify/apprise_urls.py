"""Slack, PagerDuty, e-mail, SNS and whatever else Apprise knows; the extra ``alerts``.

Apprise has no state. PagerDuty's is kept through its URL: ``dedup`` is the alert's fingerprint, and
``action`` ends the incident when the alert is resolved (https://appriseit.com/services/pagerduty/).
"""

import importlib
import io
import logging
import re
import threading
from typing import Any
from urllib.parse import parse_qsl, urlencode

from xmode_transfer import telemetry
from xmode_transfer.domain.alerts import Event, Message
from xmode_transfer.domain.errors import NotificationFailed
from xmode_transfer.domain.visible import visible

_TYPES = {Event.RESOLVED: "success", Event.TEST: "info", Event.REPEATED: "warning"}
_SECRET_LENGTH = 8
_capturing = threading.Lock()


def send(url: str, message: Message, key: str) -> str:
    """``key`` is where the configuration says where the URL is kept. Raises NotificationFailed."""
    # Apprise logs pieces of a URL: a token, a password, a webhook's path.
    pieces = re.split(r"[/@:?&=]+", url.partition("://")[2])
    telemetry.protect(*(piece for piece in pieces if len(piece) >= _SECRET_LENGTH))
    target = _apprise(key).Apprise()
    if not target.add(_with_state(url, message)):
        raise NotificationFailed(
            f"{key}: what the secret holds is no URL that Apprise knows",
            hint="its forms are on https://appriseit.com/services/; `alerts test` tries it",
        )
    # Apprise answers yes or no; what went wrong it only logs.
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
            telemetry.redact_text(f"{key}: {reason or 'the channel did not take it, without a word'}"),
            hint="see whether the URL is still right; `alerts test` tries it",
        )
    return "taken"


def _apprise(key: str) -> Any:
    try:
        return importlib.import_module("apprise")
    except ImportError:
        raise NotificationFailed(
            f"{key}: Apprise is not installed",
            hint="install the extra: pip install 'xmode-transfer[alerts]'; or use webhook instead",
        ) from None


def _with_state(url: str, message: Message) -> str:
    """A PagerDuty URL that names the incident; others as they are."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("pagerduty", "pagerdutys"):
        return url
    path, _, query = rest.partition("?")
    said = [(name, value) for name, value in parse_qsl(query) if name not in ("dedup", "action")]
    action = "resolve" if message.event is Event.RESOLVED else "trigger"
    said += [("dedup", message.alert.fingerprint), ("action", action)]
    return f"{scheme}://{path}?{urlencode(said)}"
