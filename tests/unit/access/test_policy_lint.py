"""The guide's documents, intact and spoiled in every way that the guide invites: each with the cause that the
lint must name, and no other."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from xmode_transfer.access.lint import Kind, Source, lint
from xmode_transfer.access.lint.records import Given, Report
from xmode_transfer.aws.policy.documents import (
    VENDOR_PRINCIPAL,
    SetupValues,
    corrected_permission_policy,
    corrected_trust_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.model.findings import Severity

ID, BUCKET, PREFIX, ACCOUNT = "AcmeCorp", "acme-data", "xmode/", "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/XMode"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
TOLD = Given(external_id=ID, bucket=BUCKET, prefix=PREFIX, account=ACCOUNT, region="us-east-1")
ARN = f"arn:aws:s3:::{BUCKET}"

# What the guide itself does not grant, and grants too much; it is told, and nobody must act.
OF_THE_GUIDE = {
    "multipart_denied",
    "abort_denied",
    "list_parts_denied",
    "kms_explicitly_denied",
    "beyond_prefix",
}

Document = dict[str, Any]
Mutate = Callable[[Document], None]


def causes(report: Report) -> set[str]:
    """Everything that is not well, by its word."""
    found = {str(one.cause) for one in report.findings if one.cause not in (None, "ok")}
    return found | {str(issue.fault) for issue in report.issues}


def source(document: object, name: str = "policy.json", kind: Kind | None = None) -> Source:
    return Source(name, document if isinstance(document, str) else json.dumps(document), kind)


def trust(mutate: Mutate | None = None) -> Document:
    document = guide_trust_policy(ID)
    if mutate:
        mutate(document)
    return document


def permission(mutate: Mutate | None = None) -> Document:
    document = guide_permission_policy(BUCKET)
    if mutate:
        mutate(document)
    return document


def both(trust_policy: Document, permission_policy: Document, told: Given = TOLD) -> Report:
    return lint([source(trust_policy, "trust.json"), source(permission_policy, "permission.json")], told)


# --- Intact --------------------------------------------------------------------------------------------


def test_the_guides_documents_are_ok() -> None:
    report = both(trust(), permission())
    assert (report.outcome, report.exit_code) == ("ok", 0)
    assert causes(report) == OF_THE_GUIDE
    assert report.kinds == (("trust.json", Kind.TRUST), ("permission.json", Kind.PERMISSION))


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("prefix", ["", "xmode/"])
def test_the_corrected_documents_are_ok(prefix: str, key: str | None) -> None:
    told = Given(ID, BUCKET, prefix, ACCOUNT, region="us-east-1", kms_key_arn=key)
    document = corrected_permission_policy(BUCKET, prefix, key, "us-east-1")
    report = both(corrected_trust_policy(ID), document, told)
    assert report.outcome == "ok"
    assert causes(report) == {"put_without_acl_allowed"}


def test_two_external_ids_are_a_warning() -> None:
    report = lint([source(corrected_trust_policy(ID, previous_external_id="Old"))], TOLD)
    assert (report.outcome, causes(report)) == ("ok", {"second_external_id"})
    assert "accepts the external ID Old" in report.issues[0].message


def test_omitted_values_are_taken_from_the_documents() -> None:
    report = both(trust(), permission(), Given())
    assert (report.outcome, causes(report)) == ("ok", OF_THE_GUIDE - {"beyond_prefix"})
    below = corrected_permission_policy(BUCKET, "in/xmode/")
    assert causes(lint([source(below)], Given())) == {"put_without_acl_allowed"}


# --- Spoiled -------------------------------------------------------------------------------------------


def in_trust(**changes: Any) -> Mutate:
    return lambda document: document["Statement"].update(changes)


def condition(operator: str, key: str = "sts:ExternalId", value: Any = ID) -> Mutate:
    return in_trust(Condition={operator: {key: value}})


def principal(value: Any) -> Mutate:
    return in_trust(Principal=value if isinstance(value, str) else {"AWS": value})


def without_condition(document: Document) -> None:
    del document["Statement"]["Condition"]


SPOILED_TRUST: dict[str, tuple[Mutate, set[str]]] = {
    "no condition": (without_condition, {"external_id_not_required"}),
    "condition empty": (in_trust(Condition={}), {"external_id_not_required"}),
    "any value": (condition("StringLike", value="*"), {"external_id_any_value"}),
    "a wildcard behind the ID": (condition("StringLike", value=f"{ID}*"), {"external_id_any_value"}),
    "IfExists": (condition("StringEqualsIfExists"), {"external_id_not_required"}),
    "case ignored": (condition("StringEqualsIgnoreCase"), {"external_id_case_insensitive"}),
    "not equals": (
        condition("StringNotEquals"),
        {"role_refused", "external_id_not_required"},
    ),
    "only that there is one": (
        in_trust(Condition={"Null": {"sts:ExternalId": "false"}}),
        {"external_id_any_value"},
    ),
    "another ID": (condition("StringEquals", value="AcmeInc"), {"role_refused"}),
    "the ID in small letters": (condition("StringEquals", value="acmecorp"), {"role_refused"}),
    "the ID with a space": (condition("StringEquals", value="Acme Corp"), {"role_refused"}),
    "braces left": (condition("StringEquals", value="{AcmeCorp}"), {"role_refused", "placeholder_left"}),
    "the guide's words left": (
        condition("StringEquals", value="{replace with input company name}"),
        {"role_refused", "placeholder_left"},
    ),
    "EXTERNAL-ID left": (
        condition("StringEquals", value="EXTERNAL-ID"),
        {"role_refused", "placeholder_left"},
    ),
    "condition key misspelt": (
        condition("StringEquals", "sts:External-Id"),
        {"role_refused", "unknown_condition_key"},
    ),
    "operator misspelt": (condition("StringEqual"), {"unknown_operator", "cannot_tell"}),
    "whole account": (principal(["arn:aws:iam::366810793500:root"]), {"trusts_whole_account"}),
    "whole account by number": (principal(["366810793500"]), {"trusts_whole_account"}),
    "anybody": (principal("*"), {"trusts_anybody"}),
    "anybody, as AWS": (principal(["*"]), {"trusts_anybody"}),
    "a principal without its kind": (
        principal(VENDOR_PRINCIPAL),
        {"malformed_statement", "cannot_tell"},
    ),
    "another user": (
        principal(["arn:aws:iam::366810793500:user/xmode-transfer"]),
        {"role_refused", "other_principal"},
    ),
    "a role instead of the user": (
        principal(["arn:aws:iam::366810793500:role/xmode-data-transfer"]),
        {"role_refused", "other_principal"},
    ),
    "another account": (
        principal(["arn:aws:iam::366810793501:user/xmode-data-transfer"]),
        {"role_refused", "other_principal"},
    ),
    "the customer's own account": (principal([f"arn:aws:iam::{ACCOUNT}:root"]), {"role_refused"}),
    "another partition": (
        principal(["arn:aws-cn:iam::366810793500:user/xmode-data-transfer"]),
        {"role_refused", "wrong_partition"},
    ),
    "deny": (in_trust(Effect="Deny"), {"role_refused"}),
    "effect misspelt": (in_trust(Effect="allow"), {"malformed_statement", "cannot_tell"}),
    "another action": (in_trust(Action="sts:TagSession"), {"role_refused"}),
    "action misspelt": (in_trust(Action="sts:AssumeRoles"), {"role_refused", "unknown_action"}),
    "MFA demanded": (
        in_trust(
            Condition={
                "StringEquals": {"sts:ExternalId": ID},
                "Bool": {"aws:MultiFactorAuthPresent": "true"},
            }
        ),
        {"role_refused"},
    ),
    "a resource": (in_trust(Resource="*"), {"resource_in_trust_policy", "cannot_tell"}),
}


@pytest.mark.parametrize("name", SPOILED_TRUST)
def test_a_wrong_trust_policy_has_its_cause(name: str) -> None:
    mutate, expected = SPOILED_TRUST[name]
    report = both(trust(mutate), permission())
    assert causes(report) - OF_THE_GUIDE == expected
    harmless = expected == {"trusts_whole_account"}
    assert report.exit_code == (0 if harmless else 4)
    assert report.outcome == ("ok" if harmless else "fix")


def statement(number: int, **changes: Any) -> Mutate:
    return lambda document: document["Statement"][number - 1].update(changes)


def gone(number: int) -> Mutate:
    return lambda document: document["Statement"].pop(number - 1)


def without(number: int, action: str) -> Mutate:
    return lambda document: document["Statement"][number - 1]["Action"].remove(action)


def renamed(number: int, action: str, other: str) -> Mutate:
    def mutate(document: Document) -> None:
        actions = document["Statement"][number - 1]["Action"]
        actions[actions.index(action)] = other

    return mutate


def acl(value: Any = None, key: str = "s3:x-amz-acl", operator: str = "StringEquals") -> Mutate:
    return statement(1, Condition={operator: {key: value or ["bucket-owner-full-control"]}})


def resource(*arns: str) -> Mutate:
    def mutate(document: Document) -> None:
        for one in document["Statement"][:2]:
            one["Resource"] = list(arns)

    return mutate


def whole_resource(*arns: str) -> Mutate:
    def mutate(document: Document) -> None:
        resource(*arns)(document)
        document["Statement"][2]["NotResource"] = list(arns)

    return mutate


def added(**extra: Any) -> Mutate:
    return lambda document: document["Statement"].append(extra)


def no_acl_condition(document: Document) -> None:
    del document["Statement"][0]["Condition"]


READING = {"list_denied", "head_denied", "get_acl_denied", "delete_denied"}
OBJECTS = {"put_denied", "head_denied", "get_acl_denied", "delete_denied"}
NOTHING = READING | {"put_denied"}

SPOILED_PERMISSION: dict[str, tuple[Mutate, set[str]]] = {
    "no writing statement": (gone(1), {"put_denied"}),
    "no reading statement": (gone(2), READING),
    "no PutObject": (without(1, "s3:PutObject"), {"put_denied"}),
    "no PutObjectAcl": (without(1, "s3:PutObjectAcl"), {"put_denied"}),
    "no PutObjectAcl, no condition": (
        lambda document: (without(1, "s3:PutObjectAcl")(document), no_acl_condition(document)),
        {"acl_refused"},
    ),
    "no DeleteObject": (without(2, "s3:DeleteObject"), {"delete_denied"}),
    "no GetObject": (without(2, "s3:GetObject"), {"head_denied"}),
    "no GetObjectAcl": (without(2, "s3:GetObjectAcl"), {"get_acl_denied"}),
    "no ListBucket": (without(2, "s3:ListBucket"), {"list_denied"}),
    "PutObjects": (renamed(1, "s3:PutObject", "s3:PutObjects"), {"put_denied", "unknown_action"}),
    "PutObjectACLs": (renamed(1, "s3:PutObjectAcl", "s3:PutObjectACLs"), {"put_denied", "unknown_action"}),
    "HeadBucket": (renamed(2, "s3:ListBucket", "s3:HeadBucket"), {"list_denied", "unknown_action"}),
    "HeadObject": (renamed(2, "s3:GetObject", "s3:HeadObject"), {"head_denied", "unknown_action"}),
    "ListObjectsV2": (renamed(2, "s3:ListBucket", "s3:ListObjectsV2"), {"list_denied", "unknown_action"}),
    "DeleteObjects": (renamed(2, "s3:DeleteObject", "s3:DeleteObjects"), {"delete_denied", "unknown_action"}),
    "ListAllMyBuckets for ListBucket": (
        renamed(2, "s3:ListBucket", "s3:ListAllMyBuckets"),
        {"list_denied"},
    ),
    "no condition on the ACL": (no_acl_condition, {"put_without_acl_allowed", "too_broad"}),
    "ACL misspelt": (acl(["bucket-owner-fullcontrol"]), {"put_denied"}),
    "another ACL": (acl(["private"]), {"put_denied"}),
    "ACL key misspelt": (acl(key="s3:x-amz-acls"), {"put_denied", "unknown_condition_key"}),
    "ACL key of another service": (acl(key="aws:x-amz-acl"), {"put_denied", "unknown_condition_key"}),
    "ACL denied": (acl(operator="StringNotEquals"), {"acl_refused", "too_broad"}),
    "grant instead of ACL": (acl(key="s3:x-amz-grant-full-control"), {"put_denied"}),
    "another bucket": (
        whole_resource("arn:aws:s3:::acme-date", "arn:aws:s3:::acme-date/*"),
        NOTHING | {"other_bucket", "too_broad"},
    ),
    "BUCKET left": (
        whole_resource("arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"),
        NOTHING | {"placeholder_left"},
    ),
    "bucket-name left": (
        whole_resource("arn:aws:s3:::bucket-name", "arn:aws:s3:::bucket-name/*"),
        NOTHING | {"placeholder_left"},
    ),
    "the bucket without its objects": (resource(ARN), OBJECTS | {"objects_not_named"}),
    "the bucket with a slash": (resource(ARN, f"{ARN}/"), OBJECTS | {"objects_not_named"}),
    "the objects without their bucket": (resource(f"{ARN}/*"), {"list_denied", "bucket_not_named"}),
    "another folder": (resource(ARN, f"{ARN}/exports/*"), OBJECTS),
    "the prefix without a slash at its end": (resource(ARN, f"{ARN}/xmode"), OBJECTS),
    "another partition": (
        resource("arn:aws-cn:s3:::acme-data", "arn:aws-cn:s3:::acme-data/*"),
        NOTHING | {"wrong_partition"},
    ),
    "region and account in the ARN": (
        resource(f"arn:aws:s3:us-east-1:{ACCOUNT}:{BUCKET}", f"arn:aws:s3:us-east-1:{ACCOUNT}:{BUCKET}/*"),
        NOTHING | {"malformed_arn"},
    ),
    "a URI for an ARN": (
        resource("s3://acme-data", "s3://acme-data/*"),
        {"malformed_arn", "cannot_tell"},
    ),
    "denied besides": (
        added(Effect="Deny", Action="s3:PutObject", Resource=f"{ARN}/*"),
        {"put_denied"},
    ),
    "deny narrowed to a folder": (
        lambda document: document["Statement"][2].update(NotResource=[f"{ARN}/x/*"], NotAction="s3:List*"),
        OBJECTS,
    ),
    "allow turned into deny": (statement(1, Effect="Deny"), {"put_denied"}),
    "deny turned into allow": (statement(3, Effect="Allow"), {"too_broad"}),
    "all of S3": (statement(2, Action="s3:*", Resource="*"), {"put_without_acl_allowed", "too_broad"}),
    "everything": (
        lambda document: document.update(Statement={"Effect": "Allow", "Action": "*", "Resource": "*"}),
        {"put_without_acl_allowed", "too_broad"},
    ),
    "an element misspelt": (
        lambda document: document["Statement"][0].update(Actions=document["Statement"][0].pop("Action")),
        {"unknown_element", "malformed_statement", "cannot_tell"},
    ),
    "statement in small letters": (
        lambda document: document.update(statement=document.pop("Statement")),
        {"unknown_element", "not_a_policy", "cannot_tell"},
    ),
    "a version of one's own": (lambda d: d.update(Version="2026-11-23"), {"unknown_element", "cannot_tell"}),
    "a condition on an address": (
        statement(2, Condition={"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}),
        {"cannot_tell"},
    ),
    "a principal": (
        statement(2, Principal={"AWS": VENDOR_PRINCIPAL}),
        {"principal_in_identity_policy", "cannot_tell"},
    ),
    "the trust policy": (
        lambda document: (document.clear(), document.update(guide_trust_policy(ID))),
        NOTHING | {"trust_policy_as_permission"},
    ),
}
UNCLEAR = {"a condition on an address"}
HARMLESS = {"no condition on the ACL", "deny turned into allow", "all of S3", "everything"}


@pytest.mark.parametrize("name", SPOILED_PERMISSION)
def test_a_wrong_permission_policy_has_its_cause(name: str) -> None:
    mutate, expected = SPOILED_PERMISSION[name]
    document = source(permission(mutate), "permission.json", Kind.PERMISSION)
    report = lint([source(trust()), document], TOLD)
    assert causes(report) - OF_THE_GUIDE == expected
    outcome = "unclear" if name in UNCLEAR else "ok" if name in HARMLESS else "fix"
    assert report.outcome == outcome
    assert report.exit_code == (4 if outcome == "fix" else 0)


# --- Bucket and key policies ---------------------------------------------------------------------------


def on_bucket(**statement: Any) -> Document:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Principal": "*", "Resource": [ARN, f"{ARN}/*"], **statement}],
    }


BUCKET_POLICIES: dict[str, tuple[Document, set[str]]] = {
    "TLS demanded": (
        on_bucket(Effect="Deny", Action="s3:*", Condition={"Bool": {"aws:SecureTransport": "false"}}),
        set(),
    ),
    "all others shut out": (
        on_bucket(
            Effect="Deny",
            Action="s3:*",
            Condition={"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/admin"}},
        ),
        NOTHING | {"abort_denied"},
    ),
    "all others but us shut out": (
        on_bucket(Effect="Deny", Action="s3:*", Condition={"ArnNotLike": {"aws:PrincipalArn": ROLE}}),
        set(),
    ),
    "put denied": (on_bucket(Effect="Deny", Action="s3:PutObject"), {"put_denied"}),
    "delete denied": (on_bucket(Effect="Deny", Action="s3:DeleteObject"), {"delete_denied"}),
    "encryption header demanded": (
        on_bucket(
            Effect="Deny",
            Action="s3:PutObject",
            Condition={"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}},
        ),
        {"put_denied"},
    ),
    "an address demanded": (
        on_bucket(
            Effect="Deny", Action="s3:*", Condition={"NotIpAddress": {"aws:SourceIp": ["198.51.100.0/24"]}}
        ),
        {"cannot_tell"},
    ),
    "of another bucket": (
        {**on_bucket(Effect="Deny", Action="s3:*", Resource="arn:aws:s3:::other-bucket/*")},
        {"other_bucket"},
    ),
}


@pytest.mark.parametrize("name", BUCKET_POLICIES)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside the role's"])
def test_a_bucket_policy_has_its_cause(name: str, alone: bool) -> None:
    document, expected = BUCKET_POLICIES[name]
    sources = [source(document, "bucket.json")]
    if not alone:
        sources.append(source(permission(), "permission.json"))
    report = lint(sources, TOLD)
    assert report.kinds[0] == ("bucket.json", Kind.BUCKET)
    ignored = OF_THE_GUIDE - {"abort_denied"} if alone else OF_THE_GUIDE
    assert causes(report) - ignored == expected - (set() if alone else OF_THE_GUIDE)


def test_a_bucket_policy_may_grant_what_the_role_lacks() -> None:
    grant = on_bucket(Effect="Allow", Action="s3:GetObjectAcl", Principal={"AWS": ROLE})
    lacking = permission(without(2, "s3:GetObjectAcl"))
    assert "get_acl_denied" in causes(lint([source(lacking)], TOLD))
    assert "get_acl_denied" not in causes(lint([source(lacking), source(grant)], TOLD))


def test_across_accounts_both_must_allow() -> None:
    told = SetupValues(ID, ROLE, BUCKET, PREFIX, bucket_owner="999988887777")
    grant = on_bucket(Effect="Allow", Action="s3:*", Principal={"AWS": ROLE})
    one_action = on_bucket(Effect="Allow", Action="s3:GetObject", Principal={"AWS": ROLE})
    assert causes(lint([source(permission()), source(grant)], told)) == OF_THE_GUIDE
    assert "put_denied" in causes(lint([source(permission()), source(one_action)], told))


def key_policy(who: str, *actions: str) -> Document:
    entry = {"Effect": "Allow", "Principal": {"AWS": who}, "Action": list(actions), "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [entry]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (key_policy(f"arn:aws:iam::{ACCOUNT}:root", "kms:*"), set()),
        (key_policy(ROLE, "kms:GenerateDataKey", "kms:Decrypt"), set()),
        (key_policy(ROLE, "kms:GenerateDataKey"), {"kms_denied"}),
        (key_policy(ROLE, "kms:GenerateDataKeys", "kms:Decrypt"), {"kms_denied", "unknown_action"}),
        (key_policy("arn:aws:iam::999988887777:root", "kms:*"), {"kms_denied"}),
    ],
)
def test_a_key_policy_has_its_cause(document: Document, expected: set[str]) -> None:
    report = lint([source(document)], TOLD)
    assert report.kinds == (("policy.json", Kind.KEY),)
    assert causes(report) == expected


def test_the_guides_third_statement_denies_the_key() -> None:
    told = Given(ID, BUCKET, PREFIX, ACCOUNT, region="us-east-1", kms_key_arn=KEY)
    report = both(trust(), permission(), told)
    assert "kms_denied" in causes(report)
    (finding,) = (one for one in report.findings if one.cause == "kms_denied")
    assert "statement 3 denies" in finding.message
    assert finding.fix is not None
    assert KEY in json.dumps(finding.fix.statement)


# --- Text ----------------------------------------------------------------------------------------------

GUIDE_TRUST = """\
{
  "Version": "2012-10-17",
  "Statement": {
    "Effect": "Allow",
    "Principal": { "AWS": "arn:aws:iam::366810793500:user/xmode-data-transfer"},
    "Action": "sts:AssumeRole",
    "Condition": {
      "StringEquals": {
        "sts:ExternalId": "{replace with input company name, without spaces: "=,.@:/-_}"
      }
    }
  }
}
"""


def test_the_guides_stray_quote_is_reported_with_its_position_and_fix() -> None:
    report = lint([source(GUIDE_TRUST, "trust.json")], TOLD)
    (issue,) = report.issues
    assert (issue.fault, issue.severity, report.exit_code) == ("invalid_json", Severity.ERROR, 4)
    assert issue.message.startswith("line 9, column 79: the guide's placeholder text is still here")
    assert issue.fix is not None
    assert '"sts:ExternalId": "AcmeCorp"' in issue.fix.summary


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"Version": "2012-10-17",}', "line 1, column 25: a comma before a closing bracket"),
        ("{\u201cVersion\u201d: 1}", "line 1, column 2: typographic quotation marks"),
        (
            '{"Statement": []}\n{"Statement": []}',
            "line 2, column 1: there is text after the end",
        ),
        ("", "the file is empty"),
        ("{'Statement': []}", "line 1, column 2: this is not JSON"),
        ("[1]", "not a policy"),
        ('"text"', "not a policy"),
        ("{}", "not a policy"),
        ('{"Statement": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "nests too deeply"),
        ('{"Statement": ' + "9" * 5000 + "}", "not a policy"),
        ("aws iam list-roles", "have no policy document"),
    ],
)
def test_text_that_is_not_a_policy_is_reported(text: str, told: str) -> None:
    report = lint([source(text)], TOLD)
    assert told in report.issues[0].message
    assert report.exit_code == 4


def test_the_guides_own_command_lines_are_read() -> None:
    calls = f"""
