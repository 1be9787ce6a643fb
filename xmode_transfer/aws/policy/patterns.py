"""Whether an element of a policy applies to a request: it does, it does not, or it cannot be told from here.

``${*}``, ``${?}`` and ``${$}`` stand for those characters themselves. AWS fills in other policy variables
(``${aws:username}``): they can be anything.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

_ANY, _ONE, _VARIABLE = "\x00", "\x01", "\x02"
_SPECIAL = {"*": _ANY, "?": _ONE}
_AS_REGEX = {_ANY: ".*", _VARIABLE: ".*", _ONE: "."}
_WILDCARD = re.compile(r"(?P<wildcard>[*?])")
_VARIABLE_OR_WILDCARD = re.compile(r"\$\{(?P<name>[^}]*)(?:\}|$)|(?P<wildcard>[*?])")


class Verdict(NamedTuple):
    """``holds`` is None if it cannot be told; ``why`` explains a False or a None."""

    holds: bool | None
    why: str = ""


YES = Verdict(True)


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Judge whether all hold. One that does not decides, whatever the doubts about others."""
    doubt = YES
    for verdict in verdicts:
        if verdict.holds is False:
            return verdict
        if verdict.holds is None and doubt.holds is True:
            doubt = verdict
    return doubt


def some(verdicts: Iterable[Verdict]) -> Verdict:
    """Judge whether at least one holds. One that does decides."""
    answer: Verdict | None = None
    for verdict in verdicts:
        if verdict.holds is True:
            return verdict
        if answer is None or (verdict.holds is None and answer.holds is False):
            answer = verdict
    return answer or Verdict(False, "nothing is listed")


def negated(verdict: Verdict) -> Verdict:
    return verdict if verdict.holds is None else Verdict(not verdict.holds)


def literal(text: str) -> str:
    """Return the pattern that matches only this text (IAM User Guide, policy variables: ``${*}``)."""
    return "".join("${" + character + "}" if character in "*?$" else character for character in text)


def strings(value: object) -> tuple[str, ...] | None:
    """Return a policy's scalar or list as strings, as IAM reads it; None if it is neither."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, int | float):
        return (str(value),)
    if isinstance(value, list | tuple) and value:
        found = [strings(item) for item in value if not isinstance(item, list | tuple)]
        if len(found) == len(value) and None not in found:
            return tuple(text for item in found if item is not None for text in item)
    return None


def matches(pattern: str, text: str, *, variables: bool, wildcards: bool = True) -> Verdict:
    """Judge whether the whole text matches. ``variables`` is false for policies of version 2008-10-17."""
    return _fits(_parsed(pattern, variables, wildcards), text, pattern)


def matches_arn(pattern: str, arn: str, *, variables: bool) -> Verdict:
    """Judge field by field: a ``*`` does not cross an ARN's six fields (IAM User Guide, ArnLike)."""
    wanted = _parsed(pattern, variables, wildcards=True).split(":", 5)
    given = arn.split(":", 5)
    if len(wanted) != 6 or len(given) != 6 or wanted[0] != "arn" or given[0] != "arn":
        return Verdict(None, f"{pattern} and {arn} are not both ARNs")
    return every(_fits(field, value, pattern) for field, value in zip(wanted, given, strict=True))


def matches_resource(pattern: str, resource: str, *, variables: bool) -> Verdict:
    """AWS does not document whether a ``*`` before the last field of an ARN crosses a colon."""
    parsed = _parsed(pattern, variables, wildcards=True)
    if parsed == _ANY:
        return YES
    if not parsed.startswith("arn:"):
        return Verdict(None, f"{pattern} is no ARN")
    whole = _fits(parsed, resource, pattern)
    if whole.holds is not True:
        return whole
    by_field = matches_arn(pattern, resource, variables=variables)
    if by_field.holds is True:
        return YES
    return Verdict(None, f"whether the wildcard in {pattern} reaches over a colon is not documented")


