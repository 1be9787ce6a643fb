"""Who hands out jobs: the queue of one process, or that of a whole fleet."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from xmode_transfer.model.jobs import FleetStatus, Job, JobRequest, JobResult, QueueEntry, WorkerRecord


class WorkQueue(Protocol):
    """The jobs of all customers; a customer has one that runs at a time, wherever it runs.

    ``service.local_queue`` is that of a daemon that delivers itself. ``ledger.work_queue`` is that
    of a fleet, over Procrastinate: any number of daemons enqueue, any number of workers take what is next,
    and what is queued or running is read from Procrastinate's own tables. Every method may raise what
    ``Ledger`` raises, and can be called again where it did. Thread-safe. Times are the database's own where
    machines have to agree.
    """

    # --- daemons

    def register(self, weights: Mapping[str, int], known: Iterable[QueueEntry] = ()) -> None:
        """The customers that take part from now on, with their weights. Who no longer does is taken out of
        the queue, and its running job is asked to stop. ``known`` is what an earlier daemon left behind of
        customers that are new to this queue. Idempotent: each daemon does it."""
        ...

    def enqueue(self, requests: Iterable[JobRequest]) -> None:
        """Gives each of these customers a job as soon as it is its turn. One that is queued stays in its
        place, and what is asked for is added; a backfill is raised by a request that is live. One whose job
        runs has another when that ends. Who does not take part is skipped."""
        ...

    def stop(self, customer: str) -> None:
        """Asks the customer's running job, if there is one, to end where it can be resumed."""
        ...

    def snapshot(self) -> list[QueueEntry]:
        """Each customer that takes part, by name. Whoever follows the snapshots ends up with what is true,
        and sees by ``ended`` that another job has ended."""
        ...

    def reap(self) -> list[str]:
        """Queues those again whose job is held by nobody any more: its worker is dead, or its lease has
        ended. What that worker held of the customer (``customer/...``, ``delivery/<customer>/...``) is taken
        from it, so that it cannot write when it wakes. Answers whose jobs were taken over. Any process may do
        it at any time."""
        ...

    def workers(self) -> list[WorkerRecord]:
        """Those that live, and those that ended in the last hour; the one seen last first."""
        ...

    # --- workers

    def next(self, holder: str, ttl_seconds: float, *, suspended: bool) -> Job | None:
        """Takes the most urgent job, of customers that get on or of those that are ``suspended``. None when
        there is none. A customer to whom a ``run`` delivers is skipped, and comes again a few seconds
        later."""
        ...

    def delivers(self, job: Job, feed: str, period: str) -> None:
        """What the job delivers now. Raises LeaseLost."""
        ...

    def done(self, job: Job, result: JobResult) -> None:
        """The job has ended: its lease is given back, and the customer is queued again where there is more to
        do (``again``, or a request came meanwhile). When everything was looked at, the time of the schedule
        that the job served is remembered (``ledger.daemons.serve``); otherwise the customer's next job serves
        it. Raises LeaseLost, and changes nothing, when somebody else has taken over."""
        ...

    def beat(self, worker: WorkerRecord) -> FleetStatus:
        """A sign of life, every few seconds."""
        ...
