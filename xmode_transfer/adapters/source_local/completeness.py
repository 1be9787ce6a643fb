"""Whether a period's directory is complete, and why, in words."""

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from xmode_transfer.domain.selection import Selection


class Completeness(NamedTuple):
    """``marker`` tells one declaration of completeness from the next; empty where there is no marker file."""

    complete: bool
    reason: str
    marker: str = ""


class Settling(NamedTuple):
    """How long nothing must have changed, seen from ``now_ns`` (nanoseconds since 1970)."""

    seconds: int
    now_ns: int

    @staticmethod
    def at(now: datetime, seconds: int) -> "Settling":
        return Settling(seconds, round(now.timestamp() * 1_000_000) * 1000)

    @property
    def settled_ns(self) -> int:
        """What changed at that moment or before has settled."""
        return self.now_ns - self.seconds * 10**9


def by_marker(directory: str, marker: str) -> Completeness:
    """Complete when the marker stands in the directory. Raises OSError when that cannot be seen."""
    try:
        status = os.stat(f"{directory}/{marker}")
    except (FileNotFoundError, NotADirectoryError):
        return Completeness(False, f"no {marker} yet")
    if not stat.S_ISREG(status.st_mode):
        return Completeness(False, f"{marker} is there, but it is no file")
    return Completeness(True, f"{marker} stands", f"{status.st_mtime_ns}-{status.st_size}")


def by_settling(directory: str, selection: Selection, settling: Settling) -> Completeness:
    """Complete when neither a file nor a directory has changed for long enough. Excluded files count: a
    ``.part`` that still grows means that the period is not finished; only what lies in an excluded
    directory does not. Raises OSError when the directory itself cannot be read; what cannot be read below
    it is the scan's to report."""
    newest_file, files, wanted = -1, 0, 0
    newest_directory = os.stat(directory).st_mtime_ns
    for entry in _entries(directory, selection):
        if entry.is_file:
            newest_file = max(newest_file, entry.changed_ns)
            files += 1
            wanted += entry.wanted
        else:
            newest_directory = max(newest_directory, entry.changed_ns)
    if not wanted:
        return Completeness(False, "no file yet that the feed includes" if files else "no file yet")
    if newest_file >= newest_directory:
        return _judge("newest file changed", newest_file, settling)
    return _judge("a file came or went", newest_directory, settling)


def by_file(directory: str, selection: Selection, settling: Settling) -> Completeness:
    """A drop folder has something to deliver as soon as one of its files has settled. Raises OSError."""
    files, wanted = 0, 0
    oldest: int | None = None
    for entry in _entries(directory, selection):
        files += entry.is_file
        if entry.wanted:
            if entry.changed_ns <= settling.settled_ns:
                return Completeness(True, f"files that have not changed for {settling.seconds} s are there")
            wanted += 1
            oldest = entry.changed_ns if oldest is None else min(oldest, entry.changed_ns)
    if oldest is None:
        return Completeness(False, "no file yet that the feed includes" if files else "no file yet")
    return _judge("the file that is nearest to complete changed", oldest, settling)


def _judge(what: str, changed_ns: int, settling: Settling) -> Completeness:
    age_ns = settling.now_ns - changed_ns
    left_seconds = -((changed_ns - settling.settled_ns) // -(10**9))
    if left_seconds <= 0:
        return Completeness(True, f"nothing has changed for {age_ns // 10**9} s")
    when = (
        f"{age_ns // 10**9} s ago" if age_ns >= 0 else f"{-age_ns // 10**9} s ahead of this machine's clock"
    )
    return Completeness(False, f"{what} {when}, {left_seconds} s to go")


class _Entry(NamedTuple):
    is_file: bool  # else a directory
    wanted: bool
    changed_ns: int


def _entries(directory: str, selection: Selection) -> Iterator[_Entry]:
    """Everything below a directory, in no order. A link counts as what it leads to; a linked directory is not
    looked into."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(f"{directory}/{below}") as entries:
                for entry in entries:
                    status = _status(entry)
                    if not stat.S_ISDIR(status.st_mode):
                        wanted = selection.takes_in(below, entry.name)
                        yield _Entry(True, wanted, status.st_mtime_ns)
                    elif not selection.leaves_out(below + entry.name):
                        yield _Entry(False, False, status.st_mtime_ns)
                        if not entry.is_symlink():
                            waiting.append(f"{below}{entry.name}/")
        except OSError:
            if not below:
                raise


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link that leads nowhere
        return entry.stat(follow_symlinks=False)
