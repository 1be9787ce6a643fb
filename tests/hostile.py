"""An endpoint that answers as no S3 would: without end, a byte at a time, or never. Loopback only.

STS is honest unless a mode says otherwise, so that a command gets as far as the bucket.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

ACCOUNT = "111122223333"
_IDENTITY = """<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::366810793500:user/xmode-data-transfer</Arn><UserId>AIDA</UserId><Account>366810793500</Account>
</GetCallerIdentityResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>"""
_SESSION = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::{ACCOUNT}:assumed-role/XMode/x</Arn><AssumedRoleId>A:x</AssumedRoleId>
</AssumedRoleUser><Credentials><AccessKeyId>ASIAXXXXXXXXXXXXXXXX</AccessKeyId><SecretAccessKey>secretsecret
</SecretAccessKey><SessionToken>tokentoken</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleResponse>"""
_ENTRY = (
    b"<Contents><Key>xmode/a</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    b"<ETag>&quot;x&quot;</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


@dataclass(slots=True)
class Asked:
    """One request, and the socket that it is answered on."""

    socket: socket.socket
    method: str
    path: str
    body: bytes

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, status: str, body: bytes, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.send("\r\n".join(lines).encode() + (b"" if self.method == "HEAD" else body))


Mode = Callable[["Hostile", Asked], None]


@dataclass(slots=True)
class Hostile:
    """Serving until closed. ``asked`` is set as soon as a request meets the mode; ``met`` counts those,
    ``sent_bytes`` what went out without end."""

    mode: Mode
    sts_too: bool = False
    asked: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)
    met: int = 0
    sent_bytes: int = 0
    listener: socket.socket = field(default_factory=socket.socket)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(connection,), daemon=True).start()

    def _connection(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while (asked := _read(connection)) is not None:
                self.requests.append(f"{asked.method} {asked.path}")
                if not self.sts_too and b"Action=" in asked.body:
                    told = _IDENTITY if b"Action=GetCallerIdentity" in asked.body else _SESSION
                    asked.answer("200 OK", told.encode(), "Content-Type: text/xml")
                    continue
                self.met += 1
                self.asked.set()
                self.mode(self, asked)

    def without_end(self, asked: Asked, piece: bytes) -> None:
        while not self.closing.is_set():
            asked.send(piece)
            self.sent_bytes += len(piece)

    def trickle(self, asked: Asked, byte: bytes) -> None:
        while not self.closing.wait(0.05):
            asked.send(byte)
            self.sent_bytes += 1


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < int(headers.get("content-length", 0)):
        piece = connection.recv(1024 * 1024)
        if not piece:
            return None
        body += piece
    method, path, _ = first.split(" ", 2)
    return Asked(connection, method, path, body)


# --- Modes ----------------------------------------------------------------------------------------------


def endless_list(server: Hostile, asked: Asked) -> None:
    asked.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n")
    asked.send(b'<?xml version="1.0"?><ListBucketResult><Name>acme-data</Name>')
    server.without_end(asked, _ENTRY * 400)


def endless_error(server: Hostile, asked: Asked) -> None:
    asked.send(b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\n\r\n")
    asked.send(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>')
    server.without_end(asked, b"no " * 20_000)


def announced_error(server: Hostile, asked: Asked) -> None:
    asked.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99999999999\r\n\r\n<Error><Code>X</Code>")
    server.without_end(asked, b"no " * 20_000)


def laughing_error(server: Hostile, asked: Asked) -> None:
    """XML whose few bytes become many."""
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(8))
    body = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><Error><Code>&e8;</Code></Error>'
    asked.answer("400 Bad Request", body.encode(), "Content-Type: application/xml")


def trickled_body(server: Hostile, asked: Asked) -> None:
    asked.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n")
    server.trickle(asked, b" ")


def trickled_headers(server: Hostile, asked: Asked) -> None:
    asked.send(b"HTTP/1.1 200 OK\r\nX-A: ")
    server.trickle(asked, b"a")


def endless_headers(server: Hostile, asked: Asked) -> None:
    asked.send(b"HTTP/1.1 200 OK\r\n")
    server.without_end(asked, b"X-Amz-Meta-A: " + b"a" * 60_000 + b"\r\n")


def endless_line(server: Hostile, asked: Asked) -> None:
    asked.send(b"HTTP/1.1 200 OK\r\nX-A: ")
    server.without_end(asked, b"a" * 60_000)


def for_ever_continue(server: Hostile, asked: Asked) -> None:
    server.without_end(asked, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def silent(server: Hostile, asked: Asked) -> None:
    server.closing.wait()


def redirect(server: Hostile, asked: Asked) -> None:
    asked.answer(
        "307 Temporary Redirect",
        b"<Error><Code>TemporaryRedirect</Code><Endpoint>127.0.0.1</Endpoint></Error>",
        f"Location: {server.url}{asked.path}",
        f"x-amz-bucket-region: {'eu-west-1' if len(server.requests) % 2 else 'us-west-2'}",
    )


def busy(server: Hostile, asked: Asked) -> None:
    """Always says to come again: whoever is asked to stop waits for the next attempt."""
    asked.answer("503 Slow Down", b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")


@contextmanager
def serving(mode: Mode, *, sts_too: bool = False) -> Iterator[Hostile]:
    """A hostile endpoint on a port of its own; everything ends when the block does."""
    server = Hostile(mode, sts_too)
    server.listener.bind(("127.0.0.1", 0))
    server.listener.listen(128)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        with suppress(OSError):
            server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        thread.join(5)


@contextmanager
def deaf() -> Iterator[str]:
    """The URL of a port that takes no connection: its queue is full, and nobody serves it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)
            waiting.append(one)
        time.sleep(0)
        try:
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            for one in waiting:
                one.close()
