"""CRC32 as S3 writes it, and how the whole's value follows from its parts'.

S3 takes CRC32 as FULL_OBJECT checksum of a multipart upload (S3 User Guide, "Checking object integrity"),
so the value of the assembled object can be computed from the parts' values without reading a byte again.
"""

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from xmode_transfer.aws.bodies import OpenFile
from xmode_transfer.model.errors import RequestRefused, SourceChanged

try:
    from awscrt import checksums as _crt
except ImportError:  # no wheel for this machine: the arithmetic below gives the same values
    _crt = None

ALGORITHM = "crc32"
crc32 = zlib.crc32  # twice as fast as awscrt's
_CHUNK_BYTES = 1024 * 1024

_POLYNOMIAL = 0xEDB88320  # CRC-32 (IEEE 802.3), reflected: bit 31 is the coefficient of x^0


def _times(a: int, b: int) -> int:
    """a(x) * b(x) modulo the polynomial, over GF(2)."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def combine_by_arithmetic(first: int, second: int, second_length: int) -> int:
    """The CRC32 of A+B as CRC32(A) * x^(8 * length of B) + CRC32(B)."""
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
    """The CRC32 of A+B from the CRC32 of A, that of B, and the length of B in bytes."""
    if _crt is None:
        return combine_by_arithmetic(first, second, second_length)
    return int(_crt.combine_crc32(first, second, second_length))


def combine_parts(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC32 of the whole from ``(CRC32, length in bytes)`` of its parts in order."""
    whole = 0
    for value, length in parts:
        whole = combine(whole, value, length)
    return whole


def composite(parts: Sequence[int]) -> str:
    """The checksum of the parts' checksums, as a store writes it that knows no other for a multipart
    upload."""
    joined = b"".join(value.to_bytes(4, "big") for value in parts)
    return f"{encode(crc32(joined))}-{len(parts)}"


def multipart_etag(parts: Sequence[str]) -> str | None:
    """The ETag of a multipart object from its parts' ETags in order: the MD5 of their MD5s, and their number
    (as S3 and Ceph RGW form it). None where a part's ETag is not an MD5, as under SSE-KMS."""
    try:
        digests = [bytes.fromhex(etag.strip('"')) for etag in parts]
    except ValueError:
        return None
    if any(len(digest) != 16 for digest in digests):
        return None
    return f'"{hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"'


def encode(value: int) -> str:
    """The value as S3 carries it in ``x-amz-checksum-crc32``: base64 of the four bytes, big-endian."""
    return base64.b64encode(value.to_bytes(4, "big")).decode("ascii")


def decode(text: str) -> int:
    """The number behind S3's base64. Raises ValueError when it is none (a composite ``...-3``)."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 4:
        raise ValueError(f"{text!r} is not a CRC32 in base64")
    return int.from_bytes(raw, "big")


def fill(file: OpenFile, buffer: memoryview, position: int) -> memoryview:
    """What of the file fits into the buffer. Raises SourceChanged when there is nothing."""
    count = file.read_into(buffer, position)
    if count <= 0:
        raise SourceChanged(f"the file ends at byte {position} and was longer when it was scanned")
    return buffer[:count]


def of(file: OpenFile, algorithm: str, offset: int = 0, length: int | None = None) -> str:
    """The checksum of an open file's content, or of a range of it, in S3's base64, by S3's name of the
    algorithm in lower case.

    Raises SourceChanged when the file ends too soon, RequestRefused for an algorithm that cannot be computed
    here.
    """
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
