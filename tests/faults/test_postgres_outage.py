"""The database server goes away and comes back, and processes die, freeze and wake beside it: nothing that
was acknowledged is lost, nothing is doubled, and the work of the dead goes on at once."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.fakes.clock import MemoryClock
from tests.forms import IS_SOAK
from tests.postgres import PostgresServer
from xmode_transfer import telemetry
from xmode_transfer.ledger import Ledger, files, leases, open_ledger
from xmode_transfer.ledger.database import Prepared
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost, LedgerError, LedgerUnreachable
from xmode_transfer.model.findings import AccessReport
from xmode_transfer.model.jobs import JobRequest, JobResult, JobState
from xmode_transfer.model.records import Checksum, Delivery, Lease, PlannedObject, Receipt, Run, Status
from xmode_transfer.model.upkeep import OperationKind, OperationRecord, Removal, RemovalOutcome
from xmode_transfer.service import cluster
from xmode_transfer.telemetry import SystemClock

NOW = MemoryClock().now()
ELSEWHERE = "another-host/another-boot/17/1234"
"""A holder of whom this machine cannot tell whether it lives."""
Open = Callable[..., Ledger]
COUNT = 3_000 if IS_SOAK else 1_200
"""Receipts, of which the server dies in the midst."""


def an_object(name: str) -> PlannedObject:
    return PlannedObject(name, f"xmode/{name}", 1_000, 17, "inode")


def a_receipt(name: str) -> Receipt:
    return Receipt(name, f"xmode/{name}", 1_000, Checksum("crc32", "AAAAAQ=="), '"etag"', NOW)


def a_delivery(name: str = "d", period: str = "2026-11-22") -> Delivery:
    return Delivery(name, "acme", "us-daily", period, 1, Status.RUNNING, NOW, NOW)


@pytest.fixture
def open_() -> Iterator[Open]:
    """Opens ledgers that are closed at the end of the test."""
    opened: list[Ledger] = []

    def make(url: str, **how: Any) -> Ledger:
        opened.append(open_ledger(url, SystemClock(), **how))
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.close()


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events that were logged."""
    events: list[str] = []
    monkeypatch.setattr(telemetry, "log", lambda event, **fields: events.append(str(event)))
    return events


# --- The server goes away ------------------------------------------------------------------------------


@pytest.mark.short
@pytest.mark.parametrize("how", ["kill", "restart"])
def test_acknowledged_writes_survive_a_dead_server_and_work_continues(
    own_postgres: PostgresServer, open_: Open, told: list[str], how: str
) -> None:
    ledger = open_(own_postgres.url("xmode"))
    lease = ledger.leases.claim("work", ELSEWHERE, 600)
    ledger.deliveries.create(lease, a_delivery())
    names = [f"{number:04}" for number in range(COUNT)]
    ledger.objects.plan(lease, "d", [an_object(name) for name in names])
    acknowledged: list[str] = []
    enough, done = threading.Event(), threading.Event()

    def deliver(share: list[str]) -> None:
        for name in share:
            ledger.objects.record_receipt(lease, "d", a_receipt(name)).result(timeout=120)
            acknowledged.append(name)
            if len(acknowledged) > 60:
                enough.set()

    def look() -> None:
        while not done.is_set():
            assert ledger.objects.totals("d") == (COUNT, 1_000 * COUNT)
            assert ledger.deliveries.latest("acme", "us-daily", "2026-11-22") == a_delivery()

    with ThreadPoolExecutor(40) as pool:
        writers = [pool.submit(deliver, names[start::39]) for start in range(39)]
        reader = pool.submit(look)
        assert enough.wait(60)
        if how == "kill":
            own_postgres.kill()
            own_postgres.start()
        else:
            own_postgres.restart()
        seen = set(acknowledged)
        there = {row[0] for row in own_postgres.execute("SELECT name FROM receipts", "xmode")}
        assert seen <= there
        for writer in writers:
            writer.result()
        done.set()
        reader.result()
    assert sorted(acknowledged) == names
    assert list(ledger.objects.pending("d")) == []
    assert files.check(own_postgres.url("xmode")).is_sound
    assert told.count("ledger.unavailable") == told.count("ledger.recovered") <= 1


