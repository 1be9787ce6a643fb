"""Running a customer: every due period of every feed, oldest first, each through ``deliver``."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.domain.errors import (
    AlreadyRunning,
    ConfigError,
    Defect,
    ExitCode,
    SourceError,
    SourceMissing,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.domain.periods import Period, PeriodKind, look_back_start
from xmode_transfer.domain.plan import PlanEntry
from xmode_transfer.domain.records import DeliveryOutcome, SourceProblem, Status
from xmode_transfer.domain.work_queue import customer_lease
from xmode_transfer.ports import Clock, PeriodState, Source, SourceFactory
from xmode_transfer.services import leasing, looking, superseded
from xmode_transfer.services.deliver import deliver
from xmode_transfer.services.planning import Planner
from xmode_transfer.services.sending import defect_of, failure_of
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

_CUSTOMERS_AT_ONCE = 8
_WAIT_SECONDS = 5.0
"""A daemon that finds nothing to deliver has the customer for a moment only, again and again."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which periods: all due ones, or those that a person named (labels). ``since`` and ``until`` are
    inclusive."""

    feed: str | None = None
    period: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def explicit(self) -> bool:
        return bool(self.period or self.since or self.until)


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


def worst(codes: Iterable[int]) -> int:
    """The exit code that stands for several: the first of interrupted, defect, usage, blocked, will retry,
    already running, done."""
    seen = set(codes)
    order = (
        ExitCode.INTERRUPTED,
        ExitCode.DEFECT,
        ExitCode.USAGE,
        ExitCode.BLOCKED,
        ExitCode.WILL_RETRY,
        ExitCode.ALREADY_RUNNING,
    )
    return next((code for code in order if code in seen), ExitCode.DONE)


def run_customer(
    bench: Workbench, configuration: Configuration, name: str, selection: Selection
) -> CustomerRun:
    """Delivers what is due for one customer, in order of periods. A refusal that the customer must mend ends
    the run, since every other period would meet it too; a failure of one period does not stop the next.
    Beside another process that goes on delivering to the customer for five seconds, nothing is done, and each
    feed is already running.
    Raises ConfigError for what is not configured."""
    customer = active_customer(configuration, name)
    feeds = feeds_of(configuration, customer, selection)
    started = bench.clock.monotonic()
    with telemetry.bind(customer=name):
        telemetry.log(Event.RUN_STARTED, feeds=list(customer.feeds), feed=selection.feed)
        try:
            lease, stop = customer_lease(name), bench.stop
            with leasing.held(bench.ledger, lease, bench.holder, wait_seconds=_WAIT_SECONDS, stop=stop):
                result = _run(bench, configuration, customer, selection)
        except AlreadyRunning as error:
            result = CustomerRun(name, [_running_elsewhere(customer, feed, error) for feed in feeds])
        telemetry.log(
            Event.RUN_FINISHED,
            outcome=result.outcome,
            deliveries=len(result.deliveries),
            uploaded=sum(outcome.uploaded for outcome in result.deliveries),
            sent_bytes=sum(outcome.bytes for outcome in result.deliveries),
            waiting=len(result.waiting),
            seconds=round(bench.clock.monotonic() - started, 3),
        )
    return result


def _running_elsewhere(customer: Customer, feed: Feed, error: AlreadyRunning) -> DeliveryOutcome:
    failure, code = failure_of(error), error.exit_code
    return DeliveryOutcome(
        customer.name, feed.name, "", 0, "already_running", failure=failure, exit_code=code
    )


def _run(
    bench: Workbench, configuration: Configuration, customer: Customer, selection: Selection
) -> CustomerRun:
    result = CustomerRun(customer.name, explicit=selection.explicit)
    left: set[str] = set()  # feeds whose further periods wait
    for feed, state in look(bench, configuration, customer, selection, result):
        if feed.name in left:
            continue
        if bench.stop.is_set():
            result.interrupted = True
            return result
        outcome = deliver_due(bench, customer, feed, state)
        result.deliveries.append(outcome)
        if outcome.ends_run:
            return result
        if holds_up_feed(outcome):
            left.add(feed.name)
    superseded.sweep(bench, customer, selection.feed)  # what a run that was killed has left to do
    return result


def look(
    bench: Workbench,
    configuration: Configuration,
    customer: Customer,
    selection: Selection,
    result: CustomerRun,
    *,
    reread: bool = True,
) -> Iterator[tuple[Feed, PeriodState]]:
    """What is due for the customer now, feed by feed, oldest period first. A source that cannot be listed, or
    not in whole, becomes a failed delivery in ``result``, and the rest goes on; so does a defect. ``reread``
    as in ``due``. What was seen is remembered in the ledger, for whoever asks how the customer fares."""
    for feed in feeds_of(configuration, customer, selection):
        try:
            states: Iterable[PeriodState] = due(
                bench.sources, bench.ledger, bench.clock, customer, feed, selection, result, reread=reread
            )
            if not selection.explicit:  # what a person named shows a part only
                states = looking.remembered(
                    bench.ledger, bench.clock, customer, feed, result.waiting, result.unfollowed, states
                )
            for state in states:
                yield feed, state
        except (SourceError, Defect) as error:
            result.deliveries.append(_source_failed(customer, feed, selection.period or "", error))
        problems = tuple(problem for name, problem in result.unfollowed if name == feed.name)
        if problems:
            partly = looking.partly_unreadable(feed, problems)
            result.deliveries.append(_source_failed(customer, feed, "", partly, problems))


def deliver_due(bench: Workbench, customer: Customer, feed: Feed, state: PeriodState) -> DeliveryOutcome:
    """Delivers one period that ``look`` has answered. As ``deliver``, but a source that cannot be read is an
    outcome too."""
    try:
        return deliver(bench, customer, feed, state)
    except SourceError as error:
        return _source_failed(customer, feed, state.period.label, error)


def holds_up_feed(outcome: DeliveryOutcome) -> bool:
    """Whether the feed's later periods have to wait: another process runs it and keeps its periods in order,
    or its source cannot be read."""
    return outcome.exit_code == ExitCode.ALREADY_RUNNING or not outcome.revision


def _source_failed(
    customer: Customer,
    feed: Feed,
    period: str,
    error: SourceError | Defect,
    problems: tuple[SourceProblem, ...] = (),
) -> DeliveryOutcome:
    telemetry.warn(Event.SOURCE_FAILED, feed=feed.name, **error.log_context())
    return DeliveryOutcome(
        customer.name,
        feed.name,
        period,
        0,
        str(Status.FAILED),
        failure=failure_of(error),
        problems=problems,
        exit_code=error.exit_code,
    )


def run_customers(
    bench: Workbench, configuration: Configuration, names: Iterable[str], selection: Selection
) -> list[CustomerRun | XmodeError]:
    """Runs several customers, a few at a time, and answers in the order of ``names``: a run, or what
    prevented it. One customer's trouble, a defect too, does not stop the rest; trouble with our own identity
    stops all, and is raised once."""
    with ThreadPoolExecutor(_CUSTOMERS_AT_ONCE, thread_name_prefix="customer") as threads:
        futures = [threads.submit(run_customer, bench, configuration, name, selection) for name in names]
        results: list[CustomerRun | XmodeError] = []
        for future in futures:
            try:
                results.append(future.result())
            except VendorIdentityError:
                bench.stop.set()
                raise
            except XmodeError as error:
                results.append(error)
            except Exception as error:  # noqa: BLE001 - it must not hide what the others came to
                telemetry.exception(Event.DEFECT)
                results.append(defect_of(error))
    return results


def preview(
    bench: Workbench, configuration: Configuration, name: str, selection: Selection, result: CustomerRun
) -> Iterator[tuple[Feed, PeriodState, Iterator[PlanEntry]]]:
    """What ``run_customer`` would do, period by period; writes nothing and calls nobody. Notes in ``result``
    what waits."""
    customer = active_customer(configuration, name)
    for feed in feeds_of(configuration, customer, selection):
        for state in _due(bench, customer, feed, selection, result):
            planner = Planner(
                customer, feed, state, bench.sources(feed), bench.ledger, bench.clock, bench.checksum_of
            )
            yield feed, state, planner.preview()


def active_customer(configuration: Configuration, name: str) -> Customer:
    """The customer, if it is configured rightly and on. Raises ConfigError that says what to do."""
    if name in configuration.broken:
        problems = tuple(str(problem) for problem in configuration.broken[name])
        raise ConfigError(
            f"the configuration of {name} is broken; nothing is delivered to it",
            hint="mend the lines named above, then `xmode-transfer config check`",
            problems=problems,
        )
    if name not in configuration.customers:
        known = ", ".join(sorted(configuration.customers)) or "none is configured"
        raise ConfigError(f"there is no customer {name}", hint=f"customers: {known}")
    customer = configuration.customers[name]
    if customer.state is not CustomerState.ACTIVE:
        raise ConfigError(
            f"{name} is {customer.state}: nothing is delivered to it",
            hint=f"set `state: active` in customers/{name}.yaml when it may be delivered to",
        )
    return customer


def feeds_of(configuration: Configuration, customer: Customer, selection: Selection) -> list[Feed]:
    """The customer's feeds, or the one that was named. Raises ConfigError."""
    if selection.feed is not None and selection.feed not in customer.feeds:
        raise ConfigError(
            f"{customer.name} does not subscribe to the feed {selection.feed}",
            hint=f"its feeds: {', '.join(customer.feeds)}",
        )
    names = [selection.feed] if selection.feed is not None else list(customer.feeds)
    return [configuration.feeds[name] for name in names]


