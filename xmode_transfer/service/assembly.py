"""The composition root: builds what commands, daemons and workers use, and keeps a single daemon and a fleet
apart. Optional parts are imported where they are chosen, so that commands start faster."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xmode_transfer import telemetry
from xmode_transfer.aws import s3_fast
from xmode_transfer.aws.probing import Prober
from xmode_transfer.aws.sessions import SessionBudget
from xmode_transfer.aws.stores import ObjectStores, Reader
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Configuration, Customer, Engine, Feed, Service
from xmode_transfer.config.secrets import ledger_url
from xmode_transfer.ledger import Ledger, database, open_ledger
from xmode_transfer.model.errors import AlreadyRunning, ConfigError, LedgerError
from xmode_transfer.model.jobs import Backoff
from xmode_transfer.model.keys import count
from xmode_transfer.model.process import Clock, Progress
from xmode_transfer.model.records import Lease, holder_shown
from xmode_transfer.sources.interface import Source, SourceFactory
from xmode_transfer.sources.local import LocalSource
from xmode_transfer.telemetry import Event, SystemClock
from xmode_transfer.transfer.context import TTL_SECONDS, Context, kept
from xmode_transfer.upkeep import recall_file

if TYPE_CHECKING:
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
    """Open everything that work needs. ``stop`` asks the work to stop where it can be resumed; ``ending`` is
    set on a stop request, if that is earlier. ``waits`` as in ``open_ledger``."""
    from xmode_transfer.transfer.signing import ManifestSignatures

    service = configuration.service
    stop = stop or threading.Event()
    with (
        ledger(service, waits=waits) as (record, clock),
        reacting(ending or stop, lambda _: record.hurry()),  # it stops waiting for an unreachable ledger
    ):
        recall_file.synchronise(record, Path(service.recalls), clock.now())
        stores = _engine(service, clock, stop)
        gc.freeze()  # imported and configured objects live as long as the process
        # A run creates millions of short-lived objects with few cycles: with the default thresholds,
        # collection took a third of its CPU (docs/performance.md).
        gc.set_threshold(100_000, 20, 100)
        telemetry.log(Event.ENGINE_CHOSEN, engine=stores.info.name, reason=stores.info.reason)
        try:
            yield Context(
                vendor=service.vendor,
                limits=service.limits,
                sources=sources(clock, stop),
                sessions=RoleSessions(
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
                attestation=ManifestSignatures(service.receipts),
            )
        finally:
            stores.close()


def reader(context: Context, customer: Customer) -> Reader:
    return Reader(customer, context.limits, context.clock, context.stop)


def prober(context: Context) -> Prober:
    """Its sessions count against the shared budget."""
    return Prober(context.sessions, context.clock)


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
def reacting(event: threading.Event, react: Callable[[threading.Event], None]) -> Iterator[None]:
    """Call ``react``, in another thread, if the event is set during the block: this one may wait for the
    ledger. ``react`` receives an event that is set at the end of the block."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if event.wait(_POLL_SECONDS):
                react(over)
                return

    threading.Thread(target=watch, name="ending", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def engine_choice(service: Service) -> tuple[Engine, str]:
    """Return the transfer engine to use, and why. Raises ConfigError."""
    asked = "service.yaml asks for it"
    if service.engine is Engine.PORTABLE:
        return Engine.PORTABLE, asked
    usable, why = s3_fast.available()
    if usable:
        return Engine.FAST, asked if service.engine is Engine.FAST else why
    if service.engine is Engine.FAST:
        raise ConfigError(
            f"service.yaml asks for the fast engine, which does not run here: {why}",
            hint="write `engine: auto` to use the portable engine where the fast one does not run",
        )
    return Engine.PORTABLE, f"the fast one does not run here: {why}"


def _engine(service: Service, clock: Clock, stop: threading.Event) -> ObjectStores:
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

        return S3Source(feed, clock, own_client().get, own_client().forget)

    return source


ALONE = "daemon"
Member = Literal["daemon", "worker"]
_UNTIL = f"the lease of a dead process expires within {TTL_SECONDS:.0f} seconds"
_NOT_BOTH = "a ledger is served by one daemon or by a fleet, not both."


@contextmanager
def alone(context: Context) -> Iterator[Lease]:
    """Hold the lease of a daemon that runs all jobs itself. Raises AlreadyRunning."""
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(_held(context, ALONE))
        except AlreadyRunning as error:
            raise AlreadyRunning(
                "another daemon uses this ledger: " + error.message.partition("by ")[2],
                hint=f"one daemon serves all customers. Stop that one first, or wait: {_UNTIL}. `run` works "
                "beside a daemon",
            ) from error
        members = []
        for member in ("daemon", "worker"):
            if leases := context.ledger.leases.held(f"{member}/"):
                others = ", ..." if len(leases) > 1 else ""
                members.append(f"{count(len(leases), member)} ({holder_shown(leases[0].holder)}{others})")
        if members:
            raise AlreadyRunning(
                f"a fleet uses this ledger: {' and '.join(members)}",
                hint=f"{_NOT_BOTH} Stop the fleet's daemons and workers first, or join the fleet with "
                f"`--engine procrastinate`. If they have stopped, wait: {_UNTIL}",
            )
        yield lease


@contextmanager
def of_many(context: Context, member: Member) -> Iterator[Lease]:
    """Hold the lease of a fleet's daemon or worker. Raises AlreadyRunning beside an ``alone`` daemon."""
    with _held(context, f"{member}/{context.holder}") as lease:
        for other in context.ledger.leases.held(ALONE):
            raise AlreadyRunning(
                "a daemon with its own worker (`--engine threads`) uses this ledger: "
                f"{holder_shown(other.holder)}",
                hint=f"{_NOT_BOTH} Stop that daemon first; its unfinished work is resumed. If it has "
                f"stopped, wait: {_UNTIL}",
            )
        yield lease


@contextmanager
def _held(context: Context, name: str) -> Iterator[Lease]:
    """Like ``transfer.context.held``, but tolerate a ledger that is unreachable at the end: the process ends,
    and that frees the lease."""
    lease = context.ledger.leases.claim(name, context.holder, TTL_SECONDS)
    try:
        with kept(context.ledger, lease):
            yield lease
    finally:
        try:
            context.ledger.leases.release(lease)
        except LedgerError as error:
            telemetry.warn(Event.SHUTDOWN_NOT_RECORDED, **error.log_context())
