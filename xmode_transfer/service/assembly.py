"""The composition root: configuration in, a context of stacked adapters out. Nothing else puts adapters
together. What a common run does without is imported where it is chosen: commands start quicker."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from xmode_transfer import telemetry
from xmode_transfer.access.probes import Prober
from xmode_transfer.aws import checksums, s3_fast
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


_LOOK_SECONDS = 0.5


@contextmanager
def context(
    configuration: Configuration,
    progress: Progress,
    stop: threading.Event | None = None,
    ending: threading.Event | None = None,
    *,
    waits: bool = True,
) -> Iterator[Context]:
    """Everything a use case needs, opened, and closed again in the right order. ``stop`` asks the work to
    stop where it can be resumed; ``ending`` is set when the process is asked to end, where that is
    earlier. ``waits`` as in ``open_ledger``."""
    _spare_the_collector()
    service = configuration.service
    stop = stop or threading.Event()
    with ledger(service, waits=waits) as (record, clock), _hurried(record, ending or stop):
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


def _spare_the_collector() -> None:
    """What is imported and configured lives as long as the process, so the collector need not look through it
    again and again. A run makes millions of short-lived objects and hardly a circle among them; with Python's
    own thresholds a third of its CPU went into collecting (docs/performance.md)."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def attestation(service: Service) -> Attestation:
    """Our signature under manifests."""
    from xmode_transfer.transfer.attesting import ManifestSignatures

    return ManifestSignatures(service.receipts)


def reader(context: Context, customer: Customer) -> Reader:
    """What reads a customer's objects back."""
    from xmode_transfer.aws.read_back import PacedReader

    return PacedReader(customer, context.limits, context.clock, context.stop)


def prober(context: Context) -> Prober:
    """What tries a customer's access, with sessions of its own out of the budget for all."""
    from xmode_transfer.access.probing import AwsProber

    assert isinstance(context.sessions, StsRoleSessions)
    return AwsProber(context.sessions, context.clock)


@contextmanager
def ledger(service: Service, *, waits: bool = True) -> Iterator[tuple[Ledger, Clock]]:
    """The ledger and its clock alone, for commands that only read."""
    clock = SystemClock()
    record = open_ledger(ledger_url(service.ledger), clock, waits=waits)
    try:
        yield record, clock
    finally:
        record.close()


@contextmanager
def _hurried(record: Ledger, ending: threading.Event) -> Iterator[None]:
    """From when the process is to end, nobody waits for a ledger that is away. Whoever could say so may wait
    for it, so a thread does."""
    over = threading.Event()

    def hurry() -> None:
        while not over.is_set():
            if ending.wait(_LOOK_SECONDS):
                record.hurry()
                return

    threading.Thread(target=hurry, name="ending", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def engine_choice(service: Service) -> tuple[Engine, str]:
    """Which transfer engine will run, and why. Raises ConfigError when the one that is asked for cannot."""
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
    """The transfer engine that the configuration asks for."""
    choice, reason = engine_choice(service)
    if choice is Engine.FAST:
        return s3_fast.FastStores(service.limits, clock, reason=reason, stop=stop)
    from xmode_transfer.aws.s3_portable import PortableStores

    return PortableStores(service.limits, clock, reason=reason, stop=stop)


def sources(clock: Clock, stop: threading.Event | None = None) -> SourceFactory:
    """The files of a feed, wherever they lie. All feeds in buckets share one client with our own
    credentials."""

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
    """What looks after alerts: whoever runs long calls its ``round`` about once a minute."""
    from xmode_transfer.alerting import channels
    from xmode_transfer.alerting.watch import Watch

    return Watch(record, clock, processes.this_process(), channels.send, channels.beat)
