"""The log: named events with fields, one line each, with every secret masked.

    telemetry.configure()                                # once, in a shell
    with telemetry.bind(customer="acme", feed="us-daily"):
        telemetry.log(Event.DELIVERY_STARTED, objects=12)

Events go through the standard ``logging``, so lines of libraries take the same form and the same redaction.
What is bound is known to this thread or task alone; ``carry`` takes it along into another.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ParamSpec, TextIO, TypeVar

from xmode_transfer.telemetry.events import Event
from xmode_transfer.telemetry.rendering import (
    NEVER_BELOW_INFO,
    OURS,
    QUIET,
    LineHandler,
    context,
    protect,
    redact,
    redact_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

_OUR_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_logger = logging.getLogger(OURS)
# Where nobody has called ``configure``, only what must not be lost is shown, by logging's own last resort.


def configure(
    stream: TextIO | None = None,
    json: bool | None = None,
    level: str | int = logging.INFO,
    colours: bool | None = None,
) -> None:
    """Sends the log to ``stream`` (stderr unless told). ``json`` is one JSON document a line; unless told,
    so it is when the stream is no terminal. ``colours`` are a terminal's, unless told.
    Called again, it replaces what it did before. Raises ValueError for an unknown level."""
    target = stream if stream is not None else sys.stderr
    as_json = json if json is not None else not target.isatty()
    root = logging.getLogger()
    root.setLevel(level)
    for handler in [known for known in root.handlers if isinstance(known, LineHandler)]:
        root.removeHandler(handler)
    root.addHandler(LineHandler(target, json=as_json, colours=colours))
    for name in (*NEVER_BELOW_INFO, *QUIET):
        told = logging.INFO if root.level <= logging.DEBUG else logging.WARNING
        logging.getLogger(name).setLevel(max(told, root.level))
    logging.captureWarnings(True)
    protect(*(os.environ.get(name, "") for name in _OUR_SECRETS))


def debug(event: str, /, **fields: object) -> None:
    _write(logging.DEBUG, event, fields)


def log(event: str, /, **fields: object) -> None:
    """Something went as it should."""
    _write(logging.INFO, event, fields)


def warn(event: str, /, **fields: object) -> None:
    """Something did not, and we know how to go on."""
    _write(logging.WARNING, event, fields)


def error(event: str, /, **fields: object) -> None:
    """Something did not, and a person should look."""
    _write(logging.ERROR, event, fields)


def exception(event: str, /, **fields: object) -> None:
    """Like ``error``, with the traceback of the exception that is being handled."""
    _write(logging.ERROR, event, fields, with_traceback=True)


@contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Puts the fields on every line that is written inside."""
    token = context.set({**context.get(), **fields})
    try:
        yield
    finally:
        context.reset(token)


def carry(function: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """The function, to be called in other threads, and as often as you like, with what is bound here."""
    here = copy_context()

    def carried(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        return here.copy().run(function, *args, **kwargs)  # a context can be entered once at a time

    return carried


def _write(level: int, event: str, fields: dict[str, object], *, with_traceback: bool = False) -> None:
    if _logger.isEnabledFor(level):
        # The event is an argument, so that a % in it means nothing.
        _logger.log(level, "%s", str(event), exc_info=with_traceback, extra={"xmode_fields": fields})


class SystemClock:
    """Implements ``model.process.Clock``."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - this is the Clock port's own adapter

    def monotonic(self) -> float:
        return time.monotonic()
