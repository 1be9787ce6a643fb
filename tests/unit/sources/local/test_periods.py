import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import MemoryClock
from xmode_transfer.model.errors import SourceMissing, SourceUnreadable
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceProblem
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.sources.local import LocalSource

NONE = Period.none()
DAY = Period.parse("2026-11-22", PeriodKind.DAY)
Put = Callable[..., Path]
Sources = Callable[..., LocalSource]
SETTLE = {"settle_seconds": 300}


def labels(source: LocalSource) -> list[str]:
    return [state.period.label for state in source.periods() if isinstance(state, PeriodState)]


def unfollowed(source: LocalSource) -> list[tuple[str, str]]:
    return sorted((found.name, found.code) for found in source.periods() if isinstance(found, SourceProblem))


@pytest.mark.parametrize(
    ("kind", "partition", "directories", "expected"),
    [
        (
            "day",
            "%Y/%m/%d",
            ["2026/11/22", "2026/11/03", "2025/12/31", "2026/11/22/deeper", "2026/10"],
            ["2025-12-31", "2026-11-03", "2026-11-22"],
        ),
        (
            "day",
            "%d/%m/%Y",
            ["22/11/2026", "01/12/2026", "31/12/2025"],
            ["2025-12-31", "2026-11-22", "2026-12-01"],
        ),
        (
            "day",
            "dt=%Y-%m-%d",
            [
                "dt=2026-11-22",
                "dt=2026-11-2",
                "dt=2026-11-222",
                "dt=2026-13-01",
                "dt=2026-02-30",
                "DT=2026-11-21",
            ],
            ["2026-11-22"],
        ),
        (
            "day",
            "%Y/%j",
            ["2026/001", "2026/365", "2026/366", "2024/366"],
            ["2024-12-31", "2026-01-01", "2026-12-31"],
        ),
        ("hour", "%Y/%m/%d/%H", ["2026/11/22/05", "2026/11/22/24", "2026/11/22/5"], ["2026-11-22T05"]),
        ("week", "%G/W%V", ["2026/W53", "2026/W01", "2025/W53", "2026/w02"], ["2026-W01", "2026-W53"]),
        ("month", "%Y/%m", ["2026/11", "2026/00", "2026-11", "0026/11", "202/11"], ["2026-11"]),
        ("month", "daily/%Y%m/full", ["daily/202611/full", "daily/202610", "202612/full"], ["2026-11"]),
    ],
)
def test_only_what_names_a_period_is_one(
    put: Put, source_of: Sources, kind: str, partition: str, directories: list[str], expected: list[str]
) -> None:
    for directory in directories:
        put(f"{directory}/file")
    assert labels(source_of(period=kind, partition=partition)) == expected


def test_a_marker(root: Path, put: Put, source_of: Sources) -> None:
    source = source_of(period="day", partition="%Y/%m/%d", complete={"marker": "_SUCCESS"})
    put("2026/11/22/a")
    state = source.state(DAY)
    assert state is not None
    assert (state.complete, state.reason, state.marker) == (False, "no _SUCCESS yet", "")
    (root / "2026/11/22/_SUCCESS").mkdir()
    state = source.state(DAY)
    assert state is not None
    assert (state.complete, state.reason) == (False, "_SUCCESS is there, but it is no file")
    (root / "2026/11/22/_SUCCESS").rmdir()
    status = put("2026/11/22/_SUCCESS", b"12 files").stat()
    state = source.state(DAY)
    assert state is not None
    assert (state.complete, state.reason) == (True, "_SUCCESS is there")
    assert state.marker == f"{status.st_mtime_ns}-8"


def test_an_empty_period_with_its_marker_is_complete(put: Put, source_of: Sources) -> None:
    source = source_of(period="day", partition="%Y/%m/%d", complete={"marker": "_SUCCESS"})
    put("2026/11/22/_SUCCESS")
    (state,) = source.periods()
    assert state.complete
    assert list(source.scan(DAY)) == []


