"""Retries of objects, the timer, the pace of a customer, and what is left to the caller."""

import io
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws.retrying import (
    ATTEMPTS,
    DEADLINE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    RETRY_BUDGET,
    Attempts,
    Pace,
    Retries,
    Timer,
)
from xmode_transfer.aws.s3_calls import REQUEST_ATTEMPTS
from xmode_transfer.aws.s3_fast import engine
from xmode_transfer.aws.s3_objects import S3Objects
from xmode_transfer.aws.stores import Deletion, PutRequest
from xmode_transfer.model.errors import (
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
from xmode_transfer.model.records import UploadedPart

PASSING = [Throttled, Unavailable, ChecksumMismatch, SessionExpired]
FINAL = [AccessDenied, RequestRefused, SourceChanged]
ASKED = PutRequest("xmode/a", "t", 1, "x/y")
AT = datetime(2026, 1, 1, tzinfo=UTC)


class Body(io.BytesIO):
    """The body of an answer; ``breaks`` after its first chunk."""

    breaks = False

    def iter_chunks(self, size: int) -> Any:
        yield b"one"
        if self.breaks:
            raise Unavailable("broke off")
        yield b"two"


class Scripted:
    """S3's calls, each of which ends as the next line of the script says: an error, or success."""

    region = "eu-west-1"
    bucket = "acme-data"

    def __init__(self) -> None:
        self.script: list[Exception] = []
        self.calls: list[str] = []
        self.rows = ["a", "b", "c"]
        self.body = Body()

    def call(self, operation: str, key: str | None = None, **asked: Any) -> dict[str, Any]:
        after = asked.get("StartAfter") or asked.get("ContinuationToken")
        self.calls.append(operation if after is None else f"{operation} after {after}")
        if operation == "ListObjectsV2":
            return self.page(after)
        if self.script:
            raise self.script.pop(0)
        return {
            "UploadId": "u1",
            "ETag": '"e"',
            "ContentLength": 1,
            "LastModified": AT,
            "Owner": {"ID": "o"},
            "Grants": [],
            "Body": self.body,
        }

    def page(self, after: str | None) -> dict[str, Any]:
        """One row a page, and an error from the script before every one but the first."""
        left = [row for row in self.rows if after is None or row > after]
        if after is not None and self.script:
            raise self.script.pop(0)
        row = {"Key": left[0], "Size": 1, "ETag": '"e"', "LastModified": AT}
        more = {"IsTruncated": True, "NextContinuationToken": left[0]} if len(left) > 1 else {}
        return {"Contents": [row], **more}

    def translated(self, _: Any) -> Any:
        return threading.Lock()  # a context that does nothing


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def store_with(
    scripted: Scripted, stop: threading.Event, clock: Any, customer_of: Any, retry_rules: Callable[..., None]
) -> Callable[..., S3Objects]:
    def make(**rules: Any) -> S3Objects:
        retry_rules(**{"first_pause_seconds": 0.001, "longest_pause_seconds": 0.01, **rules})
        return S3Objects(customer_of(), scripted, clock, Retries(stop))  # type: ignore[arg-type]

    return make


PART = UploadedPart(1, 1, '"p"', "AAAAAA==")
CALLS: dict[str, Callable[[S3Objects], Any]] = {
    "create_upload": lambda store: store.create_upload(ASKED),
    "complete_upload": lambda store: store.complete_upload("k", "u", [PART], 1),
    "abort_upload": lambda store: store.abort_upload("k", "u"),
    "head": lambda store: store.head("k"),
    "acl": lambda store: store.acl("k"),
    "delete": lambda store: store.delete("k", '"e"'),
    "read": lambda store: list(store.read("k")),
}


@pytest.mark.parametrize("call", CALLS)
def test_throttling_is_waited_out(
    scripted: Scripted, store_with: Callable[..., S3Objects], call: str
) -> None:
    scripted.script = [Throttled("1"), Throttled("2"), Throttled("3")]
    CALLS[call](store_with())
    assert len(scripted.calls) == 4


@pytest.mark.parametrize("call", CALLS)
def test_the_fourth_failure_is_the_last(
    scripted: Scripted, store_with: Callable[..., S3Objects], call: str
) -> None:
    scripted.script = [Throttled(str(number)) for number in range(1, 9)]
    with pytest.raises(Throttled, match="4"):
        CALLS[call](store_with())
    assert len(scripted.calls) == 4


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again(
    scripted: Scripted, store_with: Callable[..., S3Objects], kind: type[XmodeError]
) -> None:
    scripted.script = [kind("1")]
    CALLS["create_upload"](store_with())
    assert len(scripted.calls) == 2


@pytest.mark.parametrize("call", [call for call in CALLS if call != "head"])
@pytest.mark.parametrize("kind", FINAL)
def test_what_does_not_pass_is_said_at_once(
    scripted: Scripted, store_with: Callable[..., S3Objects], call: str, kind: type[XmodeError]
) -> None:
    scripted.script = [kind("1")]
    with pytest.raises(kind, match="1"):
        CALLS[call](store_with())
    assert len(scripted.calls) == 1


def test_a_defect_is_not_tried_again(scripted: Scripted, store_with: Callable[..., S3Objects]) -> None:
    scripted.script = [ZeroDivisionError("1")]
    with pytest.raises(ZeroDivisionError):
        CALLS["create_upload"](store_with())
    assert len(scripted.calls) == 1


def test_what_one_operation_asks_inside_is_not_tried_again_by_itself(
    scripted: Scripted, store_with: Callable[..., S3Objects]
) -> None:
    """Else the attempts would multiply."""
    scripted.script = [ObjectExists("changed"), *(Throttled(str(number)) for number in range(9))]
    with pytest.raises(Throttled):
        store_with(attempts=2).delete("k", '"e"')
    assert scripted.calls == ["DeleteObject", "HeadObject", "DeleteObject"]


def test_deleting_many_is_tried_again_as_a_whole(
    scripted: Scripted, store_with: Callable[..., S3Objects]
) -> None:
    scripted.script = [Throttled("1")] * 4
    with pytest.raises(Throttled):
        store_with().delete_many([Deletion("k", '"e"')])
    assert len(scripted.calls) == 4


@pytest.mark.parametrize("kind", [Unavailable, ChecksumMismatch])
def test_an_uncertain_completion_is_the_callers_to_settle(
    scripted: Scripted, store_with: Callable[..., S3Objects], kind: type[XmodeError]
) -> None:
    scripted.script = [kind("lost"), RequestRefused("no composite")]
    with pytest.raises(kind):
        CALLS["complete_upload"](store_with())
    assert len(scripted.calls) == (1 if kind is Unavailable else 2)


def test_a_listing_goes_on_where_it_broke_off(
    scripted: Scripted, store_with: Callable[..., S3Objects]
) -> None:
    scripted.script = [Unavailable("1"), Unavailable("2")]
    assert [row.key for row in store_with().list("")] == ["a", "b", "c"]
    assert scripted.calls == ["ListObjectsV2", *["ListObjectsV2 after a"] * 3, "ListObjectsV2 after b"]


def test_a_listing_that_gets_on_has_new_attempts(
    scripted: Scripted, store_with: Callable[..., S3Objects]
) -> None:
    scripted.rows = [f"b{number:02d}" for number in range(20)]

    class Every(list[Exception]):
        """Fails before every other page."""

        turn = 0

        def __bool__(self) -> bool:
            self.turn += 1
            return self.turn % 2 == 1

        def pop(self, _: Any = 0) -> Exception:
            return Unavailable("again")

    scripted.script = Every()
    assert [row.key for row in store_with().list("")] == scripted.rows


def test_a_reading_that_breaks_off_later_is_the_callers(
    scripted: Scripted, store_with: Callable[..., S3Objects]
) -> None:
    scripted.body.breaks = True
    chunks = store_with().read("k")
    assert next(chunks) == b"one"
    with pytest.raises(Unavailable):
        next(chunks)
    assert scripted.calls == ["GetObject"]


def test_after_the_deadline_nothing_is_begun(
    scripted: Scripted, store_with: Callable[..., S3Objects]
) -> None:
    scripted.script = [Throttled("1"), Throttled("2")]
    with pytest.raises(Throttled, match="1"):
        CALLS["create_upload"](store_with(deadline_seconds=0))


def test_a_stop_ends_the_waiting_with_the_error_that_was_waited_for(
    scripted: Scripted, store_with: Callable[..., S3Objects], stop: threading.Event
) -> None:
    scripted.script = [Throttled("1")] * 4
    store = store_with(first_pause_seconds=1000, longest_pause_seconds=1000, deadline_seconds=10_000)
    stop.set()
    began = time.monotonic()
    with pytest.raises(Throttled):
        store.head("k")
    assert time.monotonic() - began < 120


def test_pauses_are_random_and_grow_to_a_limit(retry_rules: Callable[..., None]) -> None:
    retry_rules(attempts=10)
    limits = [2, 4, 8, 16, 20, 20, 20, 20, 20]
    seen: list[list[float]] = []
    for _ in range(60):
        attempts = Attempts("put", "k")
        seen.append([pause for _ in limits if (pause := attempts.pause_after(Throttled("x"))) is not None])
    for number, limit in enumerate(limits):
        column = [pauses[number] for pauses in seen]
        assert 0 <= min(column) < limit / 2 < max(column) <= limit


def test_the_documentation_has_the_numbers() -> None:
    text = (Path(__file__).parents[3] / "docs" / "retries.md").read_text(encoding="utf-8")
    assert f"{REQUEST_ATTEMPTS} times in all" in text
    assert f"{ATTEMPTS} times in all | 0 to min({LONGEST_PAUSE_SECONDS:.0f}, 2^n)" in text
    assert f"{DEADLINE_SECONDS:.0f} s since its first failure" in text
    assert f"{REQUEST_ATTEMPTS} x {ATTEMPTS} = {REQUEST_ATTEMPTS * ATTEMPTS}" in text


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


@given(attempt=st.integers(2, 40), chance=st.floats(0, 1))
def test_a_pause_is_anything_up_to_its_bound(attempt: int, chance: float) -> None:
    bound = min(engine.LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** (attempt - 2))
    assert 0 <= engine.pause_before(attempt, chance) <= bound
    assert engine.pause_before(attempt, 1.0) == bound
    assert engine.pause_before(attempt, 0.0) == 0


def test_all_pauses_of_one_request_are_short() -> None:
    assert sum(engine.pause_before(attempt, 1.0) for attempt in range(2, engine.ATTEMPTS + 1)) == 7.5


def test_a_deadline_grows_with_the_size() -> None:
    assert engine.deadline_seconds(0) == 120
    assert engine.deadline_seconds(16 * 2**20) == 120 + 1024


def test_slowdown_halves_once_for_what_was_in_flight_together() -> None:
    pace = Pace(16)
    for _ in range(5):  # all five were sent before the first refusal came
        pace.slow_down(sent_at=10.0, now=11.0)
    assert pace.allowed == 8
    pace.slow_down(sent_at=11.5, now=12.0)
    assert pace.allowed == 4


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 64))
def test_the_pace_stays_between_one_and_its_limit(fine: list[bool], most: int) -> None:
    pace = Pace(most)
    for now, succeeded in enumerate(fine):
        if succeeded:
            pace.succeeded()
        else:
            pace.slow_down(sent_at=float(now), now=float(now))
        assert 1 <= pace.allowed <= most
        assert pace.has_room()


def test_it_recovers_by_one_a_round() -> None:
    pace = Pace(16)
    for now in (1.0, 2.0, 3.0):
        pace.slow_down(sent_at=now, now=now)
    assert pace.allowed == 2
    rounds = 0
    while pace.allowed < 16:
        for _ in range(int(pace.allowed)):
            pace.succeeded()
        rounds += 1
    assert 12 <= rounds <= 16


def test_the_budget_of_retries_runs_out_and_is_earned_again() -> None:
    pace = Pace(4)
    assert sum(pace.may_retry() for _ in range(1000)) == RETRY_BUDGET
    for _ in range(5):
        pace.succeeded()
    assert pace.may_retry()
    assert not pace.may_retry()
    for _ in range(10_000):
        pace.succeeded()
    assert sum(pace.may_retry() for _ in range(1000)) == RETRY_BUDGET
