"""The things that a delivery is made of, and their legal states."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """The state of a delivery."""

    PLANNED = "planned"  # its objects are known and wait to be sent
    RUNNING = "running"  # objects are being sent, or were when the process ended
    DELIVERED = "delivered"  # every object has a receipt and the manifest is there
    FAILED = "failed"  # something of ours or of AWS's went wrong; tried again
    BLOCKED = "blocked"  # waits for the customer
    SKIPPED = "skipped"  # nothing to do


FINISHED = frozenset({Status.DELIVERED, Status.SKIPPED})


class SourceFile(NamedTuple):
    """A file as it was seen at the source.

    ``name`` is relative to the feed's root, with ``/``. ``size`` is in bytes. ``modified_ns`` tells
    two states of a file apart from one run to the next; ``identity`` (an inode, an ETag) tells
    a replaced file apart while it is being read.
    """

    name: str
    size: int
    modified_ns: int
    identity: str


class SourceProblem(NamedTuple):
    """A file that can never be delivered as it is, and why (one sentence).

    ``name`` is as in ``SourceFile``, so that a problem has its place among the files, whatever bytes the
    name is made of; a directory's ends in ``/``. ``keys.readable`` is what people are shown.
    """

    name: str
    code: str
    message: str


class Checksum(NamedTuple):
    """``algorithm`` in lower case as S3 names it (``crc32``, ``crc64nvme``); ``value`` in base64, of the
    whole object (checksum type FULL_OBJECT)."""

    algorithm: str
    value: str


class PlannedObject(NamedTuple):
    """One object of a delivery, as the plan was recorded before the first byte.

    ``carried`` is true when an earlier revision delivered the same content under this key, so that
    only the manifest names it again.
    """

    name: str
    key: str
    size: int
    modified_ns: int
    identity: str
    carried: bool = False

    def source_file(self) -> SourceFile:
        return SourceFile(self.name, self.size, self.modified_ns, self.identity)


class Receipt(NamedTuple):
    """Proof of one object: what S3 answered for it. ``size`` in bytes, ``sha256`` in hex where known.
    ``removed`` is true when we have taken the object away since, ``superseded`` when the revision was never
    published and another one took its place."""

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
    """Why a manifest does not list an object that was delivered; docs/manifest.md has them too."""

    DELETED = "deleted"  # nothing is there any more, and the source cannot give it again
    OVERWRITTEN = "overwritten"  # something else is there, and the source cannot give it again
    EXPIRED = "expired"  # we removed it, by the customer's retention policy
    MOVED = "moved"  # it is outside of today's prefix, and the source cannot give it again


class MissingObject(NamedTuple):
    """An object that was delivered and that a revision's manifest does not list."""

    name: str
    key: str
    size: int
    checksum: Checksum
    reason: MissingReason


SUPERSEDED = "superseded"
"""The cause in the failure of a revision that was never published and that another one took the place of."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something did not go on: an error boiled down to what the ledger keeps."""

    cause: str
    responsible: str
    message: str
    hint: str = ""
    retryable: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The aim (customer, feed, period, revision) and how far it has come.

    ``id`` is the delivery token too: it is written into each object's metadata, so an object can be
    told to be ours without the ledger. ``marker`` is the state of the source's completeness mark that this
    revision answers to. Counts are objects; ``total_bytes`` is in bytes. ``missing_count`` counts objects
    that were delivered and that the manifest does not list, since they are gone. ``not_attested`` says of a
    delivery that was taken back from the bucket why our signature does not vouch for it.
    """

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

    @property
    def is_superseded(self) -> bool:
        return self.failure is not None and self.failure.cause == SUPERSEDED

    @property
    def label(self) -> str:
        return f"{self.customer}/{self.feed}/{self.period}/r{self.revision}"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution towards a delivery. ``seconds`` is wall time; ``bytes`` what this run sent."""

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
    """The exclusive, expiring right to work on ``name``.

    ``generation`` grows with every claim; the ledger refuses a write that carries an older one.
    """

    name: str
    generation: int
    holder: str
    expires_at: datetime


def holder_shown(holder: str) -> str:
    """A lease's holder for people: ``host/boot-id/pid/start-time`` -> ``pid 11684 on host``."""
    host, *rest = holder.split("/")
    return f"pid {rest[1]} on {host}" if len(rest) == 3 else holder


class DeliveredKey(NamedTuple):
    """A key that the destination should hold by our record. ``size`` and ``etag`` are None for a manifest.
    ``revision`` put it; ``named_by`` are the revisions whose deliveries name it, that one among them.
    ``name`` is the source file's, empty for a manifest; ``sha256`` in hex where it is known. ``superseded``
    is true of what only revisions name that were never published and that others took the place of."""

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
    """One row of a listing."""

    key: str
    size: int
    etag: str
    modified_at: datetime


def same_object(known: DeliveredKey | Receipt, there: ListedObject) -> bool:
    """Whether the listing shows the object that we put. Of a manifest the ledger knows a checksum and no
    ETag: whoever needs more compares that."""
    return known.etag is None or (known.size == there.size and same_etag(known.etag, there.etag))


def same_etag(one: str, other: str) -> bool:
    """Some stores leave the quotes out."""
    return one.strip('"') == other.strip('"')


class Holding(NamedTuple):
    """What the destination should hold of one delivery: objects and their bytes, without the manifest. A key
    that several revisions name counts with the last of them."""

    feed: str
    period: str
    revision: int
    objects: int
    bytes: int


class UploadStatus(StrEnum):
    """What became of a multipart upload that we opened. Every one ends in one of the last three."""

    OPEN = "open"
    COMPLETED = "completed"
    ABORTED = "aborted"
    LEFT_BEHIND = "left_behind"  # we may not abort it: only the customer's lifecycle rule cleans it


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """One part that S3 has acknowledged. ``number`` counts from 1; ``checksum`` is the part's own, base64."""

    number: int
    size: int
    etag: str
    checksum: str


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """A multipart upload as it is journalled, so that a restart resumes without ListParts."""

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
    abort_at: datetime | None = None  # the bucket's lifecycle rule ends it then: do not resume past it


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination was found to allow; None where nobody has tried yet."""

    multipart: bool | None = None
    abort: bool | None = None
    region: str | None = None
    versioned: bool | None = None
    kms: bool | None = None
    learned_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What ``deliver`` answers for one delivery; the JSON of ``run`` is made of these. ``sent_again`` counts
    those of ``uploaded`` that were gone from the bucket, ``missing`` those that the manifest does not list
    since they are gone. ``ends_run`` is true when what went wrong would meet the customer's other deliveries
    too."""

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
