"""Signed receipts: written as a stream, checked anywhere, and refused when anything about them is wrong."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from shutil import which

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmode_transfer.config import Customer
from xmode_transfer.model.errors import ConfigError, ReceiptRefused
from xmode_transfer.model.records import Checksum, DeliveredKey, ObjectInfo
from xmode_transfer.model.upkeep import CheckedKey, DiscrepancyKind, Finding, Judgement, Proof, Scope
from xmode_transfer.transfer.signing import PublicKey, Signer, new_key, public_key_of, signer_of
from xmode_transfer.upkeep import receipts
from xmode_transfer.upkeep.receipts import ReceiptFile

AT = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
CUSTOMER = Customer(
    name="acme",
    company="Acme Corp",
    external_id="AcmeCorp",
    role_arn="arn:aws:iam::111122223333:role/XMode",
    destination={"bucket": "acme-data", "prefix": "xmode/"},
    feeds=["us-daily"],
)
HEAD = receipts.head(CUSTOMER, "arn:us", Scope("us-daily"), deep=False, acl_sample=None, checked_at=AT)


def entry(number: int, flaw: DiscrepancyKind | None = None) -> dict[str, object]:
    known = DeliveredKey(
        f"xmode/us-daily/é-{number:04}", 10, '"e"', "us-daily", "2026-11-22", 1, AT, (1,), "a",
        Checksum("crc32", "AAAAAA=="),
    )  # fmt: skip
    judgement = Judgement(flaw, "gone" if flaw else "", None if flaw else Proof.CHECKSUM)
    seen = None if flaw else ObjectInfo(known.key, 10, '"e"', known.checksum, None, None, AT)
    finding = Finding(flaw, known, "gone") if flaw else None
    return receipts.entry(CheckedKey(known, seen, judgement, True, AT), finding)


def write(path: Path, signer: Signer, count: int = 3) -> Path:
    with ReceiptFile(path, signer) as file:
        file.add(HEAD)
        for number in range(count):
            file.add(entry(number, DiscrepancyKind.MISSING if number == 1 else None))
        file.sign({"outcome": "differs", "proven": count - 1, "bytes": 20, "findings": {"missing": 1}})
    return path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "receipts.pem"
    new_key(path)
    return path


@pytest.fixture(scope="module")
def signer(key: Path) -> Signer:
    return signer_of(key.read_text(), "receipts.key")


@pytest.fixture(scope="module")
def public(key: Path) -> PublicKey:
    return public_key_of(key.with_name("receipts.pem.pub"))


@pytest.fixture(scope="module")
def receipt(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    return write(tmp_path_factory.mktemp("receipts") / "acme.receipt", signer)


def test_a_receipt_says_what_was_found_to_whoever_has_the_public_key(
    receipt: Path, public: PublicKey
) -> None:
    found = receipts.check(receipt, [public])
    assert (found.head["customer"], found.head["feed"], found.head["acl"]) == ("acme", "us-daily", "all")
    assert found.tail["outcome"] == "differs"
    assert (found.entries, found.key_id) == (3, public.key_id)
    (finding,) = found.findings
    assert (finding["key"], finding["verdict"]) == ("xmode/us-daily/é-0001", "missing")
    for line in receipt.read_bytes().splitlines(keepends=True):
        assert receipts.line(json.loads(line)) == line


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_cut_or_added_is_noticed(
    data: st.DataObject, receipt: Path, public: PublicKey, tmp_path: Path
) -> None:
    whole = receipt.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "drop", "add", "line", "twice"]))
    lines = whole.splitlines(keepends=True)
    number = data.draw(st.integers(0, len(lines) - 1))
    changed = {
        "flip": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        "cut": whole[:place],
        "drop": b"".join(lines[:number] + lines[number + 1 :]),
        "add": whole + b'{"more": 1}\n',
        "line": b"".join([*lines[:number], receipts.line(entry(9)), *lines[number:]]),
        "twice": whole + whole,
    }[how]
    spoilt = tmp_path / "spoilt.receipt"
    spoilt.write_bytes(changed)
    if how == "flip" and b'"public_key"' in lines[-1] and _only_decoration(whole, changed):
        return  # the public key inside is there to be looked at, and is not trusted
    with pytest.raises(ReceiptRefused):
        receipts.check(spoilt, [public])


def _only_decoration(whole: bytes, changed: bytes) -> bool:
    """Whether the two differ in nothing that is checked: the copy of the public key, the algorithm's name."""
    try:
        before, after = (json.loads(text.splitlines()[-1])["signature"] for text in (whole, changed))
    except (ValueError, KeyError, TypeError):
        return False
    checked = ("key_id", "sha256", "value")
    same = all(before[name] == after.get(name) for name in checked)
    return same and whole.splitlines()[:-1] == changed.splitlines()[:-1]


