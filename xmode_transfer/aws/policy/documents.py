"""The documents that a customer attaches to its role: the setup guide's own, and the same with its gaps
closed."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from xmode_transfer.aws.policy.patterns import literal
from xmode_transfer.model.keys import notices_prefix

VENDOR_PRINCIPAL = "arn:aws:iam::366810793500:user/xmode-data-transfer"
"""The user that the setup guide tells customers to trust."""

ACL = "bucket-owner-full-control"
"""The canned ACL of everything we write; the guide's policy demands it."""

GRANTS = ("read", "write", "read-acp", "write-acp", "full-control")
"""What the headers ``x-amz-grant-...`` of PutObject give to others (S3 API reference)."""

Document = dict[str, Any]
_VERSION = "2012-10-17"


def guide_trust_policy(external_id: str, principal: str = VENDOR_PRINCIPAL) -> Document:
    """The setup guide's trust policy, filled in."""
    return {
        "Version": _VERSION,
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
        },
    }


def guide_permission_policy(bucket: str) -> Document:
    """The setup guide's permission policy, filled in. Its last statement denies KMS, so it does not fit a
    bucket that is encrypted with a key of the customer's own; it grants neither abort nor listing of
    multipart uploads."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    return {
        "Version": _VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:PutObjectAcl"],
                "Resource": resources,
                "Condition": {"StringEquals": {"s3:x-amz-acl": [ACL]}},
            },
            {
                "Effect": "Allow",
                "Action": ["s3:DeleteObject", "s3:GetObject", "s3:GetObjectAcl", "s3:ListBucket"],
                "Resource": list(resources),
            },
            {"Effect": "Deny", "NotAction": "s3:*", "NotResource": list(resources)},
        ],
    }


def corrected_trust_policy(
    external_id: str, principal: str = VENDOR_PRINCIPAL, *, previous_external_id: str | None = None
) -> Document:
    """The trust policy that we recommend: the guide's, with an external ID that we generated. While an ID
    is changed the policy takes both, so that nothing stops in between."""
    document = guide_trust_policy(external_id, principal)
    if previous_external_id is not None:
        document["Statement"]["Condition"]["StringEquals"]["sts:ExternalId"] = [
            external_id,
            previous_external_id,
        ]
    return document


def no_other_acl(resource: str) -> list[Document]:
    """Statements that deny every way to put an object with another ACL than ours."""
    key, writing = "s3:x-amz-acl", ["s3:PutObject", "s3:PutObjectAcl"]
    asked: list[tuple[str, list[str], Document]] = [
        ("NoOtherAcl", writing, {"StringNotEquals": {key: ACL}, "Null": {key: "false"}}),
        ("NoAclInBody", ["s3:PutObjectAcl"], {"Null": {key: "true"}}),
        *(
            ("NoGrant" + "".join(word.title() for word in name.split("-")), writing, _present(name))
            for name in GRANTS
        ),
    ]
    return [
        {"Sid": sid, "Effect": "Deny", "Action": actions, "Resource": resource, "Condition": condition}
        for sid, actions, condition in asked
    ]


def _present(grant: str) -> Document:
    return {"Null": {f"s3:x-amz-grant-{grant}": "false"}}


def corrected_permission_policy(
    bucket: str,
    prefix: str,
    kms_key_arn: str | None = None,
    region: str | None = None,
    *,
    partition: str = "aws",
) -> Document:
    """The permission policy that we recommend instead of the guide's.

    It holds us below ``prefix`` (with its closing slash; empty for a whole bucket), lets us abort an upload
    that failed, and denies every ACL but ours. That Deny asks first whether an ACL was sent at all, because
    UploadPart never sends one; ``StringNotEqualsIfExists`` would not do, since every ``...IfExists``
    operator is true for a key that is absent, so that parts would be denied (IAM User Guide, condition
    operators). A grant may also come in a header of its own, or in the body of PutObjectAcl, which no key
    shows: both are denied. Listings must name a prefix below ours; HeadBucket, which has none, is refused.

    ``region`` is the bucket's, and is needed with ``kms_key_arn``: the key is granted for use through S3
    only. Raises ValueError when it is missing. The key's own policy must let the role in as well.
    """
    whole = f"arn:{partition}:s3:::{bucket}"
    below = literal(prefix)
    listing: Document = {
        "Sid": "ListBucket",
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": whole,
    }
    if prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": f"{below}*"}}
    statements: list[Document] = [
        listing,
        {
            "Sid": "DeliverBelowPrefix",
            "Effect": "Allow",
            "Action": [
                "s3:PutObject",
                "s3:PutObjectAcl",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
                "s3:GetObject",
                "s3:GetObjectAcl",
                "s3:DeleteObject",
            ],
            "Resource": f"{whole}/{below}*",
        },
        *no_other_acl(f"{whole}/*"),
        {"Sid": "NoOtherBucket", "Effect": "Deny", "Action": "s3:*", "NotResource": [whole, f"{whole}/*"]},
    ]
    if kms_key_arn is not None:
        if region is None:
            raise ValueError("a KMS key is granted for one region's S3 only; give the bucket's region too")
        statement = key_statement(kms_key_arn, ["kms:GenerateDataKey", "kms:Decrypt"])
        condition = statement.setdefault("Condition", {})
        condition.setdefault("StringEquals", {})["kms:ViaService"] = s3_service(region, partition)
        statements.append({"Sid": "EncryptThroughS3", **statement})
    return {"Version": _VERSION, "Statement": statements}


# --- How a policy names a KMS key, and S3 as the service that uses it


def key_statement(kms_key_arn: str, actions: Sequence[str]) -> dict[str, Any]:
    """Allows the actions on that key. KMS checks a request against the key's own ARN, never against an
    alias's, so an alias is named in a condition (KMS Developer Guide, "Using aliases to control access to
    KMS keys")."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions)}
    where, separator, alias = kms_key_arn.partition(":alias/")
    if not separator:
        return {**statement, "Resource": literal(kms_key_arn)}
    return {
        **statement,
        "Resource": f"{where}:key/*",
        "Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": f"alias/{alias}"}},
    }


def s3_service(region: str, partition: str = "aws") -> str:
    """S3 in a region as ``kms:ViaService`` names it."""
    return f"s3.{region}." + {"aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu"}.get(
        partition, "amazonaws.com"
    )


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
    below = notices_prefix(prefix) if step is Step.NOTICE else prefix
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
