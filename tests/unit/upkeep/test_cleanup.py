"""Cleaning up against buckets in memory that obey the customer's policies, with a real ledger."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

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
)
from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.aws.policy.documents import guide_permission_policy, guide_trust_policy, setup_values
from xmode_transfer.config import Configuration, Customer, Feed, Limits, Marker, Service, UnsafeRoles, Vendor
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import ConfigError, Unavailable, VendorIdentityError
from xmode_transfer.model.findings import AccessReport
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Status
from xmode_transfer.model.upkeep import OperationKind, RemovalOutcome
from xmode_transfer.transfer import removing
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.planning import Planner
from xmode_transfer.upkeep.cleanup import CleanupOutcome, cleanup
from xmode_transfer.upkeep.retention import Reason

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
ROLE = "arn:aws:iam::111122223333:role/XMode"
BASE = "xmode/us-daily/"
FEED = Feed(
    name="us-daily",
    source="/nowhere",
    period=PeriodKind.DAY,
    partition="%Y/%m/%d",
    complete=Marker(marker="_SUCCESS"),
)
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")


def path_of(day: str) -> str:
    return day.replace("-", "/")


def manifest(day: str, revision: int = 1) -> str:
    return f"{BASE}_manifests/{day}/{revision:06d}.json"


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


@dataclass
class World:
    """Four days, delivered to a customer by the guide."""

    ledger: Ledger
    clock: MemoryClock = field(default_factory=lambda: MemoryClock(NOW))
    stop: threading.Event = field(default_factory=threading.Event)
    said: dict[str, Any] = field(default_factory=lambda: {"retention": {"days": 30}})
    faults: Any = None
    files: int = 3
    unsafe_roles: UnsafeRoles = UnsafeRoles.DELIVER

    def __post_init__(self) -> None:
        self.source = MemorySource()
        self.buckets = MemoryBuckets(self.clock)
        self.bucket: MemoryBucket = self.buckets.create("acme-data", "111122223333")
        self.roles = MemoryRoles(self.clock)
        self.grant()
        self.stores = MemoryObjectStores(self.buckets, self.roles, faults=self._fault, page_size=4)

    def grant(self, *more: dict[str, Any]) -> None:
        document = guide_permission_policy("acme-data")
        document["Statement"] += more
        trust = guide_trust_policy("AcmeCorp")
        self.roles.put(ROLE, trust_policy=trust, permission_policies=[document])

    def _fault(self, operation: str, key: str, attempt: int) -> Fault | None:
        return self.faults(operation, key, attempt) if self.faults is not None else None

    @property
    def context(self) -> Context:
        return Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: self.source,
            sessions=MemoryRoleSessions(self.roles),
            stores=self.stores,
            ledger=self.ledger,
            clock=self.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            holder="elsewhere",
            unsafe_roles=self.unsafe_roles,
            stop=self.stop,
        )

    @property
    def customer(self) -> Customer:
        return Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn=ROLE,
            destination={"bucket": "acme-data", "prefix": "xmode/", "region": "us-east-1"},
            feeds=["us-daily"],
            **self.said,
        )

    def deliver(self, *days: str) -> None:
        for day in days:
            period = Period.parse(day, PeriodKind.DAY)
            state = self.source.state(period)
            assert state is not None
            outcome = deliver(self.context, self.customer, FEED, state)
            assert outcome.exit_code == 0, outcome

    def write(self, day: str, name: str, data: bytes) -> None:
        self.source.write(f"{path_of(day)}/{name}", data, period=Period.parse(day, PeriodKind.DAY))

    def produce(self, *days: str) -> None:
        for day in days:
            for number in range(self.files):
                self.write(day, f"{number:04}", f"{day} {number}".encode())

    def fill(self, *days: str) -> None:
        self.produce(*days)
        self.deliver(*days)

    def clean(self, **how: Any) -> CleanupOutcome:
        self.clock.advance(1)
        configuration = Configuration(Service(), {"us-daily": FEED}, {"acme": self.customer}, {})
        return cleanup(self.context, configuration, "acme", **{"by": "alice", "confirmed": True, **how})

    def put(self, key: str, data: bytes) -> None:
        self.bucket.store(StoredVersion(key, None, self.clock.now(), body=data, etag=f'"{hash(data)}"'))

    def keys_of(self, *days: str) -> set[str]:
        return {
            key
            for key in self.bucket.contents()
            if any(f"/{path_of(day)}/" in key or f"/{day}/" in key for day in days)
        }

    def removals(self) -> dict[str, RemovalOutcome]:
        """By the acts, the newest last."""
        acts = self.ledger.operations.newest("acme", OperationKind.CLEANUP, None)
        return {
            item.key: item.outcome
            for act in reversed(acts)
            for item in self.ledger.operations.removals(act.id)
        }

    def check(self) -> None:
        """Each manifest that is there lists only what is there, and the ledger knows what is there."""
        contents = self.bucket.contents()
        for key, body in contents.items():
            if "/_manifests/" in key:
                assert all(item["key"] in contents for item in json.loads(body)["objects"]), key
        known = {item.key for item in self.ledger.keys.delivered("acme")}
        assert known <= contents.keys()


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StoredVersion]]:
    """The four days, delivered once for all tests: the ledger's file, and what lies in the bucket."""
    path = tmp_path_factory.mktemp("delivered") / "ledger.db"
    clock = MemoryClock(NOW)
    ledger = open_ledger(f"sqlite:///{path}", clock)
    made = World(ledger, clock)
    made.fill(*DAYS)
    ledger.close()
    return path, made.bucket.page("", "", 100)[0]


