"""What every source has in common: which names can be delivered, and when a period is complete."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.config import Feed, Marker
from xmode_transfer.model.keys import unseen_character
from xmode_transfer.model.periods import Period
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.model.selection import Selection

MAX_KEY_BYTES = 1024  # S3 User Guide, "Naming Amazon S3 objects": a key has 1,024 bytes of UTF-8 at most
_NOTHING_YET = "no file yet"
_NOTHING_WANTED_YET = "no file yet that the feed includes"
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
    LINK_TO_DIRECTORY = "link_to_directory"
    NOT_A_FILE = "not_a_file"
    NOT_A_DIRECTORY = "not_a_directory"
    DATED_AHEAD = "dated_ahead"


_HOUR_NS = 3600 * 10**9
_FAR_AHEAD_NS = 24 * _HOUR_NS
"""A file server whose clock or time zone is wrong is less ahead."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def problem(name: str, code: ProblemCode, message: str) -> SourceProblem:
    return SourceProblem(name, str(code), message)


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

    def settles(self, changed_ns: int) -> bool:
        """Whether what changed then is to be looked at: it has settled, or is dated so far ahead that nobody
        would wait for it to settle."""
        return changed_ns <= self.settled_ns or changed_ns > self.now_ns + _FAR_AHEAD_NS

    def date_problem(self, name: str, changed_ns: int) -> SourceProblem | None:
        """What keeps a file of a drop folder from ever settling in time; None for most."""
        if changed_ns <= self.now_ns + _FAR_AHEAD_NS:
            return None
        days = (changed_ns - self.now_ns) // (24 * _HOUR_NS)
        return problem(
            name,
            ProblemCode.DATED_AHEAD,
            f"it is dated {'a day' if days == 1 else f'{days:,} days'} ahead of this machine's clock, and "
            "would be delivered only then; set its time, or this machine's clock",
        )


class Seen(NamedTuple):
    """One thing below a period's directory: a file, which the feed wants or not, or a directory."""

    is_file: bool
    wanted: bool
    changed_ns: int


def by_settling(entries: Iterable[Seen], settling: Settling, newest_directory_ns: int = -1) -> Completeness:
    """Complete when neither a file nor a directory has changed for long enough. Excluded files count: a
    ``.part`` that still grows means that the period is not finished; only what lies in an excluded directory
    does not."""
    newest_file_ns, files, wanted = -1, 0, 0
    for entry in entries:
        if entry.is_file:
            newest_file_ns = max(newest_file_ns, entry.changed_ns)
            files += 1
            wanted += entry.wanted
        else:
            newest_directory_ns = max(newest_directory_ns, entry.changed_ns)
    if not wanted:
        return Completeness(False, _NOTHING_WANTED_YET if files else _NOTHING_YET)
    if newest_file_ns >= newest_directory_ns:
        return _judged("newest file changed", newest_file_ns, settling)
    return _judged("a file came or went", newest_directory_ns, settling)


def by_file(entries: Iterable[Seen], settling: Settling) -> Completeness:
    """A drop folder has something to deliver as soon as one of its files has settled."""
    files = 0
    oldest_ns: int | None = None
    for entry in entries:
        files += entry.is_file
        if entry.wanted:
            if settling.settles(entry.changed_ns):
                return Completeness(True, f"files that have not changed for {settling.seconds} s are there")
            oldest_ns = entry.changed_ns if oldest_ns is None else min(oldest_ns, entry.changed_ns)
    if oldest_ns is None:
        return Completeness(False, _NOTHING_WANTED_YET if files else _NOTHING_YET)
    return _judged("the file that is nearest to complete changed", oldest_ns, settling)


def _judged(what: str, changed_ns: int, settling: Settling) -> Completeness:
    """Whether what changed last, at ``changed_ns``, has settled; ``what`` begins the reason."""
    age_ns = settling.now_ns - changed_ns
    left_seconds = -((changed_ns - settling.settled_ns) // -(10**9))
    if left_seconds <= 0:
        return Completeness(True, f"nothing has changed for {age_ns // 10**9} s")
    when = (
        f"{age_ns // 10**9} s ago" if age_ns >= 0 else f"{-age_ns // 10**9} s ahead of this machine's clock"
    )
    return Completeness(False, f"{what} {when}, {left_seconds} s to go")


class FeedFiles:
    """What every feed's source knows: where its periods are, what it takes, and when that is complete."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._partition = feed.partition_template
        self._marker = feed.complete.marker if isinstance(feed.complete, Marker) else None
        self._settle_seconds = 0 if isinstance(feed.complete, Marker) else feed.complete.settle_seconds
        self._selection = Selection.of(feed.include, feed.exclude, self._marker)
        self._clock = clock

    def _settling(self) -> Settling:
        return Settling.at(self._clock.now(), self._settle_seconds)


@dataclass(frozen=True, slots=True)
class PeriodState:
    """A period at the source. ``complete`` is false while files may still be coming; ``reason`` says why in
    words.

    ``marker`` changes when the producer declares the period complete anew (the marker file's time; empty when
    completeness is by settled time).
    """

    period: Period
    complete: bool
    reason: str
    marker: str = ""


class Source(Protocol):
    """The files of one feed."""

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState | SourceProblem]:
        """Every period that has something at the source, oldest first. A drop folder has the one period
        ``Period.none()``. Those that start before ``since`` (naive, as a period's start) are named without a
        look into them: incomplete, with that as the reason; or left out, where naming them costs requests.
        What stands in the partition's path and cannot be followed comes as SourceProblem, and the rest goes
        on. Raises SourceMissing when the root is not there."""
        ...

    def state(self, period: Period) -> PeriodState | None:
        """One period's state, or None when the source has nothing for it. Raises SourceUnreadable when its
        path cannot be followed."""
        ...

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        """The period's complete files, in the order of their names' code points (which is the order of their
        UTF-8 bytes), streamed: memory does not grow with their number. In a drop folder, only files that are
        complete. A file that can never be delivered comes as SourceProblem in its place, and the scan goes
        on."""
        ...

    def open(self, file: SourceFile) -> OpenFile:
        """Opens a scanned file. Raises SourceChanged when it is no longer what the scan saw, SourceUnreadable
        when it cannot be read or its path leaves the feed's root."""
        ...


SourceFactory = Callable[[Feed], Source]

# The checksum of an open file's whole content, by algorithm as S3 names it; base64.
ChecksumOf = Callable[[OpenFile, str], str]
