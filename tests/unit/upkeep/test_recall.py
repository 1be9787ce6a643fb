"""Recalls against buckets in memory that obey the customers' policies, with a real ledger."""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import (
    Fault,
    MemoryBucket,
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
    StoredVersion,
    uploads,
)
from tests.forms import IS_SOAK
from xmode_transfer.aws.policy.documents import guide_permission_policy, guide_trust_policy
from xmode_transfer.aws.stores import Reader
from xmode_transfer.config import Configuration, Customer, Feed, Limits, Marker, Service, Settled, Vendor
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import ConfigError, RequestRefused
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.recall import RecallProgress, RecallState
from xmode_transfer.model.records import DeliveryOutcome
from xmode_transfer.model.upkeep import DiscrepancyKind, Finding, RemovalOutcome, Scope
from xmode_transfer.transfer.context import Context
from xmode_transfer.upkeep.adopt import adopt
from xmode_transfer.upkeep.cleanup import cleanup
from xmode_transfer.upkeep.listing import Listing, Standing
from xmode_transfer.upkeep.recall import Plan, Request, begin, carry_out, plan
from xmode_transfer.upkeep.repair import repair
from xmode_transfer.upkeep.verify import Verification

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
DAY, NEXT = "2026-11-20", "2026-11-21"
FEED = Feed(
    name="us-daily",
    source="/nowhere",
    period=PeriodKind.DAY,
    partition="%Y/%m/%d",
    complete=Marker(marker="_SUCCESS"),
)
DROPS = Feed(name="drops", source="/nowhere", period=PeriodKind.NONE, complete=Settled(settle_seconds=0))
SECRET = b"a person who opted out"


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


