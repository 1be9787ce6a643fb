"""`xmode-transfer verify` and `list --adopt` against the local AWS, with the guide's documents unchanged."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from xmode_transfer.sandbox import bucket
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import
BASE = "xmode/us-daily/2026/11/22/"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


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
    assert {row["key"]: row["flaw"] for row in answer.json["findings"]} == {
        BASE + "a.csv": "missing",
        BASE + "b.csv": "altered",
    }
    assert (answer.json["outcome"], answer.json["foreign"], answer.json["complete"]) == ("differs", 1, True)
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
        return item["status"], [care["cause"] for care in item["cares"]]

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
    (ledger,) = here.directory.rglob("ledger.db")
    ledger.unlink()
    for suffix in ("-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
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


def test_what_does_not_go_together_is_told(project: Make, acme: CustomerSetup) -> None:
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
