"""Turns: who begins, who makes room; and a thousand customers of which a tenth is in trouble."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from xmode_transfer.domain.backoff import Backoff
from xmode_transfer.domain.fairness import STALLED_SECONDS, WAITING_PLACES, Place, Round
from xmode_transfer.domain.records import Delivery, Failure, Status


def a_round(places: int = 2, waiting: int = 2, **weights: int) -> Round:
    table = Round(places, waiting)
    table.seat(weights or dict.fromkeys("abcd", 1))
    return table


def begun(table: Round) -> list[str]:
    return [name for name, _ in table.begin()]


# --- The rules ------------------------------------------------------------------------------------------


def test_places_are_bounded_and_given_in_order() -> None:
    table = a_round()
    for name in "abcd":
        table.call(name)
        table.call(name)  # twice is once
    assert begun(table) == ["a", "b"]
    assert begun(table) == []
    table.end("a", again=True, ailing=False)
    assert begun(table) == ["c"]
    table.end("b", again=False, ailing=False)
    assert begun(table) == ["d"]
    table.end("c", again=False, ailing=False)
    assert begun(table) == ["a"]


def test_a_customer_holds_one_place_whatever_its_backlog() -> None:
    table = a_round(places=4, a=1)
    table.call("a")
    assert begun(table) == ["a"]
    table.call("a")
    assert begun(table) == []
    table.end("a", again=False, ailing=False)
    assert begun(table) == ["a"]  # it was called meanwhile


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1, "c": 1}, {"a": 3, "b": 1, "c": 1}, {"a": 5, "b": 3, "c": 2}]
)
def test_turns_follow_the_weights(weights: dict[str, int]) -> None:
    table = a_round(places=1, **weights)
    for name in weights:
        table.call(name)
    turns: list[str] = []
    for _ in range(10 * sum(weights.values())):
        (name,) = begun(table)
        turns.append(name)
        table.end(name, again=True, ailing=False)
    assert Counter(turns) == {name: 10 * weight for name, weight in weights.items()}
    # in each round, not all at the end
    longest = max(len(run) for run in "".join("x" if n == "a" else " " for n in turns).split())
    assert longest <= weights["a"] + 1


def test_who_rested_has_no_credit() -> None:
    table = a_round(places=1, a=1, b=1)
    table.call("a")
    for _ in range(100):
        assert begun(table) == ["a"]
        table.end("a", again=True, ailing=False)
    table.call("b")
    turns = []
    for _ in range(6):
        (name,) = begun(table)
        turns.append(name)
        table.end(name, again=True, ailing=False)
    assert Counter(turns) == {"a": 3, "b": 3}


def test_a_stalled_turn_makes_room_while_there_is_any() -> None:
    table = a_round(places=1, waiting=1)
    for name in "abc":
        table.call(name)
    assert begun(table) == ["a"]
    assert table.stall("a")
    assert not table.stall("a")
    assert begun(table) == ["b"]
    assert not table.stall("b")  # the waiting room is full
    assert begun(table) == []
    table.end("a", again=True, ailing=True)
    assert list(table.begin()) == [("a", Place.WAITING_ROOM)]  # who fails begins there
    table.end("b", again=False, ailing=False)
    assert begun(table) == ["c"]
    table.end("a", again=True, ailing=False)
    table.end("c", again=False, ailing=False)
    assert list(table.begin()) == [("a", Place.REGULAR)]


def test_who_leaves_is_not_called_any_more() -> None:
    table = a_round(places=1, a=1, b=1)
    table.call("a")
    table.call("b")
    assert begun(table) == ["a"]
    assert table.seat({"c": 1}) == ["a"]  # still running
    table.call("a")
    assert begun(table) == []
    table.end("a", again=True, ailing=False)
    assert begun(table) == []
    table.call("c")
    assert begun(table) == ["c"]


def test_contention_is_somebody_waiting_for_that_kind_of_place() -> None:
    table = a_round(places=1, a=1, b=1)
    table.call("a")
    assert begun(table) == ["a"]
    assert not table.is_contended("a")
    table.call("b")
    assert table.is_contended("a")
    table.stall("a")
    assert not table.is_contended("a")


class AnyRound(RuleBasedStateMachine):
    """Whatever is called in whatever order: places stay bounded, and nobody who was called is forgotten."""

    names = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.table = Round(2, 1)
        self.seated = dict.fromkeys("abcdef", 1)
        self.table.seat(self.seated)
        self.running: dict[str, Place] = {}
        self.wanted: set[str] = set()

    @rule(name=names)
    def call(self, name: str) -> None:
        self.table.call(name)
        if name in self.seated:
            self.wanted.add(name)

    @rule()
    def begin(self) -> None:
        for name, place in self.table.begin():
            assert name not in self.running
            assert name in self.wanted
            self.running[name] = place
            self.wanted.discard(name)

    @rule(name=names)
    def stall(self, name: str) -> None:
        if self.table.stall(name):
            assert self.running[name] is Place.REGULAR
            self.running[name] = Place.WAITING_ROOM

    @rule(name=names, again=st.booleans(), ailing=st.booleans())
    def end(self, name: str, again: bool, ailing: bool) -> None:
        if name in self.running:
            del self.running[name]
            self.table.end(name, again=again, ailing=ailing)
            if again and name in self.seated:
                self.wanted.add(name)

    @rule(weights=st.dictionaries(names, st.integers(1, 5)))
    def seat(self, weights: dict[str, int]) -> None:
        left = self.table.seat(weights)
        assert set(left) == set(self.running) - set(weights)
        self.seated = weights
        self.wanted &= set(weights)

    @invariant()
    def bounded(self) -> None:
        places = Counter(self.running.values())
        assert places[Place.REGULAR] <= 2
        assert places[Place.WAITING_ROOM] <= 1

    def teardown(self) -> None:
        for _ in range(50):
            self.begin()
            for name in list(self.running):
                self.end(name, again=False, ailing=False)
        assert not self.wanted


TestAnyRound = AnyRound.TestCase
TestAnyRound.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# --- A thousand customers -------------------------------------------------------------------------------

START = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = 3600.0
ANSWERS = {
    "403": 0.4,
    "503": 45.0,
    "nothing": 130.0,
}  # seconds until such a destination has failed a delivery


@dataclass
class Simulation:
    """The daemon's turns in simulated time: hourly periods for everybody, deliveries of a few seconds, and
    customers in trouble between two hours. The decisions are the ones of the daemon; the clock, the work and
    the ledger are simulated."""

    trouble: dict[str, str]
    hours: int
    seed: int
    customers: int = 1000
    workers: int = 16
    waiting_places: int = WAITING_PLACES
    tick: float = 60.0
    window: float = 600.0  # the hour's periods become complete within so many seconds
    backlog: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        random = Random(self.seed)
        names = [f"c{number}" for number in range(self.customers)]
        self.work = {name: random.lognormvariate(0.6, 0.7) for name in names}  # median 1.8 s, mean 2.3 s
        complete = {
            name: [hour * HOUR + random.uniform(0, self.window) for hour in range(self.hours)]
            for name in names
        }
        for name, extra in self.backlog.items():
            complete[name] = [0.0] * extra + complete[name]
        self.round = Round(self.workers, self.waiting_places * self.workers)
        self.round.seat({name: self.weights.get(name, 1) for name in names})
        self.periods = complete
        self.done: dict[str, int] = defaultdict(int)
        self.parked: dict[str, Delivery] = {}
        self.freshness: dict[str, list[float]] = defaultdict(list)
        self.probes = Counter[str]()
        self.events: list[tuple[float, int, str, str, int]] = []
        self.turn: dict[str, int] = defaultdict(int)
        self.busiest: Counter[str] = Counter()
        self.number = 0
        end = self.hours * HOUR
        for name, times in complete.items():
            for at in times:
                # seen at the next tick, spread over it
                seen = (at // self.tick + 1) * self.tick + random.uniform(0, 1)
                self.at(seen, "call", name)
        while self.events and (event := heapq.heappop(self.events))[0] < end + HOUR:
            now, _, what, name, turn = event
            if (what == "call" and name not in self.parked) or what == "probe":
                self.round.call(name)
            elif what == "stalled" and turn == self.turn[name] and self.round.is_running(name):
                if not self.round.stall(name):
                    self.at(now + 1, "stalled", name, turn)
            elif what == "end" and turn == self.turn[name]:
                self.end(now, name)
            for begun, _ in self.round.begin():
                self.start(now, begun)

    def at(self, when: float, what: str, name: str, turn: int = 0) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, what, name, turn))

    def troubled(self, now: float, name: str) -> str | None:
        return self.trouble.get(name) if HOUR <= now < (self.hours - 2) * HOUR else None

    def start(self, now: float, name: str) -> None:
        self.turn[name] += 1
        answer = self.troubled(now, name)
        seconds = self.work[name] if answer is None else ANSWERS[answer]
        if not self.due(now, name):
            seconds = 0.05  # a look that finds nothing
        elif answer is not None and seconds > STALLED_SECONDS:
            self.at(now + STALLED_SECONDS, "stalled", name, self.turn[name])
        self.at(now + seconds, "end", name, self.turn[name])

    def due(self, now: float, name: str) -> bool:
        done = self.done[name]
        return done < len(self.periods[name]) and self.periods[name][done] <= now

    def end(self, now: float, name: str) -> None:
        if self.due(now, name):
            answer = self.troubled(now, name)
            if answer is not None:
                self.park(now, name, answer)
                self.round.end(name, again=False, ailing=True)
                return
            self.freshness[name].append(now - self.periods[name][self.done[name]])
            self.done[name] += 1
            self.parked.pop(name, None)
        self.round.end(name, again=self.due(now, name), ailing=False)

    def park(self, now: float, name: str, answer: str) -> None:
        self.probes[name] += 1
        wall = START + timedelta(seconds=now)
        earlier = self.parked.get(name) or Delivery("id", name, "f", "p", 1, Status.BLOCKED, wall, wall)
        then = Backoff().next_attempt_at(earlier, wall)
        failure = Failure(answer, "customer", answer)
        self.parked[name] = replace(earlier, failure=failure, updated_at=wall, next_attempt_at=then)
        self.at((then - START).total_seconds(), "probe", name)


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(part * (len(values) - 1))]


def a_tenth_in_trouble(hours: int, seed: int = 7, **how: Any) -> tuple[float, str]:
    """How far the healthy customers' p99 moves, and the figures."""
    sick = {f"c{number}": list(ANSWERS)[number % 30 // 10] for number in range(0, 1000, 10)}
    all_well, in_trouble = Simulation({}, hours, seed, **how), Simulation(sick, hours, seed, **how)
    all_well.run()
    in_trouble.run()
    healthy = [f"c{number}" for number in range(1000) if f"c{number}" not in sick]
    before = [value for name in healthy for value in all_well.freshness[name]]
    after = [value for name in healthy for value in in_trouble.freshness[name]]
    assert len(before) == len(after) == 900 * hours
    drained = sum(in_trouble.done[name] == hours for name in sick)
    moved = percentile(after, 0.99) / percentile(before, 0.99) - 1
    return moved, (
        f"1,000 customers by the hour for {hours} h, complete within {all_well.window:.0f} s, 16 workers: "
        f"the healthy 900 wait p50 {percentile(before, 0.5):.1f} s, p99 {percentile(before, 0.99):.1f} s; "
        f"beside 100 that answer 403, 503 or nothing p50 {percentile(after, 0.5):.1f} s, "
        f"p99 {percentile(after, 0.99):.1f} s ({moved:+.1%}); {in_trouble.probes.total()} tries in vain, "
        f"{drained} of the 100 drained by themselves"
    )


BURST = {"window": 60.0, "tick": 1.0}  # everybody at once: the pool is what is waited for


@pytest.mark.parametrize("how", [{}, BURST], ids=["spread", "burst"])
def test_a_tenth_of_a_thousand_customers_in_trouble_does_not_hold_up_the_rest(
    figures: Callable[..., None], how: dict[str, float]
) -> None:
    moved, line = a_tenth_in_trouble(6, **how)
    figures(line)
    assert moved < 0.05, line
    assert " 100 of the 100 drained" in line


def test_without_the_waiting_room_they_would() -> None:
    moved, _ = a_tenth_in_trouble(6, **BURST, waiting_places=0)
    assert moved > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, BURST], ids=["spread", "burst"])
@pytest.mark.parametrize("seed", range(5))
def test_days_of_trouble_do_not_hold_up_the_rest(
    figures: Callable[..., None], seed: int, how: dict[str, float]
) -> None:
    moved, line = a_tenth_in_trouble(48, seed, **how)
    figures(line)
    assert moved < 0.05, line
    assert " 100 of the 100 drained" in line


def test_a_giant_backlog_does_not_hold_up_the_rest(figures: Callable[..., None]) -> None:
    alone = Simulation({}, 4, 3, customers=200, workers=4)
    beside = Simulation({}, 4, 3, customers=200, workers=4, backlog={"c0": 2000})
    alone.run()
    beside.run()
    others = [f"c{number}" for number in range(1, 200)]
    before = percentile([v for name in others for v in alone.freshness[name]], 0.99)
    after = percentile([v for name in others for v in beside.freshness[name]], 0.99)
    figures(
        f"200 customers, 4 workers: p99 {before:.1f} s; beside a backlog of 2,000 periods {after:.1f} s "
        f"({after / before - 1:+.1%})"
    )
    assert after < before * 1.05
    assert beside.done["c0"] == 2004
