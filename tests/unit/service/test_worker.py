"""What a worker does with the jobs that it takes, with everything outside in memory."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from xmode_transfer.model.errors import LedgerReadOnly
from xmode_transfer.model.jobs import JobRequest, JobState, QueueEntry
from xmode_transfer.model.records import Status
from xmode_transfer.service.worker import Worker

Make = Callable[..., "DaemonWorld"]  # noqa: F821 - conftest's, which tests cannot import

pytestmark = pytest.mark.parametrize("daemon_world", ["fleet"], indirect=True)
BIG = 20  # files of a large day


def big_day(world: Any, day: str = "2026-11-20") -> None:
    world.produce(day)
    period = next(iter(world.source.periods())).period
    for number in range(BIG):
        world.source.write(f"{day}/{number:02}.csv", b"x" * 100, period=period)


def at(world: Any, name: str, do: Callable[[], None]) -> None:
    """Once, when that file is read."""

    def on_read(read: str, _offset: int) -> None:
        if read.endswith(name):
            world.source.on_read = None
            do()

    world.source.on_read = on_read


def until(is_so: Callable[[], bool]) -> None:
    last = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < last
        time.sleep(0.01)


def called(world: Any, name: str = "acme", **how: Any) -> None:
    world.fleet.register(dict.fromkeys(world.customers, 1))
    world.fleet.enqueue([JobRequest(name, **how)])


def take(worker: Worker, world: Any) -> None:
    """The first of the queue, and of those who are suspended."""
    world.step(worker)


def entry(world: Any, name: str = "acme") -> QueueEntry:
    return next(entry for entry in world.fleet.snapshot() if entry.customer == name)


def looks(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by each look at the source."""
    seen: list[str] = []
    periods = world.source.periods

    def looked(*arguments: Any) -> Any:
        seen.append(threading.current_thread().name)
        return periods(*arguments)

    monkeypatch.setattr(world.source, "periods", looked)
    return seen


# --- Jobs ------------------------------------------------------------------------------------------------


def test_a_job_delivers_one_period_and_frees_its_slot(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    world.produce("2026-11-20", "2026-11-21")
    worker = world.engage()
    called(world)
    take(worker, world)
    assert worker.drain(120)
    assert world.delivered() == ["2026-11-20"]
    assert entry(world).state is JobState.QUEUED
    assert (entry(world).feed, entry(world).period) in [("us-daily", "2026-11-20"), (None, None)]
    world.work()
    assert world.delivered() == ["2026-11-20", "2026-11-21"]
    assert entry(world).state is JobState.RESTING
    assert (worker.busy, worker.waiting) == (0, 0)


def test_the_worker_of_the_last_job_reuses_its_scan(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world(customers={"acme": {}})
    world.produce("2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21")
    one, other = world.engage(), world.new_worker("other")
    seen = looks(world, monkeypatch)
    called(world)
    for worker, looked in [(one, 1), (one, 1), (other, 2), (one, 3)]:
        take(worker, world)
        assert worker.drain(120)
        assert len(seen) == looked
    assert world.delivered() == ["2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"]
    other.close()


def test_workers_share_the_time_of_the_last_rescan(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}}, settled=True)
    world.produce("2026-11-20")
    for _ in range(3):
        world.engage()
        called(world)
        world.work()
        world.produce("2026-11-20", data=b"corrected")
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").revision == 1
    world.clock.advance(3600)
    world.engage()
    called(world)
    world.work()
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").revision == 2


