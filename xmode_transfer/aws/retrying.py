"""When requests are sent, and sent again: the retry rules, the timer, each customer's pace and bandwidth.
docs/retries.md has all levels of retries and their product."""

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import NamedTuple, TypeVar

from tenacity import RetryCallState, Retrying, stop_after_attempt, stop_after_delay, wait_random_exponential

from xmode_transfer import telemetry
from xmode_transfer.config import BandwidthLimit
from xmode_transfer.model.errors import CertificateRefused, XmodeError
from xmode_transfer.model.process import Clock

T = TypeVar("T")

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 20.0
"""The pause after attempt n is between 0 and ``min(20, 2**n)`` seconds (full jitter). botocore 1.44 pauses
for less than a second in all between its attempts at a request, which does not outlast an outage."""
DEADLINE_SECONDS = 300.0
"""After an operation's first failure, new attempts begin within this time."""
RETRY_BUDGET = 100.0
"""Retries of one customer before its successes earn new ones: in an outage the load must not multiply."""
RETRY_EARNED = 0.2  # by each success
SAVED_SECONDS = 0.1
"""The unused bandwidth that is saved up: enough that a late timer costs nothing."""
LOOK_SECONDS = 1.0
"""The interval between two readings of the timetable."""
_SOONEST_SECONDS = 0.005


