"""The catalogue of causes: each has a responsible and a fix, and the statements of a fix really work."""

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.aws.policy import decide, evaluate
from xmode_transfer.aws.policy.documents import ACL, VENDOR_PRINCIPAL, SetupValues
from xmode_transfer.aws.policy.evaluate import PolicyKind, Request, S3Call, assume_role
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import (
    AccessReport,
    Change,
    Finding,
    Result,
    changes,
    exit_code,
    outcome,
    passed,
    skipped,
    unanswered,
)

BAD = [cause for cause in Cause if cause is not Cause.OK]
PAGE = Path(__file__).parents[3] / "docs" / "check-access.md"
ROLE = "arn:aws:iam::111122223333:role/partners/XMode"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
FACTS = SetupValues("AcmeCorp", ROLE, "acme-data", "xmode/", "eu-west-1", "111122223333", KEY)


def policy_of(command: str) -> dict[str, Any]:
    """The document in a line of the AWS CLI, as a shell would hand it over."""
    parts = shlex.split(command)
    document: dict[str, Any] = json.loads(parts[parts.index("--policy-document") + 1])
    return document


def test_docs_list_every_cause_with_its_severity_and_responsible() -> None:
    documented = {}
    for line in PAGE.read_text(encoding="utf-8").partition("## Causes")[2].splitlines():
        row = re.match(r"\| `(\w+)` \| (\w+) \| ([\w-]+) \| .+ \|$", line)
        if row is not None:
            documented[row[1]] = (row[2], row[3])
    found = [finding(cause, "p", FACTS) for cause in Cause]
    assert documented == {item.cause: (item.severity, item.responsible or "-") for item in found}


@pytest.mark.parametrize("cause", BAD)
def test_every_cause_has_a_responsible_and_a_fix(cause: Cause) -> None:
    found = finding(cause, "a probe", FACTS, detail="three of them", request_id="R1", said="403")
    assert (found.probe, found.cause, found.request_id) == ("a probe", cause, "R1")
    assert found.result in (Result.DENIED, Result.UNEXPECTED)
    assert isinstance(found.responsible, Responsible)
    assert found.message.endswith("(three of them)")
    assert (found.said, found.request_id) == ("403", "R1")
    assert "\n" not in found.message
    assert found.fix is not None
    assert found.fix.summary
    if found.responsible is Responsible.CUSTOMER:
        fix = found.fix
        assert fix.statement or fix.command or "o action is needed" in fix.summary


@pytest.mark.parametrize("cause", BAD)
def test_a_finding_has_no_placeholders(cause: Cause) -> None:
    found = finding(cause, "p", FACTS)
    assert found.fix is not None
    words = f"{found.message} {found.fix.summary} {found.fix.command} {json.dumps(found.fix.statement)}"
    for token in ("{f.", "BUCKET", "EXTERNAL-ID", "my-policy", "bucket-name", "None}"):
        assert token not in words
    if found.fix.command:
        assert shlex.split(found.fix.command)[0] in ("aws", "chronyc", "if")


@pytest.mark.parametrize(
    "cause",
    [
        Cause.ROLE_REFUSED,
        Cause.EXTERNAL_ID_NOT_REQUIRED,
        Cause.EXTERNAL_ID_ANY_VALUE,
        Cause.EXTERNAL_ID_CASE_INSENSITIVE,
    ],
)
def test_the_trust_policy_of_a_fix_accepts_only_the_external_id(cause: Cause) -> None:
    fix = finding(cause, "p", FACTS).fix
    assert fix is not None
    assert fix.command is not None
    document = policy_of(fix.command)
    assert document["Statement"] == fix.statement

    def lets_in(external_id: str | None) -> bool:
        return assume_role(
            document, principal=VENDOR_PRINCIPAL, role_arn=ROLE, external_id=external_id
        ).allowed

    assert lets_in("AcmeCorp")
    assert not any(map(lets_in, (None, "acmecorp", "AcmeCorp-1", "other")))


def test_a_command_names_the_role_without_its_path() -> None:
    fix = finding(Cause.EXTERNAL_ID_NOT_REQUIRED, "p", FACTS).fix
    assert fix is not None
    assert fix.command is not None
    assert fix.command.startswith("aws iam update-assume-role-policy --role-name XMode --policy-document ")


KEYED = "xmode/a.csv"
GRANTS = {
    Cause.LIST_DENIED: [S3Call("ListObjectsV2", "acme-data", prefix="xmode/")],
    Cause.PUT_DENIED: [S3Call("PutObject", "acme-data", KEYED, acl=ACL)],
    Cause.ACL_REFUSED: [S3Call("PutObject", "acme-data", KEYED, acl=ACL)],
    Cause.MULTIPART_DENIED: [
        S3Call("CreateMultipartUpload", "acme-data", KEYED, acl=ACL),
        S3Call("UploadPart", "acme-data", KEYED),
        S3Call("CompleteMultipartUpload", "acme-data", KEYED),
    ],
    Cause.ABORT_DENIED: [S3Call("AbortMultipartUpload", "acme-data", KEYED)],
    Cause.LIST_PARTS_DENIED: [S3Call("ListParts", "acme-data", KEYED)],
    Cause.HEAD_DENIED: [
        S3Call("HeadObject", "acme-data", KEYED),
        S3Call("GetObject", "acme-data", KEYED),
    ],
    Cause.GET_ACL_DENIED: [S3Call("GetObjectAcl", "acme-data", KEYED)],
    Cause.DELETE_DENIED: [S3Call("DeleteObject", "acme-data", KEYED)],
}


