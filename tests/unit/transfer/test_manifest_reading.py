"""Reading manifests back: streamed, checked, and never trusted."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model import manifest
from xmode_transfer.model.keys import manifest_key
from xmode_transfer.model.records import (
    Checksum,
    Delivery,
    MissingObject,
    MissingReason,
    Receipt,
    Status,
)
from xmode_transfer.model.upkeep import (
    manifest_differences,
)
from xmode_transfer.transfer.manifest_reading import (
    Checked,
    ManifestKey,
    ManifestReader,
    NoManifest,
    check,
    parse_manifest_key,
    receipt_of,
    same_objects,
)

AT = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
CRC = Checksum("crc32", "AAAAAA==")

names = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=8)
receipts = st.lists(
    st.builds(
        lambda name, size, sha256: Receipt(name, f"x/{name}", size, CRC, '"e"', AT, sha256=sha256),
        names,
        st.integers(0, 10**13),
        st.none() | st.just("ab" * 32),
    ),
    unique_by=lambda receipt: receipt.name,
    max_size=8,
).map(lambda items: sorted(items, key=lambda receipt: receipt.name))


def written(items: list[Receipt]) -> bytes:
    delivery = Delivery(
        "d" * 32, "acme", "us-daily", "2026-11-22", 3, Status.RUNNING, AT, AT,
        object_count=len(items), total_bytes=sum(item.size for item in items),
    )  # fmt: skip
    return b"".join(manifest.chunks(delivery, items, prefix="x/"))


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@given(receipts, st.integers(1, 64))
def test_a_manifest_is_read_however_it_comes(items: list[Receipt], size: int) -> None:
    reader = ManifestReader(cut(written(items), size))
    assert [receipt_of(entry) for entry in reader] == [item._replace(etag="") for item in items]
    assert (reader.members["count"], reader.members["revision"]) == (len(items), 3)
    assert list(manifest_differences(ManifestReader(cut(written(items), size)), items)) == []


@given(receipts, st.data())
def test_a_manifest_that_is_cut_off_is_none(items: list[Receipt], data: Any) -> None:
    whole = written(items)
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(NoManifest):
        list(ManifestReader([whole[:length]]))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":"xmode-manifest/1"}',
        b'{"format":"xmode-manifest/1","objects":[]}',
        b'{"format":"xmode-manifest/1","missing":[]}',
        b'{"format":"xmode-manifest/1","missing":[],"objects":[],"missing":[]}',
        b'{"format":"xmode-manifest/2","objects":[]}',
        b'{"format":"xmode-manifest/1","objects":[1]}',
        b'{"format":"xmode-manifest/1","objects":{}}',
        b'{"format":"xmode-manifest/1","objects":[]} more',
        b'{"format":"xmode-manifest/1","objects":[{}',
        b'\xff{"format":"xmode-manifest/1","objects":[]}',
    ],
)
def test_what_is_no_manifest_is_told(text: bytes) -> None:
    with pytest.raises(NoManifest):
        list(ManifestReader([text]))


def test_a_manifest_may_have_white_space_and_no_objects() -> None:
    reader = ManifestReader([b' { "objects" : [ ] ,"missing":[],\n "format" : "xmode-manifest/1" } \n'])
    assert list(reader) == []


def test_one_value_of_a_manifest_cannot_fill_the_memory() -> None:
    endless = (b'{"objects":["' if number == 0 else b"x" * 1_000_000 for number in range(50))
    with pytest.raises(NoManifest, match="more than"):
        list(ManifestReader(endless))


GOOD = manifest.entry(Receipt("a", "x/a", 1, CRC, "", AT))


@pytest.mark.parametrize(
    "change",
    [
        {"key": None},
        {"key": ""},
        {"size": "1"},
        {"size": -1},
        {"checksum": "crc32"},
        {"checksum": {"algorithm": "crc32"}},
        {"delivered_at": "2026-11-22"},
        {"delivered_at": 1},
        {"delivered_at": "2026-11-22T06:30:00.000000+23:59"},
        {"delivered_at": "0001-01-01T00:00:00.000000Z"},
        {"delivered_at": "9999-12-31T23:59:59.999999Z"},
        {"delivered_at": "2026-13-22T06:30:00.000000Z"},
        {"sha256": 1},
        {"sha256": "AB" * 32},
        {"source": 3},
        {"size": True},
        {"size": 51 * 1024**4},
        {"size": 10**17},
        {"checksum": {"algorithm": "md5", "value": "AAAA"}},
        {"checksum": {"algorithm": "crc32", "value": "A" * 1000}},
        {"checksum": {"algorithm": ["crc32"], "value": "AAAA"}},
        {"key": "x/" + "a" * 1023},
        {"key": "x/" + "é" * 600},
    ],
)
def test_an_entry_that_we_never_wrote_is_refused(change: dict[str, Any]) -> None:
    assert receipt_of(GOOD).key == "x/a"
    with pytest.raises(NoManifest, match="not as we write it"):
        receipt_of({**GOOD, **change})


@pytest.mark.parametrize("text", ["a\x1b[2J", "a\x9b", "a\u202eb", "a\ud800", "a\u2028"])
@pytest.mark.parametrize("member", ["key", "source"])
def test_a_name_that_nobody_can_see_is_refused_and_shown(member: str, text: str) -> None:
    with pytest.raises(NoManifest, match=r"U\+") as caught:
        receipt_of({**GOOD, member: text})
    assert str(caught.value).isprintable()


PLACE = ManifestKey("us-daily", "2026-11-22", 2)
LISTED = [
    Receipt("2026/11/22/a.csv", "x/us-daily/2026/11/22/_r2/a.csv", 10, CRC, "", AT),
    Receipt("2026/11/22/b é.csv", "x/us-daily/2026/11/22/b é.csv", 20, CRC, "", AT, sha256="ab" * 32),
]


def whole(receipts: list[Receipt] = LISTED, prefix: str = "x/", gone: Sequence[MissingObject] = ()) -> bytes:
    delivery = Delivery(
        "d" * 32, "acme", *PLACE, Status.RUNNING, AT, AT,
        object_count=len(receipts), total_bytes=sum(receipt.size for receipt in receipts),
    )  # fmt: skip
    return b"".join(manifest.chunks(delivery, receipts, gone, prefix=prefix))


def checked(data: bytes) -> Checked:
    return check(lambda: [data], identity="d" * 32, location=PLACE, prefix="x/")


def test_our_own_manifest_is_taken() -> None:
    assert checked(whole())[:2] == (2, 30)
    assert checked(whole([]))[:2] == (0, 0)
    by_layouts = [
        LISTED[0]._replace(key="x/us-daily/dt=2026-11-22/z.csv"),
        LISTED[1]._replace(key="x/us-daily/dt=2026-11-22/_r2/a.csv"),
    ]
    assert checked(whole(by_layouts))[:2] == (2, 30)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 6_000,
        whole().replace(b'"size":10', b'"size":1' + b"0" * 30),
        whole().replace(b'"size":10', b'"size":' + b"1" * 6_000),
        whole().replace(b'"size":10', b'"size":1e1'),
        whole().replace(b'"size":10', b'"size":NaN'),
        whole().replace(b'"size":10', b'"size":9,"size":10'),
        whole().replace(b'"count":2', b'"count":true'),
        whole().replace(b'"bytes":30', b'"bytes":31'),
        whole().replace(b'"revision":2', b'"revision":true'),
        whole().replace(b'"revision":2', b'"revision":2,"revision":2'),
        whole().replace(b'"format"', b'"count":2,"format"'),
        whole().replace(b'"prefix":"x/"', b'"prefix":"y/"'),
        whole().replace(b"06:30:00.000000Z", b"06:30:00.000000+23:59"),
        whole().replace(b"2026/11/22/a.csv", b"2026/11/22/\\ud800.csv"),
        whole().replace(b"2026/11/22/a.csv", b"2026/11/22/../a.csv"),
        whole().replace(b"x/us-daily/2026/11/22/_r2", b"x/us-daily/_manifests/2026-11-22"),
        whole().replace(b"x/us-daily/2026/11/22/_r2", b"other/us-daily/2026/11/22"),
        whole([LISTED[1], LISTED[0]]),
        whole([LISTED[0], LISTED[0]]),
        whole([LISTED[0], LISTED[1]._replace(key=LISTED[0].key)]),
        whole([LISTED[0]._replace(key="x/us-daily/_delta_log/a.csv")]),
        whole([LISTED[0]._replace(key="x/us-daily/2026//a.csv")]),
        whole() + b" " * 100_000,
        b" " * 100_000 + whole(),
        whole().replace(b'"objects"', b",".join(b'"%d":1' % number for number in range(100)) + b',"objects"'),
        whole().replace(b'"format"', b'1:2,"format"'),
        b"\xed\xa0\x80" + whole(),
        b"",
    ],
)
def test_a_hostile_manifest_is_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(NoManifest) as caught:
        checked(data)
    assert 0 < len(str(caught.value)) < 2_000
    assert str(caught.value).isprintable()


def with_missing(listed: str, missing: str) -> Checked:
    receipts = [LISTED[1]._replace(name=f"{name}.csv", key=f"x/us-daily/{name}.csv") for name in listed]
    gone = [
        MissingObject(f"{name}.csv", f"was/{name}.csv", 1, CRC, MissingReason.DELETED) for name in missing
    ]
    return checked(whole(receipts, gone=gone))


@pytest.mark.parametrize(("listed", "missing"), [("", ""), ("ac", ""), ("ac", "b"), ("b", "ac"), ("", "ab")])
def test_each_name_is_listed_or_missing(listed: str, missing: str) -> None:
    found = with_missing(listed, missing)
    assert (found.objects, found.missing) == (len(listed), len(missing))


@pytest.mark.parametrize(("listed", "missing"), [("ab", "b"), ("", "aa"), ("c", "ba")])
def test_none_is_both_or_comes_twice(listed: str, missing: str) -> None:
    with pytest.raises(NoManifest, match="out of order or twice"):
        with_missing(listed, missing)


_HOSTILE = st.sampled_from(
    [None, True, -1, 10**30, 1.5, "", "\x1b[2J", "\ud800", "..", "a" * 3000, [], {}, [[[[]]]], "9999-12-31"]
)


def taken_or_refused(data: bytes) -> None:
    """Never another error, and nothing but what a manifest of ours may say comes out."""
    try:
        found = check(lambda: cut(data, 50), identity="d" * 32, location=PLACE, prefix="x/")
    except NoManifest as refused:
        reason = str(refused)
    else:
        assert (found.objects, found.bytes) == (found.members["count"], found.members["bytes"])
        return
    assert reason.isprintable()


@given(st.data())
def test_a_manifest_with_other_values_is_taken_or_refused(data: Any) -> None:
    document = json.loads(whole())
    first = document["objects"][0]
    for place in data.draw(st.lists(st.sampled_from([document, first, first["checksum"]]), min_size=1)):
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(_HOSTILE)
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans()))
    taken_or_refused(text.encode("utf-8", "surrogatepass"))


@given(st.data())
def test_a_manifest_with_other_bytes_is_taken_or_refused(data: Any) -> None:
    text = whole()
    start = data.draw(st.integers(0, len(text)))
    end = start + data.draw(st.integers(0, 12))
    taken_or_refused(text[:start] + data.draw(st.binary(max_size=12)) + text[end:])


def test_the_same_objects_delivered_at_another_time_are_the_same() -> None:
    later = [receipt._replace(delivered_at=AT.replace(hour=23)) for receipt in LISTED]
    other = [LISTED[0]._replace(checksum=Checksum("crc32", "AAAAAg==")), LISTED[1]]
    assert same_objects([whole()], [whole(later)])
    assert not same_objects([whole()], [whole(other)])
    assert not same_objects([whole()], [whole(LISTED[:1])])
    with pytest.raises(NoManifest):
        same_objects([b"x" * 100], [whole()])


def test_the_key_of_a_manifest_has_its_feed_period_and_revision() -> None:
    for period in ("2026-11-22", "2026-11-22T05", "2026-W47", "2026-11", "none"):
        key = manifest_key("xmode/", "us-daily", period, 12)
        assert parse_manifest_key("xmode/", key) == ManifestKey("us-daily", period, 12)
    for key in (
        "xmode/us-daily/_manifests/2026-11-22/1.json",
        "xmode/us-daily/_manifests/2026-11-22/000000.json",
        "xmode/us-daily/_manifests/2026-11-99/000001.json",
        "xmode/us-daily/_manifests/2026-11-22/000001.json.bak",
        "xmode/a/us-daily/_manifests/2026-11-22/000001.json",
        "other/us-daily/_manifests/2026-11-22/000001.json",
    ):
        assert parse_manifest_key("xmode/", key) is None
