"""A daemon's side of the work queue: it queues customers, and hears what came of their turns.

The queue knows who is where; the daemon only asks it, and remembers the answer for the board.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import LedgerError, XmodeError
from xmode_transfer.domain.fleet import Call, FleetState, FleetTurn, WorkerRecord
from xmode_transfer.ports import WorkQueue
from xmode_transfer.ports.board import Turn, TurnState
from xmode_transfer.services.daemon.turns import TurnEnd
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

REAP_SECONDS = 5.0
"""How often each daemon and each worker looks for turns whose worker is gone."""

_Wish = tuple[str, str]  # what is wished, and for which customer


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that is still to be written."""

    hurried: bool = False
    serving_at: datetime | None = None

    def and_then(self, other: "_Call") -> "_Call":
        times = [time for time in (self.serving_at, other.serving_at) if time is not None]
        return _Call(self.hurried or other.hurried, max(times, default=None))


class Dispatch:
    """Thread-safe. Calls are written by ``attend``, all that have come since it was called last. What the
    queue does not take now is told as trouble, and tried again by ``attend``."""

    def __init__(
        self,
        bench: Workbench,
        queue: WorkQueue,
        *,
        ended: Callable[[str, TurnEnd], None],
        trouble: Callable[[XmodeError], object],
    ) -> None:
        """``ended`` hears how each turn ended, ``trouble`` what concerns all customers; ``attend`` calls
        ``ended``. Both are called without a lock."""
        self._bench = bench
        self._queue = queue
        self._ended = ended
        self._trouble = trouble
        self._lock = threading.Lock()
        self._seated: frozenset[str] = frozenset()
        self._known: dict[str, FleetTurn] = {}
        self._serial = 0
        self._told: dict[str, int] = {}  # by customer, the serial of the last end that ``ended`` has heard of
        self._caught_up = False  # whether all turns were read once
        self._wishes: dict[_Wish, Callable[[], None]] = {}
        self._calls: dict[str, _Call] = {}
        self._workers: tuple[WorkerRecord, ...] = ()
        self._idle = False  # somebody is queued, and no worker lives
        self._reaped = -REAP_SECONDS
        self._closed = False

    # --- What is asked of the queue ----------------------------------------------------------------------

    def seat(self, weights: Mapping[str, int]) -> None:
        """The customers that take part from now on, with their weights; what runs for others is stopped
        where it can be resumed."""
        weights = dict(weights)
        with self._lock:
            self._seated = frozenset(weights)
            self._known = {name: turn for name, turn in self._known.items() if name in self._seated}
        self._wish(("seat", ""), lambda: self._queue.seat(weights))

    def rest(self, turn: Turn) -> None:
        """What is known of a customer before its first turn."""
        rested = FleetTurn(
            turn.customer,
            FleetState(turn.state),
            turn.since_at,
            serial=0,
            next_at=turn.next_at,
            feed=turn.feed,
            period=turn.period,
            reason=turn.reason,
        )
        self._wish(("rest", turn.customer), lambda: self._queue.rest(rested))

    def call(self, name: str, *, hurried: bool = False, serving_at: datetime | None = None) -> None:
        """Gives the customer a turn as soon as it is its. ``hurried`` as in ``Turns.hurry``. ``serving_at``
        is the time of its schedule that the turn serves."""
        if name in self._seated:
            self._remember_call(name, _Call(hurried, serving_at))

    def stop(self, name: str) -> None:
        """The customer is to be looked at anew: its turn, if one runs, stops where it can be resumed. Workers
        read the files themselves; this is for the one that has not yet done so."""
        self._wish(("stop", name), lambda: self._queue.stop(name))

    def _wish(self, key: _Wish, wish: Callable[[], None]) -> None:
        with self._lock:
            behind = bool(self._wishes)  # what was wished before comes first
            self._wishes.pop(key, None)
            self._wishes[key] = wish
        if not behind:
            self._carry_out()

    def _carry_out(self) -> bool:
        """Whether nothing is left to be wished."""
        while True:
            with self._lock:
                key = next(iter(self._wishes), None)
                if key is None:
                    return True
                wish = self._wishes[key]
            try:
                wish()
            except LedgerError as error:
                self._trouble(error)
                return False
            with self._lock:
                if self._wishes.get(key) is wish:
                    del self._wishes[key]

    def _remember_call(self, name: str, call: _Call) -> None:
        with self._lock:
            if not self._closed:
                self._calls[name] = self._calls.get(name, _Call()).and_then(call)

    def _write_calls(self) -> bool:
        """Whether all that were remembered are written, many in a transaction."""
        with self._lock:
            calls, self._calls = self._calls, {}
        if self._closed or not calls:
            return True
        try:
            self._queue.call_all(Call(name, call.hurried, call.serving_at) for name, call in calls.items())
        except LedgerError as error:
            for name, call in calls.items():  # one that was written is not written twice: it is queued
                self._remember_call(name, call)
            self._trouble(error)
            return False
        return True

    # --- What the workers do -----------------------------------------------------------------------------

    def attend(self) -> None:
        """Called every second or so."""
        now = self._bench.clock.monotonic()
        if not (self._carry_out() and self._write_calls()):
            return
        try:
            if now - self._reaped >= REAP_SECONDS:
                self._reaped = now
                tell_of_taking_over(self._queue.reap())
            changed = self._queue.turns(self._serial)
            workers = tuple(self._queue.workers())
        except LedgerError as error:
            self._trouble(error)
            return
        with self._lock:
            self._workers = workers
            for turn in changed:
                self._known[turn.customer] = turn
                self._serial = max(self._serial, turn.serial)
        for turn in changed:
            self._hear(turn)
        self._caught_up = True
        self._look_for_workers()

    def _hear(self, turn: FleetTurn) -> None:
        """Tells how the turn ended. What ended before this daemon began is history, unless the customer is
        broken off still."""
        told, self._told[turn.customer] = self._told.get(turn.customer, 0), turn.ended_serial
        if turn.ended_serial <= told:
            return
        if not self._caught_up and turn.state is not FleetState.BROKEN_OFF:
            return
        end = TurnEnd(
            turn.again, turn.looked, turn.next_at, turn.feed, turn.period, turn.reason, turn.refused
        )
        try:
            self._ended(turn.customer, end)
        except XmodeError as error:
            self._trouble(error)

    def _look_for_workers(self) -> None:
        queued = sum(turn.state is FleetState.QUEUED for turn in self._known.values())
        idle = queued > 0 and not self._alive()
        if idle and not self._idle:
            telemetry.warn(Event.WORKERS_MISSING, queued=queued)
        self._idle = idle

    def _alive(self) -> list[WorkerRecord]:
        now = self._bench.clock.now()
        return [worker for worker in self._workers if worker.is_alive(now)]

    # --- The board ---------------------------------------------------------------------------------------

    @property
    def workers(self) -> int:
        """The places of all workers that live."""
        return sum(worker.places for worker in self._alive())

    @property
    def busy(self) -> int:
        """How many of these are taken. Turns that make no progress hold none."""
        return sum(worker.busy for worker in self._alive())

    def turns(self) -> list[Turn]:
        with self._lock:
            return [_seen(turn) for name, turn in sorted(self._known.items()) if name in self._seated]

    def turn(self, name: str) -> Turn | None:
        with self._lock:
            if name not in self._seated:
                return None
            known = self._known.get(name)
            if known is None:  # it takes part since a moment ago
                return Turn(name, TurnState.RESTING, self._bench.clock.now())
            return _seen(known)

    def close(self) -> None:
        """Nobody is queued any more by this process."""
        with self._lock:
            self._closed = True


def tell_of_taking_over(names: list[str]) -> None:
    """In the log, whose turns were taken from a worker that is gone."""
    for name in names:
        telemetry.warn(Event.TURN_TAKEN_OVER, customer=name)


def _seen(turn: FleetTurn) -> Turn:
    return Turn(
        turn.customer,
        TurnState(turn.state),
        turn.since_at,
        turn.next_at,
        turn.feed,
        turn.period,
        turn.reason,
    )
