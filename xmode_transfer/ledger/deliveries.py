"""Deliveries and how far each has come, the runs for them, and their multipart uploads."""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from xmode_transfer.ledger.database import Database
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
from xmode_transfer.ledger.writer import GroupCommit, Journal, LedgerPart, only, unknown
from xmode_transfer.model.errors import LedgerError
from xmode_transfer.model.health import PeriodSummary
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
_later = deliveries.alias("later")
IS_NEWEST = ~exists().where(
    _later.c.period_id == deliveries.c.period_id, _later.c.revision > deliveries.c.revision
)
"""The delivery has the highest revision of its period."""


class Deliveries(LedgerPart):
    def get(self, delivery_id: str) -> Delivery | None:
        return self._first(DELIVERY, DELIVERIES.where(deliveries.c.id == delivery_id))

    def latest(self, customer: str, feed: str, period: str) -> Delivery | None:
        """Return the delivery with the highest revision."""
        query = only(DELIVERIES, *of_period(customer, feed, period))
        return self._first(DELIVERY, query.order_by(deliveries.c.revision.desc()).limit(1))

    def find(
        self,
        customer: str | None = None,
        feed: str | None = None,
        period: str | None = None,
        statuses: Iterable[Status] | None = None,
        limit: int | None = None,
    ) -> list[Delivery]:
        """Return deliveries, the last updated first."""
        query = DELIVERIES.order_by(
            deliveries.c.updated_at.desc(), deliveries.c.period_id.desc(), deliveries.c.revision.desc()
        ).limit(limit)
        wanted = (*of_period(customer, feed, period), (deliveries.c.status, statuses))
        return self._records(DELIVERY, only(query, *wanted))

    def calendar(self, customer: str, feed: str | None = None, since: str | None = None) -> list[Delivery]:
        """Return each period's delivery with the highest revision, by feed and period; ``since`` is the label
        of the oldest period (labels of one kind sort as periods do)."""
        query = DELIVERIES.where(IS_NEWEST, periods.c.period >= (since or ""))
        in_order = query.order_by(periods.c.feed, periods.c.period)
        return self._records(DELIVERY, only(in_order, *of_period(customer, feed)))

    def by_period(self, feed: str, since: str) -> list[PeriodSummary]:
        """Summarize each period of a feed for all customers, from the label ``since`` on."""
        done, columns = deliveries.c.status == Status.DELIVERED, deliveries.c
        rejected = and_(columns.status == Status.SKIPPED, columns.failure_cause.is_not(None))
        query = (
            select(
                periods.c.period,
                func.count(),
                func.count(case((done, 1))),
                func.count(case((columns.status == Status.QUARANTINED, 1))),
                func.count(case((rejected, 1))),
                func.max(columns.object_count),
                func.max(columns.total_bytes),
                func.max(columns.revision),
                func.min(case((done, columns.delivered_at))),
            )
            .join_from(periods, deliveries)
            .where(periods.c.feed == feed, periods.c.period >= since, IS_NEWEST)
            .group_by(periods.c.period)
        )
        return [PeriodSummary(*row) for row in self._rows(query)]

    def corrections(self, since: datetime) -> list[Delivery]:
        """Return deliveries that replaced a delivered one since then, oldest first, without drop folders'."""
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
        """Add a delivery. Idempotent for the same ID."""
        names = {"customer": delivery.customer, "feed": delivery.feed, "period": delivery.period}

        def action(connection: Connection) -> None:
            if place(connection, delivery.id) is not None:
                return
            connection.execute(self._database.insert(periods).values(names).on_conflict_do_nothing())
            number = period_id(connection, **names)
            taken = select(deliveries.c.id).filter_by(period_id=number, revision=delivery.revision)
            if (other := connection.execute(taken).scalar_one_or_none()) is not None:
                raise LedgerError(
                    f"The delivery {delivery.label} exists already, under the ID {other}.",
                    hint="Nothing was written. Two processes have planned the same revision; the next run "
                    "continues the existing one.",
                )
            values = {"period_id": number, "revision": delivery.revision, **DELIVERY.values(delivery)}
            connection.execute(insert(deliveries).values(values))

        self._fenced(lease, action)

    def update(self, lease: Lease, delivery: Delivery) -> None:
        """Overwrite everything but the ID and the creation time."""
        values = DELIVERY.values(delivery)
        del values["id"], values["created_at"]
        changing = update(deliveries).where(deliveries.c.id == delivery.id).values(values)

        def action(connection: Connection) -> None:
            if connection.execute(changing).rowcount == 0:
                raise unknown("delivery", delivery.id)
            settle(connection, self._database, delivery)

        self._fenced(lease, action)


