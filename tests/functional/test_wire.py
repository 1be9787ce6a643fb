"""What goes over the wire: every header of every operation, recorded between an engine and a server that
plays S3.

An engine joins by one more entry in ``ENGINES``. What the server answers is not the point here (the contract
suite looks at that), but what it was asked, and that each request is signed as Signature Version 4 says.
"""

import hashlib
import hmac
import http.client
import os
import re
import ssl
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

from tests.fakes import MemorySource
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.s3_portable import PortableStores
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.aws.stores import Deletion, ObjectStore, ObjectStores, PutRequest
from xmode_transfer.config import Customer, Limits
from xmode_transfer.model.errors import Unavailable
from xmode_transfer.model.periods import Period
from xmode_transfer.telemetry import SystemClock

ENGINES: dict[str, Callable[[], ObjectStores]] = {
    "portable": lambda: PortableStores(Limits(), SystemClock()),
    "fast": lambda: FastStores(Limits(), SystemClock()),
}

BUCKET = "acme-data"
OWNER = "111122223333"
SECRET = "secret/of+the-session"
MIB = 1024 * 1024
SMALL, LARGE = b"hello", bytes(range(256)) * 4096 * 9  # in memory, and streamed
TOKEN = "0190c2f4-delivery"
CREATING = {"PutObject", "CreateMultipartUpload"}


