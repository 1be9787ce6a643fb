"""Read a feed's files from a bucket."""

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.config import Feed
from xmode_transfer.model.errors import SourceChanged, SourceUnreadable
from xmode_transfer.model.keys import readable
from xmode_transfer.model.periods import Partition, Period
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import SourceFile, SourceProblem
from xmode_transfer.sources.interface import (
    FeedFiles,
    PeriodState,
    Seen,
    Settling,
    name_problem,
    not_scanned,
    period_of,
)
from xmode_transfer.sources.s3_bucket import SourceBucket

RANGE_BYTES = 16 * 1024 * 1024
_MOST_PARKED = 4
_ATTEMPTS = 4  # consecutive requests for a range that return no byte
_SECOND_NS = 10**9


class S3File(OpenFile):
    """An object of a given ETag, read by ranges. Thread-safe."""

    def __init__(self, bucket: SourceBucket, file: SourceFile) -> None:
        self.size = file.size
        self._bucket = bucket
        self._file = file
        self._lock = threading.Lock()
        self._parked: dict[int, _Range] = {}  # by position
        self._closed = False
        self.check_unchanged()

    def read_at(self, offset: int, length: int) -> bytes:
        return self._read(offset, length, RANGE_BYTES)

    def read_range(self, offset: int, length: int) -> bytes:
        return self._read(offset, length, length)

    def _read(self, offset: int, length: int, most: int) -> bytes:
        buffer = bytearray(length)
        count = self._fill(memoryview(buffer), offset, most)
        if count < length:
            raise SourceChanged(
                f"{readable(self._file.name)} has {self.size:,} bytes; {offset + length:,} were requested"
            )
        return bytes(buffer)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return self._fill(buffer, offset, RANGE_BYTES)

    def _fill(self, buffer: memoryview, offset: int, most: int) -> int:
        """Read into the buffer by requests for up to ``most`` bytes."""
        if self._closed:
            raise ValueError(f"{readable(self._file.name)} is closed")
        wanted = max(0, min(len(buffer), self.size - offset))
        done, failures = 0, 0
        while done < wanted:
            stream = self._range(offset + done, most)
            try:
                with self._bucket.translated("GetObject", self._file.name):
                    piece = stream.read(wanted - done)
            except (SourceUnreadable, OSError) as error:
                stream.close()
                failures += 1
                if failures < _ATTEMPTS:
                    continue
                if isinstance(error, SourceUnreadable):
                    raise
                what = f"{readable(self._file.name)} cannot be read: {error}"
                raise SourceUnreadable(what, hint="the next run retries") from error
            if piece:
                buffer[done : done + len(piece)] = piece
                done += len(piece)
                failures = 0
            self._park(stream)
        return done

    def check_unchanged(self) -> None:
        now = self._bucket.head(self._file.name, self._file.identity)
        # A listing may have fractions of a second, a header never has.
        written_again = now.modified_ns // _SECOND_NS != self._file.modified_ns // _SECOND_NS
        if now.size != self._file.size or now.identity != self._file.identity or written_again:
            name = readable(self._file.name)
            raise SourceChanged(f"{name} changed after it was listed: it was written anew")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            parked, self._parked = self._parked, {}
        for stream in parked.values():
            stream.close()

    def _range(self, position: int, most: int) -> "_Range":
        with self._lock:
            parked = self._parked.pop(position, None)
        if parked is not None:
            return parked
        last = min(position + most, self.size) - 1
        return _Range(self._bucket.get(self._file.name, self._file.identity, position, last), position, last)

    def _park(self, stream: "_Range") -> None:
        if stream.position > stream.last:
            stream.close()
            return
        with self._lock:
            if self._closed:
                surplus: _Range | None = stream
            else:
                surplus = self._parked.pop(stream.position, None)
                self._parked[stream.position] = stream
                if len(self._parked) > _MOST_PARKED:
                    surplus = self._parked.pop(next(iter(self._parked)))
        if surplus is not None:
            surplus.close()


class _Range:
    """A GetObject's body. ``position`` is the offset of the next byte in the object."""

    def __init__(self, body: Any, first: int, last: int) -> None:
        self._body = body
        self.position = first
        self.last = last

    def read(self, length: int) -> bytes:
        """Return at least one byte, at most ``length``. Raises OSError if the response ends too soon."""
        piece: bytes = self._body.read(min(length, self.last + 1 - self.position))
        if not piece:
            raise OSError("the response ended before its range did")
        self.position += len(piece)
        return piece

    def close(self) -> None:
        self._body.close()


class S3Source(FeedFiles):
    """Thread-safe: it keeps no state between calls. Keys that end in ``/`` are folders of the S3 console."""

    def __init__(
        self,
        feed: Feed,
        clock: Clock,
        client_factory: Callable[[], Any],
        keys_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """``client_factory`` returns botocore's S3 client, a new one after ``keys_refused`` was called."""
        super().__init__(feed, clock)
        self._bucket = SourceBucket(feed.source, client_factory, keys_refused)

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState]:
        if self._partition is None:
            yield self._by_file(self._seen(self._bucket.objects(), ""))
            return
        for period, directory in sorted(self._directories(self._partition, since)):
            if since is not None and period.start < since:
                yield not_scanned(period)
            elif (found := self._state(period, directory)) is not None:
                yield found

    def state(self, period: Period) -> PeriodState | None:
        if self._partition is None:
            return self._by_file(self._seen(self._bucket.objects(), ""))
        return self._state(period, self._partition.path(period) + "/")

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        if self._partition is not None:
            return self._scan(self._partition.path(period) + "/", None)
        return self._scan("", self._settling())

    def open(self, file: SourceFile) -> S3File:
        return S3File(self._bucket, file)

    def _scan(self, top: str, settling: Settling | None) -> Iterator[SourceFile | SourceProblem]:
        for file in self._bucket.objects(top):
            if not _is_file(file.name) or not self._selection.takes(file.name[len(top) :]):
                continue
            if settling is not None and not settling.settles(file.modified_ns):
                continue
            bad = name_problem(file.name)
            if bad is None and settling is not None:
                bad = settling.date_problem(file.name, file.modified_ns)
            yield bad or file

    def _state(self, period: Period, directory: str) -> PeriodState | None:
        if self._marker is not None:
            return self._by_marker(period, directory, self._marker)
        rows = self._bucket.objects(directory)
        first = next(rows, None)
        if first is None:
            return None
        return self._by_settling(period, self._seen(chain((first,), rows), directory))

    def _by_marker(self, period: Period, directory: str, marker: str) -> PeriodState | None:
        for file in self._bucket.objects(directory + marker, limit=1):
            if file.name == directory + marker:  # it is the first key with that prefix
                return PeriodState(period, True, f"{marker} is there", f"{file.modified_ns}-{file.identity}")
        if next(self._bucket.objects(directory, limit=1), None) is None:
            return None
        return PeriodState(period, False, f"no {marker} yet")

    def _seen(self, files: Iterable[SourceFile], directory: str) -> Iterator[Seen]:
        for file in files:
            path = file.name[len(directory) :]
            above, slash, _ = path.rpartition("/")
            if _is_file(file.name) and not (slash and self._selection.left_out_above(above)):
                yield Seen(True, self._selection.takes(path), file.modified_ns)

    def _directories(self, partition: Partition, since: datetime | None) -> Iterator[tuple[Period, str]]:
        """Yield the prefixes of periods, in no order. Spares requests for those before ``since``."""
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
            period = period_of(partition, directory.rstrip("/"))
            if period is not None:
                yield period, directory


def _is_file(name: str) -> bool:
    return name != "" and not name.endswith("/")
