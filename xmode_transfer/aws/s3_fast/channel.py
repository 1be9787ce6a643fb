"""The endpoint, credentials and headers of one customer's requests, and the CRT's clients.

botocore determines the endpoint, once a bucket: it builds a request and hands it over instead of sending it
(its event ``before-send``). So dual-stack, FIPS, AWS_ENDPOINT_URL_S3 and its later features apply here too.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignatureType,
    AwsSignedBodyHeaderType,
    AwsSignedBodyValue,
    AwsSigningAlgorithm,
    AwsSigningConfig,
)
from awscrt.exceptions import AwsCrtError
from awscrt.io import (
    ClientBootstrap,
    ClientTlsContext,
    DefaultHostResolver,
    EventLoopGroup,
    TlsConnectionOptions,
    TlsContextOptions,
)
from awscrt.s3 import S3Client, S3RequestTlsMode, S3RetryConfig, S3RetryMode
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path

from xmode_transfer.aws import stores
from xmode_transfer.aws.s3_calls import S3Calls
from xmode_transfer.aws.sdk import making_clients, new_session
from xmode_transfer.aws.sessions import Credentials, CredentialsProvider
from xmode_transfer.config import Addressing, Customer, Destination
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.process import Clock

_LIFE_SECONDS = 900.0
"""The provider is called again with less time left than this, or less than half of what the session had."""

_PORTS = {"http": 80, "https": 443}

HeaderList = list[tuple[str, str]]


class Endpoint(NamedTuple):
    """``host`` is the Host header; ``prefix`` is the part of the path before the key's slash."""

    tls: bool
    port: int
    host: str
    prefix: str


class Endpoints:
    """Thread-safe. A client for each Region is made once (20 to 200 ms); a bucket costs 1 ms."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, Addressing], Any] = {}

    def resolve(self, destination: Destination, region: str) -> Endpoint:
        """Raise ConfigError if the variables or the destination give no usable address."""
        with self._lock:
            try:
                client = self._client(region, destination.addressing)
                answer = client.head_object(Bucket=destination.bucket, Key="k")
            except (BotoCoreError, ValueError) as error:
                raise ConfigError(
                    f"no address can be made for s3://{destination.bucket} in {region}: {error}",
                    hint="Look at AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_S3, and at the destination",
                ) from error
        return parse(answer["ResponseMetadata"]["HTTPHeaders"]["location"])

    def _client(self, region: str, addressing: Addressing) -> Any:
        client = self._clients.get((region, addressing))
        if client is None:
            style = {} if addressing is Addressing.AUTO else {"addressing_style": str(addressing)}
            with making_clients:
                client = new_session().create_client(
                    "s3", region_name=region, config=Config(signature_version=UNSIGNED, s3=style)
                )
            client.meta.events.register("before-send.s3", _answer)
            self._clients[(region, addressing)] = client
        return client


def parse(url: str) -> Endpoint:
    """Return the endpoint in the URL of key ``k``."""
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    host = parts.netloc.rpartition("@")[2]
    if port == _PORTS[parts.scheme]:
        host = host.removesuffix(f":{port}")
    return Endpoint(parts.scheme == "https", port, host, parts.path.removesuffix("/k"))


class _Nothing(BytesIO):
    def stream(self, *_: Any, **__: Any) -> Any:
        return iter(())


def _answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
    """Answer with the request's own address, so that it is not sent."""
    return AWSResponse(request.url, 200, {"location": request.url}, _Nothing())


class Ready(NamedTuple):
    """What a request needs besides its key and body. ``creation`` are the headers of PutObject, ``plain`` of
    the others. ``good_until`` is in the clock's monotonic seconds."""

    endpoint: Endpoint
    region: str
    plain: HeaderList
    creation: HeaderList
    credentials: Credentials
    signer: Any
    signing: Any
    good_until: float


