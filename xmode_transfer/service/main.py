"""The processes of `xmode-transfer daemon` and `xmode-transfer worker`: what they open, and how they handle
events. One thread of each handles all events, and does everything that may wait for the ledger."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from xmode_transfer import telemetry
from xmode_transfer.alerting import channels
from xmode_transfer.alerting.notifying import Notices
from xmode_transfer.alerting.watch import Watch, assess_all, open_causes
from xmode_transfer.config import Service, StatusPage
from xmode_transfer.config import files as config_files
from xmode_transfer.config.times import Times, times_of
from xmode_transfer.model.errors import ConfigError, LeaseLost, XmodeError
from xmode_transfer.model.jobs import JobState
from xmode_transfer.service import assembly, cluster, lifecycle
from xmode_transfer.service.daemon import Daemon
from xmode_transfer.service.lifecycle import Inbox, Liveness, Process, Wake
from xmode_transfer.service.local_queue import LocalQueue
from xmode_transfer.service.scheduler import Ticker
from xmode_transfer.service.worker import Worker
from xmode_transfer.telemetry import Event, SystemClock
from xmode_transfer.transfer.context import Context
from xmode_transfer.web.metrics import Counters, of_process, renderer

_RECOVERY_SECONDS = 5.0
_WATCH_SECONDS = 2.0  # health is also computed when something changes, but not more often than this
_LATE_SECONDS = 10.0  # if a tick is later, the wall clock was set back and APScheduler waits for it


def run_daemon(directory: Path, *, alone: bool) -> int:
    """Run until asked to stop; return the exit code. A daemon that is ``alone`` runs the jobs itself; others
    leave them to workers. Raises ConfigError, AlreadyRunning and LedgerError."""
    with Inbox() as inbox:
        return Process.run(
            lambda: _begin_daemon(directory, inbox, alone=alone),
            SystemClock(),
            inbox,
            Event.DAEMON_STOPPED,
            waits=lambda: _waiting_page(directory),
        )


@contextmanager
def _begin_daemon(directory: Path, inbox: Inbox, *, alone: bool) -> Iterator["DaemonProcess"]:
    read_at = SystemClock().now()
    configuration = config_files.load(directory)
    service = configuration.service
    if not alone:
        cluster.check(service)
    counters = Counters()
    with (
        assembly.context(configuration, counters, ending=inbox.ending, waits=False) as context,
        assembly.alone(context) if alone else assembly.of_many(context, "daemon") as lease,
    ):
        ledger, clock = context.ledger, context.clock
        daemon = Daemon(
            context,
            assembly.prober(context),
            configuration,
            partial(config_files.read_directory, directory),
            lease,
            LocalQueue(clock, ledger.leases, ledger.daemons.serve)
            if alone
            else cluster.queue(service, ledger),
            alone=alone,
            changed=partial(inbox.put, Wake.HEALTH),
        )
        metrics = renderer(
            lambda: assess_all(daemon.configuration, ledger, clock),
            clock,
            daemon,
            counters,
            lambda: open_causes(ledger),
            None if alone else ledger.queue,
        )
        yield DaemonProcess(directory, read_at, inbox, daemon, context, metrics)


def _waiting_page(directory: Path) -> AbstractContextManager[object]:
    settings = config_files.load(directory).service.status_page
    if settings is None:
        return nullcontext()
    from xmode_transfer.web.server import serve_waiting

    return closing(serve_waiting(settings))


class DaemonProcess(Process):
    """The daemon, with its timers, health checks and status page."""

    started, stopping, stopped = Event.DAEMON_STARTED, Event.DAEMON_STOPPING, Event.DAEMON_STOPPED

    def __init__(
        self,
        directory: Path,
        read_at: datetime,
        inbox: Inbox,
        daemon: Daemon,
        context: Context,
        metrics: Callable[[], bytes],
    ) -> None:
        super().__init__(directory, read_at, inbox, daemon)
        self._daemon = daemon
        self._context = context
        self._metrics = metrics
        self._ticker = Ticker()
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._watching = False
        self._watch_due = False
        self._watched = -_WATCH_SECONDS
        self._watch = Watch(context.ledger, context.clock, context.holder, channels.send, channels.beat)
        self._notices = Notices(context)
        self._ticked = self._recovery_checked = context.clock.monotonic()
        self._tick_seconds = 0
        self._health: Times | None = None

    def live(self) -> int:
        daemon, ledger, clock = self._daemon, self._context.ledger, self._context.clock
        page: AbstractContextManager[object] = nullcontext()
        settings = daemon.configuration.service.status_page
        if settings is not None:
            from xmode_transfer.web.server import serve  # slow to import

            page = closing(
                serve(settings, ledger, clock, lambda: daemon.configuration, daemon, self._metrics)
            )
        with page:
            self._arm()
            return super().live()

    def status(self) -> str:
        jobs, status = self._daemon.jobs(), self._daemon.status()
        counts = {state: sum(entry.state is state for entry in jobs) for state in JobState}
        line = f"{len(jobs)} customers: " + ", ".join(
            f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count
        )
        if status.trouble is not None:
            line = f"stopped: {status.trouble.message}; {line}"
        problems = len(status.configuration_problems)
        return line + (f"; {problems} errors in the configuration" if problems else "")

    def handle(self, wake: Wake, name: str) -> None:
        try:
            if wake is Wake.TICK:
                self._tick()
            elif wake is Wake.CUSTOMER:
                self._daemon.wake(name)
            elif wake is Wake.HEALTH:
                self._watch_due = True
            elif wake in (Wake.FILES, Wake.RELOAD):
                self._daemon.reload(skip_backoff=wake is Wake.RELOAD)
                self._arm()
            self._attend()
        except LeaseLost:
            raise
        except XmodeError as error:  # the ledger; the next tick recovers, or logs it again
            telemetry.error(Event.TICK_FAILED, **error.log_context())

    def _tick(self) -> None:
        self._ticked = self._context.clock.monotonic()
        if self._daemon.tick():
            lifecycle.watchdog()
        lifecycle.status(self.status())

    def _attend(self) -> None:
        now = self._context.clock.monotonic()
        self._daemon.attend()
        if now - self._recovery_checked > _RECOVERY_SECONDS:
            self._recovery_checked = now
            self._daemon.recover()
        if not self._watching and self._watch.beat_is_due:
            self._watch_due = True
        if self._watch_due and not self._watching and now - self._watched >= _WATCH_SECONDS:
            # Never two at once: alerts may be slow to send.
            self._watch_due, self._watching, self._watched = False, True, now
            self._watcher.submit(self._watch_once)
        if now - self._ticked > self._tick_seconds + _LATE_SECONDS:
            telemetry.warn(Event.CLOCK_SET_BACK)
            self._ticker.reset()
            self._tick()

    def _arm(self) -> None:
        configuration = self._daemon.configuration
        settings = configuration.service.daemon
        if settings.tick_seconds != self._tick_seconds:
            self._tick_seconds = settings.tick_seconds
            self._ticker.every("tick", settings.tick_seconds, lambda: self.inbox.put(Wake.TICK))
        health = Times(settings.health.cron, settings.health.timezone)
        if health != self._health:
            self._health = health
            self._ticker.at("health", health, lambda: self.inbox.put(Wake.HEALTH))
            self.inbox.put(Wake.HEALTH)  # report at once what the last daemon left
        names = {"tick", "health"}
        for name, customer in configuration.customers.items():
            if customer.schedule is not None and customer.state == "active":
                times = times_of(customer.schedule, name, settings.spread_seconds)
                names.add(f"customer {name}")
                self._ticker.at(f"customer {name}", times, partial(self.inbox.put, Wake.CUSTOMER, name))
        self._ticker.keep(names)

    def _watch_once(self) -> None:
        try:
            configuration = self._daemon.configuration
            assessment = self._watch.run_once(configuration)
            if assessment is not None:
                self._notices.offer(configuration, assessment)
        except XmodeError as error:
            telemetry.error(Event.WATCH_FAILED, **error.log_context())
        except Exception:  # noqa: BLE001 - a defect must not stop health checks for good
            telemetry.exception(Event.DEFECT)
        finally:
            self._watching = False

    def close(self) -> None:
        self._ticker.close()
        self._watcher.shutdown(wait=False, cancel_futures=True)

    def wait_for_others(self, seconds: float) -> bool:
        return self._notices.close(seconds)


def run_worker(directory: Path, slots: int | None, heartbeat_file: Path | None, metrics: str | None) -> int:
    """Run until asked to stop; return the exit code. ``slots`` overrides the configuration;
    ``heartbeat_file`` is touched while the loop makes progress; ``metrics`` is the address and port of
    /metrics and the probes. Raises ConfigError, AlreadyRunning and LedgerError."""
    workers: list[Worker] = []  # as soon as it has begun

    def unready() -> str | None:
        if not workers:
            return "waiting for the ledger"
        if workers[0].outage is not None:
            return workers[0].outage.cause
        return None if workers[0].takes_jobs else "stopping"

    @contextmanager
    def begin() -> Iterator[WorkerProcess]:
        read_at = clock.now()
        configuration = config_files.load(directory)
        cluster.check(configuration.service)
        with (
            assembly.context(configuration, counters, ending=inbox.ending, waits=False) as context,
            assembly.of_many(context, "worker"),
        ):
            worker = Worker(
                context,
                cluster.queue(configuration.service, context.ledger),
                configuration,
                slots=slots,
                version=version("xmode-transfer"),
                on_heartbeat=lambda fleet: context.sessions.share_budget(fleet.workers),
            )
            workers.append(worker)
            yield WorkerProcess(directory, read_at, inbox, worker, liveness)

    counters, clock = Counters(), SystemClock()
    with Inbox() as inbox:
        settings = metrics and _listener(config_files.load(directory).service, metrics)
        with closing(Liveness(clock, heartbeat_file)) as liveness:
            server: AbstractContextManager[object] = nullcontext()
            if settings:
                from xmode_transfer.web.server import serve_metrics  # slow to import

                server = closing(
                    serve_metrics(settings, of_process(counters), lambda: liveness.silent_seconds, unready)
                )
            with server:
                return Process.run(
                    begin, clock, inbox, Event.WORKER_STOPPED, waits=nullcontext, still=liveness.progress
                )


def _listener(service: Service, metrics: str) -> StatusPage:
    """Return the status page's settings with the worker's own address."""
    page = service.status_page
    try:
        return StatusPage(
            listen=metrics,
            token=page.token if page is not None else None,
            hosts=page.hosts if page is not None else (),
        )
    except ValidationError as error:
        reasons = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise ConfigError(
            f"--metrics {metrics}: {reasons}",
            hint="Give an address and a port of this machine, such as 127.0.0.1:8322. "
            "An address that other machines can reach requires the page's token (`status_page.token`).",
        ) from None


class WorkerProcess(Process):
    """A worker of a fleet."""

    started, stopping, stopped = Event.WORKER_STARTED, Event.WORKER_STOPPING, Event.WORKER_STOPPED

    def __init__(
        self, directory: Path, read_at: datetime, inbox: Inbox, worker: Worker, liveness: Liveness
    ) -> None:
        super().__init__(directory, read_at, inbox, worker)
        self._worker = worker
        self._liveness = liveness

    def status(self) -> str:
        worker = self._worker
        line = f"{worker.busy} of {worker.slots} slots in use, {worker.waiting} jobs waiting"
        return line if worker.outage is None else f"stopped: {worker.outage.message}; {line}"

    def handle(self, wake: Wake, name: str) -> None:
        if wake in (Wake.FILES, Wake.RELOAD):
            self._worker.reload(partial(config_files.read_directory, self.directory))
        self._worker.attend()
        self._liveness.progress()
        lifecycle.status(self.status())

    def close(self) -> None:
        self._worker.stop()
        self._liveness.close()
