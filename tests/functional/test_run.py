"""`xmode-transfer run` against the local AWS, with the guide's documents unchanged."""

import json
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from random import Random

import pytest

from tests import bucket
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.model import DEFAULT_FEEDS, CustomerSetup, Variant
from xmode_transfer.telemetry import SystemClock

pytestmark = pytest.mark.sandbox

DAY = "2026/11/22"
MANIFEST = "xmode/us-daily/_manifests/2026-11-22/{:06d}.json"
AWKWARD = (
    "a b.csv",
    "é à ü.csv",
    "a+b.csv",
    "a&b=c;d.csv",
    "per%20cent.csv",
    "q?uestion.csv",
    "ti~lde'quote(1).csv",
    "#hash@at$.csv",
    "sub dir/ünï/日本.csv",
)
Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import


def fill(project, files: dict[str, bytes], day: str = DAY) -> None:
    for name, data in files.items():
        project.write(f"{day}/{name}", data)
    project.write(f"{day}/_SUCCESS", b"")


def sixty_files() -> dict[str, bytes]:
    random = Random(2)
    files = {name: random.randbytes(random.randrange(1, 40_000)) for name in AWKWARD}
    files["empty.csv"] = b""
    files["large.bin"] = random.randbytes(30_000_000)
    while len(files) < 60:
        files[f"part-{len(files):03}.csv"] = random.randbytes(random.randrange(1, 40_000))
    return files


def test_sixty_files_arrive_byte_identical_and_only_once(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    files = sixty_files()
    fill(here, files)

    first = here.deliver()
    assert first.code == 0, first.err
    (delivery,) = first.json["deliveries"]
    assert (delivery["outcome"], delivery["uploaded"], delivery["failed"]) == ("delivered", 60, 0)
    assert delivery["bytes"] == sum(map(len, files.values()))
    assert delivery["manifest_key"] == MANIFEST.format(1)

    keys = {f"xmode/us-daily/{DAY}/{name}": data for name, data in files.items()}
    assert set(bucket.list_keys(acme)) == {*keys, MANIFEST.format(1)}
    for key, data in keys.items():
        assert bucket.read_object(acme, key) == data, key
    manifest = json.loads(bucket.read_object(acme, MANIFEST.format(1)))
    assert {item["key"]: item["size"] for item in manifest["objects"]} == {k: len(v) for k, v in keys.items()}
    assert (manifest["count"], manifest["bytes"]) == (60, delivery["bytes"])

    second = here.deliver()
    assert (second.code, second.json["deliveries"], second.json["outcome"]) == (0, [], "skipped")
    named = here.deliver("acme", "--period", "2026-11-22")
    (again,) = named.json["deliveries"]
    assert (again["uploaded"], again["skipped"], again["outcome"]) == (0, 60, "skipped")
    assert len(bucket.list_keys(acme)) == 61


def test_objects_belong_to_the_customer_and_name_their_delivery(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"1"})
    here.deliver()
    key = f"xmode/us-daily/{DAY}/a.csv"
    head = bucket.head_object(acme, key)
    manifest = json.loads(bucket.read_object(acme, MANIFEST.format(1)))
    assert head is not None
    assert head.metadata["xmode-delivery"] == manifest["delivery"]
    assert {grant["Permission"] for grant in bucket.object_acl(acme, key)} == {"FULL_CONTROL"}


@pytest.mark.parametrize("variant", [Variant.NO_ROLE, Variant.WRONG_EXTERNAL_ID])
def test_a_role_that_refuses_us_blocks_with_what_the_customer_must_do(
    project: Make, customer_factory: Callable[..., CustomerSetup], variant: Variant
) -> None:
    customer = customer_factory("initech", variant)
    here = project(customer)
    fill(here, {"a.csv": b"1"})
    answer = here.deliver("initech")
    assert answer.code == 4
    (delivery,) = answer.json["deliveries"]
    assert (delivery["outcome"], delivery["cause"], delivery["responsible"]) == (
        "blocked",
        "role_refused",
        "customer",
    )
    assert customer.external_id in delivery["hint"] + delivery["message"]
    assert bucket.list_keys(customer) == []
    told = here.run("run", "--customer", "initech")
    assert told.code == 4
    assert "responsible " in told.out
    assert "the customer" in told.out


