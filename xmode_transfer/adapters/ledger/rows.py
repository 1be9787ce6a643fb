"""Rows to records and back."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from xmode_transfer.domain.records import (
    Capabilities,
    Checksum,
    Delivery,
    Failure,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    Status,
    UploadedPart,
    UploadStatus,
)

time_of = datetime.fromisoformat


def text_of(at: datetime) -> str:
    """A time as it is stored: ``2026-11-23T10:00:00.000000Z``. Raises ValueError for a time without a
    zone."""
    if at.tzinfo is not UTC:
        if at.tzinfo is None:
            raise ValueError(f"{at} has no time zone")
        at = at.astimezone(UTC)
    return f"{at.isoformat(timespec='microseconds')[:26]}Z"


def maybe_text_of(at: datetime | None) -> str | None:
    return None if at is None else text_of(at)


def maybe_time_of(text: str | None) -> datetime | None:
    return None if text is None else time_of(text)


_REMOVED, _SUPERSEDED = 15, 16  # the columns after an object's, its receipt's and the revision


def objects_of(page: Iterable[tuple[Any, ...]]) -> Iterator[PlannedObject]:
    """Rows of the columns of an object."""
    for name, key, size, modified_ns, identity, carried in page:
        yield PlannedObject(name, key, size, modified_ns, identity, carried == 1)


def pairs_of(page: Iterable[tuple[Any, ...]]) -> Iterator[tuple[PlannedObject, Receipt | None]]:
    """Rows of the columns of an object, then those of its receipt (null where there is none), then, where the
    query asks for them, the revision, whether the object was removed, and whether the revision was
    superseded."""
    for row in page:
        name, key, size, modified_ns, identity, carried = row[:6]
        item = PlannedObject(name, key, size, modified_ns, identity, carried == 1)
        key, size, algorithm, value, etag, delivered_at, version_id, sha256 = row[6:14]
        if key is None:
            yield item, None
            continue
        removed = len(row) > _REMOVED and row[_REMOVED] == 1
        superseded = len(row) > _SUPERSEDED and row[_SUPERSEDED] == 1
        yield (
            item,
            Receipt(
                name,
                key,
                size,
                Checksum(algorithm, value),
                etag,
                time_of(delivered_at),
                version_id,
                sha256,
                removed,
                superseded,
            ),
        )


def object_values(item: PlannedObject) -> tuple[object, ...]:
    return (item.name, item.key, item.size, item.modified_ns, item.identity, item.carried)


def receipt_values(receipt: Receipt) -> tuple[object, ...]:
    """All but the delivery's place, in the order of the statement that adds a receipt."""
    return (
        receipt.name,
        receipt.key,
        receipt.size,
        receipt.checksum.algorithm,
        receipt.checksum.value,
        receipt.etag,
        text_of(receipt.delivered_at),
        receipt.version_id,
        receipt.sha256,
    )


def failure_values(failure: Failure | None) -> dict[str, object]:
    return {
        "failure_cause": failure and failure.cause,
        "failure_party": failure and failure.party,
        "failure_message": failure and failure.message,
        "failure_hint": failure and failure.hint,
        "failure_retryable": failure and failure.retryable,
        "failure_request_id": failure and failure.request_id,
    }


def failure_of(row: Any) -> Failure | None:
    if row.failure_cause is None:
        return None
    return Failure(
        row.failure_cause,
        row.failure_party,
        row.failure_message,
        row.failure_hint,
        bool(row.failure_retryable),
        row.failure_request_id,
    )


def delivery_values(delivery: Delivery) -> dict[str, object]:
    """What an update overwrites."""
    return {
        "status": str(delivery.status),
        "updated_at": text_of(delivery.updated_at),
        "marker": delivery.marker,
        "object_count": delivery.object_count,
        "total_bytes": delivery.total_bytes,
        "manifest_key": delivery.manifest_key,
        "manifest_checksum": delivery.manifest_checksum,
        "delivered_at": maybe_text_of(delivery.delivered_at),
        **failure_values(delivery.failure),
        "attempts": delivery.attempts,
        "next_attempt_at": maybe_text_of(delivery.next_attempt_at),
        "missing_count": delivery.missing_count,
        "not_attested": delivery.not_attested,
    }


