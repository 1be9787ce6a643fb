"""What a document names: principals, partitions, buckets, and the two forms of a bucket's ARN."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from xmode_transfer.domain.findings import Facts, Fix, Severity
from xmode_transfer.domain.policy_lint.reading import Document
from xmode_transfer.domain.policy_lint.records import Fault, Kind, Remark
from xmode_transfer.domain.policy_lint.structure import statements_of

_S3_ARN = re.compile(r"arn:(?P<partition>[a-z-]+):s3:::(?P<bucket>[^/]*)(?P<objects>/.*)?", re.DOTALL)
_PLACED_S3_ARN = re.compile(r"arn:(?P<partition>[a-z-]+):s3:[a-z0-9-]*:[0-9]*:(?P<rest>[^:]+)")
PLACEHOLDERS = ("BUCKET", "bucket-name")
_ON_BUCKET = ("s3:listbucket", "s3:listbucketmultipartuploads", "s3:getbucketlocation")
_ON_OBJECTS = ("s3:putobject", "s3:putobjectacl", "s3:getobject", "s3:getobjectacl", "s3:deleteobject")
_PRINCIPAL = re.compile(r"arn:(?P<partition>[a-z-]+):(?:iam|sts)::(?P<account>[0-9]*):(?P<what>.+)")


def resources(document: Document, facts: Facts) -> Iterator[Remark]:
    """Every remark on what the document names."""
    for number, statement in statements_of(document):
        for text in dict.fromkeys(texts(statement.get("Resource")) + texts(statement.get("NotResource"))):
            yield from _resource(document, number, text, facts)
        for text in dict.fromkeys(_principals(statement)):
            yield from _principal(document, number, text, facts)
    if document.kind is Kind.PERMISSION:
        yield from _both_forms(document, facts)


def _resource(document: Document, number: int, text: str, facts: Facts) -> Iterator[Remark]:
    def wrong(fault: Fault, message: str, fix: str, severity: Severity = Severity.WARNING) -> Remark:
        return Remark(document.name, fault, severity, f"statement {number}: {message}", Fix(fix), number)

    arn = f"arn:{facts.partition}:s3:::{facts.bucket}"
    found = _S3_ARN.fullmatch(text)
    if found is not None:
        if found["partition"] != facts.partition:
            yield wrong(
                Fault.WRONG_PARTITION,
                f"{text} lies in the partition {found['partition']}, the role in {facts.partition}",
                f"Write arn:{facts.partition}:s3:::{found['bucket']}{found['objects'] or ''}",
                Severity.ERROR,
            )
        bucket = found["bucket"]
        if bucket != facts.bucket and not set("*?${}") & set(bucket) and bucket not in PLACEHOLDERS:
            yield wrong(
                Fault.OTHER_BUCKET,
                f"{text} is the bucket {bucket}, and we deliver into {facts.bucket}",
                f"Write {arn} and {arn}/*, or tell us that the bucket is another",
            )
        return
    placed = _PLACED_S3_ARN.fullmatch(text)
    bare = not text.startswith("arn:") and text != "*" and "*" not in text.partition("/")[0]
    if placed is not None:
        meant = f"arn:{placed['partition']}:s3:::{placed['rest']}"
        yield wrong(
            Fault.MALFORMED_ARN,
            f"the ARN of a bucket has neither Region nor account: {text}",
            f"Write {meant}",
            Severity.ERROR,
        )
    elif bare and document.kind is not Kind.KEY:
        name = re.sub(r"^s3://", "", text)
        yield wrong(
            Fault.MALFORMED_ARN,
            f"{text} is no ARN",
            f"Write arn:{facts.partition}:s3:::{name}",
            Severity.ERROR,
        )


def _principal(document: Document, number: int, text: str, facts: Facts) -> Iterator[Remark]:
    """In a trust policy we are the principal; in a bucket's and a key's policy the customer's role is."""
    ours = document.kind is Kind.TRUST
    wanted = facts.principal if ours else facts.role_arn
    found = _PRINCIPAL.fullmatch(text)
    if found is None or text == wanted:
        return

    def wrong(fault: Fault, severity: Severity, message: str, fix: str) -> Remark:
        return Remark(document.name, fault, severity, f"statement {number}: {message}", Fix(fix), number)

    partition, account = wanted.split(":")[1], wanted.split(":")[4]
    if found["partition"] != partition:
        yield wrong(
            Fault.WRONG_PARTITION,
            Severity.ERROR if ours else Severity.WARNING,
            f"{text} lies in the partition {found['partition']}, and no principal of another can be let in",
            f"Write {wanted}",
        )
    elif ours and found["what"] != "root":
        what = "account" if found["account"] != account else "name"
        yield wrong(
            Fault.OTHER_PRINCIPAL,
            Severity.WARNING,
            f"{text} is not XMode's user: another {what}",
            f"Write {wanted}, and leave others out",
        )


def _both_forms(document: Document, facts: Facts) -> Iterator[Remark]:
    """Rights on objects need the ARN with /*, rights on the bucket the one without."""
    arn = f"arn:{facts.partition}:s3:::{facts.bucket}"
    granted: dict[str, set[str]] = {"bucket": set(), "objects": set()}
    asked: dict[str, int] = {}
    for number, statement in statements_of(document):
        if statement.get("Effect") != "Allow" or "NotResource" in statement or "NotAction" in statement:
            continue
        for action in (text.lower() for text in texts(statement.get("Action"))):
            if action in _ON_BUCKET:
                asked.setdefault("bucket", number)
                granted["bucket"].update(texts(statement.get("Resource")))
            if action in _ON_OBJECTS:
                asked.setdefault("objects", number)
                granted["objects"].update(texts(statement.get("Resource")))
    ours = {text for text in granted["objects"] | granted["bucket"] if text.startswith(arn)}
    if "objects" in asked and ours and granted["objects"] and granted["objects"] <= {arn, f"{arn}/"}:
        yield Remark(
            document.name,
            Fault.OBJECTS_NOT_NAMED,
            Severity.ERROR,
            f"rights on objects are given on {arn} alone, which is the bucket and none of its objects",
            Fix(f"Add {arn}/* to the Resource", None, None, "CLI step 4"),
            asked["objects"],
        )
    on_bucket = granted["bucket"]
    if "bucket" in asked and on_bucket and all(text.startswith(f"{arn}/") for text in on_bucket):
        yield Remark(
            document.name,
            Fault.BUCKET_NOT_NAMED,
            Severity.ERROR,
            f"s3:ListBucket is given on {', '.join(sorted(on_bucket))}, which are objects and not the bucket",
            Fix(f"Add {arn} to the Resource", None, None, "CLI step 4"),
            asked["bucket"],
        )


def _principals(statement: Mapping[str, Any]) -> tuple[str, ...]:
    element = statement.get("Principal")
    if isinstance(element, Mapping):
        return texts(element.get("AWS"))
    return ()


def texts(value: object) -> tuple[str, ...]:
    """The texts of an element that is one or a list of them."""
    return tuple(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str))
