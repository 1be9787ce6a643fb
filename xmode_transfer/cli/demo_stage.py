"""The demo's directory and environment, the daemon that it keeps running, and the installed command."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from xmode_transfer.cli.sandbox import shell_lines
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, SandboxError
from xmode_transfer.sandbox.server import default_home

DIRECTORY = Path(".demo")
STATE = "demo.json"
LOG = "daemon.log"
TICK_SECONDS = 3  # short, because a person waits
_START_SECONDS = 30.0
_END_SECONDS = 20.0  # longer than the daemon's drain
_POLL_SECONDS = 0.1
_SHOWN_LINES = 5

_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for the loopback interface


@dataclass(frozen=True, slots=True)
class KeptDaemon:
    """The daemon's process and its page. A later process with the same ``pid`` is not ``born`` then."""

    pid: int
    born: str
    address: str

    def end(self) -> bool:
        """End it by SIGTERM, with time to drain. Return False if it had ended."""
        return server.end(self.pid, self.born, _END_SECONDS)


def program() -> list[str]:
    """Return the command that is installed beside this Python."""
    script = Path(sys.executable).with_name("xmode-transfer")
    return [str(script)] if script.exists() else [shutil.which("xmode-transfer") or "xmode-transfer"]


def program_shown() -> str:
    """Return the command as a person calls it from here."""
    script = Path(program()[0])
    if shutil.which("xmode-transfer") == str(script) or not script.is_relative_to(Path.cwd()):
        return "xmode-transfer"
    return str(script.relative_to(Path.cwd()))


def remove(directory: Path) -> bool:
    """End the daemon and the sandbox of a demo, and remove its directory. Return False if there is none.
    Raise ConfigError if no demo created the directory."""
    if not directory.exists():
        return False
    try:
        state = json.loads((directory / STATE).read_text(encoding="utf-8"))
        sandbox_id, home = state["sandbox"], state["home"]
        daemon = KeptDaemon(**state["daemon"]) if state.get("daemon") else None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{directory.absolute()} was not created by the demo, and is left untouched",
            hint="move it away, or run the demo in another directory",
        ) from None
    if daemon is not None:
        daemon.end()
    if sandbox_id is not None:
        with suppress(SandboxError):  # it may have ended and removed its directory
            server.stop(server.find(sandbox_id, Path(home)))
    shutil.rmtree(directory)
    return True


def write_state(directory: Path, sandbox: Sandbox | None, daemon: KeptDaemon | None = None) -> None:
    home = sandbox.directory.parent if sandbox else default_home()
    state = {"sandbox": sandbox and sandbox.id, "home": str(home), "daemon": daemon and asdict(daemon)}
    (directory / STATE).write_text(json.dumps(state), encoding="utf-8")


def environment(sandbox: Sandbox, config: Path) -> dict[str, str]:
    """Return this process's environment as the vendor in the sandbox, without variables for another AWS."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "XMODE_"))}
    ours = {"NO_PROXY": "127.0.0.1", "XMODE_CONFIG": str(config), "XMODE_LOG_LEVEL": "error"}
    return inherited | sandbox.environment() | ours


def write_env(directory: Path, environment: Mapping[str, str]) -> None:
    """Write the lines that make a shell the vendor in the sandbox. Only the user may read its keys."""
    kept = ("AWS_", "XMODE_", "NO_PROXY")
    wanted = {name: value for name, value in environment.items() if name.startswith(kept)}
    lines = [*shell_lines(wanted), f'export PATH={shlex.quote(str(Path(program()[0]).parent))}:"$PATH"']
    path = directory / "env"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


# --- The daemon that --keep leaves running


def service(port: int) -> Mapping[str, Any]:
    """Return the daemon's settings for service.yaml: the page's address, and short waits."""
    return {
        "daemon": {"tick_seconds": TICK_SECONDS, "drain_seconds": 5},
        "status_page": {"listen": f"127.0.0.1:{port}"},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(directory: Path, environment: Mapping[str, str], port: int) -> KeptDaemon:
    """Start the daemon in its own session: neither Ctrl-C nor the end of this process ends it."""
    with (directory / LOG).open("ab") as log:
        child = subprocess.Popen(
            [*program(), "daemon"],
            env={**environment, "XMODE_LOG_LEVEL": "info"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return KeptDaemon(child.pid, server.birth(child.pid) or "", f"http://127.0.0.1:{port}/")


def await_ready(daemon: KeptDaemon, directory: Path) -> str | None:
    """Wait until the daemon is ready. Return the problem, with the end of its log, if it ends or is late."""
    deadline = time.monotonic() + _START_SECONDS
    while not _is_ready(daemon):
        is_late = time.monotonic() > deadline
        if is_late or server.birth(daemon.pid) != daemon.born:
            problem = f"was not ready within {_START_SECONDS:.0f} s" if is_late else "ended"
            lines = (directory / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            return " / ".join([f"its daemon {problem}", *lines[-_SHOWN_LINES:]])
        time.sleep(_POLL_SECONDS)
    return None


def _is_ready(daemon: KeptDaemon) -> bool:
    with suppress(OSError), _local.open(f"{daemon.address}readyz", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def query(customer: CustomerSetup, sql: str) -> list[tuple[Any, ...]] | None:
    """Run a query in DuckDB with the customer's own keys; None without DuckDB and its extensions."""
    try:
        connection = import_module("duckdb").connect(
            config={"extension_directory": str(DIRECTORY / "duckdb")}
        )
        add = import_module("duckdb_extensions").import_extension
        for name in ("httpfs", "delta"):
            add(name, con=connection)
    except ImportError:
        return None
    keys, host = customer.root, customer.endpoint.removeprefix("http://")
    connection.execute(
        "CREATE SECRET (TYPE s3, USE_SSL false, URL_STYLE 'path', "
        f"KEY_ID '{keys.access_key_id}', SECRET '{keys.secret_access_key}', "
        f"ENDPOINT '{host}', REGION '{customer.region}')"
    )
    rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
    connection.close()
    return rows
