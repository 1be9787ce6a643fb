import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import MemoryClock
from xmode_transfer.config import Feed
from xmode_transfer.model.errors import (
    ConfigError,
    SourceChanged,
    SourceMissing,
    SourceUnreadable,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources import s3 as opened
from xmode_transfer.sources.s3 import S3Source
from xmode_transfer.sources.s3_bucket import OwnClient, own_client
from xmode_transfer.telemetry import redact_text

NONE = Period.none()
FILE = SourceFile("a.csv", 100, 1_772_366_400 * 10**9, "etag-1")
DATA = bytes(range(100))
MODIFIED = "Sun, 01 Mar 2026 12:00:00 GMT"
PAGE = "<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{rows}</ListBucketResult>"
ROW = (
    "<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>"
    "<LastModified>2026-03-01T12:00:00.000Z</LastModified></Contents>"
)

Sources = Callable[..., S3Source]


def page(*keys: str, token: str | None = None, more: bool | None = None) -> bytes:
    rows = "".join(ROW.format(key=f"in/{key}") for key in keys)
    said = "true" if (token is not None if more is None else more) else "false"
    return PAGE.format(
        more=said, token=f"<NextContinuationToken>{token}</NextContinuationToken>" if token else "", rows=rows
    ).encode()


class FakeObject:
    """Answers HEAD and ranged GET for one object, as S3 does; ``tear`` cuts an answer after so many bytes."""

    def __init__(self, stub: Any, reply: Any) -> None:
        self.etag = "etag-1"
        self.tear: Callable[[int], int | None] = lambda asked: None
        self.gets = 0
        self.reply = reply
        self.lock = threading.Lock()
        stub.reply(self.answer)

    def answer(self, asked: Any) -> Any:
        headers = {"ETag": f'"{self.etag}"', "Last-Modified": MODIFIED}
        if asked.headers.get("if-match") != f'"{self.etag}"':
            return self.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if asked.method == "HEAD":
            return self.reply(200, b"", {**headers, "Content-Length": str(len(DATA))})
        with self.lock:
            self.gets += 1
            number = self.gets
        first, last = (int(end) for end in asked.headers["range"].removeprefix("bytes=").split("-"))
        body = DATA[first : last + 1]
        cut = self.tear(number)
        return self.reply(206, body[:cut], {**headers, "Content-Length": str(len(body))})


@pytest.fixture
def far(stub: Any, reply: Any) -> FakeObject:
    return FakeObject(stub, reply)


@pytest.fixture
def source(stub_client: Any, source_of: Sources) -> S3Source:
    return source_of(stub_client)


# --- Reading -------------------------------------------------------------------------------------------


def test_every_request_names_the_object_that_was_scanned(
    stub: Any, far: FakeObject, source: S3Source
) -> None:
    with source.open(FILE) as file:
        assert file.read_at(10, 20) == DATA[10:30]
        file.check_unchanged()
    assert [(asked.method, asked.path) for asked in stub.asked] == [
        ("HEAD", "/source-bucket/in/a.csv"),
        ("GET", "/source-bucket/in/a.csv"),
        ("HEAD", "/source-bucket/in/a.csv"),
    ]
    assert all(asked.headers["if-match"] == '"etag-1"' for asked in stub.asked)
    assert all("AKIAOURS" in asked.headers["authorization"] for asked in stub.asked)


def test_what_is_read_in_order_is_one_request(
    stub: Any, far: FakeObject, source: S3Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    with source.open(FILE) as file:
        assert b"".join(file.read_at(at, 10) for at in range(0, 100, 10)) == DATA
    assert far.gets == 1
    monkeypatch.setattr(opened, "RANGE_BYTES", 40)
    with source.open(FILE) as file:
        assert b"".join(file.read_at(at, 10) for at in range(0, 100, 10)) == DATA
        assert far.gets == 1 + 3
        buffer = bytearray(100)
        assert file.read_into(memoryview(buffer), 0) == 100
        assert bytes(buffer) == DATA
    assert [asked.headers["range"] for asked in stub.asked if asked.method == "GET"][1:4] == [
        "bytes=0-39",
        "bytes=40-79",
        "bytes=80-99",
    ]


def test_a_range_that_nothing_follows_is_requested_alone(
    stub: Any, far: FakeObject, source: S3Source
) -> None:
    with source.open(FILE) as file:
        assert file.read_range(0, 4) + file.read_range(92, 8) == DATA[:4] + DATA[92:]
    ranges = [asked.headers["range"] for asked in stub.asked if asked.method == "GET"]
    assert ranges == ["bytes=0-3", "bytes=92-99"]


def test_readers_at_many_places_do_not_disturb_each_other(
    far: FakeObject, source: S3Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "RANGE_BYTES", 7)
    with source.open(FILE) as file, ThreadPoolExecutor(8) as pool:
        places = [(first, length) for first in range(0, 90, 3) for length in (1, 5, 10)]
        for (first, length), got in zip(places, pool.map(lambda at: file.read_at(*at), places), strict=True):
            assert got == DATA[first : first + length]


def test_a_torn_answer_is_taken_up_where_it_ended(stub: Any, far: FakeObject, source: S3Source) -> None:
    far.tear = lambda number: 30 if number == 1 else None
    with source.open(FILE) as file:
        assert file.read_at(0, 20) + file.read_at(20, 80) == DATA
    ranges = [asked.headers["range"] for asked in stub.asked if asked.method == "GET"]
    assert ranges[0] == "bytes=0-99"
    assert ranges[1] in ("bytes=20-99", "bytes=30-99")
    assert len(ranges) == 2


def test_an_answer_that_never_brings_a_byte_ends(stub: Any, far: FakeObject, source: S3Source) -> None:
    far.tear = lambda number: 0
    with source.open(FILE) as file, pytest.raises(SourceUnreadable, match=r"a\.csv"):
        file.read_at(0, 100)
    assert far.gets == 4


def test_a_replaced_object_gives_no_byte_of_the_other_one(
    far: FakeObject, source: S3Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "RANGE_BYTES", 50)
    with source.open(FILE) as file:
        assert file.read_at(0, 50) == DATA[:50]
        far.etag = "etag-2"
        with pytest.raises(SourceChanged, match="another object replaced it"):
            file.read_at(50, 50)
        with pytest.raises(SourceChanged):
            file.check_unchanged()
    with pytest.raises(SourceChanged):
        source.open(FILE)


@pytest.mark.parametrize("changed", [{"size": 99}, {"modified_ns": FILE.modified_ns + 10**9}])
def test_what_differs_from_the_scan_is_not_opened(
    far: FakeObject, source: S3Source, changed: dict[str, int]
) -> None:
    with pytest.raises(SourceChanged, match="written anew"):
        source.open(FILE._replace(**changed))


def test_a_part_of_a_second_is_no_change(far: FakeObject, source: S3Source) -> None:
    source.open(FILE._replace(modified_ns=FILE.modified_ns + 123_000_000)).close()


def test_a_closed_file_is_not_read(far: FakeObject, source: S3Source) -> None:
    file = source.open(FILE)
    file.read_at(0, 10)
    file.close()
    file.close()
    with pytest.raises(ValueError, match=r"a\.csv is closed"):
        file.read_at(10, 10)
    assert far.gets == 1


def test_few_connections_are_kept_for_readers_that_may_come(
    far: FakeObject, source: S3Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    close = opened._Range.close

    def noted(self: Any) -> None:
        closed.append(self.position)
        close(self)

    monkeypatch.setattr(opened._Range, "close", noted)
    with source.open(FILE) as file:
        for first in range(0, 90, 10):
            file.read_at(first, 1)
        assert len(closed) == 9 - 4
    assert sorted(closed) == [first + 1 for first in range(0, 90, 10)]


# --- Refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "words", "hint"),
    [
        (403, "AccessDenied", SourceUnreadable, "AccessDenied", "s3:ListBucket"),
        (404, "NoSuchBucket", SourceMissing, "there is no bucket source-bucket", "feed's source"),
        (403, "InvalidAccessKeyId", VendorIdentityError, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", VendorIdentityError, "SignatureDoesNotMatch", "clock"),
        (400, "ExpiredToken", VendorIdentityError, "ExpiredToken", "AWS_PROFILE"),
        (503, "SlowDown", SourceUnreadable, "503 SlowDown", "next run"),
        (500, "InternalError", SourceUnreadable, "500 InternalError", "next run"),
    ],
)
def test_a_listing_that_is_refused(
    stub: Any,
    reply: Any,
    source: S3Source,
    status: int,
    code: str,
    kind: type[XmodeError],
    words: str,
    hint: str,
) -> None:
    stub.reply(reply(status, f"<Error><Code>{code}</Code></Error>".encode(), {"x-amz-request-id": "R1"}))
    for look in (lambda: list(source.scan(NONE)), lambda: list(source.periods())):
        with pytest.raises(kind, match=words) as raised:
            look()
        assert type(raised.value) is kind
        assert hint in raised.value.hint
        assert raised.value.request_id == "R1"
        assert raised.value.http_status == status
    assert len(stub.asked) == 2 * (5 if status >= 500 else 1)


REFUSED = (
    "User: arn:aws:iam::366810793500:user/xmode-data-transfer is not authorized to perform: s3:ListBucket on "
    'resource: "arn:aws:s3:::source-bucket"'
)


@pytest.mark.parametrize(
    ("said", "hints"),
    [
        # Nothing is said: whose policy it is cannot be told, and both are named, ours first.
        (
            "Access Denied",
            [
                "1. our user or role needs s3:ListBucket on the bucket source-bucket",
                "2. if the bucket belongs to another account, the owner of source-bucket must allow it to us",
            ],
        ),
        (
            f"{REFUSED} because no identity-based policy allows the s3:ListBucket action",
            ["We must act: our user or role needs s3:ListBucket on the bucket source-bucket"],
        ),
        (
            f"{REFUSED} because no resource-based policy allows the s3:ListBucket action",
            [
                "belongs to another account: the owner of source-bucket must allow it to us",
            ],
        ),
        (
            f"{REFUSED} with an explicit deny in a resource-based policy",
            ["The owner of the bucket source-bucket must exempt our user or role from the Deny"],
        ),
        (
            f"{REFUSED} with an explicit deny in a service control policy",
            ["We must change the service control policy that denies s3:ListBucket"],
        ),
    ],
)
def test_a_refusal_names_the_policy_that_has_to_change(
    stub: Any, reply: Any, source: S3Source, said: str, hints: list[str]
) -> None:
    body = f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>"
    stub.reply(reply(403, body.encode()))
    with pytest.raises(SourceUnreadable) as raised:
        list(source.scan(NONE))
    for hint in hints:
        assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("status", "code", "kind", "words", "hint"),
    [
        (403, "AccessDenied", SourceUnreadable, r"a\.csv cannot be read: .*AccessDenied", "s3:GetObject"),
        (404, "NoSuchKey", SourceChanged, r"a\.csv is gone", "put back"),
        (403, "InvalidObjectState", SourceUnreadable, "archived", "Restore"),
    ],
)
def test_a_read_that_is_refused(
    stub: Any,
    reply: Any,
    far: FakeObject,
    source: S3Source,
    status: int,
    code: str,
    kind: type[XmodeError],
    words: str,
    hint: str,
) -> None:
    with source.open(FILE) as file:
        stub.reply(reply(status, f"<Error><Code>{code}</Code></Error>".encode()))
        with pytest.raises(kind, match=words) as raised:
            file.read_at(0, 10)
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("status", "kind"), [(403, SourceUnreadable), (404, SourceChanged), (412, SourceChanged)]
)
def test_a_head_that_is_refused_without_a_body(
    stub: Any, reply: Any, source: S3Source, status: int, kind: type[XmodeError]
) -> None:
    stub.reply(reply(status))
    with pytest.raises(kind) as raised:
        source.open(FILE)
    if status == 403:
        assert "a.csv cannot be read: AWS denies us s3:GetObject on it" in raised.value.message
        assert "1. our user or role needs s3:GetObject on the objects of the bucket" in raised.value.hint
        assert "2. if the bucket belongs to another account" in raised.value.hint
        assert "3. kms:Decrypt" in raised.value.hint


def test_a_listing_never_ends_early_in_silence(stub: Any, reply: Any, source: S3Source) -> None:
    refused = reply(403, b"<Error><Code>AccessDenied</Code></Error>")
    stub.reply(reply(200, page("a", "b", token="t1")), refused)
    scan = source.scan(NONE)
    assert [next(scan).name, next(scan).name] == ["a", "b"]
    with pytest.raises(SourceUnreadable):
        next(scan)
    assert stub.asked[-1].query["continuation-token"] == ["t1"]
    stub.reply(reply(200, page("a", more=True)))
    with pytest.raises(SourceUnreadable, match="without a continuation token"):
        list(source.scan(NONE))


def test_keys_out_of_order_are_refused(stub: Any, reply: Any, source: S3Source) -> None:
    stub.reply(reply(200, page("b", "a")))
    with pytest.raises(SourceUnreadable, match="in order") as raised:
        list(source.scan(NONE))
    assert "directory bucket" in raised.value.hint.lower()


def test_a_lost_connection_is_retried_and_then_reported(stub: Any, reply: Any, source: S3Source) -> None:
    stub.reply(reply(cut=True), reply(200, page("a")))
    assert [found.name for found in source.scan(NONE)] == ["a"]
    stub.reply(reply(cut=True))
    with pytest.raises(SourceUnreadable, match="ListObjectsV2 on s3://source-bucket/in/") as raised:
        list(source.scan(NONE))
    assert "network" in raised.value.hint


# --- Our own identity ----------------------------------------------------------------------------------


def test_without_credentials_of_our_own_nothing_is_asked(
    stub: Any, source_of: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    client = own_client()
    with pytest.raises(VendorIdentityError, match="no AWS credentials"):
        list(source_of(client).scan(NONE))
    client.close()
    assert stub.asked == []


def test_our_own_keys_are_kept_out_of_the_log(
    tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id=AKIAOURS\naws_secret_access_key=kept+in/a+file\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    own_client().close()
    assert redact_text("x kept+in/a+file y") == "x *** y"


def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(VendorIdentityError, match="nobody"):
        own_client()


def test_an_endpoint_that_is_no_url(our_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(ConfigError, match="not a url") as raised:
        own_client()
    assert "AWS_ENDPOINT_URL_S3" in raised.value.hint


def test_the_standard_variables_choose_the_region(
    stub: Any, reply: Any, our_keys: None, source_of: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    stub.reply(reply(200, page("a")))
    client = own_client()
    list(source_of(client).scan(NONE))
    client.close()
    assert "/eu-central-1/s3/" in stub.asked[0].headers["authorization"]


def test_replaced_credentials_are_found_at_the_next_request(
    tmp_path: Path, stub: Any, reply: Any, clock: MemoryClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "credentials"
    written = "[default]\naws_access_key_id=AKIA{0}\naws_secret_access_key=secret-of-{0}\n"
    keys.write_text(written.format("OLD"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
    feed = Feed(name="daily", source="s3://source-bucket/in", period=PeriodKind.NONE)
    client = OwnClient()
    source = S3Source(feed, clock, client.get, client.forget)
    stub.reply(
        reply(200, page("a.csv")),
        reply(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>"),
        reply(200, page("a.csv")),
    )
    first = client.get()
    list(source.scan(Period.none()))
    with pytest.raises(VendorIdentityError):
        list(source.scan(Period.none()))
    keys.write_text(written.format("NEW"))
    list(source.scan(Period.none()))
    first.close()
    client.get().close()
    assert [re.findall("AKIA[A-Z]+", asked.headers["authorization"])[0] for asked in stub.asked] == [
        "AKIAOLD",
        "AKIAOLD",
        "AKIANEW",
    ]
