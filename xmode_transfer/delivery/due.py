"""What is due: the periods of a customer's feeds that are complete at the source, minus what the ledger has
delivered. Everything that delivers asks here, and so does `status`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.delivery.deliver import failed
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import (
    ConfigError,
    Defect,
    ExitCode,
    SourceError,
    SourceMissing,
    SourcePartlyUnreadable,
    XmodeError,
    worst,
)
from xmode_transfer.model.keys import readable
from xmode_transfer.model.periods import Period, PeriodKind, look_back_start
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import DeliveryOutcome, SourceProblem, Status
from xmode_transfer.model.source_scans import KEPT_PERIODS, Look, Waiting
from xmode_transfer.model.verification import Scope
from xmode_transfer.sources.interface import PeriodState, SourceFactory
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.sending import defect_of, failure_of


@dataclass(slots=True)
class CustomerRun:
    """What a run came to. ``waiting`` are periods that are not complete at the source, with the reason, and
    ``unfollowed`` what could not be followed on the way to periods, both by feed. ``older`` counts periods
    outside the look-back window, ``passed_over`` those that are not made up for after an outage. ``explicit``
    when a person named the periods: then one that waits is not done."""

    customer: str
    deliveries: list[DeliveryOutcome] = field(default_factory=list)
    waiting: list[tuple[str, PeriodState]] = field(default_factory=list)
    unfollowed: list[tuple[str, SourceProblem]] = field(default_factory=list)
    older: int = 0
    passed_over: int = 0
    explicit: bool = False
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
        """The word for the whole: the gravest of the deliveries' words."""
        words = {delivery.outcome for delivery in self.deliveries}
        if self.interrupted:
            words.add("interrupted")
        order = ("interrupted", Status.BLOCKED, Status.FAILED, "already_running", Status.DELIVERED)
        return next((str(word) for word in order if word in words), str(Status.SKIPPED))


def look(
    context: Context,
    configuration: Configuration,
    customer: Customer,
    scope: Scope,
    result: CustomerRun,
    *,
    reread: bool = True,
) -> Iterator[tuple[Feed, PeriodState]]:
    """What is due for the customer now, feed by feed, oldest period first. A source that cannot be listed, or
    not in whole, becomes a failed delivery in ``result``, and the rest goes on; so does a defect. ``reread``
    as in ``due``. What was seen is remembered in the ledger, for whoever asks how the customer fares."""
    around = context.sources, context.ledger, context.clock, customer
    for feed in feeds_of(configuration, customer, scope):
        try:
            states: Iterable[PeriodState]
            if scope.is_whole:
                states = remembered(*around, feed, result, reread=reread)
            else:  # what a person named shows a part only
                states = due(*around, feed, scope, result)
            for state in states:
                yield feed, state
        except (SourceError, Defect) as error:
            result.deliveries.append(source_failed(customer, feed, scope.period or "", error))
        problems = tuple(problem for name, problem in result.unfollowed if name == feed.name)
        if problems:
            partly = _partly_unreadable(feed, problems)
            result.deliveries.append(source_failed(customer, feed, "", partly, problems))


