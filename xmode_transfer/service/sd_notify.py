"""What systemd is told, by its own protocol: a datagram to the socket that it names (sd_notify(3)).

Without NOTIFY_SOCKET nobody listens, and nothing is sent.
"""

import os
import socket
import time


def ready(status: str) -> None:
    _send(f"READY=1\nSTATUS={status}")


def reloading() -> None:
    """Before the configuration is read again; ``ready`` ends it (Type=notify-reload)."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def status(text: str) -> None:
    """One line, which `systemctl status` shows."""
    _send(f"STATUS={text}")


def waiting(text: str, seconds: float) -> None:
    """Before ``ready``: why that takes longer. systemd waits for so many seconds from now on, if it would not
    wait longer anyway."""
    _send(f"STATUS={text}\nEXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def watchdog() -> None:
    """The service has got on. Without it for WatchdogSec, systemd restarts the service."""
    _send("WATCHDOG=1")


def stopping() -> None:
    _send("STOPPING=1\nSTATUS=stopping: what runs is finished or recorded")


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
        pass  # it is only told; a service that cannot tell works all the same
