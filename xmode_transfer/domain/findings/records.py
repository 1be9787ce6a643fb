"""The words of an access check: causes, gravities, results, findings and fixes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.config.arns import parse_iam
from xmode_transfer.domain.errors import Party
from xmode_transfer.domain.policy import VENDOR_PRINCIPAL


class Cause(StrEnum):
    """Fixed words that programs rely on."""

    VENDOR_IDENTITY_WRONG = "vendor_identity_wrong"
    VENDOR_KEY_INVALID = "vendor_key_invalid"
    VENDOR_POLICY_DENIES_ASSUME = "vendor_policy_denies_assume"
    CLOCK_SKEW = "clock_skew"
    STS_REGION_DISABLED = "sts_region_disabled"
    ROLE_REFUSED = "role_refused"
    EXTERNAL_ID_NOT_REQUIRED = "external_id_not_required"
    EXTERNAL_ID_ANY_VALUE = "external_id_any_value"
    EXTERNAL_ID_CASE_INSENSITIVE = "external_id_case_insensitive"
    BUCKET_MISSING = "bucket_missing"
    BUCKET_OTHER_REGION = "bucket_other_region"
    BUCKET_OTHER_OWNER = "bucket_other_owner"
    LIST_DENIED = "list_denied"
    PUT_DENIED = "put_denied"
    PUT_WITHOUT_ACL_ALLOWED = "put_without_acl_allowed"
    ACL_REFUSED = "acl_refused"
    MULTIPART_DENIED = "multipart_denied"
    ABORT_DENIED = "abort_denied"
    LIST_PARTS_DENIED = "list_parts_denied"
    HEAD_DENIED = "head_denied"
    GET_ACL_DENIED = "get_acl_denied"
    DELETE_DENIED = "delete_denied"
    KMS_DENIED = "kms_denied"
    VERSIONED_BUCKET = "versioned_bucket"
    OBJECT_LOCK = "object_lock"
    OWNER_LACKS_FULL_CONTROL = "owner_lacks_full_control"
    TOO_BROAD = "too_broad"
    OVERLAPPING_DESTINATION = "overlapping_destination"
    OK = "ok"


class Severity(StrEnum):
    """How grave a finding is. From ``error`` on, somebody must act."""

    INFO = "info"  # good to know
    WARNING = "warning"  # deliveries work, with a limit or a risk that the party should know
    ERROR = "error"  # something that the service needs and the guide grants does not work
    CRITICAL = "critical"  # somebody else could misuse the role, or nothing works at all


class Result(StrEnum):
    """How a probe ended."""

    OK = "ok"
    DENIED = "denied"  # refused, and it should not be
    UNEXPECTED = "unexpected"  # allowed, or so, and it should not be
    UNKNOWN = "unknown"  # nothing was found as far as can be seen, and that is not all; the message says it
    SKIPPED = "skipped"  # not tried, or without an answer; the message says why


@dataclass(frozen=True, slots=True)
class Fix:
    """How a finding is mended, ready to mail. ``statement`` is the exact policy statement, ``command`` a line
    for the AWS CLI in the customer's account, ``guide_step`` where the setup guide treats of it."""

    summary: str
    statement: dict[str, Any] | None = None
    command: str | None = None
    guide_step: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe's answer. ``party`` is who must act, None where nobody must. ``cause`` is None where a probe
    was not done, or AWS gave no answer to it. ``message`` is one plain sentence. ``request_id`` and ``said``
    are AWS's: its words, with the request that they answer."""

    probe: str
    result: Result
    cause: Cause | None
    party: Party | None
    severity: Severity
    message: str
    fix: Fix | None = None
    request_id: str | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """A customer's own values, as the sentences and statements name them. ``prefix`` is empty or ends with a
    slash; ``region`` is the bucket's where it is known."""

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
        """The name alone, without path, as IAM's calls take it."""
        return parse_iam(self.role_arn, "role").name

    @property
    def place(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def facts_of(customer: Customer, principal: str, *, region: str | None = None) -> Facts:
    """The customer's facts; ``region`` is the bucket's as learnt, else the configured one is taken."""
    destination = customer.destination
    return Facts(
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
