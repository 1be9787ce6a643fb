"""How the round of the whole fleet stands, and its workers."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from xmode_transfer.adapters.metrics.catalogue import (
    FLEET_BUSY,
    FLEET_CUSTOMERS,
    FLEET_OLDEST,
    FLEET_PLACES,
    FLEET_WAITING,
    FLEET_WORKERS,
    alone,
    counted,
)
from xmode_transfer.domain.fleet import FleetState, FleetTurn, WorkerRecord
from xmode_transfer.ports import Clock
from xmode_transfer.ports.work_queue import WorkQueue

ANEW_SECONDS = 60.0
"""Between two scrapes only what changed is read; so often everything is, for those whose place is gone."""
_WORKING, _TROUBLED, _STOPPING, _SILENT = "working", "troubled", "stopping", "silent"


class Round:
    """What a fleet tells Prometheus. One thread at a time."""

    def __init__(self, fleet: WorkQueue, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._turns: dict[str, FleetTurn] = {}
        self._serial = 0
        self._read_at: float | None = None

    def collect(self) -> Iterator[Metric]:
        """Raises LedgerError."""
        self._read()
        yield from self._of_customers()
        yield from self._of_workers(self._fleet.workers())

    def _read(self) -> None:
        now = self._clock.monotonic()
        anew = self._read_at is None or now - self._read_at >= ANEW_SECONDS
        changed = self._fleet.turns(0 if anew else self._serial)
        if anew:
            self._turns, self._read_at = {}, now
        for turn in changed:
            self._turns[turn.customer] = turn
            self._serial = max(self._serial, turn.serial)

    def _of_customers(self) -> Iterator[Metric]:
        standing = Counter(turn.state for turn in self._turns.values())
        yield counted(FLEET_CUSTOMERS, {str(state): standing[state] for state in FleetState})
        now = self._clock.now()
        # Who is broken off waits for a queue of its own, which may be slow.
        queued = [
            turn.since_at
            for turn in self._turns.values()
            if turn.state is FleetState.QUEUED and not turn.reason
        ]
        yield alone(FLEET_OLDEST, max(0.0, (now - min(queued, default=now)).total_seconds()))

    def _of_workers(self, workers: list[WorkerRecord]) -> Iterator[Metric]:
        known = [(self._state(worker), worker) for worker in workers if worker.stopped_at is None]
        states = Counter(state for state, _ in known)
        yield counted(
            FLEET_WORKERS, {state: states[state] for state in (_WORKING, _TROUBLED, _STOPPING, _SILENT)}
        )
        working = [worker for state, worker in known if state == _WORKING]
        yield alone(FLEET_PLACES, sum(worker.places for worker in working))
        # One that is being stopped still has its turns; those of a silent one are taken over.
        living = [worker for state, worker in known if state != _SILENT]
        yield alone(FLEET_BUSY, sum(worker.busy for worker in living))
        yield alone(FLEET_WAITING, sum(worker.waiting for worker in living))

    def _state(self, worker: WorkerRecord) -> str:
        if not worker.is_alive(self._clock.now()):
            return _SILENT
        if worker.stopping:
            return _STOPPING
        return _TROUBLED if worker.trouble else _WORKING
