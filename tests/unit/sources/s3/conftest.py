"""A feed in a bucket of moto, and one whose bucket answers what the test says."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from tests.fakes import MemoryClock
from xmode_transfer.config import Feed
from xmode_transfer.sources.s3 import S3Source
from xmode_transfer.sources.s3_bucket import own_client
from xmode_transfer.telemetry import SystemClock


@pytest.fixture
def clock() -> MemoryClock:
    """Two hours ahead of moto's, so that what is written now is two hours old."""
    return MemoryClock(SystemClock().now() + timedelta(hours=2))


@pytest.fixture
def source_of(clock: MemoryClock) -> Callable[..., S3Source]:
    """``source_of(client)`` is a drop folder below s3://source-bucket/in/ that takes everything."""

    def make(client: Any, **changes: Any) -> S3Source:
        feed = {"name": "daily", "source": "s3://source-bucket/in", "period": "none", "exclude": []}
        return S3Source(Feed.model_validate(feed | changes), clock, lambda: client)

    return make


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


_buckets = count()


class Bucket:
    """A bucket of moto's own and its feeds."""

    def __init__(self, client: Any, source_of: Callable[..., S3Source]) -> None:
        self.client = client
        self.name = f"source-{next(_buckets)}"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._source_of = source_of
        client.create_bucket(Bucket=self.name)
        client.meta.events.register("provide-client-params.s3", self._note)

    def put(self, *keys: str, data: bytes = b"data") -> None:
        for key in keys:
            self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def source(self, prefix: str = "in/", **changes: Any) -> S3Source:
        return self._source_of(self.client, source=f"s3://{self.name}/{prefix}".rstrip("/"), **changes)

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.asked.append((model.name, params))


@pytest.fixture
def bucket(
    moto_url: str, our_keys: None, monkeypatch: pytest.MonkeyPatch, source_of: Callable[..., S3Source]
) -> Iterator[Bucket]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    client = own_client()
    yield Bucket(client, source_of)
    client.close()


@pytest.fixture
def stub_client(
    stub: Any, our_keys: None, no_pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    client = own_client()
    yield client
    client.close()
