"""The interface of both engines to a customer's bucket, and the comparison of ACLs and bytes with what was
delivered."""

import base64
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from xmode_transfer.aws import checksums
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.policy.documents import ACL
from xmode_transfer.aws.retrying import Allowances
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.config import Customer, Destination, Encryption, Limits
from xmode_transfer.model.errors import ChecksumMismatch, Interrupted, RequestRefused, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Checksum, ListedObject, ObjectInfo, UploadedPart
from xmode_transfer.model.upkeep import SHA256_HEX, ReadBack

FULL_CONTROL = "FULL_CONTROL"
_GROUPS = {
    "http://acs.amazonaws.com/groups/global/AllUsers": "everybody on the internet",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": "everybody with an AWS account",
    "http://acs.amazonaws.com/groups/s3/LogDelivery": "S3's log delivery",
}


class Grant(NamedTuple):
    """``grantee`` is a canonical user ID, a group's URI or an e-mail address; ``permission`` is S3's name."""

    grantee: str
    permission: str


@dataclass(frozen=True, slots=True)
class ObjectAcl:
    """An object's owner (a canonical user ID) and its grants."""

    owner_id: str
    grants: frozenset[Grant]

    @property
    def full_control(self) -> frozenset[str]:
        return frozenset(grant.grantee for grant in self.grants if grant.permission == FULL_CONTROL)


def usual(seen: Iterable[ObjectAcl]) -> ObjectAcl | None:
    """Return the most frequent ACL, which our unchanged objects have if the role is outside of the bucket's
    account; of two that are as frequent, the one with more grants of full control."""
    counted = Counter(seen)
    return max(counted, key=lambda acl: (counted[acl], len(acl.full_control), acl.owner_id), default=None)


def difference(found: ObjectAcl, expected: ObjectAcl | None = None, *, bucket_owner: str = "") -> str | None:
    """Return the differences from the ACL that the delivery left, in words; None if there are none. Without
    ``expected`` (the role is in the bucket's own account) only the owner has a grant, of full control. Stores
    that name users within an account (``account$user``, Ceph) also grant account ``bucket_owner``."""
    if expected is None:
        own = {grant for grant in found.grants if _same_account(grant.grantee, found.owner_id, bucket_owner)}
        expected = ObjectAcl(found.owner_id, frozenset({Grant(found.owner_id, FULL_CONTROL), *own}))
    differences = []
    if found.owner_id != expected.owner_id:
        differences.append(f"its owner is {_short(found.owner_id)} and was {_short(expected.owner_id)}")
    for grant in sorted(expected.grants - found.grants):
        who = "its owner" if grant.grantee == found.owner_id else _short(grant.grantee)
        differences.append(f"{who} no longer has {grant.permission}")
    differences += [
        f"{_short(grant.grantee)} has {grant.permission}" for grant in sorted(found.grants - expected.grants)
    ]
    return "; ".join(differences) or None


def _same_account(grantee: str, owner_id: str, bucket_owner: str) -> bool:
    """AWS's canonical IDs name no account, so on AWS no two of them are the same."""
    if "$" not in grantee + owner_id:
        return False
    account = grantee.partition("$")[0]
    return account != "" and account in (owner_id.partition("$")[0], bucket_owner)


def _short(grantee: str) -> str:
    if grantee in _GROUPS:
        return _GROUPS[grantee]
    return f"the account {grantee[:12]}…" if len(grantee) == 64 else f"the account {grantee or '?'}"


@dataclass(frozen=True, slots=True)
class PutRequest:
    """One object to create; or to replace, if the object there has the ETag ``replaces``. ``token`` is the
    delivery's ID, for the object's metadata."""

    key: str
    token: str
    size: int
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """S3's acknowledgement. ``proven``: it has the checksum; else a HEAD is due."""

    etag: str
    checksum: Checksum
    version_id: str | None = None
    proven: bool = True
    encryption: str | None = None


DELETE_MANY_KEYS = 1000
"""The most keys of one DeleteObjects (S3 API reference)."""


