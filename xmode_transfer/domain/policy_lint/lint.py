"""All of it: read, look at how it is written, judge what it decides."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from xmode_transfer.domain.config.arns import parse_iam
from xmode_transfer.domain.findings import Facts, Finding, Fix, Severity
from xmode_transfer.domain.policy_lint.excess import judge_excess
from xmode_transfer.domain.policy_lint.judging import (
    Doubt,
    Rights,
    judge_key,
    judge_other_ids,
    judge_rights,
    judge_trust,
    judge_trusted,
    kms_explicitly_denied,
)
from xmode_transfer.domain.policy_lint.reading import Document, read
from xmode_transfer.domain.policy_lint.records import Fault, Kind, Remark, Report, Source, Told
from xmode_transfer.domain.policy_lint.resources import resources, texts
from xmode_transfer.domain.policy_lint.structure import statements_of, structure

UNKNOWN_ACCOUNT = "000000000000"
"""Stands for the customer's account where nobody told it."""

_OBJECTS = re.compile(r"arn:[a-z-]+:s3:::(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<prefix>.*/)?\*")
_BUCKET = re.compile(r"arn:[a-z-]+:s3:::(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/.*)?", re.DOTALL)
_ROLE = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]+")


def lint(sources: Sequence[Source], told: Told) -> Report:
    """The verdict on one or several documents of one customer, taken together. Never raises for what stands
    in them."""
    remarks: list[Remark] = []
    documents: list[Document] = []
    for source in sources:
        found, wrong = read(source)
        documents += found
        remarks += wrong
    facts, missing = _facts(told, documents)
    for document in documents:
        remarks += structure(document, facts)
        remarks += resources(document, facts)
    findings: list[Finding] = []
    for name, answer in _judged(documents, facts):
        if isinstance(answer, Finding):
            findings.append(answer)
        else:
            remarks.append(answer.remark(name) if isinstance(answer, Doubt) else answer)
    if documents:
        remarks += missing
    kinds = tuple((document.name, document.kind) for document in documents)
    return Report(kinds, tuple(findings), tuple(dict.fromkeys(remarks)))


def _judged(documents: Sequence[Document], facts: Facts) -> Iterator[tuple[str, Finding | Doubt | Remark]]:
    def of(kind: Kind) -> list[Mapping[str, Any]]:
        return [document.content for document in documents if document.kind is kind]

    def files(*kinds: Kind) -> str:
        return ", ".join(dict.fromkeys(one.name for one in documents if one.kind in kinds))

    trust = of(Kind.TRUST)
    if trust:
        name = files(Kind.TRUST)
        for answer in chain(
            judge_trust(trust, facts),
            judge_trusted(name, trust, facts),
            judge_other_ids(name, trust, facts),
        ):
            yield name, answer
    rights = Rights(facts, of(Kind.PERMISSION), of(Kind.BUCKET), of(Kind.KEY))
    if rights.on_role or rights.on_bucket:
        name = files(Kind.PERMISSION, Kind.BUCKET)
        for right in judge_rights(rights):
            yield name, right
    if rights.on_role:
        permissions = [one for one in documents if one.kind is Kind.PERMISSION]
        for answer in judge_excess(rights, permissions):
            yield files(Kind.PERMISSION), answer
    key = facts.kms_key_arn
    if key is None and rights.on_key:
        key = f"arn:{facts.partition}:kms:{facts.region or 'us-east-1'}:{facts.account}:key/this"
    if key is not None and (rights.on_role or rights.on_key):
        for right in judge_key(rights, key):
            yield files(Kind.PERMISSION, Kind.KEY), right
    elif rights.on_role:
        denied = kms_explicitly_denied(rights)
        if denied is not None:
            yield files(Kind.PERMISSION), _no_key(files(Kind.PERMISSION), denied.statement)


