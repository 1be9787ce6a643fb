"""Render a record of ``logging`` as one line, with every secret masked."""

import logging
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from enum import Enum
from html import escape
from json import dumps
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import quote

from xmode_transfer.model.keys import visible

if TYPE_CHECKING:
    from structlog.stdlib import ProcessorFormatter

MASK = "***"
_SHORTEST = 8  # shorter values would occur in ordinary words
_MOST_SECRETS = 40_000
_DEEPEST = 12

_SECRET_FIELDS = re.compile(
    r"secret|passw(or)?d|passphrase|authorization|credential|cookie|private[_-]?key|api[_-]?key"
    r"|(session|security|auth|access|refresh|bearer|id)[_-]?token|^token$|access[_-]?key[_-]?id|signature$",
    re.IGNORECASE,
)
# Fields with such a word and without a secret.
_HARMLESS_FIELDS = re.compile(r"^(credentials?|session_token|access_key)_(expires?(_at)?|source|age_days)$")

_NAME = (
    r"(?:aws[_-]?)?secret[_-]?(?:access[_-]?)?key|(?:aws[_-]?)?(?:session|security)[_-]?token|x-amz-security-token"
    r"|access[_-]?token|refresh[_-]?token|client[_-]?secret|api[_-]?key|passw(?:or)?d|passphrase|pwd"
)
_QUOTED_OR_BARE = r"""b?\\*"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'|[^\s"'<>,;&)}\]\\]+"""
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # name=value, "name": "value", name='value', <Name>value</Name>, in any text
    (re.compile(rf"""(?i)((?:{_NAME})[\\"']*\s*(?:[:=>]|%3D)\s*)(?:{_QUOTED_OR_BARE})"""), rf"\1{MASK}"),
    # "secret access key wJalr...", "the session token is IQoJ..."
    (
        re.compile(r"(?i)((?:key|token|secret|password)\W{1,3}(?:is\W{1,2})?)[A-Za-z0-9/+=]{40,}"),
        rf"\1{MASK}",
    ),
    (
        re.compile(r"""(?i)(authorization[\\"']*\s*[:=]\s*)(?:b?"[^"]*"|b?'[^']*'|[^"'\r\n{}]+)"""),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), rf"\1{MASK}@"),
)
# Secrets by their form alone. These match no quote, backslash or space, so they also work on a line of JSON.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?i)(X-Amz-(?:Security-Token|Signature|Credential)(?:=|%3D))[^&\s\"'<>\\,]+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b((?:Signature|Credential)=)[A-Za-z0-9/+=_-]{16,}"), rf"\1{MASK}"),
    (re.compile(r"(?<![0-9A-Z])A[KS]IA[0-9A-Z]{16,}"), MASK),  # IAM User Guide: prefixes of access key IDs
    (re.compile(r"(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz|FQoDYXdz)[A-Za-z0-9/+=%]{20,}"), MASK),
)
# Every text that matches a pattern has one of these; checking them first makes most lines cheap.
_HINTS = (
    "key", "token", "secret", "passw", "passphrase", "pwd", "authorization", "bearer", "basic", "://",
    "signature", "credential", "akia", "asia", "iqojb", "fwogz", "fqogz", "fqody",
)  # fmt: skip


