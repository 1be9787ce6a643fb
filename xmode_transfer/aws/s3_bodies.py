"""A source file's bytes on their way into a request, with the proof that they are what was scanned."""

import io
from typing import Any

from xmode_transfer.aws import checksums
from xmode_transfer.aws.bodies import OpenFile
from xmode_transfer.model.errors import SourceChanged, XmodeError

_CHUNK = 1024 * 1024


class BodyFailed(BaseException):
    """Carries a source's error through botocore, which wraps and retries every ``Exception`` that a body
    raises."""

    def __init__(self, error: XmodeError) -> None:
        super().__init__(str(error))
        self.error = error


def read_whole(body: OpenFile, offset: int, length: int) -> tuple[bytes, int]:
    """The bytes and their CRC32. Raises SourceChanged when the file is not what was scanned."""
    content = body.read_at(offset, length)
    body.check_unchanged()
    return content, checksums.crc32(content)


class StreamedBody(io.BufferedReader):
    """A range of an open file, for a client that reads, seeks and may send it again. ``failed`` is why it is
    not what was scanned."""

    def __init__(self, body: OpenFile, offset: int, length: int, crc32: int) -> None:
        self._range = _Range(body, offset, length, crc32)
        super().__init__(self._range, max(1, min(_CHUNK, length)))

    def __len__(self) -> int:
        return self._range.length

    @property
    def failed(self) -> XmodeError | None:
        return self._range.failed


class _Range(io.RawIOBase):
    """Before it gives out its last bytes it asks whether the file still is what was scanned and compares what
    it has given with ``crc32``. A refusal then ends the connection before the request is whole, so S3 creates
    nothing. To close it leaves the file open: that is its owner's."""

    def __init__(self, body: OpenFile, offset: int, length: int, crc32: int) -> None:
        self._body = body
        self._offset = offset
        self._crc32 = crc32
        self._position = 0
        self._seen = 0
        self._seen_crc32 = 0
        self.length = length
        self.failed: XmodeError | None = None

    def readinto(self, buffer: Any) -> int:
        try:
            if self.failed is not None:
                raise self.failed
            return self._read(memoryview(buffer)[: self.length - self._position])
        except XmodeError as error:
            self.failed = error
            raise BodyFailed(error) from error

    def _read(self, room: memoryview) -> int:
        if not room:
            return 0
        piece = checksums.fill(self._body, room, self._offset + self._position)
        if self._position == 0:
            self._seen = self._seen_crc32 = 0
        if self._position == self._seen:
            self._seen_crc32 = checksums.crc32(piece, self._seen_crc32)
            self._seen += len(piece)
        self._position += len(piece)
        if self._position == self.length:
            self._body.check_unchanged()
            if self._seen == self.length and self._seen_crc32 != self._crc32:
                raise SourceChanged("the file's bytes changed between two readings")
        return len(piece)

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._position, 2: self.length}[whence]
        self._position = min(max(base + offset, 0), self.length)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
