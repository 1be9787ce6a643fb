"""Taking customers in beside others, and turning them on: what is written, what is refused, what stays."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.access.kit import CustomerFiles, KitDirectory, customer_file
from xmode_transfer.access.onboard import (
    FROM_COMPANY,
    Confirmation,
    Onboarded,
    SignUp,
    confirm,
    drafted,
    guide_external_id,
    must_prove,
    onboard,
    slug_of,
)
from xmode_transfer.aws.policy.documents import setup_values
from xmode_transfer.config import Customer, CustomerState, files
from xmode_transfer.model.errors import ConfigError, OwnershipUnproven, Responsible
from xmode_transfer.model.findings import AccessReport, Finding, Proof, passed, unanswered

EXAMPLE = Path(__file__).parents[3] / "config"
HOOLI = SignUp("Hooli Inc", "555566667777", "hooli-data", ("us-daily",))
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The example, with acme retired, a customer whose file is wrong, and one whose file is illegible."""
    copied = Path(shutil.copytree(EXAMPLE, tmp_path / "config"))
    customers = copied / "customers"
    acme = customers / "acme.yaml"
    acme.write_text(acme.read_text(encoding="utf-8") + "state: retired\n", encoding="utf-8")
    (customers / "wrong.yaml").write_text("external_id: WrongInc\nno_such_key: 1\n", encoding="utf-8")
    (customers / "torn.yaml").write_text('external_id: "TornCo\n', encoding="utf-8")
    return copied


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def take_in(directory: Path, sign_up: SignUp) -> Onboarded:
    return onboard(
        sign_up,
        files.load(directory),
        CustomerFiles(directory),
        KitDirectory(directory.parent / "kits" / "new"),
        lambda: "5f2d" * 8,
    )


# --- Taking in -----------------------------------------------------------------------------------------


def test_onboarding_writes_one_file_and_the_kit(directory: Path) -> None:
    before = contents(directory)
    done = take_in(directory, HOOLI)
    after = contents(directory)
    assert {name for name in after if name not in before} == {"customers/hooli.yaml"}
    assert {name: after[name] for name in before} == before
    assert files.load(directory).customers["hooli"] == done.customer
    assert done.customer.external_id == "hooli-" + "5f2d" * 8
    kit = directory.parent / "kits" / "new"
    assert {path.name for path in kit.iterdir()} == set(done.kit_files)
    assert done.notes == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"external_id": "ACMECORP"}, "--external-id: this sign-up and customers/acme.yaml (retired) claim"),
        ({"external_id": "wronginc"}, "--external-id: this sign-up and customers/wrong.yaml claim"),
        ({"external_id": "tornco"}, "tornco is in customers/torn.yaml, which cannot be read"),
        ({"account": "111122223333"}, "--role-name: this sign-up and customers/acme.yaml (retired) claim"),
        (
            {"bucket": "acme-data", "prefix": "xmode/deep/"},
            "--bucket, --prefix: this sign-up and customers/acme.yaml (retired) claim",
        ),
        ({"bucket": "globex-landing", "prefix": ""}, "customers/globex.yaml claim the same location"),
        (
            {"bucket": "acme-data", "prefix": "elsewhere/"},
            "in account 111122223333, not in account 555566667777: one bucket has one owner",
        ),
        ({"company": "Acme"}, "--name: customer acme already exists"),
        ({"name": "torn"}, "--name: customer torn already exists"),
        ({"name": "wrong"}, "--name: customer wrong already exists"),
        ({"feeds": ("us-dialy",)}, "did you mean us-daily?"),
        ({"feeds": ()}, "--feed: select at least one feed"),
        ({"account": "366810793500"}, "is our own"),
        ({"feeds": ("no-such",), "bucket": "A"}, "there is no valid feed no-such"),
    ],
)
def test_an_invalid_sign_up_is_refused_and_nothing_is_written(
    directory: Path, changes: dict[str, Any], told: str
) -> None:
    before = contents(directory.parent)
    with pytest.raises(ConfigError) as refused:
        take_in(directory, replace(HOOLI, **changes))
    assert any(told in problem for problem in refused.value.problems), refused.value.problems
    assert contents(directory.parent) == before


