"""The check of access against roles and buckets in memory: what the sandbox does not enforce, and what goes
wrong on the way."""

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes import (
    Fault,
    MemoryBucket,
    MemoryBuckets,
    MemoryClock,
    MemoryProber,
    MemoryRoles,
    MemoryRoleSessions,
    StoredVersion,
)
from xmode_transfer.access.catalogue import Cause
from xmode_transfer.access.check_access import check_access, check_customers
from xmode_transfer.aws.policy.documents import (
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.config import Customer, Destination, Vendor
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import Responsible, RoleRefused, Throttled, Unavailable, VendorIdentityError
from xmode_transfer.model.findings import AccessReport, LeftoverKind, Result

Document = dict[str, Any]
KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@dataclass
class World:
    """A customer by the guide, in memory, and the check of it."""

    ledger: Ledger
    clock: MemoryClock = field(default_factory=MemoryClock)
    stop: threading.Event = field(default_factory=threading.Event)
    parts_inherit_acl: bool = True

    def __post_init__(self) -> None:
        self.buckets = MemoryBuckets(self.clock, parts_inherit_acl=self.parts_inherit_acl)
        self.roles = MemoryRoles(self.clock)
        self.sessions = MemoryRoleSessions(self.roles)
        self.prober = MemoryProber(self.sessions, self.buckets)
        self.customer = Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn="arn:aws:iam::111122223333:role/XMode",
            destination=Destination(bucket="acme-data", prefix="xmode/", region="us-east-1"),
            feeds=("us-daily",),
        )
        self.trust: Document = guide_trust_policy("AcmeCorp")
        self.permissions: Document = guide_permission_policy("acme-data")

    def bucket(self, **how: Any) -> MemoryBucket:
        return self.buckets.create("acme-data", how.pop("owner", "111122223333"), **how)

    @property
    def context(self) -> Any:
        return SimpleNamespace(vendor=Vendor(), ledger=self.ledger, clock=self.clock, stop=self.stop)

    def check(self, *, deep: bool = False) -> AccessReport:
        self.roles.put(
            self.customer.role_arn, trust_policy=self.trust, permission_policies=[self.permissions]
        )
        return check_access(self.context, self.prober, self.customer, deep=deep)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = MemoryClock()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    yield World(ledger, clock)
    ledger.close()


def causes(report: AccessReport) -> set[str]:
    return {str(cause) for cause in report.causes}


NOT_GRANTED = {"abort_denied", "list_parts_denied"}


def test_a_role_by_the_guide_passes(world: World) -> None:
    bucket = world.bucket()
    report = world.check(deep=True)
    assert causes(report) == NOT_GRANTED  # in memory parts are let in, as users report of AWS
    assert (report.exit_code, report.left) == (0, ())
    told = {item.probe: item.result for item in report.findings}
    unlike = {probe for probe, result in told.items() if result is not Result.OK}
    assert unlike == {"abort", "list_parts", "excess"}
    assert len(told) == len(report.findings) == 23
    assert bucket.contents() == {}
    assert bucket.uploads == {}


def test_the_corrected_policy_passes(world: World) -> None:
    world.bucket()
    world.permissions = corrected_permission_policy("acme-data", "xmode/")
    assert causes(world.check()) == {"put_without_acl_allowed"}


def test_an_identity_that_is_not_verified_is_a_warning(world: World, monkeypatch: Any) -> None:
    world.bucket()
    monkeypatch.setattr(world.prober, "verify_identity", lambda: None)
    monkeypatch.setattr(world.prober, "session", lambda _, given, __: assumed(world, given))
    report = world.check()
    (identity,) = [item for item in report.findings if item.probe == "identity"]
    assert (identity.result, str(identity.severity)) == (Result.UNKNOWN, "warning")
    assert "vendor.verify_identity" in identity.message
    assert report.exit_code == 0


def assumed(world: World, external_id: str | None) -> Any:
    role, us = world.customer.role_arn, Vendor().principal_arn
    return world.roles.assume(role, principal=us, external_id=external_id, session_policy=None)


