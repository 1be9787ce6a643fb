import json
from pathlib import Path

import pytest

from xmode_transfer.aws.policy import (
    ACL,
    VENDOR_PRINCIPAL,
    Outcome,
    Request,
    S3Call,
    assume_role,
    corrected_permission_policy,
    corrected_trust_policy,
    decide,
    evaluate,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.aws.policy.documents import GRANTS

GUIDE = Path(__file__).parents[2] / "golden" / "guide"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ALIAS = "arn:aws:kms:eu-west-1:111122223333:alias/deliveries"
VIA_S3 = {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}
ROLE = "arn:aws:iam::111122223333:role/XMode"


def test_guide_documents_are_the_guides():
    permission = (GUIDE / "permission-policy.json").read_text().replace("BUCKET", "acme-data")
    trust = (GUIDE / "trust-policy.json").read_text().replace("EXTERNAL-ID", "AcmeCorp")
    assert guide_permission_policy("acme-data") == json.loads(permission)
    assert guide_trust_policy("AcmeCorp") == json.loads(trust)


def test_the_documentation_shows_the_corrected_policy():
    text = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
    shown = json.loads(text.split("```json\n", 1)[1].split("```", 1)[0])
    assert shown == corrected_permission_policy("BUCKET", "PREFIX/", "KEY-ARN", "REGION")


def test_documents_share_nothing_that_could_be_changed():
    document = guide_permission_policy("acme-data")
    document["Statement"][0]["Resource"].append("arn:aws:s3:::other")
    assert document["Statement"][2]["NotResource"] == ["arn:aws:s3:::acme-data", "arn:aws:s3:::acme-data/*"]


@pytest.mark.parametrize(
    ("external_id", "previous", "given", "trusted"),
    [
        ("xm-1", None, "xm-1", True),
        ("xm-1", None, "XM-1", False),
        ("xm-1", None, None, False),
        ("xm-1", "AcmeCorp", "AcmeCorp", True),
        ("xm-1", "AcmeCorp", "xm-1", True),
        ("xm-1", "AcmeCorp", "Globex", False),
    ],
)
def test_corrected_trust(external_id, previous, given, trusted):
    document = corrected_trust_policy(external_id, previous_external_id=previous)
    decision = assume_role(document, principal=VENDOR_PRINCIPAL, role_arn=ROLE, external_id=given)
    assert decision.allowed is trusted


# The recommended policy: what is granted below the prefix, and nothing beside it.
CORRECTED = [
    (S3Call("PutObject", "b", "x/k", acl=ACL), True),
    (S3Call("PutObject", "b", "x/k"), True),
    (S3Call("PutObject", "b", "x/k", acl="public-read"), False),
    (S3Call("PutObject", "b", "y/k", acl=ACL), False),
    (S3Call("PutObject", "b", "xk", acl=ACL), False),
    (S3Call("CreateMultipartUpload", "b", "x/k", acl=ACL), True),
    (S3Call("UploadPart", "b", "x/k"), True),
    (S3Call("UploadPart", "b", "x/k", acl=ACL), True),
    (S3Call("CompleteMultipartUpload", "b", "x/k"), True),
    (S3Call("AbortMultipartUpload", "b", "x/k"), True),
    (S3Call("ListParts", "b", "x/k"), True),
    (S3Call("ListMultipartUploads", "b"), False),
    (S3Call("HeadObject", "b", "x/k"), True),
    (S3Call("GetObjectAcl", "b", "x/k"), True),
    (S3Call("DeleteObject", "b", "x/k"), True),
    (S3Call("DeleteObject", "b", "other/k"), False),
    (S3Call("ListObjectsV2", "b", prefix="x/"), True),
    (S3Call("ListObjectsV2", "b", prefix="y/"), False),
    (S3Call("ListObjectsV2", "b"), False),
    (S3Call("HeadBucket", "b"), False),
    (S3Call("PutObjectAcl", "b", "x/k", acl=ACL), True),
    (S3Call("PutObjectAcl", "b", "x/k"), False),  # the ACL is in its body, which no key shows
    (S3Call("PutObjectAcl", "b", "x/k", acl="public-read"), False),
    *(
        (S3Call(operation, "b", "x/k", grants=((f"x-amz-grant-{name}", 'uri="..."'),)), False)
        for operation in ("PutObject", "CreateMultipartUpload", "PutObjectAcl")
        for name in GRANTS
    ),
    (S3Call("GetObject", "b2", "x/k"), False),
]


@pytest.mark.parametrize(("call", "expected"), CORRECTED, ids=str)
def test_corrected_permissions(call, expected):
    assert decide(call, [corrected_permission_policy("b", "x/")]).allowed is expected


def test_corrected_policy_denies_other_buckets_whatever_else_the_role_has():
    everything = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    policies = [everything, corrected_permission_policy("b", "")]
    for call in (S3Call("GetObject", "elsewhere", "k"), S3Call("HeadBucket", "b-2")):
        assert decide(call, policies).outcome is Outcome.EXPLICIT_DENY
    assert decide(S3Call("GetObject", "b", "anything"), policies).allowed


def test_if_exists_in_the_deny_would_refuse_parts():
    """The trap that the corrected policy avoids: IfExists is true for a key that is not there."""
    document = corrected_permission_policy("b", "x/")
    deny = next(statement for statement in document["Statement"] if statement["Sid"] == "NoOtherAcl")
    deny["Condition"] = {"StringNotEqualsIfExists": {"s3:x-amz-acl": ACL}}
    assert decide(S3Call("UploadPart", "b", "x/k"), [document]).outcome is Outcome.EXPLICIT_DENY


@pytest.mark.parametrize(
    ("key", "context", "expected"),
    [
        (KEY, VIA_S3, Outcome.ALLOW),
        (KEY, {"kms:ViaService": "s3.us-east-1.amazonaws.com"}, Outcome.IMPLICIT_DENY),
        (KEY, {"kms:ViaService": "ec2.eu-west-1.amazonaws.com"}, Outcome.IMPLICIT_DENY),
        (KEY, {"kms:ViaService": ()}, Outcome.IMPLICIT_DENY),
        (KEY, {}, Outcome.CANNOT_TELL),
        (KEY.replace("1234", "9999"), VIA_S3, Outcome.IMPLICIT_DENY),
    ],
)
def test_corrected_policy_grants_the_key_through_s3_only(key, context, expected):
    document = corrected_permission_policy("b", "x/", KEY, "eu-west-1")
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        assert evaluate([document], Request(ROLE, action, key, context)).outcome is expected
    assert not evaluate([document], Request(ROLE, "kms:Encrypt", key, context)).allowed


def test_an_alias_is_named_by_a_condition_because_kms_checks_the_key():
    document = corrected_permission_policy("b", "x/", ALIAS, "eu-west-1")
    ours = {**VIA_S3, "kms:ResourceAliases": ("alias/other", "alias/deliveries")}
    assert evaluate([document], Request(ROLE, "kms:Decrypt", KEY, ours)).allowed
    other = {**VIA_S3, "kms:ResourceAliases": ("alias/other",)}
    assert not evaluate([document], Request(ROLE, "kms:Decrypt", KEY, other)).allowed


def test_a_key_needs_its_region():
    with pytest.raises(ValueError, match="region"):
        corrected_permission_policy("b", "x/", KEY)


@pytest.mark.parametrize(
    ("partition", "region", "service"),
    [
        ("aws-cn", "cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
        ("aws-us-gov", "us-gov-west-1", "s3.us-gov-west-1.amazonaws.com"),
        ("aws-eusc", "eusc-de-east-1", "s3.eusc-de-east-1.amazonaws.eu"),
    ],
)
def test_other_partitions_have_arns_of_their_own(partition, region, service):
    key = KEY.replace("aws:", f"{partition}:", 1)
    text = json.dumps(corrected_permission_policy("b", "x/", key, region, partition=partition))
    assert "arn:aws:" not in text
    assert f'"{service}"' in text
