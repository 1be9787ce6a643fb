"""What the daemon does at its ticks, with everything outside in memory and the clock in hand."""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from xmode_transfer.alerting.health_records import Health
from xmode_transfer.alerting.watch import assess_all
from xmode_transfer.config import Problem
from xmode_transfer.delivery.release import Request, decide
from xmode_transfer.delivery.run import run_customer
from xmode_transfer.model.checks import Decision
from xmode_transfer.model.errors import LeaseLost
from xmode_transfer.model.findings import AccessReport
from xmode_transfer.model.jobs import JobState
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceFile, SourceProblem, Status
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.service import maintenance
from xmode_transfer.sources.interface import PeriodState

Make = Callable[..., "DaemonWorld"]  # noqa: F821 - conftest's, which tests cannot import
ALONE = pytest.mark.parametrize("daemon_world", ["threads"], indirect=True)
DAILY = {"schedule": {"cron": "0 7 * * *"}}  # the clock begins at 06:30


# --- When ----------------------------------------------------------------------------------------------


def test_due_periods_are_delivered_once(daemon_world: Make) -> None:
    world = daemon_world()
    world.produce("2026-11-20", "2026-11-21")
    world.start()
    world.tick()
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-20", "2026-11-21"]
    world.produce("2026-11-22")
    world.tick()
    world.tick()
    assert world.delivered("acme") == ["2026-11-20", "2026-11-21", "2026-11-22"]
    assert world.attempts("acme", "2026-11-20") == 1
    assert world.entry().state is JobState.RESTING


def test_schedules_survive_restarts(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": DAILY}, service={"spread_seconds": 0})
    world.produce("2026-11-20")
    world.start()
    # never visited: its last time, yesterday at 7, is made up for
    world.tick()
    assert world.delivered() == ["2026-11-20"]
    world.produce("2026-11-21")
    world.tick()
    assert world.delivered() == ["2026-11-20"]  # not its time
    world.start()
    world.tick()
    assert world.delivered() == ["2026-11-20"]  # nor after a restart
    assert world.entry().next_at == world.clock.now().replace(hour=7, minute=0, second=0)
    world.tick(after=30 * 60)
    assert world.delivered() == ["2026-11-20", "2026-11-21"]
    world.produce("2026-11-22")
    world.start()
    world.tick(after=24 * 3600)  # the time came while no daemon was there
    assert world.delivered() == ["2026-11-20", "2026-11-21", "2026-11-22"]


def test_scheduled_times_between_two_ticks_are_served_on_time(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": DAILY}, service={"spread_seconds": 0})
    daemon = world.start()
    world.tick()
    world.produce("2026-11-21")
    world.clock.set(world.clock.now().replace(hour=7, minute=0, second=0))
    daemon.wake("acme")
    daemon.wake("nobody")
    world.settle()
    assert world.delivered() == ["2026-11-21"]


@pytest.mark.parametrize(
    ("catch_up", "then"),
    [
        ("all", ["2026-11-20", "2026-11-22", "2026-11-23", "2026-11-24"]),
        ("latest", ["2026-11-20", "2026-11-24"]),
        ("none", ["2026-11-20"]),
    ],
)
def test_catch_up_after_downtime(daemon_world: Make, catch_up: str, then: list[str]) -> None:
    world = daemon_world(customers={"acme": {"catch_up": catch_up}})
    world.produce("2026-11-20")
    world.start()
    world.tick()
    world.produce("2026-11-22", "2026-11-23", "2026-11-24")
    world.start()
    world.tick(after=3 * 24 * 3600)
    assert world.delivered() == then
    # what becomes complete from then on is delivered as ever, what was passed over is not
    world.produce("2026-11-25")
    world.tick()
    world.start()
    world.tick()
    assert world.delivered() == [*then, "2026-11-25"]
    # but to whoever names it, and when the producer declares it anew
    if catch_up != "all":
        named = run_customer(world.context("run"), world.configuration, "acme", Scope(period="2026-11-22"))
        assert named.outcome == "delivered"
        world.produce("2026-11-23", marker="m2")
        world.tick()
        assert world.delivered()[-2:] == ["2026-11-22", "2026-11-23"]


def test_a_restart_is_no_downtime(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {"catch_up": "none"}})
    world.start()
    world.tick()
    world.produce("2026-11-20", "2026-11-21")
    world.start()
    world.tick(after=5 * 60)
    assert world.delivered() == ["2026-11-20", "2026-11-21"]


def test_there_is_no_downtime_before_the_first_daemon(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {"catch_up": "none"}})
    world.produce("2026-11-20", "2026-11-21")
    world.start()
    world.tick()
    assert world.delivered() == ["2026-11-20", "2026-11-21"]


