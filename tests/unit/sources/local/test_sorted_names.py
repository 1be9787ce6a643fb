import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmode_transfer.model.errors import SourceUnreadable
from xmode_transfer.model.selection import Selection
from xmode_transfer.sources import local_walk

EVERYTHING = Selection.of()


def listed(directory: Path, selection: Selection = EVERYTHING, run_length: int = 1000) -> list[str]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local_walk, "RUN_LENGTH", run_length)
            names, spill = local_walk.sorted_names(descriptor, "", selection)
        with spill or nullcontext():
            return list(names)
    finally:
        os.close(descriptor)


def test_names_that_are_no_utf8_and_names_with_line_ends_survive_the_disk(root: Path) -> None:
    names = [b"caf\xe9", b"new\nline", b"\xff\xfe", "\N{SNOWMAN}".encode(), b"a" * 200, b"plain"]
    for name in names:
        (root / os.fsdecode(name)).touch()
    assert listed(root, run_length=2) == sorted(os.fsdecode(name) for name in names)


file_names = st.text(
    alphabet=st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name.strip(".") != "")


@given(names=st.sets(file_names, max_size=40), run_length=st.integers(1, 9), block_bytes=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_any_names_come_in_order_whatever_the_sizes_of_runs_and_blocks(
    names: set[str], run_length: int, block_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_walk, "_BLOCK_BYTES", block_bytes)
        for name in names:
            Path(directory, name).touch()
        assert listed(Path(directory), run_length=run_length) == sorted(names)


def test_a_short_directory_needs_no_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "not-there"))
    for name in "cab":
        (root / name).touch()
    assert listed(root, run_length=4) == ["a", "b", "c"]


def test_a_missing_temporary_directory_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "not-there"))
    for name in "abcde":
        (root / name).touch()
    with pytest.raises(SourceUnreadable, match="could not be sorted") as raised:
        listed(root, run_length=2)
    assert str(root / "not-there") in raised.value.hint
    assert "TMPDIR" in raised.value.hint


def test_a_full_disk_leaves_nothing_behind(
    root: Path, monkeypatch: pytest.MonkeyPatch, open_descriptors: Callable[[], set[str]]
) -> None:
    for name in "abcde":
        (root / name).touch()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(SourceUnreadable, match="No space left"):
            listed(root, run_length=2)
    assert open_descriptors() == before
