"""Installs MiniStack, the local AWS, and starts, finds and stops sandboxes.

MiniStack pins botocore to one version, so it has a virtual environment of its own, in HOME/runtime: one
for each requirements.txt and Python. A sandbox is in HOME/<id>/.
"""

import atexit
import fcntl
import hashlib
import http.client
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from xmode_transfer.sandbox.accounts import DEFAULT_CUSTOMERS, add_customer, forget, set_up_vendor
from xmode_transfer.sandbox.model import REGION, STATE_FILE, Sandbox, SandboxError, Variant

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HOME_VARIABLE = "XMODE_SANDBOX_HOME"
INSTALL_TIMEOUT_SECONDS = 600
READY_SECONDS = 30
POLL_SECONDS = 0.02
SHOWN_LINES = 12
ID = re.compile(r"sbx-[0-9a-f]{6}")
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SYSTEMROOT")

Say = Callable[[str], None]


def default_home() -> Path:
    """Return ``$XMODE_SANDBOX_HOME``, else ``.sandbox`` in the current directory."""
    return Path(os.environ.get(HOME_VARIABLE) or ".sandbox").absolute()


# --- Installation


def install(home: Path, *, requirements: Path = REQUIREMENTS, say: Say = lambda _line: None) -> Path:
    """Install MiniStack below ``home``, once for this requirements.txt and this Python; return its Python. Of
    two processes, one builds and the other waits. An interrupted build leaves nothing that looks finished."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    runtime = home / "runtime" / f"{digest}-{sys.implementation.cache_tag}"
    python = runtime / "bin" / "python"
    if python.exists():
        return python
    try:
        runtime.parent.mkdir(parents=True, exist_ok=True)
        with (runtime.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not python.exists():
                say(f"Installing the local AWS into {runtime} (once; about 90 MB) ...")
                _install_into(runtime, requirements, say)
    except OSError as error:
        raise SandboxError(
            f"The sandbox's home {home} cannot be written: {error.strerror or error}.",
            hint=f"Free some space there, or name another directory with {HOME_VARIABLE}.",
        ) from error
    return python


def _install_into(runtime: Path, requirements: Path, say: Say) -> None:
    for leftover in runtime.parent.glob("building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=runtime.parent))
    try:
        _build(building / "venv", requirements, say)
        shutil.rmtree(runtime, ignore_errors=True)  # its Python was removed from the machine
        (building / "venv").rename(runtime)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _build(venv: Path, requirements: Path, say: Say) -> None:
    python = str(venv / "bin" / "python")
    pinned = ["--require-hashes", "-r", str(requirements)]
    uv = shutil.which("uv")
    try:
        if uv:
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)])
            _run([uv, "pip", "install", "--quiet", "--python", python, *pinned])
    except SandboxError:
        say("uv could not install it; trying pip, which may use another index ...")
        shutil.rmtree(venv, ignore_errors=True)
        uv = None
    if not uv:
        if importlib.util.find_spec("pip"):  # our pip can install for another Python
            _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
            pip = [sys.executable, "-m", "pip", "--python", python]
        else:
            _run([sys.executable, "-m", "venv", str(venv)])
            pip = [python, "-m", "pip"]
        _run([*pip, "install", "--quiet", "--no-input", "--disable-pip-version-check", *pinned])
    _run([python, "-I", "-c", "import hypercorn.asyncio, ministack.app"])


def _run(command: list[str]) -> None:
    misleading = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX"}
    environment = {name: value for name, value in os.environ.items() if name not in misleading}
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
        if done.returncode == 0:
            return
        output = done.stdout
    except subprocess.TimeoutExpired:
        output = f"gave up after {INSTALL_TIMEOUT_SECONDS} seconds"
    except OSError as error:
        output = str(error)
    problem = f"The local AWS (MiniStack) could not be installed: `{' '.join(command)}` failed"
    raise SandboxError(
        f"{problem}:\n{_end_of(output)}",
        hint="It is downloaded once, from the package index that pip uses: check the network, the proxy "
        "and pip's configuration, then try again. Delivering to real AWS does not need it.",
    )


def _end_of(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()][-SHOWN_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"


# --- Processes


def birth(pid: int) -> str | None:
    """Return a word that tells a process from a later one with the same number; None if it has ended."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # the name may contain brackets
        return None if fields[0] in {"Z", "X"} else fields[19]
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def end(pid: int, born: str, grace_seconds: float = 3) -> bool:
    """End the process by SIGTERM, after the grace by SIGKILL. Return False if the one born then had ended."""
    if birth(pid) != born:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + grace_seconds
        while birth(pid) == born and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if birth(pid) != born:
            break
    return True


# --- Sandboxes

_children: dict[Path, subprocess.Popen[bytes]] = {}
"""The servers that this process started, by directory. Those that end with it have a pipe as stdin."""
os.register_at_fork(after_in_child=_children.clear)


