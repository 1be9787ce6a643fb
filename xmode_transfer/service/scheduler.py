"""The daemon's side of the work queue: due times, requests for jobs, results of jobs, and timers. The queue
is authoritative; the daemon caches what it last read."""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from xmode_transfer import telemetry
from xmode_transfer.config.times import Times, Work, due_at
from xmode_transfer.model.errors import LedgerError, XmodeError
from xmode_transfer.model.jobs import JobRequest, JobState, QueueEntry, WorkQueue, has_suspended
from xmode_transfer.model.process import WorkerRecord
from xmode_transfer.model.records import Delivery, Status
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context

REAP_SECONDS = 5.0
"""How often each daemon and each worker reaps jobs of dead workers."""
_OPEN = (Status.PLANNED, Status.RUNNING, Status.FAILED, Status.BLOCKED, Status.QUARANTINED)
_READING = 0.05  # maximum share of time spent on reading the queue: a large queue is read less often
_LONGEST_SECONDS = 5.0  # maximum interval between two reads, also after one that waited for the database


class Agenda:
    """Due times of each customer, cached, so that a tick does not evaluate every cron expression. One thread
    reads; any thread may call ``serve``."""

    def __init__(self, served: Mapping[tuple[str, str], datetime]) -> None:
        self._served: dict[tuple[str, str], datetime] = dict(served)
        self._asked: dict[tuple[str, Work], tuple[Times, datetime, datetime]] = {}

    def serve(self, name: str, work: Work, served_at: datetime) -> None:
        self._served[name, work] = served_at

    def refresh(self, served: Mapping[tuple[str, str], datetime]) -> None:
        """Add what other daemons and workers have recorded in the ledger."""
        self._served.update(served)

    def due(self, name: str, work: Work, times: Times, now: datetime) -> datetime | None:
        """Return the scheduled time to serve now, if any."""
        asked = self._asked.get((name, work))
        if asked is not None:
            known, asked_at, next_at = asked
            if known == times and asked_at <= now < next_at:
                return None
        due = due_at(times, self._served.get((name, work)), now)
        if due is None:  # nothing before the next time, unless the clock is set back
            self._asked[name, work] = times, now, times.next(now)
        return due

    def next_time(self, name: str, work: Work) -> datetime | None:
        """Return the customer's next time, if it is cached."""
        asked = self._asked.get((name, work))
        return None if asked is None else asked[2]

    def first_time(self, name: str, work: Work) -> bool:
        return (name, work) not in self._served


class Scheduler:
    """Any thread may call ``enqueue`` and read the properties; one thread calls the rest."""

    def __init__(
        self,
        context: Context,
        queue: WorkQueue,
        *,
        ended: Callable[[QueueEntry], None],
        on_outage: Callable[[XmodeError], object],
    ) -> None:
        """``attend`` calls ``ended``, without a lock, when a job has ended."""
        self._context = context
        self._queue = queue
        self._ended = ended
        self._on_outage = on_outage
        self._lock = threading.Lock()
        self._weights: dict[str, int] = {}
        self._known: list[QueueEntry] = []  # from before this daemon, until the queue has it
        self._is_registered = True
        self._to_stop: set[str] = set()
        self._requests: dict[str, JobRequest] = {}
        self._entries: dict[str, QueueEntry] = {}
        self._ended_jobs: dict[str, int] | None = None  # by customer: the last job reported
        self._workers: tuple[WorkerRecord, ...] = ()
        self._idle = False  # customers are queued, and no worker is alive
        self._reaped = self._read_after = -REAP_SECONDS
        self._closed = False

    def register(self, weights: Mapping[str, int], known: Sequence[QueueEntry] = ()) -> None:
        """Set the weights of the active customers. Jobs of others stop where they can be resumed. ``known``
        has entries that the last daemon left."""
        self._weights, self._is_registered = dict(weights), False
        self._known += known

    def enqueue(self, name: str, *, skip_backoff: bool = False, serving_at: datetime | None = None) -> None:
        """Enqueue a job for the customer (see ``JobRequest``)."""
        if name in self._weights:
            self._remember([JobRequest(name, skip_backoff, serving_at)])

    def stop(self, name: str) -> None:
        """Stop the customer's running job, if any, where it can be resumed: its worker may not have reloaded
        the files yet."""
        self._to_stop.add(name)

    def _remember(self, requests: Sequence[JobRequest]) -> None:
        with self._lock:
            for request in requests:
                if not self._closed:
                    known = self._requests.get(request.customer)
                    self._requests[request.customer] = request.merged(known)

    def _write(self) -> None:
        if not self._is_registered:
            self._queue.register(self._weights, self._known)
            self._is_registered, self._known = True, []
        for name in sorted(self._to_stop):
            self._queue.stop(name)
            self._to_stop.discard(name)
        with self._lock:
            requests, self._requests = list(self._requests.values()), {}
        try:
            if requests:
                self._queue.enqueue(requests)
        except LedgerError:
            self._remember(requests)  # requests that were written are merged, not duplicated
            raise

    def attend(self) -> None:
        """Write requests and read the queue, about once a second. The next call tries again what failed."""
        now = self._context.clock.monotonic()
        try:
            self._write()
            if now - self._reaped >= REAP_SECONDS:
                self._reaped = now
                report_taken_over(self._queue.reap())
            if now < self._read_after:
                return
            began = self._context.clock.monotonic()
            entries = {entry.customer: entry for entry in self._queue.snapshot()}
            self._workers = tuple(self._queue.workers())
        except LedgerError as error:
            self._on_outage(error)
            return
        read = self._context.clock.monotonic()
        self._read_after = read + min((read - began) / _READING, _LONGEST_SECONDS)
        self._entries = entries
        seen, self._ended_jobs = self._ended_jobs, {name: entry.ended for name, entry in entries.items()}
        for name, entry in entries.items():
            before = 0 if seen is None else seen.get(name, 0)
            # Jobs that ended before this daemon started count only if the customer is still suspended.
            if entry.ended == before or (seen is None and entry.state is not JobState.SUSPENDED):
                continue
            try:
                self._ended(entry)
            except XmodeError as error:
                self._on_outage(error)
        queued = sum(entry.state is JobState.QUEUED for entry in entries.values())
        idle = queued > 0 and not self._alive()
        if idle and not self._idle:
            telemetry.warn(Event.WORKERS_MISSING, queued=queued)
        self._idle = idle

    def _alive(self) -> list[WorkerRecord]:
        now = self._context.clock.now()
        return [worker for worker in self._workers if worker.is_alive(now)]

    @property
    def slots(self) -> int:
        return sum(worker.places for worker in self._alive())

    @property
    def busy(self) -> int:
        """Slots in use. Stalled jobs hold none."""
        return sum(worker.busy for worker in self._alive())

    def entries(self) -> list[QueueEntry]:
        return [entry for name, entry in self._entries.items() if name in self._weights]

    def entry(self, name: str) -> QueueEntry | None:
        if name not in self._weights:
            return None
        resting = QueueEntry(name, JobState.RESTING, self._context.clock.now())
        return self._entries.get(name, resting)  # a customer that was just registered

    def close(self) -> None:
        """Drop and refuse all requests."""
        with self._lock:
            self._closed = True
            self._requests = {}


