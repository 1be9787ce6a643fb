"""Takes secrets out of everything that is logged.

Three nets, each of which catches what slips through another: the names of fields, the shapes of values,
and the exact values that were registered with ``protect`` (our own keys, each session's token). The last
one knows no disguise: a registered secret is found inside any other text, URL-encoded too.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from html import escape
from json import dumps
from math import isfinite
from urllib.parse import quote

MASK = "***"
_SHORTEST = 8
"""Shorter values are not protected: they would be found in the middle of ordinary words."""
_MOST_SECRETS = 40_000
_DEEPEST = 12

_SECRET_FIELDS = re.compile(
    r"secret|passw(or)?d|passphrase|authorization|credential|cookie|private[_-]?key|api[_-]?key"
    r"|(session|security|auth|access|refresh|bearer|id)[_-]?token|^token$|access[_-]?key[_-]?id|signature$",
    re.IGNORECASE,
)
# Names of fields that have such a word in them and hold no secret.
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
# What is a secret whatever stands before it. These match no quote, no backslash and no space, so that they
# can be taken out of a finished line of JSON as well.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?i)(X-Amz-(?:Security-Token|Signature|Credential)(?:=|%3D))[^&\s\"'<>\\,]+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b((?:Signature|Credential)=)[A-Za-z0-9/+=_-]{16,}"), rf"\1{MASK}"),
    (re.compile(r"(?<![0-9A-Z])A[KS]IA[0-9A-Z]{16,}"), MASK),  # IAM User Guide: prefixes of access key IDs
    (
        re.compile(r"(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz|FQoDYXdz)[A-Za-z0-9/+=%]{20,}"),
        MASK,
    ),
)
# One of these is in every text that a pattern can match; looking for them first makes most lines cheap.
_HINTS = (
    "key", "token", "secret", "passw", "passphrase", "pwd", "authorization", "bearer", "basic", "://",
    "signature", "credential", "akia", "asia", "iqojb", "fwogz", "fqogz", "fqody",
)  # fmt: skip


class _Protected:
    """The registered values, found by their first characters: the cost of a look does not grow with their
    number."""

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
                    # The longest first, so that a secret that begins like another is masked whole.
                    self._by_start[start] = tuple(sorted((*known, form), key=len, reverse=True))
            while len(self._forms) > _MOST_SECRETS:
                self._forget(self._forms.popitem(last=False)[0])

    def _forget(self, form: str) -> None:
        start = form[:_SHORTEST]
        left = tuple(known for known in self._by_start[start] if known != form)
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
    """How a value looks in a URL, a JSON document, an XML document and a repr."""
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
    """Registers exact values that are masked from now on wherever they appear. Thread-safe. Values
    shorter than eight characters are too common to look for; the oldest of some ten thousand are
    forgotten."""
    for secret in secrets:
        _protected.add(secret)


def redact_text(text: str) -> str:
    """The text without secrets."""
    text = _protected.mask(text)
    if _may_hold_secret(text):
        for pattern, replacement in (*_PATTERNS, *_SHAPES):
            text = pattern.sub(replacement, text)
    return text


def redact_line(line: str) -> str:
    """The last look at a finished line, which stays valid JSON if it was."""
    line = _protected.mask(line)
    if _may_hold_secret(line):
        for pattern, replacement in _SHAPES:
            line = pattern.sub(replacement, line)
    return line


def _may_hold_secret(text: str) -> bool:
    lowered = text.lower()
    return any(hint in lowered for hint in _HINTS)


def redact(value: object, depth: int = 0) -> object:
    """The value with every secret masked, made of nothing but what JSON knows: what is anything else is
    told by its text, so that nothing is left for a renderer to look into afterwards."""
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
        return {_field_name(name): _redact_field(name, item, depth) for name, item in value.items()}
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
    if isinstance(value, BaseException):
        return redact_text(_text_of_exception(value))
    return redact_text(_text_of(value))


def _redact_field(name: object, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    shown = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    if _SECRET_FIELDS.search(shown) and not _HARMLESS_FIELDS.search(shown):
        return MASK
    return redact(value, depth + 1)


def _field_name(name: object) -> str:
    return redact_text(name) if isinstance(name, str) else str(redact(name))


def _text_of(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - an object that cannot be shown must not end the log
        return f"<{type(value).__name__} that cannot be shown>"


def _text_of_exception(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - see _text_of
        return type(error).__name__
