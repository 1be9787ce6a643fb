"""From pasted text to documents: JSON, calls of the AWS CLI that hold some, or what the AWS CLI printed."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from xmode_transfer.access.lint.records import Document, Fault, Issue, Kind, Source, issue
from xmode_transfer.model.findings import Fix, Severity

_CALL = re.compile(r"\baws\s+(?:iam|s3api|kms)\s")
_OPTION = re.compile(
    r"--(?P<option>assume-role-policy-document|policy-document|policy)[\s=\\]+'(?P<text>\s*\{.*?)'", re.DOTALL
)
_ATTACHED = re.compile(r"--policy-arn[\s=\\]+['\"]?(?P<arn>arn:[^\s'\"]+)")
_INNER = ("AssumeRolePolicyDocument", "PolicyDocument", "Document", "Policy")
_OUTER = ("Role", "PolicyVersion", "RolePolicy", *_INNER)
_PLACEHOLDER_LINE = re.compile(r"\{\s*replace with|=,\.@:/-_", re.IGNORECASE)
_CURLY_QUOTES = re.compile("[\u201c\u201d\u2018\u2019]")


def read(source: Source) -> tuple[list[Document], list[Issue]]:
    """The documents of one file, and what is wrong with its text."""
    if not source.text.lstrip("\ufeff \t\r\n").startswith(("{", "[")) and _CALL.search(source.text):
        return _read_calls(source)
    return _read_json(source)


def _read_calls(source: Source) -> tuple[list[Document], list[Issue]]:
    documents: list[Document] = []
    issues = list(_attached(source))
    for match in _OPTION.finditer(source.text):
        kind = Kind.TRUST if match["option"].startswith("assume") else source.kind
        lines_before = source.text.count("\n", 0, match.start("text"))
        found, wrong = _read_json(Source(source.name, match["text"], kind), lines_before)
        documents += found
        issues += wrong
    if not documents and not issues:
        told = "these AWS CLI commands have no policy document between single quotes"
        issues.append(issue(source.name, Fault.NOT_A_POLICY, told, "Give the JSON document itself"))
    return documents, issues


def _attached(source: Source) -> Iterator[Issue]:
    for match in _ATTACHED.finditer(source.text):
        if ":role/" in match["arn"]:
            meant = match["arn"].replace(":role/", ":policy/")
            told = f"{match['arn']} is the ARN of a role, and a policy is attached by its own"
            fix = Fix(f"Write {meant}", None, f"--policy-arn {meant}", "CLI step 6")
            yield Issue(source.name, Fault.ROLE_WHERE_POLICY_BELONGS, Severity.ERROR, told, fix)


def _read_json(source: Source, lines_before: int = 0) -> tuple[list[Document], list[Issue]]:
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(items)

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    text = source.text.removeprefix("\ufeff")
    try:
        content = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        return [], [_invalid(source.name, text, error, lines_before)]
    except (ValueError, RecursionError) as error:
        told = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        return [], [_not_policy(source.name, f"this is not a policy: {told}")]
    content = _unwrapped(content)
    if not isinstance(content, Mapping) or not ("Statement" in content or "Version" in content):
        return [], [
            _not_policy(source.name, "this is JSON, but not a policy: a policy is an object with a Statement")
        ]
    issues = [
        issue(
            source.name,
            Fault.DUPLICATE_KEY,
            f"{name} appears twice in one object; AWS refuses that, and other readers take the last",
            f"Remove one {name}, or put both values into one list",
        )
        for name in dict.fromkeys(twice)
    ]
    document = Document(source.name, source.kind or Kind.PERMISSION, content)
    return [document if source.kind else replace(document, kind=_recognised(document))], issues


def _unwrapped(content: Any) -> Any:
    """What `aws iam get-role`, `get-role-policy`, `get-policy-version`, `aws s3api get-bucket-policy` and
    `aws kms get-key-policy` print around a document."""
    for _ in range(3):
        if not isinstance(content, Mapping) or "Statement" in content:
            return content
        inner = next((content[name] for name in _OUTER if name in content), None)
        if isinstance(inner, str):
            try:
                inner = json.loads(inner)
            except (ValueError, RecursionError):
                return content
        if inner is None:
            return content
        content = inner
    return content


def _recognised(document: Document) -> Kind:
    """By its content: who is named, and which services' actions."""
    statements = list(document.statements())
    actions = [action.lower() for one in statements for action in one.texts("Action", "NotAction")]
    if any("Principal" in one.content or "NotPrincipal" in one.content for one in statements):
        if any(action.startswith("sts:") for action in actions):
            return Kind.TRUST
        return Kind.KEY if any(action.startswith("kms:") for action in actions) else Kind.BUCKET
    if actions and all(action.startswith("sts:") for action in actions):
        return Kind.TRUST
    return Kind.PERMISSION


def _not_policy(name: str, message: str) -> Issue:
    fix = "Give the document as AWS shows it: {...} with Version and Statement"
    return issue(name, Fault.NOT_A_POLICY, message, fix)


def _invalid(name: str, text: str, error: json.JSONDecodeError, lines_before: int) -> Issue:
    lines = text.split("\n")
    line = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
    place = f"line {error.lineno + lines_before}, column {error.colno}"
    if _PLACEHOLDER_LINE.search(line):
        message = (
            f"{place}: the guide's placeholder text is still here; its quotation mark ends the JSON "
            "string early"
        )
        fix = 'Replace all from { to } by the external ID alone, like "sts:ExternalId": "AcmeCorp"'
    elif _CURLY_QUOTES.search(line):
        message = f"{place}: typographic quotation marks, which JSON does not know"
        fix = 'Write straight quotation marks: "'
    elif (comma := _needless_comma(text, error.pos)) is not None:
        line_number, column = text.count("\n", 0, comma) + 1, comma - text.rfind("\n", 0, comma)
        message = f"line {line_number + lines_before}, column {column}: a comma before a closing bracket"
        fix = "Remove the comma"
    elif error.msg.startswith("Extra data"):
        message = f"{place}: there is text after the end of the document"
        fix = "One file holds one document: remove what follows, or put it into a file of its own"
    elif not text.strip():
        message, fix = "the file is empty", "Paste the policy document into it"
    else:
        message = f"{place}: this is not JSON ({error.msg[0].lower()}{error.msg[1:]})"
        fix = "Copy the document again, from its first { to its last }"
    return issue(name, Fault.INVALID_JSON, message, fix, step="console step 8; CLI steps 2 and 4")


def _needless_comma(text: str, position: int) -> int | None:
    """Where a comma stands before a closing bracket; Python's versions tell the place of one or the other."""
    comma = text.rfind(",", 0, position + 1)
    return comma if comma >= 0 and re.match(r",\s*[}\]]", text[comma:]) else None