@dataclass(eq=False)
class Channel:
    """One store's endpoint, credentials and headers. Thread-safe. Makes no call until ``prepare``."""

    customer: Customer
    provider: CredentialsProvider
    calls: S3Calls
    endpoints: Endpoints
    clock: Clock
    ready: Ready | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _endpoint: Endpoint | None = field(default=None, init=False)

    def ready_at(self, now: float) -> Ready | None:
        """Return None if ``prepare`` is due. ``now`` is in the clock's monotonic seconds."""
        ready = self.ready
        return ready if ready is not None and now < ready.good_until else None

    def prepare(self) -> None:
        """Get ready, with at most one HeadBucket and the provider's call of STS. Raises their errors."""
        with self._lock:
            if self.ready_at(self.clock.monotonic()) is not None:
                return
            credentials = self.provider.get()
            region = self.calls.locate()
            if self._endpoint is None:
                self._endpoint = self.endpoints.resolve(self.customer.destination, region)
            signer = AwsCredentialsProvider.new_static(
                credentials.access_key_id, credentials.secret_access_key, credentials.session_token
            )
            plain = [
                ("host", self._endpoint.host),
                ("x-amz-expected-bucket-owner", self.customer.bucket_owner),
                ("user-agent", f"xmode-transfer/{version('xmode-transfer')}"),
            ]
            rules = stores.creation(self.customer.destination)
            creation = [(stores.CREATION_HEADERS[name], value) for name, value in rules.items()]
            own = self.customer.destination.metadata
            creation += [(f"x-amz-meta-{name}", value) for name, value in own.items()]
            left = (credentials.expires_at - self.clock.now()).total_seconds()
            life = left - min(_LIFE_SECONDS, left / 2)
            self.ready = Ready(
                endpoint=self._endpoint,
                region=region,
                plain=plain,
                creation=[*plain, *creation, ("if-none-match", "*")],
                credentials=credentials,
                signer=signer,
                signing=signing_config(region, signer, AwsSignedBodyValue.UNSIGNED_PAYLOAD),
                good_until=self.clock.monotonic() + life,
            )

    def renew(self, used: Ready) -> None:
        """Report that S3 refused these credentials as expired; the next request prepares anew."""
        self.provider.invalidate(used.credentials)
        if self.ready is used:
            self.ready = None

    def move(self, used: Ready, region: str) -> None:
        with self._lock:
            if self.calls.region == used.region:
                self.calls.region = region
                self._endpoint = None
            if self.ready is used:
                self.ready = None


def signing_config(region: str, signer: Any, body: str) -> Any:
    """The CRT adds the date when it sends (tried with awscrt 0.38)."""
    return AwsSigningConfig(
        algorithm=AwsSigningAlgorithm.V4,
        signature_type=AwsSignatureType.HTTP_REQUEST_HEADERS,
        credentials_provider=signer,
        region=region,
        service="s3",
        use_double_uri_encode=False,
        should_normalize_uri_path=False,
        signed_body_value=body,
        signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
    )


CONNECT_TIMEOUT_SECONDS = 10
SHUTDOWN_SECONDS = 5.0
_UNUSABLE = (AwsCrtError, RuntimeError)  # awscrt raises either


class Clients:
    """The CRT's clients by scheme and port. Thread-safe. Starts nothing before the first request."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._clients: dict[tuple[bool, int], Any] = {}
        self._bootstrap: Any = None
        self._loops: Any = None

    def get(self, *, tls: bool, port: int) -> Any:
        """Raise ConfigError if the CA bundle cannot be used."""
        client = self._clients.get((tls, port))
        if client is None:
            with self._lock:
                client = self._clients.get((tls, port))
                if client is None:
                    client = self._clients[(tls, port)] = self._new(tls=tls)
        return client

    def close(self) -> None:
        """Wait until connections and threads have ended, five seconds at most. Idempotent."""
        with self._lock:
            shutdowns = [client.shutdown_event for client in self._clients.values()]
            self._clients.clear()
            if self._bootstrap is not None:
                shutdowns += [self._bootstrap.shutdown_event, self._loops.shutdown_event]
                self._bootstrap = self._loops = None
        end = time.monotonic() + SHUTDOWN_SECONDS
        for shutdown in shutdowns:
            shutdown.wait(max(0.0, end - time.monotonic()))

    def _new(self, *, tls: bool) -> Any:
        if self._bootstrap is None:
            self._loops = EventLoopGroup(max(1, min(4, (os.cpu_count() or 1) // 2)))
            hosts = min(256, max(64, self._connections))
            self._bootstrap = ClientBootstrap(self._loops, DefaultHostResolver(self._loops, hosts))
        return S3Client(
            bootstrap=self._bootstrap,
            region="us-east-1",  # required; each request is signed for its own
            tls_mode=S3RequestTlsMode.ENABLED if tls else S3RequestTlsMode.DISABLED,
            tls_connection_options=_tls() if tls else None,
            throughput_target_gbps=400.0,  # ample: the real bound on connections is the next one
            max_active_connections_override=self._connections,
            connect_timeout_ms=CONNECT_TIMEOUT_SECONDS * 1000,
            retry_config=S3RetryConfig(retry_mode=S3RetryMode.NONE),  # retries are ours
        )


def _tls() -> Any:
    """Use AWS_CA_BUNDLE or a profile's ``ca_bundle``, else the machine's certificates, else botocore's."""
    bundle = new_session().get_config_variable("ca_bundle")
    if bundle:
        return _trusting(Path(bundle), f"AWS_CA_BUNDLE ({bundle})")
    try:
        return TlsConnectionOptions(ClientTlsContext(TlsContextOptions()))
    except _UNUSABLE:  # no store of certificates on this machine
        return _trusting(Path(get_cert_path(True)), "botocore's list of certificates")


def _trusting(path: Path, named: str) -> Any:
    options = TlsContextOptions()
    try:
        options.override_default_trust_store(path.read_bytes())
        return TlsConnectionOptions(ClientTlsContext(options))
    except (OSError, *_UNUSABLE) as error:
        raise ConfigError(
            f"{named} cannot be used: {error}", hint="It is a file of PEM certificates"
        ) from error
