"""The records of a delivery: files, objects, receipts, runs, leases and multipart uploads."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.model.checks import REJECTED, FailedCheck


class Status(StrEnum):
    PLANNED = "planned"  # its objects are recorded and not sent yet
    RUNNING = "running"  # objects are sent, or were when the process died
    DELIVERED = "delivered"  # every object has a receipt, and the manifest is published
    FAILED = "failed"  # an error of ours or of AWS; retried
    BLOCKED = "blocked"  # waits for the customer
    QUARANTINED = "quarantined"  # a check before release failed: waits for the vendor
    SKIPPED = "skipped"  # nothing to do


FINISHED = frozenset({Status.DELIVERED, Status.SKIPPED})


class SourceFile(NamedTuple):
    """``name`` is relative to the feed's root. ``modified_ns`` shows changes between runs; ``identity`` (an
    inode, an ETag) shows a replacement while the file is read."""

    name: str
    size: int
    modified_ns: int
    identity: str


class SourceProblem(NamedTuple):
    """A file that cannot be delivered as it is. ``name`` is as in ``SourceFile``, so that problems sort among
    the files, and ends with ``/`` for a directory."""

    name: str
    code: str
    message: str


class Checksum(NamedTuple):
    """A checksum of a whole object (type FULL_OBJECT). ``algorithm`` is S3's name in lower case (``crc32``,
    ``crc64nvme``), ``value`` is in base64."""

    algorithm: str
    value: str


class PlannedObject(NamedTuple):
    """One object of a recorded plan. ``carried``: an earlier revision delivered the same content under this
    key, so only the manifest lists it again."""

    name: str
    key: str
    size: int
    modified_ns: int
    identity: str
    carried: bool = False

    def source_file(self) -> SourceFile:
        return SourceFile(self.name, self.size, self.modified_ns, self.identity)


class Receipt(NamedTuple):
    """Proof of one object from S3's response; ``sha256`` is in hex. ``removed``: we have deleted the object
    since. ``superseded``: its revision was never published, and another one replaced it."""

    name: str
    key: str
    size: int
    checksum: Checksum
    etag: str
    delivered_at: datetime
    version_id: str | None = None
    sha256: str | None = None
    removed: bool = False
    superseded: bool = False


class MissingReason(StrEnum):
    """The reason why a manifest does not list a delivered object (docs/manifest.md)."""

    DELETED = "deleted"  # the object is gone, and the source no longer has it
    OVERWRITTEN = "overwritten"  # the key has another object, and the source no longer has ours
    EXPIRED = "expired"  # we deleted it under the customer's retention policy
    MOVED = "moved"  # it is outside of the present prefix, and the source no longer has it


class MissingObject(NamedTuple):
    """A delivered object that a revision's manifest does not list."""

    name: str
    key: str
    size: int
    checksum: Checksum
    reason: MissingReason


QUARANTINED = "quarantined"  # the failure cause of a delivery that a check before release stopped
SUPERSEDED = "superseded"  # the failure cause of an unpublished revision that another one replaced


