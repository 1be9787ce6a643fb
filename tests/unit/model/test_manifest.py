"""The manifest's bytes."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from xmode_transfer.model.manifest import canonical, chunks, timestamp
from xmode_transfer.model.recall import WithdrawnObject
from xmode_transfer.model.records import Checksum, Delivery, MissingObject, MissingReason, Receipt, Status
from xmode_transfer.transfer.manifest_reading import (
    ManifestKey,
    ManifestReader,
    NoManifest,
    check,
    missing_of,
    same_objects,
    signed_statement,
    withdrawn_of,
)

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


def test_what_is_missing_is_said_beside_the_list_and_read_back() -> None:
    gone = [
        MissingObject("c.csv", "xmode/c.csv", 7, Checksum("crc32", "AAAAAg=="), MissingReason.DELETED),
        MissingObject("d é.csv", "xmode/d é.csv", 8, Checksum("crc32", "AAAAAw=="), MissingReason.EXPIRED),
    ]
    text = b"".join(chunks(DELIVERY, RECEIPTS, gone, prefix="xmode/"))
    manifest = json.loads(text)
    assert canonical(manifest).encode() == text
    assert (manifest["count"], manifest["bytes"], len(manifest["objects"])) == (2, 30, 2)
    assert manifest["missing"][0] == {
        "key": "xmode/c.csv",
        "size": 7,
        "checksum": {"algorithm": "crc32", "value": "AAAAAg=="},
        "source": "c.csv",
        "reason": "deleted",
    }
    assert [missing_of(entry) for entry in ManifestReader([text], ("missing",))] == gone
    reader = ManifestReader([text])
    assert [entry["source"] for entry in reader] == ["a é.csv", "b.csv"]
    assert "missing" not in reader.members
    assert not same_objects([text], [written()])
    assert same_objects([text], [text])


def test_the_signed_statement_follows_from_its_text_and_its_bucket() -> None:
    gone = [MissingObject("c.csv", "xmode/c.csv", 7, Checksum("crc32", "AAAAAg=="), MissingReason.DELETED)]
    receipts = [receipt._replace(key=f"xmode/us-daily/{receipt.name}") for receipt in RECEIPTS]
    for missing in ([], gone):
        signed: list[bytes] = []

        def sign(statement: bytes, signed: list[bytes] = signed) -> dict[str, str]:
            signed.append(statement)
            return {"key": "k", "value": "v"}

        parts = chunks(DELIVERY, receipts, missing, prefix="xmode/", bucket="acme-data", sign=sign)
        text = b"".join(parts)
        manifest = json.loads(text)
        assert canonical(manifest).encode() == text
        assert manifest.pop("signature") == {"key": "k", "value": "v"}
        for item in manifest["objects"]:
            del item["delivered_at"]
        digest = hashlib.sha256(canonical(manifest | {"bucket": "acme-data"}).encode()).hexdigest()
        assert signed == [f"xmode-manifest/1 sha256 {digest}\n".encode()]
        place = ManifestKey("us-daily", "2026-11-22", 2)
        found = check(lambda text=text: [text], identity="d" * 32, location=place, prefix="xmode/")
        assert signed_statement(lambda text=text: [text], found, "acme-data") == signed[0]
        assert signed_statement(lambda text=text: [text], found, "other") != signed[0]


@pytest.mark.parametrize(
    "change", [{"reason": "lost"}, {"size": -1}, {"size": True}, {"checksum": None}, {"key": 1}]
)
def test_what_is_missing_must_be_as_we_write_it(change: dict[str, object]) -> None:
    entry = {
        "key": "k", "size": 1, "source": "s", "reason": "deleted",
        "checksum": {"algorithm": "crc32", "value": "AAAAAA=="},
    }  # fmt: skip
    assert missing_of(entry).key == "k"
    with pytest.raises(NoManifest):
        missing_of(entry | change)


def test_an_empty_delivery_has_a_manifest_too() -> None:
    empty = replace(DELIVERY, object_count=0, total_bytes=0)
    assert json.loads(written(empty, []))["objects"] == []


@pytest.mark.parametrize("delivery", [replace(DELIVERY, object_count=3), replace(DELIVERY, total_bytes=31)])
def test_a_list_that_contradicts_its_head_is_never_finished(delivery: Delivery) -> None:
    with pytest.raises(ValueError, match="the ledger holds 2 receipts with 30 bytes"):
        written(delivery)


def test_times_are_utc() -> None:
    assert timestamp(AT.astimezone(timezone(timedelta(hours=-5)))) == "2026-11-22T06:30:00.000000Z"


GONE = [
    WithdrawnObject("c.csv", "xmode/c.csv", 7, Checksum("crc32", "AAAAAg=="), AT),
    WithdrawnObject("c.csv", "xmode/d é.csv", 8, Checksum("crc32", "AAAAAw=="), AT),
]


def test_what_is_withdrawn_is_the_last_member_and_is_signed() -> None:
    receipts = [receipt._replace(key=f"xmode/us-daily/{receipt.name}") for receipt in RECEIPTS]
    statements: list[bytes] = []

    def sign(statement: bytes) -> dict[str, str]:
        statements.append(statement)
        return {"key": "k", "value": "v"}

    drops = replace(DELIVERY, period="none", revision=4, replaces=(1, 3))
    text = b"".join(chunks(drops, receipts, (), GONE, prefix="xmode/", bucket="acme-data", sign=sign))
    manifest = json.loads(text)
    assert canonical(manifest).encode() == text
    assert manifest["replaces"] == [1, 3]
    assert manifest["withdrawn"][1] == {
        "at": "2026-11-22T06:30:00.000000Z",
        "checksum": {"algorithm": "crc32", "value": "AAAAAw=="},
        "key": "xmode/d é.csv",
        "reason": "recalled",
        "size": 8,
        "source": "c.csv",
    }
    assert [withdrawn_of(entry) for entry in ManifestReader([text], ("withdrawn",))] == GONE
    of = ManifestKey("us-daily", "none", 4)
    found = check(lambda: [text], identity=drops.id, location=of, prefix="xmode/")
    assert found.withdrawn == 2
    signed = {name: value for name, value in manifest.items() if name != "signature"}
    signed["bucket"] = "acme-data"
    for item in signed["objects"]:
        del item["delivered_at"]
    digest = hashlib.sha256(canonical(signed).encode()).hexdigest()
    assert statements == [f"xmode-manifest/1 sha256 {digest}\n".encode()]
    assert signed_statement(lambda: [text], found, "acme-data") == statements[0]
    assert not same_objects([text], [b"".join(chunks(drops, receipts, (), GONE[:1], prefix="xmode/"))])


@pytest.mark.parametrize(
    "change",
    [
        {"replaces": [4]},
        {"replaces": [3, 1]},
        {"replaces": [True]},
        {"replaces": []},
        {"replaces": "all"},
        {"replaces": [1], "period": "2026-11-22"},
        {"withdrawn": [{"source": "c.csv"}]},
        {"withdrawn": "twice"},
        {"withdrawn": "another reason"},
    ],
    ids=repr,
)
def test_what_a_manifest_cannot_withdraw_or_replace_is_refused(change: dict[str, object]) -> None:
    receipts = [receipt._replace(key=f"xmode/us-daily/{receipt.name}") for receipt in RECEIPTS]
    drops = replace(DELIVERY, period="none", revision=4)
    manifest = json.loads(b"".join(chunks(drops, receipts, (), GONE, prefix="xmode/")))
    first = manifest["withdrawn"][0]
    made = {"twice": [first, first], "another reason": [{**first, "reason": "why"}]}
    if isinstance(change.get("withdrawn"), str):
        change = {"withdrawn": made[str(change["withdrawn"])]}
    text = canonical({**manifest, **change}).encode()
    of = ManifestKey("us-daily", str(change.get("period", "none")), 4)
    with pytest.raises(NoManifest):
        check(lambda: [text], identity=drops.id, location=of, prefix="xmode/")
