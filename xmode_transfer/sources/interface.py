"""The interface of a source, and what sources share: the names to deliver, and when a period is complete."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.config import Feed, Marker
from xmode_transfer.model.keys import MAX_KEY_BYTES, unseen_character
from xmode_transfer.model.periods import Partition, Period
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.model.selection import Selection


@dataclass(frozen=True, slots=True)
class PeriodState:
    """``complete`` is false while files may still be coming; ``reason`` says why in words. ``marker`` changes
    when the producer declares the period complete again; it is empty without a marker file."""

    period: Period
    complete: bool
    reason: str
    marker: str = ""


class Source(Protocol):
    """The files of one feed."""

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState | SourceProblem]:
        """Yield every period that has something at the source, oldest first; of a drop folder,
        ``Period.none()``. Periods that start before ``since`` (naive) are not scanned: they are incomplete,
        or left out where naming them costs requests. A part of the partition's path that cannot be followed
        is a SourceProblem. Raises SourceMissing if the root does not exist."""

    def state(self, period: Period) -> PeriodState | None:
        """Return None if the source has nothing. Raises SourceUnreadable for a path that is not followed."""

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        """Streams the period's files (of a drop folder, those that are complete) in the order of their names'
        code points. A file that can never be delivered is a SourceProblem."""

    def open(self, file: SourceFile) -> OpenFile:
        """Raise SourceChanged, or SourceUnreadable, also if the file's path leaves the feed's root."""


SourceFactory = Callable[[Feed], Source]


class ProblemCode(StrEnum):
    """The problem of a file, for programs; stable."""

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


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def problem(name: str, code: ProblemCode, message: str) -> SourceProblem:
    return SourceProblem(name, str(code), message)


def name_problem(name: str) -> SourceProblem | None:
    """Return why a path below the feed's root cannot be an object key; None if it can."""
    if _SURROGATE.search(name):
        reason = "its name is not UTF-8, as every object key is; rename it"
        return problem(name, ProblemCode.NAME_NOT_UTF8, reason)
    unseen = unseen_character(name)
    if unseen is not None:
        reason = f"its name has {unseen}, which no object key of ours carries; rename it"
        return problem(name, ProblemCode.NAME_CONTROL_CHARACTER, reason)
    length = len(name.encode())
    if length > MAX_KEY_BYTES:
        reason = f"its path has {length:,} bytes, an object key {MAX_KEY_BYTES:,} at most; shorten it"
        return problem(name, ProblemCode.NAME_TOO_LONG, reason)
    return None


_DAY_NS = 24 * 3600 * 10**9


class Settling(NamedTuple):
    """The time for which a file must not have changed, before ``now_ns`` (nanoseconds since 1970). A file
    dated more than a day ahead is not waited for: no clock or time zone of a file server is that wrong."""

    seconds: int
    now_ns: int

    @property
    def settled_ns(self) -> int:
        """The time of the last change that has settled."""
        return self.now_ns - self.seconds * 10**9

    def settles(self, changed_ns: int) -> bool:
        """Return false for a file to wait for."""
        return changed_ns <= self.settled_ns or changed_ns > self.now_ns + _DAY_NS

    def date_problem(self, name: str, changed_ns: int) -> SourceProblem | None:
        """Return the problem of a file that is dated too far ahead to wait for."""
        if changed_ns <= self.now_ns + _DAY_NS:
            return None
        days = (changed_ns - self.now_ns) // _DAY_NS
        ahead = "a day" if days == 1 else f"{days:,} days"
        reason = (
            f"it is dated {ahead} ahead of this machine's clock, and would be delivered only then; set its "
            "time, or this machine's clock"
        )
        return problem(name, ProblemCode.DATED_AHEAD, reason)


class Seen(NamedTuple):
    """A file or directory of a period. ``wanted``: the feed includes the file."""

    is_file: bool
    wanted: bool
    changed_ns: int


class FeedFiles:
    """Base of the sources: the feed's partition, selection and rule of completeness."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._partition = feed.partition_template
        self._marker = feed.complete.marker if isinstance(feed.complete, Marker) else None
        self._settle_seconds = 0 if isinstance(feed.complete, Marker) else feed.complete.settle_seconds
        self._selection = Selection.of(feed.include, feed.exclude, self._marker)
        self._clock = clock

    def _settling(self) -> Settling:
        return Settling(self._settle_seconds, round(self._clock.now().timestamp() * 1_000_000) * 1000)

    def _by_settling(
        self, period: Period, entries: Iterable[Seen], newest_directory_ns: int = -1
    ) -> PeriodState:
        """Complete when no file and no directory has changed for long enough. Excluded files count: a
        ``.part`` file may still grow. Files in an excluded directory do not."""
        settling = self._settling()
        newest_file_ns, files, wanted = -1, 0, 0
        for entry in entries:
            if entry.is_file:
                newest_file_ns = max(newest_file_ns, entry.changed_ns)
                files += 1
                wanted += entry.wanted
            else:
                newest_directory_ns = max(newest_directory_ns, entry.changed_ns)
        if not wanted:
            return _empty(period, files)
        if newest_file_ns >= newest_directory_ns:
            return _by_last_change(period, settling, "newest file changed", newest_file_ns)
        return _by_last_change(period, settling, "a file came or went", newest_directory_ns)

    def _by_file(self, entries: Iterable[Seen]) -> PeriodState:
        """A drop folder is complete as soon as one of its files has settled."""
        settling, period, files = self._settling(), Period.none(), 0
        oldest_ns: int | None = None
        for entry in entries:
            files += entry.is_file
            if entry.wanted:
                if settling.settles(entry.changed_ns):
                    reason = f"files that have not changed for {settling.seconds} s are there"
                    return PeriodState(period, True, reason)
                oldest_ns = entry.changed_ns if oldest_ns is None else min(oldest_ns, entry.changed_ns)
        if oldest_ns is None:
            return _empty(period, files)
        return _by_last_change(period, settling, "the file that is nearest to complete changed", oldest_ns)


def _by_last_change(period: Period, settling: Settling, what: str, changed_ns: int) -> PeriodState:
    age_ns = settling.now_ns - changed_ns
    left_seconds = -((changed_ns - settling.settled_ns) // -(10**9))
    if left_seconds <= 0:
        return PeriodState(period, True, f"nothing has changed for {age_ns // 10**9} s")
    when = f"{age_ns // 10**9} s ago"
    if age_ns < 0:
        when = f"{-age_ns // 10**9} s ahead of this machine's clock"
    return PeriodState(period, False, f"{what} {when}, {left_seconds} s to go")


def _empty(period: Period, files: int) -> PeriodState:
    return PeriodState(period, False, "no file yet that the feed includes" if files else "no file yet")


def not_scanned(period: Period) -> PeriodState:
    return PeriodState(period, False, "not scanned: it is older than the requested periods")


def period_of(partition: Partition, directory: str) -> Period | None:
    """Return None for a directory that only looks like a period's."""
    period = partition.period(directory)
    return period if period is not None and partition.path(period) == directory else None