def test_parts_refused_as_before_2018(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", MemoryClock())
    world = World(ledger, parts_inherit_acl=False)
    bucket = world.bucket()
    for _ in range(3):
        report = world.check()
        assert causes(report) == NOT_GRANTED | {"multipart_denied"}
        assert [item.id for item in report.left] == list(bucket.uploads)
        assert len(bucket.uploads) == 1
    assert ledger.checks.capabilities("acme").multipart is False
    ledger.close()


def test_an_upload_that_a_lifecycle_rule_aborted_is_forgotten(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", MemoryClock())
    world = World(ledger, parts_inherit_acl=False)
    bucket = world.bucket(abort_after_days=7)
    (first,) = world.check().left
    world.clock.advance(timedelta(days=8).total_seconds())
    world.buckets.parts_inherit_acl = True
    report = world.check()
    assert causes(report) == NOT_GRANTED
    assert first.id not in bucket.uploads
    assert (report.left, bucket.contents(), bucket.uploads) == ((), {}, {})
    ledger.close()


# --- What the sandbox does not enforce -----------------------------------------------------------------


def changed(permissions: Document, statement: int, action: str) -> Document:
    document = copy.deepcopy(permissions)
    document["Statement"][statement]["Action"].remove(action)
    return document


def test_put_object_acl_is_needed_for_the_acl(world: World) -> None:
    """Under the guide nothing can be put without the ACL either, so that the two cannot be told apart."""
    world.bucket()
    world.permissions = changed(world.permissions, 0, "s3:PutObjectAcl")
    assert causes(world.check()) == {"put_denied"}
    world.permissions = changed(corrected_permission_policy("acme-data", "xmode/"), 1, "s3:PutObjectAcl")
    assert causes(world.check()) == {"acl_refused"}


def test_the_guides_third_statement_denies_kms_and_the_fix_allows_it(world: World) -> None:
    bucket = world.bucket(kms_key_arn=KEY)
    report = world.check()
    assert causes(report) == {"kms_denied"}
    assert report.exit_code == 4
    (item,) = [item for item in report.findings if item.cause is Cause.KMS_DENIED]
    assert "third statement" in item.message
    assert world.ledger.checks.capabilities("acme").kms is True
    world.permissions = corrected_permission_policy("acme-data", "xmode/", KEY, "us-east-1")
    assert causes(world.check()) == {"put_without_acl_allowed"}
    assert bucket.contents() == {}


def test_a_key_that_may_encrypt_and_not_decrypt(world: World) -> None:
    world.bucket(kms_key_arn=KEY)
    world.permissions = corrected_permission_policy("acme-data", "xmode/", KEY, "us-east-1")
    world.permissions["Statement"][-1]["Action"] = ["kms:GenerateDataKey"]
    report = world.check()
    assert "kms_denied" in causes(report)
    assert "head_denied" not in causes(report)
    assert report.exit_code == 4


def test_a_bucket_of_another_account_is_reported_before_anything_is_written(world: World) -> None:
    bucket = world.bucket(owner="999988887777")
    report = world.check()
    assert causes(report) == {"bucket_other_owner"}
    tried = [item.probe for item in report.findings if item.result is not Result.SKIPPED]
    assert "put" not in tried
    assert bucket.contents() == {}


def test_no_bucket(world: World) -> None:
    report = world.check()
    assert causes(report) == {"bucket_missing"}
    assert report.exit_code == 4


def test_another_region(world: World) -> None:
    world.bucket(region="eu-west-1")
    report = world.check()
    assert causes(report) == NOT_GRANTED | {"bucket_other_region"}
    assert report.exit_code == 3
    (item,) = [item for item in report.findings if item.probe == "region"]
    assert "eu-west-1" in item.message
    assert world.ledger.checks.capabilities("acme").region == "eu-west-1"


def test_versions_that_cannot_be_deleted_are_listed(world: World) -> None:
    bucket = world.bucket(versioned=True)
    report = world.check()
    assert causes(report) == NOT_GRANTED | {"versioned_bucket"}
    assert report.exit_code == 0
    assert {item.kind for item in report.left} == {LeftoverKind.VERSION}
    kept = {
        (item.key, version.version_id, len(version.body))
        for item in report.left
        for version in bucket.versions(item.key)
        if not version.delete_marker
    }
    assert {(item.key, item.id, item.bytes) for item in report.left} == kept
    assert bucket.contents() == {}
    assert world.ledger.checks.capabilities("acme").versioned is True


def test_object_lock(world: World) -> None:
    world.bucket()
    world.prober.locked = {"acme-data"}
    assert causes(world.check()) == NOT_GRANTED | {"object_lock"}


def test_objects_that_the_bucket_owner_does_not_control(world: World) -> None:
    world.bucket()
    world.prober.writer_owns = {"acme-data"}
    report = world.check()
    assert causes(report) == NOT_GRANTED | {"owner_lacks_full_control"}
    assert report.exit_code == 4


def test_a_bucket_that_refuses_acls(world: World) -> None:
    world.bucket()
    world.permissions = corrected_permission_policy("acme-data", "xmode/")
    world.prober.without_acls = {"acme-data"}
    assert causes(world.check()) == {"acl_refused"}


def test_our_own_user_lacks_the_right(world: World) -> None:
    world.bucket()
    world.prober.vendor_policy = {"Version": "2012-10-17", "Statement": []}
    report = world.check()
    assert causes(report) == {"vendor_policy_denies_assume"}
    assert report.exit_code == 3


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:GetBucketPolicy", "arn:aws:s3:::acme-data"),
        ("s3:ListAllMyBuckets", "*"),
        ("iam:ListUsers", "*"),
        ("iam:GetAccountSummary", "*"),
    ],
)
def test_excess_rights_are_reported(world: World, action: str, resource: str) -> None:
    world.bucket()
    extra = {"Effect": "Allow", "Action": action, "Resource": resource}
    world.permissions["Statement"] = [*world.permissions["Statement"][:2], extra]
    report = world.check()
    assert causes(report) == NOT_GRANTED | {"too_broad"}
    (item,) = [item for item in report.findings if item.cause is Cause.TOO_BROAD]
    assert action in item.message


