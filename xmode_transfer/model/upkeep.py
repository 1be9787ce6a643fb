"""Verification of a destination's objects, and operations on them other than deliveries.

S3 computes an object's checksum over the bytes that it stores, and a HEAD returns it: one that equals the
receipt's proves the content. Without one (a store that keeps none, a KMS key that we may not use), only the
ETag is left, which changes with the content.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.keys import count, merge_join, visible
from xmode_transfer.model.manifest import content
from xmode_transfer.model.periods import Period, period_labelled
from xmode_transfer.model.records import DeliveredKey, Failure, ObjectInfo, Receipt, same_etag

SHA256_HEX = "sha256-hex"  # as in manifests; S3's own checksum ``sha256`` is in base64


class Proof(StrEnum):
    """The evidence that a key is as it was delivered."""

    BYTES = "bytes"  # read back, and its checksum computed here
    CHECKSUM = "checksum"  # S3's own checksum of the stored bytes
    ETAG = "etag"  # size and ETag: there was no checksum to compare


class DiscrepancyKind(StrEnum):
    """The difference between a key and what was delivered."""

    MISSING = "missing"  # the key has no object
    ALTERED = "altered"  # the bytes differ from what was delivered
    ACL_CHANGED = "acl_changed"  # the bytes are the same, the permissions differ
    MANIFEST_DIFFERS = "manifest_differs"  # the manifest and the ledger disagree
    TABLE_ALTERED = "table_altered"  # a version of the table's log is gone, changed or not ours
    TABLE_DIFFERS = "table_differs"  # the table and the newest manifests disagree
    ELSEWHERE = "elsewhere"  # delivered under an earlier prefix of the destination
    UNREADABLE = "unreadable"  # access is denied, so nothing is known
    UNCHECKED = "unchecked"  # AWS or the network failed during the check

    @property
    def responsible(self) -> Responsible:
        ours = (DiscrepancyKind.MANIFEST_DIFFERS, DiscrepancyKind.TABLE_DIFFERS, DiscrepancyKind.ELSEWHERE)
        if self in ours:
            return Responsible.VENDOR
        return Responsible.AWS if self is DiscrepancyKind.UNCHECKED else Responsible.CUSTOMER


class ReadBack(NamedTuple):
    """An object's size, and checksums by algorithm as S3 names them (base64)."""

    size: int
    checksums: Mapping[str, str]


class Judgement(NamedTuple):
    """``rewritten``: the content is proven, but it has been put again since."""

    kind: DiscrepancyKind | None
    message: str
    proof: Proof | None = None
    rewritten: bool = False


def judge(known: DeliveredKey | Receipt, seen: ObjectInfo | None) -> Judgement:
    """Judge a key by a HEAD."""
    if seen is None:
        return Judgement(DiscrepancyKind.MISSING, "the object no longer exists")
    if known.size is not None and seen.size != known.size:
        return Judgement(
            DiscrepancyKind.ALTERED, f"its size is {count(seen.size, 'byte')}; {known.size:,} were delivered"
        )
    untouched = known.etag is None or same_etag(seen.etag, known.etag)
    mine, theirs = known.checksum, seen.checksum
    if mine is not None and theirs is not None and mine.algorithm == theirs.algorithm:
        if mine.value != theirs.value:
            reason = f"its {mine.algorithm} is {theirs.value}; {mine.value} was delivered"
            return Judgement(DiscrepancyKind.ALTERED, reason)
        return Judgement(None, "", Proof.CHECKSUM, rewritten=not untouched)
    if known.etag is None:
        return Judgement(None, "", Proof.ETAG)  # a manifest without a checksum: its content is compared
    if not untouched:
        etags = seen.etag.strip('"'), known.etag.strip('"')
        reason = f"its ETag is {etags[0]}; it was delivered with {etags[1]}"
        algorithm = mine.algorithm if mine is not None else "checksum"
        return Judgement(DiscrepancyKind.ALTERED, f"{reason}. It has no {algorithm} to compare")
    return Judgement(None, "", Proof.ETAG)


