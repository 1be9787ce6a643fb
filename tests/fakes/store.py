"""An object store in memory that obeys the customer's policies."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tests.fakes import uploads
from tests.fakes.buckets import (
    MemoryBucket,
    MemoryBuckets,
    StoredUpload,
    StoredVersion,
)
from tests.fakes.faults import Fault, Faults, Requests
from tests.fakes.requests import Gate
from tests.fakes.roles import MemoryRoles, MemorySession
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.policy.documents import ACL
from xmode_transfer.aws.policy.evaluate import S3Call
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import (
    DELETE_MANY_KEYS,
    FULL_CONTROL,
    Deleted,
    Deletion,
    DeletionResult,
    EngineInfo,
    Grant,
    ObjectAcl,
    PutAnswer,
    PutRequest,
)
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import AccessDenied, ObjectExists, ObjectNotFound, SourceChanged, Unavailable
from xmode_transfer.model.records import Checksum, ListedObject, ObjectInfo, UploadedPart

T = TypeVar("T")
_Page = tuple[list[ListedObject], bool]
_CHUNK_BYTES = 1024 * 1024
_MAX_PUT_BYTES = 5 * 1024**3
_MAX_PARTS = 10_000


class MemoryObjectStores:
    """Implements ``ObjectStores``. ``threads`` is how many requests with a body run at once; with 0
    they run in the caller, one after the other, so that a test can follow them. ``answers_checksum`` is
    whether S3's answer to an upload carries its checksum (some compatible stores leave it out)."""

    def __init__(
        self,
        buckets: MemoryBuckets,
        roles: MemoryRoles,
        *,
        faults: Faults | None = None,
        threads: int = 0,
        page_size: int = 1000,
        answers_checksum: bool = True,
    ) -> None:
        self.info = EngineInfo("memory", "objects live in this process and end with it")
        self.buckets = buckets
        self.roles = roles
        self.requests = Requests(faults)
        self.page_size = page_size
        self.answers_checksum = answers_checksum
        self._pool = ThreadPoolExecutor(threads, "memory-store") if threads else None

    def open(
        self, customer: Customer, credentials: CredentialsProvider, region: str | None
    ) -> "MemoryObjectStore":
        return MemoryObjectStore(self, customer, credentials, region)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        if self._pool is not None:
            return self._pool.submit(work)
        future: Future[T] = Future()
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - it goes to whoever asks the future
            future.set_exception(error)
        return future


