"""The destination beside the ledger."""

from collections.abc import Collection
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.keys import notice_key, token_key
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.records import DeliveredKey, ListedObject
from xmode_transfer.upkeep.listing import Standing, compare, period_of

AT = datetime(2026, 11, 22, tzinfo=UTC)


def there(key: str, size: int = 1, etag: str = '"e"') -> ListedObject:
    return ListedObject(key, size, etag, AT)


def known(key: str, size: int | None = 1, etag: str | None = '"e"') -> DeliveredKey:
    name = "" if etag is None else key
    return DeliveredKey(key, size, etag, "us-daily", "2026-11-22", 1, AT, (1,), name)


def standings(
    left: list[ListedObject], right: list[DeliveredKey], prefix: str = "", roots: Collection[str] = ()
) -> dict[str, Standing]:
    return {item.key: item.standing for item in compare(left, right, prefix, roots)}


def test_the_standing_of_a_key() -> None:
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


def test_a_notice_is_neither_unmanaged_nor_ever_missing() -> None:
    key = notice_key("x/", AT, "us-daily", "2026-11-22", "late")
    left = [there(key), there("x/_notices/readme.txt"), there("y/" + key)]
    assert list(standings(left, [], "x/").values()) == [
        Standing.NOTICE,
        Standing.UNMANAGED,
        Standing.UNMANAGED,
    ]
    assert standings([], []) == {}


def test_a_token_of_an_ownership_challenge_is_not_unmanaged() -> None:
    key = token_key("x/", "5f" * 16)
    left = [there(key), there("x/_xmode-check/ownership/theirs.txt"), there("y/" + key)]
    assert list(standings(left, [], "x/").values()) == [
        Standing.NOTICE,
        Standing.UNMANAGED,
        Standing.UNMANAGED,
    ]


def test_the_log_of_a_table_is_ours_only_where_we_have_a_table() -> None:
    names = [f"{0:020d}.json", f"{100:020d}.checkpoint.parquet", f"{100:020d}.json", "_last_checkpoint"]
    log = [f"x/us-daily/_delta_log/{name}" for name in names]
    theirs = ["x/other/_delta_log/" + names[0], "x/us-daily/_delta_log/.s3-optimization-0"]
    left = [there(key) for key in sorted([*log, *theirs])]
    found = standings(left, [], "x/", ["x/us-daily/"])
    assert found == dict.fromkeys(theirs, Standing.UNMANAGED) | dict.fromkeys(log, Standing.TABLE)
    assert set(standings(left, [], "x/").values()) == {Standing.UNMANAGED}


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


LAYOUTS = {
    feed: Layout.of(template, kind, feed=feed, partition=partition)
    for feed, kind, partition, template in (
        ("us-daily", PeriodKind.DAY, "%Y/%m/%d", None),
        ("weekly", PeriodKind.WEEK, "w=%G-%V", None),
        ("drops", PeriodKind.NONE, None, "{feed}/in/{name}"),
        ("hive", PeriodKind.DAY, "%Y/%m/%d", "{feed}/year={period:%Y}/day={period:%Y%m%d}/{name}"),
        ("flat", PeriodKind.DAY, "%Y/%m/%d", "{feed}/{stem}-{period}{suffix}"),
    )
}


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("xmode/us-daily/2026/11/22/a.csv", ("us-daily", "2026-11-22")),
        ("xmode/us-daily/2026/11/22/_r2/a.csv", ("us-daily", "2026-11-22")),
        ("xmode/us-daily/2026/13/22/a.csv", ("us-daily", None)),
        ("xmode/us-daily/2026/11/readme", ("us-daily", None)),
        ("xmode/us-daily/_manifests/2026-11-22/000002.json", ("us-daily", "2026-11-22")),
        ("xmode/us-daily/_manifests/notes.txt", ("us-daily", None)),
        ("xmode/weekly/w=2026-47/a/b", ("weekly", "2026-W47")),
        ("xmode/drops/anything/at/all", ("drops", "none")),
        ("xmode/hive/year=2026/day=20261122/a.csv", ("hive", "2026-11-22")),
        ("xmode/hive/year=2026/day=20261122/_r2/a.csv", ("hive", "2026-11-22")),
        ("xmode/hive/year=2025/day=20261122/a.csv", ("hive", None)),
        ("xmode/hive/2026/11/22/a.csv", ("hive", "2026-11-22")),
        ("xmode/flat/a-2026-11-22.csv", ("flat", None)),
        ("xmode/us-daily", (None, None)),
        ("xmode/nobody/2026/11/22/a.csv", (None, None)),
        ("xmode/notes.txt", (None, None)),
    ],
)
def test_a_key_tells_its_feed_and_period(key: str, place: tuple[str | None, str | None]) -> None:
    assert period_of(key, "xmode/", LAYOUTS) == place
