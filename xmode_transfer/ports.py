"""What the services need from the outside, each as a written contract.

An adapter that passes the contract suite of its port (tests/contract) may be put behind it.
All errors are domain errors (``domain.errors``); all times are UTC-aware.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from xmode_transfer.domain.config import Customer, Feed
from xmode_transfer.domain.findings import AccessReport
from xmode_transfer.domain.periods import Period
from xmode_transfer.domain.policy import Step
from xmode_transfer.domain.records import (
    Capabilities,
    Checksum,
    DeliveredKey,
    Delivery,
    Lease,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    SourceFile,
    SourceProblem,
    Status,
    UploadedPart,
    UploadStatus,
)


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """The wall clock, UTC-aware."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        ...


# --- Source -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeriodState:
    """A period at the source. ``complete`` is false while files may still be coming; ``reason`` says why in
    words.

    ``marker`` changes when the producer declares the period complete anew (the marker file's time; empty when
    completeness is by settled time).
    """

    period: Period
    complete: bool
    reason: str
    marker: str = ""


class OpenFile(Protocol):
    """An open source file: one descriptor, so that a file replaced by rename is never read half and half."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, or SourceChanged when the file has become shorter.
        Safe to call from several threads at once."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fills ``buffer`` from ``offset`` as far as the file goes; returns the number of bytes.
        Thread-safe."""
        ...

    def check_unchanged(self) -> None:
        """Raises SourceChanged unless the file still is, by size, time and identity, what the scan saw, and
        the path still leads to it."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...

    def __enter__(self) -> "OpenFile": ...

    def __exit__(self, *exc: object) -> None: ...


class Source(Protocol):
    """The files of one feed."""

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState]:
        """Every period that has something at the source, oldest first. A drop folder has the one period
        ``Period.none()``. Those that start before ``since`` (naive, as a period's start) are named without a
        look into them: incomplete, with that as the reason; or left out, where naming them costs requests.
        Raises SourceMissing when the root is not there."""
        ...

    def state(self, period: Period) -> PeriodState | None:
        """One period's state, or None when the source has nothing for it."""
        ...

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        """The period's complete files, in the order of their names' code points (which is the order of their
        UTF-8 bytes), streamed: memory does not grow with their number. In a drop folder, only files that are
        complete. A file that can never be delivered comes as SourceProblem in its place, and the scan goes
        on."""
        ...

    def open(self, file: SourceFile) -> OpenFile:
        """Opens a scanned file. Raises SourceChanged when it is no longer what the scan saw, SourceUnreadable
        when it cannot be read or its path leaves the feed's root."""
        ...


# --- Role sessions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credentials:
    """One role session's temporary credentials. Never logged: the representation hides them."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


class CredentialsProvider(Protocol):
    """Gives one customer's credentials for one step, fresh for as long as it is used."""

    def get(self) -> Credentials:
        """Credentials with enough life left for a request begun now. Refreshes when they are near their end,
        with one STS call in flight however many threads ask. Raises RoleRefused (permanent),
        VendorIdentityError (ours), Throttled or Unavailable. Never answers another identity's credentials."""
        ...

    def invalidate(self, credentials: Credentials) -> None:
        """Says that S3 refused these as expired. The next ``get`` asks STS again, once for all who were given
        them."""
        ...


class RoleSessions(Protocol):
    """The customers' roles, assumed with their external IDs."""

    def verify_identity(self) -> str:
        """The ARN that our own credentials belong to. Raises VendorIdentityError when there are none, when
        AWS refuses them, or when they are not the configured vendor principal. No customer is touched."""
        ...

    def open(self, customer: Customer, step: Step) -> CredentialsProvider:
        """A provider keyed by (customer, step); the session policy allows that step's verbs below that prefix
        only. No call is made until ``get``."""
        ...


# --- Object store -----------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A HEAD's answer. ``token`` is the delivery token of an object of ours, else None."""

    key: str
    size: int
    etag: str
    checksum: Checksum | None
    token: str | None
    version_id: str | None
    modified_at: datetime
    encryption: str | None = None
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class ListedObject:
    key: str
    size: int
    etag: str
    modified_at: datetime


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

    def delete(self, key: str, etag: str | None = None) -> str | None:
        """Deletes one object, with ``etag`` only if it still has it (ObjectExists when it was changed).
        Absent is success. Answers the version ID of the delete marker when the bucket is versioned, else
        None."""
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


# --- Prober -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbedObject:
    """An object of a check as S3 answered for it. ``locked`` is the Object Lock mode where the answer names
    one; ``checksum`` is None where the answer has none."""

    size: int
    checksum: Checksum | None = None
    version_id: str | None = None
    encryption: str | None = None
    locked: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectAcl:
    """Who owns an object, and the canonical IDs that have full control of it."""

    owner_id: str
    full_control: frozenset[str]


class ReservedPlace(Protocol):
    """One customer's reserved place, ``<prefix>_xmode-check/``, where a check tries every right.

    All keys are below it, and the role session is narrowed to it: no mistake of a check can touch anything
    else. Every request carries the expected bucket owner. Nothing is tried again beyond the requests' own
    retries, and nothing is cleaned up: that is the caller's. Errors are those of ``ObjectStore``.
    """

    prefix: str

    @property
    def region(self) -> str | None:
        """The bucket's Region as an answer has named it; None as long as none has."""
        ...

    def locate(self) -> None:
        """HeadBucket. A refusal is no error, since it names the Region too; raises BucketMissing."""
        ...

    def list(self) -> Sequence[ListedObject]:
        """What lies in the place; the first thousand at most."""
        ...

    def put(self, key: str, body: bytes, *, acl: bool = True) -> ProbedObject:
        """PutObject with the ACL that every delivery carries, or with none. Replaces what was there."""
        ...

    def create_upload(self, key: str) -> str:
        """CreateMultipartUpload with the ACL; its upload ID."""
        ...

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        """Raises PartsRefused, UploadNotFound."""
        ...

    def list_parts(self, key: str, upload_id: str) -> Sequence[int]:
        """The numbers of the parts that S3 holds."""
        ...

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> ProbedObject:
        """Raises PartsRefused, UploadNotFound."""
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Success when it is gone already."""
        ...

    def head(self, key: str) -> ProbedObject | None:
        """With its checksum; None when nothing lies under the key."""
        ...

    def read(self, key: str) -> bytes:
        """Raises ObjectNotFound."""
        ...

    def acl(self, key: str) -> ObjectAcl:
        """GetObjectAcl. Raises ObjectNotFound."""
        ...

    def delete(self, key: str) -> str | None:
        """Deletes without naming a version. Absent is success. The ID of the delete marker where the bucket
        is versioned, else None."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Prober(Protocol):
    """Tries what a customer's role lets us do, and what it should not."""

    def verify_identity(self) -> str:
        """As ``RoleSessions.verify_identity``."""
        ...

    def assume(self, customer: Customer, external_id: str | None) -> None:
        """AssumeRole with exactly that external ID, or with none. The credentials are thrown away unused,
        and could do nothing anyway. Raises RoleRefused (its ``aws_code`` tells AWS's refusal from others),
        VendorIdentityError, Throttled, Unavailable, RequestRefused."""
        ...

    def reserve(self, customer: Customer, region: str | None) -> ReservedPlace:
        """Makes no call. ``region`` is what the ledger remembers."""
        ...

    def excess(self, customer: Customer, *, deep: bool) -> Iterator[str]:
        """The rights, as IAM names them, that the role should not have and has: found by reading what is
        harmless to read. The session can do these reads and nothing else. ``deep`` tries more of them. What
        is not answered is not named. Raises as ``assume``."""
        ...


# --- Ledger -----------------------------------------------------------------------------------------


class Ledger(Protocol):
    """Our durable record. What a method has acknowledged survives kill -9 and power loss.

    Methods that take a ``lease`` raise LeaseLost, and write nothing, when the lease has been taken over.
    Every method may raise LedgerLocked, LedgerReadOnly, LedgerFull or LedgerCorrupt; then nothing of that
    call was written. Thread-safe.
    """

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        """Takes the lease, if nobody holds it, if it has expired, or if its holder is known to be dead.
        Raises AlreadyRunning naming the holder and since when."""
        ...

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease:
        """Prolongs a lease that is still ours."""
        ...

    def release(self, lease: Lease) -> None:
        """Gives it back; no error when it is no longer ours."""
        ...

    def latest(self, customer: str, feed: str, period: str) -> Delivery | None:
        """The delivery with the highest revision."""
        ...

    def deliveries(
        self,
        customer: str | None = None,
        feed: str | None = None,
        period: str | None = None,
        statuses: Iterable[Status] | None = None,
        limit: int | None = None,
    ) -> list[Delivery]:
        """Newest first (by update)."""
        ...

    def create_delivery(self, lease: Lease, delivery: Delivery) -> None:
        """Adds it. Idempotent for the same ID."""
        ...

    def update_delivery(self, lease: Lease, delivery: Delivery) -> None:
        """Overwrites status, counts, manifest, failure and times."""
        ...

    def plan_objects(self, lease: Lease, delivery_id: str, objects: Iterable[PlannedObject]) -> int:
        """Adds or replaces planned objects by name, in bulk, streaming; returns their number. An object that
        has a receipt is left as it is. ``carried`` objects must have had a receipt in an earlier revision,
        which is copied."""
        ...

    def restamp(
        self, lease: Lease, customer: str, feed: str, period: str, files: Iterable[SourceFile]
    ) -> None:
        """The files' content is what was delivered, though their times changed: remembers the new
        ``modified_ns`` and ``identity`` on the objects that ``delivered_names`` answers for these names."""
        ...

    def forget_planned(self, lease: Lease, delivery_id: str, names: Iterable[str]) -> int:
        """Takes planned objects without a receipt out of the plan again (their source file is gone)."""
        ...

    def totals(self, delivery_id: str) -> tuple[int, int]:
        """How many objects are planned, and their bytes."""
        ...

    def planned(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt | None]]:
        """The delivery's objects in the order of their names, streamed, each with its receipt if it has
        one."""
        ...

    def pending(self, delivery_id: str) -> Iterator[PlannedObject]:
        """The planned objects without a receipt, in the order of their names, streamed. What is acknowledged
        while the iterator runs may or may not still appear."""
        ...

    def delivered_names(
        self, customer: str, feed: str, period: str
    ) -> Iterator[tuple[PlannedObject, Receipt]]:
        """For every source name ever delivered in that (customer, feed, period), the object of its highest
        revision, in the order of names, streamed. A drop folder's plan is made against this."""
        ...

    def delivered_keys(self, customer: str) -> Iterator[DeliveredKey]:
        """Every key that was delivered to the customer, manifests included, once each, in the order of keys,
        streamed."""
        ...

    def record_receipt(self, lease: Lease, delivery_id: str, receipt: Receipt) -> Future[None]:
        """Group commit: the future is done when the receipt is on disk."""
        ...

    def start_run(self, lease: Lease, run: Run) -> None: ...

    def finish_run(self, lease: Lease, run: Run) -> None: ...

    def runs(self, customer: str | None = None, limit: int = 20) -> list[Run]:
        """Newest first."""
        ...

    def open_upload(self, lease: Lease, upload: MultipartUpload) -> None:
        """Journals a multipart upload before its first part."""
        ...

    def record_part(self, lease: Lease, upload_id: str, part: UploadedPart) -> Future[None]:
        """Group commit, like ``record_receipt``."""
        ...

    def close_upload(self, lease: Lease, upload_id: str, status: UploadStatus) -> None: ...

    def uploads(
        self,
        customer: str | None = None,
        delivery_id: str | None = None,
        statuses: Iterable[UploadStatus] | None = None,
    ) -> list[MultipartUpload]:
        """With their parts, oldest first."""
        ...

    def capabilities(self, customer: str) -> Capabilities: ...

    def learn(self, customer: str, capabilities: Capabilities) -> None:
        """Remembers what is not None; the rest stays as it was."""
        ...

    def record_check(self, report: AccessReport) -> None:
        """Adds a check of a customer's access to the history. Fixes are not kept: they are made anew from the
        cause and the customer's file, which the ledger does not repeat."""
        ...

    def last_check(self, customer: str) -> AccessReport | None:
        """The newest, its findings in their order and without fixes."""
        ...

    def checks(self, customer: str | None = None, limit: int = 20) -> list[AccessReport]:
        """Newest first, as ``last_check``."""
        ...

    def close(self) -> None:
        """Flushes what is queued. Idempotent."""
        ...


# --- Progress ---------------------------------------------------------------------------------------


class Progress(Protocol):
    """Told what happens while it happens; must not raise and must not block. Called from several threads."""

    def delivery_started(
        self, customer: str, feed: str, period: str, objects: int, total_bytes: int
    ) -> None: ...

    def bytes_sent(self, count: int) -> None: ...

    def object_finished(self, name: str, size: int, outcome: str) -> None: ...

    def delivery_finished(self) -> None: ...


SourceFactory = Callable[[Feed], Source]

# The checksum of an open file's whole content, by algorithm as S3 names it; base64.
ChecksumOf = Callable[[OpenFile, str], str]

# Puts chunks on disk and opens them like a source file: a manifest may be larger than memory should be.
Spool = Callable[[Iterable[bytes]], OpenFile]
