"""What policies decide about a request and about an S3 call, and why.

A statement that is not understood here, or that depends on what only AWS knows, gives CANNOT_TELL, unless the
rest decides without it. Sources: IAM User Guide, policy evaluation logic; S3 API reference, "Permissions" of
each call; S3 User Guide, "Multipart upload API and permissions".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.aws.policy.patterns import (
    YES,
    Context,
    Verdict,
    condition_holds,
    every,
    excluded_by,
    folded,
    matches,
    matches_resource,
    named_by,
    negated,
    some,
    strings,
)


class Outcome(StrEnum):
    ALLOW = "allow"
    EXPLICIT_DENY = "explicit_deny"
    IMPLICIT_DENY = "implicit_deny"
    CANNOT_TELL = "cannot_tell"


class PolicyKind(StrEnum):
    """What a policy is attached to, which decides the elements that it must and may have."""

    IDENTITY = "identity"  # on a role or user, or a session policy: Resource, no Principal
    RESOURCE = "resource"  # on a bucket or key: Resource and Principal
    TRUST = "trust"  # on a role, who may assume it: Principal, no Resource


@dataclass(frozen=True, slots=True)
class Request:
    """One call of one action. ``context`` has the known condition keys; an empty tuple: the key is absent."""

    principal: str
    action: str
    resource: str
    context: Context = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, and what decided, if anything: the policy, the statement in it (both from 0), its Sid."""

    outcome: Outcome
    reason: str
    policy: int | None = None
    statement: int | None = None
    sid: str | None = None

    @property
    def allowed(self) -> bool:
        return self.outcome is Outcome.ALLOW


class _Finding(NamedTuple):
    """One statement's possible effects (both if that is unknown), and whether it applies."""

    effects: frozenset[str]
    applies: Verdict
    near_miss: bool
    policy: int
    statement: int | None
    sid: str | None

    def decision(self, outcome: Outcome, reason: str) -> Decision:
        return Decision(outcome, reason, self.policy, self.statement, self.sid)


_EFFECTS = frozenset({"Allow", "Deny"})
_VERSIONS = {"2012-10-17": True, "2008-10-17": False}  # whether it has policy variables
_ELEMENTS = {"Sid", "Effect", "Condition"} | {
    f"{negation}{element}" for element in ("Principal", "Action", "Resource") for negation in ("", "Not")
}
_ACTION = re.compile(r"\*|[^:\s]+:[^:\s]+")


def evaluate(
    policies: Sequence[Mapping[str, Any]], request: Request, *, kind: PolicyKind = PolicyKind.IDENTITY
) -> Decision:
    """Return what the policies of one kind decide together, in any order of policies and statements."""
    context = folded(request.context)
    findings = [
        finding
        for index, document in enumerate(policies)
        for finding in _findings(index, document, request, context, kind)
    ]

    def first(effect: str, holds: bool | None) -> _Finding | None:
        return next((f for f in findings if effect in f.effects and f.applies.holds is holds), None)

    several = len(policies) > 1
    what = f"{request.action} on {request.resource}"
    deny, allow = first("Deny", True), first("Allow", True)
    doubt = first("Deny", None)
    if deny is not None:
        return deny.decision(Outcome.EXPLICIT_DENY, f"{_named(deny, several)} denies {what}")
    if allow is not None and doubt is None:
        return allow.decision(Outcome.ALLOW, f"{_named(allow, several)} allows {what}")
    perhaps = first("Allow", None)
    doubt = doubt or perhaps
    if doubt is not None and (allow or perhaps):
        reason = f"whether {_named(doubt, several)} applies to {what} cannot be told: {doubt.applies.why}"
        return doubt.decision(Outcome.CANNOT_TELL, reason)
    reason = f"no statement allows {what}"
    missed = next((f for f in findings if "Allow" in f.effects and f.near_miss), None)
    if missed is not None:  # the usual cause of a refusal
        reason += f"; {_named(missed, several)} would, but its condition is not met ({missed.applies.why})"
    return Decision(Outcome.IMPLICIT_DENY, reason)


def allowed(
    identity_policies: Sequence[Mapping[str, Any]], session_policy: Mapping[str, Any] | None, request: Request
) -> Decision:
    """Return what a role session may do: what its role and its session policy both allow."""
    role = evaluate(identity_policies, request)
    if session_policy is None:
        return role
    decision = strictest([role, evaluate([session_policy], request)])
    if decision.allowed:
        return role
    where = "the role's policies" if decision is role else "the session policy"
    return replace(decision, reason=f"in {where}, {decision.reason}")


