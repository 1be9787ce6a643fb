"""The in-memory work queue of a daemon that delivers itself. The next daemon finds due periods in the ledger.
Customer leases are in the ledger, so that a concurrent ``run`` never delivers to the same customer."""

import heapq
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from xmode_transfer.config.times import Work
from xmode_transfer.ledger.leases import Leases
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost
from xmode_transfer.model.jobs import (
    BUSY_SECONDS,
    Job,
    JobRequest,
    JobResult,
    JobState,
    QueueEntry,
    customer_lease,
    priority,
)
from xmode_transfer.model.process import Clock, FleetStatus, WorkerRecord
from xmode_transfer.model.records import Lease

_REMEMBERED = timedelta(hours=1)


@dataclass(slots=True)
class _Queued:
    request: JobRequest
    since_at: datetime
    number: int
    tag: float  # the customer's virtual time when it was queued
    backfill: bool

    @property
    def urgency(self) -> tuple[int, int]:
        """Sort key; the lowest is first."""
        return -priority(self.tag, backfill=self.backfill and not self.request.is_live), self.number


@dataclass(slots=True)
class _Running:
    job: Job
    holder: str
    since_at: datetime
    delivers: tuple[str | None, str | None]
    stop_asked: bool = False


@dataclass(slots=True)
class _Customer:
    entry: QueueEntry  # after the last job
    weight: int
    spent: float = 0.0
    backfill: bool = False
    serving_at: datetime | None = None  # that the last job did not serve
    reread_at: datetime | None = None
    queued: _Queued | None = None