@pytest.mark.parametrize(
    ("file_ages", "directory_ages", "complete", "reason"),
    [
        ({}, {"": 4000}, False, "no file yet"),
        ({"a.txt": 4000}, {"": 4000}, False, "no file yet that the feed includes"),
        ({"a.csv": 4000}, {"": 4000}, True, "nothing has changed for 4000 s"),
        ({"a.csv": 300}, {"": 300}, True, "nothing has changed for 300 s"),
        ({"a.csv": 12}, {"": 4000}, False, "newest file changed 12 s ago, 288 s to go"),
        ({"a.csv": 299.5}, {"": 4000}, False, "newest file changed 299 s ago, 1 s to go"),
        ({"a.csv": 4000, "b.csv.part": 12}, {"": 4000}, False, "newest file changed 12 s ago, 288 s to go"),
        ({"a.csv": 4000}, {"": 12}, False, "a file came or went 12 s ago, 288 s to go"),
        ({"x/a.csv": 4000}, {"x": 12, "": 4000}, False, "a file came or went 12 s ago, 288 s to go"),
        (
            {"a.csv": 4000, "_temporary/b": 12},
            {"_temporary": 1, "": 4000},
            True,
            "nothing has changed for 4000 s",
        ),
        (
            {"a.csv": -60},
            {"": 4000},
            False,
            "newest file changed 60 s ahead of this machine's clock, 360 s to go",
        ),
    ],
)
def test_a_period_settles(
    root: Path,
    put: Put,
    age: Any,
    source_of: Sources,
    file_ages: dict[str, float],
    directory_ages: dict[str, float],
    complete: bool,
    reason: str,
) -> None:
    top = root / "2026/11/22"
    top.mkdir(parents=True)
    for name, seconds in file_ages.items():
        put(f"2026/11/22/{name}", seconds=seconds)
    for name, seconds in directory_ages.items():
        age(top / name, seconds)
    source = source_of(
        period="day", partition="%Y/%m/%d", complete=SETTLE, include=["*.csv"], exclude=["_temporary"]
    )
    (state,) = source.periods()
    assert (state.complete, state.reason, state.marker) == (complete, reason, "")
    assert source.state(DAY) == state


def test_settling_is_seen_from_the_clock_that_was_given(
    put: Put, age: Any, root: Path, source_of: Sources, clock: MemoryClock
) -> None:
    put("2026/11/22/a", seconds=0)
    age(root / "2026/11/22", 0)
    source = source_of(period="day", partition="%Y/%m/%d", complete=SETTLE)
    for seconds, complete in ((0, False), (299, False), (1, True)):
        clock.advance(seconds)
        (state,) = source.periods()
        assert state.complete is complete


def test_links_below_a_period_settle_as_what_they_lead_to(
    root: Path, put: Put, age: Any, source_of: Sources
) -> None:
    put("target", seconds=12)
    put("2026/11/22/a", seconds=4000)
    (root / "2026/11/22/link").symlink_to(root / "target")
    (root / "2026/11/22/dangling").symlink_to("nowhere")
    age(root / "2026/11/22/link", 4000, follow_symlinks=False)
    age(root / "2026/11/22/dangling", 4000, follow_symlinks=False)
    age(root / "2026/11/22", 4000)
    (state,) = source_of(period="day", partition="%Y/%m/%d", complete=SETTLE).periods()
    assert state.reason == "newest file changed 12 s ago, 288 s to go"


@pytest.mark.parametrize(
    ("ages", "complete", "reason"),
    [
        ({}, False, "no file yet"),
        ({"a.txt": 4000}, False, "no file yet that the feed includes"),
        (
            {"a.csv": 12, "b.csv": 20},
            False,
            "the file that is nearest to complete changed 20 s ago, 40 s to go",
        ),
        ({"a.csv": 12, "x/b.csv": 61}, True, "files that have not changed for 60 s are there"),
    ],
)
def test_a_drop_folder(
    put: Put, source_of: Sources, ages: dict[str, float], complete: bool, reason: str
) -> None:
    for name, seconds in ages.items():
        put(name, seconds=seconds)
    source = source_of(include=["*.csv"])
    (state,) = source.periods()
    assert (state.period, state.complete, state.reason) == (NONE, complete, reason)
    assert source.state(NONE) == state
    assert bool(list(source.scan(NONE))) is complete


