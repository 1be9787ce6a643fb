"""Taking customers in beside others, and turning them on: what is written, what is refused, what stays."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.access.catalogue import finding
from xmode_transfer.access.kit import KitDirectory, customer_file
from xmode_transfer.access.onboard import Confirmation, CustomerFiles, Onboarded, confirm, onboard
from xmode_transfer.access.sign_up import SignUp, drafted
from xmode_transfer.aws.denials import facts_of
from xmode_transfer.config import Customer, CustomerState, files
from xmode_transfer.model.errors import ConfigError, Responsible
from xmode_transfer.model.findings import AccessReport, Cause, Finding, passed, unanswered

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


def test_a_sign_up_is_written_and_nothing_else_is_touched(directory: Path) -> None:
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
        ({"company": "Acme"}, "--name: customer acme already exists"),
        ({"name": "torn"}, "--name: customer torn already exists"),
        ({"name": "wrong"}, "--name: customer wrong already exists"),
        ({"feeds": ("us-dialy",)}, "did you mean us-daily?"),
        ({"feeds": ()}, "--feed: select at least one feed"),
        ({"account": "366810793500"}, "is our own"),
        ({"feeds": ("no-such",), "bucket": "A"}, "there is no valid feed no-such"),
    ],
)
def test_a_sign_up_that_cannot_be_is_refused_and_nothing_is_written(
    directory: Path, changes: dict[str, Any], told: str
) -> None:
    before = contents(directory.parent)
    with pytest.raises(ConfigError) as refused:
        take_in(directory, replace(HOOLI, **changes))
    assert any(told in problem for problem in refused.value.problems), refused.value.problems
    assert contents(directory.parent) == before


def test_several_mistakes_are_told_at_once_also_for_a_name_that_is_taken(directory: Path) -> None:
    sign_up = SignUp("Acme Corp", "111122223333", "acme-data", ("us-dialy",), external_id="company")
    with pytest.raises(ConfigError) as refused:
        take_in(directory, sign_up)
    options = [problem.partition(":")[0] for problem in refused.value.problems]
    assert options == ["--name", "--feed", "--external-id", "--account, --role-name", "--bucket, --prefix"]


def test_what_is_right_but_deserves_a_word_is_noted(directory: Path) -> None:
    done = take_in(
        directory,
        replace(HOOLI, account="012345678901", role_name="Other", prefix="", external_id="company"),
    )
    guessable, whole, shared = done.notes
    assert "others can guess it" in guessable
    assert "the whole bucket" in whole
    assert "has roles for globex too" in shared


def test_a_configuration_that_changed_meanwhile_leaves_nothing_behind(directory: Path) -> None:
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


def test_a_file_that_is_there_is_never_replaced(directory: Path) -> None:
    customer, _ = drafted(replace(HOOLI, name="globex"), partition="aws", token=lambda: "x" * 32)
    assert customer is not None
    before = contents(directory)
    with pytest.raises(ConfigError, match="already"):
        CustomerFiles(directory).add(customer)
    assert contents(directory) == before


def test_a_kit_does_not_go_where_something_lies(directory: Path, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("x", encoding="utf-8")
    globex = files.load(directory).customers["globex"]
    with pytest.raises(ConfigError, match="not empty"):
        KitDirectory(taken).write(globex, "arn:aws:iam::366810793500:user/xmode-data-transfer")
    with pytest.raises(ConfigError, match="cannot be written"):
        KitDirectory(taken / "below").write(globex, "arn:aws:iam::366810793500:user/xmode-data-transfer")
    assert taken.read_text(encoding="utf-8") == "x"


# --- Turning on ----------------------------------------------------------------------------------------

Judge = Callable[[Customer], AccessReport]


def answering(*causes: Cause, interrupted: bool = False) -> Judge:
    """A check that finds these."""

    def check(customer: Customer) -> AccessReport:
        facts = facts_of(customer, "arn:aws:iam::366810793500:user/xmode-data-transfer")
        findings: list[Finding] = [passed("identity", "we are we"), passed("assume_role", "in")]
        findings += [finding(cause, str(cause), facts) for cause in causes]
        return AccessReport(customer.name, NOW, tuple(findings), interrupted=interrupted)

    return check


def turn_on(directory: Path, check: Judge, name: str = "hooli", override: str | None = None) -> Confirmation:
    configuration = files.load(directory)
    return confirm(check, configuration, CustomerFiles(directory), name, override=override)


@pytest.fixture
def pending(directory: Path) -> Path:
    take_in(directory, HOOLI)
    return directory / "customers" / "hooli.yaml"


@pytest.mark.parametrize(
    "causes",
    [(), (Cause.MULTIPART_DENIED, Cause.ABORT_DENIED, Cause.TOO_BROAD, Cause.PUT_WITHOUT_ACL_ALLOWED)],
)
def test_warnings_do_not_keep_a_customer_off(
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
def test_a_finding_that_somebody_must_mend_keeps_it_off(directory: Path, pending: Path, cause: Cause) -> None:
    before = pending.read_bytes()
    answer = turn_on(directory, answering(cause))
    assert answer.exit_code in (3, 4)
    assert [item.cause for item in answer.against] == [cause]
    assert pending.read_bytes() == before


def test_a_check_without_answers_or_that_was_stopped_keeps_it_off(directory: Path, pending: Path) -> None:
    def silent(customer: Customer) -> AccessReport:
        lost = unanswered("list", "no answer", Responsible.AWS)
        return AccessReport(customer.name, NOW, (passed("identity", "we"), lost))

    before = pending.read_bytes()
    assert turn_on(directory, silent).exit_code == 3
    stopped = answering(interrupted=True)
    assert turn_on(directory, stopped).exit_code == 130
    assert turn_on(directory, stopped, override="in a hurry").exit_code == 130
    assert pending.read_bytes() == before


def test_an_override_turns_it_on_and_needs_a_reason(directory: Path, pending: Path) -> None:
    open_to_all = answering(Cause.EXTERNAL_ID_NOT_REQUIRED)
    with pytest.raises(ConfigError, match="requires a reason"):
        turn_on(directory, open_to_all, override="  ")
    answer = turn_on(directory, open_to_all, override="they mend it on Monday")
    assert (answer.exit_code, answer.overridden, answer.state) == (0, True, CustomerState.ACTIVE)
    assert "state: active" in pending.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["nobody", "wrong", "torn", "acme"])
def test_who_is_not_in_order_is_not_turned_on(directory: Path, name: str) -> None:
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
def test_only_the_word_changes(directory: Path, pending: Path, written: str, expected: str) -> None:
    text = "\ufeff# state: pending is not this\n" + pending.read_text(encoding="utf-8")
    text = text.replace("\nstate: pending\n", f"\n{written}\n")
    pending.write_bytes(text.encode())
    pending.chmod(0o640)
    assert turn_on(directory, answering()).exit_code == 0
    assert pending.read_bytes() == text.replace(f"\n{written}\n", f"\n{expected}\n").encode()
    assert pending.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in pending.parent.iterdir() if path.name.startswith(".")] == []


def test_a_state_written_in_an_unusual_way_is_left_to_people(directory: Path, pending: Path) -> None:
    text = pending.read_text(encoding="utf-8").replace("state: pending", "state: >-\n  pending")
    pending.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="not changed by itself") as refused:
        turn_on(directory, answering())
    assert "state: active" in refused.value.hint
    assert pending.read_text(encoding="utf-8") == text
