import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import MemoryClock
from xmode_transfer.config import Feed
from xmode_transfer.model.errors import SourceChanged, SourceError, SourceUnreadable
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.local import LocalSource

NONE = Period.none()
Put = Callable[..., Path]
Sources = Callable[..., LocalSource]


def only_file(source: LocalSource) -> SourceFile:
    (found,) = source.scan(NONE)
    assert isinstance(found, SourceFile)
    return found


def as_scanned(path: Path, root: Path, **changes: Any) -> SourceFile:
    """What a scan would have said of a file, were it where it is not."""
    status = path.stat()
    file = SourceFile(
        os.path.relpath(path, root), status.st_size, status.st_mtime_ns, f"{status.st_dev}:{status.st_ino}"
    )
    return file._replace(**changes)


def test_the_descriptor_is_the_files_own(put: Put, source_of: Sources) -> None:
    path = put("a", b"12345")
    opened = source_of().open(only_file(source_of()))
    assert os.fstat(opened.fileno()).st_ino == path.stat().st_ino
    assert os.get_inheritable(opened.fileno()) is False
    opened.close()
    with pytest.raises(ValueError, match="a is closed"):
        opened.fileno()


def test_a_closed_file_reads_nothing_of_whoever_has_the_descriptor_now(put: Put, source_of: Sources) -> None:
    put("a", b"12345")
    opened = source_of().open(only_file(source_of()))
    number = opened.fileno()
    opened.close()
    other = os.open("/dev/zero", os.O_RDONLY)
    try:
        assert other == number
        with pytest.raises(ValueError, match="closed"):
            opened.read_at(0, 5)
        with pytest.raises(ValueError, match="closed"):
            opened.read_into(memoryview(bytearray(5)), 0)
        opened.close()
        os.fstat(other)
    finally:
        os.close(other)


def test_a_refused_open_leaves_no_descriptor(
    root: Path, put: Put, source_of: Sources, open_descriptors: Callable[[], set[str]]
) -> None:
    put("feed/a")
    outside = put("outside")
    source = source_of(source=str(root / "feed"))
    before = open_descriptors()
    with pytest.raises(SourceUnreadable):
        source.open(as_scanned(outside, root / "feed"))
    assert open_descriptors() == before


@pytest.mark.parametrize("by", ["link", "dots", "directory link", "absolute"])
def test_no_way_leads_out_of_the_root(root: Path, put: Put, source_of: Sources, by: str) -> None:
    put("feed/real")
    outside = put("outside/secret")
    feed = root / "feed"
    name = {
        "link": "link",
        "dots": "../outside/secret",
        "directory link": "way/secret",
        "absolute": f"/{'../' * 30}{outside}",
    }[by]
    (feed / "link").symlink_to(outside)
    (feed / "way").symlink_to(root / "outside")
    with pytest.raises(SourceUnreadable, match="outside the feed's root"):
        source_of(source=str(feed)).open(as_scanned(outside, feed, name=name))


def test_a_directory_swapped_for_a_link_after_the_scan(root: Path, put: Put, source_of: Sources) -> None:
    put("feed/d/a")
    source = source_of(source=str(root / "feed"))
    file = only_file(source)
    (root / "feed/d").rename(root / "elsewhere")
    (root / "feed/d").symlink_to(root / "elsewhere")
    with pytest.raises(SourceUnreadable, match="outside the feed's root"):
        source.open(file)


def test_a_link_inside_the_root_is_followed_and_watched(
    root: Path, put: Put, source_of: Sources, age: Any
) -> None:
    put("one", b"11111")
    put("two", b"22222")
    (root / "link").symlink_to("one")
    source = source_of(include=["link"])
    with source.open(only_file(source)) as opened:
        assert opened.read_at(0, 5) == b"11111"
        opened.check_unchanged()
        (root / "link").unlink()
        (root / "link").symlink_to("two")
        with pytest.raises(SourceChanged, match="link changed"):
            opened.check_unchanged()


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_is_put_in_the_files_place_is_never_waited_for(
    root: Path, put: Put, source_of: Sources, kind: str
) -> None:
    path = put("a")
    source = source_of()
    file = only_file(source)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    outcome: list[BaseException] = []

    def attempt() -> None:
        try:
            source.open(file)
        except SourceError as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    assert [type(error) for error in outcome] == [SourceChanged]


