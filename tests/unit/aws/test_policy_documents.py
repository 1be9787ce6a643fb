"""The policy documents that we recommend, and our session policies."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws.policy import decide, evaluate
from xmode_transfer.aws.policy.documents import (
    ACL,
    GRANTS,
    SESSION_POLICY_MAX_CHARACTERS,
    VENDOR_PRINCIPAL,
    Step,
    compact,
    corrected_permission_policy,
    corrected_trust_policy,
    guide_permission_policy,
    guide_trust_policy,
    session_policy,
)
from xmode_transfer.aws.policy.evaluate import Outcome, Request, S3Call, assume_role

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


EVERYTHING = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}

CALLS = {
    "put": S3Call("PutObject", "b", "x/k", acl=ACL),
    "create": S3Call("CreateMultipartUpload", "b", "x/k", acl=ACL),
    "part": S3Call("UploadPart", "b", "x/k"),
    "complete": S3Call("CompleteMultipartUpload", "b", "x/k"),
    "abort": S3Call("AbortMultipartUpload", "b", "x/k"),
    "parts": S3Call("ListParts", "b", "x/k"),
    "head": S3Call("HeadObject", "b", "x/k"),
    "get": S3Call("GetObject", "b", "x/k"),
    "acl": S3Call("GetObjectAcl", "b", "x/k"),
    "list": S3Call("ListObjectsV2", "b", prefix="x/feed/"),
    "absent": S3Call("ListObjectsV2", "b", prefix="x/k"),  # how S3 judges a HEAD of an absent key
    "delete": S3Call("DeleteObject", "b", "x/k"),
}
WRITING = {"put", "create", "part", "complete", "abort", "parts"}
ALLOWED = {
    Step.DELIVER: WRITING | {"head", "get", "list", "absent"},
    Step.CHECK: set(CALLS),
    Step.LIST: {"head", "get", "acl", "list", "absent"},
    Step.VERIFY: {"head", "get", "acl", "list", "absent"},
    Step.CLEANUP: {"head", "get", "list", "absent", "delete"},
    Step.RECALL: WRITING | {"head", "get", "list", "absent", "delete"},
    Step.NOTICE: set(),  # nothing here: its place is below _notices/
}


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("prefix", ["x/", ""])
def test_each_step_has_its_verbs_and_no_other(step, prefix):
    policy = session_policy(step, bucket="b", prefix=prefix)
    may = {name for name, call in CALLS.items() if decide(call, [EVERYTHING], policy).allowed}
    assert may == ALLOWED[step]


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize(
    "call",
    [
        S3Call("PutObject", "b", "y/k", acl=ACL),
        S3Call("HeadObject", "b", "xk"),
        S3Call("HeadObject", "b", "X/k"),
        S3Call("DeleteObject", "b", "k"),
        S3Call("HeadObject", "b2", "x/k"),
        S3Call("ListObjectsV2", "b", prefix=""),
        S3Call("ListObjectsV2", "b", prefix="y/"),
        S3Call("ListObjectsV2", "b"),
        S3Call("HeadBucket", "b"),
        S3Call("DeleteObject", "b", "x/k", version_id="1"),
        S3Call("GetBucketPolicy", "b"),
    ],
    ids=str,
)
def test_nothing_beside_the_prefix(step, call):
    policy = session_policy(step, bucket="b", prefix="x/")
    assert not decide(call, [EVERYTHING], policy).allowed


@pytest.mark.parametrize("prefix", ["x/", ""])
def test_a_notices_session_ends_at_their_place(prefix):
    policy = session_policy(Step.NOTICE, bucket="b", prefix=prefix)

    def may(operation, key, **how):
        return decide(S3Call(operation, "b", f"{prefix}{key}", **how), [EVERYTHING], policy).allowed

    for operation in ("PutObject", "HeadObject"):
        assert may(operation, "_notices/n.json", acl=ACL)
        for key in ("us-daily/n.json", "_notices", "_notices2/n.json", "x/_notices/n.json"):
            assert not may(operation, key, acl=ACL)
    assert not may("DeleteObject", "_notices/n.json")
    assert not may("GetObjectAcl", "_notices/n.json")
    for listed in ("", "_notices/", "_notices/n.json"):
        call = S3Call("ListObjectsV2", "b", prefix=f"{prefix}{listed}")
        assert not decide(call, [EVERYTHING], policy).allowed
    guide = [guide_permission_policy("b")]
    call = S3Call("PutObject", "b", f"{prefix}_notices/n.json", acl=ACL)
    assert decide(call, guide, policy).allowed


def test_a_whole_bucket_needs_no_prefix_in_a_listing():
    policy = session_policy(Step.LIST, bucket="b", prefix="")
    assert decide(S3Call("ListObjectsV2", "b"), [EVERYTHING], policy).allowed
    assert decide(S3Call("HeadBucket", "b"), [EVERYTHING], policy).allowed
    assert not decide(S3Call("HeadBucket", "b2"), [EVERYTHING], policy).allowed


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.NOTICE])
def test_a_wildcard_in_a_prefix_is_a_character(step):
    policy = session_policy(step, bucket="b", prefix="a*?$/")
    assert decide(S3Call("HeadObject", "b", "a*?$/k"), [EVERYTHING], policy).allowed
    assert decide(S3Call("ListObjectsV2", "b", prefix="a*?$/"), [EVERYTHING], policy).allowed
    assert not decide(S3Call("HeadObject", "b", "abc$/k"), [EVERYTHING], policy).allowed
    assert not decide(S3Call("ListObjectsV2", "b", prefix="abc$/"), [EVERYTHING], policy).allowed


@pytest.mark.parametrize("step", Step)
def test_the_session_takes_nothing_from_a_delivery_that_the_guide_allows(step):
    """Parts aside: the guide's own condition decides about those."""
    guide = [guide_permission_policy("b")]
    policy = session_policy(step, bucket="b", prefix="x/")
    for name in ALLOWED[step]:
        assert decide(CALLS[name], guide, policy).allowed is decide(CALLS[name], guide).allowed, name


