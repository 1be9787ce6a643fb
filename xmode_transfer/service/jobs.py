"""One customer's job: scan the sources for due periods, unless they are known, and deliver the first one."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed
from xmode_transfer.config.times import periods_to_skip
from xmode_transfer.delivery.due import CustomerRun, scan_sources
from xmode_transfer.delivery.run import deliver_due, holds_up_feed
from xmode_transfer.model.errors import ExitCode
from xmode_transfer.model.jobs import Job, JobResult, has_suspended, is_backfill, may_be_tried, suspends
from xmode_transfer.model.process import Clock, Progress
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Status
from xmode_transfer.model.upkeep import Scope
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
    """Thread-safe, with one job a customer. A job that was reassigned and still ends here does not affect one
    that began meanwhile, provided that ``rescan`` was called first."""

    def __init__(self, context: Context, configuration: Callable[[], Configuration]) -> None:
        self._context = context
        self._configuration = configuration
        self._backlogs: dict[str, _Backlog] = {}
        self._reread_at: dict[str, datetime] = {}

    def forget(self, name: str) -> None:
        self._backlogs.pop(name, None)
        self._reread_at.pop(name, None)

    def rescan(self, name: str, reread_at: datetime | None) -> None:
        """Drop the cached backlog: another process may have delivered. ``reread_at`` is when any process last
        scanned the sources without markers again."""
        self.forget(name)
        if reread_at is not None:
            self._reread_at[name] = reread_at

    def do(self, running: "RunningJob", on_delivery: Callable[[str, str], None]) -> JobResult:
        """Run one job. ``on_delivery`` receives the feed and the period before each delivery. Raises
        VendorIdentityError and LedgerError, which affect all customers."""
        name, configuration = running.customer, self._configuration()
        customer = configuration.customers.get(name)
        if customer is None or customer.state is not CustomerState.ACTIVE:
            self.forget(name)
            return JobResult(looked=True)
        backlog = self._backlogs.get(name)
        feeds = {feed: configuration.feeds[feed] for feed in customer.feeds}
        if backlog is None or backlog.customer != customer or backlog.feeds != feeds:
            backlog = self._backlogs[name] = self._scan(configuration, customer, feeds)
            backlog.skip_backoff = running.job.skip_backoff
        context = replace(self._context, stop=running.stop, progress=running)
        try:
            result = self._do(backlog, context, on_delivery)
        except BaseException:
            self._drop(backlog)  # the next source scan finds the period again
            raise
        if not result.again:
            self._drop(backlog)
        return replace(result, backfill=backlog.is_backfill, reread_at=self._reread_at.get(name))

    def _do(self, backlog: _Backlog, context: Context, on_delivery: Callable[[str, str], None]) -> JobResult:
        customer = backlog.customer
        while backlog.due:
            if context.stop.is_set():
                return JobResult(again=True)
            feed, state = backlog.due.popleft()
            if feed.name in backlog.held_up:
                continue
            latest = context.ledger.deliveries.latest(customer.name, feed.name, state.period.label)
            if (
                latest is not None
                and not backlog.skip_backoff
                and not may_be_tried(latest, context.clock.now())
            ):
                if has_suspended(latest):  # later periods would fail the same way
                    return _suspended(latest, latest.next_attempt_at)
                backlog.try_again(latest.next_attempt_at)
                continue
            on_delivery(feed.name, state.period.label)
            outcome = deliver_due(context, customer, feed, state)
            if outcome.exit_code == ExitCode.INTERRUPTED:
                backlog.due.appendleft((feed, state))
                return JobResult(again=True)
            if outcome.exit_code != ExitCode.DONE:
                now = context.clock.now()
                latest = context.ledger.deliveries.latest(customer.name, feed.name, state.period.label)
                next_at = latest.next_attempt_at if latest is not None else None
                if suspends(outcome):
                    return _suspended(outcome, next_at or context.backoff.next_attempt_at(None, now))
                if holds_up_feed(outcome):
                    backlog.held_up.add(feed.name)
                    next_at = now + SOURCE_RETRY
                backlog.try_again(next_at)
            if backlog.due:
                return JobResult(again=True, next_at=backlog.next_at)
        return JobResult(looked=not backlog.held_up, next_at=backlog.next_at)

    def _drop(self, backlog: _Backlog) -> None:
        if self._backlogs.get(backlog.customer.name) is backlog:
            del self._backlogs[backlog.customer.name]

    def _scan(self, configuration: Configuration, customer: Customer, feeds: Mapping[str, Feed]) -> _Backlog:
        now = self._context.clock.now()
        read_at = self._reread_at.get(customer.name)
        reread = read_at is None or not read_at <= now < read_at + REREAD
        result = CustomerRun(customer.name)
        with telemetry.bind(customer=customer.name):
            due = deque(scan_sources(self._context, configuration, customer, Scope(), result, reread=reread))
        backlog = _Backlog(customer, feeds, due)
        if reread:
            self._reread_at[customer.name] = now
        # A source that is unreadable only in part does not hold up the feed's other periods.
        unlisted = {failed.feed for failed in result.deliveries}
        backlog.held_up |= unlisted - {feed for feed, _ in result.unfollowed}
        if unlisted:
            backlog.try_again(now + SOURCE_RETRY)
        return backlog


def _suspended(last: Delivery | DeliveryOutcome, next_at: datetime | None) -> JobResult:
    status = last.status if isinstance(last, Delivery) else last.outcome
    return JobResult(
        next_at=next_at,
        feed=last.feed,
        period=last.period,
        reason=last.failure.message if last.failure is not None else str(status),
        refused=status == Status.BLOCKED,
    )


def skip_missed(context: Context, configuration: Configuration, name: str) -> None:
    """Record which due periods to skip after a downtime, by the customer's ``catch_up``. Sources that cannot
    be read now are not skipped."""
    customer, ledger, result = configuration.customers[name], context.ledger, CustomerRun(name)
    found: dict[str, list[PeriodState]] = {}
    for feed, state in scan_sources(context, configuration, customer, Scope(), result, reread=False):
        found.setdefault(feed.name, []).append(state)
    for feed_name, states in found.items():
        due = {state.period: state.marker for state in states}
        latest = {period: ledger.deliveries.latest(name, feed_name, period.label) for period in due}
        begun = {period for period, last in latest.items() if last and last.status is not Status.DELIVERED}
        skips = periods_to_skip(customer.catch_up, list(due), begun)
        skipped = {period.label: due[period] for period in skips}
        if skipped:
            ledger.sources.skip(name, feed_name, skipped, context.clock.now())
        for label in skipped:
            telemetry.warn(
                Event.PERIOD_SKIPPED,
                customer=name,
                feed=feed_name,
                period=label,
                catch_up=str(customer.catch_up),
            )


class Slot(Enum):
    REGULAR = auto()
    SUSPENDED = auto()  # its customer is suspended
    STALLED = auto()  # started in a regular slot and makes no progress


class RunningJob:
    """A job in a slot. ``stop`` ends it where it can be resumed. Implements ``Progress``."""

    def __init__(self, job: Job, slot: Slot, progress: Progress, clock: Clock) -> None:
        self.job = job
        self.customer = job.customer
        self.slot = slot
        self.stop = threading.Event()
        self.began_at = self.moved_at = clock.monotonic()
        self.sent_bytes = 0
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()

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
