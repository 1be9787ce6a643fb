"""Where the extra `cluster` is not installed, one machine does everything that it does with it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox.model import CustomerSetup

Make = Callable[..., "Project"]  # noqa: F821 - conftest's, which tests cannot import

# As an installation that never had them: neither found nor imported, in this process and whatever it starts.
MISSING = """
import sys
from importlib.machinery import PathFinder

NAMES = ("psycopg", "psycopg_binary", "psycopg_c", "psycopg_pool", "procrastinate")


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in NAMES else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
EVERY_MODULE = """
import importlib, pkgutil
import xmode_transfer

for module in pkgutil.walk_packages(xmode_transfer.__path__, "xmode_transfer.", onerror=lambda name: None):
    if not module.name.endswith(("__main__", "migrations.env")):  # which do something when they are imported
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, error.name)
"""
SEVERAL = """
import sys
from xmode_transfer import cli

for line in LINES:
    sys.argv = ["xmode-transfer", *line]
    assert cli._run(None) == 0, line
"""
NEEDS_IT = "xmode_transfer.ledger.postgres"


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """The environment of such an installation."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(MISSING, encoding="utf-8")
    return {"PYTHONPATH": str(tmp_path / "site")}


def python(program: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_only_what_serves_several_machines_cannot_be_imported(without: dict[str, str]) -> None:
    assert python("import psycopg", without).returncode == 1
    done = python(EVERY_MODULE, without)
    assert done.returncode == 0, done.stderr
    broken = [line.split() for line in done.stdout.splitlines()]
    assert broken, "psycopg was there all the same"
    for name, missing in broken:
        assert name.startswith(NEEDS_IT), f"{name} needs {missing}"


@pytest.mark.sandbox
def test_one_machine_checks_delivers_shows_and_cleans_up(
    project: Make, acme: CustomerSetup, without: dict[str, str]
) -> None:
    service = {"daemon": {"tick_seconds": 1, "drain_seconds": 1}, "status_page": "off"}
    here: Any = project(acme, service=service)
    here.environment.update(without)
    for day in ("20", "21"):
        here.write(f"2026/11/{day}/a.csv", day.encode())
        here.write(f"2026/11/{day}/_SUCCESS", b"")
    run = here.run("run", "--customer", "acme", "--period", "2026-11-20", "--json")
    assert run.code == 0, run.err
    daemon = here.launch("daemon")
    daemon.wait("delivery.finished", seconds=120, period="2026-11-21", outcome="delivered")
    assert daemon.end() == 0
    assert len([key for key in bucket.list_keys(acme) if "/_manifests/" in key]) == 2
    commands = [["status", "--no-look"], ["verify", "--customer", "acme"], ["ledger", "check"]]
    lines = [["--config", str(here.directory), *command] for command in commands]
    done = python(f"LINES = {lines!r}{SEVERAL}", here.environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "command",
    [
        "worker",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ("daemon --engine procrastinate", "run --all")
        ),
    ],
)
def test_a_ledger_on_postgresql_says_what_to_install(
    project: Make, acme: CustomerSetup, without: dict[str, str], command: str
) -> None:
    here: Any = project(acme, service={"ledger": "postgresql://nobody@127.0.0.1:1/nowhere"})
    here.environment.update(without)
    refused = here.run(*command.split())
    assert refused.code == 2
    assert "xmode-transfer[cluster]" in refused.err
    assert "Traceback" not in refused.err
