"""Each command at work once, started as it is installed: what `make test` tries of all of them."""

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.commands import COMMAND
from xmode_transfer.cli import _COMMANDS
from xmode_transfer.sandbox.model import CustomerSetup, Variant

pytestmark = pytest.mark.smoke


def test_the_installed_command_lists_all_commands() -> None:
    done = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True)
    listed = done.stdout.split("Commands:")[1].split("Exit codes:")[0]
    assert [line.split()[0] for line in listed.strip().splitlines() if line[2:3].strip()] == list(_COMMANDS)
    assert done.stderr == ""


@pytest.mark.sandbox
def test_each_command_does_its_work_for_a_customer(
    project: Callable[..., Any], customer_factory: Callable[..., CustomerSetup]
) -> None:
    acme = customer_factory("acme", Variant.ABORT_GRANTED)
    here = project(acme, service={"status_page": "off"})
    here.write("2026/11/22/a.csv", b"1")
    here.write("2026/11/22/_SUCCESS", b"")

    def said(*arguments: str) -> str:
        answer = here.run(*arguments)
        assert answer.code == 0, answer.out + answer.err
        out: str = answer.out
        return out

    of_acme = ("--customer", "acme")
    said("config", "check")
    assert json.loads(said("policy", "print", *of_acme))["Statement"]
    assert json.loads(said("check-access", *of_acme, "--json"))
    assert json.loads(said("run", *of_acme, "--json"))["outcome"] == "delivered"
    assert json.loads(said("list", *of_acme, "--json"))["counts"]["ours"] == 1
    assert json.loads(said("verify", *of_acme, "--json"))["outcome"] == "proven"
    assert json.loads(said("status", "--json"))["customers"][0]["customer"] == "acme"
    said("alerts", "list")
    assert json.loads(said("cleanup", *of_acme, "--dry-run", "--json"))
    said("ledger", "check")
    said("sandbox", "list", "--home", str(here.directory / "none"))
    new = ["--company", "New Corp", "--account", "111122223333", "--bucket", "new-data", "--feed", "us-daily"]
    assert "111122223333" in said(
        "onboard", *new, "--region", "us-east-1", "--out", str(here.directory / "kit")
    )

    daemon = here.launch("daemon")
    daemon.wait("daemon.started")
    assert daemon.end(signal.SIGTERM) == 0
