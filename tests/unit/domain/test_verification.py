"""What is compared with what was delivered, and what follows."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.domain import manifest
from xmode_transfer.domain.errors import Party
from xmode_transfer.domain.manifest_reading import ManifestReader, NoManifest, receipt_of
from xmode_transfer.domain.records import Checksum, DeliveredKey, Delivery, Receipt, Status
from xmode_transfer.domain.verification import (
    SHA256_HEX,
    Flaw,
    Judgement,
    Proof,
    ReadBack,
    Scope,
    Seen,
    fix,
    in_sample,
    judge,
    judge_bytes,
    manifest_differences,
)

AT = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
CRC = Checksum("crc32", "AAAAAA==")
KNOWN = DeliveredKey("x/a", 10, '"e"', "us-daily", "2026-11-22", 1, AT, (1,), "a", CRC)
HASHED = KNOWN._replace(sha256="ab")
MANIFEST = KNOWN._replace(size=None, etag=None, name="")


@pytest.mark.parametrize(
    ("known", "seen", "flaw", "proof", "rewritten"),
    [
        (KNOWN, None, Flaw.MISSING, None, False),
        (KNOWN, Seen(10, '"e"', CRC), None, Proof.CHECKSUM, False),
        (KNOWN, Seen(10, "e", CRC), None, Proof.CHECKSUM, False),  # some stores leave the quotes out
        (KNOWN, Seen(10, '"f"', CRC), None, Proof.CHECKSUM, True),
        (KNOWN, Seen(11, '"e"', CRC), Flaw.ALTERED, None, False),
        (KNOWN, Seen(10, '"e"', Checksum("crc32", "BBBBBB==")), Flaw.ALTERED, None, False),
        (KNOWN, Seen(10, '"e"', None), None, Proof.ETAG, False),
        (KNOWN, Seen(10, '"f"', None), Flaw.ALTERED, None, False),
        (KNOWN, Seen(10, '"e"', Checksum("sha256", "AAAA")), None, Proof.ETAG, False),
        (KNOWN._replace(checksum=None), Seen(10, '"f"', CRC), Flaw.ALTERED, None, False),
        (KNOWN._replace(etag=""), Seen(10, '"e"', None), Flaw.ALTERED, None, False),
        (MANIFEST, Seen(99, '"e"', CRC), None, Proof.CHECKSUM, False),
        (MANIFEST, Seen(99, '"e"', Checksum("crc32", "BBBBBB==")), Flaw.ALTERED, None, False),
        (MANIFEST, Seen(99, '"e"', None), None, Proof.ETAG, False),
    ],
)
def test_a_head_decides(
    known: DeliveredKey, seen: Seen | None, flaw: Flaw | None, proof: Proof | None, rewritten: bool
) -> None:
    found = judge(known, seen)
    assert (found.flaw, found.proof, found.rewritten) == (flaw, proof, rewritten)
    assert bool(found.message) is (flaw is not None)


BEFORE = Judgement(None, "", Proof.CHECKSUM)


@pytest.mark.parametrize(
    ("known", "read", "flaw", "proof"),
    [
        (KNOWN, ReadBack(10, {"crc32": "AAAAAA=="}), None, Proof.BYTES),
        (KNOWN, ReadBack(10, {"crc32": "BBBBBB=="}), Flaw.ALTERED, None),
        (KNOWN, ReadBack(9, {"crc32": "AAAAAA=="}), Flaw.ALTERED, None),
        (KNOWN, ReadBack(10, {}), None, Proof.CHECKSUM),  # none that this machine can compute
        (
            KNOWN._replace(sha256="ab"),
            ReadBack(10, {"crc32": "AAAAAA==", SHA256_HEX: "ab"}),
            None,
            Proof.BYTES,
        ),
        (
            KNOWN._replace(sha256="ab"),
            ReadBack(10, {"crc32": "AAAAAA==", SHA256_HEX: "cd"}),
            Flaw.ALTERED,
            None,
        ),
    ],
)
def test_the_bytes_have_the_last_word(
    known: DeliveredKey, read: ReadBack, flaw: Flaw | None, proof: Proof | None
) -> None:
    found = judge_bytes(known, read, BEFORE)
    assert (found.flaw, found.proof) == (flaw, proof)


def test_every_flaw_has_a_party_and_a_fix() -> None:
    for flaw in Flaw:
        assert isinstance(flaw.party, Party)
        assert fix(flaw, "acme", "acme-data", "x/a")
    assert "--bucket acme-data --key 'x/a'" in fix(Flaw.ACL_CHANGED, "acme", "acme-data", "x/a")


@pytest.mark.parametrize(
    ("scope", "feed", "period", "covered"),
    [
        (Scope(), "us-daily", "none", True),
        (Scope("us-daily"), "eu-daily", "2026-11-22", False),
        (Scope(period="2026-11-22"), "us-daily", "2026-11-22", True),
        (Scope(period="2026-11-22"), "us-daily", "2026-11-22T05", False),
        (Scope(since="2026-11-22"), "us-daily", "2026-11-21", False),
        (Scope(since="2026-11-22"), "us-daily", "2026-11-22T00", True),
        (Scope(since="2026-11-22", until="2026-11-22"), "us-daily", "2026-11-22T23", True),
        (Scope(until="2026-11-22"), "us-daily", "2026-11-23", False),
        (Scope(until="2026-11"), "us-daily", "2026-11-30", True),
        (Scope(until="2026-11"), "us-daily", "2026-12-01", False),
        (Scope(since="2026-W47"), "us-daily", "2026-11-16", True),
        (Scope(since="2026-11-22"), "drops", "none", False),
    ],
)
def test_a_scope_covers_what_was_named(scope: Scope, feed: str, period: str, covered: bool) -> None:
    assert scope.covers(feed, period) is covered


def test_a_sample_is_about_as_large_as_was_asked_and_changes_with_the_day() -> None:
    keys = [f"xmode/us-daily/2026/11/22/part-{number:05}.csv" for number in range(20_000)]
    days = [{key for key in keys if in_sample(key, f"2026-11-{day}", len(keys), 1000)} for day in (21, 22)]
    assert all(800 < len(day) < 1200 for day in days)
    assert len(days[0] & days[1]) < 200
    assert all(in_sample(key, "", 1000, 1000) for key in keys)
    assert all(in_sample(key, "", len(keys), None) for key in keys)
    assert not any(in_sample(key, "", len(keys), 0) for key in keys)


# --- Manifests -------------------------------------------------------------------------------------------

names = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)
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
    assert [receipt_of(entry) for entry in reader] == [replace(item, etag="") for item in items]
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
    reader = ManifestReader([b' { "objects" : [ ] ,\n "format" : "xmode-manifest/1" } \n'])
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
        {"sha256": 1},
        {"source": 3},
    ],
)
def test_an_entry_that_we_never_wrote_is_refused(change: dict[str, Any]) -> None:
    assert receipt_of(GOOD).key == "x/a"
    with pytest.raises(NoManifest, match="not as we write it"):
        receipt_of({**GOOD, **change})


def test_what_a_manifest_lists_otherwise_is_named() -> None:
    def receipt(name: str, **changes: Any) -> Receipt:
        return replace(Receipt(name, f"x/{name}", 1, CRC, "", AT), **changes)

    ours = [receipt("a"), receipt("b"), receipt("d", size=2)]
    theirs = [manifest.entry(receipt(name)) for name in ("b", "c", "d")]
    later = manifest.entry(receipt("b", delivered_at=datetime(2027, 1, 1, tzinfo=UTC)))
    assert list(manifest_differences([later, *theirs[1:]], ours)) == [
        "does not list x/a, which the ledger has delivered",
        "lists x/c, which the ledger has not delivered",
        "lists x/d with another size",
    ]
