"""What is answered under which path: the page, /metrics, and what machines ask: is the process alive, can it
work. A customer's failure is no reason to restart the process or to send nobody to it, so no probe looks at
one."""

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
"""A probe of the ledger writes to its disk; asked more often, the last answer is given again."""
SILENT_SECONDS = 180.0
"""A worker's loop that has stood still for longer is not waiting for its ledger to fail over."""


class Check(NamedTuple):
    """One condition, whether it holds, and a word on it."""

    name: str
    holds: bool
    told: str


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
    """Everything that the status page answers."""
    pages = Pages(Facts(ledger, clock, configuration, status_view), clock)
    inner = Starlette(
        routes=[*_probes(probes.alive, probes.ready), _metrics(metrics), *pages.routes()],
        exception_handlers=dict.fromkeys((HTTPException, XmodeError, Exception), pages.problem),
    )
    return Guard(inner, rules)  # outside of everything, so that its headers are on a defect's answer too


def probing(probes: "Probes") -> ASGIApp:
    """The probes alone, for a listener of their own: whatever is asked of the page, they are answered."""
    return Guard(Starlette(routes=_probes(probes.alive, probes.ready)), Rules(None))


def measuring(
    rules: Rules,
    metrics: Callable[[], bytes],
    silent_seconds: Callable[[], float],
    unready: Callable[[], str | None],
) -> ASGIApp:
    """What a worker answers. ``silent_seconds`` is how long ago its loop got on, ``unready`` why it takes no
    jobs."""

    def alive() -> Sequence[Check]:
        silent = silent_seconds()
        return [Check("worker", silent <= SILENT_SECONDS, f"its loop got on {silent:.0f} s ago")]

    def ready() -> Sequence[Check]:
        why = unready()
        return [Check("worker", why is None, why or "it takes turns")]

    return Guard(Starlette(routes=[*_probes(alive, ready), _metrics(metrics)]), rules)


def waiting(rules: Rules) -> ASGIApp:
    """Of a daemon whose ledger is away at its start: it is alive, and not ready."""
    alive = [Check("daemon", holds=True, told="it waits for the ledger")]
    ready = [Check("ledger", holds=False, told="ledger_unreachable")]
    return Guard(Starlette(routes=_probes(lambda: alive, lambda: ready)), rules)


def _metrics(metrics: Callable[[], bytes]) -> BaseRoute:
    def measured(_: Request) -> Response:
        return Response(metrics(), media_type=METRICS_TYPE)

    return Route("/metrics", measured)


def _probes(alive: Checks, ready: Checks) -> list[BaseRoute]:
    async def healthz(_: Request) -> Response:
        return _answer(alive())  # in the loop itself, so that busy threads do not make us look dead

    def readyz(_: Request) -> Response:
        return _answer(ready())

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _answer(checks: Sequence[Check]) -> Response:
    """A line for each: ``ok ledger: writable``."""
    lines = [f"{'ok' if check.holds else 'failed'} {check.name}: {check.told}\n" for check in checks]
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
        """Whether the process does anything at all: if not, it is to be restarted. Asks memory only."""
        if self._status_view is None:
            return [Check("page", holds=True, told="it answers")]
        status = self._status_view.status()
        age = self._clock.now() - status.ticked_at
        tick_seconds = self._configuration().service.daemon.tick_seconds
        told = f"the daemon's clock ticked {max(0, round(age.total_seconds()))} s ago"
        return [Check("daemon", age <= longest_silence(tick_seconds), told)]

    def ready(self) -> Sequence[Check]:
        """Whether it can do its work. A mistake in the configuration on disk does not count while what was in
        order before is still in use."""
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
                    answer = Check("ledger", holds=True, told="writable")
                except XmodeError as error:
                    answer = Check("ledger", holds=False, told=error.code)
                self._known = self._clock.monotonic(), answer
            return self._known[1]

    def _configuration_check(self) -> Check:
        try:
            count = len(self._configuration().customers)
        except XmodeError as error:
            return Check("configuration", holds=False, told=error.code)
        return Check("configuration", holds=True, told=f"{count} customers in order")
