"""The keys in customers' destinations, and those that operations removed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, and_, exists, func, select

from xmode_transfer.ledger.deliveries import of_period, period_id
from xmode_transfer.ledger.rows import text_of
from xmode_transfer.ledger.statements import OF_SUPERSEDED, OF_WITHDRAWN, is_superseded, was_removed
from xmode_transfer.ledger.tables import (
    OPERATION,
    REMOVAL,
    deliveries,
    native_manifests,
    operations,
    periods,
    receipts,
    removals,
)
from xmode_transfer.ledger.writer import LedgerPart, only, unknown
from xmode_transfer.model.health import SupersededLeft
from xmode_transfer.model.native import NativeKind
from xmode_transfer.model.records import Checksum, DeliveredKey, Holding, Lease, Status
from xmode_transfer.model.upkeep import INTENDED, OperationKind, OperationRecord, Removal, RemovalOutcome

_PAGE = 1_000
_KEYS_AT_A_TIME = 500


class Keys(LedgerPart):
    """The keys that customers' destinations should hold."""

    def delivered(
        self, customer: str, feed: str | None = None, period: str | None = None
    ) -> Iterator[DeliveredKey]:
        """Yield every key that was delivered, manifests included, in order, without those that an operation
        removed. One sorted walk, read in pages: the database sorts outside of this process's memory."""
        objects = (
            select(*_OF_RECEIPT, OF_WITHDRAWN.label("withdrawn"), OF_SUPERSEDED.label("superseded"))
            .join(periods, periods.c.id == receipts.c.period_id)
            .where(~was_removed(receipts))
        )
        of_delivery = (periods.c.feed, periods.c.period, deliveries.c.revision, deliveries.c.delivered_at)
        checksum = (_NO_TEXT, deliveries.c.manifest_checksum, _NO_TEXT)
        size = sa.cast(sa.null(), sa.BigInteger)
        manifests = (
            select(
                *(deliveries.c.manifest_key, size, _NO_TEXT, *of_delivery, _NO_TEXT, *checksum),
                *(sa.false(), sa.false()),
            )
            .join(periods, periods.c.id == deliveries.c.period_id)
            .where(
                deliveries.c.status == Status.DELIVERED,
                deliveries.c.manifest_key.is_not(None),
                ~was_removed(deliveries, deliveries.c.manifest_key),
            )
        )
        superseded = exists().where(
            deliveries.c.period_id == native_manifests.c.period_id,
            deliveries.c.revision == native_manifests.c.revision,
            is_superseded(),
        )
        native = (
            select(*_OF_NATIVE, sa.false(), superseded)
            .join(periods, periods.c.id == native_manifests.c.period_id)
            .where(~was_removed(native_manifests))
        )
        parts = (objects, manifests, native)
        wanted = of_period(customer, feed, period)
        both = sa.union_all(*(only(part, *wanted) for part in parts)).subquery()
        statement = select(both).order_by(both.c.key, both.c.revision)
        with (
            self._database.reading() as connection,
            connection.execution_options(yield_per=_PAGE).execute(statement) as rows,
        ):
            for _, same_key in groupby(rows, itemgetter(0)):
                named = list(same_key)
                revisions = tuple(row.revision for row in named)
                flags = {"superseded": all(row[-1] for row in named), "withdrawn": bool(named[0][-2])}
                yield _delivered_key(named[0][:-2], revisions, **flags)

    def superseded(
        self, customer: str, feed: str | None = None, *, refused: bool = False
    ) -> list[DeliveredKey]:
        """Return keys of superseded revisions, where a later one is delivered, by feed, period and key: those
        that no other revision lists and that were not removed. ``refused`` adds what the bucket refused to
        delete."""
        objects = _unpublished(*_OF_RECEIPT).order_by(receipts.c.revision)
        native = (
            select(*_OF_NATIVE)
            .join(periods, periods.c.id == native_manifests.c.period_id)
            .join(deliveries, _its(native_manifests))
            .where(is_superseded(), _published_later(), ~was_removed(native_manifests))
            .where(native_manifests.c.kind == NativeKind.REDSHIFT)  # a symlink file was replaced
        )
        rows: list[Any] = []
        for query, table in ((objects, receipts), (native, native_manifests)):
            wanted = only(query, *of_period(customer, feed))
            rows += self._rows(wanted if refused else wanted.where(~exists().where(_refused(table))))
        of_key = attrgetter("feed", "period", "key")
        return [
            _delivered_key(next(same_key), (), superseded=True)
            for _, same_key in groupby(sorted(rows, key=of_key), of_key)
        ]

    def holdings(self, customer: str) -> list[Holding]:
        """Return what the destination should hold of each delivery of which something is left, by feed,
        period and revision. A key that several revisions list counts once, with the last; a manifest counts
        nothing."""
        of_customer = periods.c.customer == customer
        keys = (
            select(
                receipts.c.period_id,
                receipts.c.key,
                func.max(receipts.c.revision).label("revision"),
                func.max(receipts.c.size).label("size"),
            )
            .join(periods, periods.c.id == receipts.c.period_id)
            .where(of_customer, ~was_removed(receipts))
            .group_by(receipts.c.period_id, receipts.c.key)
            .subquery()
        )
        its = (keys.c.period_id, keys.c.revision)
        summed = (func.count().label("count"), func.sum(keys.c.size).label("bytes"))
        objects = select(*its, *summed).group_by(*its)
        manifests = (
            select(deliveries.c.period_id, deliveries.c.revision, sa.literal(0), sa.literal(0))
            .join(periods, periods.c.id == deliveries.c.period_id)
            .where(
                of_customer,
                deliveries.c.delivered_at.is_not(None),
                ~was_removed(deliveries, deliveries.c.manifest_key),
            )
        )
        native = (
            select(native_manifests.c.period_id, native_manifests.c.revision, sa.literal(0), sa.literal(0))
            .join(periods, periods.c.id == native_manifests.c.period_id)
            .where(of_customer, ~was_removed(native_manifests))
        )
        parts = sa.union_all(objects, manifests, native).subquery()
        of_delivery = (periods.c.feed, periods.c.period, parts.c.revision)
        query = (
            select(*of_delivery, func.sum(parts.c.count), func.sum(parts.c.bytes))
            .join_from(parts, periods, periods.c.id == parts.c.period_id)
            .group_by(*of_delivery)
            .order_by(*of_delivery)
        )
        return [
            Holding(feed, period, revision, int(count), int(size))
            for feed, period, revision, count, size in self._rows(query)
        ]


