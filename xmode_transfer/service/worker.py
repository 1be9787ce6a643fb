"""A worker: runs jobs from a work queue, one per slot. A daemon that delivers itself has one worker on its
in-process queue; in a fleet, any number of workers share the queue in the database."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

from xmode_transfer import telemetry
from xmode_transfer.config import CatchUp, Configuration
from xmode_transfer.config.configuration import is_moved
from xmode_transfer.config.times import outage
from xmode_transfer.model.errors import ConfigError, LeaseLost, LedgerError, VendorIdentityError, XmodeError
from xmode_transfer.model.jobs import Job, JobResult, WorkQueue
from xmode_transfer.model.process import FleetStatus, WorkerRecord
from xmode_transfer.model.records import Failure
from xmode_transfer.service.active_configuration import ActiveConfiguration, Read, loaded, read_again
from xmode_transfer.service.jobs import Jobs, RunningJob, Slot
from xmode_transfer.service.maintenance import Outages
from xmode_transfer.service.scheduler import REAP_SECONDS, report_taken_over
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import TTL_SECONDS, Context, kept

HEARTBEAT_SECONDS = 5.0
POLL_SECONDS = 1.0
"""Jobs that others enqueue are found within this; after a job ends, the next one is fetched at once."""
STALLED_SECONDS = 5.0
"""A job without progress for this long is stalled: an unresponsive destination must not block a slot."""
WAITING_SLOTS = 4
"""Slots for suspended customers per regular slot, and as many again for stalled jobs."""
_RECOVERY_SECONDS = 5.0
_MOST_WAITING = 256  # jobs of either kind: each has a thread
_REMEMBERED = 1000  # customers whose backlog this worker caches for their next job


class Worker:
    """Any thread may read the properties and call ``wake`` and ``stop``. Other methods may wait for the
    ledger and belong to one thread."""

    def __init__(
        self,
        context: Context,
        queue: WorkQueue,
        configuration: Configuration,
        *,
        slots: int | None = None,
        version: str = "",
        on_heartbeat: Callable[[FleetStatus], None] = lambda _: None,
        outages: Outages | None = None,
    ) -> None:
        """Sends the first heartbeat; raises LedgerError. ``on_heartbeat`` receives the fleet's status at each
        one, in the attending thread. ``outages`` are the daemon's, if it has its own worker."""
        self._context = context
        self._queue = queue
        self._on_heartbeat = on_heartbeat
        self._version = version
        settings = configuration.service
        self.slots = slots or settings.cluster.places or settings.daemon.workers
        self.waiting_slots = min(_MOST_WAITING, WAITING_SLOTS * self.slots)
        self._started_at = context.clock.now()
        self._active = loaded(configuration, self._started_at)
        self._jobs = Jobs(context, lambda: self.configuration)
        self._outages = outages or Outages(context)
        self._outages.ended.append(self._end_late)
        self._threads = ThreadPoolExecutor(self.slots + 2 * self.waiting_slots, thread_name_prefix="job")
        self._fetcher = threading.Thread(target=telemetry.carry(self._fetch_on), name="queue", daemon=True)
        self._wanted = threading.Event()
        self._lock = threading.Condition()
        self._running: set[RunningJob] = set()
        self._ended: dict[str, int] = {}  # by customer, the generation of its last job here that ended
        self._moved: set[str] = set()
        self._late: list[tuple[Job, JobResult]] = []  # results that the ledger did not take
        self._stopping = False
        self._fleet = FleetStatus(1, 0)
        self._heartbeat_at = self._reaped = self._recovery_checked = context.clock.monotonic()
        self._heartbeat()

    def start(self) -> None:
        self._fetcher.start()

    def wake(self) -> None:
        """Signal that a job may be queued."""
        self._wanted.set()

    def _fetch_on(self) -> None:
        while not self._stopping:
            self._wanted.wait(POLL_SECONDS)
            self._wanted.clear()
            self.fetch()

    def fetch(self) -> None:
        """Start jobs while there are free slots and queued jobs. Raises nothing."""
        try:
            for slot, size in ((Slot.REGULAR, self.slots), (Slot.SUSPENDED, self.waiting_slots)):
                suspended = slot is Slot.SUSPENDED
                while self.takes_jobs and self._count(slot) < size:
                    job = self._queue.next(self._context.holder, TTL_SECONDS, suspended=suspended)
                    if job is None:
                        break
                    running = RunningJob(job, slot, self._context.progress, self._context.clock)
                    with self._lock:
                        self._running.add(running)
                    self._threads.submit(self._run, running)
        except XmodeError as error:
            self._outages.report(error)
        except Exception:  # noqa: BLE001 - a defect here must not end the fetching for good
            telemetry.exception(Event.DEFECT)

    @property
    def takes_jobs(self) -> bool:
        return not self._stopping and self._outages.current is None

    @property
    def outage(self) -> Failure | None:
        return self._outages.current

    @property
    def busy(self) -> int:
        """Number of regular slots in use."""
        return self._count(Slot.REGULAR)

    @property
    def waiting(self) -> int:
        """Number of jobs outside regular slots: of suspended customers, and stalled ones."""
        return self._count(Slot.SUSPENDED, Slot.STALLED)

    @property
    def running(self) -> int:
        return self._count(*Slot)

    def _count(self, *slots: Slot) -> int:
        with self._lock:
            return sum(running.slot in slots for running in self._running)

    def _run(self, running: RunningJob) -> None:
        try:
            self._prepare(running)
            with kept(self._context.ledger, running.job.lease, lost=running.stop.set):
                result = self._deliver(running)
            try:
                self._done(running.job, result)
            except LedgerError as error:
                with self._lock:
                    self._late.append((running.job, result))
                self._outages.report(error)
        except XmodeError as error:  # the ledger, outside a job
            self._outages.report(error)
        except Exception:  # noqa: BLE001 - a defect ends this job, not the worker
            telemetry.exception(Event.DEFECT, customer=running.customer)
        finally:
            with self._lock:
                self._running.discard(running)
                self._lock.notify_all()
            self.wake()

    def _prepare(self, running: RunningJob) -> None:
        """Reuse the cached backlog if this worker ran the customer's last job, else scan again."""
        job, name = running.job, running.customer
        with self._lock:
            followed = self._ended.pop(name, None)
            moved = name in self._moved
            self._moved.discard(name)
            for other in self._running:
                if other is not running and other.customer == name:
                    other.stop.set()  # frozen for so long that the job was reassigned
            if self._context.stop.is_set():
                running.stop.set()  # stopped since the job was taken
        if followed is None or followed != job.follows or job.skip_backoff or not self._catches_up(name):
            self._jobs.rescan(name, None if moved else job.reread_at)

    def _deliver(self, running: RunningJob) -> JobResult:
        """Run the job and return its result, whatever it raises."""
        name, clock = running.customer, self._context.clock
        try:
            if self._is_held(name):
                telemetry.log(Event.JOB_HELD, customer=name)
                return JobResult(next_at=clock.now())
            return self._jobs.do(running, partial(self._queue.delivers, running.job))
        except (VendorIdentityError, LedgerError) as error:
            self._outages.report(error)
            return JobResult(again=True)  # queued again, and run after the outage
        except XmodeError as error:
            telemetry.warn(Event.JOB_FAILED, customer=name, **error.log_context())
            if isinstance(error, ConfigError):
                return JobResult()
            reason = error.message  # a lease that was taken over: its new holder continues
        except Exception as error:  # noqa: BLE001 - a defect ends this customer's job, not the worker
            telemetry.exception(Event.DEFECT, customer=name)
            reason = f"{type(error).__name__}: {error}"
        return JobResult(next_at=self._context.backoff.next_attempt_at(None, clock.now()), reason=reason)

    def _catches_up(self, name: str) -> bool:
        """Otherwise a daemon may have skipped periods since the last scan."""
        customer = self.configuration.customers.get(name)
        return customer is None or customer.catch_up is CatchUp.ALL

    def _is_held(self, name: str) -> bool:
        """Return True if a daemon has yet to decide which periods to skip: the customer was queued before a
        downtime that still lasts. The next daemon to tick enqueues the customer again."""
        if self._catches_up(name):
            return False
        ticked = self._context.ledger.daemons.newest(1)
        return bool(ticked) and outage(ticked[0].ticked_at, self._context.clock.now()) is not None

    def _done(self, job: Job, result: JobResult) -> None:
        name = job.customer
        try:
            self._queue.done(job, result)
        except LeaseLost:  # its new holder continues
            telemetry.log(Event.LEASE_LOST, lease=job.lease.name)
            return
        forgotten: list[str] = []
        with self._lock:
            if sum(running.customer == name for running in self._running) > 1:
                forgotten.append(name)  # a thread that lost its job still runs: its cache is stale
            else:
                self._ended[name] = job.lease.generation
            while len(self._ended) > _REMEMBERED:
                forgotten.append(next(iter(self._ended)))
                del self._ended[forgotten[-1]]
        for old in forgotten:
            self._jobs.forget(old)

    def _end_late(self) -> None:
        with self._lock:
            late, self._late = self._late, []
        while late:
            try:
                self._done(*late[-1])
            except LedgerError as error:
                with self._lock:
                    self._late += late
                self._outages.report(error)
                return
            late.pop()

    def attend(self) -> None:
        """Call about once a second, also while stopping. Raises nothing."""
        now = self._context.clock.monotonic()
        self._make_room(now)
        try:
            if now - self._recovery_checked >= _RECOVERY_SECONDS:
                self._recovery_checked = now
                self._outages.recover()
            if now - self._heartbeat_at >= HEARTBEAT_SECONDS:
                self._heartbeat_at = now
                self._heartbeat()
            if now - self._reaped >= REAP_SECONDS:
                self._reaped = now
                report_taken_over(self._queue.reap())
        except XmodeError as error:
            self._outages.report(error)

    def _make_room(self, now: float) -> None:
        """Move stalled jobs out of regular slots; stop jobs that used up their share while others wait."""
        settings = self.configuration.service
        freed: list[str] = []
        with self._lock:
            stalled = sum(running.slot is Slot.STALLED for running in self._running)
            for running in self._running:
                if (
                    running.slot is Slot.REGULAR
                    and now - running.moved_at > STALLED_SECONDS
                    and stalled < self.waiting_slots
                ):
                    running.slot = Slot.STALLED
                    stalled += 1
                    freed.append(running.customer)
                elif self._fleet.queued > 0 and (
                    now - running.began_at > settings.daemon.turn_seconds
                    or running.sent_bytes >= settings.cluster.turn_bytes
                ):
                    running.stop.set()
        for customer in freed:
            telemetry.debug(Event.JOB_STALLED, customer=customer)
            self.wake()

    def _heartbeat(self, stopped_at: datetime | None = None) -> None:
        outage = self._outages.current
        self._fleet = fleet = self._queue.beat(
            WorkerRecord(
                holder=self._context.holder,
                started_at=self._started_at,
                seen_at=self._context.clock.now(),
                places=self.slots,
                busy=self.busy,
                waiting=self.waiting,
                stopping=self._stopping,
                stopped_at=stopped_at,
                version=self._version,
                trouble=outage.message if outage is not None else "",
            )
        )
        self._stop_jobs(lambda running: running.customer in fleet.to_stop)
        self._on_heartbeat(fleet)

    def _stop_jobs(self, which: Callable[[RunningJob], bool]) -> None:
        with self._lock:
            for running in filter(which, self._running):
                running.stop.set()

    def reload(self, read: Read) -> None:
        """Raise nothing. Retrying suspended customers is left to the daemon."""
        self.use(read_again(self._active, read, self._context.clock.now()))

    def use(self, active: ActiveConfiguration) -> None:
        """Apply a configuration. Jobs to a changed destination stop where they can be resumed."""
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
        return self._active.configuration

    # --- The end: stop, drain, break_off and drain again where that was not enough, close ---

    def stop(self) -> None:
        """Running jobs continue."""
        self._stopping = True
        self.wake()

    def drain(self, seconds: float) -> bool:
        """Wait for running jobs and attend to them; return True if all ended."""
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
        """Stop running jobs where they can be resumed."""
        self._context.stop.set()
        self._stop_jobs(lambda _: True)

    def close(self) -> None:
        """Record the shutdown in the ledger. Raises nothing: a worker without a ledger ends all the same."""
        self._stopping = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        try:
            self._end_late()
            self._heartbeat(stopped_at=self._context.clock.now())
        except XmodeError as error:
            telemetry.warn(Event.SHUTDOWN_NOT_RECORDED, **error.log_context())
