"""An offline verdict on policy documents: what the access check would find, and what is wrong in them. What
they do not decide is reported as ``Fault.CANNOT_TELL``, never guessed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xmode_transfer.access.lint import judging
from xmode_transfer.access.lint.excess import judge_excess
from xmode_transfer.access.lint.judging import Answers, Rights, files
from xmode_transfer.access.lint.records import Document, Fault, Given, Issue, Kind, Report, Source, issue
from xmode_transfer.access.lint.structure import structure
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.findings import Finding, Fix

UNKNOWN_ACCOUNT = "000000000000"
_S3_ARN = re.compile(
    r"arn:[a-z-]+:s3:::(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<path>/.*)?", re.DOTALL
)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}")  # without wildcards


def lint(sources: Sequence[Source], given: Given | SetupValues) -> Report:
    """Judge the documents of one customer together. Never raises for what they contain."""
    issues: list[Issue] = []
    documents: list[Document] = []
    for source in sources:
        found, wrong = _read(source)
        documents += found
        issues += wrong
    facts, missing = (given, []) if isinstance(given, SetupValues) else _facts(given, documents)
    for document in documents:
        issues += structure(document, facts)
    answers = list(_judged(documents, facts))
    findings = tuple(answer for answer in answers if isinstance(answer, Finding))
    issues += [answer for answer in answers if isinstance(answer, Issue)]
    if documents and missing:
        message = f"not given, and so not compared: {', '.join(missing)}"
        fix = "Name the customer with --customer, or give its values with the options"
        issues.append(issue(documents[0].name, Fault.NOT_TOLD, message, fix))
    kinds = tuple((document.name, document.kind) for document in documents)
    return Report(kinds, findings, tuple(dict.fromkeys(issues)))


def _judged(documents: Sequence[Document], facts: SetupValues) -> Answers:
    def of(*kinds: Kind) -> list[Document]:
        return [document for document in documents if document.kind in kinds]

    if trust := of(Kind.TRUST):
        yield from judging.judge_trust(trust, facts)
    rights = Rights.of(facts, documents)
    if rights.on_role or rights.on_bucket:
        yield from judging.judge_rights(files(of(Kind.PERMISSION, Kind.BUCKET)), rights)
    if rights.on_role:
        yield from judge_excess(rights, of(Kind.PERMISSION))
    key = facts.kms_key_arn
    if key is None and rights.on_key:
        key = f"arn:{facts.partition}:kms:{rights.region}:{facts.account}:key/this"
    if key is not None and (rights.on_role or rights.on_key):
        yield from judging.judge_key(files(of(Kind.PERMISSION, Kind.KEY)), rights, key)
    elif rights.on_role:
        yield from judging.judge_no_key(files(of(Kind.PERMISSION)), rights)


def _facts(given: Given, documents: Sequence[Document]) -> tuple[SetupValues, list[str]]:
    """Take values that are not given from the documents; return the names of unknown ones too."""
    kinds = {document.kind for document in documents}
    role_arn = _role(given, documents)
    trusts = [document for document in documents if document.kind is Kind.TRUST]
    named = (one for document in trusts for one in judging.external_ids(document))
    external_id = given.external_id or next((one for one in named if _EXTERNAL_ID.fullmatch(one)), None)
    bucket, prefix = _destination(given, documents)
    partition, account = parse_iam(role_arn, "role")[:2]
    missing = {
        "account (--account)": account == UNKNOWN_ACCOUNT and bool(kinds & {Kind.BUCKET, Kind.KEY}),
        "external ID (--external-id)": external_id is None and bool(trusts),
        "bucket (--bucket)": bucket is None and bool(kinds & {Kind.PERMISSION, Kind.BUCKET}),
    }
    facts = SetupValues(
        external_id=external_id or "not-given-external-id",
        role_arn=role_arn,
        bucket=bucket or "not-given-bucket",
        prefix=prefix,
        region=given.region,
        bucket_owner=account,
        kms_key_arn=given.kms_key_arn,
        partition=partition,
    )
    return facts, [name for name, absent in missing.items() if absent]


def _role(given: Given, documents: Sequence[Document]) -> str:
    for document in documents if given.account is None else ():
        for statement in document.statements() if document.kind in (Kind.BUCKET, Kind.KEY) else ():
            for text in statement.principals():
                try:
                    parse_iam(text, "role")
                except ValueError:
                    continue
                return text
    return f"arn:aws:iam::{given.account or UNKNOWN_ACCOUNT}:role/XMode"


def _destination(given: Given, documents: Sequence[Document]) -> tuple[str | None, str]:
    """Where not given, the first that a document allows something on."""
    if given.bucket is not None:
        return given.bucket, given.prefix or ""
    found = [
        match
        for document in documents
        if document.kind in (Kind.PERMISSION, Kind.BUCKET)
        for statement in document.statements()
        if statement.content.get("Effect") == "Allow" or document.kind is Kind.BUCKET
        for match in map(_S3_ARN.fullmatch, statement.texts("Resource"))
        if match is not None
    ]
    bucket = found[0]["bucket"] if found else None
    if given.prefix is not None:
        return bucket, given.prefix
    paths = [match["path"] or "" for match in found if match["bucket"] == bucket]
    prefix = next((path[1:-1] for path in paths if path.endswith("/*")), "")
    return bucket, "" if set(prefix) & set("*?${}") else prefix


_CALL = re.compile(r"\baws\s+(?:iam|s3api|kms)\s")
_OPTION = re.compile(
    r"--(?P<option>assume-role-policy-document|policy-document|policy)[\s=\\]+'(?P<text>\s*\{.*?)'", re.DOTALL
)
_ATTACHED = re.compile(r"--policy-arn[\s=\\]+['\"]?(?P<arn>arn:[^\s'\"]+)")
_WRAPPERS = (
    *("Role", "PolicyVersion", "RolePolicy"),
    *("AssumeRolePolicyDocument", "PolicyDocument", "Document", "Policy"),
)
_PLACEHOLDER_LINE = re.compile(r"\{\s*replace with|=,\.@:/-_", re.IGNORECASE)
_CURLY_QUOTES = re.compile("[\u201c\u201d\u2018\u2019]")


def _read(source: Source) -> tuple[list[Document], list[Issue]]:
    if source.text.lstrip("\ufeff \t\r\n").startswith(("{", "[")) or not _CALL.search(source.text):
        return _read_json(source)
    documents: list[Document] = []
    issues: list[Issue] = []
    for match in _ATTACHED.finditer(source.text):
        if ":role/" in match["arn"]:
            meant = match["arn"].replace(":role/", ":policy/")
            fault = Fault.ROLE_WHERE_POLICY_BELONGS
            message = f"{match['arn']} is the ARN of a role, and a policy is attached by its own"
            fix = Fix(f"Write {meant}", None, f"--policy-arn {meant}", fault.step)
            issues.append(Issue(source.name, fault, fault.severity, message, fix))
    for match in _OPTION.finditer(source.text):
        kind = Kind.TRUST if match["option"].startswith("assume") else source.kind
        lines_before = source.text.count("\n", 0, match.start("text"))
        found, wrong = _read_json(Source(source.name, match["text"], kind), lines_before)
        documents += found
        issues += wrong
    if not documents and not issues:
        message = "these AWS CLI commands have no policy document between single quotes"
        issues.append(issue(source.name, Fault.NOT_A_POLICY, message, "Give the JSON document itself"))
    return documents, issues


def _read_json(source: Source, lines_before: int = 0) -> tuple[list[Document], list[Issue]]:
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(items)

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    text, problem = source.text.removeprefix("\ufeff"), ""
    try:
        content = _unwrapped(json.loads(text, object_pairs_hook=pairs, parse_constant=constant))
    except json.JSONDecodeError as error:
        message, fix = _syntax_error(text, error, lines_before)
        return [], [issue(source.name, Fault.INVALID_JSON, message, fix)]
    except RecursionError:
        problem = "this is not a policy: it nests too deeply"
    except ValueError as error:
        problem = f"this is not a policy: {error}"
    else:
        if not isinstance(content, Mapping) or not ("Statement" in content or "Version" in content):
            problem = "this is JSON, but not a policy: a policy is an object with a Statement"
    if problem:
        fix = "Give the document as AWS shows it: {...} with Version and Statement"
        return [], [issue(source.name, Fault.NOT_A_POLICY, problem, fix)]
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
    return [document if source.kind else replace(document, kind=_detected(document))], issues


def _unwrapped(content: Any) -> Any:
    """`aws iam get-role`, `get-role-policy`, `get-policy-version`, `aws s3api get-bucket-policy` and `aws kms
    get-key-policy` print a document inside of others."""
    for _ in range(3):
        if not isinstance(content, Mapping) or "Statement" in content:
            return content
        inner = next((content[name] for name in _WRAPPERS if name in content), None)
        if isinstance(inner, str):
            try:
                inner = json.loads(inner)
            except (ValueError, RecursionError):
                return content
        if inner is None:
            return content
        content = inner
    return content


def _detected(document: Document) -> Kind:
    statements = list(document.statements())
    actions = [action.lower() for one in statements for action in one.texts("Action", "NotAction")]
    if any("Principal" in one.content or "NotPrincipal" in one.content for one in statements):
        if any(action.startswith("sts:") for action in actions):
            return Kind.TRUST
        return Kind.KEY if any(action.startswith("kms:") for action in actions) else Kind.BUCKET
    if actions and all(action.startswith("sts:") for action in actions):
        return Kind.TRUST
    return Kind.PERMISSION


def _syntax_error(text: str, error: json.JSONDecodeError, lines_before: int) -> tuple[str, str]:
    line = text.split("\n")[error.lineno - 1]
    where = f"line {error.lineno + lines_before}, column {error.colno}"
    if _PLACEHOLDER_LINE.search(line):
        message = "the guide's placeholder text is still here; its quotation mark ends the JSON string early"
        return (
            f"{where}: {message}",
            'Replace all from { to } by the external ID alone, like "sts:ExternalId": "AcmeCorp"',
        )
    if _CURLY_QUOTES.search(line):
        message = f"{where}: typographic quotation marks, which JSON does not know"
        return message, 'Write straight quotation marks: "'
    # A comma before a closing bracket: Python's versions name the position of one or of the other.
    comma = text.rfind(",", 0, error.pos + 1)
    if comma >= 0 and re.match(r",\s*[}\]]", text[comma:]):
        line_number, column = text.count("\n", 0, comma) + 1, comma - text.rfind("\n", 0, comma)
        where = f"line {line_number + lines_before}, column {column}"
        return f"{where}: a comma before a closing bracket", "Remove the comma"
    if error.msg.startswith("Extra data"):
        fix = "One file holds one document: remove what follows, or put it into a file of its own"
        return f"{where}: there is text after the end of the document", fix
    if not text.strip():
        return "the file is empty", "Paste the policy document into it"
    message = f"{where}: this is not JSON ({error.msg[0].lower()}{error.msg[1:]})"
    return message, "Copy the document again, from its first { to its last }"
