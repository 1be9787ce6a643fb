"""The policy that denied a request, by AWS's own words, and what to change in it.

AWS names the policy's type within one account or organisation, and for some calls its ARN (IAM User Guide,
"Troubleshoot access denied error messages"; S3 User Guide, "Troubleshoot access denied (403 Forbidden)
errors"). If a policy denies explicitly, no Allow anywhere helps.
"""

import re
import shlex
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import Fix


class PolicyType(StrEnum):
    """AWS's names in its answers, in lower case."""

    IDENTITY = "identity-based policy"
    RESOURCE = "resource-based policy"
    BOUNDARY = "permissions boundary"
    SESSION = "session policy"
    SCP = "service control policy"
    RCP = "resource control policy"
    VPC_ENDPOINT = "vpc endpoint policy"
    TRUST = "role trust policy"


class Denial(NamedTuple):
    """``explicit``: a Deny statement applies; else no Allow does. ``arn`` is the policy's."""

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
    """Return who can change the policy. Our own user calls AssumeRole; the customer's role makes all other
    calls, in a session that we narrow and through our network."""
    if assuming:
        theirs = denial.policy in (PolicyType.TRUST, PolicyType.RESOURCE, PolicyType.RCP)
    else:
        theirs = denial.policy not in (PolicyType.SESSION, PolicyType.VPC_ENDPOINT)
    return Responsible.CUSTOMER if theirs else Responsible.VENDOR


def named(denial: Denial) -> str:
    """Return the policy in words: ``an explicit deny in a service control policy (arn:...)``."""
    article = "an" if denial.policy is PolicyType.IDENTITY else "a"
    policy = denial.policy.replace("vpc", "VPC")
    words = f"an explicit deny in {article} {policy}" if denial.explicit else f"no {policy} allows it"
    return words + (f" ({denial.arn})" if denial.arn else "")


def change(denial: Denial, facts: SetupValues, *, assuming: bool = False) -> Fix:
    """Return what to change. The command only shows the policy: what it denies to others is unknown here."""
    action = denial.action or "the call"
    policy, command = _policy(denial, facts, assuming)
    role = "our user" if assuming else facts.role_arn
    if denial.policy is PolicyType.SESSION and not assuming:
        summary = (
            f"The session policy with which we narrow our own sessions does not allow {action}: a defect of "
            "ours, to be reported with AWS's answer. The customer need not do anything"
        )
    elif denial.explicit:
        third = ", like the setup guide's third statement," if action.startswith("kms:") else ""
        summary = (
            f"Take the Deny statement that applies to {action}{third} out of {policy}, or except {role} in "
            "its Condition. An Allow beside it does not help: an explicit deny wins"
        )
    else:
        summary = f"Add {action} to what {policy} allows {role}; an Allow in another policy does not help"
    return Fix(summary, None, command)


def _policy(denial: Denial, facts: SetupValues, assuming: bool) -> tuple[str, str | None]:
    kind, name = ("user", facts.principal.rpartition("/")[2]) if assuming else ("role", facts.role_name)
    holder = f"our user {name}" if assuming else f"the role {name}"
    named = f"the policy {denial.arn}" if denial.arn else None
    shown = _showing(denial.arn or "")
    match denial.policy:
        case PolicyType.IDENTITY:
            listing = (
                f"aws iam list-{kind}-policies --{kind}-name {name}; "
                f"aws iam list-attached-{kind}-policies --{kind}-name {name}"
            )
            return named or f"the policies of {holder}", shown or listing
        case PolicyType.BOUNDARY:
            command = f"aws iam get-{kind} --{kind}-name {name} --query {kind.title()}.PermissionsBoundary"
            return f"the permissions boundary of {holder}", shown or command
        case PolicyType.RESOURCE | PolicyType.TRUST if assuming:
            command = f"aws iam get-role --role-name {facts.role_name} --query Role.AssumeRolePolicyDocument"
            return f"the trust policy of the role {facts.role_name}", command
        case PolicyType.RESOURCE if denial.action.startswith("kms:"):
            key = facts.kms_key_arn
            command = (
                f"aws kms get-key-policy --key-id {key} --policy-name default --query Policy --output text"
            )
            return "the policy of the KMS key", command if key else None
        case PolicyType.SCP | PolicyType.RCP:
            ours = assuming and denial.policy is PolicyType.SCP
            account = facts.principal.split(":")[4] if ours else facts.account
            filtered = denial.policy.upper().replace(" ", "_")
            listing = f"aws organizations list-policies-for-target --target-id {account} --filter {filtered}"
            where = f"the {denial.policy} of account {account}'s organisation"
            return named or where, shown or listing
        case PolicyType.VPC_ENDPOINT:
            query = "'VpcEndpoints[].[VpcEndpointId,PolicyDocument]'"
            where = "the policy of the VPC endpoint through which this service reaches AWS"
            return where, f"aws ec2 describe-vpc-endpoints --query {query}"
        case PolicyType.SESSION:
            return "the session policy of our own credentials", None
        case _:
            command = f"aws s3api get-bucket-policy --bucket {facts.bucket} --query Policy --output text"
            return f"the policy of the bucket {facts.bucket}", command


def _showing(arn: str) -> str | None:
    if ":iam:" in arn:
        quoted = shlex.quote(arn)
        version = f"aws iam get-policy --policy-arn {quoted} --query Policy.DefaultVersionId --output text"
        return f"aws iam get-policy-version --policy-arn {quoted} --version-id $({version})"
    if ":organizations:" in arn:
        return f"aws organizations describe-policy --policy-id {shlex.quote(arn.rpartition('/')[2])}"
    return None