def strictest(decisions: Sequence[Decision]) -> Decision:
    """Return the first refusal, else the first doubt, else the first decision: all must allow."""
    for outcome in (Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY, Outcome.CANNOT_TELL):
        for decision in decisions:
            if decision.outcome is outcome:
                return decision
    return decisions[0]


def assume_role(
    trust_policy: Mapping[str, Any],
    *,
    principal: str,
    role_arn: str,
    external_id: str | None = None,
    context: Context | None = None,
) -> Decision:
    """Return what a trust policy decides about AssumeRole with that external ID, or without one. Across
    accounts the caller also needs an identity policy (STS API reference, AssumeRole)."""
    known: dict[str, str | tuple[str, ...]] = {"aws:PrincipalArn": principal}
    fields = principal.split(":")
    if len(fields) >= 6:
        known["aws:PrincipalAccount"] = fields[4]
    if external_id is not None:
        known["sts:ExternalId"] = external_id
    known.update(context or {})
    request = Request(principal, "sts:AssumeRole", role_arn, known)
    return evaluate([trust_policy], request, kind=PolicyKind.TRUST)


def _findings(
    policy: int,
    document: Mapping[str, Any],
    request: Request,
    context: Mapping[str, tuple[str, ...]],
    kind: PolicyKind,
) -> Iterator[_Finding]:
    problem = _document_problem(document)
    if problem:
        yield _Finding(_EFFECTS, Verdict(None, problem), False, policy, None, None)
        return
    variables = _VERSIONS[document.get("Version", "2008-10-17")]
    statements = document["Statement"]
    for index, statement in enumerate(statements if isinstance(statements, list) else [statements]):
        if not isinstance(statement, Mapping):
            yield _Finding(_EFFECTS, Verdict(None, "it is no object"), False, policy, index, None)
            continue
        sid = statement.get("Sid")
        effect = statement.get("Effect")
        target = every(_target(statement, request, kind, variables))
        condition = statement.get("Condition")
        conditions = YES if condition is None else condition_holds(condition, context, variables=variables)
        if effect in ("Allow", "Deny"):
            effects, applies = frozenset({effect}), every([target, conditions])
        else:
            unknown = Verdict(None, "its Effect is neither Allow nor Deny")
            effects, applies = _EFFECTS, target if target.holds is False else unknown
        near_miss = target.holds is True and conditions.holds is False
        yield _Finding(effects, applies, near_miss, policy, index, sid if isinstance(sid, str) else None)


def _document_problem(document: object) -> str:
    if not isinstance(document, Mapping):
        return "the policy is no object"
    if "Statement" not in document:
        return "the policy has no Statement"
    unknown = sorted(str(name) for name in document if name not in ("Version", "Id", "Statement"))
    if unknown:
        return f"the policy has an element {unknown[0]}, which is not understood"
    version = document.get("Version", "2008-10-17")
    if not isinstance(version, str) or version not in _VERSIONS:
        return f"the policy's Version {version} is not understood"
    return ""


def _target(
    statement: Mapping[str, Any], request: Request, kind: PolicyKind, variables: bool
) -> Iterator[Verdict]:
    """Judge everything in a statement but its Condition."""
    unknown = sorted(str(name) for name in statement if name not in _ELEMENTS)
    if unknown:
        yield Verdict(None, f"its element {unknown[0]} is not understood")
    yield _either(statement, "Action", lambda value: _action(value, request.action))
    if kind is not PolicyKind.TRUST:
        yield _either(
            statement,
            "Resource",
            lambda pattern: matches_resource(pattern, request.resource, variables=variables),
        )
    elif "Resource" in statement or "NotResource" in statement:
        yield Verdict(None, "a trust policy has no Resource")
    if kind is not PolicyKind.IDENTITY:
        yield _principal(statement, request.principal, kind)
    elif "Principal" in statement or "NotPrincipal" in statement:
        yield Verdict(None, "a policy of a role or a session has no Principal")


def _either(statement: Mapping[str, Any], name: str, matching: Any) -> Verdict:
    """Judge ``Action`` or ``NotAction``, ``Resource`` or ``NotResource``: exactly one of the two."""
    inverse = f"Not{name}"
    if (name in statement) == (inverse in statement):
        return Verdict(None, f"it needs exactly one of {name} and {inverse}")
    values = strings(statement[name] if name in statement else statement[inverse])
    if values is None:
        return Verdict(None, f"its {name} is not understood")
    verdict = some(matching(value) for value in values)
    return verdict if name in statement else negated(verdict)


def _action(pattern: str, action: str) -> Verdict:
    if not _ACTION.fullmatch(pattern):
        return Verdict(None, f"{pattern} names no service's action")
    return matches(pattern.lower(), action.lower(), variables=False)


