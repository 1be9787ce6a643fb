"""What AWS calls its services, actions, condition keys and operators, as far as such policies use them.

Names come from iam.json, which is kept with its date and written anew by ``make names``: AWS adds names
all the time, so one that is not in it may be right. Operators: IAM User Guide, condition operators.
"""

import difflib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Any

# Calls of S3 whose right has another name than the call.
RIGHT_OF_CALL = {
    "headbucket": "s3:ListBucket",
    "headobject": "s3:GetObject",
    "listobjects": "s3:ListBucket",
    "listobjectsv2": "s3:ListBucket",
    "putobjects": "s3:PutObject",
    "createmultipartupload": "s3:PutObject",
    "initiatemultipartupload": "s3:PutObject",
    "uploadpart": "s3:PutObject",
    "completemultipartupload": "s3:PutObject",
    "listmultipartuploads": "s3:ListBucketMultipartUploads",
    "listparts": "s3:ListMultipartUploadParts",
    "deleteobjects": "s3:DeleteObject",
    "listbuckets": "s3:ListAllMyBuckets",
    "getbucketencryption": "s3:GetEncryptionConfiguration",
    "copyobject": "s3:PutObject",
}

_OPERATOR_NAMES = """
StringEquals StringNotEquals StringEqualsIgnoreCase StringNotEqualsIgnoreCase StringLike StringNotLike
NumericEquals NumericNotEquals NumericLessThan NumericLessThanEquals NumericGreaterThan
NumericGreaterThanEquals DateEquals DateNotEquals DateLessThan DateLessThanEquals DateGreaterThan
DateGreaterThanEquals Bool BinaryEquals IpAddress NotIpAddress ArnEquals ArnNotEquals ArnLike ArnNotLike
"""
OPERATORS = frozenset(f"{base}{end}" for base in _OPERATOR_NAMES.split() for end in ("", "IfExists")) | {
    "Null"
}
DOCUMENT_ELEMENTS = ("Version", "Id", "Statement")
STATEMENT_ELEMENTS = (
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
)


@lru_cache(maxsize=1)
def iam() -> dict[str, Any]:
    """The kept names: ``source``, ``date``, ``prefixes`` of all services, condition ``keys``, and of the
    ``services`` that deliveries use each action with its level and the kinds of resources it is ``on``."""
    text = resources.files(__package__).joinpath("iam.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@lru_cache(maxsize=1024)
def actions_like(pattern: str) -> tuple[str, ...]:
    """The actions of S3, STS and KMS that an Action's pattern names."""
    wanted = re.compile(re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
    known = (f"{service}:{name}" for service, about in iam()["services"].items() for name in about["actions"])
    return tuple(action for action in known if wanted.fullmatch(action.lower()))


def kinds_of(action: str) -> tuple[str, ...]:
    """The kinds of resources that an action of S3, STS or KMS is on; none: only ``*``."""
    service, _, name = action.partition(":")
    return tuple(iam()["services"][service]["actions"][name]["on"])


def unknown_action(action: str) -> str | None:
    """The message about an unknown action. None for a known one, and for one that cannot be judged: it has a
    wildcard in its name, or its service's actions are not kept."""
    service, colon, name = action.partition(":")
    folded, services = service.lower(), iam()["services"]
    if not colon or "*" in service or "?" in service:
        return None
    if folded not in iam()["prefixes"]:
        return f"unknown service {service}{_meant(service, iam()['prefixes'])}"
    if folded not in services or "*" in name or "?" in name:
        return None
    known = {one.lower(): one for one in services[folded]["actions"]}
    if name.lower() in known:
        return None
    if folded == "s3" and name.lower() in RIGHT_OF_CALL:
        return f"there is no action {action}: the call needs {RIGHT_OF_CALL[name.lower()]}"
    return f"unknown action {action}{_meant(name, known.values(), f'{folded}:')}"


def unknown_key(key: str) -> str | None:
    """The message about an unknown condition key. None for a known one, and for one of a service with keys
    that are not kept."""
    service, colon, _ = key.lower().partition(":")
    kept = {*iam()["services"], "aws"}
    known = _keys()
    if key.lower() in known or _family(key.lower()) in known:
        return None
    if colon and service not in kept and (service in iam()["prefixes"] or "." in service):
        return None  # of another service, or of an identity provider
    meant = meant_key(key)
    return f"unknown condition key {key}" + (f" (did you mean {meant}?)" if meant else "")


@lru_cache(maxsize=1024)
def meant_key(key: str) -> str | None:
    """The condition key that an unknown one was meant for: one of its own service that is spelt almost so,
    or of another that has the very name. None when the key is known or resembles none."""
    folded, known = key.lower(), _keys()
    service, _, name = folded.partition(":")
    if folded in known or _family(folded) in known:
        return None
    of_service = [one for one in known if one.partition(":")[0] == service]
    close = difflib.get_close_matches(folded, of_service, n=1, cutoff=_CLOSE)
    elsewhere = [f"{other}:{name}" for other in ("aws", "s3", "sts", "kms") if f"{other}:{name}" in known]
    found = (close + elsewhere if service in ("aws", *iam()["services"]) else elsewhere)[:1]
    return known[found[0]] if found else None


def known_operator(name: str) -> bool:
    quantifier, colon, base = name.rpartition(":")
    return base in OPERATORS and (not colon or quantifier in ("ForAllValues", "ForAnyValue"))


_CLOSE = 0.8
"""So similar that a typing error is more likely than a name added since (0: nothing, 1: the same)."""


@lru_cache(maxsize=1)
def _keys() -> dict[str, str]:
    """The condition keys by their folded names; of those that end in a name of one's own, what is before."""
    return {one.split("${")[0].lower(): one.split("${")[0] for one in iam()["keys"]}


def _family(folded: str) -> str:
    """``aws:principaltag/team`` is of the family ``aws:principaltag/``."""
    return next((known for known in _keys() if known[-1] in "/:" and folded.startswith(known)), "")


def _meant(word: str, choices: Iterable[str], before: str = "") -> str:
    by_folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=_CLOSE)
    return f" (did you mean {before}{by_folded[close[0]]}?)" if close else ""
