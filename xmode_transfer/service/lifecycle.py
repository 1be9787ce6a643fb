"""How a daemon and a worker start and end.

A database server that restarts or fails over must not end whoever starts in these seconds: a daemon and a
worker wait for it, say so once, and are alive and not ready meanwhile. What no waiting mends ends them at
once: a user or a password that is refused, a database or a host that is not there. Asked to end, neither
waits for anything for ever.
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
"""An attempt may wait for a server that is starting, or for one that does not answer at all."""
_GRACE_SECONDS = 10.0
"""After the drain, what was stopped has so long to end its requests in flight."""
_LAST_SECONDS = 3 * _GRACE_SECONDS
"""After the drain the process has so long to end, whatever it waits for."""
_END_SECONDS = 3.0
"""Whoever is asked to end has so long for it, if the ledger keeps it waiting."""


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
    """Begins, again and again while the ledger is away, and lives with what has begun: its exit code. Inside
    ``waits`` others can see that it is not ready; ``still`` is called every second or so. Asked to end, it
    does so with the event ``ended``. Raises ConfigError for a ledger that no waiting brings back."""
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
            sd_notify.waiting(f"waits for the ledger: {away.message}", _ATTEMPT_SECONDS)
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
    """A server that does not answer keeps whoever asks it waiting: asked to end meanwhile, the process does.
    It has begun nothing yet; what it holds in the ledger is free as soon as it is gone."""
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
    """Ends the process some time after its drain should have ended, whatever its threads wait for, with the
    event ``stopped``. What was acknowledged is in the ledger, and its leases are free as soon as the process
    is gone."""

    def end() -> None:
        ending.wait()
        time.sleep(drain_seconds() + _LAST_SECONDS)
        telemetry.log(stopped, drained=False, ended=False)
        sys.stderr.flush()
        os._exit(ExitCode.DONE)

    threading.Thread(target=end, name="last resort", daemon=True).start()


class Draining(Protocol):
    """What runs, when the process is asked to end."""

    def stop(self) -> None: ...

    def drain(self, seconds: float) -> bool: ...

    def break_off(self) -> None: ...

    def close(self) -> None: ...


def end(work: Draining, drain_seconds: float, stopped: Event, others: Callable[[float], bool]) -> int:
    """Lets what runs end, stops it where it can be resumed when its time is over, and ends in any case.
    ``others`` waits so many seconds for what else runs; whether that has ended."""
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
        # Threads that wait for an answer that never comes would keep the process; what they have done is in
        # the ledger, and its leases are free as soon as this process is gone.
        sys.stderr.flush()
        os._exit(ExitCode.DONE)
    return ExitCode.DONE
