"""A recall over five customers: its notices, its signed report, and what a ledger from before it does."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import StoredVersion
from tests.unit.upkeep.test_recall import BASE, DAY, SECRET, World, empty, fill, make
from xmode_transfer.alerting.notifying import Notices
from xmode_transfer.alerting.watch import assess_all
from xmode_transfer.aws.stores import Reader
from xmode_transfer.config import Limits
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.recall import RecallState
from xmode_transfer.model.upkeep import Removal, RemovalOutcome, Scope
from xmode_transfer.transfer.signing import PublicKey, Signer, new_key, public_key_of, signer_of
from xmode_transfer.upkeep import recall_report
from xmode_transfer.upkeep.adopt import adopt
from xmode_transfer.upkeep.listing import Listing, Standing
from xmode_transfer.upkeep.recall import Plan
from xmode_transfer.upkeep.recall_file import append, synchronise
from xmode_transfer.upkeep.receipts import RECALL_FORMAT, ReceiptFile, ReceiptRefused, check

__all__ = ["empty", "make"]

NAMES = ("blocked", "locked", "plain", "taken", "versions")
KEY = f"xmode/{BASE}b.csv"


@pytest.fixture
def five(make: Callable[..., World]) -> World:
    world = make(settings={name: {} for name in NAMES})
    world.bucket("versions").versioned = True
    fill(world)
    resource = f"arn:aws:s3:::locked-data/{KEY}"
    world.grant("locked", {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": resource})
    world.grant("blocked", external_id="another")
    world.bucket("taken").store(StoredVersion(KEY, None, world.clock.now(), body=b"x", etag='"x"'))
    return world


@pytest.fixture
def signer(tmp_path: Path) -> tuple[Signer, PublicKey]:
    new_key(tmp_path / "key.pem")
    return signer_of((tmp_path / "key.pem").read_text(), "key"), public_key_of(tmp_path / "key.pem.pub")


def notices(world: World, name: str) -> list[Any]:
    contents = world.bucket(name).contents()
    return [json.loads(body) for key, body in contents.items() if key.startswith("xmode/_notices/")]


def assessed(world: World) -> Any:
    return assess_all(world.configuration, world.ledger, world.clock)


def test_a_report_says_what_became_of_each_key(
    five: World, tmp_path: Path, signer: tuple[Signer, PublicKey]
) -> None:
    made = five.recalled("b.csv")
    for name in NAMES:
        five.carry_out(made, name)
    path = reported(five, made, tmp_path, signer[0])
    found = check(path, [signer[1]])
    assert (found.head["recall"], found.head["reason"], found.head["by"]) == (
        made.recall.id,
        "an opt-out",
        "alice",
    )
    assert (found.tail["state"], found.tail["customers"], found.tail["files"]) == ("blocked", 5, 1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ends = {(line["customer"], line["verdict"]) for line in lines if line.get("key") == KEY}
    assert ends == {
        ("blocked", "planned"),
        ("locked", "retained"),
        ("plain", "deleted"),
        ("taken", "changed"),
        ("versions", "hidden"),
    }
    assert all(line["message"] for line in found.findings)
    blocked, *_ = (line for line in lines if line.get("customer") == "blocked")
    assert (blocked["state"], blocked["responsible"], blocked["objects"]) == ("blocked", "customer", 1)


def reported(world: World, made: Plan, directory: Path, signer: Signer) -> Path:
    path = directory / "report"
    with ReceiptFile(path, signer, RECALL_FORMAT) as file:
        recall_report.write(world.context, world.configuration, made.recall, file)
    return path


def test_no_byte_of_a_report_can_be_changed(
    five: World, tmp_path: Path, signer: tuple[Signer, PublicKey]
) -> None:
    made = five.recalled("b.csv", customer="taken")
    five.carry_out(made, "taken")
    path = reported(five, made, tmp_path, signer[0])
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ReceiptRefused):
            check(path, [signer[1]])
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(ReceiptRefused):
            check(path, [signer[1]])


def test_each_customer_gets_one_notice_whatever_it_wants(five: World) -> None:
    five.settings["plain"] = {"state": "retired"}
    made = five.recalled("b.csv")
    for name in NAMES:
        five.carry_out(made, name)
    Notices(five.context).put_withdrawn(five.configuration)
    assert notices(five, "blocked") == []
    (plain,) = notices(five, "plain")
    assert (plain["kind"], plain["revision"], plain["recall"]) == ("withdrawn", 2, made.recall.id)
    assert (plain["keys"], plain["left"], plain["count"]) == ([KEY], [], 1)
    assert plain["manifest"] in five.bucket("plain").contents()
    assert "Delete your own copies" in plain["action"]
    (hidden,) = notices(five, "versions")
    assert hidden["left"] == [KEY]
    assert "with all versions" in hidden["action"]

    # nobody hears of it again, and the blocked customer does when it is done
    five.grant("blocked")
    five.grant("locked")
    for name in ("blocked", "locked"):
        assert five.carry_out(made, name).state is RecallState.DONE
    Notices(five.context).run_once(five.configuration, assessed(five))
    assert [len(notices(five, name)) for name in NAMES] == [1] * 5
    again = five.recalled("a.csv", customer="plain")
    five.carry_out(again, "plain")
    Notices(five.context).run_once(five.configuration, assessed(five))
    assert [item["recall"] for item in notices(five, "plain")] == [made.recall.id, again.recall.id]


def test_two_recalls_of_a_period_are_two_notices(five: World) -> None:
    for pattern in ("a.csv", "b.csv"):
        five.carry_out(five.recalled(pattern, customer="plain"), "plain")
    Notices(five.context).put_withdrawn(five.configuration)
    told = notices(five, "plain")
    assert sorted(item["keys"] for item in told) == [[f"xmode/{BASE}a.csv"], [KEY]]


def test_health_warns_until_the_recall_is_finished(five: World) -> None:
    made = five.recalled("b.csv")
    assert assessed(five).customer("plain").warnings == ()
    five.clock.advance(3601)
    (forgotten,) = assessed(five).customer("plain").warnings
    assert (forgotten.cause, forgotten.responsible) == ("recall_open", Responsible.VENDOR)
    for name in NAMES:
        five.carry_out(made, name)
    health = assessed(five)
    assert health.customer("plain").warnings == health.customer("versions").warnings == ()
    for name in ("blocked", "locked"):
        (warning,) = health.customer(name).warnings
        assert (warning.cause, health.customer(name).health) == ("recall_open", "attention")
        assert made.recall.id in warning.message
    del five.settings["locked"]  # its file is gone, its objects are not
    (orphan,) = assessed(five).warnings
    assert orphan.cause == "recall_open"
    assert "locked" in orphan.message


def test_a_ledger_from_before_the_recall_delivers_nothing_of_it(five: World, tmp_path: Path) -> None:
    older = tmp_path / "older.db"
    five.ledger.prove_writable()
    source = tmp_path / "0.db"
    five.ledger.close()
    shutil.copy(source, older)
    five.ledger = open_ledger(f"sqlite:///{source}", five.clock)
    file = tmp_path / "recalls.jsonl"
    made = five.recalled("b.csv")
    append(file, made.recall, made.files)
    five.carry_out(made, "plain")
    five.ledger.close()

    five.ledger = open_ledger(f"sqlite:///{older}", five.clock)
    synchronise(five.ledger, file, five.clock.now())
    assert {item.customer for item in five.ledger.recalls.progress()} == set(NAMES)
    five.declare("2")
    five.run(DAY, "plain")
    assert SECRET not in five.bucket("plain").contents().values()
    assert five.carry_out(made, "plain").state is RecallState.DONE
    assert SECRET not in five.bucket("plain").contents().values()
    five.check()


def test_a_listing_says_what_is_withdrawn_and_still_there(five: World) -> None:
    five.carry_out(five.recalled("b.csv"), "locked")
    listing = Listing(five.context, five.customer("locked"), five.configuration.feeds)
    standings = {item.key: item.standing for item in listing}
    assert standings.pop(KEY) is Standing.WITHDRAWN
    assert set(standings.values()) == {Standing.OURS, Standing.MANIFEST}


def test_what_is_adopted_and_withdrawn_goes_too(five: World, tmp_path: Path) -> None:
    made = five.recalled("b.csv")
    file = tmp_path / "recalls.jsonl"
    append(file, made.recall, made.files)
    five.ledger.close()
    five.ledger = open_ledger(f"sqlite:///{tmp_path}/lost.db", five.clock)
    synchronise(five.ledger, file, five.clock.now())
    assert five.ledger.recalls.progress() == []
    customer = five.customer("plain")
    reader = Reader(customer, Limits(), five.clock, five.stop)
    adopt(five.context, five.configuration, customer, Scope(), reader, by="alice")
    assert [item.customer for item in five.ledger.recalls.progress()] == ["plain"]
    assert five.carry_out(made, "plain").state is RecallState.DONE
    assert SECRET not in five.bucket("plain").contents().values()
    five.check()


@pytest.mark.parametrize(
    ("outcome", "locked", "ends"),
    [
        (RemovalOutcome.RETAINED, True, "refuses the deletion; locked until 2027-01-02 03:04 UTC"),
        (RemovalOutcome.RETAINED, False, "refuses the deletion; how long is not known"),
        (RemovalOutcome.HIDDEN, True, "the versions below; locked until 2027-01-02 03:04 UTC"),
        (RemovalOutcome.HIDDEN, False, "the versions below"),
    ],
)
def test_a_lock_is_named_where_it_may_be_seen(outcome: RemovalOutcome, locked: bool, ends: str) -> None:
    until = datetime(2027, 1, 2, 3, 4, tzinfo=UTC)
    of = (KEY, "us-daily", DAY, 1, False, 1, '"e"', until, "why", outcome, until)
    assert recall_report.reason_of(Removal(*of, until if locked else None)).endswith(ends)


def test_each_notice_of_two_recalls_names_the_manifest_that_is_there(make: Callable[..., World]) -> None:
    world = make()
    fill(world)
    for pattern in ("a.csv", "b.csv"):
        assert world.carry_out(world.recalled(pattern)).state is RecallState.DONE
    Notices(world.context).put_withdrawn(world.configuration)
    contents = world.bucket().contents()
    bodies = [json.loads(data) for key, data in contents.items() if key.endswith("-withdrawn.json")]
    assert sorted(key for body in bodies for key in body["keys"]) == [
        f"xmode/{BASE}{name}" for name in ("a.csv", "b.csv")
    ]
    for body in bodies:
        assert body["revision"] == 3
        assert body["manifest"] in contents
