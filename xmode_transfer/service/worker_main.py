"""The worker's life: start, attend to its jobs, drain, end.

One thread does everything here that may wait for the ledger, beside the worker's own, which fetches. Signal
handlers only put a word into the inbox.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import Empty

from pydantic import ValidationError

from xmode_transfer import telemetry
from xmode_transfer.config import Service, StatusPage
from xmode_transfer.config import files as config_files
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.service import assembly, cluster, engines, sd_notify
from xmode_transfer.service.inbox import Inbox, Wake
from xmode_transfer.service.lifecycle import begin_when_there, end, last_resort
from xmode_transfer.service.liveness import Liveness
from xmode_transfer.service.watching import FileWatch
from xmode_transfer.service.worker import Worker
from xmode_transfer.telemetry import Event
from xmode_transfer.telemetry.clock import SystemClock
from xmode_transfer.web.metrics import Counters, of_process

_ATTEND_SECONDS = 1.0


def run(
    directory: Path,
    places: int | None = None,
    heartbeat_file: Path | None = None,
    metrics: str | None = None,
) -> int:
    """Works until it is asked to end; answers the exit code. ``places`` goes before the configuration's;
    ``heartbeat_file`` is touched while this thread gets on; ``metrics`` is the address and port where
    /metrics, /healthz and /readyz are answered. A database server that is away at the start is waited for.
    Raises ConfigError when service.yaml cannot be used, is for one machine only, or names a ledger that is
    not there or does not let us in; AlreadyRunning beside a daemon that takes all jobs itself;
    LedgerError."""
    with Inbox() as inbox:
        listener = None
        if metrics is not None:
            listener = _listener(config_files.load(directory).service, metrics)
        counters, clock = Counters(), SystemClock()
        liveness = Liveness(clock, heartbeat_file)
        readiness = _Readiness()
        with closing(liveness), _measured(listener, counters, liveness, readiness):
            return begin_when_there(
                lambda: _begun(directory, places, inbox, counters, liveness, readiness),
                lambda begun: begun.live(),
                clock,
                inbox.ending,
                Event.WORKER_STOPPED,
                waits=lambda: nullcontext(),
                still=liveness.gets_on,
            )


class _Readiness:
    """Why the worker takes no jobs, for a probe that asks."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    def __call__(self) -> str | None:
        worker = self.worker
        if worker is None:
            return "it waits for the ledger"
        if worker.trouble is not None:
            return worker.trouble.cause
        return None if worker.takes_jobs else "it is stopping"


@contextmanager
def _begun(
    directory: Path,
    places: int | None,
    inbox: Inbox,
    counters: Counters,
    liveness: Liveness,
    readiness: _Readiness,
) -> Iterator["_Life"]:
    """All that the worker needs of the ledger before it can work."""
    configuration = config_files.load(directory)
    cluster.check(configuration.service)
    with (
        assembly.context(configuration, counters, ending=inbox.ending, waits=False) as context,
        engines.of_many(context, "worker"),
    ):
        worker = Worker(
            context,
            cluster.queue(configuration.service, context.ledger),
            configuration,
            places=places,
            version=version("xmode-transfer"),
            heard=lambda fleet: context.sessions.share_budget(fleet.workers),
        )
        readiness.worker = worker
        yield _Life(directory, worker, inbox, liveness)


def _listener(service: Service, metrics: str) -> StatusPage:
    """The rules of the status page, at the worker's own address. Raises ConfigError."""
    page = service.status_page
    try:
        return StatusPage(
            listen=metrics,
            token=page.token if page is not None else None,
            hosts=page.hosts if page is not None else (),
        )
    except ValidationError as error:
        told = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise ConfigError(
            f"--metrics {metrics}: {told}",
            hint="The operator has to name an address and a port of this machine, such as 127.0.0.1:8322. "
            "One that other machines can reach asks for the token of the page (`status_page.token`).",
        ) from None


@contextmanager
def _measured(
    listener: StatusPage | None, counters: Counters, liveness: Liveness, readiness: _Readiness
) -> Iterator[None]:
    """/metrics, /healthz and /readyz, for as long as the worker works. Raises ConfigError."""
    if listener is None:
        yield
        return
    from xmode_transfer.web.server import serve_metrics  # slow to import, for who does without

    server = serve_metrics(listener, of_process(counters), lambda: liveness.silent_seconds, readiness)
    try:
        yield
    finally:
        server.close()


class _Life:
    """From the first job to the last."""

    def __init__(self, directory: Path, worker: Worker, inbox: Inbox, liveness: Liveness) -> None:
        self._directory = directory
        self._worker = worker
        self._inbox = inbox
        self._liveness = liveness

    def live(self) -> int:
        last_resort(self._inbox.ending, self._drain_seconds, Event.WORKER_STOPPED)
        files = FileWatch(self._directory, lambda: self._inbox.put(Wake.FILES), self._not_watched)
        try:
            configuration = self._worker.configuration
            telemetry.log(
                Event.WORKER_STARTED,
                version=version("xmode-transfer"),
                customers=len(configuration.customers),
                places=self._worker.places,
                configuration_problems=list(map(str, configuration.problems)),
            )
            self._worker.start()
            sd_notify.ready(self._status())
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
                sd_notify.reloading()
                self._worker.reload(partial(config_files.survey, self._directory))
                sd_notify.ready(self._status())
            self._worker.attend()
            self._liveness.gets_on()
            sd_notify.status(self._status())

    def _not_watched(self, reason: str) -> None:
        telemetry.warn(Event.CONFIGURATION_NOT_WATCHED, message=reason)

    def _status(self) -> str:
        """One line for `systemctl status`."""
        worker = self._worker
        told = f"{worker.busy} of {worker.places} slots taken, {worker.waiting} jobs wait"
        return told if worker.trouble is None else f"stopped: {worker.trouble.message}; {told}"

    def _drain_seconds(self) -> float:
        return self._worker.configuration.service.daemon.drain_seconds

    def _end(self) -> int:
        worker, seconds = self._worker, self._drain_seconds()
        running = worker.busy + worker.waiting
        telemetry.log(Event.WORKER_STOPPING, running=running, drain_seconds=seconds)
        return end(worker, seconds, Event.WORKER_STOPPED, lambda _: True)
