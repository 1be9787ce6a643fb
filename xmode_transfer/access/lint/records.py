"""The records of a lint, and the names that IAM knows."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

from xmode_transfer.aws.policy.documents import corrected_permission_policy
from xmode_transfer.model.errors import ExitCode
from xmode_transfer.model.findings import Finding, Fix, Severity


class Kind(StrEnum):
    """Where a document belongs."""

    TRUST = "trust"  # on the role: who may assume it
    PERMISSION = "permission"  # on the role: what it may do
    BUCKET = "bucket"  # on the bucket
    KEY = "key"  # on the KMS key


TRUST_STEPS = "console steps 5 and 8; CLI step 2"


class Fault(StrEnum):
    """A mistake in a document, with the setup guide's step. The names are stable for programs."""

    severity: Severity
    step: str | None

    def __new__(cls, word: str, severity: Severity = Severity.ERROR, step: str | None = None) -> "Fault":
        member = str.__new__(cls, word)
        member._value_ = word
        member.severity, member.step = severity, step
        return member

    INVALID_JSON = "invalid_json", Severity.ERROR, "console step 8; CLI steps 2 and 4"
    NOT_A_POLICY = "not_a_policy"
    DUPLICATE_KEY = "duplicate_key"
    UNKNOWN_ELEMENT = "unknown_element"
    MALFORMED_STATEMENT = "malformed_statement"
    PLACEHOLDER_LEFT = "placeholder_left"
    TRUST_POLICY_AS_PERMISSION = "trust_policy_as_permission", Severity.ERROR, "console step 8"
    PRINCIPAL_IN_IDENTITY_POLICY = "principal_in_identity_policy", Severity.ERROR, "console step 8"
    RESOURCE_IN_TRUST_POLICY = "resource_in_trust_policy", Severity.ERROR, TRUST_STEPS
    ROLE_WHERE_POLICY_BELONGS = "role_where_policy_belongs", Severity.ERROR, "CLI step 6"
    UNKNOWN_ACTION = "unknown_action", Severity.WARNING
    UNKNOWN_OPERATOR = "unknown_operator"
    UNKNOWN_CONDITION_KEY = "unknown_condition_key", Severity.WARNING
    TRUSTS_ANYBODY = "trusts_anybody", Severity.CRITICAL, "console step 17"
    TRUSTS_WHOLE_ACCOUNT = "trusts_whole_account", Severity.WARNING, "console steps 15 to 17"
    SECOND_EXTERNAL_ID = "second_external_id", Severity.WARNING
    OTHER_PRINCIPAL = "other_principal", Severity.WARNING
    WRONG_PARTITION = "wrong_partition"
    MALFORMED_ARN = "malformed_arn"
    OTHER_BUCKET = "other_bucket", Severity.WARNING
    OBJECTS_NOT_NAMED = "objects_not_named", Severity.ERROR, "CLI step 4"
    BUCKET_NOT_NAMED = "bucket_not_named", Severity.ERROR, "CLI step 4"
    BEYOND_PREFIX = "beyond_prefix", Severity.WARNING
    KMS_EXPLICITLY_DENIED = "kms_explicitly_denied", Severity.INFO, "CLI step 4, third statement"
    CANNOT_TELL = "cannot_tell", Severity.WARNING
    NOT_TOLD = "not_told", Severity.INFO


@dataclass(frozen=True, slots=True)
class Issue:
    """``statement`` counts from 1; None when the whole document is meant."""

    file: str
    fault: Fault
    severity: Severity
    message: str
    fix: Fix | None = None
    statement: int | None = None


