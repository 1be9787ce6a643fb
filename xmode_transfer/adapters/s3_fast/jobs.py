"""The requests that are sent by the CRT: how each is built, and what its answer means."""

import hashlib
import re
from abc import abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, ClassVar, Protocol
from urllib.parse import quote
from zlib import crc32

from awscrt.http import HttpHeaders, HttpRequest
from awscrt.s3 import S3ResponseError

from xmode_transfer.adapters import dispatch, s3_rules
from xmode_transfer.adapters.checksums import encode
from xmode_transfer.adapters.lanes import SMALL_BYTES, Lane
from xmode_transfer.adapters.s3_errors import UNREADABLE, unreadable
from xmode_transfer.adapters.s3_fast.answers import Headers, members, put_answer
from xmode_transfer.adapters.s3_fast.bodies import (
    CHECKSUM_HEADER,
    NO_CHECKSUM,
    FileBody,
    HeldBody,
    path_of_descriptor,
)
from xmode_transfer.adapters.s3_fast.channel import Channel, HeaderList, Ready
from xmode_transfer.domain.errors import RequestRefused, SourceChanged, XmodeError
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import OpenFile, PutAnswer, PutRequest

ALGORITHM_HEADER = ("x-amz-sdk-checksum-algorithm", "CRC32")
"""As the SDKs send it; some stores look at nothing else."""
_PLAIN = re.compile(r"[A-Za-z0-9/_.~-]*")


def path_of(prefix: str, key: str) -> str:
    """The key's path, each byte that is not unreserved percent-encoded exactly once (S3 API reference,
    "Signature calculations")."""
    return f"{prefix}/{key if _PLAIN.fullmatch(key) else quote(key, safe='/~')}"


class Settler(Protocol):
    """Who sends jobs, and settles what comes of them."""

    def done(self, job: "Job", error: BaseException | None) -> None: ...


class Route(Protocol):
    """The store that a job belongs to. The three methods send the same through botocore."""

    @property
    def engine(self) -> Settler: ...

    channel: Channel
    lane: Lane
    with_checksum: bool

    def put_by_botocore(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]: ...

    def part_by_botocore(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]: ...

    def head_by_botocore(self, key: str) -> Future[dict[str, Any]]: ...


class Job(dispatch.Job):
    """One request, sent until it is answered. ``attempts`` counts how often it was sent, ``settled`` how
    often something came of that; ``detoured`` means that botocore sends it, ``stays_detoured`` that it does
    so whenever the object is begun; ``path`` is a file that the CRT takes the body from, where the request
    has none; ``resident_bytes`` is what the process had in memory when the request was first seen in
    flight."""

    method: ClassVar[str]

    # What most jobs never change stays in the class: making a job must cost little.
    attempts = 0
    settled = 0
    detoured = False
    stays_detoured = False
    renewed = False
    moved = False
    overdue = False
    swollen = False
    resident_bytes: int | None = None
    headers: Headers = ()
    path: str | None = None
    ready: Ready | None = None
    request: Any = None

    def __init__(self, route: Route, key: str, length: int) -> None:
        super().__init__(route.lane, route.channel.bucket, key, length, length)
        self.route = route

    def start_over(self) -> None:
        self.attempts = self.settled = 0
        self.renewed = self.moved = False
        self.detoured = self.stays_detoured

    def body_error(self, error: BaseException) -> BaseException | None:
        """What went wrong with the body while the CRT read it, if that is what is behind its ``error``."""
        return None

    @abstractmethod
    def build(self, ready: Ready) -> tuple[Any, Any]:
        """The HttpRequest and how it is signed. Raises SourceChanged and what the source raises."""

    @abstractmethod
    def result(self) -> Any:
        """The value of the future, from the headers of a successful answer."""

    def cancel(self) -> None:
        """Ends it, if it is in flight."""
        request = self.request
        if request is not None:
            request.cancel()

    # --- Told by the CRT: ``direct.Answered`` --------------------------------------------------------

    def on_headers(self, headers: Headers) -> None:
        self.headers = headers

    def on_done(self, error: BaseException | None) -> None:
        self.route.engine.done(self, error)


