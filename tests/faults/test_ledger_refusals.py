"""A ledger that cannot be read or written: the error says what happened and what to do; nothing is harmed."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.fakes.clock import MemoryClock
from xmode_transfer.ledger import Ledger, files, open_ledger
from xmode_transfer.ledger.tables import SCHEMA_VERSION
from xmode_transfer.model.errors import (
    ConfigError,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerReadOnly,
    LedgerTooNew,
)
from xmode_transfer.model.records import Checksum, Delivery, Lease, PlannedObject, Receipt, Status

CLOCK = MemoryClock()
NOW = CLOCK.now()


def an_object(name: str) -> PlannedObject:
    return PlannedObject(name, f"xmode/{name}", 1_000, 17, "inode")


def a_receipt(name: str) -> Receipt:
    return Receipt(name, f"xmode/{name}", 1_000, Checksum("crc32", "AAAAAQ=="), '"etag"', NOW)


def fill(path: Path) -> Lease:
    """A ledger with one delivery of three objects, one of them delivered."""
    ledger = open_ledger(f"sqlite:///{path}", CLOCK)
    lease = ledger.leases.claim("work", "host-a", 90)
    ledger.deliveries.create(lease, Delivery("d", "acme", "us-daily", "day", 1, Status.RUNNING, NOW, NOW))
    ledger.objects.plan(lease, "d", [an_object(name) for name in "abc"])
    ledger.objects.record_receipt(lease, "d", a_receipt("a")).result()
    ledger.close()
    return lease


def assert_unharmed(path: Path) -> None:
    assert files.check(f"sqlite:///{path}").is_sound
    ledger = open_ledger(f"sqlite:///{path}", CLOCK)
    try:
        assert [item.name for item in ledger.objects.pending("d")] == ["b", "c"]
        assert [r for _, r in ledger.objects.planned("d")] == [a_receipt("a"), None, None]
    finally:
        ledger.close()


def writes(ledger: Ledger, lease: Lease) -> list[Callable[[], object]]:
    """A write of each kind: through the writer's queue, in a group, and in bulk."""
    return [
        lambda: ledger.leases.claim("other work", "host-b", 90),
        lambda: ledger.objects.record_receipt(lease, "d", a_receipt("b")).result(timeout=120),
        lambda: ledger.objects.plan(lease, "d", [an_object("z")]),
    ]


# --- Locked ------------------------------------------------------------------------------------------


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
    finally:
        process.communicate(b"\n")


def test_a_locked_ledger_can_be_read_and_written_after_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    lease = fill(path)
    ledger = open_ledger(f"sqlite:///{path}?timeout=0.2", CLOCK)
    try:
        with locked_by_another_process(path):
            for write in writes(ledger, lease):
                with pytest.raises(LedgerLocked, match="locked by another process") as caught:
                    write()
                assert str(path) in caught.value.hint
                assert caught.value.retryable
            with pytest.raises(LedgerLocked):
                ledger.prove_writable()
            many = [ledger.objects.record_receipt(lease, "d", a_receipt("b")) for _ in range(500)]
            # one wait for all of them, not one for each, which would be 100 seconds
            assert wait(many, timeout=60).not_done == set()
            assert all(isinstance(future.exception(), LedgerLocked) for future in many)
            assert [item.name for item in ledger.objects.pending("d")] == ["b", "c"]
        assert_unharmed(path)
        for write in writes(ledger, lease):
            write()
        assert [item.name for item in ledger.objects.pending("d")] == ["c", "z"]
    finally:
        ledger.close()


def test_the_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    lease = fill(path)
    ledger = open_ledger(f"sqlite:///{path}", CLOCK)
    try:
        with locked_by_another_process(path):
            future = ledger.objects.record_receipt(lease, "d", a_receipt("b"))
            with pytest.raises(TimeoutError):
                future.result(timeout=0.3)
        future.result(timeout=120)
    finally:
        ledger.close()


def test_a_new_file_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    """As two processes do that make the ledger at the same moment. SQLite itself refuses at once."""
    path = tmp_path / "ledger.db"
    path.touch()
    with ThreadPoolExecutor(1) as threads:
        with locked_by_another_process(path):
            opening = threads.submit(open_ledger, f"sqlite:///{path}", CLOCK)
            with pytest.raises(TimeoutError):
                opening.result(timeout=0.3)
        opening.result(timeout=120).close()


