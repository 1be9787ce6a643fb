"""The vocabulary is what the code writes, and docs/events.md is what the vocabulary says."""

import ast
import re
from pathlib import Path

import xmode_transfer
from xmode_transfer.telemetry import Event

PACKAGE = Path(xmode_transfer.__file__).parent
PAGE = PACKAGE.parent / "docs" / "events.md"


def named() -> set[Event]:
    """The events that the package names, to write them or to have them written."""
    return {
        Event[node.attr]
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(PACKAGE / "telemetry")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) in ("Event", "telemetry.Event")
        and node.attr in Event.__members__
    }


def test_every_event_of_the_vocabulary_is_used() -> None:
    assert named() == set(Event)


def test_names_are_stable_words_and_meanings_one_line() -> None:
    for event in Event:
        assert re.fullmatch(r"[a-z]+(\.[a-z_]+)?", str(event))
        assert re.fullmatch(r"[a-z][^\n]{1,108}[^.]", event.value)


def test_the_page_lists_the_vocabulary() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(str(event), event.value) for event in Event]