def test_a_mended_role_drains_in_order_without_further_ado(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    bucket.delete_role(acme)
    for day in ("2026/11/20", "2026/11/21"):
        fill(here, {"a.csv": day.encode()}, day)
    blocked = here.deliver()
    assert blocked.code == 4
    assert [d["period"] for d in blocked.json["deliveries"]] == ["2026-11-20"]  # the next would meet the same
    accounts.restore_role(acme)
    answer = here.deliver()
    assert answer.code == 0, answer.err
    assert [d["period"] for d in answer.json["deliveries"]] == ["2026-11-20", "2026-11-21"]


def test_another_customers_bucket_takes_nothing(
    project: Make, acme: CustomerSetup, globex: CustomerSetup
) -> None:
    here = project(acme, overrides={"acme": {"destination": {"bucket": globex.bucket}}})
    fill(here, {"a.csv": b"1", "b.csv": b"2"})
    answer = here.deliver()
    assert answer.code == 4
    (delivery,) = answer.json["deliveries"]
    assert (delivery["cause"], delivery["responsible"]) == ("access_denied", "customer")
    assert bucket.list_keys(globex) == []
    assert bucket.list_keys(acme) == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
        ({"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}, "access key"),
    ],
)
def test_wrong_credentials_of_ours_are_one_message_and_touch_nobody(
    project: Make, acme: CustomerSetup, globex: CustomerSetup, environment: dict[str, str], words: str
) -> None:
    here = project(acme, globex)
    fill(here, {"a.csv": b"1"})
    answer = here.run("run", "--all", **environment)
    assert answer.code == 3
    told = [line for line in answer.err.splitlines() if not line.startswith("{")]
    assert sum("responsible " in line for line in told) == 1, answer.err
    assert words in answer.err
    assert "EXAMPLE" not in answer.out + answer.err
    as_json = here.run("run", "--all", "--json", **environment)
    assert as_json.json["error"]["cause"] == "vendor_identity"
    assert bucket.list_keys(acme) == []


def test_one_customers_trouble_does_not_stop_the_rest(
    project: Make, acme: CustomerSetup, customer_factory: Callable[..., CustomerSetup]
) -> None:
    initech = customer_factory("initech", Variant.NO_ROLE)
    hooli = customer_factory("hooli")
    here = project(initech, hooli, acme)
    (here.directory / "customers" / "hooli.yaml").write_text("company: Hooli\nroll_arn: x\n")
    fill(here, {"a.csv": b"1"})
    answer = here.run("run", "--all", "--json")
    outcomes = {c["customer"]: c["outcome"] for c in answer.json["customers"]}
    assert outcomes == {"acme": "delivered", "initech": "blocked", "hooli": "failed"}
    assert answer.code == 2
    assert len(bucket.list_keys(acme)) == 2


def test_a_period_waits_for_its_marker(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    here.write(f"{DAY}/a.csv", b"1")
    waiting = here.deliver()
    assert (waiting.code, waiting.json["deliveries"]) == (0, [])
    assert waiting.json["waiting"][0]["period"] == "2026-11-22"
    assert "_SUCCESS" in waiting.json["waiting"][0]["reason"]
    assert here.deliver("acme", "--period", "2026-11-22").code == 3
    fill(here, {})
    assert here.deliver().json["outcome"] == "delivered"


def test_a_correction_is_a_new_revision_beside_the_old_one(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"old", "b.csv": b"same"})
    here.deliver()
    time.sleep(0.02)  # so that the marker's time differs
    fill(here, {"a.csv": b"newer", "c.csv": b"late"})
    answer = here.deliver()
    (delivery,) = answer.json["deliveries"]
    assert (delivery["revision"], delivery["uploaded"], delivery["skipped"]) == (2, 2, 1)
    manifest = json.loads(bucket.read_object(acme, MANIFEST.format(2)))
    found = {item["source"]: bucket.read_object(acme, item["key"]) for item in manifest["objects"]}
    assert found == {f"{DAY}/a.csv": b"newer", f"{DAY}/b.csv": b"same", f"{DAY}/c.csv": b"late"}
    assert bucket.read_object(acme, f"xmode/us-daily/{DAY}/a.csv") == b"old"
    assert len(bucket.list_versions(acme)) == len(bucket.list_keys(acme)) == 6


def test_touching_the_source_is_no_correction(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"1"})
    here.deliver()
    time.sleep(0.02)
    fill(here, {"a.csv": b"1"})
    answer = here.deliver()
    assert answer.json["outcome"] == "skipped"
    assert len(bucket.list_keys(acme)) == 2


