"""What the demo stands on: its directory, the local AWS and the daemon that it leaves up, and the installed
command."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from xmode_transfer.domain.errors import ConfigError
from xmode_transfer.entrypoints.cli.demo_daemon import KeptDaemon
from xmode_transfer.entrypoints.cli.sandbox import CLEARED
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.errors import SandboxError
from xmode_transfer.sandbox.install import default_home
from xmode_transfer.sandbox.model import Sandbox

DIRECTORY = Path(".demo")
STATE = "demo.json"


def program() -> list[str]:
    """The command that is installed beside this Python."""
    script = Path(sys.executable).with_name("xmode-transfer")
    return [str(script)] if script.exists() else [shutil.which("xmode-transfer") or "xmode-transfer"]


def program_shown() -> str:
    """How a person calls it from here."""
    script = Path(program()[0])
    if shutil.which("xmode-transfer") == str(script) or not script.is_relative_to(Path.cwd()):
        return "xmode-transfer"
    return str(script.relative_to(Path.cwd()))


def remove(directory: Path) -> bool:
    """Ends the daemon and the sandbox of a demo that was kept or died, and removes its directory; False when
    there is none.

    Raises ConfigError when the directory was not made by a demo.
    """
    if not directory.exists():
        return False
    try:
        state = json.loads((directory / STATE).read_text(encoding="utf-8"))
        sandbox_id, home = state["sandbox"], state["home"]
        daemon = KeptDaemon.of(state["daemon"]) if state.get("daemon") else None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{directory.absolute()} was not made by the demo, so it is left alone",
            hint="move it away, or go to another directory",
        ) from None
    if daemon is not None:
        daemon.end()  # before its customers' buckets go
    if sandbox_id is not None:
        with suppress(SandboxError):  # it may have ended and taken its directory with it
            server.stop(server.find(sandbox_id, Path(home)))
    shutil.rmtree(directory)
    return True


def write_state(directory: Path, sandbox: Sandbox | None, daemon: KeptDaemon | None = None) -> None:
    home = default_home() if sandbox is None else sandbox.directory.parent
    state = {
        "sandbox": sandbox.id if sandbox else None,
        "home": str(home),
        "daemon": daemon.document() if daemon else None,
    }
    (directory / STATE).write_text(json.dumps(state), encoding="utf-8")


def environment(sandbox: Sandbox, config: Path) -> dict[str, str]:
    """This process's, but as the vendor in the sandbox and with nothing that could lead elsewhere."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "XMODE_"))}
    return inherited | _variables(sandbox, config)


def _variables(sandbox: Sandbox, config: Path) -> dict[str, str]:
    return sandbox.environment() | {
        "NO_PROXY": "127.0.0.1",
        "XMODE_CONFIG": str(config),
        "XMODE_LOG_LEVEL": "error",
    }


def write_env(directory: Path, environment: Mapping[str, str]) -> None:
    """The lines that make a shell the vendor in the sandbox; with its keys, so only we may read them."""
    wanted = {
        name: value for name, value in environment.items() if name.startswith(("AWS_", "XMODE_", "NO_PROXY"))
    }
    lines = [f"unset {' '.join(CLEARED)}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in wanted.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(program()[0]).parent))}:"$PATH"')
    path = directory / "env"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
