"""The contract of ``WorkQueue``, for the queue of one process and that of a fleet."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes import MemoryClock
from xmode_transfer.ledger import Ledger, database, open_ledger
from xmode_transfer.ledger import work_queue as fleet_module
from xmode_transfer.ledger.statements import SUSPENDED
from xmode_transfer.ledger.work_queue import REBASE_ABOVE, SETTLING_SECONDS
from xmode_transfer.model.errors import LeaseLost, LedgerError
from xmode_transfer.model.jobs import (
    BUSY_SECONDS,
    Job,
    JobRequest,
    JobResult,
    JobState,
    QueueEntry,
    WorkQueue,
    priority,
)
from xmode_transfer.model.process import WorkerRecord
from xmode_transfer.service.local_queue import LocalQueue

NOW = datetime(2026, 11, 23, 6, 30, 0, 123456, tzinfo=UTC)
TTL = 45.0
HOLDER = "host-a"
MORE = JobResult(again=True)
DONE = JobResult(looked=True)
BACKFILL = JobResult(again=True, backfill=True)
REFUSED = JobResult(
    reason="The role refused us.",
    refused=True,
    feed="us-daily",
    period="2026-11-22",
    next_at=NOW + timedelta(hours=1),
)


class Queued(NamedTuple):
    """A customer's queued job."""

    customer: str
    priority: int
    suspended: bool


@dataclass
class Case:
    """One queue. ``dead`` is a holder that is known to have died. ``another`` opens the same one as another
    process would; ``later`` lets seconds pass."""

    queue: WorkQueue
    ledger: Ledger
    dead: str
    another: Callable[[], WorkQueue]
    queued: Callable[[str], Queued | None]
    later: Callable[[float], None]

    def enqueue(self, *names: str) -> None:
        self.queue.enqueue([JobRequest(name) for name in names])

    def next(self, *, suspended: bool = False, holder: str = HOLDER, ttl_seconds: float = TTL) -> Job | None:
        return self.queue.next(holder, ttl_seconds, suspended=suspended)

    def begin(self, name: str, holder: str = HOLDER, ttl_seconds: float = TTL) -> Job:
        """Begin the job of the customer, which is the first of its queue."""
        for suspended in (False, True):
            job = self.next(suspended=suspended, holder=holder, ttl_seconds=ttl_seconds)
            if job is not None:
                assert job.customer == name
                return job
        raise AssertionError(f"{name} is not queued")

    def entry(self, name: str) -> QueueEntry:
        return next(entry for entry in self.queue.snapshot() if entry.customer == name)

    def state(self, name: str) -> JobState:
        return self.entry(name).state

    def served(self) -> dict[tuple[str, str], datetime]:
        return dict(self.ledger.daemons.served())


DEAD = "/".join([*database.this_process().split("/")[:3], "1"])


def _of_one_process(url: str) -> Iterator[Case]:
    clock = MemoryClock(NOW)
    ledger = open_ledger(url, clock)
    queue = LocalQueue(clock, ledger.leases, ledger.daemons.serve)

    def queued(name: str) -> Queued | None:
        customer = queue._customers.get(name)
        if customer is None or customer.queued is None or name in queue._running:
            return None
        return Queued(name, -customer.queued.urgency[0], bool(customer.entry.reason))

    yield Case(queue, ledger, DEAD, lambda: queue, queued, clock.advance)
    ledger.close()


