"""The daemon: enqueues the customers that are due, keeps track of suspended ones, and starts maintenance."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from xmode_transfer import telemetry
from xmode_transfer.aws.probing import Prober
from xmode_transfer.config import CatchUp, Configuration, CustomerState
from xmode_transfer.config.configuration import is_moved
from xmode_transfer.config.times import Outage, Work, outage, was_missed
from xmode_transfer.model.errors import LedgerError, VendorIdentityError
from xmode_transfer.model.findings import AccessReport
from xmode_transfer.model.jobs import JobState, QueueEntry, WorkQueue
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import Lease
from xmode_transfer.service.active_configuration import Read, loaded, read_again
from xmode_transfer.service.jobs import skip_missed
from xmode_transfer.service.maintenance import Maintenance, MaintenanceLease, Outages, due_recalls
from xmode_transfer.service.scheduler import Agenda, Scheduler, unfinished
from xmode_transfer.service.worker import Worker
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context


class Daemon:
    """Implements ``StatusView``, for any thread; one thread calls the rest."""

    def __init__(
        self,
        context: Context,
        prober: Prober,
        configuration: Configuration,
        read: Read,
        lease: Lease,
        queue: WorkQueue,
        *,
        alone: bool,
        changed: Callable[[], None],
    ) -> None:
        """A daemon that is ``alone`` has its own worker, which runs all jobs. ``changed`` is called, from any
        thread, when an input of health changes."""
        self._context = context
        self._read = read
        self._lease = lease
        self._changed = changed
        now = context.clock.now()
        self._active = loaded(configuration, now)
        self._outages = Outages(context)
        self._outages.began.append(changed)
        self._outages.ended.append(changed)
        self._stopping = False
        self._started_at = self._ticked_at = now
        self._ticked_before = self._last_tick()
        self._missed: dict[str, Outage] = {}
        self._serving: dict[str, datetime] = {}
        self._suspended: dict[str, bool] = {}  # by customer: True if it refused access
        self._agenda = Agenda(context.ledger.daemons.served())
        self._scheduler = Scheduler(context, queue, ended=self._job_ended, on_outage=self._outages.report)
        self._worker: Worker | None = None
        if alone:
            slots = configuration.service.daemon.workers
            self._worker = Worker(context, queue, configuration, slots=slots, outages=self._outages)
        self._maintenance_lease = None if alone else MaintenanceLease(context)
        self._noted_slots = self.slots
        self._does_maintenance = alone
        self._maintenance = Maintenance(
            context,
            prober,
            lambda: self.configuration,
            served=self._served,
            checked=self._checked,
            recalled=changed,
            on_outage=self._outages.report,
        )
        known = unfinished(context)
        self._suspended |= {entry.customer: entry.refused for entry in known if entry.reason}
        self._register(known)
        self._scheduler.attend()  # so that the first tick knows the customers

    def start(self) -> None:
        if self._worker is not None:
            self._worker.start()

    @property
    def configuration(self) -> Configuration:
        return self._active.configuration

    def tick(self) -> bool:
        """Enqueue every customer that is due. Return True if the ledger took the heartbeat. Raises LeaseLost
        when another daemon has taken over."""
        now = self._context.clock.now()
        gap = self._downtime(now)
        if gap is not None:
            telemetry.warn(Event.DOWNTIME_ENDED, began_at=gap.began_at, ended_at=gap.ended_at)
            for name, customer in self.configuration.customers.items():
                applies = customer.catch_up is not CatchUp.ALL and customer.state is CustomerState.ACTIVE
                if applies and was_missed(self._active.times(name, Work.DELIVER), gap):
                    self._missed.setdefault(name, gap)
        self._ticked_at = self._ticked_before = now
        try:
            if self._outages.current is None:
                self._catch_up()
        except (VendorIdentityError, LedgerError) as error:
            self._outages.report(error)
        try:
            self._note()
            if self._enqueues and self._maintenance_lease is not None:
                self._agenda.refresh(self._context.ledger.daemons.served())
                tick_seconds = self.configuration.service.daemon.tick_seconds
                self._does_maintenance = self._maintenance_lease.keep(tick_seconds)
        except LedgerError as error:
            self._outages.report(error)
            return False
        if not self._enqueues:
            return True
        self._continue_recalls()
        for name, customer in self.configuration.customers.items():
            if customer.state is CustomerState.RETIRED:
                continue
            self._maintain(name, Work.CHECK_ACCESS, now)
            if customer.state is CustomerState.ACTIVE:
                self._maintain(name, Work.CLEANUP, now)
                self._enqueue_if_due(name, now)
        return True

    @property
    def _enqueues(self) -> bool:
        return self._outages.current is None and not self._stopping

    def recover(self) -> None:
        """Check whether an outage, if any, is over."""
        self._outages.recover()

    def attend(self) -> None:
        """Attend to running jobs; call about once a second."""
        if self._worker is not None:
            self._worker.attend()
        self._scheduler.attend()
        if self._worker is not None:
            self._worker.wake()
        if self.slots != self._noted_slots and self._enqueues:  # workers started or died since the tick
            self._note_or_report()

    def wake(self, name: str) -> None:
        """Enqueue the customer if it is due."""
        if self._enqueues and name in self.configuration.customers:
            self._enqueue_if_due(name, self._context.clock.now())

    def _note(self, *, stopped_at: datetime | None = None) -> None:
        status = self.status()
        self._noted_slots = status.workers
        status = replace(status, ticked_at=stopped_at or status.ticked_at, stopped_at=stopped_at)
        self._context.ledger.daemons.note(self._lease, status)

    def _note_or_report(self) -> None:
        try:
            self._note()
        except LedgerError as error:
            self._outages.report(error)

    def _maintain(self, name: str, work: Work, now: datetime) -> None:
        times = self._active.times(name, work)
        if times is None or not self._does_maintenance:
            return
        if self._agenda.first_time(name, work):
            self._agenda.serve(name, work, times.last(now))  # it first runs at the next scheduled time
        due = self._agenda.due(name, work, times, now)
        if due is not None:
            self._maintenance.ask(name, work, due)

    def _continue_recalls(self) -> None:
        """Recalls concern retired and removed customers too."""
        if self._does_maintenance:
            try:
                for item in due_recalls(self._context):
                    self._maintenance.ask(item.customer, Work.RECALL)
            except LedgerError as error:
                self._outages.report(error)

    def _enqueue_if_due(self, name: str, now: datetime) -> None:
        entry = self._scheduler.entry(name)
        if entry is None or entry.state is JobState.RUNNING or name in self._missed:
            return
        may_retry = entry.next_at is not None and (entry.next_at <= now or entry.since_at > now)
        if entry.state is JobState.SUSPENDED:
            if may_retry:
                self._scheduler.enqueue(name)
            return
        times = self._active.times(name, Work.DELIVER)
        due = self._agenda.due(name, Work.DELIVER, times, now) if times is not None else None
        served = due is None or entry.reason or self._serving.get(name) == due
        if entry.state is JobState.QUEUED and served:
            return
        if due is not None:
            self._serving[name] = due
        if times is None or due is not None or may_retry:
            self._scheduler.enqueue(name, serving_at=due)

    def _last_tick(self) -> datetime | None:
        known = self._context.ledger.daemons.newest(1)
        return known[0].ticked_at if known else None

    def _downtime(self, now: datetime) -> Outage | None:
        gap = outage(self._ticked_before, now)
        if self._maintenance_lease is None or (gap is None and self._ticked_before is not None):
            return gap
        return outage(self._last_tick(), now)  # this daemon was away, but another may have ticked

    def _catch_up(self) -> None:
        """Apply ``catch_up`` to customers that were missed, before they are queued."""
        for name in list(self._missed):
            if name in self.configuration.customers:
                skip_missed(self._context, self.configuration, name)
            del self._missed[name]

    def _job_ended(self, end: QueueEntry) -> None:
        name = end.customer
        if end.looked:
            due = self._serving.pop(name, None)
            if due is not None:  # the worker has recorded it in the ledger
                self._agenda.serve(name, Work.DELIVER, due)
        known = name in self._suspended
        if end.reason:
            self._suspended[name] = end.refused or self._suspended.get(name, False)
            if known:
                return
            refused = end.refused
            telemetry.warn(
                Event.CUSTOMER_SUSPENDED,
                customer=name,
                feed=end.feed,
                period=end.period,
                message=end.reason,
                next_at=end.next_at,
            )
        elif known and (end.looked or end.again):
            refused = self._suspended.pop(name)
            telemetry.log(Event.CUSTOMER_RESUMED, customer=name)
        else:
            return
        self._changed()
        if refused and self._does_maintenance:  # the last check's findings are out of date
            self._maintenance.ask(name, Work.CHECK_ACCESS)

    def _served(self, name: str, work: Work, due: datetime) -> None:
        self._context.ledger.daemons.serve(name, str(work), due)
        self._agenda.serve(name, work, due)

    def _checked(self, report: AccessReport) -> None:
        """Retry a suspended customer at once when its access check passes."""
        entry = self._scheduler.entry(report.customer)
        if report.outcome == "ok" and entry is not None and entry.state is JobState.SUSPENDED:
            self._scheduler.enqueue(report.customer, skip_backoff=True)

    def reload(self, *, skip_backoff: bool = False) -> None:
        """Read the files again. ``skip_backoff`` retries suspended customers at once."""
        before = self._active
        self._active = read_again(before, self._read, self._context.clock.now())
        configuration = self._active.configuration
        self._note_or_report()  # health reads the problems from the ledger
        self._changed()
        if self._worker is not None:
            self._worker.use(self._active)
        for name in before.configuration.customers:
            if is_moved(before.configuration, configuration, name):
                self._scheduler.stop(name)
        self._register()
        for entry in self._scheduler.entries():
            old, new = (c.customers.get(entry.customer) for c in (before.configuration, configuration))
            if entry.state is JobState.SUSPENDED and (skip_backoff or old != new):
                self._scheduler.enqueue(entry.customer, skip_backoff=True)

    def _register(self, known: Sequence[QueueEntry] = ()) -> None:
        customers = self.configuration.customers.values()
        active = {c.name: c.weight for c in customers if c.state is CustomerState.ACTIVE}
        self._scheduler.register(active, known)

    def stop(self) -> None:
        """Start nothing more; running jobs continue."""
        self._stopping = True
        self._scheduler.close()
        if self._worker is not None:
            self._worker.stop()
        self._maintenance.stop()

    def drain(self, seconds: float) -> bool:
        """Wait for running work; return True if all of it ended."""
        began = self._context.clock.monotonic()
        ended = self._worker is None or self._worker.drain(seconds)
        left = seconds - (self._context.clock.monotonic() - began)
        return self._maintenance.wait(max(0.0, left)) and ended

    def break_off(self) -> None:
        """Stop running work where it can be resumed."""
        self._context.stop.set()
        if self._worker is not None:
            self._worker.break_off()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        if self._maintenance_lease is not None:
            self._maintenance_lease.give_back()
        self._note(stopped_at=self._context.clock.now())

    @property
    def slots(self) -> int:
        """Maximum number of concurrent jobs: its own, or those of all live workers of the fleet."""
        return self._scheduler.slots if self._worker is None else self._worker.slots

    @property
    def running(self) -> int:
        return self._scheduler.busy if self._worker is None else self._worker.running

    def jobs(self) -> Sequence[QueueEntry]:
        return [self._with_next_time(entry) for entry in self._scheduler.entries()]

    def _with_next_time(self, entry: QueueEntry) -> QueueEntry:
        if entry.state is not JobState.RESTING or entry.next_at is not None:
            return entry
        times = self._active.times(entry.customer, Work.DELIVER)
        if times is None:
            tick = timedelta(seconds=self.configuration.service.daemon.tick_seconds)
            return replace(entry, next_at=self._ticked_at + tick)
        next_at = self._agenda.next_time(entry.customer, Work.DELIVER) or times.next(self._ticked_at)
        return replace(entry, next_at=next_at)

    def status(self) -> DaemonRecord:
        active = self._active
        return DaemonRecord(
            holder=self._context.holder,
            started_at=self._started_at,
            ticked_at=self._ticked_at,
            tick_seconds=active.configuration.service.daemon.tick_seconds,
            workers=self.slots,
            busy=self.running,
            configuration_loaded_at=active.loaded_at,
            configuration_problems=active.problems,
            trouble=self._outages.current,
            stopping=self._stopping,
        )
