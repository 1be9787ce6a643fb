"""What systemd is told."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from xmode_transfer.service import lifecycle


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


def test_each_word(listener: socket.socket) -> None:
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


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    lifecycle.ready("x")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    lifecycle.ready("x")