def report_taken_over(names: Sequence[str]) -> None:
    for name in names:
        telemetry.warn(Event.JOB_REASSIGNED, customer=name)


def unfinished(context: Context) -> list[QueueEntry]:
    """Return entries for the deliveries that the last daemon did not finish."""
    now = context.clock.now()
    waits: dict[str, Delivery] = {}
    for delivery in context.ledger.deliveries.find(statuses=_OPEN):
        other = waits.get(delivery.customer)
        if other is None or (has_suspended(delivery), delivery.period) > (has_suspended(other), other.period):
            waits[delivery.customer] = delivery
    return [
        QueueEntry(
            name,
            JobState.SUSPENDED if has_suspended(delivery) else JobState.RESTING,
            min(delivery.updated_at, now),
            min(delivery.next_attempt_at or now, now + timedelta(days=1)),
            delivery.feed,
            delivery.period,
            delivery.failure.message if delivery.failure is not None and has_suspended(delivery) else "",
            refused=delivery.status is Status.BLOCKED,
        )
        for name, delivery in waits.items()
    ]


class CronSimTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires at the times of a schedule. Missed times do not fire: the daemon computes what is due itself."""

    def __init__(self, times: Times) -> None:
        self.times = times

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        # ``previous`` has just fired and may be slightly in the future, or is None.
        return self.times.next(max(now, previous) if previous is not None else now)


class _Every(BaseTrigger):  # type: ignore[misc]
    def __init__(self, seconds: float) -> None:
        self._pause = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        if previous is None:
            return now
        return previous + self._pause if previous + self._pause > now else now + self._pause


class Ticker:
    """Runs callbacks in its own threads; a callback must return at once. Thread-safe."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.start()

    def every(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call now and every ``seconds``. Replaces a timer of the same name."""
        self._scheduler.add_job(call, _Every(seconds), id=name, replace_existing=True)

    def at(self, name: str, times: Times, call: Callable[[], None]) -> None:
        """Call at each future time. Replaces a timer of the same name."""
        self._scheduler.add_job(call, CronSimTrigger(times), id=name, replace_existing=True)

    def keep(self, names: set[str]) -> None:
        """Remove all other timers."""
        for job in self._scheduler.get_jobs():
            if job.id not in names:
                self._scheduler.remove_job(job.id)

    def reset(self) -> None:
        """Recompute all timers from now: APScheduler waits for the wall clock, and would wait an hour after
        the clock is set back by an hour."""
        for job in self._scheduler.get_jobs():
            self._scheduler.reschedule_job(job.id, trigger=job.trigger)

    def close(self) -> None:
        """Idempotent."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
