"""The pool: it gives turns to customers, watches that they get on, and knows what each is doing.

The decisions are ``domain.fairness``; here are the threads, the lock and the clock.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import XmodeError
from xmode_transfer.domain.fairness import STALLED_SECONDS, WAITING_PLACES, Round
from xmode_transfer.ports.board import Turn, TurnState
from xmode_transfer.services.daemon.running import RunningTurn, taken
from xmode_transfer.services.daemon.turns import TurnEnd, Turns
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event


class ThreadCrew:
    """Implements ``Crew`` on threads of this process."""

    alone = True

    def __init__(
        self,
        bench: Workbench,
        turns: Turns,
        *,
        workers: int,
        ended: Callable[[str, TurnEnd], None],
        trouble: Callable[[XmodeError], object],
    ) -> None:
        """``ended`` and ``trouble`` as in ``Hire``; both are called by the turn's own thread."""
        self._bench = bench
        self._turns = turns
        self._ended = ended
        self._trouble = trouble
        self.workers = workers
        self._lock = threading.Condition()
        waiting = WAITING_PLACES * workers
        self._round = Round(workers, waiting)
        self._threads = ThreadPoolExecutor(workers + waiting, thread_name_prefix="turn")
        self._running: dict[str, RunningTurn] = {}
        self._board: dict[str, Turn] = {}
        self._paused = False
        self._closed = False

    # --- Who takes part ----------------------------------------------------------------------------------

    def seat(self, weights: Mapping[str, int]) -> None:
        with self._lock:
            for name in self._round.seat(weights):
                self._stop(name)
            now = self._bench.clock.now()
            for name in self._board.keys() - weights.keys():
                if name not in self._running:
                    del self._board[name]
            for name in weights:
                self._board.setdefault(name, Turn(name, TurnState.RESTING, now))

    def rest(self, turn: Turn) -> None:
        with self._lock:
            if turn.customer in self._board:
                self._board[turn.customer] = turn

    def stop(self, name: str) -> None:
        with self._lock:
            self._stop(name)
        self._turns.forget(name)

    def _stop(self, name: str) -> None:
        running = self._running.get(name)
        if running is not None:
            running.stop.set()

    # --- Turns -------------------------------------------------------------------------------------------

    def call(self, name: str, *, hurried: bool = False, serving_at: datetime | None = None) -> None:
        """``serving_at`` says nothing here: whoever called remembers it until ``ended``."""
        if hurried:
            self._turns.hurry(name)
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
        """Moves turns that do not get on to the waiting room."""
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
            running = self._running[name] = RunningTurn.beginning(self._bench)
            known = self._board[name]
            self._board[name] = replace(known, state=TurnState.RUNNING, since_at=self._bench.clock.now())
            self._threads.submit(self._turn, name, running)

    def _turn(self, name: str, running: RunningTurn) -> None:
        def take() -> TurnEnd:
            return self._turns.take(
                name, running.stop, running.watched, lambda *what: self._tell(name, *what)
            )

        end = taken(name, take, self._bench, self._trouble)
        try:
            self._ended(name, end)
        except XmodeError as error:
            self._trouble(error)
        finally:
            self._finish(name, end)

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
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        with self._lock:
            self._paused = False
            self._begin()

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def stop_all(self) -> None:
        with self._lock:
            for running in self._running.values():
                running.stop.set()

    def wait(self, seconds: float) -> bool:
        with self._lock:
            return self._lock.wait_for(lambda: not self._running, seconds)

    @property
    def busy(self) -> int:
        with self._lock:
            return len(self._running)

    def turns(self) -> list[Turn]:
        with self._lock:
            return [turn for _, turn in sorted(self._board.items())]

    def turn(self, name: str) -> Turn | None:
        with self._lock:
            return self._board.get(name)
