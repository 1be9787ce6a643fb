"""The queue of the whole fleet, and its workers."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from xmode_transfer.model.jobs import JobState, QueueEntry, WorkerRecord
from xmode_transfer.model.process import Clock
from xmode_transfer.model.work_queue import WorkQueue
from xmode_transfer.web.metrics.catalogue import (
    FLEET_BUSY,
    FLEET_CUSTOMERS,
    FLEET_OLDEST,
    FLEET_SLOTS,
    FLEET_WAITING,
    FLEET_WORKERS,
    alone,
    counted,
)

_WORKING, _TROUBLED, _STOPPING, _SILENT = "working", "troubled", "stopping", "silent"


class FleetMetrics:
    """Metrics of a fleet."""

    def __init__(self, queue: WorkQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Raises LedgerError."""
        yield from self._of_customers(self._queue.snapshot())
        yield from self._of_workers(self._queue.workers())

    def _of_customers(self, entries: list[QueueEntry]) -> Iterator[Metric]:
        states = Counter(entry.state for entry in entries)
        yield counted(FLEET_CUSTOMERS, {str(state): states[state] for state in JobState})
        now = self._clock.now()
        # Suspended customers have their own queue, which may be slow.
        queued = [entry.since_at for entry in entries if entry.state is JobState.QUEUED and not entry.reason]
        yield alone(FLEET_OLDEST, max(0.0, (now - min(queued, default=now)).total_seconds()))

    def _of_workers(self, workers: list[WorkerRecord]) -> Iterator[Metric]:
        known = [(self._state(worker), worker) for worker in workers if worker.stopped_at is None]
        states = Counter(state for state, _ in known)
        yield counted(
            FLEET_WORKERS, {state: states[state] for state in (_WORKING, _TROUBLED, _STOPPING, _SILENT)}
        )
        working = [worker for state, worker in known if state == _WORKING]
        yield alone(FLEET_SLOTS, sum(worker.places for worker in working))
        # A stopping worker keeps its jobs; those of a silent one are taken over.
        living = [worker for state, worker in known if state != _SILENT]
        yield alone(FLEET_BUSY, sum(worker.busy for worker in living))
        yield alone(FLEET_WAITING, sum(worker.waiting for worker in living))

    def _state(self, worker: WorkerRecord) -> str:
        if not worker.is_alive(self._clock.now()):
            return _SILENT
        if worker.stopping:
            return _STOPPING
        return _TROUBLED if worker.trouble else _WORKING
