"""Access control of the status page, before any page is rendered.

The page is read-only: GET and HEAD. On a loopback address, unknown Host headers are rejected: a web site
could otherwise point its own name at 127.0.0.1 and read the page through the operator's browser (DNS
rebinding). On other addresses, a token is required.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths open to probes without a token; the responses name no customer."""

SECURITY_HEADERS: Mapping[str, str] = {
    # No inline script or style, nothing from elsewhere, no frame around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Rules:
    """``names`` are the hosts that the page answers to, in small letters; None for any. ``token`` is demanded
    where it is not None."""

    names: frozenset[str] | None
    token: str | None = None

    def knows(self, host: str) -> bool:
        """Whether a Host header names the page."""
        return self.names is None or _name_of(host) in self.names

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header carries the token: ``Bearer TOKEN``, or what a browser sends after
        it has asked for a password (Basic; the user's name may be anything)."""
        if self.token is None:
            return True
        scheme, _, value = authorization.partition(" ")
        given = value.strip().encode("latin-1")  # as it came over the wire
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given, self.token.encode())


def rules_for(host: str, *, is_local: bool, further: tuple[str, ...], token: str | None) -> Rules:
    """The rules of a page that listens on ``host``. One that others can reach is protected by its token, and
    answers to any name unless its names are given."""
    if not is_local and not further:
        return Rules(None, token)
    return Rules(_LOCAL_NAMES | {host.lower(), *further}, token)


def _name_of(host: str) -> str:
    """``[::1]:8321`` -> ``::1``, ``LOCALHOST.:80`` -> ``localhost``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


class Guard:
    """Rejects requests that the rules do not allow, and sets security headers on every response."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # there are no web sockets; uvicorn then closes the connection

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] not in METHODS:
            return PlainTextResponse(
                "The status page is read-only: use GET or HEAD.\n", 405, {"Allow": ", ".join(METHODS)}
            )
        if scope["path"] in OPEN_PATHS:
            return None
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._rules.knows(hosts[0]):
            return PlainTextResponse(
                "Unknown host name. To allow it, add it to status_page.hosts in service.yaml.\n",
                421,
            )
        if not self._rules.admits(headers.get("authorization", "")):
            return PlainTextResponse(
                "The status page requires its token: as a bearer token, or as the password of any user. "
                "See status_page.token in service.yaml.\n",
                401,
                {"WWW-Authenticate": 'Basic realm="xmode-transfer status page", charset="UTF-8"'},
            )
        return None
