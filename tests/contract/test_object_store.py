"""The contract of ``ObjectStore`` and ``ObjectStores``: every adapter passes all of it."""

import base64
import zlib
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random

import pytest
from awscrt import checksums as crt

from xmode_transfer.aws.policy.documents import Step, corrected_permission_policy, guide_permission_policy
from xmode_transfer.aws.stores import Deletion, DeletionResult, PutRequest, difference
from xmode_transfer.model.errors import (
    AccessDenied,
    BucketMissing,
    ObjectExists,
    ObjectNotFound,
    PartsRefused,
    RoleRefused,
    SourceChanged,
    UploadNotFound,
    WrongBucketOwner,
)
from xmode_transfer.model.keys import notice_key

TOKEN = "0190c2f4-delivery"
MIB = 1024 * 1024
PART = 5 * MIB  # the smallest part that S3 takes, but for the last


where_policies_hold = pytest.mark.parametrize(
    "store_case",
    [
        "memory",
        "memory-strict-parts",
        *(pytest.param(name, marks=pytest.mark.sandbox) for name in ("portable", "fast")),
    ],
    indirect=True,
)
where_owners_hold = pytest.mark.parametrize("store_case", ["memory", "memory-strict-parts"], indirect=True)


def request(key, size, token=TOKEN):
    return PutRequest(key, token, size, "text/csv", {"note": "of ours"})


def checksum(algorithm, data):
    value = {"crc32": zlib.crc32, "crc64nvme": crt.crc64nvme}[algorithm](data)
    return base64.b64encode(value.to_bytes(4 if algorithm == "crc32" else 8, "big")).decode()


def put(store, key, opened, data=b"data", token=TOKEN):
    with opened(data) as body:
        return store.put(request(key, len(data), token), body).result(timeout=120)


def send_parts(store, key, opened, data, upload_id):
    with opened(data) as body:
        sent = [
            store.upload_part(key, upload_id, number, body, offset, min(PART, len(data) - offset))
            for number, offset in enumerate(range(0, len(data), PART), 1)
        ]
        return [future.result(timeout=120) for future in sent]


def bytes_at(store, key):
    return b"".join(store.read(key))


@cache
def pattern(size):
    """Bytes of which no two parts are alike."""
    return Random(size).randbytes(size)


# --- Put and head --------------------------------------------------------------------------------------


def test_what_is_put_is_there(store_case, opened, subtests):
    store = store_case.open()
    for size in (0, 1, 70_000, 9 * MIB + 1):
        with subtests.test(size=size):
            key, data = store_case.key(f"{size}.csv"), pattern(size)
            answer = put(store, key, opened, data)
            info = store.head(key)
            assert answer.checksum.algorithm == store.checksum_algorithm
            assert answer.checksum.value == checksum(store.checksum_algorithm, data)
            assert answer.proven is store_case.answers_checksum
            assert (info.key, info.size, info.etag, info.token) == (key, size, answer.etag, TOKEN)
            assert info.checksum == answer.checksum
            assert info.modified_at.utcoffset() == timedelta(0)
            assert bytes_at(store, key) == data


