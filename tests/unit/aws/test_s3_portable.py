"""The portable engine, against a server that plays S3: what goes over the wire when things go wrong."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes.sessions import Provider
from tests.unit.aws.conftest import key_used, region_used
from xmode_transfer.aws import checksums
from xmode_transfer.aws.s3_calls import REQUEST_ATTEMPTS
from xmode_transfer.aws.s3_portable import IN_MEMORY_BYTES, PortableStore, PortableStores
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Customer, Limits
from xmode_transfer.model.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumMismatch,
    ConfigError,
    ObjectExists,
    ObjectNotFound,
    PartsRefused,
    RequestRefused,
    SourceChanged,
    Unavailable,
)
from xmode_transfer.model.records import Checksum, UploadedPart

LARGE = bytes(range(256)) * (IN_MEMORY_BYTES // 256 + 1)
"""The request's own retries are what is tried here."""
HELLO = PutRequest("xmode/a", "token-1", 5, "text/plain")
HELLO_CRC32 = "NhCmhg=="


@pytest.fixture
def stores(
    stub: Any,
    clock: Any,
    no_pauses: list[float],
    our_keys: None,
    monkeypatch: pytest.MonkeyPatch,
    retry_rules: Callable[..., None],
) -> Iterator[PortableStores]:
    retry_rules(attempts=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    opened = PortableStores(Limits(parallel_objects=8), clock)
    yield opened
    opened.close()


@pytest.fixture
def store(stores: PortableStores, customer_of: Any, provider: Provider) -> Iterator[PortableStore]:
    opened = stores.open(customer_of(), provider, None)
    yield opened
    opened.close()


# --- Putting ----------------------------------------------------------------------------------------


def test_a_small_file_is_read_once_and_a_large_one_is_streamed_twice(
    store: PortableStore, stub: Any, reply: Any, file_of: Any
) -> None:
    stub.reply(reply(200, headers={"ETag": '"e1"'}))
    small, large = file_of(bytes(IN_MEMORY_BYTES)), file_of(LARGE)
    store.put(PutRequest("a", "t", small.size, "x/y"), small).result(120)
    store.put(PutRequest("b", "t", large.size, "x/y"), large).result(120)
    assert small.reads == 1
    assert large.reads == 2 * (len(LARGE) // 2**20 + 1)
    assert stub.asked[1].body == LARGE
    assert checksums.decode(stub.asked[1].headers["x-amz-checksum-crc32"]) == checksums.crc32(LARGE)
    assert not small.closed
    assert not large.closed


def test_memory_for_bodies_is_bounded(
    stub: Any, clock: Any, reply: Any, customer_of: Any, provider: Provider, file_of: Any, stores: Any
) -> None:
    stub.reply(reply(200, headers={"ETag": '"e1"'}))
    few = PortableStores(Limits(parallel_objects=5, memory_bytes=5 * 2**20), clock)
    store = few.open(customer_of(), provider, None)
    body = file_of(bytes(2**20 + 1))
    store.put(PutRequest("a", "t", body.size, "x/y"), body).result(120)
    assert body.reads == 4, "a file larger than its share of the memory must be streamed"
    few.close()


@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_a_file_that_changed_is_not_created(
    store: PortableStore, stub: Any, reply: Any, file_of: Any, no_pauses: list[float], content: bytes
) -> None:
    stub.reply(reply(200, headers={"ETag": '"e1"'}))
    body = file_of(content, changed=True)
    with pytest.raises(SourceChanged):
        store.put(PutRequest("xmode/a", "t", body.size, "x/y"), body).result(120)
    assert stub.asked == [], "no whole request may have reached S3"
    assert no_pauses == [], "it must not be tried again"


def test_the_connection_after_a_changed_file_is_clean(
    store: PortableStore, stub: Any, reply: Any, file_of: Any
) -> None:
    stub.reply(reply(200, headers={"ETag": '"e1"'}))
    changed = file_of(LARGE, changed=True)
    for _ in range(3):
        with pytest.raises(SourceChanged):
            store.put(PutRequest("xmode/a", "t", changed.size, "x/y"), changed).result(120)
        store.put(HELLO, file_of(b"hello")).result(120)
    assert [asked.body for asked in stub.asked] == [b"hello"] * 3


def test_without_checksums_a_changed_file_is_still_not_created(
    stores: PortableStores, stub: Any, reply: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    stub.reply(reply(200, headers={"ETag": '"e1"'}))
    store = stores.open(customer_of(destination={"checksums": "none"}), provider, None)
    body = file_of(LARGE, changed=True)
    with pytest.raises(SourceChanged):
        store.put(PutRequest("xmode/a", "t", body.size, "x/y"), body).result(120)
    assert stub.asked == []


# --- Whose credentials ------------------------------------------------------------------------------


def test_a_head_that_is_a_bare_400_is_a_dead_session(
    store: PortableStore, stub: Any, reply: Any, provider: Provider
) -> None:
    stub.reply(reply(400), reply(400), reply(404), reply(200))
    assert store.head("xmode/a") is None
    assert key_used(stub.asked[0]) == "ASIA0"
    assert key_used(stub.asked[-1]) == "ASIA1"
    assert len(provider.reported) == 1


# --- The Region -------------------------------------------------------------------------------------


def test_a_store_that_names_no_region_is_used_with_ours(
    stores: PortableStores,
    stub: Any,
    reply: Any,
    customer_of: Any,
    provider: Provider,
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    stub.reply(reply(200, headers={"ETag": '"e1"'}))
    store = stores.open(customer_of(destination={"region": None}), provider, None)
    store.put(HELLO, file_of(b"hello")).result(120)
    assert store.region == "ap-south-1"


def test_a_bucket_that_is_not_there_is_said_when_its_region_is_asked_for(
    stores: PortableStores, stub: Any, reply: Any, customer_of: Any, provider: Provider, file_of: Any
) -> None:
    stub.reply(reply(404))
    store = stores.open(customer_of(destination={"region": None}), provider, None)
    with pytest.raises(BucketMissing, match="acme-data"):
        store.put(HELLO, file_of(b"hello")).result(120)
    assert store.region is None


def test_a_region_that_is_unknown_because_the_network_is_down_is_asked_for_again(
    stores: PortableStores, stub: Any, reply: Any, customer_of: Any, provider: Provider, file_of: Any
) -> None:
    store = stores.open(customer_of(destination={"region": None}), provider, None)
    stub.reply(reply(cut=True))
    with pytest.raises(Unavailable):
        store.put(HELLO, file_of(b"hello")).result(120)
    stub.reply(reply(200, headers={"ETag": '"e1"', "x-amz-bucket-region": "eu-central-1"}))
    store.put(HELLO, file_of(b"hello")).result(120)
    assert region_used(stub.asked[-1]) == "eu-central-1"


@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_a_wrong_region_is_mended_by_s3s_answer(
    store: PortableStore, stub: Any, reply: Any, refusal: Any, file_of: Any, content: bytes
) -> None:
    def answer(asked: Any) -> Any:
        if region_used(asked) == "eu-central-1":
            return reply(200, headers={"ETag": '"e1"'})
        where = "<Region>eu-central-1</Region>"
        return refusal(
            400, "AuthorizationHeaderMalformed", more=where, **{"x-amz-bucket-region": "eu-central-1"}
        )

    stub.reply(answer)
    body = file_of(content)
    for _ in range(2):
        store.put(PutRequest("a", "t", body.size, "x/y"), body).result(120)
    assert [region_used(asked) for asked in stub.asked] == ["eu-west-1", "eu-central-1", "eu-central-1"]
    assert stub.asked[1].body == content
    assert store.region == "eu-central-1"


def test_the_address_of_the_bucket_is_as_configured(
    stores: PortableStores,
    stub: Any,
    reply: Any,
    customer_of: Any,
    provider: Provider,
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.reply(reply(200, headers={"ETag": '"e1"'}))
    port = stub.url.rpartition(":")[2]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://localhost:{port}")
    stores.open(customer_of(destination={"addressing": "path"}), provider, None).put(
        HELLO, file_of(b"hello")
    ).result(120)
    assert stub.asked[0].path == "/acme-data/xmode/a"
    assert stub.asked[0].headers["host"] == f"localhost:{port}"


def test_an_endpoint_that_is_no_url_is_a_mistake_in_the_configuration(
    stores: PortableStores, customer_of: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(ConfigError, match="not a url"):
        stores.open(customer_of(), provider, None).head("a")


# --- Multipart --------------------------------------------------------------------------------------

CREATED = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
PARTS = (UploadedPart(2, 1, '"p2"', "K+KGTg=="), UploadedPart(1, 3, '"p1"', "NSRBwg=="))


def completed(checksum: str = "") -> bytes:
    inner = f"<ChecksumCRC32>{checksum}</ChecksumCRC32>" if checksum else ""
    return (
        f"<CompleteMultipartUploadResult><ETag>&quot;e-2&quot;</ETag>{inner}</CompleteMultipartUploadResult>"
    ).encode()


def test_the_day_that_the_buckets_rule_ends_an_upload_is_answered(
    store: PortableStore, stub: Any, reply: Any
) -> None:
    stub.reply(reply(200, CREATED, {"x-amz-abort-date": "Fri, 06 Mar 2026 00:00:00 GMT"}))
    assert store.create_upload(HELLO) == ("u1", datetime(2026, 3, 6, tzinfo=UTC))
    stub.reply(reply(200, CREATED))
    assert store.create_upload(HELLO) == ("u1", None)


def test_the_whole_is_completed_with_the_checksum_of_its_parts_in_order(
    store: PortableStore, stub: Any, reply: Any
) -> None:
    whole = checksums.encode(
        checksums.combine_parts([(checksums.decode("NSRBwg=="), 3), (checksums.decode("K+KGTg=="), 1)])
    )
    stub.reply(reply(200, completed(whole)))
    answer = store.complete_upload("xmode/a", "u1", PARTS, 4)
    assert answer.proven
    assert answer.checksum == Checksum("crc32", whole)
    (asked,) = stub.asked
    assert asked.headers["x-amz-checksum-crc32"] == whole
    assert asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert asked.headers["x-amz-mp-object-size"] == "4"
    assert asked.headers["if-none-match"] == "*"
    assert asked.body.index(b"<PartNumber>1</PartNumber>") < asked.body.index(b"<PartNumber>2</PartNumber>")
    assert b"<ChecksumCRC32>NSRBwg==</ChecksumCRC32>" in asked.body


WITHOUT_ETAG = b"<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>"


def test_an_empty_etag_follows_from_the_parts(store: PortableStore, stub: Any, reply: Any) -> None:
    """As Ceph RGW answers."""
    parts = [UploadedPart(number, 1, f'"{number:032x}"', "AAAAAA==") for number in (1, 2)]
    stub.reply(reply(200, WITHOUT_ETAG))
    answer = store.complete_upload("xmode/a", "u1", parts, 2)
    assert answer.etag == checksums.multipart_etag([part.etag for part in parts])
    assert len(stub.asked) == 1


def test_an_empty_etag_that_does_not_follow_is_asked_for(store: PortableStore, stub: Any, reply: Any) -> None:
    headers = {"etag": '"of-the-store"', "content-length": "4", "last-modified": HEAD["Last-Modified"]}
    stub.reply(reply(200, WITHOUT_ETAG), reply(200, b"", headers))
    answer = store.complete_upload("xmode/a", "u1", PARTS, 4)
    assert answer.etag == '"of-the-store"'
    assert [asked.method for asked in stub.asked] == ["POST", "HEAD"]


def test_a_composite_checksum_is_no_proof_of_the_whole(store: PortableStore, stub: Any, reply: Any) -> None:
    stub.reply(reply(200, completed("AAAAAA==-2")))
    assert not store.complete_upload("xmode/a", "u1", PARTS, 4).proven


def test_an_error_inside_a_200_is_an_uncertain_outcome(store: PortableStore, stub: Any, refusal: Any) -> None:
    stub.reply(refusal(200, "InternalError"))
    with pytest.raises(Unavailable):
        store.complete_upload("xmode/a", "u1", PARTS, 4)


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (501, "NotImplemented", "no"),
        (400, "InvalidRequest", "The x-amz-checksum-type header is not supported"),
    ],
)
def test_a_store_that_knows_no_checksum_of_the_whole_is_asked_without(
    store: PortableStore, stub: Any, reply: Any, refusal: Any, status: int, code: str, text: str
) -> None:
    stub.reply(refusal(status, code, text), reply(200, CREATED))
    assert store.create_upload(HELLO)[0] == "u1"
    assert "x-amz-checksum-type" in stub.asked[0].headers
    assert "x-amz-checksum-type" not in stub.asked[1].headers
    assert stub.asked[1].headers["x-amz-acl"] == "bucket-owner-full-control"
    stub.reply(refusal(status, code, text), reply(200, completed()))
    assert not store.complete_upload("xmode/a", "u1", PARTS, 4).proven
    assert stub.asked[-1].headers["if-none-match"] == "*"


def test_a_size_that_s3_disputes_is_not_asked_for_a_second_time(
    store: PortableStore, stub: Any, refusal: Any
) -> None:
    stub.reply(refusal(400, "InvalidRequest", "The provided 'x-amz-mp-object-size' header does not match"))
    with pytest.raises(RequestRefused):
        store.complete_upload("xmode/a", "u1", PARTS, 4)
    assert len(stub.asked) == 1


def test_a_checksum_that_s3_disputes_is_not_left_out(store: PortableStore, stub: Any, refusal: Any) -> None:
    stub.reply(refusal(400, "BadDigest", "The checksum did not match"))
    with pytest.raises(ChecksumMismatch):
        store.complete_upload("xmode/a", "u1", PARTS, 4)
    assert [asked.headers["x-amz-checksum-type"] for asked in stub.asked] == ["FULL_OBJECT", "COMPOSITE"]


def test_a_checksum_that_aws_disputes_stays_disputed(store: PortableStore, stub: Any, refusal: Any) -> None:
    stub.reply(
        refusal(400, "BadDigest", "no"),
        refusal(400, "InvalidRequest", "created with FULL_OBJECT"),
    )
    with pytest.raises(ChecksumMismatch, match="BadDigest"):
        store.complete_upload("xmode/a", "u1", PARTS, 4)


MIB = 2**20


class Parts:
    """S3 as far as one upload in parts goes. ``refuse`` says what a part is answered with instead."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.refuse: Callable[[int], Any] = lambda number: None
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.told: list[str] = []

    def __call__(self, asked: Any) -> Any:
        if asked.method == "POST":
            return self.reply(200, CREATED if "uploads" in asked.query else completed())
        number = int(asked.query["partNumber"][0])
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.told.append(f"part {number}")
        time.sleep(0.02)
        with self.lock:
            self.inside -= 1
        return self.refuse(number) or self.reply(200, headers={"ETag": f'"p{number}"'})


@pytest.fixture
def parts(stub: Any, reply: Any) -> Parts:
    played = Parts(reply)
    stub.reply(played)
    return played


def in_parts(store: PortableStore, body: Any, parts: Parts) -> Any:
    return store.put_in_parts(
        PutRequest("xmode/a", "t", body.size, "x/y"),
        body,
        lambda upload_id, _: parts.told.append(f"opened {upload_id}"),
        lambda _, part: parts.told.append(f"acknowledged {part.number}"),
    )


def test_an_upload_is_told_before_its_first_part(
    store: PortableStore, parts: Parts, file_of: Any, stub: Any
) -> None:
    body = file_of(bytes(40 * MIB))
    assert in_parts(store, body, parts).result(120).etag == '"e-2"'
    assert parts.told[0] == "opened u1"
    assert {told for told in parts.told if told.startswith("ack")} == {f"acknowledged {n}" for n in (1, 2, 3)}
    assert len(parts.told) == 7
    created, done = [asked for asked in stub.asked if asked.method == "POST"]
    assert created.headers["x-amz-acl"] == "bucket-owner-full-control"
    assert done.headers["if-none-match"] == "*"
    assert done.headers["x-amz-checksum-crc32"] == checksums.encode(checksums.crc32(bytes(40 * MIB)))
    assert not body.closed


def test_parts_are_read_when_it_is_their_turn(
    stub: Any, clock: Any, customer_of: Any, provider: Provider, file_of: Any, stores: Any, parts: Parts
) -> None:
    """The memory is enough for one part at a time."""
    few = PortableStores(Limits(parallel_objects=8, memory_bytes=10 * MIB), clock)
    store = few.open(customer_of(), provider, None)
    futures = [in_parts(store, file_of(bytes(10 * MIB)), parts) for _ in range(3)]
    for future in futures:
        future.result(120)
    assert parts.most == 1
    store.close()
    few.close()


def test_after_a_part_that_failed_no_more_is_read(
    store: PortableStore, parts: Parts, file_of: Any, refusal: Any, stub: Any
) -> None:
    parts.refuse = lambda number: refusal(403, "AccessDenied") if number == 1 else None
    body = file_of(bytes(320 * MIB))
    with pytest.raises(PartsRefused):
        in_parts(store, body, parts).result(120)
    assert body.reads < 20, "one for each part"
    methods = {asked.method for asked in stub.asked}
    assert "DELETE" not in methods, "to abort is the journal's keeper's"
    store.close()  # nothing is left in flight


def test_a_part_is_tried_again_like_an_object(
    store: PortableStore, file_of: Any, parts: Parts, reply: Any, retry_rules: Callable[..., None]
) -> None:
    retry_rules(attempts=2, first_pause_seconds=0.001)
    refused: list[int] = []

    def refuse(number: int) -> Any:
        if number == 2 and len(refused) < REQUEST_ATTEMPTS:
            refused.append(number)
            return reply(500)
        return None

    parts.refuse = refuse
    in_parts(store, file_of(bytes(33 * MIB)), parts).result(120)
    assert parts.told.count("part 2") == REQUEST_ATTEMPTS + 1


def test_an_upload_that_is_gone_counts_as_aborted(store: PortableStore, stub: Any, refusal: Any) -> None:
    stub.reply(refusal(404, "NoSuchUpload"))
    store.abort_upload("xmode/a", "u1")
    stub.reply(refusal(403, "AccessDenied"))
    with pytest.raises(AccessDenied):
        store.abort_upload("xmode/a", "u1")


def test_without_checksums_none_is_sent(
    stores: PortableStores, stub: Any, reply: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    store = stores.open(customer_of(destination={"checksums": "none"}), provider, None)
    head = {"ETag": '"e"', "Last-Modified": "Fri, 06 Mar 2026 00:00:00 GMT", "Content-Length": "5"}

    def answer(asked: Any) -> Any:
        if asked.method == "POST":
            return reply(200, CREATED if "uploads" in asked.query else completed())
        return reply(200, headers=head if asked.method == "HEAD" else {"ETag": '"e"'})

    stub.reply(answer)
    assert not store.put(HELLO, file_of(b"hello")).result(120).proven
    store.create_upload(HELLO)
    store.upload_part("xmode/a", "u1", 1, file_of(b"hello"), 0, 5).result(120)
    store.complete_upload("xmode/a", "u1", PARTS, 4)
    store.head("xmode/a")
    assert len(stub.asked) == 5
    for asked in stub.asked:
        assert [name for name in asked.headers if "checksum" in name] == []
        assert b"Checksum" not in asked.body
    # The signature holds the body's SHA-256 instead: there it is what proves the bytes.
    assert stub.asked[0].headers["x-amz-content-sha256"].startswith("2cf24dba5fb0a30e26e83b2ac5b9e29e")


def test_a_store_that_knows_no_checksum_of_the_whole_can_be_named_beforehand(
    stores: PortableStores, stub: Any, reply: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    store = stores.open(customer_of(destination={"checksums": "header"}), provider, None)
    stub.reply(
        lambda asked: (
            reply(200, CREATED if "uploads" in asked.query else completed())
            if asked.method == "POST"
            else reply(200, headers={"ETag": '"e"'})
        )
    )
    store.create_upload(HELLO)
    store.upload_part("xmode/a", "u1", 1, file_of(b"hello"), 0, 5).result(120)
    assert not store.complete_upload("xmode/a", "u1", PARTS, 4).proven, "a HEAD is due"
    created, part, done = stub.asked
    assert part.headers["x-amz-checksum-crc32"] == "NhCmhg=="
    assert b"<ChecksumCRC32>NSRBwg==</ChecksumCRC32>" in done.body
    for asked in (created, done):
        assert "x-amz-checksum-type" not in asked.headers
        assert "x-amz-checksum-crc32" not in asked.headers


# --- What is there ----------------------------------------------------------------------------------

HEAD = {"ETag": '"e1"', "Last-Modified": "Fri, 06 Mar 2026 01:02:03 GMT", "Content-Length": "5"}


@pytest.mark.parametrize(
    ("headers", "checksum"),
    [
        (
            {"x-amz-checksum-crc32": "NhCmhg==", "x-amz-checksum-type": "FULL_OBJECT"},
            Checksum("crc32", "NhCmhg=="),
        ),
        ({"x-amz-checksum-crc32": "NhCmhg=="}, Checksum("crc32", "NhCmhg==")),
        ({"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}, Checksum("crc64nvme", "AAAAAAAAAAA=")),
        ({"x-amz-checksum-crc32": "NhCmhg==-3"}, None),
        ({"x-amz-checksum-crc32": "NhCmhg==", "x-amz-checksum-type": "COMPOSITE"}, None),
        ({}, None),
    ],
)
def test_a_head_tells_the_checksum_of_the_whole_or_none(
    store: PortableStore, stub: Any, reply: Any, headers: dict[str, str], checksum: Checksum | None
) -> None:
    stub.reply(reply(200, headers={**HEAD, **headers, "x-amz-meta-xmode-delivery": "token-1"}))
    info = store.head("xmode/a")
    assert info is not None
    assert info.checksum == checksum
    assert (info.key, info.size, info.etag, info.token) == ("xmode/a", 5, '"e1"', "token-1")
    assert info.modified_at == datetime(2026, 3, 6, 1, 2, 3, tzinfo=UTC)
    assert info.modified_at.tzinfo is UTC
    assert stub.asked[0].headers["x-amz-checksum-mode"] == "ENABLED"


def test_a_head_of_nothing_tells_a_missing_bucket_from_a_missing_key(
    store: PortableStore, stub: Any, reply: Any, clock: Any
) -> None:
    def bucket_answers(status: int) -> None:
        stub.reply(lambda asked: reply(status if asked.path == "/acme-data" else 404))

    bucket_answers(404)
    with pytest.raises(BucketMissing):
        store.head("xmode/a")
    bucket_answers(403)
    for key in ("xmode/a", "xmode/b", "xmode/c"):
        assert store.head(key) is None
    assert [asked.path for asked in stub.asked].count("/acme-data") == 2, "asked once, then remembered"
    bucket_answers(404)
    clock.move(minutes=1)
    with pytest.raises(BucketMissing):
        store.head("xmode/a")


def test_an_object_of_somebody_else_has_no_token(store: PortableStore, stub: Any, reply: Any) -> None:
    stub.reply(reply(200, headers=HEAD))
    info = store.head("xmode/a")
    assert info is not None
    assert info.token is None


def test_a_head_goes_without_the_checksum_where_the_key_of_the_bucket_forbids_it(
    store: PortableStore, stub: Any, reply: Any
) -> None:
    stub.reply(
        lambda asked: reply(403) if "x-amz-checksum-mode" in asked.headers else reply(200, headers=HEAD)
    )
    info = store.head("xmode/a")
    assert info is not None
    assert info.checksum is None


def test_a_head_that_is_refused_is_said(store: PortableStore, stub: Any, reply: Any) -> None:
    stub.reply(reply(403))
    with pytest.raises(AccessDenied):
        store.head("xmode/a")


def page(keys: list[str], more: str = "") -> bytes:
    rows = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-03-06T00:00:00Z</LastModified></Contents>"
        for key in keys
    )
    return f"<ListBucketResult><EncodingType>url</EncodingType>{more}{rows}</ListBucketResult>".encode()


def goes_on(token: str) -> str:
    return f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"


def test_a_listing_goes_on_to_its_end_and_decodes_its_keys(
    store: PortableStore, stub: Any, reply: Any
) -> None:
    stub.reply(
        reply(200, page(["xmode/a%2Bb", "xmode/a%0Ac"], goes_on("t1"))), reply(200, page(["xmode/%C3%A9"]))
    )
    assert [row.key for row in store.list("xmode/", "xmode/Z")] == ["xmode/a+b", "xmode/a\nc", "xmode/é"]
    first, second = stub.asked
    assert first.query["start-after"] == ["xmode/Z"]
    assert first.query["encoding-type"] == ["url"]
    assert second.query["continuation-token"] == ["t1"]
    assert second.query["prefix"] == ["xmode/"]


def test_a_listing_is_streamed(store: PortableStore, stub: Any, reply: Any) -> None:
    stub.reply(reply(200, page(["a"], goes_on("t1"))), reply(200, page(["b"])))
    rows = store.list("")
    assert stub.asked == []
    next(rows)
    assert len(stub.asked) == 1


@pytest.mark.parametrize("more", ["<IsTruncated>true</IsTruncated>", goes_on("t1")])
def test_a_listing_never_ends_early_in_silence(
    store: PortableStore, stub: Any, reply: Any, more: str
) -> None:
    stub.reply(reply(200, page(["a"], more)))
    with pytest.raises(Unavailable, match="broke off"):
        list(store.list(""))


def test_a_page_that_fails_ends_the_listing_with_its_error(
    store: PortableStore, stub: Any, reply: Any, refusal: Any
) -> None:
    stub.reply(reply(200, page(["a"], goes_on("t1"))), refusal(403, "AccessDenied"))
    rows = store.list("")
    assert next(rows).key == "a"
    with pytest.raises(AccessDenied):
        next(rows)


def test_a_page_that_cannot_be_read_is_an_error(store: PortableStore, stub: Any, reply: Any) -> None:
    stub.reply(reply(200, b"<ListBucketResult><Contents><Key>a"))
    with pytest.raises(Unavailable):
        list(store.list(""))


def test_an_object_that_breaks_off_while_it_is_read_is_an_error(
    store: PortableStore, stub: Any, reply: Any
) -> None:
    stub.reply(reply(200, b"hello"))
    assert b"".join(store.read("xmode/a")) == b"hello"
    stub.reply(reply(200, b"hel", {"Content-Length": "5"}))
    with pytest.raises(Unavailable):
        list(store.read("xmode/a"))
    stub.reply(reply(200, b"hello", {"x-amz-checksum-crc32": "AAAAAA=="}))
    with pytest.raises(ChecksumMismatch):
        list(store.read("xmode/a"))


def test_an_object_that_is_not_there_cannot_be_read(store: PortableStore, stub: Any, refusal: Any) -> None:
    stub.reply(refusal(404, "NoSuchKey"))
    with pytest.raises(ObjectNotFound):
        next(store.read("xmode/a"))


# --- Deleting ---------------------------------------------------------------------------------------


def test_a_delete_asks_for_the_etag(store: PortableStore, stub: Any, reply: Any) -> None:
    stub.reply(reply(204, headers={"x-amz-version-id": "v2", "x-amz-delete-marker": "true"}))
    assert store.delete("xmode/a", '"e1"') == "v2"
    assert stub.asked[0].headers["if-match"] == '"e1"'
    stub.reply(reply(204))
    assert store.delete("xmode/a") is None
    assert "if-match" not in stub.asked[1].headers


def test_an_object_that_was_changed_is_not_deleted(store: PortableStore, stub: Any, reply: Any) -> None:
    stub.reply(lambda asked: reply(200, headers=HEAD) if asked.method == "HEAD" else reply(412))
    with pytest.raises(ObjectExists):
        store.delete("xmode/a", '"e0"')


@pytest.mark.parametrize("status", [404, 412])
def test_deleting_what_is_gone_succeeds(
    store: PortableStore, stub: Any, reply: Any, refusal: Any, status: int
) -> None:
    code = {404: "NoSuchKey", 412: "PreconditionFailed"}[status]
    stub.reply(
        lambda asked: (
            refusal(status, code)
            if asked.method == "DELETE"
            else reply(200 if asked.path == "/acme-data" else 404)
        )
    )
    assert store.delete("xmode/a", '"e1"') is None


@pytest.mark.parametrize(("found", "deleted"), [('"e1"', True), ('"e2"', False)])
def test_a_store_without_conditional_deletes_is_asked_to_compare_first(
    store: PortableStore, stub: Any, reply: Any, refusal: Any, found: str, deleted: bool
) -> None:
    def answer(asked: Any) -> Any:
        if asked.method == "HEAD":
            return reply(200, headers={**HEAD, "ETag": found})
        return refusal(501, "NotImplemented") if "if-match" in asked.headers else reply(204)

    stub.reply(answer)
    if deleted:
        store.delete("xmode/a", '"e1"')
    else:
        with pytest.raises(ObjectExists, match="was changed"):
            store.delete("xmode/a", '"e1"')
    unconditional = [
        asked for asked in stub.asked if asked.method == "DELETE" and "if-match" not in asked.headers
    ]
    assert bool(unconditional) is deleted


# --- Closing ----------------------------------------------------------------------------------------


def test_closing_waits_for_what_is_in_flight(
    stores: PortableStores, stub: Any, reply: Any, customer_of: Any, provider: Provider, file_of: Any
) -> None:
    release = threading.Event()

    def slowly(_: Any) -> Any:
        release.wait(120)
        return reply(200, headers={"ETag": '"e1"'})

    stub.reply(slowly)
    store = stores.open(customer_of(), provider, None)
    future = store.put(HELLO, file_of(b"hello"))
    threading.Timer(0.1, release.set).start()
    began = time.monotonic()
    store.close()
    assert future.done()
    assert time.monotonic() - began < 60
    store.close()


def test_closing_what_was_never_used_makes_no_call(
    stores: PortableStores, stub: Any, customer_of: Callable[..., Customer], provider: Provider
) -> None:
    stores.open(customer_of(destination={"region": None}), provider, None).close()
    assert stub.asked == []
