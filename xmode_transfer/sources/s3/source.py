"""A feed's files in a bucket."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

from xmode_transfer.config import Feed
from xmode_transfer.model.periods import Partition, Period
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.sources.rules import (
    NOT_LOOKED_INTO,
    Completeness,
    FeedFiles,
    Seen,
    Settling,
    by_file,
    by_settling,
    name_problem,
)
from xmode_transfer.sources.s3.bucket import SourceBucket, StoredObject
from xmode_transfer.sources.s3.opened import S3File


class S3Source(FeedFiles):
    """Implements ``Source`` over the keys below a prefix. Thread-safe: it remembers nothing between
    calls.

    Keys that end in ``/`` are the folders that the S3 console makes, and no files.
    """

    def __init__(
        self,
        feed: Feed,
        clock: Clock,
        client_factory: Callable[[], Any],
        keys_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """``client_factory`` answers botocore's S3 client, the same one until ``keys_refused`` was called."""
        super().__init__(feed, clock)
        self._bucket = SourceBucket(feed.source, client_factory, keys_refused)

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState]:
        if self._partition is None:
            yield PeriodState(Period.none(), *self._drop_folder())
            return
        for period, directory in sorted(self._directories(self._partition, since)):
            if since is not None and period.start < since:
                yield PeriodState(period, False, NOT_LOOKED_INTO)
            elif (found := self._state(period, directory)) is not None:
                yield found

    def state(self, period: Period) -> PeriodState | None:
        if self._partition is None:
            return PeriodState(Period.none(), *self._drop_folder())
        return self._state(period, self._partition.path(period) + "/")

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        if self._partition is not None:
            yield from self._scan(self._partition.path(period) + "/", None)
        else:
            yield from self._scan("", self._settling())

    def open(self, file: SourceFile) -> S3File:
        return S3File(self._bucket, file)

    def _scan(self, top: str, settling: Settling | None) -> Iterator[SourceFile | SourceProblem]:
        for row in self._bucket.objects(top):
            name = row.key[len(self._bucket.root) :]
            if row.key.endswith("/") or not self._selection.takes(name[len(top) :]):
                continue
            if settling is not None and not settling.settles(row.modified_ns):
                continue
            bad = name_problem(name) or (settling and settling.date_problem(name, row.modified_ns))
            yield SourceFile(name, row.size, row.modified_ns, row.etag) if bad is None else bad

    # Completeness.

    def _state(self, period: Period, directory: str) -> PeriodState | None:
        marker = self._marker
        found = self._by_settling(directory) if marker is None else self._by_marker(directory, marker)
        return None if found is None else PeriodState(period, *found)

    def _by_marker(self, directory: str, marker: str) -> Completeness | None:
        key = self._bucket.root + directory + marker
        for row in self._bucket.objects(directory + marker, limit=1):
            if row.key == key:  # the first of the keys that begin so, if it is there
                return Completeness(True, f"{marker} stands", f"{row.modified_ns}-{row.etag}")
        if next(self._bucket.objects(directory, limit=1), None) is None:
            return None
        return Completeness(False, f"no {marker} yet")

    def _by_settling(self, directory: str) -> Completeness | None:
        rows = self._bucket.objects(directory)
        first = next(rows, None)
        if first is None:
            return None
        return by_settling(self._seen(chain((first,), rows), directory), self._settling())

    def _drop_folder(self) -> Completeness:
        return by_file(self._seen(self._bucket.objects(), ""), self._settling())

    def _seen(self, rows: Iterable[StoredObject], directory: str) -> Iterator[Seen]:
        for row in rows:
            path = row.key[len(self._bucket.root) + len(directory) :]
            above, slash, _ = path.rpartition("/")
            if not row.key.endswith("/") and not (slash and self._selection.left_out_above(above)):
                yield Seen(True, self._selection.takes(path), row.modified_ns)

    # Partitions.

    def _directories(self, partition: Partition, since: datetime | None) -> Iterator[tuple[Period, str]]:
        """The prefixes that are a period each, in no order. Years of periods before ``since`` are not
        listed where their names sort as their times do: each level of them would be a request."""
        level, last = [""], len(partition.segments) - 1
        for depth in range(len(partition.segments)):
            level = [
                f"{above}{name}/"
                for above in level
                for name in self._bucket.directories(above)
                if partition.segment_matches(depth, name)
                and (depth == last or since is None or not partition.is_before(above + name, since))
            ]
        for directory in level:
            period = partition.period(directory.rstrip("/"))
            if period is not None and partition.path(period) + "/" == directory:
                yield period, directory
