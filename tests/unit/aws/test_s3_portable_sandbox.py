"""The portable engine and real role sessions, against the local AWS with authorisation."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.s3_portable import PortableStore, PortableStores
from xmode_transfer.aws.sessions import Credentials, CredentialsProvider
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Customer, Limits, Vendor
from xmode_transfer.model.errors import AccessDenied, RoleRefused
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
