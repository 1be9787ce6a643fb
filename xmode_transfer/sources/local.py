"""A feed's files in a directory."""

import errno
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from xmode_transfer.config import Feed
from xmode_transfer.model.errors import SourceChanged, SourceError, SourceUnreadable
from xmode_transfer.model.keys import readable
from xmode_transfer.model.periods import Partition, Period
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.model.selection import Selection
from xmode_transfer.sources.interface import (
    NOT_LOOKED_INTO,
    Completeness,
    FeedFiles,
    PeriodState,
    Seen,
    by_file,
    by_settling,
)
from xmode_transfer.sources.local_walk import (
    Tree,
    closed_to_us,
    identity_of,
    missing,
    raise_if_out_of_descriptors,
    real_root,
    unfollowed,
    unreadable,
    walk,
)

# Without O_NONBLOCK a pipe that takes a file's place between the two looks would block the open for ever.
_OPEN_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class LocalFile:
    """Implements ``OpenFile`` with one descriptor and positioned reads: any number of threads may
    share it."""

    def __init__(self, file: SourceFile, path: str, descriptor: int) -> None:
        self.size = file.size
        self._file = file
        self._path = path
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor, for engines that read by themselves. Raises ValueError once it is closed."""
        if self._descriptor < 0:
            raise ValueError(f"{readable(self._file.name)} is closed")
        return self._descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        descriptor = self.fileno()
        pieces = []
        missing = length
        while missing > 0:
            try:
                piece = os.pread(descriptor, missing, offset + length - missing)
            except OSError as error:
                raise _unreadable(self._file.name, error) from error
            if not piece:
                raise SourceChanged(
                    f"{readable(self._file.name)} became shorter while it was read: "
                    f"it ended at {offset + length - missing:,} of {self.size:,} bytes"
                )
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        # A file that grows meanwhile must not put more bytes into an object than its size says.
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
            opened = os.fstat(self.fileno())
            at_path = os.stat(self._path)
        except OSError as error:
            raise _cannot_look(self._file.name, error) from error
        _compare(self._file, opened)
        _compare(self._file, at_path)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> "LocalFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_file(root: str, file: SourceFile) -> LocalFile:
    """Opens a scanned file below the feed's root. Raises SourceChanged, SourceUnreadable."""
    path = f"{root}/{file.name}"
    try:
        _compare(file, os.stat(path))
        descriptor = os.open(path, _OPEN_FILE)
    except OSError as error:
        raise_if_out_of_descriptors(error)
        raise _cannot_look(file.name, error) from error
    try:
        _compare(file, os.fstat(descriptor))
        real = _real_path(descriptor, path)
        if real != path:  # a link somewhere on the way, often the root itself
            _check_inside(root, file.name, real)
    except BaseException:
        os.close(descriptor)
        raise
    return LocalFile(file, path, descriptor)


