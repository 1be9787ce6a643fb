"""The journal of multipart uploads, from which a restart goes on without asking S3 for the parts."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from xmode_transfer.adapters.ledger import deliveries
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.statements import Statements
from xmode_transfer.adapters.ledger.tables import PART, UPLOAD, upload_parts, uploads
from xmode_transfer.domain.errors import LedgerError
from xmode_transfer.domain.records import MultipartUpload, UploadedPart, UploadStatus

_ENDED = frozenset({UploadStatus.COMPLETED, UploadStatus.ABORTED})
_PLACES_KEPT = 10_000


class Parts:
    """The journal of parts (``writer.Journal``)."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._places: dict[str, tuple[int]] = {}

    def place(self, connection: Connection, owner: str) -> tuple[object, ...]:
        found = self._places.get(owner)
        if found is None:
            number = _number(connection, owner)
            if number is None:
                raise deliveries.unknown("upload", owner)
            if len(self._places) >= _PLACES_KEPT:
                self._places.clear()
            found = self._places[owner] = (number,)
        return found

    def add(self, connection: Connection, rows: list[tuple[object, ...]]) -> None:
        self._statements.add_part.run_many(connection, rows)


def open_upload(connection: Connection, database: Database, upload: MultipartUpload) -> None:
    """Idempotent. Parts that the record already has are journalled with it."""
    if deliveries.place(connection, upload.delivery_id) is None:
        raise deliveries.unknown("delivery", upload.delivery_id)
    known = connection.execute(
        select(uploads.c.delivery_id, uploads.c.name).where(uploads.c.upload_id == upload.upload_id)
    ).one_or_none()
    if known is None:
        connection.execute(database.insert(uploads).values(UPLOAD.values(upload)))
    elif tuple(known) != (upload.delivery_id, upload.name):
        raise LedgerError(
            f"The upload {upload.upload_id} is in the ledger already, for another object ({known.name}).",
            hint="Nothing was written. The store has given the same upload ID twice; ask its operator.",
        )
    if upload.parts:
        number = _number(connection, upload.upload_id)
        adding = database.insert(upload_parts)
        connection.execute(
            adding.on_conflict_do_nothing(),
            [{"upload": number, **PART.values(part)} for part in upload.parts],
        )


def close_upload(connection: Connection, upload_id: str, status: UploadStatus) -> None:
    """The parts of an upload that S3 has put together or thrown away are of no more use; their sum is
    kept."""
    number = _number(connection, upload_id)
    if number is None:
        raise deliveries.unknown("upload", upload_id)
    values: dict[str, object] = {"status": status}
    of_upload = upload_parts.c.upload == number
    sent = connection.execute(select(func.sum(upload_parts.c.size)).where(of_upload)).scalar_one()
    if sent is not None:
        values["sent_bytes"] = int(sent)
    connection.execute(update(uploads).where(uploads.c.id == number).values(values))
    if status in _ENDED:
        connection.execute(delete(upload_parts).where(of_upload))


def found(
    connection: Connection,
    customer: str | None,
    delivery_id: str | None,
    statuses: Iterable[UploadStatus] | None,
) -> list[MultipartUpload]:
    query = select(uploads).order_by(uploads.c.opened_at, uploads.c.id)
    if customer is not None:
        query = query.where(uploads.c.customer == customer)
    if delivery_id is not None:
        query = query.where(uploads.c.delivery_id == delivery_id)
    if statuses is not None:
        query = query.where(uploads.c.status.in_(list(statuses)))
    rows = connection.execute(query).all()
    parts = _parts(connection, [row.id for row in rows])
    return [_upload_of(row, tuple(parts.get(row.id, ()))) for row in rows]


def _upload_of(row: Any, parts: tuple[UploadedPart, ...]) -> MultipartUpload:
    upload = UPLOAD.record(row, parts=parts)
    return replace(upload, sent_bytes=sum(part.size for part in parts)) if parts else upload


def _parts(connection: Connection, numbers: Sequence[int]) -> dict[int, list[UploadedPart]]:
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


def _number(connection: Connection, upload_id: str) -> int | None:
    return connection.execute(
        select(uploads.c.id).where(uploads.c.upload_id == upload_id)
    ).scalar_one_or_none()