def test_a_drop_folder_delivers_each_file_once(project: Make, acme: CustomerSetup) -> None:
    drops = {"source": "exports/drops", "period": "none", "complete": {"settle_seconds": 0}}
    here = project(acme, feeds={"drops": drops})
    here.write("one.bin", b"1", feed="drops")
    assert here.deliver().json["deliveries"][0]["uploaded"] == 1
    assert here.deliver().json["outcome"] == "skipped"
    here.write("deep/two.bin", b"2", feed="drops")
    (delivery,) = here.deliver().json["deliveries"]
    assert (delivery["revision"], delivery["uploaded"], delivery["skipped"]) == (2, 1, 1)
    manifest = json.loads(bucket.read_object(acme, "xmode/drops/_manifests/none/000002.json"))
    assert [item["key"] for item in manifest["objects"]] == ["xmode/drops/deep/two.bin"]


def test_something_of_the_customers_under_our_key_is_never_touched(
    project: Make, acme: CustomerSetup
) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"ours", "b.csv": b"fine"})
    here.write("2026/11/23/c.csv", b"of another day")
    here.write("2026/11/23/_SUCCESS", b"")
    bucket.put_object(acme, f"xmode/us-daily/{DAY}/a.csv", b"theirs")
    answer = here.deliver()
    assert (answer.code, answer.json["outcome"]) == (4, "blocked")
    delivery, other = answer.json["deliveries"]
    assert (delivery["outcome"], other["outcome"]) == ("blocked", "delivered")
    assert (delivery["uploaded"], delivery["failed"]) == (1, 1)
    assert [f["name"] for f in delivery["files"]] == [f"{DAY}/a.csv"]
    assert delivery["files"][0]["code"] == "object_exists"
    assert (delivery["cause"], delivery["responsible"]) == ("incomplete", "customer")
    assert "ask the customer" in delivery["hint"]
    assert bucket.read_object(acme, f"xmode/us-daily/{DAY}/a.csv") == b"theirs"
    assert MANIFEST.format(1) not in bucket.list_keys(acme)


def test_a_file_that_only_parts_could_carry_waits_for_the_customer(
    project: Make, acme: CustomerSetup
) -> None:
    """The guide's role takes no parts, in the sandbox: `check-access` calls that the customer's, and so does
    the delivery. What is smaller goes."""
    here = project(acme)
    fill(here, {"small.csv": b"1"})
    with (here.source() / DAY / "huge.csv").open("wb") as file:
        file.truncate(6 * 1024**3)  # sparse
    answer = here.deliver()
    assert answer.code == 4, answer.err
    (delivery,) = answer.json["deliveries"]
    assert (delivery["outcome"], delivery["responsible"]) == ("blocked", "customer")
    assert (delivery["uploaded"], delivery["failed"]) == (1, 1)
    (failed,) = delivery["files"]
    assert (failed["name"], failed["code"]) == (f"{DAY}/huge.csv", "multipart_denied")
    assert "xmode-transfer check-access" in delivery["hint"]
    assert f"xmode/us-daily/{DAY}/small.csv" in bucket.list_keys(acme)