@lru_cache(maxsize=4096)
def _parsed(pattern: str, variables: bool, wildcards: bool) -> str:
    """Return the pattern with a control character for each wildcard and variable. IAM accepts none, so a
    pattern with one cannot be told."""
    if not _AS_REGEX.keys().isdisjoint(pattern):
        return _VARIABLE

    def token(match: re.Match[str]) -> str:
        if match["wildcard"] is not None:
            return _SPECIAL[match["wildcard"]] if wildcards else match["wildcard"]
        return match["name"] if match["name"] in _SPECIAL or match["name"] == "$" else _VARIABLE

    return (_VARIABLE_OR_WILDCARD if variables else _WILDCARD).sub(token, pattern)


@lru_cache(maxsize=4096)
def _expression(parsed: str) -> re.Pattern[str]:
    return re.compile(
        "".join(_AS_REGEX.get(character) or re.escape(character) for character in parsed), re.DOTALL
    )


def _fits(parsed: str, text: str, pattern: str) -> Verdict:
    if _expression(parsed).fullmatch(text) is None:
        return Verdict(False, f"{text} is not {pattern}")
    if _VARIABLE in parsed:
        return Verdict(None, f"AWS fills in the variable of {pattern}")
    return YES


Context = Mapping[str, str | tuple[str, ...]]

# Keys that a request has only if its caller sends them: their absence is known. AWS fills in all others
# (aws:SourceIp, s3:TlsVersion, ...), so their absence from a context means nothing.
_FROM_CALLER = (
    *("s3:x-amz-", "s3:prefix", "s3:delimiter", "s3:max-keys", "s3:versionid", "s3:requestobjecttag"),
    *("s3:if-match", "s3:if-none-match", "sts:externalid", "sts:sourceidentity", "sts:transitivetagkeys"),
    *("aws:requesttag/", "aws:tagkeys"),
)


def _equals(wanted: str, given: str, *, variables: bool) -> Verdict:
    return matches(wanted, given, variables=variables, wildcards=False)


def _equals_folded(wanted: str, given: str, *, variables: bool) -> Verdict:
    return _equals(wanted.lower(), given.lower(), variables=variables)


def _bool(wanted: str, given: str, *, variables: bool) -> Verdict:  # noqa: ARG001 - like the others
    if {wanted.lower(), given.lower()} <= {"true", "false"}:
        return Verdict(wanted.lower() == given.lower(), f"it is {given}")
    return Verdict(None, f"{wanted} and {given} are not both true or false")


_OPERATORS: Mapping[str, Callable[..., Verdict]] = {
    "StringEquals": _equals,
    "StringEqualsIgnoreCase": _equals_folded,
    "StringLike": matches,
    "ArnEquals": matches_arn,
    "ArnLike": matches_arn,
    "Bool": _bool,
}
_NEGATIVE = re.compile(r"(String|Arn)Not")


def folded(context: Context) -> dict[str, tuple[str, ...]]:
    """Return the context with its keys in lower case, as IAM compares them, and every value as a tuple."""
    return {key.lower(): (value,) if isinstance(value, str) else value for key, value in context.items()}


def condition_holds(condition: object, context: Mapping[str, tuple[str, ...]], *, variables: bool) -> Verdict:
    """Judge a Condition. ``context`` is ``folded``; an empty tuple in it: the key is absent."""
    if not isinstance(condition, Mapping):
        return Verdict(None, "its Condition is no object")
    verdicts = []
    for name, keys in condition.items():
        if not isinstance(name, str) or not isinstance(keys, Mapping):
            return Verdict(None, f"its Condition {name} is no object")
        for key, value in keys.items():
            verdict = _key_holds(name, str(key).lower(), strings(value), context, variables)
            verdicts.append(Verdict(verdict.holds, f"{name} {key}: {verdict.why}"))
    return every(verdicts)


