"""An offline verdict on policy documents that a customer pasted: the same causes and fixes as the access
check's, and what is wrong with how the documents are written.

It asks nobody. What a document does not decide is said as such (``Fault.CANNOT_TELL``), never guessed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xmode_transfer.access.lint.excess import judge_excess
from xmode_transfer.access.lint.judging import (
    Answers,
    Rights,
    external_ids,
    files,
    judge_key,
    judge_no_key,
    judge_rights,
    judge_trust,
)
from xmode_transfer.access.lint.records import Document, Fault, Given, Issue, Kind, Report, Source, issue
from xmode_transfer.access.lint.structure import structure
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.findings import Finding, Fix, Severity

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


UNKNOWN_ACCOUNT = "000000000000"
"""Used as the customer's account when none is given."""

_OBJECTS = re.compile(r"arn:[a-z-]+:s3:::(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<prefix>.*/)?\*")
_BUCKET = re.compile(r"arn:[a-z-]+:s3:::(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/.*)?", re.DOTALL)
_ROLE = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]+")


def lint(sources: Sequence[Source], given: Given) -> Report:
    """The verdict on one or several documents of one customer, taken together. Never raises for what stands
    in them."""
    issues: list[Issue] = []
    documents: list[Document] = []
    for source in sources:
        found, wrong = read(source)
        documents += found
        issues += wrong
    facts, missing = _facts(given, documents)
    for document in documents:
        issues += structure(document, facts)
    answers = list(_judged(documents, facts))
    findings = tuple(answer for answer in answers if isinstance(answer, Finding))
    issues += [answer for answer in answers if isinstance(answer, Issue)]
    if documents:
        issues += missing
    kinds = tuple((document.name, document.kind) for document in documents)
    return Report(kinds, findings, tuple(dict.fromkeys(issues)))


def _judged(documents: Sequence[Document], facts: SetupValues) -> Answers:
    def of(*kinds: Kind) -> list[Document]:
        return [document for document in documents if document.kind in kinds]

    trust, permissions = of(Kind.TRUST), of(Kind.PERMISSION)
    if trust:
        yield from judge_trust(trust, facts)
    rights = Rights.of(facts, documents)
    if rights.on_role or rights.on_bucket:
        yield from judge_rights(files(of(Kind.PERMISSION, Kind.BUCKET)), rights)
    if rights.on_role:
        yield from judge_excess(rights, permissions)
    key = facts.kms_key_arn
    if key is None and rights.on_key:
        key = f"arn:{facts.partition}:kms:{facts.region or 'us-east-1'}:{facts.account}:key/this"
    if key is not None and (rights.on_role or rights.on_key):
        yield from judge_key(files(of(Kind.PERMISSION, Kind.KEY)), rights, key)
    elif rights.on_role:
        yield from judge_no_key(files(permissions), rights)


def _facts(given: Given, documents: Sequence[Document]) -> tuple[SetupValues, list[Issue]]:
    """The customer's values as given, and otherwise as the documents say."""
    role_arn, missing = _role(given, documents)
    external_id = given.external_id or _external_id(documents)
    bucket, prefix = _destination(given, documents)
    issues = []
    kinds = {document.kind for document in documents}
    if external_id is None and Kind.TRUST in kinds:
        missing.append("external ID (--external-id)")
    if bucket is None and kinds & {Kind.PERMISSION, Kind.BUCKET}:
        missing.append("bucket (--bucket)")
    if missing:
        name = documents[0].name if documents else ""
        not_given = f"not given, and so not compared: {', '.join(missing)}"
        fix = "Name the customer with --customer, or give its values with the options"
        issues.append(issue(name, Fault.NOT_TOLD, not_given, fix, Severity.INFO))
    partition, account = parse_iam(role_arn, "role")[:2]
    return (
        SetupValues(
            external_id=external_id or "not-given-external-id",
            role_arn=role_arn,
            bucket=bucket or "not-given-bucket",
            prefix=prefix,
            region=given.region,
            bucket_owner=given.bucket_owner or account,
            kms_key_arn=given.kms_key_arn,
            principal=given.principal,
            partition=partition,
        ),
        issues,
    )


def _role(given: Given, documents: Sequence[Document]) -> tuple[str, list[str]]:
    partition = given.principal.split(":")[1]
    if given.role_arn is not None:
        return given.role_arn, []
    if given.account is not None:
        return f"arn:{partition}:iam::{given.account}:role/XMode", []
    named = [
        text
        for document in documents
        if document.kind in (Kind.BUCKET, Kind.KEY)
        for statement in document.statements()
        for text in statement.principals()
        if _valid_role(text)
    ]
    if named:
        return named[0], []
    needed = any(document.kind in (Kind.BUCKET, Kind.KEY) for document in documents)
    return f"arn:{partition}:iam::{UNKNOWN_ACCOUNT}:role/XMode", ["account (--account)"] if needed else []


def _valid_role(text: str) -> bool:
    if _ROLE.fullmatch(text) is None:
        return False
    try:
        parse_iam(text, "role")
    except ValueError:
        return False
    return True


def _external_id(documents: Sequence[Document]) -> str | None:
    """The first without wildcards."""
    named = (one for document in documents if document.kind is Kind.TRUST for one in external_ids(document))
    return next((one for one in named if re.fullmatch(r"[\w+=,.@:/-]{2,1224}", one)), None)


def _destination(given: Given, documents: Sequence[Document]) -> tuple[str | None, str]:
    """Bucket and prefix; from a document, the first that it allows something on."""
    named = [
        text
        for document in documents
        if document.kind in (Kind.PERMISSION, Kind.BUCKET)
        for statement in document.statements()
        if statement.content.get("Effect") == "Allow" or document.kind is Kind.BUCKET
        for text in statement.texts("Resource")
    ]
    bucket = given.bucket
    if bucket is None:
        bucket = next((match["bucket"] for text in named if (match := _BUCKET.fullmatch(text))), None)
    if given.prefix is not None or given.bucket is not None:
        return bucket, given.prefix or ""
    found = [match for text in named if (match := _OBJECTS.fullmatch(text)) and match["bucket"] == bucket]
    prefix = found[0]["prefix"] or "" if found else ""
    return bucket, "" if set(prefix) & set("*?${}") else prefix
