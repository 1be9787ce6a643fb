"""Running a customer: every due period of every feed, oldest first, each through ``deliver``."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from xmode_transfer import telemetry
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.delivery.deliver import deliver, failed
from xmode_transfer.delivery.due import CustomerRun, due, feeds_of, look, source_failed
from xmode_transfer.model.errors import AlreadyRunning, ExitCode, SourceError, VendorIdentityError, XmodeError
from xmode_transfer.model.jobs import customer_lease
from xmode_transfer.model.records import DeliveryOutcome
from xmode_transfer.model.verification import Scope
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import leasing, superseded
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.plan import PlanEntry
from xmode_transfer.transfer.planning import Planner
from xmode_transfer.transfer.sending import defect_of

_CUSTOMERS_AT_ONCE = 8
_WAIT_SECONDS = 5.0
"""A daemon that finds nothing to deliver has the customer for a moment only, again and again."""


def run_customer(context: Context, configuration: Configuration, name: str, scope: Scope) -> CustomerRun:
    """Delivers what is due for one customer, in order of periods. A refusal that the customer must mend ends
    the run, since every other period would meet it too; a failure of one period does not stop the next.
    Beside another process that goes on delivering to the customer for five seconds, nothing is done, and each
    feed is already running.
    Raises ConfigError for what is not configured."""
    customer = configuration.active_customer(name)
    feeds = feeds_of(configuration, customer, scope)
    started = context.clock.monotonic()
    with telemetry.bind(customer=name):
        telemetry.log(Event.RUN_STARTED, feeds=list(customer.feeds), feed=scope.feed)
        try:
            lease, stop = customer_lease(name), context.stop
            with leasing.held(context.ledger, lease, context.holder, wait_seconds=_WAIT_SECONDS, stop=stop):
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
    left: set[str] = set()  # feeds whose further periods wait
    for feed, state in look(context, configuration, customer, scope, result):
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
    superseded.sweep(context, customer, scope.feed)  # what a run that was killed has left to do
    return result


def deliver_due(context: Context, customer: Customer, feed: Feed, state: PeriodState) -> DeliveryOutcome:
    """Delivers one period that ``look`` has answered. As ``deliver``, but a source that cannot be read is an
    outcome too."""
    try:
        return deliver(context, customer, feed, state)
    except SourceError as error:
        return source_failed(customer, feed, state.period.label, error)


def holds_up_feed(outcome: DeliveryOutcome) -> bool:
    """Whether the feed's later periods have to wait: another process runs it and keeps its periods in order,
    or its source cannot be read."""
    return outcome.exit_code == ExitCode.ALREADY_RUNNING or not outcome.revision


def run_customers(
    context: Context, configuration: Configuration, names: Iterable[str], scope: Scope
) -> list[CustomerRun | XmodeError]:
    """Runs several customers, a few at a time, and answers in the order of ``names``: a run, or what
    prevented it. One customer's trouble, a defect too, does not stop the rest; trouble with our own identity
    stops all, and is raised once."""
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
            except Exception as error:  # noqa: BLE001 - it must not hide what the others came to
                telemetry.exception(Event.DEFECT)
                results.append(defect_of(error))
    return results


def preview(
    context: Context, configuration: Configuration, name: str, scope: Scope, result: CustomerRun
) -> Iterator[tuple[Feed, PeriodState, Iterator[PlanEntry]]]:
    """What ``run_customer`` would do, period by period; writes nothing and calls nobody. Notes in ``result``
    what waits."""
    customer = configuration.active_customer(name)
    for feed in feeds_of(configuration, customer, scope):
        for state in due(context.sources, context.ledger, context.clock, customer, feed, scope, result):
            yield feed, state, Planner(context, customer, feed, state, context.sources(feed)).preview()
