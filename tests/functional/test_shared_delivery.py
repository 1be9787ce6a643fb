"""One large delivery, one daemon, three workers, real PostgreSQL: who helps is really there, what is killed
is made up for, and the customer's limit holds for all of them together."""

import hashlib
import http.client
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
import pytest

from xmode_transfer.sandbox import bucket
from xmode_transfer.sandbox.clients import owner
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, Variant

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

Make = Callable[..., Any]
T = TypeVar("T")
MIB = 1024 * 1024
SECONDS = 90.0
DAY, FOLDER = "2026-11-22", "/2026/11/22/"
SMALL, LARGE = 60, 2
MOST = 4
"""Requests with a body that the customer may have in flight, whoever sends them."""
SERVICE = {
    "daemon": {
        "tick_seconds": 1,
        "first_retry_seconds": 1,
        "longest_retry_seconds": 2,
        "drain_seconds": 5,
        "workers": 2,
    },
    "limits": {"parallel_objects_per_customer": MOST},
    "cluster": {"share_above_objects": 20, "chunk_objects": 5, "helpers": 3},
    "status_page": "off",
}


class SlowPuts:
    """A proxy in front of the sandbox that holds each request with an object's bytes up for a while.
    ``begun`` counts them by the worker that sent them, ``most`` is how many there were at once (of senders
    that live), ``uploads`` counts the multipart uploads that were opened."""

    def __init__(self, upstream: str, slow_seconds: float) -> None:
        self.begun: Counter[str] = Counter()
        self.uploads = 0
        self.most = 0
        self._in_flight: set[socket.socket] = set()
        self._lock = threading.Lock()
        target = urlsplit(upstream).netloc
        noted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                if len(body := self.rfile.read(length)) < length:
                    return  # the sender has died, and what it has not sent is waited for by nobody
                is_slow = self.command == "PUT" and FOLDER in self.path
                if self.command == "POST" and self.path.endswith("?uploads"):
                    noted.uploads += 1
                if is_slow:
                    noted.begin(_sender(self.headers), self.connection)
                    time.sleep(slow_seconds)
                connection = http.client.HTTPConnection(target)
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() != "expect":
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if is_slow:  # before the sender hears of it, and sends the next one
                    noted.end(self.connection)
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                told = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
                self.send_header("content-length", told or "0")
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass  # the connections of a killed worker break off

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def begin(self, sender: str, connection: socket.socket) -> None:
        with self._lock:
            self.begun[sender] += 1
            self._in_flight.add(connection)
            self.most = max(self.most, sum(_is_open(one) for one in self._in_flight))

    def end(self, connection: socket.socket) -> None:
        with self._lock:
            self._in_flight.discard(connection)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _is_open(connection: socket.socket) -> bool:
    """Whether the sender is there still: one that was killed has nothing in flight any more."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _sender(headers: Any) -> str:
    """Each worker has role sessions of its own, so its access key tells it apart."""
    found = re.search(r"Credential=([^/]+)/", headers.get("authorization") or "")
    return found[1] if found else ""


@pytest.fixture
def slow(sandbox: Sandbox) -> Iterator[SlowPuts]:
    proxy = SlowPuts(sandbox.endpoint, 0.6)
    yield proxy
    proxy.close()


class Fleet:
    """The processes of a project whose one customer has one large delivery, and what the ledger says of
    them."""

    def __init__(self, project: Any, ledger_url: str) -> None:
        self._ledger_url = ledger_url
        self.dead: list[Any] = []
        self.workers = [project.launch("worker") for _ in range(3)]
        for worker in self.workers:
            worker.wait("worker.started", seconds=SECONDS)
        self.daemon = project.launch("daemon", "--engine", "procrastinate")

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._ledger_url, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def until(self, found: Callable[[], T | None]) -> T:
        last = time.monotonic() + SECONDS
        while (what := found()) is None:
            assert time.monotonic() < last, self.told()
            time.sleep(0.1)
        return what

    def closer(self) -> Any:
        """The worker that has divided the delivery."""
        return self.until(
            lambda: next((worker for worker in self.workers if worker.seen("delivery.divided")), None)
        )

    def in_mid_chunk(self, *, closer: Any) -> Any:
        """A helper that has sent some of its chunk, and has more of it to send."""

        def found() -> Any:
            pids = {_pid(holder) for (holder,) in self.ask(_IN_MID_CHUNK)} - {closer.process.pid}
            return next((worker for worker in self.workers if worker.process.pid in pids), None)

        return self.until(found)

    def is_made_up_for(self, helper: Any) -> bool:
        """Whether somebody else has taken what it had begun."""
        left = self.ask("SELECT worked_by FROM chunks WHERE NOT done AND worked_by IS NOT NULL")
        return helper.process.pid not in {_pid(holder) for (holder,) in left}

    @property
    def living(self) -> list[Any]:
        return [worker for worker in self.workers if worker not in self.dead]

    def delivered(self) -> dict[str, Any]:
        """The event of the one who has closed it, as soon as it has."""

        def found() -> dict[str, Any] | None:
            told = [worker.seen("delivery.finished", outcome="delivered") for worker in self.living]
            return next((events[0] for events in told if events), None)

        return self.until(found)

    def end(self) -> None:
        for process in (*self.living, self.daemon):
            assert process.end() == 0, process.told()
            assert not process.other
            assert not process.seen("defect")

    def told(self) -> str:
        return "\n\n".join(process.told() for process in (self.daemon, *self.workers))


_IN_MID_CHUNK = """
    SELECT holder FROM chunks JOIN leases ON leases.name = chunks.lease
    JOIN deliveries ON deliveries.id = chunks.delivery_id
    WHERE NOT done AND holder IS NOT NULL AND (
        SELECT count(*) FROM receipts WHERE receipts.period_id = deliveries.period_id
        AND receipts.name > chunks.after_name AND receipts.name <= chunks.last_name
    ) BETWEEN 1 AND chunks.objects - 2
