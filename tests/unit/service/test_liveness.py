"""What a probe and systemd's watchdog look at."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fakes.clock import MemoryClock
from xmode_transfer.service import lifecycle
from xmode_transfer.service.lifecycle import EVERY_SECONDS, Liveness

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(lifecycle, "watchdog", lambda: said.append("watchdog"))
    return said


def test_a_file_is_touched_and_the_watchdog_told_now_and_then(tmp_path: Path, told: list[str]) -> None:
    clock, file = MemoryClock(NOW), tmp_path / "alive"
    liveness = Liveness(clock, file)
    assert not file.exists(), "a process that never got on is not alive"
    liveness.gets_on()
    os.utime(file, (0, 0))
    clock.advance(EVERY_SECONDS / 2)
    liveness.gets_on()
    assert (file.stat().st_mtime, told) == (0, ["watchdog"])
    clock.advance(EVERY_SECONDS / 2)
    liveness.gets_on()
    assert file.stat().st_mtime > 0
    assert len(told) == 2
    liveness.close()
    assert not file.exists()


def test_without_a_file_and_with_one_that_cannot_be_written(tmp_path: Path, told: list[str]) -> None:
    for file in (None, tmp_path / "missing" / "alive"):
        liveness = Liveness(MemoryClock(NOW), file)
        liveness.gets_on()
        liveness.close()
    assert len(told) == 2
