"""What holds for a fleet whatever happens to its workers, by chance against the one in memory; the contract
suite shows that the ledger's own behaves alike."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes import MemoryClock, MemoryFleet, MemoryLeases
from xmode_transfer.domain.errors import LeaseLost
from xmode_transfer.domain.fleet import BACKFILL_HANDICAP, FleetState, FleetTurnEnd, Ticket
from xmode_transfer.domain.seats import REBASE_ABOVE

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
TTL = 45.0
NAMES = ("acme", "beta", "ceta", "delta")
ENDS = (
    FleetTurnEnd(again=True),
    FleetTurnEnd(looked=True),
    FleetTurnEnd(reason="The role refused us.", refused=True),
    FleetTurnEnd(again=True, backfill=True),
    FleetTurnEnd(),
)


class Chance(RuleBasedStateMachine):
    """Daemons call, workers take turns, freeze, die and wake; jobs get lost."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = MemoryClock(NOW)
        self.leases = MemoryLeases(self.clock)
        self.fleet = MemoryFleet(self.clock, leases=self.leases)
        self.fleet.seat(dict.fromkeys(NAMES, 1))
        self.workers = 0
        self.running: dict[str, Ticket] = {}
        self.gone: list[Ticket] = []  # taken over, or about to be: their holders may still wake
        self.called: set[str] = set()  # who was called after its last turn began
        self.seated = set(NAMES)

    def states(self) -> dict[str, FleetState]:
        return {turn.customer: turn.state for turn in self.fleet.turns()}

    @rule(name=st.sampled_from(NAMES), hurried=st.booleans())
    def call(self, name: str, hurried: bool) -> None:
        self.fleet.call(name, hurried=hurried)
        if name in self.seated:
            self.called.add(name)

    @rule(waiting=st.booleans())
    def begin(self, waiting: bool) -> None:
        name = self.fleet.queue.next(waiting=waiting)
        if name is None:
            return
        self.workers += 1
        ticket = self.fleet.begin(name, f"host-{self.workers}", TTL)
        assert ticket is not None, "a job stands for a queued turn"
        assert name not in self.running, "two turns of one customer"
        self.running[name] = ticket
        self.called.discard(name)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def end(self, data: Any, end: FleetTurnEnd) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.fleet.end(self.running.pop(name), end)
        if end.again and name in self.seated:
            self.called.add(name)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), frozen=st.booleans())
    def lose(self, data: Any, frozen: bool) -> None:
        """One worker is lost; the others renew their leases."""
        name = data.draw(st.sampled_from(sorted(self.running)))
        ticket = self.running.pop(name)
        self.gone.append(ticket)
        if frozen:
            self.clock.advance(TTL)
            for other in self.running.values():
                self.leases.renew(other.lease, TTL)
        else:
            self.leases.kill(ticket.lease.holder)
        if name in self.seated:
            self.called.add(name)
        assert self.fleet.reap() == [name]

    @rule(name=st.sampled_from(NAMES))
    def lose_job(self, name: str) -> None:
        self.fleet.queue.take_out(name)

    @rule()
    def reap(self) -> None:
        assert self.fleet.reap() == []

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1))
    def seat(self, names: set[str]) -> None:
        self.fleet.seat(dict.fromkeys(names, 1))
        self.seated = names
        self.called &= names

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def wake(self, data: Any) -> None:
        ticket = data.draw(st.sampled_from(self.gone))
        before = self.fleet.turns()
        with pytest.raises(LeaseLost):
            self.fleet.tell(ticket, "us-daily", "2026-11-22")
        with pytest.raises(LeaseLost):
            self.fleet.end(ticket, FleetTurnEnd(looked=True))
        assert self.fleet.turns() == before

    @invariant()
    def nobody_who_was_called_is_forgotten(self) -> None:
        states = self.states()
        for name in self.called:
            assert states[name] in (FleetState.QUEUED, FleetState.RUNNING)

    @invariant()
    def what_runs_is_what_is_held(self) -> None:
        states = self.states()
        assert {name for name in states if states[name] is FleetState.RUNNING} == set(self.running)

    @invariant()
    def serials_are_all_different(self) -> None:
        serials = [turn.serial for turn in self.fleet.turns()]
        assert len(set(serials)) == len(serials)

    def teardown(self) -> None:
        """When the workers have a quiet hour, everybody who was called gets a turn."""
        for ticket in self.running.values():
            self.fleet.end(ticket, FleetTurnEnd(looked=True))
        self.fleet.reap()
        for waiting in (False, True):
            while (name := self.fleet.queue.next(waiting=waiting)) is not None:
                ticket = self.fleet.begin(name, "host", TTL)
                assert ticket is not None
                self.fleet.end(ticket, FleetTurnEnd(looked=True))
                self.called.discard(name)
        assert self.called <= set(self.running)
        assert FleetState.QUEUED not in self.states().values()


TestChance = Chance.TestCase
TestChance.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

weights = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 100), min_size=2)


def a_fleet(weights: dict[str, int]) -> MemoryFleet:
    fleet = MemoryFleet(MemoryClock(NOW))
    fleet.seat(weights)
    for name in weights:
        fleet.call(name)
    return fleet


def take(fleet: MemoryFleet, end: FleetTurnEnd = ENDS[0]) -> str:
    name = fleet.queue.next()
    assert name is not None
    ticket = fleet.begin(name, "host", TTL)
    assert ticket is not None
    fleet.end(ticket, end)
    return name


@given(weights, st.integers(1, 400))
@settings(deadline=None, max_examples=50)
def test_turns_are_shared_by_weight_at_every_moment(weights: dict[str, int], turns: int) -> None:
    fleet = a_fleet(weights)
    begun = Counter(take(fleet) for _ in range(turns))
    had = {name: begun[name] / weight for name, weight in weights.items()}
    longest = max(1 / weight for weight in weights.values())
    step = 1 / 1024  # priorities are whole numbers
    assert max(had.values()) - min(had.values()) <= longest + step


@given(weights, st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 30))
@settings(deadline=None, max_examples=40)
def test_a_backfill_waits_for_so_many_turns_of_each_and_no_longer(
    weights: dict[str, int], behind: list[bool], earlier: int
) -> None:
    ends = {name: FleetTurnEnd(again=True, backfill=late) for name, late in zip(NAMES, behind, strict=True)}
    fleet = a_fleet(weights)
    late = next(iter(weights))
    ends[late] = FleetTurnEnd(again=True, backfill=True)

    def step() -> str:
        name = fleet.queue.next()
        assert name is not None
        ticket = fleet.begin(name, "host", TTL)
        assert ticket is not None
        fleet.end(ticket, ends[name])
        return name

    for _ in range(earlier):
        step()
    waited: Counter[str] = Counter()
    while (name := step()) != late:
        waited[name] += 1
        most = weights[name] * (2 * BACKFILL_HANDICAP + 2) + 1
        assert waited[name] <= most, f"{name} had {waited[name]} turns"


def test_the_clock_is_put_back_without_a_change_of_order() -> None:
    fleet = a_fleet({"acme": 1, "beta": 2, "ceta": 4})
    fleet._virtual = REBASE_ABOVE + 5
    for _ in range(7):
        take(fleet)
    before = [fleet.queue.next() for _ in range(3)]
    fleet.reap()
    assert fleet._virtual == 0.0
    assert [fleet.queue.next() for _ in range(3)] == before
    fleet.reap()
    jobs = [fleet.queue.job(name) for name in ("acme", "beta", "ceta")]
    assert all(job is not None and -2048 <= job.priority <= 0 for job in jobs)
