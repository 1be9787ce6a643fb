"""Whether what lies at a destination is what was delivered there: what is compared, and what follows.

S3 computes an object's checksum itself, over the bytes that it stores, and a HEAD answers it; so a checksum
that agrees with the receipt proves the content without reading it. Where there is none to compare (a store
that keeps no checksums, a KMS key that we may not use), the ETag is all there is: it changes with the
content.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

from xmode_transfer.model.beside import beside
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.periods import Period, period_labelled
from xmode_transfer.model.records import DeliveredKey, ObjectInfo, Receipt, same_etag
from xmode_transfer.model.visible import count, visible

SHA256_HEX = "sha256-hex"
"""The SHA-256 as manifests have it. S3's own checksum ``sha256`` is the same in base64."""


class Proof(StrEnum):
    """By what a key was found to be as delivered."""

    BYTES = "bytes"  # read back and summed here
    CHECKSUM = "checksum"  # S3's own checksum of what it stores
    ETAG = "etag"  # size and ETag: there was no checksum to compare


class Flaw(StrEnum):
    """What is wrong with a key."""

    MISSING = "missing"  # nothing lies there
    ALTERED = "altered"  # other bytes than were delivered
    ACL_CHANGED = "acl_changed"  # the same bytes, and other rights
    MANIFEST_DIFFERS = "manifest_differs"  # the manifest lists something else than the ledger
    ELSEWHERE = "elsewhere"  # delivered below another prefix than the destination's of today
    UNREADABLE = "unreadable"  # we are refused, so nothing is known
    UNCHECKED = "unchecked"  # AWS or the network did not let us look this time

    @property
    def responsible(self) -> Responsible:
        """Who must act, or decide."""
        if self in (Flaw.MANIFEST_DIFFERS, Flaw.ELSEWHERE):
            return Responsible.VENDOR
        return Responsible.AWS if self is Flaw.UNCHECKED else Responsible.CUSTOMER


class ReadBack(NamedTuple):
    """What came of reading an object: its size, and checksums by algorithm as S3 names them (base64)."""

    size: int
    checksums: Mapping[str, str]


class Judgement(NamedTuple):
    """``rewritten`` says that somebody has put the same bytes again since: they are proven, and the object
    is no longer the one that we put."""

    flaw: Flaw | None
    message: str
    proof: Proof | None = None
    rewritten: bool = False


def judge(known: DeliveredKey | Receipt, seen: ObjectInfo | None) -> Judgement:
    """By a HEAD."""
    if seen is None:
        return Judgement(Flaw.MISSING, "nothing lies under this key any more")
    if known.size is not None and seen.size != known.size:
        return Judgement(
            Flaw.ALTERED, f"it has {count(seen.size, 'byte')} and was delivered with {known.size:,}"
        )
    untouched = known.etag is None or same_etag(seen.etag, known.etag)
    mine, theirs = known.checksum, seen.checksum
    if mine is not None and theirs is not None and mine.algorithm == theirs.algorithm:
        if mine.value != theirs.value:
            told = f"its {mine.algorithm} is {theirs.value} and was {mine.value} when it was delivered"
            return Judgement(Flaw.ALTERED, told)
        return Judgement(None, "", Proof.CHECKSUM, rewritten=not untouched)
    if known.etag is None:
        return Judgement(None, "", Proof.ETAG)  # a manifest without a checksum: its content is compared
    if not untouched:
        etags = seen.etag.strip('"'), known.etag.strip('"')
        told = f"its ETag is {etags[0]} and was {etags[1]} when it was delivered"
        algorithm = mine.algorithm if mine is not None else "checksum"
        return Judgement(Flaw.ALTERED, f"{told}; there is no {algorithm} of it to compare")
    return Judgement(None, "", Proof.ETAG)


def judge_bytes(known: DeliveredKey | Receipt, read: ReadBack, before: Judgement) -> Judgement:
    """By its bytes, after a HEAD has found nothing wrong."""
    if known.size is not None and read.size != known.size:
        return Judgement(Flaw.ALTERED, f"{count(read.size, 'byte')} read, {known.size:,} delivered")
    for algorithm, expected in expected_checksums(known).items():
        found = read.checksums.get(algorithm)
        if found is not None and found != expected:
            told = f"the {algorithm} of its bytes is {found} and was {expected} when it was delivered"
            return Judgement(Flaw.ALTERED, f"{told}, though its size and what S3 says of it agree")
    proven = bool(read.checksums)
    return before._replace(proof=Proof.BYTES) if proven else before


