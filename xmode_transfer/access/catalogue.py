"""The catalogue of causes, each with its responsible, severity, message and fix."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from xmode_transfer.access.fixes import POLICY_STEPS, grant, kms, may_assume, replace, role, run, say, trust
from xmode_transfer.aws.denials import PolicyType, change, denial_in, named, responsible_of
from xmode_transfer.aws.policy import ACL
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import Cause, Finding, Fix, Result, Severity, skipped


@dataclass(frozen=True, slots=True)
class _Entry:
    sentence: str
    fix: Callable[[SetupValues], Fix] | None
    severity: Severity = Severity.ERROR
    responsible: Responsible | None = Responsible.CUSTOMER
    result: Result = Result.DENIED


_US, _UNEXPECTED = Responsible.VENDOR, Result.UNEXPECTED
_INFO, _WARNING, _CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL
_BELOW_PREFIX = "DeliverBelowPrefix"
_PUTTING = ["s3:PutObjectAcl", "s3:PutObject"]

_CATALOGUE: Mapping[Cause, _Entry] = {
    Cause.OK: _Entry("everything is correct", None, _INFO, None, Result.OK),
    Cause.VENDOR_IDENTITY_WRONG: _Entry(
        "our AWS credentials are not those of {f.principal}, which customers' roles trust",
        run(
            "Give this service the access key of {f.principal} (AWS_PROFILE or AWS_ACCESS_KEY_ID), or "
            "correct vendor.principal_arn in service.yaml",
            "aws sts get-caller-identity",
        ),
        _CRITICAL,
        _US,
        _UNEXPECTED,
    ),
    Cause.VENDOR_KEY_INVALID: _Entry(
        "AWS does not accept our own access key",
        run(
            "Check AWS_ACCESS_KEY_ID, AWS_PROFILE and the shared credentials file of this service: the key "
            "was rotated, deactivated or mistyped",
            "aws sts get-caller-identity",
        ),
        _CRITICAL,
        _US,
    ),
    Cause.VENDOR_POLICY_DENIES_ASSUME: _Entry(
        "AWS says that our own user {f.principal} may not assume {f.role_arn}: one of our policies does "
        "not allow it",
        may_assume,
        responsible=_US,
    ),
    Cause.CLOCK_SKEW: _Entry(
        "AWS refuses our requests because this machine's clock is wrong",
        run("Set this machine's clock; AWS accepts a few minutes at most", "chronyc makestep"),
        _CRITICAL,
        _US,
    ),
    Cause.STS_REGION_DISABLED: _Entry(
        "the customer's account {f.account} has deactivated STS in every region that we use",
        say(
            "Set vendor.sts_region to a region that is active in the customer's account, or ask the customer "
            "to activate one (IAM, Account settings, Security Token Service)"
        ),
        responsible=_US,
    ),
    Cause.ROLE_REFUSED: _Entry(
        "AWS refuses to let us assume {f.role_arn} under its external ID; its answer is the same when "
        "the role does not exist, does not trust {f.principal}, or requires another external ID",
        role(
            "Check, in this order: 1. the role {f.role_arn} exists; the command creates it if not. 2. It has "
            "exactly this trust policy; the external ID is case-sensitive. 3. No policy of the organisation "
            "(SCP or RCP) denies it. 4. Our own user has sts:AssumeRole on it"
        ),
    ),
    Cause.EXTERNAL_ID_NOT_REQUIRED: _Entry(
        "the role {f.role_arn} can be assumed without an external ID, so that nothing ties it to this "
        "customer",
        trust("Give the role this trust policy: it requires the external ID {f.external_id} and no other"),
        _CRITICAL,
        result=_UNEXPECTED,
    ),
    Cause.EXTERNAL_ID_ANY_VALUE: _Entry(
        "the role {f.role_arn} requires an external ID but accepts values that were never issued",
        trust("Give the role this trust policy: StringEquals with {f.external_id}, without wildcards"),
        _CRITICAL,
        result=_UNEXPECTED,
    ),
    Cause.EXTERNAL_ID_CASE_INSENSITIVE: _Entry(
        "the role {f.role_arn} accepts the external ID in a different letter case, so that another "
        "customer's ID may match",
        trust("Give the role this trust policy: StringEquals, not StringEqualsIgnoreCase"),
        result=_UNEXPECTED,
    ),
    Cause.BUCKET_MISSING: _Entry(
        "there is no bucket {f.bucket}",
        run(
            "Tell us the right bucket name (destination.bucket), or create the bucket in account "
            "{f.bucket_owner}",
            "aws s3api head-bucket --bucket {f.bucket}",
            "the first sentence of the console set-up (the S3 location)",
        ),
    ),
    Cause.BUCKET_OTHER_REGION: _Entry(
        "the bucket {f.bucket} is in another region than configured",
        say("Set destination.region in the customer's file to the bucket's region"),
        responsible=_US,
        result=_UNEXPECTED,
    ),
    Cause.BUCKET_OTHER_OWNER: _Entry(
        "the bucket {f.bucket} does not belong to account {f.bucket_owner}, so nothing is written to it",
        run(
            "Tell us which account owns the bucket. If it is the right bucket, we set "
            "destination.bucket_owner; if not, tell us the right name",
            "aws s3api head-bucket --bucket {f.bucket} --expected-bucket-owner {f.bucket_owner}",
        ),
        _CRITICAL,
    ),
    Cause.LIST_DENIED: _Entry(
        "the role may not list {f.place}",
        grant(
            "Allow s3:ListBucket on the bucket itself (the ARN without /*)",
            "ListBucket",
            ["s3:ListBucket"],
            2,
        ),
    ),
    Cause.PUT_DENIED: _Entry(
        f"the role may not put objects below {{f.place}}, not even with the ACL {ACL}",
        grant(
            "Allow s3:PutObject and s3:PutObjectAcl on the objects (the ARN with /*), and look for a Deny, "
            "also in the bucket's policy: a Deny overrides",
            _BELOW_PREFIX,
            _PUTTING,
            1,
        ),
    ),
    Cause.PUT_WITHOUT_ACL_ALLOWED: _Entry(
        f"the role may put objects without the ACL {ACL}, which the guide's policy denies; we always send "
        "it, so no action is needed",
        say(
            "No action is needed. The guide's first statement has a condition on s3:x-amz-acl; without it "
            "larger files can be sent in parts, which carry no ACL",
            POLICY_STEPS.format(1),
        ),
        _INFO,
        result=_UNEXPECTED,
    ),
    Cause.ACL_REFUSED: _Entry(
        f"the role may put objects below {{f.place}}, but not with the ACL {ACL}, which we always send",
        grant(
            f"Allow s3:PutObjectAcl beside s3:PutObject, and let the condition on s3:x-amz-acl name {ACL} "
            "exactly",
            _BELOW_PREFIX,
            ["s3:PutObject", "s3:PutObjectAcl"],
            1,
        ),
    ),
    Cause.MULTIPART_DENIED: _Entry(
        "the role denies multipart uploads, because parts carry no ACL: files up to 5 GiB are sent whole, "
        "and larger ones cannot be delivered",
        grant(
            "For files over 5 GiB: allow s3:PutObject without the condition on s3:x-amz-acl",
            _BELOW_PREFIX,
            _PUTTING,
            1,
        ),
        _WARNING,
    ),
    Cause.ABORT_DENIED: _Entry(
        "the role may not abort a multipart upload, which the guide does not grant: a failed upload leaves "
        "its parts in {f.bucket} until a lifecycle rule removes them",
        grant(
            "Allow s3:AbortMultipartUpload, and give the bucket a lifecycle rule "
            "AbortIncompleteMultipartUpload of 7 days",
            _BELOW_PREFIX,
            ["s3:AbortMultipartUpload"],
        ),
        _WARNING,
    ),
    Cause.LIST_PARTS_DENIED: _Entry(
        "the role may not list the parts of a multipart upload; the guide does not grant it and we do not "
        "need it",
        grant(
            "No action is needed; allow s3:ListMultipartUploadParts for completeness",
            _BELOW_PREFIX,
            ["s3:ListMultipartUploadParts"],
        ),
        _INFO,
    ),
    Cause.HEAD_DENIED: _Entry(
        "the role may not read objects below {f.place}, so we cannot prove what arrived",
        grant("Allow s3:GetObject on the objects (the ARN with /*)", _BELOW_PREFIX, ["s3:GetObject"], 2),
    ),
    Cause.GET_ACL_DENIED: _Entry(
        "the role may not read the ACL of objects below {f.place}, so we cannot prove who owns them",
        grant(
            "Allow s3:GetObjectAcl on the objects (the ARN with /*)", _BELOW_PREFIX, ["s3:GetObjectAcl"], 2
        ),
    ),
    Cause.DELETE_DENIED: _Entry(
        "the role may not delete objects below {f.place}, so retention cannot work and the objects of "
        "this check remain",
        grant(
            "Allow s3:DeleteObject on the objects (the ARN with /*)", _BELOW_PREFIX, ["s3:DeleteObject"], 2
        ),
    ),
    Cause.KMS_DENIED: _Entry(
        "the bucket {f.bucket} encrypts with a KMS key that the role may not use: the guide's third "
        "statement denies everything that is not S3, KMS included",
        kms,
    ),
    Cause.VERSIONED_BUCKET: _Entry(
        "the bucket {f.bucket} keeps versions: an object that we delete only gets a delete marker and is "
        "still stored",
        run(
            "Add a lifecycle rule NoncurrentVersionExpiration to the bucket if old data should be removed",
            "aws s3api get-bucket-lifecycle-configuration --bucket {f.bucket}",
        ),
        _WARNING,
        result=_UNEXPECTED,
    ),
    Cause.OBJECT_LOCK: _Entry(
        "the bucket {f.bucket} locks new objects, so delivered objects stay until their retention ends",
        run(
            "No action is needed if this is intended; otherwise change the bucket's default retention",
            "aws s3api get-object-lock-configuration --bucket {f.bucket}",
        ),
        _WARNING,
        result=_UNEXPECTED,
    ),
    Cause.OWNER_LACKS_FULL_CONTROL: _Entry(
        "an object that we put into {f.bucket} does not give the bucket's owner {f.bucket_owner} full "
        "control",
        run(
            "Set the bucket's object ownership so that the account owns every object in it",
            "aws s3api put-bucket-ownership-controls --bucket {f.bucket} "
            "--ownership-controls 'Rules=[{{ObjectOwnership=BucketOwnerEnforced}}]'",
        ),
        result=_UNEXPECTED,
    ),
    Cause.TOO_BROAD: _Entry(
        "the role {f.role_arn} has rights that it should not have",
        replace(
            "Replace the role's policies by this one, which is limited to {f.place}; this statement "
            "denies S3 elsewhere",
            "NoOtherBucket",
            3,
        ),
        _WARNING,
        result=_UNEXPECTED,
    ),
    Cause.OVERLAPPING_DESTINATION: _Entry(
        "{f.place} overlaps the destination of another customer",
        say("Give one of the two another destination.bucket or destination.prefix in its file"),
        responsible=_US,
        result=_UNEXPECTED,
    ),
}
_ASSUMING = frozenset({Cause.ROLE_REFUSED, Cause.VENDOR_POLICY_DENIES_ASSUME})


def finding(
    cause: Cause,
    probe: str,
    facts: SetupValues,
    *,
    detail: str = "",
    request_id: str | None = None,
    said: str = "",
) -> Finding:
    """The catalogue's finding for a cause. ``detail`` (a name, a number) is appended to the message in
    brackets. ``said`` is AWS's own message: if it names the policy that denied, the fix is about that policy,
    and its owner is responsible."""
    entry = _CATALOGUE[cause]
    message = entry.sentence.format(f=facts)
    fix = entry.fix(facts) if entry.fix is not None else None
    responsible = entry.responsible
    denial = denial_in(said) if entry.result is Result.DENIED else None
    if denial is not None:
        assuming = cause in _ASSUMING
        detail = "; ".join(filter(None, (detail, f"AWS: {named(denial)}")))
        responsible = responsible_of(denial, assuming=assuming)
        if assuming and denial.policy in (PolicyType.TRUST, PolicyType.RESOURCE):
            fix = trust("Give the role {f.role_arn}, which exists, exactly this trust policy")(facts)
        elif denial.explicit or denial.policy is not PolicyType.IDENTITY:
            fix = change(denial, facts, assuming=assuming)
    if detail:
        message = f"{message} ({detail})"
    return Finding(probe, entry.result, cause, responsible, entry.severity, message, fix, request_id, said)


# --- External IDs that allow access and should not


NO_ID, RANDOM_ID, SIMILAR_ID, OTHER_CASE = (
    f"external_id_{trial}" for trial in ("none", "random", "similar", "case")
)
"""The probes that try other external IDs than the customer's."""


def wrongly_accepted(probe: str, accepted: Collection[str], facts: SetupValues) -> Finding:
    """The finding when the role allows access with the probe's external ID. ``accepted`` are all probes that
    it accepted: one mistake gives one finding."""
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
