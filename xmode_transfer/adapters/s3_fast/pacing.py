"""How fast one customer is sent to, and how often a request is tried again. No I/O: time and chance are
given."""

ATTEMPTS = 5
"""How often one request is sent in all. docs/retries.md has the levels above."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
RETRY_BUDGET = 100.0
"""Retries that one customer may use up before its successes earn new ones: when nothing works, the load must
not multiply."""
RETRY_EARNED = 0.2
"""What each success gives back."""
_LEAST_SECONDS = 120.0
_LEAST_BYTES_PER_SECOND = 16 * 1024


def pause_before(attempt: int, chance: float) -> float:
    """Seconds to wait before attempt 2, 3, ...: with full jitter, anything up to ``0.5 * 2**(attempt - 2)``,
    20 at most. ``chance`` lies between 0 and 1."""
    return chance * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 2))


def deadline_seconds(length: int) -> float:
    """How long a request with that many bytes may take. A connection on which nothing moves is ended sooner,
    by the CRT's own monitor (docs/engine.md)."""
    return _LEAST_SECONDS + length / _LEAST_BYTES_PER_SECOND


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
