"""One customer's uploads through s3transfer's TransferManager.

It reads, cuts, orders and sends on threads of its own; what goes over the wire is made by the same code as in
the fast engine, and what may pass is tried again by the same rules. It is given the source's open file, never
a path. Each part waits for its turn among all bodies of the process before it is read (``dispatch``).
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from xmode_transfer.adapters import checksums, s3_rules
from xmode_transfer.adapters.dispatch import Dispatcher, Job
from xmode_transfer.adapters.lanes import Lane
from xmode_transfer.adapters.s3_bodies import MemoryBody, StreamedBody, read_whole
from xmode_transfer.adapters.s3_uploads import WHOLE_CHECKSUM, S3Uploads, put_answer
from xmode_transfer.domain.errors import Interrupted, XmodeError
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import OpenFile, PutAnswer, PutRequest

MIN_PART_BYTES = 5 * 1024 * 1024
"""S3 takes no smaller part, but for the last (S3 User Guide, "Amazon S3 multipart upload limits")."""
PART_BYTES = 16 * 1024 * 1024
_SUBMITTING_THREADS = 8
"""More than the large objects that a delivery sends at once: each of these waits here for its parts' turns,
and small objects must pass."""

Opened = Callable[[str, datetime | None], None]
"""Told the ID of an upload that S3 has opened, and when the bucket's lifecycle rule ends it."""
Acknowledged = Callable[[str, UploadedPart], None]
"""Told an upload's ID and a part that S3 has taken. (A subscriber's ``on_progress`` counts what was handed to
the socket, also of parts that are refused or go again.)"""


class _PartJob(Job):
    """The turn of one part: from when it may be read until it is answered."""

    operation = "UploadPart"
    is_retried = False

    def __init__(self, lane: Lane, bucket: str, key: str, length: int) -> None:
        super().__init__(lane, bucket, key, length, length)
        self.granted: Future[None] = Future()
        self.answered: Future[None] = Future()
        self.future.add_done_callback(self._given_up)

    def send(self) -> Future[None]:
        self.granted.set_result(None)
        return self.answered

    def _given_up(self, done: Future[None]) -> None:
        if not self.granted.done():
            self.granted.set_exception(done.exception())


class PartsBody:
    """An open file, read part by part, each when it is its turn. ``parts`` has the CRC32 and the length of
    those that were read; after the first part that ``failed`` no more is read."""

    def __init__(self, body: OpenFile, size: int, turn: Callable[[int], _PartJob]) -> None:
        self._body = body
        self._size = size
        self._turn = turn
        self._jobs: list[_PartJob] = []
        self._position = 0
        self.parts: list[tuple[int, int]] = []
        self.failed: XmodeError | None = None

    def read(self, size: int) -> bytes:
        length = min(size, self._size - self._position)
        self.go_on()
        job = self._turn(length)
        self._jobs.append(job)
        job.granted.result()
        self.go_on()
        try:
            content, crc32 = read_whole(self._body, self._position, length)
        except XmodeError as error:
            self.failed = error
            raise
        self._position += length
        self.parts.append((crc32, length))
        return content

    def go_on(self) -> None:
        """Raises when a part has failed: the others are of no use any more."""
        if self.failed is not None:
            raise Interrupted("another part of the object has failed")

    def answered(self, number: int, error: XmodeError | None = None) -> None:
        """S3 has answered for that part: others have its room."""
        self.failed = self.failed or error
        self._end(self._jobs[number - 1], error)

    def close(self) -> None:
        for job in self._jobs:
            self._end(job)

    def _end(self, job: _PartJob, error: XmodeError | None = None) -> None:
        if not job.answered.done():
            job.answered.set_result(None) if error is None else job.answered.set_exception(error)

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("parts are read in order, once")

    def tell(self) -> int:
        return 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class _Transfer:
    """One object on its way, and TransferManager's subscriber to it. ``answer`` is S3's, once it has come."""

    def __init__(
        self,
        request: PutRequest,
        body: "MemoryBody | StreamedBody | PartsBody",
        crc32: int | None,
        opened: Opened,
        acknowledged: Acknowledged,
    ) -> None:
        self.request = request
        self.body = body
        self.crc32 = crc32
        self.opened = opened
        self.answer: PutAnswer | None = None
        self.future: Future[PutAnswer] = Future()
        self.acknowledged = acknowledged

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self.request.size)

    def on_done(self, future: Any, **_: Any) -> None:
        error: BaseException | None = None
        try:
            future.result()
        except Exception as failed:  # noqa: BLE001 - whatever it is, it belongs to the one who waits for the future
            error = failed
        self.body.close()
        error = self.body.failed or error
        if error is None and self.answer is not None:
            self.future.set_result(self.answer)
        else:
            self.future.set_exception(error or RuntimeError("the upload ended without an answer"))


class _Key(str):
    """A key that TransferManager hands on as it is: what comes back knows whose it is."""

    __slots__ = ("transfer",)
    transfer: _Transfer


def _of(key: str) -> _Transfer:
    assert isinstance(key, _Key)
    return key.transfer


