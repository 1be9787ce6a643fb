"""The daemon process: start, handle events, drain, end. It runs the jobs itself, or leaves them to the
workers of a fleet.

One thread handles every event: the clock, a signal, a changed file. Signal handlers and the other threads
only put events into its inbox.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import Empty

from xmode_transfer import telemetry
from xmode_transfer.alerting.notifying import Notices
from xmode_transfer.alerting.watch import assess_all, open_causes
from xmode_transfer.config import Configuration
from xmode_transfer.config import files as config_files
from xmode_transfer.config.times import Times, times_of
from xmode_transfer.model.errors import LeaseLost, XmodeError
from xmode_transfer.model.jobs import JobState, WorkQueue
from xmode_transfer.model.records import Lease
from xmode_transfer.service import assembly, cluster, lifecycle
from xmode_transfer.service.active_configuration import FileWatch
from xmode_transfer.service.daemon import Daemon
from xmode_transfer.service.lifecycle import Inbox, Wake, begin_when_there, end, last_resort
from xmode_transfer.service.local_queue import LocalQueue
from xmode_transfer.service.scheduler import Ticker
from xmode_transfer.telemetry import Event, SystemClock
from xmode_transfer.transfer.context import Context
from xmode_transfer.web.metrics import Counters, renderer

_ATTEND_SECONDS = 1.0
_RECOVERY_SECONDS = 5.0
_WATCH_SECONDS = 2.0
"""Health is also computed when something changes, but not more often than this."""
_LATE_SECONDS = 10.0
"""If a tick is later than this, the wall clock was set back and APScheduler waits for it."""


class Engine(StrEnum):
    """Where jobs run."""

    THREADS = "threads"  # this process
    PROCRASTINATE = "procrastinate"  # `xmode-transfer worker`, on any number of machines


def run(directory: Path, engine: Engine = Engine.THREADS) -> int:
    """Run until asked to stop; return the exit code. Waits at start for an unreachable database server.

    Raises ConfigError when service.yaml is unusable, or its ledger does not exist or refuses access;
    AlreadyRunning when the other engine serves the same ledger; LedgerError."""
    with Inbox() as inbox:
        return begin_when_there(
            lambda: _begun(directory, engine, inbox),
            lambda begun: begun.live(),
            SystemClock(),
            inbox.ending,
            Event.DAEMON_STOPPED,
            waits=lambda: _waiting_page(directory),
        )


@contextmanager
def _begun(directory: Path, engine: Engine, inbox: Inbox) -> Iterator["_Life"]:
    """Open everything that the daemon needs before its first tick."""
    read_at = SystemClock().now()
    configuration = config_files.load(directory)
    if engine is Engine.PROCRASTINATE:
        cluster.check(configuration.service)
    counters = Counters()
    with (
        assembly.context(configuration, counters, ending=inbox.ending, waits=False) as context,
        _lease(context, engine) as lease,
    ):
        alone = engine is Engine.THREADS
        queue = _queue(context, configuration, alone=alone)
        daemon = Daemon(
            context,
            assembly.prober(context),
            configuration,
            partial(config_files.read_directory, directory),
            lease,
            queue,
            alone=alone,
            changed=partial(inbox.put, Wake.HEALTH),
        )
        metrics = renderer(
            lambda: assess_all(daemon.configuration, context.ledger, context.clock),
            context.clock,
            daemon,
            counters,
            lambda: open_causes(context.ledger),
            None if alone else queue,
        )
        yield _Life(directory, read_at, context, daemon, inbox, metrics)


@contextmanager
def _waiting_page(directory: Path) -> Iterator[None]:
    """Serve the page's probes while the ledger is unreachable."""
    settings = config_files.load(directory).service.status_page
    if settings is None:
        yield
        return
    from xmode_transfer.web.server import serve_waiting

    server = serve_waiting(settings)
    try:
        yield
    finally:
        server.close()


def _queue(context: Context, configuration: Configuration, *, alone: bool) -> WorkQueue:
    if alone:
        return LocalQueue(context.clock, context.ledger.leases, context.ledger.daemons.serve)
    return cluster.queue(configuration.service, context.ledger)


def _lease(context: Context, engine: Engine) -> AbstractContextManager[Lease]:
    """Hold the lease of the only daemon, or of one of several schedulers."""
    return assembly.alone(context) if engine is Engine.THREADS else assembly.of_many(context, "daemon")


@contextmanager
def _page(context: Context, daemon: Daemon, metrics: Callable[[], bytes]) -> Iterator[None]:
    """Serve the status page while the daemon runs."""
    settings = daemon.configuration.service.status_page
    if settings is None:
        yield
        return
    from xmode_transfer.web.server import serve  # slow to import

    page = serve(settings, context.ledger, context.clock, lambda: daemon.configuration, daemon, metrics)
    try:
        yield
    finally:
        page.close()


