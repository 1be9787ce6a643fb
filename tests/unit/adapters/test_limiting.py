"""What may begin at once: for the process, for a customer, in memory and over time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from xmode_transfer.adapters.clock import SystemClock
from xmode_transfer.adapters.limiting import BODY_MEMORY_BYTES, Gate, LimitingStores
from xmode_transfer.domain.config import Limits
from xmode_transfer.domain.errors import Interrupted, Throttled
from xmode_transfer.ports import EngineInfo, PutRequest

MIB = 1024 * 1024


class Engine:
    """Begins what it is given and finishes it when the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, Future[str]]] = []
        self.lock = threading.Lock()

    def begin(self, name: str) -> Callable[[], Future[str]]:
        def begun() -> Future[str]:
            future: Future[str] = Future()
            with self.lock:
                self.begun.append((name, future))
            return future

        return begun

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.begun]

    def finish(self, count: int = 1) -> None:
        running = [(name, future) for name, future in self.begun if not future.done()]
        for name, future in running[:count]:
            future.set_result(name)


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def gate_with(clock: Any, stop: threading.Event) -> Iterator[Callable[..., Gate]]:
    made = []

    def make(the_clock: Any = clock, **limits: Any) -> Gate:
        limits = {
            "parallel_objects": 4,
            "parallel_objects_per_customer": 4,
            "memory_bytes": 512 * MIB,
        } | limits
        made.append(Gate(Limits(**limits), the_clock, stop))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


