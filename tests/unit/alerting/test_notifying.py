"""Notices put into buckets in memory that obey the customer's policies, with a real ledger."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import (
    Fault,
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
)
from xmode_transfer.alerting.notifying import Notices
from xmode_transfer.alerting.watch import assess_all
from xmode_transfer.aws.policy.documents import guide_permission_policy, guide_trust_policy
from xmode_transfer.config import Configuration, Customer, Feed, Limits, Service, Vendor
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.health import NoticeStatus
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import Delivery, Failure, Status
from xmode_transfer.transfer import context
from xmode_transfer.transfer.context import Context

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ROLE = "arn:aws:iam::111122223333:role/XMode"
NO_NOTICES = {
    "Effect": "Deny",
    "Action": "s3:PutObject",
    "Resource": "arn:aws:s3:::acme-data/xmode/_notices/*",
}


class World:
    """A customer by the guide, two days of whose feed are late or corrected as the ledger says."""

    def __init__(self, ledger: Ledger, clock: MemoryClock) -> None:
        self.ledger, self.clock = ledger, clock
        self.faults: Any = None
        self.buckets = MemoryBuckets(clock)
        self.bucket = self.buckets.create("acme-data", "111122223333")
        self.roles = MemoryRoles(clock)
        self.grant()
        self.stores = MemoryObjectStores(self.buckets, self.roles, faults=self._fault)
        self.sessions = MemoryRoleSessions(self.roles)
        self.notices = Notices(self.context)
        self.wants = True
        self.feeds = ["us-daily"]

    def _fault(self, operation: str, key: str, attempt: int) -> Fault | None:
        return self.faults(operation, key, attempt) if self.faults is not None else None

    def grant(self, *more: dict[str, Any]) -> None:
        document = guide_permission_policy("acme-data")
        document["Statement"] += more
        trust = guide_trust_policy("AcmeCorp")
        self.roles.put(ROLE, trust_policy=trust, permission_policies=[document])

    @property
    def context(self) -> Context:
        return Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: MemorySource(),
            sessions=self.sessions,
            stores=self.stores,
            ledger=self.ledger,
            clock=self.clock,
            progress=None,  # type: ignore[arg-type]
            holder="here",
        )

    @property
    def configuration(self) -> Configuration:
        acme = Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn=ROLE,
            destination={"bucket": "acme-data", "prefix": "xmode/", "region": "us-east-1"},
            feeds=self.feeds,
            notices=self.wants,
        )
        feeds = {
            name: Feed(name=name, source="/data", period="day", partition="%Y/%m/%d") for name in self.feeds
        }
        return Configuration(Service(), feeds, {"acme": acme}, {})

    def deliver(
        self, period: str, revision: int = 1, cause: str | None = None, feed: str = "us-daily"
    ) -> None:
        """By the ledger alone."""
        now = self.clock.now()
        status = Status.BLOCKED if cause else Status.DELIVERED
        failure = Failure(cause, "customer", "refused") if cause else None
        made = Delivery(
            f"{feed}-{period}-{revision}", "acme", feed, period, revision, status, now, now,
            delivered_at=None if cause else now, failure=failure,
        )  # fmt: skip
        with context.held(self.ledger, "delivery", "here") as lease:
            self.ledger.deliveries.create(lease, made)
            self.ledger.deliveries.update(lease, made)

    def run_once(self, minutes: float = 1) -> None:
        self.clock.advance(minutes * 60)
        assessment = assess_all(self.configuration, self.ledger, self.clock)
        self.notices.run_once(self.configuration, assessment)

    def told(self) -> list[tuple[str, str, int]]:
        bodies = [json.loads(body) for _, body in sorted(self.bucket.contents().items())]
        return [(body["kind"], body["period"], body["revision"]) for body in bodies]

    def states(self) -> list[tuple[str, NoticeStatus, int]]:
        return [(item.mark.kind, item.status, item.attempts) for item in self.ledger.notices.find()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = MemoryClock(NOW)
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    made = World(ledger, clock)
    yield made
    assert made.notices.close(5)
    ledger.close()


LATE = ("late", "2026-11-23", 1)


def test_each_event_is_reported_once_in_order(world: World) -> None:
    world.deliver("2026-11-22")
    world.run_once()
    assert world.told() == [LATE]
    world.deliver("2026-11-22", 2)
    for _ in range(3):
        world.run_once()
    world.notices = Notices(world.context)  # another process
    world.run_once()
    assert world.told() == [LATE, ("corrected", "2026-11-22", 2)]
    assert world.states() == [("late", NoticeStatus.PUT, 0), ("corrected", NoticeStatus.PUT, 0)]
    assert world.stores.requests.count("put") == 2


def test_no_notice_sorts_before_one_that_a_reader_has_seen(world: World) -> None:
    """Two that are made in one moment have keys that sort by their feeds, whichever was late first."""
    world.feeds = ["us-daily", "a-daily"]
    world.deliver("2026-11-21")
    world.deliver("2026-11-22", feed="a-daily")
    put: list[str] = []
    world.faults = lambda operation, key, attempt: put.append(key) if operation == "put" else None
    world.run_once()
    assert [item.mark.feed for item in sorted(world.ledger.notices.find(), key=lambda item: item.key)] == [
        "a-daily",
        "us-daily",
    ]
    assert put == sorted(put)
    assert len(put) == 2


def test_notices_stay_in_order_when_the_clock_was_set_back(world: World) -> None:
    world.deliver("2026-11-22")
    world.run_once()
    (first,) = world.bucket.contents()
    world.deliver("2026-11-22", 2)
    world.clock.set(world.clock.now() - timedelta(hours=1))
    world.run_once()
    keys = [item.key for item in world.ledger.notices.find()]
    assert keys == sorted(world.bucket.contents())
    assert keys[0] == first
    assert world.told() == [LATE, ("corrected", "2026-11-22", 2)]


def test_without_a_checksum_in_the_answer_a_head_is_the_proof(world: World) -> None:
    world.stores.answers_checksum = False

    def vanishes(operation: str, key: str, attempt: int) -> None:
        if operation == "head":
            world.bucket.remove(key, world.clock.now())

    world.faults = vanishes
    world.deliver("2026-11-22")
    world.run_once()
    assert world.states() == [("late", NoticeStatus.PLANNED, 1)]
    world.faults = None
    world.run_once(2)
    assert (world.told(), world.states()) == ([LATE], [("late", NoticeStatus.PUT, 1)])


def test_a_deleted_notice_is_not_written_again(world: World) -> None:
    world.deliver("2026-11-22")
    world.run_once()
    world.bucket.remove(next(iter(world.bucket.contents())), NOW)
    world.run_once()
    assert world.told() == []


def test_a_refusal_is_recorded_and_retried_with_backoff(world: World) -> None:
    world.grant(NO_NOTICES)
    world.deliver("2026-11-22")
    world.run_once()
    world.deliver("2026-11-22", 2)
    world.run_once(0.5)
    assert world.told() == []
    # the first one's pause holds up the others: what lies later must not be read earlier
    assert world.states() == [("late", NoticeStatus.PLANNED, 1), ("corrected", NoticeStatus.PLANNED, 0)]
    assert "PutObject" in world.ledger.notices.find()[0].error
    world.run_once()
    world.run_once(1)
    assert world.states()[0] == ("late", NoticeStatus.PLANNED, 2)
    world.grant()
    world.run_once(2)
    assert world.told() == [LATE, ("corrected", "2026-11-22", 2)]


def test_a_lost_answer_is_success(world: World) -> None:
    world.deliver("2026-11-22")
    world.faults = lambda operation, key, attempt: (
        Fault.LOSE_ANSWER if operation == "put" and attempt == 1 else None
    )
    world.run_once()
    assert world.states() == [("late", NoticeStatus.PLANNED, 1)]
    world.run_once(2)
    assert world.told() == [LATE]
    assert world.states() == [("late", NoticeStatus.PUT, 1)]
    assert len(world.bucket.versions(world.ledger.notices.find()[0].key)) == 1


def test_an_unmanaged_object_is_not_overwritten(world: World) -> None:
    world.grant(NO_NOTICES)
    world.deliver("2026-11-22")
    world.run_once()
    (item,) = world.ledger.notices.find()
    with context.held(world.ledger, "x", "here") as lease:
        world.ledger.notices.record(lease, [replace(item, body='{"other":"bytes"}', next_attempt_at=None)])
    world.grant()
    world.run_once(0)
    with context.held(world.ledger, "x", "here") as lease:
        world.ledger.notices.record(lease, [replace(item, next_attempt_at=None)])
    world.run_once(0)
    assert list(world.bucket.contents().values()) == [b'{"other":"bytes"}']
    assert world.ledger.notices.find()[0].status is NoticeStatus.PLANNED


@pytest.mark.parametrize("cause", ["role_refused", "bucket_missing", "unsafe_role"])
def test_a_customer_that_denies_access_is_not_tried(world: World, cause: str) -> None:
    world.deliver("2026-11-22")
    world.deliver("2026-11-24", cause=cause)
    world.run_once(10)
    assert world.states() == [("late", NoticeStatus.PLANNED, 0)]
    assert world.sessions.requests.count("assume_role") == 0
    world.deliver("2026-11-24")
    world.run_once()
    assert world.states() == [("late", NoticeStatus.WITHDRAWN, 0)]  # it is there now
    assert world.told() == []


def test_no_request_for_a_customer_without_notices(world: World) -> None:
    world.wants = False
    world.deliver("2026-11-22")
    world.deliver("2026-11-22", 2)
    world.run_once(1)
    assert (world.told(), world.states()) == ([], [])
    world.wants = True
    world.grant(NO_NOTICES)
    world.run_once()
    world.wants = False
    world.run_once(60)
    assert {status for _, status, _ in world.states()} == {NoticeStatus.WITHDRAWN}


def test_a_vendor_outage_is_not_a_refusal(world: World) -> None:
    world.sessions.identity = None
    world.deliver("2026-11-22")
    assessment = assess_all(world.configuration, world.ledger, world.clock)
    world.notices.offer(world.configuration, assessment)
    assert world.notices.close(5)
    assert world.states() == [("late", NoticeStatus.PLANNED, 0)]


def test_no_request_while_an_outage_stops_the_daemon(world: World) -> None:
    now = world.clock.now()
    issue = Failure("vendor_identity", "vendor", "AWS refuses our key")
    for told in (issue, None):
        with context.held(world.ledger, "daemon", "here") as lease:
            world.ledger.daemons.note(lease, DaemonRecord("here", now, now, 60, 4, trouble=told))
        world.deliver("2026-11-22")
        world.run_once()
        asked = world.sessions.requests.count("assume_role")
        assert (asked, world.told()) == ((0, []) if told else (1, [LATE]))


def test_a_pass_that_hangs_delays_nothing_else(world: World) -> None:
    asked, go = threading.Event(), threading.Event()

    def fault(operation: str, key: str, attempt: int) -> None:
        asked.set()
        assert go.wait(120)

    world.faults = fault
    world.deliver("2026-11-22")
    assessment = assess_all(world.configuration, world.ledger, world.clock)
    world.notices.offer(world.configuration, assessment)
    assert asked.wait(120)
    world.notices.offer(world.configuration, assessment)  # one is under way
    assert not world.notices.close(0.1)
    world.notices.offer(world.configuration, assessment)  # nothing begins any more
    go.set()
    assert world.notices.close(10)
    assert world.told() == [LATE]
    assert world.stores.requests.count("put") == 1