class _Life:
    """The daemon from its first tick to its last."""

    def __init__(
        self,
        directory: Path,
        read_at: datetime,
        context: Context,
        daemon: Daemon,
        inbox: Inbox,
        metrics: Callable[[], bytes],
    ) -> None:
        self._directory = directory
        self._read_at = read_at
        self._context = context
        self._daemon = daemon
        self._inbox = inbox
        self._metrics = metrics
        self._ticker = Ticker()
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._watching = False
        self._watch_due = False
        self._watched = -_WATCH_SECONDS
        self._watch = assembly.watch(context.ledger, context.clock)
        self._notices = Notices(context)
        self._ticked = context.clock.monotonic()
        self._recovery_checked = self._ticked
        self._tick_seconds = 0
        self._health: Times | None = None

    def live(self) -> int:
        with _page(self._context, self._daemon, self._metrics):
            return self._live()

    def _live(self) -> int:
        last_resort(self._inbox.ending, self._drain_seconds, Event.DAEMON_STOPPED)
        files = FileWatch(
            self._directory, self._read_at, lambda: self._inbox.put(Wake.FILES), self._not_watched
        )
        try:
            self._arm()
            configuration = self._daemon.configuration
            telemetry.log(
                Event.DAEMON_STARTED,
                version=version("xmode-transfer"),
                customers=len(configuration.customers),
                workers=configuration.service.daemon.workers,
                configuration_problems=list(map(str, configuration.problems)),
            )
            self._daemon.start()
            lifecycle.ready(self._status())
            self._work()
        finally:
            files.close()
            self._ticker.close()
            self._watcher.shutdown(wait=False, cancel_futures=True)
        return self._end()

    # --- Working -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            try:
                wake, name = self._inbox.get(_ATTEND_SECONDS)
            except Empty:
                wake, name = Wake.NOTHING, ""
            if wake is Wake.STOP:
                return
            try:
                self._answer(wake, name)
                self._attend()
            except LeaseLost:
                raise
            except XmodeError as error:  # the ledger; the next tick recovers, or logs it again
                telemetry.error(Event.TICK_FAILED, **error.log_context())

    def _answer(self, wake: Wake, name: str) -> None:
        if wake is Wake.TICK:
            self._tick()
        elif wake is Wake.CUSTOMER:
            self._daemon.wake(name)
        elif wake is Wake.HEALTH:
            self._watch_due = True
        elif wake in (Wake.FILES, Wake.RELOAD):
            self._reload(skip_backoff=wake is Wake.RELOAD)

    def _tick(self) -> None:
        self._ticked = self._context.clock.monotonic()
        if self._daemon.tick():
            lifecycle.watchdog()
        lifecycle.status(self._status())

    def _attend(self) -> None:
        now = self._context.clock.monotonic()
        self._daemon.attend()
        if now - self._recovery_checked > _RECOVERY_SECONDS:
            self._recovery_checked = now
            self._daemon.recover()
        if not self._watching and self._watch.beat_is_due:
            self._watch_due = True
        if self._watch_due and not self._watching and now - self._watched >= _WATCH_SECONDS:
            self._begin_watch(now)
        if now - self._ticked > self._tick_seconds + _LATE_SECONDS:
            telemetry.warn(Event.CLOCK_SET_BACK)
            self._ticked = now
            self._ticker.reset()
            self._tick()

    def _reload(self, *, skip_backoff: bool) -> None:
        lifecycle.reloading()
        self._daemon.reload(skip_backoff=skip_backoff)
        self._arm()
        lifecycle.ready(self._status())

    def _arm(self) -> None:
        """Set the timers from the configuration in use."""
        configuration = self._daemon.configuration
        settings = configuration.service.daemon
        if settings.tick_seconds != self._tick_seconds:
            self._tick_seconds = settings.tick_seconds
            self._ticker.every("tick", settings.tick_seconds, lambda: self._inbox.put(Wake.TICK))
        health = Times(settings.health.cron, settings.health.timezone)
        if health != self._health:
            self._health = health
            self._ticker.at("health", health, lambda: self._inbox.put(Wake.HEALTH))
            self._inbox.put(Wake.HEALTH)  # report at once what the last daemon left
        names = {"tick", "health"}
        for name, times in _own_times(configuration):
            names.add(f"customer {name}")
            self._ticker.at(f"customer {name}", times, partial(self._inbox.put, Wake.CUSTOMER, name))
        self._ticker.keep(names)

    def _begin_watch(self, now: float) -> None:
        """Start a health check. Never two at once: alerts may be slow to send."""
        self._watch_due, self._watching, self._watched = False, True, now
        self._watcher.submit(self._watch_once)

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

    def _not_watched(self, reason: str) -> None:
        telemetry.warn(Event.CONFIGURATION_NOT_WATCHED, message=reason)

    def _status(self) -> str:
        """One line for `systemctl status`."""
        jobs = self._daemon.jobs()
        counts = {state: sum(entry.state is state for entry in jobs) for state in JobState}
        line = f"{len(jobs)} customers: " + ", ".join(
            f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count
        )
        if self._daemon.outage is not None:
            line = f"stopped: {self._daemon.outage.message}; {line}"
        problems = len(self._daemon.status().configuration_problems)
        return line + (f"; {problems} errors in the configuration" if problems else "")

    def _drain_seconds(self) -> float:
        return self._daemon.configuration.service.daemon.drain_seconds

    def _end(self) -> int:
        seconds = self._drain_seconds()
        telemetry.log(Event.DAEMON_STOPPING, running=self._daemon.status().busy, drain_seconds=seconds)
        return end(self._daemon, seconds, Event.DAEMON_STOPPED, self._notices.close)


def _own_times(configuration: Configuration) -> Iterator[tuple[str, Times]]:
    """Yield the schedules of customers: one may be due between two ticks."""
    spread = configuration.service.daemon.spread_seconds
    for name, customer in configuration.customers.items():
        if customer.schedule is not None and customer.state == "active":
            yield name, times_of(customer.schedule, name, spread)
