"""Cutting a large object into parts."""

from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.transfer.large import MAX_PARTS, MIB, MIN_PART_BYTES, part_size, split


@given(st.integers(1, 50 * 1024**4))
def test_the_size_is_whole_and_ten_thousand_parts_suffice(size: int) -> None:
    part = part_size(size)
    assert part >= MIN_PART_BYTES
    assert part % MIB == 0
    assert -(-size // part) <= MAX_PARTS


@given(st.integers(1, 40), st.integers(1, 16))
def test_the_parts_cover_the_object_without_overlap(size: int, part: int) -> None:
    parts = split(size, part)
    assert [p.number for p in parts] == list(range(1, len(parts) + 1))
    assert [p.offset for p in parts] == [sum(q.length for q in parts[:i]) for i in range(len(parts))]
    assert sum(p.length for p in parts) == size
    assert all(0 < p.length <= part for p in parts)