def test_a_plan_is_complete_after_a_restart_during_its_listing(
    own_postgres: PostgresServer, open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_(own_postgres.url("xmode"))
    lease = ledger.leases.claim("work", ELSEWHERE, 600)
    ledger.deliveries.create(lease, a_delivery())

    def listed() -> Iterator[PlannedObject]:
        for number in range(12_000):
            if number == 9_000:
                own_postgres.restart()
            yield an_object(f"{number:05}")

    assert ledger.objects.plan(lease, "d", listed()) == 12_000
    assert ledger.objects.totals("d") == (12_000, 12_000_000)
    # after that, the plan is in the server; the connection that holds what is staged breaks in between
    _break_once(monkeypatch, own_postgres)
    assert ledger.objects.plan(lease, "d", [an_object("new")]) == 1
    assert ledger.objects.totals("d") == (12_001, 12_001_000)


def _break_once(monkeypatch: pytest.MonkeyPatch, server: PostgresServer) -> None:
    """The connection is cut when the next statement of a plan's merge is about to run."""
    run = Prepared.run

    def cut(prepared: Prepared, connection: Any, **values: object) -> Any:
        monkeypatch.setattr(Prepared, "run", run)
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return run(prepared, connection, **values)

    monkeypatch.setattr(Prepared, "run", cut)


@pytest.mark.parametrize("was_written", [True, False])
def test_a_write_with_a_lost_answer_is_there_once(
    own_postgres: PostgresServer, open_: Open, monkeypatch: pytest.MonkeyPatch, was_written: bool
) -> None:
    ledger = open_(own_postgres.url("xmode"))
    lease = ledger.leases.claim("work", ELSEWHERE, 600)
    ledger.deliveries.create(lease, a_delivery())
    commit, lost = psycopg.Connection.commit, iter([True])

    def losing(self: Any) -> None:
        if self.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS and next(lost, False):
            if was_written:
                commit(self)
            self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        commit(self)

    def once(work: Callable[[], object]) -> None:
        nonlocal lost
        lost = iter([True])
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Connection, "commit", losing)
            work()
        assert next(lost, None) is None, "no commit was lost"

    once(lambda: ledger.checks.record(AccessReport("acme", NOW, ())))
    assert len(ledger.checks.newest("acme")) == 1
    once(lambda: ledger.runs.start(lease, Run("r", "d", NOW, "h", "fast")))
    assert len(ledger.runs.newest()) == 1
    once(lambda: ledger.leases.claim("other", ELSEWHERE, 600))
    with pytest.raises(AlreadyRunning):
        ledger.leases.claim("other", ELSEWHERE, 600)
    once(lambda: ledger.objects.plan(lease, "d", [an_object("a"), an_object("b")]))
    assert [item.name for item in ledger.objects.pending("d")] == ["a", "b"]
    act = OperationRecord("act", OperationKind.CLEANUP, "acme", ELSEWHERE, "alice", "expired", NOW)
    once(lambda: ledger.operations.start(lease, act))
    assert ledger.operations.newest() == [act]
    removal = Removal(
        "xmode/a", "us-daily", "2026-11-22", 1, False, 1, "e", NOW, "old", RemovalOutcome.PLANNED, NOW
    )
    once(lambda: ledger.operations.record_removals(lease, "act", [removal]))
    settled: list[set[str]] = []
    keys, later = ["xmode/a", "xmode/b"], NOW + timedelta(minutes=1)
    once(
        lambda: settled.append(
            ledger.operations.settle_removals(lease, [act], keys, RemovalOutcome.GONE, later)
        )
    )
    assert settled == [{"xmode/a"}]
    assert ledger.operations.settle_removals(lease, [act], keys, RemovalOutcome.DELETED, later) == set()

    cluster.make(own_postgres.url("xmode"))
    queue, begun = ledger.queue, []
    once(lambda: queue.register({"acme": 1}))
    once(lambda: queue.enqueue([JobRequest("acme", True)]))
    once(lambda: begun.append(queue.next(ELSEWHERE, 600, suspended=False)))
    (job,) = begun
    assert job is not None
    assert (job.customer, job.skip_backoff) == ("acme", True)
    once(lambda: queue.done(job, JobResult(again=True)))
    once(lambda: begun.append(queue.next(ELSEWHERE, 600, suspended=False)))
    _, again = begun
    assert again is not None
    once(lambda: queue.done(again, JobResult(looked=True)))
    (entry,) = queue.snapshot()
    assert (entry.state, entry.ended) == (JobState.RESTING, again.lease.generation)
    ledger.leases.claim(job.lease.name, ELSEWHERE, 600)