def test_sources_without_markers_are_rescanned_hourly(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}}, settled=True)
    world.produce("2026-11-20")
    world.start()
    world.tick()
    world.produce("2026-11-20", data=b"corrected")
    for _ in range(10):
        world.tick()
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").revision == 1
    world.tick(after=3600)
    assert world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20").revision == 2


@pytest.mark.parametrize("daemon_world", ["fleet"], indirect=True)
def test_a_dead_worker_is_recorded_before_the_next_tick(daemon_world: Make) -> None:
    world = daemon_world()
    daemon = world.start()
    world.tick()
    assert world.ledger.daemons.newest(1)[0].workers == 4
    ticked_at = world.ledger.daemons.newest(1)[0].ticked_at
    world.clock.advance(31)  # nothing was heard of it
    daemon.attend()
    noted = world.ledger.daemons.newest(1)[0]
    assert (noted.workers, noted.busy, noted.ticked_at) == (0, 0, ticked_at)


# --- Whoever refuses us ----------------------------------------------------------------------------------


def test_a_refusal_suspends_retries_with_backoff_and_drains_in_order(daemon_world: Make) -> None:
    world = daemon_world()
    daemon = world.start()
    world.refuse("acme")
    world.produce("2026-11-20", "2026-11-21", "2026-11-22")
    world.tick()
    assert world.delivered("globex") == ["2026-11-20", "2026-11-21", "2026-11-22"]
    entry = world.entry()
    assert (entry.state, entry.period) == (JobState.SUSPENDED, "2026-11-20")
    assert "cannot be assumed" in entry.reason or "refuses" in entry.reason
    assert entry.next_at == world.clock.now() + timedelta(seconds=30)
    assert world.ledger.checks.last("acme").outcome == "blocked"  # checked without being asked
    assert world.changes == 1
    latest = world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20")
    assert (latest.status, latest.failure.cause) == (Status.BLOCKED, "role_refused")

    pauses = []
    for _ in range(6):
        world.tick(after=(world.entry().next_at - world.clock.now()).total_seconds())
        pauses.append((world.entry().next_at - world.clock.now()).total_seconds())
    assert pauses == [60, 120, 240, 480, 900, 900]
    assert world.attempts("acme", "2026-11-21") == 0  # what comes after it waits
    assert len(world.ledger.runs.newest("acme", 100)) == 1  # a knock at the door is no run

    world.start()  # the pause outlives the process
    world.tick()
    assert world.entry().state is JobState.SUSPENDED
    assert world.attempts("acme", "2026-11-20") == 7

    world.mend("acme")
    world.tick(after=900)
    assert world.delivered("acme") == ["2026-11-20", "2026-11-21", "2026-11-22"]
    assert world.entry().state is JobState.RESTING
    assert daemon is not world.daemon
    assert world.ledger.checks.last("acme").outcome == "ok"  # checked anew, since it let us in again


def test_access_is_checked_again_after_a_refusal_is_fixed(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world(customers={"acme": {}})
    world.start()
    world.refuse("acme")
    world.produce("2026-11-20")
    world.tick()
    checked = []
    monkeypatch.setattr(
        maintenance, "check_access", lambda *which: checked.append(which) or AccessReport("acme", None, ())
    )
    world.mend("acme")
    world.tick(after=900)
    assert world.delivered() == ["2026-11-20"]
    assert len(checked) == 1
    # that check has told the ledger nothing, and still the one before counts no more
    assert world.ledger.checks.last("acme").outcome == "blocked"
    found = assess_all(world.configuration, world.ledger, world.clock).customer("acme")
    assert (found.health, found.warnings) == (Health.HEALTHY, ())


def test_a_passed_access_check_retries_at_once(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}}, service={"access_checks": {"cron": "* * * * *"}})
    world.start()
    world.tick()
    world.refuse("acme")
    world.produce("2026-11-20", "2026-11-21")
    world.tick()
    world.tick(after=1000)  # refused again: the next try would be in a minute or later
    assert world.entry().state is JobState.SUSPENDED
    world.mend("acme")
    deadline = world.entry().next_at
    while world.entry().state is JobState.SUSPENDED and world.clock.now() < deadline:
        world.tick(after=5)
    assert world.delivered() == ["2026-11-20", "2026-11-21"]
    assert world.clock.now() <= deadline


