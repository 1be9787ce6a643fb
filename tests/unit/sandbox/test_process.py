"""Only the very process that was started is ever ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from xmode_transfer.sandbox import server

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


@pytest.fixture(params=[SLEEP])
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"up\n"
        yield started
        started.kill()


def test_birth_tells_processes_apart(child: subprocess.Popen[bytes]) -> None:
    assert server.birth(child.pid)
    assert server.birth(child.pid) == server.birth(child.pid)
    assert server.birth(os.getpid()) != server.birth(child.pid)


def test_a_process_that_has_ended_has_no_birth_even_before_it_is_collected(
    child: subprocess.Popen[bytes],
) -> None:
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert server.birth(child.pid) is None
    child.wait()
    assert server.birth(child.pid) is None


def test_a_later_process_with_the_same_number_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    assert not server.end(child.pid, "born at another time")
    assert child.poll() is None


def test_a_process_that_never_could_be_named_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert not server.end(child.pid, "")


@pytest.mark.parametrize(
    ("child", "with_signal"), [(SLEEP, signal.SIGTERM), (STUBBORN, signal.SIGKILL)], indirect=["child"]
)
def test_it_ends_the_process(child: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    born = server.birth(child.pid)
    assert born is not None
    assert server.end(child.pid, born, grace_seconds=0.3)
    assert child.wait() == -with_signal
