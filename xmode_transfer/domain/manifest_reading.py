"""Reading a manifest as it comes: one of a million objects has hundreds of megabytes."""

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from xmode_transfer.domain.manifest import FORMAT
from xmode_transfer.domain.records import Checksum, MissingObject, MissingReason, Receipt

_MOST_CHARACTERS = 4 * 1024 * 1024
"""Of one member or one object's entry; no manifest of ours comes near it."""
_SPACES = " \t\n\r"
_LISTS = ("objects", "missing")
"""Members that may be long: they are not kept."""
_DECODER = json.JSONDecoder()


class NoManifest(ValueError):
    """These bytes are no manifest of the format that we know; the message says why."""


class ManifestReader:
    """Iterate over it once: the entries of its objects (or of ``which`` of its lists), in the order in which
    they stand. After the last, ``members`` has all the others. Raises NoManifest."""

    def __init__(self, chunks: Iterable[bytes], which: str = "objects") -> None:
        self.members: dict[str, Any] = {}
        self._which = which
        self._text = _Text(chunks)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        text = self._text
        text.expect("{")
        seen_objects = False
        while True:
            name = text.value()
            text.expect(":")
            if name in _LISTS:
                seen_objects = seen_objects or name == "objects"
                yield from (entry for entry in self._entries() if name == self._which)
            else:
                self.members[str(name)] = text.value()
            if text.next_of(",}") == "}":
                break
        text.expect_end()
        if self.members.get("format") != FORMAT:
            raise NoManifest(f"its format is {self.members.get('format')!r} and not {FORMAT}")
        if not seen_objects:
            raise NoManifest("it has no list of objects")

    def _entries(self) -> Iterator[dict[str, Any]]:
        text = self._text
        text.expect("[")
        if text.peek() == "]":
            text.expect("]")
            return
        while True:
            entry = text.value()
            if not isinstance(entry, dict):
                raise NoManifest("an entry of its list is no object")
            yield entry
            if text.next_of(",]") == "]":
                return


def receipt_of(entry: Mapping[str, Any]) -> Receipt:
    """What a manifest says of an object, the opposite of ``manifest.entry``; without an ETag, which it does
    not know. Raises NoManifest."""
    try:
        checksum = entry["checksum"]
        texts = (entry["source"], entry["key"], checksum["algorithm"], checksum["value"])
        size = entry["size"]
        delivered_at = datetime.fromisoformat(entry["delivered_at"])
        sha256 = entry["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise NoManifest(f"an entry of its list is not as we write it: {error}") from None
    strings = all(isinstance(text, str) and text for text in texts)
    sound = isinstance(size, int) and size >= 0 and (sha256 is None or isinstance(sha256, str))
    if not strings or not sound or delivered_at.tzinfo is None:
        raise NoManifest(f"an entry of its list is not as we write it: {entry['key']!r}")
    name, key, algorithm, value = texts
    return Receipt(name, key, size, Checksum(algorithm, value), "", delivered_at, sha256=sha256)


def missing_of(entry: Mapping[str, Any]) -> MissingObject:
    """What a manifest says of an object that is not in its list, the opposite of ``manifest.missing_entry``.
    Raises NoManifest."""
    try:
        checksum = entry["checksum"]
        texts = (entry["source"], entry["key"], checksum["algorithm"], checksum["value"])
        size = entry["size"]
        reason = MissingReason(entry["reason"])
    except (KeyError, TypeError, ValueError) as error:
        raise NoManifest(f"an entry of what is missing is not as we write it: {error}") from None
    strings = all(isinstance(text, str) and text for text in texts)
    if not strings or type(size) is not int or size < 0:
        raise NoManifest(f"an entry of what is missing is not as we write it: {entry['key']!r}")
    name, key, algorithm, value = texts
    return MissingObject(name, key, size, Checksum(algorithm, value), reason)


class _Text:
    """The characters that have come and are not taken yet."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._at = 0
        self._ended = False

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise NoManifest(f"it is no JSON, or ends too early: {error.msg}") from None
                continue
            if end == len(self._buffer) and self._more():
                continue  # a number may go on
            self._at = end
            return found

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACES:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def next_of(self, choices: str) -> str:
        found = self.peek()
        if not found or found not in choices:
            wanted = " or ".join(choices)
            raise NoManifest(
                f"it ends too early: {wanted} is missing" if not found else f"{wanted} is missing"
            )
        self._at += 1
        return found

    def expect(self, character: str) -> None:
        self.next_of(character)

    def expect_end(self) -> None:
        if self.peek():
            raise NoManifest("something follows after its end")

    def _more(self) -> bool:
        if self._ended:
            return False
        if len(self._buffer) - self._at > _MOST_CHARACTERS:
            raise NoManifest(f"one of its values has more than {_MOST_CHARACTERS} characters")
        chunk = next(self._chunks, None)
        try:
            text = self._decoder.decode(chunk or b"", final=chunk is None)
        except UnicodeDecodeError:
            raise NoManifest("it is not UTF-8") from None
        self._ended = chunk is None
        self._buffer = self._buffer[self._at :] + text
        self._at = 0
        return bool(text) or not self._ended
