"""What a role may do beyond what deliveries need. Every Allow is tested by witnesses: requests for actions
that it names, on resources that fit its Resource. A witness counts when all the policies together allow it,
also where a condition leaves that open."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.access.lint import records
from xmode_transfer.access.lint.judging import Rights
from xmode_transfer.access.lint.records import Document, Fault, Issue, Statement, iam, texts
from xmode_transfer.access.lint.structure import PLACEHOLDERS
from xmode_transfer.aws.policy import evaluate
from xmode_transfer.aws.policy.documents import ACL, GRANTS, s3_service
from xmode_transfer.aws.policy.evaluate import Outcome, Request, S3Call, requests
from xmode_transfer.aws.policy.patterns import Context, matches
from xmode_transfer.model.findings import Finding, passed

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
_OTHER_ACLS = ("public-read", "public-read-write", "authenticated-read", "aws-exec-read")
_ANYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
_ANY = "any"  # stands for a wildcard
_OPEN = (Outcome.ALLOW, Outcome.CANNOT_TELL)


class _Witness(NamedTuple):
    """``within``: a right of deliveries, in the customer's bucket but beyond the prefix."""

    what: str
    within: bool
    action: str
    resource: str
    context: Context


def judge_excess(rights: Rights, documents: Sequence[Document]) -> Iterator[Finding | Issue]:
    """``documents`` are the role's permission policies, those of ``rights``."""
    found: list[str] = []
    for statement in (one for document in documents for one in document.statements()):
        if statement.content.get("Effect") != "Allow":
            continue
        excess, beyond = _allowed(rights, statement)
        where = f"{statement}" + (f" of {statement.document.name}" if len(documents) > 1 else "")
        if excess:
            found.append(f"{where} allows {', '.join(excess)}")
        if beyond:
            yield statement.wrong(
                Fault.BEYOND_PREFIX,
                f"{where} reaches beyond {rights.facts.place}: it allows {', '.join(beyond)}",
                "Deliveries work nevertheless, and the setup guide's policy does the same. To limit us to "
                "the prefix, use `xmode-transfer policy print --corrected`",
            )
    opened = list(_ways_to_open(rights))
    if opened:
        more = f" and {len(opened) - _NAMED} more" if len(opened) > _NAMED else ""
        found.append(f"objects can be opened to others by {', '.join(opened[:_NAMED])}{more}")
    if found:
        yield finding(Cause.TOO_BROAD, "excess", rights.facts, detail="; ".join(found))
    else:
        yield passed("excess", "these documents allow nothing that deliveries do not need")


def _allowed(rights: Rights, statement: Statement) -> tuple[list[str], list[str]]:
    """Return a few witnesses: excess, and what is only beyond the prefix."""
    content = statement.content
    alone = {**statement.document.content, "Statement": content}
    bare = {**alone, "Statement": {name: item for name, item in content.items() if name != "Condition"}}
    found: dict[bool, dict[str, str]] = {False: {}, True: {}}  # by ``within``, then by action
    for witness in _witnesses(rights, statement):
        known = found[witness.within]
        if len(known) >= _NAMED or witness.action in known:
            continue
        request = rights.known(Request(rights.session, witness.action, witness.resource, witness.context))
        outcome = evaluate([alone], request).outcome
        if outcome is Outcome.CANNOT_TELL and not evaluate([bare], request).allowed:
            continue  # the statement is malformed, which is another issue
        if outcome in _OPEN and evaluate(rights.on_role, request).outcome in _OPEN:
            known[witness.action] = witness.what
            if all(len(known) >= _NAMED for known in found.values()):
                break
    return list(found[False].values()), list(found[True].values())


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
    """Of other services a few, of S3, STS and KMS all that are known, the gravest first."""
    services = iam()["services"]

    def gravity(action: str) -> int:
        service, _, name = action.partition(":")
        return _GRAVEST_FIRST.index(services[service]["actions"][name]["level"])

    gravest = [one for one in _OF_OTHERS if matches(pattern.lower(), one.lower(), variables=False).holds]
    yield from gravest
    yield from sorted(records.actions_like(pattern), key=gravity)
    service, colon, name = pattern.partition(":")
    if colon and not gravest and service.lower() not in services:
        wild = set(service) & set("*?")
        fitting = [one for one in iam()["prefixes"] if matches(service.lower(), one, variables=False).holds]
        for one in fitting[:_NAMED] if wild else [service]:
            if one not in services:
                yield f"{one}:{_filled(name)}"


