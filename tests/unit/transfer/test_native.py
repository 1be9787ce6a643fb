"""Native manifests in the life of a period: deliveries, corrections, crashes, recalls and cleanups, against
buckets in memory with a real ledger."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Fault, MemoryClock, StoredVersion
from tests.faults.conftest import Power, PowerCutError
from tests.unit.upkeep.test_recall import DAY, FEED, NOW, SECRET, World
from xmode_transfer.aws.stores import Reader
from xmode_transfer.config import Limits
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.upkeep import DiscrepancyKind, Scope
from xmode_transfer.upkeep.adopt import adopt
from xmode_transfer.upkeep.cleanup import cleanup
from xmode_transfer.upkeep.listing import Listing, Standing
from xmode_transfer.upkeep.repair import repair
from xmode_transfer.upkeep.verify import Verification

ROOT = "xmode/us-daily/"
SYMLINK = f"{ROOT}_symlink/2026/11/20/manifest"
DROPPED = "xmode/drops/_symlink/manifest"
BOTH = {"manifests": ["redshift", "symlink"]}


def redshift(revision: int) -> str:
    return f"{ROOT}_redshift/{DAY}/{revision:06d}.json"


class Native(World):
    def lines(self, key: str = SYMLINK) -> list[str]:
        found = self.bucket().contents()[key].decode().splitlines()
        return [line.removeprefix("s3://acme-data/") for line in found]

    def entries(self, revision: int) -> list[tuple[str, int]]:
        found = json.loads(self.bucket().contents()[redshift(revision)])["entries"]
        assert all(entry["mandatory"] is True for entry in found)
        return [
            (entry["url"].removeprefix("s3://acme-data/"), entry["meta"]["content_length"]) for entry in found
        ]

    def check(self) -> None:
        """The native manifests list what the newest manifest lists, and only what is there."""
        super().check()
        contents = self.bucket().contents()
        for key, body in contents.items():
            if "/_redshift/" in key:
                urls = [entry["url"] for entry in json.loads(body)["entries"]]
                assert all(url.removeprefix("s3://acme-data/") in contents for url in urls), key
        daily = [item for item in self.manifests().values() if item["feed"] == "us-daily"]
        if daily:
            last = max(daily, key=lambda item: int(item["revision"]))
            assert (last["symlink"], last["redshift"]) == (SYMLINK, redshift(last["revision"]))
            assert self.lines() == [item["key"] for item in last["objects"]]
            assert self.entries(last["revision"]) == [(item["key"], item["size"]) for item in last["objects"]]

    def verify(self, **how: Any) -> dict[str, DiscrepancyKind]:
        reader = Reader(self.customer("acme"), Limits(), self.clock, self.stop)
        work = Verification(self.context, self.customer("acme"), Scope(), reader, **how)
        return {finding.known.key: finding.kind for _, finding in work if finding}

    def repair(self) -> Any:
        reader = Reader(self.customer("acme"), Limits(), self.clock, self.stop)
        work = Verification(self.context, self.customer("acme"), Scope(), reader)
        findings = [finding for _, finding in work if finding]
        self.clock.advance(60)
        return repair(self.context, self.configuration, self.customer("acme"), findings, by="alice")

    def standings(self) -> dict[str, Standing]:
        feeds = self.configuration.feeds
        return {item.key: item.standing for item in Listing(self.context, self.customer("acme"), feeds)}

    def clean(self, **policy: Any) -> Any:
        self.clock.advance(60)
        self.settings["acme"]["retention"] = policy
        return cleanup(self.context, self.configuration, "acme", by="alice", confirmed=True)

    def theirs(self, key: str, data: bytes) -> None:
        version = StoredVersion(key, None, self.clock.now(), body=data, etag=f'"{data.hex()}"')
        self.bucket().store(version)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Native]:
    clock = MemoryClock(NOW)
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    made = Native(
        ledger, clock, tmp_path / "recall.jsonl", {"acme": {"feeds": {"us-daily": BOTH, "drops": BOTH}}}
    )
    for name, data in (("a.csv", b"aaa"), ("b.csv", SECRET), ("c.csv", b"ccc")):
        made.write(name, data)
    made.declare("1")
    assert [item.outcome for item in made.run()] == ["delivered"]
    yield made
    made.ledger.close()


def correct(world: Native, data: bytes = b"bbb", marker: str = "2") -> None:
    world.write("b.csv", data)
    world.declare(marker)


def test_both_list_what_ours_lists_and_are_named_in_it(world: Native) -> None:
    world.check()
    assert world.lines() == [f"{ROOT}2026/11/20/{name}.csv" for name in "abc"]
    assert world.verify() == world.verify(deep=True) == {}
    standings = world.standings()
    assert standings[SYMLINK] == standings[redshift(1)] == Standing.MANIFEST
    assert Standing.UNMANAGED not in standings.values()


def test_a_correction_replaces_the_symlink_file_by_one_put(world: Native) -> None:
    before = world.bucket().contents()
    puts: list[str] = []

    def note(operation: str, key: str, attempt: int) -> None:
        if operation == "put":
            puts.append(key)

    world.faults = note
    correct(world)
    assert world.run()[0].revision == 2
    world.check()
    manifest = f"{ROOT}_manifests/{DAY}/000002.json"
    assert puts == [f"{ROOT}2026/11/20/_r2/b.csv", redshift(2), SYMLINK, manifest]
    after = world.bucket().contents()
    assert {key for key in before if before[key] != after[key]} == {SYMLINK}
    assert world.verify() == {}


def test_in_a_versioned_bucket_only_the_symlink_file_has_several_versions(world: Native) -> None:
    world.bucket().versioned = True
    for number in (2, 3):
        correct(world, f"{number}".encode(), f"{number}")
        world.run()
    world.check()
    several = [key for key in world.bucket().contents() if len(world.bucket().versions(key)) > 1]
    assert several == [SYMLINK]


def test_a_feed_that_stops_to_ask_for_them_keeps_those_that_it_has_right(world: Native) -> None:
    world.settings["acme"]["feeds"] = {"us-daily": {"manifests": []}}
    correct(world)
    world.run()
    world.check()


def test_what_the_customer_has_written_over_the_symlink_file_is_a_conflict(world: Native) -> None:
    world.theirs(SYMLINK, b"mine")
    assert world.verify() == {SYMLINK: DiscrepancyKind.ALTERED}
    assert world.standings()[SYMLINK] == Standing.CHANGED
    correct(world)
    (outcome,) = world.run()
    assert outcome.failure is not None
    assert (outcome.failure.cause, outcome.failure.responsible) == ("object_exists", "customer")
    assert SYMLINK in outcome.failure.message
    assert world.bucket().contents()[SYMLINK] == b"mine"
    assert max(world.manifests()) == 1
    world.bucket().remove(SYMLINK, world.clock.now())
    world.clock.advance(86400)
    world.run()
    world.check()


@pytest.mark.parametrize("key", [SYMLINK, redshift(2)])
def test_a_put_of_which_the_answer_was_lost_has_succeeded(world: Native, key: str) -> None:
    world.faults = lambda operation, asked, attempt: (
        Fault.LOSE_ANSWER if (operation, asked, attempt) == ("put", key, 1 + (key == SYMLINK)) else None
    )
    correct(world)
    lost = world.run()[0]
    assert lost.outcome != "delivered"
    world.faults = None
    world.clock.advance(86400)
    assert world.run()[0].revision == 2
    world.check()
    assert world.verify() == {}


def test_what_the_customer_has_deleted_is_put_again_by_a_repair(world: Native) -> None:
    world.bucket().remove(SYMLINK, world.clock.now())
    world.bucket().remove(redshift(1), world.clock.now())
    assert set(world.verify().values()) == {DiscrepancyKind.MISSING}
    assert world.repair().outcome == "repaired"
    world.check()
    assert world.verify() == {}


def test_the_repair_of_an_older_revision_leaves_the_symlink_file(world: Native) -> None:
    correct(world)
    world.run()
    world.bucket().remove(redshift(1), world.clock.now())
    assert world.repair().outcome == "repaired"
    assert redshift(1) in world.bucket().contents()
    world.check()


def test_a_cleanup_of_the_period_takes_them(world: Native) -> None:
    world.write("a.csv", b"next", "2026-11-21")
    world.declare("1", "2026-11-21")
    world.run("2026-11-21")
    world.clock.advance(90 * 86400)
    assert world.clean(keep_last=1).outcome == "cleaned"
    left = world.bucket().contents()
    assert {key.split("/")[2] for key in left} == {"2026", "_manifests", "_redshift", "_symlink"}
    assert not [key for key in left if DAY in key or "11/20" in key]
    assert world.verify() == {}


def test_a_cleanup_leaves_what_the_customer_has_changed(world: Native) -> None:
    world.write("a.csv", b"next", "2026-11-21")
    world.declare("1", "2026-11-21")
    world.run("2026-11-21")
    world.theirs(SYMLINK, b"mine")
    world.clock.advance(90 * 86400)
    before = world.bucket().contents()
    world.clean(keep_last=1)
    after = world.bucket().contents()
    assert after[SYMLINK] == b"mine"
    assert before.keys() - after.keys() == {redshift(1), f"{ROOT}_manifests/{DAY}/000001.json"}


def test_a_recall_leaves_none_that_names_what_is_withdrawn(world: Native) -> None:
    world.recall("b.csv")
    assert redshift(1) not in world.bucket().contents()
    assert world.lines() == [f"{ROOT}2026/11/20/{name}.csv" for name in "ac"]
    assert world.verify() == {}


def test_a_period_that_becomes_empty_has_an_empty_symlink_file(world: Native) -> None:
    world.recall()
    assert world.bucket().contents()[SYMLINK] == b""
    assert world.entries(2) == []
    assert world.verify() == {}


def test_a_recall_from_a_feed_that_is_gone_keeps_the_symlink_file_right(
    world: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.recalled("b.csv")
    configuration = world.configuration
    del configuration.feeds["us-daily"]
    monkeypatch.setattr(Native, "configuration", configuration)
    world.carry_out(made)
    world.check()
    assert world.lines() == [f"{ROOT}2026/11/20/{name}.csv" for name in "ac"]


def test_a_drop_folder_lists_each_file_once(world: Native) -> None:
    for name, data in (("x", b"1"), ("y", b"2")):
        world.write(name, data, None)
    world.run(None)
    world.write("x", b"new", None)
    world.write("z", b"3", None)
    world.run(None)
    assert world.lines(DROPPED) == [f"xmode/drops/{name}" for name in ("_r2/x", "y", "z")]
    found = json.loads(world.bucket().contents()["xmode/drops/_redshift/none/000002.json"])
    assert [entry["url"].rpartition("/")[2] for entry in found["entries"]] == ["x", "z"]
    world.recall("y", day=None)
    assert world.lines(DROPPED) == [f"xmode/drops/{name}" for name in ("_r2/x", "z")]
    assert world.verify() == {}


def test_a_cleanup_takes_expired_objects_out_of_a_drop_folders_list_before_they_go(world: Native) -> None:
    world.write("x", b"1", None)
    world.write("y", b"2", None)
    world.run(None)
    world.clock.advance(90 * 86400)
    world.write("z", b"3", None)
    world.run(None)

    def look(operation: str, key: str, attempt: int) -> None:
        if operation.startswith("delete"):
            assert world.lines(DROPPED) == ["xmode/drops/z"]

    world.faults = look
    assert world.clean(days=30).outcome == "cleaned"
    assert not {"xmode/drops/x", "xmode/drops/y"} & world.bucket().contents().keys()
    assert world.lines(DROPPED) == ["xmode/drops/z"]
    assert world.verify() == {}


def test_a_lost_ledger_is_rebuilt_with_them(world: Native, tmp_path: Path) -> None:
    correct(world)
    world.run()
    known = world.ledger.native.find("acme", "us-daily", DAY)
    world.ledger.close()
    world.ledger = open_ledger(f"sqlite:///{tmp_path}/another.db", world.clock)
    world.clock.advance(60)
    customer = world.customer("acme")
    reader = Reader(customer, Limits(), world.clock, world.stop)
    adopt(world.context, world.configuration, customer, Scope(), reader, by="alice")
    found = world.ledger.native.find("acme", "us-daily", DAY)
    assert [item[:-1] for item in found] == [item[:-1] for item in known]
    assert world.verify() == {}
    correct(world, b"again", "3")
    world.run()
    world.check()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_the_next_run_ends_whole(world: Native, after: bool) -> None:
    """The source changes once more in the meantime, so that what was put may be superseded."""
    period = Period.parse(DAY, PeriodKind.DAY)
    customer = world.customer("acme")
    at = 12 + after
    while True:
        correct(world, f"{at}".encode(), f"{at}")
        power = Power(at, after=after)
        ledger, stores = world.ledger, world.stores
        world.ledger, world.stores = power.adapter(ledger), power.stores(stores)
        world.clock.advance(120)
        state = world.sources["us-daily"].state(period)
        assert state is not None
        with suppress(PowerCutError):
            deliver(world.context, customer, FEED, state)
        world.ledger, world.stores = ledger, stores
        contents = world.bucket().contents()
        assert set(world.lines()) <= contents.keys()
        world.clock.advance(120)
        if at % 3:
            correct(world, f"changed {at}".encode(), f"changed {at}")
        for _ in range(3):
            world.clock.advance(86400)
            outcome = world.run()[0].outcome
            if outcome in ("delivered", "skipped"):
                break
        assert outcome in ("delivered", "skipped")
        world.check()
        assert world.verify() == {}
        # Our own manifest of a revision that was superseded after it was put is in no delivery.
        found = {key: how for key, how in world.standings().items() if "/_manifests/" not in key}
        assert set(found.values()) <= {Standing.OURS, Standing.MANIFEST}
        if not power.off:
            break
        at += 19
    assert at > 20
