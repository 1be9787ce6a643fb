"""What a customer's destination should hold by our record, in the order of keys."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    Text,
    and_,
    cast,
    exists,
    false,
    func,
    literal,
    null,
    select,
    union_all,
)

from xmode_transfer.ledger.leases import Subject, only
from xmode_transfer.ledger.statements import is_superseded, of_superseded, was_removed
from xmode_transfer.ledger.tables import deliveries, periods, receipts, removals
from xmode_transfer.model.health import SupersededLeft
from xmode_transfer.model.records import Checksum, DeliveredKey, Holding, Status
from xmode_transfer.model.upkeep import RemovalOutcome

_PAGE = 1000


class Keys(Subject):
    """What customers' destinations should hold."""

    def delivered(
        self, customer: str, feed: str | None = None, period: str | None = None
    ) -> Iterator[DeliveredKey]:
        """Every key that was delivered to the customer (or of one feed, one period of it), manifests
        included, once each, in the order of keys, streamed; with the revision that put it. What a cleanup has
        removed is left out, until it is delivered again.

        One sorted walk, read in pages; the database sorts outside of this process's memory."""
        wanted = ((periods.c.customer, customer), (periods.c.feed, feed), (periods.c.period, period))
        objects = (
            select(*_OF_RECEIPT, of_superseded(receipts).label("superseded"))
            .join(periods, periods.c.id == receipts.c.period_id)
            .where(~was_removed(receipts))
        )
        manifests = (
            select(
                deliveries.c.manifest_key,
                cast(null(), BigInteger),
                cast(null(), Text),
                periods.c.feed,
                periods.c.period,
                deliveries.c.revision,
                deliveries.c.delivered_at,
                cast(null(), Text),
                cast(null(), Text),
                deliveries.c.manifest_checksum,
                cast(null(), Text),
                false(),
            )
            .join(periods, periods.c.id == deliveries.c.period_id)
            .where(
                deliveries.c.status == Status.DELIVERED,
                deliveries.c.manifest_key.is_not(None),
                ~was_removed(deliveries, deliveries.c.manifest_key),
            )
        )
        both = union_all(only(objects, *wanted), only(manifests, *wanted)).subquery()
        statement = select(both).order_by(both.c.key, both.c.revision)
        with (
            self._database.reading() as connection,
            connection.execution_options(yield_per=_PAGE).execute(statement) as rows,
        ):
            for _, same_key in groupby(rows, itemgetter(0)):
                named = list(same_key)
                revisions = tuple(row[5] for row in named)
                yield _delivered_key(named[0][:-1], revisions, superseded=all(row[-1] for row in named))

    def superseded(
        self, customer: str, feed: str | None = None, *, refused: bool = False
    ) -> list[DeliveredKey]:
        """Keys of revisions that were superseded, where a later one is delivered: those that no other
        revision names and that were not removed, by feed, period and key. ``refused`` also answers those that
        the bucket did not let us remove."""
        query = only(
            _unpublished(*_OF_RECEIPT).order_by(
                periods.c.feed, periods.c.period, receipts.c.key, receipts.c.revision
            ),
            (periods.c.customer, customer),
            (periods.c.feed, feed),
        )
        if not refused:
            query = query.where(~exists().where(_REFUSED))
        return [
            _delivered_key(next(rows), (), superseded=True)
            for _, rows in groupby(self._rows(query), lambda row: (row.feed, row.period, row.key))
        ]

    def holdings(self, customer: str) -> list[Holding]:
        """What the destination should hold of each delivery, by feed, period and revision. Deliveries of
        which nothing is left, not even the manifest, are not named.

        Grouped twice: a key that several revisions name counts once, with the last of them. A delivery with
        nothing but its manifest is named too."""
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
        objects = select(
            keys.c.period_id,
            keys.c.revision,
            func.count().label("count"),
            func.sum(keys.c.size).label("bytes"),
        ).group_by(keys.c.period_id, keys.c.revision)
        manifests = (
            select(deliveries.c.period_id, deliveries.c.revision, literal(0), literal(0))
            .join(periods, periods.c.id == deliveries.c.period_id)
            .where(
                of_customer,
                deliveries.c.delivered_at.is_not(None),
                ~was_removed(deliveries, deliveries.c.manifest_key),
            )
        )
        parts = union_all(objects, manifests).subquery()
        query = (
            select(
                periods.c.feed,
                periods.c.period,
                parts.c.revision,
                func.sum(parts.c.count),
                func.sum(parts.c.bytes),
            )
            .join_from(parts, periods, periods.c.id == parts.c.period_id)
            .group_by(periods.c.feed, periods.c.period, parts.c.revision)
            .order_by(periods.c.feed, periods.c.period, parts.c.revision)
        )
        return [
            Holding(feed, period, revision, int(count), int(size))
            for feed, period, revision, count, size in self._rows(query)
        ]


def superseded_left(connection: Connection) -> dict[str, SupersededLeft]:
    """What of it each customer's bucket did not let us remove."""
    first = select(func.min(removals.c.at)).where(_REFUSED).correlate(receipts).scalar_subquery()
    left = (
        _unpublished(periods.c.customer, func.max(receipts.c.size).label("size"), first.label("since"))
        .where(exists().where(_REFUSED))
        .group_by(periods.c.customer, receipts.c.period_id, receipts.c.key, receipts.c.delivered_at)
        .subquery()
    )
    query = select(left.c.customer, func.count(), func.sum(left.c.size), func.min(left.c.since)).group_by(
        left.c.customer
    )
    return {
        customer: SupersededLeft(count, int(size), since)
        for customer, count, size, since in connection.execute(query)
    }


def _unpublished(*columns: Any) -> Select[Any]:
    """Receipts of superseded revisions whose keys no other revision names, where a later one is published.
    Begins at the deliveries that failed: there are few."""
    later, other, its = deliveries.alias("later"), receipts.alias("other"), deliveries.alias("its")
    published = exists().where(
        later.c.period_id == deliveries.c.period_id,
        later.c.revision > deliveries.c.revision,
        later.c.status == Status.DELIVERED,
    )
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
        .join(
            receipts,
            and_(
                receipts.c.period_id == deliveries.c.period_id, receipts.c.revision == deliveries.c.revision
            ),
        )
        .where(is_superseded(), published, ~named, ~was_removed(receipts), receipts.c.etag != "")
    )


# The bucket did not let us remove the key of a row of ``receipts``.
_REFUSED = and_(
    removals.c.period_id == receipts.c.period_id,
    removals.c.key == receipts.c.key,
    removals.c.delivered_at == receipts.c.delivered_at,
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


def _delivered_key(row: Any, revisions: tuple[int, ...], *, superseded: bool) -> DeliveredKey:
    *put, name, algorithm, value, sha256 = row
    if algorithm is None and value is not None:  # a manifest's stands in one column: crc32:AAAAAA==
        algorithm, _, value = value.partition(":")
    checksum = Checksum(algorithm, value) if value else None
    return DeliveredKey._make((*put, revisions, name or "", checksum, sha256, superseded))
