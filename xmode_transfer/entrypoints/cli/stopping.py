"""Ctrl-C and SIGTERM: the first asks the work to stop where it can be resumed, the second ends at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_signals() -> Iterator[threading.Event]:
    """An event that is set at the first SIGINT or SIGTERM."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(130)  # the ledger is durable at every moment: ending now loses nothing acknowledged
        stop.set()
        sys.stderr.write("\nstopping: what is in flight is finished and recorded (again: stop at once)\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
