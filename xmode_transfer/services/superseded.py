"""Removing what no manifest ever named: keys of revisions that were never published, once another is.

A reader of manifests never sees them, a reader of directories does. The ledger says which they are, so a
sweep that is killed, or cannot be done, is done by a later one. Only what is as we put it is removed, by the
same hands as a cleanup's (``services.removing``); what the bucket does not let go is remembered, and tried
again by the next cleanup alone.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, islice

from xmode_transfer import telemetry
from xmode_transfer.domain.acts import Act, ActKind, Removal, RemovalOutcome
from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.errors import AccessDenied, AlreadyRunning, XmodeError
from xmode_transfer.domain.policy import Step
from xmode_transfer.domain.records import DeliveredKey, Lease
from xmode_transfer.services import acts, leasing
from xmode_transfer.services.destination import Destination
from xmode_transfer.services.expiring import ExpiringPeriod, states_of
from xmode_transfer.services.removing import Removed, Remover
from xmode_transfer.services.sending import failure_of
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

REASON = "no manifest names it: its revision was superseded"
_BATCH = 1000


def sweep(
    bench: Workbench, customer: Customer, feed: str | None = None, *, refused: bool = False
) -> Removed | None:
    """Removes them, of one feed or of all; ``refused`` also tries again what the bucket did not let go
    before. None where there are none, or another process removes them. Whatever prevents it is logged and
    hurts no delivery: a later sweep goes on."""
    with telemetry.bind(customer=customer.name):
        try:
            found = bench.ledger.keys.superseded(customer.name, feed, refused=refused)
            if not found:
                return None
            with leasing.held(bench.ledger, f"superseded/{customer.name}", bench.holder) as lease:
                return _remove(bench, customer, lease, found)
        except AlreadyRunning:
            return None
        except XmodeError as error:
            telemetry.warn(Event.SUPERSEDED_KEPT, **error.log_context())
            return None


def _remove(bench: Workbench, customer: Customer, lease: Lease, found: Sequence[DeliveredKey]) -> Removed:
    ledger, now = bench.ledger, bench.clock.now()
    for dead in acts.died(ledger.operations.newest(customer.name, ActKind.SUPERSEDED, None)):
        ledger.operations.forget_planned(lease, dead.id)  # what it has removed, this one finds gone
        ledger.operations.finish(lease, replace(dead, finished_at=now, outcome=acts.INTERRUPTED))
    act = Act(
        id=f"superseded-{customer.name}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        kind=ActKind.SUPERSEDED,
        customer=customer.name,
        holder=bench.holder,
        person="xmode-transfer",
        reason=REASON,
        started_at=now,
    )
    ledger.operations.start(lease, act)
    removed = Removed()

    def record(some: Sequence[Removal]) -> None:
        ledger.operations.record_removals(lease, act.id, some)

    planned = (_removal(item) for item in found)
    while some := list(islice(planned, _BATCH)):
        record([item._replace(at=now) for item in some])
    done = act
    size = sum(item.size or 0 for item in found)
    bench.progress.delivery_started(customer.name, found[0].feed, "superseded", len(found), size)
    try:
        with Destination(bench, customer, Step.CLEANUP) as store:
            Remover(bench, customer, store, act.id, record, removed).remove(_periods(bench, customer, found))
    except XmodeError as error:
        done = replace(act, failure=failure_of(error))
        if isinstance(error, AccessDenied):  # some stores say it of all keys at once
            left = ledger.operations.removals(act.id, outcomes=[RemovalOutcome.PLANNED])
            while some := list(islice(left, _BATCH)):
                record([item._replace(outcome=RemovalOutcome.RETAINED) for item in some])
                for item in some:
                    removed.count(item._replace(outcome=RemovalOutcome.RETAINED))
        else:
            raise
    finally:
        bench.progress.delivery_finished()
        ledger.operations.forget_planned(lease, act.id)
        outcome = "removed" if removed.ours else "nothing"
        ledger.operations.finish(
            lease,
            replace(
                done,
                finished_at=bench.clock.now(),
                outcome=outcome,
                objects=removed.ours,
                bytes=removed.our_bytes,
                failed=len(found) - removed.ours,
            ),
        )
    telemetry.log(
        Event.SUPERSEDED_REMOVED,
        act=act.id,
        **{str(outcome): count for outcome, count in removed.keys.items()},
    )
    return removed


def _periods(bench: Workbench, customer: Customer, found: Sequence[DeliveredKey]) -> list[ExpiringPeriod]:
    periods = []
    for (feed, period), _ in groupby(found, lambda item: (item.feed, item.period)):
        states = states_of(bench.ledger.deliveries.find(customer.name, feed, period))
        periods.append(ExpiringPeriod(feed, period, REASON, states))
    return periods


def _removal(item: DeliveredKey) -> Removal:
    return Removal(
        item.key,
        item.feed,
        item.period,
        item.revision,
        manifest=False,
        size=item.size or 0,
        etag=item.etag or "",
        delivered_at=item.delivered_at,
        reason=REASON,
        outcome=RemovalOutcome.PLANNED,
        at=item.delivered_at,
    )
