"""Multipart uploads as S3 puts them together."""

import base64
import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any

from tests.fakes.buckets import MemoryBucket, StoredPart, StoredUpload
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.stores import PutAnswer, PutRequest
from xmode_transfer.model.errors import RequestRefused, UploadNotFound, XmodeError
from xmode_transfer.model.records import UploadedPart


def crc32(data: bytes) -> str:
    """The checksum as S3 writes it: base64 of four bytes, big-endian."""
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode("ascii")


def etag(data: bytes) -> str:
    """The ETag of a body sent in one piece, with the quotes it has on the wire."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def part(data: bytes) -> StoredPart:
    return StoredPart(data, etag(data), crc32(data))


def find(bucket: MemoryBucket, key: str, upload_id: str, now: datetime) -> StoredUpload:
    """The open upload; the bucket's lifecycle rule may have ended it. Raises UploadNotFound."""
    upload = bucket.uploads.get(upload_id)
    if upload is not None and bucket.abort_after_days is not None:
        ends_at = upload.opened_at + timedelta(days=bucket.abort_after_days)
        if now >= ends_at:
            del bucket.uploads[upload_id]
            upload = None
    if upload is None or upload.request.key != key:
        raise UploadNotFound(
            f"the multipart upload of {key} is not there: completed, aborted or expired",
            hint="A HEAD tells whether it was completed",
            aws_code="NoSuchUpload",
            http_status=404,
        )
    return upload


def assemble(upload: StoredUpload, parts: Sequence[UploadedPart], min_part_bytes: int) -> tuple[bytes, str]:
    """The parts in a row, and the ETag of the whole. Raises RequestRefused where S3 would."""
    if not parts:
        raise refused("MalformedXML", "an upload is completed with one part at least")
    numbers = [part.number for part in parts]
    if numbers != sorted(set(numbers)):
        raise refused("InvalidPartOrder", "the parts are not in the order of their numbers")
    bodies = []
    digest = hashlib.md5(usedforsecurity=False)
    for named in parts:
        stored = upload.parts.get(named.number)
        if stored is None or (stored.etag, stored.checksum) != (named.etag, named.checksum):
            raise refused("InvalidPart", f"part {named.number} is not what was uploaded last")
        if named is not parts[-1] and len(stored.body) < min_part_bytes:
            raise refused("EntityTooSmall", f"part {named.number} has only {len(stored.body)} bytes")
        bodies.append(stored.body)
        digest.update(bytes.fromhex(stored.etag.strip('"')))
    return b"".join(bodies), f'"{digest.hexdigest()}-{len(parts)}"'


def refused(code: str, message: str) -> RequestRefused:
    return RequestRefused(
        f"S3 refuses the request: {message}",
        hint="This is a defect of ours; report it",
        aws_code=code,
        http_status=400,
    )


def put_in_parts(
    store: Any,
    request: PutRequest,
    body: OpenFile,
    opened: Callable[[str, datetime | None], None],
    acknowledged: Callable[[str, UploadedPart], None],
) -> Future[PutAnswer]:
    """``aws.stores.ObjectStore.put_in_parts``, with one part."""
    future: Future[PutAnswer] = Future()
    try:
        upload_id, abort_at = store.create_upload(request)
        opened(upload_id, abort_at)
        part = store.upload_part(request.key, upload_id, 1, body, 0, request.size).result()
        acknowledged(upload_id, part)
        body.check_unchanged()
        future.set_result(store.complete_upload(request.key, upload_id, [part], request.size))
    except XmodeError as error:
        future.set_exception(error)
    return future