@dataclass
class World:
    """Customers by the guide, a feed by day and a drop folder."""

    ledger: Ledger
    clock: MemoryClock
    file: Path
    settings: dict[str, dict[str, Any]] = field(default_factory=lambda: {"acme": {}, "beta": {}})
    faults: Any = None
    versioned: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.sources = {"us-daily": MemorySource(), "drops": MemorySource()}
        self.buckets = MemoryBuckets(self.clock)
        self.roles = MemoryRoles(self.clock)
        self.wrapped: Any = None
        for number, name in enumerate(sorted(self.settings)):
            self.buckets.create(f"{name}-data", f"{number:012}", versioned=self.versioned)
            self.grant(name)
        self.stores = MemoryObjectStores(self.buckets, self.roles, faults=self._fault, page_size=4)

    def _fault(self, operation: str, key: str, attempt: int) -> Fault | None:
        return self.faults(operation, key, attempt) if self.faults is not None else None

    def grant(self, name: str, *more: dict[str, Any], external_id: str | None = None) -> None:
        document = guide_permission_policy(f"{name}-data")
        document["Statement"] += more
        trust = guide_trust_policy(external_id or name)
        self.roles.put(self.customer(name).role_arn, trust_policy=trust, permission_policies=[document])

    def customer(self, name: str) -> Customer:
        number = sorted(self.settings).index(name)
        given = {
            "company": name,
            "external_id": name,
            "role_arn": f"arn:aws:iam::{number:012}:role/XMode",
            "destination": {"bucket": f"{name}-data", "prefix": "xmode/", "region": "us-east-1"},
            "feeds": ["us-daily", "drops"],
        }
        return Customer(name=name, **{**given, **self.settings[name]})

    @property
    def configuration(self) -> Configuration:
        customers = {name: self.customer(name) for name in self.settings}
        return Configuration(Service(), {"us-daily": FEED, "drops": DROPS}, customers, {})

    @property
    def context(self) -> Context:
        return Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: self.sources[feed.name],
            sessions=MemoryRoleSessions(self.roles),
            stores=self.stores,
            ledger=self.ledger,
            clock=self.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            holder="elsewhere",
            stop=self.stop,
        )

    def bucket(self, name: str = "acme") -> MemoryBucket:
        return self.buckets[f"{name}-data"]

    def write(self, name: str, data: bytes, day: str | None = DAY) -> None:
        if day is None:
            self.sources["drops"].write(name, data, period=Period.none())
        else:
            period = Period.parse(day, PeriodKind.DAY)
            self.sources["us-daily"].write(f"{day.replace('-', '/')}/{name}", data, period=period)

    def remove(self, name: str, day: str = DAY) -> None:
        self.sources["us-daily"].remove(f"{day.replace('-', '/')}/{name}")

    def declare(self, marker: str, day: str = DAY) -> None:
        period = Period.parse(day, PeriodKind.DAY)
        self.sources["us-daily"].set_state(period, complete=True, marker=marker)

    def run(self, day: str | None = DAY, *names: str) -> list[DeliveryOutcome]:
        self.clock.advance(60)
        feed = DROPS if day is None else FEED
        period = Period.none() if day is None else Period.parse(day, PeriodKind.DAY)
        state = self.sources[feed.name].state(period)
        assert state is not None
        chosen = names or tuple(self.settings)
        return [deliver(self.context, self.customer(name), feed, state) for name in chosen]

    def recalled(self, *patterns: str, day: str | None = DAY, **how: Any) -> Plan:
        self.clock.advance(60)
        scope = Scope(period=day or "none")
        request = {
            "feed": "drops" if day is None else "us-daily",
            "scope": scope,
            "patterns": patterns,
            "names": (),
            "customer": None,
            "reason": "an opt-out",
            "person": "alice",
            "despite_hold": "",
        }
        made = plan(self.context, self.configuration, Request(**{**request, **how}))
        begin(self.context, made, self.file)
        return made

    def carry_out(self, made: Plan, name: str = "acme", *, may_send: bool = True) -> RecallProgress:
        self.clock.advance(60)
        work = (self.context, self.configuration, made.recall.id, name)
        return carry_out(*work, may_send=lambda feed, state: may_send)

    def recall(self, *patterns: str, **how: Any) -> Plan:
        """For all customers, until it is done."""
        made = self.recalled(*patterns, **how)
        for share in made.customers:
            done = self.carry_out(made, share.customer)
            assert done.state is RecallState.DONE, done
        self.check()
        return made

    def manifests(self, name: str = "acme") -> dict[int, Any]:
        """By revision."""
        found = (
            json.loads(body) for key, body in self.bucket(name).contents().items() if "_manifests" in key
        )
        return {manifest["revision"]: manifest for manifest in found}

    def files(self, name: str = "acme") -> dict[str, bytes]:
        """The objects below the period's directory, by the file's name."""
        return {
            key.removeprefix("xmode/"): body
            for key, body in self.bucket(name).contents().items()
            if "_manifests" not in key
        }

    def check(self) -> None:
        """Each manifest lists only what is there, and the ledger knows what is there."""
        for name in self.settings:
            contents = self.bucket(name).contents()
            for key, body in contents.items():
                if "/_manifests/" in key:
                    assert all(item["key"] in contents for item in json.loads(body)["objects"]), key

    def outcomes(self, made: Plan, name: str = "acme") -> Counter[RemovalOutcome]:
        return Counter(item.outcome for item in self.ledger.operations.of_recall(name, made.recall.id))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    open_ledger(f"sqlite:///{path}", MemoryClock(NOW)).close()
    return path