@pytest.mark.parametrize("hangup", [False, True])
def test_an_edit_and_a_reload_retry_at_once(daemon_world: Make, hangup: bool) -> None:
    world = daemon_world(customers={"acme": {}})
    daemon = world.start()
    world.refuse("acme")
    world.produce("2026-11-20")
    world.tick()
    world.mend("acme")
    daemon.reload()
    world.settle()
    assert world.delivered() == []  # nothing has changed
    world.clock.advance(1)
    if not hangup:
        world.customers["acme"] = {"weight": 2}
    daemon.reload(skip_backoff=hangup)
    world.settle()
    assert world.delivered() == ["2026-11-20"]


# --- Trouble of our own ----------------------------------------------------------------------------------


@ALONE
def test_an_invalid_vendor_key_is_one_outage(daemon_world: Make) -> None:
    world = daemon_world(customers={name: {} for name in ("acme", "globex", "hooli", "initech")})
    daemon = world.start()
    world.produce("2026-11-20")
    world.lose_key()
    world.tick()
    assert daemon.status().trouble is not None
    assert daemon.status().trouble.cause == "vendor_identity"
    world.tick()
    (noted,) = world.ledger.daemons.newest()
    assert noted.trouble == daemon.status().trouble
    assert all(world.entry(name).state is not JobState.SUSPENDED for name in world.customers)
    daemon.recover()
    assert daemon.status().trouble is not None
    world.find_key()
    daemon.recover()
    world.settle()
    assert daemon.status().trouble is None
    assert all(world.delivered(name) == ["2026-11-20"] for name in world.customers)


def test_a_vendor_key_that_was_replaced_is_no_outage(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world()
    daemon = world.start()
    world.lose_key()
    lost = world.sessions
    refusal = lost.verify_identity

    def first_refused() -> str:
        world.find_key()
        return refusal()

    monkeypatch.setattr(lost, "verify_identity", first_refused)
    world.produce("2026-11-20")
    world.tick()
    assert daemon.status().trouble is None
    world.tick()
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-20"]


@ALONE
def test_a_daemon_without_its_lease_writes_nothing(daemon_world: Make) -> None:
    world = daemon_world()
    daemon = world.start()
    world.clock.advance(2e9)
    world.ledger.leases.claim("daemon", "another", 90)
    with pytest.raises(LeaseLost):
        daemon.tick()


# --- The configuration -----------------------------------------------------------------------------------


def test_an_invalid_file_keeps_its_last_valid_version(daemon_world: Make) -> None:
    world = daemon_world()
    daemon = world.start()
    world.problems["acme"] = Problem("customers/acme.yaml", 3, 1, "prefx", "unknown key")
    daemon.reload()
    world.produce("2026-11-20")
    world.tick()
    assert world.delivered("acme") == ["2026-11-20"]
    told = ("customers/acme.yaml:3:1: prefx: unknown key",)
    assert (
        daemon.status().configuration_problems
        == world.ledger.daemons.newest()[0].configuration_problems
        == told
    )
    world.problems.clear()
    daemon.reload()
    assert daemon.status().configuration_problems == ()


def test_removed_customers_are_skipped_and_new_ones_served(daemon_world: Make) -> None:
    world = daemon_world()
    daemon = world.start()
    world.customers["globex"] = {"state": "retired"}
    daemon.reload()
    world.produce("2026-11-20")
    world.tick()
    assert world.delivered("globex") == []
    assert [entry.customer for entry in daemon.jobs()] == ["acme"]
    world.customers["globex"] = {}
    daemon.reload()
    world.tick()
    assert world.delivered("globex") == ["2026-11-20"]


def test_removing_a_customer_stops_its_delivery(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}})
    world.start()
    world.produce("2026-11-20")
    period = world.source.periods().__next__().period
    for number in range(20):
        world.source.write(f"2026-11-20/{number:02}.csv", b"x", period=period)

    def remove(name: str, offset: int) -> None:
        if name.endswith("05.csv"):
            world.source.on_read = None
            world.customers["acme"] = {"state": "retired"}
            world.reload()

    world.source.on_read = remove
    world.tick()
    latest = world.ledger.deliveries.latest("acme", "us-daily", "2026-11-20")
    assert latest.status is Status.PLANNED
    sent = sum(receipt is not None for _, receipt in world.ledger.objects.planned(latest.id))
    assert 0 < sent < 21
    world.customers["acme"] = {}
    world.reload()
    world.tick()
    assert world.delivered() == ["2026-11-20"]
    (first, second) = world.ledger.runs.newest("acme")
    assert first.uploaded + second.uploaded == 21


