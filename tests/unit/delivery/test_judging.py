"""Judging in its place: once for all customers, before the first byte, with the ledger's history."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
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
from xmode_transfer.config import Configuration, Customer, Feed, Limits, Service, Vendor
from xmode_transfer.delivery import release
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.delivery.due import CustomerRun
from xmode_transfer.delivery.judging import NO_PERIOD
from xmode_transfer.delivery.run import judge_period, preview, run_customer
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.checks import Check, Decision, Verdict
from xmode_transfer.model.errors import ConfigError, SourceError
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import DeliveryOutcome, Status
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.transfer.context import Context

ACCOUNTS = {"acme": "100000000000", "globex": "100000000001"}
SUNDAY, MONDAY = "2026-11-22", "2026-11-23"


class _Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class World:
    """Two customers of one feed, in memory but for the ledger."""

    def __init__(self, directory: Path) -> None:
        self.clock = MemoryClock()
        self.ledger = open_ledger(f"sqlite:///{directory}/ledger.db", self.clock)
        self.source = MemorySource()
        self.reads: list[str] = []
        self.source.on_read = lambda name, _: self.reads.append(name)
        self.buckets, self.roles = MemoryBuckets(self.clock), MemoryRoles(self.clock)
        self.feed: dict[str, Any] = {
            "period": "day",
            "partition": "%Y-%m-%d",
            "complete": {"marker": "_SUCCESS"},
        }
        self.stop = threading.Event()
        for name, account in ACCOUNTS.items():
            self.buckets.create(f"{name}-data", account)
            self.roles.put(
                self.customer(name).role_arn,
                trust_policy=guide_trust_policy(name.title()),
                permission_policies=[guide_permission_policy(f"{name}-data")],
            )

    def customer(self, name: str) -> Customer:
        return Customer(
            name=name,
            company=name.title(),
            external_id=name.title(),
            role_arn=f"arn:aws:iam::{ACCOUNTS[name]}:role/XMode",
            destination={"bucket": f"{name}-data", "prefix": "xmode/", "region": "us-east-1"},  # type: ignore[arg-type]
            feeds=("us-daily",),
        )

    @property
    def configuration(self) -> Configuration:
        feed = Feed(**{"name": "us-daily", "source": "/data", **self.feed})
        return Configuration(
            service=Service(),
            feeds=MappingProxyType({"us-daily": feed}),
            customers=MappingProxyType({name: self.customer(name) for name in ACCOUNTS}),
            broken=MappingProxyType({}),
            problems=(),
        )

    @property
    def context(self) -> Context:
        return Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: self.source,
            sessions=MemoryRoleSessions(self.roles),  # type: ignore[arg-type]
            stores=MemoryObjectStores(self.buckets, self.roles),
            ledger=self.ledger,
            clock=self.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            holder="test",
            stop=self.stop,
        )

    def produce(self, day: str, files: dict[str, bytes], marker: str = "1") -> None:
        period = Period.parse(day, PeriodKind.DAY)
        for name, data in files.items():
            self.source.write(f"{day}/{name}", data, period=period)
        self.source.set_state(period, complete=True, marker=marker)

    def run(self, customer: str = "acme", period: str | None = None) -> list[DeliveryOutcome]:
        scope = Scope("us-daily" if period else None, period)
        return run_customer(self.context, self.configuration, customer, scope).deliveries

    def words(self, customer: str = "acme", period: str | None = None) -> dict[str, str]:
        return {outcome.period: outcome.outcome for outcome in self.run(customer, period)}

    def keys(self, customer: str = "acme") -> list[str]:
        return sorted(self.buckets[f"{customer}-data"].contents())

    def decide(
        self, period: str, customer: str | None = None, decision: Decision = Decision.RELEASED
    ) -> release.Decided:
        request = release.Request("us-daily", period, customer, None, decision, "alice", "as agreed")
        return release.decide(self.configuration, self.ledger, self.clock, "test", request)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ledger.close()


def checks_of(outcome: DeliveryOutcome) -> list[Check]:
    return [item.check for item in outcome.checks]


def test_a_period_is_read_and_judged_once_for_all_customers(world: World) -> None:
    world.produce(SUNDAY, {"a.gz": b"not gzip", "b.gz": b"\x1f\x8b", "c.csv": b"1"})
    for customer in ("acme", "globex", "acme"):
        (outcome,) = world.run(customer)
        assert (outcome.outcome, outcome.exit_code, checks_of(outcome)) == ("quarantined", 3, [Check.FORMAT])
        assert outcome.failure is not None
        assert outcome.failure.message.startswith("2026-11-22/a.gz: begins with 'not '")
    assert world.reads == [f"{SUNDAY}/a.gz", f"{SUNDAY}/b.gz"]
    assert world.keys("acme") == world.keys("globex") == []
    assert world.ledger.runs.newest() == []
    latest = world.ledger.deliveries.latest("acme", "us-daily", SUNDAY)
    judgement = world.ledger.judgements.last("us-daily", SUNDAY)
    assert latest is not None
    assert judgement is not None
    assert (latest.status, latest.attempts) == (Status.QUARANTINED, 2)
    assert latest.fingerprint == judgement.fingerprint
    assert (judgement.files, judgement.bytes, judgement.verdict) == (3, 11, Verdict.QUARANTINED)
    assert latest.next_attempt_at is not None
    assert (
        latest.next_attempt_at - world.clock.now()
    ).total_seconds() == 60  # the second pause is twice the first


def test_the_run_goes_on_and_a_corrected_source_is_judged_anew(world: World) -> None:
    world.produce(SUNDAY, {"a.gz": b""})
    world.produce(MONDAY, {"a.csv": b"1"})
    world.clock.advance(3 * 86400)
    assert world.words() == {SUNDAY: "quarantined", MONDAY: "delivered"}
    world.produce(SUNDAY, {"a.gz": b"\x1f\x8b"})
    assert world.words() == {SUNDAY: "delivered"}
    assert world.words() == {}


def test_a_correction_is_judged_alike_and_what_is_published_stays(world: World) -> None:
    world.produce(SUNDAY, {"a.gz": b"\x1f\x8b", "b.gz": b"\x1f\x8b"})
    assert world.words() == {SUNDAY: "delivered"}
    published = world.keys()
    world.reads.clear()
    world.produce(SUNDAY, {"b.gz": b"spoilt"}, marker="2")
    assert world.words() == {SUNDAY: "quarantined"}
    assert set(world.reads) == {f"{SUNDAY}/b.gz"}  # what is only listed again is not read
    assert world.keys() == published
    assert world.ledger.judgements.history("us-daily", MONDAY, 9) == [(SUNDAY, 2, 4)]
    world.produce(SUNDAY, {"b.gz": b"\x1f\x8b!"}, marker="3")
    (outcome,) = world.run()
    assert (outcome.outcome, outcome.revision) == ("delivered", 2)


def test_a_change_is_found_by_the_history_of_the_ledger(world: World) -> None:
    world.feed["checks"] = {"change": {"files": "50%"}}
    days = ["2026-11-16", "2026-11-17", "2026-11-18", "2026-11-19", "2026-11-20"]
    world.clock.advance(86400)
    for day in days:
        world.produce(day, {f"{number}.csv": b"1" for number in range(10)})
    world.produce("2026-11-21", {"a.csv": b"1"})  # a Saturday: no other one is known
    assert set(world.words().values()) == {"delivered"}
    world.produce(MONDAY, {f"{number}.csv": b"1" for number in range(4)})
    (outcome,) = world.run("globex", MONDAY)
    assert outcome.outcome == "quarantined"
    assert outcome.checks[0].message.startswith("4 files; the median of the last 5 periods is 10: 60 % less")
    previewed = next(iter(preview(world.context, world.configuration, "acme", Scope(), CustomerRun("acme"))))
    assert len(list(previewed.entries())) == 4
    verdict = previewed.verdict()
    assert verdict is not None
    assert verdict.is_held_back
    world.decide(MONDAY)
    assert not previewed.verdict().is_held_back  # type: ignore[union-attr]
    assert world.words() == {MONDAY: "delivered"}


def test_other_rules_judge_anew(world: World) -> None:
    world.feed["checks"] = {"min_files": 2}
    world.produce(SUNDAY, {"a.csv": b"1"})
    assert world.words() == {SUNDAY: "quarantined"}
    world.feed["checks"] = {"min_files": 1}
    assert world.words() == {SUNDAY: "delivered"}


def test_an_empty_period_waits_once_the_feed_has_delivered_files(world: World) -> None:
    world.produce("2026-11-20", {})
    assert world.words() == {"2026-11-20": "delivered"}
    world.produce("2026-11-21", {"a.csv": b"1"})
    assert world.words() == {"2026-11-21": "delivered"}
    world.produce(SUNDAY, {})
    (outcome,) = world.run()
    assert (outcome.outcome, checks_of(outcome)) == ("quarantined", [Check.EMPTY_PERIOD])
    world.feed["checks"] = {"empty_period": "deliver"}
    assert world.words() == {SUNDAY: "delivered"}


def test_a_warning_delivers(world: World) -> None:
    world.feed["checks"] = {"on_failure": "warn"}
    world.produce(SUNDAY, {"a.gz": b""})
    (outcome,) = world.run()
    assert (outcome.outcome, outcome.exit_code, checks_of(outcome)) == ("delivered", 0, [Check.EMPTY_FILE])
    (judgement,) = world.ledger.judgements.find()
    assert judgement.verdict is Verdict.WARNED


def test_a_released_header_is_what_the_next_period_is_compared_with(world: World) -> None:
    world.feed["checks"] = {"csv": {"header": "same"}}
    world.clock.advance(2 * 86400)
    world.produce("2026-11-20", {"a.csv": b"id,name\n", "b.tsv": b"id\n"})
    world.produce("2026-11-21", {"a.csv": b"id,name,lat\n"})
    world.produce(SUNDAY, {"a.csv": b"id,name\n"})
    assert world.words() == {"2026-11-20": "delivered", "2026-11-21": "quarantined", SUNDAY: "delivered"}
    assert world.decide("2026-11-21").customers == ["acme"]
    assert world.words() == {"2026-11-21": "delivered"}
    world.produce(MONDAY, {"a.csv": b"id,name\n", "b.tsv": b"id\n"})
    assert world.words() == {MONDAY: "delivered"}  # as on the last sound day
    world.produce("2026-11-24", {"a.csv": b"id;name\n", "b.tsv": b"id;\n"})
    (outcome,) = world.run()
    assert checks_of(outcome) == [Check.HEADER, Check.HEADER]
    assert outcome.checks[0].message == "its first line is 'id;name'; that of period 2026-11-23 is 'id,name'"


def test_a_source_in_a_bucket_is_read_by_several_threads_in_order(world: World) -> None:
    world.feed |= {"source": "s3://source/x", "checks": {"csv": {"header": "same"}}}
    world.produce(SUNDAY, {f"{number:03}.csv": b"%d\n" % (number > 40) for number in range(50)})
    (outcome,) = world.run()
    assert [(item.file, item.message) for item in outcome.checks] == [
        (f"{SUNDAY}/041.csv", f"its first line is '1'; that of {SUNDAY}/000.csv is '0'; 8 other files too")
    ]


def test_an_unreadable_file_is_no_verdict(world: World) -> None:
    world.produce(SUNDAY, {"a.gz": b"spoilt"})
    world.source.make_unreadable(f"{SUNDAY}/a.gz")
    (outcome,) = world.run()
    assert (outcome.outcome, outcome.failure and outcome.failure.cause) == ("failed", "source_unreadable")
    assert world.ledger.judgements.find() == []


def test_judging_ends_on_request_and_is_done_again(world: World) -> None:
    world.feed["checks"] = {"deep": True}
    world.produce(SUNDAY, {"a.gz": b"spoilt", "b.gz": b"spoilt"})
    world.source.on_read = lambda *_: world.stop.set()
    feed = world.configuration.feeds["us-daily"]
    (state,) = world.source.periods()
    outcome = deliver(world.context, world.customer("acme"), feed, state)
    assert (outcome.outcome, outcome.exit_code, outcome.ends_run) == ("interrupted", 130, True)
    assert world.ledger.judgements.find() == []
    world.stop.clear()
    world.source.on_read = None
    assert world.words() == {SUNDAY: "quarantined"}


def test_one_process_at_a_time_judges(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmode_transfer.delivery.judging._WAIT_SECONDS", 0)
    world.produce(SUNDAY, {"a.gz": b"spoilt"})
    lease = world.ledger.leases.claim(f"checks/us-daily/{SUNDAY}", "another", 45)
    (outcome,) = world.run()
    assert (outcome.outcome, outcome.exit_code) == ("already_running", 5)
    assert world.reads == []
    world.ledger.leases.release(lease)
    assert world.words() == {SUNDAY: "quarantined"}


def test_a_decision_is_bound_to_the_source_as_it_was_judged(world: World) -> None:
    world.produce(SUNDAY, {"a.gz": b""})
    assert world.words() == {SUNDAY: "quarantined"}
    world.decide(SUNDAY)
    latest = world.ledger.deliveries.latest("acme", "us-daily", SUNDAY)
    assert latest is not None
    assert latest.next_attempt_at is None  # the daemon delivers it at once
    world.produce(SUNDAY, {"a.gz": b"spoilt otherwise"})
    assert world.words() == world.words("globex") == {SUNDAY: "quarantined"}


def test_a_rejection_may_be_overruled_and_a_renewed_period_is_due(world: World) -> None:
    world.produce(SUNDAY, {"a.gz": b""})
    world.words()
    world.decide(SUNDAY, decision=Decision.REJECTED)
    latest = world.ledger.deliveries.latest("acme", "us-daily", SUNDAY)
    assert latest is not None
    assert (latest.status, latest.failure and latest.failure.cause) == (Status.SKIPPED, "rejected")
    assert world.words() == {}
    world.produce(SUNDAY, {}, marker="2")
    assert world.words() == {SUNDAY: "skipped"}  # declared anew, and as bad as before
    assert world.words() == {}
    world.decide(SUNDAY, "acme")
    assert world.words("globex") == {SUNDAY: "skipped"}
    assert world.words("acme", SUNDAY) == {SUNDAY: "delivered"}
    with pytest.raises(ConfigError, match="2026-11-22 was released by alice"):
        world.decide(SUNDAY, "acme")


def test_a_decision_needs_something_to_decide(world: World) -> None:
    world.produce(SUNDAY, {"a.csv": b"1"})
    world.words()
    for request, words in (
        (release.Request("us-daily", SUNDAY, None, None, Decision.RELEASED, "a", "b"), "nothing of us-daily"),
        (release.Request("other", SUNDAY, None, None, Decision.RELEASED, "a", "b"), "there is no feed other"),
        (release.Request("us-daily", SUNDAY, "nobody", None, Decision.RELEASED, "a", "b"), "nobody"),
        (
            release.Request("us-daily", SUNDAY, None, "a.csv", Decision.RELEASED, "a", "b"),
            "--file is for a drop",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            release.decide(world.configuration, world.ledger, world.clock, "test", request)
    assert world.ledger.judgements.decisions("us-daily", SUNDAY) == []


def test_a_producer_sees_the_verdict_without_a_ledger(world: World) -> None:
    period = Period.parse(SUNDAY, PeriodKind.DAY)
    world.produce(SUNDAY, {"a.gz": b"", "b.csv": b"12"})
    world.source.set_state(period, complete=False, reason="no _SUCCESS yet")
    context, configuration = world.context, world.configuration
    state, previewed = judge_period(configuration, context.sources, None, world.clock, "us-daily", SUNDAY)
    assert (state.complete, previewed.is_held_back) == (False, True)
    assert (previewed.judgement.files, previewed.judgement.bytes) == (2, 2)
    with pytest.raises(ConfigError, match="no feed other"):
        judge_period(configuration, context.sources, None, world.clock, "other", SUNDAY)
    with pytest.raises(SourceError):
        judge_period(configuration, context.sources, None, world.clock, "us-daily", MONDAY)


# --- A drop folder -----------------------------------------------------------------------------------


@pytest.fixture
def drops(world: World) -> World:
    world.feed = {"period": "none", "complete": {"settle_seconds": 0}}
    return world


def test_files_of_a_drop_folder_are_judged_one_by_one(drops: World) -> None:
    drops.source.write("a.gz", b"spoilt")
    drops.source.write("b.gz", b"\x1f\x8b")
    (outcome,) = drops.run()
    assert (outcome.outcome, outcome.exit_code, outcome.uploaded) == ("delivered", 3, 1)
    assert [item.file for item in outcome.checks] == ["a.gz"]
    (judgement,) = drops.ledger.judgements.find()
    assert (judgement.name, judgement.period, judgement.verdict) == ("a.gz", NO_PERIOD, Verdict.QUARANTINED)
    drops.reads.clear()
    (again,) = drops.run("globex")
    assert (again.uploaded, "a.gz" in drops.reads) == (1, False)  # its verdict is known
    assert [outcome.exit_code for outcome in drops.run()] == [3]

    drops.source.write("a.gz", b"\x1f\x8b corrected")
    (outcome,) = drops.run()
    assert (outcome.outcome, outcome.exit_code, outcome.revision) == ("delivered", 0, 2)
    assert drops.ledger.judgements.find() == []


def test_the_verdict_on_a_file_that_is_gone_is_forgotten(drops: World) -> None:
    drops.source.write("a.gz", b"spoilt")
    drops.source.write("b.csv", b"1")
    assert [outcome.exit_code for outcome in drops.run()] == [3]
    drops.source.remove("a.gz")
    assert [outcome.exit_code for outcome in drops.run()] == [0]
    assert drops.ledger.judgements.find() == []


def test_a_delivered_file_stays_while_its_new_content_waits(drops: World) -> None:
    drops.source.write("a.gz", b"\x1f\x8b")
    drops.run()
    keys = drops.keys()
    drops.source.write("a.gz", b"spoilt")
    (outcome,) = drops.run()
    assert (outcome.outcome, outcome.exit_code, drops.keys()) == ("skipped", 3, keys)
    assert drops.decide(NO_PERIOD).judgements[0].name == "a.gz"
    (outcome,) = drops.run()
    assert (outcome.outcome, outcome.exit_code, outcome.revision) == ("delivered", 0, 2)


def test_a_batch_of_nothing_but_bad_files_is_not_put(drops: World) -> None:
    drops.source.write("a.gz", b"spoilt")
    (outcome,) = drops.run()
    assert (outcome.outcome, outcome.exit_code, drops.keys()) == ("quarantined", 3, [])
    drops.decide(NO_PERIOD, decision=Decision.REJECTED)
    (outcome,) = drops.run()
    assert (outcome.outcome, outcome.exit_code, drops.keys()) == ("skipped", 0, [])
    drops.source.write("b.csv", b"1")
    (outcome,) = drops.run()
    assert (outcome.outcome, outcome.revision, outcome.uploaded) == ("delivered", 1, 1)
    drops.source.write("c.csv", b"1")
    assert [(outcome.outcome, outcome.exit_code) for outcome in drops.run()] == [("delivered", 0)]


def test_a_preview_of_a_drop_folder_writes_nothing(drops: World) -> None:
    drops.source.write("a.gz", b"spoilt")
    drops.source.write("b.csv", b"1")
    (previewed,) = preview(drops.context, drops.configuration, "acme", Scope(), CustomerRun("acme"))
    assert [entry.name for entry in previewed.entries()] == ["b.csv"]
    verdict = previewed.verdict()
    assert verdict is not None
    assert (verdict.is_held_back, verdict.judgement.files) == (True, 2)
    assert drops.ledger.judgements.find() == []
