"""Walk a period's files below a feed's root in the order of their names, and find what cannot be delivered.

The stream is in code-point order of the relative paths: a directory is sorted as its name with ``/`` (``a-b``
comes before ``a/b``, and ``a/b`` before ``a0``). Only the current directory is open. Links to files below the
root are followed. Links to directories are not: one that leads below the root would deliver the same files
under a second name and is ignored; one that leads outside is reported.
"""

import errno
import heapq
import os
import stat
import tempfile
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import IO

from xmode_transfer.model.errors import SourceMissing, SourceUnreadable
from xmode_transfer.model.keys import MAX_KEY_BYTES, readable
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.model.selection import Selection
from xmode_transfer.sources.interface import ProblemCode, Settling, name_problem, problem

RUN_LENGTH = 100_000  # names that are sorted in memory: about 15 MB
_BLOCK_BYTES = 16 * 1024
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# An ordinary file that everyone may read needs no further check.
_PLAIN_MASK = 0o170000 | stat.S_IROTH
_PLAIN = stat.S_IFREG | stat.S_IROTH
_SURELY_SHORT = MAX_KEY_BYTES // 4  # this many characters fit into a key, whatever they are
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
}


def identity_of(status: os.stat_result) -> str:
    """Return what stays the same when a file is written to, and differs for one put in its place."""
    return f"{status.st_dev}:{status.st_ino}"


def real_root(path: str) -> str:
    """Return a feed's root without links and a slash at its end."""
    return os.path.realpath(path).rstrip("/")


def walk(
    path: str, top: str, selection: Selection, settling: Settling | None = None
) -> Iterator[SourceFile | SourceProblem]:
    """Yield every file to deliver, and every one that can never be delivered, in order. ``path`` is the
    feed's root; ``top`` is the period's directory below it, empty or ending in ``/``. With ``settling``,
    leaves out files that have not settled. Raises SourceMissing and SourceUnreadable for ``top``."""
    root = real_root(path)
    settled_ns = settling.settled_ns if settling is not None else None
    levels = [_open_top(f"{path}/{top}".rstrip("/"), root, top, selection)]
    try:
        while levels:
            level = levels[-1]
            prefix, shortest_bad = level.prefix, level.shortest_bad
            descriptor, deeper = None, None
            for name in level.names:
                if name == level.previous:  # a directory that changes meanwhile may name a file twice
                    continue
                level.previous = name
                if name[-1] == "/":
                    deeper = name
                    break
                try:
                    if descriptor is None:
                        descriptor = level.descriptor(root)
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted since it was listed
                except OSError as error:
                    raise_if_out_of_descriptors(error)
                    yield unreadable(prefix + name, error)
                    continue
                if status.st_mode & _PLAIN_MASK == _PLAIN and len(name) < shortest_bad and name.isprintable():
                    modified_ns = status.st_mtime_ns
                    if settled_ns is None or modified_ns <= settled_ns:
                        identity = f"{status.st_dev}:{status.st_ino}"
                        yield SourceFile(prefix + name, status.st_size, modified_ns, identity)
                        continue
                found = _judge(prefix + name, root, status, settling)
                if found is not None:
                    yield found
            if deeper is None:
                levels.pop().close()
                continue
            opened = _open_below(root, prefix + deeper, top, selection)
            if isinstance(opened, _Level):
                level.release()
                levels.append(opened)
            elif opened is not None:
                yield opened
    finally:
        for level in levels:
            level.close()


