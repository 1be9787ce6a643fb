"""Send large objects by multipart uploads, which end completed, aborted, or recorded as orphaned.

The ledger has the upload ID before the first part, and each part as soon as S3 acknowledges it. Therefore an
upload resumes after kill -9 without ListParts, which the guide does not grant.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from xmode_transfer import telemetry
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.stores import ObjectStore, PutAnswer, PutRequest
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import (
    AccessDenied,
    ObjectExists,
    PartsRefused,
    SourceChanged,
    Unavailable,
    UploadNotFound,
    XmodeError,
)
from xmode_transfer.model.records import (
    Capabilities,
    Delivery,
    Lease,
    MultipartUpload,
    PlannedObject,
    UploadedPart,
    UploadStatus,
)
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, in_order
from xmode_transfer.transfer.planning import own_ids

MIB = 1024 * 1024
MIN_PART_BYTES = 16 * MIB
MAX_PARTS = 10_000  # S3 User Guide, qfacts; a part has 5 MiB to 5 GiB, the last one any size


class Part(NamedTuple):
    """``number`` counts from 1; ``offset`` and ``length`` are in bytes."""

    number: int
    offset: int
    length: int


def part_size(size: int) -> int:
    """Return the part size in bytes: whole MiB, so that 10,000 parts suffice."""
    needed = -(-size // MAX_PARTS)
    return max(MIN_PART_BYTES, -(-needed // MIB) * MIB)


def split(size: int, part_bytes: int) -> list[Part]:
    """Return all parts of an object, in order."""
    return [
        Part(number, offset, min(part_bytes, size - offset))
        for number, offset in enumerate(range(0, size, part_bytes), start=1)
    ]


_EXPIRY_MARGIN = timedelta(hours=1)


class LargeObjects:
    """The multipart uploads of one delivery. Thread-safe. ``usable`` becomes false when the destination
    refuses parts. ``sent_bytes`` excludes the parts of an earlier run."""

    def __init__(
        self, context: Context, customer: Customer, store: ObjectStore, delivery: Delivery, lease: Lease
    ) -> None:
        self._context = context
        self._customer = customer.name
        self._store = store
        self._delivery = delivery
        self._lease = lease
        self._lock = threading.Lock()
        self.sent_bytes = 0
        self.usable = context.ledger.checks.capabilities(customer.name).multipart is not False

    def send(self, planned: PlannedObject, request: PutRequest, body: OpenFile) -> PutAnswer | None:
        """Return None if the destination refuses parts, or the process is asked to stop. Raises ObjectExists
        if the key exists, also from one of our own uploads with a lost response."""
        try:
            return self._send(planned, request, body)
        except UploadNotFound:  # aborted by the bucket's lifecycle rule or the customer: start again
            return self._send(planned, request, body)

    def _send(self, planned: PlannedObject, request: PutRequest, body: OpenFile) -> PutAnswer | None:
        opened: list[MultipartUpload] = []
        try:
            if not self._store.resumes:
                return self._send_anew(planned, request, body, opened)
            upload = self._journalled(planned)
            if upload is None:
                upload_id, abort_at = self._store.create_upload(request)
                upload = self._journal(planned, upload_id, abort_at, part_size(planned.size))
            opened.append(upload)
            return self._send_parts(upload, body)
        except PartsRefused as error:
            with self._lock:
                self.usable = False
            self._learn_multipart(False)
            for upload in opened:
                telemetry.warn(Event.MULTIPART_REFUSED, key=upload.key, **error.log_context())
                self.give_up(upload)
            return None
        except UploadNotFound as error:
            self._check_answer(planned, opened, error)
            self._close(opened, UploadStatus.ABORTED)
            raise
        except XmodeError as error:
            if isinstance(error, Unavailable):
                self._check_answer(planned, opened, error)
            if not self._store.resumes or isinstance(error, ObjectExists | SourceChanged):
                for upload in opened:
                    self.give_up(upload)
            raise

    def _check_answer(
        self, planned: PlannedObject, opened: Sequence[MultipartUpload], error: XmodeError
    ) -> None:
        """Raise ObjectExists if the response to CompleteMultipartUpload was lost."""
        info = self._store.head(planned.key) if opened else None
        if info is not None and info.token == self._delivery.id and info.size == planned.size:
            self._close(opened, UploadStatus.COMPLETED)
            what = f"{planned.key} already exists, from an upload with a lost response"
            raise ObjectExists(what) from error

    def _send_anew(
        self, planned: PlannedObject, request: PutRequest, body: OpenFile, opened: list[MultipartUpload]
    ) -> PutAnswer:
        for earlier in self._open_uploads(planned):
            self.give_up(earlier)
        sent: list[int] = []

        def journal(upload_id: str, abort_at: datetime | None) -> None:
            opened.append(self._journal(planned, upload_id, abort_at, 0))

        def acknowledged(upload_id: str, part: UploadedPart) -> None:
            self._context.ledger.uploads.record_part(self._lease, upload_id, part)
            sent.append(part.size)
            self._count_sent(part.size)

        try:
            answer = self._store.put_in_parts(request, body, journal, acknowledged).result()
        except XmodeError:
            with self._lock:
                self.sent_bytes -= sum(sent)  # to be sent again
            raise
        self._learn_multipart(True)
        self._close(opened, UploadStatus.COMPLETED)
        return answer

    def _close(self, uploads: Iterable[MultipartUpload], status: UploadStatus) -> None:
        for upload in uploads:
            self._context.ledger.uploads.close(self._lease, upload.upload_id, status)

    def _count_sent(self, count: int) -> None:
        with self._lock:
            self.sent_bytes += count
        self._context.progress.bytes_sent(count)

    def _open_uploads(self, planned: PlannedObject) -> list[MultipartUpload]:
        found = self._context.ledger.uploads.find(delivery_id=self._delivery.id, statuses=[UploadStatus.OPEN])
        return [upload for upload in found if upload.name == planned.name]

    def _journalled(self, planned: PlannedObject) -> MultipartUpload | None:
        """Return the upload to resume: of the same state of the source, and not soon aborted by the bucket.
        Gives up other uploads of this name."""
        found = None
        for upload in self._open_uploads(planned):
            same = planned[1:5] == (upload.key, upload.size, upload.modified_ns, upload.identity)
            same = same and upload.part_size == part_size(planned.size)
            at = upload.abort_at
            ends = at is not None and at - _EXPIRY_MARGIN < self._context.clock.now()
            if same and not ends and found is None:
                found = upload
            else:
                self.give_up(upload)
        return found

    def _journal(
        self, planned: PlannedObject, upload_id: str, abort_at: datetime | None, part_bytes: int
    ) -> MultipartUpload:
        """``part_bytes`` is 0 for an upload that cannot be resumed."""
        upload = MultipartUpload(
            upload_id=upload_id,
            delivery_id=self._delivery.id,
            customer=self._customer,
            name=planned.name,
            key=planned.key,
            size=planned.size,
            modified_ns=planned.modified_ns,
            identity=planned.identity,
            part_size=part_bytes,
            algorithm=self._store.checksum_algorithm,
            opened_at=self._context.clock.now(),
            abort_at=abort_at,
        )
        self._context.ledger.uploads.open(self._lease, upload)
        return upload

    def _send_parts(self, upload: MultipartUpload, body: OpenFile) -> PutAnswer | None:
        done = {part.number: part for part in upload.parts}
        for acknowledged in upload.parts:
            self._context.progress.bytes_resumed(acknowledged.size)
        parts = split(upload.size, upload.part_size)

        def todo() -> Iterator[Part]:
            for part in parts:
                if self._context.stop.is_set():
                    return
                if part.number not in done:
                    yield part

        def send(part: Part) -> UploadedPart:
            # A part is in flight until it is recorded: after kill -9, only parts in flight are sent again.
            acknowledged = self._store.upload_part(
                upload.key, upload.upload_id, part.number, body, part.offset, part.length
            ).result()
            self._count_sent(acknowledged.size)
            self._context.ledger.uploads.record_part(self._lease, upload.upload_id, acknowledged).result()
            return acknowledged

        limits = self._context.limits
        in_memory = limits.memory_bytes // upload.part_size
        threads = max(1, min(in_memory, limits.parallel_objects_per_customer, 8))
        with in_order(send, todo(), name="part", threads=threads, ahead=2) as sent:
            done |= {part.number: part for part in sent}
        if len(done) < len(parts):
            return None  # asked to stop: the acknowledged parts are in the ledger
        body.check_unchanged()
        self._learn_multipart(True)
        answer = self._store.complete_upload(
            upload.key, upload.upload_id, [done[part.number] for part in parts], upload.size
        )
        self._close([upload], UploadStatus.COMPLETED)
        return answer

    def _learn_multipart(self, works: bool) -> None:
        checks = self._context.ledger.checks
        if checks.capabilities(self._customer).multipart is not works:
            learnt = Capabilities(multipart=works, learned_at=self._context.clock.now())
            checks.learn(self._customer, learnt)

    def tidy(self) -> None:
        """Gives up the open uploads of this delivery and of earlier revisions."""
        earlier = own_ids(self._delivery)
        uploads = self._context.ledger.uploads
        for upload in uploads.find(customer=self._customer, statuses=[UploadStatus.OPEN]):
            if upload.delivery_id in earlier:
                self.give_up(upload)

    def give_up(self, upload: MultipartUpload) -> None:
        """Aborts an upload, or records it as orphaned."""
        try:
            self._store.abort_upload(upload.key, upload.upload_id)
        except AccessDenied as error:
            self._close([upload], UploadStatus.ORPHANED)
            self._context.ledger.checks.learn(
                self._customer, Capabilities(abort=False, learned_at=self._context.clock.now())
            )
            orphaned = self._context.ledger.uploads.find(
                delivery_id=upload.delivery_id, statuses=[UploadStatus.ORPHANED]
            )
            hint = (
                "ask the customer to allow s3:AbortMultipartUpload, or to add a lifecycle rule with "
                "AbortIncompleteMultipartUpload (`xmode-transfer status` prints it)"
            )
            if upload.abort_at is not None:
                at = f"{upload.abort_at:%Y-%m-%d}"
                hint = f"nothing to do: the bucket's lifecycle rule frees its parts by {at}"
            telemetry.warn(
                Event.MULTIPART_ORPHANED,
                key=upload.key,
                upload_id=upload.upload_id,
                size_bytes=sum(item.sent_bytes for item in orphaned if item.upload_id == upload.upload_id),
                ends_at=upload.abort_at and upload.abort_at.isoformat(),
                **error.log_context() | {"hint": hint},
            )
        except XmodeError as error:
            # stays open in the ledger: the next run retries the abort
            telemetry.warn(Event.MULTIPART_NOT_ABORTED, key=upload.key, **error.log_context())
        else:
            self._close([upload], UploadStatus.ABORTED)
