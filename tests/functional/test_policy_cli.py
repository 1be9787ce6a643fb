"""``xmode-transfer policy``, as an operator runs it. Nobody is called."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.commands import COMMAND
from xmode_transfer.aws.policy.documents import (
    Step,
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
    session_policy,
)

EXAMPLE = Path(__file__).parents[2] / "config"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "config"))


def run(directory: Path, *arguments: str, given: str | bytes = b"") -> subprocess.CompletedProcess[str]:
    done = commands.run(
        [COMMAND, "--config", str(directory), "policy", *arguments],
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        timeout=300,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def saved(tmp_path: Path, name: str, document: Any) -> str:
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return str(path)


# --- print ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], guide_permission_policy("acme-data")),
        (["--corrected"], corrected_permission_policy("acme-data", "xmode/")),
        (["--kind", "trust"], guide_trust_policy("AcmeCorp")),
        (["--kind", "session"], session_policy(Step.DELIVER, bucket="acme-data", prefix="xmode/")),
        (
            ["--kind", "session", "--step", "cleanup"],
            session_policy(Step.CLEANUP, bucket="acme-data", prefix="xmode/"),
        ),
    ],
)
def test_a_document_is_printed_ready_to_paste(
    directory: Path, arguments: list[str], expected: dict[str, Any]
) -> None:
    answer = run(directory, "print", "--customer", "acme", *arguments)
    assert (answer.returncode, json.loads(answer.stdout), answer.stderr) == (0, expected, "")
    answer = run(directory, "print", "--customer", "acme", *arguments, "--json")
    assert (answer.returncode, [json.loads(line) for line in answer.stdout.splitlines()]) == (0, [expected])


def test_a_kms_key_is_in_the_corrected_document_and_noted_for_the_guides(directory: Path) -> None:
    path = directory / "customers" / "globex.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("# kms_key_arn:", "kms_key_arn:"), encoding="utf-8"
    )
    guides = run(directory, "print", "--customer", "globex")
    assert (guides.returncode, json.loads(guides.stdout)) == (0, guide_permission_policy("globex-landing"))
    assert "denies the KMS key" in guides.stderr
    corrected = run(directory, "print", "--customer", "globex", "--corrected")
    last = json.loads(corrected.stdout)["Statement"][-1]
    assert last["Condition"] == {"StringEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}}


def test_an_unknown_customer_is_an_error(directory: Path) -> None:
    assert "customers: acme, globex" in run(directory, "print", "--customer", "acne").stderr
    answer = run(directory, "print", "--customer", "acme", "--step", "list")
    assert answer.returncode == 2
    assert "--step requires --kind session" in answer.stderr


# --- lint ----------------------------------------------------------------------------------------------


def test_the_guides_documents_of_a_customer_are_ok(directory: Path, tmp_path: Path) -> None:
    files = [
        saved(tmp_path, "trust.json", guide_trust_policy("AcmeCorp")),
        saved(tmp_path, "permission.json", guide_permission_policy("acme-data")),
    ]
    answer = run(directory, "lint", *files, "--customer", "acme", "--json")
    assert answer.returncode == 0
    document = json.loads(answer.stdout)
    assert document["outcome"] == "ok"
    assert document["documents"] == [
        {"file": files[0], "kind": "trust"},
        {"file": files[1], "kind": "permission"},
    ]
    assert {item["severity"] for item in document["findings"]} <= {"info", "warning"}
    # Those of another customer are not.
    answer = run(directory, "lint", *files, "--customer", "globex", "--json")
    assert answer.returncode == 4
    causes = {item["cause"] for item in json.loads(answer.stdout)["findings"]}
    assert {"role_refused", "put_denied", "other_bucket"} <= causes


def test_a_mistake_is_reported_with_its_fix(directory: Path, tmp_path: Path) -> None:
    document = guide_permission_policy("acme-data")
    document["Statement"][0]["Action"][0] = "s3:PutObjects"
    answer = run(directory, "lint", saved(tmp_path, "p.json", document), "--customer", "acme")
    assert answer.returncode == 4
    assert "there is no action s3:PutObjects: the call needs s3:PutObject" in answer.stdout
    assert "error     put_denied" in answer.stdout
    assert "$ aws iam put-role-policy --role-name XMode" in answer.stdout
    assert answer.stdout.splitlines()[-1].startswith("fix: the customer must fix")


def test_stdin_and_options_without_a_configuration(tmp_path: Path) -> None:
    text = json.dumps(guide_trust_policy("AcmeCorp"))
    nowhere = tmp_path / "nowhere"
    right = run(nowhere, "lint", "-", "--external-id", "AcmeCorp", given=text)
    assert (right.returncode, right.stdout.splitlines()[-1]) == (0, "ok: nothing to fix")
    wrong = run(nowhere, "lint", "-", "--external-id", "AcmeInc", "--json", given=text)
    assert wrong.returncode == 4
    (finding,) = (item for item in json.loads(wrong.stdout)["findings"] if item["cause"] == "role_refused")
    assert finding["responsible"] == "customer"
    assert finding["fix"]["statement"]["Condition"] == {"StringEquals": {"sts:ExternalId": "AcmeInc"}}


def test_the_kind_may_be_given(directory: Path, tmp_path: Path) -> None:
    file = saved(tmp_path, "permission.json", guide_trust_policy("AcmeCorp"))
    answer = run(directory, "lint", file, "--customer", "acme", "--kind", "permission", "--json")
    assert answer.returncode == 4
    assert "trust_policy_as_permission" in {item["cause"] for item in json.loads(answer.stdout)["findings"]}


@pytest.mark.parametrize(
    ("arguments", "given", "told"),
    [
        (["no-such-file.json"], b"", "no-such-file.json cannot be read: No such file or directory"),
        (["-"], b"\xff\xfe\x00", "is not UTF-8 text"),
        (["-", "--customer", "acme", "--bucket", "acme-data"], b"{}", "leave out --bucket"),
        (["-", "--account", "1111"], b"{}", "--account: '1111' is not an AWS account ID"),
        (["-", "--prefix", "xmode"], b"{}", "did you mean xmode/?"),
        ([], b"", "Missing argument"),
    ],
)
def test_what_cannot_be_read_exits_with_2(
    directory: Path, arguments: list[str], given: bytes, told: str
) -> None:
    answer = run(directory, "lint", *arguments, given=given)
    assert answer.returncode == 2
    assert told in answer.stderr


def test_invalid_json_is_the_customers_to_fix(directory: Path) -> None:
    answer = run(directory, "lint", "-", "--json", given='{"sts:ExternalId": "{replace with "=,.@:/-_}"}')
    assert answer.returncode == 4
    document = json.loads(answer.stdout)
    assert (document["outcome"], document["documents"]) == ("fix", [])
    (finding,) = document["findings"]
    assert (finding["cause"], finding["file"]) == ("invalid_json", "-")
    assert finding["message"].startswith("line 1, column 36: the guide's placeholder text")
