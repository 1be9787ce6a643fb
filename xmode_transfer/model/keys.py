"""Names: object keys below a destination's prefix, and text that a terminal or a log can show.

A feed's keys are below ``<prefix><feed>/``, as its layout says (``model.layout``). Spark, Athena and Hive
skip names with an underscore, such as those of manifests and notices: a customer can read the whole prefix.
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
    """Return ``1 file``, ``60 files`` or ``1,000,000 deliveries``."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{number:,} {noun}"


def visible(text: str, keep: str = "") -> str:
    """Escape characters that do not show as themselves, except for those in ``keep`` and the space. From
    U+007F on, the escapes are those of JSON, so that a JSON document stays valid."""
    if text.isascii() and text.isprintable():
        return text
    return _NOT_PLAIN.sub(lambda found: _shown(found[0], keep), text)


def _shown(character: str, keep: str) -> str:
    if character.isprintable() or character in keep:
        return character
    if character < "\x7f":
        return f"\\x{ord(character):02x}"
    units = character.encode("utf-16-be", "surrogatepass").hex(" ", 2)
    return "".join(f"\\u{unit}" for unit in units.split())


def unseen_character(text: str) -> str | None:
    """Return the first character that an object key must not have, like ``a format character, U+202E``."""
    if text.isprintable():
        return None
    for character in text:
        kind = category(character)
        if kind in _FORBIDDEN:
            return f"{_KINDS.get(kind, 'a format character')}, U+{ord(character):04X}"
    return None


MAX_KEY_BYTES = 1024  # S3 User Guide, object-keys: UTF-8, prefix included
_TOKEN = re.compile(r"ownership/[0-9a-f]{32}\.txt")
_NOTICE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{6}Z-[a-z0-9][^/]*-(late|paused|corrected|withdrawn)\.json"
)
_REVISION_SEGMENT = re.compile(r"_r[0-9]+")
MANIFESTS = "_manifests"
TOKEN_METADATA = "xmode-delivery"  # sent as x-amz-meta-xmode-delivery on every object of ours


def readable(name: str) -> str:
    """Escape bytes that are not UTF-8, and invisible characters."""
    return visible(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


class IllegalName(ValueError):
    """A source name without a legal key; the message has the reason and the fix."""


def check_name(name: str) -> None:
    """Raise IllegalName unless S3, HTTP clients and our layout keep the name unchanged."""
    unseen = unseen_character(name)
    if unseen is not None:
        raise IllegalName(f"its name has {unseen}; rename the file")
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise IllegalName("its path has an empty, '.' or '..' segment, which HTTP clients fold away")
    if segments[0] == MANIFESTS:
        raise IllegalName(f"{MANIFESTS}/ at the top of a feed is for manifests; rename the directory")
    if any(_REVISION_SEGMENT.fullmatch(segment) for segment in segments[:-1]):
        raise IllegalName("a directory named like _r2 is for corrections; rename the directory")


def manifest_key(prefix: str, feed: str, period: str, revision: int) -> str:
    return f"{prefix}{feed}/{MANIFESTS}/{period}/{revision:06d}.json"


def checks_prefix(prefix: str) -> str:
    return f"{prefix}_xmode-check/"  # no feed has a name with an underscore


def token_key(prefix: str, nonce: str) -> str:
    """Return the key of an ownership challenge's token. ``nonce`` has 32 hexadecimal digits."""
    return f"{checks_prefix(prefix)}ownership/{nonce}.txt"


def is_token(prefix: str, key: str) -> bool:
    below = checks_prefix(prefix)
    return key.startswith(below) and _TOKEN.fullmatch(key, len(below)) is not None


def notices_prefix(prefix: str) -> str:
    return f"{prefix}_notices/"


def notice_key(prefix: str, made_at: datetime, feed: str, period: str, kind: str) -> str:
    """Return a key that sorts by time, so that a reader can continue after the last one."""
    at = made_at.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S-%fZ")
    return f"{notices_prefix(prefix)}{at}-{feed}-{period}-{kind}.json"


def is_notice(prefix: str, key: str) -> bool:
    below = notices_prefix(prefix)
    return key.startswith(below) and _NOTICE.fullmatch(key, len(below)) is not None


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
    """Return the media type by the last suffix: ``x.csv.gz`` is gzip, since no Content-Encoding is sent."""
    return _CONTENT_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")


_Left = TypeVar("_Left")
_Right = TypeVar("_Right")


def merge_join(
    left: Iterable[_Left],
    right: Iterable[_Right],
    key_of_left: Callable[[_Left], str],
    key_of_right: Callable[[_Right], str],
) -> Iterator[tuple[_Left | None, _Right | None]]:
    """Yield both items of each key, or one and None. Each side must ascend by its key."""
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