# --- The recorder -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wire:
    """One request as it came over the wire. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        asked = parse_qs(self.query, keep_blank_values=True)
        has_key = self.path.count("/") > 1 and not self.path.endswith(f"/{BUCKET}/")
        match self.method, "uploadId" in asked:
            case "PUT", parts:
                return "UploadPart" if parts else "PutObject"
            case "POST", _ if "delete" in asked:
                return "DeleteObjects"
            case "POST", parts:
                return "CompleteMultipartUpload" if parts else "CreateMultipartUpload"
            case "DELETE", parts:
                return "AbortMultipartUpload" if parts else "DeleteObject"
            case "HEAD", _:
                return "HeadObject" if has_key else "HeadBucket"
            case _:
                return "GetObject" if has_key else "ListObjectsV2"

    @property
    def payload(self) -> bytes:
        """The body without the framing of a checksum that is sent as trailer."""
        if "aws-chunked" not in self.headers.get("content-encoding", ""):
            return self.body
        content, rest = b"", self.body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size.partition(b";")[0], 16)
            if not length:
                break
            content, rest = content + rest[:length], rest[length + 2 :]
        return content

    @property
    def signed_headers(self) -> list[str]:
        return self.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")

    def signature_is_valid(self) -> bool:
        """Computes the signature anew (AWS General Reference, Signature Version 4)."""
        given = dict(
            part.split("=", 1) for part in self.headers["authorization"].split(" ", 1)[1].split(", ")
        )
        _, *scope = given["Credential"].split("/")
        query = "&".join(
            sorted(pair if "=" in pair else f"{pair}=" for pair in self.query.split("&") if pair)
        )
        canonical = "\n".join(
            [
                self.method,
                self.path,
                query,
                *(f"{name}:{' '.join(self.headers[name].split())}" for name in self.signed_headers),
                "",
                ";".join(self.signed_headers),
                self.headers["x-amz-content-sha256"],
            ]
        )
        to_sign = "\n".join(
            [
                "AWS4-HMAC-SHA256",
                self.headers["x-amz-date"],
                "/".join(scope),
                hashlib.sha256(canonical.encode()).hexdigest(),
            ]
        )
        key = f"AWS4{SECRET}".encode()
        for step in scope:
            key = hmac.digest(key, step.encode(), "sha256")
        return hmac.new(key, to_sign.encode(), "sha256").hexdigest() == given["Signature"]


class Recorder:
    """Passes requests on to a server and writes down what they were."""

    def __init__(self, upstream: str, certificate: Path | None = None) -> None:
        self.seen: list[Wire] = []
        lock = threading.Lock()
        recorded = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def handle_any(self) -> None:
                chunked = self.headers.get("transfer-encoding") == "chunked"
                body = b"" if chunked else self.rfile.read(int(self.headers.get("content-length") or 0))
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    recorded.append(Wire(self.command, parts.path, parts.query, headers, body))
                passed_on = {name: value for name, value in headers.items() if name != "expect"}
                connection = http.client.HTTPConnection(upstream, timeout=30)
                connection.request(self.command, self.path, body, passed_on)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                length = answer.getheader("content-length") if self.command == "HEAD" else len(content)
                if answer.status != 204:
                    self.send_header("Content-Length", str(length or 0))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that does not trust the certificate hangs up."""

        self.server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def of(self, operation: str) -> list[Wire]:
        return [wire for wire in self.seen if wire.operation == operation]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """A server that plays S3, without authorisation."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    s3 = boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.close()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def recorder(upstream: str) -> Iterator[Recorder]:
    made = Recorder(upstream)
    yield made
    made.stop()


# --- One of every operation -------------------------------------------------------------------------


class Fixed:
    """The credentials of one role session."""

    def get(self) -> Credentials:
        return Credentials("ASIASESSION", SECRET, "token-of-the-session", datetime(2099, 1, 1, tzinfo=UTC))

    def invalidate(self, credentials: Credentials) -> None:
        raise AssertionError("nothing here is refused")


def open_file(data: bytes) -> OpenFile:
    source = MemorySource()
    source.write("file", data)
    (scanned,) = source.scan(Period.none())
    return source.open(scanned)  # type: ignore[return-value]


@pytest.fixture
def opened() -> Iterator[Callable[[bytes], OpenFile]]:
    files = []

    def make(data: bytes) -> OpenFile:
        files.append(open_file(data))
        return files[-1]

    yield make
    for file in files:
        file.close()


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[ObjectStores]:
    stores = ENGINES[request.param]()
    yield stores
    stores.close()


def environment_for(recorder: Recorder) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": recorder.url,
        # Our own keys, which must never sign a request to a customer's bucket.
        "AWS_ACCESS_KEY_ID": "AKIAOURS",
        "AWS_SECRET_ACCESS_KEY": "ours",
    }


def open_store(engine: ObjectStores, region: str | None = "us-east-1", **destination: Any) -> ObjectStore:
    customer = Customer.model_validate(
        {
            "name": "acme",
            "company": "Acme Corp",
            "external_id": "AcmeCorp",
            "role_arn": f"arn:aws:iam::{OWNER}:role/XMode",
            "destination": {"bucket": BUCKET, "prefix": "xmode/", "addressing": "path", **destination},
            "feeds": ["us-daily"],
        }
    )
    return engine.open(customer, Fixed(), region)


@pytest.fixture
def store_at(engine: ObjectStores, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ObjectStore]]:
    stores = []

    def make(recorder: Recorder, region: str | None = "us-east-1", **destination: Any) -> ObjectStore:
        for name, value in environment_for(recorder).items():
            monkeypatch.setenv(name, value)
        stores.append(open_store(engine, region, **destination))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def request(key: str, data: bytes) -> PutRequest:
    return PutRequest(key, TOKEN, len(data), "text/csv", {"xmode-feed": "us-daily"})


def do_everything(store: ObjectStore, opened: Callable[[bytes], OpenFile], name: str) -> None:
    """Every operation at least once, with a small and a large body."""
    key = f"xmode/{name} a+b/é"
    store.put(request(key, SMALL), opened(SMALL)).result(120)
    store.put(request(key + "2", LARGE), opened(LARGE)).result(120)
    upload_id, _ = store.create_upload(request(key + "3", LARGE))
    body = opened(LARGE)
    parts = [
        store.upload_part(key + "3", upload_id, 1, body, 0, 5 * MIB),
        store.upload_part(key + "3", upload_id, 2, body, 5 * MIB, 4 * MIB),
    ]
    store.complete_upload(key + "3", upload_id, [part.result(120) for part in parts], len(LARGE))
    gone, _ = store.create_upload(request(key + "4", SMALL))
    store.abort_upload(key + "4", gone)
    info = store.head(key)
    assert info is not None
    assert store.head(key + "5") is None
    assert b"".join(store.read(key)) == SMALL
    assert key in [row.key for row in store.list("xmode/")]
    store.delete(key, info.etag)
    store.delete(key + "2")
    store.delete(key + "3")
    wanted = [
        Deletion(key + n, store.put(request(key + n, SMALL), opened(SMALL)).result(120).etag) for n in "67"
    ]
    store.delete_many(wanted)


@pytest.fixture(scope="module", params=list(ENGINES))
def traffic(
    upstream: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Recorder:
    """Every operation of one engine, recorded once and looked at by many tests."""
    recorder, engine = Recorder(upstream), ENGINES[request.param]()
    files: list[OpenFile] = []

    def opened(data: bytes) -> OpenFile:
        files.append(open_file(data))
        return files[-1]

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name, value in environment_for(recorder).items():
            patch.setenv(name, value)
        store = open_store(engine)
        do_everything(store, opened, f"traffic-{request.param}")
        store.close()
    for file in files:
        file.close()
    engine.close()
    recorder.stop()
    assert {wire.operation for wire in recorder.seen} >= CREATING | {
        "UploadPart",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "HeadObject",
        "GetObject",
        "ListObjectsV2",
        "DeleteObject",
        "DeleteObjects",
    }
    return recorder


# --- What must be there, and what must not ----------------------------------------------------------


def test_the_acl_is_on_what_creates_and_on_nothing_else(traffic: Recorder) -> None:
    for wire in traffic.seen:
        expected = "bucket-owner-full-control" if wire.operation in CREATING else None
        assert wire.headers.get("x-amz-acl") == expected, wire.operation
        assert [name for name in wire.headers if name.startswith("x-amz-grant")] == []


def test_every_request_names_the_account_that_must_own_the_bucket(traffic: Recorder) -> None:
    for wire in traffic.seen:
        assert wire.headers.get("x-amz-expected-bucket-owner") == OWNER, wire.operation


def test_nothing_is_ever_overwritten(traffic: Recorder) -> None:
    for wire in traffic.seen:
        creates = wire.operation in ("PutObject", "CompleteMultipartUpload")
        assert wire.headers.get("if-none-match") == ("*" if creates else None), wire.operation


def test_what_is_created_is_ours_by_its_token_and_has_its_type(traffic: Recorder) -> None:
    for wire in traffic.seen:
        if wire.operation in CREATING:
            assert wire.headers["x-amz-meta-xmode-delivery"] == TOKEN
            assert wire.headers["x-amz-meta-xmode-feed"] == "us-daily"
            assert wire.headers["content-type"] == "text/csv"
        else:
            assert [name for name in wire.headers if name.startswith("x-amz-meta-")] == [], wire.operation


def test_tags_and_encryption_are_not_asked_for(traffic: Recorder) -> None:
    forbidden = ("x-amz-tagging", "x-amz-server-side-encryption", "x-amz-storage-class", "x-amz-object-lock")
    for wire in traffic.seen:
        assert [name for name in wire.headers if name.startswith(forbidden)] == [], wire.operation


def test_the_role_session_signs_every_request_and_its_vital_headers(traffic: Recorder) -> None:
    for wire in traffic.seen:
        assert wire.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=ASIASESSION/")
        assert wire.headers["x-amz-security-token"] == "token-of-the-session"
        vital = {"host", "x-amz-security-token", "x-amz-expected-bucket-owner"}
        vital |= {"x-amz-acl", "x-amz-meta-xmode-delivery"} if wire.operation in CREATING else set()
        assert vital <= set(wire.signed_headers), wire.operation
        assert wire.signature_is_valid(), wire.operation


def test_the_signature_check_is_one(traffic: Recorder) -> None:
    wire = traffic.seen[0]
    for change in ({"x-amz-acl": "private"}, {"x-amz-date": "20200101T000000Z"}):
        forged = Wire(wire.method, wire.path, wire.query, wire.headers | change, wire.body)
        assert not forged.signature_is_valid()
    assert not Wire(wire.method, wire.path + "x", wire.query, wire.headers, wire.body).signature_is_valid()


def crc32(data: bytes) -> str:
    return b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def test_every_body_goes_with_its_checksum(traffic: Recorder) -> None:
    sent = traffic.of("PutObject") + traffic.of("UploadPart")
    assert sorted(len(wire.payload) for wire in sent) == [len(SMALL)] * 3 + [
        4 * MIB,
        5 * MIB,
        len(LARGE),
    ]
    for wire in sent:
        if "x-amz-trailer" in wire.headers:
            assert wire.headers["x-amz-trailer"] == "x-amz-checksum-crc32"
            assert f"x-amz-checksum-crc32:{crc32(wire.payload)}".encode() in wire.body
        else:
            assert wire.headers["x-amz-checksum-crc32"] == crc32(wire.payload)


def test_the_whole_is_completed_with_its_own_checksum_and_size(traffic: Recorder) -> None:
    for wire in traffic.of("CreateMultipartUpload"):
        assert wire.headers["x-amz-checksum-algorithm"] == "CRC32"
        assert wire.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    (wire,) = traffic.of("CompleteMultipartUpload")
    assert wire.headers["x-amz-mp-object-size"] == str(len(LARGE))
    assert wire.headers["x-amz-checksum-crc32"] == crc32(LARGE)
    assert wire.headers["x-amz-checksum-type"] == "FULL_OBJECT"


def test_looking_asks_for_the_checksum(traffic: Recorder) -> None:
    for wire in traffic.of("HeadObject") + traffic.of("GetObject"):
        assert wire.headers.get("x-amz-checksum-mode") == "ENABLED"
        assert "versionId" not in wire.query


def test_listing_asks_for_keys_that_xml_can_carry(traffic: Recorder) -> None:
    for wire in traffic.of("ListObjectsV2"):
        asked = parse_qs(wire.query)
        assert asked["encoding-type"] == ["url"]
        assert asked["prefix"] == ["xmode/"]


def test_a_delete_is_of_what_was_looked_at(traffic: Recorder) -> None:
    conditional, *others = traffic.of("DeleteObject")
    assert conditional.headers["if-match"].strip('"') == hashlib.md5(SMALL).hexdigest()
    assert all("if-match" not in wire.headers for wire in others)
    assert all("versionId" not in wire.query for wire in traffic.of("DeleteObject"))


def test_many_are_deleted_under_the_etag_of_each_and_with_the_body_s_checksum(traffic: Recorder) -> None:
    """moto ignores the ETags, so what follows the first request asks without, and after a HEAD."""
    first, second = traffic.of("DeleteObjects")
    etag = hashlib.md5(SMALL).hexdigest()
    (asked,) = re.findall(rb"<Object>(.*?)</Object>", first.payload)
    assert b'<ETag>"00000000000000000000000000000000"</ETag>' in asked
    assert etag.encode() not in first.payload
    assert b"ETag" not in second.payload
    looked_at = [wire for wire in traffic.of("HeadObject") if wire.path.endswith(("6", "7"))]
    assert len(looked_at) == 2
    for wire in (first, second):
        assert wire.headers["x-amz-checksum-crc32"] == crc32(wire.payload)
        assert b"VersionId" not in wire.payload
        assert b"<Quiet>false</Quiet>" in wire.payload


def test_the_service_says_who_it_is(traffic: Recorder) -> None:
    for wire in traffic.seen:
        assert "xmode-transfer/" in wire.headers["user-agent"]


def test_encryption_and_storage_class_are_asked_for_where_configured(
    store_at: Callable[..., ObjectStore], recorder: Recorder, opened: Callable[[bytes], OpenFile]
) -> None:
    key = f"arn:aws:kms:us-east-1:{OWNER}:key/1234"
    store = store_at(recorder, kms_key_arn=key, storage_class="STANDARD_IA")
    do_everything(store, opened, "encrypted")
    for wire in recorder.seen:
        creates = wire.operation in CREATING
        assert wire.headers.get("x-amz-server-side-encryption") == ("aws:kms" if creates else None)
        assert wire.headers.get("x-amz-server-side-encryption-aws-kms-key-id") == (key if creates else None)
        assert wire.headers.get("x-amz-storage-class") == ("STANDARD_IA" if creates else None)


@pytest.mark.parametrize(
    ("asked", "sent"), [pytest.param("none", None, marks=pytest.mark.slow), ("sse-s3", "AES256")]
)
def test_s3s_own_encryption_is_asked_for_where_configured(
    store_at: Callable[..., ObjectStore],
    recorder: Recorder,
    opened: Callable[[bytes], OpenFile],
    asked: str,
    sent: str | None,
) -> None:
    do_everything(store_at(recorder, encryption=asked), opened, f"encryption-{asked}")
    for wire in recorder.seen:
        expected = sent if wire.operation in CREATING else None
        assert wire.headers.get("x-amz-server-side-encryption") == expected, wire.operation
        assert "x-amz-server-side-encryption-aws-kms-key-id" not in wire.headers, wire.operation
        assert wire.signature_is_valid(), wire.operation


def test_a_stated_owner_and_metadata_of_the_destination_go_with_it(
    store_at: Callable[..., ObjectStore], recorder: Recorder, opened: Callable[[bytes], OpenFile]
) -> None:
    metadata = {"department": "research & development", "cost-centre": "4711"}
    store = store_at(recorder, metadata=metadata, bucket_owner="444455556666")
    do_everything(store, opened, "metadata")
    # not the role's account
    assert {wire.headers.get("x-amz-expected-bucket-owner") for wire in recorder.seen} == {"444455556666"}
    ours = {"xmode-delivery": TOKEN, "xmode-feed": "us-daily"}
    for wire in recorder.seen:
        found = {
            name.removeprefix("x-amz-meta-"): value
            for name, value in wire.headers.items()
            if name.startswith("x-amz-meta-")
        }
        assert found == ({**metadata, **ours} if wire.operation in CREATING else {}), wire.operation
        assert wire.signature_is_valid(), wire.operation


@pytest.mark.parametrize("mode", ["header", "none"])
def test_a_store_of_another_kind_gets_the_checksums_it_can_take(
    store_at: Callable[..., ObjectStore], recorder: Recorder, opened: Callable[[bytes], OpenFile], mode: str
) -> None:
    do_everything(store_at(recorder, checksums=mode), opened, mode)
    for wire in recorder.seen:
        assert "x-amz-trailer" not in wire.headers
        assert "aws-chunked" not in wire.headers.get("content-encoding", "")
        if mode == "none" and wire.operation != "DeleteObjects":  # S3 takes none without a checksum
            assert [name for name in wire.headers if "checksum" in name] == [], wire.operation
            assert wire.signature_is_valid()


def test_an_unknown_region_is_asked_for_once_and_under_the_same_guard(
    store_at: Callable[..., ObjectStore],
    engine: ObjectStores,
    recorder: Recorder,
    opened: Callable[[bytes], OpenFile],
) -> None:
    store = store_at(recorder, region=None)
    for number in range(3):
        store.put(request(f"xmode/{engine.info.name}-{number}", SMALL), opened(SMALL)).result(120)
    assert len(recorder.of("HeadBucket")) == 1
    assert recorder.seen[0].operation == "HeadBucket"
    assert recorder.seen[0].headers["x-amz-expected-bucket-owner"] == OWNER
    assert store.region == "us-east-1"


# --- Over TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority for 127.0.0.1, and then its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)  # noqa: TID251 - TLS looks at the real time
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def tls_recorder(upstream: str, certificate: Path) -> Iterator[Recorder]:
    made = Recorder(upstream, certificate)
    yield made
    made.stop()


def test_over_tls_a_body_is_not_hashed_twice(
    store_at: Callable[..., ObjectStore],
    tls_recorder: Recorder,
    certificate: Path,
    opened: Callable[[bytes], OpenFile],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bundle = tmp_path / "authority.pem"
    bundle.write_bytes(certificate.read_bytes().partition(b"-----BEGIN PRIVATE KEY")[0])
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    do_everything(store_at(tls_recorder), opened, "tls")
    for wire in tls_recorder.seen:
        assert wire.signature_is_valid(), wire.operation
    for wire in tls_recorder.of("PutObject") + tls_recorder.of("UploadPart"):
        assert wire.headers["x-amz-content-sha256"] in (
            "UNSIGNED-PAYLOAD",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        )


def test_an_unknown_certificate_ends_the_talk(
    store_at: Callable[..., ObjectStore], tls_recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    with pytest.raises(Unavailable) as caught:
        store_at(tls_recorder).head("xmode/a")
    assert "AWS_CA_BUNDLE" in caught.value.hint
    assert tls_recorder.seen == []
