"""Read manifests as streams: that of a million objects has hundreds of megabytes.

Anyone who may write to a bucket may write something that looks like a manifest, so every value has a bound.
"""

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from heapq import merge
from itertools import zip_longest
from typing import Any, NamedTuple, NoReturn

from xmode_transfer.model import keys
from xmode_transfer.model.keys import MANIFESTS, unseen_character, visible
from xmode_transfer.model.manifest import ALL_LISTS, FORMAT, LISTS, RECALLED, WITHDRAWN, SignedDigest
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.recall import WithdrawnObject
from xmode_transfer.model.records import Checksum, MissingObject, MissingReason, Receipt

MAX_BYTES = 5 * 1024**3  # one PutObject carries no more (S3 User Guide, upload-objects)
_MAX_OBJECT_BYTES = 50 * 1024**4  # S3 User Guide, "Amazon S3 objects overview"
_MAX_TOTAL_BYTES = 10**18  # the ledger's numbers end at 9.2 * 10**18
_MOST_CHARACTERS = 4 * 1024 * 1024  # of one member or entry; no manifest of ours comes near it
_MOST_MEMBERS = 64
_MOST_SPACES = 64 * 1024
_MOST_DIGITS = 18
_SPACES = " \t\n\r"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_YEARS = range(2006, 2201)  # S3 began in 2006
_CHECKSUMS = frozenset({"crc32", "crc32c", "crc64nvme", "sha1", "sha256"})
_BASE64 = re.compile(r"[A-Za-z0-9+/]{4,60}={0,2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MANIFEST = re.compile(rf"([^/]+)/{MANIFESTS}/([^/]+)/([0-9]{{6,9}})\.json")


_NOT_FILES = frozenset({MANIFESTS, "_redshift", "_symlink", "_delta_log"})


class NoManifest(ValueError):
    """The bytes are not a manifest of ours; the message says why."""


class ManifestKey(NamedTuple):
    feed: str
    period: str
    revision: int


def parse_manifest_key(prefix: str, key: str) -> ManifestKey | None:
    """Return None for a key that none of our manifests can have."""
    match = _MANIFEST.fullmatch(key.removeprefix(prefix)) if key.startswith(prefix) else None
    if match is None or period_labelled(match[2]) is None:
        return None
    revision = int(match[3])
    is_ours = revision >= 1 and match[3] == f"{revision:06d}"
    return ManifestKey(match[1], match[2], revision) if is_ours else None


def _shown(value: object) -> str:
    return visible(str(value))[:200]


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise NoManifest(f"a number of it has {len(digits):,} digits")
    return int(digits)


def _not_whole(number: str) -> NoReturn:
    raise NoManifest(f"a number of it is not whole: {_shown(number)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoManifest("it has a member twice")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_not_whole, parse_constant=_not_whole
)


class ManifestReader:
    """A manifest as a stream. Iterate over it once: yields the entries of ``lists``. Afterwards ``members``
    has all members that are not lists, and ``counts`` the length of each list. Raises NoManifest."""

    def __init__(self, chunks: Iterable[bytes], lists: Collection[str] = ("objects",)) -> None:
        self.members: dict[str, Any] = {}
        self.counts = dict.fromkeys(ALL_LISTS, 0)
        self._lists = lists
        self._text = _Text(chunks)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        text = self._text
        text.next_of("{")
        seen: set[str] = set()
        while True:
            name = text.value()
            text.next_of(":")
            if not isinstance(name, str) or name in self.members or name in seen:
                raise NoManifest(f"the name of a member is missing, or comes twice: {_shown(name)}")
            if name in ALL_LISTS:
                seen.add(name)
                for entry in self._entries():
                    self.counts[name] += 1
                    if name in self._lists:
                        yield entry
            elif len(self.members) == _MOST_MEMBERS:
                raise NoManifest(f"it has more than {_MOST_MEMBERS} members")
            else:
                self.members[name] = text.value()
            if text.next_of(",}") == "}":
                break
        if text.peek():
            raise NoManifest("something follows after its end")
        if self.members.get("format") != FORMAT:
            raise NoManifest(f"its format is {_shown(self.members.get('format'))} and not {FORMAT}")
        if not seen.issuperset(LISTS):
            raise NoManifest("it has no list of objects, or none of what is missing")

    def _entries(self) -> Iterator[dict[str, Any]]:
        text = self._text
        text.next_of("[")
        if text.peek() == "]":
            text.next_of("]")
            return
        while True:
            entry = text.value()
            if not isinstance(entry, dict):
                raise NoManifest("an entry of its list is no object")
            yield entry
            if text.next_of(",]") == "]":
                return


def receipt_of(entry: Mapping[str, Any]) -> Receipt:
    """Return the receipt of an object's entry, without an ETag. Raises NoManifest."""
    name, key, size, checksum = _object_of(entry)
    sha256, delivered_at = entry.get("sha256", ""), _time_of(entry.get("delivered_at"))
    sound = sha256 is None or (isinstance(sha256, str) and _SHA256.fullmatch(sha256))
    if not sound or delivered_at is None:
        raise NoManifest(f"an entry of its list is not as we write it: {_shown(key)}")
    return Receipt(name, key, size, checksum, "", delivered_at, sha256=sha256)


def missing_of(entry: Mapping[str, Any]) -> MissingObject:
    """Return the object of an entry of what is missing. Raises NoManifest."""
    name, key, size, checksum = _object_of(entry)
    try:
        return MissingObject(name, key, size, checksum, MissingReason(str(entry.get("reason"))))
    except ValueError:
        raise NoManifest(f"an entry of what is missing is not as we write it: {_shown(key)}") from None


def withdrawn_of(entry: Mapping[str, Any]) -> WithdrawnObject:
    """Return the object of an entry of what is withdrawn. Raises NoManifest."""
    name, key, size, checksum = _object_of(entry)
    at = _time_of(entry.get("at"))
    if at is None or entry.get("reason") != RECALLED:
        raise NoManifest(f"an entry of what is withdrawn is not as we write it: {_shown(key)}")
    return WithdrawnObject(name, key, size, checksum, at)


def _object_of(entry: Mapping[str, Any]) -> tuple[str, str, int, Checksum]:
    try:
        checksum = entry["checksum"]
        name, key, size = entry["source"], entry["key"], entry["size"]
        algorithm, value = checksum["algorithm"], checksum["value"]
    except (KeyError, TypeError) as error:
        raise NoManifest(f"an entry of its list is not as we write it: {_shown(error)}") from None
    for what, text in (("source", name), ("key", key)):
        if not isinstance(text, str) or not text or len(text) > keys.MAX_KEY_BYTES:
            raise NoManifest(f"an entry of its list is not as we write it: {what} {_shown(text)}")
        unseen = unseen_character(text)
        if unseen is not None:
            raise NoManifest(f"a {what} of it has {unseen}: {_shown(text)}")
    sound = (
        type(size) is int
        and 0 <= size <= _MAX_OBJECT_BYTES
        and len(key.encode()) <= keys.MAX_KEY_BYTES
        and isinstance(algorithm, str)
        and algorithm in _CHECKSUMS
        and isinstance(value, str)
        and _BASE64.fullmatch(value)
    )
    if not sound:
        raise NoManifest(f"an entry of its list is not as we write it: {_shown(key)}")
    return name, key, size, Checksum(algorithm, value)


def _time_of(text: object) -> datetime | None:
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return None
    with suppress(ValueError):
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.year in _YEARS else None
    return None


Read = Callable[[], Iterable[bytes]]  # from the beginning, on each call


class Checked(NamedTuple):
    """The totals of a manifest, and its members that are not lists."""

    objects: int
    bytes: int
    missing: int
    members: dict[str, Any]
    withdrawn: int = 0


def check(read: Read, *, identity: str, location: ManifestKey, prefix: str) -> Checked:
    """Compares a whole manifest with its key and the delivery's ID (``identity``). Raises NoManifest."""
    reader = ManifestReader(read())
    below = f"{prefix}{location.feed}/"
    count = total = 0
    last = ""
    seen: set[int] = set()
    for entry in reader:
        name, key, size = receipt_of(entry)[:3]
        if not key.startswith(below):
            raise NoManifest(f"it lists {key}, which is not below {below}")
        try:
            keys.check_name(name)
        except keys.IllegalName as error:
            raise NoManifest(f"it lists {name}: {error}") from None
        segments = key.removeprefix(below).split("/")
        if segments[0] in _NOT_FILES or any(segment in ("", ".", "..") for segment in segments):
            raise NoManifest(f"it lists {key} as the object of {name}, which no layout gives it")
        if hash(key) in seen:
            raise NoManifest(f"it lists the key {key} twice")
        seen.add(hash(key))
        if count and name <= last:
            raise NoManifest(f"it lists {name} out of order or twice")
        last, count, total = name, count + 1, total + size
        if total > _MAX_TOTAL_BYTES:
            raise NoManifest("its objects have more bytes together than there can be")
    members = reader.members
    expected = {**location._asdict(), "delivery": identity}
    named = {name: members.get(name) for name in expected}
    if named != expected or type(named["revision"]) is not int:
        raise NoManifest("it names another delivery than its key does")
    if members.get("prefix") != prefix:
        raise NoManifest(f"its prefix is {_shown(members.get('prefix'))} and not {prefix}")
    if (members.get("count"), members.get("bytes")) != (count, total):
        raise NoManifest(f"it says {_shown(members.get('count'))} objects and lists {count}")
    missing = reader.counts["missing"]
    if missing:
        listed = (str(entry["source"]) for entry in ManifestReader(read()))
        left_out = (missing_of(entry).name for entry in ManifestReader(read(), ("missing",)))
        last = ""
        for name in merge(listed, left_out):
            if name <= last:
                raise NoManifest(f"it says that {name} is missing, out of order or twice")
            last = name
    _check_replaced(members.get("replaces"), location)
    before = ("", "")
    for item in map(withdrawn_of, ManifestReader(read(), (WITHDRAWN,)) if reader.counts[WITHDRAWN] else ()):
        if item[:2] <= before:
            raise NoManifest(f"it says that {item.name} is withdrawn, out of order or twice")
        before = item[:2]
    return Checked(count, total, missing, members, reader.counts[WITHDRAWN])


def _check_replaced(replaces: object, location: ManifestKey) -> None:
    if replaces is None:
        return
    numbers = replaces if isinstance(replaces, list) and location.period == PeriodKind.NONE else [0]
    whole = all(type(number) is int and 0 < number < location.revision for number in numbers)
    if not numbers or not whole or numbers != sorted(set(numbers)):
        raise NoManifest(f"it cannot replace {_shown(replaces)}")


def signed_statement(read: Read, checked: Checked, bucket: str) -> bytes:
    """Return what our signature must cover. Raises NoManifest."""
    try:
        digest = SignedDigest(checked.members, bucket)
        withdrawn = [(WITHDRAWN, checked.withdrawn)] if checked.withdrawn else []
        for name, length in (("missing", checked.missing), ("objects", checked.objects), *withdrawn):
            digest.begin(name)
            for entry in ManifestReader(read(), (name,)) if length else ():
                digest.add(entry)
        return digest.statement()
    except UnicodeEncodeError:
        raise NoManifest("it has a surrogate, which is no character") from None


_ESSENCE = ("delivery", "feed", "period", "revision", "count", "bytes", "replaces")


def same_objects(one: Iterable[bytes], other: Iterable[bytes]) -> bool:
    """Return whether two manifests list the same, regardless of its times. Raises NoManifest."""
    left, right = ManifestReader(one, ALL_LISTS), ManifestReader(other, ALL_LISTS)
    for mine, theirs in zip_longest(left, right, fillvalue=None):
        if mine is None or theirs is None or _essence(mine) != _essence(theirs):
            return False
    return all(left.members.get(name) == right.members.get(name) for name in _ESSENCE)


def _essence(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "delivered_at"}


class _Text:
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._received = 0

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise NoManifest(f"it is no JSON, or ends too early: {error.msg}") from None
                continue
            except RecursionError:
                raise NoManifest("its values are nested too deep") from None
            if end == len(self._buffer) and self._more():
                continue  # a number may go on
            self._at = end
            return found

    def peek(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        spaces = 0
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACES:
                self._at += 1
                spaces += 1
            if spaces > _MOST_SPACES:
                raise NoManifest("it has white space without end")
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def next_of(self, choices: str) -> str:
        found = self.peek()
        if not found or found not in choices:
            early = "" if found else "it ends too early: "
            raise NoManifest(f"{early}{' or '.join(choices)} is missing")
        self._at += 1
        return found

    def _more(self) -> bool:
        if self._ended:
            return False
        if len(self._buffer) - self._at > _MOST_CHARACTERS:
            raise NoManifest(f"one of its values has more than {_MOST_CHARACTERS} characters")
        chunk = next(self._chunks, None)
        self._received += len(chunk or b"")
        if self._received > MAX_BYTES:
            raise NoManifest(f"it has more than {MAX_BYTES:,} bytes")
        try:
            text = self._decoder.decode(chunk or b"", final=chunk is None)
        except UnicodeDecodeError:
            raise NoManifest("it is not UTF-8") from None
        self._ended = chunk is None
        self._buffer = self._buffer[self._at :] + text
        self._at = 0
        return bool(text) or not self._ended
