"""Holders of leases are recognised as living or dead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xmode_transfer.ledger import database
from xmode_transfer.ledger.database import is_dead, this_process

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc here")


@linux
def test_a_holder_has_host_boot_pid_and_start() -> None:
    host, boot, pid, started = this_process().split("/")
    assert host
    assert boot.startswith(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    assert (int(pid), int(started) > 0) == (os.getpid(), True)
    assert this_process() == this_process()
    assert is_dead(this_process()) is False


@linux
def test_a_process_is_dead_as_soon_as_it_was_killed() -> None:
    program = "from xmode_transfer.ledger import database as p; print(p.this_process(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    holder = process.stdout.readline().decode().strip()
    assert is_dead(holder) is False
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, but still in the table as a zombie
    assert is_dead(holder) is True
    process.communicate()
    assert is_dead(holder) is True


@linux
def test_a_reused_pid_is_another_process() -> None:
    host, boot, pid, started = this_process().split("/")
    assert is_dead(f"{host}/{boot}/{pid}/{int(started) - 1}") is True


@linux
@pytest.mark.parametrize("part", [0, 1])
def test_a_process_of_another_host_or_boot_is_unknown(part: int) -> None:
    parts = this_process().split("/")
    parts[part] += "0"
    parts[2] = "4194304"  # more than Linux ever gives
    assert is_dead("/".join(parts)) is None


@pytest.mark.parametrize("holder", ["", "host-a", "a/b/c", "a/b/c/d", "a/b/1/2/3", "a/b/-1/2"])
def test_a_holder_of_another_format_is_unknown(holder: str) -> None:
    assert is_dead(holder) is None


def test_without_proc_a_process_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(database, "_PROC", tmp_path)
    holder = this_process()
    assert holder.split("/")[1:] == ["-", str(os.getpid()), "-"]
    assert is_dead(holder) is None