# --- Read-only ---------------------------------------------------------------------------------------


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that another user can reach, as ``tmp_path`` cannot be."""
    directory = Path(tempfile.mkdtemp(prefix="xmode-ledger-"))
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everywhere, so these tests go on as another user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def refused(path: Path, lease: Lease) -> Iterator[LedgerReadOnly]:
    """SQLite cannot always open such a file; where it can, the ledger can be read, and refuses each write."""
    try:
        ledger = open_ledger(f"sqlite:///{path}", CLOCK)
    except LedgerReadOnly as refusal:
        yield refusal
        return
    try:
        assert [item.name for item in ledger.objects.pending("d")] == ["b", "c"]
        for write in writes(ledger, lease):
            with pytest.raises(LedgerReadOnly, match="cannot be written") as caught:
                write()
            yield caught.value
    finally:
        ledger.close()


@pytest.mark.parametrize("in_use", [True, False], ids=["in use", "not in use"])
def test_a_read_only_file_and_directory(shared_directory: Path, in_use: bool) -> None:
    path = shared_directory / "ledger.db"
    lease = fill(path)
    path.chmod(0o444)
    owner = open_ledger(f"sqlite:///{path}", CLOCK) if in_use and os.geteuid() == 0 else None
    shared_directory.chmod(0o555)
    try:
        with without_privileges():
            refusals = list(refused(path, lease))
        assert refusals
        for refusal in refusals:
            assert str(path) in refusal.message
            assert str(shared_directory) in refusal.hint
    finally:
        if owner is not None:
            owner.close()
        shared_directory.chmod(0o755)
        path.chmod(0o600)
    assert_unharmed(path)


def test_a_read_only_directory(shared_directory: Path) -> None:
    shared_directory.chmod(0o555)
    with without_privileges():
        for path in (shared_directory / "ledger.db", shared_directory / "below" / "ledger.db"):
            with pytest.raises(LedgerReadOnly, match="cannot be written: Permission denied"):
                open_ledger(f"sqlite:///{path}", CLOCK)
    assert list(shared_directory.iterdir()) == []


# --- Full --------------------------------------------------------------------------------------------


@contextmanager
def no_more_pages(pages: int) -> Iterator[None]:
    """SQLite's own limit: a write that needs one more page is answered as on a full disk."""

    def limit(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


def test_a_full_disk_fails_only_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    lease = fill(path)
    with sqlite3.connect(path) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    with no_more_pages(pages):
        ledger = open_ledger(f"sqlite:///{path}", CLOCK)
        try:
            many = (an_object(f"{n:05}") for n in range(2_000))
            with pytest.raises(LedgerFull, match="no room left") as caught:
                ledger.objects.plan(lease, "d", many)
            assert "df -h" in caught.value.hint
            assert [item.name for item in ledger.objects.pending("d")] == ["b", "c"]
            huge = Receipt("b", "k", 1, Checksum("crc32", "A" * 100_000), "etag", NOW)
            futures = [
                ledger.objects.record_receipt(lease, "d", huge),
                ledger.objects.record_receipt(lease, "d", a_receipt("c")),
            ]
            assert isinstance(futures[0].exception(timeout=120), LedgerFull)
            assert futures[1].exception(timeout=120) is None
        finally:
            ledger.close()
    assert files.check(f"sqlite:///{path}").is_sound
    ledger = open_ledger(f"sqlite:///{path}", CLOCK)
    assert [item.name for item in ledger.objects.pending("d")] == ["b"]
    assert ledger.objects.record_receipt(lease, "d", huge).result() is None
    ledger.close()


def test_a_migration_that_finds_the_disk_full_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with no_more_pages(5), pytest.raises(LedgerFull):
        open_ledger(f"sqlite:///{path}", CLOCK)
    fill(path)
    assert_unharmed(path)


FULL_DISK = """
import sys, pathlib
from xmode_transfer.ledger import files, open_ledger
from tests.fakes.clock import MemoryClock
from xmode_transfer.model.errors import LedgerFull
from xmode_transfer.model.records import Delivery, PlannedObject, Status
clock = MemoryClock()
now = clock.now()
ledger = open_ledger("sqlite:///" + sys.argv[1] + "/ledger.db", clock)
lease = ledger.leases.claim("work", "host-a", 90)
ledger.deliveries.create(lease, Delivery("d", "acme", "us-daily", "day", 1, Status.RUNNING, now, now))
ballast = pathlib.Path(sys.argv[1], "ballast")
try:
    with ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    pass
plan = [PlannedObject(f"{n:05}", f"k/{n:05}", 1, 1, "i") for n in range(3000)]
try:
    ledger.objects.plan(lease, "d", plan)
except LedgerFull as error:
    print("full:", error)
try:
    ledger.prove_writable()
except LedgerFull as error:
    print("proven:", error)
assert list(ledger.objects.planned("d")) == []
assert files.check("sqlite:///" + sys.argv[1] + "/ledger.db").is_sound
ballast.unlink()
print(ledger.objects.plan(lease, "d", plan), "planned")
ledger.close()
"""


def test_a_full_file_system(tmp_path: Path) -> None:
    """A file system of 3 MB in a mount namespace of its own, where this machine allows one."""
    script = 'mount -t tmpfs -o size=3m none "$1" && exec "$2" -c "$3" "$1"'
    unshare = ["unshare", "--mount", "--map-root-user"]
    try:
        subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    done = subprocess.run(
        [*unshare, "sh", "-c", script, "sh", tmp_path, sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"full: There is no room left for the ledger {tmp_path}/ledger.db: database or disk is full.",
        f"proven: There is no room left for the ledger {tmp_path}/ledger.db: database or disk is full.",
        "3000 planned",
    ]


# --- Not our ledger ----------------------------------------------------------------------------------


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"2026-11-23 delivered 12 files\n" * 1_000)
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt, match="is not a database") as caught:
        open_ledger(f"sqlite:///{path}", CLOCK)
    assert "Do not delete it" in caught.value.hint
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    fill(path)
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\xa5" * (len(content) - 4096 * 2)
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match="malformed"):  # noqa: PT012 - whichever page is read first
        ledger = open_ledger(f"sqlite:///{path}", CLOCK)
        try:
            list(ledger.objects.planned("d"))
        finally:
            ledger.close()


