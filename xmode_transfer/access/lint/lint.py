"""All of it: read, look at how it is written, judge what it decides."""

import re
from collections.abc import Sequence

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
from xmode_transfer.access.lint.reading import read
from xmode_transfer.access.lint.records import Document, Fault, Given, Issue, Kind, Report, Source, issue
from xmode_transfer.access.lint.structure import structure
from xmode_transfer.aws.facts import Facts
from xmode_transfer.config.names import parse_iam
from xmode_transfer.model.findings import Finding, Severity

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


def _judged(documents: Sequence[Document], facts: Facts) -> Answers:
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


def _facts(given: Given, documents: Sequence[Document]) -> tuple[Facts, list[Issue]]:
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
        Facts(
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
