"""Who may ask the status page what, tried on the wire."""

import base64
import socket
from collections.abc import Callable

import pytest

from tests.unit.web.conftest import ask
from xmode_transfer.config import SecretRef, StatusPage
from xmode_transfer.config.secrets import SecretKind
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.web.application import SECURITY_HEADERS, rules_for
from xmode_transfer.web.server import Server

Open = Callable[..., Server]
TOKEN = "correct-horse-battery"
TOKEN_IN = SecretRef(SecretKind.ENV, "PAGE_TOKEN")
EVERYWHERE = StatusPage(listen="0.0.0.0:0", token=TOKEN_IN)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGE_TOKEN", TOKEN)


def basic(password: str, user: str = "operator") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_page_is_read_only(open_page: Open) -> None:
    address = open_page().address
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"):
        for path in ("/healthz", "/", "/nothing"):
            answer = ask(address, path, method=method)
            assert answer.status == 405
            assert answer.headers["allow"] == "GET, HEAD"


def test_head_answers_as_get_without_the_body(open_page: Open) -> None:
    address = open_page().address
    got, headed = ask(address, "/healthz"), ask(address, "/healthz", method="HEAD")
    assert headed.status == got.status == 200
    assert headed.body == b""
    assert headed.headers["content-length"] == str(len(got.body))


def test_every_answer_carries_the_security_headers(open_page: Open) -> None:
    address = open_page().address
    evil = {"Host": "evil.example"}
    for path, headers in (("/healthz", {}), ("/nothing", {}), ("/", evil), ("/", {})):
        answer = ask(address, path, headers=headers)
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name.lower()] == value
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
        assert "unsafe" not in answer.headers["content-security-policy"]


def test_unknown_host_names_are_refused(open_page: Open) -> None:
    address = open_page().address
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8321",
        "",
        "169.254.169.254",
        "[::2]",
    ):
        answer = ask(address, "/metrics", headers={"Host": host})
        assert answer.status == 421, host
        assert "status_page.hosts" in answer.text


def test_known_host_names_are_answered_on_any_port(open_page: Open) -> None:
    address = open_page(StatusPage(listen="127.0.0.1:0", hosts=("status.example.com",))).address
    for host in ("localhost", "localhost:9", "LOCALHOST.", "127.0.0.1:80", "[::1]:80", "status.example.com"):
        assert ask(address, "/metrics", headers={"Host": host}).status == 200, host


def test_two_host_headers_are_refused(open_page: Open) -> None:
    address = open_page().address
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        )
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400"))


def test_an_unreadable_token_is_an_error(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAGE_TOKEN")
    with pytest.raises(ConfigError, match=r"status_page\.token"):
        open_page(EVERYWHERE)


def local(server: Server) -> str:
    return server.address.replace("0.0.0.0", "127.0.0.1")


NOT_THE_TOKEN = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Token {TOKEN}"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
    basic("wrong"),
    basic("", user=TOKEN),
]


def test_the_page_requires_its_token(open_page: Open) -> None:
    address = local(open_page(EVERYWHERE))
    for headers in NOT_THE_TOKEN:
        answer = ask(address, "/metrics", headers=headers)
        assert answer.status == 401, headers
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        assert TOKEN not in answer.text
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, basic(TOKEN), basic(TOKEN, "")):
        assert ask(address, "/metrics", headers={"Host": "any.name", **headers}).status == 200


def test_probes_need_neither_a_name_nor_a_token(open_page: Open) -> None:
    settings = StatusPage(listen="0.0.0.0:0", token=TOKEN_IN, hosts=("status.example.com",))
    address = local(open_page(settings))
    for path in ("/healthz", "/readyz"):
        assert ask(address, path, headers={"Host": "10.1.2.3:8321"}).status == 200
    refused = ask(address, "/metrics", headers={"Host": "10.1.2.3", "Authorization": f"Bearer {TOKEN}"})
    assert refused.status == 421


def test_a_local_page_may_have_a_token_too(open_page: Open) -> None:
    address = open_page(StatusPage(listen="127.0.0.1:0", token=TOKEN_IN)).address
    assert ask(address, "/metrics").status == 401
    assert ask(address, "/metrics", headers=basic(TOKEN)).status == 200


def test_a_token_may_have_non_ascii_characters() -> None:
    rules = rules_for(StatusPage(listen="127.0.0.1:0"), "pässword")
    assert rules.admits(basic("pässword")["Authorization"])
    assert rules.admits("Bearer " + "pässword".encode().decode("latin-1"))
    assert not rules.admits("Bearer pässword")


def test_a_used_port_is_an_error(open_page: Open) -> None:
    taken = open_page().address.removeprefix("http://").rstrip("/")
    with pytest.raises(ConfigError, match=f"cannot listen on {taken}: Address already in use") as caught:
        open_page(StatusPage(listen=taken))
    assert "status_page.listen" in caught.value.hint


def test_closing_it_frees_its_port_and_may_be_done_twice(open_page: Open) -> None:
    server = open_page()
    listen = server.address.removeprefix("http://").rstrip("/")
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server.address)
    assert ask(open_page(StatusPage(listen=listen)).address, "/healthz").status == 200