def test_the_guides_third_statement_denies_other_services(world: World) -> None:
    world.bucket()
    world.permissions["Statement"].append({"Effect": "Allow", "Action": "iam:*", "Resource": "*"})
    assert causes(world.check()) == NOT_GRANTED


# --- Trust ---------------------------------------------------------------------------------------------


def answering(error: Exception, *external_ids: str, times: int = 1000) -> Callable[..., Fault | None]:
    """A hook that lets AssumeRole fail for these IDs, after their first calls."""

    def hook(operation: str, key: str, attempt: int) -> Fault | None:
        if operation == "assume" and key in external_ids and attempt > 1000 - times:
            raise error
        return None

    return hook


def test_a_refusal_proves_nothing_when_the_role_then_refuses_its_own_id(world: World) -> None:
    world.bucket()
    gone = RoleRefused("refused", aws_code="AccessDenied", http_status=403)
    world.prober.requests.faults = answering(gone, "AcmeCorp", times=999)
    report = world.check()
    told = {item.probe: item for item in report.findings}
    assert told["assume_again"].cause is Cause.ROLE_REFUSED
    for probe in ("external_id_none", "external_id_random", "external_id_similar", "external_id_case"):
        assert told[probe].result is Result.SKIPPED


def test_a_role_that_needs_no_id_is_reported_even_then(world: World) -> None:
    world.bucket()
    del world.trust["Statement"]["Condition"]
    away = Unavailable("STS is away")
    world.prober.requests.faults = answering(away, "AcmeCorp", times=999)
    report = world.check()
    assert "external_id_not_required" in causes(report)


def test_only_access_denied_counts_as_a_refusal(world: World) -> None:
    world.bucket()
    world.prober.requests.faults = answering(Throttled("slow down", aws_code="Throttling"), "")
    (item,) = [item for item in world.check().findings if item.probe == "external_id_none"]
    assert item.result is Result.SKIPPED
    assert item.responsible is Responsible.AWS
    assert world.check().exit_code == 3


def test_a_disabled_region_is_not_a_refusal_by_the_role(world: World) -> None:
    off = RoleRefused("STS is switched off", aws_code="RegionDisabledException", http_status=403)
    world.prober.requests.faults = answering(off, "AcmeCorp")
    assert causes(world.check()) == {"sts_region_disabled"}


def test_an_id_without_letters_has_no_other_case(world: World) -> None:
    world.bucket()
    world.customer = world.customer.model_copy(update={"external_id": "12345"})
    world.trust = guide_trust_policy("12345")
    (item,) = [item for item in world.check().findings if item.probe == "external_id_case"]
    assert item.result is Result.SKIPPED


# --- Ourselves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "cause"),
    [
        (None, "vendor_key_invalid"),
        ("arn:aws:iam::366810793500:user/somebody", "vendor_identity_wrong"),
    ],
)
def test_no_customer_is_probed_under_a_wrong_identity(world: World, identity: str | None, cause: str) -> None:
    bucket = world.bucket()
    world.sessions.identity = identity
    report = world.check()
    assert causes(report) == {cause}
    assert report.exit_code == 3
    assert len(report.findings) == 1
    assert world.prober.requests.count("assume") == 0
    assert bucket.contents() == {}
    assert world.ledger.checks.last("acme") is None


def test_a_key_that_is_deactivated_during_the_check_is_reported(world: World) -> None:
    bucket = world.bucket()

    def hook(operation: str, key: str, attempt: int) -> Fault | None:
        if operation == "head":
            world.sessions.identity = None
            raise VendorIdentityError("our key was switched off")
        return None

    world.prober.requests.faults = hook
    report = world.check()
    assert causes(report) == {"vendor_key_invalid"}
    # in memory the session lives on, so that what was made could still be taken away
    assert bucket.contents() == {}


# --- Stopping, and answers that do not come ------------------------------------------------------------

