"""Fixes with the customer's own values: policy statement, AWS CLI command and step of the setup guide."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from xmode_transfer.aws.policy import documents
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.config.names import parse_iam

POLICY_NAME = "XModeTransfer"  # the inline policy that our commands put on a customer's role
POLICY_STEPS = "console step 7; CLI steps 4 to 6 (statement {})"

Parts = tuple[dict[str, Any] | None, str | None, str | None]
"""Statement, command and step of the guide, as in ``Fix``."""
Remedy = Callable[[SetupValues], Parts]


def trust(facts: SetupValues) -> Parts:
    document = documents.corrected_trust_policy(facts.external_id, facts.principal)
    command = _line("aws iam update-assume-role-policy", role_name=facts.role_name, policy_document=document)
    return document["Statement"], command, "console steps 4, 5, 8 and 15 to 17; CLI step 2"


def role(facts: SetupValues) -> Parts:
    """As ``trust``, for a role that may not exist: the command creates it if needed."""
    statement, update, steps = trust(facts)
    path = parse_iam(facts.role_arn, "role").path
    create = _line(
        "aws iam create-role" + (f" --path {shlex.quote(path)}" if path != "/" else ""),
        role_name=facts.role_name,
        assume_role_policy_document=documents.corrected_trust_policy(facts.external_id, facts.principal),
    )
    permit = _put_policy(facts, POLICY_NAME, _corrected(facts))
    exists = f"aws iam get-role --role-name {shlex.quote(facts.role_name)} > /dev/null"
    return statement, f"if {exists} ; then {update} ; else {create} && {permit} ; fi", steps


def grant(sid: str, actions: list[str], in_guide: int = 0) -> Remedy:
    """Add the statement ``sid`` of the corrected policy, cut down to ``actions``, beside what the role has.
    ``in_guide`` is the number of the guide's statement, 0 for none."""

    def remedy(facts: SetupValues) -> Parts:
        suffix = actions[-1].partition(":")[2]
        statement = {**_statement(facts, sid), "Sid": sid + suffix, "Action": actions}
        statements = [statement]
        if "s3:PutObject" in actions:  # and with no other ACL than ours
            statements += documents.no_other_acl(f"arn:{facts.partition}:s3:::{facts.bucket}/*")
        document = {"Version": "2012-10-17", "Statement": statements}
        steps = POLICY_STEPS.format(in_guide) if in_guide else "not in the guide"
        return statement, _put_policy(facts, f"{POLICY_NAME}{suffix}", document), steps

    return remedy


def replace(facts: SetupValues) -> Parts:
    """Put the whole corrected policy on the role; what it had before must go."""
    command = _put_policy(facts, POLICY_NAME, _corrected(facts))
    return _statement(facts, "NoOtherBucket"), command, POLICY_STEPS.format(3)


def allow_key(facts: SetupValues) -> Parts:
    unknown = f"arn:{facts.partition}:kms:{facts.region or 'us-east-1'}:{facts.account}:key/unknown"
    document = _corrected(dataclasses.replace(facts, kms_key_arn=facts.kms_key_arn or unknown))
    statement = document["Statement"][-1]
    if facts.kms_key_arn is None:  # any key of the account's, through S3 only
        statement["Resource"] = f"{unknown.removesuffix('unknown')}*"
    return statement, _put_policy(facts, POLICY_NAME, document), POLICY_STEPS.format(3)


def allow_vendor(facts: SetupValues) -> Parts:
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": facts.role_arn}
    command = _line(
        "aws iam put-user-policy",
        user_name=facts.principal.rpartition("/")[2],
        policy_name=f"assume-{facts.account}-{facts.role_name}",
        policy_document={"Version": "2012-10-17", "Statement": [statement]},
    )
    return statement, command, None


def run(command: str | None = None, guide_step: str | None = None) -> Remedy:
    """A command without a statement, or neither."""
    return lambda facts: (None, command and command.format(f=facts), guide_step)


def _corrected(facts: SetupValues) -> dict[str, Any]:
    key = facts.kms_key_arn
    region = facts.region or (key.split(":")[3] if key else None)
    return documents.corrected_permission_policy(
        facts.bucket, facts.prefix, key, region, partition=facts.partition
    )


def _statement(facts: SetupValues, sid: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in _corrected(facts)["Statement"] if one["Sid"] == sid)
    return found


def _put_policy(facts: SetupValues, name: str, document: Mapping[str, Any]) -> str:
    return _line(
        "aws iam put-role-policy", role_name=facts.role_name, policy_name=name, policy_document=document
    )


def _line(call: str, **options: object) -> str:
    words = [call]
    for name, value in options.items():
        text = json.dumps(value, separators=(",", ":")) if isinstance(value, Mapping) else str(value)
        words.append(f"--{name.replace('_', '-')} {shlex.quote(text)}")
    return " ".join(words)
