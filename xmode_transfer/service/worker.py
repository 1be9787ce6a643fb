"""A worker: it takes jobs from a work queue, as many at once as it has slots.

A daemon that delivers itself has one, over the queue of its own process; in a fleet any number work over the
queue in the database. A thread of the worker's own fetches; whoever runs the process calls ``attend`` about
once a second, and the rest when a signal or a changed file asks for it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.config import CatchUp, Configuration
from xmode_transfer.config.times import outage
from xmode_transfer.config.whole import is_moved
from xmode_transfer.model.errors import LeaseLost, LedgerError, XmodeError
from xmode_transfer.model.jobs import FleetStatus, Job, JobResult, WorkerRecord
from xmode_transfer.model.records import Failure
from xmode_transfer.model.work_queue import WorkQueue
from xmode_transfer.service.active_configuration import ActiveConfiguration, Read, read_again
from xmode_transfer.service.jobs import Jobs
from xmode_transfer.service.running import RunningJob, Slot, result_of
from xmode_transfer.service.scheduler import REAP_SECONDS, report_taken_over
from xmode_transfer.service.trouble import Trouble
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.leasing import TTL_SECONDS, kept

BEAT_SECONDS = 5.0
POLL_SECONDS = 1.0
"""Customers that others queue are found within this; after a job the next one is fetched at once."""
STALLED_SECONDS = 5.0
"""A job that has made no progress for so long is stalled: a destination that does not answer must not keep a
slot from those who would."""
WAITING_PLACES = 4
"""Slots for customers that are suspended, and as many again for stalled jobs, for each regular one."""
_MEND_SECONDS = 5.0
_MOST_WAITING = 256
"""Jobs of either kind that may wait for destinations that do not answer: each has a thread."""
_REMEMBERED = 1000
"""Customers of whom this worker remembers what was due, should their next job come to it again."""


class Worker:
    """The properties, ``wake`` and ``stop`` may be called by any thread. What else there is may wait for the
    ledger, and is called by one."""

    def __init__(
        self,
        context: Context,
        queue: WorkQueue,
        configuration: Configuration,
        *,
        places: int | None = None,
        version: str = "",
        heard: Callable[[FleetStatus], None] = lambda _: None,
        trouble: Trouble | None = None,
    ) -> None:
        """``places`` goes before ``cluster.places``. ``heard`` is called with what each sign of life was
        answered, by the thread that attends. ``trouble`` is the process's own, where a daemon has one. Gives
        the first sign of life; raises LedgerError when the ledger does not take it."""
        self._context = context
        self._queue = queue
        self._heard = heard
        self._version = version
        settings = configuration.service
        self.places = places or settings.cluster.places or settings.daemon.workers
        """Jobs at once of customers that get on."""
        self.waiting_places = min(_MOST_WAITING, WAITING_PLACES * self.places)
        """The same for those who are suspended. The worker has room for as many again that began in a
        regular slot and make no progress."""
        now = context.clock.now()
        self._started_at = now
        self._active = ActiveConfiguration.of(configuration, now, configuration.problems)
        self._jobs = Jobs(context, lambda: self._active.configuration)
        self._trouble = trouble or Trouble(context)
        self._trouble.ended.append(self._end_late)
        self._threads = ThreadPoolExecutor(self.places + 2 * self.waiting_places, thread_name_prefix="job")
        self._fetcher = threading.Thread(target=telemetry.carry(self._fetch_on), name="queue", daemon=True)
        self._wanted = threading.Event()
        self._lock = threading.Condition()
        self._running: set[RunningJob] = set()
        self._ended: dict[str, int] = {}  # by customer, the generation of its last job here that ended
        self._moved: set[str] = set()
        self._late: list[tuple[Job, JobResult]] = []  # ends that the ledger did not take
        self._stopping = False
        self._fleet = FleetStatus(1, 0)
        self._beaten = self._reaped = self._mended = context.clock.monotonic()
        self._beat()

    # --- Jobs -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fetches from now on, until ``stop``."""
        self._fetcher.start()

    def wake(self) -> None:
        """Somebody may have been queued."""
        self._wanted.set()

    def _fetch_on(self) -> None:
        while not self._stopping:
            self._wanted.wait(POLL_SECONDS)
            self._wanted.clear()
            self.fetch()

    def fetch(self) -> None:
        """Takes jobs, each on a thread of its own, as long as there are slots and customers for them. Does
        not wait for the jobs, and raises nothing."""
        sizes = {Slot.REGULAR: self.places, Slot.SUSPENDED: self.waiting_places}
        try:
            for slot, size in sizes.items():
                while self.takes_jobs and self._count(slot) < size:
                    suspended = slot is Slot.SUSPENDED
                    job = self._queue.next(self._context.holder, TTL_SECONDS, suspended=suspended)
                    if job is None:
                        break
                    running = RunningJob.beginning(job, slot, self._context)
                    with self._lock:
                        self._running.add(running)
                    self._threads.submit(self._run, running)
        except XmodeError as error:
            self._trouble.found(error)
        except Exception:  # noqa: BLE001 - a defect here must not end the fetching for good
            telemetry.exception(Event.DEFECT)

    @property
    def takes_jobs(self) -> bool:
        """Not after ``stop``, and not while something of ours (``trouble``) would meet every customer."""
        return not self._stopping and self._trouble.now is None

    @property
    def trouble(self) -> Failure | None:
        """What of ours keeps this worker from taking jobs."""
        return self._trouble.now

    @property
    def busy(self) -> int:
        """How many regular slots are taken."""
        return self._count(Slot.REGULAR)

    @property
    def waiting(self) -> int:
        """How many jobs run besides: of suspended customers, and those that make no progress."""
        return self._count(Slot.SUSPENDED, Slot.STALLED)

    def _count(self, *slots: Slot) -> int:
        with self._lock:
            return sum(running.slot in slots for running in self._running)

    def _run(self, running: RunningJob) -> None:
        try:
            self._prepare(running)
            with kept(self._context.ledger, running.job.lease, lost=running.stop.set):
                result = result_of(
                    running.customer, lambda: self._deliver(running), self._context, self._trouble.found
                )
            try:
                self._done(running.job, result)
            except LedgerError as error:
                with self._lock:
                    self._late.append((running.job, result))
                self._trouble.found(error)
        except XmodeError as error:  # the ledger or our identity, outside a job
            self._trouble.found(error)
        except Exception:  # noqa: BLE001 - a defect ends this job, not the worker
            telemetry.exception(Event.DEFECT, customer=running.customer)
        finally:
            with self._lock:
                self._running.discard(running)
                self._lock.notify_all()
            self.wake()

    def _prepare(self, running: RunningJob) -> None:
        """The job begins with what is right: what this worker knows of the customer, if it did the last one
        itself, else what the job says."""
        job, name = running.job, running.customer
        with self._lock:
            followed = self._ended.pop(name, None)
            moved = name in self._moved
            self._moved.discard(name)
            for other in self._running:
                if other is not running and other.customer == name:
                    other.stop.set()  # frozen for so long that the job was taken from it
            if self._context.stop.is_set():
                running.stop.set()  # asked to break off since the job was taken
        if followed is None or followed != job.follows or job.skip_backoff or not self._makes_up(name):
            self._jobs.look_anew(name, None if moved else job.reread_at)
        if job.skip_backoff:
            self._jobs.hurry(name)

    def _deliver(self, running: RunningJob) -> JobResult:
        name = running.customer
        if self._is_held(name):
            telemetry.log(Event.JOB_HELD, customer=name)
            return JobResult(next_at=self._context.clock.now())
        result = self._jobs.do(
            name, running.stop, running.watched, lambda *what: self._queue.delivers(running.job, *what)
        )
        return replace(result, reread_at=self._jobs.reread_at(name))

    def _makes_up(self, name: str) -> bool:
        """Whether the customer is delivered all that an outage left. Of others a daemon may have passed
        periods over since they were looked at."""
        customer = self.configuration.customers.get(name)
        return customer is None or customer.catch_up is CatchUp.ALL

    def _is_held(self, name: str) -> bool:
        """Whether a daemon has yet to say what is passed over: the customer was queued before an outage that
        is not over yet. The daemon that ends it enqueues the customer anew. Raises LedgerError."""
        if self._makes_up(name):
            return False
        ticked = self._context.ledger.daemons.newest(1)
        return bool(ticked) and outage(ticked[0].ticked_at, self._context.clock.now()) is not None

    def _done(self, job: Job, result: JobResult) -> None:
        name = job.customer
        try:
            self._queue.done(job, result)
        except LeaseLost:  # whoever took it over goes on
            telemetry.log(Event.LEASE_LOST, lease=job.lease.name)
            return
        forgotten: list[str] = []
        with self._lock:
            if sum(running.customer == name for running in self._running) > 1:
                forgotten.append(name)  # a thread that lost its job still runs: what it knows is old
            else:
                self._ended[name] = job.lease.generation
            while len(self._ended) > _REMEMBERED:
                forgotten.append(next(iter(self._ended)))
                del self._ended[forgotten[-1]]
        for old in forgotten:
            self._jobs.forget(old)

    def _end_late(self) -> None:
        """The ledger is back: it is told what it was not able to take."""
        with self._lock:
            late, self._late = self._late, []
        while late:
            try:
                self._done(*late[-1])
            except LedgerError as error:
                with self._lock:
                    self._late += late
                self._trouble.found(error)
                return
            late.pop()

    # --- All the time ------------------------------------------------------------------------------------

    def attend(self) -> None:
        """About once a second, also while it stops. Frees the slots of jobs that make no progress; stops
        jobs that have had enough, where others are queued, and those that the fleet wants stopped; gives a
        sign of life and reaps every few seconds; tries whether its trouble is over. Raises nothing."""
        now = self._context.clock.monotonic()
        self._make_room(now)
        try:
            if now - self._mended >= _MEND_SECONDS:
                self._mended = now
                self._trouble.mend()
            if now - self._beaten >= BEAT_SECONDS:
                self._beaten = now
                self._beat()
            if now - self._reaped >= REAP_SECONDS:
                self._reaped = now
                report_taken_over(self._queue.reap())
        except XmodeError as error:
            self._trouble.found(error)

    def _make_room(self, now: float) -> None:
        settings = self.configuration.service
        freed: list[str] = []
        with self._lock:
            stalled = sum(running.slot is Slot.STALLED for running in self._running)
            for running in self._running:
                if (
                    running.slot is Slot.REGULAR
                    and now - running.watched.moved_at > STALLED_SECONDS
                    and stalled < self.waiting_places
                ):
                    running.slot = Slot.STALLED
                    stalled += 1
                    freed.append(running.customer)
                elif self._fleet.queued > 0 and (
                    now - running.began_at > settings.daemon.turn_seconds
                    or running.watched.sent_bytes >= settings.cluster.turn_bytes
                ):
                    running.stop.set()
        for customer in freed:
            telemetry.debug(Event.JOB_STALLED, customer=customer)
            self.wake()

    def _beat(self, stopped_at: datetime | None = None) -> None:
        trouble = self._trouble.now
        self._fleet = fleet = self._queue.beat(
            WorkerRecord(
                holder=self._context.holder,
                started_at=self._started_at,
                seen_at=self._context.clock.now(),
                places=self.places,
                busy=self.busy,
                waiting=self.waiting,
                stopping=self._stopping,
                stopped_at=stopped_at,
                version=self._version,
                trouble=trouble.message if trouble is not None else "",
            )
        )
        self._stop_jobs(lambda running: running.customer in fleet.to_stop)
        self._heard(fleet)

    def _stop_jobs(self, which: Callable[[RunningJob], bool]) -> None:
        """Where they can be resumed. Does not wait for them."""
        with self._lock:
            for running in filter(which, self._running):
                running.stop.set()

    def reload(self, read: Read) -> None:
        """Reads the files again and takes over what is in order. Raises nothing. To try those who are broken
        off is the daemon's part."""
        self.use(read_again(self._active, read, self._context.clock.now()))

    def use(self, active: ActiveConfiguration) -> None:
        """What runs for a customer that was moved stops where it can be resumed."""
        old, new = self._active.configuration, active.configuration
        self._active = active
        moved = {name for name in old.customers if is_moved(old, new, name)}
        with self._lock:
            self._moved |= moved
            for name in moved:
                self._ended.pop(name, None)
        self._stop_jobs(lambda running: running.customer in moved)

    @property
    def configuration(self) -> Configuration:
        """What is in use now."""
        return self._active.configuration

    # --- The end: stop, drain, break_off and drain again where that was not enough, close ---

    def stop(self) -> None:
        """No job begins any more; what runs goes on. From any thread."""
        self._stopping = True
        self.wake()

    def drain(self, seconds: float) -> bool:
        """Waits for the jobs that run, and attends to them meanwhile; whether all have ended."""
        while True:
            pause = max(0.0, min(seconds, 1.0))
            if self._stopping and self._fetcher.is_alive():
                self._fetcher.join(pause)
            with self._lock:
                ended = self._lock.wait_for(lambda: not self._running, pause)
            if ended and not (self._stopping and self._fetcher.is_alive()):
                return True
            seconds -= 1.0
            if seconds <= 0:
                return False
            began = self._context.clock.monotonic()
            self.attend()
            seconds -= self._context.clock.monotonic() - began  # it may have waited for the ledger

    def break_off(self) -> None:
        """Stops what still runs where it can be resumed. Does not wait for it."""
        self._context.stop.set()
        self._stop_jobs(lambda _: True)

    def close(self) -> None:
        """Notes the end in the ledger. A worker whose ledger is gone ends all the same: raises nothing."""
        self._stopping = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        try:
            self._end_late()
            self._beat(stopped_at=self._context.clock.now())
        except XmodeError as error:
            telemetry.warn(Event.SHUTDOWN_NOT_RECORDED, **error.log_context())