def test_all_mistakes_are_reported_even_for_a_taken_name(directory: Path) -> None:
    sign_up = SignUp("Acme Corp", "111122223333", "acme-data", ("us-dialy",), external_id="company")
    with pytest.raises(ConfigError) as refused:
        take_in(directory, sign_up)
    options = [problem.partition(":")[0] for problem in refused.value.problems]
    assert options == ["--name", "--feed", "--external-id", "--account, --role-name", "--bucket, --prefix"]


def test_notes_for_a_valid_sign_up(directory: Path) -> None:
    done = take_in(
        directory,
        replace(HOOLI, account="012345678901", role_name="Other", prefix="", external_id="company"),
    )
    guessable, whole, shared = done.notes
    assert "others can guess it" in guessable
    assert "the whole bucket" in whole
    assert "has roles for globex too" in shared


def test_a_concurrent_change_leaves_nothing_behind(directory: Path) -> None:
    class Meanwhile(CustomerFiles):
        def add(self, customer: Customer) -> str:
            rival = customer_file(customer).replace("state: pending", "state: active")
            (directory / "customers" / "rival.yaml").write_text(rival, encoding="utf-8")
            return super().add(customer)

    configuration = files.load(directory)
    place = KitDirectory(directory.parent / "kit")
    with pytest.raises(ConfigError, match="does not fit") as refused:
        onboard(HOOLI, configuration, Meanwhile(directory), place, lambda: "5f2d" * 8)
    assert any("rival.yaml" in problem for problem in refused.value.problems)
    assert not (directory / "customers" / "hooli.yaml").exists()
    assert not (directory.parent / "kit").exists()


def test_an_existing_file_is_never_replaced(directory: Path) -> None:
    customer, _ = drafted(replace(HOOLI, name="globex"), partition="aws", token=lambda: "x" * 32)
    assert customer is not None
    before = contents(directory)
    with pytest.raises(ConfigError, match="already"):
        CustomerFiles(directory).add(customer)
    assert contents(directory) == before