@pytest.fixture
def make(empty: Path, tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def world(**how: Any) -> World:
        clock = MemoryClock(NOW)
        path = Path(shutil.copy(empty, tmp_path / f"{len(made)}.db"))
        made.append(World(open_ledger(f"sqlite:///{path}", clock), clock, path.with_suffix(".jsonl"), **how))
        return made[-1]

    yield world
    for one in made:
        one.ledger.close()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """A day of three files, delivered to both customers."""
    made = make()
    fill(made)
    return made


def fill(made: World) -> None:
    for name, data in (("a.csv", b"aaa"), ("b.csv", SECRET), ("c.csv", b"ccc")):
        made.write(name, data)
    made.declare("1")
    assert {item.outcome for item in made.run()} == {"delivered"}


BASE = "us-daily/2026/11/20/"


def test_some_files_go_and_a_manifest_names_them(world: World) -> None:
    made = world.recalled("b.csv")
    assert [(share.customer, share.periods, share.objects, share.bytes) for share in made.customers] == [
        ("acme", 1, 1, len(SECRET)),
        ("beta", 1, 1, len(SECRET)),
    ]
    done = world.carry_out(made)
    assert (done.state, done.outcomes) == (RecallState.DONE, {"deleted": 2})
    assert world.files() == {f"{BASE}a.csv": b"aaa", f"{BASE}c.csv": b"ccc"}
    (manifest,) = world.manifests().values()
    assert (manifest["revision"], manifest["count"]) == (2, 2)
    (entry,) = manifest["withdrawn"]
    assert (entry["key"], entry["source"], entry["reason"]) == (
        f"xmode/{BASE}b.csv",
        "2026/11/20/b.csv",
        "recalled",
    )
    assert "replaces" not in manifest
    assert len(world.files("beta")) == 3
    assert world.carry_out(made, "beta").state is RecallState.DONE
    found = world.ledger.recalls.get(made.recall.id)
    assert found is not None
    assert found.finished_at is not None
    world.check()


def test_a_whole_period_gets_a_manifest_with_no_objects(world: World) -> None:
    world.recall()
    for name in ("acme", "beta"):
        assert world.files(name) == {}
        (manifest,) = world.manifests(name).values()
        assert (manifest["count"], len(manifest["withdrawn"])) == (0, 3)


def test_nothing_of_it_is_delivered_again(world: World) -> None:
    world.recall("b.csv")
    before = world.bucket().contents()
    world.declare("2")
    assert {item.outcome for item in world.run()} == {"skipped"}
    assert world.bucket().contents() == before
    world.write("d.csv", b"ddd")
    world.declare("3")
    assert {item.outcome for item in world.run()} == {"delivered"}
    assert set(world.files()) == {f"{BASE}{name}.csv" for name in "acd"}
    assert [len(item["withdrawn"]) for item in world.manifests().values()] == [1, 1]


def test_a_new_customer_never_receives_it(make: Callable[..., World]) -> None:
    world = make(settings={"acme": {}, "beta": {}})
    for name, data in (("a.csv", b"aaa"), ("b.csv", SECRET)):
        world.write(name, data)
    world.declare("1")
    world.run(DAY, "acme")
    made = world.recall("b.csv")
    assert [share.customer for share in made.customers] == ["acme"]
    (outcome,) = world.run(DAY, "beta")
    assert (outcome.outcome, outcome.uploaded) == ("delivered", 1)
    assert world.files("beta") == {f"{BASE}a.csv": b"aaa"}
    assert "withdrawn" not in world.manifests("beta")[1]


def test_a_corrected_file_goes_in_the_same_revision(world: World) -> None:
    world.write("b.csv", b"b without that person")
    world.declare("2")
    world.recall("b.csv")
    (manifest,) = world.manifests().values()
    assert manifest["revision"] == 2
    assert world.files() == {
        f"{BASE}a.csv": b"aaa",
        f"{BASE}c.csv": b"ccc",
        f"{BASE}_r2/b.csv": b"b without that person",
    }
    assert {item.outcome for item in world.run()} == {"skipped"}


def test_a_quarantined_source_is_not_sent_with_a_recall(world: World) -> None:
    world.write("b.csv", b"b without that person")
    made = world.recalled("b.csv")
    assert world.carry_out(made, may_send=False).state is RecallState.DONE
    assert set(world.files()) == {f"{BASE}a.csv", f"{BASE}c.csv"}
    world.declare("2")
    world.run(DAY, "acme")
    assert f"{BASE}_r3/b.csv" in world.files()


def test_a_source_that_is_gone_prevents_nothing(world: World) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        world.remove(name)
    world.recall("b.csv")
    assert set(world.files()) == {f"{BASE}a.csv", f"{BASE}c.csv"}


def test_all_revisions_of_a_path_go(world: World) -> None:
    world.write("b.csv", SECRET + b" again")
    world.declare("2")
    world.run()
    assert f"{BASE}_r2/b.csv" in world.files()
    made = world.recall("b.csv")
    assert len(made.files) == 2
    assert set(world.files()) == {f"{BASE}a.csv", f"{BASE}c.csv"}
    (manifest,) = world.manifests().values()
    assert [item["key"] for item in manifest["withdrawn"]] == [
        f"xmode/{BASE}_r2/b.csv",
        f"xmode/{BASE}b.csv",
    ]
    assert world.outcomes(made) == {RemovalOutcome.DELETED: 4}


def test_an_older_manifest_that_does_not_name_it_stays(world: World) -> None:
    world.write("d.csv", SECRET)
    world.declare("2")
    world.run()
    world.recall("d.csv")
    assert sorted(world.manifests()) == [1, 3]


def test_an_unfinished_revision_is_superseded(world: World) -> None:
    world.write("b.csv", SECRET + b" again")
    world.write("e.csv", b"eee")
    world.declare("2")
    world.faults = lambda operation, key, attempt: _refused(operation, key, "e.csv")
    world.run()
    world.faults = None
    made = world.recall("b.csv")
    assert len(made.files) == 2
    assert not any(b"opted out" in data for data in world.files().values())
    assert sorted(world.manifests()) == [3]
    world.declare("3")
    world.run()
    assert world.files()[f"{BASE}e.csv"] == b"eee"
    assert not any(b"opted out" in data for data in world.files().values())
    world.check()


def test_what_was_never_published_goes_too(make: Callable[..., World]) -> None:
    world = make()
    world.write("a.csv", b"aaa")
    world.write("b.csv", SECRET)
    world.declare("1")
    world.faults = lambda operation, key, attempt: _refused(operation, key, "a.csv")
    world.run()
    world.faults = None
    made = world.recall("b.csv")
    assert world.files() == {}
    assert world.outcomes(made) == {RemovalOutcome.DELETED: 1}
    world.run()
    assert world.files() == {f"{BASE}a.csv": b"aaa"}


def test_a_lost_receipt_hides_nothing_from_a_recall(world: World) -> None:
    """beta's process died after the PUT of the file and before it recorded the receipt."""
    world.settings["gamma"] = {}
    world.buckets.create("gamma-data", "000000000002")
    world.grant("gamma")
    record = world.ledger.objects.record_receipt
    world.ledger.objects.record_receipt = _dies_at(record, "b.csv")  # type: ignore[method-assign]
    world.run(DAY, "gamma")
    world.ledger.objects.record_receipt = record  # type: ignore[method-assign]
    assert f"{BASE}b.csv" in world.files("gamma")
    made = world.recall("b.csv")
    assert [(share.customer, share.objects) for share in made.customers][-1] == ("gamma", 0)
    assert f"{BASE}b.csv" not in world.files("gamma")
    world.run(DAY, "gamma")
    assert set(world.files("gamma")) == {f"{BASE}a.csv", f"{BASE}c.csv"}


def _dies_at(record: Callable[..., Any], name: str) -> Callable[..., Any]:
    def dies(lease: Any, delivery: str, receipt: Any) -> Any:
        if receipt.name.endswith(name):
            raise RuntimeError("the process dies here")
        return record(lease, delivery, receipt)

    return dies


def _refused(operation: str, key: str, name: str) -> None:
    if operation == "put" and key.endswith(name):
        raise RequestRefused("not now", hint="")


def test_a_manifest_that_a_killed_run_put_is_replaced(world: World) -> None:
    """Its run died before it recorded that: to the ledger the revision is unfinished."""
    world.write("b.csv", SECRET + b" again")
    world.declare("2")
    update = world.ledger.deliveries.update

    def dies(lease: Any, delivery: Any) -> None:
        if delivery.manifest_key is not None and delivery.revision == 2:
            raise RuntimeError("the process dies here")
        update(lease, delivery)

    world.ledger.deliveries.update = dies  # type: ignore[method-assign]
    world.run(DAY, "acme")
    world.ledger.deliveries.update = update  # type: ignore[method-assign]
    assert sorted(world.manifests()) == [1, 2]
    made = world.recalled("b.csv")
    assert world.carry_out(made).state is RecallState.DONE
    (manifest,) = world.manifests().values()
    assert (manifest["revision"], manifest["count"], len(manifest["withdrawn"])) == (3, 2, 2)
    assert set(world.files()) == {f"{BASE}a.csv", f"{BASE}c.csv"}


# --- A drop folder ------------------------------------------------------------------------------------


def drops(world: World) -> None:
    for batch in (("one.csv", "two.csv"), ("three.csv",)):
        for name in batch:
            world.write(name, SECRET + name.encode(), None)
        assert {item.outcome for item in world.run(None)} == {"delivered"}


def test_in_a_drop_folder_a_batch_is_replaced_by_one_without_it(world: World) -> None:
    drops(world)
    world.recall("two.csv", day=None)
    batches = {number: item for number, item in world.manifests().items() if item["feed"] == "drops"}
    assert {number: [item["source"] for item in batch["objects"]] for number, batch in batches.items()} == {
        2: ["three.csv"],
        3: ["one.csv"],
    }
    assert batches[3]["replaces"] == [1]
    assert {item.outcome for item in world.run(None)} == {"skipped"}
    world.recall("one.csv", day=None)
    batches = {number: item for number, item in world.manifests().items() if item["feed"] == "drops"}
    assert (batches[4]["replaces"], batches[4]["objects"]) == ([1, 3], [])
    assert [item["source"] for item in batches[4]["withdrawn"]] == ["one.csv", "two.csv"]
    assert sorted(batches) == [2, 4]


def test_in_a_drop_folder_a_corrected_file_comes_with_the_next_batch(world: World) -> None:
    drops(world)
    world.write("two.csv", b"corrected", None)
    world.recall("two.csv", day=None)
    assert "drops/two.csv" not in world.files()
    assert {item.outcome for item in world.run(None)} == {"delivered"}
    (last,) = [item for item in world.manifests().values() if item["feed"] == "drops"][-1:]
    assert [item["source"] for item in last["objects"]] == ["two.csv"]
    assert "replaces" not in last


def test_what_an_unfinished_batch_has_delivered_is_not_lost(world: World) -> None:
    drops(world)
    world.write("four.csv", b"4", None)
    world.write("five.csv", b"5", None)
    world.faults = lambda operation, key, attempt: _refused(operation, key, "five.csv")
    world.run(None)
    world.faults = None
    world.sources["drops"].remove("four.csv")
    world.recall("two.csv", day=None)
    world.run(None)
    listed = [item["source"] for batch in world.manifests().values() for item in batch["objects"]]
    assert Counter(listed)["four.csv"] == 1
    assert Counter(listed)["five.csv"] == 1
    assert Counter(listed)["one.csv"] == 1


# --- What cannot be done ------------------------------------------------------------------------------


def test_what_is_held_stays_and_is_named(world: World) -> None:
    world.settings["acme"] = {"hold": ["us-daily"]}
    made = world.recalled("b.csv")
    assert (made.customers[0].held, made.customers[1].held) == (1, 0)
    assert world.carry_out(made).outcomes == {"held": 1}
    assert world.files()[f"{BASE}b.csv"] == SECRET
    again = world.recall("b.csv", despite_hold="the court's order of 22 November")
    assert world.outcomes(again) == {RemovalOutcome.DELETED: 2}
    assert f"{BASE}b.csv" not in world.files()


def test_what_is_below_a_former_prefix_is_elsewhere(world: World) -> None:
    world.settings["acme"] = {"destination": {"bucket": "acme-data", "prefix": "new/", "region": "us-east-1"}}
    made = world.recalled("b.csv")
    assert made.customers[0].elsewhere == 1
    done = world.carry_out(made)
    assert (done.state, done.outcomes) == (RecallState.DONE, {"elsewhere": 2})
    assert f"{BASE}b.csv" in world.files()


def test_what_somebody_has_overwritten_is_not_touched(world: World) -> None:
    key = f"xmode/{BASE}b.csv"
    world.bucket().store(StoredVersion(key, None, world.clock.now(), body=b"theirs", etag='"theirs"'))
    made = world.recall("b.csv")
    assert world.outcomes(made) == {RemovalOutcome.DELETED: 1, RemovalOutcome.CHANGED: 1}
    assert world.bucket().contents()[key] == b"theirs"


def test_a_manifest_that_stays_keeps_its_objects(world: World) -> None:
    key = f"xmode/us-daily/_manifests/{DAY}/000001.json"
    world.grant(
        "acme", {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::acme-data/{key}"}
    )
    made = world.recalled("b.csv")
    done = world.carry_out(made)
    assert (done.state, done.outcomes) == (RecallState.BLOCKED, {"retained": 2})
    assert done.failure is not None
    assert done.failure.responsible == "customer"
    assert f"{BASE}b.csv" in world.files()
    world.check()
    world.grant("acme")
    done = world.carry_out(made)
    assert (done.state, done.outcomes) == (RecallState.DONE, {"deleted": 2})
    world.check()


def test_what_the_customer_deletes_itself_ends_a_recall(world: World) -> None:
    deny = {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::acme-data/*"}
    world.grant("acme", deny)
    made = world.recalled("b.csv")
    assert world.carry_out(made).state is RecallState.BLOCKED
    for key in (f"xmode/us-daily/_manifests/{DAY}/000001.json", f"xmode/{BASE}b.csv"):
        world.bucket().remove(key, world.clock.now())
    done = world.carry_out(made)
    assert (done.state, done.outcomes) == (RecallState.DONE, {"gone": 2})


def test_what_a_cleanup_deletes_meanwhile_ends_a_recall(world: World) -> None:
    deny = {
        "Effect": "Deny",
        "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::acme-data/xmode/{BASE}*",
    }
    world.grant("acme", deny)
    made = world.recalled("b.csv")
    assert world.carry_out(made).outcomes == {"deleted": 1, "retained": 1}
    world.grant("acme")
    world.write("a.csv", b"newer", NEXT)
    world.run(NEXT, "acme")
    world.settings["acme"] = {"retention": {"keep_last": 1}}
    cleanup(world.context, world.configuration, "acme", by="bob", confirmed=True)
    assert set(world.files()) == {"us-daily/2026/11/21/a.csv"}
    done = world.carry_out(made)
    assert (done.state, done.outcomes) == (RecallState.DONE, {"deleted": 1, "gone": 1})


def test_what_is_there_again_is_deleted_again(world: World) -> None:
    """Somebody restores the object between its deletion and the proof."""
    key = f"xmode/{BASE}b.csv"
    stored = world.bucket().current(key)
    assert stored is not None
    restored: list[str] = []

    def restore(operation: str, of: str, attempt: int) -> None:
        if (operation, of) == ("head", key) and not restored and world.bucket().current(key) is None:
            restored.append(key)
            world.bucket().store(stored)

    world.faults = restore
    made = world.recalled("b.csv")
    failed = world.carry_out(made)
    assert (failed.state, failed.outcomes) == (RecallState.FAILED, {"deleted": 1, "failed": 1})
    assert world.carry_out(made).outcomes == {"deleted": 2}
    assert world.bucket().current(key) is None


def test_a_recall_that_is_stopped_continues(world: World) -> None:
    made = world.recalled("b.csv")
    world.faults = lambda operation, key, attempt: world.stop.set() if operation == "put" else None
    assert world.carry_out(made).state is RecallState.PENDING
    world.check()
    world.faults = None
    world.stop.clear()
    assert world.carry_out(made).state is RecallState.DONE
    assert f"{BASE}b.csv" not in world.files()


def test_in_a_versioned_bucket_it_is_hidden(make: Callable[..., World]) -> None:
    world = make(versioned=True)
    fill(world)
    assert world.outcomes(world.recall("b.csv")) == {RemovalOutcome.HIDDEN: 2}
    assert world.ledger.checks.capabilities("acme").versioned


def test_a_blocked_customer_is_finished_once_its_role_is_fixed(world: World) -> None:
    world.grant("acme", external_id="another")
    made = world.recalled("b.csv")
    blocked = world.carry_out(made)
    assert blocked.state is RecallState.BLOCKED
    assert blocked.failure is not None
    assert (blocked.failure.cause, blocked.failure.responsible) == ("role_refused", "customer")
    assert blocked.next_attempt_at is not None
    first = blocked.next_attempt_at - blocked.updated_at
    blocked = world.carry_out(made)
    assert blocked.next_attempt_at is not None
    assert blocked.next_attempt_at - blocked.updated_at == 2 * first
    assert f"{BASE}b.csv" in world.files()
    world.grant("acme")
    assert world.carry_out(made).state is RecallState.DONE
    assert f"{BASE}b.csv" not in world.files()


@pytest.mark.parametrize("state", ["retired", "pending"])
def test_customers_that_receive_nothing_are_recalled_from_too(world: World, state: str) -> None:
    world.write("b.csv", b"corrected")
    world.settings["acme"] = {"state": state}
    world.recall("b.csv")
    assert set(world.files()) == {f"{BASE}a.csv", f"{BASE}c.csv"}


def test_a_customer_whose_file_is_gone_is_ours_to_fix(world: World) -> None:
    made = world.recalled("b.csv")
    kept = world.settings.pop("beta")
    failed = world.carry_out(made, "beta")
    assert failed.state is RecallState.FAILED
    assert failed.failure is not None
    assert (failed.failure.cause, failed.failure.responsible) == ("config_invalid", "vendor")
    world.settings["beta"] = kept
    assert world.carry_out(made, "beta").state is RecallState.DONE


def test_a_recall_may_concern_one_customer(world: World) -> None:
    made = world.recall("b.csv", customer="acme")
    assert [share.customer for share in made.customers] == ["acme"]
    assert f"{BASE}b.csv" in world.files("beta")
    world.declare("2")
    assert {item.outcome for item in world.run()} == {"skipped"}
    assert f"{BASE}b.csv" not in world.files("acme")


def test_names_that_nobody_holds_are_reported(world: World) -> None:
    names = ("2026/11/20/b.csv", "a.csv", "nobody.csv")
    made = plan(
        world.context,
        world.configuration,
        Request("us-daily", Scope(period=DAY), (), names, None, "why", "alice", ""),
    )
    assert (made.unknown, made.objects, made.is_empty) == (("nobody.csv",), 4, False)
    assert world.ledger.recalls.newest() == []
    with pytest.raises(ConfigError):
        plan(world.context, world.configuration, Request("no", Scope(), (), (), None, "", "", ""))


def test_a_running_delivery_publishes_nothing_that_is_withdrawn(world: World) -> None:
    """The recall is recorded after the plan was made and before the manifest is put."""
    world.settings["gamma"] = {}
    world.buckets.create("gamma-data", "000000000002")
    world.grant("gamma")
    made: list[Plan] = []

    def recall_meanwhile(operation: str, key: str, attempt: int) -> None:
        if operation == "put" and key.endswith("c.csv") and not made:
            made.append(world.recalled("b.csv"))

    world.faults = recall_meanwhile
    (outcome,) = world.run(DAY, "gamma")
    assert outcome.outcome == "delivered"
    assert set(world.files("gamma")) == {f"{BASE}a.csv", f"{BASE}c.csv"}
    assert [share.customer for share in made[0].customers] == ["acme", "beta", "gamma"]
    assert world.carry_out(made[0], "gamma").state is RecallState.DONE


# --- What knows of it ---------------------------------------------------------------------------------


def listed(world: World) -> dict[str, Standing]:
    listing = Listing(world.context, world.customer("acme"), world.configuration.feeds)
    return {item.key.removeprefix(f"xmode/{BASE}"): item.standing for item in listing}


def verified(world: World) -> list[Finding]:
    reader = Reader(world.customer("acme"), Limits(), world.clock, world.stop)
    run = Verification(world.context, world.customer("acme"), Scope(period=DAY), reader)
    return [finding for _, finding in run if finding is not None]


def test_list_and_verify_know_what_is_withdrawn(world: World) -> None:
    world.recalled("b.csv")
    assert listed(world)["b.csv"] is Standing.WITHDRAWN
    assert verified(world) == []
    world.bucket().remove(f"xmode/{BASE}b.csv", world.clock.now())
    assert "b.csv" not in listed(world)
    assert verified(world) == []


def test_repair_delivers_nothing_that_is_withdrawn(world: World) -> None:
    """The recall comes between the verification and the repair."""
    keys = [f"xmode/{BASE}b.csv", f"xmode/{BASE}a.csv", f"xmode/us-daily/_manifests/{DAY}/000001.json"]
    for key in keys:
        world.bucket().remove(key, world.clock.now())
    findings = verified(world)
    assert {item.kind for item in findings} == {DiscrepancyKind.MISSING}
    made = world.recalled("b.csv")
    result = repair(world.context, world.configuration, world.customer("acme"), findings, by="bob")
    assert {(item.known.key, item.cause) for item in result.left} == {
        (keys[0], "withdrawn"),
        (keys[2], "not_whole"),
    }
    assert set(world.files()) == {f"{BASE}a.csv", f"{BASE}c.csv"}
    assert world.carry_out(made).state is RecallState.DONE
    assert sorted(world.manifests()) == [2]
    assert verified(world) == []


def adopted(world: World, make: Callable[..., World]) -> World:
    """The same buckets and source, with an empty ledger that has adopted all manifests."""
    other = make(settings=world.settings)
    other.clock.advance((world.clock.now() - other.clock.now()).total_seconds() + 600)
    other.sources, other.buckets, other.stores.buckets = world.sources, world.buckets, world.buckets
    other.roles, other.stores.roles = world.roles, world.roles
    for name in other.settings:
        reader = Reader(other.customer(name), Limits(), other.clock, other.stop)
        found = adopt(other.context, other.configuration, other.customer(name), Scope(), reader, by="bob")
        assert {item.outcome for item in found.deliveries} <= {"adopted"}
    return other


def test_a_ledger_that_is_rebuilt_knows_what_is_withdrawn(world: World, make: Callable[..., World]) -> None:
    drops(world)
    world.recall("two.csv", day=None)
    world.recall("b.csv")
    other = adopted(world, make)
    (replacing,) = [item for item in other.ledger.deliveries.find("acme") if item.replaces]
    assert (replacing.revision, replacing.replaces) == (3, (1,))
    before = other.bucket().contents()
    other.declare("2")
    assert other.run(DAY, "acme")[0].outcome == "skipped"
    assert other.run(None, "acme")[0].outcome == "skipped"
    assert other.bucket().contents() == before
    recalls = other.ledger.recalls
    assert {item.name for recall in recalls.newest() for item in recalls.files(recall.id)} == {
        "two.csv",
        "2026/11/20/b.csv",
    }


# --- Whatever runs next -------------------------------------------------------------------------------

STEPS = (
    *("run", "run beta", "correct", "revert", "new", "recall b", "recall all"),
    *("carry out", "carry out beta", "lose", "repair", "adopt", "clean", "rebuild"),
)


@pytest.mark.short
@given(steps=st.lists(st.sampled_from(STEPS), min_size=4, max_size=9))
@settings(
    max_examples=200 if IS_SOAK else 6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_runs_next_it_never_comes_back(make: Callable[..., World], steps: list[str]) -> None:
    world = make()
    fill(world)
    made: list[Plan] = []
    gone: dict[str, set[str]] = {name: set() for name in world.settings}
    markers = count(2)
    for step in steps:
        match step:
            case "run":
                world.run(DAY, "acme")
            case "run beta":
                world.run(DAY, "beta")
            case "correct" | "revert":
                world.write("b.csv", b"corrected" if step == "correct" else SECRET)
                world.declare(str(next(markers)))
            case "new":
                number = next(markers)
                world.write(f"n{number}.csv", b"new")
                world.declare(str(number))
            case "recall b" | "recall all":
                pattern = ("b.csv",) if step == "recall b" else ()
                made.append(world.recalled(*pattern))
            case "carry out" | "carry out beta":
                for one in made:
                    name = "beta" if step.endswith("beta") else "acme"
                    if any(share.customer == name for share in one.customers):
                        assert world.carry_out(one, name).state is RecallState.DONE
            case "lose":
                for key in list(world.bucket().contents())[1:2]:
                    world.bucket().remove(key, world.clock.now())
            case "repair":
                found = verified(world) if world.ledger.keys.holdings("acme") else []
                repair(world.context, world.configuration, world.customer("acme"), found, by="bob")
            case "clean":
                cleanup(world.context, world.configuration, "acme", by="bob", confirmed=True)
            case "rebuild":
                progress = world.ledger.recalls.progress()
                if all(item.state is RecallState.DONE for item in progress):
                    world, made = adopted(world, make), []
            case "adopt":
                reader = Reader(world.customer("acme"), Limits(), world.clock, world.stop)
                of = (world.context, world.configuration, world.customer("acme"), Scope())
                adopt(*of, reader, by="bob")
        for name in world.settings:
            progress = world.ledger.recalls.progress(None, name)
            pending = {item.recall for item in progress if item.state is not RecallState.DONE}
            files = (item for one in made for item in one.files)
            gone[name] |= {item.checksum.value for item in files if item.recall not in pending}
            assert not gone[name] & {uploads.crc32(data) for data in world.files(name).values()}, step
        if "lose" not in steps:
            world.check()
