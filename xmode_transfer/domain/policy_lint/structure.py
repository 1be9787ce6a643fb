"""How a document is written: what AWS would refuse, what is in the wrong place, what was left unfilled."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from xmode_transfer.domain.config.base import did_you_mean
from xmode_transfer.domain.findings import Facts, Fix, Severity
from xmode_transfer.domain.policy.patterns import strings
from xmode_transfer.domain.policy_lint.reading import Document
from xmode_transfer.domain.policy_lint.records import Fault, Kind, Remark
from xmode_transfer.domain.policy_lint.vocabulary import (
    DOCUMENT_ELEMENTS,
    OPERATORS,
    STATEMENT_ELEMENTS,
    known_operator,
    meant_key,
    unknown_action,
    unknown_key,
)

_PLACEHOLDER = re.compile(
    r"\{[^}]*\}?|EXTERNAL-ID|:::BUCKET\b|:::bucket-name(?![\w.-])|KEY-ARN|<[A-Za-z -]+>|(?i:replace with)"
)
_VARIABLE = re.compile(r"\$\{[^}]*\}")  # AWS fills it in
_TRUST_STEPS = "console steps 5 and 8; CLI step 2"


def statements_of(document: Document) -> list[tuple[int, Mapping[str, Any]]]:
    """The statements that are objects, each with its number from 1."""
    found = document.content.get("Statement")
    listed = found if isinstance(found, list) else [found]
    return [(number, one) for number, one in enumerate(listed, 1) if isinstance(one, Mapping)]


def structure(document: Document, facts: Facts) -> Iterator[Remark]:
    """Every remark on how the document is written, in its order."""
    yield from _frame(document)
    for number, statement in statements_of(document):
        yield from _elements(document, number, statement)
        yield from _place(document, number, statement, facts)
        yield from _placeholders(document, number, statement, facts)
        yield from _actions(document, number, statement)
        yield from _condition(document, number, statement)


def _frame(document: Document) -> Iterator[Remark]:
    def wrong(fault: Fault, message: str, fix: str) -> Remark:
        return Remark(document.name, fault, Severity.ERROR, message, Fix(fix))

    for name in document.content:
        if name not in DOCUMENT_ELEMENTS:
            meant = did_you_mean(str(name), DOCUMENT_ELEMENTS)
            yield wrong(
                Fault.UNKNOWN_ELEMENT,
                f"a policy has no element {name}{meant}",
                f"Write one of {', '.join(DOCUMENT_ELEMENTS)}",
            )
    version = document.content.get("Version")
    if version is not None and version not in ("2012-10-17", "2008-10-17"):
        yield wrong(
            Fault.UNKNOWN_ELEMENT,
            f"AWS knows no policy Version {version}; it is the language's version, not a date of yours",
            'Write "Version": "2012-10-17"',
        )
    found = document.content.get("Statement")
    if found is None or found == []:
        yield wrong(
            Fault.NOT_A_POLICY, "the policy has no Statement, so that it allows nothing", "Add its Statement"
        )
    elif not all(isinstance(one, Mapping) for one in (found if isinstance(found, list) else [found])):
        yield wrong(
            Fault.MALFORMED_STATEMENT, "a Statement is no object", "Write each statement as an object {...}"
        )


def _elements(document: Document, number: int, statement: Mapping[str, Any]) -> Iterator[Remark]:
    def wrong(fault: Fault, message: str, fix: str) -> Remark:
        return Remark(document.name, fault, Severity.ERROR, message, Fix(fix), number)

    for name in statement:
        if name not in STATEMENT_ELEMENTS:
            meant = did_you_mean(str(name), STATEMENT_ELEMENTS)
            yield wrong(
                Fault.UNKNOWN_ELEMENT,
                f"statement {number} has an element {name}, which AWS does not know{meant}",
                f"Write one of {', '.join(STATEMENT_ELEMENTS)}",
            )
    if statement.get("Effect") not in ("Allow", "Deny"):
        yield wrong(
            Fault.MALFORMED_STATEMENT,
            f"the Effect of statement {number} is {_shown(statement.get('Effect'))}; case counts",
            'Write "Effect": "Allow" or "Effect": "Deny"',
        )
    of_role = document.kind is Kind.TRUST or _is_trust(statement)
    for name in ["Action"] if of_role else ["Action", "Resource"]:
        inverse = f"Not{name}"
        if (name in statement) == (inverse in statement):
            how = "both" if name in statement else "neither"
            yield wrong(
                Fault.MALFORMED_STATEMENT,
                f"statement {number} has {how} {name} {'and' if how == 'both' else 'nor'} {inverse}",
                f"Give it one {name}",
            )
    for name in ("Action", "NotAction", "Resource", "NotResource"):
        if name in statement and not _texts(statement[name]):
            yield wrong(
                Fault.MALFORMED_STATEMENT,
                f"the {name} of statement {number} is neither text nor a list of texts",
                f'Write "{name}": "..." or "{name}": ["...", "..."]',
            )


def _place(document: Document, number: int, statement: Mapping[str, Any], facts: Facts) -> Iterator[Remark]:
    """Elements that belong into another kind of document."""
    named = "Principal" in statement or "NotPrincipal" in statement
    on_role = document.kind is Kind.PERMISSION
    if on_role and named:
        trust = _is_trust(statement)
        yield Remark(
            document.name,
            Fault.TRUST_POLICY_AS_PERMISSION if trust else Fault.PRINCIPAL_IN_IDENTITY_POLICY,
            Severity.ERROR,
            (
                f"statement {number} is a trust policy's: it says who may assume the role and gives no right "
                "to the bucket"
                if trust
                else f"statement {number} has a Principal, which IAM takes in no policy of a role"
            ),
            Fix(
                (
                    "Put it on the role's tab Trust relationships; the guide shows it in the permission "
                    "policy's place. `xmode-transfer policy print --kind permission` makes the one that "
                    "belongs here"
                )
                if trust
                else f"Remove its Principal, or put it into the policy of the bucket {facts.bucket}",
                None,
                None,
                "console step 8",
            ),
            number,
        )
    elif isinstance(statement.get("Principal"), str) and statement["Principal"] != "*":
        yield Remark(
            document.name,
            Fault.MALFORMED_STATEMENT,
            Severity.ERROR,
            f"the Principal of statement {number} does not say of which kind it is",
            Fix(f'Write "Principal": {{"AWS": "{statement["Principal"]}"}}'),
            number,
        )
    elif not on_role and not named:
        whom = facts.principal if document.kind is Kind.TRUST else facts.role_arn
        yield Remark(
            document.name,
            Fault.MALFORMED_STATEMENT,
            Severity.ERROR,
            f"statement {number} names nobody: a {document.kind} policy needs a Principal",
            Fix(f'Add "Principal": {{"AWS": "{whom}"}}'),
            number,
        )
    if document.kind is Kind.TRUST and ("Resource" in statement or "NotResource" in statement):
        yield Remark(
            document.name,
            Fault.RESOURCE_IN_TRUST_POLICY,
            Severity.ERROR,
            f"statement {number} has a Resource, which IAM does not take in a trust policy",
            Fix("Remove its Resource: the role itself is meant", None, None, _TRUST_STEPS),
            number,
        )


def _placeholders(
    document: Document, number: int, statement: Mapping[str, Any], facts: Facts
) -> Iterator[Remark]:
    """One remark a statement: who left one, left all."""
    ours = {name: value for name, value in statement.items() if name != "Sid"}
    for text in _all_texts(ours):
        found = _PLACEHOLDER.search(_VARIABLE.sub("", text))
        if found is None:
            continue
        trust = document.kind is Kind.TRUST
        value = facts.external_id if trust else facts.bucket
        braces = "; braces cannot even be sent to AWS as part of an external ID" if "{" in found[0] else ""
        yield Remark(
            document.name,
            Fault.PLACEHOLDER_LEFT,
            Severity.ERROR,
            f"statement {number} still has the guide's text to replace: {text}{braces}",
            Fix(
                "Write your own value in its place" + ("" if value in text else f", {value}"),
                None,
                None,
                _TRUST_STEPS if trust else "CLI step 4",
            ),
            number,
        )
        return


def _actions(document: Document, number: int, statement: Mapping[str, Any]) -> Iterator[Remark]:
    """An unknown name is a warning: AWS adds some, and the probes find what a wrong one does not grant."""
    for name in ("Action", "NotAction"):
        for action in _texts(statement.get(name)):
            told, fix = unknown_action(action), "Correct its name; an unknown one grants nothing"
            severity, service = Severity.WARNING, action.partition(":")[0]
            if action != "*" and not re.fullmatch(r"[^:\s]+:[^:\s]+", action):
                told = f"{action!r} names no service's right; it is written like s3:PutObject"
                severity = Severity.ERROR  # AWS refuses the document
            elif action != "*" and set("*?") & set(service):
                told = f"{action} has a wildcard in its service's name, so that it may mean others as well"
                fix = "Write the service's name in full, like s3:"
            if told is not None:
                yield Remark(
                    document.name,
                    Fault.UNKNOWN_ACTION,
                    severity,
                    f"statement {number}: {told}",
                    Fix(fix),
                    number,
                )


def _condition(document: Document, number: int, statement: Mapping[str, Any]) -> Iterator[Remark]:
    condition = statement.get("Condition")
    if condition is None:
        return

    def wrong(fault: Fault, severity: Severity, message: str, fix: str) -> Remark:
        return Remark(document.name, fault, severity, f"statement {number}: {message}", Fix(fix), number)

    if not isinstance(condition, Mapping) or not all(
        isinstance(keys, Mapping) for keys in condition.values()
    ):
        yield wrong(
            Fault.MALFORMED_STATEMENT,
            Severity.ERROR,
            "its Condition is not written as operator, key, value",
            'Write it like {"StringEquals": {"sts:ExternalId": "AcmeCorp"}}',
        )
        return
    for operator, keys in condition.items():
        if not known_operator(str(operator)):
            meant = did_you_mean(str(operator), OPERATORS)
            yield wrong(
                Fault.UNKNOWN_OPERATOR,
                Severity.ERROR,
                f"AWS knows no condition operator {operator}{meant}",
                "Correct its name; AWS refuses the document as it is",
            )
        for key in keys:
            told = unknown_key(str(key))
            if told is not None:
                meant_for = meant_key(str(key))
                yield wrong(
                    Fault.UNKNOWN_CONDITION_KEY,
                    Severity.WARNING,
                    told,
                    f"Write {meant_for}" if meant_for else "Correct its name, unless AWS has added it",
                )


def _is_trust(statement: Mapping[str, Any]) -> bool:
    named = "Principal" in statement or "NotPrincipal" in statement
    return named and any(action.lower().startswith("sts:") for action in _texts(statement.get("Action")))


def _texts(value: object) -> tuple[str, ...]:
    """Texts of an element, or nothing when it is not made of texts."""
    listed = value if isinstance(value, list) else [value]
    found = tuple(one for one in listed if isinstance(one, str))
    return found if len(found) == len(listed) else ()


def _all_texts(value: object) -> Iterator[str]:
    """Every text among the values, and the keys of what names a principal or a condition."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _all_texts(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _all_texts(one)


def _shown(value: object) -> str:
    texts = strings(value)
    return repr(texts[0]) if texts else "missing" if value is None else "no text"
