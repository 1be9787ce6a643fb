"""One daemon, several workers, real PostgreSQL: what is killed, frozen, cut off or restarted is made up for,
and nothing is doubled."""

import hashlib
import http.client
import json
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import bucket
from tests.forms import IS_SOAK
from xmode_transfer.sandbox.accounts import owner
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, Variant

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(1800)]

Make = Callable[..., Any]
CUSTOMERS, PERIODS, FILES = (30, 10, 3) if IS_SOAK else (8, 5, 2)
LAST = 2
"""Periods that become due when everything has happened."""
PACE = 4 if IS_SOAK else 9
"""Deliveries between two blows, at least."""
SERVICE = {
    "daemon": {
        "tick_seconds": 1,
        "first_retry_seconds": 1,
        "longest_retry_seconds": 2,
        "drain_seconds": 5,
        "workers": 3,
    },
    "status_page": "off",
}
QUICK = {"TTL_SECONDS": 6.0, "_RENEW_SECONDS": 1.5, "SETTLING_SECONDS": 5.0, "HEARTBEAT_SECONDS": 1.0}
"""What is waited for until another takes over: an eighth of the time in the short form."""
TAKEN_OVER = "job.reassigned"
MIB = 1024 * 1024


def versions(customer: CustomerSetup) -> dict[str, int]:
    """How many versions there are of each key; delete markers count as one."""
    found: Counter[str] = Counter()
    for page in owner(customer, "s3").get_paginator("list_object_versions").paginate(Bucket=customer.bucket):
        for row in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            found[row["Key"]] += 1
    return dict(found)


def manifests(customer: CustomerSetup) -> dict[str, dict[str, Any]]:
    """Each manifest in the bucket by its key."""
    return {
        key: json.loads(bucket.read_object(customer, key))
        for key in bucket.list_keys(customer)
        if "/_manifests/" in key
    }


