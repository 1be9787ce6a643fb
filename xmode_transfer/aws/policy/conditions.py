"""A statement's Condition against what is known of a request.

All operators and keys of a Condition must hold; of one key's values, one. A key that the request does not
have makes an operator false and a negated operator (``StringNotEquals``) true; with ``IfExists`` it is true
in both cases (IAM User Guide, condition operators). Numbers, dates, addresses and binary values are not
compared here: they cannot be told.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from xmode_transfer.aws.policy.patterns import (
    YES,
    Verdict,
    every,
    matches,
    matches_arn,
    negated,
    some,
    strings,
)

Context = Mapping[str, str | tuple[str, ...]]

# Keys that a request has only when its caller put them there: their absence is known. All others
# (aws:SourceIp, s3:TlsVersion, ...) AWS fills in, so their absence from a context only says that nobody
# told.
_FROM_CALLER = (
    "s3:x-amz-",
    "s3:prefix",
    "s3:delimiter",
    "s3:max-keys",
    "s3:versionid",
    "s3:if-match",
    "s3:if-none-match",
    "s3:requestobjecttag",
    "sts:externalid",
    "sts:sourceidentity",
    "sts:transitivetagkeys",
    "aws:requesttag/",
    "aws:tagkeys",
)


class _Operator(NamedTuple):
    compare: Callable[[str, str, bool], Verdict]
    negative: bool


def _equals(wanted: str, given: str, variables: bool) -> Verdict:
    return matches(wanted, given, variables=variables, wildcards=False)


def _equals_folded(wanted: str, given: str, variables: bool) -> Verdict:
    return matches(wanted.lower(), given.lower(), variables=variables, wildcards=False)


def _like(wanted: str, given: str, variables: bool) -> Verdict:
    return matches(wanted, given, variables=variables)


def _arn_like(wanted: str, given: str, variables: bool) -> Verdict:
    return matches_arn(wanted, given, variables=variables)


def _bool(wanted: str, given: str, _: bool) -> Verdict:
    if {wanted.lower(), given.lower()} <= {"true", "false"}:
        return Verdict(wanted.lower() == given.lower(), f"it is {given}")
    return Verdict(None, f"{wanted} and {given} are not both true or false")


_OPERATORS = {
    "StringEquals": _Operator(_equals, negative=False),
    "StringNotEquals": _Operator(_equals, negative=True),
    "StringEqualsIgnoreCase": _Operator(_equals_folded, negative=False),
    "StringNotEqualsIgnoreCase": _Operator(_equals_folded, negative=True),
    "StringLike": _Operator(_like, negative=False),
    "StringNotLike": _Operator(_like, negative=True),
    "ArnEquals": _Operator(_arn_like, negative=False),
    "ArnNotEquals": _Operator(_arn_like, negative=True),
    "ArnLike": _Operator(_arn_like, negative=False),
    "ArnNotLike": _Operator(_arn_like, negative=True),
    "Bool": _Operator(_bool, negative=False),
}


def folded(context: Context) -> dict[str, tuple[str, ...]]:
    """The context with its keys in lower case, as IAM compares them, and every value as a tuple."""
    return {key.lower(): (value,) if isinstance(value, str) else value for key, value in context.items()}


def condition_holds(condition: object, context: Mapping[str, tuple[str, ...]], *, variables: bool) -> Verdict:
    """Whether the Condition holds. ``context`` is ``folded``; an empty tuple in it says that the key is
    absent."""
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
    operator = _OPERATORS.get(base.removesuffix("IfExists"))
    if operator is None or (colon and quantifier not in ("ForAllValues", "ForAnyValue")):
        return Verdict(None, "this operator is not understood")
    if given is None:
        return Verdict(None, "AWS fills in its value")
    if not given:
        return _absent(quantifier, if_exists, operator)

    def one(text: str) -> Verdict:
        verdict = some(operator.compare(value, text, variables) for value in wanted)
        verdict = negated(verdict) if operator.negative else verdict
        return verdict if verdict.holds is not False else Verdict(False, f"the request has {text!r}")

    if quantifier == "ForAllValues":
        return every(one(text) for text in given)
    if quantifier == "ForAnyValue":
        return some(one(text) for text in given)
    if len(given) > 1:
        return Verdict(None, "the request has several values, and the operator says neither all nor any")
    return one(given[0])


def _absent(quantifier: str, if_exists: bool, operator: _Operator) -> Verdict:
    absent = "the request has none"
    if quantifier == "ForAllValues":
        return YES
    if quantifier == "ForAnyValue":
        # IAM's guide answers false for ForAnyValue and true for IfExists, and says nothing of both together.
        return Verdict(None if if_exists else False, absent)
    return Verdict(if_exists or operator.negative, absent)


def _null(wanted: tuple[str, ...], given: tuple[str, ...] | None) -> Verdict:
    if given is None:
        return Verdict(None, "AWS fills in its value")
    asked = {text.lower() for text in wanted}
    if not asked <= {"true", "false"}:
        return Verdict(None, "its values are not understood")
    return Verdict(
        ("false" if given else "true") in asked, "it is there" if given else "the request has none"
    )