def _due(
    bench: Workbench, customer: Customer, feed: Feed, selection: Selection, result: CustomerRun
) -> Iterator[PeriodState]:
    return due(bench.sources, bench.ledger, bench.clock, customer, feed, selection, result)


def due(
    sources: SourceFactory,
    ledger: Ledger,
    clock: Clock,
    customer: Customer,
    feed: Feed,
    selection: Selection,
    result: CustomerRun,
    *,
    reread: bool = True,
) -> Iterator[PeriodState]:
    """The periods to deliver, oldest first: complete at the source and inside the look-back window (or
    named), minus what the ledger has delivered or passed over and the source has not declared anew. Without a
    marker the source cannot declare anything: what was delivered is looked into again, unless ``reread`` is
    off. Raises SourceError, and Defect for what should not be possible: other feeds can go on."""
    try:
        yield from _due_of(sources(feed), ledger, clock, customer, feed, selection, result, reread=reread)
    except XmodeError:
        raise
    except Exception as error:
        telemetry.exception(Event.DEFECT, feed=feed.name)
        raise defect_of(error) from error


def _due_of(
    source: Source,
    ledger: Ledger,
    clock: Clock,
    customer: Customer,
    feed: Feed,
    selection: Selection,
    result: CustomerRun,
    *,
    reread: bool,
) -> Iterator[PeriodState]:
    since = _parse(feed, selection.since) if selection.since else None
    until = _parse(feed, selection.until) if selection.until else None
    oldest = look_back_start(feed.period, feed.look_back, clock.now())
    start = since.start if since else None if selection.explicit else oldest
    states: Iterator[PeriodState | SourceProblem]
    if selection.period is not None:
        period = _parse(feed, selection.period)
        found = source.state(period)
        if found is None:
            raise SourceMissing(
                f"the source of {feed.name} has nothing for {period.label}",
                hint=f"look below {feed.source}; the delivery is tried again when it is named again",
            )
        states = iter([found])
    else:
        states = source.periods(start)
    passed = {} if selection.explicit else ledger.sources.passed_over(customer.name, feed.name)
    for state in states:
        if isinstance(state, SourceProblem):
            if _is_asked_for(feed, state, start, until):
                result.unfollowed.append((feed.name, state))
            continue
        if (since and state.period < since) or (until and until < state.period):
            continue
        if not selection.explicit and feed.period is not PeriodKind.NONE and state.period.start < oldest:
            result.older += 1
        elif not state.complete:
            result.waiting.append((feed.name, state))
        elif passed.get(state.period.label) == state.marker:
            result.passed_over += 1
        elif selection.explicit or not _is_settled(ledger, customer, feed, state, reread=reread):
            yield state


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
