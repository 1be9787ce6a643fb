"""Session policies: what one role session may do, cut down to one step of one customer's destination.

A session policy is an intersection with the role's own policy: it can only take away. It needs nothing from
the customer's trust policy (AWS STS API reference, AssumeRole, parameter Policy).
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from xmode_transfer.aws.policy.documents import key_statement, s3_service
from xmode_transfer.aws.policy.patterns import literal
from xmode_transfer.model.keys import notices_place

SESSION_POLICY_MAX_CHARACTERS = 2048
"""AWS STS API reference, AssumeRole: the plain text of an inline session policy, in characters."""


class Step(StrEnum):
    """What a role session is opened for."""

    DELIVER = "deliver"
    CHECK = "check"
    LIST = "list"
    VERIFY = "verify"
    CLEANUP = "cleanup"
    NOTICE = "notice"


_READING = ("s3:GetObject", "s3:GetObjectAcl")
_WRITING = ("s3:PutObject", "s3:PutObjectAcl", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")

_OBJECT_ACTIONS: Mapping[Step, tuple[str, ...]] = {
    Step.DELIVER: (*_WRITING, "s3:GetObject"),
    Step.CHECK: (*_WRITING, *_READING, "s3:DeleteObject"),
    Step.LIST: _READING,
    Step.VERIFY: _READING,
    Step.CLEANUP: ("s3:DeleteObject", "s3:GetObject"),
    Step.NOTICE: ("s3:PutObject", "s3:PutObjectAcl", "s3:GetObject"),
}
# A part of a multipart upload needs Decrypt as well as GenerateDataKey (S3 API reference, UploadPart).
_KEY_ACTIONS: Mapping[Step, tuple[str, ...]] = {
    Step.DELIVER: ("kms:GenerateDataKey", "kms:Decrypt"),
    Step.CHECK: ("kms:GenerateDataKey", "kms:Decrypt"),
    Step.LIST: ("kms:Decrypt",),
    Step.VERIFY: ("kms:Decrypt",),
    Step.CLEANUP: ("kms:Decrypt",),
    Step.NOTICE: ("kms:GenerateDataKey", "kms:Decrypt"),
}


def session_policy(
    step: Step, *, bucket: str, prefix: str, partition: str = "aws", kms_key_arn: str | None = None
) -> dict[str, Any]:
    """The session policy of one step: that step's verbs, on that bucket, below that prefix.

    ``prefix`` is the destination's, with its closing slash, or empty for a whole bucket. Listings must name a
    prefix below it; HeadBucket has none and is refused, which still answers the bucket's Region. A HEAD of an
    absent key is judged as a listing with that key for its prefix, so it stays a 404 (S3 as observed by
    ceph/ceph#68577 and kopia/kopia#3072). Nothing here asks for ``s3:x-amz-acl``: UploadPart carries no
    ACL, and the role's own policy asks for it where it matters. A notice's session has nothing but the
    place of notices below the prefix, and lists nothing. KMS is in the intersection like everything else, so
    it must be granted here for a bucket that encrypts with a KMS key.
    """
    bucket_arn = f"arn:{partition}:s3:::{bucket}"
    below = notices_place(prefix) if step is Step.NOTICE else prefix
    statements: list[dict[str, Any]] = []
    if step is not Step.NOTICE:  # it looks for nothing
        listing: dict[str, Any] = {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": bucket_arn,
        }
        if prefix:
            listing["Condition"] = {"StringLike": {"s3:prefix": literal(prefix) + "*"}}
        statements.append(listing)
    statements.append(
        {
            "Effect": "Allow",
            "Action": list(_OBJECT_ACTIONS[step]),
            "Resource": f"{bucket_arn}/{literal(below)}*",
        }
    )
    actions = list(_KEY_ACTIONS[step])
    if kms_key_arn is None:
        # The bucket may encrypt by default with a key that the configuration does not name.
        statements.append(
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": "*",
                "Condition": {"StringLike": {"kms:ViaService": s3_service("*", partition)}},
            }
        )
    else:
        statements.append(key_statement(kms_key_arn, actions))
    return {"Version": "2012-10-17", "Statement": statements}


def compact(document: Mapping[str, Any]) -> str:
    """The document as STS takes it: JSON without spaces, which count towards the limit.

    Raises ValueError when it is longer than AWS accepts.
    """
    text = json.dumps(document, separators=(",", ":"))
    if len(text) > SESSION_POLICY_MAX_CHARACTERS:
        raise ValueError(
            f"the session policy has {len(text)} characters and AWS takes at most "
            f"{SESSION_POLICY_MAX_CHARACTERS}; shorten destination.prefix"
        )
    return text
