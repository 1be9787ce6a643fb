"""What policies decide about a request, and why.

An explicit deny wins, then an allow; else nothing allows it (IAM User Guide, policy evaluation logic). Where
a statement says something that is not understood here, or that depends on what only AWS knows, the answer is
CANNOT_TELL, unless the rest decides without it: another statement's deny, or no statement that could allow.
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
    folded,
    matches,
    matches_resource,
    negated,
    some,
    strings,
)

_ACCOUNT = re.compile(r"[0-9]{12}")
_ROOT = re.compile(r"arn:(?P<partition>[a-z0-9-]+):iam::(?P<account>[0-9]{12}):root")
_SESSION = re.compile(
    r"(?P<start>arn:[a-z0-9-]+):sts::(?P<account>[0-9]{12}):assumed-role/(?P<role>[^/]+)/.+"
)
_ROLE = re.compile(r"(?P<start>arn:[a-z0-9-]+):iam::(?P<account>[0-9]{12}):role/(?:.*/)?(?P<role>[^/]+)")
_UNIQUE_ID = re.compile(r"A[A-Z]{2}A[A-Z0-9]{12,}")  # AIDA... a user, AROA... a role


def named_by(element: object, principal: str) -> Verdict:
    """Whether ``Principal`` names the principal, whose ARN is given. An account, as number or as its root,
    stands for every principal in it (IAM User Guide, Principal)."""
    if element == "*":
        return YES
    if not isinstance(element, Mapping):
        return Verdict(None, "its Principal is not understood")
    return some(_kind(kind, value, principal) for kind, value in element.items())


def spared_by(element: object, principal: str) -> Verdict:
    """Whether ``NotPrincipal`` leaves the principal out. It must name both the principal and its account;
    with one of the two only, the guide promises nothing (IAM User Guide, NotPrincipal)."""
    values = strings(element.get("AWS")) if isinstance(element, Mapping) and len(element) == 1 else None
    if values is None:
        return Verdict(None, "its NotPrincipal is not understood")
    if "*" in values:
        return YES
    listed = [_one(value, principal) for value in values if not _is_account(value)]
    by_account = [_one(value, principal) for value in values if _is_account(value)]
    if any(verdict.holds is None for verdict in listed):
        return some(listed)
    itself = any(verdict.holds for verdict in listed)
    account = any(verdict.holds for verdict in by_account)
    if itself is not account:
        return Verdict(None, "its NotPrincipal names the principal without its account, or the account alone")
    return Verdict(itself, f"it does not name {principal}")


def _kind(kind: object, value: object, principal: str) -> Verdict:
    values = strings(value)
    if values is None:
        return Verdict(None, "its Principal is not understood")
    if kind == "AWS":
        return some(_one(text, principal) for text in values)
    if kind in ("Service", "Federated"):
        return Verdict(False, f"it names a {str(kind).lower()} principal, not {principal}")
    return Verdict(None, f"a principal of the kind {kind} is not understood")


def _is_account(value: str) -> bool:
    return bool(_ACCOUNT.fullmatch(value) or _ROOT.fullmatch(value))


def _one(value: str, principal: str) -> Verdict:
    fields = principal.split(":")
    account = fields[4] if len(fields) >= 6 else ""
    if value in ("*", principal):
        return YES
    no = Verdict(False, f"it names {value}, not {principal}")
    if _ACCOUNT.fullmatch(value):
        return YES if value == account else no
    root = _ROOT.fullmatch(value)
    if root:
        return YES if (root["partition"], root["account"]) == (fields[1], account) else no
    if "*" in value or "?" in value:
        return Verdict(None, f"{value} has a wildcard, which a principal's ARN may not have")
    if _UNIQUE_ID.fullmatch(value):
        return Verdict(
            None,
            f"it names a principal by its unique ID {value}: the principal was deleted, and made anew or not",
        )
    session, role = _SESSION.fullmatch(principal), _ROLE.fullmatch(value)
    if session and role:  # a session's ARN leaves out its role's path; a role's name is unique in its account
        same = all(session[name] == role[name] for name in ("start", "account", "role"))
        return YES if same else no
    if value.startswith("arn:"):
        return no
    return Verdict(None, f"{value} is no principal that is understood")


class Outcome(StrEnum):
    ALLOW = "allow"
    EXPLICIT_DENY = "explicit_deny"
    IMPLICIT_DENY = "implicit_deny"
    CANNOT_TELL = "cannot_tell"


class PolicyKind(StrEnum):
    """Where a policy hangs decides which elements it must and may have."""

    IDENTITY = "identity"  # on a role or user, or a session policy: Resource, no Principal
    RESOURCE = "resource"  # on a bucket or key: Resource and Principal
    TRUST = "trust"  # on a role, who may assume it: Principal, no Resource


@dataclass(frozen=True, slots=True)
class Request:
    """One call of one action. ``context`` has the condition keys whose values are known, one string or a
    tuple of them; an empty tuple says that the key is absent for certain."""

    principal: str
    action: str
    resource: str
    context: Context = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome with its reason, and the statement that decided: which policy, which statement in it (both
    from 0) and its Sid. They are None when no statement decided."""

    outcome: Outcome
    reason: str
    policy: int | None = None
    statement: int | None = None
    sid: str | None = None

    @property
    def allowed(self) -> bool:
        return self.outcome is Outcome.ALLOW


