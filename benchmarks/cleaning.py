"""The set `cleanup`: 100 days of 1,000 objects each expire and are removed, beside `s5cmd rm` of as many.

The other end is a server in a process of its own that keeps no bodies: it lists pages made beforehand, answers
a HEAD with what the ledger knows, and DeleteObjects key by key, comparing the ETags that it is sent. s5cmd
compares nothing and records nothing; it only lists and deletes.

    python benchmarks/cleaning.py                 100,000 objects, three rounds
    python benchmarks/cleaning.py --days 1000     a million
"""

import http.server
import json
import multiprocessing
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import clients
import sink as sinks
from measuring import CACHE, Runs, alone, keys_table, measure, note

from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Checksum, Delivery, PlannedObject, Receipt, Status
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.transfer.planning import delivery_id

NAME, WHAT = "cleanup", "100,000 objects of 100 days expire"
PEERS = True
DAYS, ROUNDS = 100, 3
OBJECTS_A_DAY = 1_000
_ETAG = '"0123456789abcdef0123456789abcdef"'
_CRC32 = "AAAAAA=="
_FIRST = datetime(2020, 1, 1)  # noqa: DTZ001 - a period has no zone
_DELETED = re.compile(rb"<Object><Key>([^<]*)</Key>(?:<ETag>([^<]*)</ETag>)?</Object>")


def days_of(count: int) -> list[Period]:
    return [Period(_FIRST + timedelta(days=number), PeriodKind.DAY) for number in range(count)]


def keys_of(day: Period) -> list[str]:
    return [f"xmode/set/{day.start:%Y/%m/%d}/{number:07}.bin" for number in range(OBJECTS_A_DAY)]


def manifest_of(day: Period) -> str:
    return f"xmode/set/_manifests/{day.label}/000001.json"


def write_state(directory: Path, days: list[Period]) -> None:
    """A configuration that keeps the newest day, and a ledger by which all of them were delivered."""
    config = clients.write_config(directory / "config", directory / "nothing")
    feed = {"source": "/nowhere", "period": "day", "partition": "%Y/%m/%d"}
    (config / "feeds" / "set.yaml").write_text(json.dumps(feed))
    customer = config / "customers" / "c0000.yaml"
    customer.write_text(json.dumps({**json.loads(customer.read_text()), "retention": {"keep_last": 1}}))
    (config / "var").mkdir()
    ledger = open_ledger(f"sqlite:///{config}/var/ledger.db", SystemClock())
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for day in days:
        lease = ledger.leases.claim(f"context/{day.label}", "context", 90)
        delivery = Delivery(
            id=delivery_id("c0000", "set", day.label, 1),
            customer="c0000",
            feed="set",
            period=day.label,
            revision=1,
            status=Status.DELIVERED,
            created_at=at,
            updated_at=at,
            object_count=OBJECTS_A_DAY,
            total_bytes=16 * OBJECTS_A_DAY,
            manifest_key=manifest_of(day),
            manifest_checksum=f"crc32:{_CRC32}",
            delivered_at=at,
        )
        ledger.deliveries.create(lease, delivery)
        names = [(key.removeprefix("xmode/set/"), key) for key in keys_of(day)]
        ledger.objects.plan(lease, delivery.id, (PlannedObject(name, key, 16, 1, "i") for name, key in names))
        for name, key in names:
            receipt = Receipt(name, key, 16, Checksum("crc32", _CRC32), _ETAG, at)
            written = ledger.objects.record_receipt(lease, delivery.id, receipt)
        written.result()
        ledger.leases.release(lease)
    ledger.close()


# --- The other end ----------------------------------------------------------------------------------


def serve(days: list[Period], ready: Connection) -> None:
    """Plays S3 until the process is ended."""
    tokens = {manifest_of(day): delivery_id("c0000", "set", day.label, 1) for day in days}
    keys = [*(key for day in days for key in keys_of(day)), *map(manifest_of, days)]
    pages = list(_pages(keys))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(pages, tokens))
    server.daemon_threads = True
    ready.send(server.server_address[1])
    server.serve_forever()


def _pages(keys: list[str]) -> Iterator[bytes]:
    """1,000 keys each, in their order; the token of the next is its number."""
    chunks = [keys[start : start + 1000] for start in range(0, len(keys), 1000)]
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        more = "" if last else f"<NextContinuationToken>{number + 1}</NextContinuationToken>"
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{_ETAG}</ETag><Size>16</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in chunk
        )
        yield (
            f'<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>{len(chunk)}</KeyCount>'
            f"<MaxKeys>1000</MaxKeys><IsTruncated>{'false' if last else 'true'}</IsTruncated>{more}{rows}"
            "</ListBucketResult>"
        ).encode()