def _resources(rights: Rights, action: str, named: Sequence[str]) -> Iterator[str]:
    """Yield ARNs: the customer's, others, and those that fit the statement's."""
    facts, service = rights.facts, action.partition(":")[0]
    s3 = f"arn:{facts.partition}:s3:::"
    left = tuple(f"{s3}{name}" for name in PLACEHOLDERS)  # another issue
    fitting = [
        _filled(text, wildcard)
        for text in named
        if text.startswith(f"arn:{facts.partition}:") and not text.startswith(left)
        for wildcard in (_ANY, f"/{_ANY}")  # a wildcard reaches over a slash
    ]
    if service not in iam()["services"]:
        yield from ("*" if text == "*" else _filled(text) for text in named)
        return
    kinds, all_of_them = records.kinds_of(action), "*" in named
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
            # An ARN of the Service Authorization Reference, for another resource of the customer's.
            values = {"Partition": facts.partition, "Region": rights.region, "Account": facts.account}
            arn = iam()["services"][service]["resources"].get(kind, "*")
            for name in re.findall(r"\$\{(\w+)\}", arn):
                arn = arn.replace(f"${{{name}}}", values.get(name, _ANY))
            yield from [arn] if all_of_them else (text for text in fitting if _kind(text) == _kind(arn))
        if all_of_them and kind in ("bucket", "object"):
            yield f"{s3}another-bucket" + ("/file" if kind == "object" else "")
    if service == "kms" and facts.kms_key_arn is not None:
        yield facts.kms_key_arn


def _on(rights: Rights, action: str, resource: str, words: str) -> Iterator[_Witness]:
    """Yield nothing where deliveries need the action on the resource."""
    facts, within, needed = rights.facts, False, False
    bucket = f"arn:{facts.partition}:s3:::{facts.bucket}"
    context: dict[str, str | tuple[str, ...]] = {"s3:x-amz-acl": ACL}
    what = f"{words} on {resource}"
    if action == "s3:ListBucket" and resource == bucket:
        context["s3:prefix"] = "elsewhere/"
        within, needed = True, not facts.prefix
        what += " outside of the prefix"
    elif action in records.ON_OBJECTS and resource.startswith(f"{bucket}/"):
        within, needed = True, resource.startswith(f"{bucket}/{facts.prefix}")
    elif action.startswith("kms:"):
        ours = action in _ON_KEY and resource == facts.kms_key_arn
        context["kms:ViaService"] = () if ours else s3_service(rights.region, facts.partition)
        context["kms:CallerAccount"] = facts.account
        context["kms:ResourceAliases"] = ()
        # If the key is unknown, one key may be it.
        needed = action in _ON_KEY and facts.kms_key_arn is None and not resource.endswith(_ANY)
        what += " other than through S3" if ours else ""
    else:
        needed = action == _FREE or (action in records.ON_BUCKET and resource == bucket)
    if not needed:
        yield _Witness(what, within, action, resource, context)
        if "s3:prefix" in context:
            yield _Witness(what, within, action, resource, {**context, "s3:prefix": ()})


def _filled(pattern: str, wildcard: str = _ANY) -> str:
    return pattern.replace("*", wildcard).replace("?", "q")


def _kind(arn: str) -> tuple[str, ...]:
    """Return ``("kms", "key")`` for arn:aws:kms:us-east-1:111122223333:key/1234."""
    fields = arn.split(":", 5)
    return (fields[2], fields[5].partition("/")[0]) if len(fields) == 6 else ()


def _ways_to_open(rights: Rights) -> Iterator[str]:
    """Yield calls that would let others read or write an object below the prefix."""
    facts = rights.facts
    how: list[tuple[str, dict[str, Any]]] = [(f"the ACL {acl}", {"acl": acl}) for acl in _OTHER_ACLS]
    headers = [f"x-amz-grant-{name}" for name in GRANTS]
    how += [(header, {"grants": ((header, _ANYBODY),)}) for header in headers]
    asked = [(operation, words, more) for operation in ("PutObject", "PutObjectAcl") for words, more in how]
    asked.append(("PutObjectAcl", "an ACL in its body", {}))
    for operation, words, more in asked:
        call = S3Call(operation, facts.bucket, f"{facts.prefix}file", partition=facts.partition, **more)
        needed = [rights.known(request) for request in requests(call, rights.session)]
        if all(evaluate(rights.on_role, request).allowed for request in needed):
            yield f"{operation} with {words}"
