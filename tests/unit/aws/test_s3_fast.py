"""The fast engine, against a server that plays S3: what goes over the wire, and what comes of its answers."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import awscrt
import pytest

from tests.fakes.sessions import Provider
from tests.unit.aws.conftest import key_used, region_used
from xmode_transfer.aws import checksums
from xmode_transfer.aws.lanes import SMALL_BYTES
from xmode_transfer.aws.retrying import RETRY_BUDGET
from xmode_transfer.aws.s3_fast import direct, engine
from xmode_transfer.aws.s3_fast.store import FastStore, FastStores
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Limits
from xmode_transfer.model.errors import (
    AccessDenied,
    ClockSkew,
    ConfigError,
    Interrupted,
    RequestRefused,
    SourceChanged,
    Unavailable,
)
from xmode_transfer.model.records import UploadedPart
from xmode_transfer.telemetry import SystemClock

LARGE = bytes(range(256)) * (SMALL_BYTES // 256 + 1)
HELLO = PutRequest("xmode/a", "token-1", 5, "text/plain", {"note": "of ours"})
HELLO_CRC32 = "NhCmhg=="
UNSIGNED = {"user-agent", "authorization"}  # what SigV4 leaves out


@pytest.fixture(autouse=True)
def short_pauses(no_pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def make_stores(
    stub: Any, our_keys: None, monkeypatch: pytest.MonkeyPatch, retry_rules: Callable[..., None]
) -> Iterator[Callable[..., FastStores]]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    made = []

    def make(
        clock: Any = None, stop: threading.Event | None = None, attempts: int = 1, **limits: Any
    ) -> FastStores:
        retry_rules(attempts=attempts, first_pause_seconds=0.001)
        made.append(FastStores(Limits(**limits), clock or SystemClock(), stop=stop))
        return made[-1]

    yield make
    for stores in made:
        stores.close()


@pytest.fixture
def stores(make_stores: Callable[..., FastStores]) -> FastStores:
    return make_stores()


@pytest.fixture
def store(stores: FastStores, customer_of: Any, provider: Provider) -> FastStore:
    return stores.open(customer_of(), provider, None)


@pytest.fixture
def fine(reply: Any) -> Any:
    return reply(200, headers={"ETag": '"e1"'})


def put_of(content: bytes, key: str = "xmode/a") -> PutRequest:
    return PutRequest(key, "token-1", len(content), "text/plain")


def authorization(asked: Any) -> dict[str, str]:
    fields = asked.headers["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    return dict(field.split("=", 1) for field in fields)


def signed(asked: Any) -> set[str]:
    return set(authorization(asked)["SignedHeaders"].split(";"))


# --- The wire: every operation's headers --------------------------------------------------------------

EVERYWHERE = {
    "host",
    "x-amz-expected-bucket-owner",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "user-agent",
    "authorization",
}
OF_A_BODY = {"content-length", "x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm"}
OF_CREATION = {"x-amz-acl", "content-type", "x-amz-meta-xmode-delivery"}


@pytest.mark.parametrize("content", [b"", b"hello", LARGE])
def test_the_headers_of_put_object(
    store: FastStore, stub: Any, fine: Any, file_of: Any, content: bytes
) -> None:
    stub.reply(fine)
    store.put(put_of(content), file_of(content)).result(120)
    (asked,) = stub.asked
    assert (asked.method, asked.path, asked.query) == ("PUT", "/acme-data/xmode/a", {})
    assert asked.body == content
    assert set(asked.headers) == EVERYWHERE | OF_A_BODY | OF_CREATION | {"if-none-match"}
    assert signed(asked) == set(asked.headers) - UNSIGNED
    expected = {
        "x-amz-acl": "bucket-owner-full-control",
        "x-amz-expected-bucket-owner": "111122223333",
        "x-amz-meta-xmode-delivery": "token-1",
        "if-none-match": "*",
        "content-type": "text/plain",
        "content-length": str(len(content)),
        "x-amz-checksum-crc32": checksums.encode(checksums.crc32(content)),
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-security-token": "token",
    }
    assert {name: asked.headers[name] for name in expected} == expected
    assert asked.headers["user-agent"].startswith("xmode-transfer/")
    assert region_used(asked) == "eu-west-1"


@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_the_headers_of_upload_part(
    store: FastStore, stub: Any, fine: Any, file_of: Any, content: bytes
) -> None:
    stub.reply(fine)
    body = file_of(b"..." + content + b"...")
    part = store.upload_part("xmode/a", "id+/=?", 7, body, 3, len(content)).result(120)
    (asked,) = stub.asked
    assert (asked.method, asked.path) == ("PUT", "/acme-data/xmode/a")
    assert asked.query == {"partNumber": ["7"], "uploadId": ["id+/=?"]}
    assert asked.body == content
    assert set(asked.headers) == EVERYWHERE | OF_A_BODY, "a part with an ACL is refused by S3"
    assert signed(asked) == set(asked.headers) - UNSIGNED
    assert part == UploadedPart(7, len(content), '"e1"', asked.headers["x-amz-checksum-crc32"])


def test_the_acl_is_on_what_creates_and_nowhere_else(
    store: FastStore, stub: Any, reply: Any, file_of: Any
) -> None:
    def answer(asked: Any) -> Any:
        if "uploads" in asked.query:
            xml = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
            return reply(200, xml)
        if asked.method == "POST":
            xml = b'<CompleteMultipartUploadResult><ETag>"e9"</ETag></CompleteMultipartUploadResult>'
            return reply(200, xml)
        if asked.method == "GET" and "list-type" in asked.query:
            return reply(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        return reply(204 if asked.method == "DELETE" else 200, headers={"ETag": '"e1"'})

    stub.reply(answer)
    upload_id, _ = store.create_upload(HELLO)
    part = store.upload_part("xmode/a", upload_id, 1, file_of(b"hello"), 0, 5).result(120)
    store.complete_upload("xmode/a", upload_id, [part], 5)
    store.abort_upload("xmode/a", upload_id)
    list(store.list("xmode/"))
    list(store.read("xmode/a"))
    store.delete("xmode/a", '"e1"')
    by_name = {
        f"{asked.method} {'&'.join(sorted(set(asked.query) & {'uploads', 'uploadId', 'list-type'}))}": asked
        for asked in stub.asked
    }
    assert {name for name, asked in by_name.items() if "x-amz-acl" in asked.headers} == {"POST uploads"}
    assert all(asked.headers["x-amz-expected-bucket-owner"] == "111122223333" for asked in stub.asked)
    create = by_name["POST uploads"].headers
    assert create["x-amz-acl"] == "bucket-owner-full-control"
    assert create["x-amz-meta-xmode-delivery"] == "token-1"
    assert "if-none-match" not in create
    assert by_name["POST uploadId"].headers["if-none-match"] == "*"
    assert by_name["POST uploadId"].headers["x-amz-checksum-crc32"] == HELLO_CRC32
    assert by_name["DELETE "].headers["if-match"] == '"e1"'


def test_what_a_request_says_goes_before_what_its_destination_says(
    stores: FastStores, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    stub.reply(fine)
    customer = customer_of(destination={"metadata": {"note": "of the destination", "team": "data"}})
    stores.open(customer, provider, None).put(HELLO, file_of(b"hello")).result(120)
    (asked,) = stub.asked
    found = {name: value for name, value in asked.headers.items() if name.startswith("x-amz-meta-")}
    assert found == {
        "x-amz-meta-note": "of ours",
        "x-amz-meta-team": "data",
        "x-amz-meta-xmode-delivery": "token-1",
    }


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a b+c", "/acme-data/a%20b%2Bc"),
        ("&=;,:@$", "/acme-data/%26%3D%3B%2C%3A%40%24"),
        ("é~日本", "/acme-data/%C3%A9~%E6%97%A5%E6%9C%AC"),
        ("100%#?/%2F", "/acme-data/100%25%23%3F/%252F"),
        ("a//b/../c/./d", "/acme-data/a//b/../c/./d"),
        ("/lead!*'()", "/acme-data//lead%21%2A%27%28%29"),
        ("😀", "/acme-data/%F0%9F%98%80"),
    ],
)
def test_keys_are_encoded_once_and_signed_as_they_are_sent(
    store: FastStore, stub: Any, fine: Any, file_of: Any, key: str, path: str
) -> None:
    stub.reply(fine)
    store.put(put_of(b"hello", key), file_of(b"hello")).result(120)
    (asked,) = stub.asked
    assert asked.raw_path == path
    assert asked.path == f"/acme-data/{key}"
    assert expected_signature(asked) == authorization(asked)["Signature"]


def expected_signature(asked: Any) -> str:
    """By the rules that AWS publishes (S3 API reference, "Signature calculations"), without any SDK."""
    import hashlib
    import hmac

    fields = authorization(asked)
    scope = fields["Credential"].split("/", 1)[1]
    names = fields["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            asked.method,
            asked.raw_path,
            "",
            *(f"{name}:{asked.headers[name].strip()}" for name in names),
            "",
            fields["SignedHeaders"],
            asked.headers["x-amz-content-sha256"],
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{asked.headers['x-amz-date']}\n{scope}\n{digest}"
    key = b"AWS4secret"
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


# --- Checksums and proof --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"hello", LARGE])
def test_a_store_that_takes_no_checksums_gets_the_sha256_in_the_signature(
    stores: FastStores,
    stub: Any,
    fine: Any,
    file_of: Any,
    customer_of: Any,
    provider: Provider,
    content: bytes,
) -> None:
    import hashlib

    stub.reply(fine)
    opened = stores.open(customer_of(destination={"checksums": "none"}), provider, None)
    answer = opened.put(put_of(content), file_of(content)).result(120)
    (asked,) = stub.asked
    assert asked.headers["x-amz-content-sha256"] == hashlib.sha256(content).hexdigest()
    assert not any("checksum" in name for name in asked.headers)
    assert asked.body == content
    assert answer.checksum.value == checksums.encode(checksums.crc32(content))
    assert not answer.proven


@pytest.mark.parametrize("mode", ["full", "header"])
def test_no_trailer_is_ever_sent(
    stores: FastStores, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider, mode: str
) -> None:
    stub.reply(fine)
    opened = stores.open(customer_of(destination={"checksums": mode}), provider, None)
    opened.put(put_of(LARGE), file_of(LARGE)).result(120)
    (asked,) = stub.asked
    assert "x-amz-trailer" not in asked.headers
    assert "content-encoding" not in asked.headers
    assert asked.headers["content-length"] == str(len(LARGE))


def test_every_body_is_read_once(store: FastStore, stub: Any, fine: Any, file_of: Any) -> None:
    stub.reply(fine)
    small, large = file_of(bytes(SMALL_BYTES)), file_of(LARGE)
    store.put(put_of(small.content), small).result(120)
    store.put(put_of(large.content), large).result(120)
    assert small.reads == large.reads == 1
    assert not small.closed
    assert not large.closed


def test_a_body_larger_than_the_memory_is_streamed_from_disk(
    make_stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    stub.reply(fine)
    opened = make_stores(memory_bytes=5 * 2**20).open(customer_of(), provider, None)
    content = LARGE * 3
    body = file_of(content)
    answer = opened.put(put_of(content), body).result(120)
    part = opened.upload_part("xmode/a", "u", 1, body, 0, len(content)).result(120)
    assert body.reads > 2, "in pieces"
    assert [asked.body == content for asked in stub.asked] == [True, True]
    value = checksums.encode(checksums.crc32(content))
    assert [asked.headers["x-amz-checksum-crc32"] for asked in stub.asked] == [value, value]
    assert answer.checksum.value == part.checksum == value


def test_metadata_that_http_cannot_carry_is_refused(store: FastStore, stub: Any, file_of: Any) -> None:
    asked = PutRequest("a", "t", 5, "x/y", {"note": "naïve"})
    with pytest.raises(RequestRefused, match="printable ASCII"):
        store.put(asked, file_of(b"hello")).result(120)
    assert stub.asked == []


# --- The source -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"hello", LARGE])
def test_a_file_that_changed_is_not_created(
    store: FastStore, stub: Any, fine: Any, file_of: Any, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    stub.reply(fine)
    with pytest.raises(SourceChanged):
        store.put(put_of(content), file_of(content, changed=True)).result(120)
    store.put(HELLO, file_of(b"hello")).result(120)
    assert [asked.body for asked in stub.asked] == [b"hello"], "no whole request may have reached S3"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_a_file_that_became_shorter_is_not_created(
    store: FastStore, stub: Any, fine: Any, file_of: Any, content: bytes
) -> None:
    stub.reply(fine)
    body = file_of(content)
    body.content = content[:-1]
    with pytest.raises(SourceChanged):
        store.put(put_of(content), body).result(120)
    with pytest.raises(SourceChanged):
        store.upload_part("xmode/a", "u", 1, body, 0, len(content)).result(120)
    assert stub.asked == []


# --- Refusals -------------------------------------------------------------------------------------------


# --- Trying again ---------------------------------------------------------------------------------------


def test_a_connection_that_is_always_lost_is_said_after_so_many_tries(
    store: FastStore, stub: Any, reply: Any, file_of: Any
) -> None:
    stub.reply(reply(cut=True))
    with pytest.raises(Unavailable) as caught:
        store.put(HELLO, file_of(b"hello")).result(120)
    assert len(stub.asked) == engine.ATTEMPTS
    assert caught.value.retryable
    assert caught.value.hint


def test_the_object_is_tried_again_when_the_request_has_used_up_its_tries(
    make_stores: Any, stub: Any, reply: Any, customer_of: Any, provider: Provider, file_of: Any, fine: Any
) -> None:
    stub.reply(*[reply(cut=True)] * (2 * engine.ATTEMPTS), fine)
    opened = make_stores(attempts=3).open(customer_of(), provider, None)
    opened.put(HELLO, file_of(b"hello")).result(120)
    assert len(stub.asked) == 2 * engine.ATTEMPTS + 1
    stub.asked.clear()
    stub.reply(reply(cut=True))
    with pytest.raises(Unavailable):
        opened.put(HELLO, file_of(b"hello")).result(120)
    assert len(stub.asked) == 3 * engine.ATTEMPTS


def test_nobody_there_is_unavailable(
    make_stores: Any, customer_of: Any, provider: Provider, file_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    opened = make_stores().open(customer_of(), provider, None)
    with pytest.raises(Unavailable, match="refused"):
        opened.put(HELLO, file_of(b"hello")).result(120)


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_customers_retries_are_bounded(
    make_stores: Any,
    stub: Any,
    reply: Any,
    customer_of: Any,
    provider: Provider,
    file_of: Any,
    attempts: int,
) -> None:
    """Those of its objects and of its requests together."""
    stub.reply(reply(cut=True))
    opened = make_stores(attempts=attempts).open(customer_of(), provider, None)
    many = 60
    futures = [opened.put(put_of(b"hello", f"xmode/{n}"), file_of(b"hello")) for n in range(many)]
    assert all(isinstance(future.exception(120), Unavailable) for future in futures)
    assert len(stub.asked) <= many + RETRY_BUDGET < many * engine.ATTEMPTS


def test_a_wrong_clock_is_measured_and_said(store: FastStore, stub: Any, refusal: Any, file_of: Any) -> None:
    stub.reply(refusal(403, "RequestTimeTooSkewed", Date="Sun, 01 Mar 2020 12:00:00 GMT"))
    with pytest.raises(ClockSkew, match="s ahead of AWS's") as caught:
        store.put(HELLO, file_of(b"hello")).result(120)
    assert caught.value.request_id == "R1"


# --- Whose credentials ----------------------------------------------------------------------------------


def test_a_session_near_its_end_is_asked_for_again(
    make_stores: Any, clock: Any, stub: Any, fine: Any, provider: Provider, file_of: Any, customer_of: Any
) -> None:
    stub.reply(fine)
    provider.expires_at = clock.now().replace(hour=13)
    opened = make_stores(clock).open(customer_of(), provider, None)
    for minutes, number in ((0, 0), (44, 0), (2, 1)):
        clock.move(minutes=minutes)
        provider.number = number
        opened.put(HELLO, file_of(b"hello")).result(120)
    assert [key_used(asked) for asked in stub.asked] == ["ASIA0", "ASIA0", "ASIA1"]
    assert provider.asked == 2, "the provider is not asked once an object"


def test_a_request_is_signed_when_it_is_sent(
    make_stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    """Not when it is queued, and not with the date of the first request of the session."""
    gate = threading.Event()

    def answer(asked: Any) -> Any:
        gate.wait(120)
        return fine

    stub.reply(answer)
    opened = make_stores(parallel_objects=1).open(customer_of(), provider, None)
    futures = [opened.put(HELLO, file_of(b"hello")) for _ in range(2)]
    time.sleep(1.2)
    gate.set()
    for future in futures:
        future.result(120)
    first, second = (asked.headers["x-amz-date"] for asked in stub.asked)
    assert first < second


# --- The Region -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "more", "headers"),
    [
        (301, "PermanentRedirect", "", {"x-amz-bucket-region": "eu-central-1"}),
        (307, "TemporaryRedirect", "", {"x-amz-bucket-region": "eu-central-1"}),
        (400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>", {}),
    ],
)
def test_a_wrong_region_is_mended_once(
    store: FastStore,
    stub: Any,
    fine: Any,
    refusal: Any,
    file_of: Any,
    status: int,
    code: str,
    more: str,
    headers: dict[str, str],
) -> None:
    stub.reply(
        lambda asked: (
            fine if region_used(asked) == "eu-central-1" else refusal(status, code, more=more, **headers)
        )
    )
    for _ in range(2):
        store.put(HELLO, file_of(b"hello")).result(120)
    assert [region_used(asked) for asked in stub.asked] == ["eu-west-1", "eu-central-1", "eu-central-1"]
    assert store.region == "eu-central-1"


def test_a_region_that_stays_wrong_is_said(store: FastStore, stub: Any, refusal: Any, file_of: Any) -> None:
    regions = iter(["eu-central-1", "eu-north-1"])
    stub.reply(lambda asked: refusal(301, "PermanentRedirect", **{"x-amz-bucket-region": next(regions)}))
    with pytest.raises(RequestRefused) as caught:
        store.put(HELLO, file_of(b"hello")).result(120)
    assert "destination.region" in caught.value.hint
    assert len(stub.asked) == 2


def test_an_endpoint_variable_that_is_no_url_is_told(
    make_stores: Any, customer_of: Any, provider: Provider, file_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = make_stores().open(customer_of(), provider, None)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nonsense")
    with pytest.raises(ConfigError):
        opened.put(HELLO, file_of(b"hello")).result(120)


# --- The two ways into the CRT ------------------------------------------------------------------------------


def test_the_installed_awscrt_is_one_that_was_tested() -> None:
    """After an upgrade: run these tests, measure, and add the version to ``direct.TESTED``."""
    assert direct.IS_DIRECT, f"awscrt {awscrt.__version__} goes the public way, which is slower"


@pytest.mark.parametrize(
    ("version", "has_lock", "expected"),
    [("0.38.1", True, True), ("0.38.1", False, False), ("0.38.2", True, False)],
)
def test_only_what_was_tested_is_bound_directly(version: str, has_lock: bool, expected: bool) -> None:
    assert direct.may_be_direct(version, has_lock=has_lock) is expected


@pytest.mark.parametrize("is_direct", [True, False])
@pytest.mark.parametrize("content", [b"hello", LARGE])
def test_both_ways_send_and_tell_the_same(
    store: FastStore,
    stub: Any,
    reply: Any,
    refusal: Any,
    file_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_direct: bool,
    content: bytes,
) -> None:
    monkeypatch.setattr(direct, "IS_DIRECT", is_direct)
    value = checksums.encode(checksums.crc32(content))
    stub.reply(
        reply(cut=True),
        reply(200, headers={"ETag": '"e1"', "x-amz-checksum-crc32": value}),
        refusal(403, "AccessDenied"),
    )
    answer = store.put(put_of(content), file_of(content)).result(120)
    assert (answer.etag, answer.proven) == ('"e1"', True)
    with pytest.raises(AccessDenied) as caught:
        store.put(put_of(content), file_of(content)).result(120)
    assert (caught.value.request_id, caught.value.http_status) == ("R1", 403)
    with pytest.raises(SourceChanged):
        store.put(put_of(content), file_of(content, changed=True)).result(120)
    assert [asked.body == content for asked in stub.asked] == [True] * 3
    assert all(signed(asked) == set(asked.headers) - UNSIGNED for asked in stub.asked)


# --- Stopping and closing ---------------------------------------------------------------------------------


def test_what_waits_is_given_up_when_we_are_asked_to_stop(
    make_stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    stop, gate = threading.Event(), threading.Event()

    def answer(asked: Any) -> Any:
        gate.wait(120)
        return fine

    stub.reply(answer)
    opened = make_stores(stop=stop, parallel_objects=1).open(customer_of(), provider, None)
    futures = [opened.put(HELLO, file_of(b"hello")) for _ in range(5)]
    while not stub.asked:
        time.sleep(0.005)
    stop.set()
    gate.set()
    assert futures[0].exception(120) is None
    assert all(isinstance(future.exception(120), Interrupted) for future in futures[1:])
    assert len(stub.asked) == 1


def test_closing_ends_what_is_in_flight(
    make_stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    gate = threading.Event()

    def answer(asked: Any) -> Any:
        gate.wait(120)
        return fine

    stub.reply(answer)
    opened = make_stores(parallel_objects=2)
    store = opened.open(customer_of(), provider, None)
    futures = [store.put(HELLO, file_of(b"hello")) for _ in range(4)]
    while len(stub.asked) < 2:
        time.sleep(0.005)
    started = time.monotonic()
    opened.close()
    gate.set()
    assert time.monotonic() - started < 60
    assert all(isinstance(future.exception(1), Interrupted) for future in futures)


def test_a_store_is_closed_after_its_last_answer(
    make_stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    stub.reply(fine)
    store = make_stores().open(customer_of(), provider, None)
    futures = [store.put(HELLO, file_of(b"hello")) for _ in range(20)]
    store.close()
    assert all(future.done() for future in futures)
    store.close()


def test_no_thread_of_ours_is_left(
    make_stores: Any, stub: Any, fine: Any, file_of: Any, customer_of: Any, provider: Provider
) -> None:
    before = set(threading.enumerate())  # what other tests have left may end meanwhile: it is not counted
    stub.reply(fine)
    opened = make_stores()
    opened.open(customer_of(), provider, None).put(HELLO, file_of(b"hello")).result(120)
    opened.close()
    deadline = time.monotonic() + 120
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left
