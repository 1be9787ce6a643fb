"""A feed's files in a directory."""

import os
from collections.abc import Iterator
from datetime import datetime

from xmode_transfer.adapters.source_local.completeness import by_file, by_marker, by_settling
from xmode_transfer.adapters.source_local.judging import (
    raise_if_out_of_descriptors,
    unfollowed,
    unreadable,
)
from xmode_transfer.adapters.source_local.opened import LocalFile, open_file
from xmode_transfer.adapters.source_local.walk import Tree, real_root, walk
from xmode_transfer.adapters.source_rules import NOT_LOOKED_INTO, Completeness, Settling
from xmode_transfer.domain.config import Feed, Marker
from xmode_transfer.domain.errors import SourceMissing, SourceUnreadable
from xmode_transfer.domain.keys import readable
from xmode_transfer.domain.periods import Partition, Period
from xmode_transfer.domain.records import SourceFile, SourceProblem
from xmode_transfer.domain.selection import Selection
from xmode_transfer.ports import Clock, PeriodState


class LocalSource:
    """Implements ``ports.Source`` over a directory tree. Thread-safe: it remembers nothing between calls."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._name = feed.name
        self._root = feed.source.rstrip("/") or "/"
        self._partition = feed.partition_template
        self._complete = feed.complete
        marker = feed.complete.marker if isinstance(feed.complete, Marker) else None
        self._selection = Selection.of(feed.include, feed.exclude, marker)
        self._clock = clock

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState | SourceProblem]:
        root = self._real_root()
        if self._partition is None:
            yield self._drop_folder(root)
            return
        problems: list[SourceProblem] = []
        for period, directory in sorted(_period_directories(root, self._partition, problems)):
            if since is not None and period.start < since:
                yield PeriodState(period, False, NOT_LOOKED_INTO)
            elif (found := self._state(root, period, directory)) is not None:
                yield found
        yield from problems

    def state(self, period: Period) -> PeriodState | None:
        root = self._real_root()
        if self._partition is None:
            return self._drop_folder(root)
        directory = self._partition.path(period)
        above = ""
        for segment in directory.split("/")[:-1]:
            above += segment
            problem = unfollowed(above + "/", f"{root}/{above}", root)
            if problem is not None:
                raise _not_followed(problem)
            above += "/"
        found = self._state(root, period, directory)
        if isinstance(found, SourceProblem):
            raise _not_followed(found)
        return found

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        if self._partition is not None:
            return walk(Tree(self._root, self._partition.path(period) + "/", self._selection))
        return walk(Tree(self._root, "", self._selection, self._settling()))

    def open(self, file: SourceFile) -> LocalFile:
        return open_file(self._root, file)

    def _settling(self) -> Settling:
        seconds = 0 if isinstance(self._complete, Marker) else self._complete.settle_seconds
        return Settling.at(self._clock.now(), seconds)

    def _real_root(self) -> str:
        """The root without links. Raises SourceMissing."""
        if not os.path.isdir(self._root):
            raise SourceMissing(
                f"{self._root} is not there, or is no directory",
                hint="check the feed's source, and that its disk is mounted",
            )
        return real_root(self._root)

    def _drop_folder(self, root: str) -> PeriodState:
        try:
            return PeriodState(Period.none(), *by_file(root, self._selection, self._settling()))
        except OSError as error:
            raise_if_out_of_descriptors(error)
            raise SourceUnreadable(
                f"{self._root} cannot be read: {error.strerror or error}",
                hint="the user that this service runs as needs to be able to read it",
            ) from error

    def _state(self, root: str, period: Period, directory: str) -> PeriodState | SourceProblem | None:
        path = f"{root}/{directory}"
        problem = unfollowed(directory + "/", path, root)
        if problem is not None:
            return problem
        try:
            os.lstat(path)
            return PeriodState(period, *self._completeness(root, path))
        except FileNotFoundError:
            return None  # the source has nothing for it
        except OSError as error:
            raise_if_out_of_descriptors(error)
            return unreadable(directory + "/", error)

    def _completeness(self, root: str, path: str) -> Completeness:
        if isinstance(self._complete, Marker):
            return by_marker(path, self._complete.marker)
        return by_settling(root, path, self._selection, self._settling())


def _period_directories(
    root: str, partition: Partition, problems: list[SourceProblem]
) -> Iterator[tuple[Period, str]]:
    """What is named as a period's directory is, in no order, whatever it is; what only looks like one is left
    out. What cannot be followed on the way is noted in ``problems``."""
    level = [""]
    for depth in range(len(partition.segments) - 1):
        level = [
            below
            for above in level
            for below in _matching(root, above, partition, depth, problems)
            if _is_followed(root, below, problems)
        ]
    for above in level:
        for directory in _matching(root, above, partition, len(partition.segments) - 1, problems):
            period = partition.period(directory)
            if period is not None and partition.path(period) == directory:
                yield period, directory


def _matching(
    root: str, above: str, partition: Partition, depth: int, problems: list[SourceProblem]
) -> list[str]:
    """What lies directly below a directory and has a name that the partition has at that depth."""
    try:
        with os.scandir(f"{root}/{above}") as entries:
            return [
                f"{above}/{entry.name}" if above else entry.name
                for entry in entries
                if partition.segment_matches(depth, entry.name)
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise_if_out_of_descriptors(error)
        if not above:
            raise SourceUnreadable(
                f"{root} cannot be read: {error.strerror or error}",
                hint="the user that this service runs as needs to be able to read it",
            ) from error
        problems.append(unreadable(above + "/", error))
        return []


def _is_followed(root: str, directory: str, problems: list[SourceProblem]) -> bool:
    problem = unfollowed(directory + "/", f"{root}/{directory}", root)
    if problem is not None:
        problems.append(problem)
    return problem is None


def _not_followed(problem: SourceProblem) -> SourceUnreadable:
    return SourceUnreadable(f"{readable(problem.name)}: {problem.message}")
