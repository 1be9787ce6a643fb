"""What holds for a work queue whatever happens to its workers, by chance against that of one process; the
contract suite shows that the ledger's own behaves alike."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes import MemoryClock
from xmode_transfer.adapters.local_queue import LocalQueue
from xmode_transfer.domain.errors import AlreadyRunning
from xmode_transfer.domain.fleet import BACKFILL_HANDICAP, FleetState, FleetTurnEnd, Ticket
from xmode_transfer.domain.records import Lease
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


class MemoryLeases:
    """Leases as the ledger keeps them, of a process that renews them in time."""

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}
        self._generation = 0

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        if name in self._held:
            raise AlreadyRunning(f"{name} is already being worked on, by {self._held[name].holder}.")
        self._generation += 1
        self._held[name] = Lease(name, self._generation, holder, NOW + timedelta(seconds=ttl_seconds))
        return self._held[name]

    def release(self, lease: Lease) -> None:
        if self._held.get(lease.name) == lease:
            del self._held[lease.name]


class Chance(RuleBasedStateMachine):
    """A daemon calls, its worker takes turns."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = LocalQueue(MemoryClock(NOW), MemoryLeases(), lambda *_: None)
        self.fleet.seat(dict.fromkeys(NAMES, 1))
        self.workers = 0
        self.running: dict[str, Ticket] = {}
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
        self.workers += 1
        ticket = self.fleet.next(f"host-{self.workers}", TTL, waiting=waiting)
        if ticket is None:
            return
        name = ticket.customer
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

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1))
    def seat(self, names: set[str]) -> None:
        self.fleet.seat(dict.fromkeys(names, 1))
        self.seated = names
        self.called &= names

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
        for waiting in (False, True):
            while (ticket := self.fleet.next("host", TTL, waiting=waiting)) is not None:
                self.fleet.end(ticket, FleetTurnEnd(looked=True))
                self.called.discard(ticket.customer)
        assert self.called <= set(self.running)
        assert FleetState.QUEUED not in self.states().values()


TestChance = Chance.TestCase
TestChance.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

weights = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 100), min_size=2)


def a_fleet(weights: dict[str, int]) -> LocalQueue:
    fleet = LocalQueue(MemoryClock(NOW), MemoryLeases(), lambda *_: None)
    fleet.seat(weights)
    for name in weights:
        fleet.call(name)
    return fleet


def take(fleet: LocalQueue, end: FleetTurnEnd = ENDS[0]) -> str:
    ticket = fleet.next("host", TTL, waiting=False)
    assert ticket is not None
    fleet.end(ticket, end)
    return ticket.customer


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
        ticket = fleet.next("host", TTL, waiting=False)
        assert ticket is not None
        fleet.end(ticket, ends[ticket.customer])
        return ticket.customer

    for _ in range(earlier):
        step()
    waited: Counter[str] = Counter()
    while (name := step()) != late:
        waited[name] += 1
        most = weights[name] * (2 * BACKFILL_HANDICAP + 2) + 1
        assert waited[name] <= most, f"{name} had {waited[name]} turns"


def test_the_clock_is_put_back_without_a_change_of_order() -> None:
    weights = {"acme": 1, "beta": 2, "ceta": 4}
    fleet, other = a_fleet(weights), a_fleet(weights)
    for _ in range(7):
        assert take(fleet) == take(other)
    for name, seat in fleet._seats.items():
        fleet._seats[name] = replace(seat, spent=seat.spent + REBASE_ABOVE)
    fleet._clock_of_turns += REBASE_ABOVE
    fleet._put_clock_back()
    assert fleet._clock_of_turns == 0.0
    assert all(seat.spent <= 2 for seat in fleet._seats.values())
    assert [take(fleet) for _ in range(20)] == [take(other) for _ in range(20)]