def test_a_lasting_outage_is_reported_after_the_wait_and_close_returns(
    own_postgres: PostgresServer, told: list[str]
) -> None:
    ledger = open_ledger(own_postgres.url("xmode", patience=1.5), SystemClock())
    lease = ledger.leases.claim("work", ELSEWHERE, 600)
    ledger.deliveries.create(lease, a_delivery())
    ledger.objects.plan(lease, "d", [an_object("a")])
    own_postgres.stop()
    calls: list[Callable[[], object]] = [
        lambda: ledger.deliveries.latest("acme", "us-daily", "2026-11-22"),
        lambda: list(ledger.objects.pending("d")),
        lambda: ledger.objects.record_receipt(lease, "d", a_receipt("a")).result(timeout=120),
        lambda: ledger.objects.plan(lease, "d", [an_object("z")]),
        lambda: ledger.leases.renew(lease, 90),
    ]
    for call in calls:
        with pytest.raises(
            LedgerUnreachable, match=r"cannot be reached: .* It was tried for \d+ seconds"
        ) as caught:
            call()
        assert (caught.value.code, caught.value.responsible, caught.value.retryable) == (
            "ledger_unreachable",
            "vendor",
            True,
        )
        assert "pg_isready" in caught.value.hint
    assert told.count("ledger.unavailable") == 1
    ledger.close()

    own_postgres.start()
    ledger = open_ledger(own_postgres.url("xmode", patience=3600), SystemClock())
    own_postgres.stop()
    waiting = ledger.objects.record_receipt(lease, "d", a_receipt("a"))
    ledger.close()
    assert isinstance(waiting.exception(timeout=120), LedgerUnreachable)


def test_an_ending_process_does_not_wait_for_a_silent_server(
    own_postgres: PostgresServer, open_: Open
) -> None:
    """Neither where it asks from then on, nor where it waits already."""
    ledger = open_(own_postgres.url("xmode", patience=3600))
    lease = ledger.leases.claim("work", ELSEWHERE, 600)
    ledger.deliveries.create(lease, a_delivery())
    ledger.objects.plan(lease, "d", [an_object("a")])
    own_postgres.freeze()
    try:
        calls: list[Callable[[], object]] = [
            lambda: ledger.deliveries.latest("acme", "us-daily", "2026-11-22"),
            lambda: ledger.objects.record_receipt(lease, "d", a_receipt("a")).result(),
            lambda: ledger.leases.renew(lease, 90),
        ]
        with ThreadPoolExecutor(len(calls)) as threads:
            waiting = [threads.submit(call) for call in calls]
            ledger.hurry()
            for future in waiting:
                assert isinstance(future.exception(timeout=90), LedgerUnreachable)
        for call in calls:
            with pytest.raises(LedgerUnreachable):
                call()
        ledger.close()
    finally:
        own_postgres.thaw()


