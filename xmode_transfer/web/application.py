"""The web applications: which requests are allowed, and the routes of the page, /metrics and the probes.
Probes ignore customers' failures: those are no reason to restart the process or to take it out of service."""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xmode_transfer.config import Configuration, StatusPage
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.web.facts import Cached, Facts, StatusView
from xmode_transfer.web.pages import Pages

METHODS = ("GET", "HEAD")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # without a token: the responses name no customer

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
    """``names`` are the hosts that the page answers to, in lower case; None for any."""

    names: frozenset[str] | None
    token: str | None = None

    def knows(self, host: str) -> bool:
        """Return True if a Host header, such as ``[::1]:8321`` or ``LOCALHOST.:80``, names the page."""
        is_ipv6 = host.startswith("[")
        name = host[1:].partition("]")[0] if is_ipv6 else host.partition(":")[0].rstrip(".")
        return self.names is None or name.lower() in self.names

    def admits(self, authorization: str) -> bool:
        """Return True if an Authorization header has the token: as bearer, or as the password of any user."""
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


def rules_for(page: StatusPage, token: str | None) -> Rules:
    """If other machines can reach the page, it answers to any name unless its names are configured."""
    if not page.is_local and not page.hosts:
        return Rules(None, token)
    return Rules(_LOCAL_NAMES | {page.host.lower(), *page.hosts}, token)


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
                "Unknown host name. To allow it, add it to status_page.hosts in service.yaml.\n", 421
            )
        if not self._rules.admits(headers.get("authorization", "")):
            return PlainTextResponse(
                "The status page requires its token: as a bearer token, or as the password of any user. "
                "See status_page.token in service.yaml.\n",
                401,
                {"WWW-Authenticate": 'Basic realm="xmode-transfer status page", charset="UTF-8"'},
            )
        return None


METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEPT_SECONDS = 5.0  # the ledger's probe is cached: it writes to the disk
SILENT_SECONDS = 180.0  # a worker's loop that is silent for longer hangs; a failover of the ledger is shorter


class Check(NamedTuple):
    name: str
    holds: bool
    detail: str


def application(
    rules: Rules,
    ledger: Ledger,
    clock: Clock,
    configuration: Callable[[], Configuration],
    status_view: StatusView,
    metrics: Callable[[], bytes],
    probes: "Probes",
) -> ASGIApp:
    pages = Pages(Facts(ledger, clock, configuration, status_view), clock)
    inner = Starlette(
        routes=[*_probes(probes.alive, probes.ready), _metrics(metrics), *pages.routes()],
        exception_handlers=dict.fromkeys((HTTPException, XmodeError, Exception), pages.problem),
    )
    return Guard(inner, rules)  # outermost, so that error responses get its headers too


def probing(probes: "Probes") -> ASGIApp:
    """Build the app of the probes' own listener, which stays responsive when the page is busy."""
    return Guard(Starlette(routes=_probes(probes.alive, probes.ready)), Rules(None))


def measuring(
    rules: Rules,
    metrics: Callable[[], bytes],
    silent_seconds: Callable[[], float],
    unready: Callable[[], str | None],
) -> ASGIApp:
    """Build the app of a worker. ``unready`` returns the reason why it takes no jobs, if any."""

    def alive() -> Sequence[Check]:
        silent = silent_seconds()
        return [Check("worker", silent <= SILENT_SECONDS, f"its loop ran {silent:.0f} s ago")]

    def ready() -> Sequence[Check]:
        why = unready()
        return [Check("worker", why is None, why or "taking jobs")]

    return Guard(Starlette(routes=[*_probes(alive, ready), _metrics(metrics)]), rules)


def waiting(rules: Rules) -> ASGIApp:
    """Build the app of a daemon that waits for its ledger: alive, not ready."""
    alive = [Check("daemon", holds=True, detail="waiting for the ledger")]
    ready = [Check("ledger", holds=False, detail="ledger_unreachable")]
    return Guard(Starlette(routes=_probes(lambda: alive, lambda: ready)), rules)


def _metrics(metrics: Callable[[], bytes]) -> BaseRoute:
    return Route("/metrics", lambda _: Response(metrics(), media_type=METRICS_TYPE))


def _probes(alive: Callable[[], Sequence[Check]], ready: Callable[[], Sequence[Check]]) -> list[BaseRoute]:
    async def healthz(_: Request) -> Response:
        return _answer(alive())  # in the event loop, so that busy threads do not fail the probe

    def readyz(_: Request) -> Response:
        return _answer(ready())

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _answer(checks: Sequence[Check]) -> Response:
    """Return one line per check: ``ok ledger: writable``."""
    lines = [f"{'ok' if check.holds else 'failed'} {check.name}: {check.detail}\n" for check in checks]
    return PlainTextResponse("".join(lines), 200 if all(check.holds for check in checks) else 503)


class Probes:
    """The daemon's liveness and readiness. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        configuration: Callable[[], Configuration],
        status_view: StatusView,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._configuration = configuration
        self._status_view = status_view
        self._ledger_check = Cached(self._check_ledger, KEPT_SECONDS, clock).get

    def alive(self) -> Sequence[Check]:
        """From memory only. A process that fails these checks must be restarted."""
        status, now = self._status_view.status(), self._clock.now()
        seconds = max(0, round((now - status.ticked_at).total_seconds()))
        return [Check("daemon", status.is_alive(now), f"the daemon's clock ticked {seconds} s ago")]

    def ready(self) -> Sequence[Check]:
        """An error in the configuration on disk does not count while the last valid version is in use."""
        stopping = self._status_view.status().stopping
        customers = len(self._configuration().customers)
        return [
            self._ledger_check(),
            Check("configuration", holds=True, detail=f"{customers} valid customers"),
            Check("daemon", not stopping, "stopping" if stopping else "running"),
        ]

    def _check_ledger(self) -> Check:
        try:
            self._ledger.prove_writable()
        except XmodeError as error:
            return Check("ledger", holds=False, detail=error.code)
        return Check("ledger", holds=True, detail="writable")