def test_files_that_cannot_go_are_named_and_the_rest_goes_on(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"1"})
    outside = here.directory / "secret.txt"
    outside.write_text("not yours")
    (here.source() / DAY / "link.csv").symlink_to(outside)
    (here.source() / DAY / "line\nbreak.csv").write_bytes(b"2")
    answer = here.deliver()
    assert answer.code == 3
    (delivery,) = answer.json["deliveries"]
    assert (delivery["outcome"], delivery["uploaded"], delivery["failed"]) == ("failed", 1, 2)
    names = " ".join(file["name"] for file in delivery["files"])
    assert "link.csv" in names
    assert "break.csv" in names
    assert bucket.list_keys(acme) == [f"xmode/us-daily/{DAY}/a.csv"]
    assert delivery["message"].startswith("2 of 3 files could not be delivered")
    (again,) = here.deliver().json["deliveries"]  # what is there already is of the delivery, too
    assert again["message"].startswith("2 of 3 files could not be delivered")
    (here.source() / DAY / "link.csv").unlink()
    (here.source() / DAY / "line\nbreak.csv").unlink()
    mended = here.deliver()
    assert (mended.code, mended.json["outcome"]) == (0, "delivered")


def test_a_dry_run_shows_the_plan_and_writes_nothing(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {"a.csv": b"123"})
    answer = here.deliver("acme", "--dry-run")
    assert answer.code == 0
    (delivery,) = answer.json["deliveries"]
    assert delivery["plan"] == [
        {
            "action": "upload",
            "name": f"{DAY}/a.csv",
            "size": 3,
            "key": f"xmode/us-daily/{DAY}/a.csv",
            "reason": "new",
        }
    ]
    assert bucket.list_keys(acme) == []
    assert here.deliver().json["deliveries"][0]["uploaded"] == 1


def test_two_runs_at_once_the_second_answers_already_running(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {f"{n:04}.csv": b"x" * 1000 for n in range(100)})
    with here.slowed_down(300):  # it would take five minutes
        first = here.start("run", "--customer", "acme", "--json")
        wait_for_objects(acme, 1)
        second = here.deliver()
        assert second.code == 5, (second.out, second.err)
        assert second.json["deliveries"][0]["cause"] == "already_running"
        assert first.poll() is None
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=300)
    assert first.returncode == 130, err
    sent = json.loads(out)["deliveries"][0]["uploaded"]
    third = here.deliver().json["deliveries"][0]
    assert (third["outcome"], sent + third["uploaded"]) == ("delivered", 100)
    assert len(bucket.list_versions(acme)) == 101


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    fill(here, {f"{n:04}.csv": b"x" * 1000 for n in range(100)})
    with here.slowed_down(5_000):
        first = here.start("run", "--customer", "acme", "--json")
        wait_for_objects(acme, 20)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=300)
    assert first.returncode == 130, err
    stopped = json.loads(out)["deliveries"][0]
    assert stopped["outcome"] == "interrupted"
    assert 0 < stopped["uploaded"] < 100
    assert MANIFEST.format(1) not in bucket.list_keys(acme)
    second = here.deliver().json["deliveries"][0]
    assert (second["outcome"], second["uploaded"]) == ("delivered", 100 - stopped["uploaded"])
    assert len(bucket.list_versions(acme)) == 101


def wait_for_objects(customer: CustomerSetup, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(bucket.list_keys(customer)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run",), "--customer"),
        (("run", "--customer", "nobody"), "there is no customer nobody"),
        (("run", "--customer", "acme", "--feed", "x"), "does not subscribe"),
        (("run", "--customer", "acme", "--period", "2026-13-01"), "write it like 2026-11-22"),
        (("run", "--customer", "acme", "--period", "2026-11-01", "--since", "2026-11-01"), "use either"),
        (("run", "--all", "--since", "2026-11-02", "--until", "2026-11-01"), "swap the two"),
        (("verify", "--customer", "acme", "--since", "2026-11", "--until", "2026-10"), "swap the two"),
    ],
)
def test_bad_usage_says_what_to_do(
    project: Make, acme: CustomerSetup, arguments: tuple[str, ...], words: str
) -> None:
    answer = project(acme).run(*arguments)
    assert answer.code == 2
    assert words in answer.err


def test_a_role_that_anybody_could_have_us_assume_can_be_set_to_stop(
    project: Make, acme: CustomerSetup
) -> None:
    here = project(acme, service={"unsafe_roles": "stop"})
    fill(here, {"a.csv": b"1"})
    trust = accounts.trust_policy(acme)
    statement = dict(trust["Statement"])
    del statement["Condition"]
    accounts.set_trust_policy(acme, {**trust, "Statement": statement})
    assert here.run("check-access", "--customer", "acme").code == 4
    blocked = here.deliver()
    assert blocked.code == 4
    assert blocked.json["deliveries"][0]["cause"] == "unsafe_role"
    assert bucket.list_keys(acme, "xmode/us-daily/") == []
    accounts.set_trust_policy(acme, trust)
    assert here.run("check-access", "--customer", "acme").code == 0
    assert here.deliver().json["outcome"] == "delivered"