def start(
    home: Path | None = None,
    customers: Mapping[str, Variant] = DEFAULT_CUSTOMERS,
    *,
    detach: bool = False,
    say: Say = lambda _line: None,
) -> Sandbox:
    """Start a local AWS on a free port of 127.0.0.1. With ``detach`` it runs until it is stopped; without, it
    ends with this process, however that ends. Raise SandboxError, and then leave nothing behind."""
    from botocore.exceptions import BotoCoreError, ClientError

    home = (home or default_home()).absolute()
    python = install(home, say=say)
    directory = _new_directory(home)
    sandbox = None
    try:
        sandbox = _serve(python, directory, detach=detach)
        _await_ready(sandbox)
        sandbox.vendor = set_up_vendor(sandbox)
        sandbox.save()
        for name, variant in customers.items():
            add_customer(sandbox, name, variant)
    except BaseException as error:
        if sandbox is None:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            stop(sandbox)
        if isinstance(error, (OSError, BotoCoreError, ClientError)):
            raise SandboxError(
                f"The sandbox could not be set up in {directory}: {error}",
                hint="It was removed completely. Fix the cause, then start it again.",
            ) from error
        raise
    return sandbox


def stop(sandbox: Sandbox) -> bool:
    """End the server and remove its directory. Return False if it had ended."""
    was_running = end(sandbox.pid, sandbox.born)
    forget(sandbox.endpoint)
    _collect(sandbox.directory)
    return was_running


@contextmanager
def running(home: Path, customers: Mapping[str, Variant] = DEFAULT_CUSTOMERS) -> Iterator[Sandbox]:
    sandbox = start(home, customers)
    try:
        yield sandbox
    finally:
        stop(sandbox)


def find_all(home: Path | None = None) -> list[Sandbox]:
    """Return the sandboxes below ``home``, running or left over from a crash, by ID."""
    found = []
    for state in sorted((home or default_home()).glob(f"*/{STATE_FILE}")):
        with suppress(OSError, ValueError):  # it is being stopped, or another version wrote it
            found.append(Sandbox.load(state.parent))
    return found


def find(sandbox_id: str, home: Path | None = None) -> Sandbox:
    """Return a sandbox by its ID. Raise SandboxError if there is none."""
    directory = (home or default_home()) / sandbox_id
    if ID.fullmatch(sandbox_id):
        with suppress(OSError, ValueError):
            return Sandbox.load(directory)
    raise SandboxError(
        f"There is no sandbox {sandbox_id} in {directory.parent}.",
        hint="List them with `xmode-transfer sandbox list`.",
    )


def is_running(sandbox: Sandbox) -> bool:
    return birth(sandbox.pid) == sandbox.born


def _new_directory(home: Path) -> Path:
    while True:
        directory = home / f"sbx-{secrets.token_hex(3)}"
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700, parents=True)
            return directory


def _serve(python: Path, directory: Path, *, detach: bool) -> Sandbox:
    root_secret = secrets.token_hex(20)
    (directory / "tmp").mkdir()
    launcher = Path(__file__).with_name("launch.py")
    attached = [] if detach else [str(directory)]
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        with (directory / "server.log").open("ab") as log:
            popen = subprocess.Popen(
                [str(python), "-I", str(launcher), str(listener.fileno()), *attached],
                env=_server_environment(directory, port, root_secret),
                cwd=directory,
                stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for this process, which stops the server
            )
    _children[directory] = popen
    return Sandbox(
        id=directory.name,
        endpoint=f"http://127.0.0.1:{port}",
        pid=popen.pid,
        born=birth(popen.pid) or "",
        directory=directory,
        root_secret=root_secret,
    )


def _server_environment(directory: Path, port: int, root_secret: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _INHERITED} | {
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": root_secret,  # each account's root has it
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "HOME": str(directory),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "SERVICES": "s3,iam,sts,kms",
        "STATE_DIR": str(directory / "state"),
        "S3_DATA_DIR": str(directory / "s3"),
        "TMPDIR": str(directory / "tmp"),
        "SFTP_ENABLED": "0",  # it would listen on other ports
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",  # it would remove containers
    }


def _await_ready(sandbox: Sandbox) -> None:
    """Send one request: it waits, because the socket listened before the server started."""
    host, _, port = sandbox.endpoint.removeprefix("http://").partition(":")
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection(host, int(port), timeout=READY_SECONDS)) as connection,
    ):
        connection.request("GET", "/_ministack/health")
        if connection.getresponse().status == 200:
            return
    log = _end_of(sandbox.log.read_text(encoding="utf-8", errors="replace"))
    raise SandboxError(
        f"The local AWS did not start within {READY_SECONDS} seconds. The end of its log:\n{log}",
        hint=f"Delete {sandbox.directory.parent / 'runtime'} to reinstall it, then try again.",
    )


def _collect(directory: Path) -> None:
    child = _children.pop(directory, None)
    if child is not None:
        child.wait()
        if child.stdin is not None:
            child.stdin.close()
    shutil.rmtree(directory, ignore_errors=True)


@atexit.register
def _stop_attached() -> None:
    for directory, child in list(_children.items()):
        if child.stdin is not None:
            child.kill()
            _collect(directory)