def _compare(file: SourceFile, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SourceChanged(
            f"{readable(file.name)} is no longer a file", hint="see what was put in its place"
        )
    if status.st_size != file.size:
        told = f"it had {file.size:,} bytes and now has {status.st_size:,}"
    elif status.st_mtime_ns != file.modified_ns:
        told = f"it was written to at {_instant(status.st_mtime_ns)}"
    elif identity_of(status) != file.identity:
        told = "another file was put in its place"
    else:
        return
    raise SourceChanged(f"{readable(file.name)} changed after it was listed: {told}")


def _instant(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns // 10**9, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{ns / 10**9:.0f} s after 1970"


def _real_path(descriptor: int, path: str) -> str:
    """Where the opened file really lies. The kernel's own answer cannot be raced; without /proc the path is
    resolved anew."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.path.realpath(path)


def _check_inside(root: str, name: str, real: str) -> None:
    if real.startswith(real_root(root) + "/"):
        return
    raise SourceUnreadable(
        f"{readable(name)} leads to {readable(real)}, outside the feed's root",
        hint="put the file itself below the feed's root",
    )


def _cannot_look(name: str, error: OSError) -> SourceError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceChanged(f"{readable(name)} is gone", hint="if it is put back, the next run delivers it")
    return _unreadable(name, error)


def _unreadable(name: str, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(
        f"{readable(name)} cannot be read: {error.strerror or error}",
        hint="the user that this service runs as needs to be able to read it; if it is, check its disk",
    )


class LocalSource(FeedFiles):
    """Implements ``Source`` over a directory tree. Thread-safe: it remembers nothing between calls."""

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
                yield PeriodState(period, False, NOT_LOOKED_INTO)
            elif (found := self._state(root, period, directory)) is not None:
                yield found
        yield from problems

    def state(self, period: Period) -> PeriodState | None:
        root = self._real_root()
        if self._partition is None:
            return self._drop_folder(root)
        directory = self._partition.path(period)
        above = ""
        for segment in directory.split("/")[:-1]:
            above += segment
            problem = unfollowed(above + "/", f"{root}/{above}", root)
            if problem is not None:
                raise _not_followed(problem)
            above += "/"
        found = self._state(root, period, directory)
        if isinstance(found, SourceProblem):
            raise _not_followed(found)
        return found

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        if self._partition is not None:
            return walk(Tree(self._root, self._partition.path(period) + "/", self._selection))
        return walk(Tree(self._root, "", self._selection, self._settling()))

    def open(self, file: SourceFile) -> LocalFile:
        return open_file(self._root, file)

    def _real_root(self) -> str:
        """The root without links. Raises SourceMissing."""
        if not os.path.isdir(self._root):
            raise missing(self._root)
        return real_root(self._root)

    def _drop_folder(self, root: str) -> PeriodState:
        try:
            return PeriodState(
                Period.none(), *by_file(_entries(root, root, self._selection), self._settling())
            )
        except OSError as error:
            raise_if_out_of_descriptors(error)
            raise closed_to_us(self._root, error) from error

    def _state(self, root: str, period: Period, directory: str) -> PeriodState | SourceProblem | None:
        path = f"{root}/{directory}"
        problem = unfollowed(directory + "/", path, root)
        if problem is not None:
            return problem
        try:
            os.lstat(path)
            return PeriodState(period, *self._completeness(root, path))
        except FileNotFoundError:
            return None  # the source has nothing for it
        except OSError as error:
            raise_if_out_of_descriptors(error)
            return unreadable(directory + "/", error)

    def _completeness(self, root: str, path: str) -> Completeness:
        """Raises OSError when the directory itself cannot be read; what cannot be read below it is the scan's
        to report."""
        if self._marker is not None:
            return _by_marker(path, self._marker)
        newest_ns = os.stat(path).st_mtime_ns
        return by_settling(_entries(root, path, self._selection), self._settling(), newest_ns)


def _period_directories(
    root: str, partition: Partition, problems: list[SourceProblem]
) -> Iterator[tuple[Period, str]]:
    """What is named as a period's directory is, in no order, whatever it is; what only looks like one is left
    out. What cannot be followed on the way is noted in ``problems``."""
    level = [""]
    for depth in range(len(partition.segments) - 1):
        level = [
            below
            for above in level
            for below in _matching(root, above, partition, depth, problems)
            if _is_followed(root, below, problems)
        ]
    for above in level:
        for directory in _matching(root, above, partition, len(partition.segments) - 1, problems):
            period = partition.period(directory)
            if period is not None and partition.path(period) == directory:
                yield period, directory


def _matching(
    root: str, above: str, partition: Partition, depth: int, problems: list[SourceProblem]
) -> list[str]:
    """What lies directly below a directory and has a name that the partition has at that depth."""
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
        raise_if_out_of_descriptors(error)
        if not above:
            raise closed_to_us(root, error) from error
        problems.append(unreadable(above + "/", error))
        return []


def _is_followed(root: str, directory: str, problems: list[SourceProblem]) -> bool:
    problem = unfollowed(directory + "/", f"{root}/{directory}", root)
    if problem is not None:
        problems.append(problem)
    return problem is None


def _not_followed(problem: SourceProblem) -> SourceUnreadable:
    return SourceUnreadable(f"{readable(problem.name)}: {problem.message}")


def _by_marker(directory: str, marker: str) -> Completeness:
    """Complete when the marker stands in the directory. Raises OSError when that cannot be seen."""
    try:
        status = os.stat(f"{directory}/{marker}")
    except (FileNotFoundError, NotADirectoryError):
        return Completeness(False, f"no {marker} yet")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return Completeness(False, f"{marker} is a symbolic link that leads back to itself")
    if not stat.S_ISREG(status.st_mode):
        return Completeness(False, f"{marker} is there, but it is no file")
    return Completeness(True, f"{marker} stands", f"{status.st_mtime_ns}-{status.st_size}")


def _entries(root: str, directory: str, selection: Selection) -> Iterator[Seen]:
    """Everything below a directory of the feed's root, in no order. A link counts as what it leads to; a
    linked directory is not looked into. What the scan will report, a directory that cannot be read or a link
    to one outside the root, counts as a file that is wanted: else nobody would scan for it."""
    waiting = [("", 0)]
    while waiting:
        below, changed_ns = waiting.pop()
        try:
            with os.scandir(f"{directory}/{below}") as entries:
                for entry in entries:
                    status = _status(entry)
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


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link that leads nowhere
        return entry.stat(follow_symlinks=False)
