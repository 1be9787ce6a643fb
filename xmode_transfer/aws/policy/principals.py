"""Whom a statement's Principal names, and whom a NotPrincipal spares."""

import re
from collections.abc import Mapping

from xmode_transfer.aws.policy.patterns import YES, Verdict, some, strings

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
