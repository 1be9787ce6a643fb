"""What the CRT reads a body from. It reads the whole body into memory of its own before it sends the first
byte, so the checksum of what was read can still go into the request's headers."""

from pathlib import Path
from typing import Any
from zlib import crc32

from xmode_transfer.adapters.checksums import encode, fill
from xmode_transfer.adapters.s3_fast.direct import keep_state
from xmode_transfer.ports import OpenFile

CHECKSUM_HEADER = "x-amz-checksum-crc32"
NO_CHECKSUM = "AAAAAA=="
"""Stands in the header until the body has been read. Should the CRT ever take its headers before the body, S3
refuses the request with BadDigest: nothing wrong can be created."""


_DESCRIPTORS = "/proc/self/fd"
_HAS_DESCRIPTORS = Path(_DESCRIPTORS).is_dir()


def path_of_descriptor(body: OpenFile) -> str | None:
    """A path under which the CRT finds the very file that is open, however its name is used meanwhile; None
    where there is none. It then reads by itself, on its own threads, and need not wait for ours: a seventh of
    the time of many small objects (docs/performance.md). What it reads is what was summed, or S3 refuses it:
    the checksum, or the SHA-256, of what we have read is in the signed headers."""
    fileno = getattr(body, "fileno", None)  # an object of a source bucket has none
    return f"{_DESCRIPTORS}/{fileno()}" if _HAS_DESCRIPTORS and fileno is not None else None


class HeldBody:
    """Bytes in memory."""

    __slots__ = ("_left",)

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def readinto1(self, buffer: memoryview) -> int:
        keep_state()
        piece = self._left[: len(buffer)]
        buffer[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        raise OSError("the CRT reads into its own memory")


class FileBody:
    """A range of an open file, read straight into the CRT's memory.

    With the last bytes it asks whether the file still is what was scanned. When it is not, the body ends
    early: the CRT then refuses to send it (its length is not the announced one), and ``failed`` says why.
    """

    __slots__ = ("_body", "_crc32", "_end", "_headers", "_position", "failed", "value")

    def __init__(self, body: OpenFile, offset: int, length: int, headers: Any) -> None:
        self._body = body
        self._position = offset
        self._end = offset + length
        self._headers = headers
        self.value = ""
        self._crc32 = 0
        self.failed: BaseException | None = None

    def readinto1(self, buffer: memoryview) -> int:
        keep_state()
        try:
            return self._read(buffer)
        except BaseException as error:  # noqa: BLE001 - what is raised here, the CRT would print and forget
            self.failed = error
            return 0

    def _read(self, buffer: memoryview) -> int:
        if self.failed is not None or self._position >= self._end:
            return 0
        piece = fill(self._body, buffer[: self._end - self._position], self._position)
        self._crc32 = crc32(piece, self._crc32)
        self._position += len(piece)
        if self._position == self._end:
            self._body.check_unchanged()
            self.value = encode(self._crc32)
            self._headers.set(CHECKSUM_HEADER, self.value)
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        raise OSError("the CRT reads into its own memory")