# --- Names and paths that stand in the way ---------------------------------------------------------------


def days(count: int) -> list[str]:
    """The last days, oldest first, as directories."""
    today = SystemClock().now()
    return [f"{today - timedelta(days=back):%Y/%m/%d}" for back in reversed(range(count))]


def test_a_name_that_no_key_can_carry_is_told_and_holds_up_nothing_else(
    project: Make, acme: CustomerSetup
) -> None:
    drops = {"source": "exports/drops", "period": "none", "complete": {"settle_seconds": 0}}
    here = project(acme, feeds={**DEFAULT_FEEDS, "drops": drops})
    first, second = days(2)
    # What people are shown of these is in another order than they are: \t and bytes become \x...
    fill(here, dict.fromkeys(("a\tb.csv", "a b.csv", "\udcff.csv", "\xe9.csv", "\udce9.csv"), b"1"), first)
    fill(here, {"a.csv": b"2"}, second)
    here.write("late.csv", b"3", "drops")

    answer = here.deliver()
    assert answer.code == 3
    drop, bad, good = sorted(answer.json["deliveries"], key=lambda one: (one["feed"], one["period"]))
    assert (drop["outcome"], good["outcome"], good["uploaded"]) == ("delivered", "delivered", 1)
    assert (bad["outcome"], bad["cause"], bad["uploaded"], bad["failed"]) == ("failed", "incomplete", 2, 3)
    assert [(file["name"], file["code"]) for file in bad["files"]] == [
        (f"{first}/a\\x09b.csv", "name_control_character"),
        (f"{first}/\\xe9.csv", "name_not_utf8"),
        (f"{first}/\\xff.csv", "name_not_utf8"),
    ]
    plan = here.deliver("acme", "--dry-run", "--feed", "us-daily", "--period", first.replace("/", "-")).json[
        "deliveries"
    ][0]["plan"]
    assert [entry["action"] for entry in plan].count("conflict") == 3
    assert "failing" in here.run("status", "--customer", "acme").out


@pytest.mark.parametrize("kind", ["link outside", "link inside", "loop", "file"])
def test_a_year_that_cannot_be_followed_is_seen(project: Make, acme: CustomerSetup, kind: str) -> None:
    here = project(acme)
    year = here.source() / days(1)[0][:4]
    (here.directory / "elsewhere").mkdir()
    (here.source() / "inside").mkdir()
    targets = {"link outside": "../../elsewhere", "link inside": "inside", "loop": year.name}
    if kind == "file":
        year.touch()
    else:
        year.symlink_to(targets[kind])
    codes = {
        "link outside": "link_leaves_root",
        "link inside": "link_to_directory",
        "loop": "link_loop",
        "file": "not_a_directory",
    }

    answer = here.deliver()
    assert (answer.code, answer.json["outcome"], answer.json["waiting"]) == (3, "failed", [])
    (failed,) = answer.json["deliveries"]
    assert (failed["feed"], failed["cause"], failed["responsible"]) == (
        "us-daily",
        "source_partly_unreadable",
        "vendor",
    )
    assert [(file["name"], file["code"]) for file in failed["files"]] == [(f"{year.name}/", codes[kind])]
    if kind != "loop":
        return
    told = here.run("run", "--customer", "acme")
    assert told.code == 3
    assert f"{year.name}/: it is a" in told.out
    assert here.run("run", "--customer", "acme", "--dry-run").code == 3
    status = here.run("status", "--json").json["customers"][0]
    assert (status["status"], status["issues"][0]["cause"]) == ("no-source", "source_partly_unreadable")

    year.unlink()
    fill(here, {"a.csv": b"1"}, days(1)[0])
    assert here.deliver().code == 0
    assert here.run("status", "--json").json["customers"][0]["status"] == "healthy"
