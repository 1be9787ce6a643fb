"""The destination beside the ledger."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.keys import notice_key
from xmode_transfer.model.records import DeliveredKey, ListedObject
from xmode_transfer.upkeep.listing import Standing, compare

AT = datetime(2026, 11, 22, tzinfo=UTC)


def there(key: str, size: int = 1, etag: str = '"e"') -> ListedObject:
    return ListedObject(key, size, etag, AT)


def known(key: str, size: int | None = 1, etag: str | None = '"e"') -> DeliveredKey:
    return DeliveredKey(key, size, etag, "us-daily", "2026-11-22", 1, AT)


def standings(left: list[ListedObject], right: list[DeliveredKey], prefix: str = "") -> dict[str, Standing]:
    return {item.key: item.standing for item in compare(left, right, prefix)}


def test_how_a_key_stands() -> None:
    left = [
        there("a"),
        there("b", size=2),
        there("c", etag='"f"'),
        there("d", etag="e"),
        there("e"),
        there("m"),
    ]
    right = [known("a"), known("b"), known("c"), known("d"), known("f"), known("m", None, None)]
    assert standings(left, right) == {
        "a": Standing.OURS,
        "b": Standing.CHANGED,
        "c": Standing.CHANGED,
        "d": Standing.OURS,  # some stores list ETags without quotes
        "e": Standing.UNMANAGED,
        "f": Standing.MISSING,
        "m": Standing.MANIFEST,
    }


def test_a_notice_is_neither_foreign_nor_ever_missing() -> None:
    key = notice_key("x/", AT, "us-daily", "2026-11-22", "late")
    left = [there(key), there("x/_notices/readme.txt"), there("y/" + key)]
    assert list(standings(left, [], "x/").values()) == [
        Standing.NOTICE,
        Standing.UNMANAGED,
        Standing.UNMANAGED,
    ]
    assert standings([], []) == {}


def test_what_was_delivered_below_another_prefix_is_not_called_missing() -> None:
    right = [known("x/a"), known("x/new/b"), known("y/c")]
    assert standings([there("x/new/a")], right, "x/new/") == {
        "x/a": Standing.ELSEWHERE,
        "x/new/a": Standing.UNMANAGED,
        "x/new/b": Standing.MISSING,
        "y/c": Standing.ELSEWHERE,
    }


keys = st.lists(st.text(min_size=1, max_size=3), unique=True).map(sorted)


@given(keys, keys)
def test_every_key_comes_once_and_in_order(left: list[str], right: list[str]) -> None:
    found = standings([there(key) for key in left], [known(key) for key in right])
    assert list(found) == sorted({*left, *right})
    assert {key for key, s in found.items() if s is Standing.UNMANAGED} == set(left) - set(right)
    assert {key for key, s in found.items() if s is Standing.MISSING} == set(right) - set(left)