@pytest.fixture
def world(tmp_path: Path, delivered: tuple[Path, list[StoredVersion]]) -> Iterator[World]:
    path, versions = delivered
    clock = MemoryClock(NOW)
    ledger = open_ledger(f"sqlite:///{shutil.copy(path, tmp_path)}", clock)
    made = World(ledger, clock)
    made.produce(*DAYS)
    for version in versions:
        made.bucket.store(version)
    yield made
    ledger.close()


@pytest.fixture(autouse=True)
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Periods are worked on in their order, so that a test can follow them."""
    monkeypatch.setattr(removing, "PERIODS_AT_ONCE", 1)


def test_several_periods_are_worked_on_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes its own way: where a manifest stays, only its own objects do."""
    monkeypatch.setattr(removing, "PERIODS_AT_ONCE", 8)
    together = threading.Barrier(3)

    def fault(operation: str, key: str, attempt: int) -> None:
        if operation == "head":
            together.wait(120)

    world.faults = fault
    world.put(manifest(DAYS[1]), b"theirs")
    outcome = world.clean()
    assert world.keys_of(DAYS[0], DAYS[2]) == set()
    assert len(world.keys_of(DAYS[1])) == 4
    assert outcome.removed.keys == {RemovalOutcome.DELETED: 8, RemovalOutcome.CHANGED: 1}
    assert [period.removed for period in outcome.periods] == [3, 0, 3]


def test_what_one_period_meets_ends_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "PERIODS_AT_ONCE", 2)
    world.faults = lambda operation, key, attempt: _unavailable() if operation == "delete_many" else None
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("failed", 3)
    assert len(world.bucket.contents()) == 16
    assert world.stores.requests.count("head", manifest(DAYS[2])) == 0
    world.faults = None
    assert world.clean().removed.keys == {RemovalOutcome.DELETED: 12}


def test_what_expired_goes_with_its_manifest_and_is_on_record(world: World) -> None:
    before = world.bucket.contents()
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("cleaned", 0)
    assert world.bucket.contents() == {key: before[key] for key in world.keys_of(DAYS[3])}
    assert len(world.bucket.contents()) == 4
    (act,) = world.ledger.operations.newest("acme")
    assert (act.person, act.holder, act.outcome, act.objects, act.failed) == (
        "alice",
        "elsewhere",
        "cleaned",
        12,
        0,
    )
    assert '"days":30' in act.reason
    assert act.bytes == sum(len(data) for key, data in before.items() if key not in world.bucket.contents())
    assert act.finished_at is not None
    removed = list(world.ledger.operations.removals(act.id))
    assert {item.outcome for item in removed} == {RemovalOutcome.DELETED}
    assert {item.reason for item in removed if item.period == DAYS[0]} == {"324 days old, kept for 30"}
    assert world.clean().outcome == "nothing"
    world.check()


