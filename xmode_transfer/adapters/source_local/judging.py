"""Why a file cannot be delivered as it is: its name, where its link leads, what it is."""

import errno
import os
import re
import stat
from enum import StrEnum

from xmode_transfer.domain.errors import SourceUnreadable
from xmode_transfer.domain.records import SourceProblem

MAX_KEY_BYTES = 1024  # S3 User Guide, "Naming Amazon S3 objects": a key has 1,024 bytes of UTF-8 at most


class ProblemCode(StrEnum):
    """What is wrong with a file, for programs; stable."""

    NAME_NOT_UTF8 = "name_not_utf8"
    NAME_CONTROL_CHARACTER = "name_control_character"
    NAME_TOO_LONG = "name_too_long"
    UNREADABLE = "unreadable"
    LINK_LEAVES_ROOT = "link_leaves_root"
    LINK_DANGLING = "link_dangling"
    LINK_LOOP = "link_loop"
    NOT_A_FILE = "not_a_file"


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def readable(name: str) -> str:
    """A name as a terminal and a log can show it, with escapes for what is no UTF-8 and for control
    characters."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", shown)


def problem(name: str, code: ProblemCode, message: str) -> SourceProblem:
    return SourceProblem(readable(name), str(code), message)


def name_problem(name: str) -> SourceProblem | None:
    """What keeps a path (relative to the feed's root) from being an object key; None for a good one."""
    if _CONTROL.search(name):
        return problem(
            name,
            ProblemCode.NAME_CONTROL_CHARACTER,
            "its name has a control character, which no object key can carry; rename it",
        )
    if _SURROGATE.search(name):
        return problem(
            name, ProblemCode.NAME_NOT_UTF8, "its name is not UTF-8, as every object key is; rename it"
        )
    length = len(name.encode())
    if length > MAX_KEY_BYTES:
        return problem(
            name,
            ProblemCode.NAME_TOO_LONG,
            f"its path has {length:,} bytes, an object key {MAX_KEY_BYTES:,} at most; shorten it",
        )
    return None


def unreadable(name: str, error: OSError) -> SourceProblem:
    return problem(
        name,
        ProblemCode.UNREADABLE,
        f"it cannot be read ({error.strerror or error}) by the user that this service runs as; let it read",
    )


def not_a_file(name: str, mode: int) -> SourceProblem:
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    return problem(name, ProblemCode.NOT_A_FILE, f"it is {kind}, not a file; move it away or exclude it")


def link_problem(name: str, path: str, root: str) -> SourceProblem | None:
    """What is wrong with where a symbolic link leads; None when that is something below the root. ``root`` is
    without links and without a slash at its end. Raises OSError."""
    dangling = False
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return problem(
                name, ProblemCode.LINK_LOOP, "it is a symbolic link that leads back to itself; remove it"
            )
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            dangling = True
        elif error.errno != errno.EACCES:  # where we may not look may still be outside the root
            raise
    target = os.path.realpath(path)
    if not target.startswith(root + "/"):
        return problem(
            name,
            ProblemCode.LINK_LEAVES_ROOT,
            f"it is a symbolic link to {readable(target)}, outside the feed's root; put the file there",
        )
    if dangling:
        return problem(
            name,
            ProblemCode.LINK_DANGLING,
            f"it is a symbolic link to {readable(target)}, which is not there; remove it or restore the file",
        )
    return None


def raise_if_out_of_descriptors(error: OSError) -> None:
    """Running out of file descriptors is our own limit, no file's fault. Raises SourceUnreadable."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise SourceUnreadable(
            f"no more files can be opened ({error.strerror})",
            hint="raise the limit with `ulimit -n`, or LimitNOFILE= in the systemd unit, and start again",
        ) from error
