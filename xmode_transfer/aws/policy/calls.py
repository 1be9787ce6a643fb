"""S3's API calls as the actions they need.

Sources: S3 API reference, "Permissions" of each call; S3 User Guide, "Multipart upload API and permissions".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmode_transfer.aws.policy.evaluate import Decision, Outcome, Request, allowed

_ON_OBJECT: Mapping[str, tuple[str, ...]] = {
    "PutObject": ("s3:PutObject",),
    "CreateMultipartUpload": ("s3:PutObject",),
    "UploadPart": ("s3:PutObject",),
    "CompleteMultipartUpload": ("s3:PutObject",),
    "AbortMultipartUpload": ("s3:AbortMultipartUpload",),
    "ListParts": ("s3:ListMultipartUploadParts",),
    "HeadObject": ("s3:GetObject",),
    "GetObject": ("s3:GetObject",),
    "GetObjectAttributes": ("s3:GetObject", "s3:GetObjectAttributes"),
    "GetObjectAcl": ("s3:GetObjectAcl",),
    "GetObjectTagging": ("s3:GetObjectTagging",),
    "PutObjectTagging": ("s3:PutObjectTagging",),
    "PutObjectAcl": ("s3:PutObjectAcl",),
    "PutObjectRetention": ("s3:PutObjectRetention",),
    "PutObjectLegalHold": ("s3:PutObjectLegalHold",),
    "DeleteObject": ("s3:DeleteObject",),
    "CopyObject": ("s3:GetObject", "s3:PutObject"),
}
_ON_BUCKET: Mapping[str, tuple[str, ...]] = {
    "HeadBucket": ("s3:ListBucket",),
    "ListObjectsV2": ("s3:ListBucket",),
    "ListObjectVersions": ("s3:ListBucketVersions",),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "GetBucketLocation": ("s3:GetBucketLocation",),
    "GetBucketVersioning": ("s3:GetBucketVersioning",),
    "GetBucketOwnershipControls": ("s3:GetBucketOwnershipControls",),
    "GetBucketEncryption": ("s3:GetEncryptionConfiguration",),
    "GetBucketPolicy": ("s3:GetBucketPolicy",),
    "GetBucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration",),
    "GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration",),
}
_OF_VERSION = {"s3:GetObject": "s3:GetObjectVersion", "s3:DeleteObject": "s3:DeleteObjectVersion"}
_TAKE_HEADERS = frozenset({"PutObject", "CreateMultipartUpload", "CopyObject"})


@dataclass(frozen=True, slots=True)
class S3Call:
    """One call as far as policies see it. ``acl``, ``tagging`` and ``object_lock`` are the headers that
    PutObject, CreateMultipartUpload and CopyObject take; ``grants`` are ``x-amz-grant-...`` headers by
    name."""

    operation: str
    bucket: str
    key: str = ""
    acl: str | None = None
    grants: tuple[tuple[str, str], ...] = ()
    tagging: bool = False
    object_lock: bool = False
    version_id: str | None = None
    prefix: str | None = None
    partition: str = "aws"


def requests(call: S3Call, principal: str) -> tuple[Request, ...]:
    """What the call asks of IAM; all of it must be allowed. Raises KeyError for a call that is not known
    here."""
    bucket_arn = f"arn:{call.partition}:s3:::{call.bucket}"
    context: dict[str, str | tuple[str, ...]] = {}
    if call.operation in _ON_BUCKET:
        if call.prefix is not None:
            context["s3:prefix"] = call.prefix
        actions, resource = _ON_BUCKET[call.operation], bucket_arn
    else:
        actions, resource = _ON_OBJECT[call.operation], f"{bucket_arn}/{call.key}"
    if call.version_id is not None:
        context["s3:VersionId"] = call.version_id
        actions = tuple(_OF_VERSION.get(action, action) for action in actions)
    if call.operation in _TAKE_HEADERS:
        actions += _for_headers(call)
    if call.acl is not None:
        context["s3:x-amz-acl"] = call.acl
    context.update({f"s3:{name}": value for name, value in call.grants})
    return tuple(Request(principal, action, resource, context) for action in actions)


def _for_headers(call: S3Call) -> tuple[str, ...]:
    extra: tuple[str, ...] = ()
    if call.acl is not None or call.grants:
        extra += ("s3:PutObjectAcl",)
    if call.tagging:
        extra += ("s3:PutObjectTagging",)
    if call.object_lock:
        extra += ("s3:PutObjectRetention",)
    return extra


def strictest(decisions: Sequence[Decision]) -> Decision:
    """The one decision that stands for all of which each is needed: a refusal before a doubt, a doubt before
    an allow."""
    for outcome in (Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY, Outcome.CANNOT_TELL):
        for decision in decisions:
            if decision.outcome is outcome:
                return decision
    return decisions[0]


def decide(
    call: S3Call,
    identity_policies: Sequence[Mapping[str, Any]],
    session_policy: Mapping[str, Any] | None = None,
    *,
    principal: str = "",
) -> Decision:
    """Whether a role with these policies, in a session with that session policy, may make the call."""
    needed = requests(call, principal)
    return strictest([allowed(identity_policies, session_policy, request) for request in needed])
