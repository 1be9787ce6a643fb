"""What every body passes, whichever engine sends it: its turn, and its object's retries."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from xmode_transfer.aws.lanes import Dispatcher, Job
from xmode_transfer.aws.retrying import RetryRules
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


class Sent(Job):
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
def dispatcher_with(stop: threading.Event) -> Iterator[Callable[..., Dispatcher]]:
    made = []

    def make(limits: Limits | None = None, **rules: Any) -> Dispatcher:
        rules = {"first_pause_seconds": 0.001, "longest_pause_seconds": 0.01, **rules}
        made.append(Dispatcher(limits or Limits(), SystemClock(), stop, RetryRules(**rules)))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.close()


Make = Callable[..., Dispatcher]


def test_an_object_is_tried_again_until_it_passes(dispatcher_with: Make, engine: Engine) -> None:
    dispatcher = dispatcher_with()
    job = Sent(engine, dispatcher.lanes.lane("acme"), "a")
    engine.script = [Throttled("1"), Unavailable("2"), Throttled("3")]
    assert dispatcher.submit(job).result(120) == "a"
    assert engine.names == ["a"] * 4
    assert job.forgotten == 3


def test_the_fourth_failure_is_the_last(dispatcher_with: Make, engine: Engine) -> None:
    dispatcher = dispatcher_with()
    engine.script = [Throttled(str(number)) for number in range(1, 9)]
    with pytest.raises(Throttled, match="4"):
        dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)
    assert len(engine.names) == 4


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again(dispatcher_with: Make, engine: Engine, kind: type[XmodeError]) -> None:
    dispatcher = dispatcher_with()
    engine.script = [kind("1")]
    dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)
    assert len(engine.names) == 2


@pytest.mark.parametrize("kind", FINAL)
def test_what_does_not_pass_is_said_at_once(
    dispatcher_with: Make, engine: Engine, kind: type[XmodeError]
) -> None:
    dispatcher = dispatcher_with()
    engine.script = [kind("1")]
    with pytest.raises(kind):
        dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)
    assert len(engine.names) == 1


def test_what_is_not_the_domains_is_a_defect(dispatcher_with: Make, engine: Engine) -> None:
    dispatcher = dispatcher_with()
    engine.script = [ZeroDivisionError("1")]
    with pytest.raises(Defect, match="ZeroDivisionError"):
        dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a")).result(120)


def test_what_its_caller_tries_again_is_not_tried_here(dispatcher_with: Make, engine: Engine) -> None:
    dispatcher = dispatcher_with()
    job = Sent(engine, dispatcher.lanes.lane("acme"), "a")
    job.is_retried = False
    engine.script = [Throttled("1")]
    with pytest.raises(Throttled):
        dispatcher.submit(job).result(120)
    assert len(engine.names) == 1


def test_slowdown_leaves_a_customer_half(dispatcher_with: Make, engine: Engine) -> None:
    dispatcher = dispatcher_with(Limits(parallel_objects=16, parallel_objects_per_customer=16), attempts=1)
    lane = dispatcher.lanes.lane("acme")
    engine.script = [Throttled("1")]
    with pytest.raises(Throttled):
        dispatcher.submit(Sent(engine, lane, "a")).result(120)
    assert lane.pace.allowed == 8


def test_a_stop_ends_the_waiting_with_the_error_that_was_waited_for(
    dispatcher_with: Make, engine: Engine, stop: threading.Event
) -> None:
    dispatcher = dispatcher_with(first_pause_seconds=1000, longest_pause_seconds=1000, deadline_seconds=10**6)
    engine.script = [Throttled("1")] * 4
    future = dispatcher.submit(Sent(engine, dispatcher.lanes.lane("acme"), "a"))
    stop.set()
    with pytest.raises(Throttled):
        future.result(120)


def test_no_thread_waits_for_an_object_that_waits(
    dispatcher_with: Make, engine: Engine, stop: threading.Event
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


def test_a_store_is_closed_when_what_is_tried_again_has_ended(dispatcher_with: Make, engine: Engine) -> None:
    dispatcher = dispatcher_with(first_pause_seconds=0.05, longest_pause_seconds=0.05)
    engine.script = [Throttled("1"), Throttled("2")]
    lane = dispatcher.lanes.lane("acme")
    future = dispatcher.submit(Sent(engine, lane, "a"))
    dispatcher.lanes.close(lane)
    assert future.done()


def test_a_failure_makes_room_too(dispatcher_with: Make, engine: Engine) -> None:
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


def test_a_long_queue_is_no_deep_stack(dispatcher_with: Make, engine: Engine) -> None:
    dispatcher = dispatcher_with(Limits(parallel_objects=1, parallel_objects_per_customer=1))
    lane = dispatcher.lanes.lane("acme")
    engine.waits = True
    first = dispatcher.submit(Sent(engine, lane, "first"))
    futures = [dispatcher.submit(Sent(engine, lane, str(number))) for number in range(5000)]
    engine.waits = False
    engine.begun[0][1].set_result("first")
    assert {future.result(120) for future in [first, *futures]} == {"first", *map(str, range(5000))}


def test_what_waits_is_interrupted_by_a_stop(
    dispatcher_with: Make, engine: Engine, stop: threading.Event
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


def test_many_threads_never_pass_the_limits(dispatcher_with: Make) -> None:
    dispatcher = dispatcher_with(Limits(parallel_objects=5, parallel_objects_per_customer=3))
    lock, now, most = threading.Lock(), Counter[str](), Counter[str]()

    class Counted(Job):
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
