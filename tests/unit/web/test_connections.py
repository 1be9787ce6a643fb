"""Clients that send half a request and no more, or read nothing of what they asked for."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.unit.web.conftest import Page, ask
from xmode_transfer.config import SecretRef, StatusPage
from xmode_transfer.config.secrets import SecretKind
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.web import server as connections
from xmode_transfer.web.server import Server, serve_metrics, serve_waiting

Open = Callable[..., Server]
HALF = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
FLOOD = 320
WITH_PROBES = StatusPage(listen="127.0.0.1:0", probes="127.0.0.1:0")


@pytest.fixture
def half_sent() -> Iterator[Callable[..., list[socket.socket]]]:
    """So many connections on which a request is begun."""
    with ExitStack() as stack:

        def make(server: Server, count: int = 1, sent: bytes = HALF) -> list[socket.socket]:
            parts = urlsplit(server.address)
            made = []
            for _ in range(count):
                address = (parts.hostname, parts.port)
                made.append(stack.enter_context(socket.create_connection(address, timeout=30)))
                made[-1].sendall(sent)
            return made

        yield make


def ends(connection: socket.socket) -> bool:
    """Whether the other side ends it; waits for that."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return True


def test_half_sent_requests_do_not_block_other_clients(
    open_page: Open, half_sent: Callable[..., list[socket.socket]]
) -> None:
    server = open_page(WITH_PROBES)
    assert server.probes is not None
    for _ in range(4):
        half_sent(server, FLOOD // 4)
        for address in (server.address, server.probes.address):
            assert ask(address, "/healthz").status == 200
            assert ask(address, "/readyz").status == 200
        assert ask(server.address, "/metrics").status == 200


def test_half_sent_probes_do_not_block_the_page(
    open_page: Open, half_sent: Callable[..., list[socket.socket]]
) -> None:
    server = open_page(WITH_PROBES)
    assert server.probes is not None
    half_sent(server.probes, FLOOD)
    assert ask(server.address, "/healthz").status == 200
    assert ask(server.probes.address, "/healthz").status == 200


def test_probes_while_a_daemon_waits_for_its_ledger() -> None:
    server = serve_waiting(WITH_PROBES)
    try:
        assert server.probes is not None
        for address in (server.address, server.probes.address):
            assert ask(address, "/healthz").status == 200
            assert ask(address, "/readyz").status == 503
    finally:
        server.close()


@pytest.mark.parametrize("sent", [b"", HALF, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HALF])
def test_an_unfinished_request_times_out(
    open_page: Open,
    half_sent: Callable[..., list[socket.socket]],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    (connection,) = half_sent(open_page(), sent=sent)
    assert ends(connection)


def test_a_slow_request_times_out(
    open_page: Open, half_sent: Callable[..., list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    (connection,) = half_sent(open_page())
    with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012 - which of the bytes it is, is chance
        while True:
            connection.sendall(b"x")
            time.sleep(0.01)


def test_a_response_that_is_not_read_times_out(
    open_page: Open,
    page: Page,
    half_sent: Callable[..., list[socket.socket]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    page.metrics = b"#" * 64 * 1024 * 1024  # more than any buffer takes
    server = open_page()
    (connection,) = half_sent(server, sent=b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    served = server._server.server_state
    give_up_at = time.monotonic() + 60
    while not served.total_requests or served.connections:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    assert ends(connection)


def test_a_connection_can_be_reused(open_page: Open) -> None:
    parts = urlsplit(open_page().address)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        for _ in range(3):
            connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_connection_is_refused_when_all_are_busy(
    half_sent: Callable[..., list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "AT_ONCE_PER_PEER", 1)
    asked, answer = threading.Event(), threading.Event()

    def metrics() -> bytes:
        asked.set()
        assert answer.wait(60)
        return b"# nothing\n"

    server = serve_metrics(StatusPage(listen="127.0.0.1:0"), metrics, lambda: 0.0, lambda: None)
    try:
        (first,) = half_sent(server, sent=b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.wait(60)
        assert ask(server.address, "/healthz").status == 503
        answer.set()
        told = b""
        while not told.endswith(b"# nothing\n"):
            told += first.recv(65536)
        assert ask(server.address, "/healthz").status == 200
    finally:
        answer.set()
        server.close()


def test_the_listener_of_the_probes_serves_only_probes(open_page: Open) -> None:
    server = open_page(WITH_PROBES)
    assert server.probes is not None
    for path in ("/", "/metrics", "/customers/acme"):
        assert ask(server.probes.address, path).status == 404
    assert ask(server.probes.address, "/healthz", headers={"Host": "10.1.2.3"}).status == 200
    assert ask(server.probes.address, "/healthz", method="POST").status == 405


def test_closing_it_closes_both(open_page: Open) -> None:
    server = open_page(WITH_PROBES)
    assert server.probes is not None
    server.close()
    for address in (server.address, server.probes.address):
        with pytest.raises(ConnectionRefusedError):
            ask(address)


def test_a_used_port_of_the_probes_is_an_error(open_page: Open) -> None:
    taken = open_page().address.removeprefix("http://").rstrip("/")
    with pytest.raises(ConfigError, match=f"probes cannot listen on {taken}") as caught:
        open_page(StatusPage(listen="127.0.0.1:0", probes=taken))
    assert "status_page.probes" in caught.value.hint


def test_a_short_token_is_refused(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = StatusPage(listen="0.0.0.0:0", token=SecretRef(SecretKind.ENV, "PAGE_TOKEN"))
    monkeypatch.setenv("PAGE_TOKEN", "x" * 15)
    for start in (
        lambda: open_page(settings),
        lambda: serve_metrics(settings, lambda: b"", lambda: 0.0, lambda: None),
        lambda: serve_waiting(settings),
    ):
        with pytest.raises(
            ConfigError, match=r"the value in env:PAGE_TOKEN is too short: 15 of at least 16"
        ) as told:
            start()
        assert "x" * 15 not in f"{told.value.message} {told.value.hint}"
    monkeypatch.setenv("PAGE_TOKEN", "x" * 16)
    assert open_page(settings)
