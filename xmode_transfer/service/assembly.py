"""The composition root: builds a workbench of adapters from the configuration. Adapters are combined nowhere
else. Optional adapters are imported where they are chosen, so that commands start faster."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from xmode_transfer import telemetry
from xmode_transfer.aws import checksums, s3_fast
from xmode_transfer.aws.probes import Prober
from xmode_transfer.aws.session_budget import SessionBudget
from xmode_transfer.aws.stores import ObjectStores, Reader
from xmode_transfer.aws.sts import StsRoleSessions
from xmode_transfer.config import Configuration, Customer, Engine, Feed, Service
from xmode_transfer.config.secrets import ledger_url
from xmode_transfer.ledger import Ledger, open_ledger, processes
from xmode_transfer.model.backoff import Backoff
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.process import Attestation, Clock, Progress
from xmode_transfer.sources.interface import Source, SourceFactory
from xmode_transfer.sources.local import LocalSource
from xmode_transfer.telemetry import Event
from xmode_transfer.telemetry.clock import SystemClock
from xmode_transfer.transfer.context import Context

if TYPE_CHECKING:
    from xmode_transfer.alerting.watch import Watch
    from xmode_transfer.sources.s3 import OwnClient


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
                checksum_of=checksums.of,
                holder=processes.this_process(),
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
    from xmode_transfer.transfer.attesting import ManifestSignatures

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
        from xmode_transfer.sources.s3 import OwnClient

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

    return Watch(record, clock, processes.this_process(), channels.send, channels.beat)