class BodyJob(Job):
    """A request with bytes of a file. ``_value`` is their CRC32 as S3 writes it, once they are read."""

    _body: FileBody | None = None
    _value = ""

    def __init__(self, route: Route, key: str, body: OpenFile, offset: int, length: int) -> None:
        super().__init__(route, key, length)
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
            return HttpRequest(self.method, path, crt_headers, self._body), ready.signing
        content = self._file.read_at(self._offset, self.length)
        self._file.check_unchanged()
        self._value = encode(crc32(content))
        if self.route.with_checksum:
            headers += (ALGORITHM_HEADER, (CHECKSUM_HEADER, self._value))
            signing = ready.signing
        else:
            signing = ready.signing_of(hashlib.sha256(content).hexdigest())
        is_whole = self._offset == 0 and 0 < self.length == self._file.size
        self.path = path_of_descriptor(self._file) if is_whole else None
        body = HeldBody(content) if content and self.path is None else None
        return HttpRequest(self.method, path, HttpHeaders(headers), body), signing


class PutJob(BodyJob):
    operation = "PutObject"
    method = "PUT"

    def __init__(self, route: Route, asked: PutRequest, body: OpenFile) -> None:
        super().__init__(route, asked.key, body, 0, asked.size)
        self._asked = asked

    def build(self, ready: Ready) -> tuple[Any, Any]:
        asked = self._asked
        if self._file.size != asked.size:
            raise SourceChanged(
                f"the file has {self._file.size} bytes and had {asked.size} when it was planned",
                hint="It is delivered when it is complete and no longer changes",
            )
        headers = [*ready.creation, ("content-type", asked.content_type)]
        if asked.metadata:
            own = metadata_headers(asked.token, asked.metadata)
            named = {name for name, _ in own}
            headers = [*own, *(header for header in headers if header[0] not in named)]
        else:
            headers += _token(asked.token)
        return self._with_body(ready, path_of(ready.endpoint.prefix, asked.key), headers)

    def send(self) -> Future[Any]:
        return self.route.put_by_botocore(self._asked, self._file)

    def result(self) -> Any:
        return put_answer(self.headers, self.value)


class PartJob(BodyJob):
    operation = "UploadPart"
    method = "PUT"

    def __init__(
        self,
        route: Route,
        key: str,
        upload_id: str,
        number: int,
        body: OpenFile,
        offset: int,
        length: int,
    ) -> None:
        super().__init__(route, key, body, offset, length)
        self._upload_id = upload_id
        self._number = number

    def build(self, ready: Ready) -> tuple[Any, Any]:
        path = path_of(ready.endpoint.prefix, self.key)
        query = f"?partNumber={self._number}&uploadId={quote(self._upload_id, safe='')}"
        return self._with_body(ready, path + query, list(ready.plain))

    def send(self) -> Future[Any]:
        return self.route.part_by_botocore(
            self.key, self._upload_id, self._number, self._file, self._offset, self.length
        )

    def result(self) -> Any:
        return UploadedPart(self._number, self.length, put_answer(self.headers, "").etag, self.value)


class HeadJob(Job):
    operation = "HeadObject"
    method = "HEAD"
    stoppable = False  # it proves what has been sent
    is_retried = False

    def __init__(self, route: Route, key: str, *, with_checksum: bool) -> None:
        super().__init__(route, key, 0)
        self._with_checksum = with_checksum

    def build(self, ready: Ready) -> tuple[Any, Any]:
        headers = list(ready.plain)
        if self._with_checksum:
            headers.append(("x-amz-checksum-mode", "ENABLED"))
        path = path_of(ready.endpoint.prefix, self.key)
        return HttpRequest(self.method, path, HttpHeaders(headers)), ready.signing

    def send(self) -> Future[Any]:
        return self.route.head_by_botocore(self.key)

    def result(self) -> Any:
        try:
            return members(self.headers)
        except UNREADABLE as error:
            raise unreadable(self.attempt, error) from error


@lru_cache
def _token(token: str) -> HeaderList:
    """One delivery's objects differ in no metadata."""
    return metadata_headers(token, {})


def metadata_headers(token: str, more: Mapping[str, str]) -> HeaderList:
    """The object's metadata. Raises RequestRefused for what HTTP cannot carry."""
    headers = []
    for name, value in s3_rules.metadata(token, more).items():
        if not (name.isascii() and value.isascii() and name.isprintable() and value.isprintable()):
            raise RequestRefused(
                f"metadata {name!r}: {value!r} cannot be sent: S3 takes printable ASCII only",
                hint="This is a defect of ours; report it with the log",
            )
        headers.append((f"x-amz-meta-{name}", value))
    return headers
