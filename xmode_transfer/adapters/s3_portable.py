"""The portable engine: S3 through boto3's TransferManager (``s3_transfers``) and botocore's own client calls.

It runs wherever Python does, and the fast engine is tested against it, and extends it: what is rare, and what
the CRT cannot do, goes this way there too.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

from xmode_transfer.adapters import s3_rules
from xmode_transfer.adapters.dispatch import Dispatcher, Job
from xmode_transfer.adapters.retrying import Retries, RetryRules
from xmode_transfer.adapters.s3_bodies import MemoryBody, StreamedBody, crc32_of, read_whole
from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_objects import PAGE_ROWS, S3Objects
from xmode_transfer.adapters.s3_transfers import Transfers
from xmode_transfer.domain.config import Customer, Limits
from xmode_transfer.domain.errors import RequestRefused
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import Clock, CredentialsProvider, EngineInfo, OpenFile, PutAnswer, PutRequest

IN_MEMORY_BYTES = 8 * 1024 * 1024
"""A body up to this size is read once and sent from memory; a larger one is read twice from its one
descriptor."""
_OTHER_CONNECTIONS = 12
"""Beside the bodies, a service may ask for proofs (HEAD) and open or complete a few multipart uploads."""


class PortableStores:
    """Implements ``ports.ObjectStores``, within the process's limits. What still waits when ``stop`` is set
    is given up as Interrupted."""

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

    def share(self, customer: str, participants: int) -> None:
        self.dispatcher.lanes.share(customer, participants)

    def close(self) -> None:
        self.dispatcher.close()
        self.threads.shutdown(wait=True)


class PortableStore(S3Objects):
    """Implements ``ports.ObjectStore``. The methods ``..._by_botocore`` pass no queue and try nothing again
    but the request."""

    resumes = False

    def __init__(self, stores: PortableStores, customer: Customer, calls: S3Calls) -> None:
        super().__init__(customer, calls, stores.clock, stores.retries, page_size=stores.page_size)
        self.dispatcher = stores.dispatcher
        self.lane = self.dispatcher.lanes.lane(customer.name, customer.limits.bandwidth)
        self.in_memory_bytes = stores.in_memory_bytes
        self._threads = stores.threads
        self._transfers = Transfers(self, self.dispatcher, self.lane, parallel=stores.parallel)

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        return self._submit(
            "PutObject", request.key, request.size, lambda: self.put_by_botocore(request, body)
        )

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        send = partial(self.part_by_botocore, key, upload_id, number, body, offset, length)
        return self._submit("UploadPart", key, length, send)

    def put_in_parts(
        self,
        request: PutRequest,
        body: OpenFile,
        opened: Callable[[str, datetime | None], None],
        acknowledged: Callable[[str, UploadedPart], None],
    ) -> Future[PutAnswer]:
        return self._transfers.put_in_parts(request, body, opened, acknowledged)

    def close(self) -> None:
        self.dispatcher.lanes.close(self.lane)
        self._transfers.close()
        self._calls.close()

    # --- Through botocore ---------------------------------------------------------------------------

    def put_by_botocore(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        def put() -> PutAnswer:
            payload, crc32 = self._payload(body, 0, request.size)
            return self._transfers.put(request, payload, crc32).result()

        return self._threads.submit(put)

    def part_by_botocore(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        def send() -> UploadedPart:
            payload, crc32 = self._payload(body, offset, length)
            return self.send_part(key, upload_id, number, payload, length, crc32)

        return self._threads.submit(send)

    def _payload(self, body: OpenFile, offset: int, length: int) -> tuple[MemoryBody | StreamedBody, int]:
        if length > s3_rules.SINGLE_PUT_MAX_BYTES:
            raise RequestRefused(
                f"{length} bytes are more than one request to S3 takes ({s3_rules.SINGLE_PUT_MAX_BYTES})",
                hint="Larger files go in parts",
            )
        if length <= self.in_memory_bytes:
            content, crc32 = read_whole(body, offset, length)
            return MemoryBody(content), crc32
        crc32 = crc32_of(body, offset, length)
        return StreamedBody(body, offset, length, crc32), crc32

    def _submit(self, operation: str, key: str, length: int, send: Callable[[], Future[Any]]) -> Future[Any]:
        held = min(length, self.in_memory_bytes)
        return self.dispatcher.submit(_BodyJob(self, operation, key, length, held, send))


class _BodyJob(Job):
    def __init__(
        self,
        store: PortableStore,
        operation: str,
        key: str,
        length: int,
        held_bytes: int,
        send: Callable[[], Future[Any]],
    ) -> None:
        super().__init__(store.lane, store.bucket, key, length, held_bytes)
        self.operation = operation
        self._send = send

    def send(self) -> Future[Any]:
        return self._send()
