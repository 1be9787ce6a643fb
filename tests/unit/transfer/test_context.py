"""Results come in order, some work is under way at once, and an error begins nothing more."""

import threading

import pytest

from xmode_transfer.transfer.context import in_order


def test_results_come_in_the_order_of_their_items() -> None:
    second_is_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_is_done.wait(30)
        elif number == 1:
            second_is_done.set()
        return number * 2

    with in_order(work, range(50), name="test", threads=2, ahead=4) as results:
        assert list(results) == [number * 2 for number in range(50)]


def test_leaving_early_begins_nothing_more() -> None:
    begun: list[int] = []
    with in_order(begun.append, range(10_000), name="test", threads=2, ahead=4) as results:
        next(results)
    assert len(begun) <= 8


def test_an_error_ends_it_after_what_has_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ValueError("three")

    with (
        pytest.raises(ValueError, match="three"),
        in_order(work, range(10_000), name="test", threads=2, ahead=8) as results,
    ):
        for _ in results:
            pass
    assert len(begun) <= 3 + 16 + 1
