"""The portable engine: S3 through botocore's own client calls, on a pool of threads.

It runs wherever Python does, and the fast engine is tested against it. Explicit calls, not a transfer
manager: create-only uploads, resumable parts and receipts need what a manager throws away.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from xmode_transfer.adapters import checksums, s3_rules
from xmode_transfer.adapters.s3_bodies import StreamedBody, crc32_of, read_whole
from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_errors import Attempt
from xmode_transfer.domain.config import ChecksumMode, Customer, Limits
from xmode_transfer.domain.errors import (
    AccessDenied,
    ObjectExists,
    ObjectNotFound,
    RequestRefused,
    Unavailable,
    UploadNotFound,
)
from xmode_transfer.domain.records import Checksum, UploadedPart
from xmode_transfer.ports import (
    Clock,
    CredentialsProvider,
    EngineInfo,
    ListedObject,
    ObjectInfo,
    OpenFile,
    PutAnswer,
    PutRequest,
)

IN_MEMORY_BYTES = 8 * 1024 * 1024
"""A body up to this size is read once and sent from memory; a larger one is read twice from its one
descriptor."""
_READ_CHUNK_BYTES = 1024 * 1024

T = TypeVar("T")


class PortableStores:
    """Implements ``ports.ObjectStores``. One pool of threads for all customers of the process."""

    def __init__(self, limits: Limits, clock: Clock, *, reason: str = "configured") -> None:
        self.info = EngineInfo("portable", reason)
        self._clock = clock
        self._threads = ThreadPoolExecutor(limits.parallel_objects, thread_name_prefix="s3-portable")
        self._connections = min(limits.parallel_objects, limits.parallel_objects_per_customer) + 2
        self._in_memory_bytes = min(IN_MEMORY_BYTES, limits.memory_bytes // limits.parallel_objects)

    def open(
        self, customer: Customer, credentials: CredentialsProvider, region: str | None
    ) -> "PortableStore":
        calls = S3Calls(customer, credentials, region, self._clock, connections=self._connections)
        return PortableStore(customer, calls, self._threads, self._in_memory_bytes)

    def close(self) -> None:
        self._threads.shutdown(wait=True)


class PortableStore:
    """Implements ``ports.ObjectStore``."""

    def __init__(
        self, customer: Customer, calls: S3Calls, threads: ThreadPoolExecutor, in_memory_bytes: int
    ) -> None:
        self._destination = customer.destination
        self._calls = calls
        self._threads = threads
        self._in_memory_bytes = in_memory_bytes
        self._with_checksums = customer.destination.checksums is not ChecksumMode.NONE
        self._in_flight = 0
        self._idle = threading.Condition()

    @property
    def region(self) -> str | None:
        return self._calls.region

    @property
    def checksum_algorithm(self) -> str:
        return checksums.ALGORITHM

    # --- Bodies: on the pool ------------------------------------------------------------------------

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
        return _put_answer(answer, crc32)

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
        return UploadedPart(number, length, str(answer["ETag"]), checksums.encode(crc32))

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

    # --- Multipart ----------------------------------------------------------------------------------

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        whole = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"} if self._with_checksums else {}
        answer = self._tolerantly(
            "CreateMultipartUpload", request.key, self._creation(request), whole, "checksum"
        )
        abort_at = answer.get("AbortDate")
        return str(answer["UploadId"]), abort_at and abort_at.astimezone(UTC)

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], size: int
    ) -> PutAnswer:
        ordered = sorted(parts, key=lambda part: part.number)
        crc32 = checksums.combine_parts((checksums.decode(part.checksum), part.size) for part in ordered)
        listed = [
            {"PartNumber": part.number, "ETag": part.etag}
            | ({"ChecksumCRC32": part.checksum} if self._with_checksums else {})
            for part in ordered
        ]
        whole = (
            {"ChecksumType": "FULL_OBJECT", "ChecksumCRC32": checksums.encode(crc32)}
            if self._with_checksums
            else {}
        )
        asked = {
            "UploadId": upload_id,
            "MultipartUpload": {"Parts": listed},
            "MpuObjectSize": size,
            "IfNoneMatch": "*",
        }
        answer = self._tolerantly("CompleteMultipartUpload", key, asked, whole, "checksum")
        return _put_answer(answer, crc32)

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            self._calls.call("AbortMultipartUpload", key, UploadId=upload_id)
        except UploadNotFound:
            return

    def _tolerantly(
        self, operation: str, key: str, asked: dict[str, Any], wished: dict[str, Any], named: str
    ) -> dict[str, Any]:
        """Asks with the checksum of the whole, and without where the store does not know that member of S3's
        API.

        AWS knows it; a store that does not says 501, or names the checksum in its refusal. The object is then
        proven by a HEAD or not at all, never assumed.
        """
        try:
            return self._calls.call(operation, key, **asked, **wished)
        except RequestRefused as error:
            unknown = error.http_status == 501 or (
                error.http_status == 400 and named in error.message.lower()
            )
            if not (wished and unknown):
                raise
            return self._calls.call(operation, key, **asked)

    # --- What is there ------------------------------------------------------------------------------

    def head(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._head(key)
        except ObjectNotFound:
            return None
        return ObjectInfo(
            key=key,
            size=int(answer["ContentLength"]),
            etag=str(answer["ETag"]),
            checksum=_checksum_in(answer),
            token=answer.get("Metadata", {}).get(s3_rules.TOKEN_METADATA),
            version_id=answer.get("VersionId"),
            modified_at=answer["LastModified"].astimezone(UTC),
            encryption=answer.get("ServerSideEncryption"),
            storage_class=answer.get("StorageClass"),
        )

    def _head(self, key: str) -> dict[str, Any]:
        if not self._with_checksums:
            return self._calls.call("HeadObject", key)
        try:
            return self._calls.call("HeadObject", key, ChecksumMode="ENABLED")
        except AccessDenied:
            # Under SSE-KMS the checksum needs kms:Decrypt and the rest does not (S3 API reference,
            # HeadObject).
            return self._calls.call("HeadObject", key)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        asked: dict[str, Any] = {"Prefix": prefix}
        if start_after is not None:
            asked["StartAfter"] = start_after
        while True:
            page = self._calls.call("ListObjectsV2", **asked)
            for row in page.get("Contents", ()):
                yield ListedObject(
                    row["Key"], int(row["Size"]), str(row["ETag"]), row["LastModified"].astimezone(UTC)
                )
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == asked.get("ContinuationToken"):
                raise Unavailable(
                    f"the listing of s3://{self._destination.bucket}/{prefix} broke off: S3 says there is "
                    "more, and not where it goes on",
                    hint="Tried again by itself",
                )
            asked = {"Prefix": prefix, "ContinuationToken": token}

    def read(self, key: str) -> Iterator[bytes]:
        mode = {"ChecksumMode": "ENABLED"} if self._with_checksums else {}
        answer = self._calls.call("GetObject", key, **mode)
        body = answer["Body"]
        try:
            with self._calls.translated(Attempt("GetObject", self._destination.bucket, key)):
                yield from body.iter_chunks(_READ_CHUNK_BYTES)
        finally:
            body.close()

    def delete(self, key: str, etag: str | None = None) -> str | None:
        condition = {} if etag is None else {"IfMatch": etag}
        try:
            answer = self._calls.call("DeleteObject", key, **condition)
        except ObjectNotFound:
            return None
        except ObjectExists:
            if self.head(key) is None:  # some stores answer 412 for a key that is gone
                return None
            raise
        except RequestRefused as error:
            if error.http_status != 501 or etag is None:
                raise
            return self._delete_compared(key, etag)
        return answer.get("VersionId") if answer.get("DeleteMarker") else None

    def _delete_compared(self, key: str, etag: str) -> str | None:
        """For a store without conditional deletes: compares first, which leaves a moment between the two."""
        found = self.head(key)
        if found is None:
            return None
        if found.etag != etag:
            raise ObjectExists(
                f"s3://{self._destination.bucket}/{key} was changed: its ETag is {found.etag} and not {etag}",
                http_status=412,
            )
        return self.delete(key)

    def close(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0)
        self._calls.close()

    def _creation(self, request: PutRequest) -> dict[str, Any]:
        return {
            **s3_rules.creation(self._destination),
            "ContentType": request.content_type,
            "Metadata": s3_rules.metadata(request.token, request.metadata),
        }

    def _checksum(self, crc32: int) -> dict[str, str]:
        if not self._with_checksums:
            return {}
        return {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": checksums.encode(crc32)}


def _put_answer(answer: dict[str, Any], crc32: int) -> PutAnswer:
    value = checksums.encode(crc32)
    return PutAnswer(
        etag=str(answer.get("ETag", "")),
        checksum=Checksum(checksums.ALGORITHM, value),
        version_id=answer.get("VersionId"),
        proven=answer.get("ChecksumCRC32") == value,
        encryption=answer.get("ServerSideEncryption"),
    )


def _checksum_in(answer: dict[str, Any]) -> Checksum | None:
    """The whole object's checksum; a composite one (``...-3``) is of the parts and says nothing of the
    whole."""
    if answer.get("ChecksumType") == "COMPOSITE":
        return None
    for name in ("CRC32", "CRC64NVME", "CRC32C", "SHA256", "SHA1"):
        value = answer.get(f"Checksum{name}")
        if value and "-" not in value:
            return Checksum(name.lower(), value)
    return None
