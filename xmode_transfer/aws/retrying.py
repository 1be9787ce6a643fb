"""Tries again what passes by itself: once more for the object, after the engine's own tries for the request
are used up. docs/retries.md has all levels and their product."""

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, TypeVar

from tenacity import RetryCallState, Retrying, stop_after_attempt, stop_after_delay, wait_random_exponential

from xmode_transfer import telemetry
from xmode_transfer.config import BandwidthLimit
from xmode_transfer.model.errors import CertificateRefused, XmodeError
from xmode_transfer.model.process import Clock

T = TypeVar("T")

ATTEMPTS = 4
"""How often one operation is begun in all."""
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 20.0
"""The pause after attempt n is anything between 0 and ``min(20, 2**n)`` seconds (full jitter). botocore 1.44
pauses for less than a second in all between its tries for a request: these are what outlasts an outage."""
DEADLINE_SECONDS = 300.0
"""Counted from an operation's first failure: later than this, nothing is begun again."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When to try again, and after which pause."""

    attempts: int = ATTEMPTS
    first_pause_seconds: float = FIRST_PAUSE_SECONDS
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS
    deadline_seconds: float = DEADLINE_SECONDS


class Attempts:
    """The attempts of one operation. ``unless`` are errors that would pass, and yet must not be tried again
    here."""

    def __init__(
        self, rules: RetryRules, what: str, key: str, *, unless: tuple[type[XmodeError], ...] = ()
    ) -> None:
        self._wait = wait_random_exponential(rules.first_pause_seconds, rules.longest_pause_seconds)
        self._stop = stop_after_attempt(rules.attempts) | stop_after_delay(rules.deadline_seconds)
        self._what = what
        self._key = key
        self._unless: tuple[type[XmodeError], ...] = (CertificateRefused, *unless)
        self._state = RetryCallState(Retrying(), None, (), {})

    def pause_after(self, error: BaseException) -> float | None:
        """Seconds until the next attempt, or None when the error is final."""
        if not isinstance(error, XmodeError) or not error.retryable or isinstance(error, self._unless):
            return None
        self._state.set_exception((type(error), error, error.__traceback__))
        if self._stop(self._state):
            return None
        pause = self._wait(self._state)
        telemetry.log(
            telemetry.Event.OBJECT_RETRIED,
            operation=self._what,
            key=self._key,
            attempt=self._state.attempt_number,
            pause_seconds=round(pause, 3),
            **error.log_context(),
        )
        self._state.prepare_for_next_attempt()
        return pause


class Retries:
    """Tries calls again that wait for their answer. ``stop`` ends all waiting at once."""

    def __init__(self, stop: threading.Event, rules: RetryRules | None = None) -> None:
        self._stop = stop
        self.rules = rules or RetryRules()

    def call(
        self, what: str, key: str, call: Callable[[], T], *, unless: tuple[type[XmodeError], ...] = ()
    ) -> T:
        attempts = None
        while True:
            try:
                return call()
            except XmodeError as error:
                attempts = attempts or Attempts(self.rules, what, key, unless=unless)
                self.pause(attempts, error)

    def pause(self, attempts: Attempts, error: XmodeError) -> None:
        """Returns when it is time for the next attempt; raises the error when there is none."""
        pause = attempts.pause_after(error)
        if pause is None or self._stop.wait(pause):
            raise error


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


SAVED_SECONDS = 0.1
"""How much unused bandwidth is saved up: enough that a timer that comes late costs nothing."""
LOOK_SECONDS = 1.0
"""How often the timetable is looked at."""
_SOONEST_SECONDS = 0.005


class Allowance:
    """What may be sent by now: it grows with time, and what is sent is taken from it. Bandwidth is kept on
    average: a request goes out at full speed, and the next one waits until what was sent is paid for.

    Not thread-safe: whoever shares it holds a lock.
    """

    __slots__ = ("_clock", "_filled_at", "_level", "_look_at", "_rate", "_timetable")

    def __init__(self, timetable: BandwidthLimit, clock: Clock) -> None:
        self._timetable = timetable
        self._clock = clock
        self._filled_at = clock.monotonic()
        self._look_at = self._filled_at
        self._rate: float | None = timetable.limit_at(clock.now())
        self._level = 0.0

    def wait(self) -> float:
        """Seconds until it is worth while to ask again; 0: a request may be sent now."""
        self._fill()
        if self._rate is None or self._level >= 0:
            return 0.0
        # A limit may end sooner than the debt is paid.
        return max(_SOONEST_SECONDS, min(-self._level / self._rate, LOOK_SECONDS))

    def take(self, length: int) -> None:
        """So many bytes are sent now."""
        if self._rate is not None:
            self._level -= length

    def give_back(self, length: int) -> None:
        """What was taken is not sent after all."""
        if self._rate is not None:
            self._level += length

    def follow(self, timetable: BandwidthLimit) -> None:
        """Another timetable holds from now on."""
        if timetable != self._timetable:
            self._fill()
            self._timetable = timetable
            self._look()

    def _fill(self) -> None:
        now = self._clock.monotonic()
        if self._rate is not None:
            most = self._rate * SAVED_SECONDS
            self._level = min(most, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if now >= self._look_at:
            self._look()

    def _look(self) -> None:
        """What is owed stays owed under another limit, and is forgiven where there is none."""
        self._look_at = self._filled_at + LOOK_SECONDS
        limit = self._timetable.limit_at(self._clock.now())
        if limit is None:
            self._rate = None
            self._level = 0.0
        else:
            self._rate = limit


class Allowances:
    """One for the process, which all share, and one for each customer who has a limit of its own."""

    def __init__(self, of_process: BandwidthLimit, clock: Clock) -> None:
        self._clock = clock
        self.of_all = (Allowance(of_process, clock),) if of_process.is_limited else ()
        """What the bodies of a customer without a limit of its own are taken from."""
        self._of_customers: dict[str, Allowance] = {}

    def of(self, customer: str, timetable: BandwidthLimit) -> tuple[Allowance, ...]:
        """What a customer's bodies are taken from. All that is opened for a customer shares one allowance,
        which follows what was said of it last."""
        own = self._of_customers.get(customer)
        if own is None and timetable.is_limited:
            own = self._of_customers[customer] = Allowance(timetable, self._clock)
        if own is None:
            return self.of_all
        own.follow(timetable)
        return (*self.of_all, own)
