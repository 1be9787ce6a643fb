"""The pages: load the data and render a template. Handlers are plain functions, so that each runs in a thread
and a slow one blocks no other."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from xmode_transfer import telemetry
from xmode_transfer.alerting.health_records import Health
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.findings import Severity
from xmode_transfer.model.health import AlertState
from xmode_transfer.model.keys import visible
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Run
from xmode_transfer.telemetry import Event
from xmode_transfer.web import layout, plot, states
from xmode_transfer.web.calendar import Mark
from xmode_transfer.web.facts import Facts, Moment

_PACKAGE = "xmode_transfer.web"
STATIC: Mapping[str, str] = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_RESPONSIBLE = {"vendor": "vendor", "customer": "customer", "aws": "AWS or the network"}


def age(at: datetime, now: datetime) -> str:
    """``just now``, ``3 min ago``, ``in 2 h``, ``5 d ago``."""
    seconds = (now - at).total_seconds()
    text = _span(abs(seconds))
    if text is None:
        return "just now" if seconds >= 0 else "now"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def span(since: datetime, now: datetime) -> str:
    """``3 min``, or ``a moment`` when that is less than one."""
    return _span((now - since).total_seconds()) or "a moment"


def _span(seconds: float) -> str | None:
    if seconds < 45:
        return None
    for limit, unit, name in ((5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / unit)} {name}"
    return f"{round(seconds / 86_400):,} d"


def moment(at: datetime) -> str:
    """``2026-11-24 06:31:05 UTC``."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def short(at: datetime, now: datetime) -> str:
    """``06:31`` today, ``23 Nov 06:31`` before, with the year where it is another."""
    if at.date() == now.date():
        return f"{at:%H:%M}"
    if abs(now - at) < timedelta(days=300):
        return f"{at.day} {at:%b %H:%M}"
    return f"{at:%Y-%m-%d}"


def throughput(run: Run) -> float | None:
    """In bytes a second; None if the run sent nothing or is not finished."""
    return run.bytes / run.seconds if run.bytes and run.seconds > 0 else None


def ticked(text: str) -> Markup:
    """Render text between backticks as code."""
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(text.split("`"))
    )


def link(path: str, **query: object) -> str:
    given = {name: value for name, value in query.items() if value not in ("", None, 0)}
    return f"{quote(path)}?{urlencode(given)}" if given else quote(path)


@cache
def static(name: str) -> bytes:
    return files(_PACKAGE).joinpath("static", name).read_bytes()


@cache
def static_link(name: str) -> str:
    """The content hash lets browsers cache the file forever."""
    return f"/static/{name}?v={hashlib.sha256(static(name)).hexdigest()[:12]}"


def _shown(value: object) -> object:
    """Replace bidirectional control characters before escaping: a name must not reorder the page's text."""
    if isinstance(value, Markup):
        return Markup(visible(value, "\n\t"))
    return visible(value, "\n\t") if isinstance(value, str) else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": age,
        "by_day": layout.by_day,
        "count": states.count,
        "duration": states.duration,
        "heading": layout.heading,
        "heads": layout.heads,
        "label": layout.label,
        "moment": moment,
        "pretty": partial(json.dumps, indent=2, ensure_ascii=False),
        "rate": lambda bytes_per_second: f"{states.size(bytes_per_second)}/s",
        "shape": states.shape,
        "short": short,
        "size": states.size,
        "span": span,
        "throughput": throughput,
        "ticked": ticked,
        "tone": states.tone,
        "who": lambda responsible: f"Responsible: {_RESPONSIBLE[responsible]}",
    }
    environment.globals |= {
        "link": link,
        "static_link": static_link,
        "version": version("xmode-transfer"),
        "plot_width": plot.WIDTH,
        "plot_height": plot.HEIGHT,
        "Mark": Mark,
        "Health": Health,
    }
    return environment


def render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


_FOR_GOOD = "public, max-age=31536000, immutable"
_MOST_BACK = 1000


class Pages:
    def __init__(self, facts: Facts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.overview),
            Route("/customers/{name}", self.customer),
            Route("/customers/{name}/access", self.access),
            Route("/feeds/{name}", self.feed),
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
            **found,
            legend=layout.legend(found["sheets"]),
            issues=layout.grouped(found["health"].issues),
            warnings=layout.grouped(found["health"].warnings),
            back=back,
        )

    def access(self, request: Request) -> Response:
        name = request.path_params["name"]
        moment = self._facts.moment()
        if moment.assessment.customer(name) is None:
            raise HTTPException(404, f"There is no customer {name}.")
        check = self._facts.access(name)
        found = check.findings if check else ()
        fixable = [item for item in found if item.fix is not None and item.severity is not Severity.INFO]
        return self._page("access.html", moment, name=name, check=check, fixable=fixable)

    def feed(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = self._facts.feed(name)
        if found is None:
            raise HTTPException(404, f"There is no feed {name}.")
        return self._page(
            "feed.html", self._facts.moment(), **(found | layout.of_feed(found["subscriptions"]))
        )

    def delivery(self, request: Request) -> Response:
        after, find = _text(request, "after"), _text(request, "find")
        found = self._facts.delivery(request.path_params["delivery_id"], after, find)
        if found is None:
            raise HTTPException(404, "There is no such delivery.")
        return self._page("delivery.html", self._facts.moment(), **found)

    def runs(self, _: Request) -> Response:
        return self._page("runs.html", self._facts.moment(), here="/runs", runs=self._facts.runs())

    def alerts(self, _: Request) -> Response:
        moment = self._facts.moment()
        return self._page("alerts.html", moment, here="/alerts", **layout.alerts(moment.alerts))

    def search(self, request: Request) -> Response:
        text = _text(request, "q")
        moment = self._facts.moment()
        healths = {item.customer: item.health for item in moment.assessment.customers}
        return self._page("search.html", moment, query=text, hits=self._facts.search(text), healths=healths)

    def problem(self, _: Request, error: Exception) -> Response:
        status, heading, message, hint = 500, "Internal error", "See the log for the traceback.", ""
        if isinstance(error, HTTPException):
            status, heading, message = error.status_code, "Not found", str(error.detail)
        elif isinstance(error, XmodeError):
            status, heading, message, hint = 503, "Temporarily unavailable", error.message, error.hint
        else:
            telemetry.error(Event.DEFECT, error=type(error).__name__, message=str(error))
        page = {"here": "", "query": "", "at": self._clock.now(), "open_alerts": 0}
        html = render("problem.html", **page, heading=heading, message=message, hint=hint)
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
    """Return 0 if it is invalid."""
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _text(request: Request, name: str) -> str:
    """Return a text of the query, valid for a database query."""
    return request.query_params.get(name, "").encode(errors="replace").decode()
