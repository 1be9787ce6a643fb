"""How often STS is asked for a role session: so many times in a second, for all workers together.

Thousands of customers whose schedules come at the same moment would otherwise ask all at once, and STS
refuses who asks too fast.
"""

import threading

from xmode_transfer.model.errors import Interrupted
from xmode_transfer.model.process import Clock

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
