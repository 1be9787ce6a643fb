"""The contract of the port ``Shares``, run against every database that a ledger may lie in."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, select

from xmode_transfer.adapters.ledger import Ledger, open_ledger
from xmode_transfer.adapters.ledger.tables import chunks, leases
from xmode_transfer.adapters.memory.clock import MemoryClock
from xmode_transfer.adapters.processes import this_process
from xmode_transfer.domain.errors import LeaseLost
from xmode_transfer.domain.records import (
    Checksum,
    Delivery,
    Failure,
    Lease,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Status,
    UploadedPart,
)
from xmode_transfer.domain.sharing import Chunk, ChunkResult, Division, NameRange
from xmode_transfer.ports import Shares

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
ID = "d1"
NAME = "delivery/acme/us-daily/2026-11-22"
TTL = 90.0
RANGES = [NameRange("", "c", 3, 30), NameRange("c", "f", 3, 30), NameRange("f", "i", 3, 30)]


class Queue:
    """Remembers what was asked for, in transactions that were committed or not."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.taken_out: list[str] = []

    def put_help(self, connection: Connection, delivery_id: str, customer: str, count: int) -> None:
        assert connection.in_transaction()
        self.asked.append((delivery_id, customer, count))

    def take_help_out(self, connection: Connection, delivery_id: str) -> None:
        assert connection.in_transaction()
        self.taken_out.append(delivery_id)


@pytest.fixture
def clock() -> MemoryClock:
    return MemoryClock(NOW)


@pytest.fixture
def reopen(ledger_url: str, clock: MemoryClock) -> Iterator[Callable[[], Ledger]]:
    opened: list[Ledger] = []

    def open_it() -> Ledger:
        opened.append(open_ledger(ledger_url, clock))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(reopen: Callable[[], Ledger]) -> Ledger:
    return reopen()


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def shares(ledger: Ledger, queue: Queue) -> Shares:
    return ledger.shares(queue)


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    lease = ledger.leases.claim(NAME, "closer", TTL)
    delivery = Delivery(ID, "acme", "us-daily", "2026-11-22", 1, Status.RUNNING, NOW, NOW)
    ledger.deliveries.create(lease, delivery)
    ledger.objects.plan(lease, ID, [planned(name) for name in "abcdefghi"])
    return lease


@pytest.fixture
def division(shares: Shares, lease: Lease) -> Division:
    division = Division(ID, "acme", lease, "print")
    shares.divide(division, RANGES, helpers=2)
    return division


def planned(name: str) -> PlannedObject:
    return PlannedObject(name, f"xmode/{name}", 10, 17, "i")


def receipt(name: str) -> Receipt:
    return Receipt(name, f"xmode/{name}", 10, Checksum("crc32", "AAAAAA=="), '"e"', NOW)


def take(shares: Shares, division: Division, holder: str = "helper") -> Chunk:
    chunk = shares.take(division, holder, TTL)
    assert chunk is not None
    return chunk


# --- Dividing --------------------------------------------------------------------------------------------


def test_what_is_divided_is_there_with_its_helpers(shares: Shares, division: Division, queue: Queue) -> None:
    state = shares.state(ID)
    assert state is not None
    assert [chunk.names for chunk in state.chunks] == RANGES
    assert (state.division.customer, state.division.fingerprint) == ("acme", "print")
    assert (state.division.lease.name, state.division.lease.generation) == (NAME, division.lease.generation)
    assert (state.open_count, state.unclaimed_count, state.holders, state.ends) == (3, 3, frozenset(), False)
    assert queue.asked == [(ID, "acme", 2)]
    shares.ask(division, 1)
    assert queue.asked[1:] == [(ID, "acme", 1)]


def test_nothing_is_divided_without_a_word(shares: Shares, lease: Lease) -> None:
    assert shares.state(ID) is None
    assert shares.state("nobody's") is None
    shares.withdraw(lease, ID)


def test_who_has_lost_the_delivery_divides_nothing(
    ledger: Ledger, shares: Shares, lease: Lease, clock: MemoryClock, queue: Queue
) -> None:
    clock.advance(TTL + 1)
    ledger.leases.claim(NAME, "another", TTL)
    with pytest.raises(LeaseLost):
        shares.divide(Division(ID, "acme", lease, "print"), RANGES, helpers=2)
    with pytest.raises(LeaseLost):
        shares.ask(Division(ID, "acme", lease, "print"), 2)
    assert shares.state(ID) is None
    assert queue.asked == []


