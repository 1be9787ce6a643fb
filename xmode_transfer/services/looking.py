"""Remembering what was seen at a source, so that health can be told from the ledger alone."""

from collections.abc import Callable, Iterable, Sequence

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.config import Customer, Feed
from xmode_transfer.domain.errors import Defect, SourceError, SourcePartlyUnreadable
from xmode_transfer.domain.keys import readable
from xmode_transfer.domain.looks import KEPT_PERIODS, Look, Waiting
from xmode_transfer.domain.periods import PeriodKind
from xmode_transfer.domain.records import SourceProblem, Status
from xmode_transfer.ports import Clock, PeriodState
from xmode_transfer.services.sending import failure_of


def remembered(
    ledger: Ledger,
    clock: Clock,
    customer: Customer,
    feed: Feed,
    waiting: Sequence[tuple[str, PeriodState]],
    unfollowed: Sequence[tuple[str, SourceProblem]],
    states: Iterable[PeriodState],
    record: Callable[[Look], object] | None = None,
) -> list[PeriodState]:
    """Walks through what is due by ``services.run.due`` (``waiting`` and ``unfollowed`` are where that notes
    incomplete periods and what cannot be followed, by feed), remembers the look (by ``record``, else in the
    ledger), and answers what is due. A source that cannot be looked at is remembered too, and its error
    raised on."""
    record = record or ledger.sources.record
    looked_at = clock.now()
    try:
        found = list(states)
    except (SourceError, Defect) as error:
        record(Look(customer.name, feed.name, looked_at, looked_at, failure=failure_of(error)))
        raise
    problems = [problem for name, problem in unfollowed if name == feed.name]
    incomplete = [Waiting(state.period.label, state.reason) for name, state in waiting if name == feed.name]
    due, newest = _undelivered(ledger, customer, feed, found)
    record(
        Look(
            customer.name,
            feed.name,
            looked_at,
            looked_at,
            newest,
            len(due),
            tuple(due[:KEPT_PERIODS]),
            waiting_count=len(incomplete),
            waiting=tuple(incomplete[-KEPT_PERIODS:]),
            failure=failure_of(partly_unreadable(feed, problems)) if problems else None,
        )
    )
    return found


def partly_unreadable(feed: Feed, problems: Sequence[SourceProblem]) -> SourcePartlyUnreadable:
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
