"""Text that others wrote, made safe to print."""

import json
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.keys import IllegalName, check_name, unseen_character, visible

CLEAR = "\x1b[2J"
CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"
BIDIRECTIONAL = "invoice-\u202efdp.exe"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 名", "plain é 名"),
        (CLEAR, "\\x1b[2J"),
        (CLIPBOARD, "\\x1b]52;c;cm0gLXJmIC8=\\x07"),
        ("\x9b31m\x7f", "\\u009b31m\\u007f"),
        (BIDIRECTIONAL, "invoice-\\u202efdp.exe"),
        ("a\u2028b\u00a0c\u200dd", "a\\u2028b\\u00a0c\\u200dd"),
        ("\udcff\U000e0041", "\\udcff\\udb40\\udc41"),
        ("two\nlines", "two\\x0alines"),
    ],
)
def test_what_is_not_seen_as_itself_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_caller_may_keep_its_own_line_ends() -> None:
    assert visible("a\nb\r\x1b", keep="\n") == "a\nb\\x0d\\x1b"


@given(st.text(st.characters(codec=None)))
def test_nothing_slips_through(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    shown.encode()  # nothing is left that UTF-8 has no bytes for


@given(st.dictionaries(st.text(), st.text(st.characters(codec=None))))
def test_a_json_document_stays_the_same_document(document: dict[str, str]) -> None:
    assert json.loads(visible(json.dumps(document, ensure_ascii=False))) == document


@given(st.text(st.characters(codec=None)))
def test_keys_have_no_control_format_or_surrogate_characters(text: str) -> None:
    unseen = any(category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)
    assert (unseen_character(text) is not None) == unseen


@pytest.mark.parametrize("name", [f"a{CLEAR}", "a\x9b", BIDIRECTIONAL, "a\u2029", "\udcff"])
def test_no_object_is_named_so(name: str) -> None:
    with pytest.raises(IllegalName, match=r"U\+"):
        check_name(f"2026/{name}")
