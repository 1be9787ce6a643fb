"""The routes: the page, /metrics, and the probes for liveness and readiness. Probes ignore customers'
failures: those are no reason to restart the process or to take it out of service."""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from xmode_transfer.config import Configuration
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.daemons import longest_silence
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.web.facts import Facts
from xmode_transfer.web.guard import Guard, Rules
from xmode_transfer.web.pages import Pages
from xmode_transfer.web.status_view import StatusView

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEPT_SECONDS = 5.0
"""How long the ledger's probe is cached: it writes to the disk."""
SILENT_SECONDS = 180.0
"""A worker's loop that makes no progress for longer hangs; a failover of the ledger is shorter."""


class Check(NamedTuple):
    """One condition, whether it holds, and a detail."""

    name: str
    holds: bool
    detail: str


Checks = Callable[[], Sequence[Check]]


def application(
    rules: Rules,
    ledger: Ledger,
    clock: Clock,
    configuration: Callable[[], Configuration],
    status_view: StatusView | None,
    metrics: Callable[[], bytes],
    probes: "Probes",
) -> ASGIApp:
    """Build the app of the status page."""
    pages = Pages(Facts(ledger, clock, configuration, status_view), clock)
    inner = Starlette(
        routes=[*_probes(probes.alive, probes.ready), _metrics(metrics), *pages.routes()],
        exception_handlers=dict.fromkeys((HTTPException, XmodeError, Exception), pages.problem),
    )
    return Guard(inner, rules)  # outermost, so that error responses get its headers too


def probing(probes: "Probes") -> ASGIApp:
    """Build the app of the probes alone, for a separate listener that stays responsive when the page is
    busy."""
    return Guard(Starlette(routes=_probes(probes.alive, probes.ready)), Rules(None))


def measuring(
    rules: Rules,
    metrics: Callable[[], bytes],
    silent_seconds: Callable[[], float],
    unready: Callable[[], str | None],
) -> ASGIApp:
    """Build the app of a worker. ``silent_seconds`` is the time since its loop made progress, ``unready`` the
    reason why it takes no jobs."""

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
    def measured(_: Request) -> Response:
        return Response(metrics(), media_type=METRICS_TYPE)

    return Route("/metrics", measured)


def _probes(alive: Checks, ready: Checks) -> list[BaseRoute]:
    async def healthz(_: Request) -> Response:
        return _answer(alive())  # in the event loop, so that busy threads do not fail the probe

    def readyz(_: Request) -> Response:
        return _answer(ready())

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _answer(checks: Sequence[Check]) -> Response:
    """One line per check: ``ok ledger: writable``."""
    lines = [f"{'ok' if check.holds else 'failed'} {check.name}: {check.detail}\n" for check in checks]
    return PlainTextResponse("".join(lines), 200 if all(check.holds for check in checks) else 503)


class Probes:
    """Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        configuration: Callable[[], Configuration],
        status_view: StatusView | None,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._configuration = configuration
        self._status_view = status_view
        self._lock = threading.Lock()
        self._known: tuple[float, Check] | None = None

    def alive(self) -> Sequence[Check]:
        """Return the liveness checks, from memory only. A process that fails them must be restarted."""
        if self._status_view is None:
            return [Check("page", holds=True, detail="answering")]
        status = self._status_view.status()
        age = self._clock.now() - status.ticked_at
        tick_seconds = self._configuration().service.daemon.tick_seconds
        detail = f"the daemon's clock ticked {max(0, round(age.total_seconds()))} s ago"
        return [Check("daemon", age <= longest_silence(tick_seconds), detail)]

    def ready(self) -> Sequence[Check]:
        """Return the readiness checks. An error in the configuration on disk does not count while the last
        valid version is in use."""
        found = [self._ledger_check(), self._configuration_check()]
        if self._status_view is not None:
            status = self._status_view.status()
            found.append(Check("daemon", not status.stopping, "stopping" if status.stopping else "running"))
        return found

    def _ledger_check(self) -> Check:
        with self._lock:
            now = self._clock.monotonic()
            if self._known is None or now - self._known[0] > KEPT_SECONDS:
                try:
                    self._ledger.prove_writable()
                    answer = Check("ledger", holds=True, detail="writable")
                except XmodeError as error:
                    answer = Check("ledger", holds=False, detail=error.code)
                self._known = self._clock.monotonic(), answer
            return self._known[1]

    def _configuration_check(self) -> Check:
        try:
            count = len(self._configuration().customers)
        except XmodeError as error:
            return Check("configuration", holds=False, detail=error.code)
        return Check("configuration", holds=True, detail=f"{count} valid customers")
