"""Cleanups, access checks and recalls, run by one daemon beside deliveries, and outages, which stop all
customers."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from xmode_transfer import telemetry
from xmode_transfer.access.check_access import check_access
from xmode_transfer.aws.probing import Prober
from xmode_transfer.config import Configuration, CustomerState
from xmode_transfer.config.times import Work
from xmode_transfer.delivery import judging
from xmode_transfer.model.errors import (
    AlreadyRunning,
    ConfigError,
    LeaseLost,
    LedgerError,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.findings import AccessReport
from xmode_transfer.model.process import longest_silence
from xmode_transfer.model.recall import UNFINISHED, RecallProgress
from xmode_transfer.model.records import Failure, Lease
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import TTL_SECONDS, Context
from xmode_transfer.transfer.sending import failure_of
from xmode_transfer.upkeep.cleanup import cleanup
from xmode_transfer.upkeep.recall import carry_out

WORKERS = 2
BY = "daemon"  # the person in the record of operations
_LEASE = "maintenance"
_Piece = tuple[str, Work]


class Maintenance:
    """Runs cleanups, access checks and recalls in two threads, each customer once per kind of work.
    Thread-safe."""

    def __init__(
        self,
        context: Context,
        prober: Prober,
        configuration: Callable[[], Configuration],
        *,
        served: Callable[[str, Work, datetime], None],
        checked: Callable[[AccessReport], None],
        recalled: Callable[[], None],
        on_outage: Callable[[XmodeError], object],
    ) -> None:
        """``served`` is called when a scheduled time was served, ``recalled`` when a recall was continued,
        ``on_outage`` with errors that affect all customers."""
        self._context = context
        self._prober = prober
        self._configuration = configuration
        self._served = served
        self._checked = checked
        self._recalled = recalled
        self._on_outage = on_outage
        self._lock = threading.Condition()
        self._wanted: dict[_Piece, datetime | None] = {}
        self._running: set[_Piece] = set()
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="maintenance")
        self._stopped = False

    def ask(self, name: str, work: Work, due_at: datetime | None = None) -> None:
        """Enqueue work, unless it is queued. ``due_at`` is the scheduled time that it serves, if any."""
        job = (name, work)
        with self._lock:
            if self._stopped or job in self._running:
                return
            if job not in self._wanted:
                self._threads.submit(self._run, name, work)
            self._wanted[job] = due_at or self._wanted.get(job)

    def stop(self) -> None:
        """Running work ends by the context's ``stop``."""
        with self._lock:
            self._stopped = True
            self._wanted.clear()

    def wait(self, seconds: float) -> bool:
        """Return True if no work is left."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._running and not self._wanted, seconds)

    def _run(self, name: str, work: Work) -> None:
        job = (name, work)
        with self._lock:
            if job not in self._wanted:
                return  # stopped
            due_at = self._wanted.pop(job)
            self._running.add(job)
        try:
            self._do(name, work)
            if due_at is not None:
                self._served(name, work, due_at)
        except (VendorIdentityError, LedgerError) as error:
            self._on_outage(error)  # the scheduled time stays due and is retried
        except (ConfigError, LeaseLost) as error:  # it was removed or is invalid; or another daemon goes on
            telemetry.warn(Event.MAINTENANCE_FAILED, customer=name, work=str(work), **error.log_context())
        except Exception:  # noqa: BLE001 - a defect ends this piece of work, not the daemon
            telemetry.exception(Event.DEFECT, customer=name, work=str(work))
            if due_at is not None:
                self._served(name, work, due_at)  # retry at the next scheduled time
        finally:
            with self._lock:
                self._running.discard(job)
                self._lock.notify_all()

    def _do(self, name: str, work: Work) -> None:
        configuration = self._configuration()
        if work is Work.RECALL:
            for item in due_recalls(self._context, name):
                if not self._context.stop.is_set():
                    may_send = partial(judging.may_send, self._context, name)
                    carry_out(self._context, configuration, item.recall, name, may_send=may_send)
                    self._recalled()
            return
        customer = configuration.customers.get(name)
        if customer is None or customer.state is CustomerState.RETIRED or self._context.stop.is_set():
            return
        if work is Work.CLEANUP:
            cleanup(self._context, configuration, name, by=BY)
        else:
            self._checked(check_access(self._context, self._prober, customer))


COMMAND_LEASE = "recall-command/"
"""The lease of a command that carries out a recall, with its ID: it does the customers one by one."""


def due_recalls(context: Context, customer: str | None = None) -> list[RecallProgress]:
    """Return what is due of recalls that no command carries out."""
    unfinished = context.ledger.recalls.progress(customer=customer, states=UNFINISHED)
    due = [item for item in unfinished if item.is_due(context.clock.now())]
    busy = {lease.name for lease in context.ledger.leases.held(COMMAND_LEASE)} if due else set()
    return [item for item in due if f"{COMMAND_LEASE}{item.recall}" not in busy]


class MaintenanceLease:
    """The lease of the daemon that runs maintenance. A daemon that stops ticking loses it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lease: Lease | None = None

    def keep(self, tick_seconds: int) -> bool:
        """Renew or claim the lease; return True if this daemon holds it."""
        ledger = self._context.ledger
        ttl_seconds = max(TTL_SECONDS, longest_silence(tick_seconds) / timedelta(seconds=1))
        if self._lease is not None:
            try:
                self._lease = ledger.leases.renew(self._lease, ttl_seconds)
                return True
            except LeaseLost:
                self._lease = None
        try:
            self._lease = ledger.leases.claim(_LEASE, self._context.holder, ttl_seconds)
        except AlreadyRunning:
            return False
        telemetry.log(Event.MAINTENANCE_ELECTED)
        return True

    def give_back(self) -> None:
        if self._lease is not None:
            self._context.ledger.leases.release(self._lease)
            self._lease = None


class Outages:
    """Logs an outage once instead of once per customer. Any thread may call ``report``; one thread calls
    ``recover``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.began: list[Callable[[], None]] = []
        self.ended: list[Callable[[], None]] = []
        """These callbacks run after ``current`` is cleared."""
        self._lock = threading.RLock()
        self._current: Failure | None = None

    @property
    def current(self) -> Failure | None:
        return self._current

    def report(self, error: XmodeError) -> bool:
        """Record an outage; return True if it is new."""
        with self._lock:
            if self._current is not None:
                return False
            if isinstance(error, VendorIdentityError):
                with suppress(XmodeError):
                    self._context.sessions.verify_identity()
                    return False  # the keys were replaced meanwhile, and the new ones are in use now
            self._begin(error)
        for notify in self.began:
            notify()
        return True

    def recover(self) -> None:
        """Check whether the outage, if any, is over."""
        outage = self._current
        if outage is None:
            return
        try:
            self._context.ledger.prove_writable()
            self._context.sessions.verify_identity()
        except XmodeError as error:
            if error.code != outage.cause:
                self._begin(error)
            return
        self._current = None
        telemetry.log(Event.OUTAGE_RECOVERED, cause=outage.cause)
        for notify in self.ended:
            notify()

    def _begin(self, error: XmodeError) -> None:
        self._current = failure_of(error)
        telemetry.error(Event.OUTAGE_BEGAN, **error.log_context())