def _key_holds(
    name: str,
    key: str,
    wanted: tuple[str, ...] | None,
    context: Mapping[str, tuple[str, ...]],
    variables: bool,
) -> Verdict:
    if wanted is None:
        return Verdict(None, "its values are not understood")
    given = context.get(key)
    if given is None and key.startswith(_FROM_CALLER):
        given = ()
    if name == "Null":
        return _null(wanted, given)
    quantifier, colon, base = name.rpartition(":")
    if_exists = base.endswith("IfExists")
    base = base.removesuffix("IfExists")
    negative = _NEGATIVE.match(base) is not None
    compare = _OPERATORS.get(_NEGATIVE.sub(r"\1", base))
    if compare is None or (colon and quantifier not in ("ForAllValues", "ForAnyValue")):
        return Verdict(None, "this operator is not understood")
    if given is None:
        return Verdict(None, "AWS fills in its value")
    if not given:
        return _absent(quantifier, if_exists, negative)

    def one(text: str) -> Verdict:
        verdict = some(compare(value, text, variables=variables) for value in wanted)
        verdict = negated(verdict) if negative else verdict
        return verdict if verdict.holds is not False else Verdict(False, f"the request has {text!r}")

    if quantifier == "ForAllValues":
        return every(one(text) for text in given)
    if quantifier == "ForAnyValue":
        return some(one(text) for text in given)
    if len(given) > 1:
        return Verdict(None, "the request has several values, and the operator says neither all nor any")
    return one(given[0])


def _absent(quantifier: str, if_exists: bool, negative: bool) -> Verdict:
    absent = "the request has none"
    if quantifier == "ForAllValues":
        return YES
    if quantifier == "ForAnyValue":
        # IAM's guide gives false for ForAnyValue, true for IfExists, and nothing for both together.
        return Verdict(None if if_exists else False, absent)
    return Verdict(if_exists or negative, absent)


def _null(wanted: tuple[str, ...], given: tuple[str, ...] | None) -> Verdict:
    if given is None:
        return Verdict(None, "AWS fills in its value")
    asked = {text.lower() for text in wanted}
    if not asked <= {"true", "false"}:
        return Verdict(None, "its values are not understood")
    return Verdict(
        ("false" if given else "true") in asked, "it is there" if given else "the request has none"
    )


_ACCOUNT = re.compile(r"[0-9]{12}")
_ROOT = re.compile(r"arn:(?P<partition>[a-z0-9-]+):iam::(?P<account>[0-9]{12}):root")
_SESSION = re.compile(
    r"(?P<start>arn:[a-z0-9-]+):sts::(?P<account>[0-9]{12}):assumed-role/(?P<role>[^/]+)/.+"
)
_ROLE = re.compile(r"(?P<start>arn:[a-z0-9-]+):iam::(?P<account>[0-9]{12}):role/(?:.*/)?(?P<role>[^/]+)")
_UNIQUE_ID = re.compile(r"A[A-Z]{2}A[A-Z0-9]{12,}")  # AIDA... a user, AROA... a role


def named_by(element: object, principal: str) -> Verdict:
    """An account, as number or as its root, names every principal in it (IAM User Guide, Principal)."""
    if element == "*":
        return YES
    if not isinstance(element, Mapping):
        return Verdict(None, "its Principal is not understood")
    return some(_of_kind(kind, value, principal) for kind, value in element.items())


def excluded_by(element: object, principal: str) -> Verdict:
    """``NotPrincipal`` must name both the principal and its account; the guide documents nothing for one of
    the two (IAM User Guide, NotPrincipal)."""
    values = strings(element.get("AWS")) if isinstance(element, Mapping) and len(element) == 1 else None
    if values is None:
        return Verdict(None, "its NotPrincipal is not understood")
    if "*" in values:
        return YES
    listed = [_names(value, principal) for value in values if not _is_account(value)]
    by_account = [_names(value, principal) for value in values if _is_account(value)]
    if any(verdict.holds is None for verdict in listed):
        return some(listed)
    itself = any(verdict.holds for verdict in listed)
    account = any(verdict.holds for verdict in by_account)
    if itself is not account:
        return Verdict(None, "its NotPrincipal names the principal without its account, or the account alone")
    return Verdict(itself, f"it does not name {principal}")


def _of_kind(kind: object, value: object, principal: str) -> Verdict:
    values = strings(value)
    if values is None:
        return Verdict(None, "its Principal is not understood")
    if kind == "AWS":
        return some(_names(text, principal) for text in values)
    if kind in ("Service", "Federated"):
        return Verdict(False, f"it names a {str(kind).lower()} principal, not {principal}")
    return Verdict(None, f"a principal of the kind {kind} is not understood")


def _is_account(value: str) -> bool:
    return bool(_ACCOUNT.fullmatch(value) or _ROOT.fullmatch(value))


def _names(value: str, principal: str) -> Verdict:
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