def test_an_ending_process_survives_a_restarted_server(own_postgres: PostgresServer, open_: Open) -> None:
    ledger = open_(own_postgres.url("xmode", patience=3600))
    lease = ledger.leases.claim("work", ELSEWHERE, 600)
    own_postgres.restart()
    ledger.hurry()
    ledger.deliveries.create(lease, a_delivery())
    assert ledger.deliveries.latest("acme", "us-daily", "2026-11-22") is not None


def test_a_starting_server_is_waited_for_and_a_missing_one_is_not(
    own_postgres: PostgresServer, open_: Open
) -> None:
    own_postgres.stop()
    with pytest.raises(LedgerUnreachable, match="cannot be reached"):
        open_(own_postgres.url("xmode", patience=3600))
    own_postgres.start(wait=False)
    deadline = time.monotonic() + 120
    while True:  # from the moment that it listens it says that it is starting
        try:
            ledger = open_(own_postgres.url("xmode", patience=60))
        except LedgerUnreachable:
            assert time.monotonic() < deadline
        else:
            break
    ledger.prove_writable()


# --- Processes die -------------------------------------------------------------------------------------

_HOLDER = """
import sys
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.ledger import open_ledger
ledger = open_ledger(sys.argv[1], SystemClock(), holder=sys.argv[2])
lease = ledger.leases.claim("work", sys.argv[2], float(sys.argv[3]))
print(lease.generation, flush=True)
sys.stdin.readline()
try:
    ledger.prove_writable()
    ledger.leases.renew(lease, 90)
    print("renewed", flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


@contextmanager
def holding(url: str, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """Another machine's process, as far as we can tell, that holds the lease on ``work``."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, url, ELSEWHERE, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        yield process
    finally:
        process.kill()
        process.communicate()


