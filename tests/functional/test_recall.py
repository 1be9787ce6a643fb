"""The installed command takes files back from customers that have followed the guide to the letter."""

import json
import random
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests import bucket
from tests.forms import IS_SOAK
from tests.functional.conftest import Project
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

SERVICE = {
    "daemon": {"tick_seconds": 1, "first_retry_seconds": 1, "longest_retry_seconds": 2},
    "status_page": "off",
}
OF = ("--feed", "us-daily", "--period", "2026-11-22", "--reason", "opt-out 4711", "--by", "alice")


def filled(project: Callable[..., Any], *customers: CustomerSetup) -> Project:
    here: Project = project(*customers, service=SERVICE)
    for name, data in (("a.csv", b"first"), ("b.csv", b"a person"), ("_SUCCESS", b"")):
        here.write(f"2026/11/22/{name}", data)
    assert here.run("run", "--all").code == 0
    return here


def keys(customer: CustomerSetup) -> list[str]:
    found = bucket.list_keys(customer, f"{customer.prefix}us-daily/")
    return [key.removeprefix(f"{customer.prefix}us-daily/") for key in found]


def test_an_opt_out_from_the_list_of_files_to_the_report(
    project: Callable[..., Any], acme: CustomerSetup, globex: CustomerSetup
) -> None:
    here = filled(project, acme, globex)
    names = here.directory / "optout.txt"
    names.write_text("2026/11/22/b.csv\nnobody/has/this.csv\n")
    asked = ("recall", *OF, "--names", str(names))

    # looked at: nothing is recorded
    planned = here.run(*asked, "--dry-run", "--json")
    assert (planned.code, planned.json["outcome"], planned.json["files"]) == (0, "dry_run", 1)
    assert planned.json["unknown"] == ["nobody/has/this.csv"]
    assert [item["objects"] for item in planned.json["customers"]] == [1, 1]
    unconfirmed = here.run(*asked)
    assert unconfirmed.code == 2
    assert "--confirm is required" in unconfirmed.out
    assert here.run("recall", "list", "--json").json == {"recalls": []}
    assert not (here.directory / "var" / "recalls.jsonl").exists()
    assert here.run("recall", *OF, "--files", "*.parquet", "--confirm").code == 2

    # one customer refuses us
    bucket.delete_role(globex)
    done = here.run(*asked, "--confirm", "--json")
    assert done.code == 4, done.err
    recall = done.json["recall"]
    by_name = {item["customer"]: item for item in done.json["customers"]}
    assert (by_name["acme"]["state"], by_name["acme"]["outcomes"]) == ("done", {"deleted": 2})
    assert (by_name["globex"]["state"], by_name["globex"]["cause"]) == ("blocked", "role_refused")
    assert keys(acme) == ["2026/11/22/a.csv", "_manifests/2026-11-22/000002.json"]
    (notice,) = bucket.list_keys(acme, f"{acme.prefix}_notices/")
    assert notice.endswith("-us-daily-2026-11-22-withdrawn.json")
    status = here.run("status", "--no-look", "--json").json
    (warning,) = status["customers"][1]["warnings"]
    assert (warning["cause"], warning["responsible"]) == ("recall_open", "customer")
    assert "role_refused" not in here.run("recall", "show", recall).err

    # the daemon finishes it when the role is there again
    accounts.restore_role(globex)
    daemon = here.launch("daemon")
    daemon.wait("recall.carried_out", customer="globex", outcome="done")
    daemon.wait("notice.put", customer="globex", notice="withdrawn")
    assert daemon.end() == 0
    assert keys(globex) == ["2026/11/22/a.csv", "_manifests/2026-11-22/000002.json"]
    (listed,) = here.run("recall", "list", "--json").json["recalls"]
    assert (listed["id"], listed["state"], listed["by"]) == (recall, "done", "alice")
    assert here.run("recall", "retry", recall, "--json").code == 0

    # the report, for whoever has our public key
    key = here.directory / "receipts.pem"
    assert here.run("verify", "--new-key", str(key)).code == 0
    with (here.directory / "service.yaml").open("a") as file:
        file.write("\nreceipts: {key: file:receipts.pem}\n")
    report = here.directory / "optout.report"
    assert here.run("recall", "show", recall, "--report", str(report)).code == 0
    checked = here.run("verify", "--receipt", str(report), "--public-key", f"{key}.pub")
    assert checked.code == 0, checked.err
    assert "opt-out 4711" in checked.out
    report.write_bytes(report.read_bytes().replace(b"globex", b"initech"))
    assert here.run("verify", "--receipt", str(report), "--public-key", f"{key}.pub").code == 3

    # nothing of it comes back, and nothing is amiss
    (here.source() / "2026/11/22/_SUCCESS").write_bytes(b"declared anew")
    assert here.deliver().code == 0
    assert keys(acme) == ["2026/11/22/a.csv", "_manifests/2026-11-22/000002.json"]
    assert here.run("verify", "--customer", "acme", "--json").json["outcome"] == "proven"
    assert here.run("recall", "show", "no-such-recall").code == 2