def superseded_left(connection: Connection) -> dict[str, SupersededLeft]:
    """Return what each customer's bucket refused to delete."""
    first = select(func.min(removals.c.at)).where(_refused()).correlate(receipts).scalar_subquery()
    left = (
        _unpublished(periods.c.customer, func.max(receipts.c.size).label("size"), first.label("since"))
        .where(exists().where(_refused()))
        .group_by(periods.c.customer, receipts.c.period_id, receipts.c.key, receipts.c.delivered_at)
        .subquery()
    )
    query = select(left.c.customer, func.count(), func.sum(left.c.size), func.min(left.c.since))
    return {
        customer: SupersededLeft(count, int(size), since)
        for customer, count, size, since in connection.execute(query.group_by(left.c.customer))
    }


def _unpublished(*columns: Any) -> sa.Select[Any]:
    """Receipts of superseded revisions with keys that no other revision lists, where a later one is
    published. Starts from the failed deliveries: there are few."""
    other, its = receipts.alias("other"), deliveries.alias("its")
    named = exists().where(
        other.c.period_id == receipts.c.period_id,
        other.c.name == receipts.c.name,
        other.c.key == receipts.c.key,
        its.c.period_id == other.c.period_id,
        its.c.revision == other.c.revision,
        ~is_superseded(its),
    )
    return (
        select(*columns)
        .select_from(deliveries)
        .join(periods, periods.c.id == deliveries.c.period_id)
        .join(receipts, _its(receipts))
        .where(is_superseded(), _published_later(), ~named, ~was_removed(receipts), receipts.c.etag != "")
    )


