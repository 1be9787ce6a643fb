"""Keeps what is sent within a bandwidth that changes with the time of day. Both engines use it."""

from xmode_transfer.model.bandwidth import Timetable, limit_at
from xmode_transfer.model.process import Clock

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

    def __init__(self, timetable: Timetable, clock: Clock) -> None:
        self._timetable = timetable
        self._clock = clock
        self._filled_at = clock.monotonic()
        self._look_at = self._filled_at
        self._rate: float | None = limit_at(timetable, clock.now())
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

    def follow(self, timetable: Timetable) -> None:
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
        limit = limit_at(self._timetable, self._clock.now())
        if limit is None:
            self._rate = None
            self._level = 0.0
        else:
            self._rate = limit


class Allowances:
    """One for the process, which all share, and one for each customer who has a limit of its own."""

    def __init__(self, of_process: Timetable, clock: Clock) -> None:
        self._clock = clock
        self.of_all = (Allowance(of_process, clock),) if of_process.is_limited else ()
        """What the bodies of a customer without a limit of its own are taken from."""
        self._of_customers: dict[str, Allowance] = {}

    def of(self, customer: str, timetable: Timetable) -> tuple[Allowance, ...]:
        """What a customer's bodies are taken from. All that is opened for a customer shares one allowance,
        which follows what was said of it last."""
        own = self._of_customers.get(customer)
        if own is None and timetable.is_limited:
            own = self._of_customers[customer] = Allowance(timetable, self._clock)
        if own is None:
            return self.of_all
        own.follow(timetable)
        return (*self.of_all, own)
