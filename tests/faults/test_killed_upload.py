"""kill -9 in the middle of a large upload: the next run sends what is missing, and little else; an engine
that does not resume parts it sends all, and says what became of the old upload. The short form has smaller
parts."""

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import bucket, commands
from tests.commands import COMMAND
from tests.forms import IS_SOAK
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, Variant, write_config

pytestmark = [pytest.mark.sandbox, pytest.mark.short]

MIB = 1024 * 1024
SIZE = 2 * 1024 * MIB if IS_SOAK else 60 * MIB
PART = 16 * MIB if IS_SOAK else 5 * MIB
SMALLER = {} if IS_SOAK else {"LARGE_BYTES": 4 * PART, "MIN_PART_BYTES": PART, "PART_BYTES": PART}
IN_FLIGHT = 8  # parts of one object, transfer/large.py


class Watched:
    """A proxy in front of the sandbox that counts parts: begun, and answered with success."""

    def __init__(self, upstream: str) -> None:
        self.begun: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.requests: list[str] = []
        self.slow_seconds = 0.0
        self._lock = threading.Lock()
        self._inside = 0
        target = urlsplit(upstream).netloc
        watched = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                watched._enters(1)
                try:
                    self.pass_on()
                finally:
                    watched._enters(-1)

            def pass_on(self) -> None:
                part = re.search(r"partNumber=([0-9]+)", self.path)
                number = int(part[1]) if part else 0
                watched.requests.append(f"{self.command} {self.path}")
                watched.begun[number] += 1
                length = int(self.headers.get("content-length") or 0)
                if len(body := self.rfile.read(length)) < length:
                    return  # the sender has died, and what it has not sent is waited for by nobody
                if number:
                    time.sleep(watched.slow_seconds)
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
                    watched.answered[number] += 1

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # the killed process's connections break off: that is what this is about

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _enters(self, count: int) -> None:
        with self._lock:
            self._inside += count

    def settle(self) -> None:
        """Waits until what it has taken in has reached the sandbox: for a while nothing is inside."""
        until, quiet_since = time.monotonic() + 120, time.monotonic()
        while time.monotonic() - quiet_since < 1:
            assert time.monotonic() < until
            if self._inside:
                quiet_since = time.monotonic()
            time.sleep(0.02)


@pytest.fixture
def watched(sandbox: Sandbox) -> Iterator[Watched]:
    proxy = Watched(sandbox.endpoint)
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()


def killed(
    sandbox: Sandbox, watched: Watched, acme: CustomerSetup, directory: Path, engine: str
) -> tuple[dict[str, str], bytes]:
    """A large file, and a run that was killed when five of its parts were answered. Answers the environment
    of the next run, and the file's SHA-256."""
    write_config(directory, sandbox, customers=[acme], service={"engine": engine})
    day = directory / "exports" / "us-daily" / "2026" / "11" / "22"
    day.mkdir(parents=True)
    digest = hashlib.sha256()
    with (day / "large.bin").open("wb") as file:
        for number in range(SIZE // MIB):
            piece = number.to_bytes(8, "big") * (MIB // 8)
            digest.update(piece)
            file.write(piece)
    (day / "_SUCCESS").touch()
    environment = {**os.environ, **sandbox.environment(), "AWS_ENDPOINT_URL_S3": watched.url}
    watched.slow_seconds = 0.3
    first = commands.Started(
        run(directory),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        constants=SMALLER,
    )
    deadline = time.monotonic() + 120
    while len(watched.answered) < 5:
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    watched.settle()
    watched.slow_seconds = 0.0
    watched.begun.clear()
    return environment, digest.digest()


def run(directory: Path) -> list[str]:
    return [COMMAND, "--config", str(directory), "run", "--customer", "acme", "--json"]


def again(directory: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return commands.run(
        run(directory), env=environment, capture_output=True, text=True, check=False, constants=SMALLER
    )


def test_a_killed_upload_resumes_with_what_is_missing(
    sandbox: Sandbox, watched: Watched, customer_factory: Callable[..., CustomerSetup], tmp_path: Path
) -> None:
    acme = customer_factory("acme", Variant.ABORT_GRANTED)
    environment, digest = killed(sandbox, watched, acme, tmp_path, "fast")
    before = set(watched.answered)
    second = again(tmp_path, environment)
    assert second.returncode == 0, second.stderr
    parts = -(-SIZE // PART)
    sent = set(watched.begun) - {0}
    assert sent >= set(range(1, parts + 1)) - before
    assert len(sent & before) <= IN_FLIGHT
    (told,) = json.loads(second.stdout)["deliveries"]
    sizes = {number: min(PART, SIZE - (number - 1) * PART) for number in sent}
    assert told["bytes"] == sum(sizes.values())  # what the killed run has sent is not this one's
    assert sum("POST" in line and line.endswith("?uploads") for line in watched.requests) == 1
    assert not any(line.startswith("GET") and "uploadId" in line for line in watched.requests)
    (key,) = [key for key in bucket.list_keys(acme) if key.endswith("large.bin")]
    assert hashlib.sha256(bucket.read_object(acme, key)).digest() == digest
    assert bucket.list_uploads(acme) == []


@pytest.mark.parametrize("variant", [Variant.ABORT_GRANTED, Variant.NO_ACL_CONDITION])
def test_the_portable_engine_sends_a_killed_upload_anew(
    sandbox: Sandbox,
    watched: Watched,
    customer_factory: Callable[..., CustomerSetup],
    tmp_path: Path,
    variant: Variant,
) -> None:
    """The old upload is aborted; where that is refused, it is reported with the rule that frees it."""
    acme = customer_factory("acme", variant)
    environment, digest = killed(sandbox, watched, acme, tmp_path, "portable")
    second = again(tmp_path, environment)
    assert second.returncode == 0, second.stderr
    assert set(watched.begun) - {0} == set(range(1, -(-SIZE // PART) + 1))
    (told,) = json.loads(second.stdout)["deliveries"]
    assert told["bytes"] == SIZE
    (key,) = [key for key in bucket.list_keys(acme) if key.endswith("large.bin")]
    assert hashlib.sha256(bucket.read_object(acme, key)).digest() == digest
    status = commands.run(
        [COMMAND, "--config", str(tmp_path), "status", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (customer,) = json.loads(status.stdout)["customers"]
    if variant is Variant.ABORT_GRANTED:
        assert bucket.list_uploads(acme) == []
        assert customer["orphaned"] == []
    else:
        (left,) = customer["orphaned"]
        assert left["key"] == key
        assert left["bytes"] > 0
        assert len(bucket.list_uploads(acme)) == 1
        assert customer["lifecycle_rule"]["AbortIncompleteMultipartUpload"]
