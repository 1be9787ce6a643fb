"""The status page's server: uvicorn in a thread. uvicorn waits forever for an unfinished request and does not
limit connections per client; this server limits both."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, StatusPage
from xmode_transfer.config.secrets import read_secret
from xmode_transfer.config.service import host_and_port
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import ConfigError, Defect
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import Event
from xmode_transfer.web.application import Probes, Rules, application, measuring, probing, rules_for, waiting
from xmode_transfer.web.facts import StatusView

_START_SECONDS = 10.0
_END_SECONDS = 3
_SHORTEST_TOKEN = 16  # characters: guessing is not rate-limited
REQUEST_SECONDS = 30.0
"""Maximum time from when a connection is ready for a request until its response is written."""
AT_ONCE = 200  # connections
AT_ONCE_PER_PEER = 32  # connections from one address; also of a reverse proxy


class Connection(H11Protocol):
    """A connection with a timeout. If there are too many, from one address or in total, the one that has
    waited longest without a complete request is closed. If none waits, the new one gets 503."""

    _timer: asyncio.TimerHandle | None = None
    _free_since = 0.0

    def connection_made(  # type: ignore[override]  # as uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self._await_request()
        known = [other for other in self.connections if isinstance(other, Connection)]
        peers = [other for other in known if other._address == self._address]
        if len(peers) > AT_ONCE_PER_PEER:
            self._make_room(peers)
        elif len(known) > AT_ONCE:
            self._make_room(known)

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    @property
    def _address(self) -> str | None:
        return self.client[0] if self.client else None

    @property
    def _waits(self) -> bool:
        answering: RequestResponseCycle | None = self.cycle  # uvicorn has None there before the first request
        return answering is None or answering.response_complete

    def _await_request(self) -> None:
        self._forget_timer()
        self._free_since = self.loop.time()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._disconnect)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _make_room(self, among: "list[Connection]") -> None:
        waiting = [other for other in among if other is not self and other._waits]
        if waiting:
            min(waiting, key=lambda other: other._free_since)._disconnect()
        else:
            self.limit_concurrency = 0

    def _disconnect(self) -> None:
        self.connections.discard(self)  # at once: connection_lost is called later
        self.transport.abort()


class Server:
    """``probes`` is the separate listener of its probes, if any."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self.probes: Server | None = None
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=_END_SECONDS,
                proxy_headers=False,
            )
        )
        host, port = listener.getsockname()[:2]
        self.address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._thread = threading.Thread(target=self._run, name="status-page", daemon=True)

    def start(self) -> None:
        """Return when it serves. Raises Defect if it does not start."""
        self._thread.start()
        until = time.monotonic() + _START_SECONDS
        while self._thread.is_alive() and time.monotonic() < until:
            if self._server.started:
                return
            time.sleep(0.01)
        self.close()
        raise Defect("The status page did not start.", hint="The log has the reason; please report it.")

    def close(self) -> None:
        """Stop. Requests in flight get a few seconds. Idempotent."""
        self._server.should_exit = True
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_END_SECONDS + 2)
        self._listener.close()
        if self.probes is not None:
            self.probes.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except Exception:  # noqa: BLE001 - the page must never end the daemon
            telemetry.exception(Event.DEFECT)


def serve(
    settings: StatusPage,
    ledger: Ledger,
    clock: Clock,
    configuration: Callable[[], Configuration],
    status_view: StatusView,
    metrics: Callable[[], bytes],
) -> Server:
    """Serve the status page in a thread of its own. Return once it serves. Raises ConfigError."""
    probes = Probes(ledger, clock, configuration, status_view)
    app = application(_rules(settings), ledger, clock, configuration, status_view, metrics, probes)
    return _serve_with_probes(settings, app, probing(probes))


def serve_waiting(settings: StatusPage) -> Server:
    """Serve only the probes, for a daemon that waits for its ledger. Raises ConfigError."""
    return _serve_with_probes(settings, waiting(_rules(settings)), waiting(Rules(None)))


def serve_metrics(
    settings: StatusPage,
    metrics: Callable[[], bytes],
    silent_seconds: Callable[[], float],
    unready: Callable[[], str | None],
) -> Server:
    """Serve /healthz, /readyz and /metrics of a worker (see ``measuring``). Raises ConfigError."""
    server = _serve(
        measuring(_rules(settings), metrics, silent_seconds, unready),
        settings.listen,
        "worker",
        "end what listens there, often another worker, or give `--metrics` another address",
    )
    telemetry.log(Event.PAGE_STARTED, address=server.address, token=settings.token is not None)
    return server


def _serve_with_probes(settings: StatusPage, app: ASGIApp, probing: ASGIApp) -> Server:
    server = _serve(
        app,
        settings.listen,
        "status page",
        "end what listens there, often another daemon, or change status_page.listen in service.yaml; "
        "`status_page: off` runs without the page",
    )
    if settings.probes is not None:
        try:
            server.probes = _serve(
                probing,
                settings.probes,
                "listener of the probes",
                "end what listens there, often another daemon, or change status_page.probes in service.yaml; "
                "without it the page's own address answers the probes",
            )
        except BaseException:
            server.close()
            raise
    telemetry.log(
        Event.PAGE_STARTED,
        address=server.address,
        token=settings.token is not None,
        probes=server.probes.address if server.probes is not None else None,
    )
    return server


def _rules(settings: StatusPage) -> Rules:
    token = None
    if settings.token is not None:
        token = read_secret(settings.token, "status_page.token")
        if len(token) < _SHORTEST_TOKEN:
            raise ConfigError(
                f"status_page.token: the value in {settings.token} is too short: {len(token)} of at least "
                f"{_SHORTEST_TOKEN} characters",
                hint="Use a random one, for example the output of `openssl rand -hex 32`, and start again",
            )
    return rules_for(settings, token)


def _serve(app: ASGIApp, address: str, name: str, hint: str) -> Server:
    """``name`` and ``hint`` are for the error if it cannot listen on the address."""
    host, port = host_and_port(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(f"the {name} cannot listen on {address}: {error.strerror}", hint=hint) from error
    server = Server(app, listener)
    server.start()
    return server
