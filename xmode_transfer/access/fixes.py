"""Fixes: statements, command lines and steps of the guide, with the customer's own values."""

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from xmode_transfer.aws.policy.documents import (
    SetupValues,
    corrected_permission_policy,
    corrected_trust_policy,
    no_other_acl,
)
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.findings import Fix

POLICY_NAME = "XModeTransfer"
"""The inline policy that our commands put on a customer's role."""

TRUST_STEPS = "console steps 4, 5, 8 and 15 to 17; CLI step 2"
POLICY_STEPS = "console step 7; CLI steps 4 to 6 (statement {})"


def trust(summary: str) -> Callable[[SetupValues], Fix]:
    def fix(facts: SetupValues) -> Fix:
        document = corrected_trust_policy(facts.external_id, facts.principal)
        command = line(
            "aws iam update-assume-role-policy", role_name=facts.role_name, policy_document=document
        )
        return Fix(summary.format(f=facts), document["Statement"], command, TRUST_STEPS)

    return fix


def role(summary: str) -> Callable[[SetupValues], Fix]:
    """As ``trust``, for a role that may not exist: the command creates it if needed."""

    def fix(facts: SetupValues) -> Fix:
        fixed = trust(summary)(facts)
        path = parse_iam(facts.role_arn, "role").path
        of_path = f"--path {shlex.quote(path)} " if path != "/" else ""
        name = shlex.quote(facts.role_name)
        make = line(
            f"aws iam create-role {of_path}".rstrip(),
            role_name=facts.role_name,
            assume_role_policy_document=corrected_trust_policy(facts.external_id, facts.principal),
        )
        grant = _put_policy(facts, POLICY_NAME, _corrected(facts))
        there = f"aws iam get-role --role-name {name} > /dev/null"
        command = f"if {there} ; then {fixed.command} ; else {make} && {grant} ; fi"
        return Fix(fixed.summary, fixed.statement, command, fixed.guide_step)

    return fix


def _corrected(facts: SetupValues) -> dict[str, Any]:
    key = facts.kms_key_arn
    region = facts.region or (key.split(":")[3] if key else None)
    return corrected_permission_policy(facts.bucket, facts.prefix, key, region, partition=facts.partition)


def _statement(facts: SetupValues, sid: str, actions: list[str] | None = None) -> dict[str, Any]:
    """One statement of the corrected permission policy, cut down to some of its actions."""
    for statement in _corrected(facts)["Statement"]:
        if statement["Sid"] == sid:
            cut: dict[str, Any] = {**statement}
            if actions is not None:
                cut["Sid"] = sid + actions[-1].partition(":")[2]
                cut["Action"] = actions
            return cut
    raise KeyError(sid)


def grant(summary: str, sid: str, actions: list[str], in_guide: int = 0) -> Callable[[SetupValues], Fix]:
    """Adds one statement to the role, beside what it has; ``in_guide`` is the statement of the guide's policy
    that treats of it, 0 for none."""

    def fix(facts: SetupValues) -> Fix:
        statement = _statement(facts, sid, actions)
        statements = [statement]
        if "s3:PutObject" in actions:  # and with no other ACL than ours
            statements += no_other_acl(f"arn:{facts.partition}:s3:::{facts.bucket}/*")
        name = f"{POLICY_NAME}{actions[-1].partition(':')[2]}"
        command = _put_policy(facts, name, {"Version": "2012-10-17", "Statement": statements})
        steps = POLICY_STEPS.format(in_guide) if in_guide else "not in the guide"
        return Fix(summary.format(f=facts), statement, command, steps)

    return fix


def replace(summary: str, sid: str, in_guide: int) -> Callable[[SetupValues], Fix]:
    """Puts the whole corrected policy on the role; what it had before must go."""

    def fix(facts: SetupValues) -> Fix:
        command = _put_policy(facts, POLICY_NAME, _corrected(facts))
        return Fix(summary.format(f=facts), _statement(facts, sid), command, POLICY_STEPS.format(in_guide))

    return fix


def kms(facts: SetupValues) -> Fix:
    place = facts.region or "us-east-1"
    key = facts.kms_key_arn or f"arn:{facts.partition}:kms:{place}:{facts.account}:key/unknown"
    document = corrected_permission_policy(facts.bucket, facts.prefix, key, place, partition=facts.partition)
    statement = document["Statement"][-1]
    if facts.kms_key_arn is None:  # the key is unknown: any of the account's, through S3 only
        statement["Resource"] = f"{key.removesuffix('unknown')}*"
    return Fix(
        "Replace the role's permission policy by this one, which allows the key. The guide's third statement "
        "denies everything that is not S3, so it must be detached; an additional Allow does not help. "
        f"The key's own policy must also allow {facts.role_arn} to use kms:GenerateDataKey and kms:Decrypt",
        statement,
        _put_policy(facts, POLICY_NAME, document),
        POLICY_STEPS.format(3),
    )


def may_assume(facts: SetupValues) -> Fix:
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": facts.role_arn}
    command = line(
        "aws iam put-user-policy",
        user_name=facts.principal.rpartition("/")[2],
        policy_name=f"assume-{facts.account}-{facts.role_name}",
        policy_document={"Version": "2012-10-17", "Statement": [statement]},
    )
    return Fix(f"Allow our user {facts.principal} to assume the role, in our own account", statement, command)


def say(summary: str, guide_step: str | None = None) -> Callable[[SetupValues], Fix]:
    return lambda facts: Fix(summary.format(f=facts), None, None, guide_step)


def run(summary: str, command: str, guide_step: str | None = None) -> Callable[[SetupValues], Fix]:
    return lambda facts: Fix(summary.format(f=facts), None, command.format(f=facts), guide_step)


def _put_policy(facts: SetupValues, name: str, document: Mapping[str, Any]) -> str:
    return line(
        "aws iam put-role-policy", role_name=facts.role_name, policy_name=name, policy_document=document
    )


def line(call: str, **options: object) -> str:
    """An AWS CLI command line, quoted for a shell."""
    words = [call]
    for name, value in options.items():
        text = json.dumps(value, separators=(",", ":")) if isinstance(value, Mapping) else str(value)
        words.append(f"--{name.replace('_', '-')} {shlex.quote(text)}")
    return " ".join(words)
