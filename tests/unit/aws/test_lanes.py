"""The dispatch of bodies: the limits that all customers share, and the retries of objects."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws import lanes as lanes_module
from xmode_transfer.aws.lanes import SMALL_BYTES, Dispatcher, Lane, Lanes
from xmode_transfer.aws.retrying import Timer
from xmode_transfer.config import Limits
from xmode_transfer.model.errors import (
    AccessDenied,
    ChecksumMismatch,
    Defect,
    Interrupted,
    ObjectExists,
    RequestRefused,
    SessionExpired,
    SourceChanged,
    Throttled,
    Unavailable,
    XmodeError,
)
from xmode_transfer.telemetry import SystemClock

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


def test_after_slowdown_a_customer_has_half_and_others_are_not_touched(lanes_of: Make) -> None:
    lanes = lanes_of(parallel_objects=100, parallel_objects_per_customer=8)
    acme, globex = lanes.lane("acme"), lanes.lane("globex")
    for _ in range(20):
        lanes.add(Job(acme))
        lanes.add(Job(globex))
    first = take(lanes)
    slowed = next(job for job in first if job.lane is acme)
    slowed.sent_at = 1.0
    lanes.slow_down(slowed, now=2.0)
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


PASSING = [Throttled, Unavailable, ChecksumMismatch, SessionExpired]
FINAL = [AccessDenied, ObjectExists, RequestRefused, SourceChanged]


class Engine:
    """Sends what it is given: at once, as the script says, or when the test lets it."""

    def __init__(self) -> None:
        self.script: list[Exception] = []
        self.begun: list[tuple[str, Future[str]]] = []
        self.waits = False
        self.lock = threading.Lock()

    def send(self, name: str) -> Future[str]:
        future: Future[str] = Future()
        with self.lock:
            self.begun.append((name, future))
            error = self.script.pop(0) if self.script else None
        if error is not None:
            future.set_exception(error)
        elif not self.waits:
            future.set_result(name)
        return future

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.begun]


class Sent(lanes_module.Job):
    operation = "PutObject"

    def __init__(self, engine: Engine, lane: Any, name: str, length: int = 1) -> None:
        super().__init__(lane, "bucket", name, length, length)
        self.engine = engine
        self.forgotten = 0

    def send(self) -> Future[str]:
        return self.engine.send(self.key)

    def start_over(self) -> None:
        self.forgotten += 1


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def dispatcher_with(
    stop: threading.Event, retry_rules: Callable[..., None]
) -> Iterator[Callable[..., Dispatcher]]:
    made = []

    def make(limits: Limits | None = None, **rules: Any) -> Dispatcher:
        retry_rules(**{"first_pause_seconds": 0.001, "longest_pause_seconds": 0.01, **rules})
        made.append(Dispatcher(limits or Limits(), SystemClock(), stop))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.close()


MakeDispatcher = Callable[..., Dispatcher]


def test_an_object_is_tried_again_until_it_passes(dispatcher_with: MakeDispatcher, engine: Engine) -> None:
    dispatcher = dispatcher_with()
    job = Sent(engine, dispatcher.lanes.lane("acme"), "a")
    engine.script = [Throttled("1"), Unavailable("2"), Throttled("3")]
    assert dispatcher.submit(job).result(120) == "a"
    assert engine.names == ["a"] * 4
    assert job.forgotten == 3


def test_the_fourth_failure_is_the_last(dispatcher_with: MakeDispatcher, engine: Engine) -> None:
    dispatcher = dispatcher_with()
    engine.script = [Throttled(str(number)) for number in range(1, 9)]
    with pytest.raises(Throttled, match="4"):
        dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)
    assert len(engine.names) == 4


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again(
    dispatcher_with: MakeDispatcher, engine: Engine, kind: type[XmodeError]
) -> None:
    dispatcher = dispatcher_with()
    engine.script = [kind("1")]
    dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)
    assert len(engine.names) == 2


@pytest.mark.parametrize("kind", FINAL)
def test_what_does_not_pass_is_said_at_once(
    dispatcher_with: MakeDispatcher, engine: Engine, kind: type[XmodeError]
) -> None:
    dispatcher = dispatcher_with()
    engine.script = [kind("1")]
    with pytest.raises(kind):
        dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)
    assert len(engine.names) == 1


def test_what_is_not_the_domains_is_a_defect(dispatcher_with: MakeDispatcher, engine: Engine) -> None:
    dispatcher = dispatcher_with()
    engine.script = [ZeroDivisionError("1")]
    with pytest.raises(Defect, match="ZeroDivisionError"):
        dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)


def test_what_its_caller_tries_again_is_not_tried_here(
    dispatcher_with: MakeDispatcher, engine: Engine
) -> None:
    dispatcher = dispatcher_with()
    job = Sent(engine, dispatcher.lanes.lane("acme"), "a")
    job.is_retried = False
    engine.script = [Throttled("1")]
    with pytest.raises(Throttled):
        dispatcher.submit(job).result(120)
    assert len(engine.names) == 1


def test_a_stop_ends_the_waiting_with_the_error_that_was_waited_for(
    dispatcher_with: MakeDispatcher, engine: Engine, stop: threading.Event
) -> None:
    dispatcher = dispatcher_with(first_pause_seconds=1000, longest_pause_seconds=1000, deadline_seconds=10**6)
    engine.script = [Throttled("1")] * 4
    future = dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a"))
    stop.set()
    with pytest.raises(Throttled):
        future.result(120)


def test_no_thread_waits_for_an_object_that_waits(
    dispatcher_with: MakeDispatcher, engine: Engine, stop: threading.Event
) -> None:
    # More refusals than objects: full jitter may draw a pause of nothing, and that one asks again at once.
    dispatcher = dispatcher_with(first_pause_seconds=1000, longest_pause_seconds=1000, deadline_seconds=10**6)
    engine.script = [Throttled("x")] * 2000
    lane = dispatcher.lanes.lane("acme")
    futures = [dispatcher.submit(Sent(engine, lane, str(number))) for number in range(200)]
    deadline = time.monotonic() + 120
    while len(set(engine.names)) < 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len([thread for thread in threading.enumerate() if thread.name == "timer"]) <= 1
    stop.set()
    for future in futures:
        with pytest.raises((Throttled, Interrupted)):
            future.result(120)


def test_a_store_is_closed_when_what_is_tried_again_has_ended(
    dispatcher_with: MakeDispatcher, engine: Engine
) -> None:
    dispatcher = dispatcher_with(first_pause_seconds=0.05, longest_pause_seconds=0.05)
    engine.script = [Throttled("1"), Throttled("2")]
    lane = dispatcher.lanes.lane("acme")
    future = dispatcher.submit(Sent(engine, lane, "a"))
    dispatcher.lanes.close(lane)
    assert future.done()


def test_a_failure_makes_room_too(dispatcher_with: MakeDispatcher, engine: Engine) -> None:
    dispatcher = dispatcher_with(Limits(parallel_objects=1, parallel_objects_per_customer=1), attempts=1)
    lane = dispatcher.lanes.lane("acme")
    engine.waits = True
    first, second = [dispatcher.submit(Sent(engine, lane, name)) for name in "ab"]
    assert engine.names == ["a"]
    engine.begun[0][1].set_exception(RequestRefused("no"))
    assert engine.names == ["a", "b"]
    engine.begun[1][1].set_result("b")
    assert second.result(120) == "b"
    assert isinstance(first.exception(), RequestRefused)


def test_a_long_queue_is_no_deep_stack(dispatcher_with: MakeDispatcher, engine: Engine) -> None:
    dispatcher = dispatcher_with(Limits(parallel_objects=1, parallel_objects_per_customer=1))
    lane = dispatcher.lanes.lane("acme")
    engine.waits = True
    first = dispatcher.submit(Sent(engine, lane, "first"))
    futures = [dispatcher.submit(Sent(engine, lane, str(number))) for number in range(5000)]
    engine.waits = False
    engine.begun[0][1].set_result("first")
    assert {future.result(120) for future in [first, *futures]} == {"first", *map(str, range(5000))}


def test_what_waits_is_interrupted_by_a_stop(
    dispatcher_with: MakeDispatcher, engine: Engine, stop: threading.Event
) -> None:
    dispatcher = dispatcher_with(Limits(parallel_objects=1, parallel_objects_per_customer=1))
    lane = dispatcher.lanes.lane("acme")
    engine.waits = True
    first, second = [dispatcher.submit(Sent(engine, lane, name)) for name in "ab"]
    stop.set()
    engine.begun[0][1].set_result("a")
    assert first.result(120) == "a"
    with pytest.raises(Interrupted):
        second.result(120)


def test_many_threads_never_pass_the_limits(dispatcher_with: MakeDispatcher) -> None:
    dispatcher = dispatcher_with(Limits(parallel_objects=5, parallel_objects_per_customer=3))
    lock, now, most = threading.Lock(), Counter[str](), Counter[str]()

    class Counted(lanes_module.Job):
        operation = "PutObject"

        def send(self) -> Future[None]:
            future: Future[None] = Future()
            with lock:
                now.update([self.bucket, "all"])
                for name in (self.bucket, "all"):
                    most[name] = max(most[name], now[name])

            def end() -> None:
                with lock:
                    now.subtract([self.bucket, "all"])
                future.set_result(None)

            threading.Timer(0.001, end).start()
            return future

    def submit(customer: str) -> None:
        lane = dispatcher.lanes.lane(customer)
        for future in [dispatcher.submit(Counted(lane, customer, "k", 1, 1)) for _ in range(40)]:
            future.result(120)

    threads = [threading.Thread(target=submit, args=(name,)) for name in ("a", "b", "c", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most["all"] <= 5
    assert max(most[name] for name in "abc") <= 3
