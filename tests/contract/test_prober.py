"""The contract of the port ``Prober``, run against AWS's stand-in and against memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.bucket import set_permission_policy
from tests.fakes import (
    MemoryBuckets,
    MemoryClock,
    MemoryProber,
    MemoryRoles,
    MemoryRoleSessions,
)
from xmode_transfer.aws.policy.documents import (
    VENDOR_PRINCIPAL,
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.aws.probing import Prober, ReservedPrefix
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Customer, Destination, Vendor
from xmode_transfer.model.errors import (
    AccessDenied,
    BucketMissing,
    ObjectExists,
    PartsRefused,
    RoleRefused,
    UploadNotFound,
    VendorIdentityError,
)
from xmode_transfer.sandbox.model import Variant
from xmode_transfer.telemetry import SystemClock

Document = dict[str, Any]
BODY = b"a canary\n"
FIRST = b"1" * (5 * 1024 * 1024)


@dataclass
class ProberCase:
    """One adapter in front of a customer whose role has the corrected policy. ``grant`` replaces it;
    ``nobody`` makes our own credentials somebody's whom AWS does not know."""

    customer: Customer
    prober: Prober
    grant: Callable[[Document], None]
    nobody: Callable[[], None]


def in_memory() -> ProberCase:
    customer = Customer(
        name="acme",
        company="Acme Corp",
        external_id="AcmeCorp",
        role_arn="arn:aws:iam::111122223333:role/XMode",
        destination=Destination(bucket="acme-data", prefix="xmode/"),
        feeds=("us-daily",),
    )
    clock = MemoryClock()
    buckets, roles = MemoryBuckets(clock, parts_inherit_acl=False), MemoryRoles(clock)
    buckets.create("acme-data", customer.account_id)
    sessions = MemoryRoleSessions(roles)

    def grant(document: Document) -> None:
        roles.put(
            customer.role_arn, trust_policy=guide_trust_policy("AcmeCorp"), permission_policies=[document]
        )

    grant(corrected_permission_policy("acme-data", "xmode/"))
    return ProberCase(
        customer, MemoryProber(sessions, buckets), grant, lambda: setattr(sessions, "identity", None)
    )


def in_the_sandbox(request: pytest.FixtureRequest) -> ProberCase:
    setup = request.getfixturevalue("customer_factory")("acme", Variant.ABORT_GRANTED)
    request.getfixturevalue("as_vendor")
    customer = Customer(
        name=setup.name,
        company=setup.company,
        external_id=setup.external_id,
        role_arn=setup.role_arn,
        destination=Destination(bucket=setup.bucket, prefix=setup.prefix),
        feeds=("us-daily",),
    )
    clock = SystemClock()
    patch = request.getfixturevalue("monkeypatch")
    return ProberCase(
        customer,
        Prober(RoleSessions(Vendor(), clock), clock),
        lambda document: set_permission_policy(setup, document),
        lambda: patch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    )


@pytest.fixture(params=["memory", pytest.param("sandbox", marks=pytest.mark.sandbox)])
def case(request: pytest.FixtureRequest) -> ProberCase:
    return in_memory() if request.param == "memory" else in_the_sandbox(request)


@pytest.fixture
def place(case: ProberCase) -> Iterator[ReservedPrefix]:
    place = case.prober.reserve(case.customer, None)
    yield place
    place.close()


def guide(case: ProberCase) -> None:
    case.grant(guide_permission_policy(case.customer.destination.bucket))


def test_our_own_identity(case: ProberCase) -> None:
    assert case.prober.verify_identity() == VENDOR_PRINCIPAL
    case.nobody()
    fresh = (
        case.prober
        if isinstance(case.prober, MemoryProber)
        else Prober(RoleSessions(Vendor(), SystemClock()), SystemClock())
    )
    with pytest.raises(VendorIdentityError):
        fresh.verify_identity()


def test_exactly_that_external_id_is_sent_or_none(case: ProberCase) -> None:
    case.prober.assume(case.customer, case.customer.external_id)
    for wrong in ("xm-0123456789abcdef", case.customer.external_id.swapcase(), None):
        with pytest.raises(RoleRefused) as refused:
            case.prober.assume(case.customer, wrong)
        assert refused.value.aws_code == "AccessDenied"


