"""A source file's bytes on their way into a request, with the proof that they are what was scanned."""

from xmode_transfer.adapters import checksums
from xmode_transfer.domain.errors import SourceChanged, XmodeError
from xmode_transfer.ports import OpenFile

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


class StreamedBody:
    """A range of an open file, for a client that reads, seeks and may send it again.

    Before it gives out its last bytes it asks whether the file still is what was scanned and compares what it
    has given with ``crc32``. A refusal then ends the connection before the request is whole, so S3 creates
    nothing.
    """

    def __init__(self, body: OpenFile, offset: int, length: int, crc32: int) -> None:
        self._body = body
        self._offset = offset
        self._length = length
        self._crc32 = crc32
        self._buffer = memoryview(bytearray(min(_CHUNK, length)))
        self._held = self._buffer[:0]
        self._held_at = 0
        self._position = 0
        self._seen = 0
        self._seen_crc32 = 0
        self.failed: XmodeError | None = None

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        left = self._length - self._position
        if left <= 0:
            return b""
        try:
            if self.failed is not None:
                raise self.failed
            piece = self._next(left if size < 0 else min(size, left))
        except XmodeError as error:
            self.failed = error
            raise BodyFailed(error) from error
        return piece

    def _next(self, wanted: int) -> bytes:
        pieces = []
        while wanted:
            piece = bytes(self._window()[:wanted])
            self._position += len(piece)
            wanted -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _window(self) -> memoryview:
        """What is held from the current position on, read anew when it is used up."""
        start = self._position - self._held_at
        if not 0 <= start < len(self._held):
            self._hold()
            start = 0
        return self._held[start:]

    def _hold(self) -> None:
        length = min(len(self._buffer), self._length - self._position)
        self._held = checksums.fill(self._body, self._buffer[:length], self._offset + self._position)
        self._held_at = self._position
        if self._position == 0:
            self._seen = self._seen_crc32 = 0
        if self._position == self._seen:
            self._seen_crc32 = checksums.crc32(self._held, self._seen_crc32)
            self._seen += len(self._held)
        if self._position + len(self._held) == self._length:
            self._body.check_unchanged()
            if self._seen == self._length and self._seen_crc32 != self._crc32:
                raise SourceChanged(
                    "the file's bytes changed between two readings",
                    hint="It is delivered when it is complete and no longer changes",
                )

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._position, 2: self._length}[whence]
        self._position = min(max(base + offset, 0), self._length)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """The file is its owner's to close."""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