def expected_checksums(known: DeliveredKey | Receipt) -> dict[str, str]:
    """What the bytes of an object must give, by algorithm; SHA-256 where the feed has it."""
    found = {}
    if known.checksum is not None:
        found[known.checksum.algorithm] = known.checksum.value
    if known.sha256 is not None:
        found[SHA256_HEX] = known.sha256
    return found


# --- Which keys ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scope:
    """What is meant: everything, a feed, a period, a range of periods (labels, both ends included)."""

    feed: str | None = None
    period: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all periods are meant, so that a listing shows nothing else."""
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
    """None for a drop folder too: it lies in no range."""
    return None if label is None or label == "none" else period_labelled(label)


def in_sample(key: str, salt: str, keys: int, sample: int | None) -> bool:
    """Whether a key's ACL is read. Of up to ``sample`` keys all are (None: always all); of more, about that
    many, others with each ``salt``, so that in time every key has its turn."""
    if sample is None or keys <= sample:
        return True
    return crc32(f"{salt}\0{key}".encode()) * keys < sample << 32


# --- A manifest beside the ledger ----------------------------------------------------------------------


def manifest_differences(entries: Iterable[Mapping[str, Any]], receipts: Iterable[Receipt]) -> Iterator[str]:
    """What a manifest in the bucket lists otherwise than the ledger, a sentence for each object; both in the
    order of the source's names. Times are left out: they differ when an answer was lost, or was delivered
    again."""
    sides = beside(entries, receipts, lambda entry: str(entry.get("source")), attrgetter("name"))
    for entry, receipt in sides:
        if receipt is None:
            assert entry is not None
            yield f"lists {visible(str(entry.get('key')))[:1100]}, which the ledger has not delivered"
        elif entry is None:
            yield f"does not list {receipt.key}, which the ledger has delivered"
        else:
            told = {
                "key": receipt.key,
                "size": receipt.size,
                "checksum": {"algorithm": receipt.checksum.algorithm, "value": receipt.checksum.value},
                "sha256": receipt.sha256,
            }
            other = [member for member, value in told.items() if entry.get(member) != value]
            if other:
                yield f"lists {receipt.key} with another {' and '.join(other)}"


# --- What is found -------------------------------------------------------------------------------------


class Finding(NamedTuple):
    """One key that is not as it was delivered."""

    flaw: Flaw
    known: DeliveredKey
    message: str

    @property
    def responsible(self) -> Responsible:
        return self.flaw.responsible


class Discrepancy(NamedTuple):
    """Keys of one period that a verification found not as they were delivered, all with the same flaw."""

    feed: str
    period: str
    flaw: Flaw
    keys: int
    first_key: str
    since_at: datetime


def fix(flaw: Flaw, customer: str, bucket: str, key: str) -> str:
    """What mends it, in a sentence."""
    if flaw is Flaw.MISSING:
        return (
            "somebody has deleted it: if that was not meant, `xmode-transfer verify --customer "
            f"{customer} --repair` delivers it again, as long as the source has it unchanged"
        )
    if flaw is Flaw.ALTERED:
        return (
            "ask the customer who writes under this key; nothing of theirs is overwritten. When they have "
            f"moved it away, `xmode-transfer verify --customer {customer} --repair` delivers ours again"
        )
    if flaw is Flaw.ACL_CHANGED:
        return (
            "if that was not meant, the customer runs: aws s3api put-object-acl "
            f"--bucket {bucket} --key '{key}' --acl bucket-owner-full-control"
        )
    if flaw is Flaw.MANIFEST_DIFFERS:
        return (
            "our record and the customer's are not the same: `xmode-transfer ledger check`; "
            "was an older ledger restored? (docs/operations.md)"
        )
    if flaw is Flaw.ELSEWHERE:
        return (
            f"compare destination.prefix in customers/{customer}.yaml with the customer. If it has moved, "
            "what lies in the old place is the customer's: nothing there is looked at or removed"
        )
    if flaw is Flaw.UNCHECKED:
        return "verify again"
    return f"`xmode-transfer check-access --customer {customer}` says which right is missing"


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """One key as it was found. ``acl`` is whether its rights were looked at, and are as they should be;
    None: not in the sample."""

    known: DeliveredKey
    seen: ObjectInfo | None
    judgement: Judgement
    acl: bool | None
    checked_at: datetime