def test_the_manifest_goes_before_its_objects_and_never_alone(world: World) -> None:
    asked: list[str] = []

    def fault(operation: str, key: str, attempt: int) -> None:
        if operation == "delete_many":
            asked.append(key)
            world.check()

    world.faults = fault
    world.clean()
    assert ["/_manifests/" in key for key in asked] == [True, False] * 3


def test_a_dry_run_writes_nothing_at_all(world: World) -> None:
    before = world.bucket.contents()
    dry = world.clean(dry_run=True, confirmed=False)
    assert (dry.outcome, dry.exit_code, dry.operation_id) == ("dry_run", 0, None)
    assert (dry.expiring.objects, dry.expiring.manifests) == (9, 3)
    assert [(item.feed, item.period, item.objects) for item in dry.periods] == [
        ("us-daily", day, 3) for day in DAYS[:3]
    ]
    assert world.bucket.contents() == before
    assert world.ledger.operations.newest() == []
    assert dry.asks == "this is the first cleanup of acme"
    assert world.clean(dry_run=True).asks is None  # confirmed
    assert world.clean().expiring.objects == 9


# --- Gates ---------------------------------------------------------------------------------------------


def test_without_a_policy_nothing_is_listed(world: World) -> None:
    world.said = {}
    lists = world.stores.requests.count("list")
    outcome = world.clean()
    assert (outcome.outcome, outcome.kept) == ("nothing", {Reason.NO_POLICY: 4})
    assert world.stores.requests.count("list") == lists


def test_the_first_cleanup_waits_for_a_person_however_often_it_is_tried(world: World) -> None:
    before = world.bucket.contents()
    for _ in range(3):
        outcome = world.clean(confirmed=False, by="daemon")
        assert (outcome.outcome, outcome.exit_code) == ("unconfirmed", 2)
        assert outcome.failure is not None
        assert outcome.failure.cause == "needs_confirmation"
        world.clock.advance(3600)
    assert world.bucket.contents() == before
    assert {act.outcome for act in world.ledger.operations.newest("acme")} == {"unconfirmed"}
    assert world.removals() == {}
    assert world.clean().outcome == "cleaned"


def test_a_cleanup_with_nothing_to_do_confirms_nothing(world: World) -> None:
    world.said = {"retention": {"days": 9_999}}
    assert world.clean(confirmed=False).outcome == "nothing"
    assert world.clean().outcome == "nothing"
    world.said = {"retention": {"days": 30, "caps": {"max_fraction": 1}}}
    assert world.clean(confirmed=False).outcome == "unconfirmed"


@pytest.mark.parametrize(
    ("caps", "outcome"),
    [
        ({}, "unconfirmed"),  # 6 of 9 are more than half
        ({"max_fraction": "67%"}, "cleaned"),
        ({"max_fraction": 1, "max_objects": 5}, "unconfirmed"),
        ({"max_fraction": 1, "max_objects": 6}, "cleaned"),
    ],
)
def test_more_than_the_caps_waits_for_a_person(world: World, caps: dict[str, Any], outcome: str) -> None:
    world.said = {"retention": {"keep_last": 3}}
    assert world.clean().outcome == "cleaned"
    world.said = {"retention": {"keep_last": 1, "caps": caps}}
    before = world.bucket.contents()
    found = world.clean(confirmed=False)
    assert found.outcome == outcome
    assert found.expiring.objects == 6
    if outcome == "unconfirmed":
        assert found.failure is not None
        assert found.failure.message.startswith("6 of the 9 objects of acme expire")
        assert world.bucket.contents() == before
        assert world.clean().outcome == "cleaned"


def test_only_one_feed_and_one_that_was_never_delivered(world: World) -> None:
    assert world.clean(feed="us-daily", dry_run=True).expiring.objects == 9
    with pytest.raises(ConfigError, match="never received"):
        world.clean(feed="us-dayly")


def test_two_cleanups_of_one_customer_do_not_run_at_once(world: World) -> None:
    world.ledger.leases.claim("cleanup/acme", "another", 90)
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("already_running", 5)


# --- Theirs, and what stays ----------------------------------------------------------------------------


