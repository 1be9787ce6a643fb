"""What a worker answers to machines: /healthz and /metrics, under the rules of the status page."""

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


def measuring(rules: Rules, metrics: Callable[[], bytes], silent_seconds: Callable[[], float]) -> ASGIApp:
    """``metrics`` answers the text for Prometheus, ``silent_seconds`` how long ago the worker's loop got
    on."""

    async def healthz(_: Request) -> Response:
        silent = silent_seconds()
        gets_on = silent <= SILENT_SECONDS
        told = f"{'ok' if gets_on else 'failed'} worker: its loop got on {silent:.0f} s ago\n"
        return PlainTextResponse(told, 200 if gets_on else 503)

    def measured(_: Request) -> Response:
        return Response(metrics(), media_type=METRICS_TYPE)

    return Guard(Starlette(routes=[Route("/healthz", healthz), Route("/metrics", measured)]), rules)