def test_a_new_division_takes_the_place_of_what_was_left(
    ledger: Ledger, shares: Shares, division: Division, clock: MemoryClock
) -> None:
    old = take(shares, division)
    clock.advance(TTL + 1)
    again = Division(ID, "acme", ledger.leases.claim(NAME, "another", TTL), "print")
    assert shares.state(ID) is None  # of the closer before
    shares.divide(again, RANGES[:2], helpers=0)
    state = shares.state(ID)
    assert state is not None
    assert [chunk.names for chunk in state.chunks] == RANGES[:2]
    assert state.holders == frozenset()
    with pytest.raises(LeaseLost):
        shares.finish(old, ChunkResult(uploaded=3))
    with pytest.raises(LeaseLost):
        shares.take(division, "helper", TTL)
    shares.give_back(old, ChunkResult(uploaded=3))  # no error, and nothing changes
    assert shares.state(ID) == state
    take(shares, again)


def test_what_closers_left_whose_deliveries_went_on_is_forgotten(
    ledger: Ledger, shares: Shares, division: Division, clock: MemoryClock
) -> None:
    take(shares, division)
    ledger.leases.release(division.lease)
    lease = ledger.leases.claim("delivery/acme/us-daily/2026-11-23", "closer", TTL)
    ledger.deliveries.create(
        lease, Delivery("d2", "acme", "us-daily", "2026-11-23", 1, Status.RUNNING, NOW, NOW)
    )
    shares.divide(Division("d2", "acme", lease, "print"), RANGES, helpers=1)
    with ledger._database.reading() as connection:
        rows = connection.execute(select(chunks.c.delivery_id)).scalars().all()
        held = connection.execute(select(leases.c.name).where(leases.c.name.startswith("chunk/"))).all()
    assert rows == ["d2"] * 3
    assert held == []


# --- Taking ----------------------------------------------------------------------------------------------


def test_each_chunk_is_taken_once(shares: Shares, division: Division) -> None:
    chunks = [take(shares, division, f"helper-{number}") for number in range(3)]
    assert [chunk.names for chunk in chunks] == RANGES
    assert shares.take(division, "late", TTL) is None
    state = shares.state(ID)
    assert state is not None
    assert state.holders == {"helper-0", "helper-1", "helper-2"}
    assert (state.open_count, state.unclaimed_count) == (3, 0)


def test_many_take_at_once(shares: Shares, lease: Lease) -> None:
    division = Division(ID, "acme", lease, "print")
    ranges = [NameRange(f"{number:03}", f"{number + 1:03}", 1, 1) for number in range(40)]
    shares.divide(division, ranges, helpers=1)

    def work(holder: str) -> list[int]:
        taken = []
        while (chunk := shares.take(division, holder, TTL)) is not None:
            taken.append(chunk.number)
            if len(taken) % 2:
                shares.finish(chunk, ChunkResult(uploaded=1))
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = Counter(n for some in threads.map(work, ["a", "b", "c", "d"]) for n in some)
    assert taken == Counter(range(1, 41))


def test_a_chunk_that_was_given_back_is_taken_by_the_next(shares: Shares, division: Division) -> None:
    first = take(shares, division, "tired")
    shares.give_back(first, ChunkResult(uploaded=2, uploaded_bytes=20, failed=1, passing=True))
    again = take(shares, division, "fresh")
    assert (again.number, again.names) == (first.number, first.names)
    assert again.lease.generation > first.lease.generation
    shares.finish(again, ChunkResult(uploaded=1, uploaded_bytes=10, adopted=1))
    state = shares.state(ID)
    assert state is not None
    assert state.chunks[0].result == ChunkResult(uploaded=3, uploaded_bytes=30, adopted=1)
    assert state.chunks[0].worked_by == "fresh"


def test_the_chunk_of_a_frozen_worker_is_taken_over_and_it_writes_no_more(
    ledger: Ledger, shares: Shares, division: Division, clock: MemoryClock
) -> None:
    frozen = take(shares, division, "frozen")
    upload = MultipartUpload("u1", ID, "acme", "a", "xmode/a", 10, 17, "i", 5, "crc32", NOW)
    ledger.uploads.open(frozen.lease, upload)
    ledger.uploads.record_part(frozen.lease, "u1", UploadedPart(1, 5, '"p"', "AAAAAA==")).result()
    for _ in range(2):  # the others are taken, and live
        take(shares, division, "alive")
    assert shares.take(division, "helper", TTL) is None
    clock.advance(TTL / 2)
    ledger.leases.renew(division.lease, TTL)
    clock.advance(TTL / 2 + 1)
    over = take(shares, division, "helper")
    assert over.number == frozen.number
    assert ledger.uploads.find(delivery_id=ID)[0].parts  # its journal is gone on with
    ledger.objects.record_receipt(over.lease, ID, receipt("a")).result()
    with pytest.raises(LeaseLost):
        ledger.objects.record_receipt(frozen.lease, ID, receipt("b")).result()
    with pytest.raises(LeaseLost):
        shares.finish(frozen, ChunkResult(uploaded=3))
    with pytest.raises(LeaseLost):
        shares.tell(frozen, 5)
    with pytest.raises(LeaseLost):
        ledger.leases.renew(frozen.lease, TTL)