def test_what_is_not_ours_is_not_touched(world: World) -> None:
    first = f"{BASE}2026/01/01/"
    theirs = [
        f"{first}0000.bak",
        f"{first}notes",
        f"{first}0000/x",
        f"{BASE}_manifests/2026-01-01/0",
        "else",
        "xmode",
    ]
    for key in theirs:
        world.put(key, b"theirs")
    world.put(f"{first}0001", b"their words under our key")
    outcome = world.clean()
    assert world.keys_of(DAYS[0]) == {*theirs[:4], f"{first}0001"}
    assert {"else", "xmode"} <= world.bucket.contents().keys()
    assert [(item.key, item.outcome) for item in outcome.left] == [(f"{first}0001", RemovalOutcome.CHANGED)]
    assert world.clean().outcome == "nothing"  # told once; it is the customer's business now


def test_a_key_that_is_overwritten_between_the_listing_and_the_request_is_theirs(world: World) -> None:
    key = f"{BASE}2026/01/01/0001"

    def fault(operation: str, name: str, attempt: int) -> None:
        if operation == "delete_many":
            world.put(key, b"at the last moment")

    world.faults = fault
    outcome = world.clean()
    assert world.bucket.contents()[key] == b"at the last moment"
    assert {item.key: item.outcome for item in outcome.left} == {key: RemovalOutcome.CHANGED}


@pytest.mark.parametrize("what", ["changed", "denied"])
def test_a_manifest_that_stays_keeps_its_objects(world: World, what: str) -> None:
    if what == "changed":
        world.put(manifest(DAYS[1]), b'{"objects": []}')
    else:
        world.grant(
            {
                "Effect": "Deny",
                "Action": "s3:DeleteObject",
                "Resource": f"arn:aws:s3:::acme-data/{manifest(DAYS[1])}",
            }
        )
    outcome = world.clean()
    assert len(world.keys_of(DAYS[1])) == 4
    assert world.keys_of(DAYS[0], DAYS[2]) == set()
    (kept,) = [period for period in outcome.periods if period.period == DAYS[1]]
    assert "manifest" in kept.kept_because
    assert len(world.clean().left) == 1  # said again: its objects are still ours


def test_a_manifest_without_a_checksum_of_the_store_is_compared_by_its_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from tests.fakes.store import MemoryObjectStore

    told = MemoryObjectStore.head

    def head(self: MemoryObjectStore, key: str) -> Any:
        found = told(self, key)
        return found and replace(found, checksum=None)

    monkeypatch.setattr(MemoryObjectStore, "head", head)
    assert world.clean().removed.keys == {RemovalOutcome.DELETED: 12}


def test_locked_objects_are_retained_and_no_failure(world: World) -> None:
    locked = f"arn:aws:s3:::acme-data/{BASE}2026/01/01/000[01]".replace("[01]", "?")
    world.grant({"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": locked})
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("cleaned", 0)
    assert outcome.removed.keys == {RemovalOutcome.DELETED: 9, RemovalOutcome.RETAINED: 3}
    assert len(world.keys_of(DAYS[0])) == 3
    world.grant()
    assert world.clean().removed.keys == {RemovalOutcome.DELETED: 3}


def test_a_versioned_bucket_hides_and_says_what_it_still_stores(world: World) -> None:
    world.bucket.versioned = True
    outcome = world.clean()
    assert outcome.removed.keys == {RemovalOutcome.HIDDEN: 12}
    assert outcome.removed.bytes[RemovalOutcome.HIDDEN] > 0
    assert outcome.lifecycle_rule is not None
    assert outcome.lifecycle_rule["Filter"] == {"Prefix": "xmode/"}
    assert world.ledger.checks.capabilities("acme").versioned is True
    assert len(world.bucket.contents()) == 4
    assert world.clean().outcome == "nothing"


def test_a_period_that_is_being_delivered_is_skipped(world: World) -> None:
    world.ledger.leases.claim(f"delivery/acme/us-daily/{DAYS[0]}", "another", 90)
    outcome = world.clean()
    assert len(world.keys_of(DAYS[0])) == 4
    assert world.keys_of(*DAYS[1:3]) == set()
    assert "right now" in outcome.periods[0].kept_because


