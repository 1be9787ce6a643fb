"""`xmode-transfer onboard`: from a sign-up to a customer that is delivered to, in the local AWS."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jmespath
import pytest
import yaml
from botocore.exceptions import ClientError

from tests import commands
from xmode_transfer.aws.policy.documents import guide_trust_policy
from xmode_transfer.sandbox.accounts import list_keys, owner, read_object
from xmode_transfer.sandbox.model import CustomerSetup, Variant

pytestmark = pytest.mark.sandbox

Make = Callable[..., CustomerSetup]
Project = Any
"""conftest's, which tests cannot import."""

# The AWS CLI, as far as setup.sh uses it: the test's process makes the call, with the customer's own keys.
AWS = """\
import json, os, socket, sys

with socket.create_connection(("127.0.0.1", int(os.environ["CALLS"]))) as asked, asked.makefile("rw") as told:
    told.write(json.dumps(sys.argv[1:]) + chr(10))
    told.flush()
    code, out, err = json.loads(told.readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class StandIn:
    """Makes the calls of the stand-in for the AWS CLI, one at a time."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.customer: CustomerSetup | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                asked, _ = self._listener.accept()
            except OSError:
                return
            with asked, asked.makefile("rw") as told:
                told.write(json.dumps(self._call(*json.loads(told.readline()))) + "\n")

    def _call(self, service: str, command: str, *words: str) -> tuple[int, str, str]:
        options = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
        query, output = options.pop("query", None), options.pop("output", None)
        asked: dict[str, Any] = {}
        for name, value in options.items():
            parameter = "".join(part.capitalize() for part in name.split("-"))
            asked[parameter] = json.loads(value) if name == "lifecycle-configuration" else value
        self.calls.append(f"{service} {command}")
        assert self.customer is not None
        client = owner(self.customer, {"s3api": "s3"}.get(service, service))
        try:
            answer = getattr(client, command.replace("-", "_"))(**asked)
        except ClientError as error:
            return 254, "", f"{error}\n"
        answer.pop("ResponseMetadata", None)
        found = jmespath.search(query, answer) if query else answer
        if output == "text":
            text = "\t".join(map(str, found)) if isinstance(found, list) else str(found)
        else:
            text = json.dumps(found, default=str)
        return 0, f"{text}\n", ""

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def newcomer(customer_factory: Make) -> CustomerSetup:
    """An account with a bucket, and no role yet."""
    return customer_factory("newco", Variant.NO_ROLE, prefix="in/xmode/")


@pytest.fixture
def shop(project: Callable[..., Project]) -> Project:
    """A configuration without customers."""
    return project()