class Cluster:
    """The processes of one project: a daemon, and workers by number."""

    def __init__(self, project: Any) -> None:
        self.project = project
        self.workers: dict[int, Any] = {}
        self.ended: list[Any] = []
        self.daemon = self.new_daemon()

    def new_daemon(self) -> Any:
        self.daemon = self.project.launch("daemon", "--engine", "procrastinate")
        return self.daemon

    def add(self, number: int, **environment: str) -> Any:
        if number in self.workers:
            self.ended.append(self.workers[number])
        self.workers[number] = self.project.launch("worker", **environment)
        return self.workers[number]

    def kill(self, number: int) -> None:
        self.workers[number].process.kill()
        self.workers[number].process.wait()

    def events(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Of all processes that ever ran, by time."""
        everybody = [self.daemon, *self.workers.values(), *self.ended]
        found = [entry for process in everybody for entry in process.seen(event, **fields)]
        return sorted(found, key=lambda entry: entry["timestamp"])

    def told(self) -> str:
        return "\n\n".join(
            f"{name}:\n{process.told()}" for name, process in [("daemon", self.daemon), *self.workers.items()]
        )


@pytest.fixture
def many(customer_factory: Callable[..., CustomerSetup]) -> list[CustomerSetup]:
    """Customers whose buckets keep every version, so that nothing that is put twice goes unseen."""
    return [customer_factory(f"customer-{number:02}", Variant.VERSIONED) for number in range(CUSTOMERS)]


def labels() -> list[str]:
    return [f"2026-11-{day:02}" for day in range(24 - PERIODS, 24)]


def write_periods(project: Any, some: list[str]) -> None:
    for label in some:
        folder = label.replace("-", "/")
        for number in range(FILES):
            project.write(f"{folder}/part-{number}.csv", f"{label}/{number}\n".encode() * 2_000)
        project.write(f"{folder}/_SUCCESS", b"")


def delivered(server: Any) -> list[tuple[str, str]]:
    """The customers and periods that are delivered, in that order, by the ledger: a process that is killed
    may not come to say it."""
    rows: list[tuple[str, str]] = server.execute(
        "SELECT customer, period FROM deliveries JOIN periods ON periods.id = period_id "
        "WHERE status = 'delivered' ORDER BY delivered_at",
        "xmode",
    )
    return rows


def cut_short(server: Any) -> set[str]:
    """The customers of whom a run did not deliver: its worker died, was ended or met the database away."""
    rows = server.execute(
        "SELECT DISTINCT customer FROM runs JOIN deliveries ON deliveries.id = delivery_id "
        "JOIN periods ON periods.id = period_id WHERE outcome IS DISTINCT FROM 'delivered'",
        "xmode",
    )
    return {customer for (customer,) in rows}


def held_up(server: Any, process: Any = None) -> set[str]:
    """The customers whose jobs the worker has, or any."""
    pid = process.process.pid if process is not None else "%"
    rows = server.execute(
        f"SELECT lock FROM procrastinate_jobs WHERE status = 'doing' AND args->>'holder' LIKE '%/{pid}/%'",
        "xmode",
    )
    return {customer for (customer,) in rows}


@pytest.mark.short
def test_what_dies_at_random_is_made_up_for(
    project: Make, many: list[CustomerSetup], own_postgres: Any, figures: Callable[..., None]
) -> None:
    """The ledger says in the end what was delivered when; the buckets say that it is there once. The last
    periods become due when everything has happened that is to happen, however quick the machine is."""
    chance = random.Random(20261128)
    made = project(*many, service={**SERVICE, "ledger": own_postgres.url("xmode")})
    made.constants |= {} if IS_SOAK else QUICK
    first, last = labels()[:-LAST], labels()[-LAST:]
    write_periods(made, first)
    wanted = {(customer.name, label) for customer in many for label in labels()}
    began = time.monotonic()
    cluster = Cluster(made)
    for number in range(3):
        cluster.add(number)
    frozen: int | None = None
    paused: set[str] = set()
    kills = acted_at = 0
    restarted = daemon_restarted = all_due = False
    done: set[tuple[str, str]] = set()

    def thaw() -> None:
        nonlocal frozen
        if frozen is not None:
            cluster.workers[frozen].process.send_signal(signal.SIGCONT)
            frozen = None

    while done != wanted:
        assert time.monotonic() < began + 1200, f"{len(done)} of {len(wanted)}\n{cluster.told()}"
        share = len(done) / len(wanted)
        number = chance.randrange(3)
        works = cluster.workers[number].seen("worker.started")
        # on a slow machine as much is delivered between two blows as on a quick one
        is_time = works and (not kills or len(done) >= acted_at + PACE)
        if frozen is not None:
            thaw()
        elif 0.05 < share < 0.9 and is_time:
            acted_at = len(done)
            paused |= held_up(own_postgres, cluster.workers[number])
            if not kills or chance.random() < 0.4:
                cluster.kill(number)
                cluster.add(number)
                kills += 1
            elif chance.random() < 0.5:
                cluster.workers[number].process.send_signal(signal.SIGSTOP)
                frozen = number
                paused |= held_up(own_postgres, cluster.workers[number])
            else:
                cluster.workers[number].process.send_signal(signal.SIGTERM)
                cluster.add(number)
        if share > 0.3 and not restarted:
            paused |= held_up(own_postgres)
            own_postgres.kill()
            time.sleep(2 if IS_SOAK else 0.5)
            own_postgres.start()
            restarted = True
        elif share > 0.5 and not daemon_restarted:
            cluster.daemon.process.kill()
            cluster.ended.append(cluster.daemon)
            cluster.new_daemon()
            daemon_restarted = True
        elif kills and daemon_restarted and not all_due:
            write_periods(made, last)
            all_due = True
        time.sleep(chance.uniform(1.5, 4.0) if IS_SOAK else chance.uniform(0.3, 1.0))
        with suppress(psycopg.OperationalError, psycopg.errors.UndefinedTable):  # away, or not begun
            done = set(delivered(own_postgres))
    thaw()
    seconds = time.monotonic() - began
    struck = {entry["customer"] for entry in cluster.events(TAKEN_OVER)} | cut_short(own_postgres) | paused
    assert restarted
    for process in cluster.workers.values():
        process.wait("worker.started")  # before that a signal ends it as it ends any process
    cluster.daemon.wait("daemon.started")
    for process in [*cluster.workers.values(), cluster.daemon]:
        assert process.end() == 0, process.told()

    check = made.run("ledger", "check", "--json")
    assert (check.code, check.json["outcome"]) == (0, "ok"), check.out
    assert check.json["deliveries"] == len(wanted)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda customer: assert_whole(customer, labels()), many))
    # the last periods begin a race of their own: whoever is behind by then has caught up
    order = delivered(own_postgres)
    ahead = max(
        fairness([item for item in order if item[1] in some], struck, len(some)) for some in (first, last)
    )
    figures(
        f"{len(wanted)} deliveries to {len(many)} customers by 3 workers: {seconds:.0f} s, {kills} workers "
        f"killed, {len(struck)} customers struck, nobody else more than {ahead} deliveries ahead"
    )
    assert ahead <= 6


def assert_whole(customer: CustomerSetup, periods: list[str]) -> None:
    """Every file of every period is one object of one version, under a manifest that lists it."""
    found = versions(customer)
    assert set(found.values()) == {1}, f"{customer.name}: {found}"
    written = manifests(customer)
    assert sorted(manifest["period"] for manifest in written.values()) == periods
    listed = [item["key"] for manifest in written.values() for item in manifest["objects"]]
    assert len(listed) == len(periods) * FILES
    assert {*listed, *written} == {key for key in found if not key.endswith("/_SUCCESS")}
    for manifest in written.values():
        for item in manifest["objects"]:
            assert len(bucket.read_object(customer, item["key"])) == item["size"]


def fairness(order: list[tuple[str, str]], left_out: set[str], periods: int) -> int:
    """By how many deliveries one customer was ever ahead of another who was not done and whose turns were
    not struck."""
    counts = Counter({customer: 0 for customer, _ in order})
    most = 0
    for customer, _ in order:
        counts[customer] += 1
        behind = [count for name, count in counts.items() if name not in left_out and count < periods]
        if behind and customer not in left_out:
            most = max(most, counts[customer] - min(behind))
    return most


# --- A takeover in the middle of an upload ---------------------------------------------------------------


class Parts:
    """A proxy in front of the sandbox that notes when parts begin and holds each up for a while."""

    def __init__(self, upstream: str, slow_seconds: float) -> None:
        self.begun: list[tuple[float, int]] = []
        self.answered: Counter[int] = Counter()
        self.requests: list[str] = []
        target = urlsplit(upstream).netloc
        noted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                part = re.search(r"partNumber=([0-9]+)", self.path)
                number = int(part[1]) if part else 0
                noted.requests.append(f"{self.command} {self.path}")
                if number:
                    noted.begun.append((time.monotonic(), number))
                length = int(self.headers.get("content-length") or 0)
                if len(body := self.rfile.read(length)) < length:
                    return  # the sender has died, and what it has not sent is waited for by nobody
                if number:
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
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                told = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
                self.send_header("content-length", told or "0")
                self.end_headers()
                self.wfile.write(data)
                if number and answer.status == 200:
                    noted.answered[number] += 1

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # the connections of a killed worker break off

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Wire:
    """The network between a worker and PostgreSQL, which can be cut: what is sent then goes nowhere, and
    nobody is told."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.mend()
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._whole.wait()
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def free_port() -> int:
    """Below those that the system gives to whoever asks for any: nobody takes it by chance until it is
    used."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@pytest.fixture
def parts(sandbox: Sandbox) -> Iterator[Parts]:
    proxy = Parts(sandbox.endpoint, 0.5)
    yield proxy
    proxy.close()


@pytest.mark.short
@pytest.mark.parametrize(
    "fate",
    ["killed", *(pytest.param(fate, marks=pytest.mark.slow) for fate in ("frozen", "cut off"))],
)
def test_another_worker_goes_on_with_the_upload(
    project: Make,
    customer_factory: Callable[..., CustomerSetup],
    own_postgres: Any,
    parts: Parts,
    figures: Callable[..., None],
    fate: str,
) -> None:
    """The same multipart upload, with what is missing; what wakes late can do no harm."""
    acme = customer_factory("acme", Variant.ABORT_GRANTED)
    made = project(acme, service={**SERVICE, "ledger": "env:LEDGER_URL"})
    made.constants |= {} if IS_SOAK else QUICK
    data = random.Random(320).randbytes((320 if IS_SOAK else 160) * MIB)
    made.write("2026/11/22/large.bin", data)
    made.write("2026/11/22/_SUCCESS", b"")
    own_postgres.listen(free_port())
    own_postgres.restart()
    with ExitStack() as stack:
        wire = Wire(own_postgres.port)
        stack.callback(wire.close)
        url = own_postgres.tcp_url("xmode")
        made.environment |= {"LEDGER_URL": url, "AWS_ENDPOINT_URL_S3": parts.url}
        cluster = Cluster(made)
        first = cluster.add(1, LEDGER_URL=url.replace(f":{own_postgres.port}/", f":{wire.port}/"))
        until = time.monotonic() + 120
        while len(parts.answered) < 4:
            assert time.monotonic() < until, cluster.told()
            time.sleep(0.02)
        if fate == "killed":
            cluster.kill(1)
        elif fate == "frozen":
            first.process.send_signal(signal.SIGSTOP)
        else:
            wire.cut()
        stricken = time.monotonic()
        second = cluster.add(2)
        second.wait("delivery.started")
        taken_up = time.monotonic() - stricken
        cluster.workers[2].wait("delivery.finished", outcome="delivered", seconds=300)
        if fate == "frozen":
            first.process.send_signal(signal.SIGCONT)
        wire.mend()
        if fate != "killed":
            time.sleep(3)  # time to do harm, if it can
            assert first.end() == 0, first.told()
        assert second.end() == 0, second.told()
        assert cluster.daemon.end() == 0, cluster.daemon.told()
    figures(f"a worker {fate} in mid-upload: another went on after {taken_up:.0f} s")
    assert sum("POST" in line and line.endswith("?uploads") for line in parts.requests) == 1
    (key,) = [key for key in bucket.list_keys(acme) if key.endswith("large.bin")]
    assert hashlib.sha256(bucket.read_object(acme, key)).digest() == hashlib.sha256(data).digest()
    assert bucket.list_uploads(acme) == []
    assert len(manifests(acme)) == 1
