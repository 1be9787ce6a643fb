"""`xmode-transfer verify` and `list --adopt` against the local AWS, with the guide's documents unchanged."""

import base64
import json
import os
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from shutil import which

import pytest

from tests import bucket
from xmode_transfer.sandbox.accounts import owner
from xmode_transfer.sandbox.model import CustomerSetup
from xmode_transfer.transfer.planning import delivery_id

pytestmark = pytest.mark.sandbox

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import
BASE = "xmode/us-daily/2026/11/22/"
DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS = DOCS / "operations.md"
MANIFEST = DOCS / "manifest.md"


def crc32_of(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def delivered(make: Make, customer: CustomerSetup) -> "Project":  # noqa: F821
    here = make(customer)
    for name in ("a.csv", "b.csv", "c.csv"):
        here.write(f"2026/11/22/{name}", f"the words of {name}".encode())
    here.write("2026/11/22/_SUCCESS", b"")
    assert here.deliver().code == 0
    return here


def test_what_is_wrong_is_named_signed_checked_offline_and_repaired(
    project: Make, acme: CustomerSetup
) -> None:
    here = delivered(project, acme)
    key = here.directory / "receipts.pem"
    assert here.run("verify", "--new-key", str(key)).code == 0
    with (here.directory / "service.yaml").open("a") as file:
        file.write("\nreceipts: {key: file:receipts.pem}\n")
    bucket.delete_object(acme, BASE + "a.csv")
    bucket.put_object(acme, BASE + "b.csv", b"THE WORDS OF B.CSV"[:18])
    bucket.put_object(acme, "xmode/theirs.txt", b"theirs")
    receipt = here.directory / "acme.receipt"
    answer = here.run("verify", "--customer", "acme", "--deep", "--json", "--receipt", str(receipt))
    assert answer.code == 4, answer.err
    assert {row["key"]: row["discrepancy"] for row in answer.json["findings"]} == {
        BASE + "a.csv": "missing",
        BASE + "b.csv": "altered",
    }
    assert (answer.json["outcome"], answer.json["unmanaged"], answer.json["complete"]) == ("differs", 1, True)
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "XMODE_CONFIG": "/nowhere"}
    checked = here.run("verify", "--receipt", str(receipt), "--public-key", f"{key}.pub", "--json", **nobody)
    assert checked.code == 0, checked.err
    assert [row["verdict"] for row in checked.json["findings"]] == ["missing", "altered"]
    receipt.write_bytes(receipt.read_bytes().replace(b'"missing"', b'"proven"'))
    refused = here.run("verify", "--receipt", str(receipt), "--public-key", f"{key}.pub")
    assert refused.code == 3
    assert "altered after it was signed" in refused.err
    mended = here.run("verify", "--customer", "acme", "--repair", "--by", "alice", "--json")
    assert [row["key"] for row in mended.json["findings"]] == [BASE + "b.csv"]
    assert mended.json["repair"]["sent"] == 1
    assert bucket.read_object(acme, BASE + "a.csv") == b"the words of a.csv"
    assert bucket.read_object(acme, BASE + "b.csv") == b"THE WORDS OF B.CSV"
    assert bucket.read_object(acme, "xmode/theirs.txt") == b"theirs"


def test_what_was_found_is_in_the_status_until_it_is_repaired(project: Make, acme: CustomerSetup) -> None:
    here = delivered(project, acme)

    def fares() -> tuple[str, list[str]]:
        (item,) = here.run("status", "--json").json["customers"]
        return item["status"], [care["cause"] for care in item["warnings"]]

    assert here.run("verify", "--customer", "acme").code == 0
    assert fares() == ("healthy", [])
    bucket.delete_object(acme, BASE + "a.csv")
    assert fares() == ("healthy", [])  # nobody has looked
    assert here.run("verify", "--customer", "acme").code == 4
    assert fares() == ("attention", ["delivered_changed"])
    shown = here.run("status").out
    assert f"1 missing (first: {BASE}a.csv); in us-daily 2026-11-22" in " ".join(shown.split())
    assert "the customer must act" in shown
    assert here.run("verify", "--customer", "acme", "--repair").code == 0
    assert fares() == ("healthy", [])