def test_a_correction_that_begins_after_the_plan_keeps_its_period(world: World) -> None:
    def fault(operation: str, key: str, attempt: int) -> None:
        if operation == "head" and DAYS[0] in key:
            world.faults = None
            world.write(DAYS[1], "0000", b"corrected")
            world.deliver(DAYS[1])

    world.faults = fault
    outcome = world.clean()
    assert outcome.periods[1].kept_because == "it was delivered or corrected meanwhile"
    assert len(world.keys_of(DAYS[1])) == 6
    world.check()
    assert world.clean().outcome == "cleaned"
    assert world.keys_of(*DAYS[:3]) == set()


def test_a_period_that_is_being_corrected_stays(world: World) -> None:
    world.write(DAYS[0], "0000", b"corrected")
    world.faults = lambda operation, key, attempt: _unavailable() if operation == "put" else None
    period = world.source.state(Period.parse(DAYS[0], PeriodKind.DAY))
    assert period is not None
    deliver(world.context, world.customer, FEED, period)
    world.faults = None
    assert world.ledger.deliveries.latest("acme", "us-daily", DAYS[0]).status is Status.FAILED  # type: ignore[union-attr]
    outcome = world.clean()
    assert outcome.kept == {Reason.UNFINISHED: 2, Reason.NEWEST: 1}
    assert len(world.keys_of(DAYS[0])) == 4
    world.deliver(DAYS[0])
    assert world.clean().outcome == "cleaned"
    assert world.keys_of(DAYS[0]) == set()


def test_what_a_staying_revision_names_stays_with_it(world: World) -> None:
    """By delivery: the first revision expires, the correction does not, and lists what they share."""
    world.clock.advance(40 * 86400)
    world.write(DAYS[0], "0000", b"corrected")
    world.deliver(DAYS[0])
    world.said = {"retention": {"days": 30, "by": "delivery"}, "hold": [f"us-daily/{DAYS[1]}"]}
    world.clean()
    first = f"{BASE}2026/01/01/"
    assert world.keys_of(DAYS[0]) == {
        f"{first}0001",
        f"{first}0002",
        f"{first}_r2/0000",
        manifest(DAYS[0], 2),
    }
    assert len(world.keys_of(DAYS[1])) == 4
    world.check()
    world.clock.advance(40 * 86400)
    world.fill("2026-01-05")
    world.clean()
    assert world.keys_of(DAYS[0]) == set()


# --- Deliveries afterwards -----------------------------------------------------------------------------


def test_what_was_removed_is_not_delivered_again(world: World) -> None:
    world.clean()
    puts = world.stores.requests.count("put")
    world.deliver(*DAYS)
    assert world.stores.requests.count("put") == puts
    assert world.keys_of(*DAYS[:3]) == set()
    state = world.source.state(Period.parse(DAYS[0], PeriodKind.DAY))
    assert state is not None
    planner = Planner(world.context, world.customer, FEED, state, world.source)
    assert {entry.reason for entry in planner.preview()} == {"delivered, removed by a cleanup since"}


def test_a_correction_of_what_was_removed_says_that_the_rest_has_expired(world: World) -> None:
    world.clean()
    world.write(DAYS[0], "0000", b"corrected")
    world.deliver(DAYS[0])
    corrected = f"{BASE}2026/01/01/_r2/0000"
    assert world.keys_of(DAYS[0]) == {corrected, manifest(DAYS[0], 2)}
    world.check()
    put = json.loads(world.bucket.contents()[manifest(DAYS[0], 2)])
    assert [item["key"] for item in put["objects"]] == [corrected]
    assert [(item["key"], item["reason"]) for item in put["missing"]] == [
        (f"{BASE}2026/01/01/0001", "expired"),
        (f"{BASE}2026/01/01/0002", "expired"),
    ]
    found = {item.key for item in world.ledger.keys.delivered("acme")}
    assert found == world.bucket.contents().keys()
    assert world.clean().removed.keys == {RemovalOutcome.DELETED: 2}
    assert world.keys_of(DAYS[0]) == set()


# --- What goes wrong -----------------------------------------------------------------------------------


def _unavailable() -> None:
    raise Unavailable("the line is dead")


