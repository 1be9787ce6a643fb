"""One customer's job: scan the sources for due periods, unless they are known, and deliver the first one.

Uses the functions of ``run`` (delivery/run.py), one period at a time.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.config.times import passed_over
from xmode_transfer.delivery.due import CustomerRun, scan_sources
from xmode_transfer.delivery.run import deliver_due, holds_up_feed
from xmode_transfer.model.errors import ConfigError, ExitCode, LedgerError, VendorIdentityError, XmodeError
from xmode_transfer.model.jobs import Job, JobResult, breaks_off, broke_off, is_backfill, may_be_tried
from xmode_transfer.model.periods import Period
from xmode_transfer.model.process import Clock, Progress
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Status
from xmode_transfer.model.verification import Scope
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context

REREAD = timedelta(hours=1)
"""How often sources without markers are scanned again for corrections of delivered periods."""
SOURCE_RETRY = timedelta(minutes=1)
"""Delay before a source that could not be listed is scanned again."""


@dataclass(slots=True)
class _Backlog:
    """Due periods of the last source scan, with the customer and its feeds at that time."""

    customer: Customer
    feeds: Mapping[str, Feed]
    due: deque[tuple[Feed, PeriodState]]
    skip_backoff: bool = False  # try at once, whatever the backoff
    held_up: set[str] = field(default_factory=set)
    next_at: datetime | None = None

    @property
    def is_backfill(self) -> bool:
        starts: dict[str, list[datetime]] = {}
        for feed, state in self.due:
            starts.setdefault(feed.name, []).append(state.period.start)
        return any(is_backfill(len(due), max(due) - min(due)) for due in starts.values())

    def try_again(self, at: datetime | None) -> None:
        if at is not None and (self.next_at is None or at < self.next_at):
            self.next_at = at


class Jobs:
    """Thread-safe. Each customer has one job at a time. A job that was reassigned and still ends here does
    not affect a job that began meanwhile, provided that ``rescan`` was called first."""

    def __init__(self, context: Context, configuration: Callable[[], Configuration]) -> None:
        self._context = context
        self._configuration = configuration
        self._backlogs: dict[str, _Backlog] = {}
        self._reread_at: dict[str, datetime] = {}
        self._skipping_backoff: set[str] = set()

    def forget(self, name: str) -> None:
        """Drop what is cached of a customer."""
        self._backlogs.pop(name, None)
        self._reread_at.pop(name, None)

    def rescan(self, name: str, reread_at: datetime | None) -> None:
        """Drop the cached backlog: another process may have delivered to the customer. ``reread_at`` is when
        any process last rescanned its sources without markers."""
        self.forget(name)
        if reread_at is not None:
            self._reread_at[name] = reread_at

    def reread_at(self, name: str) -> datetime | None:
        """When the customer's sources without markers were last rescanned."""
        return self._reread_at.get(name)

    def skip_backoff(self, name: str) -> None:
        """Ignore backoff at the customer's next source scan."""
        self._skipping_backoff.add(name)

    def do(
        self,
        name: str,
        stop: threading.Event,
        progress: Progress,
        on_delivery: Callable[[str, str], None],
    ) -> JobResult:
        """Run one job. ``on_delivery`` receives the feed and the period before each delivery; ``stop`` ends
        the job where it can be resumed. Raises what affects all customers: VendorIdentityError,
        LedgerError."""
        configuration = self._configuration()
        customer = configuration.customers.get(name)
        if customer is None or customer.state is not CustomerState.ACTIVE:
            self.forget(name)
            return JobResult(looked=True)
        backlog = self._backlogs.get(name)
        feeds = {feed: configuration.feeds[feed] for feed in customer.feeds}
        if backlog is None or backlog.customer != customer or backlog.feeds != feeds:
            backlog = self._backlogs[name] = self._scan(configuration, customer, feeds)
        try:
            return self._do(
                name, customer, backlog, replace(self._context, stop=stop, progress=progress), on_delivery
            )
        except BaseException:
            self._drop(name, backlog)  # the next source scan finds the period again
            raise

    def _do(
        self,
        name: str,
        customer: Customer,
        backlog: _Backlog,
        context: Context,
        on_delivery: Callable[[str, str], None],
    ) -> JobResult:
        stop = context.stop
        while backlog.due:
            if stop.is_set():
                return JobResult(again=True, backfill=backlog.is_backfill)
            feed, state = backlog.due.popleft()
            latest = context.ledger.deliveries.latest(name, feed.name, state.period.label)
            if feed.name in backlog.held_up:
                continue
            if (
                latest is not None
                and not backlog.skip_backoff
                and not may_be_tried(latest, context.clock.now())
            ):
                if broke_off(latest):  # later periods would fail the same way
                    self._drop(name, backlog)
                    return replace(_still_suspended(latest), backfill=backlog.is_backfill)
                backlog.try_again(latest.next_attempt_at)
                continue
            on_delivery(feed.name, state.period.label)
            outcome = deliver_due(context, customer, feed, state)
            if outcome.exit_code == ExitCode.INTERRUPTED:
                backlog.due.appendleft((feed, state))
                return JobResult(again=True, backfill=backlog.is_backfill)
            if breaks_off(outcome):
                self._drop(name, backlog)
                return replace(self._suspended(outcome), backfill=backlog.is_backfill)
            self._note(backlog, feed, outcome)
            if backlog.due:
                return JobResult(again=True, next_at=backlog.next_at, backfill=backlog.is_backfill)
        self._drop(name, backlog)
        return JobResult(looked=not backlog.held_up, next_at=backlog.next_at)

    def _drop(self, name: str, backlog: _Backlog) -> None:
        if self._backlogs.get(name) is backlog:
            del self._backlogs[name]

    def skip_missed(self, name: str) -> None:
        """Record which due periods to skip after a downtime, by the customer's ``catch_up``. Sources that
        cannot be read now are not skipped."""
        configuration = self._configuration()
        customer = configuration.customers[name]
        due: dict[str, list[PeriodState]] = {}
        for feed, state in scan_sources(
            self._context, configuration, customer, Scope(), CustomerRun(name), reread=False
        ):
            due.setdefault(feed.name, []).append(state)
        for feed_name, states in due.items():
            marks = {state.period: state.marker for state in states}
            begun = {period for period in marks if self._is_begun(name, feed_name, period)}
            passed = passed_over(customer.catch_up, list(marks), begun)
            if not passed:
                continue
            markers = {period.label: marks[period] for period in passed}
            self._context.ledger.sources.skip(name, feed_name, markers, self._context.clock.now())
            for label in markers:
                telemetry.warn(
                    Event.PERIOD_SKIPPED,
                    customer=name,
                    feed=feed_name,
                    period=label,
                    catch_up=str(customer.catch_up),
                )

    def _is_begun(self, name: str, feed: str, period: Period) -> bool:
        latest = self._context.ledger.deliveries.latest(name, feed, period.label)
        return latest is not None and latest.status is not Status.DELIVERED

    def _scan(self, configuration: Configuration, customer: Customer, feeds: Mapping[str, Feed]) -> _Backlog:
        now = self._context.clock.now()
        read_at = self._reread_at.get(customer.name)
        reread = read_at is None or not read_at <= now < read_at + REREAD
        result = CustomerRun(customer.name)
        with telemetry.bind(customer=customer.name):
            due = deque(scan_sources(self._context, configuration, customer, Scope(), result, reread=reread))
        backlog = _Backlog(customer, feeds, due, skip_backoff=customer.name in self._skipping_backoff)
        self._skipping_backoff.discard(customer.name)
        if reread:
            self._reread_at[customer.name] = now
        unlisted = {
            failed.feed for failed in result.deliveries
        }  # or only partly: then the other periods go on
        backlog.held_up |= unlisted - {feed for feed, _ in result.unfollowed}
        if unlisted:
            backlog.try_again(now + SOURCE_RETRY)
        return backlog

    def _note(self, backlog: _Backlog, feed: Feed, outcome: DeliveryOutcome) -> None:
        now = self._context.clock.now()
        if holds_up_feed(outcome):
            backlog.held_up.add(feed.name)
            backlog.try_again(now + SOURCE_RETRY)
        elif outcome.exit_code != ExitCode.DONE:
            latest = self._latest(outcome)
            backlog.try_again(latest.next_attempt_at if latest else None)

    def _suspended(self, outcome: DeliveryOutcome) -> JobResult:
        latest = self._latest(outcome)
        now = self._context.clock.now()
        next_at = latest.next_attempt_at if latest is not None else None
        return JobResult(
            next_at=next_at or self._context.backoff.next_attempt_at(None, now),
            feed=outcome.feed,
            period=outcome.period,
            reason=outcome.failure.message if outcome.failure is not None else outcome.outcome,
            refused=outcome.outcome == Status.BLOCKED,
        )

    def _latest(self, outcome: DeliveryOutcome) -> Delivery | None:
        return self._context.ledger.deliveries.latest(outcome.customer, outcome.feed, outcome.period)


