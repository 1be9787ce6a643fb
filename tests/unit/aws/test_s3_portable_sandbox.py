"""The portable engine and real role sessions, against the local AWS with authorisation."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests import bucket
from xmode_transfer.aws.policy import Step
from xmode_transfer.aws.s3_portable import PortableStore, PortableStores
from xmode_transfer.aws.sessions import Credentials, CredentialsProvider
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Customer, Limits, Vendor
from xmode_transfer.model.errors import AccessDenied, BucketMissing, PartsRefused, RoleRefused
from xmode_transfer.sandbox.model import CustomerSetup, Variant
from xmode_transfer.telemetry import SystemClock

pytestmark = pytest.mark.sandbox

MIB = 1024 * 1024


@pytest.fixture
def sessions(as_vendor: dict[str, str]) -> RoleSessions:
    return RoleSessions(Vendor(), SystemClock())


@pytest.fixture
def configured(customer_of: Callable[..., Customer]) -> Callable[..., Customer]:
    """A customer of the sandbox as the configuration has it."""

    def make(setup: CustomerSetup, **destination: Any) -> Customer:
        there = {"bucket": setup.bucket, "prefix": setup.prefix, "region": setup.region, **destination}
        return customer_of(
            name=setup.name, external_id=setup.external_id, role_arn=setup.role_arn, destination=there
        )

    return make


@pytest.fixture
def open_store(
    sessions: RoleSessions, configured: Callable[..., Customer]
) -> Iterator[Callable[..., PortableStore]]:
    stores = PortableStores(Limits(), SystemClock())

    def make(
        setup: CustomerSetup,
        step: Step = Step.DELIVER,
        provider: CredentialsProvider | None = None,
        **destination: Any,
    ) -> PortableStore:
        customer = configured(setup, **destination)
        return stores.open(customer, provider or sessions.open(customer, step), None)

    yield make
    stores.close()


def test_a_file_arrives_whole_with_the_acl_and_the_token(
    acme: CustomerSetup, open_store: Callable[..., PortableStore], file_of: Any
) -> None:
    store = open_store(acme)
    key = f"{acme.prefix}a b+c/é.txt"
    store.put(PutRequest(key, "token-1", 5, "text/plain", {"xmode-feed": "f"}), file_of(b"hello")).result(120)
    assert bucket.read_object(acme, key) == b"hello"
    info = store.head(key)
    assert info is not None
    assert info.token == "token-1"
    assert info.checksum is not None
    assert info.checksum.value == "NhCmhg=="
    assert [row.key for row in store.list(acme.prefix)] == [key]
    assert b"".join(store.read(key)) == b"hello"


def test_under_the_guide_parts_are_refused_and_so_is_the_abort(
    acme: CustomerSetup, open_store: Callable[..., PortableStore], file_of: Any
) -> None:
    store = open_store(acme)
    upload_id, _ = store.create_upload(PutRequest(acme.prefix + "big", "t", 6 * MIB, "x/y"))
    with pytest.raises(PartsRefused):
        store.upload_part(acme.prefix + "big", upload_id, 1, file_of(bytes(6 * MIB)), 0, 5 * MIB).result(120)
    with pytest.raises(AccessDenied):
        store.abort_upload(acme.prefix + "big", upload_id)


def test_where_parts_are_allowed_a_large_file_is_put_together(
    customer_factory: Callable[..., CustomerSetup], open_store: Callable[..., PortableStore], file_of: Any
) -> None:
    setup = customer_factory("acme", Variant.ABORT_GRANTED)
    store = open_store(setup)
    content = os.urandom(14 * MIB)
    key = setup.prefix + "big"
    upload_id, _ = store.create_upload(PutRequest(key, "token-1", len(content), "x/y"))
    file = file_of(content)
    parts = [
        store.upload_part(key, upload_id, 2, file, 9 * MIB, 5 * MIB).result(120),
        store.upload_part(key, upload_id, 1, file, 0, 9 * MIB).result(120),
    ]
    store.complete_upload(key, upload_id, parts, len(content))
    assert bucket.read_object(setup, key) == content
    info = store.head(key)
    assert info is not None
    assert info.token == "token-1"
    other, _ = store.create_upload(PutRequest(key + "2", "token-1", len(content), "x/y"))
    store.abort_upload(key + "2", other)
    store.abort_upload(key + "2", other)
    assert bucket.list_uploads(setup) == []


def test_a_session_keeps_to_its_step_and_its_prefix(
    acme: CustomerSetup, open_store: Callable[..., PortableStore], file_of: Any
) -> None:
    key = acme.prefix + "a"
    store = open_store(acme)
    store.put(PutRequest(key, "t", 5, "text/plain"), file_of(b"hello")).result(120)
    with pytest.raises(AccessDenied):
        store.delete(key)
    if acme.prefix:
        with pytest.raises(AccessDenied):
            store.put(PutRequest("elsewhere", "t", 5, "text/plain"), file_of(b"hello")).result(120)
    with pytest.raises(AccessDenied):
        open_store(acme, Step.LIST).put(PutRequest(key + "2", "t", 5, "x/y"), file_of(b"hello")).result(120)
    open_store(acme, Step.CLEANUP).delete(key)
    assert bucket.list_keys(acme) == []


def test_one_customers_session_opens_no_other_customers_bucket(
    acme: CustomerSetup,
    globex: CustomerSetup,
    sessions: RoleSessions,
    configured: Callable[..., Customer],
    open_store: Callable[..., PortableStore],
    file_of: Any,
) -> None:
    store = open_store(globex, provider=sessions.open(configured(acme), Step.DELIVER))
    with pytest.raises(AccessDenied):
        store.put(PutRequest(globex.prefix + "a", "t", 5, "x/y"), file_of(b"hello")).result(120)


def test_a_bucket_that_is_gone_is_said(
    acme: CustomerSetup, open_store: Callable[..., PortableStore], file_of: Any
) -> None:
    store = open_store(acme, bucket="absent-" + acme.bucket)
    with pytest.raises((BucketMissing, AccessDenied)):
        store.put(PutRequest(acme.prefix + "a", "t", 5, "x/y"), file_of(b"hello")).result(120)


def test_an_unknown_region_is_settled_before_the_first_put(
    acme: CustomerSetup, open_store: Callable[..., PortableStore], file_of: Any
) -> None:
    store = open_store(acme, region=None)
    store.put(PutRequest(acme.prefix + "a", "t", 5, "x/y"), file_of(b"hello")).result(120)
    assert store.region == acme.region


@pytest.mark.parametrize("variant", [Variant.NO_ROLE, Variant.WRONG_EXTERNAL_ID])
def test_a_customer_whose_role_does_not_let_us_in_is_blocked(
    customer_factory: Callable[..., CustomerSetup],
    open_store: Callable[..., PortableStore],
    file_of: Any,
    variant: Variant,
) -> None:
    setup = customer_factory("acme", variant)
    with pytest.raises(RoleRefused):
        open_store(setup).put(PutRequest(setup.prefix + "a", "t", 5, "x/y"), file_of(b"hello")).result(120)


class FirstShort:
    """Sessions of which the first lives for seconds."""

    def __init__(self, customer: Customer, later: CredentialsProvider) -> None:
        sts = boto3.client("sts", config=Config(parameter_validation=False))
        answer = sts.assume_role(
            RoleArn=customer.role_arn,
            RoleSessionName="short",
            ExternalId=customer.external_id,
            DurationSeconds=1,
        )["Credentials"]
        self.first: Credentials | None = Credentials(
            answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"], answer["Expiration"]
        )
        self.later = later

    def get(self) -> Credentials:
        return self.first or self.later.get()

    def invalidate(self, credentials: Credentials) -> None:
        assert credentials == self.first
        self.first = None


@pytest.mark.parametrize("first_call", ["put", "head"])
def test_a_session_that_has_died_is_replaced_without_a_word(
    acme: CustomerSetup,
    sessions: RoleSessions,
    configured: Callable[..., Customer],
    open_store: Callable[..., PortableStore],
    file_of: Any,
    first_call: str,
) -> None:
    customer = configured(acme)
    provider = FirstShort(customer, sessions.open(customer, Step.DELIVER))
    store = open_store(acme, provider=provider)
    time.sleep(1.5)
    if first_call == "put":
        store.put(PutRequest(acme.prefix + "a", "t", 5, "x/y"), file_of(b"hello")).result(120)
    else:
        assert store.head(acme.prefix + "a") is None
    assert provider.first is None
