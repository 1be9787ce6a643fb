"""The pages: each loads its data and renders it. They are plain functions, so that they run in their own
threads and a slow one blocks no other."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from xmode_transfer import telemetry
from xmode_transfer.alerting.health import Health
from xmode_transfer.model.alerts import AlertState
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.findings import Severity
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import Event
from xmode_transfer.web import layout
from xmode_transfer.web.facts import Facts, Moment
from xmode_transfer.web.rendering import STATIC, render, static

_FOR_GOOD = "public, max-age=31536000, immutable"
_MOST_BACK = 1000


class Pages:
    """Routes and handlers of the pages."""

    def __init__(self, facts: Facts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.overview),
            Route("/customers/{name}", self.customer),
            Route("/customers/{name}/access", self.access),
            Route("/deliveries/{delivery_id}", self.delivery),
            Route("/runs", self.runs),
            Route("/alerts", self.alerts),
            Route("/search", self.search),
            Route("/static/{name}", _static),
        ]

    def overview(self, request: Request) -> Response:
        moment = self._facts.moment()
        asked = request.query_params.get("health")
        chosen = Health(asked) if asked in set(Health) else None
        values = layout.overview(moment, chosen, _number(request, "page"))
        return self._page("overview.html", moment, here="/", **values)

    def customer(self, request: Request) -> Response:
        name = request.path_params["name"]
        back = min(_number(request, "back"), _MOST_BACK)
        found = self._facts.customer(name, back)
        if found is None:
            raise HTTPException(404, f"There is no customer {name}.")
        return self._page(
            "customer.html",
            self._facts.moment(),
            **{
                **found._asdict(),
                "sheets": list(layout.calendar(found.sheets)),
                "legend": layout.legend(found.sheets),
                "issues": layout.grouped(found.health.issues),
                "warnings": layout.grouped(found.health.warnings),
                "back": back,
            },
        )

    def access(self, request: Request) -> Response:
        name = request.path_params["name"]
        moment = self._facts.moment()
        if moment.assessment.customer(name) is None:
            raise HTTPException(404, f"There is no customer {name}.")
        check = self._facts.access(name)
        fixable = [
            item
            for item in (check.findings if check else ())
            if item.fix is not None and item.severity is not Severity.INFO
        ]
        return self._page("access.html", moment, name=name, check=check, fixable=fixable)

    def delivery(self, request: Request) -> Response:
        asked = request.query_params
        found = self._facts.delivery(
            request.path_params["delivery_id"], after=_text(asked, "after"), find=_text(asked, "find")
        )
        if found is None:
            raise HTTPException(404, "There is no such delivery.")
        return self._page("delivery.html", self._facts.moment(), **found._asdict())

    def runs(self, _: Request) -> Response:
        return self._page("runs.html", self._facts.moment(), here="/runs", runs=self._facts.runs())

    def alerts(self, _: Request) -> Response:
        moment = self._facts.moment()
        return self._page("alerts.html", moment, here="/alerts", **layout.alerts(moment.alerts))

    def search(self, request: Request) -> Response:
        text = _text(request.query_params, "q")
        moment = self._facts.moment()
        healths = {item.customer: item.health for item in moment.assessment.customers}
        return self._page("search.html", moment, query=text, hits=self._facts.search(text), healths=healths)

    def problem(self, _: Request, error: Exception) -> Response:
        """Render an error page."""
        status, heading, message, hint = 500, "Internal error", "See the log for the traceback.", ""
        if isinstance(error, HTTPException):
            status, heading, message = error.status_code, "Not found", str(error.detail)
        elif isinstance(error, XmodeError):
            status, heading, message, hint = 503, "Temporarily unavailable", error.message, error.hint
        else:
            telemetry.error(Event.DEFECT, error=type(error).__name__, message=str(error))
        html = render(
            "problem.html",
            here="",
            query="",
            at=self._clock.now(),
            open_alerts=0,
            heading=heading,
            message=message,
            hint=hint,
        )
        return HTMLResponse(html, status)

    def _page(
        self, template: str, moment: Moment, here: str = "", query: str = "", **values: Any
    ) -> Response:
        open_alerts = sum(alert.state is AlertState.OPEN for alert in moment.alerts)
        html = render(template, here=here, query=query, at=moment.at, open_alerts=open_alerts, **values)
        return HTMLResponse(html)


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404, "There is no such file.")
    return Response(static(name), media_type=STATIC[name], headers={"Cache-Control": _FOR_GOOD})


def _number(request: Request, name: str) -> int:
    """Parse a number of the query; 0 if invalid."""
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _text(asked: Mapping[str, str], name: str) -> str:
    """Return a text of the query, valid for a database query."""
    return asked.get(name, "").encode(errors="replace").decode()
