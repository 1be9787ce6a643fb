"""The words of a lint: documents and their kinds, faults in how they are written, and the report."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

from xmode_transfer.aws.policy.documents import VENDOR_PRINCIPAL
from xmode_transfer.model.errors import ExitCode
from xmode_transfer.model.findings import Finding, Fix, Severity


class Kind(StrEnum):
    """Where a document belongs."""

    TRUST = "trust"  # on the role: who may assume it
    PERMISSION = "permission"  # on the role: what it may do
    BUCKET = "bucket"  # on the bucket
    KEY = "key"  # on the KMS key


class Fault(StrEnum):
    """How a document is written wrongly; fixed words that programs rely on."""

    INVALID_JSON = "invalid_json"
    NOT_A_POLICY = "not_a_policy"
    DUPLICATE_KEY = "duplicate_key"
    UNKNOWN_ELEMENT = "unknown_element"
    MALFORMED_STATEMENT = "malformed_statement"
    PLACEHOLDER_LEFT = "placeholder_left"
    TRUST_POLICY_AS_PERMISSION = "trust_policy_as_permission"
    PRINCIPAL_IN_IDENTITY_POLICY = "principal_in_identity_policy"
    RESOURCE_IN_TRUST_POLICY = "resource_in_trust_policy"
    ROLE_WHERE_POLICY_BELONGS = "role_where_policy_belongs"
    UNKNOWN_ACTION = "unknown_action"
    UNKNOWN_OPERATOR = "unknown_operator"
    UNKNOWN_CONDITION_KEY = "unknown_condition_key"
    TRUSTS_ANYBODY = "trusts_anybody"
    TRUSTS_WHOLE_ACCOUNT = "trusts_whole_account"
    SECOND_EXTERNAL_ID = "second_external_id"
    OTHER_PRINCIPAL = "other_principal"
    WRONG_PARTITION = "wrong_partition"
    MALFORMED_ARN = "malformed_arn"
    OTHER_BUCKET = "other_bucket"
    OBJECTS_NOT_NAMED = "objects_not_named"
    BUCKET_NOT_NAMED = "bucket_not_named"
    BEYOND_PREFIX = "beyond_prefix"
    KMS_EXPLICITLY_DENIED = "kms_explicitly_denied"
    CANNOT_TELL = "cannot_tell"
    NOT_TOLD = "not_told"


@dataclass(frozen=True, slots=True)
class Issue:
    """A fault of one document: in which file and statement (from 1; None when it is about the whole), in one
    sentence, and its fix."""

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
    severity: Severity = Severity.ERROR,
    step: str | None = None,
    statement: int | None = None,
) -> Issue:
    """``step`` is where the setup guide treats of it."""
    return Issue(file, fault, severity, message, Fix(fix, None, None, step), statement)


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was pasted. ``kind`` is None when it is to be recognised by its content."""

    name: str
    text: str
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One policy as it was read; ``kind`` as given or recognised."""

    name: str
    kind: Kind
    content: Mapping[str, Any]

    def statements(self) -> Iterator["Statement"]:
        """Those that are objects."""
        found = self.content.get("Statement")
        for number, one in enumerate(found if isinstance(found, list) else [found], 1):
            if isinstance(one, Mapping):
                yield Statement(self, number, one)


class Statement(NamedTuple):
    """One statement of a document; ``number`` counts from 1."""

    document: Document
    number: int
    content: Mapping[str, Any]

    def wrong(
        self,
        fault: Fault,
        message: str,
        fix: str,
        severity: Severity = Severity.ERROR,
        step: str | None = None,
    ) -> Issue:
        return issue(self.document.name, fault, message, fix, severity, step, self.number)

    def __str__(self) -> str:
        return f"statement {self.number}"

    def texts(self, *names: str) -> tuple[str, ...]:
        """The texts of these elements, of which each is one or a list of them."""
        return tuple(text for name in names for text in texts(self.content.get(name)))

    def principals(self) -> tuple[str, ...]:
        """The ARNs and accounts that its Principal names."""
        element = self.content.get("Principal")
        return texts(element.get("AWS")) if isinstance(element, Mapping) else ()

    def conditions(self) -> Iterator[tuple[str, str, object]]:
        """Each operator, key and value of its Condition, as far as it is written so."""
        condition = self.content.get("Condition")
        for operator, keys in condition.items() if isinstance(condition, Mapping) else ():
            for key, value in keys.items() if isinstance(keys, Mapping) else ():
                yield str(operator), str(key), value


def texts(value: object) -> tuple[str, ...]:
    """The texts of an element that is one or a list of them."""
    return tuple(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str))


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of the customer; what is None is taken from the documents themselves."""

    external_id: str | None = None
    bucket: str | None = None
    prefix: str | None = None
    account: str | None = None
    role_arn: str | None = None
    region: str | None = None
    bucket_owner: str | None = None
    kms_key_arn: str | None = None
    principal: str = VENDOR_PRINCIPAL


_ACTING = (Severity.ERROR, Severity.CRITICAL)


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict. ``kinds`` names each document that could be read, with its kind; ``findings`` are those of
    the access check, foretold; ``issues`` tell how documents are written."""

    kinds: tuple[tuple[str, Kind], ...]
    findings: tuple[Finding, ...]
    issues: tuple[Issue, ...]

    @property
    def outcome(self) -> str:
        """``ok``; ``mend`` (the customer must act); ``unclear``: no mistake found, but the documents do not
        decide everything."""
        severities = {*(one.severity for one in self.findings), *(one.severity for one in self.issues)}
        if not severities.isdisjoint(_ACTING):
            return "mend"
        unclear = any(issue.fault is Fault.CANNOT_TELL for issue in self.issues)
        return "unclear" if unclear or not self.kinds else "ok"

    @property
    def exit_code(self) -> int:
        return ExitCode.BLOCKED if self.outcome == "mend" else ExitCode.DONE


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
