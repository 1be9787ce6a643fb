"""The status page as an ASGI application: what is answered under which path."""

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.errors import XmodeError
from xmode_transfer.entrypoints.web.facts import Facts
from xmode_transfer.entrypoints.web.guard import Guard, Rules
from xmode_transfer.entrypoints.web.measuring import METRICS_TYPE
from xmode_transfer.entrypoints.web.pages import Pages
from xmode_transfer.entrypoints.web.probes import Check, Probes
from xmode_transfer.ports import Clock
from xmode_transfer.ports.board import Board


def application(
    rules: Rules,
    ledger: Ledger,
    clock: Clock,
    configuration: Callable[[], Configuration],
    board: Board | None,
    metrics: Callable[[], bytes],
    probes: Probes,
) -> ASGIApp:
    """Everything that the status page answers."""

    def measured(_: Request) -> Response:
        return Response(metrics(), media_type=METRICS_TYPE)

    pages = Pages(Facts(ledger, clock, configuration, board), clock)
    inner = Starlette(
        routes=[*_probes(probes), Route("/metrics", measured), *pages.routes()],
        exception_handlers=dict.fromkeys((HTTPException, XmodeError, Exception), pages.problem),
    )
    return Guard(inner, rules)  # outside of everything, so that its headers are on a defect's answer too


def probing(probes: Probes) -> ASGIApp:
    """The probes alone, for a listener of their own: whatever is asked of the page, they are answered."""
    return Guard(Starlette(routes=_probes(probes)), Rules(None))


def _probes(probes: Probes) -> list[BaseRoute]:
    async def healthz(_: Request) -> Response:
        return _answer(probes.alive())  # in the loop itself, so that busy threads do not make us look dead

    def readyz(_: Request) -> Response:
        return _answer(probes.ready())

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _answer(checks: Sequence[Check]) -> Response:
    """A line for each: ``ok ledger: writable``."""
    lines = [f"{'ok' if check.holds else 'failed'} {check.name}: {check.told}\n" for check in checks]
    return PlainTextResponse("".join(lines), 200 if all(check.holds for check in checks) else 503)
