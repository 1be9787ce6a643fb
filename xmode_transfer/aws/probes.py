"""Trying a customer's rights one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from xmode_transfer.config import Customer
from xmode_transfer.model.acl import ObjectAcl
from xmode_transfer.model.records import Checksum, ListedObject, UploadedPart


@dataclass(frozen=True, slots=True)
class ProbedObject:
    """An object of a check as S3 answered for it. ``locked`` is the Object Lock mode where the answer names
    one; ``checksum`` is None where the answer has none."""

    size: int
    checksum: Checksum | None = None
    version_id: str | None = None
    encryption: str | None = None
    locked: str | None = None


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
        """The objects in the place; the first thousand at most."""
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
        """With its checksum; None when there is no object."""
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

    def verify_identity(self) -> str | None:
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

    def reads(self, *, deep: bool) -> Sequence[str]:
        """The rights that ``excess`` looks for."""
        ...

    def excess(self, customer: Customer, *, deep: bool) -> Iterator[str]:
        """The rights, as IAM names them, that the role should not have and has: found by reading what is
        harmless to read. The session can do these reads and nothing else. ``deep`` tries more of them. What
        is not answered is not named. Raises as ``assume``."""
        ...
