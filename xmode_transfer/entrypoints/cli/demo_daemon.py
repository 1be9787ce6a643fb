"""The daemon that ``demo --keep`` leaves running: the installed command, on the demo's configuration."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xmode_transfer.sandbox import process

LOG = "daemon.log"
TICK_SECONDS = 3
"""How soon it sees a new file: a person waits for it."""
_START_SECONDS = 30.0
_END_SECONDS = 20.0
"""Longer than its drain."""
_POLL_SECONDS = 0.1
_SHOWN_LINES = 5

# A proxy of this machine's environment cannot know what is on its loopback interface.
_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class KeptDaemon:
    """A process by number and by birth, so that no later one with the same number is taken for it."""

    pid: int
    born: str
    address: str

    def document(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "KeptDaemon":
        """Raises KeyError, TypeError, ValueError for what is none."""
        return cls(int(document["pid"]), str(document["born"]), str(document["address"]))

    @property
    def is_alive(self) -> bool:
        return process.birth(self.pid) == self.born

    def end(self) -> bool:
        """As an operator ends it, by SIGTERM, with time to drain; True when it was there. Idempotent."""
        return process.end(self.pid, self.born, _END_SECONDS)


def service(port: int) -> Mapping[str, Any]:
    """What service.yaml says beside the sandbox's: the page's address, and short waits."""
    return {
        "daemon": {"tick_seconds": TICK_SECONDS, "drain_seconds": 5},
        "status_page": {"listen": f"127.0.0.1:{port}"},
    }


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(program: list[str], directory: Path, environment: Mapping[str, str], port: int) -> KeptDaemon:
    """Starts it in a session of its own, so that neither Ctrl-C nor the end of this process ends it. Its log
    is in the demo's directory."""
    with (directory / LOG).open("ab") as log:
        child = subprocess.Popen(
            [*program, "daemon"],
            env={**environment, "XMODE_LOG_LEVEL": "info"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return KeptDaemon(child.pid, process.birth(child.pid) or "", f"http://127.0.0.1:{port}/")


def await_ready(daemon: KeptDaemon, directory: Path) -> str | None:
    """Until its /readyz says yes: None then. What is wrong, with the end of its log, where it ends or takes
    too long."""
    deadline = time.monotonic() + _START_SECONDS
    while not _is_ready(daemon):
        is_late = time.monotonic() > deadline
        if is_late or not daemon.is_alive:
            told = f"was not ready within {_START_SECONDS:.0f} s" if is_late else "ended"
            lines = (directory / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            return " / ".join([f"its daemon {told}", *lines[-_SHOWN_LINES:]])
        time.sleep(_POLL_SECONDS)
    return None


def _is_ready(daemon: KeptDaemon) -> bool:
    try:
        with _local.open(f"{daemon.address}readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
