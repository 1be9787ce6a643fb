"""Changes of the configuration's files are noticed; what lies beside them is not."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xmode_transfer.service.active_configuration import FileWatch
from xmode_transfer.telemetry import SystemClock


class Ears:
    """A watched directory, and how often it was heard of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.heard = threading.Semaphore(0)
        self.failed: list[str] = []
        self.watch = FileWatch(directory, SystemClock().now(), self.heard.release, self.failed.append)
        for _ in range(600):  # until the watch is in place
            (directory / "service.yaml").write_text("")
            if self.heard.acquire(timeout=0.2):
                break
        self.silence()

    def hears(self, seconds: float = 120) -> bool:
        return self.heard.acquire(timeout=seconds)

    def silence(self) -> None:
        while self.heard.acquire(timeout=1.2):
            pass


@pytest.fixture
def ears(tmp_path: Path) -> Iterator[Ears]:
    (tmp_path / "customers").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "service.yaml").write_text("")
    ears = Ears(tmp_path)
    yield ears
    ears.watch.close()
    ears.watch.close()
    assert ears.failed == []


def test_added_changed_and_deleted_files_are_reported(ears: Ears) -> None:
    file = ears.directory / "customers" / "acme.yaml"
    file.write_text("company: Acme")
    assert ears.hears()
    ears.silence()
    new = ears.directory / "customers" / ".acme.yaml.tmp"  # as editors replace a file
    new.write_text("company: Acme Corp")
    new.rename(file)
    assert ears.hears()
    ears.silence()
    file.unlink()
    assert ears.hears()
    ears.silence()
    (ears.directory / "service.yaml").write_text("engine: auto")
    assert ears.hears()


def test_changes_are_reported_together(ears: Ears) -> None:
    for number in range(50):
        (ears.directory / "customers" / f"c{number}.yaml").write_text("x")
        time.sleep(0.01)
    assert ears.hears()
    more = 0
    while ears.hears(1.5):
        more += 1
    assert more < 5  # none, unless the machine is so slow that there are pauses between them


def test_a_new_folder_is_watched(ears: Ears) -> None:
    (ears.directory / "feeds").mkdir()
    assert ears.hears()
    ears.silence()
    (ears.directory / "feeds" / "us-daily.yaml").write_text("x")
    assert ears.hears()


def test_the_ledger_and_editors_files_are_ignored(ears: Ears) -> None:
    (ears.directory / "var" / "ledger.db").write_text("x")
    (ears.directory / "customers" / ".acme.yaml.swp").write_text("x")
    (ears.directory / "customers" / "acme.yaml~").write_text("x")
    assert not ears.hears(1.8)


def test_changes_before_the_watch_are_reported(tmp_path: Path) -> None:
    read_at = SystemClock().now()
    (tmp_path / "customers").mkdir()
    (tmp_path / "customers" / "acme.yaml").write_text("company: Acme")
    heard = threading.Semaphore(0)
    watch = FileWatch(tmp_path, read_at, heard.release, lambda _: None)
    try:
        assert heard.acquire(timeout=60)
    finally:
        watch.close()


def test_files_that_were_read_are_not_reported(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("")
    time.sleep(0.3)
    heard = threading.Semaphore(0)
    watch = FileWatch(tmp_path, SystemClock().now(), heard.release, lambda _: None)
    try:
        assert not heard.acquire(timeout=3)
    finally:
        watch.close()


def test_a_file_deleted_before_the_watch_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service.yaml").write_text("")
    time.sleep(0.3)
    read_at = SystemClock().now()
    listed = Path.iterdir

    def with_one_that_is_gone(directory: Path) -> Iterator[Path]:
        yield from listed(directory)
        yield directory / "gone.yaml"

    monkeypatch.setattr(Path, "iterdir", with_one_that_is_gone)
    heard, failed = threading.Semaphore(0), list[str]()
    watch = FileWatch(tmp_path, read_at, heard.release, failed.append)
    try:
        assert heard.acquire(timeout=60)
        (tmp_path / "service.yaml").write_text("engine: auto")
        assert heard.acquire(timeout=60)
    finally:
        watch.close()
    assert failed == []
