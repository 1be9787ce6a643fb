"""The command line of the sandbox, and that nothing is left behind however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests import bucket, commands
from xmode_transfer.cli.sandbox import command
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.accounts import owner
from xmode_transfer.sandbox.model import Sandbox, SandboxError, Variant

pytestmark = pytest.mark.sandbox

COMMAND = [commands.COMMAND, "sandbox"]
PATIENCE_SECONDS = 120


@pytest.fixture
def home(sandbox_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, which borrows the installation."""
    home = tmp_path / "sandboxes"
    home.mkdir()
    (home / "runtime").symlink_to(sandbox_home / "runtime")
    monkeypatch.setenv("XMODE_SANDBOX_HOME", str(home))
    return home


def sandboxes(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob("sbx-*"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run([*COMMAND, *arguments], capture_output=True, text=True)


@contextmanager
def foreground(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A sandbox that runs in the foreground, and the JSON that it printed."""
    line = [*COMMAND, "--json", *arguments]
    with commands.Started(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            text = ""
            while not text.endswith("\n}\n"):
                more = started.stdout.readline()
                assert more, started.stderr and started.stderr.read()
                text += more
            yield started, json.loads(text)
        finally:
            started.kill()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_its_files_are_written_by_nobody_else(home: Path, tmp_path: Path, umask: int) -> None:
    line = [*COMMAND, "--detach", "--json", "--customer", "acme", "--write-config", str(tmp_path / "try")]
    started = commands.run(line, umask=umask, capture_output=True, text=True, check=True)
    directory = Path(json.loads(started.stdout)["directory"])
    try:
        made = [path for root in (directory, tmp_path / "try") for path in (root, *root.rglob("*"))]
        assert [path for path in made if path.stat().st_mode & 0o022] == []
        assert directory.stat().st_mode & 0o077 == 0
        assert (directory / "sandbox.json").stat().st_mode & 0o077 == 0  # it has the keys
    finally:
        assert run("stop", directory.name).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_runs_until_it_is_asked_to_stop(home: Path, number: signal.Signals) -> None:
    with foreground() as (started, shown):
        assert sandboxes(home) == [shown["id"]]
        running = Sandbox.load(home / shown["id"])
        for customer in running.customers:
            assert bucket.list_keys(customer) == []
        started.send_signal(number)
        assert started.wait(PATIENCE_SECONDS) == 0
    assert server.birth(shown["pid"]) is None
    assert sandboxes(home) == []


def test_nothing_is_left_when_it_is_killed(home: Path) -> None:
    with foreground() as (started, shown):
        started.kill()
        started.wait(PATIENCE_SECONDS)
    assert eventually(lambda: server.birth(shown["pid"]) is None)
    assert eventually(lambda: sandboxes(home) == [])


def test_what_it_shows_is_enough_to_deliver(home: Path, tmp_path: Path) -> None:
    customers = ["--customer", "acme", "--customer", "initech=versioned"]
    with foreground(*customers, "--write-config", str(tmp_path / "config")) as (_, shown):
        assert shown["config"] == str(tmp_path / "config")
        assert [(found["name"], found["variant"]) for found in shown["customers"]] == [
            ("acme", "guide"),
            ("initech", "versioned"),
        ]
        initech = shown["customers"][1]
        written = yaml.safe_load((tmp_path / "config/customers/initech.yaml").read_text())
        assert written["external_id"] == initech["external_id"] == "InitechCorp"
        assert written["role_arn"] == initech["role_arn"]
        assert written["destination"]["bucket"] == initech["bucket"]

        assume = (
            "import sys, boto3; c = boto3.client('sts').assume_role(RoleArn=sys.argv[1],"
            "ExternalId=sys.argv[2], RoleSessionName='try'); print(c['AssumedRoleUser']['Arn'])"
        )
        done = subprocess.run(
            [sys.executable, "-c", assume, initech["role_arn"], initech["external_id"]],
            env=os.environ | shown["environment"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == f"arn:aws:sts::{initech['account']}:assumed-role/XMode/try", done.stderr


def test_detached_it_is_listed_used_and_stopped_from_elsewhere(home: Path) -> None:
    started = run("--detach", "--customer", "acme")
    assert started.returncode == 0, started.stderr
    (sandbox_id,) = sandboxes(home)
    try:
        assert sandbox_id in started.stdout
        assert "arn:aws:iam::111122223333:role/XMode" in started.stdout

        listed = json.loads(run("list", "--json").stdout)["sandboxes"]
        assert [(found["id"], found["running"]) for found in listed] == [(sandbox_id, True)]

        shell = 'eval "$1"; echo "$AWS_ENDPOINT_URL ${AWS_PROFILE-none}"'
        told = subprocess.run(
            ["sh", "-c", shell, "sh", run("env").stdout],
            env=os.environ | {"AWS_PROFILE": "production"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout == f"{listed[0]['endpoint']} none\n"
    finally:
        stopped = run("stop", sandbox_id)
    assert stopped.stdout == f"{sandbox_id}  stopped\n"
    assert server.birth(listed[0]["pid"]) is None
    assert sandboxes(home) == []
    assert json.loads(run("stop", "--all", "--json").stdout) == {"stopped": []}


def test_a_server_that_ended_by_itself_is_told_and_tidied_up(home: Path) -> None:
    with foreground() as (started, shown):
        os.kill(shown["pid"], signal.SIGKILL)
        told, _ = started.communicate(timeout=PATIENCE_SECONDS)
        assert started.returncode == 2
        assert "has stopped unexpectedly" in json.loads(told)["error"]["message"]
    assert sandboxes(home) == []


def test_two_run_side_by_side_and_share_nothing(home: Path) -> None:
    with server.running(home) as one, server.running(home) as other:
        assert one.endpoint != other.endpoint
        bucket.put_object(one.customer("acme"), "only-here", b"1")
        assert bucket.list_keys(one.customer("acme")) == ["only-here"]
        assert bucket.list_keys(other.customer("acme")) == []
        assert owner(one.customer("acme"), "iam").list_roles()["Roles"][0]["RoleName"] == "XMode"
    assert sandboxes(home) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_on_loopback_only(home: Path) -> None:
    with server.running(home, {}) as running:
        sockets = {
            link.removeprefix("socket:[").removesuffix("]")
            for link in (str(path.readlink()) for path in Path(f"/proc/{running.pid}/fd").iterdir())
            if link.startswith("socket:[")
        }
        listening = []
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{running.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in sockets:
                    listening.append(fields[1].split(":")[0])
        assert listening == ["0100007F"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--customer", "Acme"], "'Acme' cannot be a name"),
        (["--customer", "acme=gide"], "did you mean guide?"),
        (["--customer", "acme", "--customer", "acme=versioned"], "acme is given twice"),
        (["--write-config", "."], "is not empty"),
        (["--detach", "list"], "Write options after `list`"),
        (["stop"], "Give the IDs of sandboxes, or --all"),
    ],
)
def test_mistakes_are_told_and_start_nothing(home: Path, arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert sandboxes(home) == []


def test_what_is_not_there_is_told(home: Path) -> None:
    for arguments, told in (
        ("stop sbx-000000", "There is no sandbox sbx-000000"),
        ("env", "0 sandboxes run"),
    ):
        done = run(*arguments.split())
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stdout == ""


def test_a_customer_that_cannot_be_set_up_leaves_nothing(home: Path) -> None:
    with pytest.raises(SandboxError, match=r"could not be set up.*bucket") as caught:
        server.start(home, {"x" * 63: Variant.GUIDE})
    assert caught.value.exit_code == 2
    assert sandboxes(home) == []
