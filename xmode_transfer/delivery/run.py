"""Run a customer: deliver every due period of every feed, oldest first."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.delivery.deliver import deliver, failed
from xmode_transfer.delivery.due import CustomerRun, Scanner, feeds_of, scan_sources, source_failed
from xmode_transfer.model.errors import AlreadyRunning, ExitCode, SourceError, VendorIdentityError, XmodeError
from xmode_transfer.model.jobs import customer_lease
from xmode_transfer.model.records import DeliveryOutcome
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import removing
from xmode_transfer.transfer.context import Context, held
from xmode_transfer.transfer.plan import PlanEntry
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


def preview(
    context: Context, configuration: Configuration, name: str, scope: Scope, result: CustomerRun
) -> Iterator[tuple[Feed, PeriodState, Iterator[PlanEntry]]]:
    """Yield what ``run_customer`` would do, and add the periods that wait to ``result``. Writes nothing and
    sends no request."""
    customer = configuration.active_customer(name)
    scanner = Scanner(context.sources, context.ledger, context.clock)
    for feed in feeds_of(configuration, customer, scope):
        for state in scanner.due(customer, feed, scope, result):
            yield feed, state, Planner(context, customer, feed, state, context.sources(feed)).preview()