def issue(
    file: str,
    fault: Fault,
    message: str,
    fix: str,
    *,
    statement: int | None = None,
    severity: Severity | None = None,
    step: str | None = None,
) -> Issue:
    """``severity`` and ``step`` default to the fault's own."""
    fixed = Fix(fix, None, None, step or fault.step)
    return Issue(file, fault, severity or fault.severity, message, fixed, statement)


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was pasted. ``kind`` None: detect it."""

    name: str
    text: str
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    kind: Kind
    content: Mapping[str, Any]

    def statements(self) -> Iterator["Statement"]:
        found = self.content.get("Statement")
        for number, one in enumerate(found if isinstance(found, list) else [found], 1):
            if isinstance(one, Mapping):
                yield Statement(self, number, one)


class Statement(NamedTuple):
    document: Document
    number: int  # from 1
    content: Mapping[str, Any]

    def wrong(self, fault: Fault, message: str, fix: str, **more: Any) -> Issue:
        return issue(self.document.name, fault, message, fix, statement=self.number, **more)

    def __str__(self) -> str:
        return f"statement {self.number}"

    def texts(self, *names: str) -> tuple[str, ...]:
        return tuple(text for name in names for text in texts(self.content.get(name)))

    def principals(self) -> tuple[str, ...]:
        element = self.content.get("Principal")
        return texts(element.get("AWS")) if isinstance(element, Mapping) else ()

    def conditions(self) -> Iterator[tuple[str, str, object]]:
        """Yield each operator, key and value, as far as it is well-formed."""
        condition = self.content.get("Condition")
        for operator, keys in condition.items() if isinstance(condition, Mapping) else ():
            for key, value in keys.items() if isinstance(keys, Mapping) else ():
                yield str(operator), str(key), value


def texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str))


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of a customer without a file. The documents replace a value that is None."""

    external_id: str | None = None
    bucket: str | None = None
    prefix: str | None = None
    account: str | None = None
    region: str | None = None
    kms_key_arn: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """``kinds`` has the documents that could be read; ``findings`` what the access check would find."""

    kinds: tuple[tuple[str, Kind], ...]
    findings: tuple[Finding, ...]
    issues: tuple[Issue, ...]

    @property
    def outcome(self) -> str:
        """``ok``, ``fix``, or ``unclear``: no mistake found, but the documents do not decide everything."""
        severities = {one.severity for one in self.findings} | {one.severity for one in self.issues}
        if severities & {Severity.ERROR, Severity.CRITICAL}:
            return "fix"
        unclear = any(issue.fault is Fault.CANNOT_TELL for issue in self.issues)
        return "unclear" if unclear or not self.kinds else "ok"

    @property
    def exit_code(self) -> int:
        return ExitCode.BLOCKED if self.outcome == "fix" else ExitCode.DONE


_SERVICES = ("aws", "s3", "sts", "kms")  # with condition keys that are listed here
_CLOSE = 0.8  # so similar that a typing error is more likely than a name that AWS added since

ON_OBJECTS = frozenset(  # the rights that deliveries need
    action
    for statement in corrected_permission_policy("bucket", "")["Statement"]
    if statement["Sid"] == "DeliverBelowPrefix"
    for action in statement["Action"]
)
ON_BUCKET = frozenset({"s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"})
"""Deliveries need s3:ListBucket; earlier kits granted all."""

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


@lru_cache(maxsize=1)
def iam() -> dict[str, Any]:
    """``source``, ``date``, ``prefixes`` of all services, condition ``keys``, and for the ``services`` that
    deliveries use each action with its level and the kinds of resources it is ``on``."""
    text = resources.files(__package__).joinpath("iam.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@lru_cache(maxsize=1024)
def actions_like(pattern: str) -> tuple[str, ...]:
    """Of S3, STS and KMS."""
    wanted = re.compile(re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
    known = (f"{service}:{name}" for service, about in iam()["services"].items() for name in about["actions"])
    return tuple(action for action in known if wanted.fullmatch(action.lower()))


def kinds_of(action: str) -> tuple[str, ...]:
    """The kinds of resources of an action of S3, STS or KMS; none: only ``*``."""
    service, _, name = action.partition(":")
    return tuple(iam()["services"][service]["actions"][name]["on"])


def unknown_action(action: str) -> str | None:
    """Return a message; None for a known action, and for one that cannot be judged: it has a wildcard in its
    name, or its service's actions are not listed here."""
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
    """Return a message; None for a known condition key, and for one of a service that is not listed here."""
    service, colon, _ = key.lower().partition(":")
    if _is_known(key.lower()):
        return None
    if colon and service not in _SERVICES and (service in iam()["prefixes"] or "." in service):
        return None  # of another service, or of an identity provider
    meant = meant_key(key)
    return f"unknown condition key {key}" + (f" (did you mean {meant}?)" if meant else "")


@lru_cache(maxsize=1024)
def meant_key(key: str) -> str | None:
    """Return a similar key of the same service, or one of the same name in another. None: the key is known or
    resembles none."""
    folded, known = key.lower(), _keys()
    if _is_known(folded):
        return None
    service, _, name = folded.partition(":")
    found = [f"{other}:{name}" for other in _SERVICES if f"{other}:{name}" in known]
    if service in _SERVICES:
        of_service = [one for one in known if one.partition(":")[0] == service]
        found = difflib.get_close_matches(folded, of_service, n=1, cutoff=_CLOSE) + found
    return known[found[0]] if found else None


def known_operator(name: str) -> bool:
    quantifier, colon, base = name.rpartition(":")
    return base in OPERATORS and (not colon or quantifier in ("ForAllValues", "ForAnyValue"))


@lru_cache(maxsize=1)
def _keys() -> dict[str, str]:
    """By their folded names, without a variable at their end."""
    return {one.split("${")[0].lower(): one.split("${")[0] for one in iam()["keys"]}


def _is_known(folded: str) -> bool:
    """``aws:principaltag/team`` is known by ``aws:principaltag/``."""
    return folded in _keys() or any(one[-1] in "/:" and folded.startswith(one) for one in _keys())


def _meant(word: str, choices: Iterable[str], before: str = "") -> str:
    by_folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=_CLOSE)
    return f" (did you mean {before}{by_folded[close[0]]}?)" if close else ""
