"""Start and shutdown of a daemon and a worker.

Both wait at start for a database server that restarts or fails over; meanwhile they are alive and not ready,
and log it once. Permanent errors end them at once: a refused user or password, a missing database or host.
Shutdown always ends within a limited time.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import Enum, auto
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Protocol, Self, TypeVar

from xmode_transfer import telemetry
from xmode_transfer.model.errors import (
    ConfigError,
    ExitCode,
    LedgerMissing,
    LedgerRefused,
    LedgerUnreachable,
    XmodeError,
)
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import Event


def ready(status: str) -> None:
    _send(f"READY=1\nSTATUS={status}")


def reloading() -> None:
    """Announce a reload of the configuration; ``ready`` ends it (Type=notify-reload)."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def status(text: str) -> None:
    """Set the line that `systemctl status` shows."""
    _send(f"STATUS={text}")


def waiting(text: str, seconds: float) -> None:
    """Announce a delayed start, and extend systemd's start timeout by ``seconds``."""
    _send(f"STATUS={text}\nEXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def watchdog() -> None:
    """Report progress. systemd restarts the service after WatchdogSec without it."""
    _send("WATCHDOG=1")


def stopping() -> None:
    _send("STOPPING=1\nSTATUS=stopping: running jobs finish or are recorded")


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1)
            sender.sendto(message.encode(), address)
    except OSError:
        pass  # notifications are optional


Begun = TypeVar("Begun")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 10.0
_STEP_SECONDS = 1.0
_ATTEMPT_SECONDS = 120.0
"""Maximum duration of one attempt: the server may be starting or unresponsive."""
_GRACE_SECONDS = 10.0
"""Time after the drain for stopped jobs to finish requests in flight."""
_LAST_SECONDS = 3 * _GRACE_SECONDS
"""Time after the drain until the process is ended forcibly."""
_END_SECONDS = 3.0
"""Time to end while waiting for the ledger at start."""


def begin_when_there(
    begin: Callable[[], AbstractContextManager[Begun]],
    live: Callable[[Begun], int],
    clock: Clock,
    ending: threading.Event,
    ended: Event,
    *,
    waits: Callable[[], AbstractContextManager[object]],
    still: Callable[[], None] = lambda: None,
) -> int:
    """Retry ``begin`` while the ledger is unreachable, then call ``live`` and return its exit code.

    ``waits`` is entered while waiting, to report that the process is not ready; ``still`` is called about
    once a second. A stop request ends the wait with the event ``ended``. Raises ConfigError for permanent
    errors of the ledger."""
    pause, away_at = _FIRST_PAUSE_SECONDS, None
    with ExitStack() as unready:
        while True:
            still()
            with ExitStack() as stack:
                try:
                    with _ends_in_time(ending, ended):
                        begun = stack.enter_context(begin())
                except LedgerUnreachable as error:
                    away = error
                except (LedgerRefused, LedgerMissing) as error:
                    raise ConfigError(error.message, hint=error.hint) from error
                else:
                    unready.close()
                    if away_at is not None:
                        seconds = round(clock.monotonic() - away_at, 1)
                        telemetry.log(Event.LEDGER_RECOVERED, seconds=seconds)
                    return live(begun)
            if away_at is None:
                away_at = clock.monotonic()
                telemetry.warn(Event.LEDGER_UNAVAILABLE, **away.log_context())
                unready.enter_context(waits())
            waiting(f"waiting for the ledger: {away.message}", _ATTEMPT_SECONDS)
            if _asked_to_end(ending, clock, pause, still):
                stopping()
                telemetry.log(ended, drained=True, ended=True)
                return ExitCode.DONE
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _asked_to_end(ending: threading.Event, clock: Clock, seconds: float, still: Callable[[], None]) -> bool:
    until = clock.monotonic() + seconds
    while (left := until - clock.monotonic()) > 0:
        if ending.wait(min(left, _STEP_SECONDS)):
            return True
        still()
    return ending.is_set()


@contextmanager
def _ends_in_time(ending: threading.Event, ended: Event) -> Iterator[None]:
    """End the process on a stop request while it waits for an unresponsive server. Nothing has started yet,
    and its leases are free as soon as the process is gone."""
    begun = threading.Event()

    def end() -> None:
        while not begun.is_set():
            if ending.wait(_STEP_SECONDS):
                if not begun.wait(_END_SECONDS):
                    telemetry.log(ended, drained=True, ended=False)
                    sys.stderr.flush()
                    os._exit(ExitCode.DONE)
                return

    watcher = threading.Thread(target=end, name="starting", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        begun.set()


def last_resort(ending: threading.Event, drain_seconds: Callable[[], float], stopped: Event) -> None:
    """End the process forcibly if it outlives its drain, with the event ``stopped``. Everything acknowledged
    is in the ledger, and its leases are free as soon as the process is gone."""

    def end() -> None:
        ending.wait()
        time.sleep(drain_seconds() + _LAST_SECONDS)
        telemetry.log(stopped, drained=False, ended=False)
        sys.stderr.flush()
        os._exit(ExitCode.DONE)

    threading.Thread(target=end, name="last resort", daemon=True).start()


class Draining(Protocol):
    """Work that can be drained."""

    def stop(self) -> None: ...

    def drain(self, seconds: float) -> bool: ...

    def break_off(self) -> None: ...

    def close(self) -> None: ...


def end(work: Draining, drain_seconds: float, stopped: Event, others: Callable[[float], bool]) -> int:
    """Drain the work; after the timeout, stop it where it can be resumed; end in any case. ``others`` waits
    for other work and returns True if it ended."""
    stopping()
    work.stop()
    drained = ended = work.drain(drain_seconds)
    if not drained:
        work.break_off()
        ended = work.drain(_GRACE_SECONDS)
    ended = others(_GRACE_SECONDS) and ended
    try:
        work.close()
    except XmodeError as error:
        telemetry.warn(Event.SHUTDOWN_NOT_RECORDED, **error.log_context())
    telemetry.log(stopped, drained=drained, ended=ended)
    if not ended:
        # Threads that wait for a response would keep the process alive. Their results are in the ledger, and
        # its leases are free as soon as this process is gone.
        sys.stderr.flush()
        os._exit(ExitCode.DONE)
    return ExitCode.DONE


EVERY_SECONDS = 5.0


class Liveness:
    """Creates and touches ``file``, if given. Belongs to the watched thread. Raises nothing."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self._clock = clock
        self._file = file
        self._shown: float | None = None
        self._got_on = clock.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Seconds since the loop made progress. Any thread may read it."""
        return self._clock.monotonic() - self._got_on

    def gets_on(self) -> None:
        """Report progress. Call it in every iteration of the loop."""
        now = self._got_on = self._clock.monotonic()
        if self._shown is not None and now - self._shown < EVERY_SECONDS:
            return
        self._shown = now
        watchdog()
        if self._file is not None:
            # On a full disk the file ages and the probe fails, as it should.
            with contextlib.suppress(OSError):
                self._file.touch()

    def close(self) -> None:
        """Remove the file: an ended process must not look alive."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)


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
