"""Check what may be adopted from a bucket: our manifests, and objects that agree with them.

Everything is proven before anything is recorded, and everything is bounded, because anyone who may write to
the bucket may have written what it holds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.stores import ObjectStore, Reader
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import AccessDenied, KmsDenied, ObjectNotFound, RequestRefused, StoreError
from xmode_transfer.model.manifest import SIGNATURE
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.records import Checksum, ObjectInfo, Receipt
from xmode_transfer.model.upkeep import Proof, expected_checksums, judge, judge_bytes
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.layout import ManifestPlace
from xmode_transfer.transfer.manifest_reading import MAX_BYTES, Checked, NoManifest, check, signed_statement
from xmode_transfer.transfer.publishing import SpooledFile, chunks_of

_FIRST_YEAR = 1970


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read and checked. ``not_attested`` is why our signature does not attest it."""

    info: ObjectInfo
    body: OpenFile
    checksum: Checksum
    objects: int
    bytes: int
    not_attested: str | None


@contextmanager
def manifest(
    context: Context, customer: Customer, store: ObjectStore, key: str, place: ManifestPlace, identity: str
) -> Iterator[Manifest]:
    """Reads and checks the manifest of the delivery with that ID. Raises NoManifest if the object is not our
    manifest, and what the store raises."""
    _check_period(place, context.clock.now().year + 1)
    info = store.head(key)
    if info is None or info.token != identity:
        raise NoManifest(
            "it does not have this delivery's token: it is not ours, or the customer had another name"
        )
    if info.size > MAX_BYTES:
        raise NoManifest(f"its size is {info.size:,} bytes; our manifests have at most {MAX_BYTES:,}")
    with SpooledFile(_up_to(info.size, store.read(key))) as body:
        checksum = _checksum(context, info, body)
        found = check(
            lambda: chunks_of(body), identity=identity, place=place, prefix=customer.destination.prefix
        )
        reason = _why_not_attested(context, customer, found, body)
        yield Manifest(info, body, checksum, found.objects, found.bytes, reason)


def _check_period(place: ManifestPlace, last_year: int) -> None:
    """Raises NoManifest for a period that no feed can have."""
    period = period_labelled(place.period)
    if period is None or period.kind is PeriodKind.NONE:
        return
    if not _FIRST_YEAR <= period.start.year <= last_year:
        raise NoManifest(f"we do not deliver its period {place.period}")


def _up_to(size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the chunks. Raises NoManifest if they exceed the size that S3 reports."""
    come = 0
    for chunk in chunks:
        come += len(chunk)
        if come > size:
            raise NoManifest("it was changed while it was read")
        yield chunk


def _checksum(context: Context, info: ObjectInfo, body: OpenFile) -> Checksum:
    """Returns the checksum of the bytes read, which must be the object's. Raises NoManifest."""
    algorithm = info.checksum.algorithm if info.checksum is not None else "crc32"
    value = context.checksum_of(body, algorithm)
    if body.size != info.size or (info.checksum is not None and value != info.checksum.value):
        raise NoManifest("it was changed while it was read")
    return Checksum(algorithm, value)


def _why_not_attested(context: Context, customer: Customer, found: Checked, body: OpenFile) -> str | None:
    """Returns why our signature does not attest the manifest; None if it does."""
    if context.attestation is None:
        return "no key is configured to check its manifest's signature"
    statement = signed_statement(lambda: chunks_of(body), found, customer.destination.bucket)
    return context.attestation.why_not_attested(statement, found.members.get(SIGNATURE))


def prove(
    reader: Reader, store: ObjectStore, receipt: Receipt, marks: set[str]
) -> tuple[Receipt, str | None, StoreError | None]:
    """Returns the receipt with what S3 reports of the object; or without an ETag, with the discrepancy or the
    error. ``marks`` are the IDs of the deliveries that may have put the object."""
    try:
        info = store.head(receipt.key)
        # A manifest has no ETag: any ETag of the object is accepted.
        known = receipt._replace(etag=info.etag) if info is not None else receipt
        wrong = _wrong(reader, store, known, info, marks)
    except (AccessDenied, KmsDenied, ObjectNotFound, RequestRefused) as error:
        return receipt, f"it cannot be checked: {error.message}", error
    if wrong is not None or info is None:
        return receipt, wrong, None
    return receipt._replace(etag=info.etag, version_id=info.version_id), None, None


def _wrong(
    reader: Reader, store: ObjectStore, receipt: Receipt, info: ObjectInfo | None, marks: set[str]
) -> str | None:
    judgement = judge(receipt, info)
    if info is not None and info.token not in marks:
        return "it does not have our token: somebody else put it"
    if judgement.proof is Proof.ETAG:  # the store has no checksum to compare: compute it from the bytes
        read = reader.read(store, receipt.key, set(expected_checksums(receipt)), _nobody)
        judgement = judge_bytes(receipt, read, judgement)
        if judgement.kind is None and judgement.proof is not Proof.BYTES:
            return f"its {receipt.checksum.algorithm} cannot be computed on this machine"
    return judgement.message if judgement.kind is not None else None


def _nobody(_: int) -> None:
    """Ignores the bytes read: an object counts as a whole once it is proven."""
