"""Whose turn it is: the limits that all customers of a process share."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws import lanes as lanes_module
from xmode_transfer.aws.lanes import SMALL_BYTES, Lane, Lanes
from xmode_transfer.aws.retrying import Timer
from xmode_transfer.config import Limits

MIB = 1024 * 1024


class Job(lanes_module.Job):
    def __init__(self, lane: Lane, length: int = 0) -> None:
        super().__init__(lane, "bucket", "key", length, length)

    def send(self) -> Future[None]:
        raise AssertionError("nothing is sent here")


Make = Callable[..., Lanes]


@pytest.fixture
def lanes_of() -> Iterator[Make]:
    stop = threading.Event()
    timer = Timer(stop)

    def make(wake: Callable[[], None] = lambda: None, **limits: int) -> Lanes:
        return Lanes(Limits(**limits), timer, wake)

    yield make
    timer.close()


def take(lanes: Lanes) -> list[Job]:
    taken = []
    while (job := lanes.next()) is not None:
        taken.append(job)
    return taken  # type: ignore[return-value]


def test_no_more_in_flight_than_the_process_may_have(lanes_of: Make) -> None:
    lanes = lanes_of(parallel_objects=3)
    lane = lanes.lane("acme")
    jobs = [Job(lane) for _ in range(5)]
    for job in jobs:
        lanes.add(job)
    assert take(lanes) == jobs[:3]
    lanes.done(jobs[1])
    assert take(lanes) == jobs[3:4]


def test_no_customer_takes_all(lanes_of: Make) -> None:
    lanes = lanes_of(parallel_objects=5, parallel_objects_per_customer=2)
    acme, globex = lanes.lane("acme"), lanes.lane("globex")
    for _ in range(9):
        lanes.add(Job(acme))
    lanes.add(Job(globex))
    taken = take(lanes)
    assert [job.lane is acme for job in taken].count(True) == 2
    assert len(taken) == 3


def test_two_stores_of_a_customer_share_its_limit_and_neither_starves(lanes_of: Make) -> None:
    lanes = lanes_of(parallel_objects=5, parallel_objects_per_customer=1)
    first, second = lanes.lane("acme"), lanes.lane("acme")
    for _ in range(3):
        lanes.add(Job(first))
        lanes.add(Job(second))
    order = []
    while taken := take(lanes):
        assert len(taken) == 1
        order.append(taken[0].lane)
        lanes.done(taken[0])
    assert sorted(map(id, order)) == sorted([id(first)] * 3 + [id(second)] * 3)


def test_customers_take_turns(lanes_of: Make) -> None:
    lanes = lanes_of(parallel_objects=1)
    many, one = lanes.lane("many"), lanes.lane("one")
    for _ in range(1000):
        lanes.add(Job(many))
    (first,) = take(lanes)
    lanes.add(Job(one))
    lanes.done(first)
    (second,) = take(lanes)
    lanes.done(second)
    (third,) = take(lanes)
    assert one in (second.lane, third.lane)


def test_what_is_put_first_is_taken_first(lanes_of: Make) -> None:
    lanes = lanes_of(parallel_objects=1)
    lane = lanes.lane("acme")
    later, sooner = Job(lane), Job(lane)
    lanes.add(later)
    lanes.add(sooner, first=True)
    assert take(lanes) == [sooner]


def test_bodies_fit_into_the_memory(lanes_of: Make) -> None:
    lanes = lanes_of(memory_bytes=64 * MIB)
    assert lanes.memory_bytes == 32 * MIB
    lane = lanes.lane("acme")
    jobs = [Job(lane, 10 * MIB) for _ in range(5)]
    for job in jobs:
        lanes.add(job)
    assert take(lanes) == jobs[:3]
    lanes.done(jobs[0])
    assert take(lanes) == [jobs[3]]


def test_a_body_larger_than_the_memory_goes_alone(lanes_of: Make) -> None:
    lanes = lanes_of(memory_bytes=20 * MIB)
    lane = lanes.lane("acme")
    small, large = Job(lane, 1), Job(lane, 50 * MIB)
    lanes.add(small)
    lanes.add(large)
    assert take(lanes) == [small]
    lanes.done(small)
    assert take(lanes) == [large]


def test_small_ones_of_others_pass_a_large_one_that_waits(lanes_of: Make) -> None:
    lanes = lanes_of(memory_bytes=20 * MIB)
    acme, globex = lanes.lane("acme"), lanes.lane("globex")
    lanes.add(Job(acme, 8 * MIB))
    lanes.add(Job(acme, 8 * MIB))
    assert len(take(lanes)) == 1
    small = Job(globex, SMALL_BYTES)
    lanes.add(small)
    assert take(lanes) == [small]


def test_a_large_one_that_has_waited_long_is_let_in_before_other_large_ones(
    lanes_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lanes = lanes_of(memory_bytes=20 * MIB)
    acme, globex = lanes.lane("acme"), lanes.lane("globex")
    middling = [Job(globex, 4 * MIB) for _ in range(20)]
    for job in middling:
        lanes.add(job)
    in_flight = take(lanes)
    large = Job(acme, 9 * MIB)
    lanes.add(large)
    assert take(lanes) == []
    lanes.done(in_flight.pop())
    (passed,) = take(lanes)
    in_flight.append(passed)
    now = 103.0
    assert len(in_flight) == 2
    while in_flight:
        lanes.done(in_flight.pop())
        if in_flight:
            assert take(lanes) == [], "room is kept for the one that waits"
    assert take(lanes)[0] is large


def test_a_closed_lane_waits_and_others_go_on(lanes_of: Make) -> None:
    lanes = lanes_of()
    acme, globex = lanes.lane("acme"), lanes.lane("globex")
    job, other = Job(acme), Job(globex)
    lanes.add(job)
    assert take(lanes) == [job]
    lanes.put_back(job)
    lanes.add(Job(acme))
    lanes.add(other)
    assert take(lanes) == [other]
    lanes.open(acme)
    assert take(lanes)[0] is job


def test_what_is_drained_is_no_longer_sent(lanes_of: Make) -> None:
    lanes = lanes_of()
    lane = lanes.lane("acme")
    jobs = [Job(lane) for _ in range(3)]
    for job in jobs:
        lanes.add(job)
    assert lanes.drain(lane) == jobs
    assert take(lanes) == []


def test_bandwidth_is_kept_on_average(lanes_of: Make) -> None:
    woken = threading.Event()
    lanes = lanes_of(woken.set, bandwidth_bytes_per_second=1_000_000)
    lane = lanes.lane("acme")
    for _ in range(4):
        lanes.add(Job(lane, 100_000))
    started, taken = time.monotonic(), 0
    while taken < 4:
        taken += len(take(lanes))
        if taken < 4:
            assert woken.wait(120)
            woken.clear()
    # the first goes at once, each later one when those before it are paid for
    assert 0.3 <= time.monotonic() - started < 60


def test_after_slowdown_a_customer_has_half_and_others_are_not_touched(lanes_of: Make) -> None:
    lanes = lanes_of(parallel_objects=100, parallel_objects_per_customer=8)
    acme, globex = lanes.lane("acme"), lanes.lane("globex")
    for _ in range(20):
        lanes.add(Job(acme))
        lanes.add(Job(globex))
    first = take(lanes)
    slowed = next(job for job in first if job.lane is acme)
    lanes.slow_down(slowed, sent_at=1.0, now=2.0)
    for job in first:
        lanes.done(job)
    second = take(lanes)
    assert sum(job.lane is acme for job in second) == 4
    assert sum(job.lane is globex for job in second) == 8


def test_a_lane_is_forgotten_when_nobody_waits_for_it(lanes_of: Make) -> None:
    lanes = lanes_of()
    lane = lanes.lane("acme")
    job = Job(lane)
    assert lanes.enter(job) is job
    assert lanes.succeeded(job) is None
    closing = threading.Thread(target=lanes.close, args=(lane,))
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    lanes.end(lane)
    closing.join(120)
    assert not closing.is_alive()


@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30 * MIB)), min_size=1, max_size=60),
    parallel=st.integers(1, 8),
    own=st.integers(1, 8),
    finish=st.randoms(use_true_random=False),
)
def test_everything_is_sent_within_the_limits(sizes, parallel, own, finish) -> None:  # type: ignore[no-untyped-def]
    timer = Timer(threading.Event())
    limits = Limits(parallel_objects=parallel, parallel_objects_per_customer=own, memory_bytes=40 * MIB)
    lanes = Lanes(limits, timer, lambda: None)
    of_customer = [lanes.lane(str(number)) for number in range(4)]
    waiting = [Job(of_customer[customer], size) for customer, size in sizes]
    for job in waiting:
        lanes.add(job)
    in_flight: list[Job] = []
    sent = []
    while len(sent) < len(waiting):
        in_flight += take(lanes)
        assert in_flight, "something can always be sent"
        assert len(in_flight) <= parallel
        assert all(sum(job.lane is lane for job in in_flight) <= own for lane in of_customer)
        held = [job.held_bytes for job in in_flight]
        assert sum(held) <= lanes.memory_bytes or len([size for size in held if size]) == 1
        done = in_flight.pop(finish.randrange(len(in_flight)))
        lanes.done(done)
        sent.append(done)
    assert set(map(id, sent)) == set(map(id, waiting))
    for lane in of_customer:
        own_jobs = [job for job in waiting if job.lane is lane]
        assert len(own_jobs) == sum(job.lane is lane for job in sent)
