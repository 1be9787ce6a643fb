"""One customer's destination: the hot calls through the CRT, the rest as in the portable engine."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from xmode_transfer.adapters import s3_rules
from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_fast.channel import Channel
from xmode_transfer.adapters.s3_fast.engine import SendingEngine
from xmode_transfer.adapters.s3_fast.jobs import HeadJob, Job, PartJob, PutJob
from xmode_transfer.adapters.s3_fast.lanes import SMALL_BYTES
from xmode_transfer.adapters.s3_portable import PortableStore
from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.errors import AccessDenied
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import Clock, OpenFile, PutAnswer, PutRequest


class FastStore(PortableStore):
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
        channel: Channel,
        engine: SendingEngine,
    ) -> None:
        super().__init__(customer, calls, clock, threads, in_memory_bytes, page_size=page_size)
        self._channel = channel
        self._engine = engine
        self._lane = engine.lanes.lane(customer.name)

    @property
    def region(self) -> str | None:
        return self._channel.region or super().region

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        detour = super().put
        job = PutJob(
            self._channel,
            self._lane,
            request,
            body,
            lambda: detour(request, body),
            with_checksum=self._with_checksums,
        )
        return self._send(job)

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        detour = super().upload_part
        job = PartJob(
            self._channel,
            self._lane,
            key,
            upload_id,
            number,
            body,
            offset,
            length,
            lambda: detour(key, upload_id, number, body, offset, length),
            with_checksum=self._with_checksums,
        )
        return self._send(job)

    def close(self) -> None:
        self._engine.lanes.close(self._lane)
        super().close()

    def _send(self, job: Job) -> Future[Any]:
        """The CRT holds a body whole. What is too large for that, and what is signed with the SHA-256 of a
        file that does not fit into memory, is streamed from disk by botocore."""
        large = job.length > min(self._engine.lanes.memory_bytes, s3_rules.SINGLE_PUT_MAX_BYTES)
        if large or (job.length > SMALL_BYTES and not self._with_checksums):
            job.detoured = True
            job.held_bytes = min(job.length, self._in_memory_bytes)
        return self._engine.submit(job)

    def _head(self, key: str) -> dict[str, Any]:
        try:
            return self._headed(key, with_checksum=self._with_checksums)
        except AccessDenied:
            if not self._with_checksums:
                raise
            # Under SSE-KMS the checksum needs kms:Decrypt and the rest does not (S3 API reference,
            # HeadObject).
            return self._headed(key, with_checksum=False)

    def _headed(self, key: str, *, with_checksum: bool) -> dict[str, Any]:
        detour = super()._head
        job = HeadJob(
            self._channel,
            self._lane,
            key,
            lambda: self._engine.aside(lambda: detour(key)),
            with_checksum=with_checksum,
        )
        found: dict[str, Any] = self._engine.submit(job, first=True).result()
        return found
