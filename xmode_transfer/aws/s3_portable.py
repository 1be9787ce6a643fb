"""The portable engine: S3 through boto3, and boto3's TransferManager for objects in parts.

The fast engine extends it and sends rare requests through it. TransferManager sends on threads of its own.
Each part waits for its slot among all bodies of the process before it is read (``lanes``).
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from xmode_transfer.aws import checksums
from xmode_transfer.aws.checksums import OpenFile, StreamedBody, read_whole
from xmode_transfer.aws.lanes import Dispatcher, Job
from xmode_transfer.aws.retrying import Retries
from xmode_transfer.aws.s3_calls import S3Calls
from xmode_transfer.aws.s3_objects import S3Objects, put_answer
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import (
    SINGLE_PUT_MAX_BYTES,
    Acknowledged,
    EngineInfo,
    Opened,
    PutAnswer,
    PutRequest,
)
from xmode_transfer.config import Customer, Limits
from xmode_transfer.model.errors import Interrupted, RequestRefused, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import UploadedPart

MIN_PART_BYTES = 5 * 1024 * 1024
"""The smallest part but for the last (S3 User Guide, "Amazon S3 multipart upload limits")."""
PART_BYTES = 16 * 1024 * 1024
IN_MEMORY_BYTES = 8 * 1024 * 1024
"""A body up to this size is read once and sent from memory; a larger one is read twice."""
_OTHER_CONNECTIONS = 12
"""Connections for requests without bodies."""
_SUBMITTING_THREADS = 8
"""More than the large objects that a delivery sends at once: each waits here for its parts' slots, and small
objects must pass."""


class PortableStores:
    """Implements ``ObjectStores``. What still waits when ``stop`` is set is interrupted."""

    _dispatches_with: type[Dispatcher] = Dispatcher

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        reason: str = "configured",
        stop: threading.Event | None = None,
    ) -> None:
        self.info = EngineInfo("portable", reason)
        self.stop = stop or threading.Event()
        self.clock = clock
        self.retries = Retries(self.stop)
        self.parallel = min(limits.parallel_objects, limits.parallel_objects_per_customer)
        self.in_memory_bytes = min(IN_MEMORY_BYTES, limits.memory_bytes // limits.parallel_objects)
        self.threads = ThreadPoolExecutor(limits.parallel_objects, thread_name_prefix="s3-portable")
        self.dispatcher = self._dispatches_with(limits, clock, self.stop)

    def open(
        self, customer: Customer, credentials: CredentialsProvider, region: str | None
    ) -> "PortableStore":
        return PortableStore(self, customer, self.calls(customer, credentials, region))

    def calls(self, customer: Customer, credentials: CredentialsProvider, region: str | None) -> S3Calls:
        connections = self.parallel + _OTHER_CONNECTIONS
        return S3Calls(customer, credentials, region, self.clock, connections=connections, stop=self.stop)

    def close(self) -> None:
        self.dispatcher.close()
        self.threads.shutdown(wait=True)


class PortableStore(S3Objects):
    """Implements ``ObjectStore``. Methods ``..._by_botocore`` bypass the queue and retry only the request."""

    resumes = False

    def __init__(self, stores: PortableStores, customer: Customer, calls: S3Calls) -> None:
        super().__init__(customer, calls, stores.clock, stores.retries)
        self.dispatcher = stores.dispatcher
        self.lane = self.dispatcher.lanes.lane(customer.name, customer.limits)
        self.in_memory_bytes = stores.in_memory_bytes
        self._threads = stores.threads
        self._parallel = stores.parallel
        self._lock = threading.Lock()
        self._manager: Any = None

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        send = partial(self.put_by_botocore, request, body)
        return self.dispatcher.submit(_BodyJob(self, "PutObject", request.key, request.size, send))

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        send = partial(self.part_by_botocore, key, upload_id, number, body, offset, length)
        return self.dispatcher.submit(_BodyJob(self, "UploadPart", key, length, send))

    def put_in_parts(
        self, request: PutRequest, body: OpenFile, opened: Opened, acknowledged: Acknowledged
    ) -> Future[PutAnswer]:
        upload = _Upload(self, request, body, opened, acknowledged)
        key = _Key(request.key)
        key.upload = upload
        self._transfer_manager().upload(upload, self.bucket, key, subscribers=[upload])
        return upload.future

    def close(self) -> None:
        self.dispatcher.lanes.close(self.lane)
        if self._manager is not None:
            self._manager.shutdown()
        self._calls.close()

    def put_by_botocore(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        def put() -> PutAnswer:
            payload, crc32 = self._payload(body, 0, request.size)
            asked = self.creation(request) | self.checksum(crc32)
            if request.replaces is not None:
                asked["IfMatch"] = request.replaces
            answer = self.call("PutObject", request.key, Body=payload, ContentLength=request.size, **asked)
            return put_answer(answer, crc32)

        return self._threads.submit(put)

    def part_by_botocore(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        def send() -> UploadedPart:
            payload, crc32 = self._payload(body, offset, length)
            return self.send_part(key, upload_id, number, payload, length, crc32)

        return self._threads.submit(send)

    def _payload(self, body: OpenFile, offset: int, length: int) -> tuple[bytes | StreamedBody, int]:
        if length > SINGLE_PUT_MAX_BYTES:
            raise RequestRefused(
                f"{length} bytes are more than one request to S3 takes ({SINGLE_PUT_MAX_BYTES})",
                hint="Larger files go in parts",
            )
        if length <= self.in_memory_bytes:
            return read_whole(body, offset, length)
        crc32 = checksums.decode(checksums.of(body, checksums.ALGORITHM, offset, length))
        return StreamedBody(body, offset, length, crc32), crc32

    def _transfer_manager(self) -> Any:
        """Imported late, for a quick start. May first learn the Region."""
        from s3transfer.manager import TransferConfig, TransferManager

        meta = self._calls.client().meta
        with self._lock:
            if self._manager is None:
                memory_bytes = self.dispatcher.lanes.memory_bytes
                config = TransferConfig(
                    multipart_threshold=1,  # the caller has decided
                    multipart_chunksize=max(MIN_PART_BYTES, min(PART_BYTES, memory_bytes)),
                    max_request_concurrency=self._parallel,
                    max_in_memory_upload_chunks=self._parallel,
                    max_submission_concurrency=_SUBMITTING_THREADS,
                )
                self._manager = TransferManager(_Client(meta, self), config)
            return self._manager


class _BodyJob(Job):
    def __init__(
        self, store: PortableStore, operation: str, key: str, length: int, send: Callable[[], Future[Any]]
    ) -> None:
        super().__init__(store.lane, store.bucket, key, length, min(length, store.in_memory_bytes))
        self.operation = operation
        self._send = send

    def send(self) -> Future[Any]:
        return self._send()


class _PartJob(Job):
    """The slot of one part, from its read until its answer."""

    operation = "UploadPart"
    is_retried = False

    def __init__(self, *asked: Any) -> None:
        super().__init__(*asked)
        self.granted: Future[None] = Future()
        self.answered: Future[None] = Future()
        self.future.add_done_callback(self._given_up)

    def send(self) -> Future[None]:
        self.granted.set_result(None)
        return self.answered

    def end(self, error: XmodeError | None) -> None:
        if not self.answered.done():
            self.answered.set_result(None) if error is None else self.answered.set_exception(error)

    def _given_up(self, done: Future[None]) -> None:
        if not self.granted.done():
            self.granted.set_exception(done.exception())


@dataclass(eq=False)
class _Upload:
    """One object in parts: TransferManager's file, read one part per slot, and its subscriber. ``parts`` has
    the CRC32 and length of each part that was read."""

    store: PortableStore
    request: PutRequest
    body: OpenFile
    opened: Opened
    acknowledged: Acknowledged
    parts: list[tuple[int, int]] = field(default_factory=list)
    answer: PutAnswer | None = None
    future: Future[PutAnswer] = field(default_factory=Future)
    _jobs: list[_PartJob] = field(default_factory=list)
    _position: int = 0
    _failed: XmodeError | None = None

    def read(self, size: int) -> bytes:
        length = min(size, self.request.size - self._position)
        self.go_on()
        job = _PartJob(self.store.lane, self.store.bucket, self.request.key, length, length)
        self._jobs.append(job)
        self.store.dispatcher.submit(job)
        job.granted.result()
        self.go_on()
        try:
            content, crc32 = read_whole(self.body, self._position, length)
        except XmodeError as error:
            self._failed = error
            raise
        self._position += length
        self.parts.append((crc32, length))
        return content

    def go_on(self) -> None:
        if self._failed is not None:
            raise Interrupted("another part of the object has failed")

    def answered(self, number: int, error: XmodeError | None) -> None:
        self._failed = self._failed or error
        self._jobs[number - 1].end(error)

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("parts are read in order, once")

    def tell(self) -> int:
        return 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self.request.size)

    def on_done(self, future: Any, **_: Any) -> None:
        error: BaseException | None = None
        try:
            future.result()
        except Exception as failed:  # noqa: BLE001 - it belongs to the caller that waits for the future
            error = failed
        for job in self._jobs:
            job.end(None)
        error = self._failed or error
        if error is None and self.answer is not None:
            self.future.set_result(self.answer)
        else:
            self.future.set_exception(error or RuntimeError("the upload ended without an answer"))


class _Key(str):
    """A key that TransferManager passes on unchanged, with its upload."""

    __slots__ = ("upload",)
    upload: _Upload


class _Client:
    """botocore's client as TransferManager calls it, with domain errors."""

    def __init__(self, meta: Any, store: PortableStore) -> None:
        self.meta = meta
        self._store = store

    def create_multipart_upload(self, *, Key: _Key, **_: Any) -> dict[str, str]:
        """Report an upload as soon as S3 has opened it, so that none is orphaned unnoticed."""
        upload_id, abort_at = self._store.create_upload(Key.upload.request)
        Key.upload.opened(upload_id, abort_at)
        return {"UploadId": upload_id}

    def upload_part(
        self, *, Key: _Key, UploadId: str, PartNumber: int, Body: Any, **_: Any
    ) -> dict[str, str]:
        upload = Key.upload
        crc32, length = upload.parts[PartNumber - 1]
        error: XmodeError | None = None

        def send() -> UploadedPart:
            upload.go_on()
            return self._store.send_part(Key, UploadId, PartNumber, Body, length, crc32)

        try:
            part = self._store.retries.call("upload_part", Key, send)
        except XmodeError as failed:
            error = failed
            raise
        finally:
            upload.answered(PartNumber, error)
        upload.acknowledged(UploadId, part)
        return {"ETag": part.etag}

    def complete_multipart_upload(
        self, *, Key: _Key, UploadId: str, MultipartUpload: dict[str, Any], **_: Any
    ) -> None:
        upload = Key.upload
        parts = [
            UploadedPart(listed["PartNumber"], length, listed["ETag"], checksums.encode(crc32))
            for listed, (crc32, length) in zip(MultipartUpload["Parts"], upload.parts, strict=True)
        ]
        upload.answer = self._store.complete_upload(Key, UploadId, parts, upload.request.size)

    def abort_multipart_upload(self, **_: Any) -> None:
        """Do nothing: the caller aborts, and records an upload that it may not abort as orphaned."""
