"""Who holds a lease: a process's name that no other process on earth shares, and whether that process is
dead.

A holder reads ``host/boot-id/pid/start-time``. The boot ID tells two boots of a machine apart, the start time
two processes that were given the same process ID one after the other. Where the process has a process-ID
namespace (a container), its inode is part of the boot ID, because the same number means another process in
another namespace.
"""

import os
import socket
from pathlib import Path

_PROC = Path("/proc")
_UNKNOWN = "-"
_ENDED_STATES = frozenset("ZX")  # a zombie has ended; only its parent has not asked yet


def this_process() -> str:
    """This process as a holder: ``host/boot-id/pid/start-time``, with ``-`` for what the system does not
    tell."""
    pid = os.getpid()
    _, started = _state_and_start(pid) or ("", _UNKNOWN)
    return f"{_host()}/{_boot()}/{pid}/{started}"


def is_dead(holder: str) -> bool | None:
    """True when the holder is known to have ended, False when it is known to live, None when nobody here can
    tell.

    Only a holder of this host, this boot and this process-ID namespace can be judged. Where there is no /proc
    (macOS) the answer is None, and the lease has to expire.
    """
    parts = holder.split("/")
    if len(parts) != 4 or _UNKNOWN in parts or not parts[2].isdigit():
        return None
    host, boot, pid_text, started = parts
    if host != _host() or boot != _boot():
        return None
    pid = int(pid_text)
    try:
        # Signal 0 sends nothing. Unlike a look into /proc it also answers where /proc hides others'
        # processes.
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and belongs to another user
    except (OverflowError, OSError):
        return None
    seen = _state_and_start(pid)
    if seen is None:
        return None
    state, start = seen
    return start != started or state in _ENDED_STATES


def _host() -> str:
    return socket.gethostname().replace("/", "_") or _UNKNOWN


def _boot() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return _UNKNOWN
    return f"{boot}.{namespace}"


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """The state letter and the start time in clock ticks since boot (proc(5), fields 3 and 22 of
    ``stat``)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    return fields[0], fields[19]
