"""A turn that runs: what it is watched by, and what becomes of its errors."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import ConfigError, LedgerError, VendorIdentityError, XmodeError
from xmode_transfer.ports import Clock, Progress
from xmode_transfer.services.daemon.turns import TurnEnd
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event


class Watched:
    """A turn's progress: tells whoever is told of all, and remembers when it last moved and how far."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        self.moved_at = clock.monotonic()
        self.sent_bytes = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        self._progress.delivery_started(customer, feed, period, objects, total_bytes)

    def bytes_sent(self, count: int) -> None:
        with self._lock:
            self.moved_at = self._clock.monotonic()
            self.sent_bytes += count
        self._progress.bytes_sent(count)

    def bytes_resumed(self, count: int) -> None:
        self._progress.bytes_resumed(count)

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        if outcome == "delivered":
            self.moved_at = self._clock.monotonic()
        self._progress.object_finished(name, size, outcome)

    def delivery_finished(self) -> None:
        self._progress.delivery_finished()


@dataclass(slots=True, eq=False)
class RunningTurn:
    """``stop`` ends it where it can be resumed."""

    watched: Watched
    began_at: float  # monotonic seconds
    stop: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def beginning(bench: Workbench) -> "RunningTurn":
        return RunningTurn(Watched(bench.progress, bench.clock), bench.clock.monotonic())


def taken(
    name: str, take: Callable[[], TurnEnd], bench: Workbench, trouble: Callable[[XmodeError], object]
) -> TurnEnd:
    """What a turn came to, whatever it raised. ``trouble`` hears what concerns all customers."""
    try:
        return take()
    except (VendorIdentityError, LedgerError) as error:
        trouble(error)
        return TurnEnd(again=True)  # its turn comes again when that is over
    except ConfigError as error:
        telemetry.warn(Event.TURN_FAILED, customer=name, **error.log_context())
        return TurnEnd()
    except XmodeError as error:  # a lease that was taken over: whoever has it goes on
        telemetry.warn(Event.TURN_FAILED, customer=name, **error.log_context())
        return _later(bench, error.message)
    except Exception as error:  # noqa: BLE001 - a defect ends this customer's turn, not the process
        telemetry.exception(Event.DEFECT, customer=name)
        return _later(bench, f"{type(error).__name__}: {error}")


def _later(bench: Workbench, reason: str) -> TurnEnd:
    return TurnEnd(next_at=bench.backoff.next_attempt_at(None, bench.clock.now()), reason=reason)


# --- On a worker -----------------------------------------------------------------------------------------


class Room(Enum):
    """Where a worker's turn runs."""

    REGULAR = auto()
    BROKEN_OFF = auto()  # it came from the queue of those who are
    STALLED = auto()  # it began in a regular place and makes no progress


@dataclass(slots=True, eq=False)
class Taken:
    """A turn that a worker has taken. ``turn`` is there from when it begins."""

    customer: str
    room: Room
    turn: RunningTurn | None = None
