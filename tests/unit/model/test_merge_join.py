"""The merge join of two sorted iterables."""

from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.keys import merge_join

sides = st.sets(st.text("abc", max_size=3))


@given(sides, sides)
def test_every_key_comes_once_in_order_with_what_each_side_has(left: set[str], right: set[str]) -> None:
    found = list(merge_join(sorted(left), sorted(right), str, str))
    assert found == [
        (key if key in left else None, key if key in right else None) for key in sorted(left | right)
    ]