@pytest.mark.parametrize("cause", GRANTS)
def test_the_statement_of_a_fix_grants_only_what_was_refused(cause: Cause) -> None:
    fix = finding(cause, "p", FACTS).fix
    assert fix is not None
    assert fix.statement is not None
    assert fix.command is not None
    document = policy_of(fix.command)
    assert document["Statement"][0] == fix.statement
    assert not decide(S3Call("PutObject", "acme-data", KEYED, acl="public-read"), [document]).allowed
    for call in GRANTS[cause]:
        assert decide(call, [document]).allowed
        assert not decide(S3Call(call.operation, "other-data", call.key, acl=call.acl), [document]).allowed
        if call.key:
            elsewhere = S3Call(call.operation, "acme-data", "other/a.csv", acl=call.acl)
            assert not decide(elsewhere, [document]).allowed


@pytest.mark.parametrize(("key", "region"), [(KEY, "eu-west-1"), (None, "eu-west-1"), (KEY, None)])
def test_the_fix_for_kms_allows_the_key_only_through_s3(key: str | None, region: str | None) -> None:
    facts = SetupValues("AcmeCorp", ROLE, "acme-data", "xmode/", region, "111122223333", key)
    fix = finding(Cause.KMS_DENIED, "p", facts).fix
    assert fix is not None
    assert fix.command is not None
    document = policy_of(fix.command)

    def may(action: str, service: str) -> bool:
        context = {"kms:ViaService": service}
        return evaluate([document], Request(ROLE, action, KEY, context), kind=PolicyKind.IDENTITY).allowed

    assert may("kms:GenerateDataKey", "s3.eu-west-1.amazonaws.com")
    assert may("kms:Decrypt", "s3.eu-west-1.amazonaws.com")
    assert not may("kms:Decrypt", "ec2.eu-west-1.amazonaws.com")
    assert not may("kms:ScheduleKeyDeletion", "s3.eu-west-1.amazonaws.com")
    assert fix.statement in document["Statement"]


def test_the_fix_for_excess_rights_is_limited_to_the_prefix() -> None:
    fix = finding(Cause.TOO_BROAD, "p", FACTS).fix
    assert fix is not None
    assert fix.command is not None
    document = policy_of(fix.command)
    assert fix.statement in document["Statement"]
    assert decide(S3Call("PutObject", "acme-data", KEYED, acl=ACL), [document]).allowed
    assert not decide(S3Call("PutObject", "acme-data", "other/x", acl=ACL), [document]).allowed
    assert not decide(S3Call("GetBucketPolicy", "acme-data"), [document]).allowed


def test_the_fix_for_our_own_user_allows_only_that_role() -> None:
    fix = finding(Cause.VENDOR_POLICY_DENIES_ASSUME, "p", FACTS).fix
    assert fix is not None
    assert fix.command is not None
    document = policy_of(fix.command)
    assert evaluate([document], Request(VENDOR_PRINCIPAL, "sts:AssumeRole", ROLE)).allowed
    other = ROLE.replace("1111", "9999")
    assert not evaluate([document], Request(VENDOR_PRINCIPAL, "sts:AssumeRole", other)).allowed


# --- Outcome

GOOD = passed("p", "fine")
NOTE = finding(Cause.PUT_WITHOUT_ACL_ALLOWED, "p", FACTS)
WARNING = finding(Cause.VERSIONED_BUCKET, "p", FACTS)
THEIRS = finding(Cause.LIST_DENIED, "p", FACTS)
CRITICAL = finding(Cause.EXTERNAL_ID_NOT_REQUIRED, "p", FACTS)
OURS = finding(Cause.BUCKET_OTHER_REGION, "p", FACTS)
AWAY = unanswered("p", "no answer", Responsible.AWS)
LEFT_OUT = skipped("p", "not tried")


@pytest.mark.parametrize(
    ("findings", "code", "word"),
    [
        ([], 0, "ok"),
        ([GOOD, NOTE, WARNING, LEFT_OUT], 0, "ok"),
        ([GOOD, THEIRS], 4, "blocked"),
        ([CRITICAL], 4, "blocked"),
        ([OURS, THEIRS], 4, "blocked"),
        ([OURS, WARNING], 3, "failed"),
        ([AWAY], 3, "failed"),
    ],
)
def test_exit_code_and_outcome(findings: list[Finding], code: int, word: str) -> None:
    assert (exit_code(findings), outcome(findings)) == (code, word)


# --- Drift ---------------------------------------------------------------------------------------------


def report(*findings: Finding) -> AccessReport:
    return AccessReport("acme", datetime(2026, 11, 23, tzinfo=UTC), findings)


def test_another_result_is_a_change() -> None:
    before = report(passed("list", "fine"), passed("put", "fine"))
    now = report(finding(Cause.LIST_DENIED, "list", FACTS), passed("put", "fine still"))
    assert changes(before, now) == (Change("list", "ok", "list_denied"),)
    assert changes(now, before) == (Change("list", "list_denied", "ok"),)
    assert changes(now, now) == ()


@pytest.mark.parametrize("silent", [skipped("list", "x"), unanswered("list", "x", Responsible.AWS)])
def test_a_probe_without_an_answer_is_no_change(silent: Finding) -> None:
    told = report(passed("list", "fine"))
    assert changes(told, report(silent)) == changes(report(silent), told) == ()


def test_a_report_lists_each_cause_once() -> None:
    again = finding(Cause.HEAD_DENIED, "read", FACTS)
    first = finding(Cause.HEAD_DENIED, "head", FACTS)
    found = report(GOOD, first, again, LEFT_OUT, finding(Cause.LIST_DENIED, "list", FACTS))
    assert found.causes == (Cause.HEAD_DENIED, Cause.LIST_DENIED)