def test_an_object_is_put_seen_and_deleted(case: ProberCase, place: ReservedPrefix) -> None:
    key = f"{place.prefix}a/canary"
    assert place.prefix == "xmode/_xmode-check/"
    assert place.head(key) is None
    made = place.put(key, BODY)
    seen = place.head(key)
    assert seen is not None
    assert (made.size, made.version_id, seen.size, seen.locked) == (len(BODY), None, len(BODY), None)
    assert seen.checksum is not None
    assert place.read(key) == BODY
    acl = place.acl(key)
    assert acl.owner_id in acl.full_control
    assert [(item.key, item.size) for item in place.list()] == [(key, len(BODY))]
    assert place.delete(key) is None
    assert place.delete(key) is None
    assert list(place.list()) == []


def test_what_was_there_is_replaced(place: ReservedPrefix) -> None:
    key = f"{place.prefix}kept/canary"
    place.put(key, b"one")
    place.put(key, b"two")
    assert place.read(key) == b"two"


def test_what_has_to_be_new_replaces_nothing(place: ReservedPrefix) -> None:
    key = f"{place.prefix}ownership/token"
    place.put(key, b"one", new=True)
    with pytest.raises(ObjectExists):
        place.put(key, b"two", new=True)
    assert place.read(key) == b"one"


def test_the_session_ends_at_the_reserved_place(case: ProberCase, place: ReservedPrefix) -> None:
    """Whatever the role may do."""
    case.grant({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    for outside in ("xmode/us-daily/a.csv", "other", "xmode/_xmode-checks/x"):
        with pytest.raises(AccessDenied):
            place.put(outside, BODY)
        with pytest.raises(AccessDenied):
            place.delete(outside)
        with pytest.raises(AccessDenied):
            place.create_upload(outside)


def test_without_the_acl_only_where_the_policy_lets_it(case: ProberCase, place: ReservedPrefix) -> None:
    key = f"{place.prefix}bare"
    place.put(key, BODY, acl=False)
    guide(case)
    with pytest.raises(AccessDenied):
        place.put(key, BODY, acl=False)


def test_an_upload_in_parts(place: ReservedPrefix) -> None:
    key = f"{place.prefix}parts"
    upload_id = place.create_upload(key)
    parts = [place.upload_part(key, upload_id, number, body) for number, body in ((2, b"2"), (1, FIRST))]
    assert list(place.list_parts(key, upload_id)) == [1, 2]
    made = place.complete_upload(key, upload_id, parts[::-1])
    assert made.size == len(FIRST) + 1
    assert place.read(key) == FIRST + b"2"
    with pytest.raises(UploadNotFound):
        place.upload_part(key, upload_id, 3, b"3")


def test_an_upload_is_aborted(place: ReservedPrefix) -> None:
    key = f"{place.prefix}aborted"
    upload_id = place.create_upload(key)
    place.upload_part(key, upload_id, 1, b"1")
    place.abort_upload(key, upload_id)
    place.abort_upload(key, upload_id)
    with pytest.raises(UploadNotFound):
        place.list_parts(key, upload_id)


def test_the_guide_lets_no_parts_in(case: ProberCase, place: ReservedPrefix) -> None:
    guide(case)
    key = f"{place.prefix}refused"
    upload_id = place.create_upload(key)
    with pytest.raises(PartsRefused):
        place.upload_part(key, upload_id, 1, b"1")
    with pytest.raises(AccessDenied):
        place.list_parts(key, upload_id)
    with pytest.raises(AccessDenied):
        place.abort_upload(key, upload_id)


def test_the_bucket_is_found_though_the_session_may_not_look_at_it(
    case: ProberCase, place: ReservedPrefix
) -> None:
    assert place.region is None
    place.locate()
    assert place.region == "us-east-1"
    destination = case.customer.destination.model_copy(update={"bucket": "there-is-none-of-this-name"})
    missing = case.prober.reserve(case.customer.model_copy(update={"destination": destination}), None)
    with pytest.raises(BucketMissing):
        missing.locate()
    missing.close()


@pytest.mark.parametrize("deep", [False, True])
def test_rights_too_many_are_found_by_reading(case: ProberCase, deep: bool) -> None:
    assert list(case.prober.excess(case.customer, deep=deep)) == []
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    case.grant({"Version": "2012-10-17", "Statement": [everything]})
    found = list(case.prober.excess(case.customer, deep=deep))
    assert found[:4] == [
        "s3:ListAllMyBuckets",
        "s3:GetBucketPolicy",
        "iam:GetAccountSummary",
        "iam:ListUsers",
    ]
    assert set(found) <= set(case.prober.reads(deep=deep))
    assert ("kms:ListKeys" in found) is deep
