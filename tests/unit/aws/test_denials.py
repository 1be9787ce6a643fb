"""AWS's answers that name the policy which denied, in the forms that its documents show ("Troubleshoot access
denied error messages", IAM and S3 User Guides): whose policy it is, and what is never advised."""

# ruff: noqa: E501 - AWS's sentences are long

import json
import os
import subprocess
from pathlib import Path

import pytest

from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.aws.denials import Denial, PolicyType, denial_in
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import Severity

ROLE = "arn:aws:iam::111122223333:role/partners/XMode"
FACTS = SetupValues("AcmeCorp", ROLE, "acme-data", "xmode/", "eu-west-1", "111122223333")
SESSION = "arn:aws:sts::111122223333:assumed-role/XMode/xmode-transfer"
PUT = f'User: {SESSION} is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::acme-data/xmode/a" '
KMS = f"User: {SESSION} is not authorized to perform: kms:GenerateDataKey on this resource "
ASSUME = f"User: arn:aws:iam::366810793500:user/xmode-data-transfer is not authorized to perform: sts:AssumeRole on resource: {ROLE} "
SCP = "arn:aws:organizations::999999999999:policy/o-example/service_control_policy/p-guardrail"
MANAGED = "arn:aws:iam::111122223333:policy/team/NoUploads"
US, THEM = Responsible.VENDOR, Responsible.CUSTOMER

# The end of the answer; the type, explicit or not, the ARN; who acts on S3's answer, and on STS's.
FORMS: list[tuple[str, PolicyType, bool, str | None, Responsible, Responsible]] = [
    ("with an explicit deny in an identity-based policy", PolicyType.IDENTITY, True, None, THEM, US),
    (f"with an explicit deny in an identity-based policy: {MANAGED}", PolicyType.IDENTITY, True, MANAGED, THEM, US),
    (f"with an explicit deny in an identity-based policy: {MANAGED}. Go to https://example.com", PolicyType.IDENTITY, True, MANAGED, THEM, US),
    ("because no identity-based policy allows the s3:PutObject action", PolicyType.IDENTITY, False, None, THEM, US),
    ("with an explicit deny in a resource-based policy", PolicyType.RESOURCE, True, None, THEM, THEM),
    ("because no resource-based policy allows the s3:PutObject action", PolicyType.RESOURCE, False, None, THEM, THEM),
    ("with an explicit deny in a permissions boundary", PolicyType.BOUNDARY, True, None, THEM, US),
    (f"with an explicit deny in a permissions boundary: {MANAGED}", PolicyType.BOUNDARY, True, MANAGED, THEM, US),
    ("because no permissions boundary allows the s3:PutObject action", PolicyType.BOUNDARY, False, None, THEM, US),
    ("with an explicit deny in a session policy", PolicyType.SESSION, True, None, US, US),
    ("with an explicit deny in a sessions policy", PolicyType.SESSION, True, None, US, US),
    ("because no session policy allows the s3:PutObject action", PolicyType.SESSION, False, None, US, US),
    ("with an explicit deny in a service control policy", PolicyType.SCP, True, None, THEM, US),
    (f"with an explicit deny in a service control policy: {SCP}", PolicyType.SCP, True, SCP, THEM, US),
    ("due to an explicit deny in a Service Control Policy", PolicyType.SCP, True, None, THEM, US),
    ("because no service control policy allows the s3:PutObject action", PolicyType.SCP, False, None, THEM, US),
    ("with an explicit deny in a resource control policy", PolicyType.RCP, True, None, THEM, THEM),
    ("with an explicit deny in a VPC endpoint policy", PolicyType.VPC_ENDPOINT, True, None, US, US),
    ("with an explicit deny in a VPC endpoint policy transitively through a service control policy", PolicyType.VPC_ENDPOINT, True, None, US, US),
    ("because no VPC endpoint policy allows the s3:PutObject action", PolicyType.VPC_ENDPOINT, False, None, US, US),
    ("with an explicit deny in the role trust policy", PolicyType.TRUST, True, None, THEM, THEM),
    ("because no role trust policy allows the sts:AssumeRole action", PolicyType.TRUST, False, None, THEM, THEM),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "policy", "explicit", "arn", "of_s3", "of_sts"), FORMS, ids=[f[0] for f in FORMS]
)
def test_the_policy_that_denied_is_named_with_whose_it_is(
    form: str, policy: PolicyType, explicit: bool, arn: str | None, of_s3: Responsible, of_sts: Responsible
) -> None:
    assert denial_in(f"403 AccessDenied ({PUT}{form})") == Denial(policy, explicit, "s3:PutObject", arn)
    if policy is not PolicyType.TRUST:
        put = finding(Cause.PUT_DENIED, "put", FACTS, said=f"403 AccessDenied ({PUT}{form})")
        assert (put.responsible, put.severity) == (of_s3, Severity.ERROR)
    cause = Cause.ROLE_REFUSED if of_sts is THEM else Cause.VENDOR_POLICY_DENIES_ASSUME
    assert finding(cause, "assume_role", FACTS, said=ASSUME + form).responsible is of_sts


