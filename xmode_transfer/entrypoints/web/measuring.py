"""What a worker answers to machines: /healthz, /readyz and /metrics, under the rules of the status page; and
what a daemon answers that waits for its ledger."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from xmode_transfer.entrypoints.web.guard import Guard, Rules

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SILENT_SECONDS = 180.0
"""A worker's loop that has stood still for longer is not waiting for its ledger to fail over."""


def measuring(
    rules: Rules,
    metrics: Callable[[], bytes],
    silent_seconds: Callable[[], float],
    unready: Callable[[], str | None],
) -> ASGIApp:
    """``metrics`` answers the text for Prometheus, ``silent_seconds`` how long ago the worker's loop got
    on, ``unready`` why it takes no turns."""

    async def healthz(_: Request) -> Response:
        silent = silent_seconds()
        gets_on = silent <= SILENT_SECONDS
        told = f"{'ok' if gets_on else 'failed'} worker: its loop got on {silent:.0f} s ago\n"
        return PlainTextResponse(told, 200 if gets_on else 503)

    async def readyz(_: Request) -> Response:
        why = unready()
        told = "ok worker: it takes turns\n" if why is None else f"failed worker: {why}\n"
        return PlainTextResponse(told, 200 if why is None else 503)

    def measured(_: Request) -> Response:
        return Response(metrics(), media_type=METRICS_TYPE)

    routes = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", measured)]
    return Guard(Starlette(routes=routes), rules)


def waiting(rules: Rules) -> ASGIApp:
    """Of a daemon whose ledger is away at its start: it is alive, and not ready."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok daemon: it waits for the ledger\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("failed ledger: ledger_unreachable\n", 503)

    return Guard(Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)]), rules)
