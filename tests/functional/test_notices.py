"""What the installed daemon tells a customer in its own bucket, under exactly the setup guide's policy."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

SERVICE = {
    "daemon": {"tick_seconds": 1, "first_retry_seconds": 1, "longest_retry_seconds": 2},
    "status_page": "off",
}


def place(customer: CustomerSetup) -> str:
    return f"{customer.prefix}_notices/"


def until(seen: Callable[[], Any], seconds: float = 120) -> Any:
    ends = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < ends, f"not seen in {seconds} seconds"
        time.sleep(0.1)
    return found


def produce(project: Any, day: str, data: bytes) -> None:
    project.write(f"2026/11/{day}/a.csv", data)
    project.write(f"2026/11/{day}/_SUCCESS", data)


def ledger_of(project: Any) -> sqlite3.Connection:
    return sqlite3.connect(project.directory / "var" / "ledger.db", timeout=10)


def change(project: Any, statement: str) -> None:
    with closing(ledger_of(project)) as ledger:
        ledger.execute(statement)
        ledger.commit()


def value(project: Any, query: str) -> Any:
    with closing(ledger_of(project)) as ledger:
        return ledger.execute(query).fetchone()[0]


@pytest.mark.parametrize("engine", ["fast", pytest.param("portable", marks=pytest.mark.slow)])
def test_a_notice_is_written_once_and_the_customer_owns_it(
    project: Callable[..., Any], acme: CustomerSetup, engine: str
) -> None:
    here = project(acme, service={**SERVICE, "engine": engine}, overrides={"acme": {"notices": True}})
    produce(here, "20", b"first")
    assert here.deliver().code == 0
    produce(here, "20", b"second, corrected")
    assert here.deliver().code == 0

    # the day after is not there, and we have looked for long enough
    change(here, "UPDATE looks SET first_looked_at = '2026-01-01T00:00:00.000000Z'")
    daemon = here.start("daemon")
    keys = until(lambda: len(found := bucket.list_keys(acme, place(acme))) == 2 and found)
    daemon.terminate()
    assert daemon.wait(120) == 0
    told = [json.loads(bucket.read_object(acme, key)) for key in keys]
    corrected, late = sorted(told, key=lambda body: body["kind"])
    assert (corrected["kind"], corrected["period"], corrected["revision"]) == ("corrected", "2026-11-20", 2)
    assert bucket.head_object(acme, corrected["manifest"]) is not None
    assert (late["kind"], late["feed"], late["responsible"]) == ("late", "us-daily", "vendor")
    assert bucket.head_object(acme, late["manifest"]) is None
    for key in keys:
        head = bucket.head_object(acme, key)
        assert head is not None
        assert head.content_type == "application/json"
        # the grant that the ACL bucket-owner-full-control gives: without it the guide's policy refuses
        assert {grant["Permission"] for grant in bucket.object_acl(acme, key)} == {"FULL_CONTROL"}

    # a restart tells nothing again, and neither listing, proof nor cleanup minds
    again = here.start("daemon")
    until(lambda: value(here, "SELECT count(*) FROM daemons") == 2)
    time.sleep(3)
    again.terminate()
    assert again.wait(120) == 0
    assert len(bucket.list_versions(acme, place(acme))) == 2
    listing = here.run("list", "--customer", "acme", "--json").json
    assert (listing["counts"]["notice"], listing["counts"]["unmanaged"]) == (2, 0)
    verified = here.run("verify", "--customer", "acme", "--json").json
    assert (verified["outcome"], verified["unmanaged"]) == ("proven", 0)
    bucket.delete_object(acme, keys[0])
    listing = here.run("list", "--customer", "acme", "--json").json
    assert (listing["counts"]["notice"], listing["counts"]["missing"]) == (1, 0)


def test_a_refused_notice_waits_and_delays_no_delivery(
    project: Callable[..., Any], acme: CustomerSetup
) -> None:
    document = accounts.permission_policy(acme)
    document["Statement"].append(
        {
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::{acme.bucket}/{place(acme)}*",
        }
    )
    bucket.set_permission_policy(acme, document)
    here = project(acme, service=SERVICE, overrides={"acme": {"notices": True}})
    for data in (b"first", b"second, corrected"):
        produce(here, "20", data)
        assert here.deliver().code == 0
    daemon = here.start("daemon")
    until(lambda: value(here, "SELECT sum(attempts) FROM notices"))
    produce(here, "21", b"the day after")
    until(lambda: any("/_manifests/2026-11-21/" in key for key in bucket.list_keys(acme)))
    assert bucket.list_keys(acme, place(acme)) == []
    refusals = value(here, "SELECT error FROM notices WHERE attempts > 0")
    assert "PutObject" in refusals

    daemon.terminate()
    assert daemon.wait(120) == 0
    bucket.set_permission_policy(acme, accounts.permission_policy(acme))
    change(here, "UPDATE notices SET next_attempt_at = NULL")  # its pause is over
    daemon = here.start("daemon")
    until(lambda: [key for key in bucket.list_keys(acme, place(acme)) if "corrected" in key])
    daemon.terminate()
    assert daemon.wait(120) == 0
    log = [json.loads(line) for line in daemon.stderr if line.startswith("{")]
    assert not [entry for entry in log if entry["event"] == "defect"]


def test_a_paused_delivery_is_reported_with_its_action(
    project: Callable[..., Any], acme: CustomerSetup
) -> None:
    manifest = f"{acme.prefix}us-daily/_manifests/2026-11-20/000001.json"
    bucket.put_object(acme, manifest, b"theirs")
    here = project(acme, service=SERVICE, overrides={"acme": {"notices": True}})
    produce(here, "20", b"first")
    assert here.deliver().code == 4
    # it was refused long enough ago for a notice, which cannot be taken back
    change(here, "UPDATE runs SET finished_at = '2026-01-01T00:00:00.000000Z'")
    daemon = here.start("daemon")
    (key,) = until(lambda: bucket.list_keys(acme, place(acme)))
    told = json.loads(bucket.read_object(acme, key))
    assert (told["kind"], told["period"], told["responsible"]) == ("paused", "2026-11-20", "customer")
    assert f"{acme.prefix}us-daily/" in told["action"]
    assert told["manifest"] == manifest

    bucket.delete_object(acme, manifest)  # as it was asked to
    until(lambda: bucket.head_object(acme, manifest))
    daemon.kill()
    daemon.wait(120)
    assert bucket.list_keys(acme, place(acme)) == [key]
