"""The catalogue of causes: for each its severity, responsible, message and fix."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.access import fixes
from xmode_transfer.aws.denials import PolicyType, change, denial_in, named, responsible_of
from xmode_transfer.aws.policy.documents import ACL, SetupValues
from xmode_transfer.model import errors
from xmode_transfer.model.errors import Responsible, XmodeError
from xmode_transfer.model.findings import Finding, Fix, Result, Severity, skipped, unanswered


class _Entry(NamedTuple):
    cause: str
    message: str
    summary: str  # the first line of the fix
    remedy: fixes.Remedy
    severity: Severity = Severity.ERROR
    responsible: Responsible | None = Responsible.CUSTOMER
    result: Result = Result.DENIED


_VENDOR, _UNEXPECTED = Responsible.VENDOR, Result.UNEXPECTED
_INFO, _WARNING, _CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL
_BELOW_PREFIX = "DeliverBelowPrefix"
_PUTTING = ["s3:PutObjectAcl", "s3:PutObject"]


class Cause(StrEnum):
    """The names are stable for programs; docs/check-access.md has a row for each."""

    entry: _Entry

    def __new__(cls, *entry: Any) -> "Cause":
        member = str.__new__(cls, entry[0])
        member._value_ = entry[0]
        member.entry = _Entry(*entry)
        return member

    OK = _Entry("ok", "everything is correct", "", fixes.run(), _INFO, None, Result.OK)
    VENDOR_IDENTITY_WRONG = _Entry(
        "vendor_identity_wrong",
        "our AWS credentials are not those of {f.principal}, which customers' roles trust",
        "Give this service the access key of {f.principal} (AWS_PROFILE or AWS_ACCESS_KEY_ID), or correct "
        "vendor.principal_arn in service.yaml",
        fixes.run("aws sts get-caller-identity"),
        _CRITICAL,
        _VENDOR,
        _UNEXPECTED,
    )
    VENDOR_KEY_INVALID = _Entry(
        "vendor_key_invalid",
        "AWS does not accept our own access key",
        "Check AWS_ACCESS_KEY_ID, AWS_PROFILE and the shared credentials file of this service: the key was "
        "rotated, deactivated or mistyped",
        fixes.run("aws sts get-caller-identity"),
        _CRITICAL,
        _VENDOR,
    )
    VENDOR_POLICY_DENIES_ASSUME = _Entry(
        "vendor_policy_denies_assume",
        "AWS says that our own user {f.principal} may not assume {f.role_arn}: one of our policies does "
        "not allow it",
        "Allow our user {f.principal} to assume the role, in our own account",
        fixes.allow_vendor,
        responsible=_VENDOR,
    )
    CLOCK_SKEW = _Entry(
        "clock_skew",
        "AWS refuses our requests because this machine's clock is wrong",
        "Set this machine's clock; AWS accepts a few minutes at most",
        fixes.run("chronyc makestep"),
        _CRITICAL,
        _VENDOR,
    )
    STS_REGION_DISABLED = _Entry(
        "sts_region_disabled",
        "the customer's account {f.account} has deactivated STS in every region that we use",
        "Set vendor.sts_region to a region that is active in the customer's account, or ask the customer "
        "to activate one (IAM, Account settings, Security Token Service)",
        fixes.run(),
        responsible=_VENDOR,
    )
    ROLE_REFUSED = _Entry(
        "role_refused",
        "AWS refuses to let us assume {f.role_arn} under its external ID; its answer is the same when "
        "the role does not exist, does not trust {f.principal}, or requires another external ID",
        "Check, in this order: 1. the role {f.role_arn} exists; the command creates it if not. 2. It has "
        "exactly this trust policy; the external ID is case-sensitive. 3. No policy of the organisation "
        "(SCP or RCP) denies it. 4. Our own user has sts:AssumeRole on it",
        fixes.role,
    )
    EXTERNAL_ID_NOT_REQUIRED = _Entry(
        "external_id_not_required",
        "the role {f.role_arn} can be assumed without an external ID, so that nothing ties it to this "
        "customer",
        "Give the role this trust policy: it requires the external ID {f.external_id} and no other",
        fixes.trust,
        _CRITICAL,
        result=_UNEXPECTED,
    )
    EXTERNAL_ID_ANY_VALUE = _Entry(
        "external_id_any_value",
        "the role {f.role_arn} requires an external ID but accepts values that were never issued",
        "Give the role this trust policy: StringEquals with {f.external_id}, without wildcards",
        fixes.trust,
        _CRITICAL,
        result=_UNEXPECTED,
    )
    EXTERNAL_ID_CASE_INSENSITIVE = _Entry(
        "external_id_case_insensitive",
        "the role {f.role_arn} accepts the external ID in a different letter case, so that another "
        "customer's ID may match",
        "Give the role this trust policy: StringEquals, not StringEqualsIgnoreCase",
        fixes.trust,
        result=_UNEXPECTED,
    )
    BUCKET_MISSING = _Entry(
        "bucket_missing",
        "there is no bucket {f.bucket}",
        "Tell us the right bucket name (destination.bucket), or create the bucket in account "
        "{f.bucket_owner}",
        fixes.run(
            "aws s3api head-bucket --bucket {f.bucket}",
            "the first sentence of the console set-up (the S3 location)",
        ),
    )
    BUCKET_OTHER_REGION = _Entry(
        "bucket_other_region",
        "the bucket {f.bucket} is in another region than configured",
        "Set destination.region in the customer's file to the bucket's region",
        fixes.run(),
        responsible=_VENDOR,
        result=_UNEXPECTED,
    )
    BUCKET_OTHER_OWNER = _Entry(
        "bucket_other_owner",
        "the bucket {f.bucket} does not belong to account {f.bucket_owner}, so nothing is written to it",
        "Tell us which account owns the bucket. If it is the right bucket, we set "
        "destination.bucket_owner; if not, tell us the right name",
        fixes.run("aws s3api head-bucket --bucket {f.bucket} --expected-bucket-owner {f.bucket_owner}"),
        _CRITICAL,
    )
    LIST_DENIED = _Entry(
        "list_denied",
        "the role may not list {f.place}",
        "Allow s3:ListBucket on the bucket itself (the ARN without /*)",
        fixes.grant("ListBucket", ["s3:ListBucket"], 2),
    )
    PUT_DENIED = _Entry(
        "put_denied",
        f"the role may not put objects below {{f.place}}, not even with the ACL {ACL}",
        "Allow s3:PutObject and s3:PutObjectAcl on the objects (the ARN with /*), and look for a Deny, "
        "also in the bucket's policy: a Deny overrides",
        fixes.grant(_BELOW_PREFIX, _PUTTING, 1),
    )
    PUT_WITHOUT_ACL_ALLOWED = _Entry(
        "put_without_acl_allowed",
        f"the role may put objects without the ACL {ACL}, which the guide's policy denies; we always send "
        "it, so no action is needed",
        "No action is needed. The guide's first statement has a condition on s3:x-amz-acl; without it "
        "larger files can be sent in parts, which carry no ACL",
        fixes.run(None, fixes.POLICY_STEPS.format(1)),
        _INFO,
        result=_UNEXPECTED,
    )
    ACL_REFUSED = _Entry(
        "acl_refused",
        f"the role may put objects below {{f.place}}, but not with the ACL {ACL}, which we always send",
        f"Allow s3:PutObjectAcl beside s3:PutObject, and let the condition on s3:x-amz-acl name {ACL} "
        "exactly",
        fixes.grant(_BELOW_PREFIX, ["s3:PutObject", "s3:PutObjectAcl"], 1),
    )
    MULTIPART_DENIED = _Entry(
        "multipart_denied",
        "the role denies multipart uploads, because parts carry no ACL: files up to 5 GiB are sent whole, "
        "and larger ones cannot be delivered",
        "For files over 5 GiB: allow s3:PutObject without the condition on s3:x-amz-acl",
        fixes.grant(_BELOW_PREFIX, _PUTTING, 1),
        _WARNING,
    )
    ABORT_DENIED = _Entry(
        "abort_denied",
        "the role may not abort a multipart upload, which the guide does not grant: a failed upload leaves "
        "its parts in {f.bucket} until a lifecycle rule removes them",
        "Allow s3:AbortMultipartUpload, and give the bucket a lifecycle rule "
        "AbortIncompleteMultipartUpload of 7 days",
        fixes.grant(_BELOW_PREFIX, ["s3:AbortMultipartUpload"]),
        _WARNING,
    )
    LIST_PARTS_DENIED = _Entry(
        "list_parts_denied",
        "the role may not list the parts of a multipart upload; the guide does not grant it and we do not "
        "need it",
        "No action is needed; allow s3:ListMultipartUploadParts for completeness",
        fixes.grant(_BELOW_PREFIX, ["s3:ListMultipartUploadParts"]),
        _INFO,
    )
    HEAD_DENIED = _Entry(
        "head_denied",
        "the role may not read objects below {f.place}, so we cannot prove what arrived",
        "Allow s3:GetObject on the objects (the ARN with /*)",
        fixes.grant(_BELOW_PREFIX, ["s3:GetObject"], 2),
    )
    GET_ACL_DENIED = _Entry(
        "get_acl_denied",
        "the role may not read the ACL of objects below {f.place}, so we cannot prove who owns them",
        "Allow s3:GetObjectAcl on the objects (the ARN with /*)",
        fixes.grant(_BELOW_PREFIX, ["s3:GetObjectAcl"], 2),
    )
    DELETE_DENIED = _Entry(
        "delete_denied",
        "the role may not delete objects below {f.place}, so retention cannot work and the objects of "
        "this check remain",
        "Allow s3:DeleteObject on the objects (the ARN with /*)",
        fixes.grant(_BELOW_PREFIX, ["s3:DeleteObject"], 2),
    )
    KMS_DENIED = _Entry(
        "kms_denied",
        "the bucket {f.bucket} encrypts with a KMS key that the role may not use: the guide's third "
        "statement denies everything that is not S3, KMS included",
        "Replace the role's permission policy by this one, which allows the key. The guide's third statement "
        "denies everything that is not S3, so it must be detached; an additional Allow does not help. "
        "The key's own policy must also allow {f.role_arn} to use kms:GenerateDataKey and kms:Decrypt",
        fixes.allow_key,
    )
    VERSIONED_BUCKET = _Entry(
        "versioned_bucket",
        "the bucket {f.bucket} keeps versions: an object that we delete only gets a delete marker and is "
        "still stored",
        "Add a lifecycle rule NoncurrentVersionExpiration to the bucket if old data should be removed",
        fixes.run("aws s3api get-bucket-lifecycle-configuration --bucket {f.bucket}"),
        _WARNING,
        result=_UNEXPECTED,
    )
    OBJECT_LOCK = _Entry(
        "object_lock",
        "the bucket {f.bucket} locks new objects, so delivered objects stay until their retention ends",
        "No action is needed if this is intended; otherwise change the bucket's default retention",
        fixes.run("aws s3api get-object-lock-configuration --bucket {f.bucket}"),
        _WARNING,
        result=_UNEXPECTED,
    )
    OWNER_LACKS_FULL_CONTROL = _Entry(
        "owner_lacks_full_control",
        "an object that we put into {f.bucket} does not give the bucket's owner {f.bucket_owner} full "
        "control",
        "Set the bucket's object ownership so that the account owns every object in it",
        fixes.run(
            "aws s3api put-bucket-ownership-controls --bucket {f.bucket} "
            "--ownership-controls 'Rules=[{{ObjectOwnership=BucketOwnerEnforced}}]'"
        ),
        result=_UNEXPECTED,
    )
    TOO_BROAD = _Entry(
        "too_broad",
        "the role {f.role_arn} has rights that it should not have",
        "Replace the role's policies by this one, which is limited to {f.place}; this statement "
        "denies S3 elsewhere",
        fixes.replace,
        _WARNING,
        result=_UNEXPECTED,
    )


def finding(
    cause: Cause,
    probe: str,
    facts: SetupValues,
    *,
    detail: str = "",
    request_id: str | None = None,
    said: str = "",
) -> Finding:
    """``detail`` is appended to the message in brackets. ``said`` is AWS's message: where it names the policy
    that denied, the fix is about that policy, and its owner is responsible."""
    entry = cause.entry
    message, responsible = entry.message.format(f=facts), entry.responsible
    fix = Fix(entry.summary.format(f=facts), *entry.remedy(facts)) if entry.summary else None
    denial = denial_in(said) if entry.result is Result.DENIED else None
    if denial is not None:
        assuming = cause in (Cause.ROLE_REFUSED, Cause.VENDOR_POLICY_DENIES_ASSUME)
        detail = "; ".join(filter(None, (detail, f"AWS: {named(denial)}")))
        responsible = responsible_of(denial, assuming=assuming)
        if assuming and denial.policy in (PolicyType.TRUST, PolicyType.RESOURCE):
            summary = f"Give the role {facts.role_arn}, which exists, exactly this trust policy"
            fix = Fix(summary, *fixes.trust(facts))
        elif denial.explicit or denial.policy is not PolicyType.IDENTITY:
            fix = change(denial, facts, assuming=assuming)
    if detail:
        message = f"{message} ({detail})"
    return Finding(probe, entry.result, cause, responsible, entry.severity, message, fix, request_id, said)


# S3 refuses the ACL itself, because the bucket takes none (S3 User Guide, "Object Ownership").
ACL_CODES = frozenset({"AccessControlListNotSupported", "InvalidBucketAclWithObjectOwnership"})
_REGION_CODES = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect"})
_CAUSES: Mapping[type[XmodeError], Cause] = {
    errors.KmsDenied: Cause.KMS_DENIED,
    errors.BucketMissing: Cause.BUCKET_MISSING,
    errors.WrongBucketOwner: Cause.BUCKET_OTHER_OWNER,
    errors.ClockSkew: Cause.CLOCK_SKEW,
    errors.RoleRefused: Cause.ROLE_REFUSED,
}


def error_finding(probe: str, error: XmodeError, denied: Cause, facts: SetupValues) -> Finding:
    """``denied`` is the cause when the error is a refusal."""
    cause = next((cause for kind, cause in _CAUSES.items() if isinstance(error, kind)), None)
    if cause is Cause.ROLE_REFUSED:
        denial = denial_in(error.message)
        if error.aws_code == "RegionDisabledException":
            cause = Cause.STS_REGION_DISABLED
        elif denial and responsible_of(denial, assuming=True) is Responsible.VENDOR:
            cause = Cause.VENDOR_POLICY_DENIES_ASSUME
    elif cause is None and isinstance(error, errors.AccessDenied | errors.PartsRefused):
        cause = denied
    elif cause is None and error.aws_code in ACL_CODES:
        cause = Cause.ACL_REFUSED
    elif cause is None and error.aws_code in _REGION_CODES:
        cause = Cause.BUCKET_OTHER_REGION
    if cause is None:
        return unanswered(probe, error.message, error.responsible, error.request_id)
    return finding(cause, probe, facts, request_id=error.request_id, said=error.message)


# The probes that try other external IDs than the customer's.
NO_ID, RANDOM_ID, SIMILAR_ID, OTHER_CASE = (
    f"external_id_{trial}" for trial in ("none", "random", "similar", "case")
)


def wrong_external_ids(external_id: str, nonce: str) -> dict[str, str | None]:
    """Return an ID that the role must refuse for each probe; one without letters has no other case."""
    wrong: dict[str, str | None] = {
        RANDOM_ID: f"xm-{nonce}",
        SIMILAR_ID: f"{external_id}-{nonce}",
        NO_ID: None,
        OTHER_CASE: external_id.swapcase(),
    }
    if wrong[OTHER_CASE] == external_id:
        del wrong[OTHER_CASE]
    return wrong


def wrongly_accepted(probe: str, accepted: Collection[str], facts: SetupValues) -> Finding:
    """``accepted`` are all probes that the role accepted: one mistake gives one finding."""
    if probe == NO_ID:
        return finding(Cause.EXTERNAL_ID_NOT_REQUIRED, probe, facts)
    if NO_ID in accepted and RANDOM_ID in accepted:
        return skipped(probe, "the role requires no external ID, so it accepts any")
    if probe != RANDOM_ID and RANDOM_ID in accepted:
        what = "a similar one" if probe == SIMILAR_ID else "one in a different letter case"
        return skipped(probe, f"the role accepts any external ID, so also {what}")
    if probe == OTHER_CASE:
        return finding(Cause.EXTERNAL_ID_CASE_INSENSITIVE, probe, facts)
    detail = "" if probe == RANDOM_ID else "it accepts one that only begins with the right one"
    return finding(Cause.EXTERNAL_ID_ANY_VALUE, probe, facts, detail=detail)
