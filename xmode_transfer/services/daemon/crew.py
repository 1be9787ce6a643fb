"""The pool: it gives turns to customers, watches that they get on, and knows what each is doing.

The decisions are ``domain.fairness``; here are the threads, the lock and the clock.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import ConfigError, LedgerError, VendorIdentityError, XmodeError
from xmode_transfer.domain.fairness import STALLED_SECONDS, WAITING_PLACES, Round
from xmode_transfer.ports import Clock, Progress
from xmode_transfer.ports.board import Turn, TurnState
from xmode_transfer.services.daemon.turns import TurnEnd, Turns
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event


class _Watched:
    """A turn's progress: tells whoever is told of all, and remembers when it last moved."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self.moved_at = clock.monotonic()

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        self._progress.delivery_started(customer, feed, period, objects, total_bytes)

    def bytes_sent(self, count: int) -> None:
        self.moved_at = self._clock.monotonic()
        self._progress.bytes_sent(count)

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        if outcome == "delivered":
            self.moved_at = self._clock.monotonic()
        self._progress.object_finished(name, size, outcome)

    def delivery_finished(self) -> None:
        self._progress.delivery_finished()


@dataclass(slots=True)
class _Running:
    """A turn that runs. ``stop`` ends it where it can be resumed."""

    watched: _Watched
    began_at: float  # monotonic seconds
    stop: threading.Event = field(default_factory=threading.Event)


class Crew:
    """Thread-safe."""

    def __init__(
        self,
        bench: Workbench,
        turns: Turns,
        workers: int,
        *,
        ended: Callable[[str, TurnEnd], None],
        trouble: Callable[[XmodeError], None],
    ) -> None:
        """``ended`` hears how each turn ended; ``trouble`` what concerns all customers. Both are called by
        the turn's own thread, without a lock."""
        self._bench = bench
        self._turns = turns
        self._ended = ended
        self._trouble = trouble
        self.workers = workers
        self._lock = threading.Condition()
        waiting = WAITING_PLACES * workers
        self._round = Round(workers, waiting)
        self._threads = ThreadPoolExecutor(workers + waiting, thread_name_prefix="turn")
        self._running: dict[str, _Running] = {}
        self._board: dict[str, Turn] = {}
        self._paused = False
        self._closed = False

    # --- Who takes part ----------------------------------------------------------------------------------

    def seat(self, weights: Mapping[str, int]) -> None:
        """The customers that take part from now on; what runs for others is stopped where it can be
        resumed."""
        with self._lock:
            for name in self._round.seat(weights):
                self._stop(name)
            now = self._bench.clock.now()
            for name in self._board.keys() - weights.keys():
                if name not in self._running:
                    del self._board[name]
            for name in weights:
                self._board.setdefault(name, Turn(name, TurnState.RESTING, now))

    def rest(self, name: str, turn: Turn) -> None:
        """What is known of a customer before its first turn."""
        with self._lock:
            if name in self._board:
                self._board[name] = turn

    def stop(self, name: str) -> None:
        """Stops the customer's turn, if one runs, where it can be resumed."""
        with self._lock:
            self._stop(name)

    def _stop(self, name: str) -> None:
        running = self._running.get(name)
        if running is not None:
            running.stop.set()

    # --- Turns -------------------------------------------------------------------------------------------

    def call(self, name: str) -> None:
        """Gives the customer a turn as soon as it is its."""
        with self._lock:
            if self._closed or name not in self._board:
                return
            self._round.call(name)
            if self._round.is_queued(name) and self._board[name].state is not TurnState.QUEUED:
                self._board[name] = replace(
                    self._board[name], state=TurnState.QUEUED, since_at=self._bench.clock.now()
                )
            self._begin()

    def attend(self, turn_seconds: float) -> None:
        """Called every second or so: moves turns that do not get on to the waiting room, and asks those that
        have had ``turn_seconds`` to make room, where somebody waits for it."""
        with self._lock:
            now = self._bench.clock.monotonic()
            freed = False
            for name, running in self._running.items():
                if now - running.watched.moved_at > STALLED_SECONDS and self._round.stall(name):
                    telemetry.debug(Event.TURN_STALLED, customer=name)
                    freed = True
                elif now - running.began_at > turn_seconds and self._round.is_contended(name):
                    running.stop.set()
            if freed:
                self._begin()

    def _begin(self) -> None:
        if self._paused or self._closed:
            return
        for name, _ in self._round.begin():
            running = _Running(
                _Watched(self._bench.progress, self._bench.clock), self._bench.clock.monotonic()
            )
            self._running[name] = running
            known = self._board[name]
            self._board[name] = replace(known, state=TurnState.RUNNING, since_at=self._bench.clock.now())
            self._threads.submit(self._turn, name, running)

    def _turn(self, name: str, running: _Running) -> None:
        end = TurnEnd()
        try:
            end = self._turns.take(name, running.stop, running.watched, lambda *what: self._tell(name, *what))
        except (VendorIdentityError, LedgerError) as error:
            end = TurnEnd(again=True)  # its turn comes again when that is over
            self._trouble(error)
        except ConfigError as error:
            telemetry.warn(Event.TURN_FAILED, customer=name, **error.log_context())
        except XmodeError as error:  # a lease that was taken over: whoever has it goes on
            telemetry.warn(Event.TURN_FAILED, customer=name, **error.log_context())
            end = self._later(error.message)
        except Exception as error:  # noqa: BLE001 - a defect ends this customer's turn, not the daemon
            telemetry.exception(Event.DEFECT, customer=name)
            end = self._later(f"{type(error).__name__}: {error}")
        try:
            self._ended(name, end)
        except XmodeError as error:
            self._trouble(error)
        finally:
            self._finish(name, end)

    def _later(self, reason: str) -> TurnEnd:
        next_at = self._bench.backoff.next_attempt_at(None, self._bench.clock.now())
        return TurnEnd(next_at=next_at, reason=reason)

    def _tell(self, name: str, feed: str, period: str) -> None:
        with self._lock:
            self._board[name] = replace(self._board[name], feed=feed, period=period)

    def _finish(self, name: str, end: TurnEnd) -> None:
        with self._lock:
            del self._running[name]
            self._round.end(name, again=end.again and not self._closed, ailing=end.broken_off)
            now = self._bench.clock.now()
            if not self._round.is_queued(name):
                state = TurnState.BROKEN_OFF if end.broken_off else TurnState.RESTING
            else:
                state = TurnState.QUEUED
            self._board[name] = Turn(name, state, now, end.next_at, end.feed, end.period, end.reason)
            self._begin()
            self._lock.notify_all()

    # --- All of them -------------------------------------------------------------------------------------

    def pause(self) -> None:
        """No turn begins until ``resume``: what is wrong would meet every customer."""
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        with self._lock:
            self._paused = False
            self._begin()

    def close(self) -> None:
        """No turn begins any more."""
        with self._lock:
            self._closed = True

    def stop_all(self) -> None:
        """Stops what runs where it can be resumed."""
        with self._lock:
            for running in self._running.values():
                running.stop.set()

    def wait(self, seconds: float) -> bool:
        """Waits for the turns that run; whether all have ended."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._running, seconds)

    @property
    def busy(self) -> int:
        with self._lock:
            return len(self._running)

    def turns(self) -> list[Turn]:
        """One for each customer that takes part, by name."""
        with self._lock:
            return [turn for _, turn in sorted(self._board.items())]

    def turn(self, name: str) -> Turn | None:
        with self._lock:
            return self._board.get(name)
