"""Whether a period's directory is complete, and why, in words."""

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from xmode_transfer.adapters.source_rules import (
    NOTHING_WANTED_YET,
    NOTHING_YET,
    Completeness,
    Settling,
    judged,
)
from xmode_transfer.domain.selection import Selection


def by_marker(directory: str, marker: str) -> Completeness:
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


def by_settling(root: str, directory: str, selection: Selection, settling: Settling) -> Completeness:
    """Complete when neither a file nor a directory has changed for long enough. Excluded files count: a
    ``.part`` that still grows means that the period is not finished; only what lies in an excluded
    directory does not. Raises OSError when the directory itself cannot be read; what cannot be read below
    it is the scan's to report."""
    newest_file, files, wanted = -1, 0, 0
    newest_directory = os.stat(directory).st_mtime_ns
    for entry in _entries(root, directory, selection):
        if entry.is_file:
            newest_file = max(newest_file, entry.changed_ns)
            files += 1
            wanted += entry.wanted
        else:
            newest_directory = max(newest_directory, entry.changed_ns)
    if not wanted:
        return Completeness(False, NOTHING_WANTED_YET if files else NOTHING_YET)
    if newest_file >= newest_directory:
        return judged("newest file changed", newest_file, settling)
    return judged("a file came or went", newest_directory, settling)


def by_file(root: str, selection: Selection, settling: Settling) -> Completeness:
    """A drop folder has something to deliver as soon as one of its files has settled. Raises OSError."""
    files, wanted = 0, 0
    oldest: int | None = None
    for entry in _entries(root, root, selection):
        files += entry.is_file
        if entry.wanted:
            if settling.settles(entry.changed_ns):
                return Completeness(True, f"files that have not changed for {settling.seconds} s are there")
            wanted += 1
            oldest = entry.changed_ns if oldest is None else min(oldest, entry.changed_ns)
    if oldest is None:
        return Completeness(False, NOTHING_WANTED_YET if files else NOTHING_YET)
    return judged("the file that is nearest to complete changed", oldest, settling)


class _Entry(NamedTuple):
    is_file: bool  # else a directory
    wanted: bool
    changed_ns: int


def _entries(root: str, directory: str, selection: Selection) -> Iterator[_Entry]:
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
                        wanted = selection.takes_in(below, entry.name)
                        yield _Entry(True, wanted, status.st_mtime_ns)
                    elif not selection.leaves_out(below + entry.name):
                        yield _Entry(False, False, status.st_mtime_ns)
                        if not entry.is_symlink():
                            waiting.append((f"{below}{entry.name}/", status.st_mtime_ns))
                        elif not os.path.realpath(entry.path).startswith(root + "/"):
                            yield _Entry(True, True, status.st_mtime_ns)
        except OSError as error:
            if not below:
                raise
            if not isinstance(error, FileNotFoundError):
                yield _Entry(True, True, changed_ns)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link that leads nowhere
        return entry.stat(follow_symlinks=False)
