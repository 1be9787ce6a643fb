"""The guide's and the corrected documents, each changed in one place: what opens something draws an issue,
and what changes nothing draws none."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from xmode_transfer.access.lint import Source, lint
from xmode_transfer.access.lint.records import RIGHT_OF_CALL, Given, Report, iam, unknown_action, unknown_key
from xmode_transfer.aws.policy.documents import (
    VENDOR_PRINCIPAL,
    SetupValues,
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.model.findings import Severity

Document = dict[str, Any]
Mutate = Callable[[Document], None]

ID, BUCKET, PREFIX, ACCOUNT = "AcmeCorp", "acme-data", "xmode/", "111122223333"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ARN = f"arn:aws:s3:::{BUCKET}"
TOLD = Given(ID, BUCKET, PREFIX, ACCOUNT, region="us-east-1", kms_key_arn=KEY)
BASES: dict[str, Document] = {
    "guide": guide_permission_policy(BUCKET),
    "corrected": corrected_permission_policy(BUCKET, PREFIX, KEY, "us-east-1"),
}


def judged(document: Document) -> Report:
    return lint([Source("policy.json", json.dumps(document))], TOLD)


def words(report: Report) -> set[str]:
    found = {str(one.cause) for one in report.findings if one.cause not in (None, "ok")}
    return found | {str(one.fault) for one in report.issues}


def mutant(base: str, mutate: Mutate) -> Report:
    document = deepcopy(BASES[base])
    mutate(document)
    return judged(document)


def added(action: Any, resource: Any = "*", **more: Any) -> Mutate:
    entry = {"Effect": "Allow", "Action": action, "Resource": resource, **more}
    return lambda document: document["Statement"].append(entry)


def changed(index: int, **changes: Any) -> Mutate:
    return lambda document: document["Statement"][index].update(changes)


def also(index: int, element: str, value: str) -> Mutate:
    def mutate(document: Document) -> None:
        found = document["Statement"][index][element]
        document["Statement"][index][element] = [*(found if isinstance(found, list) else [found]), value]

    return mutate


def without(index: int, element: str = "") -> Mutate:
    def mutate(document: Document) -> None:
        if element:
            del document["Statement"][index][element]
        else:
            del document["Statement"][index]

    return mutate


ELSEWHERE = [
    "*",
    "arn:aws:s3:::*",
    "arn:aws:s3:::*/*",
    "arn:aws:s3:::acme-*",
    f"{ARN}*/xmode/*",
]
BEYOND = [
    f"{ARN}/*",
    f"{ARN}/xmode*",
    f"{ARN}/?mode/*",
    f"{ARN}/*/xmode/*",
    f"{ARN}/xmod?/*",
    f"{ARN}/exports/*",
]
ACTIONS = [
    "s3:DeleteObjectVersion",
    "s3:GetObjectVersion",
    "s3:PutObjectVersionAcl",
    "s3:BypassGovernanceRetention",
]
ACTIONS += [
    "s3:*",
    "s3:Put*",
    "s3:Get*",
    "s3:Delete*",
    "s3:*Object*",
    "s3:*Tagging",
    "S3:deleteOBJECTversion",
]
ON_BUCKET = [
    "s3:PutBucketPolicy",
    "s3:DeleteBucket",
    "s3:List*",
    "s3:*",
    "s3:PutBucketAcl",
    "s3:GetBucketPolicy",
]
SERVICES = [
    "iam:PassRole",
    "iam:PutRolePolicy",
    "iam:*",
    "lambda:*",
    "secretsmanager:*",
    "ec2:*",
    "sts:AssumeRole",
]
SERVICES += [
    "sts:*",
    "*",
    "*:*",
    "kms:*",
    "kms:Decrypt",
    "dynamodb:*",
    "sqs:SendMessage",
    "i*:*",
    "logs:Put*",
]
ACLS = ("public-read", "authenticated-read")
STATEMENTS = {base: len(document["Statement"]) for base, document in BASES.items()}


def harmful() -> Iterator[tuple[str, str, Mutate, set[str]]]:
    """Base, name, change, and a word of which one must be said."""
    for base, of_objects in (("guide", 0), ("corrected", 1)):
        for resource in ELSEWHERE:  # the corrected policy denies S3 outside of the bucket
            told = "too_broad" if base == "guide" else "beyond_prefix"
            yield base, f"also on {resource}", also(of_objects, "Resource", resource), {told}
        for action in ACTIONS:
            yield base, f"{action} too", also(of_objects, "Action", action), {"too_broad"}
            yield base, f"{action} besides", added(action, f"{ARN}/xmode/*"), {"too_broad"}
        for action in ON_BUCKET:
            yield base, f"{action} on the bucket", added(action, ARN), {"too_broad"}
        yield base, "s?:PutObject", also(of_objects, "Action", "s?:PutObject"), {"unknown_action"}
        yield base, "other bucket", added("s3:GetObject", "arn:aws:s3:::other/*"), {"other_bucket"}
        but = {"Effect": "Allow", "NotAction": "s3:Delete*", "Resource": "*"}
        yield (
            base,
            "everything but",
            lambda document, but=but: document["Statement"].append(but),
            {"too_broad"},
        )
    for resource in BEYOND:
        yield "corrected", f"beyond: {resource}", also(1, "Resource", resource), {"beyond_prefix"}
    yield "corrected", "lists all", without(0, "Condition"), {"beyond_prefix"}
    other_prefix = {"StringLike": {"s3:prefix": ["xmode/*", "else*"]}}
    yield "corrected", "lists another prefix", changed(0, Condition=other_prefix), {"beyond_prefix"}
    if_exists = {"StringLikeIfExists": {"s3:prefix": "xmode/*"}}
    yield "corrected", "lists without a prefix", changed(0, Condition=if_exists), {"beyond_prefix"}
    for action in SERVICES:  # the guide's third statement would deny them all
        yield "corrected", f"{action} besides", added(action), {"too_broad"}
    yield "corrected", "any key", changed(-1, Resource="*"), {"too_broad"}
    yield (
        "corrected",
        "any key of the account",
        changed(-1, Resource=KEY.rpartition("/")[0] + "/*"),
        {"too_broad"},
    )
    yield "corrected", "the key without S3", without(-1, "Condition"), {"too_broad"}
    yield "corrected", "more of the key", also(-1, "Action", "kms:Encrypt"), {"too_broad"}
    yield "corrected", "a condition that may hold", added("iam:PassRole", Condition=FROM_HOME), {"too_broad"}
    for acl in ACLS:
        both = {"StringEquals": {"s3:x-amz-acl": ["bucket-owner-full-control", acl]}}
        yield "guide", f"{acl} too", changed(0, Condition=both), {"too_broad"}
        yield (
            "corrected",
            f"{acl} not denied",
            changed(2, Condition={"StringEquals": {"s3:x-amz-acl": acl}}),
            {"too_broad"},
        )
    for operator in ("StringLike", "StringEqualsIfExists", "ForAllValues:StringEquals", "StringNotEquals"):
        value = "*" if operator == "StringLike" else "bucket-owner-full-control"
        yield "guide", operator, changed(0, Condition={operator: {"s3:x-amz-acl": value}}), {"too_broad"}
    yield "guide", "no condition", without(0, "Condition"), {"too_broad"}
    for index in (2, 3):
        yield (
            "corrected",
            f"without {BASES['corrected']['Statement'][index]['Sid']}",
            without(index),
            {"too_broad"},
        )
        yield "corrected", f"{index} elsewhere", changed(index, Resource=f"{ARN}/x/*"), {"too_broad"}
    yield (
        "corrected",
        "Null turned round",
        changed(2, Condition={"Null": {"s3:x-amz-acl": "true"}}),
        {"too_broad"},
    )


FROM_HOME = {"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}
HARMFUL = list(harmful())


@pytest.mark.parametrize(
    ("base", "mutate", "expected"),
    [(b, m, e) for b, _, m, e in HARMFUL],
    ids=[f"{base}-{name}" for base, name, _, _ in HARMFUL],
)
def test_a_harmful_change_is_reported(base: str, mutate: Mutate, expected: set[str]) -> None:
    report = mutant(base, mutate)
    assert expected <= words(report) - words(judged(BASES[base]))
    grave = {one.severity for one in (*report.findings, *report.issues)}
    assert grave & {Severity.WARNING, Severity.ERROR, Severity.CRITICAL}


def turned(document: Document) -> None:
    document["Statement"].reverse()


def small(document: Document) -> None:
    for entry in document["Statement"]:
        for name in ("Action", "NotAction"):
            if isinstance(entry.get(name), list):
                entry[name] = [one.lower() for one in entry[name]]


def apart(document: Document) -> None:
    """A statement for each action."""
    document["Statement"] = [
        {**{name: value for name, value in entry.items() if name != "Sid"}, "Action": action}
        if action
        else entry
        for entry in document["Statement"]
        for action in (entry["Action"] if isinstance(entry.get("Action"), list) else [None])
    ]


TLS = {"Bool": {"aws:SecureTransport": "true"}}
HARMLESS: dict[str, Mutate] = {
    "turned round": turned,
    "small letters": small,
    "a statement each": apart,
    "twice": lambda document: document["Statement"].extend(deepcopy(document["Statement"])),
    "an Id": lambda document: document.update(Id="ours"),
    "a Sid": changed(0, Sid="Ours"),
    "a Deny of what is not needed": added("s3:DeleteBucket", ARN, Effect="Deny"),
    "a Deny of what others do": added("iam:*", Effect="Deny"),
    "where the bucket is": added("s3:GetBucketLocation", ARN),
    "its unfinished uploads": added("s3:ListBucketMultipartUploads", ARN),
    "what everybody may": added("sts:GetCallerIdentity"),
    "below the prefix again": added("s3:GetObject", f"{ARN}/xmode/us-daily/*"),
    "over TLS": added("s3:GetObject", f"{ARN}/xmode/*", Condition=TLS),
    "objects' rights on the bucket": added(["s3:GetObject", "s3:DeleteObject"], ARN),
    "the bucket's rights on objects": added("s3:ListBucket", f"{ARN}/xmode/*"),
    "allowed and denied": lambda document: (
        added("ec2:*")(document),
        added("ec2:*", Effect="Deny")(document),
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("base", BASES)
def test_a_harmless_change_is_not_reported(base: str, name: str) -> None:
    assert words(mutant(base, HARMLESS[name])) == words(judged(BASES[base]))


@pytest.mark.parametrize(
    ("values", "issue"),
    [
        ([ID], False),
        ([ID, ID], False),
        ([ID, "Other"], True),
        ([ID, "acmecorp"], True),
    ],
)
def test_a_second_external_id_is_reported(values: list[str], issue: bool) -> None:
    document = guide_trust_policy(ID)
    document["Statement"]["Condition"]["StringEquals"]["sts:ExternalId"] = values
    assert words(judged(document)) == ({"second_external_id"} if issue else set())


def test_a_second_statement_may_have_the_second_external_id() -> None:
    document = guide_trust_policy(ID)
    document["Statement"] = [
        document["Statement"],
        guide_trust_policy("Other", VENDOR_PRINCIPAL)["Statement"],
    ]
    assert words(judged(document)) == {"second_external_id"}


@pytest.mark.parametrize(("partition", "region"), [("aws-eusc", "eusc-de-east-1"), ("aws-cn", "cn-north-1")])
def test_another_partition_is_judged_by_its_own_arns(partition: str, region: str) -> None:
    key = KEY.replace("arn:aws:", f"arn:{partition}:").replace("us-east-1", region)
    told = SetupValues(
        ID,
        f"arn:{partition}:iam::{ACCOUNT}:role/XMode",
        BUCKET,
        PREFIX,
        region,
        ACCOUNT,
        key,
        VENDOR_PRINCIPAL.replace("arn:aws:", f"arn:{partition}:"),
        partition,
    )
    document = corrected_permission_policy(BUCKET, PREFIX, key, region, partition=partition)
    sources = [
        Source("p.json", json.dumps(document)),
        Source("t.json", json.dumps(guide_trust_policy(ID, told.principal))),
    ]
    assert words(lint(sources, told)) == {"put_without_acl_allowed"}
    document["Statement"][1]["Resource"] = [f"{ARN}/xmode/*", f"arn:{partition}:s3:::{BUCKET}/xmode*"]
    assert {"wrong_partition", "beyond_prefix"} <= words(lint([Source("p.json", json.dumps(document))], told))


# --- The kept names --------------------------------------------------------------------------------------


def test_every_listed_name_is_known() -> None:
    data = iam()
    assert data["date"] > "2026"
    assert {"s3", "sts", "kms", "iam", "ec2", "s3express"} <= set(data["prefixes"])
    told = []
    for service, about in data["services"].items():
        assert len(about["actions"]) > 15
        for name, action in about["actions"].items():
            assert set(action) == {"level", "on"}
            told += [unknown_action(f"{one}:{name}") for one in (service, service.upper())]
    told += [unknown_key(key.replace("${TagKey}", "team")) for key in data["keys"]]
    assert [one for one in told if one is not None] == []
    assert {right.partition(":")[2] for right in RIGHT_OF_CALL.values()} <= set(
        data["services"]["s3"]["actions"]
    )


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("s3:PutObjetc", "unknown action s3:PutObjetc (did you mean s3:PutObject?)"),
        ("s3:HeadBucket", "there is no action s3:HeadBucket: the call needs s3:ListBucket"),
        ("s3:Frobnicate", "unknown action s3:Frobnicate"),
        ("lamda:InvokeFunction", "unknown service lamda (did you mean lambda?)"),
        ("ec2:Frobnicate", None),
        ("s3:Put*", None),
    ],
)
def test_an_unknown_action_is_reported_with_a_suggestion(action: str, told: str | None) -> None:
    assert unknown_action(action) == told


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("sts:External-Id", "unknown condition key sts:External-Id (did you mean sts:ExternalId?)"),
        ("aws:x-amz-acl", "unknown condition key aws:x-amz-acl (did you mean s3:x-amz-acl?)"),
        ("s3:frobnicate", "unknown condition key s3:frobnicate"),
        ("kms:EncryptionContext:aws:s3:arn", None),
        ("aws:PrincipalTag/team", None),
        ("iam:PassedToService", None),
        ("token.actions.githubusercontent.com:sub", None),
    ],
)
def test_an_unknown_condition_key_is_reported_with_a_suggestion(key: str, told: str | None) -> None:
    assert unknown_key(key) == told


@pytest.mark.parametrize("kind", ["permission", "bucket", "trust"])
def test_an_unknown_name_is_never_an_error(kind: str) -> None:
    """AWS may have added it since."""
    document = guide_trust_policy(ID) if kind == "trust" else deepcopy(BASES["corrected"])
    entry = {"Effect": "Allow", "Action": "s3:Frobnicate", "Resource": f"{ARN}/xmode/*"}
    if kind == "trust":
        entry = {"Effect": "Allow", "Action": "sts:Frobnicate", "Principal": {"AWS": VENDOR_PRINCIPAL}}
        document["Statement"] = [document["Statement"], entry]
    elif kind == "bucket":
        role = f"arn:aws:iam::{ACCOUNT}:role/XMode"
        document = {"Version": "2012-10-17", "Statement": [{**entry, "Principal": {"AWS": role}}]}
    else:
        document["Statement"].append(entry)
    report = judged(document)
    (issue,) = [one for one in report.issues if one.fault == "unknown_action"]
    assert issue.severity is Severity.WARNING
    assert report.exit_code == 0
