"""The ledger's URL: judged where it stands, told without its password."""

import pytest
from pydantic import TypeAdapter, ValidationError

from xmode_transfer.config import SecretRef, Service
from xmode_transfer.config.secrets import LedgerLocation, SecretKind, check_ledger_url, passwords_of, shown

SECRET = "hunter2-not-to-be-told"
PLACE: TypeAdapter[str | SecretRef] = TypeAdapter(LedgerLocation)


def refused(value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        PLACE.validate_python(value)
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
    assert PLACE.validate_python(url) == url
    assert shown(url) == url
    assert passwords_of(url) == ()


def test_the_place_of_a_url_may_stand_there_instead() -> None:
    directory = {"directory": "/etc/xmode"}
    assert Service(ledger="env:LEDGER_URL").ledger == SecretRef(SecretKind.ENV, "LEDGER_URL")
    found = PLACE.validate_python("file:ledger-url", context=directory)
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
def test_a_url_is_told_without_its_password(url: str, told: str) -> None:
    assert shown(url) == told
    assert passwords_of(url) == (SECRET,)
    assert check_ledger_url(url) == url


@pytest.mark.parametrize("text", [SECRET, f"postgresql://xmode:[{SECRET}@db"])
def test_what_is_no_url_is_masked_whole(text: str) -> None:
    assert SECRET not in shown(text)