class Transfers:
    """Thread-safe. Makes no call until the first upload."""

    def __init__(self, objects: S3Uploads, dispatcher: Dispatcher, lane: Lane, *, parallel: int) -> None:
        self._objects = objects
        self._dispatcher = dispatcher
        self._lane = lane
        self._part_bytes = max(MIN_PART_BYTES, min(PART_BYTES, dispatcher.lanes.memory_bytes))
        self._parallel = parallel
        self._lock = threading.Lock()
        self._managers: dict[bool, Any] = {}

    def put(self, request: PutRequest, body: "MemoryBody | StreamedBody", crc32: int) -> Future[PutAnswer]:
        """One PutObject. May first learn where the bucket is; raises what that raises."""
        transfer = _Transfer(request, body, crc32, _nothing, _nothing)
        extra = self._objects.creation(request) | self._objects.checksum(crc32)
        return self._begin(transfer, extra, in_parts=False)

    def put_in_parts(
        self, request: PutRequest, body: OpenFile, opened: Opened, acknowledged: Acknowledged
    ) -> Future[PutAnswer]:
        """One multipart upload. May first learn where the bucket is; raises what that raises."""
        parts = PartsBody(body, request.size, lambda length: self._turn(request.key, length))
        transfer = _Transfer(request, parts, None, opened, acknowledged)
        return self._begin(transfer, self._objects.creation(request) | WHOLE_CHECKSUM, in_parts=True)

    def close(self) -> None:
        """Waits for what is under way. Idempotent."""
        for manager in self._managers.values():
            manager.shutdown()

    def _begin(self, transfer: _Transfer, extra: dict[str, Any], *, in_parts: bool) -> Future[PutAnswer]:
        key = _Key(transfer.request.key)
        key.transfer = transfer
        manager = self._manager(in_parts=in_parts)
        manager.upload(transfer.body, self._objects.bucket, key, extra, [transfer])
        return transfer.future

    def _turn(self, key: str, length: int) -> _PartJob:
        job = _PartJob(self._lane, self._objects.bucket, key, length)
        self._dispatcher.submit(job)
        return job

    def _manager(self, *, in_parts: bool) -> Any:
        """TransferManager decides by size whether an object goes in parts; here the caller has decided. It is
        imported when it is needed: the fast engine starts quicker."""
        from s3transfer.manager import TransferConfig, TransferManager

        client = self._objects.client()
        with self._lock:
            if not self._managers:
                events = client.meta.events
                events.register("provide-client-params.s3.CreateMultipartUpload", self._mark)
                events.register("after-call.s3.CreateMultipartUpload", self._journal)
            if in_parts not in self._managers:
                config = TransferConfig(
                    multipart_threshold=1 if in_parts else s3_rules.SINGLE_PUT_MAX_BYTES + 1,
                    multipart_chunksize=self._part_bytes,
                    max_request_concurrency=self._parallel,
                    max_in_memory_upload_chunks=self._parallel,
                    max_submission_concurrency=_SUBMITTING_THREADS,
                )
                translated = _Client(client.meta, self._objects)
                self._managers[in_parts] = TransferManager(translated, config)
            return self._managers[in_parts]

    # --- botocore's events ------------------------------------------------------------------------------

    def _mark(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        if isinstance(params["Key"], _Key):
            context["xmode_transfer"] = params["Key"].transfer

    def _journal(self, http_response: Any, parsed: Any, context: dict[str, Any], **_: Any) -> None:
        """An upload is known as soon as S3 has opened it, so that none is orphaned unseen."""
        transfer = context.get("xmode_transfer")
        if transfer is not None and http_response.status_code < 300 and "UploadId" in parsed:
            abort_at = parsed.get("AbortDate")
            transfer.opened(str(parsed["UploadId"]), abort_at and abort_at.astimezone(UTC))


class _Client:
    """botocore's client as TransferManager calls it, with the domain's errors out of it."""

    def __init__(self, meta: Any, objects: S3Uploads) -> None:
        self.meta = meta
        self._objects = objects

    def put_object(self, *, Bucket: str, Key: str, Body: Any, **extra: Any) -> None:
        transfer = _of(Key)
        assert transfer.crc32 is not None
        answer = self._objects.call("PutObject", Key, Body=Body, ContentLength=len(Body), **extra)
        transfer.answer = put_answer(answer, transfer.crc32)

    def create_multipart_upload(self, *, Bucket: str, Key: str, **extra: Any) -> dict[str, str]:
        whole = {name: extra.pop(name) for name in WHOLE_CHECKSUM if name in extra}
        return {"UploadId": self._objects.open_upload(Key, extra, whole)[0]}

    def upload_part(
        self, *, Bucket: str, Key: str, UploadId: str, PartNumber: int, Body: Any, **_: Any
    ) -> dict[str, str]:
        transfer = _of(Key)
        body = transfer.body
        assert isinstance(body, PartsBody)
        crc32, length = body.parts[PartNumber - 1]
        error: XmodeError | None = None

        def send() -> UploadedPart:
            body.go_on()
            return self._objects.send_part(Key, UploadId, PartNumber, Body, length, crc32)

        try:
            part = self._objects.retries.call("upload_part", Key, send)
        except XmodeError as failed:
            error = failed
            raise
        finally:
            body.answered(PartNumber, error)
        transfer.acknowledged(UploadId, part)
        return {"ETag": part.etag}

    def complete_multipart_upload(
        self, *, Bucket: str, Key: str, UploadId: str, MultipartUpload: dict[str, Any], **_: Any
    ) -> None:
        transfer = _of(Key)
        assert isinstance(transfer.body, PartsBody)
        parts = [
            UploadedPart(listed["PartNumber"], length, listed["ETag"], checksums.encode(crc32))
            for listed, (crc32, length) in zip(MultipartUpload["Parts"], transfer.body.parts, strict=True)
        ]
        transfer.answer = self._objects.complete_upload(Key, UploadId, parts, transfer.request.size)

    def abort_multipart_upload(self, **_: Any) -> None:
        """Left to whoever keeps the journal: what may not be aborted is recorded there as orphaned."""


def _nothing(*_: Any) -> None:
    """One PutObject opens no upload and has no parts."""