class MemoryObjectStore:
    """Implements ``ObjectStore`` for one customer's destination. Thread-safe."""

    checksum_algorithm = "crc32"

    def __init__(
        self,
        stores: MemoryObjectStores,
        customer: Customer,
        credentials: CredentialsProvider,
        region: str | None,
    ) -> None:
        self.region = customer.destination.region or region
        self._stores = stores
        self._clock = stores.buckets.clock
        self._bucket = customer.destination.bucket
        self._storage_class = customer.destination.storage_class
        self._gate = Gate(
            stores.buckets,
            stores.roles,
            credentials,
            bucket=customer.destination.bucket,
            expected_owner=customer.bucket_owner,
            partition=customer.partition,
        )
        self._lock = threading.Lock()
        self._in_flight: set[Future[Any]] = set()

    # Objects in one request.

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        def work(session: MemorySession) -> PutAnswer:
            bucket = self._enter(session, S3Call("PutObject", self._bucket, request.key, acl=ACL))
            if request.size > _MAX_PUT_BYTES:
                raise uploads.refused("EntityTooLarge", "one PutObject takes 5 GiB at most")
            if body.size != request.size:
                raise SourceChanged(
                    f"{request.key}: the file has {body.size} bytes and not the planned {request.size}",
                    hint="It is delivered once its producer has finished with it",
                )
            data = _read(body, 0, request.size)
            body.check_unchanged()
            return self._create(bucket, request, data, uploads.etag(data))

        future = self._stores.submit(lambda: self._run("put", request.key, work))
        return self._track(future)

    def head(self, key: str) -> ObjectInfo | None:
        def work(session: MemorySession) -> ObjectInfo | None:
            bucket = self._enter(session, S3Call("HeadObject", self._bucket, key))
            version = self._visible(session, bucket, key)
            if version is None:
                return None
            request = version.request
            return ObjectInfo(
                key,
                size=len(version.body),
                etag=version.etag,
                checksum=version.checksum,
                token=request.token if request is not None else None,
                version_id=version.version_id,
                modified_at=version.modified_at,
                encryption=version.encryption,
                storage_class=version.storage_class,
            )

        return self._run("head", key, work)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        def work(session: MemorySession) -> bytes:
            bucket = self._enter(session, S3Call("GetObject", self._bucket, key))
            version = self._visible(session, bucket, key)
            if version is None:
                raise self._absent(key)
            return version.body if length is None else version.body[start : start + length]

        data = self._run("read", key, work)
        for start in range(0, len(data), _CHUNK_BYTES):
            yield data[start : start + _CHUNK_BYTES]

    def acl(self, key: str) -> ObjectAcl:
        def work(session: MemorySession) -> ObjectAcl:
            bucket = self._enter(session, S3Call("GetObjectAcl", self._bucket, key))
            version = self._visible(session, bucket, key)
            if version is None:
                raise self._absent(key)
            owner = Grant(bucket.owner, FULL_CONTROL)
            return version.granted or ObjectAcl(bucket.owner, frozenset({owner}))

        return self._run("acl", key, work)

    def delete(self, key: str, etag: str | None = None) -> str | None:
        def work(session: MemorySession) -> str | None:
            bucket = self._enter(session, S3Call("DeleteObject", self._bucket, key))
            with bucket.lock:
                version = bucket.current(key)
                if etag is not None and version is None:
                    return None
                if version is not None and etag is not None and etag != version.etag:
                    raise _changed(key, version.etag, etag)
                return bucket.remove(key, self._clock.now())

        return self._run("delete", key, work)

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        if len(wanted) > DELETE_MANY_KEYS:
            raise ValueError(f"{len(wanted)} keys; one request takes {DELETE_MANY_KEYS}")

        def work(session: MemorySession) -> Sequence[Deleted]:
            return [self._delete_one(session, item) for item in wanted]

        return self._run("delete_many", wanted[0].key if wanted else "", work)

    def _delete_one(self, session: MemorySession, item: Deletion) -> Deleted:
        """As S3 answers for one key of many: a refusal is that key's alone."""
        try:
            bucket = self._enter(session, S3Call("DeleteObject", self._bucket, item.key))
        except AccessDenied as error:
            return Deleted(item.key, DeletionResult.DENIED, error)
        with bucket.lock:
            version = bucket.current(item.key)
            if version is None:
                return Deleted(item.key, DeletionResult.GONE)
            if version.etag != item.etag:
                return Deleted(item.key, DeletionResult.CHANGED, _changed(item.key, version.etag, item.etag))
            marker = bucket.remove(item.key, self._clock.now())
        return Deleted(item.key, DeletionResult.DELETED if marker is None else DeletionResult.HIDDEN)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        after, more = start_after or "", True
        while more:
            page, more = self._page(prefix, after)
            yield from page
            after = page[-1].key if page else after

    def _page(self, prefix: str, after: str) -> _Page:
        def work(session: MemorySession) -> _Page:
            bucket = self._enter(session, S3Call("ListObjectsV2", self._bucket, prefix=prefix))
            found, more = bucket.page(prefix, after, self._stores.page_size)
            return [
                ListedObject(version.key, len(version.body), version.etag, version.modified_at)
                for version in found
            ], more

        return self._run("list", prefix, work)

    # Objects in parts.

    resumes = True
    put_in_parts = uploads.put_in_parts

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        def work(session: MemorySession) -> tuple[str, datetime | None]:
            bucket = self._enter(session, S3Call("CreateMultipartUpload", self._bucket, request.key, acl=ACL))
            now = self._clock.now()
            upload = StoredUpload(bucket.new_id("upload"), request, ACL, now)
            with bucket.lock:
                bucket.uploads[upload.upload_id] = upload
            days = bucket.abort_after_days
            return upload.upload_id, None if days is None else now + timedelta(days=days)

        return self._run("create_upload", request.key, work)

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        def work(session: MemorySession) -> UploadedPart:
            bucket = self._enter(session, S3Call("UploadPart", self._bucket, key, acl=self._part_acl()))
            if not 1 <= number <= _MAX_PARTS:
                raise uploads.refused("InvalidArgument", f"there is no part number {number}")
            data = _read(body, offset, length)
            part = uploads.part(data)
            with bucket.lock:
                uploads.find(bucket, key, upload_id, self._clock.now()).parts[number] = part
            return UploadedPart(number, length, part.etag, part.checksum)

        future = self._stores.submit(lambda: self._run("upload_part", f"{key}#{number}", work))
        return self._track(future)

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], size: int
    ) -> PutAnswer:
        def work(session: MemorySession) -> PutAnswer:
            call = S3Call("CompleteMultipartUpload", self._bucket, key, acl=self._part_acl())
            bucket = self._enter(session, call)
            with bucket.lock:
                upload = uploads.find(bucket, key, upload_id, self._clock.now())
                data, etag = uploads.assemble(upload, parts, self._stores.buckets.min_part_bytes)
                if len(data) != size:
                    raise uploads.refused("InvalidRequest", f"the parts have {len(data)} bytes, not {size}")
                answer = self._create(bucket, upload.request, data, etag)
                del bucket.uploads[upload_id]
            return answer

        return self._run("complete_upload", key, work)

    def abort_upload(self, key: str, upload_id: str) -> None:
        def work(session: MemorySession) -> None:
            bucket = self._enter(session, S3Call("AbortMultipartUpload", self._bucket, key))
            with bucket.lock:
                upload = bucket.uploads.get(upload_id)
                if upload is not None and upload.request.key == key:
                    del bucket.uploads[upload_id]

        self._run("abort_upload", key, work)

    def close(self) -> None:
        with self._lock:
            in_flight = set(self._in_flight)
        wait(in_flight)

    # What they share.

    def _run(self, operation: str, key: str, work: Callable[[MemorySession], T]) -> T:
        fault = self._stores.requests.begin(operation, key)
        answer = self._gate.with_session(work)
        if fault is Fault.LOSE_ANSWER:
            raise Unavailable(
                f"the answer to {operation} of {key} was lost", hint="Whether it was done, a HEAD tells"
            )
        return answer

    def _enter(self, session: MemorySession, call: S3Call) -> MemoryBucket:
        bucket = self._gate.enter(session, call)
        self.region = self.region or bucket.region
        return bucket

    def _part_acl(self) -> str | None:
        return ACL if self._stores.buckets.parts_inherit_acl else None

    def _visible(self, session: MemorySession, bucket: MemoryBucket, key: str) -> StoredVersion | None:
        """What lies under the key. That nothing does, S3 says only to who may list that key; others get a
        403 (S3 API reference, HeadObject), and so AccessDenied is raised."""
        version = bucket.current(key)
        if version is None:
            self._enter(session, S3Call("ListObjectsV2", self._bucket, prefix=key))
        return version

    def _absent(self, key: str) -> ObjectNotFound:
        return ObjectNotFound(
            f"there is no object {key} in {self._bucket}",
            hint="Verify the delivery that wrote it",
            aws_code="NoSuchKey",
            http_status=404,
        )

    def _create(self, bucket: MemoryBucket, request: PutRequest, data: bytes, etag: str) -> PutAnswer:
        checksum = Checksum("crc32", uploads.crc32(data))
        encryption = "AES256" if bucket.kms_key_arn is None else "aws:kms"
        with bucket.lock:
            current = bucket.current(request.key)
            if request.replaces is not None:
                if current is None:
                    raise self._absent(request.key)
                if current.etag != request.replaces:
                    raise _changed(request.key, current.etag, request.replaces)
            elif current is not None:
                raise ObjectExists(
                    f"there is an object {request.key} already",
                    hint="A HEAD tells whether it is ours",
                    aws_code="PreconditionFailed",
                    http_status=412,
                )
            version = StoredVersion(
                request.key,
                bucket.new_id("version") if bucket.versioned else None,
                self._clock.now(),
                body=data,
                etag=etag,
                checksum=checksum,
                request=request,
                acl=ACL,
                encryption=encryption,
                storage_class=self._storage_class,
            )
            bucket.store(version)
        return PutAnswer(etag, checksum, version.version_id, self._stores.answers_checksum, encryption)

    def _track(self, future: Future[T]) -> Future[T]:
        with self._lock:
            self._in_flight.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: Future[T]) -> None:
        with self._lock:
            self._in_flight.discard(future)


def _changed(key: str, found: str, wanted: str) -> ObjectExists:
    return ObjectExists(
        f"{key} was changed since: it has ETag {found}, not {wanted}",
        hint="It is not ours any more and is left alone",
        aws_code="PreconditionFailed",
        http_status=412,
    )


def _read(body: OpenFile, offset: int, length: int) -> bytes:
    end = offset + length
    return b"".join(
        body.read_at(start, min(_CHUNK_BYTES, end - start)) for start in range(offset, end, _CHUNK_BYTES)
    )
