"""The work queue of one process, with a thousand customers of which a tenth is in trouble."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from tests.fakes import MemoryClock
from xmode_transfer.model.jobs import Backoff, Job, JobRequest, JobResult
from xmode_transfer.model.records import Delivery, Failure, Lease, Status
from xmode_transfer.service.jobs import Slot
from xmode_transfer.service.local_queue import LocalQueue
from xmode_transfer.service.worker import STALLED_SECONDS, WAITING_SLOTS


class Leases:
    """Nobody else takes any."""

    def __init__(self) -> None:
        self._generation = 0

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        self._generation += 1
        return Lease(name, self._generation, holder, START + timedelta(seconds=ttl_seconds))

    def release(self, lease: Lease) -> None: ...


class Slots:
    """The slots of a worker beside its queue, as ``service.worker`` fills them."""

    def __init__(self, slots: int, waiting_slots: int, weights: dict[str, int]) -> None:
        self._free = {slot: slots if slot is Slot.REGULAR else waiting_slots for slot in Slot}
        self._running: dict[str, tuple[Job, Slot]] = {}
        self._queue = LocalQueue(MemoryClock(START), Leases(), lambda *_: None)
        self._queue.register(weights)

    def call(self, name: str) -> None:
        self._queue.enqueue([JobRequest(name)])

    def begin(self) -> Iterator[str]:
        for slot in (Slot.REGULAR, Slot.SUSPENDED):
            while self._free[slot] > 0:
                job = self._queue.next("worker", 45, suspended=slot is Slot.SUSPENDED)
                if job is None:
                    break
                self._free[slot] -= 1
                self._running[job.customer] = job, slot
                yield job.customer

    def stall(self, name: str) -> bool:
        job, slot = self._running[name]
        if slot is not Slot.REGULAR or not self._free[Slot.STALLED]:
            return False
        self._free[slot] += 1
        self._free[Slot.STALLED] -= 1
        self._running[name] = job, Slot.STALLED
        return True

    def end(self, name: str, *, again: bool, ailing: bool) -> None:
        job, slot = self._running.pop(name)
        self._free[slot] += 1
        self._queue.done(job, JobResult(again=again, reason="refused" if ailing else ""))

    def is_running(self, name: str) -> bool:
        return name in self._running


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
    """The daemon's jobs in simulated time: hourly periods for everybody, deliveries of a few seconds, and
    customers in trouble between two hours. The decisions are the ones of the daemon; the clock, the work and
    the ledger are simulated."""

    trouble: dict[str, str]
    hours: int
    seed: int
    customers: int = 1000
    workers: int = 16
    waiting_slots: int = WAITING_SLOTS
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
        weights = {name: self.weights.get(name, 1) for name in names}
        self.slots = Slots(self.workers, self.waiting_slots * self.workers, weights)
        self.periods = complete
        self.done: dict[str, int] = defaultdict(int)
        self.parked: dict[str, Delivery] = {}
        self.freshness: dict[str, list[float]] = defaultdict(list)
        self.probes = Counter[str]()
        self.events: list[tuple[float, int, str, str, int]] = []
        self.job: dict[str, int] = defaultdict(int)
        self.busiest: Counter[str] = Counter()
        self.number = 0
        end = self.hours * HOUR
        for name, times in complete.items():
            for at in times:
                # seen at the next tick, spread over it
                seen = (at // self.tick + 1) * self.tick + random.uniform(0, 1)
                self.at(seen, "call", name)
        while self.events and (event := heapq.heappop(self.events))[0] < end + HOUR:
            now, _, what, name, job = event
            if (what == "call" and name not in self.parked) or what == "probe":
                self.slots.call(name)
            elif what == "stalled" and job == self.job[name] and self.slots.is_running(name):
                if not self.slots.stall(name):
                    self.at(now + 1, "stalled", name, job)
            elif what == "end" and job == self.job[name]:
                self.end(now, name)
            for begun in self.slots.begin():
                self.start(now, begun)

    def at(self, when: float, what: str, name: str, job: int = 0) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, what, name, job))

    def troubled(self, now: float, name: str) -> str | None:
        return self.trouble.get(name) if HOUR <= now < (self.hours - 2) * HOUR else None

    def start(self, now: float, name: str) -> None:
        self.job[name] += 1
        answer = self.troubled(now, name)
        seconds = self.work[name] if answer is None else ANSWERS[answer]
        if not self.due(now, name):
            seconds = 0.05  # a look that finds nothing
        elif answer is not None and seconds > STALLED_SECONDS:
            self.at(now + STALLED_SECONDS, "stalled", name, self.job[name])
        self.at(now + seconds, "end", name, self.job[name])

    def due(self, now: float, name: str) -> bool:
        done = self.done[name]
        return done < len(self.periods[name]) and self.periods[name][done] <= now

    def end(self, now: float, name: str) -> None:
        if self.due(now, name):
            answer = self.troubled(now, name)
            if answer is not None:
                self.park(now, name, answer)
                self.slots.end(name, again=False, ailing=True)
                return
            self.freshness[name].append(now - self.periods[name][self.done[name]])
            self.done[name] += 1
            self.parked.pop(name, None)
        self.slots.end(name, again=self.due(now, name), ailing=False)

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
def test_failing_customers_do_not_delay_the_rest(figures: Callable[..., None], how: dict[str, float]) -> None:
    moved, line = a_tenth_in_trouble(6, **how)
    figures(line)
    assert moved < 0.05, line
    assert " 100 of the 100 drained" in line


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, BURST], ids=["spread", "burst"])
@pytest.mark.parametrize("seed", range(5))
def test_days_of_failures_do_not_delay_the_rest(
    figures: Callable[..., None], seed: int, how: dict[str, float]
) -> None:
    moved, line = a_tenth_in_trouble(48, seed, **how)
    figures(line)
    assert moved < 0.05, line
    assert " 100 of the 100 drained" in line


def test_a_large_backlog_does_not_delay_the_rest(figures: Callable[..., None]) -> None:
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
