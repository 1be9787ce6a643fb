"""The log: named events with fields, one line each, with every secret masked. Events go through the standard
``logging``, so lines of libraries have the same form and redaction."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from typing import ParamSpec, TextIO, TypeVar

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

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

_logger = logging.getLogger(OURS)
# Without ``configure``, logging's last resort shows warnings and errors.


def configure(
    stream: TextIO | None = None,
    json: bool | None = None,
    level: str | int = logging.INFO,
    colours: bool | None = None,
) -> None:
    """Send the log to ``stream`` (default: stderr). By default, a terminal gets text with colours, and
    anything else JSON. A further call replaces the previous one. Raises ValueError for an unknown level."""
    target = stream if stream is not None else sys.stderr
    as_json = json if json is not None else not target.isatty()
    root = logging.getLogger()
    root.setLevel(level)
    for handler in [known for known in root.handlers if isinstance(known, LineHandler)]:
        root.removeHandler(handler)
    root.addHandler(LineHandler(target, json=as_json, colours=colours))
    for name in (*NEVER_BELOW_INFO, *QUIET):
        lowest = logging.INFO if root.level <= logging.DEBUG else logging.WARNING
        logging.getLogger(name).setLevel(max(lowest, root.level))
    logging.captureWarnings(True)
    protect(*(os.environ.get(name, "") for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")))


def debug(event: Event | str, /, **fields: object) -> None:
    _write(logging.DEBUG, event, fields)


def log(event: Event | str, /, **fields: object) -> None:
    _write(logging.INFO, event, fields)


def warn(event: Event | str, /, **fields: object) -> None:
    """Log a problem that the program handles."""
    _write(logging.WARNING, event, fields)


def error(event: Event | str, /, **fields: object) -> None:
    """Log a problem that needs a person."""
    _write(logging.ERROR, event, fields)


def exception(event: Event | str, /, **fields: object) -> None:
    """Log an error with the current traceback."""
    _write(logging.ERROR, event, fields, with_traceback=True)


@contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Add fields to every line that this thread or task writes inside."""
    token = context.set({**context.get(), **fields})
    try:
        yield
    finally:
        context.reset(token)


def carry(function: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """Return the function with the fields that are bound here, for other threads."""
    here = copy_context()

    def carried(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        return here.copy().run(function, *args, **kwargs)  # a context can only be entered once at a time

    return carried


def _write(
    level: int, event: Event | str, fields: dict[str, object], *, with_traceback: bool = False
) -> None:
    if _logger.isEnabledFor(level):
        # As an argument, the event may contain a %.
        _logger.log(level, "%s", str(event), exc_info=with_traceback, extra={"xmode_fields": fields})


class SystemClock:
    """The clock of the system; implements ``model.process.Clock``."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the only place that may

    def monotonic(self) -> float:
        return time.monotonic()
