"""What makes objects, for every engine: the members of a request, and an upload in parts opened, its parts,
put together or aborted. What may pass is tried again (``retrying``), after botocore's own tries."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from xmode_transfer.adapters import checksums, s3_rules
from xmode_transfer.adapters.retrying import Retries
from xmode_transfer.adapters.s3_calls import S3Calls
from xmode_transfer.adapters.s3_errors import UNREADABLE, Attempt, unreadable
from xmode_transfer.domain.config import ChecksumMode, Customer
from xmode_transfer.domain.errors import ChecksumMismatch, RequestRefused, Unavailable, UploadNotFound
from xmode_transfer.domain.records import Checksum, UploadedPart
from xmode_transfer.ports import PutAnswer, PutRequest

_WHOLE_CHECKSUM = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
"""How an upload is opened of which S3 is to check the whole; left out where the store does not know it."""


class S3Uploads:
    """The part of ``ports.ObjectStore`` that makes objects and carries no body itself."""

    def __init__(self, customer: Customer, calls: S3Calls, retries: Retries) -> None:
        self.bucket = customer.destination.bucket
        self.call = calls.call
        self._destination = customer.destination
        self._calls = calls
        self.retries = retries
        """What tries again the calls that wait for their answer."""
        self._with_checksums = customer.destination.checksums is not ChecksumMode.NONE
        self._with_whole = customer.destination.checksums is ChecksumMode.FULL

    def creation(self, request: PutRequest) -> dict[str, Any]:
        return {
            **s3_rules.creation(self._destination),
            "ContentType": request.content_type,
            "Metadata": s3_rules.metadata(request.token, request.metadata, self._destination.metadata),
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


def put_answer(answer: dict[str, Any], crc32: int) -> PutAnswer:
    value = checksums.encode(crc32)
    return PutAnswer(
        etag=str(answer.get("ETag", "")),
        checksum=Checksum(checksums.ALGORITHM, value),
        version_id=answer.get("VersionId"),
        proven=answer.get("ChecksumCRC32") == value,
        encryption=answer.get("ServerSideEncryption"),
    )
