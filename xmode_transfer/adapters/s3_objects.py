"""What every engine asks of a bucket besides sending bodies: multipart bookkeeping, looking, listing,
deleting."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from xmode_transfer.adapters import checksums, s3_rules
from xmode_transfer.adapters.s3_acl import object_acl
from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_deleting import BatchDeletes
from xmode_transfer.adapters.s3_errors import UNREADABLE, Attempt, bucket_missing, unreadable
from xmode_transfer.domain.acl import ObjectAcl
from xmode_transfer.domain.config import ChecksumMode, Customer
from xmode_transfer.domain.errors import (
    AccessDenied,
    ChecksumMismatch,
    ObjectExists,
    ObjectNotFound,
    RequestRefused,
    Unavailable,
    UploadNotFound,
)
from xmode_transfer.domain.records import Checksum, UploadedPart
from xmode_transfer.ports import (
    Clock,
    Deleted,
    Deletion,
    ListedObject,
    ObjectInfo,
    PutAnswer,
    PutRequest,
)

PAGE_ROWS = 1000
"""Rows of one page of a listing; S3 answers no more (S3 API reference, ListObjectsV2)."""
_READ_CHUNK_BYTES = 1024 * 1024
_BUCKET_SEEN_SECONDS = 30.0


class S3Objects:
    """The part of ``ports.ObjectStore`` that carries no body; an engine adds ``put``, ``upload_part`` and
    ``close``."""

    def __init__(
        self, customer: Customer, calls: S3Calls, clock: Clock, *, page_size: int = PAGE_ROWS
    ) -> None:
        self._destination = customer.destination
        self._calls = calls
        self._clock = clock
        self._page_size = page_size
        self._bucket_seen_until = float("-inf")
        self._with_checksums = customer.destination.checksums is not ChecksumMode.NONE
        self._with_whole = customer.destination.checksums is ChecksumMode.FULL
        self._deletes = BatchDeletes(calls, clock, self.head, self.delete)

    @property
    def region(self) -> str | None:
        return self._calls.region

    @property
    def checksum_algorithm(self) -> str:
        return checksums.ALGORITHM

    # --- Multipart ----------------------------------------------------------------------------------

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        whole = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"} if self._with_whole else {}
        answer = self._tolerantly("CreateMultipartUpload", request.key, self._creation(request), whole)
        try:
            abort_at = answer.get("AbortDate")
            return str(answer["UploadId"]), abort_at and abort_at.astimezone(UTC)
        except UNREADABLE as error:
            attempt = Attempt("CreateMultipartUpload", self._destination.bucket, request.key)
            raise unreadable(attempt, error) from error

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
        asked = {
            "UploadId": upload_id,
            "MultipartUpload": {"Parts": listed},
            "MpuObjectSize": size,
            "IfNoneMatch": "*",
        }
        answer = put_answer(self._complete(key, asked, crc32, ordered), crc32)
        return self._with_etag(answer, key, [part.etag for part in ordered])

    def _complete(
        self, key: str, asked: dict[str, Any], crc32: int, parts: Sequence[UploadedPart]
    ) -> dict[str, Any]:
        if not self._with_whole:
            return self._calls.call("CompleteMultipartUpload", key, **asked)
        whole = {"ChecksumType": "FULL_OBJECT", "ChecksumCRC32": checksums.encode(crc32)}
        try:
            return self._tolerantly("CompleteMultipartUpload", key, asked, whole)
        except ChecksumMismatch as mismatch:
            return self._complete_composite(key, asked, parts, mismatch)

    def _with_etag(self, answer: PutAnswer, key: str, parts: Sequence[str]) -> PutAnswer:
        """Ceph RGW answers CompleteMultipartUpload with an empty ETag. It follows from the ETags of the
        parts; where it does not, a HEAD names it."""
        if answer.etag:
            return answer
        etag = checksums.multipart_etag(parts)
        if etag is None:
            info = self.head(key)
            etag = info.etag if info is not None else ""
        return replace(answer, etag=etag)

    def _complete_composite(
        self, key: str, asked: dict[str, Any], parts: Sequence[UploadedPart], mismatch: ChecksumMismatch
    ) -> dict[str, Any]:
        """For a store that knows only the checksum of the parts' checksums. Nothing slips by: AWS refuses
        this for an upload that was opened for a checksum of the whole (S3 API reference,
        CompleteMultipartUpload)."""
        value = checksums.composite([checksums.decode(part.checksum) for part in parts])
        try:
            return self._calls.call(
                "CompleteMultipartUpload", key, **asked, ChecksumType="COMPOSITE", ChecksumCRC32=value
            )
        except (ChecksumMismatch, RequestRefused):
            raise mismatch from None

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            self._calls.call("AbortMultipartUpload", key, UploadId=upload_id)
        except UploadNotFound:
            return

    def _tolerantly(
        self, operation: str, key: str, asked: dict[str, Any], wished: dict[str, Any]
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
                error.http_status == 400 and "checksum" in error.message.lower()
            )
            if not (wished and unknown):
                raise
            return self._calls.call(operation, key, **asked)

    # --- What is there ------------------------------------------------------------------------------

    def head(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._head(key)
        except ObjectNotFound:
            self._check_bucket()
            return None
        try:
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
        except UNREADABLE as error:
            raise unreadable(Attempt("HeadObject", self._destination.bucket, key), error) from error

    def _head(self, key: str) -> dict[str, Any]:
        if not self._with_checksums:
            return self._calls.call("HeadObject", key)
        try:
            return self._calls.call("HeadObject", key, ChecksumMode="ENABLED")
        except AccessDenied:
            # Under SSE-KMS the checksum needs kms:Decrypt and the rest does not (S3 API reference,
            # HeadObject).
            return self._calls.call("HeadObject", key)

    def _check_bucket(self) -> None:
        """A HEAD says the same 404 of a key and of a bucket that is not there; this tells the two apart, and
        remembers for a while that the bucket is there. Raises BucketMissing."""
        if self._clock.monotonic() < self._bucket_seen_until:
            return
        try:
            self._calls.call("HeadBucket")
        except AccessDenied:
            pass  # it is there; a session policy for one prefix does not allow this call
        except ObjectNotFound as error:
            raise bucket_missing(self._destination.bucket, error) from error
        self._bucket_seen_until = self._clock.monotonic() + _BUCKET_SEEN_SECONDS

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        asked: dict[str, Any] = {"Prefix": prefix, "MaxKeys": self._page_size}
        if start_after is not None:
            asked["StartAfter"] = start_after
        while True:
            page = self._calls.call("ListObjectsV2", **asked)
            for row in page.get("Contents", ()):
                yield self._listed(row)
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == asked.get("ContinuationToken"):
                raise Unavailable(
                    f"the listing of s3://{self._destination.bucket}/{prefix} broke off: S3 says there is "
                    "more, and not where it goes on",
                    hint="Tried again by itself",
                )
            asked = {"Prefix": prefix, "MaxKeys": self._page_size, "ContinuationToken": token}

    def _listed(self, row: dict[str, Any]) -> ListedObject:
        try:
            at = row["LastModified"].astimezone(UTC)
            return ListedObject(str(row["Key"]), int(row["Size"]), str(row["ETag"]), at)
        except UNREADABLE as error:
            raise unreadable(Attempt("ListObjectsV2", self._destination.bucket), error) from error

    def read(self, key: str) -> Iterator[bytes]:
        mode = {"ChecksumMode": "ENABLED"} if self._with_checksums else {}
        answer = self._calls.call("GetObject", key, **mode)
        body = answer["Body"]
        try:
            with self._calls.translated(Attempt("GetObject", self._destination.bucket, key)):
                yield from body.iter_chunks(_READ_CHUNK_BYTES)
        finally:
            body.close()

    def acl(self, key: str) -> ObjectAcl:
        return object_acl(self._calls.call("GetObjectAcl", key))

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

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        return self._deletes(wanted)

    def _creation(self, request: PutRequest) -> dict[str, Any]:
        return {
            **s3_rules.creation(self._destination),
            "ContentType": request.content_type,
            "Metadata": s3_rules.metadata(request.token, request.metadata, self._destination.metadata),
        }

    def _checksum(self, crc32: int) -> dict[str, str]:
        if not self._with_checksums:
            return {}
        return {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": checksums.encode(crc32)}


def put_answer(answer: dict[str, Any], crc32: int) -> PutAnswer:
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
