"""`ledger copy`: a whole ledger into another database, compared, or nothing at all."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Boolean, Connection, Double, Integer, Table

from tests.ledger_schema import deliver
from xmode_transfer.ledger import copying, files, open_ledger
from xmode_transfer.ledger.copying import TABLES, plain
from xmode_transfer.ledger.database import this_process
from xmode_transfer.ledger.schema import connect
from xmode_transfer.ledger.tables import SCHEMA_VERSION, daemons, leases, metadata
from xmode_transfer.model.errors import (
    AlreadyRunning,
    ConfigError,
    LeaseLost,
    LedgerCorrupt,
    LedgerError,
    LedgerLocked,
    LedgerTooNew,
)
from xmode_transfer.telemetry import SystemClock

TIME = "2026-11-23T06:30:00.000000Z"
TEXTS = (
    "plain",
    "",
    " ",
    "a\tb\nc\r",
    "\\N",
    "\\",
    "\\.",
    "'\"",
    "%s %(x)s :x ?",
    "ключ/日本",
    "e\u0301",
    "😀",
    "NULL",
)
Rows = dict[str, list[tuple[Any, ...]]]


# --- A ledger with something in every table


def fill(url: str, seed: int, rows: int = 25) -> None:
    """Each table gets so many rows of awkward values, which keep to our rules, and some more that are
    delivered."""
    open_ledger(url, SystemClock()).close()
    chance = random.Random(seed)
    with writing(url) as connection:
        made: Rows = {}
        for table in TABLES:
            made[table.name] = [_row(table, number, made, chance) for number in range(rows)]
            names = [column.name for column in table.columns]
            connection.execute(
                sqlalchemy.insert(plain(table)),
                [dict(zip(names, row, strict=True)) for row in made[table.name]],
            )
        copying._finish(connection)
    deliver(url, "2026-11-22")


def _row(table: Table, number: int, made: Rows, chance: random.Random) -> tuple[Any, ...]:
    fixed: dict[str, Any] = {
        "status": "running",
        "holder": None,
        "presence": None,
        "claimed_at": None,
        "expires_at": None,
        "delivered_at": TIME,
        "customer": "acme",
    }
    if table.name in ("runs", "acts", "daemons", "workers"):
        fixed["holder"] = f"host/boot/{number}/1"
    if table.name == "daemons":
        fixed["stopped_at"] = TIME
    values = {}
    for constraint in table.foreign_key_constraints:
        parent = constraint.elements[0].column.table
        row = made[parent.name][number]
        for key in constraint.elements:
            values[key.parent.name] = row[list(parent.columns).index(key.column)]
    if table.name == "receipts":  # for the key that was planned
        row = made["objects"][number]
        values["key"] = row[list(metadata.tables["objects"].columns).index(metadata.tables["objects"].c.key)]
    for column in table.columns:
        if column.name in values:
            continue
        is_its_name = list(table.primary_key.columns) == [column]
        if column.name in fixed and not (column.name == "customer" and is_its_name):
            values[column.name] = fixed[column.name]
        elif column.nullable and chance.random() < 0.4:
            values[column.name] = None
        else:
            values[column.name] = _value(column, number, chance)
    return tuple(values[column.name] for column in table.columns)


def _value(column: Any, number: int, chance: random.Random) -> Any:
    if isinstance(column.type, Boolean):
        return chance.random() < 0.5
    if isinstance(column.type, Double):
        return chance.choice([0.0, 0.1, 1e-9, 123456.789, float(number), chance.random()])
    if isinstance(column.type, Integer):
        if column.primary_key or column.name == "revision":
            return number + 1
        return chance.choice([0, 1, number, 2**31 - 1] + ([2**50] if "BIG" in str(column.type) else []))
    if (
        column.name in ("checksum", "algorithm")
        or column.primary_key
        or column.name in ("id", "upload_id", "period")
    ):
        return f"{number:03d}{chance.choice(TEXTS)}"
    return chance.choice(TEXTS)


@contextmanager
def writing(url: str) -> Iterator[Connection]:
    database = connect(url, create=False)
    try:
        with database.writing() as connection:
            yield connection
    finally:
        database.close()


def everything(url: str) -> Rows:
    with writing(url) as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sqlalchemy.select(plain(table)))), key=repr)
            for table in TABLES
        }


def is_bare(url: str) -> bool:
    """Whether there is no table at all."""
    with writing(url) as connection:
        return sqlalchemy.inspect(connection).get_table_names() == []


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


# --- There and back


def test_a_copy_to_postgresql_and_back_is_identical(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    fill(sqlite_url, 1, rows=75)
    before = everything(sqlite_url)
    told: list[tuple[int, int]] = []
    there = copying.copy(
        sqlite_url, postgres_url, SystemClock(), keep=True, progress=lambda *rows: told.append(rows)
    )
    assert everything(postgres_url) == before == everything(sqlite_url)
    assert told[-1] == (2 * there.rows, 2 * there.rows)
    assert there.rows == sum(map(len, before.values()))
    assert {table.name: table.rows for table in there.tables} == {
        name: len(rows) for name, rows in before.items()
    }
    home = f"sqlite:///{tmp_path}/home/ledger.db"
    back = copying.copy(postgres_url, home, SystemClock())
    assert everything(home) == before
    assert back.tables == there.tables
    assert back.contents == there.contents
    assert files.check(home).is_sound
    assert (tmp_path / "home" / "ledger.db").stat().st_mode & 0o777 == 0o600


def test_postgresql_continues_after_the_highest_number(sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, 1)
    copying.copy(sqlite_url, postgres_url, SystemClock())
    deliver(postgres_url, "2026-11-23")
    found = files.check(postgres_url)
    assert (found.is_sound, found.on_server, found.older) == (True, True, False)
    numbered = [table for table in TABLES if table.autoincrement_column is not None]
    assert {table.name for table in numbered} == {"periods", "uploads", "access_checks"}
    with writing(postgres_url) as connection:
        for table in numbered:
            after, highest = connection.exec_driver_sql(
                f"SELECT nextval(pg_get_serial_sequence('{table.name}', 'id')), max(id) FROM {table.name}"
            ).one()
            assert after > highest


def test_an_empty_ledger_can_be_copied_and_then_filled(sqlite_url: str, postgres_url: str) -> None:
    open_ledger(sqlite_url, SystemClock()).close()
    moved = copying.copy(sqlite_url, postgres_url, SystemClock())
    assert moved.rows == 0
    deliver(postgres_url, "2026-11-22")
    assert files.check(postgres_url).contents == (SCHEMA_VERSION, 1, 1, 3, 30)


def test_a_target_may_have_our_empty_tables(sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, 2)
    open_ledger(postgres_url, SystemClock()).close()
    copying.copy(sqlite_url, postgres_url, SystemClock(), keep=True)
    assert everything(postgres_url) == everything(sqlite_url)


# --- The old ledger


def test_a_moved_ledger_is_refused(sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, 3)
    late = open_ledger(sqlite_url, SystemClock())
    lease = late.leases.claim("delivery/acme/us-daily/late", "host/boot/1/1", 0)
    moved = copying.copy(sqlite_url, postgres_url, SystemClock())
    assert moved.leases_given_back == 1
    with pytest.raises(LeaseLost):
        late.leases.renew(lease, 90)
    late.close()
    for call in (
        lambda: open_ledger(sqlite_url, SystemClock()),
        lambda: files.check(sqlite_url),
        lambda: files.backup(sqlite_url, tmp_path / "backup.db"),
        lambda: copying.copy(sqlite_url, f"sqlite:///{tmp_path}/other.db", SystemClock()),
    ):
        with pytest.raises(LedgerError, match="was moved to another database on ") as caught:
            call()
        assert not isinstance(caught.value, LedgerTooNew)
        assert "service.yaml" in caught.value.hint
    assert not (tmp_path / "other.db").exists()
    with writing(postgres_url) as connection:
        (row,) = connection.execute(
            sqlalchemy.select(leases).where(leases.c.name == "delivery/acme/us-daily/late")
        )
    assert (row.generation, row.holder, row.expires_at) == (lease.generation, None, None)


def test_a_moved_ledger_on_postgresql_is_refused(postgres_url: str, sqlite_url: str) -> None:
    fill(postgres_url, 4)
    copying.copy(postgres_url, sqlite_url, SystemClock())
    for call in (lambda: open_ledger(postgres_url, SystemClock()), lambda: files.check(postgres_url)):
        with pytest.raises(LedgerError, match="was moved to another database on "):
            call()
    assert files.check(sqlite_url).is_sound


# --- Refusals


def test_a_ledger_in_use_is_not_copied(sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, 5)
    ledger = open_ledger(sqlite_url, SystemClock())
    lease = ledger.leases.claim("daemon", this_process(), 90)
    with pytest.raises(AlreadyRunning, match=r"daemon is being worked on, by .* not copied"):
        copying.copy(sqlite_url, postgres_url, SystemClock())
    with pytest.raises(AlreadyRunning):
        copying.copy(sqlite_url, postgres_url, SystemClock(), dry_run=True)
    ledger.leases.release(lease)
    ledger.close()
    with writing(sqlite_url) as connection:
        now = SystemClock().now()
        connection.execute(
            sqlalchemy.update(daemons)
            .where(daemons.c.holder == "host/boot/3/1")
            .values(ticked_at=now, tick_seconds=60, stopped_at=None)
        )
    with pytest.raises(AlreadyRunning, match="a daemon works with it, pid 3 on host"):
        copying.copy(sqlite_url, postgres_url, SystemClock())
    assert is_bare(postgres_url)


def test_an_idle_process_is_found_on_a_server(postgres_url: str, sqlite_url: str) -> None:
    fill(postgres_url, 6)
    waiting = open_ledger(postgres_url, SystemClock())
    try:
        assert waiting.deliveries.latest("acme", "us-daily", "2026-11-22") is not None
        with pytest.raises(AlreadyRunning, match="another process has it open"):
            copying.copy(postgres_url, sqlite_url, SystemClock())
    finally:
        waiting.close()


def test_leases_of_dead_processes_do_not_prevent_a_copy(sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, 7)
    host, boot, _, _ = this_process().split("/")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ledger = open_ledger(sqlite_url, SystemClock())
    ledger.leases.claim("daemon", f"{host}/{boot}/{ended.pid}/1", 3600)
    ledger.close()
    assert copying.copy(sqlite_url, postgres_url, SystemClock()).leases_given_back == 1


def test_only_an_empty_target_is_accepted(sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, 8)
    with pytest.raises(ConfigError, match="is the ledger itself"):
        copying.copy(sqlite_url, f"sqlite:///{tmp_path}/./ledger.db", SystemClock())
    deliver(postgres_url, "2026-11-20")
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"is not empty: \w+ has [\d,]+ row") as caught:
            copying.copy(sqlite_url, postgres_url, SystemClock(), dry_run=dry_run)
        assert "name an empty database" in caught.value.hint
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE pets (name TEXT)")
    connection.close()
    with pytest.raises(LedgerCorrupt, match="pets"):
        copying.copy(sqlite_url, f"sqlite:///{foreign}", SystemClock())
    assert foreign.exists()
    assert files.check(sqlite_url).is_sound


def test_the_source_must_be_of_this_version(sqlite_url: str, postgres_url: str) -> None:
    with pytest.raises(LedgerError, match="There is no ledger"):
        copying.copy(sqlite_url, postgres_url, SystemClock())
    fill(sqlite_url, 9)
    with writing(sqlite_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(ConfigError, match="an earlier version") as caught:
        copying.copy(sqlite_url, postgres_url, SystemClock())
    assert "migrate it first" in caught.value.hint
    assert is_bare(postgres_url)


def test_a_ledger_that_breaks_our_rules_is_not_copied(sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, 10)
    with writing(sqlite_url) as connection:
        connection.exec_driver_sql("UPDATE deliveries SET total_bytes = 31 WHERE id = 'id-2026-11-22'")
    for dry_run in (True, False):
        with pytest.raises(LedgerCorrupt, match="its counts are not those of its plan"):
            copying.copy(sqlite_url, postgres_url, SystemClock(), dry_run=dry_run)
    assert is_bare(postgres_url)


def test_a_copy_that_differs_is_not_kept(
    sqlite_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_url, 11)
    put = copying._put

    def spoilt(connection: Connection, table: Table, rows: Any) -> None:
        put(connection, table, rows)
        if table.name == "receipts":
            connection.exec_driver_sql("UPDATE receipts SET etag = 'other' WHERE name = 'b'")

    monkeypatch.setattr(copying, "_put", spoilt)
    with pytest.raises(LedgerCorrupt, match="The copy of receipts differs from what was copied: checksum"):
        copying.copy(sqlite_url, postgres_url, SystemClock())
    assert is_bare(postgres_url)
    assert files.check(sqlite_url).is_sound


def test_a_dry_run_writes_nothing(sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    fill(sqlite_url, 12)
    before = everything(sqlite_url)
    moved = copying.copy(sqlite_url, postgres_url, SystemClock(), dry_run=True)
    assert moved.rows == sum(map(len, before.values()))
    assert is_bare(postgres_url)
    copying.copy(sqlite_url, f"sqlite:///{tmp_path}/new/ledger.db", SystemClock(), dry_run=True)
    assert not (tmp_path / "new").exists()
    assert files.check(sqlite_url).is_sound


# --- In the middle


def test_other_processes_cannot_write_during_a_copy(sqlite_url: str, postgres_url: str) -> None:
    fill(sqlite_url, 13)
    refused: list[LedgerError] = []

    def told(done: int, total: int) -> None:
        if not refused:
            with pytest.raises(LedgerLocked) as caught:
                deliver(f"{sqlite_url}?timeout=0.1", "2026-11-24")
            refused.append(caught.value)

    copying.copy(sqlite_url, postgres_url, SystemClock(), progress=told)
    assert refused


_KILLED = """
    import os, signal, sys
    from xmode_transfer.telemetry import SystemClock
    from xmode_transfer.ledger import copying

    def told(done, total):
        if done >= total * float(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

    copying._ROWS_AT_A_TIME = 5
    copying.copy(sys.argv[1], sys.argv[2], SystemClock(), progress=told)
"""


@pytest.mark.parametrize("part", [0.5, *(pytest.param(part, marks=pytest.mark.slow) for part in (0.1, 1.0))])
@pytest.mark.parametrize("to", ["postgresql", "sqlite"])
def test_a_killed_copy_leaves_an_empty_target(
    sqlite_url: str, request: pytest.FixtureRequest, tmp_path: Path, to: str, part: float
) -> None:
    fill(sqlite_url, 14)
    before = everything(sqlite_url)
    target = f"sqlite:///{tmp_path}/new.db" if to == "sqlite" else request.getfixturevalue("postgres_url")
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_KILLED), sqlite_url, target, str(part)],
        check=False,
        timeout=60,
        env=dict(os.environ),
    )
    assert killed.returncode == -signal.SIGKILL
    assert is_bare(target)
    assert files.check(sqlite_url).is_sound
    assert copying.copy(sqlite_url, target, SystemClock()).rows == sum(map(len, before.values()))
    assert everything(target) == before
