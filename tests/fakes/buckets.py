"""The cloud's side: buckets, their objects' versions and their open multipart uploads, as S3 keeps them."""

import threading
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from datetime import datetime

from xmode_transfer.aws.stores import ObjectAcl, PutRequest
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Checksum

MIN_PART_BYTES = 5 * 1024 * 1024
"""S3 User Guide, "Multipart upload limits": every part but the last."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of an object, or a delete marker, which has no body. In a bucket without versioning
    ``version_id`` is None. ``granted`` is the ACL that the customer has given it since."""

    key: str
    version_id: str | None
    modified_at: datetime
    body: bytes = field(default=b"", repr=False)
    etag: str = ""
    checksum: Checksum | None = None
    request: PutRequest | None = None
    acl: str | None = None
    encryption: str | None = None
    storage_class: str | None = None
    delete_marker: bool = False
    granted: ObjectAcl | None = None


@dataclass(frozen=True, slots=True)
class StoredPart:
    body: bytes = field(repr=False)
    etag: str
    checksum: str


@dataclass(slots=True)
class StoredUpload:
    """An open multipart upload. ``acl`` is the one it was created with."""

    upload_id: str
    request: PutRequest
    acl: str
    opened_at: datetime
    parts: dict[int, StoredPart] = field(default_factory=dict)


class MemoryBucket:
    """One bucket. ``owner`` is the account ID; ``kms_key_arn`` the key of its default encryption;
    ``abort_after_days`` its lifecycle rule for multipart uploads. Hold ``lock`` across a check and its
    write."""

    def __init__(
        self,
        name: str,
        owner: str,
        *,
        region: str = "us-east-1",
        versioned: bool = False,
        kms_key_arn: str | None = None,
        abort_after_days: int | None = None,
    ) -> None:
        self.name = name
        self.owner = owner
        self.region = region
        self.versioned = versioned
        self.kms_key_arn = kms_key_arn
        self.abort_after_days = abort_after_days
        self.lock = threading.RLock()
        self.uploads: dict[str, StoredUpload] = {}
        self._versions: dict[str, list[StoredVersion]] = {}
        self._keys: list[str] = []  # every key of _versions, sorted
        self._last_id = 0

    def new_id(self, kind: str) -> str:
        """The next upload ID or version ID."""
        with self.lock:
            self._last_id += 1
            return f"{kind}-{self._last_id:06d}"

    def current(self, key: str) -> StoredVersion | None:
        """What a reader sees under the key: nothing below a delete marker."""
        with self.lock:
            versions = self._versions.get(key)
            return None if not versions or versions[-1].delete_marker else versions[-1]

    def versions(self, key: str) -> tuple[StoredVersion, ...]:
        """Everything that was kept under the key, oldest first, delete markers among it."""
        with self.lock:
            return tuple(self._versions.get(key, ()))

    def page(self, prefix: str, after: str, limit: int) -> tuple[list[StoredVersion], bool]:
        """What a listing shows below the prefix and past ``after``, in the order of the keys' UTF-8 bytes,
        and whether there is more."""
        found: list[StoredVersion] = []
        with self.lock:
            start = max(bisect_right(self._keys, after), bisect_left(self._keys, prefix))
            for index in range(start, len(self._keys)):
                key = self._keys[index]
                if not key.startswith(prefix):
                    break
                version = self.current(key)
                if version is not None:
                    if len(found) == limit:
                        return found, True
                    found.append(version)
        return found, False

    def contents(self) -> dict[str, bytes]:
        """What readers see, by key, in order."""
        with self.lock:
            return {version.key: version.body for version in self.page("", "", len(self._keys))[0]}

    def store(self, version: StoredVersion) -> None:
        """Puts a version on top; without versioning it replaces what was there."""
        with self.lock:
            if version.key not in self._versions:
                insort(self._keys, version.key)
            kept = self._versions.setdefault(version.key, [])
            if not self.versioned:
                kept.clear()
            kept.append(version)

    def remove(self, key: str, at: datetime) -> str | None:
        """Deletes as S3 does: with versioning a delete marker goes on top, and its version ID is answered."""
        with self.lock:
            if self.versioned:
                marker = StoredVersion(key, self.new_id("version"), at, delete_marker=True)
                self.store(marker)
                return marker.version_id
            if self._versions.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
            return None


class MemoryBuckets:
    """All buckets there are. Names are global, as in S3.

    ``parts_inherit_acl`` chooses between S3's two behaviours under a policy that demands an ACL: whether
    UploadPart and CompleteMultipartUpload are judged as if they carried the ACL of their
    CreateMultipartUpload (users' reports since 2018) or none (before).
    """

    def __init__(
        self, clock: Clock, *, parts_inherit_acl: bool = True, min_part_bytes: int = MIN_PART_BYTES
    ) -> None:
        self.clock = clock
        self.parts_inherit_acl = parts_inherit_acl
        self.min_part_bytes = min_part_bytes
        self._lock = threading.Lock()
        self._buckets: dict[str, MemoryBucket] = {}

    def create(
        self,
        name: str,
        owner: str,
        *,
        region: str = "us-east-1",
        versioned: bool = False,
        kms_key_arn: str | None = None,
        abort_after_days: int | None = None,
    ) -> MemoryBucket:
        """A new bucket. Raises ValueError when the name is taken, by whomever."""
        bucket = MemoryBucket(
            name,
            owner,
            region=region,
            versioned=versioned,
            kms_key_arn=kms_key_arn,
            abort_after_days=abort_after_days,
        )
        with self._lock:
            if name in self._buckets:
                raise ValueError(f"the bucket {name} exists already")
            self._buckets[name] = bucket
        return bucket

    def delete(self, name: str) -> None:
        """Takes the bucket away with everything in it. Raises KeyError when there is none."""
        with self._lock:
            del self._buckets[name]

    def get(self, name: str) -> MemoryBucket | None:
        with self._lock:
            return self._buckets.get(name)

    def __getitem__(self, name: str) -> MemoryBucket:
        """Raises KeyError when there is none of that name."""
        with self._lock:
            return self._buckets[name]
