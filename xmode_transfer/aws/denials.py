"""Which policy denied a request, by AWS's own words, and what has to change in it.

AWS names the policy's type within one account or organisation, and for some calls its ARN (IAM User Guide,
"Troubleshoot access denied error messages"; S3 User Guide, "Troubleshoot access denied (403 Forbidden)
errors"). Where a policy denies explicitly, no Allow anywhere helps.
"""

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.aws.policy.documents import VENDOR_PRINCIPAL
from xmode_transfer.config import Customer
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import Fix


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


class PolicyType(StrEnum):
    """As AWS calls them in its answers, in small letters."""

    IDENTITY = "identity-based policy"
    RESOURCE = "resource-based policy"
    BOUNDARY = "permissions boundary"
    SESSION = "session policy"
    SCP = "service control policy"
    RCP = "resource control policy"
    VPC_ENDPOINT = "vpc endpoint policy"
    TRUST = "role trust policy"


class Denial(NamedTuple):
    """``explicit``: a Deny statement applies; else no Allow does. ``action`` is empty where the answer names
    none, ``arn`` is the policy's where it is named."""

    policy: PolicyType
    explicit: bool
    action: str = ""
    arn: str | None = None


_TYPES = "|".join(re.escape(one).replace("session", "sessions?") for one in PolicyType)
_EXPLICIT = re.compile(
    rf"explicit deny in (?:an?|the) (?P<type>{_TYPES})(?:[^:]{{0,80}})?(?:: (?P<arn>arn:[\w+=.@:/-]+))?",
    re.IGNORECASE,
)
_IMPLICIT = re.compile(rf"because no (?P<type>{_TYPES}) allows the ", re.IGNORECASE)
_ACTION = re.compile(r"not authorized to perform: (?P<action>[\w-]+:\w+)")


def denial_in(said: str) -> Denial | None:
    """None where AWS does not say which policy it was."""
    found = _EXPLICIT.search(said)
    explicit = found is not None
    found = found or _IMPLICIT.search(said)
    if found is None:
        return None
    policy = PolicyType(found["type"].lower().replace("sessions", "session"))
    action = _ACTION.search(said)
    arn = found["arn"].rstrip(".") if explicit and found["arn"] else None
    return Denial(policy, explicit, action["action"] if action else "", arn)


def responsible_of(denial: Denial, *, assuming: bool = False) -> Responsible:
    """Who can change the policy. Our own user calls AssumeRole, and everything else is called by the
    customer's role, in a session that we narrow and through our network."""
    if assuming:
        theirs = denial.policy in (PolicyType.TRUST, PolicyType.RESOURCE, PolicyType.RCP)
    else:
        theirs = denial.policy not in (PolicyType.SESSION, PolicyType.VPC_ENDPOINT)
    return Responsible.CUSTOMER if theirs else Responsible.VENDOR


def named(denial: Denial) -> str:
    """The policy in words: ``an explicit deny in a service control policy (arn:...)``."""
    article = "an" if denial.policy is PolicyType.IDENTITY else "a"
    policy = denial.policy.replace("vpc", "VPC")
    words = f"an explicit deny in {article} {policy}" if denial.explicit else f"no {policy} allows it"
    return words + (f" ({denial.arn})" if denial.arn else "")


def change(denial: Denial, facts: Facts, *, assuming: bool = False) -> Fix:
    """What has to change in which policy. Its command only shows the policy: what it denies to others is not
    known here."""
    action = denial.action or "the call"
    whose, command = _place(denial, facts, assuming)
    role = "our user" if assuming else facts.role_arn
    if denial.policy is PolicyType.SESSION and not assuming:
        summary = (
            f"The session policy with which we narrow our own sessions does not allow {action}: a defect of "
            "ours, to be reported with AWS's answer. The customer need not do anything"
        )
    elif denial.explicit:
        theirs = ", like the setup guide's third statement," if action.startswith("kms:") else ""
        summary = (
            f"Take the Deny statement that applies to {action}{theirs} out of {whose}, or except {role} in "
            "its Condition. An Allow beside it does not help: an explicit deny wins"
        )
    else:
        summary = f"Add {action} to what {whose} allows {role}; an Allow in another policy does not help"
    return Fix(summary, None, command)


def _place(denial: Denial, facts: Facts, assuming: bool) -> tuple[str, str | None]:
    """Where the policy hangs, and the call of the AWS CLI that shows it."""
    kind, name = ("user", facts.principal.rpartition("/")[2]) if assuming else ("role", facts.role_name)
    whose = f"our user {name}" if assuming else f"the role {name}"
    if denial.arn is not None and ":iam:" in denial.arn:
        arn = shlex.quote(denial.arn)
        version = f"aws iam get-policy --policy-arn {arn} --query Policy.DefaultVersionId --output text"
        shown = f"aws iam get-policy-version --policy-arn {arn} --version-id $({version})"
    elif denial.arn is not None and ":organizations:" in denial.arn:
        shown = f"aws organizations describe-policy --policy-id {shlex.quote(denial.arn.rpartition('/')[2])}"
    else:
        shown = None
    policy = f"the policy {denial.arn}" if denial.arn else None
    match denial.policy:
        case PolicyType.IDENTITY:
            return policy or f"the policies of {whose}", shown or (
                f"aws iam list-{kind}-policies --{kind}-name {name}; "
                f"aws iam list-attached-{kind}-policies --{kind}-name {name}"
            )
        case PolicyType.BOUNDARY:
            boundary = f"{kind.title()}.PermissionsBoundary"
            return f"the permissions boundary of {whose}", shown or (
                f"aws iam get-{kind} --{kind}-name {name} --query {boundary}"
            )
        case PolicyType.RESOURCE | PolicyType.TRUST if assuming:
            return f"the trust policy of the role {facts.role_name}", (
                f"aws iam get-role --role-name {facts.role_name} --query Role.AssumeRolePolicyDocument"
            )
        case PolicyType.RESOURCE if denial.action.startswith("kms:"):
            key = facts.kms_key_arn
            return "the policy of the KMS key", key and (
                f"aws kms get-key-policy --key-id {key} --policy-name default --query Policy --output text"
            )
        case PolicyType.SCP | PolicyType.RCP:
            ours = assuming and denial.policy is PolicyType.SCP
            account = facts.principal.split(":")[4] if ours else facts.account
            filtered = denial.policy.upper().replace(" ", "_")
            where = policy or f"the {denial.policy} of account {account}'s organisation"
            return where, shown or (
                f"aws organizations list-policies-for-target --target-id {account} --filter {filtered}"
            )
        case PolicyType.VPC_ENDPOINT:
            return "the policy of the VPC endpoint through which this service reaches AWS", (
                "aws ec2 describe-vpc-endpoints --query 'VpcEndpoints[].[VpcEndpointId,PolicyDocument]'"
            )
        case PolicyType.SESSION:
            return "the session policy of our own credentials", None
        case _:
            return f"the policy of the bucket {facts.bucket}", (
                f"aws s3api get-bucket-policy --bucket {facts.bucket} --query Policy --output text"
            )
