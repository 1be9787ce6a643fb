"""The journal of multipart uploads, from which a restart goes on without asking S3 for the parts."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from xmode_transfer.ledger import deliveries
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.subject import Subject, only, unknown
from xmode_transfer.ledger.tables import PART, UPLOAD, upload_parts, uploads
from xmode_transfer.ledger.writer import GroupCommit, Journal
from xmode_transfer.model.errors import LedgerError
from xmode_transfer.model.records import Lease, MultipartUpload, UploadedPart, UploadStatus

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
            deliveries.known_place(connection, upload.delivery_id)
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