def _its(table: sa.Table) -> sa.ColumnElement[bool]:
    return and_(table.c.period_id == deliveries.c.period_id, table.c.revision == deliveries.c.revision)


def _published_later() -> sa.ColumnElement[bool]:
    later = deliveries.alias("later")
    return exists().where(
        later.c.period_id == deliveries.c.period_id,
        later.c.revision > deliveries.c.revision,
        later.c.status == Status.DELIVERED,
    )


def _refused(table: sa.Table = receipts) -> sa.ColumnElement[bool]:
    """The bucket refused to delete the key of a row."""
    return and_(
        removals.c.period_id == table.c.period_id,
        removals.c.key == table.c.key,
        removals.c.delivered_at == table.c.delivered_at,
        removals.c.outcome == RemovalOutcome.RETAINED,
    )


_OF_RECEIPT = (
    receipts.c.key,
    receipts.c.size,
    receipts.c.etag,
    periods.c.feed,
    periods.c.period,
    receipts.c.revision,
    receipts.c.delivered_at,
    receipts.c.name,
    receipts.c.algorithm,
    receipts.c.checksum,
    receipts.c.sha256,
)
_NO_TEXT = sa.cast(sa.null(), sa.Text)
_OF_NATIVE = (
    native_manifests.c.key,
    native_manifests.c.size,
    native_manifests.c.etag,
    periods.c.feed,
    periods.c.period,
    native_manifests.c.revision,
    native_manifests.c.delivered_at,
    _NO_TEXT.label("name"),
    native_manifests.c.algorithm,
    native_manifests.c.checksum,
    _NO_TEXT.label("sha256"),
)


def _delivered_key(
    row: Any, revisions: tuple[int, ...], *, superseded: bool, withdrawn: bool = False
) -> DeliveredKey:
    *put, name, algorithm, value, sha256 = row
    if algorithm is None and value is not None:  # a manifest's is in one column: crc32:AAAAAA==
        algorithm, _, value = value.partition(":")
    checksum = Checksum(algorithm, value) if value else None
    return DeliveredKey._make((*put, revisions, name or "", checksum, sha256, superseded, withdrawn))


