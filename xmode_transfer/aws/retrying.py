"""Tries again what passes by itself: once more for the object, after the engine's own tries for the request
are used up. docs/retries.md has all levels and their product."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, stop_after_attempt, stop_after_delay, wait_random_exponential

from xmode_transfer import telemetry
from xmode_transfer.model.errors import CertificateRefused, XmodeError

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
