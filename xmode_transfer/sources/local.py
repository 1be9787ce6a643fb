"""Read a feed's files from a directory."""

import errno
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.config import Feed
from xmode_transfer.model.errors import SourceChanged, SourceError, SourceUnreadable
from xmode_transfer.model.keys import readable
from xmode_transfer.model.periods import Partition, Period
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.model.selection import Selection
from xmode_transfer.sources.interface import FeedFiles, PeriodState, Seen, not_scanned, period_of
from xmode_transfer.sources.local_walk import (
    closed_to_us,
    identity_of,
    missing,
    raise_if_out_of_descriptors,
    real_root,
    unfollowed,
    unreadable,
    walk,
)

# Without O_NONBLOCK, a pipe that replaces a file between stat and open would block for ever.
_OPEN_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class LocalFile(OpenFile):
    """An open file with one descriptor and positioned reads. Thread-safe."""

    def __init__(self, file: SourceFile, path: str, descriptor: int) -> None:
        self.size = file.size
        self._file = file
        self._path = path
        self._descriptor = descriptor

    def fileno(self) -> int:
        """For engines that read it themselves. Raises ValueError once closed."""
        if self._descriptor < 0:
            raise ValueError(f"{readable(self._file.name)} is closed")
        return self._descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        descriptor = self.fileno()
        pieces = []
        position, end = offset, offset + length
        while position < end:
            try:
                piece = os.pread(descriptor, end - position, position)
            except OSError as error:
                raise _unreadable(self._file.name, error) from error
            if not piece:
                raise SourceChanged(
                    f"{readable(self._file.name)} became shorter while it was read: "
                    f"it ended at {position:,} of {self.size:,} bytes"
                )
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)  # which does not copy a single piece

    def read_into(self, buffer: memoryview, offset: int) -> int:
        # A file that grows meanwhile must not add bytes to the object.
        wanted = max(0, min(len(buffer), self.size - offset))
        descriptor = self.fileno()
        done = 0
        while done < wanted:
            try:
                count = os.preadv(descriptor, [buffer[done:wanted]], offset + done)
            except OSError as error:
                raise _unreadable(self._file.name, error) from error
            if count == 0:
                break
            done += count
        return done

    def check_unchanged(self) -> None:
        try:
            statuses = os.fstat(self.fileno()), os.stat(self._path)
        except OSError as error:
            raise _cannot_stat(self._file.name, error) from error
        for status in statuses:
            _compare(self._file, status)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def open_file(root: str, file: SourceFile) -> LocalFile:
    """Opens a scanned file below the feed's root. Raises SourceError."""
    path = f"{root}/{file.name}"
    try:
        _compare(file, os.stat(path))
        descriptor = os.open(path, _OPEN_FILE)
    except OSError as error:
        raise_if_out_of_descriptors(error)
        raise _cannot_stat(file.name, error) from error
    try:
        _compare(file, os.fstat(descriptor))
        try:
            real = os.readlink(f"/proc/self/fd/{descriptor}")  # the kernel's answer cannot be raced
        except OSError:  # there is no /proc
            real = os.path.realpath(path)
        if real != path and not real.startswith(real_root(root) + "/"):
            raise SourceUnreadable(
                f"{readable(file.name)} leads to {readable(real)}, outside the feed's root",
                hint="put the file itself below the feed's root",
            )
    except BaseException:
        os.close(descriptor)
        raise
    return LocalFile(file, path, descriptor)


def _compare(file: SourceFile, status: os.stat_result) -> None:
    name = readable(file.name)
    if not stat.S_ISREG(status.st_mode):
        raise SourceChanged(f"{name} is no longer a file", hint="see what was put in its place")
    if status.st_size != file.size:
        change = f"it had {file.size:,} bytes and now has {status.st_size:,}"
    elif status.st_mtime_ns != file.modified_ns:
        change = f"it was written to at {_instant(status.st_mtime_ns)}"
    elif identity_of(status) != file.identity:
        change = "another file was put in its place"
    else:
        return
    raise SourceChanged(f"{name} changed after it was listed: {change}")


