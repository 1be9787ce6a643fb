"""One customer's destination: the hot calls through the CRT, the rest as in the portable engine."""

from concurrent.futures import Future
from typing import Any

from xmode_transfer.adapters import s3_rules
from xmode_transfer.adapters.lanes import SMALL_BYTES
from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_fast.channel import Channel
from xmode_transfer.adapters.s3_fast.engine import SendingEngine
from xmode_transfer.adapters.s3_fast.jobs import HeadJob, Job, PartJob, PutJob
from xmode_transfer.adapters.s3_portable import PortableStore, PortableStores
from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.errors import AccessDenied
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import OpenFile, PutAnswer, PutRequest


class FastStore(PortableStore):
    """Implements ``ports.ObjectStore``, and ``jobs.Route`` for its own requests."""

    resumes = True
    dispatcher: SendingEngine

    def __init__(self, stores: PortableStores, customer: Customer, calls: S3Calls, channel: Channel) -> None:
        super().__init__(stores, customer, calls)
        self.channel = channel
        self.with_checksum = self._with_checksums
        # The CRT holds a body whole. What is too large for that is streamed from disk by botocore, and so is
        # what is signed with the SHA-256 of a file that is not held.
        held = min(self.dispatcher.lanes.memory_bytes, s3_rules.SINGLE_PUT_MAX_BYTES)
        self._largest_bytes = held if self.with_checksum else min(held, SMALL_BYTES)

    @property
    def engine(self) -> SendingEngine:
        return self.dispatcher

    @property
    def region(self) -> str | None:
        return self.channel.region or super().region

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        return self._send(PutJob(self, request, body))

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        return self._send(PartJob(self, key, upload_id, number, body, offset, length))

    def _send(self, job: Job) -> Future[Any]:
        if job.length > self._largest_bytes:
            job.detoured = job.stays_detoured = True
            job.held_bytes = min(job.length, self.in_memory_bytes)
        return self.dispatcher.submit(job)

    def _head(self, key: str) -> dict[str, Any]:
        try:
            return self._headed(key, with_checksum=self.with_checksum)
        except AccessDenied:
            if not self.with_checksum:
                raise
            # Under SSE-KMS the checksum needs kms:Decrypt and the rest does not (S3 API reference,
            # HeadObject).
            return self._headed(key, with_checksum=False)

    def _headed(self, key: str, *, with_checksum: bool) -> dict[str, Any]:
        job = HeadJob(self, key, with_checksum=with_checksum)
        found: dict[str, Any] = self.dispatcher.submit(job, first=True).result()
        return found

    def head_by_botocore(self, key: str) -> Future[dict[str, Any]]:
        return self.dispatcher.aside(lambda: super(FastStore, self)._head(key))
