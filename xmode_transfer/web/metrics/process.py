"""This process: what it has sent, and its daemon."""

import threading
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from xmode_transfer.model.jobs import JobState
from xmode_transfer.web.facts import StatusView
from xmode_transfer.web.metrics import catalogue as of
from xmode_transfer.web.metrics.catalogue import alone, counted


class Counters:
    """What this process has done since it started: a ``Progress`` to hand to its context. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._begun = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        with self._lock:
            self._begun += 1

    def bytes_sent(self, count: int) -> None:
        """Whole objects are counted instead: parts that are sent anew would count twice."""

    def bytes_resumed(self, count: int) -> None:
        pass

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        with self._lock:
            self._objects[outcome] += 1
            self._bytes[outcome] += size

    def delivery_finished(self) -> None:
        pass

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            objects, sizes, begun = dict(self._objects), dict(self._bytes), self._begun
        # What goes well is there from the start, so that a rate can be made of the first.
        yield counted(of.OBJECTS, {"delivered": 0, "failed": 0} | objects)
        yield counted(of.OBJECT_BYTES, {"delivered": 0, "failed": 0} | sizes)
        yield alone(of.BEGUN, begun)


class Process(Collector):
    """This process, from memory: asked anew at each scrape."""

    def __init__(self, status_view: StatusView | None, counters: Counters | None) -> None:
        self._status_view = status_view
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield counted(of.BUILD_INFO, {version("xmode-transfer"): 1})
        if self._counters is not None:
            yield from self._counters.collect()
        if self._status_view is None:
            return
        status = self._status_view.status()
        yield alone(of.STARTED, status.started_at.timestamp())
        yield alone(of.TICKED, status.ticked_at.timestamp())
        yield alone(of.STOPPING, status.stopping)
        yield alone(of.WORKERS, status.workers)
        yield alone(of.BUSY, status.busy)
        yield alone(of.CONFIGURATION_LOADED, status.configuration_loaded_at.timestamp())
        yield alone(of.CONFIGURATION_PROBLEMS, len(status.configuration_problems))
        states = Counter(str(entry.state) for entry in self._status_view.jobs())
        yield counted(of.TURNS, {str(state): states[state] for state in JobState})
