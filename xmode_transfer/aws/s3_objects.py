"""The operations on a bucket without bodies, for every engine. Transient errors are retried (``retrying``),
after botocore's own retries of the request."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from xmode_transfer.aws import checksums, stores
from xmode_transfer.aws.retrying import Attempts, Retries
from xmode_transfer.aws.s3_calls import S3Calls, object_acl
from xmode_transfer.aws.s3_deleting import BatchDeletes
from xmode_transfer.aws.s3_errors import UNREADABLE, Attempt, bucket_missing, unreadable
from xmode_transfer.aws.stores import Deleted, Deletion, ObjectAcl, PutAnswer, PutRequest
from xmode_transfer.config import ChecksumMode, Customer
from xmode_transfer.model import errors
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Checksum, ListedObject, ObjectInfo, UploadedPart

PAGE_ROWS = 1000
"""The most rows of one page of a listing (S3 API reference, ListObjectsV2)."""
_READ_CHUNK_BYTES = 1024 * 1024
_BUCKET_SEEN_SECONDS = 30.0
_WHOLE_CHECKSUM = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}


class S3Objects:
    checksum_algorithm = checksums.ALGORITHM

    def __init__(self, customer: Customer, calls: S3Calls, clock: Clock, retries: Retries) -> None:
        self.bucket = customer.destination.bucket
        self.call = calls.call
        self.retries = retries
        self._destination = customer.destination
        self._calls = calls
        self._with_checksums = customer.destination.checksums is not ChecksumMode.NONE
        self._with_whole = customer.destination.checksums is ChecksumMode.FULL
        self._clock = clock
        self._bucket_seen_until = float("-inf")
        self._deletes = BatchDeletes(calls, clock, self._head_once, self._delete)

    @property
    def region(self) -> str | None:
        return self._calls.region

    def creation(self, request: PutRequest) -> dict[str, Any]:
        return {
            **stores.creation(self._destination),
            "ContentType": request.content_type,
            "Metadata": stores.metadata(request.token, request.metadata, self._destination.metadata),
        }

    def checksum(self, crc32: int) -> dict[str, str]:
        return checksum_parameters(crc32) if self._with_checksums else {}

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        def create() -> tuple[str, datetime | None]:
            wished = _WHOLE_CHECKSUM if self._with_whole else {}
            answer = self._tolerantly("CreateMultipartUpload", request.key, self.creation(request), wished)
            try:
                abort_at = answer.get("AbortDate")
                return str(answer["UploadId"]), abort_at and abort_at.astimezone(UTC)
            except UNREADABLE as error:
                attempt = Attempt("CreateMultipartUpload", self.bucket, request.key)
                raise unreadable(attempt, error) from error

        return self.retries.call("create_upload", request.key, create)

    def send_part(
        self, key: str, upload_id: str, number: int, payload: Any, length: int, crc32: int
    ) -> UploadedPart:
        """Send one part, with no retries but the request's own."""
        answer = self.call(
            "UploadPart",
            key,
            UploadId=upload_id,
            PartNumber=number,
            Body=payload,
            ContentLength=length,
            **self.checksum(crc32),
        )
        return UploadedPart(number, length, str(answer.get("ETag", "")), checksums.encode(crc32))

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], size: int
    ) -> PutAnswer:
        """Does not retry a lost answer: the caller settles it with a HEAD."""

        def complete() -> PutAnswer:
            ordered = sorted(parts, key=lambda part: part.number)
            crc32 = checksums.combine_parts((checksums.decode(part.checksum), part.size) for part in ordered)
            asked = {
                "UploadId": upload_id,
                "MultipartUpload": {"Parts": listed_parts(ordered, self._with_checksums)},
                "MpuObjectSize": size,
            }
            answer = put_answer(self._complete(key, asked, crc32, ordered), crc32)
            if answer.etag:
                return answer
            # Ceph RGW answers CompleteMultipartUpload with an empty ETag.
            etag = checksums.multipart_etag([part.etag for part in ordered])
            if etag is None:
                etag = str(self.call("HeadObject", key).get("ETag", ""))
            return replace(answer, etag=etag)

        unless = (errors.Unavailable, errors.ChecksumMismatch)
        return self.retries.call("complete_upload", key, complete, unless=unless)

    def _complete(
        self, key: str, asked: dict[str, Any], crc32: int, parts: Sequence[UploadedPart]
    ) -> dict[str, Any]:
        if not self._with_whole:
            return self.call("CompleteMultipartUpload", key, **asked)
        whole = {"ChecksumType": "FULL_OBJECT", "ChecksumCRC32": checksums.encode(crc32)}
        try:
            return self._tolerantly("CompleteMultipartUpload", key, asked, whole)
        except errors.ChecksumMismatch as mismatch:
            # Some stores know only the checksum of the parts' checksums. AWS refuses it for an upload that
            # was opened for a checksum of the whole (S3 API reference, CompleteMultipartUpload).
            value = checksums.composite([checksums.decode(part.checksum) for part in parts])
            composite = {"ChecksumType": "COMPOSITE", "ChecksumCRC32": value}
            try:
                return self.call("CompleteMultipartUpload", key, **asked, **composite)
            except (errors.ChecksumMismatch, errors.RequestRefused):
                raise mismatch from None

    def abort_upload(self, key: str, upload_id: str) -> None:
        def abort() -> None:
            with suppress(errors.UploadNotFound):
                self.call("AbortMultipartUpload", key, UploadId=upload_id)

        self.retries.call("abort_upload", key, abort)

    def _tolerantly(
        self, operation: str, key: str, asked: dict[str, Any], wished: dict[str, Any]
    ) -> dict[str, Any]:
        """Call with the ``wished`` checksum of the whole, or without if the store does not know it: then it
        answers 501 or names the checksum, and a HEAD proves the object, or nothing does."""
        try:
            return self.call(operation, key, **asked, **wished)
        except errors.RequestRefused as error:
            unknown = error.http_status == 501 or (
                error.http_status == 400 and "checksum" in error.message.lower()
            )
            if not (wished and unknown):
                raise
            return self.call(operation, key, **asked)

    def head(self, key: str) -> ObjectInfo | None:
        return self.retries.call("head", key, lambda: self._head_once(key))

    def _head_once(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._head(key)
        except errors.ObjectNotFound:
            self._check_bucket()
            return None
        try:
            # Only with s3:GetObjectRetention (S3 API reference, HeadObject).
            locked_until = answer.get("ObjectLockRetainUntilDate")
            return ObjectInfo(
                key=key,
                size=int(answer["ContentLength"]),
                etag=str(answer["ETag"]),
                checksum=checksum_in(answer),
                token=answer.get("Metadata", {}).get(stores.TOKEN_METADATA),
                version_id=answer.get("VersionId"),
                modified_at=answer["LastModified"].astimezone(UTC),
                encryption=answer.get("ServerSideEncryption"),
                storage_class=answer.get("StorageClass"),
                locked_until=locked_until and locked_until.astimezone(UTC),
            )
        except UNREADABLE as error:
            raise unreadable(Attempt("HeadObject", self.bucket, key), error) from error

    def _head(self, key: str) -> dict[str, Any]:
        if not self._with_checksums:
            return self.call("HeadObject", key)
        try:
            return self.call("HeadObject", key, ChecksumMode="ENABLED")
        except errors.AccessDenied:
            # Under SSE-KMS only the checksum needs kms:Decrypt (S3 API reference, HeadObject).
            return self.call("HeadObject", key)

    def _check_bucket(self) -> None:
        """Raise BucketMissing if there is no bucket: a HEAD answers the same 404 then. Cached for a while."""
        if self._clock.monotonic() < self._bucket_seen_until:
            return
        try:
            # AccessDenied: the bucket exists; a session policy for one prefix refuses this call.
            with suppress(errors.AccessDenied):
                self.call("HeadBucket")
        except errors.ObjectNotFound as error:
            raise bucket_missing(self.bucket, error) from error
        self._bucket_seen_until = self._clock.monotonic() + _BUCKET_SEEN_SECONDS

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        """Continues after a failure behind the last key; each key resets the count of attempts."""
        last, attempts = start_after, None
        while True:
            try:
                for row in self._list(prefix, last):
                    last, attempts = row.key, None
                    yield row
            except errors.XmodeError as error:
                attempts = attempts or Attempts("list", prefix)
                self.retries.pause(attempts, error)
            else:
                return

    def _list(self, prefix: str, start_after: str | None) -> Iterator[ListedObject]:
        asked: dict[str, Any] = {"Prefix": prefix, "MaxKeys": PAGE_ROWS}
        if start_after is not None:
            asked["StartAfter"] = start_after
        while True:
            page = self.call("ListObjectsV2", **asked)
            try:
                yield from map(listed, page.get("Contents", ()))
            except UNREADABLE as error:
                raise unreadable(Attempt("ListObjectsV2", self.bucket), error) from error
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == asked.get("ContinuationToken"):
                raise errors.Unavailable(
                    f"the listing of s3://{self.bucket}/{prefix} broke off: S3 says that there is more, and "
                    "not where it continues",
                    hint="Tried again by itself",
                )
            asked = {"Prefix": prefix, "MaxKeys": PAGE_ROWS, "ContinuationToken": token}

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Retried until the first bytes arrive; the caller retries what breaks off later."""

        def begin() -> tuple[bytes, Iterator[bytes]]:
            chunks = self._read(key, start, length)
            return next(chunks, b""), chunks

        first, rest = self.retries.call("read", key, begin)
        if first:
            yield first
        yield from rest

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        mode = {"ChecksumMode": "ENABLED"} if self._with_checksums else {}
        if length is not None:
            mode = {"Range": f"bytes={start}-{start + length - 1}"}
        answer = self.call("GetObject", key, **mode)
        with closing(answer["Body"]) as body, self._calls.translated(Attempt("GetObject", self.bucket, key)):
            yield from body.iter_chunks(_READ_CHUNK_BYTES)

    def acl(self, key: str) -> ObjectAcl:
        return object_acl(self.retries.call("acl", key, lambda: self.call("GetObjectAcl", key)))

    def delete(self, key: str, etag: str | None = None) -> str | None:
        return self.retries.call("delete", key, lambda: self._delete(key, etag))

    def _delete(self, key: str, etag: str | None = None) -> str | None:
        condition = {} if etag is None else {"IfMatch": etag}
        try:
            answer = self.call("DeleteObject", key, **condition)
        except errors.ObjectNotFound:
            return None
        except errors.ObjectExists:
            if self._head_once(key) is None:  # some stores answer 412 for a missing key
                return None
            raise
        except errors.RequestRefused as error:
            if error.http_status != 501 or etag is None:
                raise
            return self._delete_compared(key, etag)
        return answer.get("VersionId") if answer.get("DeleteMarker") else None

    def _delete_compared(self, key: str, etag: str) -> str | None:
        """Compare, then delete, for stores without conditional deletes."""
        found = self._head_once(key)
        if found is None:
            return None
        if found.etag != etag:
            raise errors.ObjectExists(
                f"s3://{self.bucket}/{key} was changed: its ETag is {found.etag} and not {etag}",
                http_status=412,
            )
        return self._delete(key)

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        """A retry is harmless: what was deleted is gone, and everything else is compared again."""
        first = wanted[0].key if wanted else ""
        return self.retries.call("delete_many", first, lambda: self._deletes(wanted))


def listed(row: dict[str, Any]) -> ListedObject:
    at = row["LastModified"].astimezone(UTC)
    return ListedObject(str(row["Key"]), int(row["Size"]), str(row["ETag"]), at)


def checksum_in(answer: Mapping[str, Any]) -> Checksum | None:
    """Return the whole object's checksum; None for a composite one (``...-3``), which is of the parts."""
    if answer.get("ChecksumType") == "COMPOSITE":
        return None
    for name in ("CRC32", "CRC64NVME", "CRC32C", "SHA256", "SHA1"):
        value = answer.get(f"Checksum{name}")
        if value and "-" not in value:
            return Checksum(name.lower(), value)
    return None


def checksum_parameters(crc32: int) -> dict[str, str]:
    return {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": checksums.encode(crc32)}


def listed_parts(parts: Sequence[UploadedPart], with_checksums: bool) -> list[dict[str, Any]]:
    return [
        {"PartNumber": part.number, "ETag": part.etag}
        | ({"ChecksumCRC32": part.checksum} if with_checksums and part.checksum else {})
        for part in parts
    ]


def put_answer(answer: dict[str, Any], crc32: int) -> PutAnswer:
    value = checksums.encode(crc32)
    return PutAnswer(
        etag=str(answer.get("ETag", "")),
        checksum=Checksum(checksums.ALGORITHM, value),
        version_id=answer.get("VersionId"),
        proven=answer.get("ChecksumCRC32") == value,
        encryption=answer.get("ServerSideEncryption"),
    )
