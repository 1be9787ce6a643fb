"""From a source file to its object key, and nowhere outside the destination's prefix.

``<prefix><feed>/<name>`` for a file's first revision. A correction must not overwrite, so a changed file's
object gets a segment of its own below the period: ``<prefix><feed>/<partition>/_r2/<rest>``. Manifests lie
in ``<prefix><feed>/_manifests/<period>/<revision>.json``, notices in ``<prefix>_notices/``. Names that begin
with an underscore are what readers such as Spark, Athena and Hive leave out, so none of these disturbs a
customer who reads the whole prefix.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeVar
from unicodedata import category

_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KINDS = {"Cc": "a control character", "Cs": "a surrogate (bytes that are not UTF-8)"}


def count(number: int, noun: str) -> str:
    """``1 file``, ``60 files``, ``1,000,000 deliveries``."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{number:,} {noun}"


def visible(text: str, keep: str = "") -> str:
    """The text with an escape for each character that is not seen as itself: control, format (bidirectional
    overrides, zero-width joiners), surrogate, unassigned and private characters, and white space other than
    the plain space. Characters in ``keep`` stand as they are.

    Below U+007F the escape is ``\\x1b``, above it ``\\u202e`` or a pair for what lies beyond U+FFFF: the form
    that JSON has too, so a JSON document stays one.
    """
    if text.isascii() and text.isprintable():
        return text
    return _NOT_PLAIN.sub(lambda found: _shown(found[0], keep), text)


def _shown(character: str, keep: str) -> str:
    if character.isprintable() or character in keep:
        return character
    number = ord(character)
    if number < 0x7F:
        return f"\\x{number:02x}"
    if number <= 0xFFFF:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def unseen_character(text: str) -> str | None:
    """What keeps the text from being (a part of) an object key: ``the format character U+202E``. None for a
    text without control, format, surrogate or line-separating characters."""
    if text.isprintable():
        return None
    for character in text:
        kind = category(character)
        if kind in _FORBIDDEN:
            return f"{_KINDS.get(kind, 'a format character')}, U+{ord(character):04X}"
    return None


MAX_KEY_BYTES = 1024  # S3 User Guide, object-keys: UTF-8, prefix included
_NOTICE = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{6}Z-[a-z0-9][^/]*-(late|paused|corrected)\.json")
_REVISION_SEGMENT = re.compile(r"_r[0-9]+")
MANIFESTS = "_manifests"
CHECKS = "_xmode-check"  # no feed's name begins with an underscore, so no delivery can lie here
NOTICES = "_notices"  # the same is true here
TOKEN_METADATA = "xmode-delivery"  # sent as x-amz-meta-xmode-delivery on every object of ours


def readable(name: str) -> str:
    """A name as a terminal and a log can show it, with escapes for what is no UTF-8 and for what is not
    seen."""
    return visible(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


class IllegalName(ValueError):
    """A source name that makes no legal key; the message says why and what to do."""


def check_name(name: str) -> None:
    """Refuses a name that S3, HTTP clients or our own layout could not carry unchanged. Raises
    IllegalName."""
    unseen = unseen_character(name)
    if unseen is not None:
        raise IllegalName(f"its name has {unseen}; rename the file")
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise IllegalName("its path has an empty, '.' or '..' segment, which HTTP clients fold away")
    if segments[0] == MANIFESTS:
        raise IllegalName(f"{MANIFESTS}/ at the top of a feed is where manifests lie; rename the directory")
    if any(_REVISION_SEGMENT.fullmatch(segment) for segment in segments[:-1]):
        raise IllegalName("a directory named like _r2 is where corrections lie; rename the directory")


def object_key(prefix: str, feed: str, name: str, *, partition: str = "", revision: int = 1) -> str:
    """The key for ``name`` (relative to the feed's root). ``revision`` above 1 gives the key of a correction,
    below ``partition`` (the period's directory; empty for a drop folder). Raises IllegalName."""
    check_name(name)
    if revision > 1:
        head = f"{partition}/" if partition else ""
        rest = name.removeprefix(head)
        name = f"{head}_r{revision}/{rest}"
    key = f"{prefix}{feed}/{name}"
    length = len(key.encode())
    if length > MAX_KEY_BYTES:
        raise IllegalName(f"its key would have {length} bytes, S3 allows {MAX_KEY_BYTES}; shorten the path")
    return key


def is_key_of(rest: str, name: str) -> bool:
    """Whether a key, without prefix and feed, is one that ``object_key`` gives to the file ``name``."""
    if rest == name:
        return True
    segments = rest.split("/")
    return any(
        _REVISION_SEGMENT.fullmatch(segment) and "/".join(segments[:at] + segments[at + 1 :]) == name
        for at, segment in enumerate(segments[:-1])
    )


def manifest_key(prefix: str, feed: str, period: str, revision: int) -> str:
    """Where the manifest of that revision lies. Keys sort by period, then by revision."""
    return f"{prefix}{feed}/{MANIFESTS}/{period}/{revision:06d}.json"


def check_place(prefix: str) -> str:
    """The prefix below which a check of access tries the customer's rights; nothing else lies there."""
    return f"{prefix}{CHECKS}/"


def notices_place(prefix: str) -> str:
    """The prefix below which notices for the customer lie; nothing else does."""
    return f"{prefix}{NOTICES}/"


def notice_key(prefix: str, made_at: datetime, feed: str, period: str, kind: str) -> str:
    """Where a notice lies. Keys sort by time, to the microsecond, so a reader goes on from the last one."""
    at = made_at.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S-%fZ")
    return f"{notices_place(prefix)}{at}-{feed}-{period}-{kind}.json"


def is_notice(prefix: str, key: str) -> bool:
    """Whether the key is one that ``notice_key`` makes."""
    place = notices_place(prefix)
    return key.startswith(place) and _NOTICE.fullmatch(key, len(place)) is not None


_CONTENT_TYPES = {
    "avro": "application/avro",
    "bz2": "application/x-bzip2",
    "csv": "text/csv",
    "geojson": "application/geo+json",
    "gz": "application/gzip",
    "html": "text/html",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "md": "text/markdown",
    "ndjson": "application/x-ndjson",
    "orc": "application/x-orc",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "tar": "application/x-tar",
    "tgz": "application/gzip",
    "tsv": "text/tab-separated-values",
    "txt": "text/plain",
    "xml": "application/xml",
    "xz": "application/x-xz",
    "zip": "application/zip",
    "zst": "application/zstd",
}


def content_type(name: str) -> str:
    """The media type by the name's last suffix: ``x.csv.gz`` is gzip, since no Content-Encoding is sent and
    readers must get the file's bytes as they are."""
    return _CONTENT_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")


_Left = TypeVar("_Left")
_Right = TypeVar("_Right")


def merge_join(
    left: Iterable[_Left],
    right: Iterable[_Right],
    key_of_left: Callable[[_Left], str],
    key_of_right: Callable[[_Right], str],
) -> Iterator[tuple[_Left | None, _Right | None]]:
    """Yields both items of each key, or one and None. Each side must ascend by its key."""
    lefts, rights = iter(left), iter(right)
    one, other = next(lefts, None), next(rights, None)
    while one is not None and other is not None:
        first, second = key_of_left(one), key_of_right(other)
        if first < second:
            yield one, None
            one = next(lefts, None)
        elif second < first:
            yield None, other
            other = next(rights, None)
        else:
            yield one, other
            one, other = next(lefts, None), next(rights, None)
    while one is not None:
        yield one, None
        one = next(lefts, None)
    while other is not None:
        yield None, other
        other = next(rights, None)
