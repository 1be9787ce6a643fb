"""The policy documents: the setup guide's, the ones that we recommend instead, and our session policies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from xmode_transfer.aws.policy.patterns import literal
from xmode_transfer.config import Customer
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.keys import notices_prefix

VENDOR_PRINCIPAL = "arn:aws:iam::366810793500:user/xmode-data-transfer"
"""The user that the setup guide names in the trust policy."""
ACL = "bucket-owner-full-control"
"""The canned ACL of every object; the guide's policy requires it."""
GRANTS = ("read", "write", "read-acp", "write-acp", "full-control")
"""The headers ``x-amz-grant-...`` of PutObject (S3 API reference)."""

Document = dict[str, Any]
_VERSION = "2012-10-17"
_READING = ("s3:GetObject", "s3:GetObjectAcl")
_WRITING = ("s3:PutObject", "s3:PutObjectAcl", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_DECRYPTING = ("kms:Decrypt",)
_ENCRYPTING = ("kms:GenerateDataKey", "kms:Decrypt")
"""A part of a multipart upload needs both (S3 API reference, UploadPart)."""


@dataclass(frozen=True, slots=True)
class SetupValues:
    """A customer's values for policies, findings and fixes. ``prefix`` is empty or ends with a slash;
    ``region`` is the bucket's, if it is known."""

    external_id: str
    role_arn: str
    bucket: str
    prefix: str = ""
    region: str | None = None
    bucket_owner: str = ""
    kms_key_arn: str | None = None
    principal: str = VENDOR_PRINCIPAL
    partition: str = "aws"

    @property
    def account(self) -> str:
        return parse_iam(self.role_arn, "role").account_id

    @property
    def role_name(self) -> str:
        """The name without the path, as IAM's calls take it."""
        return parse_iam(self.role_arn, "role").name

    @property
    def place(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def setup_values(customer: Customer, principal: str, *, region: str | None = None) -> SetupValues:
    """``region`` is the bucket's as learnt, else the configured one is used."""
    destination = customer.destination
    return SetupValues(
        external_id=customer.external_id,
        role_arn=customer.role_arn,
        bucket=destination.bucket,
        prefix=destination.prefix,
        region=region or destination.region,
        bucket_owner=customer.bucket_owner,
        kms_key_arn=destination.kms_key_arn,
        principal=principal,
        partition=customer.partition,
    )


def guide_trust_policy(external_id: str, principal: str = VENDOR_PRINCIPAL) -> Document:
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
    """Return the setup guide's permission policy. Its last statement denies KMS, so it does not suit a bucket
    with the customer's own key; it grants neither abort nor listing of multipart uploads."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    writing = _allow(["s3:PutObject", "s3:PutObjectAcl"], resources)
    reading = _allow(["s3:DeleteObject", "s3:GetObject", "s3:GetObjectAcl", "s3:ListBucket"], list(resources))
    return {
        "Version": _VERSION,
        "Statement": [
            {**writing, "Condition": {"StringEquals": {"s3:x-amz-acl": [ACL]}}},
            reading,
            {"Effect": "Deny", "NotAction": "s3:*", "NotResource": list(resources)},
        ],
    }


def corrected_trust_policy(
    external_id: str, principal: str = VENDOR_PRINCIPAL, *, previous_external_id: str | None = None
) -> Document:
    """Return the guide's trust policy with an external ID of ours; while it is changed, with both."""
    document = guide_trust_policy(external_id, principal)
    if previous_external_id is not None:
        both = {"sts:ExternalId": [external_id, previous_external_id]}
        document["Statement"]["Condition"] = {"StringEquals": both}
    return document


def no_other_acl(resource: str) -> list[Document]:
    """Return the statements that deny every way to put an object with another ACL than ours."""
    key, writing = "s3:x-amz-acl", ["s3:PutObject", "s3:PutObjectAcl"]
    asked: list[tuple[str, list[str], Document]] = [
        ("NoOtherAcl", writing, {"StringNotEquals": {key: ACL}, "Null": {key: "false"}}),
        ("NoAclInBody", ["s3:PutObjectAcl"], {"Null": {key: "true"}}),
    ]
    for name in GRANTS:
        sent = {"Null": {f"s3:x-amz-grant-{name}": "false"}}
        asked.append((f"NoGrant{name.title().replace('-', '')}", writing, sent))
    return [
        {"Sid": sid, "Effect": "Deny", "Action": actions, "Resource": resource, "Condition": condition}
        for sid, actions, condition in asked
    ]


def corrected_permission_policy(
    bucket: str,
    prefix: str,
    kms_key_arn: str | None = None,
    region: str | None = None,
    *,
    partition: str = "aws",
) -> Document:
    """Return the permission policy that we recommend instead of the guide's.

    It limits us to ``prefix`` (with its closing slash, or empty), allows us to abort failed uploads, and
    denies every ACL but ours, if one is sent: UploadPart never sends one. ``StringNotEqualsIfExists`` would
    deny parts, since every ``...IfExists`` operator is true for an absent key (IAM User Guide, condition
    operators). A grant in a header of its own, or in the body of PutObjectAcl, which no key shows, is denied
    too. HeadBucket, which names no prefix, is refused.

    ``kms_key_arn`` requires ``region``, the bucket's (else ValueError): the key is granted for use through S3
    only. The key's own policy must allow the role as well.
    """
    whole = f"arn:{partition}:s3:::{bucket}"
    statements: list[Document] = [
        {"Sid": "ListBucket", **_listing(whole, prefix)},
        {
            "Sid": "DeliverBelowPrefix",
            **_allow([*_WRITING, *_READING, "s3:DeleteObject"], f"{whole}/{literal(prefix)}*"),
        },
        *no_other_acl(f"{whole}/*"),
        {"Sid": "NoOtherBucket", "Effect": "Deny", "Action": "s3:*", "NotResource": [whole, f"{whole}/*"]},
    ]
    if kms_key_arn is not None:
        if region is None:
            raise ValueError("a KMS key is granted for one region's S3 only; give the bucket's region too")
        statement = key_statement(kms_key_arn, _ENCRYPTING)
        through_s3 = {"StringEquals": {"kms:ViaService": s3_service(region, partition)}}
        condition = statement.get("Condition", {}) | through_s3
        statements.append({"Sid": "EncryptThroughS3", **statement, "Condition": condition})
    return {"Version": _VERSION, "Statement": statements}


def _allow(actions: Sequence[str], resource: str | list[str]) -> Document:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def _listing(bucket_arn: str, prefix: str) -> Document:
    statement = _allow(["s3:ListBucket"], bucket_arn)
    if prefix:
        statement["Condition"] = {"StringLike": {"s3:prefix": f"{literal(prefix)}*"}}
    return statement


def key_statement(kms_key_arn: str, actions: Sequence[str]) -> Document:
    """KMS compares the key's own ARN, never an alias's, so an alias is named in a condition (KMS Developer
    Guide, "Using aliases to control access to KMS keys")."""
    where, separator, alias = kms_key_arn.partition(":alias/")
    if not separator:
        return _allow(actions, literal(kms_key_arn))
    named = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": f"alias/{alias}"}}
    return {**_allow(actions, f"{where}:key/*"), "Condition": named}


def s3_service(region: str, partition: str = "aws") -> str:
    """Return the name of a Region's S3 in ``kms:ViaService``."""
    return f"s3.{region}." + {"aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu"}.get(
        partition, "amazonaws.com"
    )


SESSION_POLICY_MAX_CHARACTERS = 2048
"""The longest inline session policy (STS API reference, AssumeRole)."""


class Step(StrEnum):
    """The purpose of a role session."""

    DELIVER = "deliver"
    CHECK = "check"
    LIST = "list"
    VERIFY = "verify"
    CLEANUP = "cleanup"
    NOTICE = "notice"
    RECALL = "recall"


_OBJECT_ACTIONS: Mapping[Step, tuple[str, ...]] = {
    Step.DELIVER: (*_WRITING, "s3:GetObject"),
    Step.CHECK: (*_WRITING, *_READING, "s3:DeleteObject"),
    Step.LIST: _READING,
    Step.VERIFY: _READING,
    Step.CLEANUP: ("s3:DeleteObject", "s3:GetObject"),
    Step.RECALL: (*_WRITING, "s3:GetObject", "s3:GetObjectRetention", "s3:DeleteObject"),
    Step.NOTICE: ("s3:PutObject", "s3:PutObjectAcl", "s3:GetObject"),
}


def session_policy(
    step: Step, *, bucket: str, prefix: str, partition: str = "aws", kms_key_arn: str | None = None
) -> Document:
    """Return the session policy of one step: its verbs below ``prefix``, with its closing slash, or empty.

    HeadBucket names no prefix and is refused, which still gives the bucket's Region. A HEAD of an absent key
    is evaluated as a listing with that key as its prefix, so it stays a 404 (S3 as observed by
    ceph/ceph#68577 and kopia/kopia#3072). No statement requires ``s3:x-amz-acl``: UploadPart carries no ACL,
    and the role's own policy requires it where it matters. KMS must be granted here too.
    """
    bucket_arn = f"arn:{partition}:s3:::{bucket}"
    below = notices_prefix(prefix) if step is Step.NOTICE else prefix
    statements = [] if step is Step.NOTICE else [_listing(bucket_arn, prefix)]
    statements.append(_allow(_OBJECT_ACTIONS[step], f"{bucket_arn}/{literal(below)}*"))
    actions = _DECRYPTING if step in (Step.LIST, Step.VERIFY, Step.CLEANUP) else _ENCRYPTING
    if kms_key_arn is None:
        # The bucket may encrypt by default with a key that the configuration does not name.
        through_s3 = {"StringLike": {"kms:ViaService": s3_service("*", partition)}}
        statements.append({**_allow(actions, "*"), "Condition": through_s3})
    else:
        statements.append(key_statement(kms_key_arn, actions))
    return {"Version": _VERSION, "Statement": statements}


def step_policy(customer: Customer, step: Step, prefix: str | None = None) -> Document:
    """Return the customer's session policy of one step, below its own prefix or another one."""
    destination = customer.destination
    return session_policy(
        step,
        bucket=destination.bucket,
        prefix=destination.prefix if prefix is None else prefix,
        partition=customer.partition,
        kms_key_arn=destination.kms_key_arn,
    )


def compact(document: Mapping[str, Any]) -> str:
    """Return the document as JSON without spaces, which count. Raises ValueError if too long for STS."""
    text = json.dumps(document, separators=(",", ":"))
    if len(text) > SESSION_POLICY_MAX_CHARACTERS:
        raise ValueError(
            f"the session policy has {len(text)} characters and AWS takes at most "
            f"{SESSION_POLICY_MAX_CHARACTERS}; shorten destination.prefix"
        )
    return text
