"""What the setup guide's permission policy decides, call by call, as AWS documents it."""

import pytest

from xmode_transfer.aws.policy import decide, evaluate
from xmode_transfer.aws.policy.documents import ACL, guide_permission_policy
from xmode_transfer.aws.policy.evaluate import Outcome, Request, S3Call

ALLOW, DENY, EXPLICIT = Outcome.ALLOW, Outcome.IMPLICIT_DENY, Outcome.EXPLICIT_DENY
FULL_CONTROL = (("x-amz-grant-full-control", 'id="1234"'),)

# (call, outcome, statement that decides, counted from 0)
TABLE = [
    (S3Call("PutObject", "b", "k", acl=ACL), ALLOW, 0),
    (S3Call("PutObject", "b", "k"), DENY, None),
    (S3Call("PutObject", "b", "k", acl="private"), DENY, None),
    (S3Call("PutObject", "b", "k", acl="public-read"), DENY, None),
    (S3Call("PutObject", "b", "k", acl="Bucket-Owner-Full-Control"), DENY, None),
    (S3Call("PutObject", "b", "k", grants=FULL_CONTROL), DENY, None),
    (S3Call("CreateMultipartUpload", "b", "k", acl=ACL), ALLOW, 0),
    (S3Call("CreateMultipartUpload", "b", "k"), DENY, None),
    (S3Call("UploadPart", "b", "k"), DENY, None),  # if parts carry no ACL
    (S3Call("UploadPart", "b", "k", acl=ACL), ALLOW, 0),  # if they are judged by their upload's
    (S3Call("CompleteMultipartUpload", "b", "k"), DENY, None),
    (S3Call("CompleteMultipartUpload", "b", "k", acl=ACL), ALLOW, 0),
    (S3Call("AbortMultipartUpload", "b", "k"), DENY, None),
    (S3Call("ListParts", "b", "k"), DENY, None),
    (S3Call("ListMultipartUploads", "b"), DENY, None),
    (S3Call("HeadObject", "b", "k"), ALLOW, 1),
    (S3Call("GetObject", "b", "k"), ALLOW, 1),
    (S3Call("GetObjectAcl", "b", "k"), ALLOW, 1),
    (S3Call("HeadObject", "b", "k", version_id="v1"), DENY, None),
    (S3Call("GetObject", "b", "k", version_id="v1"), DENY, None),
    (S3Call("GetObjectAttributes", "b", "k"), DENY, None),
    (S3Call("ListObjectsV2", "b"), ALLOW, 1),
    (S3Call("ListObjectsV2", "b", prefix="x/"), ALLOW, 1),
    (S3Call("HeadBucket", "b"), ALLOW, 1),
    (S3Call("ListObjectVersions", "b"), DENY, None),
    (S3Call("DeleteObject", "b", "k"), ALLOW, 1),
    (S3Call("DeleteObject", "b", "any/other/key"), ALLOW, 1),
    (S3Call("DeleteObject", "b", "k", version_id="v1"), DENY, None),
    (S3Call("PutObject", "b", "k", acl=ACL, tagging=True), DENY, None),
    (S3Call("PutObjectTagging", "b", "k"), DENY, None),
    (S3Call("GetObjectTagging", "b", "k"), DENY, None),
    (S3Call("PutObject", "b", "k", acl=ACL, object_lock=True), DENY, None),
    (S3Call("PutObjectRetention", "b", "k"), DENY, None),
    (S3Call("PutObjectLegalHold", "b", "k"), DENY, None),
    (S3Call("PutObjectAcl", "b", "k", acl=ACL), ALLOW, 0),
    (S3Call("CopyObject", "b", "k", acl=ACL), ALLOW, 1),
    (S3Call("CopyObject", "b", "k"), DENY, None),
    (S3Call("CopyObject", "b", "k", acl=ACL, tagging=True), DENY, None),
    (S3Call("GetBucketLocation", "b"), DENY, None),
    (S3Call("GetBucketVersioning", "b"), DENY, None),
    (S3Call("GetBucketOwnershipControls", "b"), DENY, None),
    (S3Call("GetBucketEncryption", "b"), DENY, None),
    (S3Call("GetBucketPolicy", "b"), DENY, None),
    (S3Call("GetBucketLifecycleConfiguration", "b"), DENY, None),
    (S3Call("GetObjectLockConfiguration", "b"), DENY, None),
    (S3Call("PutObject", "other", "k", acl=ACL), DENY, None),
    (S3Call("GetObject", "other", "k"), DENY, None),
    (S3Call("ListObjectsV2", "other"), DENY, None),
    (S3Call("DeleteObject", "b-2", "k"), DENY, None),
    (S3Call("GetObject", "B", "k"), DENY, None),
]


