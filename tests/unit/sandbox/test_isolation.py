"""The shared fixtures keep their word: no environment of the machine's, no network but loopback."""

import os
import socket
from pathlib import Path

import pytest


def test_no_address_but_loopback_is_reached(loopback_only: list[str]) -> None:
    with pytest.raises(RuntimeError, match=r"127\.0\.0\.1 only"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
    with pytest.raises(RuntimeError, match=r"example\.com"):
        socket.getaddrinfo("example.com", 443)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        pytest.raises(RuntimeError, match=r"192\.0\.2\.2"),
    ):
        udp.sendto(b"", ("192.0.2.2", 9))
    assert loopback_only == ["192.0.2.1", "example.com", "192.0.2.2"]
    loopback_only.clear()


def test_loopback_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        socket.create_connection(address, timeout=1).close()
        socket.create_connection(("localhost", address[1]), timeout=1).close()


def test_no_aws_identity_is_in_the_environment(tmp_path: Path) -> None:
    assert {name for name in os.environ if name.startswith(("AWS_", "XMODE_"))} == {
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_EC2_METADATA_DISABLED",
    }
    assert not Path(os.environ["AWS_CONFIG_FILE"]).exists()
    assert list(Path.home().iterdir()) == []