"""


def _pid(holder: str) -> int:
    return int(holder.split("/")[2])


@pytest.fixture
def acme(customer_factory: Callable[..., CustomerSetup]) -> CustomerSetup:
    """Its bucket keeps every version, so that nothing that is put twice goes unseen."""
    made = customer_factory("acme", Variant.ABORT_GRANTED)
    owner(made, "s3").put_bucket_versioning(Bucket=made.bucket, VersioningConfiguration={"Status": "Enabled"})
    return made


@pytest.fixture
def fleet(project: Make, acme: CustomerSetup, postgres_url: str, slow: SlowPuts) -> Iterator[Fleet]:
    here = project(acme, service={**SERVICE, "ledger": postgres_url})
    here.environment["AWS_ENDPOINT_URL_S3"] = slow.url
    for name, data in files().items():
        here.write(f"{FOLDER[1:]}{name}", data)
    here.write(f"{FOLDER[1:]}_SUCCESS", b"")
    return Fleet(here, postgres_url)


def files() -> dict[str, bytes]:
    small = {f"part-{number:02}.csv": f"{number}\n".encode() * 1_000 for number in range(SMALL)}
    large = {f"part-{number * 30 + 7:02}.bin": bytes([number]) * (65 * MIB) for number in range(LARGE)}
    return small | large


def assert_whole(customer: CustomerSetup) -> dict[str, Any]:
    """Every file is one object of one version, under one manifest that lists them all; the manifest."""
    found: Counter[str] = Counter()
    for page in owner(customer, "s3").get_paginator("list_object_versions").paginate(Bucket=customer.bucket):
        for row in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            found[row["Key"]] += 1
    assert set(found.values()) == {1}, found
    (key,) = [key for key in found if "/_manifests/" in key]
    manifest: dict[str, Any] = json.loads(bucket.read_object(customer, key))
    wanted = files()
    assert {item["source"].rpartition("/")[2] for item in manifest["objects"]} == wanted.keys()
    for item in manifest["objects"]:
        data = wanted[item["source"].rpartition("/")[2]]
        assert (
            hashlib.sha256(bucket.read_object(customer, item["key"])).digest()
            == hashlib.sha256(data).digest()
        )
    assert {item["key"] for item in manifest["objects"]} == {key for key in found if FOLDER in f"/{key}"}
    assert bucket.list_uploads(customer) == []
    return manifest


@pytest.mark.slow
def test_several_workers_send_one_delivery_within_the_customers_limit(
    fleet: Fleet, acme: CustomerSetup, slow: SlowPuts
) -> None:
    closer = fleet.closer()
    finished = fleet.delivered()
    fleet.end()
    assert finished in closer.events
    assert finished["uploaded"] == SMALL + LARGE
    assert_whole(acme)
    helpers = [worker for worker in fleet.workers if worker is not closer]
    helped = [sum(event["uploaded"] for event in worker.seen("help.ended")) for worker in helpers]
    assert all(helped), helped
    assert sum(helped) < SMALL + LARGE
    assert len(slow.begun) == len(fleet.workers)
    assert slow.uploads == LARGE
    assert slow.most <= MOST
    assert fleet.ask("SELECT count(*) FROM chunks") == [(0,)]
    assert fleet.ask("SELECT count(*) FROM procrastinate_jobs") == [(0,)]


def test_a_helper_and_then_the_closer_are_killed_and_made_up_for(
    fleet: Fleet, acme: CustomerSetup, slow: SlowPuts
) -> None:
    closer = fleet.closer()
    helper = fleet.in_mid_chunk(closer=closer)
    helper.process.kill()
    fleet.dead.append(helper)
    fleet.until(lambda: fleet.is_made_up_for(helper) or None)
    closer.process.kill()
    fleet.dead.append(closer)
    finished = fleet.delivered()
    (last,) = fleet.living
    assert finished in last.events
    fleet.end()
    assert_whole(acme)
    assert slow.uploads == LARGE
    assert slow.most <= MOST


@pytest.mark.slow
def test_a_helper_that_is_killed_does_not_keep_the_closer_from_the_end(
    fleet: Fleet, acme: CustomerSetup, slow: SlowPuts
) -> None:
    closer = fleet.closer()
    helper = fleet.in_mid_chunk(closer=closer)
    helper.process.kill()
    fleet.dead.append(helper)
    assert fleet.delivered() in closer.events
    fleet.end()
    assert_whole(acme)
    assert slow.uploads == LARGE


@pytest.mark.slow
def test_a_closer_that_is_killed_is_taken_over_and_its_helpers_are_fenced_off(
    fleet: Fleet, acme: CustomerSetup, slow: SlowPuts
) -> None:
    closer = fleet.closer()
    fleet.in_mid_chunk(closer=closer)
    closer.process.kill()
    fleet.dead.append(closer)
    fleet.delivered()
    fleet.end()
    assert sum(len(worker.seen("delivery.started")) for worker in fleet.living) == 1
    assert_whole(acme)
    assert slow.uploads == LARGE
    assert slow.most <= MOST