def test_a_kit_is_not_written_to_a_directory_in_use(directory: Path, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("x", encoding="utf-8")
    globex = files.load(directory).customers["globex"]
    with pytest.raises(ConfigError, match="not empty"):
        KitDirectory(taken).write(globex, "arn:aws:iam::366810793500:user/xmode-data-transfer", {})
    with pytest.raises(ConfigError, match="cannot be written"):
        KitDirectory(taken / "below").write(globex, "arn:aws:iam::366810793500:user/xmode-data-transfer", {})
    assert taken.read_text(encoding="utf-8") == "x"


# --- Turning on ----------------------------------------------------------------------------------------

Judge = Callable[[Customer], AccessReport]


def answering(*causes: Cause, interrupted: bool = False) -> Judge:
    """A check that finds these."""

    def check(customer: Customer) -> AccessReport:
        facts = setup_values(customer, "arn:aws:iam::366810793500:user/xmode-data-transfer")
        findings: list[Finding] = [passed("identity", "we are we"), passed("assume_role", "in")]
        findings += [finding(cause, str(cause), facts) for cause in causes]
        return AccessReport(customer.name, NOW, tuple(findings), interrupted=interrupted)

    return check


def turn_on(
    directory: Path,
    check: Judge,
    name: str = "hooli",
    override: str | None = None,
    proof: Proof = Proof.NONE,
) -> Confirmation:
    configuration, registry = files.load(directory), CustomerFiles(directory)
    return confirm(check, configuration, registry, name, prove=lambda _: proof, override=override)


@pytest.fixture
def pending(directory: Path) -> Path:
    take_in(directory, HOOLI)
    return directory / "customers" / "hooli.yaml"


@pytest.mark.parametrize(
    "causes",
    [(), (Cause.MULTIPART_DENIED, Cause.ABORT_DENIED, Cause.TOO_BROAD, Cause.PUT_WITHOUT_ACL_ALLOWED)],
)
def test_warnings_do_not_prevent_activation(
    directory: Path, pending: Path, causes: tuple[Cause, ...]
) -> None:
    before = pending.read_text(encoding="utf-8")
    answer = turn_on(directory, answering(*causes))
    assert (answer.exit_code, answer.overridden) == (0, False)
    assert pending.read_text(encoding="utf-8") == before.replace("state: pending", "state: active")
    assert turn_on(directory, answering()).exit_code == 0  # once more changes nothing


@pytest.mark.parametrize(
    "cause",
    [cause for cause in Cause if cause.startswith(("external_id", "role", "put_denied", "bucket", "kms"))],
)
def test_a_finding_to_fix_prevents_activation(directory: Path, pending: Path, cause: Cause) -> None:
    before = pending.read_bytes()
    answer = turn_on(directory, answering(cause))
    assert answer.exit_code in (3, 4)
    assert [item.cause for item in answer.against] == [cause]
    assert pending.read_bytes() == before


def test_an_incomplete_check_prevents_activation(directory: Path, pending: Path) -> None:
    def silent(customer: Customer) -> AccessReport:
        lost = unanswered("list", "no answer", Responsible.AWS)
        return AccessReport(customer.name, NOW, (passed("identity", "we"), lost))

    before = pending.read_bytes()
    assert turn_on(directory, silent).exit_code == 3
    stopped = answering(interrupted=True)
    assert turn_on(directory, stopped).exit_code == 130
    assert turn_on(directory, stopped, override="in a hurry").exit_code == 130
    assert pending.read_bytes() == before


def test_an_override_activates_and_needs_a_reason(directory: Path, pending: Path) -> None:
    open_to_all = answering(Cause.EXTERNAL_ID_NOT_REQUIRED)
    with pytest.raises(ConfigError, match="requires a reason"):
        turn_on(directory, open_to_all, override="  ")
    answer = turn_on(directory, open_to_all, override="they mend it on Monday")
    assert (answer.exit_code, answer.overridden, answer.state) == (0, True, CustomerState.ACTIVE)
    assert "state: active" in pending.read_text(encoding="utf-8")


# --- Ownership -----------------------------------------------------------------------------------------


@pytest.fixture
def guessable(directory: Path) -> Path:
    take_in(directory, replace(HOOLI, external_id=FROM_COMPANY))
    return directory / "customers" / "hooli.yaml"


def unasked(_: Customer) -> AccessReport:
    raise AssertionError("nothing is asked of a role before the proof")


@pytest.mark.parametrize("proof", sorted(set(Proof) - {Proof.PROVEN}))
def test_a_guessable_external_id_is_not_activated_without_a_proof(
    directory: Path, guessable: Path, proof: Proof
) -> None:
    before = guessable.read_bytes()
    with pytest.raises(OwnershipUnproven) as refused:
        turn_on(directory, unasked, proof=proof)
    assert (refused.value.responsible, refused.value.exit_code) == (Responsible.CUSTOMER, 4)
    step = "--confirm hooli --token -" if proof is Proof.OPEN else "--challenge hooli"
    assert f"`xmode-transfer onboard {step}`" in refused.value.hint
    assert guessable.read_bytes() == before
    assert turn_on(directory, answering(), proof=Proof.PROVEN).exit_code == 0


def test_an_override_activates_without_a_proof_and_says_so(directory: Path, guessable: Path) -> None:
    answer = turn_on(directory, answering(), override="known since 2009, ticket 4711")
    assert (answer.exit_code, answer.overridden, answer.proof) == (0, True, Proof.NONE)
    assert "state: active" in guessable.read_text(encoding="utf-8")
    # An active customer is not asked any more.
    again = turn_on(directory, answering())
    assert (again.exit_code, again.overridden) == (0, False)


@pytest.mark.parametrize(
    ("mode", "external_id", "needed"),
    [
        ("required", "hooli-5f2d", True),
        ("required", "HooliInc", True),
        ("company_ids", "hooli-5f2d", False),
        ("company_ids", "HooliInc", True),
        ("company_ids", "hooliinc", True),
        ("off", "HooliInc", False),
        ("off", "hooli-5f2d", False),
    ],
)
def test_who_has_to_prove_it(directory: Path, mode: str, external_id: str, needed: bool) -> None:
    service = directory / "service.yaml"
    text = re.sub("ownership: .*", f"ownership: {mode}", service.read_text(encoding="utf-8"))
    service.write_text(text, encoding="utf-8")
    take_in(directory, replace(HOOLI, external_id=external_id))
    configuration = files.load(directory)
    assert configuration.service.onboarding.ownership == mode
    assert must_prove(configuration, configuration.customers["hooli"]) is needed
    globex = configuration.customers["globex"]
    assert (globex.state, must_prove(configuration, globex)) == (CustomerState.ACTIVE, False)


@pytest.mark.parametrize("name", ["nobody", "wrong", "torn", "acme"])
def test_a_retired_or_broken_customer_is_not_activated(directory: Path, name: str) -> None:
    before = contents(directory)
    with pytest.raises(ConfigError):
        turn_on(directory, answering(), name)
    assert contents(directory) == before


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("state: pending", "state: active"),
        ("state:    'pending'  # since spring", "state:    'active'  # since spring"),
        ('"state": "pending"', '"state": "active"'),
        ("state: pending\r", "state: active\r"),
    ],
)
def test_activation_changes_the_state_only(
    directory: Path, pending: Path, written: str, expected: str
) -> None:
    text = "\ufeff# state: pending is not this\n" + pending.read_text(encoding="utf-8")
    text = text.replace("\nstate: pending\n", f"\n{written}\n")
    pending.write_bytes(text.encode())
    pending.chmod(0o640)
    assert turn_on(directory, answering()).exit_code == 0
    assert pending.read_bytes() == text.replace(f"\n{written}\n", f"\n{expected}\n").encode()
    assert pending.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in pending.parent.iterdir() if path.name.startswith(".")] == []