@pytest.fixture
def aws() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def run_script(tmp_path: Path, aws: StandIn) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a kit's setup.sh as that customer, with a stand-in for the AWS CLI."""
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -IS\n{AWS}", encoding="utf-8")
    program.chmod(0o755)

    def run(customer: CustomerSetup, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        aws.customer = customer
        environment = {
            **os.environ,
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(aws.port),
            "AWS_DEFAULT_REGION": customer.region,
        }
        return subprocess.run(
            ["bash", str(script), *arguments], env=environment, capture_output=True, text=True, timeout=300
        )

    return run


def sign_up(shop: Project, customer: CustomerSetup, kit: Path, *more: str) -> Any:
    return shop.run(
        "onboard",
        "--company",
        "New & Co. GmbH",
        "--account",
        customer.account,
        "--bucket",
        customer.bucket,
        "--prefix",
        customer.prefix,
        "--region",
        customer.region,
        "--feed",
        "us-daily",
        "--out",
        str(kit),
        "--json",
        *more,
    )


def state_of(shop: Project, name: str = "new") -> str:
    document = yaml.safe_load((shop.directory / "customers" / f"{name}.yaml").read_text(encoding="utf-8"))
    return str(document["state"])


# --- The whole way -------------------------------------------------------------------------------------


def test_from_sign_up_to_delivery_by_the_kits_script(
    shop: Project, newcomer: CustomerSetup, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    kit = tmp_path / "kits" / "new"
    answer = sign_up(shop, newcomer, kit)
    assert answer.code == 0, answer.err
    document = answer.json
    assert (document["customer"], document["outcome"], document["kit"]) == ("new", "pending", str(kit))
    assert document["external_id"].startswith("new-")
    assert sorted(document["kit_files"]) == sorted(path.name for path in kit.iterdir())
    assert os.access(kit / "setup.sh", os.X_OK)
    assert state_of(shop) == "pending"

    # Before the customer has done anything, nothing is delivered and nothing is turned on.
    assert shop.deliver("new").code == 2
    early = shop.run("onboard", "--confirm", "new", "--json")
    assert (early.code, early.json["outcome"], early.json["causes"]) == (4, "refused", ["role_refused"])
    assert state_of(shop) == "pending"

    for words in ("Created the role XMode.", "The role XMode exists; its trust policy is up to date."):
        done = run_script(newcomer, kit / "setup.sh")
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
        assert "you cannot see the bucket" not in done.stdout

    before = (shop.directory / "customers" / "new.yaml").read_text(encoding="utf-8")
    answer = shop.run("onboard", "--confirm", "new", "--json")
    assert answer.code == 0, answer.out
    assert (answer.json["outcome"], answer.json["overridden"]) == ("active", False)
    graver = {item["cause"] for item in answer.json["findings"] if item["severity"] != "info"}
    assert graver == set()
    after = (shop.directory / "customers" / "new.yaml").read_text(encoding="utf-8")
    assert after == before.replace("state: pending", "state: active")
    assert [event["event"] for event in answer.events if event["event"].startswith("customer.")] == [
        "customer.confirmed"
    ]

    shop.write("2026/11/22/a.csv", b"x,y\n1,2\n")
    shop.write("2026/11/22/_SUCCESS", b"")
    delivered = shop.run("run", "--customer", "new", "--period", "2026-11-22", "--json")
    assert (delivered.code, delivered.json["outcome"]) == (0, "delivered")


def test_the_resources_of_the_template_pass_the_check(
    shop: Project, newcomer: CustomerSetup, tmp_path: Path
) -> None:
    kit = tmp_path / "kit"
    assert sign_up(shop, newcomer, kit, "--external-id", "company").json["external_id"] == "NewCo.GmbH"
    template = yaml.safe_load((kit / "template.yaml").read_text(encoding="utf-8"))
    # What has a condition is off by default.
    (role,) = [it for it in template["Resources"].values() if "Condition" not in it]
    assert role["Type"] == "AWS::IAM::Role"
    properties = role["Properties"]
    iam = owner(newcomer, "iam")
    iam.create_role(
        RoleName=properties["RoleName"],
        Description=properties["Description"],
        AssumeRolePolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"]),
    )
    for policy in properties["Policies"]:
        iam.put_role_policy(
            RoleName=properties["RoleName"],
            PolicyName=policy["PolicyName"],
            PolicyDocument=json.dumps(policy["PolicyDocument"]),
        )
    answer = shop.run("check-access", "--customer", "new", "--json")
    assert answer.code == 0, answer.out
    (checked,) = answer.json["customers"]
    assert (checked["outcome"], checked["orphaned"]) == ("ok", [])
    assert shop.run("onboard", "--confirm", "new").code == 4  # its external ID can be guessed
    key = shop.run("onboard", "--challenge", "new", "--json").json["key"]
    token = read_object(newcomer, key).decode()
    assert shop.run("onboard", "--confirm", "new", "--token", token).code == 0
    assert state_of(shop) == "active"
    assert list_keys(newcomer) == []


def test_a_kit_for_a_bucket_with_a_kms_key_works(
    shop: Project, newcomer: CustomerSetup, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    key = owner(newcomer, "kms").create_key(Description="at rest")["KeyMetadata"]["Arn"]
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    owner(newcomer, "s3").put_bucket_encryption(
        Bucket=newcomer.bucket, ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    kit = tmp_path / "kit"
    assert sign_up(shop, newcomer, kit, "--kms-key", key).code == 0
    statement = json.loads((kit / "key-policy-statement.json").read_text(encoding="utf-8"))
    assert statement["Principal"] == {"AWS": newcomer.role_arn}
    assert run_script(newcomer, kit / "setup.sh").returncode == 0
    answer = shop.run("onboard", "--confirm", "new", "--json")
    assert (answer.code, answer.json["outcome"]) == (0, "active")


# --- Ownership of the bucket ---------------------------------------------------------------------------


def sign_up_as(shop: Project, company: str, account: str, bucket: str, kit: Path, *more: str) -> Any:
    """A sign-up by the setup guide, whose external IDs can be guessed."""
    given = ["--company", company, "--account", account, "--bucket", bucket, "--external-id", "company"]
    return shop.run("onboard", *given, "--feed", "us-daily", "--out", str(kit), "--json", *more)


def confirm_from_stdin(shop: Project, name: str, token: bytes) -> tuple[int, Any, str]:
    arguments = ["onboard", "--confirm", name, "--token", "-", "--by", "bob", "--json"]
    process = commands.Started(
        [commands.COMMAND, "--config", str(shop.directory), *arguments],
        env={**os.environ, **shop.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(token, timeout=300)
    return process.returncode, json.loads(out), err.decode()


def test_the_owner_returns_the_token_from_its_bucket(
    shop: Project, acme: CustomerSetup, tmp_path: Path
) -> None:
    answer = sign_up_as(shop, acme.company, acme.account, acme.bucket, tmp_path / "kit")
    assert (answer.code, answer.json["must_prove_ownership"]) == (0, True)
    assert list_keys(acme) == []  # a sign-up puts nothing
    answer = shop.run("onboard", "--confirm", "acme", "--json")
    assert (answer.code, answer.json["error"]["cause"]) == (4, "ownership_unproven")
    assert "`xmode-transfer onboard --challenge acme`" in answer.json["error"]["hint"]
    assert list_keys(acme) == []

    answer = shop.run("onboard", "--challenge", "acme", "--by", "alice", "--json")
    assert answer.code == 0, answer.err
    challenged = answer.json
    assert (challenged["outcome"], challenged["by"]) == ("challenged", "alice")
    assert challenged["url"] == f"s3://{acme.bucket}/{challenged['key']}"
    assert list_keys(acme) == [challenged["key"]]
    token = read_object(acme, challenged["key"])
    assert token.strip().decode() not in answer.out + answer.err

    assert shop.run("check-access", "--customer", "acme").code == 0
    assert list_keys(acme) == [challenged["key"]]  # the check keeps it

    answer = shop.run("onboard", "--confirm", "acme", "--token", "xmode-a-guess", "--json")
    assert (answer.code, answer.json["error"]["responsible"]) == (4, "customer")
    assert "(2 tries left)" in answer.json["error"]["message"]
    assert "xmode-a-guess" not in answer.out + answer.err
    assert state_of(shop, "acme") == "pending"

    code, document, log = confirm_from_stdin(shop, "acme", token)
    assert (code, document["outcome"], document["proof"]) == (0, "active", "proven")
    assert '"by": "bob"' in log
    assert token.strip().decode() not in log
    assert state_of(shop, "acme") == "active"
    assert list_keys(acme) == []

    # A token for an active customer is not unmanaged.
    key = shop.run("onboard", "--challenge", "acme", "--json").json["key"]
    listed = shop.run("list", "--customer", "acme", "--json").json
    assert [(item["key"], item["standing"]) for item in listed["objects"]] == [(key, "notice")]
    assert shop.run("verify", "--customer", "acme", "--json").json["unmanaged"] == 0


def test_an_impostor_is_not_activated(
    shop: Project, acme: CustomerSetup, globex: CustomerSetup, tmp_path: Path
) -> None:
    # Acme has made its role by the guide. Somebody else knows that, and signs up first.
    assert sign_up_as(shop, acme.company, acme.account, acme.bucket, tmp_path / "one").code == 0
    assert shop.run("check-access", "--customer", "acme").code == 0  # which is no proof
    assert shop.run("onboard", "--confirm", "acme").code == 4
    key = shop.run("onboard", "--challenge", "acme", "--json").json["key"]
    with pytest.raises(ClientError, match="AccessDenied"):
        owner(globex, "s3").get_object(Bucket=acme.bucket, Key=key)
    token = read_object(acme, key).decode().strip()
    for guess in ("xmode-", acme.external_id, token[:-1]):
        assert shop.run("onboard", "--confirm", "acme", "--token", guess).code == 4
    late = shop.run("onboard", "--confirm", "acme", "--token", token)
    assert late.code == 4
    assert "3 wrong tokens were given" in late.err
    assert shop.run("onboard", "--confirm", "acme").code == 4
    assert state_of(shop, "acme") == "pending"
    assert list_keys(acme) == []

    # Nor under a name and an account of its own.
    answer = sign_up_as(shop, "Globex Corp", globex.account, acme.bucket, tmp_path / "two", "--prefix", "x/")
    assert answer.code == 2
    (problem,) = answer.json["error"]["problems"]
    assert f"in account {acme.account}, not in account {globex.account}: one bucket has one owner" in problem
    assert not (shop.directory / "customers" / "globex.yaml").exists()


# --- Turning on ----------------------------------------------------------------------------------------


def test_a_role_that_works_without_the_external_id_is_refused_and_an_override_is_logged(
    shop: Project, newcomer: CustomerSetup, tmp_path: Path
) -> None:
    kit = tmp_path / "kit"
    external_id = sign_up(shop, newcomer, kit).json["external_id"]
    trust = guide_trust_policy(external_id)
    del trust["Statement"]["Condition"]
    iam = owner(newcomer, "iam")
    iam.create_role(RoleName="XMode", AssumeRolePolicyDocument=json.dumps(trust))
    permission = (kit / "permission-policy.json").read_text(encoding="utf-8")
    iam.put_role_policy(RoleName="XMode", PolicyName="any", PolicyDocument=permission)

    answer = shop.run("onboard", "--confirm", "new")
    assert answer.code == 4
    assert "external_id_not_required" in answer.out
    assert "new remains pending, because of external_id_not_required" in answer.out
    assert state_of(shop) == "pending"

    for incomplete in (["--force"], ["--reason", "why"]):
        assert shop.run("onboard", "--confirm", "new", *incomplete).code == 2
    assert shop.run("onboard", "--confirm", "new", "--force", "--reason", " ").code == 2
    assert state_of(shop) == "pending"

    reason = "they mend it on Monday, see ticket 4711"
    answer = shop.run("onboard", "--confirm", "new", "--force", "--reason", reason, "--json")
    assert answer.code == 0
    assert (answer.json["state"], answer.json["overridden"]) == ("active", True)
    (event,) = (event for event in answer.events if event["event"] == "customer.confirmed_anyway")
    assert (event["reason"], event["level"]) == (reason, "warning")
    assert "external_id_not_required" in event["causes"]
    assert state_of(shop) == "active"


def test_a_wrong_identity_cannot_be_overridden(
    shop: Project, newcomer: CustomerSetup, tmp_path: Path
) -> None:
    sign_up(shop, newcomer, tmp_path / "kit")
    wrong = {"AWS_ACCESS_KEY_ID": newcomer.root.access_key_id}
    answer = shop.run("onboard", "--confirm", "new", "--force", "--reason", "hurry", "--json", **wrong)
    assert (answer.code, answer.json["outcome"]) == (3, "refused")
    assert state_of(shop) == "pending"


# --- The script ----------------------------------------------------------------------------------------


def test_the_script_refuses_another_account(
    shop: Project,
    newcomer: CustomerSetup,
    acme: CustomerSetup,
    tmp_path: Path,
    aws: StandIn,
    run_script: Callable[..., Any],
) -> None:
    script = tmp_path / "kit" / "setup.sh"
    sign_up(shop, newcomer, script.parent)
    done = run_script(acme, script)
    assert done.returncode == 1
    assert (
        f"You are signed in to account {acme.account}; this role belongs in {newcomer.account}."
        in done.stderr
    )
    assert aws.calls == ["sts get-caller-identity"]

    # A role of somebody else's making is not taken over unasked.
    iam = owner(newcomer, "iam")
    foreign = guide_trust_policy("SomebodyElse")
    iam.create_role(RoleName="XMode", AssumeRolePolicyDocument=json.dumps(foreign))
    done = run_script(newcomer, script)
    assert done.returncode == 1
    assert "The role XMode exists and is not from this kit" in done.stderr
    assert iam.get_role(RoleName="XMode")["Role"]["AssumeRolePolicyDocument"] == foreign
    assert run_script(newcomer, script, "--replace").returncode == 0
    assert iam.get_role(RoleName="XMode")["Role"]["AssumeRolePolicyDocument"] != foreign
    assert run_script(newcomer, script, "--nonsense").returncode == 1


def test_the_lifecycle_rule_keeps_existing_rules(
    shop: Project, newcomer: CustomerSetup, tmp_path: Path, run_script: Callable[..., Any]
) -> None:
    script = tmp_path / "kit" / "setup.sh"
    sign_up(shop, newcomer, script.parent)
    s3 = owner(newcomer, "s3")

    def rules() -> list[str]:
        return [rule["ID"] for rule in s3.get_bucket_lifecycle_configuration(Bucket=newcomer.bucket)["Rules"]]

    for words in (
        "now aborts unfinished uploads after 7 days",
        "already has the rule abort-incomplete-xmode-uploads",
    ):
        done = run_script(newcomer, script, "--lifecycle")
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
        assert rules() == ["abort-incomplete-xmode-uploads"]

    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 9}}
    s3.put_bucket_lifecycle_configuration(Bucket=newcomer.bucket, LifecycleConfiguration={"Rules": [theirs]})
    done = run_script(newcomer, script, "--lifecycle")
    assert done.returncode == 0
    assert "Changed nothing" in done.stdout
    assert '"AbortIncompleteMultipartUpload"' in done.stdout
    assert rules() == ["theirs"]


# --- Mistakes at the command line ----------------------------------------------------------------------


def test_nothing_is_overwritten(shop: Project, newcomer: CustomerSetup, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "README.md").write_text("mine", encoding="utf-8")
    answer = sign_up(shop, newcomer, kit)
    assert answer.code == 2
    assert "nothing in it is overwritten" in answer.json["error"]["message"]
    assert [path.name for path in kit.iterdir()] == ["README.md"]
    assert not (shop.directory / "customers" / "new.yaml").exists()
    (kit / "README.md").unlink()
    assert sign_up(shop, newcomer, kit).code == 0
    again = sign_up(shop, newcomer, tmp_path / "other")
    assert again.code == 2
    assert not (tmp_path / "other").exists()


def test_an_incomplete_sign_up_says_what_to_select(shop: Project, tmp_path: Path) -> None:
    answer = shop.run("onboard", "--company", "Hooli", "--out", str(tmp_path / "kit"))
    assert answer.code == 2
    assert "--feed: select at least one feed" in answer.err
    assert "--account: '' is not an AWS account ID" in answer.err
    assert not (tmp_path / "kit").exists()


def test_the_options_of_the_two_halves_do_not_mix(shop: Project) -> None:
    for arguments, told in (
        (["--confirm", "acme", "--company", "Acme"], "--confirm takes no --company"),
        (["--company", "Acme", "--force"], "require --confirm"),
        (["--company", "Acme", "--by", "alice"], "--by requires --challenge or --confirm"),
        (["--challenge", "acme", "--prefix", "x/"], "--challenge takes no --prefix"),
        (["--challenge", "acme", "--token", "x"], "require --confirm"),
        (["--challenge", "acme", "--confirm", "acme"], "choose one of --challenge and --confirm"),
        (["--confirm", "acme", "--token", "-"], "the token is empty"),
        (["--company", "Acme"], "--out is required"),
    ):
        answer = shop.run("onboard", *arguments)
        assert answer.code == 2
        assert told in answer.err
    answer = shop.run("onboard", "--company", "Acme", "--json")
    assert (answer.code, answer.json["error"]["cause"]) == (2, "config_invalid")
    assert "--out kits/acme" in answer.json["error"]["hint"]
    answer = shop.run("onboard", "--confirm", "nobody", "--json")
    assert (answer.code, answer.json["error"]["message"]) == (2, "there is no customer nobody")
