"""Waiting for a server: one that is away for a moment, since it restarts or another takes its place; and, in
a process that is to end, one that does not answer.

A server that is frozen keeps its connections: whoever asked waits for as long as that lasts. A process that
works may do so, since others take over what it held. One that is to end may not.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.abc import PQGen

from xmode_transfer import telemetry
from xmode_transfer.ledger.postgres import errors
from xmode_transfer.model.errors import XmodeError

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_GONE_SECONDS = 15.0
"""In a process that ends, nobody tries for so long what was tried in vain."""
ANSWER_SECONDS = 5.0
"""What was asked must be answered within this, once the process is to end."""
_LOOK_SECONDS = 0.5


class Patience:
    """Repeats what failed by a passing trouble (``errors.PASSING``), for ``seconds`` since it began. One line
    in the log says that the server is away, and one that it is back, however many threads wait for it."""

    def __init__(self, where: str, seconds: float) -> None:
        self._where = where
        self._seconds = seconds
        self._over = threading.Event()
        self._door = threading.Lock()
        self._away_since: float | None = None
        self._gone_since: float | None = None

    def run(self, attempt: Callable[[], T]) -> T:
        """What the attempt answers. Raises what it raises, and a trouble that did not pass as one that the
        caller need not wait for any more."""
        began: float | None = None
        pause = 0.0  # a connection that broke while it lay unused is replaced at once, and not reported
        while True:
            if self._is_gone():
                raise errors.for_good(errors.AWAY.error(self._where, "it does not answer"), 0)
            try:
                answer = attempt()
            except errors.PASSING as error:
                now = time.monotonic()
                is_first = began is None
                began = now if began is None else began
                waited = now - began
                # In a hurry, too, a connection that broke while it lay unused is replaced.
                if waited >= self._seconds or (self._over.is_set() and not is_first):
                    if isinstance(error, errors.Away):
                        self.gone()
                    raise errors.for_good(error, waited) from error
                if pause:
                    self._tell(error, began)
                self._over.wait(min(pause, self._seconds - waited))
                pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            else:
                if self._away_since is not None:
                    self._tell_the_end()
                return answer

    def end(self) -> None:
        """Nobody waits any more: each goes on with one last attempt, and none while the server is known to be
        gone."""
        self._over.set()

    def gone(self) -> None:
        """The server was asked in vain."""
        self._gone_since = time.monotonic()

    def _is_gone(self) -> bool:
        since = self._gone_since
        return self._over.is_set() and since is not None and time.monotonic() - since < _GONE_SECONDS

    def _tell(self, error: XmodeError, since: float) -> None:
        if isinstance(error, errors.Contended):
            return
        with self._door:
            if self._away_since is not None:
                return
            self._away_since = since
        telemetry.log(telemetry.Event.LEDGER_UNAVAILABLE, ledger=self._where, **error.log_context())

    def _tell_the_end(self) -> None:
        with self._door:
            since, self._away_since = self._away_since, None
        if since is not None:
            telemetry.log(
                telemetry.Event.LEDGER_RECOVERED,
                ledger=self._where,
                seconds=round(time.monotonic() - since, 1),
            )


class Asking(psycopg.Connection[Any]):
    """A connection that knows since when it has waited for an answer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door = threading.Lock()
        self._since: float | None = None

    def wait(self, gen: PQGen[T], *arguments: Any, **named: Any) -> T:
        self._since = time.monotonic()
        try:
            return super().wait(gen, *arguments, **named)
        finally:
            with self._door:
                self._since = None

    def give_up(self, seconds: float) -> bool:
        """Breaks the connection if it has waited for so long; from any thread. Whoever waits gets the
        driver's error for a connection that was lost. Answers whether it did."""
        with self._door:  # while it is held, nobody closes the socket, whose number another might get
            if self._since is None or time.monotonic() - self._since < seconds:
                return False
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
            return True


class Answers:
    """All connections of a database, as long as they are open."""

    def __init__(self, given_up: Callable[[], None]) -> None:
        """``given_up`` is called, by a thread of ours, when a connection was broken."""
        self._given_up = given_up
        self._open: WeakSet[Asking] = WeakSet()
        self._door = threading.Lock()
        self._hurried = False
        self._ended = threading.Event()

    def expect(self, connection: Asking) -> None:
        """Looks after the connection from now on."""
        with self._door:
            self._open.add(connection)

    def hurry(self) -> None:
        """From now on an answer has ``ANSWER_SECONDS``. Idempotent."""
        with self._door:
            if self._hurried or self._ended.is_set():
                return
            self._hurried = True
        threading.Thread(target=self._look, name="ledger-answers", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            with self._door:
                connections = list(self._open)
            for connection in connections:
                if connection.give_up(ANSWER_SECONDS):
                    self._given_up()