# --- Jobs ------------------------------------------------------------------------------------------------


@ALONE
def test_a_long_delivery_yields_to_others(daemon_world: Make) -> None:
    world = daemon_world(customers={"acme": {}}, service={"workers": 1, "turn_seconds": 600})
    daemon = world.start()
    world.produce("2026-11-20")
    period = world.source.periods().__next__().period
    for number in range(20):
        world.source.write(f"2026-11-20/{number:02}.csv", b"x", period=period)
    order: list[str] = []

    def meanwhile(name: str, offset: int) -> None:
        if name.endswith("05.csv"):
            world.clock.advance(601)
        elif name.endswith("10.csv"):
            world.source.on_read = None
            time.sleep(0.2)  # so that the receipts of those before are there: it gets on
            world.sign_up("globex")
            daemon.reload()
            daemon.wake("globex")
            daemon.attend()
            order.append(daemon._scheduler.entry("globex").state)
            world.clock.advance(5)
            daemon.attend()  # which hears of who is queued
            daemon.attend()

    world.source.on_read = meanwhile
    world.tick()
    assert order == [JobState.QUEUED]
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-20"]
    runs = world.ledger.runs.newest("acme")
    assert [run.outcome for run in runs] == ["delivered", "interrupted"]
    globex = world.ledger.runs.newest("globex")[0]
    assert runs[1].finished_at <= globex.started_at <= runs[0].started_at


def test_a_quarantined_period_holds_up_no_other_and_is_delivered_once_released(daemon_world: Make) -> None:
    world = daemon_world()
    world.produce("2026-11-20", "2026-11-21")
    bad = Period.parse("2026-11-20", PeriodKind.DAY)
    world.source.write("2026-11-20/b.gz", b"spoilt", period=bad)
    world.start()
    world.tick()
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-21"]
    assert world.entry().state is JobState.RESTING  # not suspended
    for _ in range(8):  # its pauses become longer
        world.tick()
    tried = world.attempts("acme", "2026-11-20")
    world.tick()
    assert world.attempts("acme", "2026-11-20") == tried < 8
    request = Request("us-daily", "2026-11-20", "acme", None, Decision.RELEASED, "alice", "as agreed")
    decide(world.configuration, world.ledger, world.clock, "a person", request)
    world.tick()
    assert world.delivered("acme") == ["2026-11-21", "2026-11-20"]
    assert world.delivered("globex") == ["2026-11-21"]
    world.source.write("2026-11-20/b.gz", b"\x1f\x8b", period=bad)
    world.tick(after=3600)
    assert world.delivered("globex") == ["2026-11-21", "2026-11-20"]