def _deleted(body: bytes) -> bytes:
    """S3's answer for each key: an ETag that is not the object's is refused."""
    wanted = {_ETAG.encode(), _ETAG.replace('"', "&quot;").encode(), _ETAG.strip('"').encode(), b""}
    rows = [
        b"<Deleted><Key>%b</Key></Deleted>" % key
        if etag in wanted
        else b"<Error><Key>%b</Key><Code>PreconditionFailed</Code><Message>no</Message></Error>" % key
        for key, etag in _DELETED.findall(body)
    ]
    return b'<?xml version="1.0"?><DeleteResult>%b</DeleteResult>' % b"".join(rows)


def _handler(pages: list[bytes], tokens: dict[str, str]) -> type[BaseHTTPRequestHandler]:
    class S3(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else an answer in two packets waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            self._answer(pages[int(asked.get("continuation-token", ["0"])[0])])

        def do_POST(self) -> None:
            self._answer(_deleted(self.rfile.read(int(self.headers["content-length"]))))

        def do_HEAD(self) -> None:
            key = urlsplit(self.path).path.split("/", 2)[2]
            self.send_response(200)
            self.send_header("content-length", "16")
            self.send_header("etag", _ETAG)
            self.send_header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("x-amz-checksum-crc32", _CRC32)
            self.send_header("x-amz-checksum-type", "FULL_OBJECT")
            if key in tokens:
                self.send_header("x-amz-meta-xmode-delivery", tokens[key])
            self.end_headers()

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/xml")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return S3


@contextmanager
def other_end(days: list[Period]) -> Iterator[dict[str, str]]:
    """The server and an STS; answers the environment with which a client finds them."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(days, theirs), daemon=True)
    process.start()
    sts = http.server.ThreadingHTTPServer(("127.0.0.1", 0), sinks._Sts)
    threading.Thread(target=sts.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{ours.recv()}"
    there = sinks.Sink(url, url, f"http://127.0.0.1:{sts.server_address[1]}", Path("/dev/null"), CACHE)
    environment = sinks.environment(there)
    del environment["AWS_CA_BUNDLE"], environment["SSL_CERT_FILE"]
    try:
        yield environment
    finally:
        process.terminate()
        process.join()
        sts.shutdown()
        sts.server_close()


# --- The measurement --------------------------------------------------------------------------------


def commands(state: Path, peers: Path, environment: dict[str, str]) -> dict[str, list[str]]:
    program = Path(sys.executable).with_name("xmode-transfer")
    ours = [str(program), "--config", str(state / "config"), "--log-level", "error", "cleanup"]
    s5cmd = [str(peers / "s5cmd"), "--endpoint-url", environment["AWS_ENDPOINT_URL_S3"], "--log", "error"]
    return {
        "ours": [*ours, "--customer", "c0000", "--confirm", "--json"],
        "ours, dry run": [*ours, "--customer", "c0000", "--dry-run", "--json"],
        "s5cmd rm": [*s5cmd, "--numworkers", clients.PARALLEL, "rm", f"s3://{clients.BUCKET}-0/xmode/set/*"],
    }


def run(count: int, rounds: int, peers: Path) -> Runs:
    """``count`` days expire, one more stays."""
    days = days_of(count + 1)
    made, state = CACHE / "cleanup-made", CACHE / "cleanup-state"
    shutil.rmtree(made, ignore_errors=True)
    print("  writing the ledger ...", flush=True)
    write_state(made, days)
    results: Runs = {}
    with other_end(days) as environment:
        for number in range(rounds):
            for name, command in commands(state, peers, environment).items():
                shutil.rmtree(state, ignore_errors=True)
                shutil.copytree(made, state)
                log = CACHE / "cleanup.log"
                log.unlink(missing_ok=True)
                found = measure(command, environment, log)
                _check(name, log, count)
                note(results, number, name, found)
    for directory in (made, state):
        shutil.rmtree(directory)
    return results


def _check(name: str, log: Path, count: int) -> None:
    if name == "ours":
        told = json.loads(log.read_text().splitlines()[-1])
        removed = told["removed"]["deleted"]["keys"]
        if removed != count * (OBJECTS_A_DAY + 1):
            raise SystemExit(f"{removed} keys were removed; see {log}")


def table(count: int, results: Runs) -> list[str]:
    keys = count * (OBJECTS_A_DAY + 1)
    return keys_table(f"cleanup: {keys:,} keys of {count:,} days expire", keys, results)


if __name__ == "__main__":
    alone(__doc__, DAYS, ROUNDS, run, table)
