"""A quarantined period over two customers, against the local AWS: nothing is sent to either, one gets it
released, and the other its correction; each step is a process of its own."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

DAY = "2026-11-22"
Make = Callable[..., Any]
FEEDS = {
    "us-daily": {
        "source": "exports/us-daily",
        "period": "day",
        "partition": "%Y-%m-%d",
        "complete": {"marker": "_SUCCESS"},
        "look_back": 3650,
        "checks": {"min_files": 2},
    }
}
DROPS = {"drops": {"source": "exports/drops", "period": "none", "complete": {"settle_seconds": 0}}}


def only(answer: Any) -> dict[str, Any]:
    (delivery,) = answer.json["deliveries"]
    return delivery


def release(here: Any, *arguments: str, feed: str = "us-daily", period: str = DAY) -> Any:
    about = ("--feed", feed, "--period", period, "--by", "alice", "--reason", "as agreed", "--json")
    return here.run("release", *about, *arguments)


def test_a_quarantined_period_is_released_to_one_and_corrected_for_the_other(
    project: Make, acme: CustomerSetup, globex: CustomerSetup
) -> None:
    here = project(acme, globex, feeds=FEEDS)
    here.write(f"{DAY}/a.csv.gz", b"")
    here.write(f"{DAY}/_SUCCESS", b"")

    previewed = here.run("run", "--customer", "acme", "--dry-run", "--json")
    assert previewed.code == 3
    assert only(previewed)["verdict"] == "quarantined"
    checked = here.run("config", "check", "--feed", "us-daily", "--period", DAY, "--json")
    assert checked.code == 3
    assert checked.json["source"] == {"files": 1, "bytes": 0}
    failed = [
        {"check": "min_files", "file": None, "message": "1 file; at least 2 are expected (min_files)"},
        {"check": "empty_file", "file": f"{DAY}/a.csv.gz", "message": "0 bytes; a .gz file is never empty"},
    ]
    assert checked.json["checks"] == only(previewed)["checks"] == failed

    for customer in ("acme", "globex"):
        answer = here.deliver(customer)
        assert answer.code == 3
        delivery = only(answer)
        assert (answer.json["outcome"], delivery["outcome"]) == ("quarantined", "quarantined")
        assert (delivery["cause"], delivery["responsible"]) == ("quarantined", "vendor")
        assert delivery["checks"] == failed
        judged = [event for event in answer.events if event["event"] == "period.quarantined"]
        assert len(judged) == (customer == "acme")  # once for all customers
    assert bucket.list_keys(acme) == bucket.list_keys(globex) == []
    status = here.run("status", "--all", "--json").json
    assert "quarantined" in json.dumps(status)

    assert release(here, "--customer", "acme").json["customers"] == ["acme"]
    assert release(here, "--customer", "acme").code == 2  # already
    assert only(here.deliver("globex"))["outcome"] == "quarantined"
    delivered = here.deliver("acme")
    assert (delivered.code, only(delivered)["outcome"]) == (0, "delivered")
    assert only(delivered)["checks"] == failed
    manifest = json.loads(bucket.read_object(acme, f"xmode/us-daily/_manifests/{DAY}/000001.json"))
    released = manifest["released"]
    assert released["checks"] == [{**item, "file": item["file"] or ""} for item in failed]
    assert (released["by"], released["reason"]) == ("alice", "as agreed")
    assert here.run("verify", "--customer", "acme", "--json").code == 0

    here.write(f"{DAY}/a.csv.gz", gzip.compress(b"1,2\n"))
    here.write(f"{DAY}/b.csv", b"1,2\n")
    corrected = here.deliver("globex")
    assert (corrected.code, only(corrected)["outcome"], only(corrected)["revision"]) == (0, "delivered", 1)
    assert only(corrected)["checks"] == []
    assert "released" not in json.loads(
        bucket.read_object(globex, f"xmode/us-daily/_manifests/{DAY}/000001.json")
    )
    assert only(here.deliver("acme", "--period", DAY))["revision"] == 2


def test_a_rejected_period_ends_until_its_source_is_corrected(
    project: Make, acme: CustomerSetup, globex: CustomerSetup
) -> None:
    here = project(acme, globex, feeds=FEEDS)
    here.write(f"{DAY}/a.csv", b"1")
    here.write(f"{DAY}/_SUCCESS", b"")
    assert only(here.deliver("acme"))["outcome"] == "quarantined"
    assert release(here, "--reject").json["decision"] == "rejected"
    assert here.deliver("acme").json["deliveries"] == []  # it is not due again
    late = here.deliver("globex")
    assert (late.code, only(late)["outcome"], only(late)["cause"]) == (0, "skipped", "rejected")
    named = here.deliver("acme", "--period", DAY)
    assert (named.code, only(named)["outcome"]) == (0, "skipped")
    assert bucket.list_keys(acme) == bucket.list_keys(globex) == []

    here.write(f"{DAY}/b.csv", b"2")
    corrected = here.deliver("acme", "--period", DAY)
    assert (only(corrected)["outcome"], only(corrected)["revision"]) == ("delivered", 1)
    assert here.run("ledger", "check").code == 0


def test_a_file_of_a_drop_folder_waits_while_the_others_go(project: Make, acme: CustomerSetup) -> None:
    here = project(acme, feeds=DROPS)
    here.write("bad.gz", b"not gzip", feed="drops")
    assert only(first := here.deliver())["outcome"] == "quarantined"
    assert first.code == 3
    here.write("good.csv", b"1,2\n", feed="drops")
    answer = here.deliver()
    assert (answer.code, only(answer)["outcome"], only(answer)["uploaded"]) == (3, "delivered", 1)
    assert [item["file"] for item in only(answer)["checks"]] == ["bad.gz"]
    again = here.deliver()
    assert (again.code, only(again)["outcome"]) == (3, "skipped")
    assert release(here, "--file", "other.gz", feed="drops", period="none").code == 2
    assert release(here, "--file", "bad.gz", feed="drops", period="none").json["files"] == ["bad.gz"]
    released = here.deliver()
    assert (released.code, only(released)["uploaded"], only(released)["checks"]) == (0, 1, [])
    manifest = json.loads(bucket.read_object(acme, "xmode/drops/_manifests/none/000002.json"))
    assert [item["source"] for item in manifest["objects"]] == ["bad.gz"]
    assert manifest["released"]["checks"][0]["check"] == "format"
    assert only(here.deliver())["outcome"] == "skipped"
