"""The vocabulary is what the code writes, and docs/events.md is what the vocabulary says."""

import ast
import re
from pathlib import Path

import xmode_transfer
from xmode_transfer.telemetry import Event

PACKAGE = Path(xmode_transfer.__file__).parent
PAGE = PACKAGE.parent / "docs" / "events.md"
WRITERS = {"debug", "log", "warn", "error", "exception"}


def written() -> set[str]:
    """The event of every call of ``telemetry.log`` and its siblings in the package."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "telemetry"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in WRITERS
                and ast.unparse(node.func.value) == "telemetry"
            ):
                found |= {
                    leaf.value if isinstance(leaf, ast.Constant) else Event[leaf.attr].value
                    for leaf in ast.walk(node.args[0])
                    if (isinstance(leaf, ast.Constant) and isinstance(leaf.value, str))
                    or (isinstance(leaf, ast.Attribute) and leaf.attr in Event.__members__)
                }
    return found


def test_every_event_that_is_written_is_in_the_vocabulary_and_the_other_way_round() -> None:
    assert written() == {event.value for event in Event}


def test_names_are_stable_words_and_meanings_one_line() -> None:
    for event in Event:
        assert re.fullmatch(r"[a-z]+(\.[a-z_]+)?", event.value)
        assert event.meaning.isprintable()
        assert event.meaning[0].islower()
        assert not event.meaning.endswith(".")
        assert len(event.meaning) < 110


def test_the_page_lists_the_vocabulary() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(event.value, event.meaning) for event in Event]
