import errno
import os
import resource
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmode_transfer.model.errors import SourceMissing, SourceUnreadable
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.model.selection import Selection
from xmode_transfer.sources import local_walk
from xmode_transfer.sources.local import LocalSource
from xmode_transfer.sources.local_walk import walk

DAY = Period.parse("2026-11-22", PeriodKind.DAY)
NONE = Period.none()
EVERYTHING = Selection.of()

Put = Callable[..., Path]
Sources = Callable[..., LocalSource]
Unprivileged = Callable[[], AbstractContextManager[None]]


def scanned(source: LocalSource, period: Period = NONE) -> list[str]:
    return [found.name for found in source.scan(period)]


def problems(source: LocalSource, period: Period = NONE) -> list[tuple[str, str]]:
    return [(found.name, found.code) for found in source.scan(period) if isinstance(found, SourceProblem)]


# --- What is found, and in which order -----------------------------------------------------------------


def test_a_scanned_file_is_as_the_file_system_says(root: Path, put: Put, source_of: Sources) -> None:
    status = put("x/a.csv", b"12345").stat()
    assert list(source_of().scan(NONE)) == [
        SourceFile("x/a.csv", 5, status.st_mtime_ns, f"{status.st_dev}:{status.st_ino}")
    ]


def test_names_are_relative_to_the_root_and_patterns_to_the_period(put: Put, source_of: Sources) -> None:
    put("2026/11/22/reports/a.csv")
    put("2026/11/22/other/a.csv")
    put("2026/11/22/a.csv")
    put("2026/11/23/reports/a.csv")
    source = source_of(period="day", partition="%Y/%m/%d", include=["reports/*.csv"])
    assert scanned(source, DAY) == ["2026/11/22/reports/a.csv"]


def test_the_root_may_be_a_link_and_end_in_a_slash(root: Path, put: Put, source_of: Sources) -> None:
    put("real/a")
    (root / "current").symlink_to("real")
    source = source_of(source=f"{root}/current/")
    (found,) = source.scan(NONE)
    assert isinstance(found, SourceFile)
    with source.open(found) as opened:
        assert opened.read_at(0, 4) == b"data"


entries = st.recursive(
    st.sampled_from(["file", "empty"]),
    lambda below: st.dictionaries(st.text(alphabet="ab-.0é～😀", min_size=1, max_size=3), below, max_size=5),
    max_leaves=25,
)


def build(directory: Path, tree: Any) -> None:
    for name, entry in tree.items():
        if name.strip(".") == "":
            continue
        if isinstance(entry, str):
            (directory / name).write_bytes(b"data" if entry == "file" else b"")
        else:
            (directory / name).mkdir()
            build(directory / name, entry)


