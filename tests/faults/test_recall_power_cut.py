"""The power fails at every point of a recall over two periods, once before the call takes effect and once
after.

At the cut, each manifest that a customer sees lists only what is there. The next call ends whole: what is
withdrawn is gone and on record as removed by us, once, and nothing else was touched.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import StoredVersion
from tests.forms import points
from xmode_transfer.config import Configuration, Service, Settled
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.recall import RecallState
from xmode_transfer.model.records import Status
from xmode_transfer.model.upkeep import RemovalOutcome, Scope
from xmode_transfer.upkeep.recall import Plan, Request, begin, carry_out, plan

DAYS = [Period.parse(f"2026-01-{day:02}", PeriodKind.DAY) for day in (1, 2)]
SECRET = b"a person who opted out"
THEIRS = {"xmode/us-daily/2026/01/01/a.csv.bak": b"looks like ours"}


@pytest.fixture
def delivered(make_world: Callable[..., Any]) -> Callable[[], Any]:
    """Worlds in which two days are delivered; the second is corrected at the source since."""

    def make() -> Any:
        world = make_world({})
        for day in DAYS:
            for name, data in (("a.csv", b"aaa"), ("b.csv", SECRET)):
                world.source.write(f"{day.start:%Y/%m/%d}/{name}", data, period=day)
            outcome = world.process(period=day)
            assert outcome is not None
            assert outcome.outcome == "delivered"
        world.source.write(f"{DAYS[1].start:%Y/%m/%d}/b.csv", b"corrected", period=DAYS[1])
        for key, data in THEIRS.items():
            world.bucket.store(StoredVersion(key, "theirs", world.clock.now(), body=data, etag='"theirs"'))
        return world

    return make


def configuration(world: Any) -> Configuration:
    return Configuration(Service(), {world.feed.name: world.feed}, {"acme": world.customer}, {})


def recalled(world: Any) -> Plan:
    with world.context() as context:
        of = Request("us-daily", Scope(), ("b.csv",), (), None, "an opt-out", "alice", "")
        made = plan(context, configuration(world), of)
        begin(context, made, Path(world.url.removeprefix("sqlite:///")).with_suffix(".jsonl"))
        return made


def carried_out(world: Any, made: Plan, power: Any = None) -> RecallState | None:
    with world.context(power) as context:
        work = (context, configuration(world), made.recall.id, "acme")
        try:
            return carry_out(*work, may_send=lambda feed, state: True).state
        except XmodeError:
            return None


def check_manifests(world: Any) -> None:
    contents = world.bucket.contents()
    assert {key: contents.get(key) for key in THEIRS} == THEIRS
    days = set()
    for key, body in contents.items():
        if "/_manifests/" in key:
            manifest = json.loads(body)
            days.add(manifest["period"])
            assert all(item["key"] in contents for item in manifest["objects"]), key
    assert len(days) == 2  # never without a manifest


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_the_next_call_ends_whole(
    delivered: Callable[[], Any], make_power: Callable[..., Any], after: bool
) -> None:
    for at in points(7, first=5 if after else 1):
        world = delivered()
        made = recalled(world)
        first = carried_out(world, made, power := make_power(at, after=after))
        check_manifests(world)
        if not power.off:
            assert first is RecallState.DONE
            break
        assert carried_out(world, made) is RecallState.DONE
        check_manifests(world)
        check_end(world, made)
    assert at > 40


def check_end(world: Any, made: Plan) -> None:
    contents = world.bucket.contents()
    data = Counter(body for key, body in contents.items() if "/_manifests/" not in key)
    assert data == {b"aaa": 2, b"corrected": 1, b"looks like ours": 1}
    manifests = [json.loads(body) for key, body in contents.items() if "/_manifests/" in key]
    newest = {item["period"]: item for item in sorted(manifests, key=lambda item: item["revision"])}
    assert {day: (item["count"], len(item["withdrawn"])) for day, item in newest.items()} == {
        DAYS[0].label: (1, 1),
        DAYS[1].label: (2, 1),
    }
    ledger = open_ledger(world.url, world.clock)
    try:
        outcomes = Counter(item.outcome for item in ledger.operations.of_recall("acme", made.recall.id))
        # Whether the bucket keeps versions may not be known yet when a dead operation is settled.
        assert outcomes.total() == 4
        assert set(outcomes) <= {RemovalOutcome.HIDDEN, RemovalOutcome.DELETED}
        assert all(item.finished_at is not None for item in ledger.operations.newest("acme"))
        for day in DAYS:
            latest = ledger.deliveries.latest("acme", "us-daily", day.label)
            assert latest is not None
            assert latest.status is Status.DELIVERED
    finally:
        ledger.close()


@pytest.mark.short
def test_a_batch_of_a_drop_folder_is_replaced_once(
    make_world: Callable[..., Any], make_power: Callable[..., Any]
) -> None:
    """A second batch was being delivered when the recall began, and a run comes after the power cut."""
    for at in points(12, first=2):
        world = make_world({})
        world.feed = world.feed.model_copy(
            update={"period": PeriodKind.NONE, "partition": None, "complete": Settled(settle_seconds=0)}
        )
        for name, data in (("a.csv", b"aaa"), ("b.csv", SECRET), ("c.csv", b"ccc")):
            world.source.write(name, data, period=Period.none())
        world.process(period=Period.none())
        for name, data in (("d.csv", b"ddd"), ("e.csv", b"eee")):
            world.source.write(name, data, period=Period.none())
        world.process(make_power(60, after=True), period=Period.none())
        made = recalled(world)
        first = carried_out(world, made, power := make_power(at, after=at % 2 == 0))
        world.manifests()
        if at % 3 == 0:
            world.process(period=Period.none())
            world.manifests()
        assert carried_out(world, made) is RecallState.DONE
        world.process(period=Period.none())
        batches = world.manifests()
        listed = Counter(item["source"] for batch in batches for item in batch["objects"])
        assert listed == {"a.csv": 1, "c.csv": 1, "d.csv": 1, "e.csv": 1}
        (replacing,) = [batch for batch in batches if batch.get("replaces")]
        assert [item["source"] for item in replacing["objects"]] == ["a.csv", "c.csv"]
        assert replacing["replaces"] == [1]
        assert SECRET not in world.bucket.contents().values()
        if not power.off:
            assert first is RecallState.DONE
            break
    assert at > 30