class _Finding(NamedTuple):
    """One statement's part: what it could do (``Allow``, ``Deny``, or both when that is unknown) and whether
    it applies."""

    effects: frozenset[str]
    applies: Verdict
    near_miss: bool
    policy: int
    statement: int | None
    sid: str | None


_EFFECTS = frozenset({"Allow", "Deny"})
_VERSIONS = {"2012-10-17": True, "2008-10-17": False}  # whether policy variables are filled in
_ELEMENTS = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)
_ACTION = re.compile(r"\*|[^:\s]+:[^:\s]+")


def evaluate(
    policies: Sequence[Mapping[str, Any]], request: Request, *, kind: PolicyKind = PolicyKind.IDENTITY
) -> Decision:
    """What the policies of one kind decide together. The order of policies and statements does not matter."""
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
        return _decided(Outcome.EXPLICIT_DENY, deny, f"{_place(deny, several)} denies {what}")
    if allow is not None and doubt is None:
        return _decided(Outcome.ALLOW, allow, f"{_place(allow, several)} allows {what}")
    perhaps = first("Allow", None)
    if allow is None and perhaps is None:
        return Decision(Outcome.IMPLICIT_DENY, f"no statement allows {what}" + _near_miss(findings, several))
    doubt = doubt or perhaps
    assert doubt is not None
    return _decided(
        Outcome.CANNOT_TELL,
        doubt,
        f"whether {_place(doubt, several)} applies to {what} cannot be told: {doubt.applies.why}",
    )


def allowed(
    identity_policies: Sequence[Mapping[str, Any]], session_policy: Mapping[str, Any] | None, request: Request
) -> Decision:
    """What a role session may do: what both the role's policies and the session policy allow."""
    role = evaluate(identity_policies, request)
    if session_policy is None:
        return role
    session = evaluate([session_policy], request)
    told = {"the role's policies": role, "the session policy": session}
    for outcome in (Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY, Outcome.CANNOT_TELL):
        for name, decision in told.items():
            if decision.outcome is outcome:
                return replace(decision, reason=f"in {name}, {decision.reason}")
    return role


def assume_role(
    trust_policy: Mapping[str, Any],
    *,
    principal: str,
    role_arn: str,
    external_id: str | None = None,
    context: Context | None = None,
) -> Decision:
    """What a role's trust policy says to AssumeRole by ``principal`` with that external ID, or without one.

    Across accounts the caller needs an identity policy of its own as well (STS API reference, AssumeRole).
    """
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
        yield _Finding(
            frozenset({effect}) if effect in ("Allow", "Deny") else _EFFECTS,
            every([target, conditions]) if effect in ("Allow", "Deny") else _unknown_effect(target),
            target.holds is True and conditions.holds is False,
            policy,
            index,
            sid if isinstance(sid, str) else None,
        )


def _unknown_effect(target: Verdict) -> Verdict:
    return target if target.holds is False else Verdict(None, "its Effect is neither Allow nor Deny")


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
    """Everything of a statement but its Condition."""
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
    """``Action`` or ``NotAction``, ``Resource`` or ``NotResource``: exactly one of the two must be there."""
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
    return negated(spared_by(statement["NotPrincipal"], principal))


def _place(finding: _Finding, several: bool) -> str:
    """The statement as a person counts: from 1."""
    if finding.statement is None:
        return f"policy {finding.policy + 1}" if several else "the policy"
    sid = f" ({finding.sid})" if finding.sid else ""
    return f"statement {finding.statement + 1}{sid}" + (f" of policy {finding.policy + 1}" if several else "")


def _near_miss(findings: Sequence[_Finding], several: bool) -> str:
    """Why the statement that was meant for this does not apply: the usual cause of a refusal."""
    missed = next((f for f in findings if "Allow" in f.effects and f.near_miss), None)
    if missed is None:
        return ""
    return f"; {_place(missed, several)} would, but its condition is not met ({missed.applies.why})"


def _decided(outcome: Outcome, finding: _Finding, reason: str) -> Decision:
    return Decision(outcome, reason, finding.policy, finding.statement, finding.sid)
