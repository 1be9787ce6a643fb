"""What a role may do beyond what deliveries need.

Every Allow of its policies is tried by witnesses: requests for actions that it names, on resources that fit
its Resource. A witness counts when all the policies together allow it, so that a Deny elsewhere is heard.
Where only a condition leaves that open it counts as well, since the condition may hold.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.access.lint.judging import Rights
from xmode_transfer.access.lint.records import (
    Document,
    Fault,
    Issue,
    Statement,
    actions_like,
    iam,
    kinds_of,
    texts,
)
from xmode_transfer.access.lint.structure import PLACEHOLDERS
from xmode_transfer.aws.policy import ACL, Outcome, Request, S3Call, evaluate, requests
from xmode_transfer.aws.policy.documents import GRANTS, s3_service
from xmode_transfer.aws.policy.patterns import Context, matches
from xmode_transfer.model.findings import Finding, Severity, passed

_ON_OBJECTS = frozenset(
    {
        "s3:PutObject",
        "s3:PutObjectAcl",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "s3:GetObject",
        "s3:GetObjectAcl",
        "s3:DeleteObject",
    }
)
# Besides what is needed: where the bucket is, and its unfinished uploads, which earlier kits granted.
_ON_BUCKET = frozenset({"s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"})
_ON_KEY = frozenset({"kms:GenerateDataKey", "kms:Decrypt"})
_FREE = "sts:GetCallerIdentity"  # everybody may (STS API reference)
_OF_OTHERS = (
    "iam:PutRolePolicy",
    "iam:PassRole",
    "lambda:InvokeFunction",
    "secretsmanager:GetSecretValue",
    "ec2:RunInstances",
    "dynamodb:Scan",
)
_GRAVEST_FIRST = ("Permissions management, Write", "Write", "Tagging, Write", "Read", "List")
_NAMED = 3  # witnesses of each statement; they stand for the rest
_FOREIGN_ACLS = ("public-read", "public-read-write", "authenticated-read", "aws-exec-read")
_ANYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
_ANY = "any"  # stands for a wildcard
_OPEN = (Outcome.ALLOW, Outcome.CANNOT_TELL)


class _Standing(Enum):
    NEEDED = "needed"
    BEYOND_PREFIX = "beyond the prefix"
    EXCESS = "excess"


class _Witness(NamedTuple):
    what: str
    standing: _Standing
    action: str
    resource: str
    context: Context


def judge_excess(rights: Rights, documents: Sequence[Document]) -> Iterator[Finding | Issue]:
    """``documents`` are the role's permission policies, those of ``rights``."""
    told: list[str] = []
    for statement in (one for document in documents for one in document.statements()):
        if statement.content.get("Effect") != "Allow":
            continue
        found = _allowed(rights, statement)
        where = f"{statement}" + (f" of {statement.document.name}" if len(documents) > 1 else "")
        if found[_Standing.EXCESS]:
            told.append(f"{where} allows {', '.join(found[_Standing.EXCESS])}")
        if found[_Standing.BEYOND_PREFIX]:
            beyond = ", ".join(found[_Standing.BEYOND_PREFIX])
            yield statement.wrong(
                Fault.BEYOND_PREFIX,
                f"{where} reaches beyond {rights.facts.place}: it allows {beyond}",
                "Deliveries work nevertheless, and the setup guide's policy does the same. To limit us to "
                "the prefix, use `xmode-transfer policy print --corrected`",
                Severity.WARNING,
            )
    opened = list(_ways_to_open(rights))
    if opened:
        more = f" and {len(opened) - _NAMED} more" if len(opened) > _NAMED else ""
        told.append(f"objects can be opened to others by {', '.join(opened[:_NAMED])}{more}")
    if told:
        yield finding(Cause.TOO_BROAD, "excess", rights.facts, detail="; ".join(told))
    else:
        yield passed("excess", "these documents allow nothing that deliveries do not need")