class LocalQueue:
    """Implements ``WorkQueue``. Thread-safe. No method waits for the ledger while it holds the lock."""

    def __init__(self, clock: Clock, leases: Leases, serve: Callable[[str, str, datetime], None]) -> None:
        """``serve`` is the ledger's ``daemons.serve``."""
        self._clock = clock
        self._leases = leases
        self._serve = serve
        self._lock = threading.RLock()
        self._beginning = threading.Lock()  # serializes the start of jobs
        self._customers: dict[str, _Customer] = {}
        self._running: dict[str, _Running] = {}  # includes removed customers
        self._workers: dict[str, WorkerRecord] = {}
        self._virtual_time = 0.0
        self._number = 0
        self._heaps: dict[bool, list[tuple[tuple[int, int], str]]] = {False: [], True: []}  # by suspended
        self._busy: dict[str, float] = {}  # by customer: not tried before, in monotonic seconds

    def register(self, weights: Mapping[str, int], known: Iterable[QueueEntry] = ()) -> None:
        with self._lock:
            for name in self._customers.keys() - weights.keys():
                del self._customers[name]
                self.stop(name)
            entries = {entry.customer: entry for entry in known}
            for name, weight in weights.items():
                if name in self._customers:
                    self._customers[name].weight = weight
                else:
                    resting = QueueEntry(name, JobState.RESTING, self._clock.now())
                    self._customers[name] = _Customer(entries.get(name, resting), weight)

    def enqueue(self, requests: Iterable[JobRequest]) -> None:
        with self._lock:
            for request in requests:
                customer = self._customers.get(request.customer)
                if customer is None:
                    continue
                before = customer.queued and customer.queued.urgency
                if customer.queued is None:
                    customer.queued = self._queued(customer, request)
                else:
                    customer.queued.request = request.merged(customer.queued.request)
                if customer.queued.urgency != before and request.customer not in self._running:
                    self._push(customer)

    def _queued(self, customer: _Customer, request: JobRequest) -> _Queued:
        self._number += 1
        tag = max(customer.spent, self._virtual_time)
        return _Queued(request, self._clock.now(), self._number, tag, customer.backfill)

    def _push(self, customer: _Customer) -> None:
        """The customer's older heap entries, with another urgency, become stale."""
        assert customer.queued is not None
        name, waits = customer.entry.customer, bool(customer.entry.reason)
        heapq.heappush(self._heaps[waits], (customer.queued.urgency, name))

    def stop(self, customer: str) -> None:
        with self._lock:
            if customer in self._running:
                self._running[customer].stop_asked = True

    def snapshot(self) -> list[QueueEntry]:
        with self._lock:
            return [self._entry(name) for name in sorted(self._customers)]

    def _entry(self, name: str) -> QueueEntry:
        customer, running = self._customers[name], self._running.get(name)
        entry, queued = customer.entry, customer.queued
        if running is not None:
            entry = replace(entry, state=JobState.RUNNING, since_at=running.since_at)
            feed, period = running.delivers
            return replace(entry, feed=feed, period=period, holder=running.holder)
        if queued is not None:
            return replace(entry, state=JobState.QUEUED, since_at=queued.since_at)
        return entry

    def reap(self) -> list[str]:
        return []  # this process ends its own jobs

    def workers(self) -> list[WorkerRecord]:
        with self._lock:
            since = self._clock.now() - _REMEMBERED
            found = [worker for worker in self._workers.values() if worker.seen_at >= since]
        return sorted(found, key=lambda worker: worker.seen_at, reverse=True)

    def next(self, holder: str, ttl_seconds: float, *, suspended: bool) -> Job | None:
        with self._beginning:
            while True:
                with self._lock:
                    name = self._first(self._heaps[suspended])
                if name is None:
                    return None
                try:
                    lease = self._leases.claim(customer_lease(name), holder, ttl_seconds)
                except AlreadyRunning:
                    self._busy[name] = self._clock.monotonic() + BUSY_SECONDS
                    continue
                with self._lock:
                    job = self._begin(name, lease, holder, moves_clock=not suspended)
                if job is not None:
                    return job
                self._leases.release(lease)  # it was dequeued meanwhile

    def _begin(self, name: str, lease: Lease, holder: str, *, moves_clock: bool) -> Job | None:
        self._busy.pop(name, None)
        customer = self._customers.get(name)
        if customer is None or (queued := customer.queued) is None:
            return None
        request = queued.request.merged(JobRequest(name, serving_at=customer.serving_at))
        entry = customer.entry
        job = Job(name, lease, request.skip_backoff, request.serving_at, entry.ended, customer.reread_at)
        customer.queued = None
        customer.spent = queued.tag + 1 / customer.weight
        if moves_clock:
            self._virtual_time = max(self._virtual_time, queued.tag)
        self._running[name] = _Running(job, holder, self._clock.now(), (entry.feed, entry.period))
        return job

    def _first(self, heap: list[tuple[tuple[int, int], str]]) -> str | None:
        """Return the customer at the head of the queue, which stays there. Removes stale entries."""
        passed, found = [], None
        while heap and found is None:
            urgency, name = heap[0]
            customer = self._customers.get(name)
            if customer is None or customer.queued is None or customer.queued.urgency != urgency:
                heapq.heappop(heap)
            elif self._busy.get(name, 0.0) > self._clock.monotonic():
                passed.append(heapq.heappop(heap))
            else:
                found = name
        for item in passed:
            heapq.heappush(heap, item)
        return found

    def delivers(self, job: Job, feed: str, period: str) -> None:
        with self._lock:
            self._held(job).delivers = feed, period

    def done(self, job: Job, result: JobResult) -> None:
        with self._lock:
            self._held(job)
        if result.looked and job.serving_at is not None:
            self._serve(job.customer, Work.DELIVER, job.serving_at)
        self._leases.release(job.lease)
        with self._lock:
            self._held(job)
            del self._running[job.customer]
            customer = self._customers.get(job.customer)
            if customer is None:
                return
            customer.entry = QueueEntry.after(job, result, self._clock.now())
            customer.backfill = result.backfill
            customer.serving_at = None if result.looked else job.serving_at
            customer.reread_at = result.reread_at or customer.reread_at
            self._enqueue_anew(customer, JobRequest(job.customer) if result.again else None)

    def _enqueue_anew(self, customer: _Customer, request: JobRequest | None) -> None:
        if customer.queued is not None:  # requested while the job ran
            request = customer.queued.request.merged(request)
        if request is not None:
            customer.queued = self._queued(customer, request)
            self._push(customer)

    def _held(self, job: Job) -> _Running:
        running = self._running.get(job.customer)
        if running is None or running.job.lease.generation != job.lease.generation:
            raise LeaseLost(f"The job of {job.customer} was taken over.")
        return running

    def beat(self, worker: WorkerRecord) -> FleetStatus:
        with self._lock:
            now = self._clock.now()
            self._workers[worker.holder] = replace(worker, seen_at=now)
            alive = sum(known.is_alive(now) for known in self._workers.values())
            queued = sum(
                customer.queued is not None and not customer.entry.reason and name not in self._running
                for name, customer in self._customers.items()
            )
            here = [running for running in self._running.values() if running.holder == worker.holder]
            to_stop = frozenset(running.job.customer for running in here if running.stop_asked)
            return FleetStatus(alive, queued, to_stop)
