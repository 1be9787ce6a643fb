"""The contract of the port ``WorkQueue``, run against that of one process and against every database that a
fleet's ledger may lie in."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy

from tests.fakes import MemoryClock
from tests.table_queue import TableQueue
from xmode_transfer.adapters import processes
from xmode_transfer.adapters.ledger import Ledger, open_ledger
from xmode_transfer.adapters.ledger import fleet as fleet_module
from xmode_transfer.adapters.ledger.fleet import SETTLING_SECONDS
from xmode_transfer.adapters.local_queue import LocalQueue
from xmode_transfer.domain.errors import LeaseLost, LedgerError
from xmode_transfer.domain.fleet import (
    Call,
    FleetState,
    FleetTurn,
    FleetTurnEnd,
    Ticket,
    WorkerRecord,
    priority,
)
from xmode_transfer.domain.seats import REBASE_ABOVE
from xmode_transfer.ports import WorkQueue

NOW = datetime(2026, 11, 23, 6, 30, 0, 123456, tzinfo=UTC)
TTL = 45.0
HOLDER = "host-a"
MORE = FleetTurnEnd(again=True)
DONE = FleetTurnEnd(looked=True)
REFUSED = FleetTurnEnd(
    reason="The role refused us.",
    refused=True,
    feed="us-daily",
    period="2026-11-22",
    next_at=NOW + timedelta(hours=1),
)


class Job(NamedTuple):
    """What stands for a queued customer."""

    customer: str
    priority: int
    waiting: bool


@dataclass
class Case:
    """One queue. ``dead`` is a holder that is known to have died. ``another`` opens the same one as another
    process would; ``drop`` loses a job."""

    fleet: WorkQueue
    ledger: Ledger
    dead: str
    another: Callable[[], WorkQueue]
    job: Callable[[str], Job | None]
    drop: Callable[[str], None]
    clock: MemoryClock

    def next(self, *, waiting: bool = False, holder: str = HOLDER, ttl_seconds: float = TTL) -> Ticket | None:
        return self.fleet.next(holder, ttl_seconds, waiting=waiting)

    def begin(self, name: str, holder: str = HOLDER, ttl_seconds: float = TTL) -> Ticket:
        """The turn of the customer begins, who is the first of its queue."""
        for waiting in (False, True):
            ticket = self.next(waiting=waiting, holder=holder, ttl_seconds=ttl_seconds)
            if ticket is not None:
                assert ticket.customer == name
                return ticket
        raise AssertionError(f"{name} is not queued")

    def turn(self, name: str) -> FleetTurn:
        return next(turn for turn in self.fleet.turns() if turn.customer == name)

    def state(self, name: str) -> FleetState:
        return self.turn(name).state

    def served(self) -> dict[tuple[str, str], datetime]:
        return dict(self.ledger.daemons.served())


DEAD = "/".join([*processes.this_process().split("/")[:3], "1"])


def _of_one_process(url: str) -> Iterator[Case]:
    clock = MemoryClock(NOW)
    ledger = open_ledger(url, clock)
    queue = LocalQueue(clock, ledger.leases, ledger.daemons.serve)

    def job(name: str) -> Job | None:
        seat = queue._seats.get(name)
        return Job(name, seat.priority, seat.waiting) if seat is not None and seat.is_queued else None

    yield Case(queue, ledger, DEAD, lambda: queue, job, lambda name: None, clock)
    ledger.close()


def _in_database(url: str) -> Iterator[Case]:
    opened: list[Ledger] = []
    queue = TableQueue()
    clock = MemoryClock(NOW)

    def open_it() -> Ledger:
        opened.append(open_ledger(url, clock))
        return opened[-1]

    ledger = open_it()
    database: Any = ledger._database
    queue.create(ledger)

    def job(name: str) -> Job | None:
        with database.reading() as connection:
            query = sqlalchemy.text("SELECT customer, priority, waiting FROM jobs WHERE customer = :name")
            row = connection.execute(query, {"name": name}).one_or_none()
            return None if row is None else Job(row.customer, row.priority, bool(row.waiting))

    def drop(name: str) -> None:
        with database.writing() as connection:
            queue.take_out(connection, name)

    yield Case(
        ledger.fleet(queue, sweep_seconds=0),
        ledger,
        DEAD,
        lambda: open_it().fleet(queue, sweep_seconds=0),
        job,
        drop,
        clock,
    )
    for one in opened:
        one.close()


@pytest.fixture(params=["one process", "sqlite", "postgresql"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "one process":
        yield from _of_one_process(f"sqlite:///{tmp_path}/ledger.db")
    elif request.param == "sqlite":
        yield from _in_database(f"sqlite:///{tmp_path}/ledger.db")
    else:
        yield from _in_database(request.getfixturevalue("postgres_url"))


of_several = pytest.mark.parametrize("case", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def fleet(case: Case) -> WorkQueue:
    case.fleet.seat({"acme": 1, "beta": 2, "ceta": 4})
    return case.fleet


# --- Who takes part --------------------------------------------------------------------------------------


def test_the_seated_rest_until_they_are_called(case: Case, fleet: WorkQueue) -> None:
    assert [(turn.customer, turn.state) for turn in fleet.turns()] == [
        ("acme", FleetState.RESTING),
        ("beta", FleetState.RESTING),
        ("ceta", FleetState.RESTING),
    ]
    assert case.next() is None
    fleet.call("acme")
    turn = case.turn("acme")
    assert (turn.state, turn.holder, turn.ended_serial) == (FleetState.QUEUED, None, 0)
    assert case.job("acme") == Job("acme", 0, waiting=False)


def test_nobody_is_called_who_has_no_seat(case: Case, fleet: WorkQueue) -> None:
    fleet.call("nobody")
    fleet.stop("nobody")
    fleet.rest(FleetTurn("nobody", FleetState.BROKEN_OFF, NOW, 0, reason="x"))
    assert case.job("nobody") is None
    assert {turn.customer for turn in fleet.turns()} == {"acme", "beta", "ceta"}


def test_seating_again_changes_nothing(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    before = fleet.turns()
    case.another().seat({"acme": 1, "beta": 2, "ceta": 4})
    assert fleet.turns() == before
    assert case.job("acme") is not None


def test_who_leaves_is_taken_out_of_the_queue(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    fleet.seat({"beta": 2})
    assert [turn.customer for turn in fleet.turns()] == ["beta"]
    assert case.job("acme") is None
    assert case.next() is None


def test_who_leaves_ends_its_running_turn_and_is_gone(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    ticket = case.begin("acme")
    fleet.call("acme")
    fleet.seat({"beta": 2})
    assert case.turn("acme").stop_asked
    fleet.call("acme")
    fleet.end(ticket, MORE)
    assert [turn.customer for turn in fleet.turns()] == ["beta"]
    assert case.job("acme") is None


def test_who_comes_back_before_its_turn_has_ended_stays(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    ticket = case.begin("acme")
    fleet.seat({"beta": 2})
    fleet.seat({"acme": 1, "beta": 2})
    fleet.end(ticket, MORE)
    assert case.state("acme") is FleetState.QUEUED


def test_what_is_known_counts_before_the_first_turn_only(case: Case, fleet: WorkQueue) -> None:
    known = FleetTurn(
        "acme",
        FleetState.BROKEN_OFF,
        NOW - timedelta(days=1),
        0,
        next_at=NOW,
        feed="us-daily",
        period="2026-11-22",
        reason="The role refused us.",
    )
    fleet.rest(known)
    turn = case.turn("acme")
    assert turn == replace(known, serial=turn.serial)
    assert turn.serial == max(other.serial for other in fleet.turns())
    case.another().rest(known)
    assert case.turn("acme") == turn
    fleet.call("acme")
    fleet.rest(replace(known, reason="something else"))
    assert case.state("acme") is FleetState.QUEUED
    fleet.end(case.begin("acme"), DONE)
    fleet.rest(known)
    assert case.state("acme") is FleetState.RESTING


# --- Calls and turns -------------------------------------------------------------------------------------


def test_a_customer_has_one_turn_at_a_time(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    fleet.call("acme")
    ticket = case.begin("acme")
    assert ticket.lease.name == "customer/acme"
    assert (ticket.hurried, ticket.follows, ticket.reread_at) == (False, 0, None)
    turn = case.turn("acme")
    assert (turn.state, turn.holder) == (FleetState.RUNNING, HOLDER)
    assert case.another().next("host-b", TTL, waiting=False) is None
    assert case.job("acme") is None


def test_two_workers_with_one_job_do_not_both_begin(case: Case, fleet: WorkQueue) -> None:
    others = [case.another() for _ in range(4)]
    for _ in range(5):
        fleet.call("acme")
        barrier = threading.Barrier(len(others))

        def begin(number: int, barrier: threading.Barrier = barrier) -> Ticket | None:
            barrier.wait()
            return others[number].next(f"host-{number}", TTL, waiting=False)

        with ThreadPoolExecutor(len(others)) as pool:
            tickets = [ticket for ticket in pool.map(begin, range(len(others))) if ticket]
        assert len(tickets) == 1
        fleet.end(tickets[0], DONE)


def test_a_turn_tells_what_it_delivers(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    ticket = case.begin("acme")
    before = case.turn("acme").serial
    fleet.tell(ticket, "us-daily", "2026-11-22")
    turn = case.turn("acme")
    assert (turn.feed, turn.period) == ("us-daily", "2026-11-22")
    assert turn.serial > before


def test_a_turn_that_has_more_to_do_is_queued_again(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    serial = fleet.end(case.begin("acme"), MORE)
    turn = case.turn("acme")
    assert (turn.state, turn.again, turn.looked, turn.holder) == (FleetState.QUEUED, True, False, None)
    assert turn.ended_serial == turn.serial == serial
    assert case.job("acme") == Job("acme", priority(1, backfill=False), waiting=False)  # it has had a turn
    assert case.begin("acme").follows == serial


def test_a_turn_that_has_looked_at_all_rests(case: Case, fleet: WorkQueue) -> None:
    reread_at = NOW - timedelta(minutes=5)
    fleet.call("acme")
    fleet.end(
        case.begin("acme"),
        FleetTurnEnd(looked=True, next_at=NOW, feed="us-daily", period="2026-11-22", reread_at=reread_at),
    )
    turn = case.turn("acme")
    assert (turn.state, turn.looked, turn.next_at) == (FleetState.RESTING, True, NOW)
    assert (turn.feed, turn.period) == ("us-daily", "2026-11-22")
    assert case.job("acme") is None
    fleet.call("acme")
    assert case.begin("acme").reread_at == reread_at


def test_who_was_called_while_its_turn_ran_is_queued_when_it_ends(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    ticket = case.begin("acme")
    fleet.call("acme")
    fleet.call("acme", hurried=True)
    assert case.state("acme") is FleetState.RUNNING
    assert case.job("acme") is None
    fleet.end(ticket, DONE)
    turn = case.turn("acme")
    assert (turn.state, turn.again) == (FleetState.QUEUED, False)
    again = case.begin("acme")
    assert again.hurried
    fleet.end(again, DONE)
    assert case.state("acme") is FleetState.RESTING


def test_many_are_called_at_once(case: Case, fleet: WorkQueue) -> None:
    many = {f"customer-{number:03}": 1 for number in range(250)}
    fleet.seat(many)
    fleet.call_all([Call(name) for name in many])
    fleet.call_all([Call("nobody"), Call("customer-001", True), Call("customer-001", serving_at=NOW)])
    tickets = [case.next() for _ in range(251)]
    assert [ticket and ticket.customer for ticket in tickets] == [*many, None]
    ticket = tickets[1]
    assert ticket is not None
    assert ticket.hurried
    fleet.end(ticket, DONE)
    assert case.served() == {("customer-001", "deliver"): NOW}


def test_one_hurried_call_is_enough(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme", hurried=True)
    fleet.call("acme")
    ticket = case.begin("acme")
    assert ticket.hurried
    fleet.end(ticket, MORE)
    assert not case.begin("acme").hurried


def test_a_broken_off_customer_waits_apart_from_the_others(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    fleet.end(case.begin("acme"), REFUSED)
    turn = case.turn("acme")
    assert turn.state is FleetState.BROKEN_OFF
    assert (turn.reason, turn.refused, turn.next_at) == (REFUSED.reason, True, REFUSED.next_at)
    assert (turn.feed, turn.period) == ("us-daily", "2026-11-22")
    assert case.job("acme") is None
    fleet.call("acme")
    job = case.job("acme")
    assert job is not None
    assert job.waiting
    assert fleet.beat(a_worker()).queued == 0  # the regular queue
    fleet.end(case.begin("acme"), MORE)
    job = case.job("acme")
    assert job is not None
    assert not job.waiting
    assert fleet.beat(a_worker()).queued == 1


def test_who_is_delivered_to_by_hand_is_passed_over_and_comes_again(case: Case, fleet: WorkQueue) -> None:
    by_hand = case.ledger.leases.claim("customer/acme", "a run", TTL)
    fleet.call("acme")
    fleet.call("beta")
    assert case.begin("beta").customer == "beta"
    assert case.next() is None
    assert case.state("acme") is FleetState.QUEUED
    case.ledger.leases.release(by_hand)
    case.clock.advance(5)
    fleet.reap()  # which finds that its job is gone
    assert case.begin("acme").customer == "acme"


def test_a_time_is_served_by_the_turn_that_has_looked_at_all(case: Case, fleet: WorkQueue) -> None:
    first, second, third = (NOW + timedelta(hours=hour) for hour in range(3))
    fleet.call("acme", serving_at=first)
    fleet.end(case.begin("acme"), MORE)
    assert case.served() == {}
    ticket = case.begin("acme")
    fleet.call("acme", serving_at=third)
    fleet.call("acme", serving_at=second)
    fleet.end(ticket, DONE)
    assert case.served() == {("acme", "deliver"): first}
    fleet.end(case.begin("acme"), DONE)
    assert case.served() == {("acme", "deliver"): third}
    fleet.call("acme")
    fleet.end(case.begin("acme"), DONE)
    assert case.served() == {("acme", "deliver"): third}


def test_a_time_is_kept_through_a_refusal(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme", serving_at=NOW)
    fleet.end(case.begin("acme"), REFUSED)
    assert case.served() == {}
    fleet.call("acme")
    fleet.end(case.begin("acme"), DONE)
    assert case.served() == {("acme", "deliver"): NOW}


# --- Who is first ----------------------------------------------------------------------------------------


def test_who_has_had_the_least_goes_first(case: Case, fleet: WorkQueue) -> None:
    begun: list[str] = []
    for name in ("acme", "beta", "ceta"):
        fleet.call(name)
    for _ in range(14):
        ticket = case.next()
        assert ticket is not None
        begun.append(ticket.customer)
        fleet.end(ticket, MORE)
    assert [begun.count(name) for name in ("acme", "beta", "ceta")] == [2, 4, 8]


def test_a_backfill_goes_behind_those_who_keep_up_but_not_for_ever(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    fleet.end(case.begin("acme"), FleetTurnEnd(again=True, backfill=True))
    begun = []
    while not begun or begun[-1] != "acme":
        fleet.call("beta")
        ticket = case.next()
        assert ticket is not None
        begun.append(ticket.customer)
        fleet.end(ticket, DONE)
        assert len(begun) < 100
    assert len(begun) > 10


def test_who_has_rested_comes_back_without_a_credit(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    for _ in range(10):
        fleet.end(case.begin("acme"), MORE)
    fleet.call("beta")
    job = case.job("beta")
    assert job is not None
    assert job.priority == priority(9, backfill=False)


# --- Stopping, and those who died ------------------------------------------------------------------------


def a_worker(holder: str = HOLDER, **changes: object) -> WorkerRecord:
    return replace(WorkerRecord(holder, NOW, NOW, places=4, version="1"), **changes)  # type: ignore[arg-type]


def test_a_worker_hears_which_of_its_turns_to_stop(case: Case, fleet: WorkQueue) -> None:
    for name in ("acme", "beta"):
        fleet.call(name)
        case.begin(name)
    fleet.stop("acme")
    fleet.stop("ceta")
    assert fleet.beat(a_worker()).to_stop == {"acme"}
    assert fleet.beat(a_worker("host-b")).to_stop == set()
    assert case.turn("acme").stop_asked
    assert not case.turn("ceta").stop_asked


def test_a_stopped_turn_is_asked_once(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    ticket = case.begin("acme")
    fleet.stop("acme")
    fleet.end(ticket, MORE)
    assert not case.turn("acme").stop_asked
    case.begin("acme")
    assert fleet.beat(a_worker()).to_stop == set()


@of_several
@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_the_turn_of_a_lost_worker_is_taken_over(case: Case, fleet: WorkQueue, how: str) -> None:
    holder, ttl_seconds = (case.dead, TTL) if how == "dead" else (HOLDER, 0.0)
    fleet.call("acme", hurried=True, serving_at=NOW)
    ticket = case.begin("acme", holder, ttl_seconds)
    fleet.call("acme", serving_at=NOW + timedelta(hours=1))
    mine = case.ledger.leases.claim("delivery/acme/us-daily/2026-11-22", holder, TTL)
    by_hand = case.ledger.leases.claim("delivery/acme/us-daily/2026-11-21", "host-c", TTL)
    other = case.ledger.leases.claim("delivery/acme2/us-daily/2026-11-22", holder, TTL)
    assert case.another().reap() == ["acme"]
    assert fleet.reap() == []
    turn = case.turn("acme")
    assert (turn.state, turn.holder, turn.ended_serial) == (FleetState.QUEUED, None, 0)
    assert case.job("acme") is not None
    for gone in (mine, ticket.lease):
        with pytest.raises(LeaseLost):
            case.ledger.leases.renew(gone, TTL)
    for kept in (by_hand, other):
        case.ledger.leases.renew(kept, TTL)
    with pytest.raises(LeaseLost):
        fleet.tell(ticket, "us-daily", "2026-11-22")
    with pytest.raises(LeaseLost):
        fleet.end(ticket, DONE)
    assert case.turn("acme") == turn
    again = case.begin("acme", "host-b")
    assert again.hurried
    with pytest.raises(LeaseLost):
        fleet.end(ticket, DONE)
    fleet.end(again, DONE)
    assert case.served() == {("acme", "deliver"): NOW + timedelta(hours=1)}


def test_a_live_turn_is_left_alone(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    ticket = case.begin("acme")
    fleet.call("beta")
    assert fleet.reap() == []
    fleet.tell(ticket, "us-daily", "2026-11-22")
    assert fleet.end(ticket, DONE)


@of_several
def test_who_left_is_gone_with_its_worker(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    case.begin("acme", case.dead)
    fleet.seat({"beta": 2})
    assert fleet.reap() == ["acme"]
    assert [turn.customer for turn in fleet.turns()] == ["beta"]
    assert case.job("acme") is None


@of_several
def test_several_processes_take_each_turn_over_once(case: Case, fleet: WorkQueue) -> None:
    for name in ("acme", "beta", "ceta"):
        fleet.call(name)
        case.begin(name, case.dead)
    reapers = [case.another() for _ in range(4)]
    barrier = threading.Barrier(len(reapers))

    def reap(number: int) -> list[str]:
        barrier.wait()
        return reapers[number].reap()

    with ThreadPoolExecutor(len(reapers)) as pool:
        taken = [name for names in pool.map(reap, range(len(reapers))) for name in names]
    assert sorted(taken) == ["acme", "beta", "ceta"]
    tickets = [case.next() for _ in range(4)]
    assert {ticket and ticket.customer for ticket in tickets} == {"acme", "beta", "ceta", None}


@of_several
def test_a_lost_job_is_written_again(case: Case, fleet: WorkQueue) -> None:
    fleet.call("acme")
    job = case.job("acme")
    case.drop("acme")
    fleet.call("acme")
    assert fleet.reap() == []  # nobody's turn was taken over
    assert case.job("acme") == job
    assert case.state("acme") is FleetState.QUEUED


# --- Workers ---------------------------------------------------------------------------------------------


def test_workers_are_known_by_their_signs_of_life(case: Case, fleet: WorkQueue) -> None:
    assert fleet.workers() == []
    fleet.call("acme")
    fleet.call("beta")
    assert (fleet.beat(a_worker()).workers, fleet.beat(a_worker()).queued) == (1, 2)
    standing = case.another().beat(a_worker("host-b", busy=2, waiting=1, trouble="no credentials"))
    assert (standing.workers, standing.queued) == (2, 2)
    seen = {worker.holder: worker for worker in fleet.workers()}
    assert set(seen) == {HOLDER, "host-b"}
    record = seen["host-b"]
    assert (record.places, record.busy, record.waiting, record.trouble) == (4, 2, 1, "no credentials")
    stopped = a_worker("host-b", stopping=True, stopped_at=NOW)
    assert fleet.beat(stopped).workers == 1
    assert {worker.holder: worker.stopped_at for worker in fleet.workers()} == {HOLDER: None, "host-b": NOW}


@of_several
def test_the_places_of_a_worker_that_was_killed_are_gone_before_its_silence_is_over(
    case: Case, fleet: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for holder in (case.dead, HOLDER):
        case.ledger.leases.claim(f"worker/{holder}", holder, TTL)
        fleet.beat(a_worker(holder))
    assert [worker.gone for worker in fleet.workers()] == [False, False]  # both were heard of just now
    monkeypatch.setattr(fleet_module, "QUIET_AFTER", timedelta(0))  # where the server's clock counts
    case.clock.advance(11)
    assert {worker.holder: worker.gone for worker in fleet.workers()} == {case.dead: True, HOLDER: False}
    (living,) = [worker for worker in fleet.workers() if worker.is_alive(worker.seen_at)]
    assert living.holder == HOLDER


# --- Serials ---------------------------------------------------------------------------------------------


def test_a_reader_sees_what_changed_since(case: Case, fleet: WorkQueue) -> None:
    last = fleet.turns()[-1].serial
    assert fleet.turns(last) == []
    fleet.call("beta")
    fleet.call("acme")
    assert [turn.customer for turn in fleet.turns(last)] == ["beta", "acme"]
    case.begin("beta")
    changed = fleet.turns(last)
    assert [turn.customer for turn in changed] == ["acme", "beta"]
    assert fleet.turns(changed[0].serial) == changed[1:]


def test_a_reader_misses_nothing_while_several_write(case: Case) -> None:
    """Whoever follows the serials ends up with what is true, and has seen each end of a turn."""
    names = [f"customer-{number}" for number in range(8)]
    case.fleet.seat(dict.fromkeys(names, 1))
    processes_ = [case.another() for _ in range(3)]
    ends: set[int] = set()
    done = threading.Event()
    reader = case.another()

    def work(number: int) -> list[int]:
        serials = []
        for turn in range(24):
            name = names[(turn * 5 + number * 3) % len(names)]
            fleet = processes_[number]
            fleet.call(name)
            ticket = fleet.next(f"host-{number}", TTL, waiting=False)
            if ticket is not None:
                serials.append(fleet.end(ticket, DONE))
        return serials

    def read() -> dict[str, FleetTurn]:
        board: dict[str, FleetTurn] = {}
        last, ended = 0, False
        while not ended:
            ended = done.is_set()
            for turn in reader.turns(last):
                assert turn.serial > last
                board[turn.customer] = turn
                last = turn.serial
                ends.add(turn.ended_serial)
        return board

    with ThreadPoolExecutor(4) as pool:
        board = pool.submit(read)
        written = [serial for serials in pool.map(work, range(3)) for serial in serials]
        done.set()
        assert board.result() == {turn.customer: turn for turn in case.fleet.turns()}
    assert len(set(written)) == len(written)
    assert ends - {0} <= set(written)


# --- In a database ---------------------------------------------------------------------------------------


def test_the_job_is_written_with_the_turn_or_not_at_all(ledger_url: str) -> None:
    cases = _in_database(ledger_url)
    case = next(cases)
    case.fleet.seat({"acme": 1})
    queue: Any = case.fleet._queue  # type: ignore[attr-defined]
    queue.broken = True
    with pytest.raises(LedgerError, match="the queue is broken"):
        case.fleet.call("acme")
    assert case.state("acme") is FleetState.RESTING
    queue.broken = False
    case.fleet.call("acme")
    ticket = case.begin("acme")
    queue.broken = True
    with pytest.raises(LedgerError, match="the queue is broken"):
        case.fleet.end(ticket, MORE)
    assert case.state("acme") is FleetState.RUNNING
    queue.broken = False
    case.fleet.end(ticket, MORE)
    assert case.job("acme") is not None
    next(cases, None)


def test_the_clock_is_put_back_with_those_who_are_queued(ledger_url: str) -> None:
    cases = _in_database(ledger_url)
    case = next(cases)
    case.fleet.seat({"acme": 1, "beta": 1, "ceta": 1})
    database: Any = case.fleet._database  # type: ignore[attr-defined]
    far = REBASE_ABOVE + 1
    case.fleet.call("acme")
    case.begin("acme")
    for name in ("beta", "ceta"):
        case.fleet.call(name)
    with database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE fleet SET clock = {far}")
        connection.exec_driver_sql(f"UPDATE turns SET spent = {far} - 1 WHERE customer = 'acme'")
        connection.exec_driver_sql(f"UPDATE turns SET spent = {far} + 2 WHERE customer = 'beta'")
        connection.exec_driver_sql(f"UPDATE turns SET spent = {far} WHERE customer = 'ceta'")
    assert case.fleet.reap() == []
    assert case.job("beta") == Job("beta", priority(2, backfill=False), waiting=False)
    assert case.job("ceta") == Job("ceta", 0, waiting=False)
    with database.reading() as connection:
        spent = connection.exec_driver_sql("SELECT customer, spent FROM turns ORDER BY 1").all()
        assert connection.exec_driver_sql("SELECT clock FROM fleet").scalar() == 0
    assert [tuple(row) for row in spent] == [("acme", 0), ("beta", 2), ("ceta", 0)]
    tickets = [case.next() for _ in range(3)]
    assert [ticket and ticket.customer for ticket in tickets] == ["ceta", "beta", None]
    next(cases, None)


def test_who_was_cut_off_from_a_server_may_renew_its_lease_first(postgres_url: str) -> None:
    """All leases end while a server is away for a minute, and nobody's turn is to be taken for that."""
    cases = _in_database(postgres_url)
    case = next(cases)
    case.fleet.seat({"acme": 1, "beta": 1})
    for name, holder in (("acme", HOLDER), ("beta", case.dead)):
        case.fleet.call(name)
        case.begin(name, holder, 0.0)
    database: Any = case.fleet._database  # type: ignore[attr-defined]
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE leases SET presence = 'an earlier life of the server'")
    assert case.fleet.reap() == ["beta"]
    case.clock.advance(SETTLING_SECONDS)
    assert case.fleet.reap() == ["acme"]
    next(cases, None)