def _judge(
    name: str, root: str, status: os.stat_result, settling: Settling | None
) -> SourceFile | SourceProblem | None:
    """Return None for what is deleted, not settled or ignored."""
    path = f"{root}/{name}"
    try:
        bad = name_problem(name)
        if stat.S_ISLNK(status.st_mode):
            bad = bad or link_problem(name, path, root)
            if bad is None:
                status = os.stat(path)
                if stat.S_ISDIR(status.st_mode):
                    return None
        if settling is not None and not settling.settles(status.st_mtime_ns):
            return None
        if bad is not None:
            return bad
        if not stat.S_ISREG(status.st_mode):
            reason = f"it is {_kind(status.st_mode)}, not a file; move it away or exclude it"
            return problem(name, ProblemCode.NOT_A_FILE, reason)
        if settling is not None and (bad := settling.date_problem(name, status.st_mtime_ns)) is not None:
            return bad
        if not os.access(path, os.R_OK, effective_ids=True):
            return unreadable(name, PermissionError("permission denied"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_if_out_of_descriptors(error)
        return unreadable(name, error)
    return SourceFile(name, status.st_size, status.st_mtime_ns, identity_of(status))


class _Level:
    """A directory on the way down. ``prefix`` is its path below the root, empty or ending in ``/``. Its
    descriptor is closed while a directory below it is walked."""

    def __init__(self, prefix: str, descriptor: int, names: Iterator[str], spill: IO[bytes] | None) -> None:
        self.prefix = prefix
        self.names = names
        self.previous = ""
        # Shorter names need no check of the whole path's length, if the prefix is good.
        self.shortest_bad = _SURELY_SHORT - len(prefix) if name_problem(prefix.rstrip("/")) is None else 0
        self._descriptor: int | None = descriptor
        self._spill = spill

    def descriptor(self, root: str) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(f"{root}/{self.prefix}", _OPEN_DIRECTORY)
        return self._descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        self.release()
        if self._spill is not None:
            self._spill.close()


def _open_level(root: str, prefix: str, top: str, selection: Selection) -> _Level:
    descriptor = os.open(f"{root}/{prefix}".rstrip("/") or "/", _OPEN_DIRECTORY)
    try:
        return _Level(prefix, descriptor, *sorted_names(descriptor, prefix[len(top) :], selection))
    except BaseException:
        os.close(descriptor)
        raise


def _open_top(shown: str, root: str, top: str, selection: Selection) -> _Level:
    path = f"{root}/{top}".rstrip("/")
    if os.path.realpath(path) != path:
        raise SourceUnreadable(
            f"{shown} is reached through a symbolic link, and links to directories are not followed",
            hint="put the directory itself below the feed's root, or mount it there",
        )
    try:
        return _open_level(root, top, top, selection)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(shown) from error
    except OSError as error:
        raise closed_to_us(shown, error) from error


def _open_below(root: str, prefix: str, top: str, selection: Selection) -> _Level | SourceProblem | None:
    """Return None for a directory that is deleted or ignored. A problem is named with ``/`` at its end."""
    path = f"{root}/{prefix}".rstrip("/")
    if len(prefix.encode("utf-8", "surrogateescape")) >= MAX_KEY_BYTES:
        reason = f"its files need object keys of more than {MAX_KEY_BYTES:,} bytes; shorten its path"
        return problem(prefix, ProblemCode.NAME_TOO_LONG, reason)
    try:
        return _open_level(root, prefix, top, selection)
    except OSError as error:
        raise_if_out_of_descriptors(error)
        try:
            if stat.S_ISLNK(os.lstat(path).st_mode):
                return link_problem(prefix, path, root)
        except FileNotFoundError:
            return None
        except OSError as worse:
            return unreadable(prefix, worse)
        return unreadable(prefix, error)


def sorted_names(
    descriptor: int, directory: str, selection: Selection
) -> tuple[Iterator[str], IO[bytes] | None]:
    """Return the names in an open directory that ``selection`` takes, in order: directories, and links to
    directories, end in ``/``. ``directory`` is relative to the period. More than one run of names is sorted
    in an unnamed temporary file, which the caller closes. Raises SourceUnreadable without disk space for it,
    and OSError if the directory cannot be listed to its end."""
    runs = _sorted_runs(descriptor, directory, selection)
    first, second = next(runs, []), next(runs, None)
    if second is None:
        return iter(first), None
    try:
        file = tempfile.TemporaryFile(buffering=0, prefix="xmode-names-")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise _no_room(error) from error
    try:
        ends = [0]
        for run in chain((first, second), runs):
            ends.append(_append(file.fileno(), run, ends[-1]))
    except BaseException:
        file.close()
        raise
    return heapq.merge(*(_names(file.fileno(), *span) for span in pairwise(ends))), file


def _sorted_runs(descriptor: int, directory: str, selection: Selection) -> Iterator[list[str]]:
    takes, leaves_out = selection.chooser(directory), selection.leaves_out
    run: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            name = entry.name
            try:
                is_directory = entry.is_dir()  # accesses the disk for links only
            except OSError:  # a link in a loop, or to a path that may not be read: checked as a file
                is_directory = False
            if not is_directory:
                if takes(name):
                    run.append(name)
            elif not leaves_out(directory + name):
                run.append(name + "/")
            if len(run) >= RUN_LENGTH:
                yield sorted(run)
                run = []
    if run:
        yield sorted(run)


def _append(descriptor: int, names: list[str], offset: int) -> int:
    """Writes the names, each ended by NUL, which no name contains. Returns the offset behind them."""
    data = memoryview(("\0".join(names) + "\0").encode("utf-8", "surrogateescape"))
    try:
        while data:
            written = os.pwrite(descriptor, data, offset)
            offset += written
            data = data[written:]
    except OSError as error:
        raise _no_room(error) from error
    return offset


def _names(descriptor: int, offset: int, end: int) -> Iterator[str]:
    tail = b""
    while offset < end:
        block = os.pread(descriptor, min(_BLOCK_BYTES, end - offset), offset)
        offset += len(block)
        whole, found, tail = (tail + block).rpartition(b"\0")
        if found:
            yield from whole.decode("utf-8", "surrogateescape").split("\0")


def _no_room(error: OSError) -> SourceUnreadable:
    return SourceUnreadable(
        f"a directory of many files could not be sorted: {error.strerror or error}",
        hint=f"its names are sorted in {tempfile.gettempdir()}, which needs space for them; set TMPDIR to "
        "another directory",
    )


def unreadable(name: str, error: OSError) -> SourceProblem:
    why = error.strerror or error
    reason = f"it cannot be read ({why}) by the user that this service runs as; let it read"
    return problem(name, ProblemCode.UNREADABLE, reason)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def unfollowed(name: str, path: str, root: str) -> SourceProblem | None:
    """Return why a directory of the partition's path is not followed; None if it is, or does not exist."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            return None
        if not stat.S_ISLNK(mode):
            reason = f"it is {_kind(mode)}, and its name says that it is a directory of periods; move it away"
            return problem(name, ProblemCode.NOT_A_DIRECTORY, reason)
        reason = (
            f"it is a symbolic link to {readable(os.path.realpath(path))}, and links are not followed on the "
            "way to a period; put the directory itself there, or mount it there"
        )
        return link_problem(name, path, root) or problem(name, ProblemCode.LINK_TO_DIRECTORY, reason)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_if_out_of_descriptors(error)
        return unreadable(name, error)


def link_problem(name: str, path: str, root: str) -> SourceProblem | None:
    """Return None if the link's target is below ``root`` (without links and a slash at its end)."""
    dangling = False
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            reason = "it is a symbolic link that leads back to itself; remove it"
            return problem(name, ProblemCode.LINK_LOOP, reason)
        dangling = error.errno in (errno.ENOENT, errno.ENOTDIR)
        if not dangling and error.errno != errno.EACCES:  # a target that may not be read may be outside
            raise
    target = os.path.realpath(path)
    what = f"it is a symbolic link to {readable(target)}"
    if not target.startswith(root + "/"):
        fix = "put the directory itself there, or mount it" if name.endswith("/") else "put the file there"
        return problem(name, ProblemCode.LINK_LEAVES_ROOT, f"{what}, outside the feed's root; {fix}")
    if dangling:
        reason = f"{what}, which does not exist; remove it or restore the file"
        return problem(name, ProblemCode.LINK_DANGLING, reason)
    return None


def raise_if_out_of_descriptors(error: OSError) -> None:
    """Raise SourceUnreadable if this process has no file descriptors left: no file is at fault."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise SourceUnreadable(
            f"no more files can be opened ({error.strerror})",
            hint="raise the limit with `ulimit -n`, or LimitNOFILE= in the systemd unit, and start again",
        ) from error


def missing(shown: str) -> SourceMissing:
    hint = "check the feed's source, and that its disk is mounted"
    return SourceMissing(f"{shown} does not exist, or is no directory", hint=hint)


def closed_to_us(shown: str, error: OSError) -> SourceUnreadable:
    """Return the error for the root or a period's directory that cannot be read."""
    raise_if_out_of_descriptors(error)
    hint = "the user that this service runs as needs to be able to read it"
    return SourceUnreadable(f"{shown} cannot be read: {error.strerror or error}", hint=hint)
