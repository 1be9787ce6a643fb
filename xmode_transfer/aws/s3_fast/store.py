"""The fast engine: bodies go through the CRT, everything else through botocore as in the portable engine.

The CRT reads a whole body into its own memory before it sends the first byte, so that the checksum of what
was read can still go into the request's headers.
"""

import hashlib
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

from awscrt.http import HttpHeaders, HttpRequest
from awscrt.s3 import S3ResponseError

from xmode_transfer.aws.checksums import ALGORITHM, OpenFile, encode, fill
from xmode_transfer.aws.lanes import SMALL_BYTES
from xmode_transfer.aws.s3_calls import S3Calls
from xmode_transfer.aws.s3_fast.channel import Channel, Endpoints, HeaderList, Ready, signing_config
from xmode_transfer.aws.s3_fast.direct import Headers, keep_state
from xmode_transfer.aws.s3_fast.engine import Job, SendingEngine
from xmode_transfer.aws.s3_portable import PortableStore, PortableStores
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.aws.stores import SINGLE_PUT_MAX_BYTES, EngineInfo, PutAnswer, PutRequest, metadata
from xmode_transfer.config import Customer, Limits
from xmode_transfer.model.errors import RequestRefused, SourceChanged, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Checksum, UploadedPart

ALGORITHM_HEADER = ("x-amz-sdk-checksum-algorithm", "CRC32")
"""As the SDKs send it; some stores require it."""
CHECKSUM_HEADER = "x-amz-checksum-crc32"
NO_CHECKSUM = "AAAAAA=="
"""The header until the body has been read. If the CRT took its headers before, S3 would refuse them."""
_DESCRIPTORS = "/proc/self/fd"
_HAS_DESCRIPTORS = Path(_DESCRIPTORS).is_dir()
_PLAIN = re.compile(r"[A-Za-z0-9/_.~-]*")


def path_of(prefix: str, key: str) -> str:
    """Percent-encode once what is not unreserved (S3 API reference, "Signature calculations")."""
    return f"{prefix}/{key if _PLAIN.fullmatch(key) else quote(key, safe='/~')}"


def path_of_descriptor(body: OpenFile) -> str | None:
    """Return a path to the very file that is open, whatever its name is now, or None. The CRT reads it on its
    own threads: a seventh less time for many small objects (docs/performance.md). The signed headers have the
    checksum of what we have read: if the CRT reads anything else, S3 refuses it."""
    fileno = getattr(body, "fileno", None)  # an object of a source bucket has none
    return f"{_DESCRIPTORS}/{fileno()}" if _HAS_DESCRIPTORS and fileno is not None else None


def put_answer(headers: Headers, value: str) -> PutAnswer:
    """``value`` is the body's CRC32 in S3's encoding."""
    found = {name.lower(): text for name, text in headers}
    return PutAnswer(
        etag=found.get("etag", ""),
        checksum=Checksum(ALGORITHM, value),
        version_id=found.get("x-amz-version-id"),
        proven=found.get(CHECKSUM_HEADER) == value,
        encryption=found.get("x-amz-server-side-encryption"),
    )


