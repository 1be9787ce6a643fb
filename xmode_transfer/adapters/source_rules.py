"""What every source has in common: which names can be delivered, and when something has settled."""

import re
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.domain.records import SourceProblem
from xmode_transfer.domain.visible import unseen_character, visible

MAX_KEY_BYTES = 1024  # S3 User Guide, "Naming Amazon S3 objects": a key has 1,024 bytes of UTF-8 at most
NOTHING_YET = "no file yet"
NOTHING_WANTED_YET = "no file yet that the feed includes"
NOT_LOOKED_INTO = "not looked into: it is older than what was asked for"


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


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def readable(name: str) -> str:
    """A name as a terminal and a log can show it, with escapes for what is no UTF-8 and for what is not
    seen."""
    return visible(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def problem(name: str, code: ProblemCode, message: str) -> SourceProblem:
    return SourceProblem(readable(name), str(code), message)


def name_problem(name: str) -> SourceProblem | None:
    """What keeps a path (relative to the feed's root) from being an object key; None for a good one."""
    if _SURROGATE.search(name):
        return problem(
            name, ProblemCode.NAME_NOT_UTF8, "its name is not UTF-8, as every object key is; rename it"
        )
    unseen = unseen_character(name)
    if unseen is not None:
        return problem(
            name,
            ProblemCode.NAME_CONTROL_CHARACTER,
            f"its name has {unseen}, which no object key of ours carries; rename it",
        )
    length = len(name.encode())
    if length > MAX_KEY_BYTES:
        return problem(
            name,
            ProblemCode.NAME_TOO_LONG,
            f"its path has {length:,} bytes, an object key {MAX_KEY_BYTES:,} at most; shorten it",
        )
    return None


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


def judged(what: str, changed_ns: int, settling: Settling) -> Completeness:
    """Whether what changed last, at ``changed_ns``, has settled; ``what`` begins the reason."""
    age_ns = settling.now_ns - changed_ns
    left_seconds = -((changed_ns - settling.settled_ns) // -(10**9))
    if left_seconds <= 0:
        return Completeness(True, f"nothing has changed for {age_ns // 10**9} s")
    when = (
        f"{age_ns // 10**9} s ago" if age_ns >= 0 else f"{-age_ns // 10**9} s ahead of this machine's clock"
    )
    return Completeness(False, f"{what} {when}, {left_seconds} s to go")
