"""Deliveries by a layout, its change in mid-life, and files that meet in one key."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import (
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
)
from xmode_transfer.aws.policy.documents import guide_permission_policy, guide_trust_policy
from xmode_transfer.config import Customer, Feed, Limits, Settled, Vendor
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import KeyCollision
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Delivery
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.plan import Action
from xmode_transfer.transfer.planning import Planner

ROLE = "arn:aws:iam::111122223333:role/XMode"
DAY = Period.parse("2026-11-22", PeriodKind.DAY)


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


@dataclass
class World:
    ledger: Ledger
    clock: MemoryClock
    period: Period
    layout: str | None = None
    source: MemorySource = field(default_factory=MemorySource)

    def __post_init__(self) -> None:
        self.source = MemorySource(period=self.period)
        self.buckets = MemoryBuckets(self.clock)
        self.bucket = self.buckets.create("acme-data", "111122223333")
        self.roles = MemoryRoles(self.clock)
        self.roles.put(
            ROLE,
            trust_policy=guide_trust_policy("AcmeCorp"),
            permission_policies=[guide_permission_policy("acme-data")],
        )
        self.context = Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: self.source,
            sessions=MemoryRoleSessions(self.roles),
            stores=MemoryObjectStores(self.buckets, self.roles),
            ledger=self.ledger,
            clock=self.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            holder="here",
            stop=threading.Event(),
        )

    @property
    def feed(self) -> Feed:
        is_drop_folder = self.period.kind is PeriodKind.NONE
        partition = None if is_drop_folder else "%Y/%m/%d"
        complete = Settled(settle_seconds=0)
        return Feed(name="feed", source="/x", period=self.period.kind, partition=partition, complete=complete)

    @property
    def customer(self) -> Customer:
        return Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn=ROLE,
            destination={"bucket": "acme-data", "prefix": "x/", "region": "us-east-1"},
            feeds={"feed": {"layout": self.layout}},
        )

    @property
    def state(self) -> PeriodState:
        return PeriodState(self.period, True, "")

    def deliver(self) -> Any:
        self.clock.advance(3600)
        return deliver(self.context, self.customer, self.feed, self.state)

    def preview(self) -> dict[str, tuple[Action, str]]:
        planner = Planner(self.context, self.customer, self.feed, self.state, self.source)
        return {entry.name: (entry.action, entry.key) for entry in planner.preview()}

    def objects(self) -> dict[str, bytes]:
        contents = self.bucket.contents().items()
        return {key[7:]: data for key, data in contents if "/_manifests/" not in key}

    def listed(self, revision: int) -> dict[str, str]:
        key = f"x/feed/_manifests/{self.period.label}/{revision:06d}.json"
        found = json.loads(self.bucket.contents()[key])
        return {item["source"]: item["key"][7:] for item in found["objects"]}

    def latest(self) -> Delivery:
        found = self.ledger.deliveries.latest("acme", "feed", self.period.label)
        assert found is not None
        return found


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., World]]:
    clock = MemoryClock()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    yield lambda period, layout=None: World(ledger, clock, period, layout)
    ledger.close()


HIVE = "{feed}/dt={period:%Y-%m-%d}/{name}"


def test_a_changed_layout_affects_only_what_is_planned_from_then_on(make: Callable[..., World]) -> None:
    world = make(DAY)
    for name in "ab":
        world.source.write(f"2026/11/22/{name}.csv", name.encode())
    assert world.deliver().outcome == "delivered"
    world.layout = HIVE
    assert world.deliver().outcome == "skipped"
    world.source.write("2026/11/22/b.csv", b"corrected")
    world.source.write("2026/11/22/c.csv", b"new")
    assert world.deliver().outcome == "delivered"
    assert world.listed(2) == {
        "2026/11/22/a.csv": "2026/11/22/a.csv",
        "2026/11/22/b.csv": "dt=2026-11-22/_r2/b.csv",
        "2026/11/22/c.csv": "dt=2026-11-22/c.csv",
    }
    world.layout = None
    world.bucket.remove("x/feed/dt=2026-11-22/c.csv", world.clock.now())  # the customer deletes it
    world.source.write("2026/11/22/d.csv", b"newer")
    assert world.deliver().outcome == "delivered"
    assert world.listed(3)["2026/11/22/b.csv"] == "dt=2026-11-22/_r2/b.csv"
    assert world.listed(3)["2026/11/22/c.csv"] == "dt=2026-11-22/c.csv"
    assert world.listed(3)["2026/11/22/d.csv"] == "2026/11/22/d.csv"
    assert set(world.listed(3).values()) <= world.objects().keys()  # c.csv was sent again


def test_two_files_that_meet_are_named_and_neither_is_sent(make: Callable[..., World]) -> None:
    world = make(DAY, HIVE)
    for name in ("eu/a.csv", "us/a.csv", "us/b.csv"):
        world.source.write(f"2026/11/22/{name}", name.encode())
    conflict = (Action.CONFLICT, "dt=2026-11-22/a.csv")
    planned = {name[11:]: (action, key[7:]) for name, (action, key) in world.preview().items()}
    assert planned == {
        "eu/a.csv": conflict,
        "us/a.csv": conflict,
        "us/b.csv": (Action.UPLOAD, "dt=2026-11-22/b.csv"),
    }
    for _ in range(2):
        outcome = world.deliver()
        assert (outcome.outcome, outcome.exit_code) == ("failed", 3)
        problems = {problem.name[11:]: problem for problem in outcome.problems}
        assert {problem.code for problem in problems.values()} == {KeyCollision.code}
        assert "2026/11/22/us/a.csv" in problems["eu/a.csv"].message
        assert "2026/11/22/eu/a.csv" in problems["us/a.csv"].message
        assert world.objects() == {"dt=2026-11-22/b.csv": b"us/b.csv"}
    world.source.remove("2026/11/22/us/a.csv")
    world.source.write("2026/11/22/us/a2.csv", b"us/a.csv")
    assert world.deliver().outcome == "delivered"
    assert world.objects()["dt=2026-11-22/a.csv"] == b"eu/a.csv"


def test_a_later_file_of_a_drop_folder_does_not_replace_an_earlier_one(make: Callable[..., World]) -> None:
    world = make(Period.none(), "{feed}/{name}")
    world.source.write("1/a", b"same")
    assert world.deliver().outcome == "delivered"
    world.source.write("2/a", b"same")
    assert world.preview()["2/a"] == (Action.CONFLICT, "x/feed/a")
    outcome = world.deliver()
    (problem,) = outcome.problems
    assert (problem.name, problem.code) == ("2/a", KeyCollision.code)
    assert "1/a" in problem.message
    assert world.objects() == {"a": b"same"}


@pytest.mark.parametrize("data", [b"same", b"other"])
def test_an_old_key_of_one_name_is_never_adopted_for_another(make: Callable[..., World], data: bytes) -> None:
    """The planner does not compare keys where the present layout keeps the paths."""
    world = make(Period.none(), "{feed}/{name}")
    world.source.write("1/a", b"same")
    assert world.deliver().outcome == "delivered"
    world.layout = None
    world.source.write("a", data)
    outcome = world.deliver()
    assert outcome.outcome == "failed"
    (problem,) = outcome.problems
    assert problem.name == "a"
    assert "x/feed/a is the key of a and holds the object of 1/a" in problem.message
    assert world.objects() == {"a": b"same"}
    receipts = world.ledger.objects.receipts("acme", "feed", "none")
    assert [(item.name, item.key) for item in receipts] == [("1/a", "x/feed/a")]
