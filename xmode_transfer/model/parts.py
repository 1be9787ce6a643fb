"""How a large object is cut into parts."""

from collections.abc import Collection
from typing import NamedTuple

MIB = 1024 * 1024
MIN_PART_BYTES = 16 * MIB
MAX_PARTS = 10_000  # S3 User Guide, qfacts; a part has 5 MiB to 5 GiB, the last one any size


class Part(NamedTuple):
    """One part: ``number`` counts from 1, ``offset`` and ``length`` in bytes."""

    number: int
    offset: int
    length: int


def part_size(size: int) -> int:
    """The part size for an object of that many bytes: whole MiB, and so that 10,000 parts suffice."""
    needed = -(-size // MAX_PARTS)
    return max(MIN_PART_BYTES, -(-needed // MIB) * MIB)


def split(size: int, part_bytes: int) -> list[Part]:
    """All parts of an object, in order."""
    return [
        Part(number, offset, min(part_bytes, size - offset))
        for number, offset in enumerate(range(0, size, part_bytes), start=1)
    ]


def missing(parts: list[Part], done: Collection[int]) -> list[Part]:
    """The parts whose numbers are not done yet."""
    return [part for part in parts if part.number not in done]