@pytest.mark.parametrize("page", [1, 2, 4])
def test_a_listing_that_fails_on_the_way_removes_nothing(world: World, page: int) -> None:
    before = world.bucket.contents()
    world.faults = lambda operation, key, attempt: (
        _unavailable() if operation == "list" and attempt >= page else None
    )
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("failed", 3)
    assert world.bucket.contents() == before
    assert world.removals() == {}
    world.faults = None
    assert world.clean().outcome == "cleaned"


def test_an_empty_listing_removes_nothing_and_says_so(world: World) -> None:
    for key in list(world.bucket.contents()):
        world.bucket.remove(key, world.clock.now())
    outcome = world.clean()
    assert outcome.failure is not None
    assert (outcome.outcome, outcome.failure.cause, outcome.exit_code) == ("blocked", "listing_empty", 4)
    assert world.removals() == {}
    assert outcome.periods == []
    assert [act.outcome for act in world.ledger.operations.newest("acme")] == ["blocked"]


def test_a_listing_that_leaves_keys_out_removes_none_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a store that forgets: what it does not show is looked for, and left."""
    shown = MemoryBucket.page
    hidden = {f"{BASE}2026/01/01/0001", manifest(DAYS[1])}

    def page(self: MemoryBucket, *arguments: Any) -> Any:
        rows, more = shown(self, *arguments)
        return [row for row in rows if row.key not in hidden] or rows[-1:], more

    monkeypatch.setattr(MemoryBucket, "page", page)
    outcome = world.clean()
    assert hidden <= {key for day in DAYS for key in world.keys_of(day)} | hidden
    monkeypatch.undo()
    assert hidden <= world.bucket.contents().keys()
    assert len(world.keys_of(DAYS[1])) == 4  # its manifest is there, so its objects stay
    assert (outcome.outcome, outcome.exit_code) == ("failed", 3)
    assert world.clean().outcome == "cleaned"
    assert world.keys_of(*DAYS[:3]) == set()


def test_a_role_that_refuses_us_and_one_that_may_not_delete(world: World) -> None:
    world.roles.put(ROLE, trust_policy=guide_trust_policy("AnotherID"), permission_policies=[])
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("blocked", 4)
    world.grant({"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"})
    outcome = world.clean()
    assert outcome.removed.keys == {RemovalOutcome.RETAINED: 3}  # the manifests; so no object is asked for
    assert (outcome.outcome, outcome.exit_code) == ("blocked", 4)
    assert outcome.failure is not None
    assert outcome.failure.responsible == "customer"
    assert outcome.failure.message.startswith("0 of 12 expired keys of acme were deleted")
    assert "s3:DeleteObject" in outcome.failure.hint
    (act, *_) = world.ledger.operations.newest("acme")
    assert (act.outcome, act.objects, act.failure) == ("blocked", 0, outcome.failure)
    assert len(world.bucket.contents()) == 16


def test_nothing_is_deleted_through_an_unsafe_role(world: World) -> None:
    """A role that needs no external ID may have been named to us by somebody whose bucket it is not."""
    facts = setup_values(world.customer, Vendor().principal_arn)
    unsafe = finding(Cause.EXTERNAL_ID_NOT_REQUIRED, "trust", facts)
    world.ledger.checks.record(AccessReport("acme", NOW, (unsafe,)))
    assert world.clean().outcome == "cleaned"
    world.fill("2026-01-05")
    world.unsafe_roles = UnsafeRoles.STOP
    outcome = world.clean()
    assert outcome.failure is not None
    assert (outcome.outcome, outcome.failure.cause, outcome.exit_code) == ("blocked", "unsafe_role", 4)
    assert len(world.bucket.contents()) == 8


def test_an_error_of_the_vendors_identity_is_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(self: MemoryRoleSessions) -> str:
        raise VendorIdentityError("no keys")

    monkeypatch.setattr(MemoryRoleSessions, "verify_identity", nobody)
    with pytest.raises(VendorIdentityError):
        world.clean()
    assert world.ledger.operations.newest() == []


def test_stopping_ends_running_requests_and_the_next_cleanup_resumes(world: World) -> None:
    def fault(operation: str, key: str, attempt: int) -> None:
        if operation == "delete_many" and "/_manifests/2026-01-02" in key:
            world.stop.set()

    world.faults = fault
    world.said["retention"]["caps"] = {"max_fraction": 1}
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("interrupted", 130)
    assert world.keys_of(DAYS[0]) == set()
    assert len(world.keys_of(DAYS[1])) == 3
    assert len(world.keys_of(DAYS[2])) == 4
    world.check()
    world.faults = None
    world.stop.clear()
    assert world.clean(confirmed=False).outcome == "cleaned"  # a person let the first go on
    assert world.keys_of(*DAYS[:3]) == set()
    assert set(world.removals().values()) == {RemovalOutcome.DELETED}


def test_stopping_during_the_listing_deletes_nothing(world: World) -> None:
    world.faults = lambda operation, key, attempt: world.stop.set() if operation == "list" else None
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("interrupted", 130)
    assert len(world.bucket.contents()) == 16


@pytest.mark.parametrize("lost", ["manifest", "objects"])
def test_a_lost_answer_is_settled_by_the_next_cleanup(world: World, lost: str) -> None:
    """The request was carried out and nobody heard of it: what is then missing was removed by us."""

    def fault(operation: str, key: str, attempt: int) -> Fault | None:
        ours = operation == "delete_many" and ("_manifests" in key) == (lost == "manifest")
        return Fault.LOSE_ANSWER if ours else None

    world.faults = fault
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("failed", 3)
    (act,) = world.ledger.operations.newest("acme")
    assert act.finished_at is None
    world.faults = None
    last = world.clean()
    assert last.outcome == "cleaned"
    assert last.expiring.settled == (1 if lost == "manifest" else 3)
    assert world.keys_of(*DAYS[:3]) == set()
    assert set(world.removals().values()) == {RemovalOutcome.DELETED}
    assert all(act.finished_at is not None for act in world.ledger.operations.newest("acme"))
    world.check()


def test_a_hold_that_comes_after_a_dead_cleanup_is_kept(world: World) -> None:
    def fault(operation: str, key: str, attempt: int) -> Fault | None:
        return Fault.LOSE_ANSWER if operation == "delete_many" and DAYS[1] in key else None

    world.faults = fault
    world.clean()
    world.faults = None
    world.said["hold"] = True
    outcome = world.clean()
    assert outcome.expiring.settled == 1  # the manifest that went before the hold
    assert outcome.outcome == "nothing"
    assert len(world.keys_of(DAYS[1])) == 3
    assert len(world.keys_of(DAYS[2])) == 4


def test_transient_failures_are_retried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fakes.store import MemoryObjectStore
    from xmode_transfer.aws.stores import Deleted, DeletionResult

    real = MemoryObjectStore.delete_many
    slowed: set[str] = set()

    def delete_many(self: MemoryObjectStore, wanted: Any) -> Any:
        first = [item for item in wanted if item.key not in slowed]
        slowed.update(item.key for item in first)
        answers = {
            item.key: Deleted(item.key, DeletionResult.FAILED, Unavailable("slow down")) for item in first
        }
        rest = [item for item in wanted if item.key not in answers]
        return [*answers.values(), *(real(self, rest) if rest else ())]

    monkeypatch.setattr(MemoryObjectStore, "delete_many", delete_many)
    monkeypatch.setattr(removing, "_LONGEST_PAUSE_SECONDS", 0.0)
    assert world.clean().removed.keys == {RemovalOutcome.DELETED: 12}
    world.fill("2026-01-05")
    slowed.clear()
    monkeypatch.setattr(removing, "_ROUNDS", 1)
    outcome = world.clean()
    assert (outcome.outcome, outcome.exit_code) == ("failed", 3)
    assert outcome.removed.keys == {RemovalOutcome.FAILED: 1}
    assert world.clean().outcome in ("cleaned", "failed")


def test_many_go_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "DELETE_MANY_KEYS", 100)
    world.files = 250
    world.fill("2026-01-05", "2026-01-06")
    batches: list[str] = []
    world.faults = lambda operation, key, attempt: batches.append(key) if operation == "delete_many" else None
    world.stores.page_size = 1000
    outcome = world.clean()
    assert outcome.removed.keys == {RemovalOutcome.DELETED: 251 + 4 * 4}
    assert len(batches) == 4 * 2 + 1 + 3
    assert world.clock.now() - NOW < timedelta(days=1)
