"""Recalls, what they withdrew, and how far each has come."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from xmode_transfer.ledger.statements import OF_SUPERSEDED, was_removed
from xmode_transfer.ledger.tables import (
    RECALL,
    RECALL_PROGRESS,
    WITHDRAWN,
    periods,
    recall_customers,
    recalls,
    receipts,
    withdrawn,
)
from xmode_transfer.ledger.writer import LedgerPart, only
from xmode_transfer.model.recall import (
    Content,
    Contents,
    Recall,
    RecallProgress,
    RecallState,
    Withdrawn,
    WithdrawnObject,
)
from xmode_transfer.model.records import Checksum, Delivery

_ROWS_AT_A_TIME = 500


class Recalls(LedgerPart):
    def start(self, recall: Recall, files: Iterable[Withdrawn], customers: Iterable[RecallProgress]) -> None:
        """Record a recall, what it withdraws and for whom, all at once. Idempotent: a second call adds what
        is new."""
        begin = self._beginning(recall, files)
        progress = [RECALL_PROGRESS.values(item) for item in customers]

        def action(connection: Connection) -> None:
            begin(connection)
            if progress:
                adding = self._database.insert(recall_customers).on_conflict_do_nothing()
                connection.execute(adding, progress)

        self._write(action)

    def restore(self, recall: Recall, files: Iterable[Withdrawn], now: datetime) -> int:
        """Record a recall that this ledger lacks, pending for each customer that holds its files. Return the
        number of customers."""
        begin = self._beginning(recall, files)

        def action(connection: Connection) -> int:
            begin(connection)
            return self._add_holders(connection, now, withdrawn.c.recall == recall.id)

        return self._write(action)

    def extend(self, customer: str, now: datetime) -> int:
        """Add the customer to each recall whose files it holds, after deliveries of it were adopted. Return
        the number of recalls that were extended or opened again."""
        return self._write(lambda c: self._add_holders(c, now, periods.c.customer == customer))

    def _beginning(self, recall: Recall, files: Iterable[Withdrawn]) -> Callable[[Connection], None]:
        rows = [WITHDRAWN.values(item) for item in files]
        insert = self._database.insert

        def action(connection: Connection) -> None:
            connection.execute(insert(recalls).values(RECALL.values(recall)).on_conflict_do_nothing())
            for start in range(0, len(rows), _ROWS_AT_A_TIME):
                some = rows[start : start + _ROWS_AT_A_TIME]
                connection.execute(insert(withdrawn).on_conflict_do_nothing(), some)

        return action

    def _add_holders(self, connection: Connection, now: datetime, which: ColumnElement[bool]) -> int:
        """Add pending progress, or set it to pending again, for the customers whose destinations hold
        withdrawn files."""
        of_period = and_(periods.c.feed == withdrawn.c.feed, periods.c.period == withdrawn.c.period)
        of_file = and_(
            receipts.c.period_id == periods.c.id,
            receipts.c.name == withdrawn.c.name,
            receipts.c.size == withdrawn.c.size,
            receipts.c.algorithm == withdrawn.c.algorithm,
            receipts.c.checksum == withdrawn.c.checksum,
        )
        holding = (
            select(withdrawn.c.recall, periods.c.customer)
            .distinct()
            .select_from(withdrawn)
            .join(periods, of_period)
            .join(receipts, of_file)
            .where(which, withdrawn.c.customer.in_(["", periods.c.customer]), ~was_removed(receipts))
        )
        pending = [RecallProgress(*row, RecallState.PENDING, now) for row in connection.execute(holding)]
        if pending:
            rows = [RECALL_PROGRESS.values(item) for item in pending]
            connection.execute(self._database.upsert(recall_customers), rows)
            again = recalls.c.id.in_(sorted({item.recall for item in pending}))
            connection.execute(update(recalls).where(again).values(finished_at=None))
        return len(pending)

    def ids(self) -> set[str]:
        return {row.id for row in self._rows(select(recalls.c.id))}

    def get(self, recall: str) -> Recall | None:
        return self._first(RECALL, select(recalls).filter_by(id=recall))

    def newest(self, limit: int | None = None) -> list[Recall]:
        """Return recalls, newest first."""
        query = select(recalls).order_by(recalls.c.started_at.desc(), recalls.c.id.desc())
        return self._records(RECALL, query.limit(limit))

    def files(self, recall: str) -> list[Withdrawn]:
        """Return what a recall withdrew, by period and name."""
        in_order = (withdrawn.c.feed, withdrawn.c.period, withdrawn.c.name, withdrawn.c.algorithm)
        return self._records(WITHDRAWN, select(withdrawn).filter_by(recall=recall).order_by(*in_order))

    def withdrawn(self, customer: str, feed: str, period: str) -> Contents:
        """Return what must not be with the customer, by the name at the source. Usually empty: this is asked
        for at each delivery."""
        query = (
            select(withdrawn.c.name, withdrawn.c.size, withdrawn.c.algorithm, withdrawn.c.checksum)
            .filter_by(feed=feed, period=period)
            .where(withdrawn.c.customer.in_(["", customer]))
        )
        found: dict[str, set[Content]] = defaultdict(set)
        for name, size, *checksum in self._rows(query):
            found[name].add(Content(size, Checksum(*checksum)))
        return {name: frozenset(contents) for name, contents in found.items()}

    def received(self, delivery: Delivery) -> list[WithdrawnObject]:
        """Return the withdrawn objects that a manifest of the delivery's period has listed, up to its
        revision, by name and key."""
        listed = [receipts.c[name] for name in ("name", "key", "size", "algorithm", "checksum")]
        same = ("name", "size", "algorithm", "checksum")
        query = (
            select(*listed, func.min(recalls.c.started_at))
            .select_from(withdrawn)
            .join(recalls, recalls.c.id == withdrawn.c.recall)
            .join(periods, and_(periods.c.feed == withdrawn.c.feed, periods.c.period == withdrawn.c.period))
            .join(
                receipts,
                and_(
                    receipts.c.period_id == periods.c.id,
                    *(receipts.c[column] == withdrawn.c[column] for column in same),
                ),
            )
            .where(
                withdrawn.c.feed == delivery.feed,
                withdrawn.c.period == delivery.period,
                withdrawn.c.customer.in_(["", delivery.customer]),
                periods.c.customer == delivery.customer,
                receipts.c.revision <= delivery.revision,
                ~OF_SUPERSEDED,
            )
            .group_by(*listed)
            .order_by(receipts.c.name, receipts.c.key)
        )
        return [
            WithdrawnObject(name, key, size, Checksum(algorithm, value), at)
            for name, key, size, algorithm, value, at in self._rows(query)
        ]

    def progress(
        self,
        recall: str | None = None,
        customer: str | None = None,
        states: Iterable[RecallState] | None = None,
    ) -> list[RecallProgress]:
        """Return how far recalls have come, by recall and customer."""
        columns = recall_customers.c
        query = select(recall_customers).order_by(columns.recall, columns.customer)
        wanted = ((columns.recall, recall), (columns.customer, customer), (columns.state, states))
        return self._records(RECALL_PROGRESS, only(query, *wanted))

    def record(self, progress: RecallProgress) -> None:
        """Replace a customer's progress, whose notices are then to be considered again, and finish the recall
        when it was the last. Idempotent."""
        values = {**RECALL_PROGRESS.values(progress), "notified_at": None}
        recording = self._database.upsert(recall_customers).values(values)
        unfinished = select(recall_customers.c.customer).where(
            recall_customers.c.recall == progress.recall, recall_customers.c.state != RecallState.DONE
        )
        finishing = (
            update(recalls)
            .where(recalls.c.id == progress.recall, recalls.c.finished_at.is_(None), ~unfinished.exists())
            .values(finished_at=progress.updated_at)
        )

        def action(connection: Connection) -> None:
            connection.execute(recording)
            connection.execute(finishing)

        self._write(action)

    def unnotified(self) -> list[RecallProgress]:
        """Return the progress of attempts whose notices are not recorded."""
        columns = recall_customers.c
        tried = columns.state != RecallState.PENDING
        query = select(recall_customers).where(tried, columns.notified_at.is_(None))
        return self._records(RECALL_PROGRESS, query.order_by(columns.recall, columns.customer))

    def note_notified(self, progress: RecallProgress, at: datetime) -> None:
        """Note that the notices of this attempt are recorded; a later attempt has its own."""
        of = {"recall": progress.recall, "customer": progress.customer, "updated_at": progress.updated_at}
        noting = update(recall_customers).filter_by(**of).values(notified_at=at)
        self._write(lambda c: c.execute(noting))
