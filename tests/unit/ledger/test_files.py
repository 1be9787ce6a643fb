"""The ledger's file as a whole: backup, restore, check."""

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.ledger_schema import NOW, deliver
from xmode_transfer.ledger import database, files, open_ledger
from xmode_transfer.ledger.tables import SCHEMA_VERSION
from xmode_transfer.model.errors import (
    AlreadyRunning,
    ConfigError,
    LedgerCorrupt,
    LedgerError,
    LedgerTooNew,
    XmodeError,
)
from xmode_transfer.telemetry import SystemClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with a delivery of three objects."""
    path = tmp_path / "ledger.db"
    deliver(url(path), "2026-11-22")
    return path


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def periods(path: Path) -> set[str]:
    ledger = open_ledger(url(path), SystemClock())
    try:
        return {delivery.period for delivery in ledger.deliveries.find("acme")}
    finally:
        ledger.close()


def test_a_backup_is_one_file_that_only_its_owner_can_read(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    told: list[tuple[int, int]] = []
    made = files.backup(url(path), target, progress=lambda *pages: told.append(pages))
    assert (made.path, made.contents) == (target, (SCHEMA_VERSION, 1, 1, 3, 30))
    assert target.stat().st_mode & 0o777 == 0o600
    assert told[-1][0] == told[-1][1] > 0
    assert sorted(item.name for item in tmp_path.iterdir() if "backup" in item.name) == ["backup.db"]
    assert files.check(url(path), target).is_sound
    with pytest.raises(ConfigError, match="already"):
        files.backup(url(path), target)
    deliver(url(path), "2026-11-23")
    assert files.backup(url(path), target, overwrite=True).contents.deliveries == 2
    with pytest.raises(ConfigError, match="the ledger itself"):
        files.backup(url(path), path, overwrite=True)
    with pytest.raises(ConfigError, match="no directory"):
        files.backup(url(path), tmp_path / "absent" / "backup.db")
    for call in (
        lambda: files.check(url(path), tmp_path / "absent.db"),
        lambda: files.restore(url(path), tmp_path / "absent.db", NOW),
    ):
        with pytest.raises(ConfigError, match=r"no file .*absent\.db"):
            call()


def test_a_backup_under_load_is_consistent_and_blocks_no_writer(path: Path, tmp_path: Path) -> None:
    stop, failed = threading.Event(), []
    written: list[int] = []

    def write() -> None:
        try:
            for number in range(10_000):
                if stop.is_set():
                    return
                deliver(url(path), f"p-{number:04d}", "ab")
                written.append(number)
        except XmodeError as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            before = len(written)
            target = tmp_path / f"backup-{number}.db"
            made = files.backup(url(path), target)
            assert files.check(url(path), target).is_sound
            assert made.contents.deliveries >= before + 1
        deadline = len(written) + 2
        while len(written) < deadline and writer.is_alive():
            stop.wait(0.01)
    finally:
        stop.set()
        writer.join()
    assert not failed
    assert files.check(url(path)).is_sound


def test_a_restore_keeps_the_old_ledger(path: Path, tmp_path: Path) -> None:
    files.backup(url(path), tmp_path / "backup.db")
    deliver(url(path), "2026-11-23")
    made = files.restore(url(path), tmp_path / "backup.db", NOW)
    assert periods(path) == {"2026-11-22"}
    assert made.kept == tmp_path / "ledger.db.before-restore-20261123T063000Z"
    assert periods(made.kept) == {"2026-11-22", "2026-11-23"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "backup.db").exists()


def test_restores_within_one_second_keep_each_old_ledger(path: Path, tmp_path: Path) -> None:
    files.backup(url(path), tmp_path / "backup.db")
    kept = []
    for day in ("2026-11-23", "2026-11-24", "2026-11-25"):
        deliver(url(path), day)
        kept.append(files.restore(url(path), tmp_path / "backup.db", NOW).kept)
    name = "ledger.db.before-restore-20261123T063000Z"
    assert [one.name for one in kept] == [name, f"{name}-2", f"{name}-3"]
    assert [periods(one) for one in kept] == [
        {"2026-11-22", "2026-11-23"},
        {"2026-11-22", "2026-11-24"},
        {"2026-11-22", "2026-11-25"},
    ]


def test_concurrent_restores_keep_each_old_ledger(path: Path, tmp_path: Path) -> None:
    files.backup(url(path), tmp_path / "backup.db")
    deliver(url(path), "2026-11-23")
    start = threading.Barrier(4)

    def restore(_: int) -> Path | None:
        start.wait()
        return files.restore(url(path), tmp_path / "backup.db", NOW).kept

    with ThreadPoolExecutor(4) as threads:
        kept = list(threads.map(restore, range(4)))
    assert None not in kept
    assert len(set(kept)) == 4
    assert sorted(map(len, map(periods, kept))) == [1, 1, 1, 2]
    assert periods(path) == {"2026-11-22"}
    assert not list(tmp_path.glob(".ledger*"))


def test_a_restore_without_an_old_ledger(path: Path, tmp_path: Path) -> None:
    files.backup(url(path), tmp_path / "backup.db")
    gone = tmp_path / "elsewhere" / "ledger.db"
    assert files.restore(url(gone), tmp_path / "backup.db", NOW).kept is None
    assert periods(gone) == {"2026-11-22"}


def test_a_restore_is_refused_during_work_and_returns_dead_leases(path: Path, tmp_path: Path) -> None:
    ledger = open_ledger(url(path), SystemClock())
    ledger.leases.claim("delivery/acme/us-daily/2026-11-24", database.this_process(), 90)
    files.backup(url(path), tmp_path / "backup.db")
    before = path.stat().st_ino
    with pytest.raises(AlreadyRunning, match="2026-11-24"):
        files.restore(url(path), tmp_path / "backup.db", SystemClock().now())
    assert path.stat().st_ino == before
    assert not list(tmp_path.glob("*before-restore*"))
    assert not list(tmp_path.glob(".ledger*"))
    # an hour later its lease has run out: it is taken for dead, and is refused if it wakes
    later = datetime.fromtimestamp(SystemClock().now().timestamp() + 3600, UTC)
    files.restore(url(path), tmp_path / "backup.db", later)
    with pytest.raises(LedgerError, match="replaced"):
        ledger.leases.claim("anything", "me", 90)
    ledger.close()
    again = open_ledger(url(path), SystemClock())
    again.leases.claim("delivery/acme/us-daily/2026-11-24", "somebody else", 90)
    again.close()


def spoil(path: Path) -> None:
    """Overwrites the middle of the file, past its first page."""
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = b"\x00garbage" * ((len(data) - 8192) // 8)
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nonsense(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (a)")
    connection.close()


@pytest.mark.parametrize("damaged", [spoil, shorten, nonsense, another])
def test_a_damaged_backup_is_never_restored(
    path: Path, tmp_path: Path, damaged: Callable[[Path], None]
) -> None:
    backup = tmp_path / "backup.db"
    files.backup(url(path), backup)
    damaged(backup)
    try:
        found = files.check(url(path), backup).damage
    except LedgerCorrupt as error:
        found = (error.hint,)
    assert found
    with pytest.raises(LedgerCorrupt, match=r"/backup\.db is damaged") as refused:
        files.restore(url(path), backup, NOW)
    assert "another backup" in refused.value.hint
    assert periods(path) == {"2026-11-22"}
    assert not list(tmp_path.glob("*before-restore*"))


def test_a_damaged_ledger_can_be_replaced(path: Path, tmp_path: Path) -> None:
    files.backup(url(path), tmp_path / "backup.db")
    nonsense(path)
    made = files.restore(url(path), tmp_path / "backup.db", NOW)
    assert periods(path) == {"2026-11-22"}
    assert made.kept is not None
    assert made.kept.read_bytes().startswith(b"this is no database")


def test_a_backup_of_a_damaged_ledger_is_refused(path: Path, tmp_path: Path) -> None:
    spoil(path)
    with pytest.raises(LedgerError):
        files.backup(url(path), tmp_path / "backup.db")
    assert not (tmp_path / "backup.db").exists()


def test_a_later_version_is_refused(path: Path, tmp_path: Path) -> None:
    files.backup(url(path), tmp_path / "backup.db")
    with sqlite3.connect(tmp_path / "backup.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for call in (
        lambda: files.check(url(path), tmp_path / "backup.db"),
        lambda: files.restore(url(path), tmp_path / "backup.db", NOW),
    ):
        with pytest.raises(LedgerTooNew, match="9999"):
            call()


WRONG = {
    "UPDATE deliveries SET manifest_key = NULL": "is delivered, and has no manifest or no time",
    "UPDATE deliveries SET status = 'done'": "has a status that is none of",
    "DELETE FROM receipts WHERE name = 'b'": "an object of its plan has no receipt",
    "UPDATE deliveries SET object_count = 4": "its counts are not those of its plan",
    "UPDATE receipts SET key = 'x/other' WHERE name = 'a'": "for another key than was planned",
    "UPDATE receipts SET key = 'x/2026-11-22/a' WHERE name = 'b'": "is the key of two source files",
    "UPDATE receipts SET delivered_at = 'yesterday' WHERE name = 'a'": "without a checksum or a time",
    "DELETE FROM objects WHERE name = 'a'": "receipts: a row refers to a row of objects that is not there",
}


@pytest.mark.parametrize("statement", WRONG)
def test_contradictions_are_reported(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    found = files.check(url(path))
    problems = [*found.damage, *found.contradictions]
    assert any(WRONG[statement] in line for line in problems), problems
    assert not found.is_sound


def test_a_missing_ledger_is_reported(tmp_path: Path) -> None:
    for call in (
        lambda: files.check(url(tmp_path / "absent.db")),
        lambda: files.backup(url(tmp_path / "absent.db"), tmp_path / "b.db"),
    ):
        with pytest.raises(LedgerError, match="no ledger"):
            call()
    assert not list(tmp_path.iterdir())
