"""Deliveries: the aims, and how far each has come; and the runs towards them."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, insert, select, update

from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.leases import Subject, only, unknown
from xmode_transfer.ledger.tables import (
    DELIVERY,
    PART,
    RUN,
    UPLOAD,
    deliveries,
    periods,
    runs,
    upload_parts,
    uploads,
)
from xmode_transfer.ledger.watching import settle
from xmode_transfer.ledger.writer import GroupCommit, Journal
from xmode_transfer.model.errors import LedgerError
from xmode_transfer.model.records import (
    Delivery,
    Lease,
    MultipartUpload,
    Run,
    Status,
    UploadedPart,
    UploadStatus,
)

DELIVERIES: Select[Any] = select(deliveries, periods.c.customer, periods.c.feed, periods.c.period).join_from(
    deliveries, periods
)
_FOR_GOOD = ("id", "created_at")
"""What an update leaves as it is."""


class Deliveries(Subject):
    """Which deliveries there are."""

    def latest(self, customer: str, feed: str, period: str) -> Delivery | None:
        """The delivery with the highest revision."""
        rows = self._rows(
            only(DELIVERIES, *_of(customer, feed, period)).order_by(deliveries.c.revision.desc()).limit(1)
        )
        return DELIVERY.record(rows[0]) if rows else None

    def find(
        self,
        customer: str | None = None,
        feed: str | None = None,
        period: str | None = None,
        statuses: Iterable[Status] | None = None,
        limit: int | None = None,
        since: str | None = None,
    ) -> list[Delivery]:
        """Newest first (by update). ``since`` is the label of the oldest period that is wanted; labels of one
        kind sort as periods do."""
        query = DELIVERIES.order_by(
            deliveries.c.updated_at.desc(), deliveries.c.period_id.desc(), deliveries.c.revision.desc()
        ).limit(limit)
        query = only(query, *_of(customer, feed, period), (deliveries.c.status, statuses))
        return self._records(DELIVERY, _since(query, since))

    def get(self, delivery_id: str) -> Delivery | None:
        """The delivery of that ID."""
        rows = self._rows(DELIVERIES.where(deliveries.c.id == delivery_id))
        return DELIVERY.record(rows[0]) if rows else None

    def calendar(self, customer: str, feed: str | None = None, since: str | None = None) -> list[Delivery]:
        """The delivery with the highest revision of each period of a customer, in the order of feeds and
        periods; ``since`` is the label of the oldest period that is asked for. A revision above 1 that is
        delivered is a correction (or a drop folder's next batch). Together with ``SourceScan.due`` and
        ``SourceScan.waiting`` of the snapshot a calendar shows this: delivered, corrected, under way or
        refused, due and waiting."""
        later = deliveries.alias("later")
        query = DELIVERIES.where(
            ~exists().where(
                later.c.period_id == deliveries.c.period_id, later.c.revision > deliveries.c.revision
            ),
        ).order_by(periods.c.feed, periods.c.period)
        return self._records(DELIVERY, _since(only(query, *_of(customer, feed)), since))

    def corrections(self, since: datetime) -> list[Delivery]:
        """Deliveries, delivered since then, that replaced one that had been; the oldest first. Batches of
        drop folders are none."""
        earlier = deliveries.alias("earlier")
        query = DELIVERIES.where(
            deliveries.c.status == Status.DELIVERED,
            deliveries.c.updated_at >= since,
            deliveries.c.delivered_at >= since,
            periods.c.period != "none",
            exists().where(
                earlier.c.period_id == deliveries.c.period_id,
                earlier.c.revision < deliveries.c.revision,
                earlier.c.status == Status.DELIVERED,
            ),
        ).order_by(deliveries.c.delivered_at)
        return self._records(DELIVERY, query)

    def create(self, lease: Lease, delivery: Delivery) -> None:
        """Adds it. Idempotent for the same ID."""
        names = {"customer": delivery.customer, "feed": delivery.feed, "period": delivery.period}

        def action(connection: Connection) -> None:
            if place(connection, delivery.id) is not None:
                return
            connection.execute(self._database.insert(periods).values(names).on_conflict_do_nothing())
            number = connection.execute(select(periods.c.id).filter_by(**names)).scalar_one()
            taken = select(deliveries.c.id).filter_by(period_id=number, revision=delivery.revision)
            if (other := connection.execute(taken).scalar_one_or_none()) is not None:
                raise LedgerError(
                    f"The delivery {delivery.label} exists already, under the ID {other}.",
                    hint="Nothing was written. Two processes have planned the same revision; the next run "
                    "goes on with the one that is there.",
                )
            connection.execute(
                insert(deliveries).values(
                    period_id=number, revision=delivery.revision, **DELIVERY.values(delivery)
                )
            )

        self._fenced(lease, action)

    def update(self, lease: Lease, delivery: Delivery) -> None:
        """Overwrites status, counts, manifest, failure and times."""
        values = DELIVERY.values(delivery)

        def action(connection: Connection) -> None:
            changed = connection.execute(
                update(deliveries)
                .where(deliveries.c.id == delivery.id)
                .values({name: value for name, value in values.items() if name not in _FOR_GOOD})
            )
            if changed.rowcount == 0:
                raise unknown("delivery", delivery.id)
            settle(connection, self._database, delivery)

        self._fenced(lease, action)


def _of(
    customer: str | None, feed: str | None = None, period: str | None = None
) -> tuple[tuple[ColumnElement[str], str | None], ...]:
    return (periods.c.customer, customer), (periods.c.feed, feed), (periods.c.period, period)


def _since(query: Select[Any], label: str | None) -> Select[Any]:
    return query if label is None else query.where(periods.c.period >= label)


class Runs(Subject):
    """Which runs there were: the executions towards deliveries."""

    def start(self, lease: Lease, run: Run) -> None:
        """Adds it. Idempotent for the same ID."""
        adding = self._database.insert(runs).values(RUN.values(run)).on_conflict_do_nothing()

        def action(connection: Connection) -> None:
            known_place(connection, run.delivery_id)
            connection.execute(adding)

        self._fenced(lease, action)

    def finish(self, lease: Lease, run: Run) -> None:
        """Overwrites everything but its ID."""
        self._overwrite(lease, runs, run.id, RUN.values(run))

    def newest(
        self, customer: str | None = None, limit: int = 20, delivery_id: str | None = None
    ) -> list[Run]:
        """Newest first."""
        query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        if customer is not None:
            query = query.join(deliveries, deliveries.c.id == runs.c.delivery_id).join(periods)
        return self._records(
            RUN, only(query, (periods.c.customer, customer), (runs.c.delivery_id, delivery_id))
        )


def place(connection: Connection, delivery_id: str) -> tuple[int, int] | None:
    """Where the delivery's objects are: its period's number, and its revision."""
    row = connection.execute(
        select(deliveries.c.period_id, deliveries.c.revision).where(deliveries.c.id == delivery_id)
    ).one_or_none()
    return None if row is None else (row.period_id, row.revision)


def known_place(connection: Connection, delivery_id: str) -> tuple[int, int]:
    """As ``place``. Raises LedgerError when there is no such delivery."""
    found = place(connection, delivery_id)
    if found is None:
        raise unknown("delivery", delivery_id)
    return found


def period_id(connection: Connection, customer: str, feed: str, period: str) -> int | None:
    return connection.execute(
        select(periods.c.id).filter_by(customer=customer, feed=feed, period=period)
    ).scalar_one_or_none()


_ENDED = frozenset({UploadStatus.COMPLETED, UploadStatus.ABORTED})


class Uploads(Subject):
    """Which multipart uploads we opened, and their parts."""

    def __init__(self, database: Database, writer: GroupCommit) -> None:
        super().__init__(database, writer)
        self._parts = Journal(
            lambda c, upload_id: (_number(c, upload_id),),
            database.upserting(upload_parts),
        )

    def open(self, lease: Lease, upload: MultipartUpload) -> None:
        """Journals a multipart upload before its first part. Idempotent. Parts that the record already has
        are journalled with it."""

        def action(connection: Connection) -> None:
            known_place(connection, upload.delivery_id)
            known = connection.execute(
                select(uploads.c.delivery_id, uploads.c.name).where(uploads.c.upload_id == upload.upload_id)
            ).one_or_none()
            if known is None:
                connection.execute(self._database.insert(uploads).values(UPLOAD.values(upload)))
            elif tuple(known) != (upload.delivery_id, upload.name):
                raise LedgerError(
                    f"The upload {upload.upload_id} is in the ledger already, for another object "
                    f"({known.name}).",
                    hint="Nothing was written. The store has given the same upload ID twice; ask its "
                    "operator.",
                )
            if upload.parts:
                number = _number(connection, upload.upload_id)
                connection.execute(
                    self._database.insert(upload_parts).on_conflict_do_nothing(),
                    [{"upload": number, **PART.values(part)} for part in upload.parts],
                )

        self._fenced(lease, action)

    def record_part(self, lease: Lease, upload_id: str, part: UploadedPart) -> Future[None]:
        """Group commit: the future is done when the part is on disk."""
        return self._writer.record(
            self._parts, lease, upload_id, (part.number, part.size, part.etag, part.checksum)
        )

    def close(self, lease: Lease, upload_id: str, status: UploadStatus) -> None:
        """The parts of an upload that S3 has put together or thrown away are of no more use; their sum is
        kept."""

        def action(connection: Connection) -> None:
            number = _number(connection, upload_id)
            values: dict[str, object] = {"status": status}
            of_upload = upload_parts.c.upload == number
            sent = connection.execute(select(func.sum(upload_parts.c.size)).where(of_upload)).scalar_one()
            if sent is not None:
                values["sent_bytes"] = int(sent)
            connection.execute(update(uploads).where(uploads.c.id == number).values(values))
            if status in _ENDED:
                connection.execute(delete(upload_parts).where(of_upload))

        self._fenced(lease, action)

    def find(
        self,
        customer: str | None = None,
        delivery_id: str | None = None,
        statuses: Iterable[UploadStatus] | None = None,
    ) -> list[MultipartUpload]:
        """With their parts, oldest first."""
        query = only(
            select(uploads).order_by(uploads.c.opened_at, uploads.c.id),
            (uploads.c.customer, customer),
            (uploads.c.delivery_id, delivery_id),
            (uploads.c.status, statuses),
        )

        def action(connection: Connection) -> list[MultipartUpload]:
            rows = connection.execute(query).all()
            parts = _parts_of(connection, [row.id for row in rows])
            return [_upload_of(row, tuple(parts.get(row.id, ()))) for row in rows]

        return self._read(action)


def _upload_of(row: Any, parts: tuple[UploadedPart, ...]) -> MultipartUpload:
    upload = UPLOAD.record(row, parts=parts)
    return replace(upload, sent_bytes=sum(part.size for part in parts)) if parts else upload


def _parts_of(connection: Connection, numbers: Sequence[int]) -> dict[int, list[UploadedPart]]:
    parts: dict[int, list[UploadedPart]] = {}
    for start in range(0, len(numbers), 500):
        query = (
            select(upload_parts)
            .where(upload_parts.c.upload.in_(numbers[start : start + 500]))
            .order_by(upload_parts.c.upload, upload_parts.c.number)
        )
        for row in connection.execute(query):
            parts.setdefault(row.upload, []).append(PART.record(row))
    return parts


def _number(connection: Connection, upload_id: str) -> int:
    """By which the parts name their upload. Raises LedgerError when there is no such upload."""
    query = select(uploads.c.id).where(uploads.c.upload_id == upload_id)
    number: int | None = connection.execute(query).scalar_one_or_none()
    if number is None:
        raise unknown("upload", upload_id)
    return number
