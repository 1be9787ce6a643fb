"""The installed command in a process of its own, as a user starts it, at a tenth of the price.

Most of a short command is importing. So one process imports everything once, and is forked for each start:
the child has the environment, the directory and the three streams that it was given, and goes through
``main`` and the interpreter's own end. It is a child of the test's process like any other, so that it can be
waited for and sent signals. Off Linux, and where the environment asks for another interpreter (``PYTHON*``,
``LANG``, ``LC_*``), the command is started the ordinary way. ``tests/functional/test_commands.py`` starts
each as it is installed.
"""

import ctypes
import gc
import importlib.util
import json
import os
import pkgutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("xmode-transfer"))
_PR_SET_CHILD_SUBREAPER = 36
_REQUEST_BYTES = 1 << 20
_IMPORTED_LATE = (
    "ast",
    "difflib",
    "inspect",
    "structlog.stdlib",
    "rich.live",
    "rich.progress",
    "s3transfer.manager",
)
_OF_THE_INTERPRETER = ("PYTHON", "LANG", "LC_")


class Started(subprocess.Popen[Any]):
    """``subprocess.Popen`` of the command: ``Started([COMMAND, "status"], stdout=PIPE, text=True)``.

    ``constants`` shortens what a test would wait for: ``{"TTL_SECONDS": 5.0}`` holds in that process, in each
    module that has the name. ``closed`` names the standard streams that it does not have, as ``2>&-`` does.
    """

    def __init__(
        self,
        *arguments: Any,
        constants: Mapping[str, float] | None = None,
        closed: Collection[int] = (),
        **how: Any,
    ) -> None:
        self._ours = {"constants": dict(constants or {}), "closed": [*closed]}
        super().__init__(*arguments, **how)

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        (_, pass_fds, cwd, env, _, _, shell), pipes, others = rest[:7], rest[7:13], rest[14:20]
        environment = dict(os.environ if env is None else env)
        umask, new_session = others[3:5]
        is_plain = not (preexec_fn or pass_fds or shell)
        is_plain = is_plain and others == (None, None, None, umask, new_session, -1)
        template = _template(environment) if is_plain and args[0] == COMMAND else None
        if template is None:
            assert not any(self._ours.values()), "what an ordinary process does not know"
            return super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
        streams = [own if given == -1 else given for own, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = {
            "args": [str(one) for one in args],
            "env": environment,
            "cwd": str(cwd or Path.cwd()),
            "umask": umask,
            "new_session": new_session,
            **self._ours,
        }
        self.pid = template.fork(json.dumps(request).encode(), streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        return None


def run(
    arguments: list[Any], *, timeout: float | None = None, check: bool = False, **how: Any
) -> "subprocess.CompletedProcess[Any]":
    """``subprocess.run`` of the command."""
    if how.pop("capture_output", False):
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if (given := how.pop("input", None)) is not None:
        how["stdin"] = subprocess.PIPE
    with Started(arguments, **how) as process:
        try:
            out, err = process.communicate(given, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


class _Template:
    """The process that is forked. It ends when it is closed, and with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(far.fileno())],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # like those of its children, neither a terminal nor a file
            )

    def fork(self, request: bytes, streams: list[int]) -> int:
        """The process ID of a new child of this process."""
        with self._lock:
            adopt = ctypes.CDLL(None).prctl
            adopt(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # its parent has ended when the answer comes
            try:
                socket.send_fds(self._socket, [request], streams)
                answer = self._socket.recv(32)
            finally:
                adopt(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        assert answer, "the process that is forked for each command has died"
        return int(answer)

    def close(self) -> None:
        self._socket.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(60)


_templates: list[_Template] = []


def _template(environment: dict[str, str]) -> _Template | None:
    if sys.platform != "linux":
        return None
    if _interpreter_of(environment) != _interpreter_of(os.environ):
        return None
    if not _templates:
        _templates.append(_Template())
    return _templates[0]


def _interpreter_of(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_OF_THE_INTERPRETER)}


def close() -> None:
    """At the end of the tests."""
    while _templates:
        _templates.pop().close()


# --- The process that is forked ---------------------------------------------------------------------------


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Returns in each child, with what it is to do; and at the end, with None."""
    while True:
        data, streams, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
        if not data:
            return None
        read, write = os.pipe()
        between = os.fork()
        if between == 0:
            if (child := os.fork()) == 0:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                request: dict[str, Any] = json.loads(data)
                return request
            os.write(write, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)
        requests.send(os.read(read, 32))
        for one in (read, write, *streams):
            os.close(one)


def _set_constants(constants: Mapping[str, float]) -> None:
    ours = [module for name, module in sys.modules.items() if name.startswith("xmode_transfer.")]
    for name, value in constants.items():
        having = [module for module in ours if hasattr(module, name)]
        assert having, f"no module has {name}"
        for module in having:
            setattr(module, name, value)


def keep_aws_models() -> None:
    """botocore reads a service's model for each session, and works out the newer names of events; from now on
    once for this process and its forks."""
    from botocore.hooks import EventAliaser
    from botocore.loaders import JSONFileLoader

    read, models = JSONFileLoader.load_file, dict[str, Any]()
    make_aliaser, event_names = EventAliaser.__init__, dict[str, str]()

    def load_file(self: Any, path: str) -> Any:
        if path not in models:
            models[path] = read(self, path)
        return models[path]

    def initialize(self: Any, *arguments: Any) -> None:
        make_aliaser(self, *arguments)
        self._alias_name_cache = event_names

    JSONFileLoader.load_file = load_file
    EventAliaser.__init__ = initialize


def _import_everything() -> None:
    import botocore.session

    import xmode_transfer

    keep_aws_models()
    session = botocore.session.get_session()
    for service in ("s3", "sts"):
        session.create_client(service, "us-east-1", aws_access_key_id="-", aws_secret_access_key="-")

    for module in pkgutil.walk_packages(xmode_transfer.__path__, "xmode_transfer."):
        if module.name.rpartition(".")[2] not in ("__main__", "launch", "env", "versions"):
            importlib.import_module(module.name)
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    statements = _statements()
    statements.keep_statements()
    statements.compile_most()
    gc.collect()
    gc.freeze()


def _statements() -> Any:
    """The module beside this one: the packages of the tests are not on the path of a command."""
    spec = importlib.util.spec_from_file_location("_statements", Path(__file__).with_name("statements.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    from xmode_transfer import cli

    cli._start_quickly()
    with socket.socket(fileno=int(sys.argv[1])) as _requests:
        _import_everything()
        assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be forked"
        _request = _serve(_requests)
        if _request is not None:
            _requests.detach()
    if _request is not None:
        os.environ.clear()
        os.environ.update(_request["env"])
        os.chdir(_request["cwd"])
        if _request["umask"] >= 0:
            os.umask(_request["umask"])
        if _request["new_session"]:
            os.setsid()
        for _number in _request["closed"]:
            os.close(_number)
            setattr(sys, ("stdin", "stdout", "stderr")[_number], None)
        time.tzset()
        _set_constants(_request["constants"])
        sys.argv = _request["args"]
        cli.main()
