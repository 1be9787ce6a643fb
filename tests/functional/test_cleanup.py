"""`xmode-transfer cleanup` against the local AWS, with the guide's documents unchanged."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from tests import bucket
from tests.bucket import set_permission_policy
from xmode_transfer.sandbox.accounts import owner, permission_policy
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import
BASE = "xmode/us-daily/"
DAYS = ("2020/01/01", "2020/01/02", "2020/01/03", "2020/01/04")
THEIRS = {
    "xmode/notes.txt": b"the customer's own",
    f"{BASE}2020/01/01/theirs.csv": b"beside ours",
    f"{BASE}2020/01/01/a.csv.bak": b"looks like ours",
    f"{BASE}2020/01/01/A.csv": b"in other capitals",
    f"{BASE}_manifests/2020-01-01/notes.json": b"beside our manifest",
    "elsewhere/a.csv": b"not below our prefix",
}


def manifest(day: str, revision: int = 1) -> str:
    return f"{BASE}_manifests/{day.replace('/', '-')}/{revision:06d}.json"


def delivered(make: Make, customer: CustomerSetup, *, files: int = 3, **policy: object) -> "Project":  # noqa: F821
    """A project whose four days of long ago are delivered."""
    here = make(customer, overrides={customer.name: {"retention": {"days": 30}, **policy}})
    for day in DAYS:
        for number in range(files):
            here.write(f"{day}/{chr(97 + number % 26)}{number or ''}.csv", f"{day} {number}".encode())
        here.write(f"{day}/_SUCCESS", b"")
    answer = here.deliver(customer.name, "--since", "2020-01-01")
    assert answer.code == 0, answer.err
    return here


def everything(customer: CustomerSetup) -> dict[str, bytes]:
    return {key: bucket.read_object(customer, key) for key in bucket.list_keys(customer)}


def cleaned(here: "Project", *arguments: str) -> "Answer":  # noqa: F821
    return here.run("cleanup", "--customer", "acme", "--json", *arguments)


def test_a_role_that_may_not_delete_blocks_the_cleanup(project: Make, acme: CustomerSetup) -> None:
    here = delivered(project, acme, files=1)
    before = everything(acme)
    document = permission_policy(acme)
    document["Statement"][1]["Action"].remove("s3:DeleteObject")
    set_permission_policy(acme, document)
    answer = cleaned(here, "--confirm")
    assert (answer.code, answer.json["outcome"]) == (4, "blocked"), answer.err
    assert (answer.json["cause"], answer.json["responsible"]) == ("access_denied", "customer")
    assert answer.json["message"].startswith("0 of 6 expired keys of acme were deleted")
    assert "s3:DeleteObject" in answer.json["hint"]
    assert everything(acme) == before
    told = here.run("cleanup", "--customer", "acme", "--confirm").out
    assert "the customer" in told
    assert "cleaned" not in told
    (status,) = here.run("status", "--json").json["customers"]
    assert (status["status"], [care["cause"] for care in status["warnings"]]) == (
        "attention",
        ["access_denied"],
    )
    set_permission_policy(acme, permission_policy(acme))
    assert cleaned(here, "--confirm").json["outcome"] == "cleaned"
    (status,) = here.run("status", "--json").json["customers"]
    assert (status["status"], status["warnings"]) == ("healthy", [])


def test_what_expired_goes_and_not_one_byte_of_theirs_is_touched(project: Make, acme: CustomerSetup) -> None:
    here = delivered(project, acme)
    for key, data in THEIRS.items():
        bucket.put_object(acme, key, data)
    overwritten, missing = f"{BASE}2020/01/02/a.csv", f"{BASE}2020/01/02/b1.csv"
    bucket.put_object(acme, overwritten, b"their words under our key")
    bucket.delete_object(acme, missing)
    before = everything(acme)

    dry = cleaned(here, "--dry-run")
    assert (dry.code, dry.json["outcome"]) == (0, "dry_run"), dry.err
    first = cleaned(here)
    assert (first.code, first.json["outcome"], first.json["cause"]) == (
        2,
        "unconfirmed",
        "needs_confirmation",
    )
    assert "--confirm" in first.json["hint"]
    assert everything(acme) == before

    answer = cleaned(here, "--confirm", "--by", "alice")
    assert (answer.code, answer.json["outcome"]) == (0, "cleaned"), answer.err
    assert answer.json["expiring"] == dry.json["expiring"] == first.json["expiring"]
    ours = {f"{BASE}{day}/{name}" for day in DAYS[:3] for name in ("a.csv", "b1.csv", "c2.csv")}
    gone = (ours | {manifest(day) for day in DAYS[:3]}) - {overwritten}
    assert everything(acme) == {key: data for key, data in before.items() if key not in gone}
    assert answer.json["removed"]["deleted"]["keys"] == len(gone - {missing})
    assert {item["key"]: item["outcome"] for item in answer.json["left"]} == {
        overwritten: "changed",
        missing: "gone",
    }
    assert answer.json["stay"] == {"newest": 1}
    (finished,) = [event for event in answer.events if event["event"] == "cleanup.finished"]
    assert finished["act"] == answer.json["operation"]

    again = cleaned(here)
    assert (again.code, again.json["outcome"]) == (0, "nothing")
    listed = here.run("list", "--customer", "acme", "--json")
    assert listed.json["counts"]["missing"] == 0
    run = here.deliver("acme", "--since", "2020-01-01")
    assert {one["outcome"] for one in run.json["deliveries"]} == {"skipped"}


def test_no_policy_removes_nothing_and_a_hold_keeps(project: Make, acme: CustomerSetup) -> None:
    here = delivered(project, acme, retention=None)
    before = bucket.list_keys(acme)
    free = cleaned(here, "--confirm")
    assert (free.code, free.json["stay"]) == (0, {"no_policy": 4})
    assert bucket.list_keys(acme) == before
    customer = here.directory / "customers" / "acme.yaml"
    said = "retention: {keep_last: 1}\nhold: [us-daily/2020-01-01]"
    customer.write_text(customer.read_text().replace("retention: null", said))
    assert cleaned(here, "--confirm").json["stay"] == {"held": 1, "newest": 1}
    left = {f"{BASE}{day}/{name}" for day in (DAYS[0], DAYS[3]) for name in ("a.csv", "b1.csv", "c2.csv")}
    assert set(bucket.list_keys(acme)) == left | {manifest(DAYS[0]), manifest(DAYS[3])}


def test_a_versioned_bucket_frees_nothing_and_says_so(project: Make, acme: CustomerSetup) -> None:
    versioning = {"Status": "Enabled"}
    owner(acme, "s3").put_bucket_versioning(Bucket=acme.bucket, VersioningConfiguration=versioning)
    here = delivered(project, acme)
    told = here.run("cleanup", "--customer", "acme", "--confirm")
    assert told.code == 0, told.err
    assert "still stored at the customer's cost" in " ".join(told.out.split())
    rule = json.loads(told.out[told.out.index("{") :])
    assert rule["Rules"][0]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    owner(acme, "s3").put_bucket_lifecycle_configuration(Bucket=acme.bucket, LifecycleConfiguration=rule)
    assert len(bucket.list_keys(acme)) == 4
    kept = [key for key, _, marker in bucket.list_versions(acme) if not marker]
    assert len(kept) == 16


def test_stopped_and_killed_cleanups_are_resumed(project: Make, acme: CustomerSetup) -> None:
    here = delivered(project, acme, files=12)
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = here.start("cleanup", "--customer", "acme", "--confirm", "--json")
        while process.poll() is None and not _was_removed(here):
            time.sleep(0.005)
        process.send_signal(number)
        process.communicate(timeout=300)
    last = cleaned(here, "--confirm")
    assert last.json["outcome"] in ("cleaned", "nothing"), last.err
    assert len(bucket.list_keys(acme)) == 13
    assert here.run("list", "--customer", "acme", "--json").json["counts"]["missing"] == 0


def _was_removed(here: "Project") -> bool:  # noqa: F821
    import sqlite3

    with sqlite3.connect(here.directory / "var" / "ledger.db") as connection:
        (count,) = connection.execute("SELECT count(*) FROM removals WHERE outcome = 'deleted'").fetchone()
    connection.close()
    return bool(count)


def test_mistakes_on_the_command_line(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    assert here.run("cleanup", "--customer", "nobody").code == 2
    assert here.run("cleanup", "--customer", "acme", "--feed", "us-dayly").code == 2
    assert here.run("cleanup", "--customer", "acme", "--dry-run", "--confirm").code == 2
    quiet = here.run("cleanup", "--customer", "acme", "--json", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert (quiet.code, quiet.json["outcome"]) == (0, "nothing")
