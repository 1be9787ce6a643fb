"""The words of a lint: documents and their kinds, faults in how they are written, and the report."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.aws.policy import VENDOR_PRINCIPAL
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
