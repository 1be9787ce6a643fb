"""What this process has sent."""

import threading
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from xmode_transfer.adapters.metrics.catalogue import BEGUN, OBJECT_BYTES, OBJECTS
from xmode_transfer.adapters.metrics.samples import alone, counted


class Counters:
    """What this process has done since it started: a ``Progress`` to hand to its workbench. Thread-safe."""

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
        yield counted(OBJECTS, {"delivered": 0, "failed": 0} | objects)
        yield counted(OBJECT_BYTES, {"delivered": 0, "failed": 0} | sizes)
        yield alone(BEGUN, begun)