aws iam create-role --role-name Test --assume-role-policy-document
    '{json.dumps(trust(), indent=1)}'
aws iam create-policy --policy-name my-policy --policy-document \\
    '{json.dumps(permission())}'
aws iam attach-role-policy --role-name Test --policy-arn arn:aws:iam::123456789012:role/my-policy
"""
    report = lint([source(calls)], TOLD)
    assert [kind for _, kind in report.kinds] == [Kind.TRUST, Kind.PERMISSION]
    assert causes(report) - OF_THE_GUIDE == {"role_where_policy_belongs"}
    (issue,) = (one for one in report.issues if one.fault == "role_where_policy_belongs")
    assert issue.fix is not None
    assert "arn:aws:iam::123456789012:policy/my-policy" in issue.fix.summary
    mended = calls.replace(":role/my-policy", ":policy/my-policy")
    assert lint([source(mended)], TOLD).outcome == "ok"


@pytest.mark.parametrize(
    ("printed", "kind"),
    [
        ({"Role": {"RoleName": "XMode", "AssumeRolePolicyDocument": trust()}}, Kind.TRUST),
        ({"PolicyVersion": {"Document": permission(), "VersionId": "v1"}}, Kind.PERMISSION),
        ({"RoleName": "XMode", "PolicyName": "p", "PolicyDocument": permission()}, Kind.PERMISSION),
        ({"Policy": json.dumps(on_bucket(Effect="Deny", Action="s3:PutBucketPolicy"))}, Kind.BUCKET),
        ({"Policy": json.dumps(key_policy(ROLE, "kms:*"))}, Kind.KEY),
    ],
)
def test_the_output_of_the_aws_cli_is_unwrapped(printed: Document, kind: Kind) -> None:
    report = lint([source(printed)], TOLD)
    assert [one for _, one in report.kinds] == [kind]
    assert report.exit_code == 0


def test_a_duplicate_key_is_reported() -> None:
    text = json.dumps(trust()).replace('"Effect"', '"Effect": "Deny", "Effect"')
    assert "duplicate_key" in causes(lint([source(text)], TOLD))


def test_did_you_mean() -> None:
    report = lint([source(permission(renamed(1, "s3:PutObject", "s3:PutObejct")))], TOLD)
    (issue,) = (one for one in report.issues if one.fault == "unknown_action")
    assert issue.statement == 1
    assert "did you mean s3:PutObject?" in issue.message


def test_a_finding_names_the_statement_that_does_not_apply() -> None:
    report = lint([source(permission(acl(["private"])))], TOLD)
    (finding,) = (one for one in report.findings if one.cause == "put_denied")
    assert "statement 1 would, but its condition is not met" in finding.message
    assert finding.fix is not None
    assert finding.fix.command is not None
    assert ARN in finding.fix.command


def test_the_documents_are_not_changed() -> None:
    document = permission()
    before = deepcopy(document)
    lint([source(document)], TOLD)
    assert document == before