@pytest.mark.parametrize(("call", "outcome", "statement"), TABLE, ids=str)
def test_s3_calls(call, outcome, statement):
    decision = decide(call, [guide_permission_policy("b")])
    assert (decision.outcome, decision.statement) == (outcome, statement), decision.reason


KEY = "arn:aws:kms:us-east-1:111122223333:key/1"
OTHERS = [
    ("kms:GenerateDataKey", KEY, EXPLICIT),
    ("kms:Decrypt", KEY, EXPLICIT),
    (
        "s3express:CreateSession",
        "arn:aws:s3express:us-east-1:111122223333:bucket/b--use1-az4--x-s3",
        EXPLICIT,
    ),
    (
        "s3-object-lambda:GetObject",
        "arn:aws:s3-object-lambda:us-east-1:111122223333:accesspoint/ap",
        EXPLICIT,
    ),
    ("sts:AssumeRole", "arn:aws:iam::111122223333:role/Other", EXPLICIT),
    ("iam:GetRole", "arn:aws:iam::111122223333:role/XMode", EXPLICIT),
    ("s3:ListAllMyBuckets", "*", DENY),
    ("s3:GetObject", "arn:aws:s3:us-east-1:111122223333:accesspoint/ap/object/k", DENY),
    ("s3:GetAccessPoint", "arn:aws:s3:us-east-1:111122223333:accesspoint/ap", DENY),
]


@pytest.mark.parametrize(("action", "resource", "outcome"), OTHERS)
def test_other_actions(action, resource, outcome):
    decision = evaluate([guide_permission_policy("b")], Request("", action, resource))
    assert decision.outcome is outcome, decision.reason
    assert decision.statement == (2 if outcome is EXPLICIT else None)


def test_the_guide_gives_no_protection_on_other_buckets():
    """Its Deny exempts s3:*, so whatever else hangs on the role decides there."""
    full = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}
    policies = [guide_permission_policy("b"), full]
    assert decide(S3Call("DeleteObject", "other", "k"), policies).outcome is ALLOW


def test_the_reason_names_the_condition_that_failed():
    decision = decide(S3Call("PutObject", "b", "k", acl="private"), [guide_permission_policy("b")])
    assert decision.reason == (
        "no statement allows s3:PutObject on arn:aws:s3:::b/k; "
        "statement 1 would, but its condition is not met "
        "(StringEquals s3:x-amz-acl: the request has 'private')"
    )


@pytest.mark.parametrize("header", [{"acl": ACL}, {"grants": FULL_CONTROL}], ids=["acl", "grants"])
def test_a_header_that_sets_an_acl_needs_its_own_right(header):
    statement = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}
    put_only = [{"Version": "2012-10-17", "Statement": statement}]
    assert decide(S3Call("PutObject", "b", "k"), put_only).outcome is ALLOW
    assert decide(S3Call("PutObject", "b", "k", **header), put_only).outcome is DENY


def test_a_call_that_is_not_known_is_not_judged():
    with pytest.raises(KeyError):
        decide(S3Call("SelectObjectContent", "b", "k"), [guide_permission_policy("b")])