def test_a_receipt_of_another_key_is_refused_and_says_so(receipt: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "other.pem")
    other = public_key_of(tmp_path / "other.pem.pub")
    with pytest.raises(ReceiptRefused, match=f"not with {other.key_id}"):
        receipts.check(receipt, [other])


def test_a_forger_s_signature_under_our_key_s_name_is_refused(
    receipt: Path, public: PublicKey, tmp_path: Path
) -> None:
    new_key(tmp_path / "forger.pem")
    forger = signer_of((tmp_path / "forger.pem").read_text(), "")
    *lines, last = receipt.read_bytes().splitlines(keepends=True)
    body = b"".join(lines).replace(b'"missing"', b'"proven"')
    digest = hashlib.sha256(body).hexdigest()
    value = base64.b64encode(forger.sign(receipts.statement(digest))).decode()
    forged = {"signature": json.loads(last)["signature"] | {"sha256": digest, "value": value}}
    (tmp_path / "forged").write_bytes(body + receipts.line(forged))
    with pytest.raises(ReceiptRefused, match="somebody else made it"):
        receipts.check(tmp_path / "forged", [public])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"no receipt",
        b"[1]\n",
        b'{"format":"other/1"}\n',
        b"x" * 200_000,
        b"[" * 60_000 + b"\n",
        b"1" * 6_000 + b"\n",
    ],
)
def test_what_is_no_receipt_is_refused(content: bytes, public: PublicKey, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ReceiptRefused):
        receipts.check(tmp_path / "file", [public])
    with pytest.raises(ConfigError):
        receipts.check(tmp_path / "absent", [public])


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\u202eb", "a\ud800"])
def test_a_receipt_with_an_invisible_key_is_refused(
    name: str, signer: Signer, public: PublicKey, tmp_path: Path
) -> None:
    with ReceiptFile(tmp_path / "r", signer) as file:
        file.add(HEAD)
        line = json.dumps({**entry(0), "key": name})
        file._file.write(f"{line}\n".encode())
        file._sha256.update(f"{line}\n".encode())
        file.sign({"outcome": "proven"})
    with pytest.raises(ReceiptRefused, match=r"U\+") as caught:
        receipts.check(tmp_path / "r", [public])
    assert caught.value.message.isprintable()


def test_a_receipt_that_is_not_finished_leaves_nothing(tmp_path: Path, signer: Signer) -> None:
    with ReceiptFile(tmp_path / "r", signer) as file:
        file.add(entry(1))
    assert not list(tmp_path.iterdir())
    write(tmp_path / "r", signer)
    with pytest.raises(ConfigError, match="already"):
        ReceiptFile(tmp_path / "r", signer)
    with pytest.raises(ConfigError, match="cannot be written"):
        ReceiptFile(tmp_path / "absent" / "r", signer)


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
def test_a_customer_checks_one_with_openssl_alone(receipt: Path, key: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "docs" / "verify.md"
    commands = script.read_text().split("```sh\n")[1].split("```")[0]
    commands = commands.replace("acme-november.receipt", str(receipt))
    commands = commands.replace("receipts.pem.pub", f"{key}.pub").replace(
        "jq -r .signature.value", 'sed \'s/.*"value":"\\([^"]*\\)".*/\\1/\''
    )
    answer = subprocess.run(
        ["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert "Signature Verified Successfully" in answer.stdout, answer.stdout + answer.stderr


def test_a_new_key_is_for_its_owner_only_and_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "receipts.pem"
    public, made = new_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_key_of(public).key_id == made.key_id == signer_of(path.read_text(), "x").public.key_id
    for target in (path, public):
        with pytest.raises(ConfigError, match="already"):
            new_key(path)
        target.unlink()
    with pytest.raises(ConfigError, match="cannot be written"):
        new_key(tmp_path / "absent" / "receipts.pem")


def _openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: _openssl("genpkey", "-algorithm", "ed25519"), None),
        (
            lambda: _openssl("genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            "no Ed25519",
        ),
        (
            lambda: _openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:abcd"),
            "a passphrase",
        ),
        (lambda: "s3cret nonsense", "no private key"),
    ],
)
def test_a_bad_key_is_reported_without_being_shown(make: Callable[[], str], told: str | None) -> None:
    text = make()
    if told is None:
        assert signer_of(text, "receipts.key").public.pem.startswith("-----BEGIN PUBLIC KEY")
        return
    with pytest.raises(ConfigError, match=told) as caught:
        signer_of(text, "receipts.key (env:KEY)")
    assert "receipts.key (env:KEY)" in caught.value.message
    assert text.splitlines()[-1] not in caught.value.message


def test_a_bad_public_key_is_reported(tmp_path: Path, key: Path) -> None:
    for path in (tmp_path / "absent", key):
        with pytest.raises(ConfigError):
            public_key_of(path)
