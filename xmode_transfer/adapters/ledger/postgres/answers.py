"""Statements that a server does not answer, in a process that is to end.

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

T = TypeVar("T")

ANSWER_SECONDS = 5.0
"""What was asked must be answered within this, once the process is to end."""
_LOOK_SECONDS = 0.5


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
