"""What is tried again, how often, after which pauses, and what is left to the caller."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.adapters.retrying import (
    ATTEMPTS,
    DEADLINE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    RetryingStores,
    RetryRules,
)
from xmode_transfer.adapters.s3_calls import REQUEST_ATTEMPTS
from xmode_transfer.adapters.timer import Timer
from xmode_transfer.domain.errors import (
    AccessDenied,
    ChecksumMismatch,
    ObjectExists,
    RequestRefused,
    SessionExpired,
    SourceChanged,
    Throttled,
    Unavailable,
    XmodeError,
)
from xmode_transfer.domain.records import Checksum, UploadedPart
from xmode_transfer.ports import EngineInfo, ListedObject, PutAnswer, PutRequest

PASSING = [Throttled, Unavailable, ChecksumMismatch, SessionExpired]
FINAL = [AccessDenied, ObjectExists, RequestRefused, SourceChanged]
ANSWER = PutAnswer('"e"', Checksum("crc32", "AAAAAA=="))
ASKED = PutRequest("xmode/a", "t", 1, "x/y")


class Scripted:
    """A store whose every operation ends as the next line of the script says: an error, or success."""

    region = "eu-west-1"
    checksum_algorithm = "crc32"
    info = EngineInfo("scripted", "a test")

    def __init__(self) -> None:
        self.script: list[Exception] = []
        self.calls: list[str] = []
        self.rows = ["a", "b", "c"]
        self.break_after = 99
        self.closed = False

    def open(self, *_: object) -> "Scripted":
        return self

    def step(self, call: str) -> None:
        self.calls.append(call)
        if self.script:
            raise self.script.pop(0)

    def later(self, call: str, answer: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def finish() -> None:
            try:
                self.step(call)
            except Exception as error:  # noqa: BLE001 - the script's errors are the point
                future.set_exception(error)
            else:
                future.set_result(answer)

        threading.Thread(target=finish).start()
        return future

    def put(self, request: PutRequest, body: Any) -> Future[PutAnswer]:
        return self.later("put", ANSWER)

    def upload_part(self, key: str, upload_id: str, number: int, *_: object) -> Future[UploadedPart]:
        return self.later("upload_part", UploadedPart(number, 1, '"p"', "AAAAAA=="))

    def create_upload(self, request: PutRequest) -> tuple[str, None]:
        self.step("create_upload")
        return "u1", None

    def complete_upload(self, *_: object) -> PutAnswer:
        self.step("complete_upload")
        return ANSWER

    def abort_upload(self, *_: object) -> None:
        self.step("abort_upload")

    def head(self, key: str) -> None:
        self.step("head")

    def delete(self, key: str, etag: str | None = None) -> None:
        self.step("delete")

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        self.calls.append(f"list {start_after}")
        for row in self.rows:
            if start_after is not None and row <= start_after:
                continue
            if row >= "b" and self.script:
                raise self.script.pop(0)
            yield ListedObject(row, 1, '"e"', datetime(2026, 1, 1, tzinfo=UTC))

    def read(self, key: str) -> Iterator[bytes]:
        self.step("read")
        yield b"one"
        if self.break_after == 1:
            raise Unavailable("broke off")
        yield b"two"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def store_with(scripted: Scripted, stop: threading.Event) -> Iterator[Callable[..., Any]]:
    opened = []

    def make(**rules: float) -> Any:
        rules = {"first_pause_seconds": 0.001, "longest_pause_seconds": 0.01, **rules}
        stores = RetryingStores(scripted, stop, RetryRules(**rules))  # type: ignore[arg-type]
        opened.append(stores)
        return stores.open(None, None, None)  # type: ignore[arg-type]

    yield make
    for stores in opened:
        stores.close()


CALLS: dict[str, Callable[[Any], Any]] = {
    "put": lambda store: store.put(ASKED, None).result(120),
    "upload_part": lambda store: store.upload_part("k", "u", 1, None, 0, 1).result(120),
    "create_upload": lambda store: store.create_upload(ASKED),
    "complete_upload": lambda store: store.complete_upload("k", "u", (), 1),
    "abort_upload": lambda store: store.abort_upload("k", "u"),
    "head": lambda store: store.head("k"),
    "delete": lambda store: store.delete("k", '"e"'),
    "list": lambda store: [row.key for row in store.list("")],
    "read": lambda store: list(store.read("k")),
}


@pytest.mark.parametrize("call", CALLS)
def test_throttling_is_waited_out(scripted: Scripted, store_with: Callable[..., Any], call: str) -> None:
    scripted.script = [Throttled("1"), Throttled("2"), Throttled("3")]
    CALLS[call](store_with())
    assert len(scripted.calls) == 4


@pytest.mark.parametrize("call", CALLS)
def test_the_fourth_failure_is_the_last(
    scripted: Scripted, store_with: Callable[..., Any], call: str
) -> None:
    scripted.script = [Throttled(str(number)) for number in range(1, 9)]
    with pytest.raises(Throttled, match="4"):
        CALLS[call](store_with())
    assert len(scripted.calls) == 4


@pytest.mark.parametrize("kind", PASSING)
def test_a_put_is_tried_again_after_what_passes(
    scripted: Scripted, store_with: Callable[..., Any], kind: type[XmodeError]
) -> None:
    scripted.script = [kind("1")]
    assert CALLS["put"](store_with()) == ANSWER
    assert scripted.calls == ["put", "put"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", FINAL)
def test_what_does_not_pass_is_said_at_once(
    scripted: Scripted, store_with: Callable[..., Any], call: str, kind: type[XmodeError]
) -> None:
    scripted.script = [kind("1")]
    with pytest.raises(kind, match="1"):
        CALLS[call](store_with())
    assert len(scripted.calls) == 1


def test_a_defect_is_not_tried_again(scripted: Scripted, store_with: Callable[..., Any]) -> None:
    scripted.script = [ZeroDivisionError("1")]
    with pytest.raises(ZeroDivisionError):
        CALLS["put"](store_with())
    assert scripted.calls == ["put"]


@pytest.mark.parametrize("kind", [Unavailable, ChecksumMismatch])
def test_an_uncertain_completion_is_the_callers_to_settle(
    scripted: Scripted, store_with: Callable[..., Any], kind: type[XmodeError]
) -> None:
    scripted.script = [kind("lost")]
    with pytest.raises(kind):
        CALLS["complete_upload"](store_with())
    assert scripted.calls == ["complete_upload"]


def test_a_put_that_meets_its_own_object_says_so(scripted: Scripted, store_with: Callable[..., Any]) -> None:
    scripted.script = [Unavailable("the answer was lost"), ObjectExists("taken")]
    with pytest.raises(ObjectExists):
        CALLS["put"](store_with())


def test_a_listing_goes_on_where_it_broke_off(scripted: Scripted, store_with: Callable[..., Any]) -> None:
    scripted.script = [Unavailable("1"), Unavailable("2")]
    assert [row.key for row in store_with().list("")] == ["a", "b", "c"]
    assert scripted.calls == ["list None", "list a", "list a"]


def test_a_listing_that_gets_on_has_new_attempts(scripted: Scripted, store_with: Callable[..., Any]) -> None:
    scripted.rows = [f"b{number:02d}" for number in range(20)]

    class Every(list[Exception]):
        """Fails before every other row."""

        turn = 0

        def __bool__(self) -> bool:
            self.turn += 1
            return self.turn % 2 == 1

        def pop(self, _: Any = 0) -> Exception:
            return Unavailable("again")

    scripted.script = Every()
    assert [row.key for row in store_with().list("")] == scripted.rows


def test_a_reading_that_breaks_off_later_is_the_callers(
    scripted: Scripted, store_with: Callable[..., Any]
) -> None:
    scripted.break_after = 1
    chunks = store_with().read("k")
    assert next(chunks) == b"one"
    with pytest.raises(Unavailable):
        next(chunks)
    assert scripted.calls == ["read"]


def test_after_the_deadline_nothing_is_begun(scripted: Scripted, store_with: Callable[..., Any]) -> None:
    scripted.script = [Throttled("1"), Throttled("2")]
    with pytest.raises(Throttled, match="1"):
        CALLS["put"](store_with(deadline_seconds=0))


@pytest.mark.parametrize("call", ["put", "head"])
def test_a_stop_ends_the_waiting_with_the_error_that_was_waited_for(
    scripted: Scripted, store_with: Callable[..., Any], stop: threading.Event, call: str
) -> None:
    scripted.script = [Throttled("1")] * 4
    store = store_with(first_pause_seconds=1000, longest_pause_seconds=1000, deadline_seconds=10_000)
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Throttled):
        CALLS[call](store)
    assert time.monotonic() - began < 120
    assert len(scripted.calls) == 1


def test_pauses_are_random_and_grow_to_a_limit() -> None:
    rules = RetryRules(attempts=10)
    limits = [1, 2, 4, 8, 16, 20, 20, 20, 20]
    seen: list[list[float]] = []
    for _ in range(60):
        attempts = rules.begin("put", "k")
        seen.append([pause for _ in limits if (pause := attempts.pause_after(Throttled("x"))) is not None])
    for number, limit in enumerate(limits):
        column = [pauses[number] for pauses in seen]
        assert 0 <= min(column) < limit / 2 < max(column) <= limit


def test_no_thread_waits_for_an_object_that_waits(
    scripted: Scripted, store_with: Callable[..., Any], stop: threading.Event
) -> None:
    # More refusals than objects: full jitter may draw a pause of nothing, and that one asks again at once.
    scripted.script = [Throttled("x")] * 2000
    store = store_with(first_pause_seconds=1000, longest_pause_seconds=1000)
    futures = [store.put(ASKED, None) for _ in range(200)]
    deadline = time.monotonic() + 120
    while len(scripted.calls) < 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    waiting = [thread for thread in threading.enumerate() if thread.name == "timer"]
    assert len(waiting) <= 1
    stop.set()
    for future in futures:
        with pytest.raises(Throttled):
            future.result(120)


def test_closing_waits_for_what_is_tried_again(scripted: Scripted, store_with: Callable[..., Any]) -> None:
    scripted.script = [Throttled("1"), Throttled("2")]
    store = store_with(first_pause_seconds=0.05, longest_pause_seconds=0.05)
    future = store.put(ASKED, None)
    store.close()
    assert future.done()
    assert scripted.closed


def test_what_the_store_knows_shows_through(store_with: Callable[..., Any], scripted: Scripted) -> None:
    store = store_with()
    assert (store.region, store.checksum_algorithm) == ("eu-west-1", "crc32")
    assert RetryingStores(scripted, threading.Event()).info == scripted.info  # type: ignore[arg-type]


# --- The timer --------------------------------------------------------------------------------------


def test_the_timer_begins_things_in_the_order_of_their_times(stop: threading.Event) -> None:
    timer, seen, last = Timer(stop), [], threading.Event()
    timer.after(2.0, lambda: (seen.append("late"), last.set()), seen.clear)  # type: ignore[arg-type, return-value]
    timer.after(0.02, lambda: seen.append("early"), seen.clear)
    assert last.wait(120)
    assert seen == ["early", "late"]


def test_the_timers_thread_ends_when_nothing_waits(stop: threading.Event) -> None:
    timer = Timer(stop)
    for _ in range(2):
        done = threading.Event()
        timer.after(0, done.set, done.set)
        assert done.wait(120)
    deadline = time.monotonic() + 120
    while any(thread.name == "timer" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.name == "timer" for thread in threading.enumerate())


def test_a_closed_timer_gives_up_what_waits_and_what_comes(stop: threading.Event) -> None:
    timer, given_up = Timer(stop), threading.Semaphore(0)
    timer.after(1000, lambda: None, given_up.release)
    timer.close()
    assert given_up.acquire(timeout=120)
    timer.after(1000, lambda: None, given_up.release)
    assert given_up.acquire(timeout=120)


def test_the_documentation_has_the_numbers() -> None:
    text = (Path(__file__).parents[3] / "docs" / "retries.md").read_text(encoding="utf-8")
    assert f"| one request to S3 | the engine (botocore, mode `standard`) | {REQUEST_ATTEMPTS} times" in text
    assert (
        f"`adapters/retrying.py` | {ATTEMPTS} times in all | 0 to min({LONGEST_PAUSE_SECONDS:.0f}, 2^n)"
        in text
    )
    assert f"success, {DEADLINE_SECONDS:.0f} s since its begin" in text
    assert f"{REQUEST_ATTEMPTS} x {ATTEMPTS} = {REQUEST_ATTEMPTS * ATTEMPTS} requests" in text
