"""What every engine asks of a bucket, bodies aside: uploads in parts opened, put together or aborted;
looking, listing, reading, deleting. What may pass is tried again (``retrying``), after botocore's own tries
for the request."""

from collections.abc import Iterator, Mapping, Sequence
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
from xmode_transfer.model.errors import (
    AccessDenied,
    ChecksumMismatch,
    ObjectExists,
    ObjectNotFound,
    RequestRefused,
    Unavailable,
    UploadNotFound,
    XmodeError,
)
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Checksum, ListedObject, ObjectInfo, UploadedPart

PAGE_ROWS = 1000
"""Rows of one page of a listing; S3 answers no more (S3 API reference, ListObjectsV2)."""
_READ_CHUNK_BYTES = 1024 * 1024
_BUCKET_SEEN_SECONDS = 30.0


_WHOLE_CHECKSUM = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
"""How an upload is opened of which S3 is to check the whole; left out where the store does not know it."""


class S3Objects:
    """The part of ``ObjectStore`` that carries no body; an engine adds ``put``, ``upload_part`` and
    ``close``."""

    def __init__(
        self,
        customer: Customer,
        calls: S3Calls,
        clock: Clock,
        retries: Retries,
        *,
        page_size: int = PAGE_ROWS,
    ) -> None:
        self.bucket = customer.destination.bucket
        self.call = calls.call
        self.retries = retries
        """What tries again the calls that wait for their answer."""
        self._destination = customer.destination
        self._calls = calls
        self._with_checksums = customer.destination.checksums is not ChecksumMode.NONE
        self._with_whole = customer.destination.checksums is ChecksumMode.FULL
        self._clock = clock
        self._page_size = page_size
        self._bucket_seen_until = float("-inf")
        self._deletes = BatchDeletes(calls, clock, self._look_at, self._delete)

    @property
    def region(self) -> str | None:
        return self._calls.region

    @property
    def checksum_algorithm(self) -> str:
        return checksums.ALGORITHM

    # --- Making objects -----------------------------------------------------------------------------------

    def creation(self, request: PutRequest) -> dict[str, Any]:
        return {
            **stores.creation(self._destination),
            "ContentType": request.content_type,
            "Metadata": stores.metadata(request.token, request.metadata, self._destination.metadata),
        }

    def checksum(self, crc32: int) -> dict[str, str]:
        if not self._with_checksums:
            return {}
        return {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": checksums.encode(crc32)}

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
        """One UploadPart, without retries but the request's own."""
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
        """An answer that was lost is the caller's to settle, with a HEAD."""
        return self.retries.call(
            "complete_upload",
            key,
            lambda: self._complete_upload(key, upload_id, parts, size),
            unless=(Unavailable, ChecksumMismatch),
        )

    def _complete_upload(
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
        }
        answer = put_answer(self._complete(key, asked, crc32, ordered), crc32)
        return self._with_etag(answer, key, [part.etag for part in ordered])

    def _complete(
        self, key: str, asked: dict[str, Any], crc32: int, parts: Sequence[UploadedPart]
    ) -> dict[str, Any]:
        if not self._with_whole:
            return self.call("CompleteMultipartUpload", key, **asked)
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
            etag = str(self.call("HeadObject", key).get("ETag", ""))
        return replace(answer, etag=etag)

    def _complete_composite(
        self, key: str, asked: dict[str, Any], parts: Sequence[UploadedPart], mismatch: ChecksumMismatch
    ) -> dict[str, Any]:
        """For a store that knows only the checksum of the parts' checksums. Nothing slips by: AWS refuses
        this for an upload that was opened for a checksum of the whole (S3 API reference,
        CompleteMultipartUpload)."""
        value = checksums.composite([checksums.decode(part.checksum) for part in parts])
        try:
            return self.call(
                "CompleteMultipartUpload", key, **asked, ChecksumType="COMPOSITE", ChecksumCRC32=value
            )
        except (ChecksumMismatch, RequestRefused):
            raise mismatch from None

    def abort_upload(self, key: str, upload_id: str) -> None:
        def abort() -> None:
            try:
                self.call("AbortMultipartUpload", key, UploadId=upload_id)
            except UploadNotFound:
                return

        self.retries.call("abort_upload", key, abort)

    def _tolerantly(
        self, operation: str, key: str, asked: dict[str, Any], wished: dict[str, Any]
    ) -> dict[str, Any]:
        """Asks with the checksum of the whole, and without where the store does not know that member of S3's
        API.

        AWS knows it; a store that does not says 501, or names the checksum in its refusal. The object is then
        proven by a HEAD or not at all, never assumed.
        """
        try:
            return self.call(operation, key, **asked, **wished)
        except RequestRefused as error:
            unknown = error.http_status == 501 or (
                error.http_status == 400 and "checksum" in error.message.lower()
            )
            if not (wished and unknown):
                raise
            return self.call(operation, key, **asked)

    # --- Looking, listing, reading, deleting ----------------------------------------------------------------

    def head(self, key: str) -> ObjectInfo | None:
        return self.retries.call("head", key, lambda: self._look_at(key))

    def _look_at(self, key: str) -> ObjectInfo | None:
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
                checksum=checksum_in(answer),
                token=answer.get("Metadata", {}).get(stores.TOKEN_METADATA),
                version_id=answer.get("VersionId"),
                modified_at=answer["LastModified"].astimezone(UTC),
                encryption=answer.get("ServerSideEncryption"),
                storage_class=answer.get("StorageClass"),
            )
        except UNREADABLE as error:
            raise unreadable(Attempt("HeadObject", self.bucket, key), error) from error

    def _head(self, key: str) -> dict[str, Any]:
        if not self._with_checksums:
            return self.call("HeadObject", key)
        try:
            return self.call("HeadObject", key, ChecksumMode="ENABLED")
        except AccessDenied:
            # Under SSE-KMS the checksum needs kms:Decrypt and the rest does not (S3 API reference,
            # HeadObject).
            return self.call("HeadObject", key)

    def _check_bucket(self) -> None:
        """A HEAD says the same 404 of a key and of a bucket that is not there; this tells the two apart, and
        remembers for a while that the bucket is there. Raises BucketMissing."""
        if self._clock.monotonic() < self._bucket_seen_until:
            return
        try:
            self.call("HeadBucket")
        except AccessDenied:
            pass  # it is there; a session policy for one prefix does not allow this call
        except ObjectNotFound as error:
            raise bucket_missing(self.bucket, error) from error
        self._bucket_seen_until = self._clock.monotonic() + _BUCKET_SEEN_SECONDS

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        """After a failure the listing goes on behind the last key that was given out; each key that comes
        begins the count of attempts anew."""
        last, attempts = start_after, None
        while True:
            try:
                for row in self._list(prefix, last):
                    last, attempts = row.key, None
                    yield row
            except XmodeError as error:
                attempts = attempts or Attempts(self.retries.rules, "list", prefix)
                self.retries.pause(attempts, error)
            else:
                return

    def _list(self, prefix: str, start_after: str | None) -> Iterator[ListedObject]:
        asked: dict[str, Any] = {"Prefix": prefix, "MaxKeys": self._page_size}
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
                raise Unavailable(
                    f"the listing of s3://{self.bucket}/{prefix} broke off: S3 says there is "
                    "more, and not where it goes on",
                    hint="Tried again by itself",
                )
            asked = {"Prefix": prefix, "MaxKeys": self._page_size, "ContinuationToken": token}

    def read(self, key: str) -> Iterator[bytes]:
        """Tried again until the first bytes are there; what breaks off later is the caller's to begin
        anew."""

        def begin() -> tuple[bytes, Iterator[bytes]]:
            chunks = self._read(key)
            return next(chunks, b""), chunks

        first, rest = self.retries.call("read", key, begin)
        if first:
            yield first
        yield from rest

    def _read(self, key: str) -> Iterator[bytes]:
        mode = {"ChecksumMode": "ENABLED"} if self._with_checksums else {}
        answer = self.call("GetObject", key, **mode)
        body = answer["Body"]
        try:
            with self._calls.translated(Attempt("GetObject", self.bucket, key)):
                yield from body.iter_chunks(_READ_CHUNK_BYTES)
        finally:
            body.close()

    def acl(self, key: str) -> ObjectAcl:
        return object_acl(self.retries.call("acl", key, lambda: self.call("GetObjectAcl", key)))

    def delete(self, key: str, etag: str | None = None) -> str | None:
        return self.retries.call("delete", key, lambda: self._delete(key, etag))

    def _delete(self, key: str, etag: str | None = None) -> str | None:
        condition = {} if etag is None else {"IfMatch": etag}
        try:
            answer = self.call("DeleteObject", key, **condition)
        except ObjectNotFound:
            return None
        except ObjectExists:
            if self._look_at(key) is None:  # some stores answer 412 for a key that is gone
                return None
            raise
        except RequestRefused as error:
            if error.http_status != 501 or etag is None:
                raise
            return self._delete_compared(key, etag)
        return answer.get("VersionId") if answer.get("DeleteMarker") else None

    def _delete_compared(self, key: str, etag: str) -> str | None:
        """For a store without conditional deletes: compares first, which leaves a moment between the two."""
        found = self._look_at(key)
        if found is None:
            return None
        if found.etag != etag:
            raise ObjectExists(
                f"s3://{self.bucket}/{key} was changed: its ETag is {found.etag} and not {etag}",
                http_status=412,
            )
        return self._delete(key)

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        """A second attempt is harmless: what the first deleted is gone, and all else is compared again."""
        first = wanted[0].key if wanted else ""
        return self.retries.call("delete_many", first, lambda: self._deletes(wanted))


def listed(row: dict[str, Any]) -> ListedObject:
    """One row of a listing."""
    at = row["LastModified"].astimezone(UTC)
    return ListedObject(str(row["Key"]), int(row["Size"]), str(row["ETag"]), at)


def checksum_in(answer: Mapping[str, Any]) -> Checksum | None:
    """The whole object's checksum; a composite one (``...-3``) is of the parts and says nothing of the
    whole."""
    if answer.get("ChecksumType") == "COMPOSITE":
        return None
    for name in ("CRC32", "CRC64NVME", "CRC32C", "SHA256", "SHA1"):
        value = answer.get(f"Checksum{name}")
        if value and "-" not in value:
            return Checksum(name.lower(), value)
    return None


def put_answer(answer: dict[str, Any], crc32: int) -> PutAnswer:
    value = checksums.encode(crc32)
    return PutAnswer(
        etag=str(answer.get("ETag", "")),
        checksum=Checksum(checksums.ALGORITHM, value),
        version_id=answer.get("VersionId"),
        proven=answer.get("ChecksumCRC32") == value,
        encryption=answer.get("ServerSideEncryption"),
    )
