"""Who may read and write the files that the command makes, whatever the umask that it is started with."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.commands import COMMAND
from xmode_transfer.sandbox.model import CustomerSetup

UMASKS = [0o000, 0o077]


def run(directory: Path, umask: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = commands.run(
        [COMMAND, *arguments],
        cwd=directory,
        umask=umask,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done


def modes(directory: Path) -> dict[str, int]:
    """Of everything below it, by name."""
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.lstat().st_mode)
        for path in directory.rglob("*")
        if not path.is_symlink()
    }


def hidden(found: dict[str, int], *beginnings: str) -> bool:
    """Whether nobody else may do anything with what begins so, and write nothing at all."""
    ours = [mode for name, mode in found.items() if name.startswith(beginnings)]
    return (
        bool(ours) and not any(mode & 0o077 for mode in ours) and not any(m & 0o022 for m in found.values())
    )


def onboard(directory: Path, umask: int, company: str, account: str, kit: str) -> None:
    bucket = f"{company.lower()}-data"
    told = ["--company", company, "--account", account, "--bucket", bucket, "--feed", "daily"]
    run(directory, umask, "onboard", *told, "--region", "us-east-1", "--out", kit)


@pytest.mark.parametrize("umask", UMASKS)
def test_what_is_ours_alone_is_read_by_nobody_else(tmp_path: Path, umask: int) -> None:
    """The ledger, its backups, a kit, a key; none of it needs AWS."""
    config = tmp_path / "config"
    (config / "feeds").mkdir(parents=True)
    (config / "service.yaml").write_text(
        'ledger: sqlite:///var/ledger.db\nvendor: {principal_arn: "arn:aws:iam::999988887777:user/v"}\n'
    )
    (config / "feeds" / "daily.yaml").write_text(
        f'source: {tmp_path}\nperiod: day\npartition: "%Y/%m/%d"\ncomplete: {{marker: _SUCCESS}}\n'
    )
    for path in (config, config / "feeds", *config.rglob("*.yaml")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for name in ("theirs", "theirs/globex"):  # what the operator made stays as it is
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o750)
    onboard(tmp_path, umask, "Acme", "111122223333", "kits/acme")
    onboard(tmp_path, umask, "Globex", "111122224444", "theirs/globex")
    run(tmp_path, umask, "status", "--json")
    run(tmp_path, umask, "ledger", "backup", "backup.db")
    run(tmp_path, umask, "ledger", "restore", "backup.db")
    run(tmp_path, umask, "config", "schema")
    run(tmp_path, umask, "verify", "--new-key", "receipts.pem")
    found = modes(tmp_path)
    assert hidden(found, "config/var", "kits", "backup.db", "theirs/globex/"), found
    assert (tmp_path / "config/var/ledger.db").exists()
    assert (found["theirs"], found["theirs/globex"]) == (0o750, 0o750)
    assert found["config/customers/acme.yaml"] == 0o644 & ~umask  # read by the service's user, if it may be
    assert found["receipts.pem"] == 0o600
    assert found["receipts.pem.pub"] == 0o644 & ~umask
    assert sorted(
        name for name, mode in found.items() if mode & 0o100 and not (tmp_path / name).is_dir()
    ) == [
        "kits/acme/setup.sh",
        "theirs/globex/setup.sh",
    ]


@pytest.mark.sandbox
@pytest.mark.parametrize("umask", UMASKS)
def test_a_delivery_and_its_receipt_are_read_by_nobody_else(
    project: Callable[..., Any], acme: CustomerSetup, umask: int
) -> None:
    here = project(acme, service={"receipts": {"key": "file:key.pem"}})
    here.write("2026/11/22/a.csv", b"a")
    here.write("2026/11/22/_SUCCESS", b"")
    configuration = ["--config", str(here.directory)]
    run(here.directory, umask, "verify", "--new-key", "key.pem")
    day = ["--customer", "acme", "--period", "2026-11-22"]
    run(here.directory, umask, *configuration, "run", *day, **here.environment)
    run(here.directory, umask, *configuration, "verify", *day, "--receipt", "receipt", **here.environment)
    found = modes(here.directory)
    assert hidden(
        {name: mode for name, mode in found.items() if name.split("/")[0] in ("var", "receipt")}, ""
    )
    assert {"var/ledger.db", "receipt"} <= found.keys()