OPERATIONS = ("list", "put", "head", "read", "acl", "delete", "create_upload", "complete_upload")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_stopped_check_leaves_nothing(world: World, operation: str) -> None:
    bucket = world.bucket()

    def hook(name: str, key: str, attempt: int) -> Fault | None:
        if name == operation:
            world.stop.set()
        return None

    world.prober.requests.faults = hook
    report = world.check()
    assert (bucket.contents(), bucket.uploads) == ({}, {})
    assert report.left == ()
    if operation not in ("create_upload", "complete_upload"):
        assert (report.outcome, report.exit_code) == ("interrupted", 130)


@pytest.mark.parametrize("operation", [*OPERATIONS, "upload_part", "list_parts", "abort_upload"])
def test_an_interrupted_check_leaves_nothing(world: World, operation: str) -> None:
    """KeyboardInterrupt stands for whatever ends the check at once."""
    bucket = world.bucket()
    world.permissions = corrected_permission_policy("acme-data", "xmode/")
    struck: list[str] = []

    def hook(name: str, key: str, attempt: int) -> Fault | None:
        if name == operation and not struck:
            struck.append(key)
            raise KeyboardInterrupt
        return None

    world.prober.requests.faults = hook
    with pytest.raises(KeyboardInterrupt):
        world.check()
    assert (bucket.contents(), bucket.uploads) == ({}, {})


@pytest.mark.parametrize("operation", [*OPERATIONS, "upload_part", "list_parts", "abort_upload"])
def test_one_kind_of_request_is_not_answered(world: World, operation: str) -> None:
    """Nothing is blamed on the customer; what could not be taken away is named, and goes the next time."""
    bucket = world.bucket()
    world.permissions = corrected_permission_policy("acme-data", "xmode/")

    def hook(name: str, key: str, attempt: int) -> Fault | None:
        if name == operation:
            raise Unavailable("S3 does not answer")
        return None

    world.prober.requests.faults = hook
    report = world.check()
    assert causes(report) <= {"put_without_acl_allowed"}
    assert report.exit_code == 3
    there = {*bucket.contents(), *bucket.uploads}
    assert there <= {item.key for item in report.left} | {item.id for item in report.left}
    world.prober.requests.faults = None
    assert world.check().left == ()
    assert (bucket.contents(), bucket.uploads) == ({}, {})


def test_a_later_check_deletes_what_a_killed_one_left(world: World) -> None:
    bucket = world.bucket()
    old, young = "xmode/_xmode-check/dead/canary", "xmode/_xmode-check/other/canary"
    at = world.clock.now()
    bucket.store(StoredVersion(old, None, at, b"x", '"x"'))
    bucket.store(StoredVersion("xmode/us-daily/a.csv", None, at, b"data", '"y"'))
    world.clock.advance(7200)
    bucket.store(StoredVersion(young, None, world.clock.now(), b"x", '"x"'))
    world.check()
    assert set(bucket.contents()) == {young, "xmode/us-daily/a.csv"}  # the young one may be in use


def test_nothing_outside_of_the_reserved_place_is_written(world: World) -> None:
    world.bucket()
    keys: set[str] = set()

    def hook(name: str, key: str, attempt: int) -> Fault | None:
        if name in ("put", "delete", "create_upload", "complete_upload", "abort_upload", "upload_part"):
            keys.add(key)
        return None

    world.prober.requests.faults = hook
    world.check()
    assert keys
    assert all(key.startswith("xmode/_xmode-check/") for key in keys)


# --- Several customers, and time ----------------------------------------------------------------------


def test_the_history_keeps_each_check_and_logs_the_change(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.bucket()
    world.check()
    world.clock.advance(3600)
    world.permissions = changed(world.permissions, 1, "s3:ListBucket")
    with caplog.at_level("INFO"):
        world.check()
    told = [
        record.__dict__["xmode_fields"] for record in caplog.records if "access.changed" in record.message
    ]
    assert [(one["probe"], one["before"], one["now"]) for one in told] == [("list", "ok", "list_denied")]
    now, before = world.ledger.checks.newest("acme")
    assert (now.exit_code, before.exit_code) == (4, 0)
    assert world.ledger.checks.last("acme") == now


def test_each_customer_has_its_own_report(world: World) -> None:
    world.bucket()
    world.check()
    other = world.customer.model_copy(
        update={"name": "globex", "role_arn": "arn:aws:iam::222233334444:role/XMode"}
    )
    first, second = check_customers(world.context, world.prober, [world.customer, other])
    assert isinstance(first, AccessReport)
    assert isinstance(second, AccessReport)
    assert (first.customer, first.exit_code) == ("acme", 0)
    assert (second.customer, causes(second)) == ("globex", {"role_refused"})
    assert replace(first, findings=()).outcome == "ok"