class Runs(LedgerPart):
    def start(self, lease: Lease, run: Run) -> None:
        """Add a run. Idempotent for the same ID."""
        adding = self._database.insert(runs).values(RUN.values(run)).on_conflict_do_nothing()

        def action(connection: Connection) -> None:
            known_place(connection, run.delivery_id)
            connection.execute(adding)

        self._fenced(lease, action)

    def finish(self, lease: Lease, run: Run) -> None:
        """Overwrite everything but the ID."""
        self._overwrite(lease, runs, "run", run.id, RUN.values(run))

    def newest(
        self, customer: str | None = None, limit: int = 20, delivery_id: str | None = None
    ) -> list[Run]:
        """Return runs, newest first."""
        query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        if customer is not None:
            query = query.join(deliveries, deliveries.c.id == runs.c.delivery_id).join(periods)
        wanted = ((periods.c.customer, customer), (runs.c.delivery_id, delivery_id))
        return self._records(RUN, only(query, *wanted))


def of_period(
    customer: str | None, feed: str | None = None, period: str | None = None
) -> tuple[tuple[ColumnElement[str], str | None], ...]:
    return (periods.c.customer, customer), (periods.c.feed, feed), (periods.c.period, period)


def place(connection: Connection, delivery_id: str) -> tuple[int, int] | None:
    """Return the delivery's ``period_id`` and revision."""
    query = select(deliveries.c.period_id, deliveries.c.revision).where(deliveries.c.id == delivery_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.period_id, row.revision)


def known_place(connection: Connection, delivery_id: str) -> tuple[int, int]:
    found = place(connection, delivery_id)
    if found is None:
        raise unknown("delivery", delivery_id)
    return found


def period_id(connection: Connection, customer: str, feed: str, period: str) -> int | None:
    query = select(periods.c.id).filter_by(customer=customer, feed=feed, period=period)
    return connection.execute(query).scalar_one_or_none()


class Uploads(LedgerPart):
    """Our multipart uploads, and their parts."""

    def __init__(self, database: Database, writer: GroupCommit) -> None:
        super().__init__(database, writer)
        self._parts = Journal(lambda c, upload_id: (_number(c, upload_id),), database.upserting(upload_parts))

    def open(self, lease: Lease, upload: MultipartUpload) -> None:
        """Record an upload, with the parts that it has, before its first part is sent. Idempotent."""

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
                    hint="Nothing was written. The store returned the same upload ID twice; ask its "
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
        """The future is done when the part is on disk."""
        values = (part.number, part.size, part.etag, part.checksum)
        return self._writer.record(self._parts, lease, upload_id, values)

    def close(self, lease: Lease, upload_id: str, status: UploadStatus) -> None:
        """Record the end and the sum of the parts; delete those of a completed or aborted upload."""

        def action(connection: Connection) -> None:
            number = _number(connection, upload_id)
            values: dict[str, object] = {"status": status}
            of_upload = upload_parts.c.upload == number
            sent = connection.execute(select(func.sum(upload_parts.c.size)).where(of_upload)).scalar_one()
            if sent is not None:
                values["sent_bytes"] = int(sent)
            connection.execute(update(uploads).where(uploads.c.id == number).values(values))
            if status in (UploadStatus.COMPLETED, UploadStatus.ABORTED):
                connection.execute(delete(upload_parts).where(of_upload))

        self._fenced(lease, action)

    def find(
        self,
        customer: str | None = None,
        delivery_id: str | None = None,
        statuses: Iterable[UploadStatus] | None = None,
    ) -> list[MultipartUpload]:
        """Return uploads with their parts, oldest first."""
        query = only(
            select(uploads).order_by(uploads.c.opened_at, uploads.c.id),
            (uploads.c.customer, customer),
            (uploads.c.delivery_id, delivery_id),
            (uploads.c.status, statuses),
        )
        numbers = query.order_by(None).with_only_columns(uploads.c.id)
        of_uploads = select(upload_parts).where(upload_parts.c.upload.in_(numbers))

        def action(connection: Connection) -> list[MultipartUpload]:
            parts: dict[int, list[UploadedPart]] = defaultdict(list)
            for row in connection.execute(of_uploads.order_by(upload_parts.c.number)):
                parts[row.upload].append(PART.record(row))
            found = []
            for row in connection.execute(query):
                upload = UPLOAD.record(row, parts=tuple(parts[row.id]))
                sent = sum(part.size for part in upload.parts)
                found.append(replace(upload, sent_bytes=sent) if sent else upload)
            return found

        return self._read(action)


def _number(connection: Connection, upload_id: str) -> int:
    query = select(uploads.c.id).where(uploads.c.upload_id == upload_id)
    number: int | None = connection.execute(query).scalar_one_or_none()
    if number is None:
        raise unknown("upload", upload_id)
    return number