class _Protected:
    """The registered values by their first characters, so that the cost does not grow with their number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: OrderedDict[str, None] = OrderedDict()
        self._by_start: dict[str, tuple[str, ...]] = {}

    def add(self, secret: str) -> None:
        if len(secret) < _SHORTEST:
            return
        with self._lock:
            for form in _forms(secret):
                self._forms[form] = None
                self._forms.move_to_end(form)
                start = form[:_SHORTEST]
                known = self._by_start.get(start, ())
                if form not in known:
                    # The longest first: one secret may be the beginning of another.
                    self._by_start[start] = tuple(sorted((*known, form), key=len, reverse=True))
            while len(self._forms) > _MOST_SECRETS:
                oldest = self._forms.popitem(last=False)[0]
                start = oldest[:_SHORTEST]
                left = tuple(known for known in self._by_start[start] if known != oldest)
                if left:
                    self._by_start[start] = left
                else:
                    del self._by_start[start]

    def mask(self, text: str) -> str:
        starts = self._by_start
        if not starts or len(text) < _SHORTEST:
            return text
        if starts.keys().isdisjoint(text[i : i + _SHORTEST] for i in range(len(text) - _SHORTEST + 1)):
            return text
        pieces: list[str] = []
        done = at = 0
        while at < len(text):
            for form in starts.get(text[at : at + _SHORTEST], ()):
                if text.startswith(form, at):
                    pieces += (text[done:at], MASK)
                    at += len(form)
                    done = at
                    break
            else:
                at += 1
        pieces.append(text[done:])
        return "".join(pieces)


def _forms(secret: str) -> set[str]:
    """Return the forms of a value in URLs, JSON, XML and a repr."""
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        dumps(secret)[1:-1],
        dumps(secret, ensure_ascii=False)[1:-1],
        escape(secret),
        escape(secret, quote=False),
        repr(secret)[1:-1],
        repr(secret.encode("utf-8", "surrogateescape"))[2:-1],
    }


_protected = _Protected()


def protect(*secrets: str) -> None:
    """Mask these values wherever they occur. Thread-safe. Short ones are too common; the oldest of some ten
    thousand are forgotten."""
    for secret in secrets:
        _protected.add(secret)


def redact_text(text: str) -> str:
    """Return the text with every secret masked."""
    return _masked(text, (*_PATTERNS, *_SHAPES))


def redact_line(line: str) -> str:
    """Mask secrets in a finished line, which stays valid JSON if it was."""
    return _masked(line, _SHAPES)


def _masked(text: str, patterns: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    text = _protected.mask(text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        for pattern, replacement in patterns:
            text = pattern.sub(replacement, text)
    return text


def redact(value: object, depth: int = 0) -> object:
    """Return the value with every secret masked, in JSON's types; anything else becomes its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return redact(value.value, depth)
    if isinstance(value, int | float):
        return value if isfinite(value) else str(value)
    if isinstance(value, str):
        return redact_text(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return redact_text(bytes(value).decode("utf-8", "backslashreplace"))
    if isinstance(value, datetime | date):
        return value.isoformat()
    if depth >= _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {str(redact(name)): _redact_field(name, item, depth) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _redact_field(field.name, getattr(value, field.name, None), depth)
            for field in fields(value)
            if field.repr
        }
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _redact_field(name, item, depth) for name, item in value._asdict().items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth + 1) for item in value]
    return redact_text(_text_of(value))


def _redact_field(name: object, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    shown = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    if _SECRET_FIELDS.search(shown) and not _HARMLESS_FIELDS.search(shown):
        return MASK
    return redact(value, depth + 1)


def _text_of(value: object) -> str:
    name, is_error = type(value).__name__, isinstance(value, BaseException)
    try:
        return f"{name}: {value}" if is_error else repr(value)
    except Exception:  # noqa: BLE001 - an object that cannot be shown must not end the log
        return name if is_error else f"<{name} that cannot be shown>"


OURS = "xmode_transfer"
NEVER_BELOW_INFO = ("boto3", "botocore", "urllib3", "s3transfer")  # debug lines contain signed requests
QUIET = ("alembic", "apscheduler", "watchfiles")  # lines at INFO are of no use here
_RESERVED = frozenset({"event", "level", "timestamp", "logger", "exception"})
_PLAIN: Mapping[str, object] = MappingProxyType({})

context: ContextVar[Mapping[str, object]] = ContextVar("telemetry_context", default=_PLAIN)


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream. A line that cannot be written is reported without its content."""

    def __init__(self, stream: TextIO, *, json: bool, colours: bool | None = None) -> None:
        super().__init__(stream)
        wanted = stream.isatty() if colours is None else colours
        self.setFormatter(LineFormatter(json=json, colours=not json and wanted))
        self.addFilter(_is_wanted)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        # logging's own method prints the record's arguments unmasked.
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError | ValueError) and self.stream.closed:
            return
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                name = type(error).__name__
                sys.stderr.write(f"a log line of {record.name} could not be written: {name}\n")


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or record.name.partition(".")[0] not in NEVER_BELOW_INFO


class LineFormatter(logging.Formatter):
    """One line of JSON, or of text for a terminal."""

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
                # No file can be opened at the moment, which is probably what the line reports.
                event = _fields_of(record, record.getMessage())
                if record.exc_info:
                    event["exception"] = self.formatException(record.exc_info)
                return redact_line(dumps(redact(event)))
        line = self._formatter.format(record)
        return redact_line(visible(line) if self._json else line)


def _formatter(*, json: bool, colours: bool) -> "ProcessorFormatter":
    import structlog  # with the first line, so that commands that log nothing start without it

    renderer: Any
    render_exception: Any
    if json:
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        render_exception = structlog.processors.ExceptionRenderer(transformer)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        render_exception = structlog.processors.format_exc_info
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            _arrange,
            render_exception,
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
    """Return the fields, the most important ones first."""
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
    """Escape control characters, with which a file's name could forge lines or control the terminal."""
    kept = {"exception": "\n"}
    return {
        visible(name): visible(value, kept.get(name, "")) if isinstance(value, str) else value
        for name, value in event.items()
    }