def test_put_answers_a_future_and_leaves_the_body_open(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    body = opened(b"data")
    future = store.put(request(key, 4), body)
    assert isinstance(future, Future)
    future.result(timeout=120)
    assert body.read_at(0, 4) == b"data"
    body.close()


def test_put_is_create_only(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    first = put(store, key, opened, b"first")
    with pytest.raises(ObjectExists) as caught:
        put(store, key, opened, b"second", token="another")
    assert caught.value.hint
    assert bytes_at(store, key) == b"first"
    assert store.head(key).etag == first.etag
    assert store.head(key).token == TOKEN


def test_an_object_is_replaced_only_as_it_was_put(store_case, opened):
    store, key, absent = store_case.open(), store_case.key("symlinks"), store_case.key("absent")
    first = put(store, key, opened, b"first")

    def replaced(key):
        with opened(b"new") as body:
            wanted = PutRequest(key, "another", 3, "text/csv", replaces=first.etag)
            return store.put(wanted, body).result(timeout=120)

    assert replaced(key).etag == store.head(key).etag
    with pytest.raises(ObjectExists):
        replaced(key)
    assert bytes_at(store, key) == b"new"
    assert store.head(key).token == "another"
    with pytest.raises(ObjectNotFound):
        replaced(absent)
    assert store.head(absent) is None


def test_a_range_of_an_object_is_read(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    put(store, key, opened, b"0123456789")
    assert b"".join(store.read(key, 3, 4)) == b"3456"
    assert b"".join(store.read(key, 0, 10)) == b"0123456789"


def test_what_the_customer_wrote_is_not_overwritten_and_not_ours(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    store_case.customer_puts(key, b"theirs")
    with pytest.raises(ObjectExists):
        put(store, key, opened, b"ours!!")
    assert bytes_at(store, key) == b"theirs"
    assert store.head(key).token is None


AWKWARD = [
    "a b.csv",
    "é/日本.csv",
    "a+b&c=d;e,f.csv",
    "%41.csv",
    "dt=2026-11-22/part-0.gz",
    "a//b",
    "~(a)'!*",
]


def test_keys_arrive_as_they_are(store_case, opened):
    store = store_case.open()
    for name in AWKWARD:
        key = store_case.key(name)
        put(store, key, opened)
        assert [listed.key for listed in store.list(store_case.key(""))] == [key]
        assert store.head(key).size == 4
        assert bytes_at(store, key) == b"data"
        store.delete(key)
        assert store.head(key) is None


def test_head_of_nothing_is_none(store_case):
    assert store_case.open().head(store_case.key("absent")) is None


def test_many_puts_at_once(store_case, opened):
    store = store_case.open()
    bodies = {store_case.key(f"{number:02d}"): pattern(1000 + number) for number in range(12)}
    files = {key: opened(data, name=key) for key, data in bodies.items()}
    futures = [store.put(request(key, len(bodies[key])), body) for key, body in files.items()]
    for future in futures:
        future.result(timeout=120)
    assert {key: bytes_at(store, key) for key in bodies} == bodies


def test_the_region_is_known_after_a_call(store_case):
    store = store_case.open(region=None)
    store.head(store_case.key("a"))
    assert store.region == "us-east-1"


def test_the_bucket_s_owner_alone_has_full_control_of_what_is_put(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    put(store, key, opened)
    for step in (Step.VERIFY, Step.CHECK):
        acl = store_case.open(step).acl(key)
        assert acl.owner_id
        assert acl.full_control == {acl.owner_id}
        assert difference(acl) is None
    with pytest.raises(ObjectNotFound):
        store.acl(store_case.key("absent"))


# --- A source file that changes ------------------------------------------------------------------------

CHANGES = {
    "shorter": lambda files: files.overwrite("file", b"dat"),
    "other-bytes": lambda files: files.overwrite("file", b"DATA"),
    "replaced": lambda files: files.write("file", b"data"),
    "gone": lambda files: files.remove("file"),
}


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_file_that_changes_creates_nothing(store_case, files, opened, when):
    store = store_case.open()
    for name, change in CHANGES.items():
        key, body = store_case.key(name), opened(b"data")
        if when == "before":
            change(files)
        else:

            def once(name, offset, change=change):
                files.on_read = None
                change(files)

            files.on_read = once
        with pytest.raises(SourceChanged):
            store.put(request(key, 4), body).result(timeout=120)
        assert store.head(key) is None


def test_a_file_of_another_size_than_planned_creates_nothing(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    with opened(b"data") as body, pytest.raises(SourceChanged):
        store.put(request(key, 5), body).result(timeout=120)
    assert store.head(key) is None


# --- List ----------------------------------------------------------------------------------------------

# In the order of their UTF-8 bytes; UTF-16 would put the last two the other way round.
NAMES = ["A", "Z", "a", "a-b", "a/b", "a/c/d", "ab", "é", "～", "😀"]


def test_list_is_in_key_order(store_case):
    for name in reversed(NAMES):
        store_case.customer_puts(store_case.key(name), name.encode())
    listed = list(store_case.open().list(store_case.key("")))
    assert [row.key for row in listed] == [store_case.key(name) for name in NAMES]
    assert [row.size for row in listed] == [len(name.encode()) for name in NAMES]
    assert all(row.modified_at.utcoffset() == timedelta(0) for row in listed)


def test_list_rows_agree_with_head(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    answer = put(store, key, opened)
    (row,) = store.list(store_case.key(""))
    info = store.head(key)
    assert (row.key, row.size, row.etag) == (key, 4, answer.etag)
    assert abs(row.modified_at - info.modified_at) < timedelta(seconds=1)  # HEAD has whole seconds


def test_list_keeps_to_its_prefix(store_case):
    for name in ("a", "b/1", "b/2", "b", "c"):
        store_case.customer_puts(store_case.key(name), b"x")
    store_case.customer_puts("elsewhere", b"x")
    store = store_case.open()
    found = [row.key for row in store.list(store_case.key("b/"))]
    assert found == [store_case.key("b/1"), store_case.key("b/2")]
    assert list(store.list(store_case.key("nothing/"))) == []


def test_list_starts_after_a_key(store_case):
    for name in NAMES:
        store_case.customer_puts(store_case.key(name), b"x")
    store = store_case.open()
    for start_after in ("a/b", "a/bb", "", "😀"):
        found = [row.key for row in store.list(store_case.key(""), store_case.key(start_after))]
        assert found == [store_case.key(name) for name in NAMES if name > start_after]


def test_list_goes_on_over_pages(store_case):
    names = [f"{number:05d}" for number in range(store_case.page_size + 2)]
    for name in names:
        store_case.customer_puts(store_case.key(name), b"x")
    rows = store_case.open().list(store_case.key(""))
    assert iter(rows) is rows
    assert [row.key for row in rows] == [store_case.key(name) for name in names]


# --- Read ----------------------------------------------------------------------------------------------


def test_read_comes_in_chunks(store_case, opened):
    store, key, data = store_case.open(), store_case.key("a.csv"), pattern(3 * MIB)
    put(store, key, opened, data)
    chunks = store.read(key)
    assert iter(chunks) is chunks
    assert b"".join(chunks) == data


def test_read_of_nothing(store_case):
    with pytest.raises(ObjectNotFound):
        list(store_case.open().read(store_case.key("absent")))


# --- Delete --------------------------------------------------------------------------------------------


def test_delete(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    put(store, key, opened)
    assert store.delete(key) is None
    assert store.head(key) is None
    assert store.delete(key) is None


def test_delete_what_has_the_etag(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    answer = put(store, key, opened)
    assert store.delete(key, answer.etag) is None
    assert store.head(key) is None
    assert store.delete(key, answer.etag) is None


def test_delete_leaves_what_was_changed(store_case, opened):
    store, key = store_case.open(), store_case.key("a.csv")
    answer = put(store, key, opened)
    store_case.customer_puts(key, b"theirs")
    with pytest.raises(ObjectExists):
        store.delete(key, answer.etag)
    assert bytes_at(store, key) == b"theirs"


def test_a_versioned_bucket_keeps_versions(store_case, opened):
    store_case.turn_versioning_on()
    store, key = store_case.open(), store_case.key("a.csv")
    first = put(store, key, opened, b"first")
    assert first.version_id
    assert store.head(key).version_id == first.version_id
    marker = store.delete(key, first.etag)
    assert marker
    assert marker != first.version_id
    assert store.head(key) is None
    assert list(store.list(store_case.key(""))) == []
    # a delete marker is no object: the key is free again
    second = put(store, key, opened, b"second")
    assert second.version_id not in (None, first.version_id, marker)
    assert bytes_at(store, key) == b"second"


# --- In parts ------------------------------------------------------------------------------------------


def test_parts_make_one_object(store_case, opened):
    store, key, data = store_case.open(), store_case.key("big.bin"), pattern(2 * PART + 17)
    upload_id, abort_at = store.create_upload(request(key, len(data)))
    assert abort_at is None
    parts = send_parts(store, key, opened, data, upload_id)
    assert [(part.number, part.size) for part in parts] == [(1, PART), (2, PART), (3, 17)]
    assert parts[2].checksum == checksum(store.checksum_algorithm, data[2 * PART :])
    assert store.head(key) is None
    answer = store.complete_upload(key, upload_id, parts, len(data))
    assert answer.checksum.value == checksum(store.checksum_algorithm, data)
    info = store.head(key)
    assert (info.size, info.token, info.etag) == (len(data), TOKEN, answer.etag)
    assert info.checksum in (None, answer.checksum)
    assert bytes_at(store, key) == data


def test_one_small_part_is_enough(store_case, opened):
    store, key = store_case.open(), store_case.key("small.bin")
    upload_id, _ = store.create_upload(request(key, 4))
    parts = send_parts(store, key, opened, b"data", upload_id)
    store.complete_upload(key, upload_id, parts, 4)
    assert bytes_at(store, key) == b"data"


def test_a_part_sent_again_replaces_the_first(store_case, opened):
    store, key = store_case.open(), store_case.key("a.bin")
    upload_id, _ = store.create_upload(request(key, 4))
    send_parts(store, key, opened, b"old!", upload_id)
    parts = send_parts(store, key, opened, b"new!", upload_id)
    store.complete_upload(key, upload_id, parts, 4)
    assert bytes_at(store, key) == b"new!"


def test_parts_of_another_session_complete_an_upload(store_case, opened):
    """A restart goes on where the last process stopped."""
    key, data = store_case.key("a.bin"), pattern(PART + 5)
    first, second = store_case.open(Step.DELIVER), store_case.open(Step.DELIVER)
    upload_id, _ = first.create_upload(request(key, len(data)))
    with opened(data) as body:
        one = first.upload_part(key, upload_id, 1, body, 0, PART).result(timeout=120)
        two = second.upload_part(key, upload_id, 2, body, PART, 5).result(timeout=120)
    second.complete_upload(key, upload_id, [one, two], len(data))
    assert bytes_at(second, key) == data


def test_complete_is_create_only(store_case, opened):
    store, key = store_case.open(), store_case.key("a.bin")
    upload_id, _ = store.create_upload(request(key, 4))
    parts = send_parts(store, key, opened, b"late", upload_id)
    put(store, key, opened, b"early")
    with pytest.raises(ObjectExists):
        store.complete_upload(key, upload_id, parts, 4)
    assert bytes_at(store, key) == b"early"


def test_abort_ends_an_upload(store_case, opened):
    store, key = store_case.open(), store_case.key("a.bin")
    upload_id, _ = store.create_upload(request(key, 4))
    parts = send_parts(store, key, opened, b"data", upload_id)
    store.abort_upload(key, upload_id)
    if store_case.knows_ended_uploads:
        with pytest.raises(UploadNotFound):
            send_parts(store, key, opened, b"data", upload_id)
        with pytest.raises(UploadNotFound):
            store.complete_upload(key, upload_id, parts, 4)
    assert store.head(key) is None
    store.abort_upload(key, upload_id)


def test_a_part_of_a_file_that_became_shorter_fails(store_case, files, opened):
    store, key = store_case.open(), store_case.key("a.bin")
    upload_id, _ = store.create_upload(request(key, 4))
    body = opened(b"data")
    files.overwrite("file", b"da")
    with pytest.raises(SourceChanged):
        store.upload_part(key, upload_id, 1, body, 0, 4).result(timeout=120)


LARGE = 2 * 16 * MIB + 17  # three parts of the engine's own size


def put_in_parts(store, key, opened, data, token=TOKEN):
    """The answer, the uploads that were opened, and the parts that S3 has acknowledged."""
    uploads, parts = [], []
    with opened(data) as body:
        future = store.put_in_parts(
            request(key, len(data), token),
            body,
            lambda upload_id, abort_at: uploads.append(upload_id),
            lambda upload_id, part: parts.append((upload_id, part)),
        )
        answer = future.exception(timeout=120) or future.result()
    return answer, uploads, parts


def test_an_engine_puts_an_object_in_parts(store_case, opened):
    store, key, data = store_case.open(), store_case.key("big.bin"), pattern(LARGE)
    answer, uploads, parts = put_in_parts(store, key, opened, data)
    assert answer.checksum.value == checksum(store.checksum_algorithm, data)
    (upload_id,) = uploads
    assert {named for named, _ in parts} == {upload_id}
    assert sum(part.size for _, part in parts) == len(data)
    info = store.head(key)
    assert (info.size, info.token, info.etag) == (len(data), TOKEN, answer.etag)
    assert info.checksum in (None, answer.checksum)
    assert bytes_at(store, key) == data


def test_an_object_in_parts_is_create_only(store_case, opened):
    store, key = store_case.open(), store_case.key("a.bin")
    put(store, key, opened, b"early")
    refused, uploads, _ = put_in_parts(store, key, opened, b"late!")
    assert isinstance(refused, ObjectExists)
    assert len(uploads) == 1, "the caller has to know what it is to abort"
    store.abort_upload(key, uploads[0])
    assert bytes_at(store, key) == b"early"


def test_a_file_that_changes_is_not_put_in_parts(store_case, files, opened):
    store, key = store_case.open(), store_case.key("a.bin")
    body = opened(b"data")
    files.overwrite("file", b"DATA")
    uploads = []
    future = store.put_in_parts(
        request(key, 4), body, lambda upload_id, _: uploads.append(upload_id), lambda *_: None
    )
    with pytest.raises(SourceChanged):
        future.result(timeout=120)
    assert store.head(key) is None


def test_an_object_in_parts_under_the_guides_policy(store_case, opened):
    store_case.grant(guide_permission_policy(store_case.bucket))
    store, key = store_case.open(Step.DELIVER), store_case.key("a.bin")
    answer, uploads, _ = put_in_parts(store, key, opened, b"data")
    assert len(uploads) == 1
    if store_case.parts_allowed:
        assert bytes_at(store, key) == b"data"
    else:
        assert isinstance(answer, PartsRefused)


def test_parts_under_the_guides_policy(store_case, opened):
    store_case.grant(guide_permission_policy(store_case.bucket))
    store, key = store_case.open(Step.DELIVER), store_case.key("a.bin")
    upload_id, _ = store.create_upload(request(key, 4))
    if store_case.parts_allowed:
        parts = send_parts(store, key, opened, b"data", upload_id)
        store.complete_upload(key, upload_id, parts, 4)
        assert bytes_at(store, key) == b"data"
    else:
        with pytest.raises(PartsRefused):
            send_parts(store, key, opened, b"data", upload_id)


# --- Deleting many -------------------------------------------------------------------------------------


def results(answers):
    return {answer.key: answer.result for answer in answers}


def test_many_are_deleted_each_only_as_it_was_put(store_case, opened):
    """Among them a key that the customer has overwritten, one that is gone, and one that S3 must escape."""
    store = store_case.open()
    names = ["a", "b & <c>", "é", "overwritten", "gone"]
    wanted = [Deletion(store_case.key(name), put(store, store_case.key(name), opened).etag) for name in names]
    store_case.customer_puts(store_case.key("overwritten"), b"the customer's own words")
    store_case.customer_puts(store_case.key("theirs"), b"data")
    store.delete(store_case.key("gone"))
    answers = store.delete_many(wanted)
    assert [answer.key for answer in answers] == [item.key for item in wanted]
    found = results(answers)
    assert {found.pop(store_case.key(name)) for name in names[:3]} == {DeletionResult.DELETED}
    assert found.pop(store_case.key("overwritten")) is DeletionResult.CHANGED
    assert found.popitem()[1] in (DeletionResult.GONE, DeletionResult.DELETED)
    left = {row.key for row in store.list(store_case.key(""))}
    assert left == {store_case.key("overwritten"), store_case.key("theirs")}
    assert bytes_at(store, store_case.key("overwritten")) == b"the customer's own words"


def test_an_overwritten_key_is_left_whichever_place_it_has(store_case, opened):
    """Where S3 does not compare ETags, the first request finds that out: not on the customer's object."""
    for place in range(3):
        store = store_case.open()
        keys = [store_case.key(f"{place}-{number}") for number in range(3)]
        wanted = [Deletion(key, put(store, key, opened).etag) for key in keys]
        store_case.customer_puts(keys[place], b"theirs")
        found = results(store.delete_many(wanted))
        assert found.pop(keys[place]) is DeletionResult.CHANGED
        assert set(found.values()) == {DeletionResult.DELETED}
        assert bytes_at(store, keys[place]) == b"theirs"
        assert set(results(store.delete_many(wanted)).values()) <= {
            DeletionResult.CHANGED,
            DeletionResult.GONE,
            DeletionResult.DELETED,
        }
        assert bytes_at(store, keys[place]) == b"theirs"


def test_in_a_versioned_bucket_many_are_hidden(store_case, opened):
    store_case.turn_versioning_on()
    store = store_case.open()
    keys = [store_case.key(name) for name in "abc"]
    wanted = [Deletion(key, put(store, key, opened).etag) for key in keys]
    assert set(results(store.delete_many(wanted)).values()) == {DeletionResult.HIDDEN}
    assert list(store.list(store_case.key(""))) == []


def test_a_thousand_and_no_more_in_one_request(store_case):
    store = store_case.open()
    assert list(store.delete_many([])) == []
    keys = [store_case.key(f"{number:04}") for number in range(1001)]
    with pytest.raises(ValueError, match="1001"):
        store.delete_many([Deletion(key, '"e"') for key in keys])


@where_policies_hold
def test_what_may_not_be_deleted_is_denied_key_by_key(store_case, opened):
    document = corrected_permission_policy(store_case.bucket, store_case.customer.destination.prefix)
    deny = {
        "Effect": "Deny",
        "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::{store_case.bucket}/*/kept*",
    }
    store_case.grant({**document, "Statement": [*document["Statement"], deny]})
    store = store_case.open()
    keys = [store_case.key(name) for name in ("a", "kept-1", "kept-2", "z")]
    wanted = [Deletion(key, put(store, key, opened).etag) for key in keys]
    found = store.delete_many(wanted)
    assert [answer.result for answer in found] == [
        DeletionResult.DELETED,
        DeletionResult.DENIED,
        DeletionResult.DENIED,
        DeletionResult.DELETED,
    ]
    assert isinstance(found[1].error, AccessDenied)
    assert [row.key for row in store.list(store_case.key(""))] == keys[1:3]


def test_the_guides_policy_is_enough_to_delete_many(store_case, opened):
    store_case.grant(guide_permission_policy(store_case.bucket))
    key = store_case.key("a.csv")
    answer = put(store_case.open(Step.DELIVER), key, opened)
    found = store_case.open(Step.CLEANUP).delete_many([Deletion(key, answer.etag)])
    assert [item.result for item in found] == [DeletionResult.DELETED]


# --- Rights --------------------------------------------------------------------------------------------


def test_the_guides_policy_is_enough_to_deliver_list_verify_and_delete(store_case, opened):
    """That a PUT passes shows its ACL: the policy refuses it without."""
    store_case.grant(guide_permission_policy(store_case.bucket))
    key = store_case.key("a.csv")
    answer = put(store_case.open(Step.DELIVER), key, opened)
    assert store_case.open(Step.DELIVER).head(key).etag == answer.etag
    assert store_case.open(Step.DELIVER).head(store_case.key("absent")) is None
    assert [row.key for row in store_case.open(Step.LIST).list(store_case.key(""))] == [key]
    assert bytes_at(store_case.open(Step.VERIFY), key) == b"data"
    store_case.open(Step.CLEANUP).delete(key, answer.etag)
    assert store_case.open(Step.VERIFY).head(key) is None


CALLS = {
    "put": lambda store, key, opened: put(store, key, opened),
    "create_upload": lambda store, key, opened: store.create_upload(request(key, 4)),
    "abort_upload": lambda store, key, opened: store.abort_upload(key, "upload-id"),
    "head": lambda store, key, opened: store.head(key),
    "read": lambda store, key, opened: list(store.read(key)),
    "list": lambda store, key, opened: list(store.list(key)),
    "delete": lambda store, key, opened: store.delete(key),
}
RIGHTS = {
    "put": "s3:PutObject",
    "create_upload": "s3:PutObject",
    "abort_upload": "s3:AbortMultipartUpload",
    "head": "s3:GetObject",
    "read": "s3:GetObject",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
}


@where_policies_hold
def test_a_missing_right_is_access_denied(store_case, opened, subtests):
    store_case.customer_puts(store_case.key("there"), b"data")
    for call, right in RIGHTS.items():
        document = corrected_permission_policy(store_case.bucket, store_case.customer.destination.prefix)
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                statement["Action"] = [action for action in statement["Action"] if action != right]
        document["Statement"] = [statement for statement in document["Statement"] if statement["Action"]]
        store_case.grant(document)
        key = store_case.key("there" if call in ("head", "read", "delete") else "new")
        with subtests.test(call=call):
            with pytest.raises(AccessDenied) as caught:
                CALLS[call](store_case.open(), key, opened)
            assert caught.value.hint


@where_policies_hold
def test_nothing_beside_the_prefix(store_case, opened, subtests):
    store_case.grant(corrected_permission_policy(store_case.bucket, ""))
    store_case.customer_puts("elsewhere", b"data")
    store = store_case.open()
    for call in CALLS:
        with subtests.test(call=call), pytest.raises(AccessDenied):
            CALLS[call](store, "elsewhere", opened)


@where_policies_hold
def test_a_step_has_no_other_steps_rights(store_case, opened, subtests):
    others = {
        Step.DELIVER: ["delete"],
        Step.LIST: ["put", "delete"],
        Step.VERIFY: ["create_upload", "delete"],
        Step.CLEANUP: ["put", "abort_upload"],
        Step.NOTICE: ["put", "list", "delete"],
    }
    for step, calls in others.items():
        store = store_case.open(step)
        for call in calls:
            with subtests.test(step=step, call=call), pytest.raises(AccessDenied):
                CALLS[call](store, store_case.key("a"), opened)


def test_a_notice_gets_through_under_the_guides_policy(store_case, opened):
    store_case.grant(guide_permission_policy(store_case.bucket))
    prefix = store_case.customer.destination.prefix
    key = notice_key(prefix, datetime(2026, 11, 25, tzinfo=UTC), "us-daily", "2026-11-24", "late")
    store = store_case.open(Step.NOTICE)
    put(store, key, opened)
    with pytest.raises(ObjectExists):
        put(store, key, opened)
    assert store.head(key).token == TOKEN


@where_policies_hold
def test_a_refused_put_creates_nothing(store_case, opened):
    with pytest.raises(AccessDenied):
        put(store_case.open(Step.LIST), store_case.key("a"), opened)
    assert store_case.open().head(store_case.key("a")) is None


@where_owners_hold
def test_a_bucket_of_another_owner(store_case, opened, subtests):
    store = store_case.open(bucket_owner="999988887777")
    for call in CALLS:
        with subtests.test(call=call), pytest.raises(WrongBucketOwner):
            CALLS[call](store, store_case.key("a"), opened)


# S3's answer to a HEAD has no body: there, a bucket that is gone looks like a key that is not there.
def test_a_bucket_that_is_gone(store_case, opened, subtests):
    store_case.delete_bucket()
    store = store_case.open()
    for call in [call for call in CALLS if call != "head"]:
        with subtests.test(call=call), pytest.raises(BucketMissing):
            CALLS[call](store, store_case.key("a"), opened)


# --- Opening and closing -------------------------------------------------------------------------------


def test_opening_makes_no_call(store_case):
    store = store_case.open(external_id="SomebodyElse")
    with pytest.raises(RoleRefused):
        store.head(store_case.key("a"))


def test_close_waits_for_what_is_in_flight(store_case, opened):
    store = store_case.open()
    body = opened(pattern(MIB))
    future = store.put(request(store_case.key("a"), MIB), body)
    store.close()
    assert future.done()
    store.close()
    body.close()


def test_an_engine_says_what_it_is(store_case):
    assert store_case.stores.info.name
    assert store_case.stores.info.reason
    store_case.stores.close()
    store_case.stores.close()
