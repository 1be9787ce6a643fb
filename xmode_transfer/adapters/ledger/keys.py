"""What a customer's destination should hold by our record, in the order of keys."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, Text, cast, literal, null, select, union_all

from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.removed import was_removed
from xmode_transfer.adapters.ledger.rows import time_of
from xmode_transfer.adapters.ledger.tables import deliveries, periods, receipts
from xmode_transfer.domain.records import Checksum, DeliveredKey, Status

_PAGE = 1000


def delivered_keys(
    database: Database, customer: str, feed: str | None, period: str | None
) -> Iterator[DeliveredKey]:
    """One sorted walk, read in pages; the database sorts outside of this process's memory. A key that several
    revisions name comes once, with the revision that put it."""
    wanted = [periods.c.customer == customer]
    if feed is not None:
        wanted.append(periods.c.feed == feed)
    if period is not None:
        wanted.append(periods.c.period == period)
    objects = (
        select(
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
        .join(periods, periods.c.id == receipts.c.period_id)
        .where(*wanted, ~was_removed(receipts))
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
        )
        .join(periods, periods.c.id == deliveries.c.period_id)
        .where(
            *wanted,
            deliveries.c.status == literal(str(Status.DELIVERED)),
            deliveries.c.manifest_key.is_not(None),
            ~was_removed(deliveries, deliveries.c.manifest_key),
        )
    )
    both = union_all(objects, manifests).subquery()
    statement = select(both).order_by(both.c.key, both.c.revision)
    with (
        database.reading() as connection,
        connection.execution_options(yield_per=_PAGE).execute(statement) as rows,
    ):
        for _, same_key in groupby(rows, itemgetter(0)):
            named = list(same_key)
            yield _delivered_key(named[0], tuple(row[5] for row in named))


def _delivered_key(row: Any, revisions: tuple[int, ...]) -> DeliveredKey:
    key, size, etag, feed, period, revision, at, name, algorithm, value, sha256 = row
    if algorithm is None and value is not None:  # a manifest's stands in one column: crc32:AAAAAA==
        algorithm, _, value = value.partition(":")
    checksum = Checksum(algorithm, value) if value else None
    return DeliveredKey(
        key, size, etag, feed, period, revision, time_of(at), revisions, name or "", checksum, sha256
    )
