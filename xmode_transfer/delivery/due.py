"""Determine what is due: the periods of a customer's feeds that are complete at the source, not delivered."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.delivery.deliver import failed
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import (
    ConfigError,
    Defect,
    ExitCode,
    LedgerError,
    SourceError,
    SourceMissing,
    SourcePartlyUnreadable,
    XmodeError,
    worst,
)
from xmode_transfer.model.health import KEPT_PERIODS, SourceScan, Subscription, Waiting
from xmode_transfer.model.keys import readable
from xmode_transfer.model.periods import Period, PeriodKind, look_back_start
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import DeliveryOutcome, SourceProblem, Status
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.sources.interface import PeriodState, Source, SourceFactory
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.sending import defect_of, failure_of


@dataclass(slots=True)
class CustomerRun:
    """The result of a run. ``waiting`` and ``unfollowed`` are with the feed's name."""

    customer: str
    deliveries: list[DeliveryOutcome] = field(default_factory=list)
    waiting: list[tuple[str, PeriodState]] = field(default_factory=list)  # incomplete at the source
    unfollowed: list[tuple[str, SourceProblem]] = field(default_factory=list)  # paths that cannot be read
    older: int = 0  # periods outside the look-back window
    skipped: int = 0  # periods not caught up on after downtime
    explicit: bool = False  # a person named the periods: then a period that waits is not done
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        codes = {delivery.exit_code for delivery in self.deliveries}
        if self.explicit and self.waiting:
            codes.add(ExitCode.WILL_RETRY)
        if self.interrupted:
            codes.add(ExitCode.INTERRUPTED)
        return worst(codes)

    @property
    def outcome(self) -> str:
        """The most severe one."""
        words = {delivery.outcome for delivery in self.deliveries}
        if self.interrupted:
            words.add("interrupted")
        order = ("interrupted", Status.BLOCKED, Status.FAILED, Status.QUARANTINED, "already_running")
        return next((str(word) for word in (*order, Status.DELIVERED) if word in words), str(Status.SKIPPED))


def scan_sources(
    context: Context,
    configuration: Configuration,
    customer: Customer,
    scope: Scope,
    result: CustomerRun,
    *,
    reread: bool = True,
) -> Iterator[tuple[Feed, PeriodState]]:
    """Yield what is due now, feed by feed, oldest period first, and record each source scan. A source that
    cannot be listed, or only in part, becomes a failed delivery in ``result``, and so does a defect."""
    scanner = Scanner(context.sources, context.ledger, context.clock)
    for feed in feeds_of(configuration, customer, scope):
        try:
            if scope.is_whole:
                for state in scanner.scan(customer, feed, result, reread=reread):
                    yield feed, state
            else:  # a scan of named periods shows only a part
                for state in scanner.due(customer, feed, scope, result):
                    yield feed, state
        except (SourceError, Defect) as error:
            result.deliveries.append(source_failed(customer, feed, scope.period or "", error))
        problems = tuple(problem for name, problem in result.unfollowed if name == feed.name)
        if problems:
            partly = _partly_unreadable(feed, problems)
            result.deliveries.append(source_failed(customer, feed, "", partly, problems))


@dataclass(frozen=True, slots=True)
class Scanner:
    """``record`` replaces the ledger as the record of source scans."""

    sources: SourceFactory
    ledger: Ledger
    clock: Clock
    record: Callable[[SourceScan], object] | None = None

    def scan(
        self, customer: Customer, feed: Feed, result: CustomerRun, *, reread: bool = True
    ) -> list[PeriodState]:
        """Return what is due of the feed, and record the source scan, also a failed one."""
        record = self.record or self.ledger.sources.record
        scanned_at = self.clock.now()
        try:
            found = list(self.due(customer, feed, Scope(), result, reread=reread))
        except (SourceError, Defect) as error:
            record(SourceScan(customer.name, feed.name, scanned_at, scanned_at, failure=failure_of(error)))
            raise
        problems = [problem for name, problem in result.unfollowed if name == feed.name]
        incomplete = [
            Waiting(state.period.label, state.reason) for name, state in result.waiting if name == feed.name
        ]
        due_labels, newest = self._undelivered(customer, feed, found)
        record(
            SourceScan(
                customer.name,
                feed.name,
                scanned_at,
                scanned_at,
                newest,
                len(due_labels),
                tuple(due_labels[:KEPT_PERIODS]),
                waiting_count=len(incomplete),
                waiting=tuple(incomplete[-KEPT_PERIODS:]),
                failure=failure_of(_partly_unreadable(feed, problems)) if problems else None,
            )
        )
        return found

    def due(
        self, customer: Customer, feed: Feed, scope: Scope, result: CustomerRun, *, reread: bool = True
    ) -> Iterator[PeriodState]:
        """Yield the periods to deliver, oldest first: complete at the source and inside the look-back window
        (or named), but not those delivered or skipped unless the source declared them complete again. Without
        a marker it cannot: delivered periods are read again, unless ``reread`` is False. Raises SourceError
        and Defect."""
        try:
            source = self.sources(feed)
            since = _parse(feed, scope.since) if scope.since else None
            until = _parse(feed, scope.until) if scope.until else None
            oldest = look_back_start(feed.period, feed.look_back, self.clock.now())
            start = since.start if since else oldest if scope.is_whole else None
            states: Iterator[PeriodState | SourceProblem]
            if scope.period is not None:
                states = iter([named_state(source, feed, scope.period)])
            else:
                states = source.periods(start)
            passed = self.ledger.sources.skipped(customer.name, feed.name) if scope.is_whole else {}
            for state in states:
                if isinstance(state, SourceProblem):
                    if _is_asked_for(feed, state, start, until):
                        result.unfollowed.append((feed.name, state))
                    continue
                if (since and state.period < since) or (until and until < state.period):
                    continue
                if scope.is_whole and feed.period is not PeriodKind.NONE and state.period.start < oldest:
                    result.older += 1
                elif not state.complete:
                    result.waiting.append((feed.name, state))
                elif passed.get(state.period.label) == state.marker:
                    result.skipped += 1
                elif not scope.is_whole or not self._is_settled(customer, feed, state, reread=reread):
                    yield state
        except XmodeError:
            raise
        except Exception as error:
            telemetry.exception(Event.DEFECT, feed=feed.name)
            raise defect_of(error) from error

    def _is_settled(self, customer: Customer, feed: Feed, state: PeriodState, *, reread: bool) -> bool:
        """Return True if the period is delivered and need not be read again. A drop folder is always read."""
        if feed.period is PeriodKind.NONE or (reread and not state.marker):
            return False
        latest = self.ledger.deliveries.latest(customer.name, feed.name, state.period.label)
        return latest is not None and latest.status is Status.DELIVERED and latest.marker == state.marker

    def _undelivered(
        self, customer: Customer, feed: Feed, states: Sequence[PeriodState]
    ) -> tuple[list[str], str | None]:
        """Return the periods that were never delivered or are declared complete again, and the newest
        complete period. A delivered period without a marker is read again, but is not due."""
        markers = {state.period.label: state.marker for state in states}
        oldest = None if feed.period is PeriodKind.NONE else min(markers, default=None)
        done = {
            delivery.period: delivery.marker
            for delivery in self.ledger.deliveries.calendar(customer.name, feed.name, oldest)
            if delivery.status is Status.DELIVERED
        }
        labels = [
            name for name, marker in markers.items() if name not in done or marker not in ("", done[name])
        ]
        return labels, max((*done, *markers), default=None)


