"""The check of access against customers who have set up their side in every wrong way: the named cause must
be the right one, an intact set-up raises no alarm, and nothing stays in the bucket."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.bucket import empty_bucket, list_keys, list_uploads, remove_customer, set_permission_policy
from xmode_transfer.access.check_access import check_access
from xmode_transfer.access.lint import Kind, Source, lint
from xmode_transfer.aws.policy.documents import SetupValues, corrected_permission_policy
from xmode_transfer.cli.terminal import Tally
from xmode_transfer.config import files
from xmode_transfer.model.findings import AccessReport, LeftoverKind, Result, Severity
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.accounts import (
    add_customer,
    client,
    owner,
    permission_policy,
    root_client,
    set_trust_policy,
    trust_policy,
)
from xmode_transfer.sandbox.model import (
    REGION,
    VENDOR_ACCOUNT,
    VENDOR_USER,
    CustomerSetup,
    Sandbox,
    Variant,
    write_config,
)
from xmode_transfer.service import assembly

pytestmark = pytest.mark.sandbox

Document = dict[str, Any]
_accounts = count(810_000_000_001)

GUIDE_LIMITS = {"multipart_denied", "abort_denied", "list_parts_denied"}
"""What the guide itself does not grant, as the sandbox decides it; none of it asks the customer to act."""


@pytest.fixture(scope="module")
def subject(sandbox: Sandbox) -> Iterator[CustomerSetup]:
    """One customer for the whole table; its documents are swapped."""
    account = str(next(_accounts))
    customer = add_customer(sandbox, "subject", account=account, bucket=f"subject-{account}")
    yield customer
    remove_customer(sandbox, customer)


@dataclass
class Checker:
    """Checks a customer in this process, each time with a ledger that knows nothing, unless told."""

    sandbox: Sandbox
    directory: Path

    def __call__(
        self, customer: CustomerSetup, *, deep: bool = False, ledger: str = "", **overrides: Any
    ) -> AccessReport:
        name = ledger or f"ledger-{next(_accounts)}"
        write_config(
            self.directory,
            self.sandbox,
            customers=[customer],
            service={"ledger": f"sqlite:///var/{name}.db"},
            overrides={customer.name: overrides},
        )
        configuration = files.load(self.directory)
        with assembly.context(configuration, Tally()) as context:
            prober = assembly.prober(context)
            return check_access(context, prober, configuration.customers[customer.name], deep=deep)


@pytest.fixture
def check(sandbox: Sandbox, as_vendor: dict[str, str], tmp_path: Path) -> Checker:
    return Checker(sandbox, tmp_path / "config")


@pytest.fixture
def intact(subject: CustomerSetup) -> Iterator[CustomerSetup]:
    """The subject, set up by the guide before and after the test."""
    yield subject
    set_trust_policy(subject, trust_policy(subject))
    set_permission_policy(subject, permission_policy(subject))
    empty_bucket(subject)


def causes(report: AccessReport) -> set[str]:
    return {str(cause) for cause in report.causes}


def assert_nothing_left(customer: CustomerSetup, report: AccessReport) -> None:
    """Whatever is in the bucket is named in the report, and objects only where the role cannot delete."""
    named = {(item.kind, item.key, item.id) for item in report.left}
    objects = {(LeftoverKind.OBJECT, key, None) for key in list_keys(customer)}
    uploads = {(LeftoverKind.UPLOAD, key, upload) for key, upload in list_uploads(customer)}
    assert objects | uploads == {item for item in named if item[0] is not LeftoverKind.VERSION}
    assert len(uploads) <= 1
    if "delete_denied" not in causes(report):
        assert objects == set()


def assert_foretold(report: AccessReport, customer: CustomerSetup, *documents: Document) -> None:
    """`policy lint` names offline what the check found, and nothing against what the check found in order."""
    account = customer.role_arn.split(":")[4]
    told = SetupValues(
        customer.external_id, customer.role_arn, customer.bucket, customer.prefix, bucket_owner=account
    )
    lines = [
        Source("pasted", json.dumps(document), kind) for document, kind in zip(documents, Kind, strict=False)
    ]
    foretold = {
        (item.probe, item.cause) for item in lint(lines, told).findings if item.cause not in (None, "ok")
    }
    found = {(item.probe, item.cause) for item in report.findings if item.cause not in (None, "ok")}
    assert found <= foretold
    in_order = {item.probe for item in report.findings if item.result is Result.OK}
    assert not {probe for probe, _ in foretold} & in_order


# --- The trust policy, changed -------------------------------------------------------------------------

Change = Callable[[Document], None]


def condition(operator: str, value: Any, key: str = "sts:ExternalId") -> Change:
    def change(document: Document) -> None:
        document["Statement"]["Condition"] = {operator: {key: value}}

    return change


def with_id(operator: str, form: str) -> Change:
    """The right ID in some form: {0} as it is, {1} in small letters."""

    def change(document: Document) -> None:
        right = document["Statement"]["Condition"]["StringEquals"]["sts:ExternalId"]
        condition(operator, form.format(right, right.lower()))(document)

    return change


def trusted(**elements: Any) -> Change:
    return lambda document: document["Statement"].update(elements)


def principal(arn: str) -> Change:
    return trusted(Principal={"AWS": arn})


def either_id(document: Document) -> None:
    equals = document["Statement"]["Condition"]["StringEquals"]
    equals["sts:ExternalId"] = [equals["sts:ExternalId"], "an-older-one"]


def no_condition(document: Document) -> None:
    del document["Statement"]["Condition"]


TRUST: dict[str, tuple[Change, set[str]]] = {
    "another ID": (condition("StringEquals", "SomebodyElse"), {"role_refused"}),
    "the ID in small letters": (with_id("StringEquals", "{1}"), {"role_refused"}),
    "the guide's braces kept": (with_id("StringEquals", "{{{0}}}"), {"role_refused"}),
    "the key misspelt": (condition("StringEquals", "x", "sts:External-Id"), {"role_refused"}),
    "an empty ID": (condition("StringEquals", ""), {"role_refused"}),
    "no condition": (no_condition, {"external_id_not_required"}),
    "only if an ID is sent": (with_id("StringEqualsIfExists", "{0}"), {"external_id_not_required"}),
    "any but one ID": (condition("StringNotEquals", "SomebodyElse"), {"external_id_not_required"}),
    "any ID": (condition("StringLike", "*"), {"external_id_any_value"}),
    "any ID that begins so": (with_id("StringLike", "{0}*"), {"external_id_any_value"}),
    "whatever ID, but one": (condition("Null", "false"), {"external_id_any_value"}),
    "the ID in any letters": (with_id("StringEqualsIgnoreCase", "{0}"), {"external_id_case_insensitive"}),
    "two IDs, while one is changed": (either_id, set()),
    "the ID by StringLike": (with_id("StringLike", "{0}"), set()),
    "another user": (principal(f"arn:aws:iam::{VENDOR_ACCOUNT}:user/somebody"), {"role_refused"}),
    "another account": (principal("arn:aws:iam::999988887777:root"), {"role_refused"}),
    "our account, as in step 4": (principal(f"arn:aws:iam::{VENDOR_ACCOUNT}:root"), set()),
    "a denial": (trusted(Effect="Deny"), {"role_refused"}),
    "another action": (trusted(Action="sts:TagSession"), {"role_refused"}),
}


# What AWS decides as another case of the same kind, which the long form tries too.
TRUST_ALIKE = {
    *("the ID in small letters", "the guide's braces kept", "the key misspelt", "an empty ID"),
    *("any but one ID", "whatever ID, but one", "another account", "another action"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in TRUST_ALIKE else []) for name in TRUST]
)
def test_a_changed_trust_policy_is_reported(intact: CustomerSetup, check: Checker, name: str) -> None:
    change, expected = TRUST[name]
    document = trust_policy(intact)
    change(document)
    set_trust_policy(intact, document)
    report = check(intact)
    assert causes(report) - GUIDE_LIMITS == expected
    assert report.exit_code == (4 if expected else 0)
    for item in report.findings:
        if str(item.cause) in expected and item.fix is not None:
            assert item.fix.statement == trust_policy(intact)["Statement"]
    assert_nothing_left(intact, report)
    assert_foretold(report, intact, document, permission_policy(intact))


# --- The permission policy, changed --------------------------------------------------------------------

WRITE, READ, DENY = 0, 1, 2
ALL_READS = {"list_denied", "head_denied", "get_acl_denied", "delete_denied"}
OBJECT_READS = ALL_READS - {"list_denied"}


def without(statement: int, action: str = "") -> Change:
    def change(document: Document) -> None:
        if action:
            document["Statement"][statement]["Action"].remove(action)
        else:
            del document["Statement"][statement]

    return change


def elements(statement: int, **changed: Any) -> Change:
    return lambda document: document["Statement"][statement].update(changed)


def acl(operator: str, value: str, key: str = "s3:x-amz-acl") -> Change:
    return elements(WRITE, Condition={operator: {key: [value]}})


def resources(statement: int, *keep: str) -> Change:
    """The statement on other resources; {0} is the bucket's ARN."""

    def change(document: Document) -> None:
        whole = document["Statement"][statement]["Resource"][0]
        document["Statement"][statement]["Resource"] = [one.format(whole) for one in keep]

    return change


