"""The portable engine: S3 through boto3, and boto3's TransferManager for what goes in parts.

It runs wherever Python does, and the fast engine is tested against it, and extends it: what is rare, and what
the CRT cannot do, goes this way there too. TransferManager reads, cuts, orders and sends on threads of its
own; what goes over the wire is made by the same code as in the fast engine, and what may pass is tried again
by the same rules. It is given the source's open file, never a path. Each part waits for its turn among all
bodies of the process before it is read (``lanes``).
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

from xmode_transfer.aws import checksums
from xmode_transfer.aws.checksums import OpenFile, StreamedBody, read_whole
from xmode_transfer.aws.lanes import Dispatcher, Job
from xmode_transfer.aws.retrying import Retries, RetryRules
from xmode_transfer.aws.s3_calls import S3Calls
from xmode_transfer.aws.s3_objects import PAGE_ROWS, S3Objects, put_answer
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import SINGLE_PUT_MAX_BYTES, EngineInfo, PutAnswer, PutRequest
from xmode_transfer.config import Customer, Limits
from xmode_transfer.model.errors import Interrupted, RequestRefused, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import UploadedPart

MIN_PART_BYTES = 5 * 1024 * 1024
"""S3 takes no smaller part, but for the last (S3 User Guide, "Amazon S3 multipart upload limits")."""
PART_BYTES = 16 * 1024 * 1024
IN_MEMORY_BYTES = 8 * 1024 * 1024
"""A body up to this size is read once and sent from memory; a larger one is read twice from its one
descriptor."""
_OTHER_CONNECTIONS = 12
"""Beside the bodies, a service may ask for proofs (HEAD) and open or complete a few multipart uploads."""
_SUBMITTING_THREADS = 8
"""More than the large objects that a delivery sends at once: each of these waits here for its parts' turns,
and small objects must pass."""

Opened = Callable[[str, datetime | None], None]
"""Told the ID of an upload that S3 has opened, and when the bucket's lifecycle rule ends it."""
Acknowledged = Callable[[str, UploadedPart], None]
"""Told an upload's ID and a part that S3 has taken. (A subscriber's ``on_progress`` counts what was handed to
the socket, also of parts that are refused or go again.)"""


class PortableStores:
    """Implements ``ObjectStores``, within the process's limits. What still waits when ``stop`` is set is
    given up as Interrupted."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        reason: str = "configured",
        page_size: int = PAGE_ROWS,
        stop: threading.Event | None = None,
        rules: RetryRules | None = None,
    ) -> None:
        self.info = EngineInfo("portable", reason)
        self.stop = stop or threading.Event()
        self.clock = clock
        self.page_size = page_size
        self.retries = Retries(self.stop, rules)
        self.parallel = min(limits.parallel_objects, limits.parallel_objects_per_customer)
        self.in_memory_bytes = min(IN_MEMORY_BYTES, limits.memory_bytes // limits.parallel_objects)
        self.threads = ThreadPoolExecutor(limits.parallel_objects, thread_name_prefix="s3-portable")
        self.dispatcher = self._make_dispatcher(limits, clock, rules)

    def _make_dispatcher(self, limits: Limits, clock: Clock, rules: RetryRules | None) -> Dispatcher:
        return Dispatcher(limits, clock, self.stop, rules)

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
    """Implements ``ObjectStore``. The methods ``..._by_botocore`` pass no queue and try nothing again but the
    request."""

    resumes = False

    def __init__(self, stores: PortableStores, customer: Customer, calls: S3Calls) -> None:
        super().__init__(customer, calls, stores.clock, stores.retries, page_size=stores.page_size)
        self.dispatcher = stores.dispatcher
        self.lane = self.dispatcher.lanes.lane(customer.name, customer.limits.bandwidth)
        self.in_memory_bytes = stores.in_memory_bytes
        self._threads = stores.threads
        self._parallel = stores.parallel
        self._lock = threading.Lock()
        self._manager: Any = None

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        def send() -> Future[PutAnswer]:
            return self.put_by_botocore(request, body)

        return self.dispatcher.submit(_BodyJob(self, "PutObject", request.key, request.size, send))

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        def send() -> Future[UploadedPart]:
            return self.part_by_botocore(key, upload_id, number, body, offset, length)

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
        """Imported when it is needed: the fast engine starts quicker. May first learn where the bucket is;
        raises what that raises."""
        from s3transfer.manager import TransferConfig, TransferManager

        meta = self._calls.client().meta
        with self._lock:
            if self._manager is None:
                memory_bytes = self.dispatcher.lanes.memory_bytes
                config = TransferConfig(
                    multipart_threshold=1,  # whoever calls has decided that the object goes in parts
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
    """The turn of one part: from when it may be read until it is answered."""

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


class _Upload:
    """One object on its way in parts, as TransferManager reads it, each part when it is its turn, and as its
    subscriber. ``parts`` has the CRC32 and the length of those that were read; after the first part that
    failed no more is read. ``answer`` is S3's, once it has come."""

    def __init__(
        self,
        store: PortableStore,
        request: PutRequest,
        body: OpenFile,
        opened: Opened,
        acknowledged: Acknowledged,
    ) -> None:
        self._store = store
        self._body = body
        self._jobs: list[_PartJob] = []
        self._position = 0
        self._failed: XmodeError | None = None
        self.request = request
        self.opened = opened
        self.acknowledged = acknowledged
        self.parts: list[tuple[int, int]] = []
        self.answer: PutAnswer | None = None
        self.future: Future[PutAnswer] = Future()

    def read(self, size: int) -> bytes:
        length = min(size, self.request.size - self._position)
        self.go_on()
        job = _PartJob(self._store.lane, self._store.bucket, self.request.key, length, length)
        self._jobs.append(job)
        self._store.dispatcher.submit(job)
        job.granted.result()
        self.go_on()
        try:
            content, crc32 = read_whole(self._body, self._position, length)
        except XmodeError as error:
            self._failed = error
            raise
        self._position += length
        self.parts.append((crc32, length))
        return content

    def go_on(self) -> None:
        """Raises when a part has failed: the others are of no use any more."""
        if self._failed is not None:
            raise Interrupted("another part of the object has failed")

    def answered(self, number: int, error: XmodeError | None) -> None:
        """S3 has answered for that part: others have its room."""
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
        except Exception as failed:  # noqa: BLE001 - whatever it is, it belongs to the one who waits for the future
            error = failed
        for job in self._jobs:
            job.end(None)
        error = self._failed or error
        if error is None and self.answer is not None:
            self.future.set_result(self.answer)
        else:
            self.future.set_exception(error or RuntimeError("the upload ended without an answer"))


class _Key(str):
    """A key that TransferManager hands on as it is: what comes back knows whose it is."""

    __slots__ = ("upload",)
    upload: _Upload


class _Client:
    """botocore's client as TransferManager calls it, with the domain's errors out of it."""

    def __init__(self, meta: Any, store: PortableStore) -> None:
        self.meta = meta
        self._store = store

    def create_multipart_upload(self, *, Key: _Key, **_: Any) -> dict[str, str]:
        """An upload is known as soon as S3 has opened it, so that none is orphaned unseen."""
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
        """Left to whoever keeps the journal: what may not be aborted is recorded there as orphaned."""