def claim_soon(ledger: Ledger, holder: str = "us") -> Lease:
    """As soon as the server has noticed."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return ledger.leases.claim("work", holder, 90)
        except AlreadyRunning:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_lease_of_a_killed_process_elsewhere_is_free_at_once(shared_ledger: str, open_: Open) -> None:
    url = shared_ledger
    ledger = open_(url)
    with holding(url, 3_600) as process:
        with pytest.raises(AlreadyRunning, match="pid 17 on another-host"):
            ledger.leases.claim("work", "us", 90)
        process.kill()
        process.wait()
        assert claim_soon(ledger).generation == 2


def test_a_frozen_process_keeps_its_lease_until_it_expires(shared_ledger: str, open_: Open) -> None:
    url = shared_ledger
    ledger = open_(url)
    with holding(url, 3_600) as process:
        process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            with pytest.raises(AlreadyRunning):
                ledger.leases.claim("work", "us", 90)
        # its time is over, by the server's clock
        execute(shared_ledger, "UPDATE leases SET expires_at = '2026-01-01T00:00:00.000000Z'")
        assert ledger.leases.claim("work", "us", 90).generation == 2
        process.send_signal(signal.SIGCONT)
        answer, _ = process.communicate("\n", timeout=60)
        assert answer.strip() == LeaseLost.__name__


def test_leases_expire_by_the_servers_clock(
    shared_ledger: str,
) -> None:
    fast, slow = MemoryClock(NOW + timedelta(days=900)), MemoryClock(NOW - timedelta(days=900))
    first = open_ledger(shared_ledger, fast)
    second = open_ledger(shared_ledger, slow)
    try:
        lease = first.leases.claim("work", "a", 90)
        ((now,),) = execute(shared_ledger, "SELECT clock_timestamp()")
        assert timedelta(0) < lease.expires_at - now <= timedelta(seconds=90)
        with pytest.raises(AlreadyRunning):
            second.leases.claim("work", "b", 90)
        lease = second.leases.claim("short", "b", 0)
        assert first.leases.claim("short", "a", 90).generation == lease.generation + 1
        with pytest.raises(LeaseLost):
            second.leases.renew(lease, 90)
    finally:
        first.close()
        second.close()


def test_a_live_holder_is_not_dead_after_a_restart_of_the_server(
    own_postgres: PostgresServer, open_: Open
) -> None:
    """A restart drops every lock, before the living have come back."""
    ours, theirs = open_(own_postgres.url("xmode"), holder=ELSEWHERE), open_(own_postgres.url("xmode"))
    lease = ours.leases.claim("work", ELSEWHERE, 3_600)
    own_postgres.restart()
    with pytest.raises(AlreadyRunning):
        theirs.leases.claim("work", "us", 90)
    ours.leases.renew(lease, 3_600)
    with pytest.raises(AlreadyRunning):
        theirs.leases.claim("work", "us", 90)
    ours.close()
    assert claim_soon(theirs).generation == 2


def test_a_renewal_restores_a_broken_presence(shared_ledger: str, open_: Open) -> None:
    ours, theirs = open_(shared_ledger, holder=ELSEWHERE), open_(shared_ledger)
    lease = ours.leases.claim("work", ELSEWHERE, 3_600)
    execute(
        shared_ledger,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted",
    )
    ours.leases.renew(lease, 3_600)
    with pytest.raises(AlreadyRunning):
        theirs.leases.claim("work", "us", 90)


def test_a_holder_without_presence_expires_by_time(shared_ledger: str, open_: Open) -> None:
    ours, theirs = open_(shared_ledger), open_(shared_ledger)
    ours.leases.claim("work", ELSEWHERE, 3_600)  # not the holder that the ledger was opened for
    with pytest.raises(AlreadyRunning):
        theirs.leases.claim("work", "us", 90)
    execute(shared_ledger, "UPDATE leases SET expires_at = '2026-01-01T00:00:00.000000Z'")
    assert theirs.leases.claim("work", "us", 90).generation == 2


# --- Writers beside each other -------------------------------------------------------------------------


def test_two_processes_may_create_the_tables_at_once(own_postgres: PostgresServer, open_: Open) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = [pool.submit(open_, own_postgres.url("xmode")) for _ in range(6)]
        assert not wait(opened, timeout=120).not_done
    for future in opened:
        future.result().prove_writable()


def test_deadlocked_writers_are_retried(shared_ledger: str, open_: Open) -> None:
    url = f"{shared_ledger}&options=-cdeadlock_timeout%3D50ms"
    first, second = open_(url), open_(url)
    lease = first.leases.claim("work", ELSEWHERE, 600)
    for name in ("a", "b"):
        first.deliveries.create(lease, a_delivery(name, f"period-{name}"))
    met = threading.Barrier(2)
    tries: list[str] = []

    def both(ledger: Ledger, names: tuple[str, str]) -> None:
        def action(connection: Any) -> None:
            tries.append(names[0])
            for name in names:
                connection.exec_driver_sql(
                    f"UPDATE deliveries SET attempts = attempts + 1 WHERE id = '{name}'"
                )
                if len(tries) <= 2 and name == names[0]:
                    met.wait(60)

        ledger._database.write(action)

    with ThreadPoolExecutor(2) as pool:
        for future in (pool.submit(both, first, ("a", "b")), pool.submit(both, second, ("b", "a"))):
            future.result()
    assert len(tries) >= 3  # the one that is run again may meet the other once more
    assert sorted(item.attempts for item in first.deliveries.find()) == [2, 2]


def test_a_lease_cannot_be_claimed_during_a_write_under_it(shared_ledger: str, open_: Open) -> None:
    first, second = open_(shared_ledger), open_(f"{shared_ledger}&timeout=0.2")
    lease = first.leases.claim("work", ELSEWHERE, 0)
    with first._database.writing() as connection:
        leases.check(connection, lease)
        with pytest.raises(LedgerError, match="locked by another"):
            second.leases.claim("work", "us", 90)
    assert second.leases.claim("work", "us", 90).generation == 2
