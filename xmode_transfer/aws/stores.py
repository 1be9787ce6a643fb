"""A customer's destination, and the engine that opens it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from xmode_transfer.aws.bodies import OpenFile
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.config import Customer
from xmode_transfer.model.acl import ObjectAcl
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.records import Checksum, ListedObject, ObjectInfo, UploadedPart
from xmode_transfer.model.verification import ReadBack


@dataclass(frozen=True, slots=True)
class PutRequest:
    """One object to create. The ACL, the expected bucket owner and create-only are the store's own business:
    no caller can forget them. ``token`` is the delivery's ID and lands in the object's metadata."""

    key: str
    token: str
    size: int
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """What S3 acknowledged. ``proven`` is true when S3 itself answered with the checksum; else a HEAD is
    due."""

    etag: str
    checksum: Checksum
    version_id: str | None = None
    proven: bool = True
    encryption: str | None = None


DELETE_MANY_KEYS = 1000
"""What one DeleteObjects takes (S3 API reference, DeleteObjects)."""


class Deletion(NamedTuple):
    """One object to delete: only if it still has that ETag."""

    key: str
    etag: str


class DeletionResult(StrEnum):
    """What became of one of them."""

    DELETED = "deleted"  # nothing lies under the key now; some stores say so of a key that was empty before
    HIDDEN = "hidden"  # below a delete marker: the bucket keeps versions
    GONE = "gone"  # nothing was there
    CHANGED = "changed"  # it has another ETag now, and was left alone
    DENIED = "denied"  # the bucket does not let it go: a policy or a lock
    FAILED = "failed"  # something else; ``error`` says what, and whether it may pass


class Deleted(NamedTuple):
    """The answer for one key; ``error`` where it was not deleted."""

    key: str
    result: DeletionResult
    error: XmodeError | None = None


class ObjectStore(Protocol):
    """One customer's destination under one role session.

    Every request carries the expected bucket owner; PutObject and CreateMultipartUpload carry the ACL
    ``bucket-owner-full-control``, UploadPart never does. Errors: AccessDenied, KmsDenied, BucketMissing,
    WrongBucketOwner (blocked: the customer must act); Throttled, Unavailable, ChecksumMismatch (transient:
    the adapter has already used its own budget of request retries); SessionExpired is handled inside (one
    forced refresh) and only surfaces when the fresh session is refused too.
    """

    @property
    def region(self) -> str | None:
        """The bucket's Region as configured, remembered or learnt from an answer; None before the first
        call."""
        ...

    @property
    def checksum_algorithm(self) -> str:
        """What this store sends and asks for, as S3 names it: ``crc32`` or ``crc64nvme``."""
        ...

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        """One PutObject, create-only, with its checksum, up to 5 GiB. Returns at once; the future fails with
        ObjectExists when the key is taken, and with SourceChanged when the body turned out not to be what was
        scanned: then nothing was created. The store does not close the body."""
        ...

    @property
    def resumes(self) -> bool:
        """Whether an upload in parts goes on after a restart: by ``create_upload``, ``upload_part`` and
        ``complete_upload``. Else ``put_in_parts`` sends the object anew."""
        ...

    def put_in_parts(
        self,
        request: PutRequest,
        body: OpenFile,
        opened: Callable[[str, datetime | None], None],
        acknowledged: Callable[[str, UploadedPart], None],
    ) -> Future[PutAnswer]:
        """One object in parts, create-only, with the checksum of the whole; may wait for the bucket's Region,
        and raise what that raises. ``opened`` is told each upload as soon as S3 has opened it, as
        ``create_upload`` answers it; ``acknowledged`` the upload's ID and each part that S3 has taken. Fails
        as ``upload_part`` and ``complete_upload`` do; the upload is then the caller's to abort. The store
        does not close the body."""
        ...

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        """Opens a multipart upload; its upload ID, and when the bucket's lifecycle rule will end it (None: no
        rule)."""
        ...

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        """Sends one part; sending the same number again replaces it. The future fails with PartsRefused when
        the policy does not let parts in, UploadNotFound when the upload has ended."""
        ...

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], size: int
    ) -> PutAnswer:
        """Puts the parts together, create-only, with the checksum of the whole, combined from the parts'.
        Raises ObjectExists, UploadNotFound, or Unavailable when the answer was lost or was an error in a 200:
        then a HEAD decides."""
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Ends an upload and frees its parts. Success when it is gone already; AccessDenied where not
        granted."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What lies under the key, with its checksum; None when nothing does."""
        ...

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        """Everything below the prefix in key order, streamed page by page. A page that fails raises: a
        listing never ends early in silence."""
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes in chunks. Raises ObjectNotFound."""
        ...

    def acl(self, key: str) -> ObjectAcl:
        """Who may do what with the object (GetObjectAcl). Raises ObjectNotFound."""
        ...

    def delete(self, key: str, etag: str | None = None) -> str | None:
        """Deletes one object, with ``etag`` only if it still has it (ObjectExists when it was changed).
        Absent is success. Answers the version ID of the delete marker when the bucket is versioned, else
        None."""
        ...

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        """Deletes up to 1,000 objects, each only if it still has its ETag: S3 compares where it can, else a
        HEAD just before does. One answer a key, in the order given; what S3 does not answer for has failed.
        An error of the request as a whole is raised: then it is not known which were deleted. Thread-safe."""
        ...

    def close(self) -> None:
        """Waits for what is in flight, then frees connections. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which engine runs, and why, for the log and for ``status``."""

    name: str
    reason: str


class ObjectStores(Protocol):
    """The transfer engine: opens destinations and holds the limits that all customers of a process share."""

    info: EngineInfo

    def open(self, customer: Customer, credentials: CredentialsProvider, region: str | None) -> ObjectStore:
        """Makes no call. ``region`` is what the ledger remembers; it is learnt from AWS when neither that nor
        the configuration says it."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Reader(Protocol):
    """Reads within the customer's bandwidth, and that of the process."""

    def read(
        self, store: ObjectStore, key: str, algorithms: Collection[str], told: Callable[[int], None]
    ) -> ReadBack:
        """The object's size and the checksums of its bytes: by algorithm as S3 names it, in base64;
        ``sha256-hex`` in hex. An algorithm that cannot be computed on this machine is left out. ``told`` is
        called with the number of bytes as they come. What breaks off is begun anew a few times. Raises
        ObjectNotFound, Interrupted when we are asked to stop, and what the store raises. Thread-safe."""
        ...
