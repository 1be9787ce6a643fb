"""Why a file cannot be delivered as it is: its name, where its link leads, what it is."""

import errno
import os
import stat

from xmode_transfer.adapters.source_rules import ProblemCode, problem
from xmode_transfer.domain.errors import SourceUnreadable
from xmode_transfer.domain.keys import readable
from xmode_transfer.domain.records import SourceProblem

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def unreadable(name: str, error: OSError) -> SourceProblem:
    return problem(
        name,
        ProblemCode.UNREADABLE,
        f"it cannot be read ({error.strerror or error}) by the user that this service runs as; let it read",
    )


def not_a_file(name: str, mode: int) -> SourceProblem:
    return problem(
        name, ProblemCode.NOT_A_FILE, f"it is {_kind(mode)}, not a file; move it away or exclude it"
    )


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def unfollowed(name: str, path: str, root: str) -> SourceProblem | None:
    """Why what should be a directory of the partition's path is not one that is looked into; None for one
    that is, and for what is gone. ``root`` as in ``link_problem``."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            return None
        if not stat.S_ISLNK(mode):
            kind = "a file" if stat.S_ISREG(mode) else _kind(mode)
            return problem(
                name,
                ProblemCode.NOT_A_DIRECTORY,
                f"it is {kind}, and its name says that it is a directory of periods; move it away",
            )
        return link_problem(name, path, root) or problem(
            name,
            ProblemCode.LINK_TO_DIRECTORY,
            f"it is a symbolic link to {readable(os.path.realpath(path))}, and links are not followed on the "
            "way to a period; put the directory itself there, or mount it there",
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_if_out_of_descriptors(error)
        return unreadable(name, error)


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
            f"it is a symbolic link to {readable(target)}, outside the feed's root; "
            + ("put the directory itself there, or mount it" if name.endswith("/") else "put the file there"),
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
