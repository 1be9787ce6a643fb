"""What the memory adapter can do beyond the port's contract: faults, KMS, lifecycle rules, S3's refusals."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes import (
    Fault,
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
)
from xmode_transfer.aws.policy.documents import (
    Step,
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.config import Customer, Destination
from xmode_transfer.model.errors import (
    AccessDenied,
    KmsDenied,
    ObjectExists,
    RequestRefused,
    SessionExpired,
    Throttled,
    Unavailable,
    UploadNotFound,
)
from xmode_transfer.model.periods import Period

KEY_ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class World:
    """A customer with a bucket and a role, and the adapters in front of them."""

    def __init__(self, *, bucket=None, policy=None, destination=None, buckets=None, **stores):
        self.customer = Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn="arn:aws:iam::111122223333:role/XMode",
            destination=Destination(bucket="acme-data", prefix="x/", **(destination or {})),
            feeds=("us-daily",),
        )
        self.clock = MemoryClock()
        self.buckets = MemoryBuckets(self.clock, **(buckets or {}))
        self.bucket = self.buckets.create("acme-data", "111122223333", **(bucket or {}))
        self.roles = MemoryRoles(self.clock)
        self.roles.put(
            self.customer.role_arn,
            trust_policy=guide_trust_policy("AcmeCorp"),
            permission_policies=[policy or corrected_permission_policy("acme-data", "x/")],
        )
        self.sessions = MemoryRoleSessions(self.roles)
        self.stores = MemoryObjectStores(self.buckets, self.roles, **stores)
        self.files = MemorySource()

    def open(self, step=Step.CHECK):
        return self.stores.open(self.customer, self.sessions.open(self.customer, step), None)

    def body(self, data):
        self.files.write("file", data)
        return self.files.open(next(iter(self.files.scan(Period.none()))))

    def put(self, store, key="x/a", data=b"data"):
        return store.put(PutRequest(key, "token", len(data), "text/csv"), self.body(data)).result()

    def parts(self, store, key, *bodies):
        size = sum(map(len, bodies))
        upload_id, _ = store.create_upload(PutRequest(key, "token", size, "text/csv"))
        return upload_id, [
            store.upload_part(key, upload_id, number, self.body(data), 0, len(data)).result()
            for number, data in enumerate(bodies, 1)
        ]


# --- Faults --------------------------------------------------------------------------------------------


def test_a_hook_sees_every_request_and_its_attempt():
    seen = []
    world = World(faults=lambda *request: seen.append(request), page_size=1)
    store = world.open()
    world.put(store)
    world.put(store, "x/b")
    with pytest.raises(ObjectExists):
        world.put(store)
    list(store.list("x/"))
    upload_id, parts = world.parts(store, "x/c", b"data")
    store.complete_upload("x/c", upload_id, parts, 4)
    assert seen == [
        ("put", "x/a", 1),
        ("put", "x/b", 1),
        ("put", "x/a", 2),
        ("list", "x/", 1),
        ("list", "x/", 2),
        ("create_upload", "x/c", 1),
        ("upload_part", "x/c#1", 1),
        ("complete_upload", "x/c", 1),
    ]
    assert world.stores.requests.count("put") == 3
    assert world.stores.requests.count("put", "x/a") == 2


def test_a_request_that_fails_has_no_effect():
    def hook(operation, key, attempt):
        if attempt == 1:
            raise Throttled("slow down")

    world = World(faults=hook)
    store = world.open()
    with pytest.raises(Throttled):
        world.put(store)
    assert world.bucket.contents() == {}
    world.put(store)
    assert world.bucket.contents() == {"x/a": b"data"}


@pytest.mark.parametrize("operation", ["put", "complete_upload", "delete", "abort_upload", "create_upload"])
def test_a_lost_answer_leaves_the_work_done(operation):
    def hook(name, key, attempt):
        return Fault.LOSE_ANSWER if name == operation and attempt == 1 else None

    world = World()
    store = world.open()
    world.put(store, "x/there")
    upload_id, parts = world.parts(store, "x/big", b"data")
    work = {
        "put": lambda: world.put(store),
        "complete_upload": lambda: store.complete_upload("x/big", upload_id, parts, 4),
        "delete": lambda: store.delete("x/there"),
        "abort_upload": lambda: store.abort_upload("x/big", upload_id),
        "create_upload": lambda: store.create_upload(PutRequest("x/c", "token", 4, "text/csv")),
    }[operation]
    world.stores.requests.faults = hook
    with pytest.raises(Unavailable):
        work()
    keys = set(world.bucket.contents())
    assert keys == {
        "put": {"x/there", "x/a"},
        "complete_upload": {"x/there", "x/big"},
        "delete": set(),
    }.get(operation, {"x/there"})
    assert len(world.bucket.uploads) == {"complete_upload": 0, "abort_upload": 0, "create_upload": 2}.get(
        operation, 1
    )


def test_a_page_that_fails_raises_and_does_not_end_the_listing():
    def hook(operation, key, attempt):
        if operation == "list" and attempt == 2:
            raise Unavailable("the connection broke")

    world = World(page_size=2, faults=hook)
    store = world.open()
    for name in "abc":
        world.put(store, f"x/{name}")
    rows = store.list("x/")
    assert [next(rows).key, next(rows).key] == ["x/a", "x/b"]
    with pytest.raises(Unavailable):
        next(rows)


def test_a_hook_can_kill_the_process_in_the_middle():
    """What is no Exception goes through everything, as the end of a process would."""

    class Killed(BaseException):
        pass

    def hook(operation, key, attempt):
        if key == "x/b":
            raise Killed

    world = World(faults=hook)
    store = world.open()
    world.put(store)
    with pytest.raises(Killed):
        world.put(store, "x/b")
    assert set(world.bucket.contents()) == {"x/a"}


def test_with_threads_put_returns_at_once_and_close_waits():
    go_on = threading.Event()
    world = World(threads=2, faults=lambda *request: go_on.wait(120) and None)
    store = world.open()
    future = store.put(PutRequest("x/a", "token", 4, "text/csv"), world.body(b"data"))
    assert not future.done()
    closing = threading.Thread(target=store.close)
    closing.start()
    assert closing.is_alive()
    go_on.set()
    closing.join(120)
    assert future.done()
    assert not closing.is_alive()
    world.stores.close()


# --- Sessions ------------------------------------------------------------------------------------------


def test_an_ended_session_is_renewed_once():
    world = World()
    provider = world.sessions.open(world.customer, Step.CHECK)
    store = world.stores.open(world.customer, provider, None)
    world.put(store)
    world.roles.revoke(provider.get())
    assert store.head("x/a").size == 4
    assert world.sessions.requests.count("assume_role") == 2


def test_a_renewed_session_that_is_refused_too_surfaces():
    class Stale:
        """Goes on giving credentials that have ended."""

        def __init__(self, credentials):
            self.credentials, self.invalidated = credentials, 0

        def get(self):
            return self.credentials

        def invalidate(self, credentials):
            self.invalidated += 1

    world = World()
    provider = Stale(world.sessions.open(world.customer, Step.CHECK).get())
    store = world.stores.open(world.customer, provider, None)
    assert store.head("x/a") is None
    world.clock.advance(3600)
    with pytest.raises(SessionExpired):
        store.head("x/a")
    assert provider.invalidated == 2


def test_a_long_transfer_outlives_its_first_session():
    world = World()
    store = world.open()
    for hour in range(5):
        world.put(store, f"x/{hour}")
        world.clock.advance(3000)
    assert len(world.bucket.contents()) == 5


# --- KMS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "configured", "allowed"),
    [
        (guide_permission_policy("acme-data"), True, False),
        (guide_permission_policy("acme-data"), False, False),
        (corrected_permission_policy("acme-data", "x/"), True, False),
        (corrected_permission_policy("acme-data", "x/", KEY_ARN, "us-east-1"), True, True),
        (corrected_permission_policy("acme-data", "x/", KEY_ARN, "us-east-1"), False, True),
        (corrected_permission_policy("acme-data", "x/", KEY_ARN, "eu-west-1"), True, False),
    ],
)
def test_a_bucket_with_a_key_of_the_customers(policy, configured, allowed):
    destination = {"kms_key_arn": KEY_ARN} if configured else {}
    world = World(bucket={"kms_key_arn": KEY_ARN}, policy=policy, destination=destination)
    store = world.open(Step.DELIVER)
    if allowed:
        assert world.put(store).encryption == "aws:kms"
        assert store.head("x/a").encryption == "aws:kms"
        upload_id, parts = world.parts(store, "x/big", b"data")
        store.complete_upload("x/big", upload_id, parts, 4)
    else:
        with pytest.raises(KmsDenied, match="kms:GenerateDataKey"):
            world.put(store)
        assert world.bucket.contents() == {}


# --- What S3 refuses -----------------------------------------------------------------------------------


def test_a_missing_key_is_denied_to_who_may_not_list():
    policy = corrected_permission_policy("acme-data", "x/")
    policy["Statement"][0]["Action"] = ["s3:ListBucketMultipartUploads"]
    world = World(policy=policy)
    store = world.open()
    world.put(store)
    assert store.head("x/a").size == 4
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        store.head("x/absent")
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        list(store.read("x/absent"))


def test_the_acl_and_the_metadata_are_kept():
    world = World()
    store = world.open()
    body = world.body(b"data")
    store.put(PutRequest("x/a", "token", 4, "text/csv", {"rows": "7"}), body).result()
    version = world.bucket.current("x/a")
    assert version.acl == "bucket-owner-full-control"
    assert (version.request.content_type, version.request.metadata) == ("text/csv", {"rows": "7"})


def test_a_store_that_answers_no_checksum():
    world = World(answers_checksum=False)
    store = world.open()
    answer = world.put(store)
    assert not answer.proven
    assert store.head("x/a").checksum == answer.checksum


@pytest.mark.parametrize(
    ("mistake", "code"),
    [
        (lambda parts: [], "MalformedXML"),
        (lambda parts: parts[::-1], "InvalidPartOrder"),
        (lambda parts: [parts[0], parts[0]], "InvalidPartOrder"),
        (lambda parts: [parts[0], replace(parts[1], etag='"other"')], "InvalidPart"),
        (lambda parts: [parts[0], replace(parts[1], checksum="AAAAAA==")], "InvalidPart"),
        (lambda parts: [replace(parts[0], number=7)], "InvalidPart"),
        (lambda parts: parts[:1], "InvalidRequest"),
        (lambda parts: parts, "EntityTooSmall"),
    ],
    ids=["none", "order", "twice", "etag", "checksum", "number", "size", "small"],
)
def test_an_upload_that_does_not_fit_together(mistake, code):
    small = code != "EntityTooSmall"
    world = World(buckets={"min_part_bytes": 1 if small else 5})
    store = world.open()
    upload_id, parts = world.parts(store, "x/a", b"part", b"rest")
    with pytest.raises(RequestRefused) as caught:
        store.complete_upload("x/a", upload_id, mistake(parts), 8)
    assert caught.value.aws_code == code
    assert world.bucket.contents() == {}
    assert upload_id in world.bucket.uploads


@pytest.mark.parametrize("number", [0, 10_001])
def test_part_numbers_have_their_bounds(number):
    world = World()
    store = world.open()
    upload_id, _ = store.create_upload(PutRequest("x/a", "token", 4, "text/csv"))
    with pytest.raises(RequestRefused):
        store.upload_part("x/a", upload_id, number, world.body(b"data"), 0, 4).result()


def test_an_upload_belongs_to_its_key():
    world = World()
    store = world.open()
    upload_id, parts = world.parts(store, "x/a", b"data")
    with pytest.raises(UploadNotFound):
        store.complete_upload("x/b", upload_id, parts, 4)
    store.abort_upload("x/b", upload_id)
    assert upload_id in world.bucket.uploads


def test_a_lifecycle_rule_ends_an_upload():
    world = World(bucket={"abort_after_days": 7})
    store = world.open()
    upload_id, abort_at = store.create_upload(PutRequest("x/a", "token", 4, "text/csv"))
    assert abort_at == world.clock.now() + timedelta(days=7)
    world.clock.set(abort_at - timedelta(seconds=1))
    part = store.upload_part("x/a", upload_id, 1, world.body(b"data"), 0, 4).result()
    world.clock.set(abort_at)
    with pytest.raises(UploadNotFound):
        store.complete_upload("x/a", upload_id, [part], 4)


def test_a_completed_upload_is_gone():
    world = World()
    store = world.open()
    upload_id, parts = world.parts(store, "x/a", b"data")
    store.complete_upload("x/a", upload_id, parts, 4)
    with pytest.raises(UploadNotFound):
        store.complete_upload("x/a", upload_id, parts, 4)


def test_versions_stay_below_their_marker():
    world = World(bucket={"versioned": True})
    store = world.open()
    first = world.put(store)
    marker = store.delete("x/a")
    second = world.put(store)
    assert [version.version_id for version in world.bucket.versions("x/a")] == [
        first.version_id,
        marker,
        second.version_id,
    ]
    assert [version.delete_marker for version in world.bucket.versions("x/a")] == [False, True, False]


def test_bucket_names_are_global():
    world = World()
    with pytest.raises(ValueError, match="exists already"):
        world.buckets.create("acme-data", "999988887777")
