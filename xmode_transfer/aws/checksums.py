"""Checksums as S3 encodes them, of files, of parts and of bodies while they are sent.

S3 takes CRC32 as FULL_OBJECT checksum of a multipart upload (S3 User Guide, "Checking object integrity"), so
the whole's value follows from the parts' values without reading a byte again.
"""

import base64
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, Protocol, Self

from xmode_transfer.model.errors import RequestRefused, SourceChanged, XmodeError


class OpenFile(Protocol):
    """An open source file by one descriptor: a file replaced by rename is never mixed with its successor."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes, or raise SourceChanged. Thread-safe."""

    def read_range(self, offset: int, length: int) -> bytes:
        """Like ``read_at``, where no read follows: of a bucket, request no more than that."""
        return self.read_at(offset, length)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` as far as the file goes; return the number of bytes. Thread-safe."""

    def check_unchanged(self) -> None:
        """Raise SourceChanged unless the path has the size, time and identity that the scan saw."""

    def close(self) -> None:
        """Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


try:
    from awscrt import checksums as _crt
except ImportError:  # no wheel for this machine: the arithmetic below gives the same values
    _crt = None

ALGORITHM = "crc32"
crc32 = zlib.crc32  # twice as fast as awscrt's
_CHUNK_BYTES = 1024 * 1024

_POLYNOMIAL = 0xEDB88320  # CRC-32 (IEEE 802.3), reflected: bit 31 is the coefficient of x^0


def _times(a: int, b: int) -> int:
    """Return a(x) * b(x) modulo the polynomial, over GF(2)."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def combine_by_arithmetic(first: int, second: int, second_length: int) -> int:
    """Return the CRC32 of A+B: CRC32(A) * x^(8 * length of B) + CRC32(B)."""
    factor = 1 << 31  # x^0
    power = 1 << 23  # x^8: one byte
    length = second_length
    while length:
        if length & 1:
            factor = _times(factor, power)
        power = _times(power, power)
        length >>= 1
    return _times(first, factor) ^ second


def combine(first: int, second: int, second_length: int) -> int:
    """Return the CRC32 of A+B from the CRC32 of A, that of B, and the length of B in bytes."""
    if _crt is None:
        return combine_by_arithmetic(first, second, second_length)
    return int(_crt.combine_crc32(first, second, second_length))


def combine_parts(parts: Iterable[tuple[int, int]]) -> int:
    """Return the CRC32 of the whole from ``(CRC32, length in bytes)`` of its parts in order."""
    return reduce(lambda whole, part: combine(whole, *part), parts, 0)


def composite(parts: Sequence[int]) -> str:
    """Return the checksum of the parts' checksums, for a store that knows no other for a multipart upload."""
    joined = b"".join(value.to_bytes(4, "big") for value in parts)
    return f"{encode(crc32(joined))}-{len(parts)}"


def multipart_etag(parts: Sequence[str]) -> str | None:
    """Return a multipart object's ETag, as S3 and Ceph RGW do; None if a part's is no MD5 (SSE-KMS)."""
    try:
        digests = [bytes.fromhex(etag.strip('"')) for etag in parts]
    except ValueError:
        return None
    if any(len(digest) != 16 for digest in digests):
        return None
    return f'"{hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"'


def encode(value: int) -> str:
    """Return the value for ``x-amz-checksum-crc32``: base64 of the four bytes, big-endian."""
    return base64.b64encode(value.to_bytes(4, "big")).decode("ascii")


def decode(text: str) -> int:
    """Return the value of S3's base64. Raises ValueError if it is not a CRC32 (a composite ``...-3``)."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 4:
        raise ValueError(f"{text!r} is not a CRC32 in base64")
    return int.from_bytes(raw, "big")


def fill(file: OpenFile, buffer: memoryview, position: int) -> memoryview:
    """Return the bytes of the file that fit into the buffer. Raises SourceChanged if there are none."""
    count = file.read_into(buffer, position)
    if count <= 0:
        raise SourceChanged(f"the file ends at byte {position} and was longer when it was scanned")
    return buffer[:count]


def of(file: OpenFile, algorithm: str, offset: int = 0, length: int | None = None) -> str:
    """Return the checksum of a file or a range of it, in S3's base64, by S3's name of the algorithm in lower
    case. Raises RequestRefused for an algorithm that cannot be computed here."""
    position, end = offset, file.size if length is None else offset + length
    buffer = memoryview(bytearray(max(1, min(_CHUNK_BYTES, end - offset))))
    summed = running(algorithm)
    while position < end:
        piece = fill(file, buffer[: end - position], position)
        summed.update(piece)
        position += len(piece)
    return base64.b64encode(summed.digest()).decode("ascii")


class Running(Protocol):
    def update(self, data: memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _RunningCrc:
    def __init__(self, step: Callable[..., int], width: int) -> None:
        self._step = step
        self._width = width
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._width, "big")


def running(algorithm: str) -> Running:
    if algorithm == ALGORITHM:
        return _RunningCrc(crc32, 4)
    if algorithm in ("sha256", "sha1"):
        return hashlib.new(algorithm, usedforsecurity=False)
    if _crt is not None and algorithm == "crc32c":
        return _RunningCrc(_crt.crc32c, 4)
    if _crt is not None and algorithm == "crc64nvme":
        return _RunningCrc(_crt.crc64nvme, 8)
    raise RequestRefused(
        f"a checksum of kind {algorithm} cannot be computed on this machine",
        hint="The awscrt package computes crc32c and crc64nvme; it has no wheel for this machine",
    )


class BodyFailed(BaseException):
    """Carries a source's error through botocore, which wraps and retries every ``Exception`` of a body."""

    def __init__(self, error: XmodeError) -> None:
        super().__init__(str(error))
        self.error = error


def read_whole(body: OpenFile, offset: int, length: int) -> tuple[bytes, int]:
    """Return the bytes and their CRC32. Raises SourceChanged if the file is not what was scanned."""
    content = body.read_at(offset, length)
    body.check_unchanged()
    return content, crc32(content)


class StreamedBody(io.BufferedReader):
    """A range of an open file, which may be sent again. ``failed`` is why it is not what was scanned."""

    def __init__(self, body: OpenFile, offset: int, length: int, crc32: int) -> None:
        self._range = _Range(body, offset, length, crc32)
        super().__init__(self._range, max(1, min(_CHUNK_BYTES, length)))

    def __len__(self) -> int:
        return self._range.length

    @property
    def failed(self) -> XmodeError | None:
        return self._range.failed


class _Range(io.RawIOBase):
    """Checks with its last bytes that the file is unchanged and all bytes have the ``crc32``. Else the
    connection ends before the request is complete, so S3 creates nothing."""

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
        piece = fill(self._body, room, self._offset + self._position)
        if self._position == 0:
            self._seen = self._seen_crc32 = 0
        if self._position == self._seen:
            self._seen_crc32 = crc32(piece, self._seen_crc32)
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
