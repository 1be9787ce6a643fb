"""This process, and its daemon."""

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from xmode_transfer.adapters.metrics.catalogue import (
    BUILD_INFO,
    BUSY,
    CONFIGURATION_LOADED,
    CONFIGURATION_PROBLEMS,
    STARTED,
    STOPPING,
    TICKED,
    TURNS,
    WORKERS,
)
from xmode_transfer.adapters.metrics.counters import Counters
from xmode_transfer.adapters.metrics.samples import alone, counted
from xmode_transfer.domain.work_queue import JobState
from xmode_transfer.ports.board import Board


class Process(Collector):
    """This process, from memory: asked anew at each scrape."""

    def __init__(self, board: Board | None, counters: Counters | None) -> None:
        self._board = board
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield counted(BUILD_INFO, {version("xmode-transfer"): 1})
        if self._counters is not None:
            yield from self._counters.collect()
        if self._board is None:
            return
        pulse = self._board.pulse()
        yield alone(STARTED, pulse.started_at.timestamp())
        yield alone(TICKED, pulse.ticked_at.timestamp())
        yield alone(STOPPING, pulse.stopping)
        yield alone(WORKERS, pulse.workers)
        yield alone(BUSY, pulse.busy)
        yield alone(CONFIGURATION_LOADED, pulse.configuration_loaded_at.timestamp())
        yield alone(CONFIGURATION_PROBLEMS, len(pulse.configuration_problems))
        standing = Counter(str(turn.state) for turn in self._board.turns())
        yield counted(TURNS, {str(state): standing[state] for state in JobState})
