"""A status page that is really served, and a client that sends it exactly what a test says."""

import http.client
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes.clock import MemoryClock
from xmode_transfer.config import Configuration, Service, StatusPage
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.jobs import QueueEntry
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.web.server import Server, serve

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
LOCAL = StatusPage(listen="127.0.0.1:0")


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    address: str, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own. A ``Host`` that is given replaces the client's."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    sent = {"Host": parts.netloc, **(headers or {})}
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return Answer(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        )
    finally:
        connection.close()


class OneDaemon:
    """A daemon in a fixed state; ``changes`` are fields of its record."""

    def __init__(self, *entries: QueueEntry, **changes: Any) -> None:
        self._entries = entries
        self._record = replace(
            DaemonRecord("host/boot/1/2", NOW, NOW, 60, 4, 1, NOW),
            **changes,
        )

    def jobs(self) -> Sequence[QueueEntry]:
        return self._entries

    def status(self) -> DaemonRecord:
        return self._record


@dataclass(slots=True)
class Page:
    """What a page is made of; a test changes it, then ``open`` serves it."""

    ledger: Ledger
    clock: MemoryClock
    configuration: Configuration = field(default_factory=lambda: Configuration(Service(), {}, {}, {}))
    metrics: bytes = b"# nothing\n"


@pytest.fixture
def clock() -> MemoryClock:
    return MemoryClock(NOW)


@pytest.fixture
def ledger(tmp_path: Path, clock: MemoryClock) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path}/ledger.db?timeout=0.1", clock)
    yield opened
    opened.close()


@pytest.fixture
def page(ledger: Ledger, clock: MemoryClock) -> Page:
    return Page(ledger, clock)


@pytest.fixture
def open_page(page: Page) -> Iterator[Callable[..., Server]]:
    """Serves it: ``open_page(settings, daemon=...)``."""
    opened: list[Server] = []

    def make(settings: StatusPage = LOCAL, daemon: OneDaemon | None = None) -> Server:
        server = serve(
            settings,
            page.ledger,
            page.clock,
            lambda: page.configuration,
            daemon or OneDaemon(),
            lambda: page.metrics,
        )
        opened.append(server)
        return server

    yield make
    for server in opened:
        server.close()
