"""Installs MiniStack, the local AWS, into a virtual environment of its own.

MiniStack pins botocore to one version, so it can never share the project's environment.
Everything is in one home directory, which may be deleted at any time:

    HOME/runtime/<hash>-<python>/    the virtual environment, one for each requirements.txt and Python
    HOME/<id>/                       one running sandbox
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xmode_transfer.sandbox.model import SandboxError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HOME_VARIABLE = "XMODE_SANDBOX_HOME"
INSTALL_TIMEOUT_SECONDS = 600
SHOWN_LINES = 12


def default_home() -> Path:
    """``$XMODE_SANDBOX_HOME``, else ``.sandbox`` in the current directory."""
    return Path(os.environ.get(HOME_VARIABLE) or ".sandbox").absolute()


def install(
    home: Path | None = None,
    *,
    requirements: Path = REQUIREMENTS,
    say: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Makes sure that MiniStack is installed below ``home``; answers the Python that has it.

    Does nothing when it is there already for this requirements.txt and this Python. Two processes may
    call it at once: one builds, the other waits and uses the result. A build that is interrupted
    leaves nothing that could be taken for a finished one. ``say`` is told before something slow starts.
    Raises SandboxError with the end of the installer's output.
    """
    home = home or default_home()
    runtime = home / "runtime" / _key(requirements)
    python = runtime / "bin" / "python"
    if python.exists():
        return python
    try:
        with _locked(home / "runtime"):
            if not python.exists():
                say(f"Installing the local AWS into {runtime} (once; about 90 MB) ...")
                _install_into(runtime, requirements, say)
    except OSError as error:
        raise SandboxError(
            f"The sandbox's home {home} cannot be written: {error.strerror or error}.",
            hint=f"Free some space there, or name another directory with {HOME_VARIABLE}.",
        ) from error
    return python


def _install_into(runtime: Path, requirements: Path, say: Callable[[str], None]) -> None:
    for leftover in runtime.parent.glob("building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=runtime.parent))
    try:
        _build(building / "venv", requirements, say)
        shutil.rmtree(runtime, ignore_errors=True)  # one whose Python was removed from the machine
        (building / "venv").rename(runtime)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _key(requirements: Path) -> str:
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    return f"{digest}-{sys.implementation.cache_tag}"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(venv: Path, requirements: Path, say: Callable[[str], None]) -> None:
    python = str(venv / "bin" / "python")
    uv = shutil.which("uv")
    try:
        if uv:
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)])
            install_with = [uv, "pip", "install", "--quiet", "--python", python]
            _run([*install_with, "--require-hashes", "-r", str(requirements)])
    except SandboxError:
        say("uv could not install it; trying pip, which may use another index ...")
        shutil.rmtree(venv, ignore_errors=True)
        uv = None
    if not uv:
        _build_with_pip(venv, python, requirements)
    _run([python, "-I", "-c", "import hypercorn.asyncio, ministack.app"])


def _build_with_pip(venv: Path, python: str, requirements: Path) -> None:
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--require-hashes"]
    if importlib.util.find_spec("pip"):  # ours can install for another Python: no need for a second pip
        _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        pip = [sys.executable, "-m", "pip", "--python", python]
    else:
        _run([sys.executable, "-m", "venv", str(venv)])
        pip = [python, "-m", "pip"]
    _run([*pip, "install", *options, "-r", str(requirements)])


def _run(command: list[str]) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX"}
    }
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_SECONDS,
            check=False,
        )
        failed, output = done.returncode != 0, done.stdout
    except subprocess.TimeoutExpired:
        failed, output = True, f"gave up after {INSTALL_TIMEOUT_SECONDS} seconds"
    except OSError as error:
        failed, output = True, str(error)
    if failed:
        lines = [line for line in output.splitlines() if line.strip()][-SHOWN_LINES:]
        shown = "\n".join(f"    {line}" for line in lines)
        raise SandboxError(
            f"The local AWS (MiniStack) could not be installed: `{' '.join(command)}` failed:\n{shown}",
            hint="It is downloaded once, from the package index that pip uses: check the network, the proxy "
            "and pip's configuration, then try again. Delivering to real AWS does not need it.",
        )