def _is_asked_for(feed: Feed, problem: SourceProblem, since: datetime | None, until: Period | None) -> bool:
    """Return True if an unreadable part of the partition's path may lead to wanted periods."""
    partition, path = feed.partition_template, problem.name.rstrip("/")
    if partition is None:
        return True
    if since is not None and partition.is_before(path, since):
        return False
    period = partition.period(path)
    return period is None or until is None or period <= until


def named_state(source: Source, feed: Feed, label: str) -> PeriodState:
    """Return the state of a period that a person names. Raises ConfigError, and SourceMissing without one."""
    period = _parse(feed, label)
    found = source.state(period)
    if found is None:
        raise SourceMissing(
            f"the source of {feed.name} has nothing for {period.label}",
            hint=f"check {feed.source}, then name the period again",
        )
    return found


def _parse(feed: Feed, label: str) -> Period:
    try:
        return Period.parse(label, feed.period)
    except ValueError as error:
        raise ConfigError(f"{feed.name}: {error}", hint="see `xmode-transfer run --help`") from None


def _partly_unreadable(feed: Feed, problems: Sequence[SourceProblem]) -> SourcePartlyUnreadable:
    first = f"{readable(problems[0].name)}: {problems[0].message}"
    some = f"{len(problems):,} parts of {feed.name}"
    parts = f"{some} cannot be read, and nothing in them is delivered; first:"
    if len(problems) == 1:
        parts = f"a part of {feed.name} cannot be read, and nothing in it is delivered:"
    hint = f"check {feed.source}; the rest of the feed is delivered meanwhile"
    return SourcePartlyUnreadable(f"{parts} {first}", hint=hint)


@dataclass(slots=True)
class Scans:
    """Source scans that the ledger did not take, because of ``refusal``."""

    refusal: LedgerError | None = None
    unrecorded: dict[Subscription, SourceScan] = field(default_factory=dict)


def scan_all(
    configuration: Configuration,
    sources: SourceFactory,
    ledger: Ledger,
    clock: Clock,
    progress: Callable[[int, int], None] | None,
) -> Scans:
    """Scan the sources of all active customers, for `status` without a daemon, and record the scans if the
    ledger is not read-only. ``progress`` receives the number of finished subscriptions and the total."""
    scans = Scans()

    def record(scan: SourceScan) -> None:
        if scans.refusal is None:
            try:
                ledger.sources.record(scan)
                return
            except LedgerError as error:
                scans.refusal = error
        scans.unrecorded[scan.customer, scan.feed] = scan.after(ledger.sources.last(scan.customer, scan.feed))

    scanner = Scanner(sources, ledger, clock, record)
    subscriptions = [
        (customer, configuration.feeds[feed])
        for name, customer in sorted(configuration.customers.items())
        if name not in configuration.broken and customer.state is CustomerState.ACTIVE
        for feed in customer.feeds
    ]
    for number, (customer, feed) in enumerate(subscriptions):
        if progress is not None:
            progress(number, len(subscriptions))
        with suppress(SourceError, Defect):
            scanner.scan(customer, feed, CustomerRun(customer.name))
    return scans


def feeds_of(configuration: Configuration, customer: Customer, scope: Scope) -> list[Feed]:
    """Return the customer's feeds, or the named one. Raises ConfigError."""
    if scope.feed is not None and scope.feed not in customer.feeds:
        raise ConfigError(
            f"{customer.name} does not subscribe to the feed {scope.feed}",
            hint=f"its feeds: {', '.join(customer.feeds)}",
        )
    return [configuration.feeds[name] for name in ([scope.feed] if scope.feed else customer.feeds)]


def source_failed(
    customer: Customer,
    feed: Feed,
    period: str,
    error: SourceError | Defect,
    problems: tuple[SourceProblem, ...] = (),
) -> DeliveryOutcome:
    telemetry.warn(Event.SOURCE_FAILED, feed=feed.name, **error.log_context())
    return failed(customer, feed, period, 0, error, outcome=str(Status.FAILED), problems=problems)
