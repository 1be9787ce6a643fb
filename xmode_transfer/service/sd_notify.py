"""Notifications to systemd: datagrams to NOTIFY_SOCKET (sd_notify(3)). Without that variable, nothing is
sent.
"""

import os
import socket
import time


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
