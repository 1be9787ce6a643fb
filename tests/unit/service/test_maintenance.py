"""Maintenance continues recalls, for whoever they concern, unless a command carries them out."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.upkeep.test_recall import DAY, World, empty, fill, make
from xmode_transfer.config import Configuration
from xmode_transfer.config.times import Work
from xmode_transfer.delivery import judging
from xmode_transfer.model.checks import Decision, Release
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.recall import RecallState
from xmode_transfer.service.maintenance import COMMAND_LEASE, Maintenance, due_recalls
from xmode_transfer.transfer.plan import ScanTotals

__all__ = ["empty", "make"]


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    made = make(settings={"acme": {}, "beta": {}, "gone": {}})
    fill(made)
    return made


def carry_on(world: World, configuration: Configuration, names: list[str]) -> int:
    """Do what a tick asks for; how often the daemon heard of a recall that went on."""
    heard = threading.Semaphore(0)
    nothing: Any = lambda *of: None  # noqa: E731
    maintenance = Maintenance(
        world.context,
        nothing,
        lambda: configuration,
        served=nothing,
        checked=nothing,
        recalled=heard.release,
        on_outage=nothing,
    )
    for name in names:
        maintenance.ask(name, Work.RECALL)
    assert maintenance.wait(60)
    maintenance.stop()
    return heard._value


def test_every_customer_is_continued_with_whatever_its_state(world: World) -> None:
    world.settings["beta"] = {"state": "retired"}
    configuration = world.configuration
    made = world.recalled("b.csv")
    del configuration.customers["gone"]  # type: ignore[attr-defined]
    due = [item.customer for item in due_recalls(world.context)]
    assert due == ["acme", "beta", "gone"]
    assert carry_on(world, configuration, due) == 3
    states = {item.customer: item.state for item in world.ledger.recalls.progress(made.recall.id)}
    assert states == {"acme": RecallState.DONE, "beta": RecallState.DONE, "gone": RecallState.FAILED}
    assert due_recalls(world.context) == []  # the third has to wait
    world.clock.advance(86_400)
    assert [item.customer for item in due_recalls(world.context)] == ["gone"]


def test_a_recall_that_a_command_carries_out_is_left_to_it(world: World) -> None:
    made, other = world.recalled("b.csv"), world.recalled("a.csv", customer="beta")
    lease = world.ledger.leases.claim(f"{COMMAND_LEASE}{made.recall.id}", "elsewhere", 60)
    assert [item.recall for item in due_recalls(world.context)] == [other.recall.id]
    assert due_recalls(world.context, "acme") == []
    world.ledger.leases.release(lease)
    assert len(due_recalls(world.context)) == 4


def test_a_quarantined_period_is_not_corrected_by_a_recall(world: World) -> None:
    feed, source = world.configuration.feeds["us-daily"], world.sources["us-daily"]
    period = Period.parse(DAY, PeriodKind.DAY)

    def may_send(customer: str) -> bool:
        state = source.state(period)
        assert state is not None
        return judging.may_send(world.context, customer, feed, state)

    assert may_send("acme")
    source.write(f"{DAY.replace('-', '/')}/empty.parquet", b"", period=period)
    assert not may_send("acme")
    fingerprint, now = ScanTotals(source.scan(period)).fingerprint, world.clock.now()
    for customer, decision in (("acme", Decision.RELEASED), ("beta", Decision.REJECTED)):
        decided = Release("us-daily", DAY, "", fingerprint, customer, decision, "a", "b", now, ())
        world.ledger.judgements.decide([decided])
    assert may_send("acme")
    assert not may_send("beta")