def _over_procrastinate(url: str) -> Iterator[Case]:
    opened: list[Ledger] = []
    clock = MemoryClock(NOW)

    def open_it() -> Ledger:
        opened.append(open_ledger(url, clock))
        return opened[-1]

    ledger = open_it()

    def queued(name: str) -> Queued | None:
        found = execute(
            ledger,
            "SELECT priority, queue_name FROM procrastinate_jobs AS job WHERE lock = %s AND status = 'todo' "
            "AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE lock = job.lock AND status = 'doing')",
            name,
        )
        return Queued(name, found[0][0], found[0][1] == SUSPENDED) if found else None

    def later(seconds: float) -> None:
        clock.advance(seconds)
        execute(
            ledger,
            "UPDATE procrastinate_jobs SET scheduled_at = scheduled_at - make_interval(secs => %s)",
            seconds,
        )

    yield Case(ledger.queue, ledger, DEAD, lambda: open_it().queue, queued, later)
    for one in opened:
        one.close()


def execute(ledger: Ledger, sql: str, *values: object) -> list[Any]:
    with ledger._database.writing() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(params=["one process", "procrastinate"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "one process":
        copied = shutil.copy(request.getfixturevalue("empty_ledger"), tmp_path / "ledger.db")
        yield from _of_one_process(f"sqlite:///{copied}")
    else:
        yield from _over_procrastinate(request.getfixturevalue("shared_queue"))


of_several = pytest.mark.parametrize("case", ["procrastinate"], indirect=True)


@pytest.fixture
def queue(case: Case) -> WorkQueue:
    case.queue.register({"acme": 1, "beta": 2, "ceta": 4})
    return case.queue


# --- Registration --------------------------------------------------------------------------------------


def test_registered_customers_rest_until_they_are_enqueued(case: Case, queue: WorkQueue) -> None:
    assert [(entry.customer, entry.state) for entry in queue.snapshot()] == [
        ("acme", JobState.RESTING),
        ("beta", JobState.RESTING),
        ("ceta", JobState.RESTING),
    ]
    assert case.next() is None
    case.enqueue("acme")
    entry = case.entry("acme")
    assert (entry.state, entry.holder, entry.ended) == (JobState.QUEUED, None, 0)
    assert case.queued("acme") == Queued("acme", 0, suspended=False)


def test_an_unregistered_customer_is_not_queued(case: Case, queue: WorkQueue) -> None:
    case.enqueue("nobody")
    queue.stop("nobody")
    assert case.queued("nobody") is None
    assert case.next() is None
    assert [entry.customer for entry in queue.snapshot()] == ["acme", "beta", "ceta"]


def test_registering_again_changes_nothing(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    before = queue.snapshot()
    case.another().register({"acme": 1, "beta": 2, "ceta": 4})
    assert queue.snapshot() == before
    assert case.queued("acme") is not None


def test_the_running_job_of_a_removed_customer_is_stopped(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    job = case.begin("acme")
    case.enqueue("acme")
    queue.register({"beta": 2})
    assert queue.beat(a_worker()).to_stop == {"acme"}
    case.enqueue("acme")
    queue.done(job, MORE)
    assert [entry.customer for entry in queue.snapshot()] == ["beta"]
    assert case.queued("acme") is None


def test_a_customer_may_return_while_its_job_runs(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    job = case.begin("acme")
    queue.register({"beta": 2})
    queue.register({"acme": 1, "beta": 2})
    queue.done(job, MORE)
    assert case.state("acme") is JobState.QUEUED


def test_known_entries_apply_to_new_customers(case: Case, queue: WorkQueue) -> None:
    known = QueueEntry(
        "delta",
        JobState.SUSPENDED,
        NOW - timedelta(days=1),
        next_at=NOW,
        feed="us-daily",
        period="2026-11-22",
        reason="The role refused us.",
    )
    other = replace(known, reason="something else")
    weights = {"acme": 1, "delta": 1}
    queue.register(weights, [known, replace(known, customer="acme"), replace(known, customer="nobody")])
    assert queue.snapshot() == [case.entry("acme"), known]
    assert case.state("acme") is JobState.RESTING
    case.another().register(weights, [other])
    assert case.entry("delta") == known
    case.enqueue("delta")
    queued = case.queued("delta")
    assert queued is not None
    assert queued.suspended
    queue.done(case.begin("delta"), DONE)
    queue.register(weights, [other])
    assert case.state("delta") is JobState.RESTING


# --- Jobs -------------------------------------------------------------------------------------


def test_a_customer_has_one_job_at_a_time(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    case.enqueue("acme")
    job = case.begin("acme")
    assert job.lease.name == "customer/acme"
    assert (job.skip_backoff, job.follows, job.reread_at) == (False, 0, None)
    entry = case.entry("acme")
    assert (entry.state, entry.holder) == (JobState.RUNNING, HOLDER)
    assert case.another().next("host-b", TTL, suspended=False) is None
    assert case.queued("acme") is None


def test_two_workers_do_not_begin_the_same_job(case: Case, queue: WorkQueue) -> None:
    others = [case.another() for _ in range(4)]
    for _ in range(5):
        case.enqueue("acme")
        barrier = threading.Barrier(len(others))

        def begin(number: int, barrier: threading.Barrier = barrier) -> Job | None:
            barrier.wait()
            return others[number].next(f"host-{number}", TTL, suspended=False)

        with ThreadPoolExecutor(len(others)) as pool:
            jobs = [job for job in pool.map(begin, range(len(others))) if job]
        assert len(jobs) == 1
        queue.done(jobs[0], DONE)


def test_a_running_job_shows_what_it_delivers(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    job = case.begin("acme")
    queue.delivers(job, "us-daily", "2026-11-22")
    entry = case.entry("acme")
    assert (entry.state, entry.feed, entry.period) == (JobState.RUNNING, "us-daily", "2026-11-22")


def test_a_customer_with_more_due_is_queued_again(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    job = case.begin("acme")
    queue.done(job, MORE)
    entry = case.entry("acme")
    assert (entry.state, entry.again, entry.looked, entry.holder) == (JobState.QUEUED, True, False, None)
    assert entry.ended == job.lease.generation
    assert case.queued("acme") == Queued(
        "acme", priority(1, backfill=False), suspended=False
    )  # it has had a entry
    assert case.begin("acme").follows == job.lease.generation


def test_a_customer_with_nothing_due_rests(case: Case, queue: WorkQueue) -> None:
    reread_at = NOW - timedelta(minutes=5)
    case.enqueue("acme")
    queue.done(
        case.begin("acme"),
        JobResult(looked=True, next_at=NOW, feed="us-daily", period="2026-11-22", reread_at=reread_at),
    )
    entry = case.entry("acme")
    assert (entry.state, entry.looked, entry.next_at) == (JobState.RESTING, True, NOW)
    assert (entry.feed, entry.period) == ("us-daily", "2026-11-22")
    assert case.queued("acme") is None
    case.enqueue("acme")
    assert case.begin("acme").reread_at == reread_at


def test_a_request_during_a_job_is_queued_when_it_ends(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    job = case.begin("acme")
    case.enqueue("acme")
    queue.enqueue([JobRequest("acme", skip_backoff=True)])
    assert case.state("acme") is JobState.RUNNING
    assert case.queued("acme") is None
    queue.done(job, DONE)
    entry = case.entry("acme")
    assert (entry.state, entry.again) == (JobState.QUEUED, False)
    again = case.begin("acme")
    assert again.skip_backoff
    queue.done(again, DONE)
    assert case.state("acme") is JobState.RESTING


def test_many_customers_are_enqueued_at_once(case: Case, queue: WorkQueue) -> None:
    many = {f"customer-{number:03}": 1 for number in range(250)}
    queue.register(many)
    queue.enqueue([JobRequest(name) for name in many])
    queue.enqueue(
        [JobRequest("nobody"), JobRequest("customer-001", True), JobRequest("customer-001", serving_at=NOW)]
    )
    jobs = [case.next() for _ in range(251)]
    assert [job and job.customer for job in jobs] == [*many, None]
    job = jobs[1]
    assert job is not None
    assert job.skip_backoff
    queue.done(job, DONE)
    assert case.served() == {("customer-001", "deliver"): NOW}


def test_skip_backoff_applies_to_one_job(case: Case, queue: WorkQueue) -> None:
    queue.enqueue([JobRequest("acme", skip_backoff=True)])
    case.enqueue("acme")
    job = case.begin("acme")
    assert job.skip_backoff
    queue.done(job, MORE)
    assert not case.begin("acme").skip_backoff


def test_a_suspended_customer_waits_in_another_queue(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    queue.done(case.begin("acme"), REFUSED)
    entry = case.entry("acme")
    assert entry.state is JobState.SUSPENDED
    assert (entry.reason, entry.refused, entry.next_at) == (REFUSED.reason, True, REFUSED.next_at)
    assert (entry.feed, entry.period) == ("us-daily", "2026-11-22")
    assert case.queued("acme") is None
    case.enqueue("acme")
    queued = case.queued("acme")
    assert queued is not None
    assert queued.suspended
    assert queue.beat(a_worker()).queued == 0  # the regular queue
    queue.done(case.begin("acme"), MORE)
    queued = case.queued("acme")
    assert queued is not None
    assert not queued.suspended
    assert queue.beat(a_worker()).queued == 1


def test_a_customer_with_a_run_is_skipped_and_retried(case: Case, queue: WorkQueue) -> None:
    by_hand = case.ledger.leases.claim("customer/acme", "a run", TTL)
    case.enqueue("acme")
    case.enqueue("beta")
    assert case.begin("beta").customer == "beta"
    assert case.next() is None
    assert case.state("acme") is JobState.QUEUED
    case.ledger.leases.release(by_hand)
    case.later(BUSY_SECONDS)
    assert case.begin("acme").customer == "acme"


def test_a_scheduled_time_is_served_when_nothing_is_due(case: Case, queue: WorkQueue) -> None:
    first, second, third = (NOW + timedelta(hours=hour) for hour in range(3))
    queue.enqueue([JobRequest("acme", serving_at=first)])
    queue.done(case.begin("acme"), MORE)
    assert case.served() == {}
    job = case.begin("acme")
    queue.enqueue([JobRequest("acme", serving_at=third)])
    queue.enqueue([JobRequest("acme", serving_at=second)])
    queue.done(job, DONE)
    assert case.served() == {("acme", "deliver"): first}
    queue.done(case.begin("acme"), DONE)
    assert case.served() == {("acme", "deliver"): third}
    case.enqueue("acme")
    queue.done(case.begin("acme"), DONE)
    assert case.served() == {("acme", "deliver"): third}


def test_a_refusal_keeps_the_scheduled_time(case: Case, queue: WorkQueue) -> None:
    queue.enqueue([JobRequest("acme", serving_at=NOW)])
    queue.done(case.begin("acme"), REFUSED)
    assert case.served() == {}
    case.enqueue("acme")
    queue.done(case.begin("acme"), DONE)
    assert case.served() == {("acme", "deliver"): NOW}


# --- Priority ----------------------------------------------------------------------------------------


def test_the_lowest_cost_goes_first(case: Case, queue: WorkQueue) -> None:
    begun: list[str] = []
    for name in ("acme", "beta", "ceta"):
        case.enqueue(name)
    for _ in range(14):
        job = case.next()
        assert job is not None
        begun.append(job.customer)
        queue.done(job, MORE)
    assert [begun.count(name) for name in ("acme", "beta", "ceta")] == [2, 4, 8]


def test_a_backfill_yields_but_does_not_starve(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    queue.done(case.begin("acme"), BACKFILL)
    begun = []
    while not begun or begun[-1] != "acme":
        case.enqueue("beta")
        job = case.next()
        assert job is not None
        begun.append(job.customer)
        queue.done(job, DONE)
        assert len(begun) < 100
    assert len(begun) > 10


@pytest.mark.parametrize("request_", [JobRequest("acme", True), JobRequest("acme", serving_at=NOW)])
def test_a_live_request_raises_a_queued_backfill(case: Case, queue: WorkQueue, request_: JobRequest) -> None:
    case.enqueue("acme")
    queue.done(case.begin("acme"), BACKFILL)
    assert case.queued("acme") == Queued("acme", priority(1, backfill=True), suspended=False)
    case.enqueue("acme", "ceta")
    assert case.queued("acme") == Queued("acme", priority(1, backfill=True), suspended=False)
    queue.done(case.begin("ceta"), DONE)
    queue.enqueue([request_])
    assert case.queued("acme") == Queued("acme", priority(1, backfill=False), suspended=False)
    job = case.begin("acme")
    assert (job.skip_backoff, job.serving_at) == (request_.skip_backoff, request_.serving_at)
    queue.done(job, BACKFILL)  # the next one is not for that request
    assert case.queued("acme") == Queued("acme", priority(2, backfill=True), suspended=False)


def test_rest_earns_no_credit(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    for _ in range(10):
        queue.done(case.begin("acme"), MORE)
    case.enqueue("beta")
    queued = case.queued("beta")
    assert queued is not None
    assert queued.priority == priority(9, backfill=False)


# --- Stops and dead workers ------------------------------------------------------------------------


def a_worker(holder: str = HOLDER, **changes: object) -> WorkerRecord:
    return replace(WorkerRecord(holder, NOW, NOW, places=4, version="1"), **changes)  # type: ignore[arg-type]


def test_a_worker_learns_which_of_its_jobs_to_stop(case: Case, queue: WorkQueue) -> None:
    jobs = {}
    for name in ("acme", "beta"):
        case.enqueue(name)
        jobs[name] = case.begin(name)
    queue.stop("acme")
    queue.stop("ceta")
    assert queue.beat(a_worker()).to_stop == {"acme"}
    assert queue.beat(a_worker("host-b")).to_stop == set()
    queue.done(jobs["acme"], MORE)
    case.begin("acme")
    assert queue.beat(a_worker()).to_stop == set()


@of_several
@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_the_job_of_a_lost_worker_is_taken_over(case: Case, queue: WorkQueue, how: str) -> None:
    holder, ttl_seconds = (case.dead, TTL) if how == "dead" else (HOLDER, 0.0)
    queue.enqueue([JobRequest("acme", skip_backoff=True, serving_at=NOW)])
    job = case.begin("acme", holder, ttl_seconds)
    queue.enqueue([JobRequest("acme", serving_at=NOW + timedelta(hours=1))])
    mine = case.ledger.leases.claim("delivery/acme/us-daily/2026-11-22", holder, TTL)
    by_hand = case.ledger.leases.claim("delivery/acme/us-daily/2026-11-21", "host-c", TTL)
    other = case.ledger.leases.claim("delivery/acme2/us-daily/2026-11-22", holder, TTL)
    assert case.another().reap() == ["acme"]
    assert queue.reap() == []
    entry = case.entry("acme")
    assert (entry.state, entry.holder, entry.ended) == (JobState.QUEUED, None, 0)
    assert case.queued("acme") is not None
    for gone in (mine, job.lease):
        with pytest.raises(LeaseLost):
            case.ledger.leases.renew(gone, TTL)
    for kept in (by_hand, other):
        case.ledger.leases.renew(kept, TTL)
    with pytest.raises(LeaseLost):
        queue.delivers(job, "us-daily", "2026-11-22")
    with pytest.raises(LeaseLost):
        queue.done(job, DONE)
    assert case.entry("acme") == entry
    again = case.begin("acme", "host-b")
    assert again.skip_backoff
    with pytest.raises(LeaseLost):
        queue.done(job, DONE)
    queue.done(again, DONE)
    assert case.served() == {("acme", "deliver"): NOW + timedelta(hours=1)}


def test_a_live_job_is_not_taken_over(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    job = case.begin("acme")
    case.enqueue("beta")
    assert queue.reap() == []
    queue.delivers(job, "us-daily", "2026-11-22")
    queue.done(job, DONE)


@of_several
def test_a_removed_customer_goes_with_its_dead_worker(case: Case, queue: WorkQueue) -> None:
    case.enqueue("acme")
    case.begin("acme", case.dead)
    queue.register({"beta": 2})
    assert queue.reap() == ["acme"]
    assert [entry.customer for entry in queue.snapshot()] == ["beta"]
    assert case.queued("acme") is None


@of_several
def test_several_processes_take_over_each_job_once(case: Case, queue: WorkQueue) -> None:
    for name in ("acme", "beta", "ceta"):
        case.enqueue(name)
        case.begin(name, case.dead)
    reapers = [case.another() for _ in range(4)]
    barrier = threading.Barrier(len(reapers))

    def reap(number: int) -> list[str]:
        barrier.wait()
        return reapers[number].reap()

    with ThreadPoolExecutor(len(reapers)) as pool:
        taken = [name for names in pool.map(reap, range(len(reapers))) for name in names]
    assert sorted(taken) == ["acme", "beta", "ceta"]
    jobs = [case.next() for _ in range(4)]
    assert {job and job.customer for job in jobs} == {"acme", "beta", "ceta", None}


# --- Workers ---------------------------------------------------------------------------------------------


def test_workers_are_known_by_their_heartbeats(case: Case, queue: WorkQueue) -> None:
    assert queue.workers() == []
    case.enqueue("acme")
    case.enqueue("beta")
    assert (queue.beat(a_worker()).workers, queue.beat(a_worker()).queued) == (1, 2)
    standing = case.another().beat(a_worker("host-b", busy=2, waiting=1, trouble="no credentials"))
    assert (standing.workers, standing.queued) == (2, 2)
    seen = {worker.holder: worker for worker in queue.workers()}
    assert set(seen) == {HOLDER, "host-b"}
    record = seen["host-b"]
    assert (record.places, record.busy, record.waiting, record.trouble) == (4, 2, 1, "no credentials")
    stopped = a_worker("host-b", stopping=True, stopped_at=NOW)
    assert queue.beat(stopped).workers == 1
    assert {worker.holder: worker.stopped_at for worker in queue.workers()} == {HOLDER: None, "host-b": NOW}


@of_several
def test_a_killed_worker_is_gone_before_its_heartbeat_times_out(
    case: Case, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for holder in (case.dead, HOLDER):
        case.ledger.leases.claim(f"worker/{holder}", holder, TTL)
        queue.beat(a_worker(holder))
    assert [worker.gone for worker in queue.workers()] == [False, False]  # both were heard of just now
    monkeypatch.setattr(fleet_module, "QUIET_AFTER", timedelta(0))  # where the server's clock counts
    case.later(11)
    assert {worker.holder: worker.gone for worker in queue.workers()} == {case.dead: True, HOLDER: False}
    (living,) = [worker for worker in queue.workers() if worker.is_alive(worker.seen_at)]
    assert living.holder == HOLDER


# --- Snapshots ---------------------------------------------------------------------------------------------


def test_snapshots_converge_and_show_each_ended_job_once(case: Case) -> None:
    names = [f"customer-{number}" for number in range(8)]
    case.queue.register(dict.fromkeys(names, 1))
    processes_ = [case.another() for _ in range(3)]
    finished = threading.Event()
    reader = case.another()

    def work(number: int) -> list[tuple[str, int]]:
        ends = []
        for step in range(24):
            queue = processes_[number]
            queue.enqueue([JobRequest(names[(step * 5 + number * 3) % len(names)])])
            job = queue.next(f"host-{number}", TTL, suspended=False)
            if job is not None:
                queue.done(job, DONE)
                ends.append((job.customer, job.lease.generation))
        return ends

    def read() -> tuple[list[QueueEntry], list[tuple[str, int]]]:
        heard: dict[str, int] = {}
        ends, last = [], False
        while True:
            last = finished.is_set()
            entries = reader.snapshot()
            for entry in entries:
                if entry.ended != heard.get(entry.customer, 0):
                    heard[entry.customer] = entry.ended
                    ends.append((entry.customer, entry.ended))
            if last:
                return entries, ends

    with ThreadPoolExecutor(4) as pool:
        reading = pool.submit(read)
        written = [end for ends in pool.map(work, range(3)) for end in ends]
        finished.set()
        entries, heard = reading.result()
    assert entries == case.queue.snapshot()
    assert len(set(written)) == len(written)
    assert len(set(heard)) == len(heard)
    assert set(heard) <= set(written)
    assert {name: max(n for other, n in written if other == name) for name, _ in written} == {
        entry.customer: entry.ended for entry in entries if entry.ended
    }


# --- In a database ---------------------------------------------------------------------------------------


@of_several
def test_a_job_and_its_lease_are_one_transaction(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.queue.register({"acme": 1})
    case.enqueue("acme")
    before = case.entry("acme")

    def broken(*_: object) -> None:
        raise LedgerError("the ledger is broken")

    with monkeypatch.context() as wrong:
        wrong.setattr(fleet_module, "text_of", broken)
        with pytest.raises(LedgerError, match="the ledger is broken"):
            case.next()
    assert case.entry("acme") == before
    assert case.ledger.leases.held("customer/acme") == []
    job = case.begin("acme")
    with monkeypatch.context() as wrong:
        wrong.setattr(case.queue, "_enqueue_anew", broken)
        with pytest.raises(LedgerError, match="the ledger is broken"):
            case.queue.done(job, MORE)
    assert case.state("acme") is JobState.RUNNING
    case.queue.done(job, MORE)
    assert case.queued("acme") is not None


@of_several
def test_the_virtual_clock_is_rebased(case: Case) -> None:
    case.queue.register({"acme": 1, "beta": 1, "ceta": 1, "delta": 1})
    far = int(REBASE_ABOVE) + 1
    for name, spent in (("acme", far - 1), ("beta", far + 2), ("ceta", far)):
        execute(case.ledger, "UPDATE queue_customers SET spent = %s WHERE customer = %s", spent, name)
    case.enqueue("acme")
    case.begin("acme")
    execute(case.ledger, "UPDATE queue_clock SET clock = %s", far)
    case.enqueue("beta", "ceta")
    assert case.queue.reap() == []
    assert case.queued("beta") == Queued("beta", priority(2, backfill=False), suspended=False)
    assert case.queued("ceta") == Queued("ceta", 0, suspended=False)
    spent = execute(case.ledger, "SELECT customer, spent FROM queue_customers ORDER BY 1")
    assert spent == [("acme", 0), ("beta", 2), ("ceta", 0), ("delta", 0)]
    assert execute(case.ledger, "SELECT clock FROM queue_clock") == [(0,)]
    case.enqueue("delta")
    jobs = [case.next() for _ in range(4)]
    assert [job and job.customer for job in jobs] == ["ceta", "delta", "beta", None]


@of_several
def test_leases_may_be_renewed_after_an_outage(case: Case) -> None:
    """All leases end while a server is away for a minute, and no job is to be taken over for that."""
    case.queue.register({"acme": 1, "beta": 1})
    for name, holder in (("acme", HOLDER), ("beta", case.dead)):
        case.enqueue(name)
        case.begin(name, holder, 0.0)
    execute(case.ledger, "UPDATE leases SET presence = 'an earlier life of the server'")
    assert case.queue.reap() == ["beta"]
    case.later(SETTLING_SECONDS)
    assert case.queue.reap() == ["acme"]