class Operations(LedgerPart):
    """Operations on customers' buckets other than deliveries, and the keys that they removed."""

    def start(self, lease: Lease, operation: OperationRecord) -> None:
        """Record an operation. Idempotent for the same ID."""
        adding = self._database.insert(operations).values(OPERATION.values(operation))
        self._fenced(lease, lambda c: c.execute(adding.on_conflict_do_nothing()))

    def finish(self, lease: Lease, operation: OperationRecord) -> None:
        """Overwrite everything but the ID."""
        self._overwrite(lease, operations, "operation", operation.id, OPERATION.values(operation))

    def newest(
        self, customer: str | None = None, kind: OperationKind | None = None, limit: int | None = 20
    ) -> list[OperationRecord]:
        """Return operations, newest first."""
        query = select(operations).order_by(operations.c.started_at.desc(), operations.c.id.desc())
        wanted = ((operations.c.customer, customer), (operations.c.kind, kind))
        return self._records(OPERATION, only(query.limit(limit), *wanted))

    def record_removals(self, lease: Lease, operation_id: str, found: Sequence[Removal]) -> None:
        """Add or replace an operation's removals by key. Their periods must be known."""

        def action(connection: Connection) -> None:
            customer = connection.execute(_customer_of(operation_id)).scalar_one_or_none()
            if customer is None:
                raise unknown("operation", operation_id)
            numbers = {}
            for of_feed in {(item.feed, item.period) for item in found}:
                numbers[of_feed] = period_id(connection, customer, *of_feed)
                if numbers[of_feed] is None:
                    raise unknown("period", "/".join((customer, *of_feed)))
            rows = []
            for key, feed, period, *put, delivered_at, reason, outcome, at, locked_until in found:
                place = (numbers[feed, period], operation_id, key)
                ended = (reason, str(outcome), text_of(at), locked_until and text_of(locked_until))
                rows.append((*place, *put, text_of(delivered_at), *ended))
            self._database.upserting(removals).run_many(connection, rows)

        self._fenced(lease, action)

    def removals(
        self,
        operation_id: str,
        feed: str | None = None,
        period: str | None = None,
        outcomes: Iterable[RemovalOutcome] | None = None,
    ) -> Iterator[Removal]:
        """Yield an operation's removals by period and key, read in pages while others may add some."""
        of_customer = and_(operations.c.id == removals.c.act_id, operations.c.customer == periods.c.customer)
        query = only(
            select(removals, periods.c.feed, periods.c.period)
            .join(periods, periods.c.id == removals.c.period_id)
            .join(operations, of_customer)
            .where(removals.c.act_id == operation_id)
            .order_by(removals.c.period_id, removals.c.key)
            .limit(_PAGE),
            (periods.c.feed, feed),
            (periods.c.period, period),
            (removals.c.outcome, outcomes),
        )
        after = query
        while True:
            rows = self._rows(after)
            yield from (REMOVAL.record(row) for row in rows)
            if len(rows) < _PAGE:
                return
            last = (rows[-1].period_id, rows[-1].key)
            after = query.where(sa.tuple_(removals.c.period_id, removals.c.key) > sa.tuple_(*last))

    def of_recall(self, customer: str, recall: str) -> list[Removal]:
        """Return the last outcome of each key of a recall for one customer, manifests included, by feed,
        period and key."""
        last: dict[str, Removal] = {}
        for operation in reversed(self.newest(customer, OperationKind.RECALL, None)):
            if operation.reason == recall:
                for item in self.removals(operation.id):
                    if item.outcome not in INTENDED or item.key not in last:
                        last[item.key] = item
        return sorted(last.values(), key=lambda item: (item.feed, item.period, item.key))

    def settle_removals(
        self,
        lease: Lease,
        unfinished: Sequence[OperationRecord],
        keys: Iterable[str],
        outcome: RemovalOutcome,
        at: datetime,
    ) -> set[str]:
        """Set the outcome of the keys that one customer's unfinished operations had planned to remove; return
        them."""
        if not unfinished:
            return set()
        named = list(keys)
        # If this runs twice, it finds what it settled the first time.
        just_now = and_(removals.c.outcome == outcome, removals.c.at == at)
        of_operations = and_(
            removals.c.period_id.in_(select(periods.c.id).filter_by(customer=unfinished[0].customer)),
            removals.c.act_id.in_([operation.id for operation in unfinished]),
            sa.or_(removals.c.outcome.in_(INTENDED), just_now),
        )

        def action(connection: Connection) -> set[str]:
            settled: set[str] = set()
            for start in range(0, len(named), _KEYS_AT_A_TIME):
                meant = and_(of_operations, removals.c.key.in_(named[start : start + _KEYS_AT_A_TIME]))
                settled |= set(connection.execute(select(removals.c.key).where(meant)).scalars())
                connection.execute(sa.update(removals).where(meant).values(outcome=outcome, at=at))
            return settled

        return self._fenced(lease, action)

    def forget_planned(self, lease: Lease, operation_id: str) -> int:
        """Delete an operation's removals that were only planned; return their number."""
        customer = _customer_of(operation_id).scalar_subquery()
        forgetting = sa.delete(removals).where(
            removals.c.period_id.in_(select(periods.c.id).where(periods.c.customer == customer)),
            removals.c.act_id == operation_id,
            removals.c.outcome.in_(INTENDED),
        )
        return self._fenced(lease, lambda c: c.execute(forgetting).rowcount)


def _customer_of(operation_id: str) -> sa.Select[Any]:
    return select(operations.c.customer).where(operations.c.id == operation_id)
