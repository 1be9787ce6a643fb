"""What starts while the ledger's database server is away: daemons and workers wait for it, commands fail."""

import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)

SECONDS = 120.0
DAEMON = ["daemon", "--engine", "procrastinate"]
ALONE = ["daemon"]
WORKER = ["worker", "--metrics", "127.0.0.1:0"]
SERVICE = "ledger: env:LEDGER_URL\nstatus_page: {listen: '127.0.0.1:0'}\ndaemon: {tick_seconds: 1}\n"


@pytest.fixture
def here(bare_project: Any) -> Iterator[Any]:
    """A project without customers, whose ledger is where LEDGER_URL says."""
    for folder in ("feeds", "customers"):
        (bare_project.directory / folder).mkdir()
    (bare_project.directory / "service.yaml").write_text(SERVICE)
    yield bare_project
    for process in bare_project.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def answer(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def until(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    last = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < last, told()
        time.sleep(0.1)


class Heard:
    """What systemd is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(SECONDS)

    def until(self, word: str) -> str:
        while True:
            self.said.append(self._socket.recv(4096).decode())
            if word in self.said[-1]:
                return self.said[-1]

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("command", [DAEMON, ALONE, WORKER], ids=["daemon of a fleet", "daemon", "worker"])
def test_it_is_waited_for_alive_and_not_ready(
    here: Any, own_postgres: Any, tmp_path: Path, command: list[str]
) -> None:
    kind = command[0]
    own_postgres.stop()
    heard = Heard(tmp_path / "notify")
    started = {"LEDGER_URL": own_postgres.url("xmode"), "NOTIFY_SOCKET": str(heard.path)}
    alive = tmp_path / "alive"
    more = ["--heartbeat-file", str(alive)] if kind == "worker" else []
    process = here.launch(*command, *more, **started)
    page = process.wait("page.started", seconds=SECONDS)["address"]
    assert "EXTEND_TIMEOUT_USEC=" in heard.until("STATUS=waiting for the ledger: ")
    status, told = answer(f"{page}healthz")
    assert (status, told.startswith(f"ok {kind}: ")) == (200, True)
    assert answer(f"{page}readyz")[0] == 503
    heard.until("STATUS=waiting for the ledger: ")  # it has tried again
    assert alive.exists() is (kind == "worker")
    assert len(process.seen("ledger.unavailable", cause="ledger_unreachable")) == 1
    assert not any("READY=1" in message for message in heard.said)

    own_postgres.start()
    process.wait(f"{kind}.started", seconds=SECONDS)
    assert "STATUS=" in heard.until("READY=1")
    assert len(process.seen("ledger.unavailable")) == 1
    assert process.seen("ledger.recovered")
    page = process.seen("page.started")[-1]["address"]
    until(lambda: answer(f"{page}readyz")[0] == 200, process.told)
    assert process.end(seconds=SECONDS) == 0
    assert not alive.exists()
    heard.close()


@pytest.fixture
def nobody(tmp_path: Path) -> str:
    """The URL of a ledger on a server that does not run."""
    return f"postgresql://xmode@/xmode?host={tmp_path}"


@pytest.mark.parametrize("command", [DAEMON, WORKER], ids=["daemon", "worker"])
def test_it_ends_when_it_is_asked_to(here: Any, nobody: str, command: list[str]) -> None:
    process = here.launch(*command, LEDGER_URL=nobody)
    process.wait("ledger.unavailable", seconds=SECONDS)
    assert process.end(signal.SIGTERM, seconds=SECONDS) == 0, process.told()
    assert process.seen(f"{command[0]}.stopped")
    assert not process.seen(f"{command[0]}.started")


@pytest.mark.parametrize("command", [DAEMON, WORKER], ids=["daemon", "worker"])
def test_it_ends_when_it_is_asked_to_although_the_server_never_answers(here: Any, command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://xmode@127.0.0.1:{port}/xmode?connect_timeout=600"
        process = here.launch(*command, LEDGER_URL=url)
        silent.settimeout(SECONDS)
        connection, _ = silent.accept()  # it has asked, and waits
        with connection:
            assert process.end(signal.SIGTERM, seconds=SECONDS) == 0, process.told()
        assert process.seen(f"{command[0]}.stopped")


def test_what_no_waiting_mends_ends_it_at_once(here: Any, own_postgres: Any) -> None:
    own_postgres.execute("CREATE ROLE xmode LOGIN PASSWORD 'another'")
    own_postgres.allow("local all postgres trust", "local all all scram-sha-256")
    own_postgres.execute("SELECT pg_reload_conf()")
    for url, told, hint in (
        (own_postgres.url("xmode", "xmode:wrong-one"), "password authentication failed", "`ledger:`"),
        (own_postgres.url("nowhere"), "There is no database", "createdb"),
    ):
        for command in (DAEMON, ALONE, WORKER):
            refused = here.run(*command, LEDGER_URL=url)
            assert refused.code == 2, refused.err
            assert told in refused.err
            assert hint in refused.err
            assert "ledger.unavailable" not in refused.err


@pytest.mark.parametrize("command", [["status"], ["run", "--all"]], ids=["status", "run"])
def test_a_command_says_so_and_does_not_wait(here: Any, nobody: str, command: list[str]) -> None:
    refused = here.run(*command, "--json", LEDGER_URL=nobody)
    assert refused.code == 3, refused.err
    error = refused.json["error"]
    assert (error["cause"], error["retryable"]) == ("ledger_unreachable", True)
    assert "pg_isready" in error["hint"]
