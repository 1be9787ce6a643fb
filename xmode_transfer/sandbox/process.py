"""Tells one process from another, so that only the sandbox's own is ever ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.02


def birth(pid: int) -> str | None:
    """A word for when this process began, which no later process with the same number shares.

    None when there is no such process or when it has ended and only waits to be collected.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
        return None if fields[0] in {"Z", "X"} else fields[19]
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def end(pid: int, born: str, grace_seconds: float = 3) -> bool:
    """Ends the process if it still is the one that was born then; True when it was there.

    SIGTERM first, SIGKILL after the grace. Returns when it is gone.
    """
    if birth(pid) != born:
        return False
    for number, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, grace_seconds)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + patience
        while birth(pid) == born:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        else:
            return True
    return True
