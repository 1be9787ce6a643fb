"""What holds for a work queue whatever happens to its workers, by chance against that of one process; the
contract suite shows that the ledger's own behaves alike."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes import MemoryClock
from xmode_transfer.model.errors import AlreadyRunning
from xmode_transfer.model.jobs import BACKFILL_HANDICAP, Job, JobRequest, JobResult, JobState
from xmode_transfer.model.records import Lease
from xmode_transfer.service.local_queue import LocalQueue

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
TTL = 45.0
NAMES = ("acme", "beta", "ceta", "delta")
ENDS = (
    JobResult(again=True),
    JobResult(looked=True),
    JobResult(reason="The role refused us.", refused=True),
    JobResult(again=True, backfill=True),
    JobResult(),
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
    """A daemon calls, its worker takes jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = LocalQueue(MemoryClock(NOW), MemoryLeases(), lambda *_: None)
        self.queue.register(dict.fromkeys(NAMES, 1))
        self.workers = 0
        self.running: dict[str, Job] = {}
        self.called: set[str] = set()  # who was called after its last entry began
        self.seated = set(NAMES)

    def states(self) -> dict[str, JobState]:
        return {entry.customer: entry.state for entry in self.queue.snapshot()}

    @rule(name=st.sampled_from(NAMES), skip_backoff=st.booleans())
    def call(self, name: str, skip_backoff: bool) -> None:
        self.queue.enqueue([JobRequest(name, skip_backoff)])
        if name in self.seated:
            self.called.add(name)

    @rule(suspended=st.booleans())
    def begin(self, suspended: bool) -> None:
        self.workers += 1
        job = self.queue.next(f"host-{self.workers}", TTL, suspended=suspended)
        if job is None:
            return
        name = job.customer
        assert name not in self.running, "two jobs of one customer"
        self.running[name] = job
        self.called.discard(name)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def end(self, data: Any, end: JobResult) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.done(self.running.pop(name), end)
        if end.again and name in self.seated:
            self.called.add(name)

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1))
    def seat(self, names: set[str]) -> None:
        self.queue.register(dict.fromkeys(names, 1))
        self.seated = names
        self.called &= names

    @invariant()
    def nobody_who_was_called_is_forgotten(self) -> None:
        states = self.states()
        for name in self.called:
            assert states[name] in (JobState.QUEUED, JobState.RUNNING)

    @invariant()
    def what_runs_is_what_is_held(self) -> None:
        states = self.states()
        assert {name for name in states if states[name] is JobState.RUNNING} == set(
            self.running
        ) & self.seated

    def teardown(self) -> None:
        """When the workers have a quiet hour, everybody who was called gets a entry."""
        for job in self.running.values():
            self.queue.done(job, JobResult(looked=True))
        for suspended in (False, True):
            while (job := self.queue.next("host", TTL, suspended=suspended)) is not None:
                self.queue.done(job, JobResult(looked=True))
                self.called.discard(job.customer)
        assert self.called <= set(self.running)
        assert JobState.QUEUED not in self.states().values()


TestChance = Chance.TestCase
TestChance.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

weights = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 100), min_size=2)


def a_fleet(weights: dict[str, int]) -> LocalQueue:
    queue = LocalQueue(MemoryClock(NOW), MemoryLeases(), lambda *_: None)
    queue.register(weights)
    for name in weights:
        queue.enqueue([JobRequest(name)])
    return queue


def take(queue: LocalQueue, end: JobResult = ENDS[0]) -> str:
    job = queue.next("host", TTL, suspended=False)
    assert job is not None
    queue.done(job, end)
    return job.customer


@given(weights, st.integers(1, 400))
@settings(deadline=None, max_examples=50)
def test_jobs_are_shared_by_weight(weights: dict[str, int], jobs: int) -> None:
    queue = a_fleet(weights)
    begun = Counter(take(queue) for _ in range(jobs))
    had = {name: begun[name] / weight for name, weight in weights.items()}
    longest = max(1 / weight for weight in weights.values())
    step = 1 / 1024  # priorities are whole numbers
    assert max(had.values()) - min(had.values()) <= longest + step


@given(weights, st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 30))
@settings(deadline=None, max_examples=40)
def test_a_backfill_waits_for_a_limited_number_of_jobs(
    weights: dict[str, int], behind: list[bool], earlier: int
) -> None:
    ends = {name: JobResult(again=True, backfill=late) for name, late in zip(NAMES, behind, strict=True)}
    queue = a_fleet(weights)
    late = next(iter(weights))
    ends[late] = JobResult(again=True, backfill=True)

    def step() -> str:
        job = queue.next("host", TTL, suspended=False)
        assert job is not None
        queue.done(job, ends[job.customer])
        return job.customer

    for _ in range(earlier):
        step()
    waited: Counter[str] = Counter()
    while (name := step()) != late:
        waited[name] += 1
        most = weights[name] * (2 * BACKFILL_HANDICAP + 2) + 1
        assert waited[name] <= most, f"{name} had {waited[name]} jobs"
