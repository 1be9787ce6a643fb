"""Starts, finds and stops sandboxes. A running one is a process and a directory ``HOME/<id>/``."""

import atexit
import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from xmode_transfer.sandbox.accounts import DEFAULT_CUSTOMERS, add_customer, forget, set_up_vendor
from xmode_transfer.sandbox.install import SHOWN_LINES, default_home, install
from xmode_transfer.sandbox.model import REGION, STATE_FILE, Sandbox, SandboxError, Variant

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


LAUNCHER = Path(__file__).with_name("launch.py")
READY_SECONDS = 30
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SYSTEMROOT")
ID = re.compile(r"sbx-[0-9a-f]{6}")


class Child(NamedTuple):
    """A server that this process started."""

    popen: subprocess.Popen[bytes]
    directory: Path
    parent: int
    attached: bool
    keep: bool


_children: dict[str, Child] = {}


def start(
    home: Path | None = None,
    customers: Mapping[str, Variant] = DEFAULT_CUSTOMERS,
    *,
    detach: bool = False,
    keep: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Sandbox:
    """Starts a local AWS on a free port of 127.0.0.1, with the vendor's user and these customers in it.

    With ``detach`` it lives on when this process ends, until somebody stops it; without, it ends with this
    process, however that ends, and its directory goes with it unless ``keep``. Installs MiniStack first if
    need be. Raises SandboxError, and then leaves nothing behind.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    home = (home or default_home()).absolute()
    python = install(home, say=say)
    directory = _new_directory(home)
    sandbox = None
    try:
        sandbox = _serve(python, directory, detach=detach, keep=keep)
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


def stop(sandbox: Sandbox, *, keep: bool = False) -> bool:
    """Ends the server and removes its directory, unless ``keep``; True when it was still running.

    Ends only the very process that was started, never a later one with the same number. Idempotent.
    """
    was_running = end(sandbox.pid, sandbox.born)
    forget(sandbox.endpoint)
    child = _children.pop(sandbox.id, None)
    if child is not None:
        _collect(child)
    if not keep:
        shutil.rmtree(sandbox.directory, ignore_errors=True)
    return was_running


@contextmanager
def running(
    home: Path | None = None,
    customers: Mapping[str, Variant] = DEFAULT_CUSTOMERS,
    *,
    keep: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Iterator[Sandbox]:
    """A sandbox for the length of a ``with`` block."""
    sandbox = start(home, customers, keep=keep, say=say)
    try:
        yield sandbox
    finally:
        stop(sandbox, keep=keep)


def find_all(home: Path | None = None) -> list[Sandbox]:
    """The sandboxes below ``home``, running or left over from a crash, by ID."""
    found = []
    for state in sorted((home or default_home()).glob(f"*/{STATE_FILE}")):
        try:
            found.append(Sandbox.load(state.parent))
        except (OSError, ValueError):  # it is being stopped, or another version wrote it
            continue
    return found


def find(sandbox_id: str, home: Path | None = None) -> Sandbox:
    """Raises SandboxError when there is no such sandbox."""
    directory = (home or default_home()) / sandbox_id
    if ID.fullmatch(sandbox_id):
        try:
            return Sandbox.load(directory)
        except (OSError, ValueError):
            pass
    raise SandboxError(
        f"There is no sandbox {sandbox_id} in {directory.parent}.",
        hint="List them with `xmode-transfer sandbox list`.",
    )


def is_running(sandbox: Sandbox) -> bool:
    return birth(sandbox.pid) == sandbox.born


def _new_directory(home: Path) -> Path:
    while True:
        directory = home / f"sbx-{secrets.token_hex(3)}"
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            continue
        return directory


def _serve(python: Path, directory: Path, *, detach: bool, keep: bool) -> Sandbox:
    sandbox_id, root_secret = directory.name, secrets.token_hex(20)
    (directory / "tmp").mkdir()
    attached = [] if detach else ["--attached", *([] if keep else [str(directory)])]
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        with (directory / "server.log").open("ab") as log:
            popen = subprocess.Popen(
                [str(python), "-I", str(LAUNCHER), str(listener.fileno()), *attached],
                env=_server_environment(directory, port, root_secret),
                cwd=directory,
                stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for us, who stop it in order
            )
    _children[sandbox_id] = Child(popen, directory, os.getpid(), attached=not detach, keep=keep)
    return Sandbox(
        id=sandbox_id,
        endpoint=f"http://127.0.0.1:{port}",
        pid=popen.pid,
        born=birth(popen.pid) or "",
        directory=directory,
        root_secret=root_secret,
    )


def _server_environment(directory: Path, port: int, root_secret: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in INHERITED} | {
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": root_secret,  # of every account's root
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "HOME": str(directory),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "SERVICES": "s3,iam,sts,kms",
        "STATE_DIR": str(directory / "state"),
        "S3_DATA_DIR": str(directory / "s3"),
        "TMPDIR": str(directory / "tmp"),
        "SFTP_ENABLED": "0",  # it would listen on ports of its own
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",  # it would tidy up containers
    }


def _await_ready(sandbox: Sandbox) -> None:
    """The socket has been listening since before the server began, so one request waits until it is up."""
    host, _, port = sandbox.endpoint.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=READY_SECONDS)
    try:
        connection.request("GET", "/_ministack/health")
        healthy = connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        healthy = False
    finally:
        connection.close()
    if not healthy:
        lines = sandbox.log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
        shown = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
        raise SandboxError(
            f"The local AWS did not start within {READY_SECONDS} seconds. The end of its log:\n{shown}",
            hint=f"Delete {sandbox.directory.parent / 'runtime'} to reinstall it, then try again.",
        )


def _collect(child: Child) -> None:
    child.popen.wait()
    if child.popen.stdin is not None:
        child.popen.stdin.close()


@atexit.register
def _stop_children() -> None:
    """Ends what was started for as long as this process runs; not in a fork of it."""
    for child in list(_children.values()):
        if child.attached and child.parent == os.getpid():
            child.popen.kill()
            _collect(child)
            if not child.keep:
                shutil.rmtree(child.directory, ignore_errors=True)
