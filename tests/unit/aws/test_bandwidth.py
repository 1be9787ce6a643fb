"""How many bytes are let go by when: one allowance, and both engines with it, by a clock that is moved by
hand."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import MemoryClock
from tests.fakes.sessions import Provider
from xmode_transfer.aws import lanes
from xmode_transfer.aws.retrying import SAVED_SECONDS, Allowance, Allowances, Timer
from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.s3_portable import PortableStores
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import BandwidthLimit, Limits
from xmode_transfer.model.errors import Interrupted
from xmode_transfer.telemetry import SystemClock

EVENING = datetime(2026, 11, 23, 17, 59, 50, tzinfo=UTC)
OFFICE_HOURS = [{"from": "08:00", "limit": 1000}, {"from": "18:00", "limit": None}]
SLOWER_AT_SIX = [{"from": "08:00", "limit": 1000}, {"from": "18:00", "limit": 100}]


def timetable(said: Any, timezone: str = "UTC") -> BandwidthLimit:
    return BandwidthLimit(bandwidth_bytes_per_second=said, timezone=timezone)


# --- One allowance ----------------------------------------------------------------------------------


@pytest.fixture
def clock() -> MemoryClock:
    return MemoryClock(EVENING)


def test_what_was_sent_is_paid_for_before_more_is_sent(clock: MemoryClock) -> None:
    allowance = Allowance(timetable(1000), clock)
    assert allowance.wait() == 0
    allowance.take(500)
    assert allowance.wait() == pytest.approx(0.5)
    clock.advance(0.25)
    assert allowance.wait() == pytest.approx(0.25)
    clock.advance(0.25)
    assert allowance.wait() == 0


def test_hardly_anything_is_saved_up(clock: MemoryClock) -> None:
    allowance = Allowance(timetable(1000), clock)
    clock.advance(3600)
    assert allowance.wait() == 0
    allowance.take(1000)
    assert allowance.wait() == pytest.approx(1 - SAVED_SECONDS)


def test_what_is_not_sent_after_all_costs_nothing(clock: MemoryClock) -> None:
    allowance = Allowance(timetable(1000), clock)
    allowance.take(10**9)
    allowance.take(-(10**9))
    assert allowance.wait() == 0


def test_a_limit_that_ends_forgives_what_is_owed(clock: MemoryClock) -> None:
    allowance = Allowance(timetable(OFFICE_HOURS), clock)
    allowance.take(10**9)
    clock.advance(9)
    assert allowance.wait() == 1.0, "it looks again before the debt is paid: the limit may end sooner"
    clock.advance(1)
    assert allowance.wait() == 0
    allowance.take(10**9)
    assert allowance.wait() == 0
    clock.advance(14 * 3600)  # 08:00
    assert allowance.wait() == 0, "what was sent without a limit is not owed under the next"
    allowance.take(10)
    assert allowance.wait() > 0


def test_what_is_owed_stays_owed_under_another_limit(clock: MemoryClock) -> None:
    allowance = Allowance(timetable(SLOWER_AT_SIX), clock)
    clock.advance(9.5)
    allowance.wait()
    allowance.take(520)
    clock.advance(0.5)
    assert allowance.wait() == pytest.approx(0.2, abs=1.1), "20 bytes at 100 a second, after one look"
    clock.advance(1)
    assert allowance.wait() == 0


def test_a_clock_that_is_put_back_sends_nothing_twice(clock: MemoryClock) -> None:
    allowance = Allowance(timetable(1000), clock)
    allowance.take(500)
    clock.set(EVENING.replace(hour=3))
    assert allowance.wait() == pytest.approx(0.5)


def test_all_that_is_opened_for_a_customer_shares_one(clock: MemoryClock) -> None:
    allowances = Allowances(timetable(1000), clock)
    process, acme = allowances.of("acme", timetable(10))
    assert allowances.of("acme", timetable(10)) == (process, acme)
    assert allowances.of("globex", BandwidthLimit()) == (process,)
    acme.take(5)
    assert acme.wait() == pytest.approx(0.5)
    allowances.of("acme", timetable(100))
    assert acme.wait() == pytest.approx(0.05), "it follows what the customer's file says now"
    allowances.of("acme", BandwidthLimit())
    assert acme.wait() == 0


def test_without_limits_there_is_nothing_to_keep(clock: MemoryClock) -> None:
    assert Allowances(BandwidthLimit(), clock).of("acme", BandwidthLimit()) == ()


@given(
    rate=st.integers(1, 10**6),
    lengths=st.lists(st.integers(0, 10**6), min_size=1, max_size=30),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=30),
)
def test_never_more_than_the_rate_and_one_request(rate: int, lengths: list[int], steps: list[float]) -> None:
    clock = MemoryClock()
    allowance = Allowance(timetable(rate), clock)
    sent = largest = 0
    for step in steps:
        while lengths and allowance.wait() == 0:
            length = lengths.pop()
            allowance.take(length)
            sent, largest = sent + length, max(largest, length)
            bound = rate * (clock.monotonic() + SAVED_SECONDS) + largest
            assert sent <= bound * (1 + 1e-9) + 1
        clock.advance(step)


# --- What both engines pass --------------------------------------------------------------------------------


class Job(lanes.Job):
    def __init__(self, customer: str, lane: lanes.Lane, length: int) -> None:
        super().__init__(lane, "bucket", "key", length, length)
        self.customer = customer

    def send(self) -> Future[None]:
        raise AssertionError("nothing is sent here")


class Queue:
    """The lanes, whose bodies are answered at once; ``sent`` counts their bytes by customer."""

    def __init__(self, limits: Limits, of_customers: dict[str, BandwidthLimit], clock: MemoryClock) -> None:
        self.sent = dict.fromkeys(of_customers, 0)
        self.woken = threading.Event()
        self.lanes = lanes.Lanes(limits, Timer(threading.Event()), self.woken.set, clock)
        self._timer = self.lanes._timer
        self._of_customers = {
            customer: self.lanes.lane(customer, bandwidth) for customer, bandwidth in of_customers.items()
        }

    def put(self, customer: str, length: int) -> None:
        self.lanes.add(Job(customer, self._of_customers[customer], length))
        self._pump()

    def look(self) -> None:
        for bandwidth in list(self.lanes._spent):
            self.lanes._woken(bandwidth)
        self._pump()

    def _pump(self) -> None:
        while (job := self.lanes.next()) is not None:
            assert isinstance(job, Job)
            self.sent[job.customer] += job.length
            self.lanes.done(job)

    def close(self) -> None:
        self._timer.close()


Make = Callable[..., Queue]


@pytest.fixture
def engine_of(clock: MemoryClock) -> Iterator[Make]:
    made = []

    def make(of_process: Any = None, **of_customers: Any) -> Queue:
        limits = Limits(bandwidth_bytes_per_second=of_process)
        made.append(Queue(limits, {name: timetable(said) for name, said in of_customers.items()}, clock))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def let_pass(engine: Queue, clock: MemoryClock, seconds: float) -> None:
    for _ in range(round(seconds * 20)):
        clock.advance(0.05)
        engine.look()


def test_the_process_sends_no_more_than_its_limit(engine_of: Make, clock: MemoryClock) -> None:
    engine = engine_of(1000, acme=None, globex=None)
    for _ in range(500):
        engine.put("acme", 50)
        engine.put("globex", 50)
    let_pass(engine, clock, 8)
    assert sum(engine.sent.values()) == pytest.approx(8000, abs=150)
    assert engine.sent["acme"] == pytest.approx(engine.sent["globex"], abs=100), "they take turns"


def test_a_customers_limit_is_its_own(engine_of: Make, clock: MemoryClock) -> None:
    engine = engine_of(None, acme=1000, globex=200, initech=None)
    for _ in range(300):
        for customer in ("acme", "globex", "initech"):
            engine.put(customer, 50)
    assert engine.sent["initech"] == 15_000, "who has no limit is held up by nobody's"
    let_pass(engine, clock, 8)
    assert engine.sent["acme"] == pytest.approx(8000, abs=150)
    assert engine.sent["globex"] == pytest.approx(1600, abs=150)


def test_a_customers_limit_lies_within_the_processs(engine_of: Make, clock: MemoryClock) -> None:
    engine = engine_of(1000, acme=200, globex=None)
    for _ in range(300):
        engine.put("acme", 50)
        engine.put("globex", 50)
    let_pass(engine, clock, 8)
    assert engine.sent["acme"] == pytest.approx(1600, abs=150)
    assert sum(engine.sent.values()) == pytest.approx(8000, abs=150)


@pytest.mark.parametrize("whose", ["process", "customer"])
def test_a_run_that_crosses_a_boundary_goes_on_at_the_new_limit(
    engine_of: Make, clock: MemoryClock, whose: str
) -> None:
    of_process, acme = (SLOWER_AT_SIX, None) if whose == "process" else (None, SLOWER_AT_SIX)
    engine = engine_of(of_process, acme=acme)
    for _ in range(1000):
        engine.put("acme", 50)
    let_pass(engine, clock, 10)
    before = engine.sent["acme"]
    assert before == pytest.approx(10_000, abs=150)
    let_pass(engine, clock, 20)
    # up to a second passes before the new limit is looked up
    assert 2000 - 150 <= engine.sent["acme"] - before <= 2000 + 1000 + 150


def test_what_waits_for_a_customers_bandwidth_can_be_taken_out(clock: MemoryClock) -> None:
    fast = Queue(Limits(), {"acme": timetable(1)}, clock)
    fast.put("acme", 100)
    fast.put("acme", 200)
    (waiting,) = fast.lanes.take_all()
    assert waiting.length == 200
    fast.close()


def test_what_has_no_bytes_waits_for_no_bandwidth(clock: MemoryClock) -> None:
    fast = Queue(Limits(bandwidth_bytes_per_second=1), {"acme": timetable(1)}, clock)
    fast.put("acme", 100)
    fast.put("acme", 200)
    empty = Job("acme", fast._of_customers["acme"], 0)
    fast.lanes.add(empty, first=True)
    assert fast.lanes.next() is empty
    assert fast.lanes.next() is None
    fast.close()


def test_the_timer_puts_a_lane_back_in_turn(clock: MemoryClock) -> None:
    fast = Queue(Limits(), {"acme": timetable(1000)}, clock)
    fast.put("acme", 10)
    fast.put("acme", 10)
    assert fast.sent["acme"] == 10
    clock.advance(1)
    assert fast.woken.wait(120)
    fast._pump()
    assert fast.sent["acme"] == 20
    fast.close()


@pytest.mark.parametrize("name", ["portable", "fast"])
def test_a_customers_file_limits_what_an_engine_sends_to_it(
    name: str, stub: Any, customer_of: Any, file_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    reply = type(stub).next_reply.__annotations__["return"]
    stub.reply(reply(200, headers={"ETag": '"e"'}))
    stop, real = threading.Event(), SystemClock()
    stores = (
        FastStores(Limits(), real, stop=stop) if name == "fast" else PortableStores(Limits(), real, stop=stop)
    )
    slow = customer_of(limits={"bandwidth_bytes_per_second": 1})
    quick = customer_of(name="globex", external_id="Globex", destination={"bucket": "globex-data"})

    def put(store: Any, key: str) -> Any:
        return store.put(PutRequest(key, "token", 100_000, "text/csv"), file_of(bytes(100_000)))

    opened = [stores.open(customer, Provider(), None) for customer in (slow, quick)]
    first, second, *others = [
        put(opened[0], "a"),
        put(opened[0], "b"),
        put(opened[1], "c"),
        put(opened[1], "d"),
    ]
    for future in (first, *others):
        future.result(120)
    assert not second.done(), "it is its turn in a day"
    stop.set()
    with pytest.raises(Interrupted):
        second.result(120)
    assert sorted(asked.path for asked in stub.asked) == ["/acme-data/a", "/globex-data/c", "/globex-data/d"]
    for store in opened:
        store.close()
    stores.close()


def test_what_is_put_back_is_not_paid_for(clock: MemoryClock) -> None:
    fast = Queue(Limits(bandwidth_bytes_per_second=1000), {"acme": timetable(1000)}, clock)
    lane = fast._of_customers["acme"]
    fast.lanes.add(Job("acme", lane, 10**6))
    job = fast.lanes.next()
    assert job is not None
    fast.lanes.put_back(job)
    fast.lanes.open(lane)
    assert fast.lanes.next() is job
    fast.close()
