"""Ctrl-C and SIGTERM: the first asks the work to stop where it can be resumed, and ends whatever goes on
waiting after a few seconds; the second ends at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from xmode_transfer.domain.errors import Interrupted, XmodeError

LAST_RESORT_SECONDS = 6.0
"""Requests have ended before that (``adapters.aws_http``); what still waits then waits for a name server, a
connection, or a pause between two attempts."""


@contextmanager
def on_signals() -> Iterator[threading.Event]:
    """An event that is set at the first SIGINT or SIGTERM."""
    stop, signalled, done = threading.Event(), threading.Event(), threading.Event()

    def end() -> None:
        # the ledger is durable at every moment, and its leases are free as soon as the process is gone
        if not done.wait(LAST_RESORT_SECONDS):
            sys.stderr.write("stopped; what was acknowledged is recorded\n")
            sys.stderr.flush()
            os._exit(130)

    def handle(_number: int, _frame: FrameType | None) -> None:
        if signalled.is_set():
            os._exit(130)  # the ledger is durable at every moment: ending now loses nothing acknowledged
        signalled.set()
        stop.set()
        threading.Thread(target=end, name="last resort", daemon=True).start()
        sys.stderr.write("\nstopping: what is in flight has a moment to be finished (again: stop at once)\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except XmodeError as error:
        if not signalled.is_set() or isinstance(error, Interrupted):
            raise
        raise Interrupted(f"stopped on request; the last that went wrong: {error.message}") from error
    finally:
        if not signalled.is_set():  # else the end of the process is still to come
            done.set()
        for number, handler in before.items():
            signal.signal(number, handler)