def test_a_file_dated_far_ahead_is_a_problem_and_one_a_little_ahead_waits(
    put: Put, source_of: Sources
) -> None:
    """A file server's clock, or its time zone, may be off by hours; nobody waits for years."""
    put("ahead.csv", seconds=-86_400)
    source = source_of()
    (state,) = source.periods()
    assert not state.complete
    assert "86400 s ahead of this machine's clock" in state.reason
    put("far.csv", seconds=-86_401)
    (state,) = source.periods()
    assert state.complete
    put("b.csv", seconds=61)
    names = [(found.name, getattr(found, "code", None)) for found in source.scan(NONE)]
    assert names == [("b.csv", None), ("far.csv", "dated_ahead")]
    put("far.csv", seconds=-3 * 365 * 86_400)
    (_, problem) = source.scan(NONE)
    assert "it is dated 1,095 days ahead of this machine's clock" in problem.message


def test_in_a_period_a_date_ahead_is_no_problem(put: Put, source_of: Sources) -> None:
    put("2026/11/22/a", seconds=-3 * 86_400)
    source = source_of(period="day", partition="%Y/%m/%d", complete={"marker": "_SUCCESS"})
    assert [found.name for found in source.scan(DAY)] == ["2026/11/22/a"]


def test_periods_before_the_window_are_not_scanned(
    root: Path, put: Put, source_of: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("2026/11/20", "2026/11/21", "2026/11/22"):
        put(f"{day}/a")
    source = source_of(period="day", partition="%Y/%m/%d", complete={"settle_seconds": 0})
    looked: list[str] = []
    scandir = os.scandir

    def watched(path: Any) -> Any:
        looked.append(str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", watched)
        states = list(source.periods(since=datetime(2026, 11, 22)))  # noqa: DTZ001 - a period has no zone
    assert [(state.period.label, state.complete) for state in states] == [
        ("2026-11-20", False),
        ("2026-11-21", False),
        ("2026-11-22", True),
    ]
    assert states[0].reason == "not scanned: it is older than the requested periods"
    assert not any("2026/11/20" in path or "2026/11/21" in path for path in looked)
    assert any("2026/11/22" in path for path in looked)


# --- Links and locks on the way ------------------------------------------------------------------------


def test_what_cannot_be_followed_on_the_way_to_a_period(
    root: Path, put: Put, source_of: Sources, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("x")
    put("2026/11/21/a")
    for name, target in {
        "2019": "2019",
        "2020": "nowhere",
        "2021": "2026",
        "2022": str(tmp_path),
        "2026/10": "11",
        "2026/11/22": "21",
        "2026/11/23": str(tmp_path),
        "2026/11/24": "nowhere",
        "2026/11/25": "25",
        "2026/11/latest": "21",
        "2026/11/31": "21",
    }.items():
        (root / name).symlink_to(target)
    put("2023")
    put("2026/11/26")
    source = source_of(period="day", partition="%Y/%m/%d", complete={"settle_seconds": 0})
    assert labels(source) == ["2026-11-21"]
    assert unfollowed(source) == [
        ("2019/", "link_loop"),
        ("2020/", "link_dangling"),
        ("2021/", "link_to_directory"),
        ("2022/", "link_leaves_root"),
        ("2023/", "not_a_directory"),
        ("2026/10/", "link_to_directory"),
        ("2026/11/22/", "link_to_directory"),
        ("2026/11/23/", "link_leaves_root"),
        ("2026/11/24/", "link_dangling"),
        ("2026/11/25/", "link_loop"),
        ("2026/11/26/", "not_a_directory"),
    ]
    for label, name in {
        "2026-11-22": "2026/11/22/",
        "2026-11-24": "2026/11/24/",
        "2026-10-01": "2026/10/",
        "2019-01-01": "2019/",
        "2023-01-01": "2023/",
    }.items():
        with pytest.raises(SourceUnreadable, match=name):
            source.state(Period.parse(label, PeriodKind.DAY))
    assert source.state(Period.parse("2026-11-20", PeriodKind.DAY)) is None


def test_the_message_says_where_a_link_leads(
    root: Path, put: Put, source_of: Sources, tmp_path: Path
) -> None:
    put("2026/11/22/a")
    (root / "2025").symlink_to(tmp_path)
    (problem,) = (
        found
        for found in source_of(period="day", partition="%Y/%m/%d").periods()
        if isinstance(found, SourceProblem)
    )
    assert str(tmp_path) in problem.message


def test_problems_before_the_window_are_ignored(root: Path, put: Put, source_of: Sources) -> None:
    put("2026/11/22/a")
    (root / "2026/11/20").symlink_to("22")
    source = source_of(period="day", partition="%Y/%m/%d", complete={"settle_seconds": 0})
    states = list(source.periods(since=datetime(2026, 11, 21)))  # noqa: DTZ001 - a period has no zone
    assert all(isinstance(state, PeriodState) for state in states)


def test_a_marker_that_is_a_looping_link_is_none(root: Path, put: Put, source_of: Sources) -> None:
    put("2026/11/22/a")
    (root / "2026/11/22/_SUCCESS").symlink_to("_SUCCESS")
    (state,) = source_of(period="day", partition="%Y/%m/%d", complete={"marker": "_SUCCESS"}).periods()
    assert (state.complete, state.reason) == (False, "_SUCCESS is a symbolic link that leads back to itself")


def test_an_unreadable_directory_is_reported(
    root: Path, put: Put, source_of: Sources, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    for day in ("2025/11/22", "2026/11/22", "2026/11/23"):
        put(f"{day}/a")
    (root / "2025").chmod(0)
    (root / "2026/11/23").chmod(0)
    source = source_of(period="day", partition="%Y/%m/%d", complete={"settle_seconds": 0})
    with unprivileged():
        assert labels(source) == ["2026-11-22"]
        assert unfollowed(source) == [("2025/", "unreadable"), ("2026/11/23/", "unreadable")]
        with pytest.raises(SourceUnreadable, match="2025/11/: it cannot be read \\(Permission denied\\)"):
            source.state(Period.parse("2025-11-22", PeriodKind.DAY))
    for name in ("2025", "2026/11/23"):
        (root / name).chmod(0o755)


@pytest.mark.parametrize("shape", [{}, {"period": "day", "partition": "%Y/%m/%d"}])
def test_what_only_the_scan_can_report_makes_complete(
    root: Path,
    put: Put,
    source_of: Sources,
    unprivileged: Callable[[], AbstractContextManager[None]],
    tmp_path: Path,
    shape: dict[str, str],
) -> None:
    """Else a folder in which nothing but that lies would wait for ever, and nobody would hear of it."""
    top = root / "2026/11/22" if shape else root
    top.mkdir(parents=True, exist_ok=True)
    (top / "closed").mkdir(mode=0)
    source = source_of(**shape, complete={"settle_seconds": 0}, include=["*.csv"])
    with unprivileged():
        (state,) = source.periods()
        assert [found.code for found in source.scan(state.period)] == ["unreadable"]
    assert state.complete
    (top / "closed").rmdir()
    (top / "outside").symlink_to(tmp_path)
    (state,) = source.periods()
    assert [found.code for found in source.scan(state.period)] == ["link_leaves_root"]
    assert state.complete


@pytest.mark.parametrize("shape", [{}, {"period": "day", "partition": "%Y/%m/%d"}])
def test_a_root_that_may_not_be_read(
    root: Path,
    put: Put,
    source_of: Sources,
    unprivileged: Callable[[], AbstractContextManager[None]],
    shape: dict[str, str],
) -> None:
    put("feed/2026/11/22/a")
    (root / "feed").chmod(0)
    source = source_of(source=str(root / "feed"), **shape)
    with unprivileged(), pytest.raises(SourceUnreadable, match="Permission denied") as raised:
        list(source.periods())
    (root / "feed").chmod(0o755)
    assert raised.value.hint


@pytest.mark.parametrize("shape", [{}, {"period": "day", "partition": "%Y/%m/%d"}])
def test_a_root_that_is_a_file(root: Path, put: Put, source_of: Sources, shape: dict[str, str]) -> None:
    source = source_of(source=str(put("file")), **shape)
    for look in (lambda: list(source.periods()), lambda: source.state(DAY)):
        with pytest.raises(SourceMissing, match="no directory"):
            look()
