"""Large objects: multipart uploads, journalled so that a restart sends only what is missing.

The upload ID is in the ledger before the first part and each part's ETag and checksum as soon as S3 has
acknowledged it, so neither ListParts (which the guide does not grant) nor luck is needed to go on after kill
-9. An engine that does not resume parts sends the object anew, and the old upload is given up first. Every
upload that was ever opened ends completed, aborted, or recorded as left behind.
"""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from xmode_transfer import telemetry
from xmode_transfer.aws.bodies import OpenFile
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
from xmode_transfer.model.parts import Part, missing, part_size, split
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
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.parallel import in_order
from xmode_transfer.transfer.planning import own_ids

_EXPIRY_MARGIN = timedelta(hours=1)


class LargeObjects:
    """The multipart uploads of one delivery. Thread-safe; ``usable`` turns false when the destination refuses
    parts, ``sent_bytes`` are those of the parts that were sent here, not by an earlier run."""

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
        """Uploads one object in parts. None when parts are refused here (a single PutObject is to be used) or
        when we are asked to stop. Raises ObjectExists when the key is taken, also by an upload of ours whose
        answer was lost: the caller compares. Raises SourceChanged, or what the store raises."""
        try:
            return self._send(planned, request, body)
        except (
            UploadNotFound
        ):  # ended by the bucket's lifecycle rule or by the customer: once more from the start
            return self._send(planned, request, body)

    def _send(self, planned: PlannedObject, request: PutRequest, body: OpenFile) -> PutAnswer | None:
        opened: list[MultipartUpload] = []
        try:
            if not self._store.resumes:
                return self._send_anew(planned, request, body, opened)
            opened.append(self._journalled(planned) or self._open(planned, request))
            return self._send_parts(opened[0], body)
        except PartsRefused as error:
            self._refused(opened, error)
            return None
        except UploadNotFound as error:
            self._check_answer(planned, opened, error)
            for upload in opened:
                self._context.ledger.uploads.close(self._lease, upload.upload_id, UploadStatus.ABORTED)
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
        """The answer to Complete may have been lost: the object itself says what became of it. Raises
        ObjectExists when this delivery's is there."""
        if not opened:
            return
        info = self._store.head(planned.key)
        if info is not None and info.token == self._delivery.id and info.size == planned.size:
            for upload in opened:
                self._context.ledger.uploads.close(self._lease, upload.upload_id, UploadStatus.COMPLETED)
            what = f"{planned.key} is there already, from an upload whose answer was lost"
            raise ObjectExists(what) from error

    def _send_anew(
        self, planned: PlannedObject, request: PutRequest, body: OpenFile, opened: list[MultipartUpload]
    ) -> PutAnswer:
        """In one upload, by an engine that does not go on with another's."""
        for earlier in self._open_uploads(planned):
            self.give_up(earlier)
        sent: list[int] = []

        def journal(upload_id: str, abort_at: datetime | None) -> None:
            opened.append(self._journal(planned, upload_id, abort_at, 0))

        def acknowledged(upload_id: str, part: UploadedPart) -> None:
            self._context.ledger.uploads.record_part(self._lease, upload_id, part)
            sent.append(part.size)
            self._tell_sent(part.size)

        try:
            answer = self._store.put_in_parts(request, body, journal, acknowledged).result()
        except XmodeError:
            with self._lock:
                self.sent_bytes -= sum(sent)  # it has to go again
            raise
        self._learn_multipart(True)
        for upload in opened:
            self._context.ledger.uploads.close(self._lease, upload.upload_id, UploadStatus.COMPLETED)
        return answer

    def _tell_sent(self, count: int) -> None:
        with self._lock:
            self.sent_bytes += count
        self._context.progress.bytes_sent(count)

    def _open_uploads(self, planned: PlannedObject) -> list[MultipartUpload]:
        found = self._context.ledger.uploads.find(delivery_id=self._delivery.id, statuses=[UploadStatus.OPEN])
        return [upload for upload in found if upload.name == planned.name]

    def _journalled(self, planned: PlannedObject) -> MultipartUpload | None:
        """The upload to go on with: of the same state of the source, and not about to be ended by the
        bucket's lifecycle rule. Others of this name are given up."""
        found = None
        for upload in self._open_uploads(planned):
            same = (upload.size, upload.modified_ns, upload.identity, upload.key, upload.part_size) == (
                planned.size,
                planned.modified_ns,
                planned.identity,
                planned.key,
                part_size(planned.size),
            )
            ends = (
                upload.abort_at is not None and upload.abort_at - _EXPIRY_MARGIN < self._context.clock.now()
            )
            if same and not ends and found is None:
                found = upload
            else:
                self.give_up(upload)
        return found

    def _open(self, planned: PlannedObject, request: PutRequest) -> MultipartUpload:
        upload_id, abort_at = self._store.create_upload(request)
        return self._journal(planned, upload_id, abort_at, part_size(planned.size))

    def _journal(
        self, planned: PlannedObject, upload_id: str, abort_at: datetime | None, part_bytes: int
    ) -> MultipartUpload:
        """``part_bytes`` is 0 where nobody can go on with the upload."""
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
        for acknowledged in done.values():
            self._context.progress.bytes_resumed(acknowledged.size)
        parts = split(upload.size, upload.part_size)

        def todo() -> Iterator[Part]:
            for part in missing(parts, done):
                if self._context.stop.is_set():
                    return
                yield part

        def send(part: Part) -> UploadedPart:
            # What is not on disk yet counts as in flight: after kill -9 no more than that is sent again.
            acknowledged = self._store.upload_part(
                upload.key, upload.upload_id, part.number, body, part.offset, part.length
            ).result()
            self._tell_sent(acknowledged.size)
            self._context.ledger.uploads.record_part(self._lease, upload.upload_id, acknowledged).result()
            return acknowledged

        with in_order(send, todo(), name="part", threads=self._parallel(upload), ahead=2) as sent:
            done |= {part.number: part for part in sent}
        if len(done) < len(parts):
            return None  # asked to stop: what was acknowledged is journalled
        body.check_unchanged()
        self._learn_multipart(True)
        answer = self._store.complete_upload(
            upload.key, upload.upload_id, [done[part.number] for part in parts], upload.size
        )
        self._context.ledger.uploads.close(self._lease, upload.upload_id, UploadStatus.COMPLETED)
        return answer

    def _parallel(self, upload: MultipartUpload) -> int:
        limits = self._context.limits
        fitting = limits.memory_bytes // upload.part_size
        return max(1, min(fitting, limits.parallel_objects_per_customer, 8))

    def _refused(self, uploads: Sequence[MultipartUpload], error: PartsRefused) -> None:
        with self._lock:
            self.usable = False
        self._learn_multipart(False)
        for upload in uploads:
            telemetry.warn(Event.MULTIPART_REFUSED, key=upload.key, **error.log_context())
            self.give_up(upload)

    def _learn_multipart(self, works: bool) -> None:
        if self._context.ledger.checks.capabilities(self._customer).multipart is not works:
            now = self._context.clock.now()
            self._context.ledger.checks.learn(self._customer, Capabilities(multipart=works, learned_at=now))

    def tidy(self) -> None:
        """Gives up what is still open from this delivery or a revision before it: nothing needs it any
        more."""
        earlier = own_ids(self._delivery)
        for upload in self._context.ledger.uploads.find(
            customer=self._customer, statuses=[UploadStatus.OPEN]
        ):
            if upload.delivery_id in earlier:
                self.give_up(upload)

    def _sent_bytes(self, upload: MultipartUpload) -> int:
        """What lies in the bucket of it by now, by the journal."""
        journalled = self._context.ledger.uploads.find(
            delivery_id=upload.delivery_id, statuses=[UploadStatus.LEFT_BEHIND]
        )
        return next((found.sent_bytes for found in journalled if found.upload_id == upload.upload_id), 0)

    def give_up(self, upload: MultipartUpload) -> None:
        """Aborts an upload, or records that it had to be left behind."""
        try:
            self._store.abort_upload(upload.key, upload.upload_id)
        except AccessDenied as error:
            self._context.ledger.uploads.close(self._lease, upload.upload_id, UploadStatus.LEFT_BEHIND)
            self._context.ledger.checks.learn(
                self._customer, Capabilities(abort=False, learned_at=self._context.clock.now())
            )
            telemetry.warn(
                Event.MULTIPART_ORPHANED,
                key=upload.key,
                upload_id=upload.upload_id,
                size_bytes=self._sent_bytes(upload),
                ends_at=upload.abort_at and upload.abort_at.isoformat(),
                **error.log_context() | {"hint": _rule(upload)},
            )
        except XmodeError as error:
            # stays open in the journal: the next run tries to abort it again
            telemetry.warn(Event.MULTIPART_NOT_ABORTED, key=upload.key, **error.log_context())
        else:
            self._context.ledger.uploads.close(self._lease, upload.upload_id, UploadStatus.ABORTED)


def _rule(upload: MultipartUpload) -> str:
    """Who frees the parts of an upload that we may not abort."""
    if upload.abort_at is not None:
        return f"the bucket's own lifecycle rule frees its parts by {upload.abort_at:%Y-%m-%d}"
    return (
        "have the customer allow s3:AbortMultipartUpload, or add a lifecycle rule with "
        "AbortIncompleteMultipartUpload (`xmode-transfer status` has it)"
    )
