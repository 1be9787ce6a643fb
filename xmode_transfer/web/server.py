"""The status page's server: uvicorn in a thread.

uvicorn waits forever for an unfinished request and does not limit connections per client: a few hundred
half-sent requests would block all other clients. This server limits the time and number of connections.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

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
_SHORTEST_TOKEN = 16
"""Minimum length in characters: guessing is not rate-limited."""

REQUEST_SECONDS = 30.0
"""From when a connection is ready for a request until its answer is written. A client that takes longer to
send its request, or to read the answer of the one before, is disconnected."""
AT_ONCE = 200
"""Connections in all."""
AT_ONCE_PER_PEER = 32
"""Connections of one address, which a reverse proxy is too: as many requests as it hands on at once."""


class _Listener(NamedTuple):
    """A listener's name, and the hint when it cannot listen."""

    name: str
    hint: str


_PAGE = _Listener(
    "status page",
    "end what listens there, often another daemon, or change status_page.listen in service.yaml; "
    "`status_page: off` does without the page",
)
_PROBES = _Listener(
    "listener of the probes",
    "end what listens there, often another daemon, or change status_page.probes in service.yaml; without it "
    "the page's own address answers the probes",
)
_WORKER = _Listener(
    "worker", "end what listens there, often another worker, or give `--metrics` another address"
)


class Connection(H11Protocol):
    """A connection with a timeout that makes room for newer ones.

    Where there are too many, of one address or in all, the one that has waited longest without a complete
    request is closed. Where none waits, all are being answered, and the new one gets 503.
    """

    _timer: asyncio.TimerHandle | None = None
    _free_since = 0.0

    def connection_made(  # type: ignore[override]  # as uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self._await_request()
        everybody = [other for other in self.connections if isinstance(other, Connection)]
        peers = [other for other in everybody if other._address == self._address]
        if len(peers) > AT_ONCE_PER_PEER:
            self._make_room(peers)
        elif len(everybody) > AT_ONCE:
            self._make_room(everybody)

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
    """A page that is being served, until ``close``. ``probes`` is the listener of its probes, where they
    have one of their own."""

    def __init__(self, server: uvicorn.Server, door: socket.socket) -> None:
        self.probes: Server | None = None
        self._server = server
        self._door = door
        host, port = door.getsockname()[:2]
        self.address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._thread = threading.Thread(target=self._run, name="status-page", daemon=True)

    def start(self) -> None:
        """Answers when the page does. Raises Defect when it does not come up."""
        self._thread.start()
        began = threading.Event()
        for _ in range(round(_START_SECONDS / 0.01)):
            if self._server.started:
                return
            if not self._thread.is_alive():
                break
            began.wait(0.01)
        self.close()
        raise Defect("The status page did not start.", hint="The log has the reason; please report it.")

    def close(self) -> None:
        """Ends it: what is being answered has a few seconds. Idempotent."""
        self._server.should_exit = True
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_END_SECONDS + 2)
        self._door.close()
        if self.probes is not None:
            self.probes.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._door])
        except Exception:  # noqa: BLE001 - the page must never take the daemon down with it
            telemetry.exception(Event.DEFECT)


def serve(
    settings: StatusPage,
    ledger: Ledger,
    clock: Clock,
    configuration: Callable[[], Configuration],
    status_view: StatusView | None,
    metrics: Callable[[], bytes],
) -> Server:
    """Serves the status page from a thread of its own, and answers once it is up.

    ``configuration`` answers what is in use now, ``metrics`` the text for Prometheus. Raises ConfigError when
    an address cannot be listened on, or the token cannot be read or is too short.
    """
    token = _token(settings)
    probes = Probes(ledger, clock, configuration, status_view)
    app = application(_rules(settings, token), ledger, clock, configuration, status_view, metrics, probes)
    return _serve_with_probes(settings, app, probing(probes))


def serve_metrics(
    settings: StatusPage,
    metrics: Callable[[], bytes],
    silent_seconds: Callable[[], float],
    unready: Callable[[], str | None],
) -> Server:
    """As ``serve``, for a worker, which has /healthz, /readyz and /metrics alone: ``measuring``. ``settings``
    are those of the page, at the worker's own address."""
    token = _token(settings)
    app = measuring(_rules(settings, token), metrics, silent_seconds, unready)
    server = _serve(app, settings.listen, _WORKER)
    telemetry.log(Event.PAGE_STARTED, address=server.address, token=token is not None)
    return server


def serve_waiting(settings: StatusPage) -> Server:
    """As ``serve``, for a daemon that waits for its ledger: the probes alone."""
    return _serve_with_probes(settings, waiting(_rules(settings, _token(settings))), waiting(Rules(None)))


def _serve_with_probes(settings: StatusPage, app: ASGIApp, probing: ASGIApp) -> Server:
    """``probing`` is served beside ``app`` where the probes have a listener of their own."""
    server = _serve(app, settings.listen, _PAGE)
    if settings.probes is not None:
        try:
            server.probes = _serve(probing, settings.probes, _PROBES)
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


def _token(settings: StatusPage) -> str | None:
    """Raises ConfigError for one that could be guessed."""
    if settings.token is None:
        return None
    token = read_secret(settings.token, "status_page.token")
    if len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"status_page.token: what {settings.token} holds is too short: {len(token)} of at least "
            f"{_SHORTEST_TOKEN} characters",
            hint="Put a random one there, for instance what `openssl rand -hex 32` prints, and start again",
        )
    return token


def _rules(settings: StatusPage, token: str | None) -> Rules:
    return rules_for(settings.host, is_local=settings.is_local, further=settings.hosts, token=token)


def _serve(app: ASGIApp, listen: str, listener: _Listener) -> Server:
    door = _listen(listen, listener)
    config = uvicorn.Config(
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
    server = Server(uvicorn.Server(config), door)
    server.start()
    return server


def _listen(address: str, listener: _Listener) -> socket.socket:
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(128)
    except OSError as error:
        door.close()
        raise ConfigError(
            f"the {listener.name} cannot listen on {address}: {error.strerror}", hint=listener.hint
        ) from error
    return door
