"""Start and shutdown of a daemon and a worker.

Both wait at start for a database server that restarts or fails over; meanwhile they are alive and not ready,
and log it once. Permanent errors end them at once: a refused user or password, a missing database or host.
Shutdown always ends within a limited time.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol, TypeVar

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
from xmode_transfer.service import sd_notify
from xmode_transfer.telemetry import Event

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
    with ExitStack() as waiting:
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
                    waiting.close()
                    if away_at is not None:
                        seconds = round(clock.monotonic() - away_at, 1)
                        telemetry.log(Event.LEDGER_RECOVERED, seconds=seconds)
                    return live(begun)
            if away_at is None:
                away_at = clock.monotonic()
                telemetry.warn(Event.LEDGER_UNAVAILABLE, **away.log_context())
                waiting.enter_context(waits())
            sd_notify.waiting(f"waiting for the ledger: {away.message}", _ATTEMPT_SECONDS)
            if _asked_to_end(ending, clock, pause, still):
                sd_notify.stopping()
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
    sd_notify.stopping()
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