def _allowed(rights: Rights, statement: Statement) -> dict[_Standing, list[str]]:
    """What the statement allows that is not needed: a few witnesses of each standing."""
    found: dict[_Standing, list[str]] = {standing: [] for standing in _Standing}
    content = statement.content
    alone = {**statement.document.content, "Statement": content}
    bare = {**alone, "Statement": {name: item for name, item in content.items() if name != "Condition"}}
    seen: set[tuple[_Standing, str]] = set()
    for witness in _witnesses(rights, statement):
        told, of = found[witness.standing], (witness.standing, witness.action)
        if witness.standing is _Standing.NEEDED or len(told) >= _NAMED or of in seen:
            continue
        request = rights.known(Request(rights.session, witness.action, witness.resource, witness.context))
        outcome = evaluate([alone], request).outcome
        if outcome is Outcome.CANNOT_TELL and not evaluate([bare], request).allowed:
            continue  # how it is written cannot be told, which is said elsewhere
        if outcome in _OPEN and evaluate(rights.on_role, request).outcome in _OPEN:
            told.append(witness.what)
            seen.add(of)
            if len(seen) == 2 * _NAMED:
                break
    return found


# --- Witnesses -----------------------------------------------------------------------------------------


def _witnesses(rights: Rights, statement: Statement) -> Iterator[_Witness]:
    content = {"Resource": "*", "Action": "*", **statement.content}
    named = texts(content["Resource"])
    asked: dict[str, str] = {}
    for pattern in texts(content["Action"]):
        for action in _actions(pattern):
            asked.setdefault(action, pattern if action.endswith(_ANY) else action)
    for action, words in asked.items():
        for resource in dict.fromkeys(_resources(rights, action, named)):
            yield from _on(rights, action, resource, words)


def _actions(pattern: str) -> Iterator[str]:
    """Actions that fit a pattern: of other services a few, of S3, STS and KMS all that are known, the
    gravest first."""
    services = iam()["services"]

    def gravity(action: str) -> int:
        service, _, name = action.partition(":")
        return _GRAVEST_FIRST.index(services[service]["actions"][name]["level"])

    gravest = [one for one in _OF_OTHERS if matches(pattern.lower(), one.lower(), variables=False).holds]
    yield from gravest
    yield from sorted(actions_like(pattern), key=gravity)
    service, colon, name = pattern.partition(":")
    if colon and not gravest and service.lower() not in services:
        wild = set(service) & set("*?")
        fitting = [one for one in iam()["prefixes"] if matches(service.lower(), one, variables=False).holds]
        for one in fitting[:_NAMED] if wild else [service]:
            if one not in services:
                yield f"{one}:{_filled(name)}"


def _resources(rights: Rights, action: str, named: Sequence[str]) -> Iterator[str]:
    """ARNs that the action may be on: ours, others, and those that fit the statement's."""
    facts, service = rights.facts, action.partition(":")[0]
    s3 = f"arn:{facts.partition}:s3:::"
    left = tuple(f"{s3}{name}" for name in PLACEHOLDERS)  # of the guide's, which is told elsewhere
    fitting = [
        _filled(text, wildcard)
        for text in named
        if text.startswith(f"arn:{facts.partition}:") and not text.startswith(left)
        for wildcard in (_ANY, f"/{_ANY}")  # a wildcard reaches over a slash
    ]
    if service not in iam()["services"]:
        yield from ("*" if text == "*" else _filled(text) for text in named)
        return
    kinds, all_of_them = kinds_of(action), "*" in named
    if not kinds:
        yield "*"
    for kind in kinds:
        if kind == "bucket":
            yield f"{s3}{facts.bucket}"
            yield from (text.partition("/")[0] for text in fitting if text.startswith(s3))
        elif kind == "object":
            yield from (f"{s3}{facts.bucket}/{facts.prefix}file", f"{s3}{facts.bucket}/elsewhere/file")
            yield from (text if "/" in text else f"{text}/file" for text in fitting if text.startswith(s3))
        else:
            arn = _of_customer(rights, iam()["services"][service]["resources"].get(kind, "*"))
            yield from [arn] if all_of_them else (text for text in fitting if _kind(text) == _kind(arn))
        if all_of_them and kind in ("bucket", "object"):
            yield f"{s3}another-bucket" + ("/file" if kind == "object" else "")
    if service == "kms" and facts.kms_key_arn is not None:
        yield facts.kms_key_arn