@pytest.mark.parametrize("form", [f[0] for f in FORMS if f[2]])
@pytest.mark.parametrize(
    "cause", [Cause.PUT_DENIED, Cause.LIST_DENIED, Cause.KMS_DENIED, Cause.MULTIPART_DENIED]
)
def test_an_explicit_deny_never_gets_an_allow(form: str, cause: Cause) -> None:
    found = finding(cause, "p", FACTS, said=(KMS if cause is Cause.KMS_DENIED else PUT) + form)
    assert found.fix is not None
    assert found.fix.statement is None
    command = found.fix.command or ""
    for word in ("put-", "attach-", "update-", "create-", "Allow"):
        assert word not in command
    assert "explicit deny in a" in found.message
    assert "Deny" in found.fix.summary or "session policy" in found.fix.summary
    if found.responsible is Responsible.CUSTOMER:
        assert command.startswith("aws ") or "KMS key" in found.fix.summary  # which nobody told us


@pytest.mark.parametrize("form", [f[0] for f in FORMS if f[2] and f[5] is US])
def test_a_deny_of_our_own_never_gets_an_allow(form: str) -> None:
    found = finding(Cause.VENDOR_POLICY_DENIES_ASSUME, "assume_role", FACTS, said=ASSUME + form)
    assert found.fix is not None
    assert (found.fix.statement, "put-user-policy" in (found.fix.command or "")) == (None, False)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (PUT + "with an explicit deny in a resource-based policy", "aws s3api get-bucket-policy --bucket acme-data"),
        (KMS + "with an explicit deny in a resource-based policy", "the policy of the KMS key"),
        (PUT + f"with an explicit deny in an identity-based policy: {MANAGED}", f"--policy-arn {MANAGED}"),
        (PUT + f"with an explicit deny in a service control policy: {SCP}", "describe-policy --policy-id p-guardrail"),
        (PUT + "with an explicit deny in a resource control policy", "--target-id 111122223333 --filter RESOURCE_CONTROL_POLICY"),
        (PUT + "because no permissions boundary allows the s3:PutObject action", "--query Role.PermissionsBoundary"),
    ],
)  # fmt: skip
def test_the_policy_is_shown_where_it_hangs(said: str, shown: str) -> None:
    fix = finding(Cause.PUT_DENIED, "put", FACTS, said=said).fix
    assert fix is not None
    assert shown in f"{fix.summary} {fix.command}"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "403 AccessDenied (Access Denied)",
        "with an explicit deny",
        f"with an explicit deny in an identity-based policy: {MANAGED}$(reboot)",
    ],
)
def test_what_names_no_policy_changes_nothing_and_what_is_hostile_reaches_no_command(said: str) -> None:
    fix, plain = (finding(Cause.PUT_DENIED, "put", FACTS, said=text).fix for text in (said, ""))
    assert fix is not None
    if denial_in(said) is None:
        assert fix == plain
    assert "reboot" not in (fix.command or "")


FAKE_AWS = """#!/bin/sh
echo "$1 $2 $*" >> "$CALLS"
case "$2" in
  get-role) [ -e "$ROLE_IS_THERE" ] ;;
  update-assume-role-policy) [ -e "$ROLE_IS_THERE" ] ;;
  create-role) [ ! -e "$ROLE_IS_THERE" ] && touch "$ROLE_IS_THERE" ;;
  put-role-policy) [ -e "$ROLE_IS_THERE" ] ;;
  *) exit 9 ;;
esac
"""


@pytest.mark.parametrize("there", [True, False])
def test_the_command_for_a_role_that_refuses_works_where_there_is_none(tmp_path: Path, there: bool) -> None:
    fix = finding(Cause.ROLE_REFUSED, "assume_role", FACTS, said="403 AccessDenied").fix
    assert fix is not None
    assert fix.command is not None
    (tmp_path / "aws").write_text(FAKE_AWS, encoding="utf-8")
    (tmp_path / "aws").chmod(0o755)
    if there:
        (tmp_path / "role").touch()
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    variables["ROLE_IS_THERE"] = str(tmp_path / "role")
    subprocess.run(["sh", "-c", fix.command], env=variables, check=True, timeout=30)
    calls = (tmp_path / "calls").read_text(encoding="utf-8")
    asked = [line.split()[1] for line in calls.splitlines()]
    assert asked == (
        ["get-role", "update-assume-role-policy"] if there else ["get-role", "create-role", "put-role-policy"]
    )
    assert there or "--path /partners/" in calls
    assert json.dumps({"sts:ExternalId": "AcmeCorp"}, separators=(",", ":")) in calls