class HeldBody:
    __slots__ = ("_left",)

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def readinto1(self, buffer: memoryview) -> int:
        keep_state()
        piece = self._left[: len(buffer)]
        buffer[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        raise OSError("the CRT reads into its own memory")


class FileBody:
    """A range of an open file, read directly into the CRT's memory. If the file was changed since the scan,
    the body ends early, the CRT refuses to send it for its length, and ``failed`` has the reason."""

    __slots__ = ("_body", "_crc32", "_end", "_headers", "_position", "failed", "value")

    def __init__(self, body: OpenFile, offset: int, length: int, headers: Any) -> None:
        self._body = body
        self._position = offset
        self._end = offset + length
        self._headers = headers
        self.value = ""
        self._crc32 = 0
        self.failed: BaseException | None = None

    def readinto1(self, buffer: memoryview) -> int:
        keep_state()
        try:
            return self._read(buffer)
        except BaseException as error:  # noqa: BLE001 - the CRT would only print it
            self.failed = error
            return 0

    def _read(self, buffer: memoryview) -> int:
        if self.failed is not None or self._position >= self._end:
            return 0
        piece = fill(self._body, buffer[: self._end - self._position], self._position)
        self._crc32 = crc32(piece, self._crc32)
        self._position += len(piece)
        if self._position == self._end:
            self._body.check_unchanged()
            self.value = encode(self._crc32)
            self._headers.set(CHECKSUM_HEADER, self.value)
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        raise OSError("the CRT reads into its own memory")


class BodyJob(Job):
    """A request with bytes of a file. ``_value`` is their CRC32 in S3's encoding, once they are read."""

    _body: FileBody | None = None
    _value = ""

    def __init__(self, store: "FastStore", key: str, body: OpenFile, offset: int, length: int) -> None:
        super().__init__(store.dispatcher, store.channel, store.lane, store.bucket, key, length)
        self.store = store
        self._file = body
        self._offset = offset

    @property
    def value(self) -> str:
        return self._value if self._body is None else self._body.value

    def body_error(self, error: BaseException) -> BaseException | None:
        if self._body is not None:
            return self._body.failed
        if self.path is not None and not isinstance(error, S3ResponseError):
            try:
                self._file.check_unchanged()
            except XmodeError as changed:
                return changed
        return None

    def _with_body(self, ready: Ready, path: str, headers: HeaderList) -> tuple[Any, Any]:
        headers.append(("content-length", str(self.length)))
        if self.length > SMALL_BYTES:
            headers += (ALGORITHM_HEADER, (CHECKSUM_HEADER, NO_CHECKSUM))
            crt_headers = HttpHeaders(headers)
            self._body = FileBody(self._file, self._offset, self.length, crt_headers)
            return HttpRequest("PUT", path, crt_headers, self._body), ready.signing
        content = self._file.read_at(self._offset, self.length)
        self._file.check_unchanged()
        self._value = encode(crc32(content))
        if self.store.with_checksum:
            headers += (ALGORITHM_HEADER, (CHECKSUM_HEADER, self._value))
            signing = ready.signing
        else:
            signing = signing_config(ready.region, ready.signer, hashlib.sha256(content).hexdigest())
        is_whole = self._offset == 0 and 0 < self.length == self._file.size
        self.path = path_of_descriptor(self._file) if is_whole else None
        body = HeldBody(content) if content and self.path is None else None
        return HttpRequest("PUT", path, HttpHeaders(headers), body), signing


class PutJob(BodyJob):
    operation = "PutObject"

    def __init__(self, store: "FastStore", request: PutRequest, body: OpenFile) -> None:
        super().__init__(store, request.key, body, 0, request.size)
        self._request = request

    def build(self, ready: Ready) -> tuple[Any, Any]:
        request = self._request
        if self._file.size != request.size:
            raise SourceChanged(
                f"the file has {self._file.size} bytes and had {request.size} when it was planned"
            )
        headers = [*ready.creation, ("content-type", request.content_type)]
        if request.metadata:
            own = metadata_headers(request.token, request.metadata)
            named = {name for name, _ in own}
            headers = [*own, *(header for header in headers if header[0] not in named)]
        else:
            headers += _token(request.token)
        return self._with_body(ready, path_of(ready.endpoint.prefix, request.key), headers)

    def send(self) -> Future[Any]:
        return self.store.put_by_botocore(self._request, self._file)

    def result(self) -> Any:
        return put_answer(self.headers, self.value)


class PartJob(BodyJob):
    operation = "UploadPart"

    def __init__(
        self, store: "FastStore", key: str, upload: str, number: int, body: OpenFile, offset: int, length: int
    ) -> None:
        super().__init__(store, key, body, offset, length)
        self._upload_id = upload
        self._number = number

    def build(self, ready: Ready) -> tuple[Any, Any]:
        path = path_of(ready.endpoint.prefix, self.key)
        query = f"?partNumber={self._number}&uploadId={quote(self._upload_id, safe='')}"
        return self._with_body(ready, path + query, list(ready.plain))

    def send(self) -> Future[Any]:
        return self.store.part_by_botocore(
            self.key, self._upload_id, self._number, self._file, self._offset, self.length
        )

    def result(self) -> Any:
        return UploadedPart(self._number, self.length, put_answer(self.headers, "").etag, self.value)


@lru_cache
def _token(token: str) -> HeaderList:
    """Cached, since all objects of a delivery have the same metadata."""
    return metadata_headers(token, {})


def metadata_headers(token: str, more: Mapping[str, str]) -> HeaderList:
    """Return the object's metadata as headers. Raises RequestRefused for what HTTP cannot carry."""
    headers = []
    for name, value in metadata(token, more).items():
        if not (name.isascii() and value.isascii() and name.isprintable() and value.isprintable()):
            raise RequestRefused(
                f"metadata {name!r}: {value!r} cannot be sent: S3 takes printable ASCII only",
                hint="This is a defect of ours; report it with the log",
            )
        headers.append((f"x-amz-meta-{name}", value))
    return headers


class FastStore(PortableStore):
    """Implements ``ObjectStore`` for one customer."""

    resumes = True
    dispatcher: SendingEngine

    def __init__(self, stores: PortableStores, customer: Customer, calls: S3Calls, channel: Channel) -> None:
        super().__init__(stores, customer, calls)
        self.channel = channel
        self.with_checksum = self._with_checksums
        # The CRT holds a body whole; botocore streams larger ones from disk.
        held = min(self.dispatcher.lanes.memory_bytes, SINGLE_PUT_MAX_BYTES)
        self._largest_bytes = held if self.with_checksum else min(held, SMALL_BYTES)

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        job = PutJob(self, request, body)
        return self._send(job, by_botocore=request.replaces is not None)

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        return self._send(PartJob(self, key, upload_id, number, body, offset, length))

    def _send(self, job: Job, *, by_botocore: bool = False) -> Future[Any]:
        if by_botocore or job.length > self._largest_bytes:
            job.detoured = job.stays_detoured = True
            job.held_bytes = min(job.length, self.in_memory_bytes)
        return self.dispatcher.submit(job)


class FastStores(PortableStores):
    """Implements ``ObjectStores``."""

    _dispatches_with = SendingEngine

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        reason: str = "configured",
        stop: threading.Event | None = None,
    ) -> None:
        super().__init__(limits, clock, reason=reason, stop=stop)
        self.info = EngineInfo("fast", reason)
        self._endpoints = Endpoints()

    def open(self, customer: Customer, credentials: CredentialsProvider, region: str | None) -> FastStore:
        calls = self.calls(customer, credentials, region)
        channel = Channel(customer, credentials, calls, self._endpoints, self.clock)
        return FastStore(self, customer, calls, channel)