def test_the_session_does_not_break_parts():
    policy = session_policy(Step.DELIVER, bucket="b", prefix="x/")
    assert decide(CALLS["part"], [corrected_permission_policy("b", "x/")], policy).allowed


@pytest.mark.parametrize(
    ("step", "writes"),
    [
        (Step.DELIVER, True),
        (Step.CHECK, True),
        (Step.LIST, False),
        (Step.VERIFY, False),
        (Step.CLEANUP, False),
        (Step.NOTICE, True),
    ],
)
def test_a_key_that_is_named_is_the_only_one(step, writes):
    policy = session_policy(step, bucket="b", prefix="x/", kms_key_arn=KEY)

    def may(action, key=KEY):
        return evaluate([policy], Request("", action, key)).allowed

    assert may("kms:Decrypt")
    assert may("kms:GenerateDataKey") is writes
    assert not may("kms:Decrypt", KEY.replace("1234", "9999"))
    assert not may("kms:Encrypt")


def test_a_bucket_may_encrypt_by_default_with_a_key_that_nobody_named():
    policy = session_policy(Step.DELIVER, bucket="b", prefix="x/")
    through_s3 = {"kms:ViaService": "s3.us-east-1.amazonaws.com"}
    assert evaluate([policy], Request("", "kms:GenerateDataKey", KEY, through_s3)).allowed
    for service in ("ec2.us-east-1.amazonaws.com", ()):
        request = Request("", "kms:GenerateDataKey", KEY, {"kms:ViaService": service})
        assert not evaluate([policy], request).allowed


def test_other_partitions():
    policy = session_policy(Step.DELIVER, bucket="b", prefix="x/", partition="aws-us-gov")
    resources = [statement["Resource"] for statement in policy["Statement"]]
    assert resources[:2] == ["arn:aws-us-gov:s3:::b", "arn:aws-us-gov:s3:::b/x/*"]
    china = session_policy(Step.DELIVER, bucket="b", prefix="x/", partition="aws-cn")
    assert "s3.*.amazonaws.com.cn" in compact(china)


@pytest.mark.parametrize("step", Step)
def test_compact_is_the_same_document_without_spaces(step):
    policy = session_policy(step, bucket="b", prefix="x/", kms_key_arn=KEY)
    text = compact(policy)
    assert json.loads(text) == policy
    assert not re.search(r"\s", text)


@pytest.mark.parametrize("step", Step)
def test_the_longest_names_that_the_configuration_takes_still_fit(step):
    policy = session_policy(step, bucket="b" * 63, prefix="p" * 511 + "/", kms_key_arn=KEY)
    assert len(compact(policy)) <= SESSION_POLICY_MAX_CHARACTERS


def test_compact_refuses_what_sts_would():
    policy = session_policy(Step.DELIVER, bucket="b", prefix="")
    exact = {**policy, "Id": ""}
    exact["Id"] = "i" * (SESSION_POLICY_MAX_CHARACTERS - len(compact(exact)))
    assert len(compact(exact)) == SESSION_POLICY_MAX_CHARACTERS
    exact["Id"] += "i"
    with pytest.raises(ValueError, match=r"2049 characters.*2048"):
        compact(exact)


@given(prefix=st.text(max_size=40), key=st.text(max_size=40), step=st.sampled_from(Step))
def test_only_keys_below_the_prefix_pass(prefix, key, step):
    policy = session_policy(step, bucket="b", prefix=prefix)
    decision = decide(S3Call("GetObject", "b", key), [EVERYTHING], policy)
    if not key.startswith(prefix):
        assert not decision.allowed
    elif step is Step.NOTICE:
        assert decision.allowed is key.startswith(f"{prefix}_notices/")
    elif not {"\x00", "\x01", "\x02"} & set(prefix):
        assert decision.allowed
