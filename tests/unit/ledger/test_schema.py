"""The schema as tables, as migrations, in a database and in docs/ledger.md is the same."""

import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests import ledger_schema
from tests.fakes.clock import MemoryClock
from xmode_transfer.ledger import open_ledger, schema
from xmode_transfer.ledger.schema import MIGRATIONS, connect, migrate
from xmode_transfer.ledger.tables import SCHEMA_VERSION, metadata
from xmode_transfer.model.findings import AccessReport

PAGE = Path(__file__).parents[3] / "docs" / "ledger.md"
CLOCK = MemoryClock()


def normalised(database: Path) -> dict[str, list[str]]:
    """The parts of each table's and index's text; the order in which a table's stand does not matter."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: sorted(parts(sql)) for name, sql in rows if name != "alembic_version"}


def parts(sql: str) -> Iterator[str]:
    """One column or constraint each; SQLite writes a column that was added later behind another one."""
    for line in sql.splitlines():
        for part in [line] if "(" in line else line.split(","):
            if part.strip():
                yield part.strip().rstrip(",")


def first_release(kind: str, url: str) -> None:
    """A ledger as the first release made it."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for statement in ledger_schema.released(kind):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{ledger_schema.BASELINE}')")
    engine.dispose()


def test_the_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    """Tables that were changed without a migration fail here. Until the first release ``python -m
    tests.ledger_schema`` writes the beginning anew."""
    created, migrated = tmp_path / "created.db", tmp_path / "migrated.db"
    open_ledger(f"sqlite:///{created}", CLOCK).close()
    first_release("sqlite", f"sqlite:///{migrated}")
    engine = sqlalchemy.create_engine(f"sqlite:///{migrated}")
    with engine.begin() as connection:
        migrate(connection)
    assert normalised(migrated) == normalised(created)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def seen_by_the_server(url: str) -> list[tuple[Any, ...]]:
    """Every column, constraint and index of the ledger as PostgreSQL describes it."""
    with psycopg.connect(url) as connection:
        return [
            row
            for query in (
                (
                    "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default "
                    "FROM information_schema.columns WHERE table_schema = 'public' "
                    "AND table_name <> 'alembic_version' ORDER BY 1, 2"
                ),
                (
                    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
                    "WHERE connamespace = 'public'::regnamespace AND contype <> 'n' "
                    "AND conname NOT LIKE 'alembic%' ORDER BY 1, 2"
                ),
                (
                    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
                    "AND tablename <> 'alembic_version' ORDER BY 1, 2"
                ),
            )
            for row in connection.execute(query).fetchall()
        ]


def test_the_migrations_lead_to_the_tables_on_postgresql_too(make_database: Callable[..., str]) -> None:
    created, migrated = make_database(), make_database()
    open_ledger(created, CLOCK).close()
    first_release("postgresql", migrated)
    database = connect(migrated, create=True)
    try:
        with database.writing() as connection:
            migrate(connection)
        with database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    finally:
        database.close()
    assert seen_by_the_server(migrated) == seen_by_the_server(created)
    texts = [row for row in seen_by_the_server(created) if row[2] == "text"]
    assert len(texts) > 100
    assert {row[3] for row in texts} == {"C"}


def test_the_migrations_are_one_line() -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    versions = [revision.revision for revision in script.walk_revisions()]
    assert versions == [f"{number:04}" for number in range(len(versions), 0, -1)]
    assert versions[0] == SCHEMA_VERSION
    assert script.get_current_head() == SCHEMA_VERSION


def test_a_migration_runs_in_the_transaction_and_sets_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    for number, upgrade in (("0001", "pass"), ("0002", "op.add_column('periods', sa.Column('x', sa.Text))")):
        before = None if number == "0001" else "0001"
        (versions / f"v{number}.py").write_text(
            "import sqlalchemy as sa\nfrom alembic import op\n"
            f"revision, down_revision = {number!r}, {before!r}\ndef upgrade():\n    {upgrade}\n"
        )
    path = tmp_path / "ledger.db"
    first_release("sqlite", f"sqlite:///{path}")
    monkeypatch.setattr(schema, "MIGRATIONS", versions.parent)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", "0002")
    open_ledger(f"sqlite:///{path}", CLOCK).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
        assert connection.execute("SELECT x FROM periods").fetchall() == []
    connection.close()


def test_docs_describe_every_table_and_column() -> None:
    sections = re.split(r"^### `(\w+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    described = {
        name: re.findall(r"^\| `(\w+)` \| .+ \|$", text, flags=re.MULTILINE)
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }
    actual = {table.name: [column.name for column in table.columns] for table in metadata.sorted_tables}
    assert {name: set(columns) for name, columns in described.items()} == {
        name: set(columns) for name, columns in actual.items()
    }
    assert all(len(columns) == len(set(columns)) for columns in described.values())


def test_a_new_ledger_is_private_durable_and_in_a_new_directory(tmp_path: Path) -> None:
    path = tmp_path / "new dir" / "100% é#" / "ledger.db"
    ledger = open_ledger(f"sqlite:///{path}", CLOCK)
    try:
        ledger.checks.learn("acme", ledger.checks.capabilities("acme"))
        files = sorted(path.parent.iterdir())
        assert [file.name for file in files] == ["ledger.db", "ledger.db-shm", "ledger.db-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        ledger.close()
    assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]


@pytest.mark.parametrize(("query", "milliseconds"), [("", 30_000), ("?timeout=1.5", 1_500)])
def test_every_connection_is_set_up(tmp_path: Path, query: str, milliseconds: int) -> None:
    database = connect(f"sqlite:///{tmp_path}/ledger.db{query}", create=True)
    try:
        with database.reading() as first, database.reading() as second:
            for connection in (first, second):
                found = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                }
                full = 2
                assert found == {
                    "journal_mode": "wal",
                    "synchronous": full,
                    "foreign_keys": 1,
                    "busy_timeout": milliseconds,
                }
    finally:
        database.close()


def test_alembic_is_imported_only_for_a_migration(tmp_path: Path) -> None:
    program = (
        "import sys; from xmode_transfer.ledger import open_ledger;"
        "from tests.fakes.clock import MemoryClock;"
        "open_ledger(sys.argv[1], MemoryClock()).close(); print('alembic' in sys.modules)"
    )
    for _ in ("new", "current"):
        done = subprocess.run(
            [sys.executable, "-c", program, f"sqlite:///{tmp_path}/ledger.db"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "False"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_ledger_of_the_first_version_keeps_its_content(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
    first_release(kind, url)
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("INSERT INTO capabilities (customer, region) VALUES ('acme', 'eu-west-1')")
        )
    engine.dispose()
    ledger = open_ledger(url, CLOCK)
    try:
        assert ledger.checks.capabilities("acme").region == "eu-west-1"
        assert ledger.checks.newest() == []
        ledger.checks.record(AccessReport("acme", CLOCK.now(), ()))
        assert ledger.checks.last("acme") == AccessReport("acme", CLOCK.now(), ())
    finally:
        ledger.close()
