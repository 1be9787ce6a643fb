"""The customers' roles, assumed."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import Interrupted
from xmode_transfer.model.process import Clock


@dataclass(frozen=True, slots=True)
class Credentials:
    """One role session's temporary credentials. Never logged: the representation hides them."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


class CredentialsProvider(Protocol):
    """Gives one customer's credentials for one step, fresh for as long as it is used."""

    def get(self) -> Credentials:
        """Credentials with enough life left for a request begun now. Refreshes when they are near their end,
        with one STS call in flight however many threads ask. Raises RoleRefused (permanent),
        VendorIdentityError (ours), Throttled or Unavailable. Never answers another identity's credentials."""
        ...

    def invalidate(self, credentials: Credentials) -> None:
        """Says that S3 refused these as expired. The next ``get`` asks STS again, once for all who were given
        them."""
        ...


class RoleSessions(Protocol):
    """The customers' roles, assumed with their external IDs."""

    def verify_identity(self) -> str | None:
        """The ARN that our own credentials belong to; None when it is not verified (vendor.verify_identity).
        Raises VendorIdentityError when there are none, when AWS refuses them, or when they are not the
        configured vendor principal. No customer is touched."""
        ...

    def open(self, customer: Customer, step: Step) -> CredentialsProvider:
        """A provider keyed by (customer, step); the session policy allows that step's verbs below that prefix
        only. No call is made until ``get``."""
        ...

    def share_budget(self, participants: int) -> None:
        """So many processes ask STS from now on, this one among them: of the sessions that may be asked for
        in a second, each uses an equal part."""
        ...


SAVED_SECONDS = 1.0
"""How much of an unused budget is saved up."""


class SessionBudget:
    """Makes who asks wait for a turn, in the order of asking. Thread-safe.

    Each of ``n`` processes has an n-th of the budget. Over any ``t`` seconds all of them together ask no more
    than ``per_second * (t + SAVED_SECONDS)`` times, or ``per_second * t + n`` where there are more processes
    than ``per_second``.
    """

    def __init__(self, per_second: float, clock: Clock, stop: threading.Event | None = None) -> None:
        self._per_second = per_second
        self._clock = clock
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._participants = 1
        self._next_at = float("-inf")

    def share(self, participants: int) -> None:
        """So many processes have the budget together from now on."""
        with self._lock:
            self._participants = max(1, participants)

    def reserve(self) -> float:
        """Takes the next turn; answers the seconds until it comes."""
        with self._lock:
            now = self._clock.monotonic()
            each = self._participants / self._per_second  # seconds from one turn to the next
            saved = max(0.0, SAVED_SECONDS - each)
            at = max(self._next_at, now - saved)
            self._next_at = at + each
            return max(0.0, at - now)

    def wait(self) -> None:
        """Returns when STS may be asked once. Raises Interrupted when we are asked to stop meanwhile."""
        seconds = self.reserve()
        if seconds and self._stop.wait(seconds):
            raise Interrupted(
                "we were asked to stop before the role was assumed",
                hint="nothing was begun; the next run goes on from there",
            )
