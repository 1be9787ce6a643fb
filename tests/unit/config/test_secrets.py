"""Secrets by reference and the ledger's URL: read where the configuration says, and never repeated."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from xmode_transfer import telemetry
from xmode_transfer.config import Secret, SecretRef, Service, files
from xmode_transfer.config.secrets import (
    MAX_BYTES,
    LedgerLocation,
    SecretKind,
    check_ledger_url,
    ledger_url,
    passwords_of,
    read_secret,
    shown,
)
from xmode_transfer.model.errors import ConfigError

SECRET = "tEuYw9-not-to-be-told"


def test_a_variable_and_a_file_are_read_without_their_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMODE_TEST_SECRET", f"{SECRET}\n")
    (tmp_path / "secret").write_text(f"{SECRET}\r\n")
    assert read_secret(SecretRef(SecretKind.ENV, "XMODE_TEST_SECRET"), "receipts.key") == SECRET
    assert read_secret(SecretRef(SecretKind.FILE, str(tmp_path / "secret")), "receipts.key") == SECRET


def test_what_was_read_is_masked_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("-----BEGIN-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END-----\n")
    read_secret(SecretRef(SecretKind.FILE, str(tmp_path / "key")), "receipts.key")
    assert "MC4CAQ" not in telemetry.redact_text("it was MC4CAQAwBQYDK2VwBCIEIJ, alas")


def test_what_cannot_be_read_says_which_key_and_why(tmp_path: Path) -> None:
    cases = {
        "env:XMODE_NOT_SET": "XMODE_NOT_SET is not set",
        f"file:{tmp_path}/absent": "No such file",
        f"file:{tmp_path}": "directory",
        f"file:{tmp_path}/empty": "is empty",
        f"file:{tmp_path}/large": "too large",
        f"file:{tmp_path}/binary": "is not text",
    }
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "large").write_text("x" * (MAX_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for text, told in cases.items():
        with pytest.raises(ConfigError, match=told) as caught:
            read_secret(TypeAdapter(Secret).validate_python(text), "receipts.key")
        assert caught.value.message.startswith("receipts.key: ")
        assert caught.value.hint


@pytest.mark.parametrize("wrong", [SECRET, "vault:x", "env:", "env:A-B", "file:", 7, "", f"env {SECRET}"])
def test_a_secret_in_the_file_itself_is_refused_and_not_repeated(wrong: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Secret).validate_python(wrong)
    (error,) = caught.value.errors()
    assert SECRET not in str(error["ctx"]["error"])


def test_a_relative_file_is_relative_to_the_config_directory(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("receipts: {key: file:keys/receipts.pem}\n")
    service = files.load(tmp_path).service
    assert str(service.receipts.key) == f"file:{tmp_path}/keys/receipts.pem"
    (tmp_path / "service.yaml").write_text(f"receipts:\n  key: {SECRET}\n")
    with pytest.raises(ConfigError) as caught:
        files.load(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith("service.yaml:2:8: receipts.key: write where the secret is kept")
    assert SECRET not in problem


def test_the_ledgers_url_is_read_and_only_its_password_is_masked(tmp_path: Path) -> None:
    url = f"postgresql://xmode:{SECRET}%40x@db.internal/xmode"
    (tmp_path / "url").write_text(f"{url}\n")
    assert ledger_url(SecretRef(SecretKind.FILE, str(tmp_path / "url"))) == url
    masked = telemetry.redact_text(f"the password {SECRET}@x for db.internal, and as written: {url}")
    assert SECRET not in masked
    assert "db.internal" in masked
    assert ledger_url("sqlite:////srv/ledger.db") == "sqlite:////srv/ledger.db"


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (f"xmode:{SECRET}@db", "not the URL of a ledger"),
        (f"mysql://xmode:{SECRET}@db/x", "SQLite or PostgreSQL"),
        (f"postgresql://xmode:{SECRET}@db/x\npostgresql://xmode:{SECRET}@db/y", "no space"),
        ("sqlite:///var/ledger.db", "relative path"),
    ],
)
def test_what_is_kept_and_is_no_ledgers_url_is_refused_and_not_repeated(
    kept: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMODE_TEST_LEDGER", kept)
    with pytest.raises(ConfigError, match=told) as caught:
        ledger_url(SecretRef(SecretKind.ENV, "XMODE_TEST_LEDGER"))
    assert "env:XMODE_TEST_LEDGER" in caught.value.message
    assert SECRET not in caught.value.message + caught.value.hint


LOCATION: TypeAdapter[str | SecretRef] = TypeAdapter(LedgerLocation)


def refused(value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        LOCATION.validate_python(value)
    (error,) = caught.value.errors()
    return str(error["ctx"]["error"])


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///var/ledger.db",
        "sqlite:////srv/ledger.db?timeout=5",
        "postgresql://xmode@db.internal/xmode?sslmode=verify-full",
        "postgresql://db-1:5432,db-2:5433/xmode?target_session_attrs=read-write",
        "postgresql:///xmode?host=/run/postgresql",
        "postgresql://%2Frun%2Fpostgresql/xmode",
        "postgresql://[::1]:5432/xmode",
        "postgresql://host/xmode?user=me@azure",
        "postgresql://xmode@/xmode?host=/run/postgresql",
        "postgres://xmode@db/xmode",
        "postgresql://",
    ],
)
def test_a_ledger_in_a_file_or_on_a_server_is_taken_as_it_is_written(url: str) -> None:
    assert LOCATION.validate_python(url) == url
    assert shown(url) == url
    assert passwords_of(url) == ()


def test_a_reference_to_the_url_is_accepted() -> None:
    directory = {"directory": "/etc/xmode"}
    assert Service(ledger="env:LEDGER_URL").ledger == SecretRef(SecretKind.ENV, "LEDGER_URL")
    found = LOCATION.validate_python("file:ledger-url", context=directory)
    assert found == SecretRef(SecretKind.FILE, "/etc/xmode/ledger-url")
    assert Service(ledger="env:LEDGER_URL").model_dump()["ledger"] == "env:LEDGER_URL"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"postgresql://xmode:{SECRET}@db/xmode", "file:PATH, env:NAME"),
        (f"postgresql://xmode@db/xmode?sslmode=require&password={SECRET}", "file:PATH, env:NAME"),
        (f"postgresql://xmode:a/{SECRET}@db/xmode", "%2F"),
        (f"postgresql://xmode:a?{SECRET}@db/xmode", "%3F"),
        (f"postgresql://xmode:a#{SECRET}@db/xmode", "%23"),
        (f"postgresql://xmode:a@{SECRET}@db/xmode", "%40"),
        (f"postgresql://xmode:a {SECRET}@db/xmode", "no space"),
        (f"postgresql://xmode:[{SECRET}@db/xmode", "cannot be read"),
        (f"pgsql://xmode:{SECRET}@db/xmode", "did you mean postgresql://?"),
        (f"postgres://xmode:{SECRET}@db/xmode", "file:PATH, env:NAME"),
        (f"postgresql+psycopg://xmode:{SECRET}@db/xmode", "did you mean postgresql?"),
        (f"mysql://xmode:{SECRET}@db/xmode", "SQLite or PostgreSQL"),
        ("postgresql://db/one/two", "one name"),
        ("var/ledger.db", "write sqlite:///var/ledger.db"),
        ("sqlite://var/ledger.db", "did you mean sqlite:///var/ledger.db?"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        (f"xmode:{SECRET}@db", "not the URL"),
        ("env:A-B", "letters, digits and underscores"),
        ("file:", "comes a path"),
        (7, "env:NAME or file:PATH"),
    ],
)
def test_what_cannot_be_used_is_refused_and_a_password_is_not_repeated(url: object, told: str) -> None:
    message = refused(url)
    assert told in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            f"postgresql://xmode:{SECRET}@db:5432/xmode?sslmode=require",
            "postgresql://xmode@db:5432/xmode?sslmode=require",
        ),
        (f"postgresql://:{SECRET}@db/xmode", "postgresql://@db/xmode"),
        (f"postgresql:///xmode?password={SECRET}", "postgresql:///xmode"),
        (f"postgresql://db/xmode?a=1&sslpassword={SECRET}&b=2", "postgresql://db/xmode?a=1&b=2"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, told: str) -> None:
    assert shown(url) == told
    assert passwords_of(url) == (SECRET,)
    assert check_ledger_url(url) == url


@pytest.mark.parametrize("text", [SECRET, f"postgresql://xmode:[{SECRET}@db"])
def test_other_text_is_masked_completely(text: str) -> None:
    assert SECRET not in shown(text)
