"""The demo as a person runs it: what it shows, and that nothing is left behind. What it keeps up is looked at
in ``tests/browser/test_demo_page.py``."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import commands
from xmode_transfer.sandbox import server

STEPS = 9
PATIENCE_SECONDS = 500

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(900)]  # it begins early


class Place(NamedTuple):
    """Where a demo is run: its directory, and the home of its sandbox."""

    directory: Path
    home: Path

    def environment(self) -> dict[str, str]:
        return {**os.environ, "XMODE_SANDBOX_HOME": str(self.home)}

    def demo(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return commands.run(
            [commands.COMMAND, "demo", *options],
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def left_behind(self, daemon: dict[str, Any]) -> None:
        """As if a demo had kept this daemon up here."""
        (self.directory / ".demo").mkdir()
        daemon |= {"address": "http://127.0.0.1:1/"}
        state = {"sandbox": None, "home": str(self.home), "daemon": daemon}
        (self.directory / ".demo" / "demo.json").write_text(json.dumps(state), encoding="utf-8")

    def sandboxes(self) -> list[str]:
        return [path.name for path in self.home.iterdir() if path.name != "runtime"]


@pytest.fixture
def place(sandbox_home: Path, tmp_path: Path) -> Iterator[Place]:
    """A directory to run it in, with a sandbox home of its own that shares what is installed."""
    found = Place(tmp_path / "somewhere", tmp_path / "home")
    found.directory.mkdir()
    found.home.mkdir()
    (found.home / "runtime").symlink_to(sandbox_home / "runtime")
    yield found
    for left in server.find_all(found.home):
        server.stop(left)


def answers(endpoint: str) -> bool:
    host, port = endpoint.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_person_sees_a_whole_delivery_and_nothing_is_left(place: Place) -> None:
    done = place.demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    shown = done.stdout

    assert [int(number) for number in re.findall(r"^(\d+)  \S", shown, re.MULTILINE)] == list(
        range(1, STEPS + 1)
    )
    assert re.findall(r"^\$ xmode-transfer (.+)$", shown, re.MULTILINE) == [
        "config check",
        "run --customer acme",
        "run --customer globex",
        "list --customer acme",
        "run --customer acme",
        "run --customer initech",
        "status",
        "run --customer initech",
    ]
    first, second = shown.split("$ xmode-transfer run --customer acme\n")[1:]
    assert first.split("\n$ ")[0].count("delivered") == 11  # five days of two feeds, and the drop folder
    assert "delivered" not in second.split("\n\n")[0]
    assert '"format": "xmode-manifest/1"' in shown
    assert " objects read back and compared with the files: identical, byte for byte" in shown

    refused, mended = [
        part.split("\n\n")[0] for part in shown.split("$ xmode-transfer run --customer initech\n")[1:]
    ]
    for must_say in ("blocked", "arn:aws:iam::", "external ID", "the customer", "fix"):
        assert must_say in refused
    assert "exit code 4" in refused
    assert "delivered" in mended

    endpoint = re.search(r"http://127\.0\.0\.1:\d+", shown)
    assert endpoint
    assert not answers(endpoint[0])
    assert place.sandboxes() == []
    assert list(place.directory.iterdir()) == []


def test_stop_ends_the_very_daemon_and_no_later_process_with_its_number(place: Place) -> None:
    pids = []
    for born in (None, "long ago"):
        with subprocess.Popen(["sleep", "600"]) as other:
            place.left_behind({"pid": other.pid, "born": born or server.birth(other.pid)})
            assert place.demo("--stop").returncode == 0
            pids.append(other.poll())
            other.kill()
    assert pids == [-signal.SIGTERM, None]
    assert list(place.directory.iterdir()) == []


def test_it_can_be_interrupted_and_leaves_no_process(place: Place) -> None:
    shown = interrupted(place, signal.SIGINT, "$ xmode-transfer run")
    endpoint = re.search(r"http://127\.0\.0\.1:\d+", shown)
    assert endpoint
    assert not answers(endpoint[0])
    assert place.sandboxes() == []


def test_it_ends_an_earlier_one_first_and_is_ended_by_a_signal_to_it_alone(place: Place) -> None:
    with subprocess.Popen(["sleep", "600"]) as earlier:
        place.left_behind({"pid": earlier.pid, "born": server.birth(earlier.pid)})
        shown = interrupted(place, signal.SIGTERM, "$ xmode-transfer run", "--keep")
        earlier.kill()
    assert earlier.returncode == -signal.SIGTERM
    assert "stopped and removed the demo that was here before" in shown
    assert place.sandboxes() == []
    assert place.demo("--stop").returncode == 0
    assert not (place.directory / ".demo").exists()
    assert "No demo is running" in place.demo("--stop").stdout


def interrupted(place: Place, number: signal.Signals, beginning: str, *options: str) -> str:
    """What a demo shows that is interrupted shortly after it has shown a line with this beginning."""
    with commands.Started(
        [commands.COMMAND, "demo", *options],
        cwd=place.directory,
        env=place.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        shown = ""
        for line in demo.stdout:
            shown += line
            if line.startswith(beginning):
                break
        time.sleep(0.5)
        # A terminal's Ctrl-C reaches the command that is being run too; a SIGTERM reaches the demo alone.
        os.killpg(demo.pid, number) if number is signal.SIGINT else demo.send_signal(number)
        shown += demo.stdout.read()
        assert demo.wait(PATIENCE_SECONDS) == 130, shown
    return shown


def test_a_directory_that_is_not_the_demos_is_left_alone(place: Place) -> None:
    precious = place.directory / ".demo" / "precious"
    precious.parent.mkdir()
    precious.write_text("mine", encoding="utf-8")
    for options in ((), ("--stop",)):
        done = place.demo(*options)
        assert done.returncode == 2
        assert "left untouched" in done.stderr
    assert precious.read_text(encoding="utf-8") == "mine"
    assert place.sandboxes() == []
