"""Run work concurrently and yield its results in the order of the items."""

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
    """Streams the results. Begins ``ahead`` items for each thread, so that a slow item does not hold up the
    others. At the end, also after an error, running items finish and no other item begins."""
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
