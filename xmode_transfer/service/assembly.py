"""The composition root: builds a workbench of adapters from the configuration. Adapters are combined nowhere
else. Optional adapters are imported where they are chosen, so that commands start faster."""

import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal

from xmode_transfer import telemetry
from xmode_transfer.aws import s3_fast
from xmode_transfer.aws.probing import Prober
from xmode_transfer.aws.sessions import SessionBudget
from xmode_transfer.aws.stores import ObjectStores, Reader
from xmode_transfer.aws.sts import StsRoleSessions
from xmode_transfer.config import Configuration, Customer, Engine, Feed, Service
from xmode_transfer.config.secrets import ledger_url
from xmode_transfer.ledger import Ledger, database, open_ledger
from xmode_transfer.model.errors import AlreadyRunning, ConfigError, LedgerError
from xmode_transfer.model.jobs import Backoff
from xmode_transfer.model.process import Attestation, Clock, Progress
from xmode_transfer.model.records import Lease, holder_shown
from xmode_transfer.sources.interface import Source, SourceFactory
from xmode_transfer.sources.local import LocalSource
from xmode_transfer.telemetry import Event, SystemClock
from xmode_transfer.transfer.context import TTL_SECONDS, Context, kept

if TYPE_CHECKING:
    from xmode_transfer.alerting.watch import Watch
    from xmode_transfer.sources.s3_bucket import OwnClient

_POLL_SECONDS = 0.5


@contextmanager
def context(
    configuration: Configuration,
    progress: Progress,
    stop: threading.Event | None = None,
    ending: threading.Event | None = None,
    *,
    waits: bool = True,
) -> Iterator[Context]:
    """Open everything a use case needs, and close it in the right order. ``stop`` asks the work to stop where
    it can be resumed; ``ending`` is set on a stop request, if that is earlier. ``waits`` as in
    ``open_ledger``."""
    _tune_garbage_collection()
    service = configuration.service
    stop = stop or threading.Event()
    with ledger(service, waits=waits) as (record, clock), _ledger_released(record, ending or stop):
        stores = engine(service, clock, stop)
        telemetry.log(Event.ENGINE_CHOSEN, engine=stores.info.name, reason=stores.info.reason)
        try:
            yield Context(
                vendor=service.vendor,
                limits=service.limits,
                sources=sources(clock, stop),
                sessions=StsRoleSessions(
                    service.vendor,
                    clock,
                    budget=SessionBudget(service.limits.role_sessions_per_second, clock, stop),
                    stop=stop,
                ),
                stores=stores,
                ledger=record,
                clock=clock,
                progress=progress,
                holder=database.this_process(),
                unsafe_roles=service.unsafe_roles,
                backoff=Backoff(service.daemon.first_retry_seconds, service.daemon.longest_retry_seconds),
                stop=stop,
                attestation=attestation(service),
            )
        finally:
            stores.close()


def _tune_garbage_collection() -> None:
    """Reduce garbage collection. Imported and configured objects live as long as the process, so they are
    frozen. A run creates millions of short-lived objects with few cycles; with Python's default thresholds,
    collection took a third of its CPU (docs/performance.md)."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def attestation(service: Service) -> Attestation:
    """Return the signing of manifests."""
    from xmode_transfer.transfer.signing import ManifestSignatures

    return ManifestSignatures(service.receipts)


def reader(context: Context, customer: Customer) -> Reader:
    """Return the reader of a customer's objects."""
    from xmode_transfer.aws.read_back import PacedReader

    return PacedReader(customer, context.limits, context.clock, context.stop)


def prober(context: Context) -> Prober:
    """Return the prober of access. Its own sessions count against the shared budget."""
    from xmode_transfer.aws.probing import AwsProber

    assert isinstance(context.sessions, StsRoleSessions)
    return AwsProber(context.sessions, context.clock)


@contextmanager
def ledger(service: Service, *, waits: bool = True) -> Iterator[tuple[Ledger, Clock]]:
    """Open only the ledger and its clock, for commands that only read."""
    clock = SystemClock()
    record = open_ledger(ledger_url(service.ledger), clock, waits=waits)
    try:
        yield record, clock
    finally:
        record.close()


