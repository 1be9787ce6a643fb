"""Where things go wrong on purpose: a hook that is asked before each request."""

import threading
from collections import Counter
from collections.abc import Callable
from enum import StrEnum


class Fault(StrEnum):
    """What a hook may answer instead of raising."""

    LOSE_ANSWER = "lose_answer"  # the request is carried out, and its answer never arrives


Faults = Callable[[str, str, int], Fault | None]
"""Called with the port's method, the object key and which attempt it is (from 1) before the request takes
effect. It may raise (the request then had no effect), wait, change something, or answer a Fault. The key of
a part is ``key#number``, of a listing its prefix, of AssumeRole the customer's name."""


class Requests:
    """Counts the requests of one kind of adapter and asks the hook before each. Thread-safe."""

    def __init__(self, faults: Faults | None) -> None:
        self.faults = faults
        self._lock = threading.Lock()
        self._attempts: Counter[tuple[str, str]] = Counter()

    def begin(self, operation: str, key: str) -> Fault | None:
        with self._lock:
            self._attempts[operation, key] += 1
            attempt = self._attempts[operation, key]
        return None if self.faults is None else self.faults(operation, key, attempt)

    def count(self, operation: str, key: str | None = None) -> int:
        """How many requests of that operation were begun, for that key or for all."""
        with self._lock:
            return sum(
                number
                for (name, of), number in self._attempts.items()
                if name == operation and key in (None, of)
            )