def test_a_lost_ledger_is_recovered_exactly_as_documented(project: Make, acme: CustomerSetup) -> None:
    here = delivered(project, acme)
    lose_the_ledger(here)
    page = OPERATIONS.read_text().split("## A lost ledger")[1].split("\n## ")[0]
    commands = [block.split("```")[0] for block in page.split("```sh\n")[1:]]
    assert len(commands) == 2
    program = Path(os.sys.executable).parent
    before = bucket.list_versions(acme)
    answer = subprocess.run(
        ["sh", "-ec", "\n".join(commands)],
        env={
            **os.environ,
            **here.environment,
            "XMODE_CONFIG": str(here.directory),
            "PATH": f"{program}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "adopted   us-daily 2026-11-22: 3 objects" in answer.stdout
    assert "proven" in answer.stdout
    assert bucket.list_versions(acme) == before  # run uploaded nothing
    events = [json.loads(line) for line in answer.stderr.splitlines() if line.startswith("{")]
    assert not [event for event in events if event["event"] == "object.failed"]


def lose_the_ledger(here: "Project") -> None:  # noqa: F821
    (ledger,) = here.directory.rglob("ledger.db")
    for suffix in ("", "-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)


def test_no_receipt_is_signed_for_what_a_customer_has_forged(project: Make, acme: CustomerSetup) -> None:
    """The mark follows from public names: the customer makes it, an object and a manifest, and one that would
    speak to the terminal; then our ledger is lost."""
    here = project(acme)
    key = here.directory / "receipts.pem"
    assert here.run("verify", "--new-key", str(key)).code == 0
    with (here.directory / "service.yaml").open("a") as file:
        file.write("\nreceipts: {key: file:receipts.pem}\n")
    here.write("2026/11/22/a.csv", b"ours")
    here.write("2026/11/22/_SUCCESS", b"")
    assert here.deliver().code == 0
    honest = bucket.read_object(acme, "xmode/us-daily/_manifests/2026-11-22/000001.json")
    assert b'"signature"' in honest
    s3 = owner(acme, "s3")
    for day, name in (("2026-11-20", "a\x1b[2J\x1b]0;owned\x07.csv"), ("2026-11-21", "a.csv")):
        mark = {"xmode-delivery": delivery_id("acme", "us-daily", day, 1)}
        path = f"{day.replace('-', '/')}/{name}"
        forged = json.loads(honest.replace(b"2026-11-22", day.encode()))
        del forged["signature"]
        forged["delivery"] = mark["xmode-delivery"]
        forged["objects"][0] |= {"source": path, "key": f"xmode/us-daily/{path}", "size": 6}
        forged["bytes"] = 6
        forged["objects"][0]["checksum"]["value"] = crc32_of(b"forged")
        if name.isprintable():
            key_put = {"Bucket": acme.bucket, "Key": f"xmode/us-daily/{path}", "Metadata": mark}
            s3.put_object(Body=b"forged", ChecksumAlgorithm="CRC32", **key_put)
        s3.put_object(
            Bucket=acme.bucket,
            Key=f"xmode/us-daily/_manifests/{day}/000001.json",
            Body=json.dumps(forged).encode(),
            Metadata=mark,
        )
    lose_the_ledger(here)
    adopted = here.run("list", "--customer", "acme", "--adopt")
    assert adopted.code == 4
    assert adopted.out.replace("\n", "").isprintable()
    assert "refused   us-daily 2026-11-20: a source of it has a control character, U+001B" in adopted.out
    assert "not attested its manifest has no signature" in adopted.out

    receipt = here.directory / "acme.receipt"
    answer = here.run("verify", "--customer", "acme", "--receipt", str(receipt))
    assert answer.code == 0, answer.out + answer.err
    assert "not attested us-daily 2026-11-21: its manifest has no signature" in answer.out
    assert "the receipt omits these deliveries" in answer.out
    lines = [json.loads(line) for line in receipt.read_text().splitlines()]
    assert {line["period"] for line in lines if "verdict" in line} == {"2026-11-22"}
    assert lines[-2]["proven"] == 2
    only_forged = here.run(
        "verify", "--customer", "acme", "--period", "2026-11-21", "--json", "--receipt", f"{receipt}.2"
    )
    assert (only_forged.code, only_forged.json["receipt"]) == (3, None)
    assert [item["period"] for item in only_forged.json["not_attested"]] == ["2026-11-21"]
    assert sorted(path.name for path in here.directory.glob("*.receipt*")) == ["acme.receipt"]

    listed = here.run("list", "--customer", "acme", "--json").json
    doubtful = {row["key"] for row in listed["objects"] if row["attested"] is False}
    assert doubtful == {
        "xmode/us-daily/2026/11/21/a.csv",
        "xmode/us-daily/_manifests/2026-11-21/000001.json",
    }
    shown = here.run("list", "--customer", "acme")
    assert "2026/11/21/a.csv  (not attested)" in shown.out
    assert shown.out.replace("\n", "").isprintable()
    (feed,) = here.run("status", "--customer", "acme", "--json").json["customers"][0]["feeds"]
    assert feed["not_attested"] == 1
    assert "not attested: 1 delivery" in here.run("status", "--customer", "acme").out


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
def test_a_customer_checks_a_manifest_as_documented(
    project: Make, acme: CustomerSetup, tmp_path: Path
) -> None:
    here = project(acme)
    key = here.directory / "receipts.pem"
    assert here.run("verify", "--new-key", str(key)).code == 0
    with (here.directory / "service.yaml").open("a") as file:
        file.write("\nreceipts: {key: file:receipts.pem}\n")
    here.write("2026/11/22/é name.csv", b"ours")
    here.write("2026/11/22/_SUCCESS", b"")
    assert here.deliver().code == 0
    manifest = bucket.read_object(acme, "xmode/us-daily/_manifests/2026-11-22/000001.json")
    page = MANIFEST.read_text().split("## Is it from us?")[1].split("```sh\n")[1].split("```")[0]
    commands = page.replace("aws s3 cp", "true").replace("receipts.pem.pub", f"{key}.pub")

    def checked(data: bytes, place: str) -> str:
        (tmp_path / "manifest.json").write_bytes(data)
        answer = subprocess.run(
            ["sh", "-c", commands.replace("acme-data <<", f"{place} <<")],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return answer.stdout + answer.stderr

    assert "Signature Verified Successfully" in checked(manifest, acme.bucket)
    assert "Verification Failure" in checked(manifest, "another-bucket")
    assert "Verification Failure" in checked(manifest.replace(b'"size":4', b'"size":5'), acme.bucket)


def test_options_that_exclude_each_other_are_refused(project: Make, acme: CustomerSetup) -> None:
    here = project(acme)
    for arguments in (
        ["verify"],
        ["verify", "--customer", "acme", "--period", "2026-11-22", "--since", "2026-11-21"],
        ["verify", "--customer", "acme", "--receipt", "no-key.receipt"],
        ["verify", "--customer", "acme", "--period", "2026-11-22"],  # nothing of it was ever delivered
        ["list", "--customer", "acme", "--dry-run"],
    ):
        assert here.run(*arguments).code == 2, arguments
    nothing = here.run("verify", "--customer", "acme", "--json").json
    assert (nothing["outcome"], nothing["reason"]) == ("nothing", "nothing has been delivered yet")
    later = here.run("verify", "--customer", "acme", "--since", "2030-01-01")
    assert "nothing has been delivered of what is named" in later.out
