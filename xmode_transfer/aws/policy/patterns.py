"""Policy text against a request's text, in three values: it matches, it does not, or it cannot be told from
here.

``*`` stands for any run of characters and ``?`` for one; ``${*}``, ``${?}`` and ``${$}`` stand for those
characters themselves. Other policy variables (``${aws:username}``) are filled in by AWS: they can be
anything.
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
    """``holds`` is None when it cannot be told; ``why`` explains a False or a None in words."""

    holds: bool | None
    why: str = ""


YES = Verdict(True)


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """All hold. One that does not settles it, whatever cannot be told about the others."""
    doubt = YES
    for verdict in verdicts:
        if verdict.holds is False:
            return verdict
        if verdict.holds is None and doubt.holds is True:
            doubt = verdict
    return doubt


def some(verdicts: Iterable[Verdict]) -> Verdict:
    """At least one holds. One that does settles it."""
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
    """The text as a pattern that matches only itself (IAM User Guide, policy variables: ``${*}``)."""
    return "".join("${" + character + "}" if character in "*?$" else character for character in text)


def strings(value: object) -> tuple[str, ...] | None:
    """A policy's scalar or list as strings, the way IAM reads numbers and booleans; None when it is
    neither."""
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
    """Whether the whole text fits the pattern. ``variables`` is false for policies of version 2008-10-17."""
    return _fits(_parsed(pattern, variables, wildcards), text, pattern)


def matches_arn(pattern: str, arn: str, *, variables: bool) -> Verdict:
    """Like ``matches``, field by field: a ``*`` inside one of an ARN's six fields stays inside it (IAM User
    Guide, ArnLike)."""
    wanted = _parsed(pattern, variables, wildcards=True).split(":", 5)
    given = arn.split(":", 5)
    if len(wanted) != 6 or len(given) != 6 or wanted[0] != "arn" or given[0] != "arn":
        return Verdict(None, f"{pattern} and {arn} are not both ARNs")
    return every(_fits(field, value, pattern) for field, value in zip(wanted, given, strict=True))


def matches_resource(pattern: str, resource: str, *, variables: bool) -> Verdict:
    """A statement's Resource. AWS does not promise that a ``*`` before the last field stops at the colon nor
    that it goes on, so a pattern for which that would matter cannot be told."""
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
    """The pattern with one private character for each wildcard and variable. IAM takes no control characters
    in a policy, so a pattern that has them says nothing."""
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
