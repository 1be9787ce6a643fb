import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws.policy import ACL, decide, evaluate, guide_permission_policy
from xmode_transfer.aws.policy.calls import S3Call
from xmode_transfer.aws.policy.documents import (
    SESSION_POLICY_MAX_CHARACTERS,
    Step,
    compact,
    corrected_permission_policy,
    session_policy,
)
from xmode_transfer.aws.policy.evaluate import Request

KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
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
