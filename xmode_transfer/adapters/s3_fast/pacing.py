"""How often the fast engine sends one request, and how long it may take. No I/O: chance is given."""

ATTEMPTS = 5
"""How often one request is sent in all. docs/retries.md has the levels above."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
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