def _still_suspended(delivery: Delivery) -> JobResult:
    assert delivery.failure is not None
    return JobResult(
        next_at=delivery.next_attempt_at,
        feed=delivery.feed,
        period=delivery.period,
        reason=delivery.failure.message,
        refused=delivery.status is Status.BLOCKED,
    )


class Watched:
    """A job's progress: forwards events, and records the time of the last progress and the bytes sent."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        self.moved_at = clock.monotonic()
        self.sent_bytes = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        self._progress.delivery_started(customer, feed, period, objects, total_bytes)

    def bytes_sent(self, count: int) -> None:
        with self._lock:
            self.moved_at = self._clock.monotonic()
            self.sent_bytes += count
        self._progress.bytes_sent(count)

    def bytes_resumed(self, count: int) -> None:
        self._progress.bytes_resumed(count)

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        if outcome == "delivered":
            self.moved_at = self._clock.monotonic()
        self._progress.object_finished(name, size, outcome)

    def delivery_finished(self) -> None:
        self._progress.delivery_finished()


class Slot(Enum):
    """The kind of slot that a job runs in."""

    REGULAR = auto()
    SUSPENDED = auto()  # its customer is suspended
    STALLED = auto()  # started in a regular slot and makes no progress


@dataclass(slots=True, eq=False)
class RunningJob:
    """A job in a slot. ``stop`` ends it where it can be resumed."""

    job: Job
    slot: Slot
    watched: Watched
    began_at: float  # monotonic seconds
    stop: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def beginning(job: Job, slot: Slot, context: Context) -> "RunningJob":
        return RunningJob(job, slot, Watched(context.progress, context.clock), context.clock.monotonic())

    @property
    def customer(self) -> str:
        return self.job.customer


def result_of(
    name: str, deliver: Callable[[], JobResult], context: Context, on_outage: Callable[[XmodeError], object]
) -> JobResult:
    """Run a job and return its result, whatever it raises. ``on_outage`` receives errors that affect all
    customers."""
    try:
        return deliver()
    except (VendorIdentityError, LedgerError) as error:
        on_outage(error)
        return JobResult(again=True)  # queued again, and run after the outage
    except ConfigError as error:
        telemetry.warn(Event.JOB_FAILED, customer=name, **error.log_context())
        return JobResult()
    except XmodeError as error:  # a lease that was taken over: its new holder continues
        telemetry.warn(Event.JOB_FAILED, customer=name, **error.log_context())
        return _later(context, error.message)
    except Exception as error:  # noqa: BLE001 - a defect ends this customer's job, not the process
        telemetry.exception(Event.DEFECT, customer=name)
        return _later(context, f"{type(error).__name__}: {error}")


def _later(context: Context, reason: str) -> JobResult:
    return JobResult(next_at=context.backoff.next_attempt_at(None, context.clock.now()), reason=reason)
