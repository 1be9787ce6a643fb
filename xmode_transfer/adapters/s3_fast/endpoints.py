"""Where a bucket is reached, as botocore would say: its rules, the standard variables and profiles, once a
bucket and never an object.

botocore builds a request for the bucket and hands it over in place of sending it (its event ``before-send``):
so addressing, dual-stack, FIPS, AWS_ENDPOINT_URL_S3 and what it learns in later versions hold here too.
"""

import threading
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from xmode_transfer.adapters.aws_sessions import making_clients, new_session
from xmode_transfer.domain.config import Addressing, Destination
from xmode_transfer.domain.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """``host`` is the Host header, with a port where it is not the scheme's own; ``prefix`` is the part of
    the path before the key's slash."""

    tls: bool
    port: int
    host: str
    prefix: str


class Endpoints:
    """Thread-safe. botocore's client for a Region is made once, 20 to 200 ms; a bucket costs 1 ms."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, Addressing], Any] = {}

    def resolve(self, destination: Destination, region: str) -> Endpoint:
        """Raises ConfigError when the variables or the destination lead to no usable address."""
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
    """The endpoint in the URL of key ``k``."""
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
    """Keeps the request from being sent: the answer to it is its own address."""
    return AWSResponse(request.url, 200, {"location": request.url}, _Nothing())
