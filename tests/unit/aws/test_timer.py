"""What waits for its time."""

import threading
import time

import pytest

from xmode_transfer.aws.retrying import Timer


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


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
