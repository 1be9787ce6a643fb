"""What the adapters' tests share: a server that plays AWS, a clock set by hand, bytes as a file."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from xmode_transfer.config import Customer
from xmode_transfer.model.errors import SourceChanged


@dataclass(frozen=True)
class Asked:
    """One request as it came over the wire. Header names are in lower case; ``raw_path`` is not decoded."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    raw_path: str = ""

    @property
    def form(self) -> dict[str, str]:
        """The parameters of a call to STS."""
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass(frozen=True)
class Reply:
    """``cut`` closes the connection without an answer once the request has been read; a body that is shorter
    than the Content-Length given breaks off."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


class Stub:
    """Answers with what it was told, in order; the last one again and again. Records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Reply | Callable[[Asked], Reply]] = []
        self.lock = threading.Lock()
        self.url = ""

    def reply(self, *replies: Reply | Callable[[Asked], Reply]) -> None:
        """From now on."""
        with self.lock:
            self.replies = list(replies)

    def next_reply(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply(asked) if callable(reply) else reply


@pytest.fixture
def stub() -> Iterator[Stub]:
    played = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return
            parts = urlsplit(self.path)
            reply = played.next_reply(
                Asked(
                    self.command,
                    unquote(parts.path),
                    parse_qs(parts.query, keep_blank_values=True),
                    {name.lower(): value for name, value in self.headers.items()},
                    body,
                    parts.path,
                )
            )
            if reply.cut:
                self.close_connection = True
                return
            self.send_response_only(reply.status)
            given = {name.lower() for name in reply.headers}
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if "content-length" not in given:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
                promised = reply.headers.get("Content-Length", len(reply.body))
                self.close_connection = int(promised) > len(reply.body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    played.url = f"http://127.0.0.1:{server.server_port}"
    yield played
    server.shutdown()
    thread.join()
    server.server_close()


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def move(self, **how: float) -> None:
        step = timedelta(**how)
        self.time += step
        self.seconds += step.total_seconds()


@pytest.fixture
def reply() -> type[Reply]:
    """What the stub answers with."""
    return Reply


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """botocore's pauses between its tries are written down and not slept."""
    pauses: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=pauses.append))
    return pauses


@pytest.fixture
def our_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOURS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")


@pytest.fixture
def customer_of() -> Callable[..., Customer]:
    """``customer_of(destination={...}, name=...)``: a customer like the guide's, with changes."""

    def make(**changes: Any) -> Customer:
        destination = {"bucket": "acme-data", "prefix": "xmode/", "region": "eu-west-1"}
        destination |= changes.pop("destination", {})
        document = {
            "name": "acme",
            "company": "Acme Corp",
            "external_id": "AcmeCorp",
            "role_arn": "arn:aws:iam::111122223333:role/XMode",
            "feeds": ["us-daily"],
            "destination": {name: value for name, value in destination.items() if value is not None},
        }
        return Customer.model_validate({**document, **changes})

    return make


class Bytes:
    """An open source file over bytes; ``changed`` says that it is no longer what was scanned."""

    def __init__(self, content: bytes, *, changed: bool = False) -> None:
        self.content = content
        self.size = len(content)
        self.changed = changed
        self.reads = 0
        self.closed = False

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads += 1
        piece = self.content[offset : offset + length]
        if len(piece) < length:
            raise SourceChanged("the file became shorter")
        return piece

    def read_into(self, buffer: memoryview, offset: int) -> int:
        self.reads += 1
        piece = self.content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def check_unchanged(self) -> None:
        if self.changed:
            raise SourceChanged("the file changed")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def file_of() -> type[Bytes]:
    """``file_of(b"...")``: an open source file with these bytes."""
    return Bytes