def test_another_programs_database_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE invoices (number)")
    connection.close()
    with pytest.raises(LedgerCorrupt, match=r"it holds other tables \(invoices\)"):
        open_ledger(f"sqlite:///{path}", CLOCK)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
    connection.close()


@pytest.mark.parametrize("version", ["0099", "20261123", "a1b2c3"])
def test_a_ledger_of_a_later_version_is_not_touched(tmp_path: Path, version: str) -> None:
    path = tmp_path / "ledger.db"
    fill(path)
    set_versions(path, version)
    before = path.read_bytes()
    with pytest.raises(
        LedgerTooNew, match=f"schema version {version}; this program knows version {SCHEMA_VERSION}"
    ):
        open_ledger(f"sqlite:///{path}", CLOCK)
    assert path.read_bytes() == before
    set_versions(path, SCHEMA_VERSION)
    assert_unharmed(path)


def test_a_ledger_without_one_version_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    fill(path)
    set_versions(path)
    with pytest.raises(LedgerCorrupt, match="0 schema versions"):
        open_ledger(f"sqlite:///{path}", CLOCK)


def set_versions(path: Path, *versions: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [(version,) for version in versions])
    connection.close()


def test_a_ledger_that_was_replaced_is_not_written(tmp_path: Path) -> None:
    """A backup put in its place, or the file moved away: what we write now would be lost in silence."""
    path = tmp_path / "ledger.db"
    lease = fill(path)
    ledger = open_ledger(f"sqlite:///{path}", CLOCK)
    try:
        for happens in (lambda: path.rename(tmp_path / "moved.db"), lambda: path.touch()):
            happens()
            for write in writes(ledger, lease):
                with pytest.raises(LedgerError, match="moved, removed or replaced"):
                    write()
        path.unlink()
        (tmp_path / "moved.db").rename(path)
        assert ledger.leases.claim("other work", "host-b", 90).generation == 1
    finally:
        ledger.close()
    assert_unharmed(path)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ledger.db", "not a database URL"),
        ("mysql://host/db", "'mysql' is not a database for the ledger"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///l.db?timeout=soon", "timeout=soon is not a number"),
    ],
)
def test_a_url_that_cannot_be_a_ledger(
    url: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=complaint):
        open_ledger(url, CLOCK)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be opened"):
        open_ledger(f"sqlite:///{tmp_path}", CLOCK)
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be opened: File exists"):
        open_ledger(f"sqlite:///{tmp_path}/file/ledger.db", CLOCK)
