"""The inbox of events that signal handlers and other threads put and the main thread takes."""

import os
import signal
import sys
import threading
from enum import Enum, auto
from queue import SimpleQueue
from types import FrameType
from typing import Any, Self


class Wake(Enum):
    """Kinds of events."""

    TICK = auto()  # the clock
    CUSTOMER = auto()  # a time of a customer's schedule
    HEALTH = auto()  # compute health
    FILES = auto()  # files of the configuration have changed
    RELOAD = auto()  # SIGHUP: a person wants them read
    STOP = auto()  # SIGTERM or SIGINT
    NOTHING = auto()


class Inbox:
    """A context manager that turns SIGTERM, SIGINT and SIGHUP into events. A second SIGTERM or SIGINT ends
    the process at once."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Wake, str]] = SimpleQueue()
        self._waiting: set[Wake] = set()
        self.ending = threading.Event()
        """Set on a stop request, before the event is taken."""
        self._before: dict[int, Any] = {}

    def put(self, wake: Wake, name: str = "") -> None:
        """Put an event, unless it is already waiting. Any thread may call it."""
        if wake is not Wake.CUSTOMER:
            if wake in self._waiting:
                return
            self._waiting.add(wake)
        self._queue.put((wake, name))

    def get(self, seconds: float) -> tuple[Wake, str]:
        """Take the next event. Raises queue.Empty after ``seconds`` without one."""
        if self.ending.is_set():
            return Wake.STOP, ""
        wake, name = self._queue.get(timeout=seconds)
        self._waiting.discard(wake)
        return wake, name

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.put(Wake.RELOAD)
        elif self.ending.is_set():
            os._exit(130)  # the ledger is durable at every moment: ending now loses nothing acknowledged
        else:
            self.ending.set()  # its lock is never held by the thread that handles signals
            self._queue.put((Wake.STOP, ""))
            if sys.stderr.isatty():
                os.write(2, b"\nstopping: running jobs finish or are recorded (again: stop at once)\n")
