"""The worker process: start, attend to its jobs, drain, end.

One thread does everything that may wait for the ledger, beside the worker's own fetching thread. Signal
handlers only put events into the inbox.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import Empty

from pydantic import ValidationError

from xmode_transfer import telemetry
from xmode_transfer.config import Service, StatusPage
from xmode_transfer.config import files as config_files
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.service import assembly, cluster, lifecycle
from xmode_transfer.service.active_configuration import FileWatch
from xmode_transfer.service.lifecycle import Inbox, Liveness, Wake, begin_when_there, end, last_resort
from xmode_transfer.service.worker import Worker
from xmode_transfer.telemetry import Event, SystemClock
from xmode_transfer.web.metrics import Counters, of_process

_ATTEND_SECONDS = 1.0


def run(
    directory: Path,
    slots: int | None = None,
    heartbeat_file: Path | None = None,
    metrics: str | None = None,
) -> int:
    """Run until asked to stop; return the exit code. Waits at start for an unreachable database server.

    ``slots`` overrides the configuration. ``heartbeat_file`` is touched while this thread makes progress.
    ``metrics`` is the address and port of /metrics, /healthz and /readyz.

    Raises ConfigError when service.yaml is unusable or for one machine only, or its ledger does not exist or
    refuses access; AlreadyRunning beside a daemon that runs all jobs itself; LedgerError."""
    with Inbox() as inbox:
        listener = None
        if metrics is not None:
            listener = _listener(config_files.load(directory).service, metrics)
        counters, clock = Counters(), SystemClock()
        liveness = Liveness(clock, heartbeat_file)
        readiness = _Readiness()
        with closing(liveness), _measured(listener, counters, liveness, readiness):
            return begin_when_there(
                lambda: _begun(directory, slots, inbox, counters, liveness, readiness),
                lambda begun: begun.live(),
                clock,
                inbox.ending,
                Event.WORKER_STOPPED,
                waits=lambda: nullcontext(),
                still=liveness.gets_on,
            )


class _Readiness:
    """The reason why the worker takes no jobs, for the readiness probe."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    def __call__(self) -> str | None:
        worker = self.worker
        if worker is None:
            return "waiting for the ledger"
        if worker.outage is not None:
            return worker.outage.cause
        return None if worker.takes_jobs else "stopping"


@contextmanager
def _begun(
    directory: Path,
    slots: int | None,
    inbox: Inbox,
    counters: Counters,
    liveness: Liveness,
    readiness: _Readiness,
) -> Iterator["_Life"]:
    """Open everything that the worker needs before its first job."""
    read_at = SystemClock().now()
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
        readiness.worker = worker
        yield _Life(directory, read_at, worker, inbox, liveness)


def _listener(service: Service, metrics: str) -> StatusPage:
    """Return the status page's settings with the worker's own address. Raises ConfigError."""
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


@contextmanager
def _measured(
    listener: StatusPage | None, counters: Counters, liveness: Liveness, readiness: _Readiness
) -> Iterator[None]:
    """Serve /metrics, /healthz and /readyz while the worker runs. Raises ConfigError."""
    if listener is None:
        yield
        return
    from xmode_transfer.web.server import serve_metrics  # slow to import

    server = serve_metrics(listener, of_process(counters), lambda: liveness.silent_seconds, readiness)
    try:
        yield
    finally:
        server.close()


class _Life:
    """The worker from its first job to its last."""

    def __init__(
        self, directory: Path, read_at: datetime, worker: Worker, inbox: Inbox, liveness: Liveness
    ) -> None:
        self._directory = directory
        self._read_at = read_at
        self._worker = worker
        self._inbox = inbox
        self._liveness = liveness

    def live(self) -> int:
        last_resort(self._inbox.ending, self._drain_seconds, Event.WORKER_STOPPED)
        files = FileWatch(
            self._directory, self._read_at, lambda: self._inbox.put(Wake.FILES), self._not_watched
        )
        try:
            configuration = self._worker.configuration
            telemetry.log(
                Event.WORKER_STARTED,
                version=version("xmode-transfer"),
                customers=len(configuration.customers),
                places=self._worker.slots,
                configuration_problems=list(map(str, configuration.problems)),
            )
            self._worker.start()
            lifecycle.ready(self._status())
            self._work()
        finally:
            self._worker.stop()
            files.close()
            self._liveness.close()
        return self._end()

    def _work(self) -> None:
        while True:
            try:
                wake, _ = self._inbox.get(_ATTEND_SECONDS)
            except Empty:
                wake = Wake.NOTHING
            if wake is Wake.STOP:
                return
            if wake in (Wake.FILES, Wake.RELOAD):
                lifecycle.reloading()
                self._worker.reload(partial(config_files.read_directory, self._directory))
                lifecycle.ready(self._status())
            self._worker.attend()
            self._liveness.gets_on()
            lifecycle.status(self._status())

    def _not_watched(self, reason: str) -> None:
        telemetry.warn(Event.CONFIGURATION_NOT_WATCHED, message=reason)

    def _status(self) -> str:
        """One line for `systemctl status`."""
        worker = self._worker
        line = f"{worker.busy} of {worker.slots} slots in use, {worker.waiting} jobs waiting"
        return line if worker.outage is None else f"stopped: {worker.outage.message}; {line}"

    def _drain_seconds(self) -> float:
        return self._worker.configuration.service.daemon.drain_seconds

    def _end(self) -> int:
        worker, seconds = self._worker, self._drain_seconds()
        running = worker.busy + worker.waiting
        telemetry.log(Event.WORKER_STOPPING, running=running, drain_seconds=seconds)
        return end(worker, seconds, Event.WORKER_STOPPED, lambda _: True)
