"""What may be taken back from a bucket: a manifest that is of ours, and objects that are as it says.

Everything is proven before anything is recorded, and bounded: whoever may write into the bucket may have made
what lies there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xmode_transfer.aws.bodies import OpenFile
from xmode_transfer.aws.stores import ObjectStore, Reader
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import AccessDenied, KmsDenied, ObjectNotFound, RequestRefused, StoreError
from xmode_transfer.model.manifest import SIGNATURE
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.records import Checksum, ObjectInfo, Receipt
from xmode_transfer.model.verification import Proof, expected_checksums, judge, judge_bytes
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.layout import ManifestPlace
from xmode_transfer.transfer.manifest_reading import MAX_BYTES, Checked, NoManifest, check, signed_statement
from xmode_transfer.transfer.publishing import SpooledFile, chunks_of

_FIRST_YEAR = 1970


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read and checked. ``not_attested`` is why our signature does not vouch for it."""

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
    """What lies under the key, if it is the manifest of the delivery with that ID. Raises NoManifest for what
    no manifest of ours says, and what the store raises."""
    _check_period(place, context.clock.now().year + 1)
    info = store.head(key)
    if info is None or info.token != identity:
        raise NoManifest(
            "it does not carry this delivery's mark: it is not of ours, or the customer had another name"
        )
    if info.size > MAX_BYTES:
        raise NoManifest(f"it has {info.size:,} bytes, and no manifest of ours more than {MAX_BYTES:,}")
    with SpooledFile(_up_to(info.size, store.read(key))) as body:
        checksum = _checksum(context, info, body)
        found = check(
            lambda: chunks_of(body), identity=identity, place=place, prefix=customer.destination.prefix
        )
        reason = _why_not_attested(context, customer, found, body)
        yield Manifest(info, body, checksum, found.objects, found.bytes, reason)


def _check_period(place: ManifestPlace, last_year: int) -> None:
    """Raises NoManifest for a period that no feed has had or can have yet."""
    period = period_labelled(place.period)
    if period is None or period.kind is PeriodKind.NONE:
        return
    if not _FIRST_YEAR <= period.start.year <= last_year:
        raise NoManifest(f"its period {place.period} is none that we deliver")


def _up_to(size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """No more bytes than S3 says there are. Raises NoManifest."""
    come = 0
    for chunk in chunks:
        come += len(chunk)
        if come > size:
            raise NoManifest("it was changed while it was read")
        yield chunk


def _checksum(context: Context, info: ObjectInfo, body: OpenFile) -> Checksum:
    """Of the bytes that were read, which must be the object's. Raises NoManifest."""
    algorithm = info.checksum.algorithm if info.checksum is not None else "crc32"
    value = context.checksum_of(body, algorithm)
    if body.size != info.size or (info.checksum is not None and value != info.checksum.value):
        raise NoManifest("it was changed while it was read")
    return Checksum(algorithm, value)


def _why_not_attested(context: Context, customer: Customer, found: Checked, body: OpenFile) -> str | None:
    """Why our signature does not vouch for the manifest; None when it does."""
    if context.attestation is None:
        return "there is no key here to check its manifest's signature with"
    statement = signed_statement(lambda: chunks_of(body), found, customer.destination.bucket)
    return context.attestation.why_not_attested(statement, found.members.get(SIGNATURE))


def prove(
    reader: Reader, store: ObjectStore, receipt: Receipt, marks: set[str]
) -> tuple[Receipt, str | None, StoreError | None]:
    """The receipt with what S3 says of the object; or without an ETag, and what is wrong, or refused.
    ``marks`` are the IDs of the deliveries that may have put it."""
    try:
        info = store.head(receipt.key)
        # A manifest knows no ETag: whatever the object has is as good.
        known = receipt._replace(etag=info.etag) if info is not None else receipt
        wrong = _wrong(reader, store, known, info, marks)
    except (AccessDenied, KmsDenied, ObjectNotFound, RequestRefused) as error:
        return receipt, f"it cannot be looked at: {error.message}", error
    if wrong is not None or info is None:
        return receipt, wrong, None
    return receipt._replace(etag=info.etag, version_id=info.version_id), None, None


def _wrong(
    reader: Reader, store: ObjectStore, receipt: Receipt, info: ObjectInfo | None, marks: set[str]
) -> str | None:
    judgement = judge(receipt, info)
    if info is not None and info.token not in marks:
        return "it does not carry our mark: somebody else has put it"
    if judgement.proof is Proof.ETAG:  # the store has no checksum to compare: the bytes have
        read = reader.read(store, receipt.key, set(expected_checksums(receipt)), _nobody)
        judgement = judge_bytes(receipt, read, judgement)
        if judgement.kind is None and judgement.proof is not Proof.BYTES:
            return f"there is nothing here to compute its {receipt.checksum.algorithm} with"
    return judgement.message if judgement.kind is not None else None


def _nobody(_: int) -> None:
    """Who is told of the bytes that are read: the object counts as a whole when it is proven."""
