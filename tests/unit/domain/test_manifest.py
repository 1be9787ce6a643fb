"""The manifest's bytes."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from xmode_transfer.domain.manifest import canonical, chunks, timestamp
from xmode_transfer.domain.records import Checksum, Delivery, Receipt, Status

AT = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
DELIVERY = Delivery(
    "d" * 32, "acme", "us-daily", "2026-11-22", 2, Status.RUNNING, AT, AT, object_count=2, total_bytes=30
)
RECEIPTS = [
    Receipt("a é.csv", "xmode/a é.csv", 10, Checksum("crc32", "AAAAAA=="), '"1"', AT),
    Receipt("b.csv", "xmode/b.csv", 20, Checksum("crc32", "AAAAAQ=="), '"2"', AT, sha256="ab" * 32),
]


def written(delivery: Delivery = DELIVERY, receipts: list[Receipt] = RECEIPTS) -> bytes:
    return b"".join(chunks(delivery, receipts, prefix="xmode/"))


def test_it_is_canonical_json_that_says_all() -> None:
    text = written().decode()
    manifest = json.loads(text)
    assert canonical(manifest) == text
    assert manifest["delivery"] == "d" * 32
    assert (manifest["feed"], manifest["period"], manifest["revision"]) == ("us-daily", "2026-11-22", 2)
    assert (manifest["count"], manifest["bytes"], manifest["prefix"]) == (2, 30, "xmode/")
    assert manifest["objects"][1] == {
        "key": "xmode/b.csv",
        "size": 20,
        "checksum": {"algorithm": "crc32", "value": "AAAAAQ=="},
        "sha256": "ab" * 32,
        "source": "b.csv",
        "delivered_at": "2026-11-22T06:30:00.000000Z",
    }


def test_an_empty_delivery_has_a_manifest_too() -> None:
    empty = replace(DELIVERY, object_count=0, total_bytes=0)
    assert json.loads(written(empty, []))["objects"] == []


@pytest.mark.parametrize("delivery", [replace(DELIVERY, object_count=3), replace(DELIVERY, total_bytes=31)])
def test_a_list_that_contradicts_its_head_is_never_finished(delivery: Delivery) -> None:
    with pytest.raises(ValueError, match="the ledger holds 2 receipts with 30 bytes"):
        written(delivery)


def test_times_are_utc() -> None:
    assert timestamp(AT.astimezone(timezone(timedelta(hours=-5)))) == "2026-11-22T06:30:00.000000Z"
