"""Notifications to systemd, and the signs of life of a worker."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.clock import MemoryClock
from xmode_transfer.service import lifecycle
from xmode_transfer.service.lifecycle import EVERY_SECONDS, Liveness


@pytest.fixture(params=["file", "abstract"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        abstract = request.param == "abstract"
        listening.bind(f"\0{name}" if abstract else name)
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        yield listening


def test_notifications_to_systemd(listener: socket.socket) -> None:
    lifecycle.ready("3 customers")
    assert listener.recv(4096) == b"READY=1\nSTATUS=3 customers"
    lifecycle.status("2 running")
    assert listener.recv(4096) == b"STATUS=2 running"
    lifecycle.watchdog()
    assert listener.recv(4096) == b"WATCHDOG=1"
    lifecycle.reloading()
    first, second = listener.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
    lifecycle.stopping()
    assert listener.recv(4096).startswith(b"STOPPING=1\n")


def test_notifications_are_optional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    lifecycle.ready("x")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    lifecycle.ready("x")


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(lifecycle, "watchdog", lambda: calls.append("watchdog"))
    return calls


def test_progress_touches_the_file_and_notifies_the_watchdog(tmp_path: Path, watchdog: list[str]) -> None:
    clock, file = MemoryClock(), tmp_path / "alive"
    liveness = Liveness(clock, file)
    assert not file.exists(), "a process without progress is not alive"
    liveness.progress()
    os.utime(file, (0, 0))
    clock.advance(EVERY_SECONDS / 2)
    liveness.progress()
    assert (file.stat().st_mtime, watchdog) == (0, ["watchdog"])
    clock.advance(EVERY_SECONDS / 2)
    liveness.progress()
    assert file.stat().st_mtime > 0
    assert len(watchdog) == 2
    liveness.close()
    assert not file.exists()


def test_liveness_without_a_file_and_with_one_that_cannot_be_written(
    tmp_path: Path, watchdog: list[str]
) -> None:
    for file in (None, tmp_path / "missing" / "alive"):
        liveness = Liveness(MemoryClock(), file)
        liveness.progress()
        liveness.close()
    assert len(watchdog) == 2