def judge_bytes(known: DeliveredKey | Receipt, read: ReadBack, before: Judgement) -> Judgement:
    """Judge a key by its bytes, after a HEAD has found no discrepancy."""
    if known.size is not None and read.size != known.size:
        return Judgement(
            DiscrepancyKind.ALTERED, f"{count(read.size, 'byte')} read, {known.size:,} delivered"
        )
    for algorithm, expected in expected_checksums(known).items():
        found = read.checksums.get(algorithm)
        if found is not None and found != expected:
            reason = f"the {algorithm} of its bytes is {found}; {expected} was delivered"
            return Judgement(
                DiscrepancyKind.ALTERED, f"{reason}, although its size and S3's own checksum agree"
            )
    return before._replace(proof=Proof.BYTES) if read.checksums else before


def expected_checksums(known: DeliveredKey | Receipt) -> dict[str, str]:
    """Return the checksums that the bytes must have, by algorithm."""
    found = {}
    if known.checksum is not None:
        found[known.checksum.algorithm] = known.checksum.value
    if known.sha256 is not None:
        found[SHA256_HEX] = known.sha256
    return found


@dataclass(frozen=True, slots=True)
class Scope:
    """A selection: everything, a feed, a period, or a range of periods (labels, both ends included)."""

    feed: str | None = None
    period: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def is_whole(self) -> bool:
        """True if it selects all periods."""
        return not (self.period or self.since or self.until)

    def covers(self, feed: str, period: str) -> bool:
        if self.feed not in (None, feed) or self.period not in (None, period):
            return False
        if self.since is None and self.until is None:
            return True
        own, first, last = _start(period), _start(self.since), _start(self.until)
        if own is None:
            return False
        return (first is None or first.start <= own.start) and (last is None or own.start < last.end)


@lru_cache(maxsize=4096)
def _start(label: str | None) -> Period | None:
    return None if label is None or label == "none" else period_labelled(label)


def in_sample(key: str, salt: str, keys: int, sample: int | None) -> bool:
    """Return whether to read a key's ACL: always for up to ``sample`` keys, for about ``sample`` of more.
    Each ``salt`` selects others, so that every key is read in time."""
    if sample is None or keys <= sample:
        return True
    return crc32(f"{salt}\0{key}".encode()) * keys < sample << 32


def manifest_differences(entries: Iterable[Mapping[str, Any]], receipts: Iterable[Receipt]) -> Iterator[str]:
    """Yield a sentence for each object that differs; both are sorted by name. Times are not compared: they
    differ after a lost response or a repeated delivery."""
    sides = merge_join(entries, receipts, lambda entry: str(entry.get("source")), attrgetter("name"))
    for entry, receipt in sides:
        if receipt is None:
            assert entry is not None
            yield f"lists {visible(str(entry.get('key')))[:1100]}, which the ledger does not have"
        elif entry is None:
            yield f"does not list {receipt.key}, which the ledger has"
        else:
            other = [member for member, value in content(receipt).items() if entry.get(member) != value]
            if other:
                yield f"lists {receipt.key} with a different {' and '.join(other)}"


class Finding(NamedTuple):
    kind: DiscrepancyKind
    known: DeliveredKey
    message: str

    @property
    def responsible(self) -> Responsible:
        return self.kind.responsible


class Discrepancy(NamedTuple):
    """Keys of one period that differ from what was delivered, all of one kind."""

    feed: str
    period: str
    flaw: DiscrepancyKind
    keys: int
    first_key: str
    since_at: datetime