def delivery_of(row: Any) -> Delivery:
    return Delivery(
        id=row.id,
        customer=row.customer,
        feed=row.feed,
        period=row.period,
        revision=row.revision,
        status=Status(row.status),
        created_at=time_of(row.created_at),
        updated_at=time_of(row.updated_at),
        marker=row.marker,
        object_count=row.object_count,
        total_bytes=row.total_bytes,
        manifest_key=row.manifest_key,
        manifest_checksum=row.manifest_checksum,
        delivered_at=maybe_time_of(row.delivered_at),
        failure=failure_of(row),
        attempts=row.attempts,
        next_attempt_at=maybe_time_of(row.next_attempt_at),
        missing_count=row.missing_count or 0,
        not_attested=row.not_attested,
    )


def run_values(run: Run) -> dict[str, object]:
    return {
        "delivery_id": run.delivery_id,
        "started_at": text_of(run.started_at),
        "holder": run.holder,
        "engine": run.engine,
        "finished_at": maybe_text_of(run.finished_at),
        "outcome": run.outcome,
        "uploaded": run.uploaded,
        "skipped": run.skipped,
        "failed": run.failed,
        "bytes": run.bytes,
        "seconds": run.seconds,
        **failure_values(run.failure),
    }


def run_of(row: Any) -> Run:
    return Run(
        id=row.id,
        delivery_id=row.delivery_id,
        started_at=time_of(row.started_at),
        holder=row.holder,
        engine=row.engine,
        finished_at=maybe_time_of(row.finished_at),
        outcome=row.outcome,
        uploaded=row.uploaded,
        skipped=row.skipped,
        failed=row.failed,
        bytes=row.bytes,
        seconds=row.seconds,
        failure=failure_of(row),
    )


def upload_values(upload: MultipartUpload) -> dict[str, object]:
    return {
        "upload_id": upload.upload_id,
        "delivery_id": upload.delivery_id,
        "customer": upload.customer,
        "name": upload.name,
        "key": upload.key,
        "size": upload.size,
        "modified_ns": upload.modified_ns,
        "identity": upload.identity,
        "part_size": upload.part_size,
        "algorithm": upload.algorithm,
        "opened_at": text_of(upload.opened_at),
        "status": str(upload.status),
        "sent_bytes": upload.sent_bytes,
        "abort_at": maybe_text_of(upload.abort_at),
    }


def upload_of(row: Any, parts: tuple[UploadedPart, ...]) -> MultipartUpload:
    return MultipartUpload(
        upload_id=row.upload_id,
        delivery_id=row.delivery_id,
        customer=row.customer,
        name=row.name,
        key=row.key,
        size=row.size,
        modified_ns=row.modified_ns,
        identity=row.identity,
        part_size=row.part_size,
        algorithm=row.algorithm,
        opened_at=time_of(row.opened_at),
        status=UploadStatus(row.status),
        parts=parts,
        sent_bytes=sum(part.size for part in parts) if parts else row.sent_bytes,
        abort_at=maybe_time_of(row.abort_at),
    )


def part_values(part: UploadedPart) -> tuple[object, ...]:
    return (part.number, part.size, part.etag, part.checksum)


def capabilities_of(row: Any) -> Capabilities:
    return Capabilities(
        multipart=row.multipart,
        abort=row.abort,
        region=row.region,
        versioned=row.versioned,
        kms=row.kms,
        learned_at=maybe_time_of(row.learned_at),
    )


def capability_values(capabilities: Capabilities) -> dict[str, object]:
    return {
        "multipart": capabilities.multipart,
        "abort": capabilities.abort,
        "region": capabilities.region,
        "versioned": capabilities.versioned,
        "kms": capabilities.kms,
        "learned_at": maybe_text_of(capabilities.learned_at),
    }