def test_a_pipe_put_there_between_the_look_and_the_open_does_not_block(
    root: Path, put: Put, source_of: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put("a")
    source = source_of()
    file = only_file(source)
    really_open = os.open

    def swap_then_open(name: Any, flags: int, *more: Any, **options: Any) -> int:
        path.unlink()
        os.mkfifo(path)
        return really_open(name, flags, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", swap_then_open)
        with pytest.raises(SourceChanged, match="no longer a file"):
            source.open(file)


def test_a_file_that_may_not_be_read(
    put: Put, source_of: Sources, unprivileged: Callable[[], AbstractContextManager[None]], root: Path
) -> None:
    path = put("a")
    source = source_of()
    file = only_file(source)
    path.chmod(0o600 if os.geteuid() == 0 else 0)
    with (
        unprivileged(),
        pytest.raises(SourceUnreadable, match="a cannot be read: Permission denied") as raised,
    ):
        source.open(file)
    assert raised.value.hint


def test_a_loop_put_in_the_files_place(root: Path, put: Put, source_of: Sources) -> None:
    path = put("a")
    source = source_of()
    file = only_file(source)
    path.unlink()
    path.symlink_to("a")
    with pytest.raises(SourceUnreadable, match="symbolic links"):
        source.open(file)


def test_without_proc_the_path_is_resolved_anew(
    root: Path, put: Put, source_of: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("feed/a")
    outside = put("outside")
    (root / "feed/link").symlink_to(outside)
    source = source_of(source=str(root / "feed"), include=["a"])
    file = only_file(source)

    def no_proc(*_: Any, **__: Any) -> str:
        raise FileNotFoundError(2, "no /proc here")

    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", no_proc)
        source.open(file).close()
    with monkeypatch.context() as patch:
        really = os.readlink
        patch.setattr(
            os, "readlink", lambda path, **how: no_proc() if "/proc/" in str(path) else really(path, **how)
        )
        with pytest.raises(SourceUnreadable, match="outside"):
            source.open(as_scanned(outside, root / "feed", name="link"))


def test_a_file_that_grows_gives_no_more_than_its_size(put: Put, source_of: Sources) -> None:
    path = put("a", b"12345")
    source = source_of()
    with source.open(only_file(source)) as opened:
        with path.open("ab") as more:
            more.write(b"678")
        buffer = bytearray(100)
        assert opened.read_into(memoryview(buffer), 2) == 3
        assert bytes(buffer[:4]) == b"345\0"
        assert opened.read_into(memoryview(buffer), 7) == 0
        with pytest.raises(SourceChanged, match="it had 5 bytes and now has 8"):
            opened.check_unchanged()


def test_reads_that_come_in_pieces_are_put_together(
    put: Put, source_of: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 4
    put("a", data)
    source = source_of()
    pread, preadv = os.pread, os.preadv
    with source.open(only_file(source)) as opened, monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))
        patch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:7]], offset))
        assert opened.read_at(3, 1000) == data[3:1003]
        buffer = bytearray(1000)
        assert opened.read_into(memoryview(buffer), 20) == 1000
        assert bytes(buffer) == data[20:1020]


def test_a_failing_disk_is_reported_with_the_files_name(
    put: Put, source_of: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a")
    source = source_of()

    def failing(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    with source.open(only_file(source)) as opened, monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        patch.setattr(os, "preadv", failing)
        for read in (lambda: opened.read_at(0, 4), lambda: opened.read_into(memoryview(bytearray(4)), 0)):
            with pytest.raises(SourceUnreadable, match="a cannot be read: Input/output error"):
                read()


def test_the_message_says_what_happened(root: Path, put: Put, source_of: Sources, age: Any) -> None:
    path = put("a", b"12345")
    source = source_of()
    file = only_file(source)
    # There before the other goes, so that it cannot be given the other's inode again.
    os.utime(put("b", b"abcde"), ns=(file.modified_ns, file.modified_ns))
    age(path, 60)
    with pytest.raises(
        SourceChanged, match=r"a changed after it was listed: it was written to at 2126-11-24T06:29:00"
    ):
        source.open(file)
    path.unlink()
    with pytest.raises(SourceChanged, match="a is gone"):
        source.open(file)
    (root / "b").rename(path)
    with pytest.raises(SourceChanged, match="another file was put in its place"):
        source.open(file)
    assert path.read_bytes() == b"abcde"


changes = st.sampled_from(["nothing", "overwrite", "append", "truncate", "replace", "remove", "touch"])


@given(data=st.binary(max_size=64), before=changes, during=changes, fresh=st.binary(max_size=64))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_to_a_file_no_other_bytes_pass_as_its_own(
    data: bytes, before: str, during: str, fresh: bytes
) -> None:
    with tempfile.TemporaryDirectory() as top:
        path = Path(top, "a")
        path.write_bytes(data)
        clock = MemoryClock()
        feed = Feed.model_validate(
            {"name": "f", "source": top, "period": "none", "exclude": [], "complete": {"settle_seconds": 0}}
        )
        clock.set(clock.now().replace(year=2100))
        source = LocalSource(feed, clock)
        file = only_file(source)
        happened = [change(path, before, fresh)]
        try:
            with source.open(file) as opened:
                first = opened.read_at(0, len(data) // 2)
                happened.append(change(path, during, fresh))
                rest = opened.read_at(len(data) // 2, len(data) - len(data) // 2)
                opened.check_unchanged()
        except SourceChanged:
            assert any(happened)
        else:
            assert not any(happened)
            assert first + rest == data


def change(path: Path, what: str, fresh: bytes) -> bool:
    """Does it; whether it was a change that must be told. Times move on by themselves here, as they do
    between two writes of a real producer."""
    if what == "nothing" or (what != "replace" and not path.exists()):
        return False
    modified_ns = path.stat().st_mtime_ns if path.exists() else 0
    if what == "overwrite":
        path.write_bytes(fresh)
    elif what == "append":
        with path.open("ab") as file:
            file.write(fresh)
    elif what == "truncate":
        os.truncate(path, len(fresh) // 2)
    elif what == "replace":
        path.with_name("new").write_bytes(fresh)
        path.with_name("new").replace(path)
    elif what == "remove":
        path.unlink()
        return True
    os.utime(path, ns=(modified_ns + 1, modified_ns + 1))
    return True
