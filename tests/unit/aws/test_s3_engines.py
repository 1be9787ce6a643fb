"""What both engines do alike, against a server that plays S3."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.sessions import Provider
from tests.unit.aws.conftest import key_used, region_used
from xmode_transfer.aws import checksums
from xmode_transfer.aws.s3_fast import engine
from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.s3_portable import IN_MEMORY_BYTES, PortableStores
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Limits
from xmode_transfer.model.errors import (
    AccessDenied,
    ObjectExists,
    PartsRefused,
    RequestRefused,
    RoleRefused,
    SessionExpired,
    Throttled,
    Unavailable,
    XmodeError,
)
from xmode_transfer.model.records import Checksum
from xmode_transfer.telemetry import SystemClock

LARGE = bytes(range(256)) * (IN_MEMORY_BYTES // 256 + 1)
HELLO = PutRequest("xmode/a", "token-1", 5, "text/plain", {"note": "of ours"})
HELLO_CRC32 = "NhCmhg=="


@pytest.fixture(params=[PortableStores, FastStores], ids=["portable", "fast"])
def stores(
    request: pytest.FixtureRequest,
    stub: Any,
    our_keys: None,
    no_pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    retry_rules: Any,
) -> Iterator[Any]:
    retry_rules(attempts=1)
    monkeypatch.setattr(engine, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    opened = request.param(Limits(), SystemClock())
    yield opened
    opened.close()


@pytest.fixture
def store(stores: Any, customer_of: Any, provider: Provider) -> Iterator[Any]:
    opened = stores.open(customer_of(), provider, None)
    yield opened
    opened.close()


@pytest.fixture
def fine(reply: Any) -> Any:
    return reply(200, headers={"ETag": '"e1"'})


def put_of(content: bytes) -> PutRequest:
    return PutRequest("xmode/a", "token-1", len(content), "text/plain")


def test_encryption_and_storage_class_are_sent_where_configured(
    stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/1234"
    stub.reply(fine)
    customer = customer_of(destination={"kms_key_arn": key, "storage_class": "STANDARD_IA"})
    opened = stores.open(customer, provider, None)
    opened.put(HELLO, file_of(b"hello")).result(120)
    opened.upload_part("xmode/a", "u", 1, file_of(b"hello"), 0, 5).result(120)
    put, part = (asked.headers for asked in stub.asked)
    assert put["x-amz-server-side-encryption"] == "aws:kms"
    assert put["x-amz-server-side-encryption-aws-kms-key-id"] == key
    assert put["x-amz-storage-class"] == "STANDARD_IA"
    assert put["x-amz-meta-note"] == "of ours"
    assert not any(name.startswith(("x-amz-server-side", "x-amz-storage")) for name in part)


@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_an_answer_with_our_checksum_is_proof(
    store: Any, stub: Any, reply: Any, file_of: Any, content: bytes
) -> None:
    value = checksums.encode(checksums.crc32(content))
    headers = {"ETag": '"e1"', "x-amz-version-id": "v1", "x-amz-server-side-encryption": "AES256"}
    stub.reply(reply(200, headers={**headers, "x-amz-checksum-crc32": value}))
    answer = store.put(put_of(content), file_of(content)).result(120)
    assert answer.proven
    assert answer.checksum == Checksum(store.checksum_algorithm, value)
    assert (answer.etag, answer.version_id, answer.encryption) == ('"e1"', "v1", "AES256")


@pytest.mark.parametrize("headers", [{}, {"x-amz-checksum-crc32": "AAAAAA=="}])
def test_an_answer_without_our_checksum_is_no_proof(
    store: Any, stub: Any, reply: Any, file_of: Any, headers: dict[str, str]
) -> None:
    stub.reply(reply(200, headers={"ETag": '"e1"', **headers}))
    answer = store.put(HELLO, file_of(b"hello")).result(120)
    assert not answer.proven
    assert answer.checksum == Checksum("crc32", HELLO_CRC32)


def test_a_file_too_large_for_one_request_is_not_begun(store: Any, stub: Any, file_of: Any) -> None:
    with pytest.raises(RequestRefused, match="more than one request"):
        store.put(PutRequest("a", "t", 5 * 1024**3 + 1, "x/y"), file_of(b"")).result(120)
    assert stub.asked == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (412, "PreconditionFailed", ObjectExists),
        (403, "AccessDenied", AccessDenied),
        (400, "InvalidArgument", RequestRefused),
        (501, "NotImplemented", RequestRefused),
    ],
)
def test_a_refusal_is_said_with_aws_words_and_not_tried_again(
    store: Any, stub: Any, refusal: Any, file_of: Any, status: int, code: str, kind: type[XmodeError]
) -> None:
    stub.reply(refusal(status, code, "the words of S3 & co"))
    with pytest.raises(kind) as caught:
        store.put(HELLO, file_of(b"hello")).result(120)
    assert len(stub.asked) == 1
    error = caught.value
    assert (error.aws_code, error.http_status, error.request_id) == (code, status, "R1")
    assert "the words of S3 & co" in error.message
    assert "s3://acme-data/xmode/a" in error.message


def test_a_part_that_the_policy_keeps_out(store: Any, stub: Any, refusal: Any, file_of: Any) -> None:
    stub.reply(refusal(403, "AccessDenied"))
    with pytest.raises(PartsRefused):
        store.upload_part("xmode/a", "u", 1, file_of(b"hello"), 0, 5).result(120)


@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_a_lost_answer_is_asked_for_again_with_the_whole_body(
    store: Any, stub: Any, reply: Any, file_of: Any, content: bytes, fine: Any
) -> None:
    stub.reply(reply(cut=True), reply(500), reply(503), fine)
    store.put(put_of(content), file_of(content)).result(120)
    assert [asked.body == content for asked in stub.asked] == [True] * 4


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", Throttled),
        (500, "InternalError", Unavailable),
        (502, "BadGateway", Unavailable),
        (400, "RequestTimeout", Unavailable),
        (429, "TooManyRequests", Throttled),
    ],
)
def test_trouble_that_stays_is_said_with_the_request_id(
    store: Any, stub: Any, refusal: Any, file_of: Any, status: int, code: str, kind: type[XmodeError]
) -> None:
    stub.reply(refusal(status, code))
    with pytest.raises(kind) as caught:
        store.put(HELLO, file_of(b"hello")).result(120)
    assert caught.value.retryable
    assert (caught.value.request_id, caught.value.aws_code) == ("R1", code)
    assert engine.ATTEMPTS <= len(stub.asked) <= engine.ATTEMPTS - 1 + 5


def test_each_customer_is_signed_for_with_its_own_session_and_never_with_ours(
    stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any
) -> None:
    stub.reply(fine)
    names = [f"customer-{number}" for number in range(4)]
    opened = {
        name: stores.open(
            customer_of(name=name, destination={"bucket": name}),
            Provider(name.upper().replace("-", "")),
            None,
        )
        for name in names
    }
    futures = [opened[name].put(HELLO, file_of(b"hello")) for _ in range(10) for name in names]
    for future in futures:
        future.result(120)
    assert len(stub.asked) == 40
    for asked in stub.asked:
        bucket = asked.path.split("/")[1]
        assert key_used(asked) == bucket.upper().replace("-", "") + "0"


def test_a_role_that_is_refused_is_said_before_anything_is_sent(
    store: Any, stub: Any, provider: Provider, fine: Any, file_of: Any
) -> None:
    provider.refusal = RoleRefused("no")
    futures = [store.put(HELLO, file_of(b"hello")) for _ in range(3)]
    assert all(isinstance(future.exception(120), RoleRefused) for future in futures)
    assert stub.asked == []
    provider.refusal = None
    stub.reply(fine)
    store.put(HELLO, file_of(b"hello")).result(120)


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"])
@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_a_dead_session_is_renewed_once_and_the_request_sent_again(
    store: Any,
    stub: Any,
    fine: Any,
    refusal: Any,
    provider: Provider,
    file_of: Any,
    code: str,
    content: bytes,
) -> None:
    stub.reply(refusal(400, code), fine)
    store.put(put_of(content), file_of(content)).result(120)
    assert [key_used(asked) for asked in stub.asked] == ["ASIA0", "ASIA1"]
    assert [credentials.access_key_id for credentials in provider.reported] == ["ASIA0"]
    assert stub.asked[1].body == content


def test_a_fresh_session_that_is_refused_too_is_said(
    store: Any, stub: Any, refusal: Any, provider: Provider, file_of: Any
) -> None:
    stub.reply(refusal(400, "ExpiredToken"))
    with pytest.raises(SessionExpired):
        store.put(HELLO, file_of(b"hello")).result(120)
    assert len(stub.asked) == 2
    assert len(provider.reported) == 1


@pytest.mark.parametrize(
    ("configured", "remembered", "used"),
    [("eu-west-1", "sa-east-1", "eu-west-1"), (None, "sa-east-1", "sa-east-1")],
)
def test_a_known_region_is_not_asked_for(
    stores: Any,
    stub: Any,
    fine: Any,
    customer_of: Any,
    provider: Provider,
    file_of: Any,
    configured: str | None,
    remembered: str,
    used: str,
) -> None:
    stub.reply(fine)
    opened = stores.open(customer_of(destination={"region": configured}), provider, remembered)
    opened.put(HELLO, file_of(b"hello")).result(120)
    assert [(asked.method, region_used(asked)) for asked in stub.asked] == [("PUT", used)]
    assert opened.region == used


@pytest.mark.parametrize("status", [200, 301, 400, 403])
def test_the_region_is_learnt_from_whatever_headbucket_answers(
    stores: Any,
    stub: Any,
    reply: Any,
    customer_of: Any,
    provider: Provider,
    status: int,
    file_of: Any,
) -> None:
    def answer(asked: Any) -> Any:
        told = {"x-amz-bucket-region": "eu-central-1"}
        if asked.method == "HEAD":
            return reply(status if region_used(asked) == "us-east-1" else 403, headers=told)
        return reply(200, headers={"ETag": '"e1"', **told})

    stub.reply(answer)
    store = stores.open(customer_of(destination={"region": None}), provider, None)
    assert store.region is None
    store.put(HELLO, file_of(b"hello")).result(120)
    store.put(HELLO, file_of(b"hello")).result(120)
    assert store.region == "eu-central-1"
    puts = [asked for asked in stub.asked if asked.method == "PUT"]
    assert [region_used(asked) for asked in puts] == ["eu-central-1"] * 2
    assert all(asked.headers["x-amz-expected-bucket-owner"] == "111122223333" for asked in stub.asked)