class Deletion(NamedTuple):
    key: str
    etag: str


class DeletionResult(StrEnum):
    DELETED = "deleted"  # no object has the key now; some stores also say so if none had it before
    HIDDEN = "hidden"  # below a delete marker: the bucket keeps versions
    GONE = "gone"  # no object had the key
    CHANGED = "changed"  # it has another ETag, and was not deleted
    DENIED = "denied"  # a policy or a lock forbids it
    FAILED = "failed"  # something else, which ``error`` describes


class Deleted(NamedTuple):
    key: str
    result: DeletionResult
    error: XmodeError | None = None


Opened = Callable[[str, datetime | None], None]
"""Called with the ID of an opened upload, and the time at which the bucket's lifecycle rule ends it."""
Acknowledged = Callable[[str, UploadedPart], None]
"""Called with an upload's ID and an acknowledged part (``on_progress`` counts refused ones too)."""


class ObjectStore(Protocol):
    """One customer's destination under one role session. Every request carries the expected bucket owner.
    Transient errors come after the store's own retries, SessionExpired only if a new session is refused too.
    """

    @property
    def region(self) -> str | None:
        """The bucket's Region, unless only the first call will learn it."""

    @property
    def checksum_algorithm(self) -> str:
        """S3's name of the checksum that this store sends and requests."""

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        """Create an object of up to 5 GiB by one PutObject. The future fails with ObjectExists if the key is
        taken (or has another ETag than the one to replace), ObjectNotFound if nothing is there to replace,
        SourceChanged if the body is not what was scanned: nothing is created. The caller closes it."""

    @property
    def resumes(self) -> bool:
        """Whether a multipart upload continues after a restart; else ``put_in_parts`` sends all again."""

    def put_in_parts(
        self, request: PutRequest, body: OpenFile, opened: Opened, acknowledged: Acknowledged
    ) -> Future[PutAnswer]:
        """Create an object in parts. May first learn the bucket's Region. Fails as ``upload_part`` and
        ``complete_upload`` do; the caller then aborts the upload, and closes the body in any case."""

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        """Return the upload's ID, and the time at which the bucket's lifecycle rule ends it, if any."""

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        """A second part with the same number replaces it. The future fails with PartsRefused if the policy
        refuses parts, UploadNotFound if the upload has ended."""

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], size: int
    ) -> PutAnswer:
        """Raise ObjectExists, UploadNotFound, or Unavailable for a lost answer or an error in a 200: then a
        HEAD decides."""

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Success if it has ended already."""

    def head(self, key: str) -> ObjectInfo | None:
        """Return the object with its checksum, or None."""

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        """Iterate over the objects below the prefix in key order, page by page. Raises if a page fails."""

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Iterate over the object's bytes in chunks; with ``length`` over that many from ``start`` on, which
        must be in the object. Raises ObjectNotFound."""

    def acl(self, key: str) -> ObjectAcl:
        """Raise ObjectNotFound."""

    def delete(self, key: str, etag: str | None = None) -> str | None:
        """Delete one object, with ``etag`` only if it still has it (else ObjectExists). Return the version ID
        of the delete marker in a versioned bucket. Success if it is gone."""

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        """Delete up to 1,000 objects, each only if it still has its ETag. Return one answer a key, in order.
        Raises an error of the request as a whole: then it is unknown which were deleted. Thread-safe."""

    def close(self) -> None:
        """Wait for the requests in flight, then close the connections. Idempotent."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    name: str
    reason: str


class ObjectStores(Protocol):
    """A transfer engine, with the limits that all customers of a process share."""

    info: EngineInfo

    def open(self, customer: Customer, credentials: CredentialsProvider, region: str | None) -> ObjectStore:
        """Open a destination without a call. ``region`` is the one in the ledger, else it is learnt."""

    def close(self) -> None:
        """Idempotent."""


TOKEN_METADATA = "xmode-delivery"
SINGLE_PUT_MAX_BYTES = 5 * 1024**3
"""S3 User Guide, "Uploading objects": one PutObject takes 5 GB at most; so does one part."""


_ENCRYPTIONS = {Encryption.SSE_S3: "AES256", Encryption.SSE_KMS: "aws:kms"}


def metadata(token: str, more: Mapping[str, str], of_destination: Mapping[str, str] = {}) -> dict[str, str]:
    """Return the object's metadata. Neither destination nor caller can override the token."""
    return {**of_destination, **more, TOKEN_METADATA: token}


