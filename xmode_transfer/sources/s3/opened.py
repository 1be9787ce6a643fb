"""One object of a source bucket, read in ranges.

Every request names the ETag that the scan saw, so a replaced object answers 412 and never with a byte of
the other one. What is read in order comes from one request for up to 16 MiB; a reader that goes on
elsewhere begins another.
"""

import threading
from typing import Any

from xmode_transfer.model.errors import SourceChanged, SourceUnreadable
from xmode_transfer.model.keys import readable
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.s3.bucket import SourceBucket

RANGE_BYTES = 16 * 1024 * 1024
_MOST_PARKED = 4
_ATTEMPTS = 4
"""How often a range is asked for in a row without a byte coming of it."""
_SECOND_NS = 10**9


class S3File:
    """Implements ``OpenFile``. Thread-safe: a stream that is being read from belongs to one thread."""

    def __init__(self, bucket: SourceBucket, file: SourceFile) -> None:
        self.size = file.size
        self._bucket = bucket
        self._file = file
        self._lock = threading.Lock()
        self._parked: dict[int, _Range] = {}  # by where they go on
        self._closed = False
        self.check_unchanged()

    def read_at(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        count = self.read_into(memoryview(buffer), offset)
        if count < length:
            raise SourceChanged(
                f"{readable(self._file.name)} has {self.size:,} bytes; {offset + length:,} were asked for"
            )
        return bytes(buffer)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        if self._closed:
            raise ValueError(f"{readable(self._file.name)} is closed")
        wanted = max(0, min(len(buffer), self.size - offset))
        done, failures = 0, 0
        while done < wanted:
            stream = self._range(offset + done)
            try:
                with self._bucket.translated("GetObject", self._file.name):
                    piece = stream.read(wanted - done)
            except (SourceUnreadable, OSError) as error:
                stream.close()
                failures += 1
                if failures == _ATTEMPTS:
                    raise self._broken(error) from error
                continue
            if piece:
                buffer[done : done + len(piece)] = piece
                done += len(piece)
                failures = 0
            self._park(stream)
        return done

    def check_unchanged(self) -> None:
        now = self._bucket.head(self._file.name, self._file.identity)
        # A listing may tell fractions of a second, a header never does.
        written_again = now.modified_ns // _SECOND_NS != self._file.modified_ns // _SECOND_NS
        if now.size != self._file.size or now.etag != self._file.identity or written_again:
            raise SourceChanged(
                f"{readable(self._file.name)} changed after it was listed: it was written anew"
            )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            parked, self._parked = self._parked, {}
        for stream in parked.values():
            stream.close()

    def __enter__(self) -> "S3File":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _range(self, position: int) -> "_Range":
        with self._lock:
            parked = self._parked.pop(position, None)
        if parked is not None:
            return parked
        last = min(position + RANGE_BYTES, self.size) - 1
        return _Range(self._bucket.get(self._file.name, self._file.identity, position, last), position, last)

    def _park(self, stream: "_Range") -> None:
        """Keeps it for whoever reads on from there."""
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

    def _broken(self, error: Exception) -> SourceUnreadable:
        if isinstance(error, SourceUnreadable):
            return error
        return SourceUnreadable(
            f"{readable(self._file.name)} cannot be read: {error}", hint="The next run tries again"
        )


class _Range:
    """A request whose body is being read; ``position`` is the next byte's place in the object."""

    __slots__ = ("_body", "last", "position")

    def __init__(self, body: Any, first: int, last: int) -> None:
        self._body = body
        self.position = first
        self.last = last

    def read(self, length: int) -> bytes:
        """At most that many bytes, at least one. Raises OSError when the answer ends too soon."""
        piece: bytes = self._body.read(min(length, self.last + 1 - self.position))
        if not piece:
            raise OSError("the answer ended before its range did")
        self.position += len(piece)
        return piece

    def close(self) -> None:
        self._body.close()
