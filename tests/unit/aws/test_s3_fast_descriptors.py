"""Small files that the CRT reads by itself, from the descriptor that is open: what reaches S3 is what was
scanned, or nothing."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.aws import checksums
from xmode_transfer.aws.lanes import SMALL_BYTES
from xmode_transfer.aws.s3_fast import direct
from xmode_transfer.aws.s3_fast.store import FastStore, FastStores, path_of_descriptor
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Limits
from xmode_transfer.model.errors import ChecksumMismatch, SourceChanged
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.local import LocalFile, open_file
from xmode_transfer.sources.local_walk import identity_of
from xmode_transfer.telemetry import SystemClock

CONTENT = os.urandom(40_000)
Opened = Callable[..., LocalFile]

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors have no names here")


class Provider:
    def get(self) -> Credentials:
        return Credentials("ASIA1", "secret", "token", datetime(2099, 1, 1, tzinfo=UTC))

    def invalidate(self, credentials: Credentials) -> None:
        raise AssertionError("the credentials are good")


@pytest.fixture
def stores(stub: Any, our_keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastStores]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    stores = FastStores(Limits(), SystemClock())
    yield stores
    stores.close()


@pytest.fixture
def store(stores: FastStores, customer_of: Any) -> FastStore:
    return stores.open(customer_of(), Provider(), None)


@pytest.fixture
def fine(stub: Any) -> Any:
    reply = type(stub).next_reply.__annotations__["return"]
    return reply(200, headers={"ETag": '"e1"'})


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    files: list[LocalFile] = []

    def make(content: bytes, name: str = "a", kind: type[LocalFile] = LocalFile) -> LocalFile:
        path = tmp_path / name
        path.write_bytes(content)
        status = path.stat()
        scanned = SourceFile(name, status.st_size, status.st_mtime_ns, identity_of(status))
        file = open_file(str(tmp_path), scanned)
        files.append(kind(scanned, str(path), os.dup(file.fileno())))
        file.close()
        return files[-1]

    yield make
    for file in files:
        file.close()


def put_of(content: bytes) -> PutRequest:
    return PutRequest("xmode/a", "token-1", len(content), "text/plain")


@pytest.mark.parametrize("is_direct", [True, False])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(SMALL_BYTES)], ids=len)
def test_what_was_summed_is_what_is_sent(
    store: FastStore,
    stub: Any,
    fine: Any,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    is_direct: bool,
    content: bytes,
) -> None:
    monkeypatch.setattr(direct, "IS_DIRECT", is_direct)
    stub.reply(fine)
    store.put(put_of(content), opened(content)).result(120)
    (asked,) = stub.asked
    assert asked.body == content
    assert asked.headers["content-length"] == str(len(content))
    assert asked.headers["x-amz-checksum-crc32"] == checksums.encode(checksums.crc32(content))
    assert "transfer-encoding" not in asked.headers


def test_it_sends_the_same_headers_as_from_memory(
    store: FastStore, stub: Any, fine: Any, opened: Opened, file_of: Any
) -> None:
    stub.reply(fine)
    store.put(put_of(CONTENT), opened(CONTENT)).result(120)
    store.put(put_of(CONTENT), file_of(CONTENT)).result(120)
    one, other = stub.asked
    assert set(one.headers) == set(other.headers)
    changing = {"x-amz-date", "authorization", "user-agent"}  # the CRT notes there what it uses
    assert {**one.headers, **dict.fromkeys(changing)} == {**other.headers, **dict.fromkeys(changing)}


def test_a_store_without_checksums_gets_the_sha256_of_what_was_read(
    stores: FastStores, stub: Any, fine: Any, opened: Opened, customer_of: Any
) -> None:
    stub.reply(fine)
    store = stores.open(customer_of(destination={"checksums": "none"}), Provider(), None)
    store.put(put_of(CONTENT), opened(CONTENT)).result(120)
    (asked,) = stub.asked
    assert asked.body == CONTENT
    assert asked.headers["x-amz-content-sha256"] == sha256(CONTENT).hexdigest()


def test_a_part_is_never_taken_for_the_whole_file(
    store: FastStore, stub: Any, fine: Any, opened: Opened
) -> None:
    stub.reply(fine)
    store.upload_part("xmode/a", "id", 1, opened(CONTENT), 10_000, 20_000).result(120)
    assert stub.asked[0].body == CONTENT[10_000:30_000]


class ShrinksOnceRead(LocalFile):
    """A file that somebody cuts off just after it was read and found unchanged."""

    looks = 0

    def check_unchanged(self) -> None:
        self.looks += 1
        super().check_unchanged()
        if self.looks == 1:
            os.truncate(self._path, 10)


class RewrittenOnceRead(ShrinksOnceRead):
    def check_unchanged(self) -> None:
        self.looks += 1
        super(ShrinksOnceRead, self).check_unchanged()
        if self.looks == 1:
            Path(self._path).write_bytes(bytes(self.size))


def test_a_file_that_shrinks_between_the_two_readings_creates_nothing(
    store: FastStore, stub: Any, fine: Any, opened: Opened
) -> None:
    stub.reply(fine)
    with pytest.raises(SourceChanged):
        store.put(put_of(CONTENT), opened(CONTENT, kind=ShrinksOnceRead)).result(20)
    assert stub.asked == [], "no whole request may have reached S3"


def test_a_file_that_is_rewritten_between_the_two_readings_is_refused_by_its_checksum(
    store: FastStore, stub: Any, opened: Opened
) -> None:
    reply = type(stub).next_reply.__annotations__["return"]

    def as_s3_does(asked: Any) -> Any:
        if checksums.encode(checksums.crc32(asked.body)) == asked.headers["x-amz-checksum-crc32"]:
            return reply(200, headers={"ETag": '"e1"'})
        return reply(400, b"<Error><Code>BadDigest</Code><Message>no</Message></Error>")

    stub.reply(as_s3_does)
    body = opened(CONTENT, kind=RewrittenOnceRead)
    with pytest.raises((SourceChanged, ChecksumMismatch)):
        store.put(put_of(CONTENT), body).result(20)
    assert [asked.body for asked in stub.asked[:1]] == [bytes(len(CONTENT))]


def test_a_file_that_is_replaced_under_its_name_is_not_what_is_read(
    store: FastStore, stub: Any, fine: Any, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads elsewhere by the time the CRT opens it: its descriptor does not."""
    stub.reply(fine)
    file = opened(CONTENT)
    of_descriptor = path_of_descriptor
    (tmp_path / "other").write_bytes(bytes(len(CONTENT)))

    def replaced(body: Any) -> str | None:
        (tmp_path / "other").replace(tmp_path / "a")
        return of_descriptor(body)

    monkeypatch.setattr("xmode_transfer.aws.s3_fast.store.path_of_descriptor", replaced)
    store.put(put_of(CONTENT), file).result(120)
    assert stub.asked[0].body == CONTENT
