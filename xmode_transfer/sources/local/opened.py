"""One open source file, and how it is opened without being led astray.

What was scanned and what is opened are compared by size, modification time and identity, before the open
(so that a pipe or a device put in the file's place is never opened) and after it, on the descriptor.
"""

import os
import stat
from datetime import UTC, datetime

from xmode_transfer.model.errors import SourceChanged, SourceError, SourceUnreadable
from xmode_transfer.model.keys import readable
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.local.walk import identity_of, raise_if_out_of_descriptors, real_root

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