CREATION_HEADERS = {
    "ACL": "x-amz-acl",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "StorageClass": "x-amz-storage-class",
}
"""S3's names of the parameters of ``creation``, and the headers that carry them."""


def creation(destination: Destination) -> dict[str, str]:
    """Return the parameters of PutObject and CreateMultipartUpload by S3's names. S3 refuses UploadPart with
    an ACL. Without encryption the bucket's default applies."""
    parameters = {"ACL": ACL}
    if destination.encryption in _ENCRYPTIONS:
        parameters["ServerSideEncryption"] = _ENCRYPTIONS[destination.encryption]
    if destination.kms_key_arn is not None:
        parameters["SSEKMSKeyId"] = destination.kms_key_arn
    if destination.storage_class is not None:
        parameters["StorageClass"] = str(destination.storage_class)
    return parameters


READ_ATTEMPTS = 3
"""The attempts to read one object, besides the request's own retries."""


class Reader:
    """Reads objects within the bandwidth of the customer and of the process. Thread-safe."""

    def __init__(self, customer: Customer, limits: Limits, clock: Clock, stop: threading.Event) -> None:
        self._allowances = Allowances(limits, clock).of(customer.name, customer.limits)
        self._lock = threading.Lock()
        self._stop = stop

    def read(
        self, store: ObjectStore, key: str, algorithms: Collection[str], progress: Callable[[int], None]
    ) -> ReadBack:
        """Return the object's size and checksums: by S3's name of the algorithm, in base64; ``sha256-hex`` in
        hex. An algorithm that this machine cannot compute is left out. ``progress`` gets the number of bytes
        read, negative if a new attempt begins. Raises Interrupted on a stop, and the store's errors."""
        attempt, count = 1, 0

        def counted(length: int) -> None:
            nonlocal count
            count += length
            progress(length)

        while True:
            try:
                return self._read(store, key, algorithms, counted)
            except XmodeError as error:
                if not error.retryable or attempt == READ_ATTEMPTS:
                    raise
            progress(-count)
            attempt, count = attempt + 1, 0

    def _read(
        self, store: ObjectStore, key: str, algorithms: Collection[str], progress: Callable[[int], None]
    ) -> ReadBack:
        sums = {name: summed for name in algorithms if (summed := _running(name)) is not None}
        size = 0
        try:
            for chunk in store.read(key):
                self._pace(len(chunk))
                size += len(chunk)
                for summed in sums.values():
                    summed.update(chunk)
                progress(len(chunk))
        except ChecksumMismatch:
            # The SDK compares at the end, when all bytes are read. Our own sums show which bytes they are.
            if size == 0:
                raise
        return ReadBack(size, {name: _digest(name, summed) for name, summed in sums.items()})

    def _pace(self, length: int) -> None:
        while True:
            if self._stop.is_set():
                raise Interrupted("stopped on request", hint="a verification begins anew")
            with self._lock:
                seconds = max((allowance.wait() for allowance in self._allowances), default=0.0)
                if seconds <= 0:
                    for allowance in self._allowances:
                        allowance.take(length)
                    return
            self._stop.wait(seconds)


def _running(name: str) -> Any:
    if name == SHA256_HEX:
        return hashlib.sha256()
    try:
        return checksums.running(name)
    except RequestRefused:
        return None


def _digest(name: str, summed: Any) -> str:
    digest: bytes = summed.digest()
    return digest.hex() if name == SHA256_HEX else base64.b64encode(digest).decode("ascii")