def without_acl_condition(document: Document) -> None:
    del document["Statement"][WRITE]["Condition"]


def another_bucket(document: Document) -> None:
    text = json.dumps(document).replace("arn:aws:s3:::subject-", "arn:aws:s3:::other-")
    document.update(json.loads(text))


def and_also(effect: str, *actions: str, resource: str = "*") -> Change:
    def change(document: Document) -> None:
        extra = {"Effect": effect, "Action": list(actions), "Resource": resource}
        document["Statement"].append(extra)

    return change


def all_of(*changes: Change) -> Change:
    def change(document: Document) -> None:
        for one in changes:
            one(document)

    return change


def only(*actions: str) -> Change:
    return lambda document: document.update(
        Statement=[{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]
    )


PUTS = {"put_denied"}
PERMISSION: dict[str, tuple[Change, set[str]]] = {
    "no write statement": (without(WRITE), PUTS),
    "no read statement": (without(READ), ALL_READS),
    "no deny statement": (without(DENY), set()),
    "no PutObject": (without(WRITE, "s3:PutObject"), PUTS),
    "no ListBucket": (without(READ, "s3:ListBucket"), {"list_denied"}),
    "no GetObject": (without(READ, "s3:GetObject"), {"head_denied"}),
    "no GetObjectAcl": (without(READ, "s3:GetObjectAcl"), {"get_acl_denied"}),
    "no DeleteObject": (without(READ, "s3:DeleteObject"), {"delete_denied"}),
    "no ACL condition": (without_acl_condition, {"put_without_acl_allowed"}),
    "another ACL": (acl("StringEquals", "private"), PUTS),
    "the ACL's key misspelt": (acl("StringEquals", "bucket-owner-full-control", "s3:x-acl"), PUTS),
    "any ACL but ours": (acl("StringNotEquals", "bucket-owner-full-control"), {"acl_refused"}),
    "the ACL by StringLike": (acl("StringLike", "bucket-owner-*"), set()),
    "write another bucket": (resources(WRITE, "arn:aws:s3:::other", "arn:aws:s3:::other/*"), PUTS),
    "write the bucket, not its objects": (resources(WRITE, "{0}"), PUTS),
    "write elsewhere in it": (resources(WRITE, "{0}", "{0}/elsewhere/*"), PUTS),
    "write below the prefix only": (resources(WRITE, "{0}/xmode/*"), set()),
    "read the bucket, not its objects": (resources(READ, "{0}"), OBJECT_READS),
    "read objects, not the bucket": (resources(READ, "{0}/*"), {"list_denied"}),
    "read elsewhere in it": (resources(READ, "{0}", "{0}/elsewhere/*"), OBJECT_READS),
    "another bucket altogether": (another_bucket, PUTS | {"list_denied"}),
    "writing denied": (elements(WRITE, Effect="Deny"), PUTS),
    "reading denied": (elements(READ, Effect="Deny"), ALL_READS),
    "deleting denied beside it": (and_also("Deny", "s3:DeleteObject"), {"delete_denied"}),
    "all reading denied beside it": (and_also("Deny", "s3:Get*"), {"head_denied", "get_acl_denied"}),
    "everything denied elsewhere than elsewhere": (
        elements(DENY, NotAction="iam:*", NotResource="arn:aws:s3:::other*"),
        PUTS | {"list_denied"},
    ),
    "the third statement for every resource": (elements(DENY, NotResource=[]), set()),
    "all of S3": (only("s3:*"), {"too_broad", "put_without_acl_allowed"}),
    "everything": (only("*"), {"too_broad", "put_without_acl_allowed"}),
    "the users too, without the third": (
        all_of(without(DENY), and_also("Allow", "iam:List*", "iam:Get*")),
        {"too_broad"},
    ),
    "all buckets' names too": (and_also("Allow", "s3:ListAllMyBuckets"), {"too_broad"}),
    "the bucket's policy too": (and_also("Allow", "s3:GetBucketPolicy"), {"too_broad"}),
}
FREE_OF_LIMITS = {"no ACL condition", "all of S3", "everything"}
# What the evaluator decides as another case of the same kind is tried against the sandbox in the long form.
ALIKE = {
    *("no GetObject", "no GetObjectAcl", "no DeleteObject", "ListBucket misspelt", "GetObject misspelt"),
    *("GetObjectAcl misspelt", "DeleteObject misspelt", "another ACL", "the ACL misspelt"),
    *("write the bucket, not its objects", "write elsewhere in it", "read the bucket, not its objects"),
    *("another bucket altogether", "reading denied", "deleting denied beside it", "all of S3"),
    *("write another bucket", "writing denied", "the ACL's key misspelt", "all buckets' names too"),
    *("the third statement for every resource", "no write statement"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in PERMISSION]
)
def test_a_changed_permission_policy_is_reported(intact: CustomerSetup, check: Checker, name: str) -> None:
    change, expected = PERMISSION[name]
    document = permission_policy(intact)
    change(document)
    set_permission_policy(intact, document)
    report = check(intact)
    assert causes(report) - GUIDE_LIMITS == expected
    acts = expected - {"put_without_acl_allowed", "too_broad"}
    assert report.exit_code == (4 if acts else 0)
    if name in FREE_OF_LIMITS:
        assert "multipart_denied" not in causes(report)
    assert_nothing_left(intact, report)
    assert_foretold(report, intact, trust_policy(intact), document)


CORRECTED: dict[str, tuple[list[str], set[str]]] = {
    "whole": ([], set()),
    "no abort": (["s3:AbortMultipartUpload"], {"abort_denied"}),
    "no list of parts": (["s3:ListMultipartUploadParts"], {"list_parts_denied"}),
    "no put": (["s3:PutObject"], {"put_denied"}),
    "no read": (["s3:GetObject", "s3:GetObjectAcl"], {"head_denied", "get_acl_denied"}),
}


@pytest.mark.parametrize("name", CORRECTED)
def test_the_corrected_policy_has_no_limits(intact: CustomerSetup, check: Checker, name: str) -> None:
    removed, expected = CORRECTED[name]
    document = corrected_permission_policy(intact.bucket, intact.prefix)
    for action in removed:
        document["Statement"][1]["Action"].remove(action)
    set_permission_policy(intact, document)
    report = check(intact)
    assert causes(report) - {"put_without_acl_allowed"} == expected
    assert list_keys(intact) == []
    assert list_uploads(intact) == []
    assert report.left == ()
    assert_foretold(report, intact, trust_policy(intact), document)


ANYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
GRANT_HEADERS = ("GrantRead", "GrantReadACP", "GrantWriteACP", "GrantFullControl")
ACL_IN_BODY = {"Owner": {"ID": "x"}, "Grants": [{"Grantee": {"Type": "CanonicalUser", "ID": "x"}}]}


def test_the_corrected_trust_policy_refuses_others(intact: CustomerSetup, as_vendor: dict[str, str]) -> None:
    """Neither by a header nor in a body, and no name outside of the prefix is listed."""
    set_permission_policy(intact, corrected_permission_policy(intact.bucket, intact.prefix))
    sts = client(
        "sts",
        endpoint=intact.endpoint,
        access_key_id=as_vendor["AWS_ACCESS_KEY_ID"],
        secret_access_key=as_vendor["AWS_SECRET_ACCESS_KEY"],
        region=intact.region,
    )
    keys = sts.assume_role(
        RoleArn=intact.role_arn, RoleSessionName="test", ExternalId=intact.external_id, DurationSeconds=900
    )["Credentials"]
    s3 = client(
        "s3",
        endpoint=intact.endpoint,
        access_key_id=keys["AccessKeyId"],
        secret_access_key=keys["SecretAccessKey"],
        token=keys["SessionToken"],
        region=intact.region,
    )
    place = {"Bucket": intact.bucket, "Key": f"{intact.prefix}x"}
    s3.put_object(**place, Body=b"x", ACL="bucket-owner-full-control")
    s3.list_objects_v2(Bucket=intact.bucket, Prefix=intact.prefix)
    refused: list[tuple[str, dict[str, Any]]] = [
        *((call, {**place, header: ANYBODY}) for header in GRANT_HEADERS for call in WRITING),
        *((call, {**place, "ACL": "public-read"}) for call in WRITING),
        ("put_object_acl", {**place, "AccessControlPolicy": ACL_IN_BODY}),
        ("list_objects_v2", {"Bucket": intact.bucket}),
        ("list_objects_v2", {"Bucket": intact.bucket, "Prefix": "elsewhere/"}),
    ]
    for call, arguments in refused:
        with pytest.raises(ClientError) as raised:
            getattr(s3, call)(**arguments)
        assert raised.value.response["Error"]["Code"] == "AccessDenied", (call, arguments)


WRITING = ("put_object", "create_multipart_upload", "put_object_acl")


def test_a_deny_in_the_buckets_policy_is_reported_without_an_allow(
    intact: CustomerSetup, check: Checker
) -> None:
    """What the fix says, done, leaves nothing to do; the Allow that was advised before changed nothing."""
    s3 = owner(intact, "s3")
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{intact.bucket}/*",
    }
    s3.put_bucket_policy(
        Bucket=intact.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    try:
        (put,) = [item for item in check(intact).findings if item.cause == "put_denied"]
        assert put.fix is not None
        assert (put.responsible, put.fix.statement) == ("customer", None)
        assert f"s3:PutObject out of the policy of the bucket {intact.bucket}" in put.fix.summary
        assert (put.fix.command or "").startswith(f"aws s3api get-bucket-policy --bucket {intact.bucket}")
    finally:
        s3.delete_bucket_policy(Bucket=intact.bucket)
    assert check(intact).exit_code == 0


# --- The bucket, and what was told of it ---------------------------------------------------------------


def test_a_customer_that_follows_the_guide_is_ok(intact: CustomerSetup, check: Checker) -> None:
    report = check(intact, deep=True)
    assert causes(report) == GUIDE_LIMITS
    assert (report.outcome, report.exit_code) == ("ok", 0)
    told = {item.probe for item in report.findings if item.result is not Result.OK}
    assert told == {
        "multipart",
        "abort",
        "list_parts",
        "encryption",
        "excess",
    }  # the sandbox names no encryption
    (excess,) = [item for item in report.findings if item.probe == "excess"]
    assert (excess.result, excess.cause, excess.severity) == (Result.UNKNOWN, None, Severity.INFO)
    assert "ssm:DescribeParameters" in excess.message
    assert "A session cannot see what else" in excess.message
    assert_nothing_left(intact, report)


BUCKETS: dict[str, tuple[Variant, dict[str, Any], set[str]]] = {
    "prefix only": (Variant.PREFIX_ONLY, {}, set()),
    "the whole bucket": (Variant.GUIDE, {"prefix": ""}, set()),
    "a deep prefix": (Variant.PREFIX_ONLY, {"prefix": "from/xmode/data/"}, set()),
    "versioned": (Variant.VERSIONED, {}, {"versioned_bucket"}),
    "no role": (Variant.NO_ROLE, {}, {"role_refused"}),
    "another external ID": (Variant.WRONG_EXTERNAL_ID, {}, {"role_refused"}),
}


@pytest.mark.parametrize("name", BUCKETS)
def test_a_variant_is_reported(
    customer_factory: Callable[..., CustomerSetup], check: Checker, name: str
) -> None:
    variant, how, expected = BUCKETS[name]
    customer = customer_factory("variant", variant, **how)
    report = check(customer)
    assert causes(report) - GUIDE_LIMITS == expected
    assert_nothing_left(customer, report)
    if variant is Variant.VERSIONED:
        kept = [item for item in report.left if item.kind is LeftoverKind.VERSION]
        assert [item.key.rpartition("/")[2] for item in kept] == ["canary"]


def test_a_role_limited_to_another_prefix(
    customer_factory: Callable[..., CustomerSetup], check: Checker
) -> None:
    customer = customer_factory("mistyped", Variant.PREFIX_ONLY, prefix="xmoed/")
    report = check(customer, destination={"prefix": "xmode/"})
    assert causes(report) == {"list_denied", "put_denied"}
    assert report.exit_code == 4


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"bucket": "there-is-none-of-this-name"}, {"bucket_missing"}),
        ({"region": "eu-west-1"}, {"bucket_other_region"}),
    ],
)
def test_wrong_values_in_the_customers_file(
    intact: CustomerSetup, check: Checker, told: dict[str, str], expected: set[str]
) -> None:
    report = check(intact, destination=told)
    assert causes(report) - GUIDE_LIMITS == expected


def test_a_bucket_of_another_customer_is_refused(
    intact: CustomerSetup, globex: CustomerSetup, check: Checker
) -> None:
    report = check(intact, destination={"bucket": globex.bucket})
    assert {"list_denied", "put_denied"} <= causes(report)
    assert (list_keys(globex), list_uploads(globex)) == ([], [])


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("s3:PutObject", {"put_denied"}),
        ("s3:DeleteObject", {"delete_denied"}),
        ("s3:GetObject", {"head_denied"}),
    ],
)
def test_a_bucket_policy_that_denies(
    customer_factory: Callable[..., CustomerSetup], check: Checker, action: str, expected: set[str]
) -> None:
    customer = customer_factory("denied")
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": {"AWS": customer.role_arn},
                "Action": action,
                "Resource": f"arn:aws:s3:::{customer.bucket}/*",
            }
        ],
    }
    s3 = owner(customer, "s3")
    s3.put_bucket_policy(Bucket=customer.bucket, Policy=json.dumps(document))
    report = check(customer)
    s3.delete_bucket_policy(Bucket=customer.bucket)
    assert causes(report) - GUIDE_LIMITS == expected
    assert_nothing_left(customer, report)


# --- Ourselves -----------------------------------------------------------------------------------------


@contextmanager
def vendor_without_rights(sandbox: Sandbox) -> Iterator[None]:
    iam = root_client(sandbox.endpoint, sandbox.root(VENDOR_ACCOUNT), "iam", REGION)
    iam.delete_user_policy(UserName=VENDOR_USER, PolicyName="assume-customer-roles")
    try:
        yield
    finally:
        iam.put_user_policy(
            UserName=VENDOR_USER,
            PolicyName="assume-customer-roles",
            PolicyDocument=json.dumps(accounts.vendor_policy()),
        )


def test_our_own_user_may_not_assume(sandbox: Sandbox, intact: CustomerSetup, check: Checker) -> None:
    with vendor_without_rights(sandbox):
        report = check(intact)
    assert causes(report) in ({"role_refused"}, {"vendor_policy_denies_assume"})


def test_an_unknown_access_key_is_the_vendors_and_no_customer_is_probed(
    intact: CustomerSetup, check: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_uploads(intact)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    report = check(intact, ledger="ours")
    assert causes(report) <= {"vendor_key_invalid", "vendor_identity_wrong"}
    assert len(report.findings) == 1
    assert (report.outcome, report.exit_code) == ("failed", 3)
    assert list_uploads(intact) == before


# --- Time and again ------------------------------------------------------------------------------------


def test_an_upload_that_may_not_be_aborted_is_reused(intact: CustomerSetup, check: Checker) -> None:
    """However often a check is repeated, one upload is left behind at most, and it goes once that is
    allowed."""
    first = check(intact, ledger="again")
    second = check(intact, ledger="again")
    assert len(list_uploads(intact)) == 1
    assert [item for item in first.left if item.kind is LeftoverKind.UPLOAD] == list(second.left)
    set_permission_policy(intact, corrected_permission_policy(intact.bucket, intact.prefix))
    mended = check(intact, ledger="again")
    assert causes(mended) - {"put_without_acl_allowed"} == set()
    assert (mended.left, list_uploads(intact), list_keys(intact)) == ((), [], [])


def test_objects_that_may_not_be_deleted_do_not_accumulate(intact: CustomerSetup, check: Checker) -> None:
    document = permission_policy(intact)
    without(READ, "s3:DeleteObject")(document)
    set_permission_policy(intact, document)
    for _ in range(3):
        report = check(intact, ledger="piling")
        assert_nothing_left(intact, report)
    assert len(list_keys(intact)) <= 2
    set_permission_policy(intact, permission_policy(intact))
    assert check(intact, ledger="piling").exit_code == 0
    assert list_keys(intact) == []


def test_capabilities_are_recorded(intact: CustomerSetup, check: Checker) -> None:
    report = check(intact, ledger="learning")
    configuration = files.load(check.directory)
    with assembly.ledger(configuration.service) as (ledger, _):
        known = ledger.checks.capabilities(intact.name)
        assert (known.multipart, known.abort, known.versioned, known.region) == (False, False, False, REGION)
        remembered = ledger.checks.last(intact.name)
    assert remembered is not None
    assert remembered.findings == tuple(replace(item, fix=None) for item in report.findings)
    assert remembered.left == report.left


# --- The installed command -----------------------------------------------------------------------------


def test_the_command_prints_one_document(
    project: Callable[..., Any], acme: CustomerSetup, customer_factory: Callable[..., CustomerSetup]
) -> None:
    refused = customer_factory("initech", Variant.NO_ROLE)
    pending = customer_factory("umbrella")
    answer = project(acme, refused, pending, overrides={"umbrella": {"state": "pending"}}).run(
        "check-access", "--json"
    )
    assert answer.code == 4, answer.err
    told = {item["customer"]: item for item in answer.json["customers"]}
    assert {name: item["outcome"] for name, item in told.items()} == {
        "acme": "ok",
        "initech": "blocked",
        "umbrella": "ok",
    }
    (worst,) = [item for item in told["initech"]["findings"] if item["cause"] == "role_refused"]
    assert (worst["result"], worst["responsible"], worst["severity"]) == ("denied", "customer", "error")
    assert worst["fix"]["statement"]["Condition"]["StringEquals"]["sts:ExternalId"] == refused.external_id
    assert worst["fix"]["command"].startswith("if aws iam get-role --role-name XMode ")
    assert worst["request_id"]
    keys = {"probe", "result", "cause", "responsible", "severity", "message", "fix", "request_id", "said"}
    assert all(set(item) == keys for one in told.values() for item in one["findings"])
    checked = [event for event in answer.events if event["event"] == "access.checked"]
    assert {event["customer"] for event in checked} == set(told)


def test_the_command_shows_the_change_and_the_fix(project: Callable[..., Any], acme: CustomerSetup) -> None:
    place = project(acme)
    first = place.run("check-access", "--customer", "acme")
    assert first.code == 0, first.err
    document = trust_policy(acme)
    no_condition(document)
    set_trust_policy(acme, document)
    second = place.run("check-access", "--customer", "acme")
    assert second.code == 4
    assert "external_id_not_required" in second.out
    assert '"sts:ExternalId": "AcmeCorp"' in second.out
    (change,) = [event for event in second.events if event["event"] == "access.changed"]
    assert (change["probe"], change["before"], change["now"]) == (
        "external_id_none",
        "ok",
        "external_id_not_required",
    )


def test_another_principal_is_one_vendor_finding(project: Callable[..., Any], acme: CustomerSetup) -> None:
    vendor = {"vendor": {"principal_arn": f"arn:aws:iam::{VENDOR_ACCOUNT}:user/somebody-else"}}
    answer = project(acme, service=vendor).run("check-access", "--json")
    assert answer.code == 3
    (customer,) = answer.json["customers"]
    (item,) = customer["findings"]
    assert (item["cause"], item["responsible"]) == ("vendor_identity_wrong", "vendor")
    assert (list_keys(acme), list_uploads(acme)) == ([], [])


def test_a_command_that_is_stopped_leaves_no_object(project: Callable[..., Any], acme: CustomerSetup) -> None:
    """Wherever the signal meets it."""
    place = project(acme)
    began = time.monotonic()
    assert place.run("check-access", "--json").code == 0
    whole_seconds = time.monotonic() - began  # on this machine, now
    for part in (0.4, 0.6, 0.8):
        process = place.start("check-access", "--json")
        time.sleep(part * whole_seconds)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
        assert process.returncode in (0, 130, -signal.SIGINT)
        assert list_keys(acme) == []
        assert len(list_uploads(acme)) <= 1


def test_an_unknown_and_a_retired_customer(project: Callable[..., Any], acme: CustomerSetup) -> None:
    place = project(acme, overrides={"acme": {"state": "retired"}})
    unknown = place.run("check-access", "--customer", "nobody", "--json")
    assert (unknown.code, unknown.json["error"]["cause"]) == (2, "config_invalid")
    retired = place.run("check-access", "--customer", "acme")
    assert retired.code == 2
    assert "retired" in retired.err
