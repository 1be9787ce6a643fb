"""`xmode-transfer ledger`: backup, restore and check as an operator types them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import


def test_a_ledger_is_backed_up_damaged_told_and_restored(
    project: Make, acme: CustomerSetup, tmp_path: Path
) -> None:
    here = project(acme)
    here.write("2026/11/22/a.csv", b"a")
    here.write("2026/11/22/_SUCCESS", b"")
    assert here.deliver().code == 0
    backup = tmp_path / "backup.db"
    made = here.run("ledger", "backup", str(backup), "--json")
    assert made.code == 0, made.err
    assert (made.json["outcome"], made.json["receipts"], made.json["deliveries"]) == ("backed_up", 1, 1)
    again = here.run("ledger", "backup", str(backup))
    assert again.code == 2
    assert "--force" in again.err
    sound = here.run("ledger", "check")
    assert (sound.code, sound.out.splitlines()[-1]) == (0, "ok")
    (ledger,) = here.directory.rglob("ledger.db")
    ledger.write_bytes(b"spoilt" * 1000)
    told = here.run("ledger", "check")
    assert told.code == 3
    assert "damaged" in told.err
    restored = here.run("ledger", "restore", str(backup))
    assert restored.code == 0, restored.err
    assert "before-restore" in restored.out
    assert here.deliver().json["outcome"] == "skipped"
    assert here.run("ledger", "check", str(tmp_path / "absent.db")).code == 2