_FIXES = {
    DiscrepancyKind.MISSING: (
        "it was deleted. If that was not intended, run `xmode-transfer verify --customer {customer} "
        "--repair` to deliver it again; the source must still have it unchanged"
    ),
    DiscrepancyKind.ALTERED: (
        "ask the customer what writes to this key. Their object is never overwritten. Once they have moved "
        "it, run `xmode-transfer verify --customer {customer} --repair` to deliver ours again"
    ),
    DiscrepancyKind.ACL_CHANGED: (
        "if that was not intended, the customer runs: aws s3api put-object-acl "
        "--bucket {bucket} --key '{key}' --acl bucket-owner-full-control"
    ),
    DiscrepancyKind.MANIFEST_DIFFERS: (
        "the ledger and the customer's manifest disagree. Run `xmode-transfer ledger check`, and find out "
        "whether an older ledger was restored (docs/operations.md)"
    ),
    DiscrepancyKind.TABLE_ALTERED: (
        "ask the customer what writes below _delta_log/: only we may. `xmode-transfer table end` and `table "
        "create` begin the table anew (docs/tables.md)"
    ),
    DiscrepancyKind.TABLE_DIFFERS: (
        "call `xmode-transfer table create` again: it adds what the table lacks. If the table still differs, "
        "`table end` and `table create` begin it anew (docs/tables.md)"
    ),
    DiscrepancyKind.ELSEWHERE: (
        "confirm destination.prefix in customers/{customer}.yaml with the customer. If it has changed, the "
        "objects under the old prefix are the customer's: they are neither checked nor deleted"
    ),
    DiscrepancyKind.UNREADABLE: (
        "run `xmode-transfer check-access --customer {customer}` to see which permission is missing"
    ),
    DiscrepancyKind.UNCHECKED: "run the verification again",
}


def fix(kind: DiscrepancyKind, customer: str, bucket: str, key: str) -> str:
    return _FIXES[kind].format(customer=customer, bucket=bucket, key=key)


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """``acl``: True if its permissions are as expected, False if not, None if it is not in the sample.
    ``of_table``: a feed's table differs in this key, of the table's log or of an object."""

    known: DeliveredKey
    seen: ObjectInfo | None
    judgement: Judgement
    acl: bool | None
    checked_at: datetime
    of_table: bool = False


class OperationKind(StrEnum):
    CLEANUP = "cleanup"  # deletes expired objects
    REPAIR = "repair"  # delivers missing objects again
    ADOPT = "adopt"  # records in the ledger the objects that one of our manifests lists
    SUPERSEDED = "superseded"  # deletes keys that no manifest ever listed
    RECALL = "recall"  # deletes what is withdrawn; its reason is the recall's ID


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One operation. ``person`` requested it: a user of the operating system, a given name, or the daemon.
    While ``finished_at`` is None, it runs or its process was killed."""

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
    GONE = "gone"  # already deleted by another party
    CHANGED = "changed"  # overwritten by another party: not deleted, and no longer ours
    RETAINED = "retained"  # the bucket refuses the delete (object lock or bucket policy)
    FAILED = "failed"  # tried again by the next cleanup, or when the recall continues
    HELD = "held"  # not deleted by a recall: the customer's hold covers it
    ELSEWHERE = "elsewhere"  # not deleted by a recall: below a former prefix, where we have no access


INTENDED = (RemovalOutcome.PLANNED, RemovalOutcome.INCONCLUSIVE)  # no request has been answered
REMOVED_BY_US = (RemovalOutcome.DELETED, RemovalOutcome.HIDDEN)
REMOVED = frozenset({*REMOVED_BY_US, RemovalOutcome.GONE})  # the key holds no object of ours


class Removal(NamedTuple):
    """One key of an operation. ``delivered_at`` distinguishes it from a later delivery of the same key.
    ``locked_until``: where the bucket has Object Lock, and the role may see it (s3:GetObjectRetention)."""

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
    locked_until: datetime | None = None


def free_hidden_versions(prefix: str) -> dict[str, Any]:
    """Return the lifecycle rule that deletes versions below delete markers after a day, and then the markers
    (S3 User Guide, "Lifecycle configuration elements")."""
    return {
        "ID": "free-what-xmode-has-removed",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }


def purge_command(bucket: str, key: str) -> str:
    """Return the customer's command that deletes all versions of a key below a delete marker."""
    literal = json.dumps(key).replace("`", "\\`")  # in JMESPath, JSON between backticks
    query = shlex.quote(f"Versions[?Key==`{literal}`].VersionId")
    key = shlex.quote(key)
    return (
        f"aws s3api list-object-versions --bucket {bucket} --prefix {key} --query {query} --output text | "
        f"xargs -n 1 aws s3api delete-object --bucket {bucket} --key {key} --version-id"
    )


def free_unfinished_uploads(prefix: str) -> dict[str, Any]:
    """Return the lifecycle rule that aborts multipart uploads after a week."""
    return {
        "ID": "free-what-xmode-has-left-unfinished",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