def _principal(statement: Mapping[str, Any], principal: str, kind: PolicyKind) -> Verdict:
    if ("Principal" in statement) == ("NotPrincipal" in statement):
        return Verdict(None, "it needs exactly one of Principal and NotPrincipal")
    if "Principal" in statement:
        return named_by(statement["Principal"], principal)
    if kind is PolicyKind.TRUST:
        return Verdict(None, "a trust policy takes no NotPrincipal")
    return negated(excluded_by(statement["NotPrincipal"], principal))


def _named(finding: _Finding, several: bool) -> str:
    """Name the statement, counted from 1."""
    if finding.statement is None:
        return f"policy {finding.policy + 1}" if several else "the policy"
    sid = f" ({finding.sid})" if finding.sid else ""
    return f"statement {finding.statement + 1}{sid}" + (f" of policy {finding.policy + 1}" if several else "")


_OBJECT_ACTIONS = (
    "PutObject GetObject DeleteObject AbortMultipartUpload GetObjectAcl PutObjectAcl GetObjectTagging "
    "PutObjectTagging PutObjectRetention PutObjectLegalHold"
)
_BUCKET_ACTIONS = "GetBucketLocation GetBucketVersioning GetBucketOwnershipControls GetBucketPolicy"
_ON_OBJECT: Mapping[str, tuple[str, ...]] = {
    **{name: (f"s3:{name}",) for name in _OBJECT_ACTIONS.split()},
    "CreateMultipartUpload": ("s3:PutObject",),
    "UploadPart": ("s3:PutObject",),
    "CompleteMultipartUpload": ("s3:PutObject",),
    "ListParts": ("s3:ListMultipartUploadParts",),
    "HeadObject": ("s3:GetObject",),
    "GetObjectAttributes": ("s3:GetObject", "s3:GetObjectAttributes"),
    "CopyObject": ("s3:GetObject", "s3:PutObject"),
}
_ON_BUCKET: Mapping[str, tuple[str, ...]] = {
    **{name: (f"s3:{name}",) for name in _BUCKET_ACTIONS.split()},
    "HeadBucket": ("s3:ListBucket",),
    "ListObjectsV2": ("s3:ListBucket",),
    "ListObjectVersions": ("s3:ListBucketVersions",),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "GetBucketEncryption": ("s3:GetEncryptionConfiguration",),
    "GetBucketLifecycleConfiguration": ("s3:GetLifecycleConfiguration",),
    "GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration",),
}
_OF_VERSION = {"s3:GetObject": "s3:GetObjectVersion", "s3:DeleteObject": "s3:DeleteObjectVersion"}
_TAKE_HEADERS = frozenset({"PutObject", "CreateMultipartUpload", "CopyObject"})


@dataclass(frozen=True, slots=True)
class S3Call:
    """What policies see of a call. ``grants`` are ``x-amz-grant-...`` headers by name."""

    operation: str
    bucket: str
    key: str = ""
    acl: str | None = None
    grants: tuple[tuple[str, str], ...] = ()
    tagging: bool = False
    object_lock: bool = False
    version_id: str | None = None
    prefix: str | None = None
    partition: str = "aws"


def requests(call: S3Call, principal: str) -> tuple[Request, ...]:
    """Return what must all be allowed for a call. Raises KeyError for an unknown call."""
    bucket_arn = f"arn:{call.partition}:s3:::{call.bucket}"
    context: dict[str, str | tuple[str, ...]] = {}
    if call.operation in _ON_BUCKET:
        if call.prefix is not None:
            context["s3:prefix"] = call.prefix
        actions, resource = _ON_BUCKET[call.operation], bucket_arn
    else:
        actions, resource = _ON_OBJECT[call.operation], f"{bucket_arn}/{call.key}"
    if call.version_id is not None:
        context["s3:VersionId"] = call.version_id
        actions = tuple(_OF_VERSION.get(action, action) for action in actions)
    if call.operation in _TAKE_HEADERS:
        if call.acl is not None or call.grants:
            actions += ("s3:PutObjectAcl",)
        if call.tagging:
            actions += ("s3:PutObjectTagging",)
        if call.object_lock:
            actions += ("s3:PutObjectRetention",)
    if call.acl is not None:
        context["s3:x-amz-acl"] = call.acl
    context.update({f"s3:{name}": value for name, value in call.grants})
    return tuple(Request(principal, action, resource, context) for action in actions)


def decide(
    call: S3Call,
    identity_policies: Sequence[Mapping[str, Any]],
    session_policy: Mapping[str, Any] | None = None,
    *,
    principal: str = "",
) -> Decision:
    """Return whether a role with these policies may make the call in a session with that session policy."""
    needed = requests(call, principal)
    return strictest([allowed(identity_policies, session_policy, request) for request in needed])