def test_a_state_written_in_an_unusual_way_is_not_changed(directory: Path, pending: Path) -> None:
    text = pending.read_text(encoding="utf-8").replace("state: pending", "state: >-\n  pending")
    pending.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="not changed by itself") as refused:
        turn_on(directory, answering())
    assert "state: active" in refused.value.hint
    assert pending.read_text(encoding="utf-8") == text


SIGN_UP = SignUp("Acme Corp", "111122223333", "acme-data", ("us-daily",))
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
TOKEN = "0123456789abcdef0123456789abcdef"


def made(**changes: Any) -> Customer:
    customer, mistakes = drafted(replace(SIGN_UP, **changes), partition="aws", token=lambda: TOKEN)
    assert mistakes == []
    assert customer is not None
    return customer


def mistakes_of(partition: str = "aws", **changes: Any) -> list[str]:
    customer, mistakes = drafted(replace(SIGN_UP, **changes), partition=partition, token=lambda: TOKEN)
    assert customer is None
    return list(map(str, mistakes))


# --- The sign-up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("company", "slug"),
    [
        ("Acme Corp", "acme"),
        ("Acme, Inc.", "acme"),
        ("Globex GmbH & Co. KG", "globex"),
        ("Société Générale S.A.", "societe-generale"),
        ("Müßig & Söhne AG", "mussig-sohne"),
        ("L'Oréal", "loreal"),
        ("3M", "3m"),
        ("AG", "ag"),
        ("Corp Inc", "corp"),
        ("  spaced   out  ", "spaced-out"),
        ("x" * 80, "x" * 40),
        ("日本株式会社", ""),
        ("---", ""),
        ("", ""),
    ],
)
def test_the_short_name_comes_from_the_company_name(company: str, slug: str) -> None:
    assert slug_of(company) == slug