@dataclass(frozen=True, slots=True)
class Failure:
    """An error in the ledger."""

    cause: str
    responsible: str
    message: str
    hint: str = ""
    retryable: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """``id`` is also the delivery token in each object's metadata, which identifies our objects without the
    ledger. ``marker`` is the state of the source's completeness mark. ``missing_count`` counts gone objects
    that the manifest does not list. ``not_attested`` is why our signature does not attest an adoption.
    ``fingerprint`` is that of the source which the plan was made from. ``replaces`` are the revisions whose
    objects are in this one instead: of a drop folder, after a recall."""

    id: str
    customer: str
    feed: str
    period: str
    revision: int
    status: Status
    created_at: datetime
    updated_at: datetime
    marker: str = ""
    object_count: int = 0
    total_bytes: int = 0
    manifest_key: str | None = None
    manifest_checksum: str | None = None
    delivered_at: datetime | None = None
    failure: Failure | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    missing_count: int = 0
    not_attested: str | None = None
    fingerprint: str | None = None
    replaces: tuple[int, ...] | None = None

    @property
    def is_superseded(self) -> bool:
        return self.failure is not None and self.failure.cause == SUPERSEDED

    @property
    def is_rejected(self) -> bool:
        """True if a person has rejected it. The same revision is planned anew if it is tried again."""
        return self.failure is not None and self.failure.cause == REJECTED

    @property
    def label(self) -> str:
        return f"{self.customer}/{self.feed}/{self.period}/r{self.revision}"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a delivery. ``bytes`` counts what this run sent."""

    id: str
    delivery_id: str
    started_at: datetime
    holder: str
    engine: str
    finished_at: datetime | None = None
    outcome: str | None = None
    uploaded: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """``generation`` grows with each claim; the ledger refuses writes with an older one."""

    name: str
    generation: int
    holder: str
    expires_at: datetime


def holder_shown(holder: str) -> str:
    """Return a holder ``host/boot-id/pid/start-time`` as ``pid 11684 on host``."""
    host, *rest = holder.split("/")
    return f"pid {rest[1]} on {host}" if len(rest) == 3 else holder


class DeliveredKey(NamedTuple):
    """A key that the destination should have. For a manifest, ``name`` is empty; for one of our format,
    ``size`` and ``etag`` are None. ``named_by`` has the revisions that list the key, among them
    ``revision``, which put it. ``superseded``: only unpublished revisions that others replaced list it.
    ``withdrawn``: a recall has withdrawn it."""

    key: str
    size: int | None
    etag: str | None
    feed: str
    period: str
    revision: int
    delivered_at: datetime
    named_by: tuple[int, ...] = ()
    name: str = ""
    checksum: Checksum | None = None
    sha256: str | None = None
    superseded: bool = False
    withdrawn: bool = False

    @property
    def is_manifest(self) -> bool:
        """True for a manifest of our format or a native one."""
        return not self.name


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The response of a HEAD. ``token`` is the delivery token, None if the object is not ours."""

    key: str
    size: int
    etag: str
    checksum: Checksum | None
    token: str | None
    version_id: str | None
    modified_at: datetime
    encryption: str | None = None
    storage_class: str | None = None
    locked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ListedObject:
    key: str
    size: int
    etag: str
    modified_at: datetime


def same_object(known: DeliveredKey | Receipt, there: ListedObject) -> bool:
    """Return whether a listing shows the object that we put; True for a manifest of our
    format, which has no known ETag."""
    return known.etag is None or (known.size == there.size and same_etag(known.etag, there.etag))


def same_etag(one: str, other: str) -> bool:
    """Compare without quotes, which some stores omit."""
    return one.strip('"') == other.strip('"')


class Holding(NamedTuple):
    """What one delivery holds, without the manifest. A key of several revisions counts for the last one."""

    feed: str
    period: str
    revision: int
    objects: int
    bytes: int


class UploadStatus(StrEnum):
    """The state of a multipart upload. Each one ends in one of the last three."""

    OPEN = "open"
    COMPLETED = "completed"
    ABORTED = "aborted"
    ORPHANED = "left_behind"  # we may not abort it: only the customer's lifecycle rule does


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """An acknowledged part. ``number`` counts from 1; ``checksum`` is the part's, in base64."""

    number: int
    size: int
    etag: str
    checksum: str


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """With it, a restart resumes without ListParts. The bucket's lifecycle rule aborts it at ``abort_at``."""

    upload_id: str
    delivery_id: str
    customer: str
    name: str
    key: str
    size: int
    modified_ns: int
    identity: str
    part_size: int
    algorithm: str
    opened_at: datetime
    status: UploadStatus = UploadStatus.OPEN
    parts: tuple[UploadedPart, ...] = ()
    sent_bytes: int = 0
    abort_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination allows; None if unknown."""

    multipart: bool | None = None
    abort: bool | None = None
    region: str | None = None
    versioned: bool | None = None
    kms: bool | None = None
    learned_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """The result of ``deliver``. ``sent_again`` counts gone objects that were replaced, ``missing`` those
    that the manifest does not list. ``ends_run``: the customer's other deliveries would fail the same way.
    ``checks`` are those that failed before release."""

    customer: str
    feed: str
    period: str
    revision: int
    outcome: str
    uploaded: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    manifest_key: str | None = None
    failure: Failure | None = None
    problems: tuple[SourceProblem, ...] = ()
    exit_code: int = 0
    ends_run: bool = False
    sent_again: int = 0
    missing: int = 0
    checks: tuple[FailedCheck, ...] = ()