@given(tree=entries.filter(lambda tree: isinstance(tree, dict)), run_length=st.integers(1, 4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree_is_scanned_whole_and_in_order(tree: Any, run_length: int) -> None:
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_walk, "RUN_LENGTH", run_length)
        build(Path(top), tree)
        expected = sorted(
            str((Path(above) / name).relative_to(top)) for above, _, names in os.walk(top) for name in names
        )
        found = list(walk(top, "", EVERYTHING))
        assert [file.name for file in found] == expected
        assert all(isinstance(file, SourceFile) for file in found)


@contextmanager
def listing_through(change: Callable[[Any, Iterator[Any]], Iterator[Any]]) -> Iterator[None]:
    """Directories are listed as the file system says, changed by a function of the directory and its
    entries."""
    scandir = os.scandir

    @contextmanager
    def changed(directory: Any) -> Iterator[Iterator[Any]]:
        with scandir(directory) as entries:
            yield change(directory, entries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", changed)
        yield


def test_a_directory_that_names_a_file_twice_delivers_it_once(put: Put, source_of: Sources) -> None:
    put("a")
    put("x/b")
    with listing_through(lambda _, entries: (entry for entry in entries for _ in range(2))):
        assert scanned(source_of()) == ["a", "x/b"]


def test_depth_costs_no_descriptors(
    root: Path, put: Put, source_of: Sources, open_descriptors: Callable[[], set[str]]
) -> None:
    name = "/".join(["d"] * 60) + "/deep"
    put(name)
    put("z")
    before = len(open_descriptors())
    scan = source_of().scan(NONE)
    assert next(scan).name == name
    assert len(open_descriptors()) == before + 1
    assert [found.name for found in scan] == ["z"]
    assert len(open_descriptors()) == before


def test_a_scan_that_is_given_up_leaves_nothing_open(
    root: Path, put: Put, open_descriptors: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_walk, "RUN_LENGTH", 3)
    for number in range(20):
        put(f"x/{number}")
    before = open_descriptors()
    scan = walk(str(root), "", EVERYTHING)
    next(scan)
    assert open_descriptors() != before
    del scan
    assert open_descriptors() == before


def test_what_vanishes_during_the_scan_is_not_at_the_source(root: Path, put: Put, source_of: Sources) -> None:
    for name in ("a", "b", "d/x", "d/y", "e/x", "f"):
        put(name)
    scan = source_of().scan(NONE)
    assert next(scan).name == "a"
    (root / "b").unlink()
    assert next(scan).name == "d/x"
    (root / "d/y").unlink()
    (root / "e/x").unlink()
    (root / "e").rmdir()
    assert [found.name for found in scan] == ["f"]


def test_a_directory_replaced_while_one_below_it_is_walked(root: Path, put: Put, source_of: Sources) -> None:
    put("d/a/x")
    put("d/b")
    put("e")
    scan = source_of().scan(NONE)
    assert next(scan).name == "d/a/x"
    (root / "d").rename(root / "gone")
    assert [found.name for found in scan] == ["e"]


# --- Drop folders --------------------------------------------------------------------------------------


def test_in_a_drop_folder_a_file_waits_until_it_has_settled(put: Put, source_of: Sources, clock: Any) -> None:
    put("old", seconds=3600)
    put("just settled", seconds=60)
    put("fresh", seconds=59.9)
    put("ahead", seconds=-3600)
    source = source_of()
    assert scanned(source) == ["just settled", "old"]
    clock.advance(0.2)
    assert scanned(source) == ["fresh", "just settled", "old"]


def test_in_a_drop_folder_a_problem_waits_too(root: Path, put: Put, source_of: Sources, age: Any) -> None:
    put("bad\nname", seconds=5)
    os.mkfifo(root / "pipe")
    age(root / "pipe", 5)
    put("target", seconds=5)
    (root / "link").symlink_to("target")
    assert list(source_of().scan(NONE)) == []


# --- Problems ------------------------------------------------------------------------------------------


def test_names_that_no_key_can_carry(put: Put, source_of: Sources) -> None:
    put("caf\udce9.csv")
    put("esc\x1b[31m.csv")
    put("dir\x7f/fine.csv")
    put("dir\udcff/fine.csv")
    put("fine é～.csv")
    found = list(source_of().scan(NONE))
    assert [(f.name, f.code) for f in found if isinstance(f, SourceProblem)] == [
        ("caf\udce9.csv", "name_not_utf8"),
        ("dir\x7f/fine.csv", "name_control_character"),
        ("dir\udcff/fine.csv", "name_not_utf8"),
        ("esc\x1b[31m.csv", "name_control_character"),
    ]
    assert [f.name for f in found if isinstance(f, SourceFile)] == ["fine é～.csv"]
    assert all(f.message.isprintable() for f in found if isinstance(f, SourceProblem))


@pytest.mark.parametrize(
    ("last", "is_good"), [("x" * 220, True), ("x" * 221, False), ("é" * 110, True), ("é" * 111, False)]
)
def test_a_path_longer_than_a_key(put: Put, source_of: Sources, last: str, is_good: bool) -> None:
    directory = "/".join(["d" * 200] * 4)
    put(f"{directory}/{last}")
    put("z")
    found = list(source_of().scan(NONE))
    assert [f.name for f in found][-1] == "z"
    assert isinstance(found[0], SourceFile) is is_good
    if isinstance(found[0], SourceProblem):
        assert found[0].code == "name_too_long"
        assert "1,02" in found[0].message


def test_a_directory_too_deep_for_keys_is_reported_once(put: Put, source_of: Sources) -> None:
    directory = "/".join(["d" * 203] * 5)
    put(f"{directory}/more/a")
    put(f"{directory}/more/b")
    assert problems(source_of()) == [(f"{directory}/more/", "name_too_long")]


def test_what_is_no_file_is_never_opened(root: Path, put: Put, source_of: Sources, age: Any) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    put("a")
    for name in ("pipe", "socket"):
        age(root / name, 3600)
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        age(root / "device", 3600)
    else:
        (root / "device").symlink_to("pipe")
    assert problems(source_of()) == [(name, "not_a_file") for name in ("device", "pipe", "socket")]


def test_links(root: Path, put: Put, source_of: Sources, age: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    put("real/a", b"12345")
    for name, target in {
        "dangling": "nowhere",
        "directory-inside": "real",
        "directory-outside": str(tmp_path),
        "file-inside": "real/a",
        "file-outside": str(tmp_path / "secret"),
        "loop": "loop",
        "not-even-there": str(tmp_path / "not-there"),
        "outside-and-back": str(root / "real/a"),
        "pipe": "a-pipe",
        "up-and-out": "../../etc/hostname",
    }.items():
        (root / name).symlink_to(target)
        age(root / name, 3600, follow_symlinks=False)
    os.mkfifo(root / "a-pipe")
    age(root / "a-pipe", 3600)
    source = source_of()
    assert problems(source) == [
        ("a-pipe", "not_a_file"),
        ("dangling", "link_dangling"),
        ("directory-outside/", "link_leaves_root"),
        ("file-outside", "link_leaves_root"),
        ("loop", "link_loop"),
        ("not-even-there", "link_leaves_root"),
        ("pipe", "not_a_file"),
        ("up-and-out", "link_leaves_root"),
    ]
    files = {found.name: found for found in source.scan(NONE) if isinstance(found, SourceFile)}
    assert sorted(files) == ["file-inside", "outside-and-back", "real/a"]
    assert files["file-inside"][1:] == files["real/a"][1:]


def test_a_root_that_only_begins_like_another_is_another(
    put: Put, root: Path, source_of: Sources, age: Any
) -> None:
    put("feed-2/a")
    put("feed/b")
    (root / "feed/link").symlink_to(root / "feed-2/a")
    age(root / "feed/link", 3600, follow_symlinks=False)
    assert problems(source_of(source=str(root / "feed"))) == [("link", "link_leaves_root")]


def test_what_the_feed_does_not_include_is_no_problem(
    root: Path, put: Put, source_of: Sources, age: Any, unprivileged: Unprivileged, tmp_path: Path
) -> None:
    put("a.csv")
    put("bad\nname.txt")
    os.mkfifo(root / "pipe")
    (root / "gone").symlink_to("nowhere")
    (root / "lost+found").mkdir(mode=0)
    (root / "away").symlink_to(tmp_path)
    with unprivileged():
        assert list(scanned(source_of(include=["*.csv"], exclude=["lost+found", "away/**"]))) == ["a.csv"]
    (root / "lost+found").chmod(0o700)


def test_unreadable_files_are_reported(
    root: Path, put: Put, source_of: Sources, unprivileged: Unprivileged
) -> None:
    put("a")
    put("closed/b")
    put("locked").chmod(0o600)
    (root / "closed").chmod(0)
    for name in ("link-to-locked", "link-into-closed"):
        (root / name).symlink_to("locked" if name.endswith("locked") else "closed/b")
    if os.geteuid() != 0:
        (root / "locked").chmod(0)
    with unprivileged():
        found = list(source_of(complete={"settle_seconds": 0}).scan(NONE))
    (root / "closed").chmod(0o700)
    assert {(f.name, f.code) for f in found if isinstance(f, SourceProblem)} == {
        ("closed/", "unreadable"),
        ("link-into-closed", "unreadable"),
        ("link-to-locked", "unreadable"),
        ("locked", "unreadable"),
    }
    assert [f.name for f in found if isinstance(f, SourceFile)] == ["a"]
    assert all("permission denied" in f.message.lower() for f in found if isinstance(f, SourceProblem))


def failing_disk(directory: Path) -> AbstractContextManager[None]:
    """The disk fails after the directory's first entry."""
    inode = directory.stat().st_ino

    def change(listed: Any, entries: Iterator[Any]) -> Iterator[Any]:
        for entry in entries:
            yield entry
            if os.fstat(listed).st_ino == inode:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    return listing_through(change)


def test_a_directory_that_cannot_be_listed_to_its_end_gives_none_of_its_files(
    root: Path, put: Put, source_of: Sources
) -> None:
    for name in ("a", "d/1", "d/2", "z"):
        put(name)
    with failing_disk(root / "d"):
        found = list(source_of().scan(NONE))
    assert [f.name for f in found] == ["a", "d/", "z"]
    assert isinstance(found[1], SourceProblem)
    assert "Input/output error" in found[1].message


def test_a_top_that_cannot_be_listed_to_its_end_is_an_error(root: Path, put: Put, source_of: Sources) -> None:
    put("1")
    put("2")
    with failing_disk(root), pytest.raises(SourceUnreadable, match="Input/output error"):
        list(source_of().scan(NONE))


# --- What ends a scan ----------------------------------------------------------------------------------


def test_a_period_that_is_not_there(put: Put, source_of: Sources) -> None:
    put("2026/11/23/a")
    with pytest.raises(SourceMissing, match="2026/11/22"):
        list(source_of(period="day", partition="%Y/%m/%d").scan(DAY))


def test_a_period_behind_a_link(root: Path, put: Put, source_of: Sources) -> None:
    put("2026/11/real/a")
    (root / "2026/11/22").symlink_to("real")
    with pytest.raises(SourceUnreadable, match="symbolic link"):
        list(source_of(period="day", partition="%Y/%m/%d").scan(DAY))


def test_running_out_of_descriptors_names_the_limit(put: Put, source_of: Sources) -> None:
    put("d/a")
    put("d/b")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    source = source_of()
    taken = os.open("/dev/null", os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))
    try:
        with pytest.raises(SourceUnreadable, match="Too many open files") as raised:
            list(source.scan(NONE))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken)
    assert "ulimit -n" in raised.value.hint
