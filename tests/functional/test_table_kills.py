"""A customer's tool that reads a table again and again, while `run` is killed."""

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.forms import IS_SOAK
from tests.functional.conftest import Project
from tests.functional.test_table_readers import FEEDS
from tests.table_readers import Readers, parquet
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox

pytestmark = pytest.mark.sandbox

FILES, ROWS = 3, 20
KILLS = 30 if IS_SOAK else 4


class Polling:
    """What a reader sees. While objects are ``going``, a read that began before the removal was committed may
    miss some; what it reads next is whole again."""

    def __init__(self, readers: Readers) -> None:
        self.readers = readers
        self.going = threading.Event()
        self.polls = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def _poll(self) -> None:
        while not self._stop.is_set():
            table = None
            try:
                table = self.readers.table()
                self._look(table.to_pyarrow_table(columns=["dt", "batch"]).to_pydict())
            except Exception as error:  # noqa: BLE001 - a reader must not meet any
                began = -1 if table is None else table.version()
                if not self.going.is_set() or table is None or self.readers.table().version() == began:
                    self.wrong.append(f"version {began}: {error!r}")

    def _look(self, seen: dict[str, list[Any]]) -> None:
        """Every delivery has its number, and is seen with all of its rows; a period has one delivery."""
        found = Counter(zip(map(str, seen["dt"]), seen["batch"], strict=True))
        self.polls += 1
        self.wrong += [f"{rows} rows of {of}" for of, rows in found.items() if rows != FILES * ROWS]
        twice = Counter(day for day, _ in found)
        self.wrong += [f"{count} deliveries of {day}" for day, count in twice.items() if count > 1]

    def __enter__(self) -> "Polling":
        self._thread.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._stop.set()
        self._thread.join(60)


def write(here: Project, day: int, batch: int) -> None:
    for number in range(FILES):
        ids = range(number * ROWS, number * ROWS + ROWS)
        here.write(f"2026/11/{day:02}/part-{number}.parquet", parquet(batch, ids))
    here.write(f"2026/11/{day:02}/_SUCCESS", b"%d" % batch)


def killed(here: Project, after_seconds: float, *command: str) -> bool:
    """Whether it was killed; else it had ended before."""
    process = here.start(*command)
    try:
        out, err = process.communicate(timeout=after_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, (out, err)
    return False


@pytest.mark.short
@pytest.mark.timeout(600)
def test_a_reader_never_sees_half_a_delivery(
    project: Callable[..., Any], sandbox: Sandbox, acme: CustomerSetup
) -> None:
    here: Project = project(acme, feeds=FEEDS, overrides={"acme": {"retention": {"keep_last": 2}}})
    run = ("run", "--customer", "acme", "--since", "2026-11-01")
    longest = 0.0
    for day in (1, 2):  # the first run imports too
        write(here, day, day)
        began = time.monotonic()
        assert here.run(*run).code == 0
        longest = time.monotonic() - began
    write(here, day := day + 1, day)
    readers, chance, kills = Readers.of(sandbox, acme), random.Random(), 0
    with Polling(readers) as polling:
        while kills < KILLS:
            if not killed(here, chance.uniform(0, longest), *run):
                write(here, day := day + 1, day)
            else:
                kills += 1
        if IS_SOAK:
            write(here, day, 1000)  # corrected
            while killed(here, chance.uniform(0, longest), *run):
                pass
            polling.going.set()
            while killed(here, chance.uniform(0, longest), "cleanup", "--customer", "acme", "--confirm"):
                pass
    assert polling.wrong == []
    assert polling.polls > KILLS
    assert here.run(*run).code == 0
    last = readers.table().to_pyarrow_table(columns=["dt", "batch"]).to_pydict()
    newest = Counter(row[:2] for row in readers.newest())
    assert Counter(zip(map(str, last["dt"]), last["batch"], strict=True)) == newest
    assert len(newest) == (2 if IS_SOAK else day)
    assert here.run("verify", "--customer", "acme", "--json").json["outcome"] == "proven"
