"""Operations on a customer's bucket other than a delivery, and the outcome for each key."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from xmode_transfer.model.records import Failure


class OperationKind(StrEnum):
    """The kind of an operation."""

    CLEANUP = "cleanup"  # deletes expired objects
    REPAIR = "repair"  # delivers missing objects again
    ADOPT = "adopt"  # records in the ledger the objects that one of our manifests lists
    SUPERSEDED = "superseded"  # deletes keys that no manifest ever listed


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One operation as the ledger records it.

    ``holder`` is the process (host/boot-id/pid/start-time). ``person`` requested the operation: a user of the
    operating system, a given name, or the daemon. ``objects`` and ``bytes`` count what it changed, ``failed``
    the objects that it failed to change. While ``finished_at`` is None, the operation is running or its
    process was killed.
    """

    id: str
    kind: OperationKind
    customer: str
    holder: str
    person: str
    reason: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str | None = None
    objects: int = 0
    bytes: int = 0
    failed: int = 0
    failure: Failure | None = None


class RemovalOutcome(StrEnum):
    """The outcome for a key that an operation was to delete."""

    PLANNED = "planned"  # recorded before the request; remains if the process is killed
    INCONCLUSIVE = "doubtful"  # planned, but listed differently from what we put: checked, never deleted
    DELETED = "deleted"  # deleted, and its bytes are freed
    HIDDEN = "hidden"  # behind a delete marker: the bucket keeps versions, and the customer pays for them
    GONE = "gone"  # already deleted by somebody else
    CHANGED = "changed"  # overwritten by somebody else: left alone, and no longer ours
    RETAINED = "retained"  # the bucket refuses the delete (object lock or bucket policy)
    FAILED = "failed"  # the next cleanup retries it


INTENDED = (RemovalOutcome.PLANNED, RemovalOutcome.INCONCLUSIVE)
"""Outcomes of keys for which no request has been answered."""
REMOVED_BY_US = (RemovalOutcome.DELETED, RemovalOutcome.HIDDEN)
REMOVED = frozenset({*REMOVED_BY_US, RemovalOutcome.GONE})
"""Outcomes after which the key holds no object of ours."""


class Removal(NamedTuple):
    """One key of an operation. ``delivered_at`` identifies the delivery of the key: a key that is delivered
    again later exists again. ``reason`` says why the key expired, ``at`` when the outcome was known."""

    key: str
    feed: str
    period: str
    revision: int
    manifest: bool
    size: int
    etag: str
    delivered_at: datetime
    reason: str
    outcome: RemovalOutcome
    at: datetime


def free_hidden_versions(prefix: str) -> dict[str, Any]:
    """The rule that frees what lies below delete markers: versions that have been hidden for a day, and
    then the markers themselves (S3 User Guide, "Lifecycle configuration elements")."""
    return {
        "ID": "free-what-xmode-has-removed",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }


def free_unfinished_uploads(prefix: str) -> dict[str, Any]:
    """The rule that frees the parts of multipart uploads which nobody has completed within a week."""
    return {
        "ID": "free-what-xmode-has-left-unfinished",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
