"""How a daemon queues customers and hears what came of them, and several daemons of a fleet together."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from xmode_transfer.model.errors import LedgerReadOnly, XmodeError
from xmode_transfer.model.jobs import JobRequest, JobState, QueueEntry
from xmode_transfer.model.process import WorkerRecord
from xmode_transfer.service.daemon import Daemon
from xmode_transfer.service.scheduler import Scheduler
from xmode_transfer.telemetry import Event

Make = Callable[..., "DaemonWorld"]  # noqa: F821 - conftest's, which tests cannot import

pytestmark = pytest.mark.parametrize("daemon_world", ["fleet"], indirect=True)


def scheduler_of(world: Any) -> tuple[Scheduler, list[QueueEntry], list[XmodeError]]:
    ends: list[QueueEntry] = []
    outages: list[XmodeError] = []
    scheduler = Scheduler(
        world.context("daemon"),
        world.fleet,
        ended=ends.append,
        on_outage=outages.append,
    )
    scheduler.register(dict.fromkeys(world.customers, 1))
    scheduler.attend()
    return scheduler, ends, outages


# --- One scheduler -----------------------------------------------------------------------------------------


def test_each_daemon_receives_each_result_once(daemon_world: Make) -> None:
    world = daemon_world()
    world.produce("2026-11-20", "2026-11-21")
    world.engage()
    one, ends, _ = scheduler_of(world)
    other, also, _ = scheduler_of(world)
    one.enqueue("acme")
    one.attend()
    world.work()
    for scheduler in (one, other, one, other):
        scheduler.attend()
    assert [(end.customer, end.looked, bool(end.reason)) for end in ends] == [("acme", True, False)]
    assert also == ends
    entry = one.entry("acme")
    assert entry is not None
    assert entry.state is JobState.RESTING


def test_earlier_results_are_ignored_except_of_suspended_customers(daemon_world: Make) -> None:
    world = daemon_world()
    world.produce("2026-11-20")
    world.engage()
    scheduler, _, _ = scheduler_of(world)
    world.refuse("globex")
    for name in world.customers:
        scheduler.enqueue(name)
    scheduler.attend()
    world.work()
    _, ends, _ = scheduler_of(world)
    assert [(end.customer, end.refused) for end in ends] == [("globex", True)]


def test_requests_that_the_ledger_refuses_are_repeated_in_order(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world()
    scheduler, _, outages = scheduler_of(world)
    world.customers["hooli"] = {}
    with monkeypatch.context() as gone:

        def refuses(*arguments: Any, **others: Any) -> Any:
            raise LedgerReadOnly("the ledger cannot be written")

        for what in ("register", "enqueue", "stop", "reap"):
            gone.setattr(world.fleet, what, refuses)
        scheduler.stop("acme")
        scheduler.register({"acme": 1, "hooli": 1})
        scheduler.enqueue("hooli", skip_backoff=True)
        scheduler.attend()
        scheduler.enqueue("hooli", serving_at=world.clock.now())
        scheduler.attend()
    assert {type(error) for error in outages} == {LedgerReadOnly}
    assert [entry.customer for entry in scheduler.entries()] == ["acme"]  # globex is no longer shown
    scheduler.attend()
    assert [(entry.customer, entry.state) for entry in scheduler.entries()] == [
        ("acme", JobState.RESTING),
        ("hooli", JobState.QUEUED),
    ]
    ticket = world.fleet.next("worker", 45, suspended=False)
    assert ticket is not None
    assert ticket.skip_backoff
    told = len(outages)
    scheduler.attend()
    assert len(outages) == told


def test_unregistered_customers_are_not_enqueued_and_none_is_after_close(daemon_world: Make) -> None:
    world = daemon_world()
    scheduler, _, _ = scheduler_of(world)
    before = world.fleet.snapshot()
    scheduler.enqueue("nobody")
    scheduler.close()
    scheduler.enqueue("acme")
    scheduler.attend()
    assert world.fleet.snapshot() == before


def test_slots_are_those_of_all_live_workers(daemon_world: Make) -> None:
    world = daemon_world(cluster={"places": 3})
    scheduler, _, _ = scheduler_of(world)
    assert (scheduler.slots, scheduler.busy) == (0, 0)
    one, other = world.engage(), world.new_worker("other")
    now = world.clock.now()
    world.fleet.beat(WorkerRecord("other", now, now, places=3, busy=2))
    scheduler.attend()
    assert (scheduler.slots, scheduler.busy) == (6, 2)
    one.close()
    scheduler.attend()
    assert (scheduler.slots, scheduler.busy) == (3, 2)
    world.clock.advance(60)
    assert (scheduler.slots, scheduler.busy) == (0, 0)  # not heard of for so long
    other.close()


def test_missing_workers_are_logged_once(daemon_world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = daemon_world()
    told: list[Event] = []
    monkeypatch.setattr(
        "xmode_transfer.service.scheduler.telemetry.warn", lambda event, **_: told.append(event)
    )
    scheduler, _, _ = scheduler_of(world)
    assert told == []
    scheduler.enqueue("acme")
    for _ in range(3):
        scheduler.attend()
    assert told == [Event.WORKERS_MISSING]
    world.engage()
    scheduler.attend()
    world.work()
    world.clock.advance(60)
    scheduler.enqueue("acme")
    scheduler.attend()
    assert told == [Event.WORKERS_MISSING] * 2


def test_a_slow_queue_is_read_less_often(daemon_world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = daemon_world()
    scheduler, _, _ = scheduler_of(world)
    read: list[float] = []
    lasts: list[float] = []
    snapshot = world.fleet.snapshot

    def slow() -> list[QueueEntry]:
        read.append(world.clock.monotonic())
        world.clock.advance(lasts[-1])
        return snapshot()

    monkeypatch.setattr(world.fleet, "snapshot", slow)
    for seconds, pause in ((0.1, 2.0), (60.0, 5.0)):
        lasts.append(seconds)
        scheduler.attend()
        done = len(read)
        world.clock.advance(pause - 0.5)
        scheduler.attend()
        assert len(read) == done
        world.clock.advance(1.0)
        scheduler.attend()
        assert len(read) == done + 1
        world.clock.advance(10)


def test_a_scheduled_time_raises_a_queued_backfill_once(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = {"cron": "0 7 * * *", "timezone": "UTC"}
    world = daemon_world(customers={"acme": {"schedule": schedule}}, service={"spread_seconds": 0})
    daemon = world.start()
    world.tick()
    asked: list[JobRequest] = []
    enqueue = world.fleet.enqueue

    def enqueued(requests: Iterable[JobRequest]) -> None:
        asked.extend(requests)
        enqueue(asked[-1:])

    monkeypatch.setattr(world.fleet, "enqueue", enqueued)
    world.fleet.enqueue([JobRequest("acme")])
    daemon.attend()
    for _ in range(3):
        daemon.tick()
        daemon.attend()
    assert asked == [JobRequest("acme")]
    world.clock.advance(24 * 3600)
    daemon._ticked_before = world.clock.now()  # it was not away
    for _ in range(3):
        daemon.tick()
        daemon.attend()
    due = world.clock.now().replace(hour=7, minute=0, second=0, microsecond=0)
    if due > world.clock.now():
        due -= timedelta(days=1)
    assert asked[1:] == [JobRequest("acme", serving_at=due)]


# --- Several daemons --------------------------------------------------------------------------------------


def two(world: Any) -> tuple[Daemon, Daemon]:
    one = world.start()
    other, _ = world.new_daemon("other")
    other.attend()
    return one, other


def both(world: Any, *daemons: Daemon) -> None:
    for daemon in daemons:
        daemon.attend()
        assert daemon.drain(120)


def test_two_daemons_deliver_no_more_than_one(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {"schedule": {"cron": "0 7 * * *"}}, "globex": {}})
    world.produce("2026-11-20", "2026-11-21")
    one, other = two(world)
    for _ in range(3):
        world.clock.advance(60)
        for daemon in (one, other):
            daemon.tick()
            daemon.attend()
        world.work()
        both(world, one, other)
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-20", "2026-11-21"]
    assert [record.is_alive(world.clock.now()) for record in world.ledger.daemons.newest()] == [True, True]
    # what one of them served is not served again by the other
    before = world.fleet.snapshot()
    other.wake("acme")
    other.attend()
    assert world.fleet.snapshot() == before


def test_one_daemon_runs_maintenance_and_another_takes_over(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}}, service={"access_checks": {"cron": "*/30 * * * *"}})
    one, other = two(world)

    def checks_after(minutes: int, *daemons: Daemon) -> int:
        before = len(world.ledger.checks.newest("acme", 100))
        for _ in range(minutes):
            world.clock.advance(60)
            for daemon in daemons:
                daemon.tick()
                assert daemon.drain(120)
        return len(world.ledger.checks.newest("acme", 100)) - before

    checks_after(1, one, other)
    assert checks_after(60, one, other) == 2
    assert checks_after(60, other) == 2  # the keeper ticks no more
    assert checks_after(60, one, other) == 2  # it wakes, and finds that it no longer is
    other.stop()
    other.close()
    assert checks_after(30, one) == 1  # given back: no need to wait


def test_there_is_no_downtime_while_another_daemon_ticks(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {"catch_up": "none"}})
    one, other = two(world)
    one.tick()
    world.clock.advance(3 * 24 * 3600)
    world.produce("2026-11-22")
    other._ticked_before = world.clock.now() - timedelta(seconds=60)  # it has ticked all the while
    other.tick()
    world.clock.advance(30)
    one.tick()
    both(world, one, other)
    world.work()
    assert world.delivered() == ["2026-11-22"]


def test_downtime_of_all_daemons_skips_missed_periods(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {"catch_up": "none"}})
    one, other = two(world)
    world.produce("2026-11-20")
    one.tick()
    both(world, one, other)
    world.work()
    both(world, one, other)
    world.produce("2026-11-22")
    world.clock.advance(3 * 24 * 3600)
    other.tick()
    one.tick()
    both(world, one, other)
    world.work()
    both(world, one, other)
    assert world.delivered() == ["2026-11-20"]


@pytest.mark.parametrize(
    ("catch_up", "before", "after"),
    [
        ("all", ["2026-11-20"], ["2026-11-20", "2026-11-22", "2026-11-23"]),
        ("latest", [], ["2026-11-23"]),
        ("none", [], []),
    ],
)
def test_jobs_wait_after_downtime_until_a_daemon_has_skipped_periods(
    daemon_world: Make, catch_up: str, before: list[str], after: list[str]
) -> None:
    world = daemon_world(customers={"acme": {"catch_up": catch_up}})
    one, other = two(world)
    world.produce("2026-11-20")
    one.tick()
    both(world, one, other)
    world.produce("2026-11-22", "2026-11-23")
    world.clock.advance(3 * 24 * 3600)
    world.step(world.worker)
    assert world.worker.drain(120)
    assert world.delivered() == before
    other.tick()
    for _ in range(3):
        both(world, one, other)
        world.work()
        both(world, one, other)
        world.clock.advance(30)
        other.tick()
    assert world.delivered() == after
    # what becomes complete from then on is delivered as ever
    both(world, one, other)
    world.work()
    both(world, one, other)
    world.produce("2026-11-24")
    world.clock.advance(60)
    other.tick()
    both(world, one, other)
    world.work()
    assert world.delivered() == [*after, "2026-11-24"]
