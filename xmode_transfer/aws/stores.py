"""A customer's destination, and the engine that opens it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.sessions import CredentialsProvider
from xmode_transfer.config import Customer, Destination, Encryption
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.records import Checksum, ListedObject, ObjectInfo, UploadedPart
from xmode_transfer.model.upkeep import ReadBack

FULL_CONTROL = "FULL_CONTROL"
_GROUPS = {
    "http://acs.amazonaws.com/groups/global/AllUsers": "everybody on the internet",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": "everybody with an AWS account",
    "http://acs.amazonaws.com/groups/s3/LogDelivery": "S3's log delivery",
}


class Grant(NamedTuple):
    """``grantee`` is a canonical user ID, a group's URI or an e-mail address; ``permission`` as S3 names
    it."""

    grantee: str
    permission: str


@dataclass(frozen=True, slots=True)
class ObjectAcl:
    """An object's owner (a canonical user ID) and what is granted to whom."""

    owner_id: str
    grants: frozenset[Grant]

    @property
    def full_control(self) -> frozenset[str]:
        return frozenset(grant.grantee for grant in self.grants if grant.permission == FULL_CONTROL)


def usual(seen: Iterable[ObjectAcl]) -> ObjectAcl | None:
    """The ACL that most of these have; of two that are as frequent, the one with more grants of full control.
    For a role outside of the bucket's account: what our objects have there when nobody has touched them."""
    counted = Counter(seen)
    if not counted:
        return None
    return max(counted, key=lambda acl: (counted[acl], len(acl.full_control), acl.owner_id))


def difference(found: ObjectAcl, expected: ObjectAcl | None = None, *, bucket_owner: str = "") -> str | None:
    """What is not as the delivery left it, in words; None when all is. Without ``expected`` (the role lies in
    the bucket's own account) the owner alone has full control, and nobody else anything: but stores that
    name users within an account (``account$user``, Ceph) grant the bucket's owner, account ``bucket_owner``,
    beside the object's."""
    if expected is None:
        own = {grant for grant in found.grants if _same_account(grant.grantee, found.owner_id, bucket_owner)}
        expected = ObjectAcl(found.owner_id, frozenset({Grant(found.owner_id, FULL_CONTROL), *own}))
    told = []
    if found.owner_id != expected.owner_id:
        told.append(f"its owner is {_short(found.owner_id)} and was {_short(expected.owner_id)}")
    for grant in sorted(expected.grants - found.grants):
        who = "its owner" if grant.grantee == found.owner_id else _short(grant.grantee)
        told.append(f"{who} no longer has {grant.permission}")
    told += [
        f"{_short(grant.grantee)} has {grant.permission}" for grant in sorted(found.grants - expected.grants)
    ]
    return "; ".join(told) or None


def _same_account(grantee: str, owner_id: str, bucket_owner: str) -> bool:
    """AWS's canonical IDs name no account: there the owner alone is meant."""
    if "$" not in grantee + owner_id:
        return False
    account = grantee.partition("$")[0]
    return account != "" and account in (owner_id.partition("$")[0], bucket_owner)


def _short(grantee: str) -> str:
    """A canonical ID has 64 digits, of which a person needs a few to tell it apart."""
    if grantee in _GROUPS:
        return _GROUPS[grantee]
    return f"the account {grantee[:12]}…" if len(grantee) == 64 else f"the account {grantee or '?'}"


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


ACL = "bucket-owner-full-control"
TOKEN_METADATA = "xmode-delivery"
SINGLE_PUT_MAX_BYTES = 5 * 1024**3
"""S3 User Guide, "Uploading objects": one PutObject takes 5 GB at most; so does one part."""


_ENCRYPTIONS = {Encryption.SSE_S3: "AES256", Encryption.SSE_KMS: "aws:kms"}
"""What S3 calls them (S3 API reference, PutObject)."""


def metadata(token: str, more: Mapping[str, str], of_destination: Mapping[str, str] = {}) -> dict[str, str]:
    """The object's metadata; what is ours cannot be overridden by what the destination or the caller adds."""
    return {**of_destination, **more, TOKEN_METADATA: token}


def creation(destination: Destination) -> dict[str, str]:
    """What PutObject and CreateMultipartUpload carry for this destination, and nothing else may (UploadPart
    with an ACL is refused by S3). Names are the S3 API's. Encryption is named only where it is configured: a
    bucket's default applies by itself."""
    parameters = {"ACL": ACL}
    if destination.encryption in _ENCRYPTIONS:
        parameters["ServerSideEncryption"] = _ENCRYPTIONS[destination.encryption]
    if destination.kms_key_arn is not None:
        parameters["SSEKMSKeyId"] = destination.kms_key_arn
    if destination.storage_class is not None:
        parameters["StorageClass"] = str(destination.storage_class)
    return parameters
