"""Runs one command and tells what it took: seconds, CPU seconds, peak memory in MB and exit code, as JSON.

Linux counts what the parent held when it began a process as that process's own peak (`ru_maxrss` survives the
exec), so a benchmark that has just held a million lines would lend them to whatever it measures next. This
parent holds next to nothing.

    python -S one_process.py ANSWER COMMAND ...      writes into the file ANSWER
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

started = time.monotonic()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
wall = time.monotonic() - started
with Path(sys.argv[1]).open("w") as answer:
    json.dump(
        {
            "wall": wall,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss_mb": usage.ru_maxrss / 1024,
            "code": os.waitstatus_to_exitcode(status),
        },
        answer,
    )