def _of_customer(rights: Rights, arn: str) -> str:
    """An ARN in the Service Authorization Reference's form, for another thing of the customer's."""
    values = {
        "Partition": rights.facts.partition,
        "Region": _region(rights),
        "Account": rights.facts.account,
    }
    for name, value in values.items():
        arn = arn.replace(f"${{{name}}}", value)
    return re.sub(r"\$\{\w+\}", _ANY, arn)


def _on(rights: Rights, action: str, resource: str, words: str) -> Iterator[_Witness]:
    facts, standing = rights.facts, _Standing.EXCESS
    bucket = f"arn:{facts.partition}:s3:::{facts.bucket}"
    context: dict[str, str | tuple[str, ...]] = {"s3:x-amz-acl": ACL}
    what = f"{words} on {resource}"
    if action == "s3:ListBucket" and resource == bucket:
        context["s3:prefix"] = "elsewhere/"
        standing = _Standing.BEYOND_PREFIX if facts.prefix else _Standing.NEEDED
        what += " outside of the prefix"
    elif action == _FREE or (action in _ON_BUCKET and resource == bucket):
        standing = _Standing.NEEDED
    elif action in _ON_OBJECTS and resource.startswith(f"{bucket}/"):
        below = resource.startswith(f"{bucket}/{facts.prefix}")
        standing = _Standing.NEEDED if below else _Standing.BEYOND_PREFIX
    elif action.startswith("kms:"):
        ours = action in _ON_KEY and resource == facts.kms_key_arn
        one_key = facts.kms_key_arn is None and not resource.endswith(_ANY)
        context["kms:ViaService"] = () if ours else s3_service(_region(rights), facts.partition)
        context["kms:CallerAccount"] = facts.account
        context["kms:ResourceAliases"] = ()
        if action in _ON_KEY and one_key:
            standing = _Standing.NEEDED  # the key is unknown, and this may be it
        what += " other than through S3" if ours else ""
    yield _Witness(what, standing, action, resource, context)
    if "s3:prefix" in context:
        yield _Witness(what, standing, action, resource, {**context, "s3:prefix": ()})


def _filled(pattern: str, wildcard: str = _ANY) -> str:
    return pattern.replace("*", wildcard).replace("?", "q")


def _kind(arn: str) -> tuple[str, ...]:
    """``("kms", "key")`` of arn:aws:kms:us-east-1:111122223333:key/1234."""
    fields = arn.split(":", 5)
    return (fields[2], fields[5].partition("/")[0]) if len(fields) == 6 else ()


def _region(rights: Rights) -> str:
    return rights.facts.region or "us-east-1"


# --- ACLs ----------------------------------------------------------------------------------------------


def _ways_to_open(rights: Rights) -> Iterator[str]:
    """Calls that would let others read or write an object below the prefix."""
    facts = rights.facts
    how: list[tuple[str, dict[str, Any]]] = [(f"the ACL {acl}", {"acl": acl}) for acl in _FOREIGN_ACLS]
    headers = [f"x-amz-grant-{name}" for name in GRANTS]
    how += [(header, {"grants": ((header, _ANYBODY),)}) for header in headers]
    asked = [(operation, words, more) for operation in ("PutObject", "PutObjectAcl") for words, more in how]
    asked.append(("PutObjectAcl", "an ACL in its body", {}))
    for operation, words, more in asked:
        call = S3Call(operation, facts.bucket, f"{facts.prefix}file", partition=facts.partition, **more)
        needed = [rights.known(request) for request in requests(call, rights.session)]
        if all(evaluate(rights.on_role, request).allowed for request in needed):
            yield f"{operation} with {words}"
