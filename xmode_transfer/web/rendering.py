"""Rendering of HTML: templates, and formats of states, times and numbers.

Everything is escaped; no template turns that off. A misspelled name in a template is an error.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from xmode_transfer.alerting.calendar import Mark
from xmode_transfer.alerting.health import Health
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.visible import visible
from xmode_transfer.web import looks

_PACKAGE = "xmode_transfer.web"
STATIC: Mapping[str, str] = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""The files under /static/, with their types."""

_WHO = {
    Responsible.VENDOR: "Responsible: vendor",
    Responsible.CUSTOMER: "Responsible: customer",
    Responsible.AWS: "Responsible: AWS or the network",
}


def who(responsible: str) -> str:
    """``customer`` -> ``Responsible: customer``."""
    return _WHO[Responsible(responsible)]


def age(at: datetime, now: datetime) -> str:
    """``just now``, ``3 min ago``, ``in 2 h``, ``5 d ago``."""
    seconds = (now - at).total_seconds()
    text = _span(abs(seconds))
    if text is None:
        return "just now" if seconds >= 0 else "now"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def span(since: datetime, now: datetime) -> str:
    """How long something has lasted: ``3 min``; ``a moment`` when that is less than one."""
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


def rate(bytes_per_second: float | None) -> str:
    return "" if bytes_per_second is None else f"{looks.size(bytes_per_second)}/s"


def pretty(value: object) -> str:
    """Format a policy statement."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def ticked(text: str) -> Markup:
    """Render text between backticks as code."""
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(text.split("`"))
    )


def link(path: str, **query: object) -> str:
    """Return a path with its query, without empty values."""
    given = {name: value for name, value in query.items() if value not in ("", None, 0)}
    return f"{quote(path)}?{urlencode(given)}" if given else quote(path)


@cache
def static(name: str) -> bytes:
    return files(_PACKAGE).joinpath("static", name).read_bytes()


@cache
def static_link(name: str) -> str:
    """Return a URL with a content hash, so that browsers can cache the file forever."""
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
        "count": looks.count,
        "duration": looks.duration,
        "moment": moment,
        "pretty": pretty,
        "rate": rate,
        "shape": looks.shape,
        "short": short,
        "size": looks.size,
        "span": span,
        "ticked": ticked,
        "tone": looks.tone,
        "who": who,
    }
    environment.globals |= {
        "link": link,
        "static_link": static_link,
        "version": version("xmode-transfer"),
        "Mark": Mark,
        "Health": Health,
    }
    return environment


def render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