def test_a_defect_in_one_period_does_not_stop_others(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world()
    world.start()
    world.produce("2026-11-20", "2026-11-21")
    scan = world.source.scan

    def fails(period: Period) -> Iterator[SourceFile | SourceProblem]:
        return scan(period) if period.label != "2026-11-20" else 1 // 0

    monkeypatch.setattr(world.source, "scan", fails)
    world.tick()
    for name in ("acme", "globex"):
        assert world.delivered(name) == ["2026-11-21"]
        failed = world.ledger.deliveries.latest(name, "us-daily", "2026-11-20")
        assert (failed.status, failed.failure.cause) == (Status.FAILED, "defect")
        assert "ZeroDivisionError" in failed.failure.message
    monkeypatch.undo()
    world.tick()
    assert world.delivered("acme") == ["2026-11-21", "2026-11-20"]


def test_a_defect_in_a_source_scan_is_recorded_for_the_feed(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world()
    world.start()
    world.produce("2026-11-20")
    monkeypatch.setattr(world.source, "periods", lambda since: 1 // 0)
    world.tick()
    assert world.ledger.sources.last("acme", "us-daily").failure.cause == "defect"
    monkeypatch.undo()
    world.tick()
    assert world.delivered("acme") == world.delivered("globex") == ["2026-11-20"]


def test_an_unreadable_path_does_not_stop_other_periods(
    daemon_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = daemon_world()
    world.start()
    world.produce("2026-11-20")
    periods = world.source.periods

    def partly(since: datetime | None = None) -> Iterator[PeriodState | SourceProblem]:
        yield from periods(since)
        yield SourceProblem("2026/", "link_loop", "it leads back to itself")
        yield SourceProblem("2025/", "unreadable", "it is long before what is looked back on")

    monkeypatch.setattr(world.source, "periods", partly)
    world.tick()
    assert world.delivered("acme") == ["2026-11-20"]
    look = world.ledger.sources.last("acme", "us-daily")
    assert (look.newest_complete, look.failure.cause) == ("2026-11-20", "source_partly_unreadable")
    assert "2026/: it leads back" in look.failure.message
    assert "2025" not in look.failure.message
    monkeypatch.undo()
    world.tick()
    assert world.ledger.sources.last("acme", "us-daily").failure is None


def test_shutdown_is_recorded(daemon_world: Make) -> None:
    world = daemon_world()
    daemon = world.start()
    world.tick()
    assert world.ledger.daemons.newest()[0].is_alive(world.clock.now())
    daemon.stop()
    daemon.close()
    (noted,) = world.ledger.daemons.newest()
    assert noted.stopped_at == world.clock.now()
    assert noted.stopping
    assert daemon.status().stopping


# --- Soak -------------------------------------------------------------------------------------------------


def soak(world: "DaemonWorld", ticks: int) -> tuple["Memory", "Memory"]:  # noqa: F821
    """Hours of a daemon's life, with refusals, reloads and checks; what it has in memory once it has seen
    each of them, and at the end."""
    daemon = world.start()
    names = list(world.customers)
    world.produce("2026-11-20")
    first = None
    for number in range(ticks):
        if number == max(20, ticks // 4):
            first = Memory.now()
        bad = names[number // 20 % len(names)]
        if number % 20 == 0:
            world.refuse(bad)
            world.produce("2026-11-20", data=b"%d" % number, marker=f"m{number}")
        elif number % 20 == 10:
            world.mend(bad)
            daemon.reload(skip_backoff=True)
        elif number % 20 == 15:
            for name in names:
                world.buckets.delete(f"{name}-data")
                world.buckets.create(f"{name}-data", world.customer(name).account_id)
        world.tick()
        daemon.attend()
        daemon.recover()
    assert first is not None
    return first, Memory.now()


class Memory(NamedTuple):
    """What the process has, in MiB, and the pieces of it that objects of Python have."""

    resident: float
    pieces: int

    @classmethod
    def now(cls) -> "Memory":
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, sys.getallocatedblocks())


@ALONE
def test_memory_stays_flat(daemon_world: Make, figures: Callable[..., None]) -> None:
    world = daemon_world(customers={f"c{number:02}": {} for number in range(4)})
    first, last = soak(world, 60)
    pieces = (last.pieces - first.pieces) / 4 / 40
    figures(
        f"4 customers, 60 ticks: {first.resident:.0f} MiB resident after 20, {last.resident:.0f} at the end"
    )
    figures(f"{pieces:.1f} more pieces of memory for each customer and tick")
    assert last.resident - first.resident < 15
    assert pieces < 25  # pytest keeps the lines that are logged


@ALONE
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_stays_flat_for_days(daemon_world: Make, figures: Callable[..., None]) -> None:
    world = daemon_world(customers={f"c{number:02}": {} for number in range(50)})
    first, last = soak(world, 5000)
    figures(
        f"50 customers, 5,000 ticks: {first.resident:.0f} MiB resident after a quarter, "
        f"{last.resident:.0f} at the end"
    )
    assert last.resident - first.resident < 25
