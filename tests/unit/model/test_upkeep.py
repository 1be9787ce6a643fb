"""Verification: judging a key, what is selected, and comparing a manifest with the ledger."""

from datetime import UTC, datetime
from typing import Any

import pytest

from xmode_transfer.model import manifest
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.records import (
    Checksum,
    DeliveredKey,
    ObjectInfo,
    Receipt,
)
from xmode_transfer.model.upkeep import (
    SHA256_HEX,
    DiscrepancyKind,
    Judgement,
    Proof,
    ReadBack,
    Scope,
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


def seen_as(size: int, etag: str, checksum: Checksum | None) -> ObjectInfo:
    return ObjectInfo("x/a", size, etag, checksum, None, None, AT)


@pytest.mark.parametrize(
    ("known", "seen", "kind", "proof", "rewritten"),
    [
        (KNOWN, None, DiscrepancyKind.MISSING, None, False),
        (KNOWN, seen_as(10, '"e"', CRC), None, Proof.CHECKSUM, False),
        (KNOWN, seen_as(10, "e", CRC), None, Proof.CHECKSUM, False),  # some stores leave the quotes out
        (KNOWN, seen_as(10, '"f"', CRC), None, Proof.CHECKSUM, True),
        (KNOWN, seen_as(11, '"e"', CRC), DiscrepancyKind.ALTERED, None, False),
        (KNOWN, seen_as(10, '"e"', Checksum("crc32", "BBBBBB==")), DiscrepancyKind.ALTERED, None, False),
        (KNOWN, seen_as(10, '"e"', None), None, Proof.ETAG, False),
        (KNOWN, seen_as(10, '"f"', None), DiscrepancyKind.ALTERED, None, False),
        (KNOWN, seen_as(10, '"e"', Checksum("sha256", "AAAA")), None, Proof.ETAG, False),
        (KNOWN._replace(checksum=None), seen_as(10, '"f"', CRC), DiscrepancyKind.ALTERED, None, False),
        (KNOWN._replace(etag=""), seen_as(10, '"e"', None), DiscrepancyKind.ALTERED, None, False),
        (MANIFEST, seen_as(99, '"e"', CRC), None, Proof.CHECKSUM, False),
        (MANIFEST, seen_as(99, '"e"', Checksum("crc32", "BBBBBB==")), DiscrepancyKind.ALTERED, None, False),
        (MANIFEST, seen_as(99, '"e"', None), None, Proof.ETAG, False),
    ],
)
def test_a_head_decides(
    known: DeliveredKey,
    seen: ObjectInfo | None,
    kind: DiscrepancyKind | None,
    proof: Proof | None,
    rewritten: bool,
) -> None:
    found = judge(known, seen)
    assert (found.kind, found.proof, found.rewritten) == (kind, proof, rewritten)
    assert bool(found.message) is (kind is not None)


BEFORE = Judgement(None, "", Proof.CHECKSUM)


@pytest.mark.parametrize(
    ("known", "read", "kind", "proof"),
    [
        (KNOWN, ReadBack(10, {"crc32": "AAAAAA=="}), None, Proof.BYTES),
        (KNOWN, ReadBack(10, {"crc32": "BBBBBB=="}), DiscrepancyKind.ALTERED, None),
        (KNOWN, ReadBack(9, {"crc32": "AAAAAA=="}), DiscrepancyKind.ALTERED, None),
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
            DiscrepancyKind.ALTERED,
            None,
        ),
    ],
)
def test_the_bytes_have_the_last_word(
    known: DeliveredKey, read: ReadBack, kind: DiscrepancyKind | None, proof: Proof | None
) -> None:
    found = judge_bytes(known, read, BEFORE)
    assert (found.kind, found.proof) == (kind, proof)


def test_every_discrepancy_has_a_responsible_and_a_fix() -> None:
    for kind in DiscrepancyKind:
        assert isinstance(kind.responsible, Responsible)
        assert fix(kind, "acme", "acme-data", "x/a")
    assert "--bucket acme-data --key 'x/a'" in fix(DiscrepancyKind.ACL_CHANGED, "acme", "acme-data", "x/a")


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


def test_each_difference_of_a_manifest_is_named() -> None:
    def receipt(name: str, **changes: Any) -> Receipt:
        return Receipt(name, f"x/{name}", 1, CRC, "", AT)._replace(**changes)

    ours = [receipt("a"), receipt("b"), receipt("d", size=2)]
    theirs = [manifest.entry(receipt(name)) for name in ("b", "c", "d")]
    later = manifest.entry(receipt("b", delivered_at=datetime(2027, 1, 1, tzinfo=UTC)))
    assert list(manifest_differences([later, *theirs[1:]], ours)) == [
        "does not list x/a, which the ledger has",
        "lists x/c, which the ledger does not have",
        "lists x/d with a different size",
    ]
