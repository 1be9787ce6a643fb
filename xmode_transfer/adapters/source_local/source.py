"""A feed's files in a directory."""

import os
import stat
from collections.abc import Iterator
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.adapters.source_local.completeness import by_file, by_marker, by_settling
from xmode_transfer.adapters.source_local.judging import raise_if_out_of_descriptors
from xmode_transfer.adapters.source_local.opened import LocalFile, open_file
from xmode_transfer.adapters.source_local.walk import Tree, real_root, walk
from xmode_transfer.adapters.source_rules import NOT_LOOKED_INTO, Completeness, Settling, readable
from xmode_transfer.domain.config import Feed, Marker
from xmode_transfer.domain.errors import SourceMissing, SourceUnreadable
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

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState]:
        root = self._real_root()
        if self._partition is None:
            yield self._drop_folder(root)
            return
        for period, directory in sorted(_period_directories(root, self._partition)):
            if since is not None and period.start < since:
                yield PeriodState(period, False, NOT_LOOKED_INTO)
            elif (found := self._state(root, period, directory)) is not None:
                yield found

    def state(self, period: Period) -> PeriodState | None:
        root = self._real_root()
        if self._partition is None:
            return self._drop_folder(root)
        return self._state(root, period, self._partition.path(period))

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        if self._partition is not None:
            return walk(Tree(self._root, self._partition.path(period) + "/", self._selection))
        return walk(Tree(self._root, "", self._selection, self._settling().settled_ns))

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

    def _state(self, root: str, period: Period, directory: str) -> PeriodState | None:
        path = f"{root}/{directory}"
        real = os.path.realpath(path)
        if real != path:
            # A link inside the root names data that is there under its own name already.
            if not os.path.lexists(path) or real.startswith(root + "/"):
                return None
            reason = f"{directory} is reached through a symbolic link that leaves the feed's root"
            return PeriodState(period, False, reason)
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                return None
            return PeriodState(period, *self._completeness(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise_if_out_of_descriptors(error)
            return PeriodState(period, False, f"{directory} cannot be read: {error.strerror or error}")

    def _completeness(self, path: str) -> Completeness:
        if isinstance(self._complete, Marker):
            return by_marker(path, self._complete.marker)
        return by_settling(path, self._selection, self._settling())


def _period_directories(root: str, partition: Partition) -> Iterator[tuple[Period, str]]:
    """The directories that are a period each, in no order; what only looks like one is left out."""
    level = [""]
    for depth in range(len(partition.segments)):
        level = [below for above in level for below in _directories_below(root, above, partition, depth)]
    for directory in level:
        period = partition.period(directory)
        if period is not None and partition.path(period) == directory:
            yield period, directory


def _directories_below(root: str, above: str, partition: Partition, depth: int) -> Iterator[str]:
    is_last = depth == len(partition.segments) - 1
    try:
        with os.scandir(f"{root}/{above}") as entries:
            for entry in entries:
                if not partition.segment_matches(depth, entry.name):
                    continue
                below = f"{above}/{entry.name}" if above else entry.name
                if entry.is_dir(follow_symlinks=False) or (is_last and entry.is_symlink()):
                    yield below
                elif entry.is_symlink():
                    _report_link(root, below)
    except FileNotFoundError:
        return
    except OSError as error:
        raise_if_out_of_descriptors(error)
        if not above:
            raise SourceUnreadable(
                f"{root} cannot be read: {error.strerror or error}",
                hint="the user that this service runs as needs to be able to read it",
            ) from error
        telemetry.warn(
            telemetry.Event.SOURCE_PROBLEM,
            name=readable(above),
            cause="unreadable",
            message=f"its periods are not seen: it cannot be read ({error.strerror or error})",
        )


def _report_link(root: str, directory: str) -> None:
    """A year that is a link to elsewhere: nobody knows its periods, so the log tells of the link."""
    target = os.path.realpath(f"{root}/{directory}")
    if not target.startswith(root + "/"):
        telemetry.warn(
            telemetry.Event.SOURCE_PROBLEM,
            name=directory,
            cause="link_leaves_root",
            message=f"its periods are not seen: it is a symbolic link to {readable(target)}, "
            "outside the feed's root; mount it here instead",
        )
