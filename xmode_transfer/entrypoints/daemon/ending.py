"""The end of a process that must not wait for anything for ever."""

import os
import sys
import threading
import time
from collections.abc import Callable

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import ExitCode
from xmode_transfer.telemetry import Event


def last_resort(ending: threading.Event, seconds: Callable[[], float], stopped: Event) -> None:
    """Ends the process when that was asked for so many seconds ago, whatever its threads wait for, with the
    event ``stopped``. What was acknowledged is in the ledger, and its leases are free as soon as the process
    is gone."""

    def end() -> None:
        ending.wait()
        time.sleep(seconds())
        telemetry.log(stopped, drained=False, ended=False)
        sys.stderr.flush()
        os._exit(ExitCode.DONE)

    threading.Thread(target=end, name="last resort", daemon=True).start()
