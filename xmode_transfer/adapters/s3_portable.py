"""The portable engine: S3 through botocore's own client calls, on a pool of threads.

It runs wherever Python does, and the fast engine is tested against it. Explicit calls, not a transfer
manager: create-only uploads, resumable parts and receipts need what a manager throws away.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from xmode_transfer.adapters import checksums, s3_rules
from xmode_transfer.adapters.s3_bodies import StreamedBody, crc32_of, read_whole
from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_objects import PAGE_ROWS, S3Objects, put_answer
from xmode_transfer.domain.config import Customer, Limits
from xmode_transfer.domain.errors import RequestRefused
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import Clock, CredentialsProvider, EngineInfo, OpenFile, PutAnswer, PutRequest

IN_MEMORY_BYTES = 8 * 1024 * 1024
"""A body up to this size is read once and sent from memory; a larger one is read twice from its one
descriptor."""

T = TypeVar("T")


_OTHER_CONNECTIONS = 12


class PortableStores:
    """Implements ``ports.ObjectStores``. One pool of threads for all customers of the process."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        reason: str = "configured",
        page_size: int = PAGE_ROWS,
        stop: threading.Event | None = None,
    ) -> None:
        self._stop = stop or threading.Event()
        self.info = EngineInfo("portable", reason)
        self._clock = clock
        self._threads = ThreadPoolExecutor(limits.parallel_objects, thread_name_prefix="s3-portable")
        self._page_size = page_size
        # beside the bodies, a service may ask for proofs (HEAD) and open or complete a few multipart uploads
        bodies = min(limits.parallel_objects, limits.parallel_objects_per_customer)
        self._connections = bodies + _OTHER_CONNECTIONS
        self._in_memory_bytes = min(IN_MEMORY_BYTES, limits.memory_bytes // limits.parallel_objects)

    def open(
        self, customer: Customer, credentials: CredentialsProvider, region: str | None
    ) -> "PortableStore":
        calls = S3Calls(
            customer, credentials, region, self._clock, connections=self._connections, stop=self._stop
        )
        return PortableStore(
            customer, calls, self._clock, self._threads, self._in_memory_bytes, page_size=self._page_size
        )

    def close(self) -> None:
        self._threads.shutdown(wait=True)


class PortableStore(S3Objects):
    """Implements ``ports.ObjectStore``."""

    def __init__(
        self,
        customer: Customer,
        calls: S3Calls,
        clock: Clock,
        threads: ThreadPoolExecutor,
        in_memory_bytes: int,
        *,
        page_size: int,
    ) -> None:
        super().__init__(customer, calls, clock, page_size=page_size)
        self._threads = threads
        self._in_memory_bytes = in_memory_bytes
        self._in_flight = 0
        self._idle = threading.Condition()

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        return self._submit(lambda: self._put(request, body))

    def _put(self, request: PutRequest, body: OpenFile) -> PutAnswer:
        payload, crc32 = self._payload(body, 0, request.size)
        answer = self._calls.call(
            "PutObject",
            request.key,
            Body=payload,
            ContentLength=request.size,
            IfNoneMatch="*",
            **self._creation(request),
            **self._checksum(crc32),
        )
        return put_answer(answer, crc32)

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        return self._submit(lambda: self._upload_part(key, upload_id, number, body, offset, length))

    def _upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> UploadedPart:
        payload, crc32 = self._payload(body, offset, length)
        answer = self._calls.call(
            "UploadPart",
            key,
            UploadId=upload_id,
            PartNumber=number,
            Body=payload,
            ContentLength=length,
            **self._checksum(crc32),
        )
        return UploadedPart(number, length, str(answer.get("ETag", "")), checksums.encode(crc32))

    def _payload(self, body: OpenFile, offset: int, length: int) -> tuple[bytes | StreamedBody, int]:
        if length > s3_rules.SINGLE_PUT_MAX_BYTES:
            raise RequestRefused(
                f"{length} bytes are more than one request to S3 takes ({s3_rules.SINGLE_PUT_MAX_BYTES})",
                hint="Larger files go in parts",
            )
        if length <= self._in_memory_bytes:
            return read_whole(body, offset, length)
        crc32 = crc32_of(body, offset, length)
        return StreamedBody(body, offset, length, crc32), crc32

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        with self._idle:
            self._in_flight += 1
        try:
            future = self._threads.submit(work)
        except BaseException:
            self._finished()
            raise
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: object = None) -> None:
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def close(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0)
        self._calls.close()