@contextmanager
def _ledger_released(record: Ledger, ending: threading.Event) -> Iterator[None]:
    """Stop waiting for an unreachable ledger once the process is asked to end. Uses a thread, since the main
    thread may be waiting for the ledger."""
    over = threading.Event()

    def release() -> None:
        while not over.is_set():
            if ending.wait(_POLL_SECONDS):
                record.hurry()
                return

    threading.Thread(target=release, name="ending", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def engine_choice(service: Service) -> tuple[Engine, str]:
    """Return the transfer engine to use, and why. Raises ConfigError if the configured one is not
    available."""
    if service.engine is Engine.PORTABLE:
        return Engine.PORTABLE, "service.yaml asks for it"
    usable, why = s3_fast.available()
    if usable:
        return Engine.FAST, "service.yaml asks for it" if service.engine is Engine.FAST else why
    if service.engine is Engine.FAST:
        raise ConfigError(
            f"service.yaml asks for the fast engine, which does not run here: {why}",
            hint="write `engine: auto` to take the portable one where that is so",
        )
    return Engine.PORTABLE, f"the fast one does not run here: {why}"


def engine(service: Service, clock: Clock, stop: threading.Event) -> ObjectStores:
    """Return the configured transfer engine."""
    choice, reason = engine_choice(service)
    if choice is Engine.FAST:
        return s3_fast.FastStores(service.limits, clock, reason=reason, stop=stop)
    from xmode_transfer.aws.s3_portable import PortableStores

    return PortableStores(service.limits, clock, reason=reason, stop=stop)


def sources(clock: Clock, stop: threading.Event | None = None) -> SourceFactory:
    """Return the factory of sources. All feeds in buckets share one client with the vendor's credentials."""

    @cache
    def own_client() -> "OwnClient":
        from xmode_transfer.sources.s3_bucket import OwnClient

        return OwnClient(stop)

    def source(feed: Feed) -> Source:
        if not feed.source.startswith("s3://"):
            return LocalSource(feed, clock)
        from xmode_transfer.sources.s3 import S3Source

        client = own_client()
        return S3Source(feed, clock, client.get, client.forget)

    return source


def watch(record: Ledger, clock: Clock) -> "Watch":
    """Return the alert watcher. Long-running processes call its ``run_once`` about once a minute."""
    from xmode_transfer.alerting import channels
    from xmode_transfer.alerting.watch import Watch

    return Watch(record, clock, database.this_process(), channels.send, channels.beat)


ALONE = "daemon"
Member = Literal["daemon", "worker"]
_MEMBERS: tuple[Member, ...] = ("daemon", "worker")
_UNTIL = f"the lease of a dead process expires within {TTL_SECONDS:.0f} seconds"


@contextmanager
def _held(context: Context, name: str) -> Iterator[Lease]:
    """Like ``leasing.held``, but tolerate a ledger that is away at the end. The lease is free as soon as the
    process is gone."""
    lease = context.ledger.leases.claim(name, context.holder, TTL_SECONDS)
    try:
        with kept(context.ledger, lease):
            yield lease
    finally:
        try:
            context.ledger.leases.release(lease)
        except LedgerError as error:
            telemetry.warn(Event.SHUTDOWN_NOT_RECORDED, **error.log_context())


@contextmanager
def alone(context: Context) -> Iterator[Lease]:
    """Hold the lease of a daemon that runs all jobs itself. Raises AlreadyRunning beside another daemon or a
    fleet."""
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(_held(context, ALONE))
        except AlreadyRunning as error:
            raise AlreadyRunning(
                "another daemon uses this ledger: " + error.message.partition("by ")[2],
                hint=f"one daemon serves all customers. Stop that one first, or wait: {_UNTIL}. `run` works "
                "beside a daemon",
            ) from error
        _refuse_beside_a_fleet(context)
        yield lease


@contextmanager
def of_many(context: Context, member: Member) -> Iterator[Lease]:
    """Hold the lease of a fleet's daemon or worker. Raises AlreadyRunning beside a daemon that runs all jobs
    itself."""
    with _held(context, f"{member}/{context.holder}") as lease:
        for other in context.ledger.leases.held(ALONE):
            raise AlreadyRunning(
                "a daemon with its own worker (`--engine threads`) uses this ledger: "
                f"{holder_shown(other.holder)}",
                hint="a ledger is served by one daemon or by a fleet, not both. Stop that daemon first; its "
                f"unfinished work is resumed. If it has stopped, wait: {_UNTIL}",
            )
        yield lease


def _refuse_beside_a_fleet(context: Context) -> None:
    fleet = {member: context.ledger.leases.held(f"{member}/") for member in _MEMBERS}
    members = [_counted(member, leases) for member, leases in fleet.items() if leases]
    if members:
        raise AlreadyRunning(
            f"a fleet uses this ledger: {' and '.join(members)}",
            hint="a ledger is served by one daemon or by a fleet, not both. Stop the fleet's daemons and "
            "workers first, or join the fleet with `--engine procrastinate`. "
            f"If they have stopped, wait: {_UNTIL}",
        )


def _counted(member: Member, leases: Sequence[Lease]) -> str:
    count = f"1 {member}" if len(leases) == 1 else f"{len(leases)} {member}s"
    return f"{count} ({holder_shown(leases[0].holder)}{', ...' if len(leases) > 1 else ''})"
