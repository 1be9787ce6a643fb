"""Run a customer: deliver every due period of every feed, oldest first."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.delivery import judging
from xmode_transfer.delivery.deliver import deliver, failed
from xmode_transfer.delivery.due import (
    CustomerRun,
    Scanner,
    feeds_of,
    named_state,
    scan_sources,
    source_failed,
)
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.errors import (
    AlreadyRunning,
    ConfigError,
    ExitCode,
    SourceError,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.jobs import customer_lease
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import FINISHED, DeliveryOutcome, SourceFile
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.sources.interface import PeriodState, SourceFactory
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import removing
from xmode_transfer.transfer.context import Context, held
from xmode_transfer.transfer.plan import Action, PlanEntry, ScanTotals
from xmode_transfer.transfer.planning import Planner
from xmode_transfer.transfer.sending import defect_of

_CUSTOMERS_AT_ONCE = 8
_WAIT_SECONDS = 5.0  # a daemon that finds nothing to deliver holds the customer's lease only for a moment


def run_customer(context: Context, configuration: Configuration, name: str, scope: Scope) -> CustomerRun:
    """Deliver everything that is due for one customer, oldest period first. A refusal that the customer has
    to fix ends the run: every other period would fail the same way. If another process still delivers to the
    customer after five seconds, each feed is reported as already running. Raises ConfigError."""
    customer = configuration.active_customer(name)
    feeds = feeds_of(configuration, customer, scope)
    started = context.clock.monotonic()
    with telemetry.bind(customer=name):
        telemetry.log(Event.RUN_STARTED, feeds=list(customer.feeds), feed=scope.feed)
        lease, stop = customer_lease(name), context.stop
        try:
            with held(context.ledger, lease, context.holder, wait_seconds=_WAIT_SECONDS, stop=stop):
                result = _run(context, configuration, customer, scope)
        except AlreadyRunning as error:
            elsewhere = [failed(customer, feed, "", 0, error, outcome="already_running") for feed in feeds]
            result = CustomerRun(name, elsewhere)
        telemetry.log(
            Event.RUN_FINISHED,
            outcome=result.outcome,
            deliveries=len(result.deliveries),
            uploaded=sum(outcome.uploaded for outcome in result.deliveries),
            sent_bytes=sum(outcome.bytes for outcome in result.deliveries),
            waiting=len(result.waiting),
            seconds=round(context.clock.monotonic() - started, 3),
        )
    return result


def _run(context: Context, configuration: Configuration, customer: Customer, scope: Scope) -> CustomerRun:
    result = CustomerRun(customer.name, explicit=not scope.is_whole)
    left: set[str] = set()  # feeds whose later periods have to wait
    for feed, state in scan_sources(context, configuration, customer, scope, result):
        if feed.name in left:
            continue
        if context.stop.is_set():
            result.interrupted = True
            return result
        outcome = deliver_due(context, customer, feed, state)
        result.deliveries.append(outcome)
        if outcome.ends_run:
            return result
        if holds_up_feed(outcome):
            left.add(feed.name)
    removing.sweep(context, customer, scope.feed)  # finishes what a killed run left undone
    return result


def deliver_due(context: Context, customer: Customer, feed: Feed, state: PeriodState) -> DeliveryOutcome:
    """Like ``deliver``, but an unreadable source is an outcome too."""
    try:
        return deliver(context, customer, feed, state)
    except SourceError as error:
        return source_failed(customer, feed, state.period.label, error)


def holds_up_feed(outcome: DeliveryOutcome) -> bool:
    """Return True if later periods have to wait: another process delivers the feed, or it is unreadable."""
    return outcome.exit_code == ExitCode.ALREADY_RUNNING or not outcome.revision


def run_customers(
    context: Context, configuration: Configuration, names: Iterable[str], scope: Scope
) -> list[CustomerRun | XmodeError]:
    """Run several customers, a few at a time. Return, in the order of ``names``, a run or the error that
    prevented it. An error of the vendor's identity stops all, and is raised once."""
    with ThreadPoolExecutor(_CUSTOMERS_AT_ONCE, thread_name_prefix="customer") as threads:
        futures = [threads.submit(run_customer, context, configuration, name, scope) for name in names]
        results: list[CustomerRun | XmodeError] = []
        for future in futures:
            try:
                results.append(future.result())
            except VendorIdentityError:
                context.stop.set()
                raise
            except XmodeError as error:
                results.append(error)
            except Exception as error:  # noqa: BLE001 - it must not hide the results of the others
                telemetry.exception(Event.DEFECT)
                results.append(defect_of(error))
    return results


class PeriodPreview:
    """What ``run_customer`` would do with one period: first the ``entries`` of the plan, then the verdict."""

    def __init__(self, context: Context, customer: Customer, feed: Feed, state: PeriodState) -> None:
        self.feed, self.state = feed, state
        self._context, self._customer = context, customer
        source = context.sources(feed)
        self._screen = None
        if feed.period is PeriodKind.NONE:
            self._screen = judging.Screen(context, customer, feed, source, records=False)
        self._planner = Planner(context, customer, feed, state, source, self._screen)
        self._survey = ScanTotals()
        self._has_news = False

    def entries(self) -> Iterator[PlanEntry]:
        for entry in self._planner.preview(self._survey):
            self._has_news = self._has_news or entry.action is not Action.SKIP
            yield entry

    def verdict(self) -> judging.VerdictPreview | None:
        """Return the verdict; None if nothing is to deliver. Raises SourceError."""
        latest = self._planner.latest()
        if latest is not None and latest.status in FINISHED and not self._has_news and self._screen is None:
            return None
        files = self._planner.to_upload()
        judge = judging.judge_of(self._context, self.feed, self._planner.source)
        period, customer = self.state.period, self._customer.name
        return judging.preview_verdict(judge, period, self._survey, files, customer, self._screen)


def preview(
    context: Context, configuration: Configuration, name: str, scope: Scope, result: CustomerRun
) -> Iterator[PeriodPreview]:
    """Yield what ``run_customer`` would do, and add the periods that wait to ``result``. Writes nothing and
    sends no request."""
    customer = configuration.active_customer(name)
    scanner = Scanner(context.sources, context.ledger, context.clock)
    for feed in feeds_of(configuration, customer, scope):
        for state in scanner.due(customer, feed, scope, result):
            yield PeriodPreview(context, customer, feed, state)


def judge_period(
    configuration: Configuration,
    sources: SourceFactory,
    ledger: Ledger | None,
    clock: Clock,
    feed_name: str,
    label: str,
) -> tuple[PeriodState, judging.VerdictPreview]:
    """Judge a period by its feed's checks, complete or not, as for a new customer. Writes nothing. Raises
    ConfigError and SourceError."""
    feed = configuration.feeds.get(feed_name)
    if feed is None:
        hint = f"feeds: {', '.join(sorted(configuration.feeds))}"
        raise ConfigError(f"there is no feed {feed_name}", hint=hint)
    source = sources(feed)
    state = named_state(source, feed, label)
    scanned = ScanTotals(source.scan(state.period))
    files = (file for file in source.scan(state.period) if isinstance(file, SourceFile))
    judge = judging.Judge(feed, source, ledger, clock)
    return state, judging.preview_verdict(judge, state.period, scanned, files)
