"""From a record of the standard ``logging`` to one line: ours and every library's go the same way.

structlog is imported when the first line is written and not before: commands that log nothing start
without it.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from json import dumps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from xmode_transfer.model.visible import visible
from xmode_transfer.telemetry.redaction import redact, redact_line

if TYPE_CHECKING:
    from structlog.stdlib import ProcessorFormatter

OURS = "xmode_transfer"
NEVER_BELOW_INFO = ("boto3", "botocore", "urllib3", "s3transfer")
"""Their debug lines show requests as they are signed."""
QUIET = ("alembic", "apscheduler", "watchfiles")
"""What they tell at INFO is their own business."""
_RESERVED = frozenset({"event", "level", "timestamp", "logger", "exception"})
_PLAIN: Mapping[str, object] = MappingProxyType({})

context: ContextVar[Mapping[str, object]] = ContextVar("telemetry_context", default=_PLAIN)
"""What ``bind`` has bound here."""


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream. A line that cannot be written is reported without its content."""

    def __init__(self, stream: TextIO, *, json: bool, colours: bool | None = None) -> None:
        super().__init__(stream)
        wanted = stream.isatty() if colours is None else colours
        self.setFormatter(LineFormatter(json=json, colours=not json and wanted))
        self.addFilter(_is_wanted)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        # logging's own way prints the record's arguments as they are.
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError | ValueError) and self.stream.closed:
            return
        if sys.stderr is not None:
            told = f"a log line of {record.name} could not be written: {type(error).__name__}\n"
            try:
                sys.stderr.write(told)
            except (OSError, ValueError):
                return


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or record.name.partition(".")[0] not in NEVER_BELOW_INFO


class LineFormatter(logging.Formatter):
    """One line of JSON, or of text for a terminal, with every secret masked last of all."""

    def __init__(self, *, json: bool, colours: bool) -> None:
        super().__init__()
        self._json = json
        self._colours = colours
        self._formatter: ProcessorFormatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._formatter is None:
            try:
                self._formatter = _formatter(json=self._json, colours=self._colours)
            except (ImportError, OSError):
                # No file can be opened just now, which is likely what the line is about.
                return redact_line(self._bare(record))
        line = self._formatter.format(record)
        return redact_line(visible(line) if self._json else line)

    def _bare(self, record: logging.LogRecord) -> str:
        event = _fields_of(record, record.getMessage())
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return dumps(redact(event))


def _formatter(*, json: bool, colours: bool) -> "ProcessorFormatter":
    import structlog

    renderer: Any
    tell_exception: Any
    if json:
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        tell_exception = structlog.processors.ExceptionRenderer(transformer)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        tell_exception = structlog.processors.format_exc_info
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            _arrange,
            tell_exception,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _redact,
            *([] if json else [_escape]),
            renderer,
        ]
    )


def _arrange(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    arranged = _fields_of(event["_record"], event["event"])
    for name in ("exc_info", "_record", "_from_structlog"):
        if name in event:
            arranged[name] = event[name]
    return arranged


def _fields_of(record: logging.LogRecord, event: object) -> dict[str, Any]:
    """The fields in the order in which people look for them."""
    instant = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    arranged: dict[str, Any] = {
        "timestamp": instant.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": event,
    }
    fields = {**context.get(), **getattr(record, "xmode_fields", _PLAIN)}
    for name, value in fields.items():
        arranged[f"{name}_" if name in _RESERVED else name] = value
    if record.name != OURS:
        arranged["logger"] = record.name
    return arranged


def _redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    redacted = redact(event)
    assert isinstance(redacted, dict)
    return redacted


def _escape(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Without it a file's name could write lines of its own into the text, or speak to the terminal."""
    kept = {"exception": "\n"}
    return {
        visible(name): visible(value, kept.get(name, "")) if isinstance(value, str) else value
        for name, value in event.items()
    }
