"""Text that others wrote, made safe to print: control, format and other unseen characters become escapes.

A file's name, an object's key or an answer of S3 may hold what clears a terminal, sets its title, fills its
clipboard or turns the direction of the text around. One function shows such characters as escapes; whatever
prints for people (terminal, log, page) calls it once, at its end. Keys must not hold them at all, so the same
module says which ones a key may not have.
"""

import re
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
