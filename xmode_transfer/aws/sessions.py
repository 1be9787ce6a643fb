"""A customer's role session, renewed while it is used, and the limit on sessions opened a second."""

import hashlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.model import errors
from xmode_transfer.model.process import Clock

REFRESH_BEFORE = timedelta(minutes=15)
"""A session with less time left than this is renewed before it is used."""
USABLE_FOR = timedelta(minutes=2)
"""If the renewal fails, a session with more time left than this is used all the same."""
RENEWAL_PAUSE_SECONDS = 30.0
SAVED_SECONDS = 1.0
"""The part of an unused budget that is saved up."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One role session's temporary credentials. The representation hides them from logs."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RoleRequest:
    """The parameters of AssumeRole. Requests that differ never share a session. ``trial``: the credentials
    are discarded, and nothing is logged. Only a trial may have no external ID."""

    customer: str
    step: Step
    role_arn: str
    account_id: str
    external_id: str | None
    session_name: str
    policy: str
    regions: tuple[str, ...]
    trial: bool = False


def session_name(step: Step, customer: str) -> str:
    """Return the name in the customer's CloudTrail: 2 to 64 characters of ``[\\w+=,.@-]`` (STS API reference,
    AssumeRole). A name that is cut ends in a digest, so that two customers never share one."""
    legal = re.sub(r"[^A-Za-z0-9_+=,.@-]", "-", f"xmode-{step}-{customer}")
    if len(legal) <= 64:
        return legal
    return f"{legal[:55]}-{hashlib.sha256(customer.encode()).hexdigest()[:8]}"


class CredentialsProvider:
    """One customer's session for one step, kept fresh. Thread-safe. Makes no call until ``get``."""

    def __init__(
        self, request: RoleRequest, clock: Clock, assume: Callable[[RoleRequest], Credentials]
    ) -> None:
        self.request = request
        self._clock = clock
        self._assume = assume
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._flight: Future[Credentials] | None = None
        self._renew_not_before = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.request.customer!r}, {self.request.step!r})"

    def get(self) -> Credentials:
        """Return credentials with enough time left for a request that begins now. One STS call at most is in
        flight, for any number of threads. Raises RoleRefused, VendorIdentityError, Throttled, Unavailable."""
        with self._lock:
            current = self._current
            if current is not None:
                left = current.expires_at - self._clock.now()
                # After a failed renewal, do not call STS for every request.
                is_paused = self._clock.monotonic() < self._renew_not_before
                if left >= REFRESH_BEFORE or (is_paused and left > USABLE_FOR):
                    return current
            leads = self._flight is None
            flight = self._flight = self._flight or Future()
        if leads:
            self._renew(flight)
        return flight.result()

    def invalidate(self, credentials: Credentials) -> None:
        """Report that S3 refused these credentials as expired. The next ``get`` calls STS, once."""
        with self._lock:
            if self._current == credentials:
                self._current = None

    def _renew(self, flight: Future[Credentials]) -> None:
        """Call STS once for all threads that wait for ``flight``, and end it in any case."""
        try:
            credentials = self._assume(self.request)
        except BaseException as error:
            # A refusal of the role ends the old session.
            passing = isinstance(error, errors.Throttled | errors.Unavailable | errors.VendorIdentityError)
            with self._lock:
                self._flight = None
                fallback = self._current if passing else None
                self._renew_not_before = self._clock.monotonic() + RENEWAL_PAUSE_SECONDS
            if fallback is not None and fallback.expires_at - self._clock.now() > USABLE_FOR:
                flight.set_result(fallback)
            else:
                flight.set_exception(error)
            if not isinstance(error, errors.XmodeError):
                raise
        else:
            with self._lock:
                self._flight = None
                self._current = credentials
                self._renew_not_before = 0.0
            flight.set_result(credentials)


class SessionBudget:
    """Makes callers wait for their slots, first come, first served. Thread-safe.

    Each of ``n`` processes has an n-th of the budget. Over any ``t`` seconds all of them together open no
    more than ``per_second * (t + SAVED_SECONDS)`` sessions, or ``per_second * t + n`` if there are more
    processes than ``per_second``.
    """

    def __init__(self, per_second: float, clock: Clock, stop: threading.Event | None = None) -> None:
        self._per_second = per_second
        self._clock = clock
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._participants = 1
        self._next_at = float("-inf")

    def share(self, participants: int) -> None:
        with self._lock:
            self._participants = max(1, participants)

    def reserve(self) -> float:
        """Take the next slot; return the seconds until it begins."""
        with self._lock:
            now = self._clock.monotonic()
            each = self._participants / self._per_second  # seconds from one slot to the next
            saved = max(0.0, SAVED_SECONDS - each)
            at = max(self._next_at, now - saved)
            self._next_at = at + each
            return max(0.0, at - now)

    def wait(self) -> None:
        """Wait for a slot for one call. Raises Interrupted on a stop."""
        seconds = self.reserve()
        if seconds and self._stop.wait(seconds):
            raise errors.Interrupted(
                "stopped before the role was assumed",
                hint="nothing was begun; the next run continues from there",
            )