def test_so_many_at_once_for_the_process(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(parallel_objects=3)
    futures = [gate.submit(f"c{number}", 1, engine.begin(str(number))) for number in range(8)]
    assert engine.names == ["0", "1", "2"]
    engine.finish(2)
    assert engine.names == ["0", "1", "2", "3", "4"]
    while not all(future.done() for future in futures):
        engine.finish(8)
    assert [future.result(0) for future in futures] == [str(number) for number in range(8)]


def test_so_many_at_once_for_a_customer(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(parallel_objects_per_customer=2)
    for number in range(6):
        gate.submit("acme", 1, engine.begin(f"acme-{number}"))
    gate.submit("globex", 1, engine.begin("globex"))
    assert engine.names == ["acme-0", "acme-1", "globex"]
    engine.finish(1)
    assert engine.names[-1] == "acme-2"


def test_customers_take_turns(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(parallel_objects=1)
    for number in range(50):
        gate.submit("giant", 1, engine.begin(f"giant-{number}"))
    gate.submit("small", 1, engine.begin("small-0"))
    gate.submit("small", 1, engine.begin("small-1"))
    for _ in range(5):
        engine.finish()
    assert engine.names == ["giant-0", "giant-1", "small-0", "giant-2", "small-1", "giant-3"]


def test_bodies_fit_into_the_memory(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(memory_bytes=20 * MIB)
    for number in range(4):
        gate.submit("acme", 7 * MIB, engine.begin(str(number)))
    assert engine.names == ["0", "1"]
    engine.finish(1)
    assert engine.names == ["0", "1", "2"]


def test_a_streamed_body_counts_for_what_is_held_of_it(
    gate_with: Callable[..., Gate], engine: Engine
) -> None:
    gate = gate_with(memory_bytes=3 * BODY_MEMORY_BYTES)
    for number in range(4):
        gate.submit("acme", 1024 * MIB, engine.begin(str(number)))
    assert engine.names == ["0", "1", "2"]


def test_a_large_body_is_not_passed_for_ever_by_small_ones(
    gate_with: Callable[..., Gate], engine: Engine
) -> None:
    gate = gate_with(memory_bytes=10 * MIB)
    gate.submit("small", 4 * MIB, engine.begin("small-0"))
    gate.submit("large", 8 * MIB, engine.begin("large"))
    gate.submit("small", 4 * MIB, engine.begin("small-1"))
    assert engine.names == ["small-0"]
    engine.finish()
    assert engine.names == ["small-0", "large"]


def test_a_body_larger_than_the_memory_goes_alone(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(memory_bytes=5 * MIB)
    gate.submit("acme", 8 * MIB, engine.begin("0"))
    gate.submit("acme", 1, engine.begin("1"))
    assert engine.names == ["0"]


def test_the_bandwidth_is_kept_on_average(gate_with: Callable[..., Gate], engine: Engine, clock: Any) -> None:
    gate = gate_with(bandwidth_bytes_per_second=100)
    for number in range(5):
        gate.submit("acme", 100, engine.begin(str(number)))

    def admitted() -> int:
        gate.submit("other", 0, engine.begin("look"))
        return len([name for name in engine.names if name != "look"])

    assert admitted() == 1
    engine.finish(9)
    clock.move(seconds=0.5)
    assert admitted() == 1
    clock.move(seconds=0.5)
    assert admitted() == 2
    engine.finish(9)
    assert admitted() == 2
    clock.move(seconds=10)
    assert admitted() == 3, "hardly anything may be saved up"


def test_what_waits_for_bandwidth_goes_on_by_itself(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(SystemClock(), bandwidth_bytes_per_second=1000)
    began = time.monotonic()
    futures = [gate.submit("acme", 250, engine.begin(str(number))) for number in range(6)]
    while not all(future.done() for future in futures):
        engine.finish(9)
        time.sleep(0.005)
        assert time.monotonic() - began < 120
    assert time.monotonic() - began > 0.2


def test_a_failure_makes_room_too(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(parallel_objects=1)

    def refuses() -> Future[str]:
        raise Throttled("no")

    first = gate.submit("acme", 1, refuses)
    second = gate.submit("acme", 1, engine.begin("second"))
    third = gate.submit("acme", 1, engine.begin("third"))
    with pytest.raises(Throttled):
        first.result(0)
    engine.begun[0][1].set_exception(Throttled("no"))
    with pytest.raises(Throttled):
        second.result(0)
    engine.finish()
    assert third.result(0) == "third"


def test_a_long_queue_is_no_deep_stack(gate_with: Callable[..., Gate], engine: Engine) -> None:
    gate = gate_with(parallel_objects=1)

    def at_once() -> Future[str]:
        future: Future[str] = Future()
        future.set_result("done")
        return future

    first = gate.submit("acme", 1, engine.begin("first"))
    rest = [gate.submit("acme", 1, at_once) for _ in range(5000)]
    engine.finish()
    assert first.result(0) == "first"
    assert all(future.result(0) == "done" for future in rest)


def test_a_stop_ends_the_waiting(
    gate_with: Callable[..., Gate], engine: Engine, stop: threading.Event
) -> None:
    gate = gate_with(parallel_objects=1)
    running = gate.submit("acme", 1, engine.begin("running"))
    waiting = gate.submit("acme", 1, engine.begin("waiting"))
    stop.set()
    engine.finish()
    assert running.result(0) == "running"
    with pytest.raises(Interrupted):
        waiting.result(0)
    with pytest.raises(Interrupted):
        gate.submit("acme", 1, engine.begin("late")).result(0)


def test_a_stop_ends_the_waiting_for_bandwidth(
    gate_with: Callable[..., Gate], engine: Engine, stop: threading.Event
) -> None:
    gate = gate_with(SystemClock(), bandwidth_bytes_per_second=1)
    gate.submit("acme", 100, engine.begin("first"))
    waiting = gate.submit("acme", 1, engine.begin("waiting"))
    stop.set()
    with pytest.raises(Interrupted):
        waiting.result(5)


def test_many_threads_never_pass_the_limits(gate_with: Callable[..., Gate]) -> None:
    gate = gate_with(parallel_objects=3, parallel_objects_per_customer=2)
    lock = threading.Lock()
    running = {"a": 0, "b": 0}
    most = {"a": 0, "b": 0, "all": 0}

    def begin(customer: str) -> Callable[[], Future[None]]:
        def begun() -> Future[None]:
            future: Future[None] = Future()
            with lock:
                running[customer] += 1
                most[customer] = max(most[customer], running[customer])
                most["all"] = max(most["all"], sum(running.values()))

            def finish() -> None:
                with lock:
                    running[customer] -= 1
                future.set_result(None)

            threading.Timer(0.001, finish).start()
            return future

        return begun

    futures: list[Future[None]] = []

    def submit(customer: str) -> None:
        futures.extend(gate.submit(customer, 10, begin(customer)) for _ in range(40))

    threads = [threading.Thread(target=submit, args=(customer,)) for customer in "abab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for future in futures:
        future.result(120)
    assert len(futures) == 160
    assert (most["a"], most["b"], most["all"]) == (2, 2, 3)


class Store:
    """Only what is needed to see what passes through."""

    region = "eu-west-1"
    checksum_algorithm = "crc32"
    info = EngineInfo("a store", "a test")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.closed = False

    def open(self, *_: object) -> "Store":
        return self

    def put(self, request: PutRequest, body: Any) -> Future[str]:
        return self.engine.begin("put")()

    def head(self, key: str) -> str:
        return f"head {key}"

    def close(self) -> None:
        self.closed = True


def test_only_what_carries_a_body_waits(
    engine: Engine, clock: Any, stop: threading.Event, customer_of: Any
) -> None:
    stores = LimitingStores(Store(engine), Limits(parallel_objects=1), clock, stop)  # type: ignore[arg-type]
    store = stores.open(customer_of(), None, None)  # type: ignore[arg-type]
    request = PutRequest("a", "t", 1, "x/y")
    first, second = store.put(request, None), store.put(request, None)  # type: ignore[arg-type]
    assert len(engine.begun) == 1
    assert store.head("b") == "head b"
    assert (store.region, store.checksum_algorithm, stores.info.name) == ("eu-west-1", "crc32", "a store")
    closing = threading.Thread(target=store.close)
    closing.start()
    engine.finish()
    assert closing.is_alive()
    engine.finish()
    closing.join(120)
    assert not closing.is_alive()
    assert first.done()
    assert second.done()
    stores.close()
