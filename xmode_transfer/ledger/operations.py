"""Operations on customers' buckets, and the keys that they removed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, and_, delete, or_, select, tuple_, update

from xmode_transfer.ledger import deliveries
from xmode_transfer.ledger.leases import Subject, only, unknown
from xmode_transfer.ledger.tables import ACT, REMOVAL, acts, periods, removals
from xmode_transfer.ledger.tables.base import text_of
from xmode_transfer.model.records import Lease
from xmode_transfer.model.upkeep import INTENDED, OperationKind, OperationRecord, Removal, RemovalOutcome

_PAGE = 1_000


class Operations(Subject):
    """What was done to customers' buckets besides delivering."""

    def start(self, lease: Lease, act: OperationRecord) -> None:
        """Records that something is being done to a customer's bucket, before the first request. Idempotent
        for the same ID."""
        adding = self._database.insert(acts).values(ACT.values(act)).on_conflict_do_nothing()
        self._fenced(lease, lambda c: c.execute(adding))

    def finish(self, lease: Lease, act: OperationRecord) -> None:
        """Overwrites everything but its ID."""
        self._overwrite(lease, acts, act.id, ACT.values(act))

    def newest(
        self, customer: str | None = None, kind: OperationKind | None = None, limit: int | None = 20
    ) -> list[OperationRecord]:
        """Newest first (by start)."""
        query = select(acts).order_by(acts.c.started_at.desc(), acts.c.id.desc()).limit(limit)
        return self._records(ACT, only(query, (acts.c.customer, customer), (acts.c.kind, kind)))

    def record_removals(self, lease: Lease, act_id: str, found: Sequence[Removal]) -> None:
        """Adds or replaces an operation's removals by key, all in one commit. Their periods must be known."""

        def action(connection: Connection) -> None:
            customer = connection.execute(
                select(acts.c.customer).where(acts.c.id == act_id)
            ).scalar_one_or_none()
            if customer is None:
                raise unknown("act", act_id)
            numbers: dict[tuple[str, str], int] = {}
            for place in dict.fromkeys((item.feed, item.period) for item in found):
                number = deliveries.period_id(connection, customer, *place)
                if number is None:
                    raise unknown("period", "/".join((customer, *place)))
                numbers[place] = number
            rows = [_row(numbers[item.feed, item.period], act_id, item) for item in found]
            self._database.upserting(removals).run_many(connection, rows)

        self._fenced(lease, action)

    def removals(
        self,
        act_id: str,
        feed: str | None = None,
        period: str | None = None,
        outcomes: Iterable[RemovalOutcome] | None = None,
    ) -> Iterator[Removal]:
        """An operation's removals, period by period and in the order of keys, streamed. Those that are
        recorded while the iterator runs may or may not appear with what they were before: each page is a
        query of its own."""
        query = (
            select(removals, periods.c.feed, periods.c.period)
            .join(periods, periods.c.id == removals.c.period_id)
            .join(acts, and_(acts.c.id == removals.c.act_id, acts.c.customer == periods.c.customer))
            .where(removals.c.act_id == act_id)
            .order_by(removals.c.period_id, removals.c.key)
            .limit(_PAGE)
        )
        query = only(
            query, (periods.c.feed, feed), (periods.c.period, period), (removals.c.outcome, outcomes)
        )
        last: tuple[int, str] | None = None
        while True:
            after = query
            if last is not None:
                after = query.where(tuple_(removals.c.period_id, removals.c.key) > tuple_(*last))
            rows = self._rows(after)
            for row in rows:
                yield REMOVAL.record(row)
            if len(rows) < _PAGE:
                return
            last = (rows[-1].period_id, rows[-1].key)

    def settle_removals(
        self,
        lease: Lease,
        unfinished: Sequence[OperationRecord],
        keys: Iterable[str],
        outcome: RemovalOutcome,
        at: datetime,
    ) -> set[str]:
        """Of these keys, those that one of the unfinished operations had planned to remove get that outcome;
        answers which they were. The operations are one customer's."""
        if not unfinished:
            return set()
        named = list(keys)
        ids = [act.id for act in unfinished]
        of_customer = select(periods.c.id).where(periods.c.customer == unfinished[0].customer)
        # Where this is run twice, it finds what it settled the first time.
        just_now = and_(removals.c.outcome == outcome, removals.c.at == at)

        def action(connection: Connection) -> set[str]:
            settled: set[str] = set()
            source = iter(named)
            while some := list(islice(source, 500)):
                meant = and_(
                    removals.c.period_id.in_(of_customer),
                    removals.c.key.in_(some),
                    removals.c.act_id.in_(ids),
                    or_(removals.c.outcome.in_(INTENDED), just_now),
                )
                settled |= set(connection.execute(select(removals.c.key).where(meant)).scalars())
                connection.execute(update(removals).where(meant).values(outcome=outcome, at=at))
            return settled

        return self._fenced(lease, action)

    def forget_planned(self, lease: Lease, act_id: str) -> int:
        """Takes out of an operation what it had only planned."""
        customer = select(acts.c.customer).where(acts.c.id == act_id).scalar_subquery()
        forgetting = delete(removals).where(
            removals.c.period_id.in_(select(periods.c.id).where(periods.c.customer == customer)),
            removals.c.act_id == act_id,
            removals.c.outcome.in_(INTENDED),
        )
        return self._fenced(lease, lambda c: c.execute(forgetting).rowcount)


def _row(period_id: int, act_id: str, removal: Removal) -> tuple[object, ...]:
    """In the order of the columns, as the driver takes it."""
    key, _, _, *put, delivered_at, reason, outcome, at = removal
    return (period_id, act_id, key, *put, text_of(delivered_at), reason, str(outcome), text_of(at))