def test_a_restored_ledger_delivers_nothing_that_was_withdrawn(
    project: Callable[..., Any], acme: CustomerSetup
) -> None:
    here = filled(project, acme)
    backup = here.directory / "backup.db"
    assert here.run("ledger", "backup", str(backup)).code == 0
    assert here.run("recall", *OF, "--files", "b.csv", "--confirm").code == 0
    assert here.run("ledger", "restore", str(backup)).code == 0
    assert here.deliver("acme", "--period", "2026-11-22").code == 0
    assert "b.csv" not in "".join(keys(acme))
    retried = here.run("recall", "retry", here.run("recall", "list", "--json").json["recalls"][0]["id"])
    assert retried.code == 0, retried.out
    assert "b.csv" not in "".join(keys(acme))

    # a ledger that is lost altogether
    for file in (here.directory / "var").glob("ledger.db*"):
        file.unlink()
    assert here.deliver().code == 0
    assert "b.csv" not in "".join(keys(acme))

    # and a file that cannot be read stops everything
    file = here.directory / "var" / "recalls.jsonl"
    file.write_bytes(file.read_bytes().replace(b"b.csv", b"c.csv"))
    stopped = here.deliver()
    assert (stopped.code, "is damaged" in json.dumps(stopped.json)) == (2, True)


DAYS = [f"2026/11/{day:02}" for day in range(1, 9)]
KILLS = 30 if IS_SOAK else 4


def recalled(here: Project, reason: str) -> dict[str, Any] | None:
    """The recall as far as the ledger knows it."""
    listed = here.run("recall", "list", "--json").json["recalls"]
    return next((item for item in listed if item["reason"] == reason), None)


def objects_of(customer: CustomerSetup) -> set[str]:
    """Each manifest lists only what is there; the files that are there, by their name at the source."""
    there = set(keys(customer))
    names = set()
    for key in there:
        if "_manifests/" in key:
            manifest = json.loads(bucket.read_object(customer, f"{customer.prefix}us-daily/{key}"))
            listed = {item["key"].removeprefix(f"{customer.prefix}us-daily/") for item in manifest["objects"]}
            assert listed <= there, key
            names |= {item["source"] for item in manifest["objects"]}
    return names


@pytest.mark.short
def test_killed_at_random_moments_it_continues(project: Callable[..., Any], acme: CustomerSetup) -> None:
    here: Project = project(acme, service=SERVICE)
    chance = random.Random(16)
    left = {f"{day}/{number}.csv" for day in DAYS for number in range(8)}
    for name in left:
        here.write(name, name.encode())
    for day in DAYS:
        here.write(f"{day}/_SUCCESS", b"")
    assert here.deliver().code == 0
    assert objects_of(acme) == left
    kills = number = 0
    while kills < KILLS:
        since = ("--feed", "us-daily", "--since", "2026-11-01", "--files", f"{number}.csv")
        begin = ("recall", *since, "--reason", f"opt-out {number}", "--by", "alice", "--confirm")
        while (state := recalled(here, f"opt-out {number}")) is None or state["state"] != "done":
            process = here.start(*(begin if state is None else ("recall", "retry", state["id"])))
            try:
                process.communicate(timeout=chance.uniform(0.2, 1.5) if kills < KILLS else 120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
            there = objects_of(acme)
            assert left - there <= {f"{day}/{number}.csv" for day in DAYS}
        left -= {f"{day}/{number}.csv" for day in DAYS}
        assert {key for key in keys(acme) if "_manifests/" not in key} == left
        assert objects_of(acme) == left
        number += 1
    versions = bucket.list_versions(acme, f"{acme.prefix}us-daily/")
    assert len({key for key, *_ in versions}) == len(versions)
    assert here.run("verify", "--customer", "acme", "--json").json["outcome"] == "proven"
