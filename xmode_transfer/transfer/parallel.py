"""Work of which some is under way at once, and whose results come in the order of what it was asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from xmode_transfer import telemetry

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, name: str, threads: int, ahead: int = 1
) -> Iterator[Iterator[_Result]]:
    """The results, streamed. ``ahead`` items are begun for each thread, so that a slow one does not hold the
    others up. At the end, also by an error, what was begun ends, and nothing else begins."""
    window: deque[Future[_Result]] = deque()
    carried = telemetry.carry(work)

    def results() -> Iterator[_Result]:
        for item in items:
            window.append(pool.submit(carried, item))
            if len(window) >= threads * ahead:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            yield results()
        finally:
            for future in window:
                future.cancel()