def test_a_job_may_skip_the_backoff(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    world.produce("2026-11-20")
    world.engage()
    world.refuse("acme")
    called(world)
    world.work()
    assert entry(world).state is JobState.SUSPENDED
    world.mend("acme")
    called(world)
    world.work()
    assert world.delivered() == []  # its pause is not over
    called(world, skip_backoff=True)
    world.work()
    assert world.delivered() == ["2026-11-20"]


def test_served_times_are_recorded_with_the_result(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    world.engage()
    called(world, serving_at=world.clock.now())
    world.work()
    assert world.ledger.daemons.served()["acme", "deliver"] == world.clock.now()


# --- Places -----------------------------------------------------------------------------------------------


def test_a_stalled_job_frees_its_slot_and_continues(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    big_day(world)
    worker = world.engage()
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        assert goes_on.wait(120)

    at(world, "05.csv", hang)
    called(world)
    take(worker, world)
    assert hangs.wait(120)
    worker.attend()
    assert (worker.busy, worker.waiting) == (1, 0)
    world.clock.advance(6)
    worker.attend()
    assert (worker.busy, worker.waiting) == (0, 1)
    (record,) = world.fleet.workers()
    assert (record.busy, record.waiting) == (0, 1)
    worker.attend()
    goes_on.set()
    assert worker.drain(120)
    assert world.delivered() == ["2026-11-20"]


def test_a_stalled_job_keeps_its_slot_when_stalled_slots_are_full(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    big_day(world)
    worker = world.engage()
    worker.waiting_slots = 0
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        assert goes_on.wait(120)

    at(world, "05.csv", hang)
    called(world)
    take(worker, world)
    assert hangs.wait(120)
    world.clock.advance(6)
    worker.attend()
    assert worker.busy == 1
    goes_on.set()
    assert worker.drain(120)


def test_suspended_customers_take_no_regular_slot(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    big_day(world)
    worker = world.engage()
    seen: list[tuple[int, int]] = []
    world.refuse("acme")
    called(world)
    world.work()
    world.mend("acme")
    at(world, "05.csv", lambda: seen.append((worker.busy, worker.waiting)))
    called(world, skip_backoff=True)
    take(worker, world)
    assert worker.drain(120)
    assert seen == [(0, 1)]


@pytest.mark.parametrize("by", ["time", "bytes"])
@pytest.mark.parametrize("others", [False, True])
def test_a_large_delivery_yields_to_others(daemon_world: Make, by: str, others: bool) -> None:
    world = daemon_world(
        customers={"acme": {}, "globex": {}},
        service={"turn_seconds": 30},
        cluster={"turn_bytes": 300 if by == "bytes" else "50GiB"},
    )
    big_day(world)
    worker = world.engage()

    def meanwhile() -> None:
        (running,) = worker._running
        until(lambda: running.sent_bytes >= 300)
        if others:
            world.fleet.enqueue([JobRequest("globex")])
        world.clock.advance(31 if by == "time" else 5)
        worker.attend()  # which hears of who is queued
        worker.attend()

    at(world, "10.csv", meanwhile)
    called(world)
    take(worker, world)
    assert worker.drain(120)
    latest = world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20")
    assert latest.status is (Status.PLANNED if others else Status.DELIVERED)
    assert entry(world).state is (JobState.QUEUED if others else JobState.RESTING)
    world.work()
    assert world.delivered() == ["2026-11-20"]
    assert sum(run.uploaded for run in world.ledger.runs.newest("acme")) == BIG + 1


# --- Turns that are taken from their holder --------------------------------------------------------------


def test_a_reassigned_job_writes_nothing(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    big_day(world)
    frozen, other = world.engage(), world.new_worker("other")

    def freeze() -> None:
        world.clock.advance(60)
        other.attend()  # reaps
        assert entry(world).state is JobState.QUEUED
        take(other, world)
        assert other.drain(120)

    at(world, "05.csv", freeze)
    called(world)
    take(frozen, world)
    assert frozen.drain(120)
    assert world.delivered() == ["2026-11-20"]
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").revision == 1
    assert entry(world).state is JobState.RESTING
    assert frozen.outage is None
    other.close()


def test_a_worker_may_take_its_lost_job_again(daemon_world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = daemon_world(customers={"acme": {}})
    big_day(world)
    world.produce("2026-11-21")
    worker = world.engage()
    seen = looks(world, monkeypatch)

    def freeze() -> None:
        world.clock.advance(60)
        worker.attend()  # its own job has no holder any more
        assert entry(world).state is JobState.QUEUED
        old = set(worker._running)
        worker.slots = 2
        worker.fetch()
        until(lambda: not worker._running - old)

    at(world, "05.csv", freeze)
    called(world)
    take(worker, world)
    assert worker.drain(120)
    assert world.delivered() == ["2026-11-20"]
    assert entry(world).state is JobState.QUEUED
    looked = len(seen)
    world.work()
    assert len(seen) == looked + 1  # nothing is made of what the old one knew
    assert world.delivered() == ["2026-11-20", "2026-11-21"]
    assert all(
        world.ledger.deliveries.latest("acme", "us-daily", day).revision == 1
        for day in ("2026-11-20", "2026-11-21")
    )


def test_jobs_stop_on_request_of_the_fleet(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    big_day(world)
    worker = world.engage()

    def stop() -> None:
        world.fleet.stop("acme")
        world.clock.advance(5)
        worker.attend()

    at(world, "05.csv", stop)
    called(world)
    take(worker, world)
    assert worker.drain(120)
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").status is Status.PLANNED
    world.work()
    assert world.delivered() == ["2026-11-20"]


# --- Trouble of our own ----------------------------------------------------------------------------------


def test_a_worker_takes_no_jobs_during_an_outage(daemon_world: Make) -> None:
    world = daemon_world()
    world.produce("2026-11-20")
    worker = world.engage()
    world.lose_key()
    called(world)
    called(world, "globex")
    take(worker, world)
    assert worker.drain(120)
    assert worker.outage is not None
    assert worker.outage.cause == "vendor_identity"
    assert not worker.takes_jobs
    assert entry(world).state is JobState.QUEUED  # another worker may have a key
    take(worker, world)
    assert entry(world, "globex").state is JobState.QUEUED
    world.clock.advance(5)
    worker.attend()
    (record,) = world.fleet.workers()
    assert record.trouble == worker.outage.message
    world.find_key()
    world.clock.advance(5)
    worker.attend()  # and whose jobs were done in vain are queued again
    assert worker.takes_jobs
    world.work()
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-20"]


@pytest.mark.parametrize("what", ["next", "delivers", "done", "beat", "reap"])
def test_results_are_written_after_the_ledger_recovers(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    world = daemon_world(customers={"acme": {}})
    world.produce("2026-11-20")
    worker = world.engage()
    called(world)
    with monkeypatch.context() as gone:

        def refuses(*arguments: Any, **others: Any) -> Any:
            raise LedgerReadOnly("the ledger cannot be written")

        gone.setattr(world.fleet, what, refuses)
        gone.setattr(world.ledger, "prove_writable", refuses)
        take(worker, world)
        assert worker.drain(120)
        for _ in range(3):
            world.clock.advance(5)
            worker.attend()
        assert worker.outage is not None
        assert not worker.takes_jobs
    world.clock.advance(5)
    worker.attend()
    assert worker.takes_jobs
    world.work()
    assert world.delivered() == ["2026-11-20"]
    assert entry(world).state is JobState.RESTING
    assert world.attempts("acme", "2026-11-20") == 1


def test_a_late_result_of_a_reassigned_job_is_dropped(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world(customers={"acme": {}})
    world.produce("2026-11-20")
    worker, other = world.engage(), world.new_worker("other")
    called(world)
    with monkeypatch.context() as gone:

        def refuses(*arguments: Any) -> Any:
            raise LedgerReadOnly("the ledger cannot be written")

        gone.setattr(world.fleet, "done", refuses)
        gone.setattr(world.ledger, "prove_writable", refuses)
        take(worker, world)
        assert worker.drain(120)
    world.clock.advance(60)
    other.attend()
    take(other, world)
    assert other.drain(120)
    before = entry(world)
    worker.attend()
    assert worker.outage is None
    assert entry(world) == before
    other.close()


def test_a_defect_ends_one_job_and_not_the_worker(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world(customers={"acme": {}})
    world.produce("2026-11-20")
    worker = world.engage()
    called(world)
    with monkeypatch.context() as wrong:
        wrong.setattr(world.fleet, "next", lambda *arguments, **others: 1 / 0)
        take(worker, world)
        assert worker.drain(120)
    with monkeypatch.context() as wrong:
        wrong.setattr(world.ledger.deliveries, "calendar", lambda *arguments: 1 / 0)
        take(worker, world)
        assert worker.drain(120)
    assert entry(world).reason == "ZeroDivisionError: division by zero"
    called(world)
    world.work()
    assert world.delivered() == ["2026-11-20"]


# --- The configuration -----------------------------------------------------------------------------------


def test_a_moved_customer_is_scanned_again(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    big_day(world)
    worker = world.engage()

    def move() -> None:
        world.customers["acme"] = {"state": "retired"}
        world.reload_worker()

    at(world, "05.csv", move)
    called(world)
    take(worker, world)
    assert worker.drain(120)
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").status is Status.PLANNED
    world.work()
    assert world.delivered() == []
    world.customers["acme"] = {}
    world.reload_worker()
    called(world)
    world.work()
    assert world.delivered() == ["2026-11-20"]


def test_number_of_slots(daemon_world: Make) -> None:
    world = daemon_world(cluster={"places": 3})
    worker = world.engage()
    assert (worker.slots, worker.waiting_slots) == (3, 12)
    asked = Worker(world.context("asked"), world.fleet, world.configuration, slots=200)
    assert (asked.slots, asked.waiting_slots) == (200, 256)
    asked.close()
    world.cluster = {}
    assert world.engage().slots == 4  # as many as daemon.workers


# --- The end ---------------------------------------------------------------------------------------------


def test_running_jobs_drain_then_stop(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}, "globex": {}})
    big_day(world)
    worker = world.engage()
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        assert goes_on.wait(120)

    at(world, "05.csv", hang)
    called(world)
    called(world, "globex")
    take(worker, world)
    assert hangs.wait(120)
    worker.stop()
    assert not worker.takes_jobs
    take(worker, world)
    assert not worker.drain(0)
    worker.break_off()
    goes_on.set()
    assert worker.drain(120)
    worker.close()
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").status is Status.PLANNED
    assert {entry(world, name).state for name in world.customers} == {JobState.QUEUED}
    (record,) = world.fleet.workers()
    assert (record.version, record.stopping, record.stopped_at) == ("1.2.3", True, world.clock.now())
    world.fleet.reap()
    world.engage()
    world.work()
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-20"]


def test_a_worker_closes_without_a_ledger(daemon_world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = daemon_world()
    worker = world.engage()
    with monkeypatch.context() as gone:

        def refuses(*arguments: Any) -> Any:
            raise LedgerReadOnly("the ledger cannot be written")

        gone.setattr(world.fleet, "beat", refuses)
        worker.stop()
        worker.close()
    (record,) = world.fleet.workers()
    assert record.stopped_at is None


def test_heartbeats_report_the_fleet(daemon_world: Make) -> None:
    world = daemon_world()
    told: list[int] = []
    worker = Worker(
        world.context("one"),
        world.fleet,
        world.configuration,
        on_heartbeat=lambda fleet: told.append(fleet.workers),
    )
    world.engage()
    world.clock.advance(5)
    worker.attend()
    assert told == [1, 2]
    worker.close()
