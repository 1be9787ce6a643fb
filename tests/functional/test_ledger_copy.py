"""`xmode-transfer ledger copy`, and a ledger on PostgreSQL, as an operator types them."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from xmode_transfer.ledger import database, open_ledger
from xmode_transfer.model.records import Delivery, Status
from xmode_transfer.telemetry import SystemClock

PASSWORD = "hunter2-not-to-be-told"
NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
LEASE = "delivery/acme/us-daily/2026-11-22"


@pytest.fixture
def filled(bare_project: Any) -> str:
    """The URL of the project's ledger, which has a delivery."""
    url = f"sqlite:///{bare_project.directory}/var/ledger.db"
    ledger = open_ledger(url, SystemClock())
    lease = ledger.leases.claim(LEASE, "elsewhere", 90)
    ledger.deliveries.create(
        lease, Delivery("id-1", "acme", "us-daily", "2026-11-22", 1, Status.PLANNED, NOW, NOW)
    )
    ledger.leases.release(lease)
    ledger.close()
    return url


@pytest.fixture
def secret_url(postgres_url: str) -> str:
    """The server trusts whoever reaches its socket; the password is there to be kept secret."""
    parts = urlsplit(postgres_url)
    host = parts.netloc.rpartition("@")[2]
    user = parts.netloc.rpartition("@")[0].partition(":")[0] or "postgres"
    return urlunsplit(parts._replace(netloc=f"{user}:{PASSWORD}@{host}"))


def test_a_ledger_is_moved_to_postgresql_and_used_there(
    bare_project: Any, filled: str, secret_url: str, tmp_path: Path
) -> None:
    (bare_project.directory / "ledger-url").write_text(f"{secret_url}\n")
    kept = f"file:{bare_project.directory}/ledger-url"
    said = []

    def run(*arguments: str) -> Any:
        answer = bare_project.run(*arguments)
        said.append(answer.out + answer.err)
        return answer

    tried = run("ledger", "copy", kept, "--dry-run", "--json")
    assert (tried.code, tried.json["outcome"], tried.json["rows"]) == (0, "would_copy", 3), tried.err
    moved = run("ledger", "copy", kept)
    assert moved.code == 0, moved.err
    assert "counts and checksums are equal on both sides" in moved.out
    assert moved.out.splitlines()[-1].strip() == f"ledger: {kept}"
    old = run("ledger", "check")
    assert old.code == 3
    assert "was moved to another database" in old.err
    (bare_project.directory / "service.yaml").write_text("ledger: file:ledger-url\n")
    checked = run("ledger", "check", "--json")
    assert checked.code == 0, checked.err
    assert (checked.json["outcome"], checked.json["deliveries"]) == ("ok", 1)
    assert run("status", "--json").code in (0, 3)
    for arguments, tool in (("backup", "pg_dump "), ("restore", "pg_restore ")):
        refused = run("ledger", arguments, str(tmp_path / "a dump"))
        assert refused.code == 2
        (command,) = [line for line in refused.err.splitlines() if tool in line]
        words = shlex.split(command[command.index(tool) :])
        assert any("postgresql://" in word for word in words)
        assert any(word.endswith("/a dump") for word in words)
    assert not any(PASSWORD in text for text in said)


def test_a_url_with_a_password_is_taken_and_nowhere_repeated(
    bare_project: Any, filled: str, secret_url: str
) -> None:
    copied = bare_project.run("ledger", "copy", secret_url, "--keep", "--json")
    assert copied.code == 0, copied.err
    assert (copied.json["outcome"], copied.json["service_yaml"], copied.json["retired"]) == (
        "copied",
        None,
        False,
    )
    again = bare_project.run("ledger", "copy", secret_url)
    assert again.code == 2
    assert "is not empty: " in again.err
    assert PASSWORD not in copied.out + copied.err + again.out + again.err
    assert bare_project.run("ledger", "check").code == 0


def test_nothing_is_copied_while_a_process_works(bare_project: Any, filled: str, tmp_path: Path) -> None:
    ledger = open_ledger(filled, SystemClock())
    lease = ledger.leases.claim(LEASE, database.this_process(), 90)
    refused = bare_project.run("ledger", "copy", f"sqlite:///{tmp_path}/new.db")
    assert refused.code == 5
    assert "Stop the service" in refused.err
    assert not (tmp_path / "new.db").exists()
    ledger.leases.release(lease)
    ledger.close()
    copied = bare_project.run("ledger", "copy", f"sqlite:///{tmp_path}/new.db")
    assert copied.code == 0, copied.err
    assert copied.out.splitlines()[-1].strip() == f"ledger: sqlite:///{tmp_path}/new.db"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("mysql://db/x", "SQLite or PostgreSQL"),
        (f"pgsql://me:{PASSWORD}@db/x", "did you mean postgresql://?"),
        ("env:XMODE_NOT_THERE", "XMODE_NOT_THERE is not set"),
        ("var/ledger.db", "not the URL"),
    ],
)
def test_a_target_that_is_none_is_refused(bare_project: Any, filled: str, target: str, told: str) -> None:
    refused = bare_project.run("ledger", "copy", target)
    assert refused.code == 2
    assert told in " ".join(refused.err.split())
    assert PASSWORD not in refused.out + refused.err


def test_a_password_of_the_target_that_is_wrong_is_told_of_the_target(
    bare_project: Any, filled: str, own_postgres: Any
) -> None:
    own_postgres.execute("CREATE ROLE xmode LOGIN PASSWORD 'another'")
    own_postgres.allow("local all postgres trust", "local all all scram-sha-256")
    own_postgres.execute("SELECT pg_reload_conf()")
    parts = urlsplit(own_postgres.url("xmode"))
    target = urlunsplit(parts._replace(netloc=f"xmode:{PASSWORD}@"))
    for more in ((), ("--dry-run",)):
        refused = bare_project.run("ledger", "copy", target, "--json", *more)
        assert refused.code == 3, refused.err
        error = refused.json["error"]
        assert (error["cause"], "xmode@" in error["message"]) == ("ledger_refused", True)
        assert "the user in TARGET and its password, which comes from the URL" in error["hint"]
        assert "ledger:" not in error["hint"]
        assert PASSWORD not in refused.out + refused.err
    # and of the ledger itself it is told as ever
    (bare_project.directory / "service.yaml").write_text("ledger: env:OLD_LEDGER\n")
    refused = bare_project.run("ledger", "copy", "sqlite:////tmp/never-made.db", "--json", OLD_LEDGER=target)
    assert "the user in `ledger:` and its password" in refused.json["error"]["hint"]


def test_a_password_in_service_yaml_is_a_mistake_with_its_line(bare_project: Any) -> None:
    (bare_project.directory / "service.yaml").write_text(
        f"engine: auto\nledger: postgresql://xmode:{PASSWORD}@db/xmode\n"
    )
    for arguments in (("config", "check"), ("status",), ("ledger", "check")):
        told = bare_project.run(*arguments)
        assert told.code == 2
        assert "service.yaml:2:9: ledger: the URL has a password in it" in told.out + told.err
        assert "file:PATH, env:NAME" in told.out + told.err
        assert PASSWORD not in told.out + told.err
