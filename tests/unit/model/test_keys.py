"""Object keys, text that is safe to print, and the merge join."""

import json
from datetime import UTC, datetime
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.keys import (
    IllegalName,
    check_name,
    content_type,
    is_notice,
    manifest_key,
    merge_join,
    notice_key,
    unseen_character,
    visible,
)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("../a", "'..'"),
        ("a/./b", "'.'"),
        ("a//b", "empty"),
        ("/a", "empty"),
        ("a/", "empty"),
        ("_manifests/a", "manifests"),
        ("2026/_r2/a", "corrections"),
        ("a\udcff", "UTF-8"),
    ],
)
def test_a_name_that_cannot_be_carried_is_refused_with_the_reason(name: str, word: str) -> None:
    with pytest.raises(IllegalName, match=word):
        check_name(name)


def test_manifests_sort_by_period_and_revision() -> None:
    keys = [manifest_key("", "f", p, r) for p in ("2026-11-09", "2026-11-10") for r in (1, 2, 10)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", "application/vnd.apache.parquet"),
        ("a.csv.GZ", "application/gzip"),
        ("a", "application/octet-stream"),
    ],
)
def test_the_content_type_goes_by_the_name(name: str, kind: str) -> None:
    assert content_type(name) == kind


moments = st.datetimes(timezones=st.just(UTC)).filter(lambda at: at.year >= 1000)


@given(moments, moments, st.sampled_from(["late", "paused", "corrected"]))
def test_notices_sort_by_time(one: datetime, other: datetime, kind: str) -> None:
    keys = [notice_key("x/", at, "us-daily", "2026-11-22", kind) for at in (one, other)]
    assert all(is_notice("x/", key) and not is_notice("", key) for key in keys)
    assert one == other or (keys[0] < keys[1]) is (one < other)


@pytest.mark.parametrize("key", ["x/_notices/", "x/_notices/readme", "x/us-daily/_notices/a.json"])
def test_what_is_no_notice(key: str) -> None:
    assert not is_notice("x/", key)


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


sides = st.sets(st.text("abc", max_size=3))


@given(sides, sides)
def test_every_key_comes_once_in_order_with_what_each_side_has(left: set[str], right: set[str]) -> None:
    found = list(merge_join(sorted(left), sorted(right), str, str))
    assert found == [
        (key if key in left else None, key if key in right else None) for key in sorted(left | right)
    ]