def _no_key(name: str, statement: int | None) -> Remark:
    return Remark(
        name,
        Fault.KMS_EXPLICITLY_DENIED,
        Severity.INFO,
        "KMS is denied, so that a bucket that encrypts with a KMS key could take nothing; other buckets can",
        Fix(
            "Nothing need be done without a KMS key. With one: xmode-transfer policy print --corrected, and "
            "destination.kms_key_arn in the customer's file",
            None,
            None,
            "CLI step 4, third statement",
        ),
        None if statement is None else statement + 1,
    )


def _facts(told: Told, documents: Sequence[Document]) -> tuple[Facts, list[Remark]]:
    """What was told of the customer, and for the rest what the documents themselves say."""
    role_arn, missing = _role(told, documents)
    external_id = told.external_id or _external_id(documents)
    bucket, prefix = _destination(told, documents)
    remarks = []
    name = documents[0].name if documents else ""
    kinds = {document.kind for document in documents}
    if external_id is None and Kind.TRUST in kinds:
        missing.append("external ID (--external-id)")
    if bucket is None and kinds & {Kind.PERMISSION, Kind.BUCKET}:
        missing.append("bucket (--bucket)")
    if missing:
        remarks.append(
            Remark(
                name,
                Fault.NOT_TOLD,
                Severity.INFO,
                f"nobody told the {' nor the '.join(missing)}, so that it could not be compared",
                Fix("Name the customer with --customer, or give its values with the options"),
            )
        )
    partition, account = parse_iam(role_arn, "role")[:2]
    return (
        Facts(
            external_id=external_id or "nobody-told-the-external-id",
            role_arn=role_arn,
            bucket=bucket or "nobody-told-the-bucket",
            prefix=prefix,
            region=told.region,
            bucket_owner=told.bucket_owner or account,
            kms_key_arn=told.kms_key_arn,
            principal=told.principal,
            partition=partition,
        ),
        remarks,
    )


def _role(told: Told, documents: Sequence[Document]) -> tuple[str, list[str]]:
    partition = told.principal.split(":")[1]
    if told.role_arn is not None:
        return told.role_arn, []
    if told.account is not None:
        return f"arn:{partition}:iam::{told.account}:role/XMode", []
    named = [
        text
        for document in documents
        if document.kind in (Kind.BUCKET, Kind.KEY)
        for text in _principals(document)
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


def _principals(document: Document) -> Iterator[str]:
    for _, statement in statements_of(document):
        element = statement.get("Principal")
        if isinstance(element, Mapping):
            yield from texts(element.get("AWS"))


def _external_id(documents: Sequence[Document]) -> str | None:
    for document in documents:
        if document.kind is Kind.TRUST:
            for _, statement in statements_of(document):
                condition = statement.get("Condition")
                for keys in condition.values() if isinstance(condition, Mapping) else ():
                    for key, value in keys.items() if isinstance(keys, Mapping) else ():
                        if str(key).lower() == "sts:externalid":
                            plain = [
                                one for one in texts(value) if re.fullmatch(r"[\w+=,.@:/-]{2,1224}", one)
                            ]
                            if plain:
                                return plain[0]
    return None


def _destination(told: Told, documents: Sequence[Document]) -> tuple[str | None, str]:
    """Bucket and prefix; from a document, the first that it allows something on."""
    named = [
        text
        for document in documents
        if document.kind in (Kind.PERMISSION, Kind.BUCKET)
        for _, statement in statements_of(document)
        if statement.get("Effect") == "Allow" or document.kind is Kind.BUCKET
        for text in texts(statement.get("Resource"))
    ]
    bucket = told.bucket
    if bucket is None:
        bucket = next((match["bucket"] for text in named if (match := _BUCKET.fullmatch(text))), None)
    if told.prefix is not None or told.bucket is not None:
        return bucket, told.prefix or ""
    found = [match for text in named if (match := _OBJECTS.fullmatch(text)) and match["bucket"] == bucket]
    prefix = found[0]["prefix"] or "" if found else ""
    return bucket, "" if set(prefix) & set("*?${}") else prefix