def test_the_chunk_of_a_dead_worker_is_taken_over_at_once(shares: Shares, division: Division) -> None:
    host, boot, _, _ = this_process().split("/")
    dead = take(shares, division, f"{host}/{boot}/4194300/1")
    for _ in range(2):
        take(shares, division, this_process())
    assert take(shares, division).number == dead.number


# --- The fence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["claimed anew", "given back", "withdrawn"])
def test_whoever_has_the_delivery_now_need_not_know_of_helpers(
    ledger: Ledger, shares: Shares, division: Division, clock: MemoryClock, how: str
) -> None:
    chunk = take(shares, division)
    ledger.objects.record_receipt(chunk.lease, ID, receipt("a")).result()
    lease = division.lease
    if how == "withdrawn":
        assert shares.withdraw(division.lease, ID)  # somebody works on a chunk
        assert not shares.withdraw(division.lease, ID)
    else:
        if how == "claimed anew":
            clock.advance(TTL + 1)
        else:
            ledger.leases.release(division.lease)
        lease = ledger.leases.claim(NAME, "another", TTL)
    with pytest.raises(LeaseLost):
        ledger.objects.record_receipt(chunk.lease, ID, receipt("b")).result()
    with pytest.raises(LeaseLost):
        ledger.objects.plan(chunk.lease, ID, [planned("b")])
    with pytest.raises(LeaseLost):
        ledger.leases.renew(chunk.lease, TTL)
    ledger.leases.release(chunk.lease)  # no error
    assert shares.state(ID) is None
    ledger.objects.plan(lease, ID, [planned("j")])  # and who has it, goes on
    assert [item.name for item in ledger.objects.pending(ID)] == list("bcdefghij")


def test_a_late_closer_that_nobody_replaced_goes_on(
    ledger: Ledger, shares: Shares, division: Division, clock: MemoryClock
) -> None:
    chunk = take(shares, division)
    clock.advance(TTL + 1)
    ledger.objects.record_receipt(chunk.lease, ID, receipt("a")).result()
    ledger.leases.renew(division.lease, TTL)
    ledger.leases.renew(chunk.lease, TTL)
    shares.finish(chunk, ChunkResult(uploaded=1))


def test_a_renewed_chunk_is_under_its_delivery_still(
    ledger: Ledger, shares: Shares, division: Division
) -> None:
    chunk = take(shares, division)
    assert ledger.leases.renew(chunk.lease, TTL).under == division.lease


# --- The end ---------------------------------------------------------------------------------------------


def test_what_came_of_it_is_known_to_the_closer(shares: Shares, division: Division) -> None:
    failure = Failure("source_changed", "us", "it changed", "look", retryable=True, request_id="r")
    halted = Failure("access_denied", "customer", "denied", "mend it")
    result = ChunkResult(1, 10, 1, 2, (("b", failure), ("ü", failure)), True, halted, True)
    chunk = take(shares, division)
    shares.tell(chunk, 7)
    shares.finish(chunk, result)
    state = shares.state(ID)
    assert state is not None
    first = state.chunks[0]
    assert (first.done, first.holder, first.worked_by, first.told_bytes) == (True, None, "helper", 7)
    assert first.result == result
    assert (state.halted, state.ends, state.open_count) == (halted, True, 2)


def test_who_is_called_off_takes_nothing_more(shares: Shares, division: Division, queue: Queue) -> None:
    chunk = take(shares, division)
    shares.call_off(division)
    assert shares.take(division, "helper", TTL) is None
    state = shares.state(ID)
    assert state is not None
    assert state.called_off
    assert state.ends
    assert queue.taken_out == [ID]
    shares.give_back(chunk, ChunkResult(uploaded=1))  # and gives back what it has
    assert not shares.withdraw(division.lease, ID)
    assert shares.state(ID) is None
    assert queue.taken_out == [ID, ID]


def test_a_reader_in_another_process_sees_the_same(
    reopen: Callable[[], Ledger], shares: Shares, division: Division
) -> None:
    take(shares, division)
    other = reopen().shares(Queue())
    assert other.state(ID) == shares.state(ID)
    assert take(other, division).number == 2
