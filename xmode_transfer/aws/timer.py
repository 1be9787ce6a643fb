"""What waits for its time, without a thread for each."""

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import NamedTuple


class _Waiting(NamedTuple):
    due: float
    number: int
    begin: Callable[[], None]
    give_up: Callable[[], None]


class Timer:
    """One thread that begins things when their time has come; it lives only while something waits.

    ``begin`` and ``give_up`` must not block and must not raise.
    """

    _LOOK_SECONDS = 0.2  # how soon a stop is noticed

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._queue: list[_Waiting] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, seconds: float, begin: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Calls ``begin`` then, or ``give_up`` as soon as we are asked to stop."""
        with self._changed:
            heapq.heappush(
                self._queue, _Waiting(time.monotonic() + seconds, next(self._numbers), begin, give_up)
            )
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Gives up everything that waits. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (calls := self._next()) is not None:
            for call in calls:
                call()

    def _next(self) -> list[Callable[[], None]] | None:
        """What is to be called now; None when nothing waits any more, and then this thread ends."""
        with self._changed:
            while self._queue:
                if self._closed or self._stop.is_set():
                    given_up = [waiting.give_up for waiting in self._queue]
                    self._queue.clear()
                    return given_up
                left = self._queue[0].due - time.monotonic()
                if left <= 0:
                    return [heapq.heappop(self._queue).begin]
                self._changed.wait(min(left, self._LOOK_SECONDS))
            self._thread = None
            return None
