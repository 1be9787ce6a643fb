"""How fast one customer is sent to. No I/O: time is given."""

RETRY_BUDGET = 100.0
"""Retries that one customer may use up before its successes earn new ones: when nothing works, the load must
not multiply."""
RETRY_EARNED = 0.2
"""What each success gives back."""


class Pace:
    """Requests that one customer may have in flight: halved when S3 says SlowDown, won back one by one
    (additive increase, multiplicative decrease). Whoever uses it holds the lanes' lock."""

    __slots__ = ("_cut_at", "_most", "_retries", "allowed", "in_flight")

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._cut_at = float("-inf")
        self._retries = RETRY_BUDGET
        self.allowed = float(most)
        self.in_flight = 0

    def has_room(self) -> bool:
        return self.in_flight < int(self.allowed)

    def limit(self, most: int) -> None:
        """So many and no more from now on; what S3 has slowed down stays as slow in proportion."""
        self.allowed = max(1.0, self.allowed * most / self._most)
        self._most = float(most)

    def slow_down(self, sent_at: float, now: float) -> None:
        """One cut for all that was in flight together: what was sent before the last cut says nothing new."""
        if sent_at > self._cut_at:
            self.allowed = max(1.0, self.allowed / 2)
            self._cut_at = now

    def succeeded(self) -> None:
        if self.allowed < self._most:
            self.allowed = min(self._most, self.allowed + 1 / self.allowed)
        if self._retries < RETRY_BUDGET:
            self._retries = min(RETRY_BUDGET, self._retries + RETRY_EARNED)

    def may_retry(self) -> bool:
        """Takes one retry from the budget, if there is any left."""
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True
