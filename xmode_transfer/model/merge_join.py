"""Join two iterables in the same order in one pass, without holding either in memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Left = TypeVar("_Left")
_Right = TypeVar("_Right")


def merge_join(
    left: Iterable[_Left],
    right: Iterable[_Right],
    key_of_left: Callable[[_Left], str],
    key_of_right: Callable[[_Right], str],
) -> Iterator[tuple[_Left | None, _Right | None]]:
    """Yields both items of each key, or one and None. Each side must ascend by its key."""
    lefts, rights = iter(left), iter(right)
    one, other = next(lefts, None), next(rights, None)
    while one is not None and other is not None:
        first, second = key_of_left(one), key_of_right(other)
        if first < second:
            yield one, None
            one = next(lefts, None)
        elif second < first:
            yield None, other
            other = next(rights, None)
        else:
            yield one, other
            one, other = next(lefts, None), next(rights, None)
    while one is not None:
        yield one, None
        one = next(lefts, None)
    while other is not None:
        yield None, other
        other = next(rights, None)
