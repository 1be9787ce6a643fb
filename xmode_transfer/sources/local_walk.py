"""The ordered walk over a period's files.

The whole stream is in code-point order of the relative paths: a directory is sorted as its name with
``/``, because that is what follows its name in the paths of its files (so ``a-b`` comes before ``a/b``,
and ``a/b`` before ``a0``). Only the directory at hand is held open, so depth costs no descriptors.

Links to files below the root are followed. Links to directories are not: one that stays below the root
would deliver the same files a second time under another name, so it is left out in silence; one that
leads outside is reported.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from xmode_transfer.model.errors import SourceMissing, SourceUnreadable
from xmode_transfer.model.keys import readable
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.model.selection import Selection
from xmode_transfer.sources.interface import MAX_KEY_BYTES, ProblemCode, Settling, name_problem, problem
from xmode_transfer.sources.local_listing import RUN_LENGTH, SortedNames

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# An ordinary file that everybody may read: nothing more has to be asked about it.
_PLAIN_MASK = 0o170000 | stat.S_IROTH
_PLAIN = stat.S_IFREG | stat.S_IROTH
_SURELY_SHORT = MAX_KEY_BYTES // 4  # so many characters fit into a key, whatever they are
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


class Tree(NamedTuple):
    """What is walked. ``path`` is the feed's root; ``top`` the period's directory below it, empty or
    ending in ``/``. A file that has not settled by ``settling`` is still being written and waits; None for
    no such limit."""

    path: str
    top: str
    selection: Selection
    settling: Settling | None = None
    run_length: int = RUN_LENGTH


def identity_of(status: os.stat_result) -> str:
    """What stays the same while a file is written to, and differs in a file put in its place."""
    return f"{status.st_dev}:{status.st_ino}"


def real_root(path: str) -> str:
    """A feed's root without links (the root itself may be one) and without a slash at its end."""
    return os.path.realpath(path).rstrip("/")


def is_reached_without_links(root: str, below: str) -> bool:
    """Whether no symbolic link stands between the root, itself without links, and what lies below it."""
    path = f"{root}/{below}".rstrip("/")
    return os.path.realpath(path) == path


def walk(tree: Tree) -> Iterator[SourceFile | SourceProblem]:
    """Every file to be delivered, and every one that never can be, in order. Raises SourceMissing when
    ``top`` is not there, SourceUnreadable when it cannot be read."""
    root = real_root(tree.path)
    settled_ns = tree.settling.settled_ns if tree.settling is not None else None
    levels = [_open_top(tree, root)]
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
                    continue  # gone since it was listed, so no longer at the source
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
                found = _judge(prefix + name, root, status, tree.settling)
                if found is not None:
                    yield found
            if deeper is None:
                levels.pop().close()
                continue
            opened = _open_below(tree, prefix + deeper, root)
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
    """The long way for what is not plainly an ordinary file; None for what is gone, waits, or is left out."""
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
            return not_a_file(name, status.st_mode)
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
    descriptor is given back while a directory below it is walked, and opened again when it is next needed."""

    __slots__ = ("_descriptor", "_sorted", "names", "prefix", "previous", "shortest_bad")

    def __init__(self, prefix: str, descriptor: int, names: SortedNames) -> None:
        self.prefix = prefix
        self.names = iter(names)
        self.previous = ""
        # Names of fewer characters need no look at the whole path's length, if what stands before them is
        # good.
        self.shortest_bad = _SURELY_SHORT - len(prefix) if name_problem(prefix.rstrip("/")) is None else 0
        self._descriptor: int | None = descriptor
        self._sorted = names

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
        self._sorted.close()


def _open_level(tree: Tree, prefix: str, root: str) -> _Level:
    descriptor = os.open(f"{root}/{prefix}".rstrip("/") or "/", _OPEN_DIRECTORY)
    try:
        names = SortedNames(descriptor, prefix[len(tree.top) :], tree.selection, tree.run_length)
    except BaseException:
        os.close(descriptor)
        raise
    return _Level(prefix, descriptor, names)


def _open_top(tree: Tree, root: str) -> _Level:
    shown = f"{tree.path}/{tree.top}".rstrip("/")
    if not is_reached_without_links(root, tree.top):
        raise SourceUnreadable(
            f"{shown} is reached through a symbolic link, and links to directories are not followed",
            hint="put the directory itself below the feed's root, or mount it there",
        )
    try:
        return _open_level(tree, tree.top, root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(shown) from error
    except OSError as error:
        raise_if_out_of_descriptors(error)
        raise closed_to_us(shown, error) from error


def _open_below(tree: Tree, prefix: str, root: str) -> _Level | SourceProblem | None:
    """A directory met on the way; None when it is gone or left out in silence. What is wrong with it is said
    under its name with ``/``, which is its place in the order."""
    path = f"{root}/{prefix}".rstrip("/")
    if len(prefix.encode("utf-8", "surrogateescape")) >= MAX_KEY_BYTES:
        return problem(
            prefix,
            ProblemCode.NAME_TOO_LONG,
            f"what lies in it needs object keys of more than {MAX_KEY_BYTES:,} bytes; shorten its path",
        )
    try:
        return _open_level(tree, prefix, root)
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


# --- Why a file cannot be delivered as it is ---------------------------------------------------------


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


def missing(shown: str) -> SourceMissing:
    return SourceMissing(
        f"{shown} is not there, or is no directory",
        hint="check the feed's source, and that its disk is mounted",
    )


def closed_to_us(shown: str, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(
        f"{shown} cannot be read: {error.strerror or error}",
        hint="the user that this service runs as needs to be able to read it",
    )