def test_the_guides_external_id() -> None:
    assert guide_external_id("Acme Corp") == "AcmeCorp"
    assert guide_external_id("A+B {x} =,.@:/-_ é!") == "ABx=,.@:/-_"


def test_a_sign_up_becomes_a_pending_customer() -> None:
    customer = made()
    assert customer.name == "acme"
    assert customer.state is CustomerState.PENDING
    assert customer.external_id == f"acme-{TOKEN}"
    assert customer.role_arn == "arn:aws:iam::111122223333:role/XMode"
    assert (customer.destination.bucket, customer.destination.prefix) == ("acme-data", "xmode/")
    assert made(external_id=FROM_COMPANY).external_id == "AcmeCorp"
    assert made(external_id="Their-Own:1").external_id == "Their-Own:1"
    assert made(name="acme-eu").name == "acme-eu"


def test_the_region_follows_from_the_key() -> None:
    assert made(kms_key_arn=KEY).destination.region == "eu-central-1"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"company": "  "}, "--company: write the company's name"),
        ({"company": "a\nb"}, "--company: write the company's name on one line"),
        ({"company": "x" * 300}, "--company: String should have at most 256 characters"),
        ({"company": "日本"}, "--name: the company name gives no short name"),
        ({"name": "Acme"}, "--name: 'Acme' cannot be a name"),
        ({"account": "11112222333"}, "did you mean 011112222333?"),
        ({"account": "1111-2222-3333"}, "did you mean 111122223333?"),
        ({"account": ""}, "--account: '' is not an AWS account ID"),
        ({"bucket": "Acme-Data"}, "did you mean acme-data?"),
        ({"bucket": "s3://acme-data/in"}, "did you mean bucket: acme-data"),
        ({"bucket": ""}, "--bucket: a bucket's name has 3 to 63 characters"),
        ({"prefix": "xmode"}, "did you mean xmode/?"),
        ({"prefix": "../x/"}, "--prefix: empty, '.' and '..' folders"),
        ({"region": "us-east-1a"}, "did you mean the region us-east-1?"),
        ({"region": "cn-north-1"}, "--region: region cn-north-1 is not in aws"),
        ({"role_name": "path/XMode"}, "--role-name: 'path/XMode' is not a valid role name"),
        ({"kms_key_arn": "1234abcd"}, "--kms-key: '1234abcd' is not the ARN of a KMS key"),
        ({"kms_key_arn": KEY, "region": "us-east-1"}, "only keys of the bucket's own region"),
        ({"feeds": ()}, "--feed: select at least one feed"),
        ({"feeds": ("us-daily", "us-daily")}, "--feed: us-daily is listed twice"),
        ({"external_id": "Acme Corp"}, "did you mean AcmeCorp?"),
        ({"external_id": "x"}, "--external-id: AWS takes external IDs of 2 to 1,224 characters"),
        ({"external_id": "a+b"}, "--external-id: '+' is not allowed"),
        (
            {"company": "é é", "name": "e", "external_id": FROM_COMPANY},
            "--external-id: the company's name has fewer",
        ),
    ],
)
def test_a_mistake_names_its_option(changes: dict[str, Any], told: str) -> None:
    (mistake,) = mistakes_of(**changes)
    assert told in mistake


def test_all_mistakes_are_reported_at_once() -> None:
    told = mistakes_of(company="", account="1", bucket="A", feeds=())
    assert [line.partition(":")[0] for line in told] == ["--company", "--account", "--bucket", "--feed"]
