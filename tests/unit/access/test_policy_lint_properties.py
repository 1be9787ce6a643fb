"""Whatever is pasted: no crash, and never "ok" for documents that would stop a delivery."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.forms import examples
from xmode_transfer.access.lint import Kind, Source, lint
from xmode_transfer.access.lint.records import Given, Report
from xmode_transfer.aws.policy import decide
from xmode_transfer.aws.policy.documents import (
    ACL,
    VENDOR_PRINCIPAL,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.aws.policy.evaluate import Outcome, S3Call, assume_role

ID, BUCKET, PREFIX, ACCOUNT = "AcmeCorp", "acme-data", "xmode/", "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/XMode"
TOLD = Given(external_id=ID, bucket=BUCKET, prefix=PREFIX, account=ACCOUNT)
NOBODY = Given()

WORDS = st.sampled_from(
    [
        "Version",
        "2012-10-17",
        "Id",
        "Statement",
        "Sid",
        "Effect",
        "Allow",
        "Deny",
        "Principal",
        "NotPrincipal",
        "AWS",
        "*",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
        "StringEquals",
        "StringLike",
        "Null",
        "Bool",
        "sts:ExternalId",
        "s3:x-amz-acl",
        "s3:PutObject",
        "sts:AssumeRole",
        "${aws:username}",
        "arn:aws:s3:::acme-data",
        "arn:aws:s3:::acme-data/*",
        ROLE,
        VENDOR_PRINCIPAL,
        "kms:Decrypt",
        "{",
        "\x00",
    ]
)
TEXTS = WORDS | st.text(max_size=8)
SCALARS = TEXTS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=25,
)
KINDS = st.none() | st.sampled_from(list(Kind))


def words_of(report: Report) -> None:
    """Everything of a report can be shown."""
    for finding in report.findings:
        assert finding.message
    for issue in report.issues:
        assert issue.message
        assert issue.message.encode("utf-8", "surrogatepass")
    assert report.outcome in ("ok", "fix", "unclear")


@given(VALUES, KINDS, st.sampled_from([TOLD, NOBODY]))
@example(
    {"Statement": {"Effect": {"a": []}, "Principal": [], "Action": [[]], "Condition": {"x": {"y": {}}}}},
    None,
    TOLD,
)
def test_any_json_gets_a_report(value: Any, kind: Kind | None, told: Given) -> None:
    words_of(lint([Source("x", json.dumps(value), kind)], told))


@given(st.dictionaries(WORDS, VALUES, max_size=8), KINDS, st.sampled_from([TOLD, NOBODY]))
def test_any_statement_gets_a_report(statement: Any, kind: Kind | None, told: Given) -> None:
    for found in (statement, [statement, statement]):
        text = json.dumps({"Version": "2012-10-17", "Statement": found})
        words_of(lint([Source("x", text, kind)], told))


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
@example("aws iam create-policy --policy-document '{}'")
@example("\ufeff{}")
def test_any_text_gets_a_report(text: str) -> None:
    assert lint([Source("x", text)], TOLD).exit_code == 4


@given(st.data())
def test_a_truncated_document_is_reported(data: st.DataObject) -> None:
    text = json.dumps(guide_permission_policy(BUCKET), indent=1)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    assert lint([Source("x", cut)], TOLD).exit_code == 4


# --- Never ok for what would stop a delivery -------------------------------------------------------------

ACTIONS = st.sampled_from(
    [
        "s3:*",
        "*",
        "s3:Put*",
        "s3:PutObject",
        "s3:PutObjectAcl",
        "s3:GetObject",
        "s3:GetObjectAcl",
        "s3:Get*",
        "s3:ListBucket",
        "s3:List*",
        "s3:DeleteObject",
        "s3:Delete*",
        "S3:PUTOBJECT",
        "s3:PutObjects",
    ]
)
RESOURCES = st.sampled_from(
    [
        "*",
        "arn:aws:s3:::*",
        "arn:aws:s3:::acme-data",
        "arn:aws:s3:::acme-data/*",
        "arn:aws:s3:::acme-data/xmode/*",
        "arn:aws:s3:::acme-*",
        "arn:aws:s3:::other/*",
        "arn:aws:s3:::acme-data/xmode/us-daily/*",
    ]
)
CONDITIONS = st.sampled_from(
    [
        None,
        {"StringEquals": {"s3:x-amz-acl": ACL}},
        {"StringNotEquals": {"s3:x-amz-acl": ACL}},
        {"StringEqualsIfExists": {"s3:x-amz-acl": [ACL]}},
        {"StringLike": {"s3:prefix": "xmode/*"}},
        {"Null": {"s3:x-amz-acl": "true"}},
        {"Bool": {"aws:SecureTransport": "false"}},
        {"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}},
    ]
)


@st.composite
def statements(draw: st.DrawFn) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": draw(st.sampled_from(["Allow", "Allow", "Allow", "Deny"]))}
    statement[draw(st.sampled_from(["Action", "Action", "NotAction"]))] = draw(
        st.lists(ACTIONS, min_size=1, max_size=4)
    )
    statement[draw(st.sampled_from(["Resource", "Resource", "NotResource"]))] = draw(
        st.lists(RESOURCES, min_size=1, max_size=3)
    )
    condition = draw(CONDITIONS)
    if condition is not None:
        statement["Condition"] = condition
    return statement


def calls_for(place: str) -> list[S3Call]:
    key = f"{PREFIX}{place}/part-0001.csv"
    return [
        S3Call("PutObject", BUCKET, key, acl=ACL),
        *(S3Call(name, BUCKET, key) for name in ("HeadObject", "GetObjectAcl", "DeleteObject")),
        S3Call("ListObjectsV2", BUCKET, prefix=PREFIX),
    ]


CALLS = calls_for("us-daily/2026/11/22")
ELSEWHERE = [*calls_for("drops"), *calls_for("_manifests"), *calls_for("_xmode-check/1")]


@settings(max_examples=examples(15))
@given(st.lists(statements(), min_size=1, max_size=5))
def test_what_denies_a_delivery_is_never_ok(listed: list[dict[str, Any]]) -> None:
    document = {
        "Version": "2012-10-17",
        "Statement": [*guide_permission_policy(BUCKET)["Statement"], *listed],
    }
    for tried in (document, {**document, "Statement": listed}):
        outcomes = {decide(call, [tried]).outcome for call in CALLS}
        report = lint([Source("x", json.dumps(tried), Kind.PERMISSION)], TOLD)
        # The lint knows more of a request (that it comes over TLS, say), so it may tell what this cannot.
        if outcomes & {Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY}:
            assert report.outcome == "fix"
        elif outcomes | {decide(call, [tried]).outcome for call in ELSEWHERE} == {Outcome.ALLOW}:
            assert report.outcome != "fix"


ID_VALUES = st.sampled_from([ID, "AcmeCorp*", "*", "acmecorp", "Other", f"{ID}-2"])
ID_OPERATORS = st.sampled_from(
    ["StringEquals", "StringLike", "StringEqualsIgnoreCase", "StringEqualsIfExists", "StringNotEquals"]
)


@given(ID_OPERATORS, st.lists(ID_VALUES, min_size=1, max_size=2), st.booleans())
def test_a_wrong_trust_policy_is_never_ok(operator: str, values: list[str], conditioned: bool) -> None:
    document = guide_trust_policy(ID)
    document["Statement"]["Condition"] = {operator: {"sts:ExternalId": values}} if conditioned else {}

    def lets_in(external_id: str | None) -> bool:
        return assume_role(
            document, principal=VENDOR_PRINCIPAL, role_arn=ROLE, external_id=external_id
        ).allowed

    report = lint([Source("x", json.dumps(document))], TOLD)
    right = lets_in(ID) and not lets_in(None) and not lets_in("never-issued") and not lets_in("aCMEcORP")
    if not right:
        assert report.outcome == "fix"
    if report.outcome == "ok":
        assert right
