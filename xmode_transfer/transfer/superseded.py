"""Removing what no manifest ever named: keys of revisions that were never published, once another is.

A reader of manifests never sees them, a reader of directories does. The ledger says which they are, so a
sweep that is killed, or cannot be done, is done by a later one. Only what is as we put it is removed, by the
same hands as a cleanup's (``transfer.removing``); what the bucket does not let go is remembered, and tried
again by the next cleanup alone.
"""

from collections.abc import Sequence
from itertools import groupby

from xmode_transfer import telemetry
from xmode_transfer.aws.policy import Step
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import AccessDenied, AlreadyRunning, XmodeError
from xmode_transfer.model.operations import OperationKind, RemovalOutcome
from xmode_transfer.model.records import DeliveredKey
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.destination import opened
from xmode_transfer.transfer.operations import Operation, Removed, begun
from xmode_transfer.transfer.removals import ExpiringPeriod, planned_removal, states_of
from xmode_transfer.transfer.removing import Remover, in_batches
from xmode_transfer.transfer.sending import failure_of

REASON = "no manifest names it: its revision was superseded"


def sweep(
    context: Context, customer: Customer, feed: str | None = None, *, refused: bool = False
) -> Removed | None:
    """Removes them, of one feed or of all; ``refused`` also tries again what the bucket did not let go
    before. None where there are none, or another process removes them. Whatever prevents it is logged and
    hurts no delivery: a later sweep goes on."""
    with telemetry.bind(customer=customer.name):
        try:
            found = context.ledger.keys.superseded(customer.name, feed, refused=refused)
            if not found:
                return None
            kind, person = OperationKind.SUPERSEDED, "xmode-transfer"
            # what those before it have removed, this one finds gone
            with begun(context, kind, customer.name, person=person, reason=REASON) as operation:
                return _remove(context, customer, operation, found)
        except AlreadyRunning:
            return None
        except XmodeError as error:
            telemetry.warn(Event.SUPERSEDED_KEPT, **error.log_context())
            return None


def _remove(
    context: Context, customer: Customer, operation: Operation, found: Sequence[DeliveredKey]
) -> Removed:
    now = context.clock.now()
    planned = (planned_removal(item, None, REASON, now) for item in found)
    for some in in_batches(item._replace(outcome=RemovalOutcome.PLANNED) for item in planned):
        operation.record(some)
    removed, failure = Removed(), None
    size = sum(item.size or 0 for item in found)
    context.progress.delivery_started(customer.name, found[0].feed, "superseded", len(found), size)
    try:
        with opened(context, customer, Step.CLEANUP) as store:
            Remover(context, customer, store, operation, removed).remove(_periods(context, customer, found))
    except XmodeError as error:
        failure = failure_of(error)
        if not isinstance(error, AccessDenied):
            raise
        # some stores say it of all keys at once
        left = context.ledger.operations.removals(operation.id, outcomes=[RemovalOutcome.PLANNED])
        for some in in_batches(item._replace(outcome=RemovalOutcome.RETAINED) for item in left):
            operation.record(some)
            for item in some:
                removed.count(item)
    finally:
        context.progress.delivery_finished()
        operation.finish(
            "removed" if removed.ours else "nothing",
            objects=removed.ours,
            size=removed.our_bytes,
            failed=len(found) - removed.ours,
            failure=failure,
        )
    telemetry.log(
        Event.SUPERSEDED_REMOVED,
        act=operation.id,
        **{str(outcome): count for outcome, count in removed.keys.items()},
    )
    return removed


def _periods(context: Context, customer: Customer, found: Sequence[DeliveredKey]) -> list[ExpiringPeriod]:
    periods = []
    for (feed, period), _ in groupby(found, lambda item: (item.feed, item.period)):
        states = states_of(context.ledger.deliveries.find(customer.name, feed, period))
        periods.append(ExpiringPeriod(feed, period, REASON, states))
    return periods
