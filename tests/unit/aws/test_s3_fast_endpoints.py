"""Where a bucket is reached: what botocore would do, in every way that it can be told."""

import datetime as dt
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.sessions import Provider
from xmode_transfer.aws.s3_fast import engine
from xmode_transfer.aws.s3_fast.channel import Endpoint, Endpoints
from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Customer, Destination, Limits
from xmode_transfer.model.errors import ConfigError, Unavailable
from xmode_transfer.telemetry import SystemClock

HELLO = PutRequest("xmode/a", "token-1", 5, "text/plain")


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints()


@pytest.mark.parametrize(
    ("bucket", "region", "more", "host", "prefix"),
    [
        ("acme-data", "eu-west-1", {}, "acme-data.s3.eu-west-1.amazonaws.com", ""),
        ("acme-data", "us-east-1", {}, "acme-data.s3.amazonaws.com", ""),
        ("acme-data", "cn-north-1", {}, "acme-data.s3.cn-north-1.amazonaws.com.cn", ""),
        ("acme-data", "us-gov-west-1", {}, "acme-data.s3.us-gov-west-1.amazonaws.com", ""),
        ("acme-data", "eusc-de-east-1", {}, "acme-data.s3.eusc-de-east-1.amazonaws.eu", ""),
        ("acme.data", "eu-west-1", {}, "s3.eu-west-1.amazonaws.com", "/acme.data"),
        ("acme-data", "eu-west-1", {"addressing": "path"}, "s3.eu-west-1.amazonaws.com", "/acme-data"),
        ("acme-data", "eu-west-1", {"addressing": "virtual"}, "acme-data.s3.eu-west-1.amazonaws.com", ""),
    ],
)
def test_aws_by_region_and_addressing(
    endpoints: Endpoints, bucket: str, region: str, more: dict[str, Any], host: str, prefix: str
) -> None:
    found = endpoints.resolve(Destination(bucket=bucket, **more), region)
    assert found == Endpoint(True, 443, host, prefix)


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "acme-data.s3.dualstack.us-west-2.amazonaws.com"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "acme-data.s3-fips.us-west-2.amazonaws.com"),
    ],
)
def test_dual_stack_and_fips(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert endpoints.resolve(Destination(bucket="acme-data"), "us-west-2").host == host


@pytest.mark.parametrize(
    ("variables", "addressing", "expected"),
    [
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
            "auto",
            Endpoint(False, 9000, "127.0.0.1:9000", "/acme-data"),
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "https://s3.example"},
            "path",
            Endpoint(True, 443, "s3.example", "/acme-data"),
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "http://localhost:9000"},
            "virtual",
            Endpoint(False, 9000, "acme-data.localhost:9000", ""),
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "https://s3.example:443/base"},
            "path",
            Endpoint(True, 443, "s3.example", "/base/acme-data"),
        ),
    ],
)
def test_the_endpoint_variables(
    endpoints: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    addressing: str,
    expected: Endpoint,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    destination = Destination(bucket="acme-data", addressing=addressing)
    assert endpoints.resolve(destination, "eu-west-1") == expected


def test_a_profile_in_the_configuration_file(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text("[profile x]\nendpoint_url = http://localhost:7\ns3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "x")
    found = endpoints.resolve(Destination(bucket="acme-data"), "eu-west-1")
    assert found.host == "acme-data.localhost:7"


def test_one_look_serves_many_buckets(endpoints: Endpoints) -> None:
    hosts = {endpoints.resolve(Destination(bucket=f"acme-{n}"), "eu-west-1").host for n in range(20)}
    assert hosts == {f"acme-{n}.s3.eu-west-1.amazonaws.com" for n in range(20)}


# --- Certificates ---------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)  # noqa: TID251
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.requestline, self.headers["host"]))  # type: ignore[attr-defined]
        self.send_response_only(200)
        self.send_header("ETag", '"e1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[tuple[str, str]] = []

    def handle_error(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Quiet]]:
    servers = []

    def make(context: ssl.SSLContext | None = None) -> Quiet:
        server = Quiet(("127.0.0.1", 0), Answering)
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch, retry_rules: Callable[..., None]) -> Iterator[FastStores]:
    retry_rules(attempts=1)
    monkeypatch.setattr(engine, "FIRST_PAUSE_SECONDS", 0.001)
    opened = FastStores(Limits(), SystemClock())
    yield opened
    opened.close()


@pytest.fixture
def secure(serve: Callable[..., Quiet], certificate: tuple[Path, Path], monkeypatch: Any) -> Quiet:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = serve(context)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://localhost:{server.server_port}")
    return server


def test_aws_ca_bundle_is_trusted(
    stores: FastStores,
    secure: Quiet,
    certificate: tuple[Path, Path],
    customer_of: Callable[..., Customer],
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    answer = stores.open(customer_of(), Provider(), None).put(HELLO, file_of(b"hello")).result(20)
    assert answer.etag == '"e1"'
    assert len(secure.asked) == 1


@pytest.mark.slow
def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    stores: FastStores, secure: Quiet, customer_of: Callable[..., Customer], file_of: Any
) -> None:
    """s2n lets up to 30 seconds pass before it says so; botocore then tells what is wrong."""
    with pytest.raises(Unavailable, match="certificate verify failed") as caught:
        stores.open(customer_of(), Provider(), None).put(HELLO, file_of(b"hello")).result(120)
    assert "AWS_CA_BUNDLE" in caught.value.hint
    assert secure.asked == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_cannot_be_used_is_told(
    stores: FastStores,
    customer_of: Callable[..., Customer],
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: str | None,
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://localhost:1")
    with pytest.raises(ConfigError, match=r"bundle\.pem"):
        stores.open(customer_of(), Provider(), None).put(HELLO, file_of(b"hello")).result(20)


# --- Proxies --------------------------------------------------------------------------------------------


def test_a_proxy_is_used_and_no_proxy_honoured(
    serve: Callable[..., Quiet],
    customer_of: Callable[..., Customer],
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    retry_rules: Callable[..., None],
) -> None:
    retry_rules(attempts=1)
    proxy, server = serve(), serve()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")
    for exempted in (False, True):
        if exempted:
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        stores = FastStores(Limits(), SystemClock())
        try:
            stores.open(customer_of(), Provider(), None).put(HELLO, file_of(b"hello")).result(20)
        finally:
            stores.close()
        assert len(proxy.asked) == 1
        assert len(server.asked) == int(exempted)
    assert proxy.asked[0][0].startswith(f"PUT http://127.0.0.1:{server.server_port}/acme-data/")


def test_two_endpoints_that_differ_in_the_port_alone_are_told_apart(
    stores: FastStores,
    serve: Callable[..., Quiet],
    customer_of: Callable[..., Customer],
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The CRT keeps its connections by host name."""
    servers = [serve(), serve()]
    for number, server in enumerate(servers):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        region = ("eu-west-1", "eu-west-2")[number]
        customer = customer_of(name=f"customer-{number}", destination={"region": region})
        stores.open(customer, Provider(), None).put(HELLO, file_of(b"hello")).result(20)
    assert [len(server.asked) for server in servers] == [1, 1]
