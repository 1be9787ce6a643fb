"""What a manifest lists is there: corrections, repeated runs and withdrawn files beside a customer that
deletes and overwrites, against the local AWS."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

DAY = "2026/11/22"
PLACE = f"xmode/us-daily/{DAY}"
Make = Callable[..., Any]


def fill(here: Any, files: dict[str, bytes], day: str = DAY) -> None:
    for name, data in files.items():
        here.write(f"{day}/{name}", data)
    marker = here.source() / day / "_SUCCESS"
    before = marker.stat().st_mtime_ns if marker.exists() else 0
    here.write(f"{day}/_SUCCESS", b"")
    if before:  # the clock of files may be coarse
        os.utime(marker, ns=(before + 10**6, before + 10**6))


def manifest(customer: CustomerSetup, revision: int) -> dict[str, Any]:
    """Each object that it lists is there, with the content that it says."""
    key = f"xmode/us-daily/_manifests/2026-11-22/{revision:06d}.json"
    found: dict[str, Any] = json.loads(bucket.read_object(customer, key))
    for item in found["objects"]:
        assert len(bucket.read_object(customer, item["key"])) == item["size"], item["key"]
    return found


def listed(found: dict[str, Any]) -> dict[str, str]:
    """Where each source file is, below the period."""
    return {
        item["source"].removeprefix(f"{DAY}/"): item["key"].removeprefix(f"{PLACE}/")
        for item in found["objects"]
    }


def only(answer: Any) -> dict[str, Any]:
    (delivery,) = answer.json["deliveries"]
    return delivery


def test_what_the_customer_has_deleted_is_delivered_again_with_a_correction(
    project: Make, acme: CustomerSetup
) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"1", "b.csv": b"2", "c.csv": b"3"})
    here.deliver()
    for name in ("a", "b", "c"):
        bucket.delete_object(acme, f"{PLACE}/{name}.csv")
    fill(here, {"b.csv": b"22"})

    delivery = only(here.deliver())
    assert (delivery["outcome"], delivery["revision"]) == ("delivered", 2)
    assert (delivery["uploaded"], delivery["sent_again"], delivery["skipped"]) == (3, 2, 0)
    assert (delivery["failed"], delivery["missing"]) == (0, 0)
    assert listed(manifest(acme, 2)) == {"a.csv": "a.csv", "b.csv": "_r2/b.csv", "c.csv": "c.csv"}
    assert here.run("verify", "--customer", "acme", "--json").json["discrepancies"] == {
        "missing": 1
    }  # b of r1


def test_what_is_as_it_was_delivered_is_only_listed(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {f"{name}.csv": name.encode() for name in "abcdef"})
    first = here.deliver()
    assert only(first)["sent_again"] == 0
    fill(here, {"b.csv": b"22"})
    second = here.deliver()
    assert (only(second)["uploaded"], only(second)["skipped"], only(second)["sent_again"]) == (1, 5, 0)
    assert {event["event"] for event in second.events}.isdisjoint({"object.gone", "listing.refused"})
    assert len(listed(manifest(acme, 2))) == 6


def test_an_unmanaged_object_under_a_listed_key_stays_and_ours_goes_beside_it(
    project: Make, acme: CustomerSetup
) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"1", "b.csv": b"2", "c.csv": b"3"})
    here.deliver()
    bucket.put_object(acme, f"{PLACE}/c.csv", b"X")  # of the same size
    bucket.put_object(acme, f"{PLACE}/a.csv", b"1")  # the same bytes again: as good as ours
    fill(here, {"b.csv": b"22"})
    delivery = only(here.deliver())
    assert (delivery["revision"], delivery["sent_again"], delivery["missing"]) == (2, 1, 0)
    assert listed(manifest(acme, 2)) == {"a.csv": "a.csv", "b.csv": "_r2/b.csv", "c.csv": "_r2/c.csv"}
    assert bucket.read_object(acme, f"{PLACE}/c.csv") == b"X"
    assert bucket.read_object(acme, f"{PLACE}/_r2/c.csv") == b"3"


def test_a_resumed_run_checks_what_the_previous_run_sent(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    bucket.put_object(acme, f"{PLACE}/d.csv", b"foreign")
    fill(here, {"a.csv": b"1", "b.csv": b"2", "c.csv": b"3", "d.csv": b"4"})
    failed = here.deliver()
    assert only(failed)["outcome"] in ("failed", "blocked")
    bucket.delete_object(acme, f"{PLACE}/a.csv")
    bucket.put_object(acme, f"{PLACE}/b.csv", b"theirs")
    bucket.delete_object(acme, f"{PLACE}/d.csv")

    delivery = only(here.deliver())
    # Nothing is overwritten, and the first revision has no other key for b: the second takes its place.
    assert (delivery["outcome"], delivery["revision"], delivery["missing"]) == ("delivered", 2, 0)
    assert listed(manifest(acme, 2)) == {
        "a.csv": "a.csv",
        "b.csv": "_r2/b.csv",
        "c.csv": "c.csv",
        "d.csv": "d.csv",
    }
    assert bucket.read_object(acme, f"{PLACE}/b.csv") == b"theirs"
    assert not [key for key in bucket.list_keys(acme) if key.endswith("000001.json")]


def test_a_bucket_that_was_made_anew_gets_everything(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    bucket.put_object(acme, f"{PLACE}/z.csv", b"foreign")
    fill(here, {f"{name}.csv": name.encode() for name in "abcdefgz"})
    here.deliver()
    bucket.empty_bucket(acme)
    delivery = only(here.deliver())
    assert (delivery["outcome"], delivery["revision"]) == ("delivered", 1)
    assert (delivery["uploaded"], delivery["sent_again"]) == (8, 7)
    assert len(listed(manifest(acme, 1))) == 8


def test_what_the_source_cannot_give_again_is_named_as_missing(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    bucket.put_object(acme, f"{PLACE}/d.csv", b"foreign")
    fill(here, {"a.csv": b"1", "b.csv": b"2", "c.csv": b"3", "d.csv": b"4"})
    here.deliver()
    for name in ("a", "b"):
        (here.source() / DAY / f"{name}.csv").unlink()  # the source is cleaned up, its marker stays
    bucket.delete_object(acme, f"{PLACE}/a.csv")
    bucket.put_object(acme, f"{PLACE}/b.csv", b"theirs")
    bucket.delete_object(acme, f"{PLACE}/d.csv")

    answer = here.deliver()
    delivery = only(answer)
    assert (delivery["outcome"], delivery["missing"], delivery["sent_again"]) == ("delivered", 2, 0)
    found = manifest(acme, delivery["revision"])
    assert listed(found) == {"c.csv": "c.csv", "d.csv": "d.csv"}
    assert [(item["source"], item["key"], item["size"], item["reason"]) for item in found["missing"]] == [
        (f"{DAY}/a.csv", f"{PLACE}/a.csv", 1, "deleted"),
        (f"{DAY}/b.csv", f"{PLACE}/b.csv", 1, "overwritten"),
    ]
    assert {item["checksum"]["algorithm"] for item in found["missing"]} == {"crc32"}
    gone = [event for event in answer.events if event["event"] == "object.gone"]
    assert [(event["cause"], event["sent_again"]) for event in gone] == [
        ("deleted", False),
        ("overwritten", False),
    ]
    status = here.run("status", "--customer", "acme", "--json").json
    assert status["customers"][0]["feeds"][0]["last_delivered"]["missing"] == 2
    assert "2 missing" in here.run("status").out
    assert here.run("verify", "--customer", "acme").code == 0
    assert here.run("ledger", "check").code == 0

    # A ledger that was lost takes that back too, and a manifest that is put again says the same.
    for file in (here.directory / "var").glob("ledger.db*"):
        file.unlink()
    assert here.run("list", "--customer", "acme", "--adopt").code == 0
    key = delivery["manifest_key"]
    before = bucket.read_object(acme, key)
    bucket.delete_object(acme, key)
    assert here.run("verify", "--customer", "acme", "--repair").code == 0
    assert json.loads(bucket.read_object(acme, key)) == json.loads(before)
    assert here.run("ledger", "check").code == 0


def test_without_listing_rights_each_key_is_checked(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"1", "b.csv": b"2"})
    here.deliver()
    narrow = accounts.permission_policy(acme)
    for statement in narrow["Statement"]:
        if "s3:ListBucket" in statement.get("Action", ()):
            statement["Action"].remove("s3:ListBucket")
    bucket.set_permission_policy(acme, narrow)
    fill(here, {"b.csv": b"22"})
    answer = here.deliver()
    assert only(answer)["outcome"] == "delivered"
    assert [event["event"] for event in answer.events].count("listing.refused") == 1
    assert len(listed(manifest(acme, 2))) == 2


def test_the_marker_renewed_without_a_file_is_a_correction(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"1", "bad.csv": b"2"})
    here.deliver()
    (here.source() / DAY / "bad.csv").unlink()
    unmarked = here.deliver("acme", "--period", "2026-11-22")
    assert only(unmarked)["outcome"] == "skipped"  # the producer has not declared it
    fill(here, {})
    dry = here.deliver("acme", "--dry-run")
    reasons = {entry["name"]: entry["reason"] for entry in dry.json["deliveries"][0]["plan"]}
    assert "not listed any more" in reasons[f"{DAY}/bad.csv"]

    delivery = only(here.deliver())
    assert (delivery["outcome"], delivery["revision"], delivery["uploaded"]) == ("delivered", 2, 0)
    found = manifest(acme, 2)
    assert (listed(found), found["missing"]) == ({"a.csv": "a.csv"}, [])
    assert f"{PLACE}/bad.csv" in bucket.list_keys(acme)  # the first revision lists it, and stays
    assert here.deliver().json["deliveries"] == []
    fill(here, {})  # renewed with the same files: nothing to correct
    assert only(here.deliver())["outcome"] == "skipped"
    fill(here, {"bad.csv": b"2"})  # and back
    delivery = only(here.deliver())
    assert (delivery["revision"], delivery["uploaded"]) == (3, 0)
    assert listed(manifest(acme, 3)) == {"a.csv": "a.csv", "bad.csv": "bad.csv"}


def superseded_first(here: Any, acme: CustomerSetup) -> None:
    """A first revision fails after a.csv, which then changes."""
    bucket.put_object(acme, f"{PLACE}/b.csv", b"foreign")
    fill(here, {"a.csv": b"old", "b.csv": b"2", "c.csv": b"3"})
    assert only(here.deliver())["outcome"] in ("failed", "blocked")
    bucket.delete_object(acme, f"{PLACE}/b.csv")
    fill(here, {"a.csv": b"new"})


def test_what_no_manifest_names_is_removed_after_its_successor(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    superseded_first(here, acme)
    answer = here.deliver()
    delivery = only(answer)
    assert (delivery["outcome"], delivery["revision"]) == ("delivered", 2)
    assert set(bucket.list_keys(acme)) == {
        f"{PLACE}/_r2/a.csv",
        f"{PLACE}/b.csv",
        f"{PLACE}/c.csv",
        "xmode/us-daily/_manifests/2026-11-22/000002.json",
    }
    assert len(listed(manifest(acme, 2))) == 3
    assert [event["deleted"] for event in answer.events if event["event"] == "superseded.removed"] == [1]
    assert here.run("verify", "--customer", "acme").code == 0
    assert here.run("list", "--customer", "acme", "--json").json["counts"]["ours"] == 3


def test_refused_deletes_are_reported_and_retried(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    superseded_first(here, acme)
    whole, narrow = accounts.permission_policy(acme), accounts.permission_policy(acme)
    for statement in narrow["Statement"]:
        if "s3:DeleteObject" in statement.get("Action", ()):
            statement["Action"].remove("s3:DeleteObject")
    bucket.set_permission_policy(acme, narrow)
    answer = here.deliver()
    assert (answer.code, only(answer)["outcome"]) == (0, "delivered")
    key = f"{PLACE}/a.csv"
    assert bucket.read_object(acme, key) == b"old"

    rows = here.run("list", "--customer", "acme", "--json").json["objects"]
    assert [row["key"] for row in rows if row["standing"] == "superseded"] == [key]
    verified = here.run("verify", "--customer", "acme", "--json")
    assert (verified.code, verified.json["outcome"], verified.json["superseded"]) == (0, "proven", 1)
    (customer,) = here.run("status", "--json").json["customers"]
    (care,) = customer["warnings"]
    assert (care["cause"], care["responsible"]) == ("superseded_left", "customer")
    again = here.deliver()  # asked once; only a cleanup asks again
    assert "superseded.removed" not in {event["event"] for event in again.events}

    bucket.set_permission_policy(acme, whole)
    cleaned = here.run("cleanup", "--customer", "acme", "--json")
    assert (cleaned.code, cleaned.json["superseded"]["deleted"]["keys"]) == (0, 1)
    assert key not in bucket.list_keys(acme)
    (customer,) = here.run("status", "--json").json["customers"]
    assert customer["warnings"] == []


def test_a_superseded_object_that_somebody_changed_stays(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    superseded_first(here, acme)
    bucket.put_object(acme, f"{PLACE}/a.csv", b"theirs")
    assert only(here.deliver())["outcome"] == "delivered"
    assert bucket.read_object(acme, f"{PLACE}/a.csv") == b"theirs"
    assert listed(manifest(acme, 2))["a.csv"] == "_r2/a.csv"