def remembered(
    sources: SourceFactory,
    ledger: Ledger,
    clock: Clock,
    customer: Customer,
    feed: Feed,
    result: CustomerRun,
    *,
    reread: bool = True,
    record: Callable[[Look], object] | None = None,
) -> list[PeriodState]:
    """What is due of the feed; what was seen is remembered (by ``record``, else in the ledger), so that
    health can be told from the ledger alone. A source that cannot be looked at is remembered too, and its
    error raised on."""
    record = record or ledger.sources.record
    looked_at = clock.now()
    try:
        found = list(due(sources, ledger, clock, customer, feed, Scope(), result, reread=reread))
    except (SourceError, Defect) as error:
        record(Look(customer.name, feed.name, looked_at, looked_at, failure=failure_of(error)))
        raise
    problems = [problem for name, problem in result.unfollowed if name == feed.name]
    incomplete = [
        Waiting(state.period.label, state.reason) for name, state in result.waiting if name == feed.name
    ]
    due_labels, newest = _undelivered(ledger, customer, feed, found)
    record(
        Look(
            customer.name,
            feed.name,
            looked_at,
            looked_at,
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
    sources: SourceFactory,
    ledger: Ledger,
    clock: Clock,
    customer: Customer,
    feed: Feed,
    scope: Scope,
    result: CustomerRun,
    *,
    reread: bool = True,
) -> Iterator[PeriodState]:
    """The periods to deliver, oldest first: complete at the source and inside the look-back window (or
    named), minus what the ledger has delivered or passed over and the source has not declared anew. Without a
    marker the source cannot declare anything: what was delivered is looked into again, unless ``reread`` is
    off. Raises SourceError, and Defect for what should not be possible: other feeds can go on."""
    try:
        since = _parse(feed, scope.since) if scope.since else None
        until = _parse(feed, scope.until) if scope.until else None
        oldest = look_back_start(feed.period, feed.look_back, clock.now())
        start = since.start if since else oldest if scope.is_whole else None
        states: Iterator[PeriodState | SourceProblem]
        if scope.period is not None:
            period = _parse(feed, scope.period)
            found = sources(feed).state(period)
            if found is None:
                raise SourceMissing(
                    f"the source of {feed.name} has nothing for {period.label}",
                    hint=f"look below {feed.source}; the delivery is tried again when it is named again",
                )
            states = iter([found])
        else:
            states = sources(feed).periods(start)
        passed = ledger.sources.passed_over(customer.name, feed.name) if scope.is_whole else {}
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
                result.passed_over += 1
            elif not scope.is_whole or not _is_settled(ledger, customer, feed, state, reread=reread):
                yield state
    except XmodeError:
        raise
    except Exception as error:
        telemetry.exception(Event.DEFECT, feed=feed.name)
        raise defect_of(error) from error


def _is_asked_for(feed: Feed, problem: SourceProblem, since: datetime | None, until: Period | None) -> bool:
    """Whether a part of the partition's path that cannot be followed may lead to periods that are wanted."""
    partition, path = feed.partition_template, problem.name.rstrip("/")
    if partition is None:
        return True
    if since is not None and partition.is_before(path, since):
        return False
    period = partition.period(path)
    return period is None or until is None or period <= until


def _parse(feed: Feed, label: str) -> Period:
    try:
        return Period.parse(label, feed.period)
    except ValueError as error:
        raise ConfigError(f"{feed.name}: {error}", hint="see `xmode-transfer run --help`") from None


def _is_settled(ledger: Ledger, customer: Customer, feed: Feed, state: PeriodState, *, reread: bool) -> bool:
    """Whether the period is delivered and need not be looked into again. With a marker, the producer says
    when a period is complete anew. A drop folder is always looked into: its one period never ends."""
    if feed.period is PeriodKind.NONE or (reread and not state.marker):
        return False
    latest = ledger.deliveries.latest(customer.name, feed.name, state.period.label)
    return latest is not None and latest.status is Status.DELIVERED and latest.marker == state.marker


def _partly_unreadable(feed: Feed, problems: Sequence[SourceProblem]) -> SourcePartlyUnreadable:
    """The error for what cannot be followed on the way to a feed's periods."""
    first = f"{readable(problems[0].name)}: {problems[0].message}"
    told = (
        f"a part of {feed.name} cannot be read, and nothing in it is delivered: {first}"
        if len(problems) == 1
        else f"{len(problems):,} parts of {feed.name} cannot be read, and nothing in them is delivered; "
        f"first: {first}"
    )
    return SourcePartlyUnreadable(
        told,
        hint=f"look below {feed.source}; the rest of the feed is delivered meanwhile",
    )


def _undelivered(
    ledger: Ledger, customer: Customer, feed: Feed, states: Sequence[PeriodState]
) -> tuple[list[str], str | None]:
    """Those that were never delivered, or are declared anew, and the newest complete period. A period without
    a marker that was delivered is looked into again, but nobody waits for it."""
    oldest = min((state.period.label for state in states), default=None)
    if feed.period is PeriodKind.NONE:
        oldest = None
    done = {
        delivery.period: delivery.marker
        for delivery in ledger.deliveries.calendar(customer.name, feed.name, oldest)
        if delivery.status is Status.DELIVERED
    }
    labels = [
        state.period.label
        for state in states
        if state.period.label not in done or (state.marker and done[state.period.label] != state.marker)
    ]
    return labels, max((*done, *(state.period.label for state in states)), default=None)


def feeds_of(configuration: Configuration, customer: Customer, scope: Scope) -> list[Feed]:
    """The customer's feeds, or the one that was named. Raises ConfigError."""
    if scope.feed is not None and scope.feed not in customer.feeds:
        raise ConfigError(
            f"{customer.name} does not subscribe to the feed {scope.feed}",
            hint=f"its feeds: {', '.join(customer.feeds)}",
        )
    names = [scope.feed] if scope.feed is not None else list(customer.feeds)
    return [configuration.feeds[name] for name in names]


def source_failed(
    customer: Customer,
    feed: Feed,
    period: str,
    error: SourceError | Defect,
    problems: tuple[SourceProblem, ...] = (),
) -> DeliveryOutcome:
    telemetry.warn(Event.SOURCE_FAILED, feed=feed.name, **error.log_context())
    return failed(customer, feed, period, 0, error, outcome=str(Status.FAILED), problems=problems)


# --- What a person names ---------------------------------------------------------------------------------
