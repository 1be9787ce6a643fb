"""The life of a daemon's or worker's process: start, events, and an end within a limited time.

Both wait at start for a database server that restarts or fails over: alive, but not ready."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from enum import Enum, auto
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, ClassVar, NoReturn, Self

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
from xmode_transfer.service.active_configuration import FileWatch
from xmode_transfer.service.assembly import reacting
from xmode_transfer.service.daemon import Daemon
from xmode_transfer.service.worker import Worker
from xmode_transfer.telemetry import Event

_STEP_SECONDS = 1.0  # how often the main loop, and a wait at start, runs without events
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 10.0
_ATTEMPT_SECONDS = 120.0  # of one attempt to start: the server may be starting or unresponsive
_END_SECONDS = 3.0  # to end while waiting for the ledger at start
_GRACE_SECONDS = 10.0  # after the drain, for stopped jobs to finish requests in flight
_LAST_SECONDS = 3 * _GRACE_SECONDS  # after the drain, until the process is ended forcibly


# --- Events: one thread handles them all; signal handlers and other threads only put them into the inbox


class Wake(Enum):
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
        self.ending = threading.Event()  # set on a stop request, before the event is taken
        self._before: dict[int, Any] = {}

    def put(self, wake: Wake, name: str = "") -> None:
        """Put an event, unless it is already waiting. Any thread may call it."""
        if wake is not Wake.CUSTOMER:
            if wake in self._waiting:
                return
            self._waiting.add(wake)
        self._queue.put((wake, name))

    def get(self) -> tuple[Wake, str]:
        """Take the next event; after a second without one, NOTHING."""
        if self.ending.is_set():
            return Wake.STOP, ""
        try:
            wake, name = self._queue.get(timeout=_STEP_SECONDS)
        except Empty:
            return Wake.NOTHING, ""
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


class Process(ABC):
    """Starts the work, handles events until it is asked to stop, drains the work, and ends in any case."""

    started: ClassVar[Event]
    stopping: ClassVar[Event]
    stopped: ClassVar[Event]

    def __init__(self, directory: Path, read_at: datetime, inbox: Inbox, work: Daemon | Worker) -> None:
        """``read_at`` is when the configuration in ``directory`` was read."""
        self.directory = directory
        self.inbox = inbox
        self._read_at = read_at
        self._work = work

    @staticmethod
    def run(
        begin: Callable[[], AbstractContextManager["Process"]],
        clock: Clock,
        inbox: Inbox,
        stopped: Event,
        *,
        waits: Callable[[], AbstractContextManager[object]],
        still: Callable[[], None] = lambda: None,
    ) -> int:
        """Retry ``begin`` while the ledger is unreachable, then run the process; return its exit code.
        ``waits`` is entered while waiting, to report that the process is not ready; ``still`` is called about
        once a second. A stop request ends the wait with the event ``stopped``. Raises ConfigError for
        permanent errors of the ledger."""

        def end_unless(begun: threading.Event) -> None:
            if not begun.wait(_END_SECONDS):  # the server is unresponsive, and nothing has started yet
                _exit(stopped, drained=True)

        pause, away_at = _FIRST_PAUSE_SECONDS, None
        with ExitStack() as unready:
            while True:
                still()
                with ExitStack() as stack:
                    try:
                        with reacting(inbox.ending, end_unless):
                            process = stack.enter_context(begin())
                    except LedgerUnreachable as error:
                        away = error
                    except (LedgerRefused, LedgerMissing) as error:
                        raise ConfigError(error.message, hint=error.hint) from error
                    else:
                        unready.close()
                        if away_at is not None:
                            seconds = round(clock.monotonic() - away_at, 1)
                            telemetry.log(Event.LEDGER_RECOVERED, seconds=seconds)
                        return process.live()
                if away_at is None:
                    away_at = clock.monotonic()
                    telemetry.warn(Event.LEDGER_UNAVAILABLE, **away.log_context())
                    unready.enter_context(waits())
                waiting(f"waiting for the ledger: {away.message}", _ATTEMPT_SECONDS)
                until = clock.monotonic() + pause
                while (left := until - clock.monotonic()) > 0:
                    if inbox.ending.wait(min(left, _STEP_SECONDS)):
                        break
                    still()
                if inbox.ending.is_set():
                    stopping()
                    telemetry.log(stopped, drained=True, ended=True)
                    return ExitCode.DONE
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def live(self) -> int:
        """Run until asked to stop; return the exit code."""
        threading.Thread(target=self._end_forcibly, name="last resort", daemon=True).start()
        files = FileWatch(
            self.directory,
            self._read_at,
            changed=lambda: self.inbox.put(Wake.FILES),
            failed=lambda reason: telemetry.warn(Event.CONFIGURATION_NOT_WATCHED, message=reason),
        )
        try:
            configuration = self._work.configuration
            telemetry.log(
                self.started,
                version=version("xmode-transfer"),
                customers=len(configuration.customers),
                configuration_problems=list(map(str, configuration.problems)),
                slots=self._work.slots,
            )
            self._work.start()
            ready(self.status())
            while (event := self.inbox.get())[0] is not Wake.STOP:
                reloads = event[0] in (Wake.FILES, Wake.RELOAD)
                if reloads:
                    reloading()
                self.handle(*event)
                if reloads:
                    ready(self.status())
        finally:
            files.close()
            self.close()
        return self._end()

    @abstractmethod
    def status(self) -> str:
        """Return one line for `systemctl status`."""

    @abstractmethod
    def handle(self, wake: Wake, name: str) -> None:
        """Handle an event, or NOTHING about once a second."""

    @abstractmethod
    def close(self) -> None:
        """Stop what runs beside the work, before the drain."""

    def wait_for_others(self, seconds: float) -> bool:
        """Wait for what may go on after the drain; return True if it ended."""
        return True

    def _end(self) -> int:
        seconds = self._drain_seconds
        telemetry.log(self.stopping, running=self._work.running, drain_seconds=seconds)
        stopping()
        self._work.stop()
        drained = ended = self._work.drain(seconds)
        if not drained:
            self._work.break_off()
            ended = self._work.drain(_GRACE_SECONDS)
        ended = self.wait_for_others(_GRACE_SECONDS) and ended
        try:
            self._work.close()
        except XmodeError as error:
            telemetry.warn(Event.SHUTDOWN_NOT_RECORDED, **error.log_context())
        if not ended:  # threads that wait for a response would keep the process alive
            _exit(self.stopped, drained=drained)
        telemetry.log(self.stopped, drained=drained, ended=True)
        return ExitCode.DONE

    def _end_forcibly(self) -> None:
        self.inbox.ending.wait()
        time.sleep(self._drain_seconds + _LAST_SECONDS)
        _exit(self.stopped, drained=False)

    @property
    def _drain_seconds(self) -> float:
        return self._work.configuration.service.daemon.drain_seconds


def _exit(stopped: Event, *, drained: bool) -> NoReturn:
    """End the process whatever its threads do. Everything acknowledged is in the ledger, and its leases are
    free as soon as the process is gone."""
    telemetry.log(stopped, drained=drained, ended=False)
    sys.stderr.flush()
    os._exit(ExitCode.DONE)


# --- Signs of life, for systemd and probes


def ready(status: str) -> None:
    _notify(f"READY=1\nSTATUS={status}")


def reloading() -> None:
    """Announce a reload; ``ready`` ends it (Type=notify-reload)."""
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def status(text: str) -> None:
    """Set the line that `systemctl status` shows."""
    _notify(f"STATUS={text}")


def waiting(text: str, seconds: float) -> None:
    """Extend systemd's start timeout."""
    _notify(f"STATUS={text}\nEXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def watchdog() -> None:
    """systemd restarts the service after WatchdogSec without it."""
    _notify("WATCHDOG=1")


def stopping() -> None:
    _notify("STOPPING=1\nSTATUS=stopping: running jobs finish or are recorded")


def _notify(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),  # notifications are optional
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.settimeout(1)
        sender.sendto(message.encode(), address)


EVERY_SECONDS = 5.0


class Liveness:
    """Shows the progress of a worker's loop to systemd's watchdog and by touching ``file``. Belongs to the
    watched thread. Raises nothing."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self._clock = clock
        self._file = file
        self._shown: float | None = None
        self._progress_at = clock.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Any thread may read it."""
        return self._clock.monotonic() - self._progress_at

    def progress(self) -> None:
        now = self._progress_at = self._clock.monotonic()
        if self._shown is not None and now - self._shown < EVERY_SECONDS:
            return
        self._shown = now
        watchdog()
        if self._file is not None:
            with contextlib.suppress(OSError):  # on a full disk the file ages and the probe fails
                self._file.touch()

    def close(self) -> None:
        """Remove the file: an ended process must not look alive."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)