def _instant(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns // 10**9, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{ns / 10**9:.0f} s after 1970"


def _cannot_stat(name: str, error: OSError) -> SourceError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceChanged(f"{readable(name)} is gone", hint="if it is put back, the next run delivers it")
    return _unreadable(name, error)


def _unreadable(name: str, error: OSError) -> SourceUnreadable:
    hint = "the user that this service runs as needs to be able to read it; if it is, check its disk"
    return SourceUnreadable(f"{readable(name)} cannot be read: {error.strerror or error}", hint=hint)


class LocalSource(FeedFiles):
    """Thread-safe: it keeps no state between calls."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        super().__init__(feed, clock)
        self._root = feed.source.rstrip("/") or "/"

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState | SourceProblem]:
        root = self._real_root()
        if self._partition is None:
            yield self._drop_folder(root)
            return
        problems: list[SourceProblem] = []
        for period, directory in sorted(_period_directories(root, self._partition, problems)):
            if since is not None and period.start < since:
                yield not_scanned(period)
            elif (found := self._state(root, period, directory)) is not None:
                yield found
        yield from problems

    def state(self, period: Period) -> PeriodState | None:
        root = self._real_root()
        if self._partition is None:
            return self._drop_folder(root)
        directory = self._partition.path(period)
        found: PeriodState | SourceProblem | None = None
        for end in (at for at, character in enumerate(directory) if character == "/"):
            found = found or unfollowed(directory[: end + 1], f"{root}/{directory[:end]}", root)
        found = found or self._state(root, period, directory)
        if isinstance(found, SourceProblem):
            raise SourceUnreadable(f"{readable(found.name)}: {found.message}")
        return found

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        if self._partition is not None:
            return walk(self._root, self._partition.path(period) + "/", self._selection)
        return walk(self._root, "", self._selection, self._settling())

    def open(self, file: SourceFile) -> LocalFile:
        return open_file(self._root, file)

    def _real_root(self) -> str:
        if not os.path.isdir(self._root):
            raise missing(self._root)
        return real_root(self._root)

    def _drop_folder(self, root: str) -> PeriodState:
        try:
            return self._by_file(_entries(root, root, self._selection))
        except OSError as error:
            raise closed_to_us(self._root, error) from error

    def _state(self, root: str, period: Period, directory: str) -> PeriodState | SourceProblem | None:
        path = f"{root}/{directory}"
        problem = unfollowed(directory + "/", path, root)
        if problem is not None:
            return problem
        try:
            os.lstat(path)
            if self._marker is not None:
                return _by_marker(period, path, self._marker)
            newest_ns = os.stat(path).st_mtime_ns
            return self._by_settling(period, _entries(root, path, self._selection), newest_ns)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise_if_out_of_descriptors(error)
            return unreadable(directory + "/", error)


def _period_directories(
    root: str, partition: Partition, problems: list[SourceProblem]
) -> Iterator[tuple[Period, str]]:
    """Yields, in no order, what is named like a period's directory. ``problems`` cannot be followed."""
    level, last = [""], len(partition.segments) - 1
    for depth in range(len(partition.segments)):
        level = [
            below
            for above in level
            for below in _matching(root, above, partition, depth, problems)
            if depth == last or _is_followed(root, below, problems)
        ]
    for directory in level:
        period = period_of(partition, directory)
        if period is not None:
            yield period, directory


def _matching(
    root: str, above: str, partition: Partition, depth: int, problems: list[SourceProblem]
) -> list[str]:
    try:
        with os.scandir(f"{root}/{above}") as entries:
            return [
                f"{above}/{entry.name}" if above else entry.name
                for entry in entries
                if partition.segment_matches(depth, entry.name)
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        if not above:
            raise closed_to_us(root, error) from error
        raise_if_out_of_descriptors(error)
        problems.append(unreadable(above + "/", error))
        return []


def _is_followed(root: str, directory: str, problems: list[SourceProblem]) -> bool:
    problem = unfollowed(directory + "/", f"{root}/{directory}", root)
    if problem is not None:
        problems.append(problem)
    return problem is None


def _by_marker(period: Period, directory: str, marker: str) -> PeriodState:
    try:
        status = os.stat(f"{directory}/{marker}")
    except (FileNotFoundError, NotADirectoryError):
        return PeriodState(period, False, f"no {marker} yet")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return PeriodState(period, False, f"{marker} is a symbolic link that leads back to itself")
    if not stat.S_ISREG(status.st_mode):
        return PeriodState(period, False, f"{marker} is there, but it is no file")
    return PeriodState(period, True, f"{marker} is there", f"{status.st_mtime_ns}-{status.st_size}")


def _entries(root: str, directory: str, selection: Selection) -> Iterator[Seen]:
    """Yield everything below a directory, in no order. What the scan will report counts as a wanted file, so
    that there is a scan: a directory that cannot be read, a link to one outside the root."""
    waiting = [("", 0)]
    while waiting:
        below, changed_ns = waiting.pop()
        try:
            with os.scandir(f"{directory}/{below}") as entries:
                for entry in entries:
                    try:
                        status = entry.stat()
                    except OSError:  # a dangling link
                        status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        wanted = bool(selection.chooser(below)(entry.name))
                        yield Seen(True, wanted, status.st_mtime_ns)
                    elif not selection.leaves_out(below + entry.name):
                        yield Seen(False, False, status.st_mtime_ns)
                        if not entry.is_symlink():
                            waiting.append((f"{below}{entry.name}/", status.st_mtime_ns))
                        elif not os.path.realpath(entry.path).startswith(root + "/"):
                            yield Seen(True, True, status.st_mtime_ns)
        except OSError as error:
            if not below:
                raise
            if not isinstance(error, FileNotFoundError):
                yield Seen(True, True, changed_ns)