class Attempts:
    """The attempts of one operation. ``unless`` are transient errors that must not be retried here."""

    def __init__(self, operation: str, key: str, *, unless: tuple[type[XmodeError], ...] = ()) -> None:
        self._wait = wait_random_exponential(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._stop = stop_after_attempt(ATTEMPTS) | stop_after_delay(DEADLINE_SECONDS)
        self._operation = operation
        self._key = key
        self._unless: tuple[type[XmodeError], ...] = (CertificateRefused, *unless)
        self._state = RetryCallState(Retrying(), None, (), {})

    def pause_after(self, error: BaseException) -> float | None:
        """Return the seconds until the next attempt, or None if the error is final."""
        if not isinstance(error, XmodeError) or not error.retryable or isinstance(error, self._unless):
            return None
        self._state.set_exception((type(error), error, error.__traceback__))
        if self._stop(self._state):
            return None
        pause = self._wait(self._state)
        telemetry.log(
            telemetry.Event.OBJECT_RETRIED,
            operation=self._operation,
            key=self._key,
            attempt=self._state.attempt_number,
            pause_seconds=round(pause, 3),
            **error.log_context(),
        )
        self._state.prepare_for_next_attempt()
        return pause


class Retries:
    """Retries blocking calls. ``stop`` ends all waiting at once."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def call(
        self, operation: str, key: str, call: Callable[[], T], *, unless: tuple[type[XmodeError], ...] = ()
    ) -> T:
        attempts = None
        while True:
            try:
                return call()
            except XmodeError as error:
                attempts = attempts or Attempts(operation, key, unless=unless)
                self.pause(attempts, error)

    def pause(self, attempts: Attempts, error: XmodeError) -> None:
        """Wait for the next attempt; raise the error if there is none."""
        pause = attempts.pause_after(error)
        if pause is None or self._stop.wait(pause):
            raise error


class _Waiting(NamedTuple):
    due: float
    number: int
    begin: Callable[[], None]
    give_up: Callable[[], None]


class Timer:
    """One thread that makes calls at their time; it exists only while something waits. The calls must not
    block and must not raise."""

    _STOP_CHECK_SECONDS = 0.2

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._queue: list[_Waiting] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, seconds: float, begin: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Call ``begin`` after that time, or ``give_up`` on a stop."""
        with self._changed:
            heapq.heappush(
                self._queue, _Waiting(time.monotonic() + seconds, next(self._numbers), begin, give_up)
            )
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Give up everything that waits. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (calls := self._next()) is not None:
            for call in calls:
                call()

    def _next(self) -> list[Callable[[], None]] | None:
        """Return the calls to make now; None when nothing waits, which ends this thread."""
        with self._changed:
            while self._queue:
                if self._closed or self._stop.is_set():
                    given_up = [waiting.give_up for waiting in self._queue]
                    self._queue.clear()
                    return given_up
                left = self._queue[0].due - time.monotonic()
                if left <= 0:
                    return [heapq.heappop(self._queue).begin]
                self._changed.wait(min(left, self._STOP_CHECK_SECONDS))
            self._thread = None
            return None


class Pace:
    """The requests that one customer may have in flight: halved on SlowDown, then increased one by one
    (additive increase, multiplicative decrease), and its budget of retries. Guarded by the lanes' lock."""

    __slots__ = ("_cut_at", "_most", "_retries", "allowed", "in_flight")

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._cut_at = float("-inf")
        self._retries = RETRY_BUDGET
        self.allowed = float(most)
        self.in_flight = 0

    def has_room(self) -> bool:
        return self.in_flight < int(self.allowed)

    def slow_down(self, sent_at: float, now: float) -> None:
        """Halve once for all requests that were in flight together."""
        if sent_at > self._cut_at:
            self.allowed = max(1.0, self.allowed / 2)
            self._cut_at = now

    def succeeded(self) -> None:
        if self.allowed < self._most:
            self.allowed = min(self._most, self.allowed + 1 / self.allowed)
        if self._retries < RETRY_BUDGET:
            self._retries = min(RETRY_BUDGET, self._retries + RETRY_EARNED)

    def may_retry(self) -> bool:
        """Take one retry from the budget, if one is left."""
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True


class Allowance:
    """The bytes that may be sent. Bandwidth is kept on average: a request is sent at full speed, and the next
    one waits until the debt is paid. Not thread-safe: guard it with a lock."""

    __slots__ = ("_clock", "_filled_at", "_level", "_rate", "_read_at", "_timetable")

    def __init__(self, timetable: BandwidthLimit, clock: Clock) -> None:
        self._timetable = timetable
        self._clock = clock
        self._filled_at = clock.monotonic()
        self._read_at = self._filled_at
        self._rate: float | None = timetable.limit_at(clock.now())
        self._level = 0.0

    def wait(self) -> float:
        """Return the seconds until the next call of this is worth while; 0 if a request may be sent now."""
        self._fill()
        if self._rate is None or self._level >= 0:
            return 0.0
        # A limit may end sooner than the debt is paid.
        return max(_SOONEST_SECONDS, min(-self._level / self._rate, LOOK_SECONDS))

    def take(self, length: int) -> None:
        """Charge for bytes that are sent now. A negative ``length`` cancels a charge."""
        if self._rate is not None:
            self._level -= length

    def follow(self, timetable: BandwidthLimit) -> None:
        if timetable != self._timetable:
            self._fill()
            self._timetable = timetable
            self._read()

    def _fill(self) -> None:
        now = self._clock.monotonic()
        if self._rate is not None:
            most = self._rate * SAVED_SECONDS
            self._level = min(most, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if now >= self._read_at:
            self._read()

    def _read(self) -> None:
        """Read the timetable. A debt remains under another limit, and ends where there is none."""
        self._read_at = self._filled_at + LOOK_SECONDS
        self._rate = self._timetable.limit_at(self._clock.now())
        if self._rate is None:
            self._level = 0.0


class Allowances:
    """The allowance of the process, which all share, and one for each customer with a limit of its own."""

    def __init__(self, of_process: BandwidthLimit, clock: Clock) -> None:
        self._clock = clock
        self._of_process = (Allowance(of_process, clock),) if of_process.is_limited else ()
        self._of_customers: dict[str, Allowance] = {}

    def of(self, customer: str, timetable: BandwidthLimit) -> tuple[Allowance, ...]:
        """Return the allowances that a customer's bodies are charged to. Its stores share the latest
        timetable."""
        own = self._of_customers.get(customer)
        if own is None and timetable.is_limited:
            own = self._of_customers[customer] = Allowance(timetable, self._clock)
        if own is None:
            return self._of_process
        own.follow(timetable)
        return (*self._of_process, own)
