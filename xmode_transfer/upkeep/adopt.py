"""Adopt deliveries: rebuild a lost ledger from the manifests in a customer's bucket.

A delivery is adopted if its manifest has the delivery's token; an object, if its size, checksum and token
agree with the manifest. Any other object is recorded as delivered, but without an ETag: verify reports it,
repair may deliver it again, and no cleanup ever deletes it. The customer can compute the token too: without
our signature in the manifest, a delivery is adopted as not attested, and no receipt is signed for it.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from xmode_transfer import telemetry
from xmode_transfer.aws import checksums
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import ObjectStore, Reader
from xmode_transfer.config import Configuration, Customer
from xmode_transfer.model.errors import (
    AccessDenied,
    AlreadyRunning,
    ExitCode,
    KmsDenied,
    ObjectNotFound,
    RequestRefused,
    StoreError,
    XmodeError,
)
from xmode_transfer.model.keys import MANIFESTS
from xmode_transfer.model.manifest import SIGNATURE, WITHDRAWN
from xmode_transfer.model.periods import PeriodKind, period_labelled
from xmode_transfer.model.records import Checksum, Delivery, Failure, Lease, PlannedObject, Receipt, Status
from xmode_transfer.model.upkeep import (
    OperationKind,
    Proof,
    Scope,
    expected_checksums,
    judge,
    judge_bytes,
    manifest_differences,
)
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import native, tables, withdrawing
from xmode_transfer.transfer.context import Context, Operation, begun, held, in_order, of_delivery, opened
from xmode_transfer.transfer.manifest_reading import (
    MAX_BYTES,
    ManifestKey,
    ManifestReader,
    NoManifest,
    check,
    missing_of,
    parse_manifest_key,
    receipt_of,
    signed_statement,
    withdrawn_of,
)
from xmode_transfer.transfer.planning import delivery_id
from xmode_transfer.transfer.sending import failure_of
from xmode_transfer.transfer.spooling import SpooledFile, chunks_of

_ADOPTING = "adopting"  # the marker of an adoption under way; one that was killed begins again
_IDENTITY = "adopted"  # the unknown identity of a source file: the next run reads the file
_WINDOW = 8
_BATCH = 1000
_MOST_KEPT = 1000
_MOST_REVISIONS = 100_000  # before a manifest's own, that may have put its objects
_MOST_IN_A_ROW = 20  # after this many consecutive refusals, everything is assumed to be refused
_FIRST_YEAR = 1970
_WHEN_STOPPED = "adopt again: what was adopted is recorded"


@dataclass(slots=True)
class AdoptedDelivery:
    """``outcome``: ``adopted``; ``found`` (a dry run); ``refused``, with the reason in ``message``; or
    ``attested``: it was not attested before, and is now. ``not_attested`` is why our signature does not
    attest it. ``unproven`` has the first thousand objects that differ from the manifest, with reasons."""

    of: ManifestKey
    manifest_key: str
    outcome: str = "refused"
    message: str = ""
    not_attested: str | None = None
    objects: int = 0
    bytes: int = 0
    unproven_count: int = 0
    unproven: list[tuple[str, str]] = field(default_factory=list)
    formats: Mapping[str, Any] = field(default_factory=dict)  # the manifest's members


@dataclass(slots=True)
class Adoption:
    """``known`` counts manifests of deliveries that the ledger already has."""

    customer: str
    operation_id: str | None = None
    deliveries: list[AdoptedDelivery] = field(default_factory=list)
    known: int = 0
    failure: Failure | None = None
    exit_code: int = ExitCode.DONE


def adopt(
    context: Context,
    configuration: Configuration,
    customer: Customer,
    scope: Scope,
    reader: Reader,
    *,
    by: str,
    dry_run: bool = False,
) -> Adoption:
    """Adopts the deliveries in ``scope``. ``reader`` is used if the store has no checksum to compare. The
    result has the error that ended it early. Raises LedgerError and AlreadyRunning."""
    result = Adoption(customer.name)
    work = _Adopting(context, configuration, customer, scope, reader, result, dry_run)
    with telemetry.bind(customer=customer.name), ExitStack() as stack:
        operation: Operation | None = None
        if not dry_run:
            reason = "our manifests that the ledger did not have"
            operation = stack.enter_context(
                begun(context, OperationKind.ADOPT, customer.name, person=by, reason=reason)
            )
            result.operation_id = operation.id
        try:
            with opened(context, customer, Step.VERIFY) as store:
                work.run(store)
        except XmodeError as error:
            result.failure, result.exit_code = failure_of(error), error.exit_code
        else:
            if any(item.outcome == "refused" or item.unproven_count for item in result.deliveries):
                result.exit_code = ExitCode.BLOCKED  # the customer has to check them
        adopted = [item for item in result.deliveries if item.outcome == "adopted"]
        objects = sum(item.objects for item in adopted)
        if operation is not None:
            operation.finish(
                "adopted" if adopted else "nothing",
                objects=objects,
                size=sum(item.bytes for item in adopted),
                failed=sum(item.unproven_count for item in result.deliveries),
                failure=result.failure,
            )
            # what is withdrawn and was adopted has to go
            context.ledger.recalls.extend(customer.name, context.clock.now())
        telemetry.log(
            Event.ADOPT_FINISHED,
            act=result.operation_id,
            dry_run=dry_run,
            by=by,
            deliveries=len(adopted),
            objects=objects,
            known=result.known,
            refused=sum(item.outcome == "refused" for item in result.deliveries),
        )
    return result


@dataclass(frozen=True, slots=True)
class _Adopting:
    context: Context
    configuration: Configuration
    customer: Customer
    scope: Scope
    reader: Reader
    result: Adoption
    dry_run: bool

    def run(self, store: ObjectStore) -> None:
        refused_in_a_row = 0
        prefix, name = self.customer.destination.prefix, self.customer.name
        # a feed that the customer no longer receives may have manifests too
        feeds = {*self.customer.feeds, *self.configuration.feeds}
        for feed in [self.scope.feed] if self.scope.feed is not None else sorted(feeds):
            known = {
                (item.period, item.revision): item for item in self.context.ledger.deliveries.find(name, feed)
            }
            for listed in store.list(f"{prefix}{feed}/{MANIFESTS}/"):
                of = parse_manifest_key(prefix, listed.key)
                if of is None or not self.scope.covers(of.feed, of.period):
                    continue
                self.context.check_stop(_WHEN_STOPPED)
                found = known.get((of.period, of.revision))
                item = AdoptedDelivery(of, listed.key)
                if found is not None and found.status is Status.DELIVERED:
                    if found.not_attested is None or not self._attest(store, item, found):
                        self.result.known += 1
                    else:
                        self.result.deliveries.append(item)
                    continue
                self.result.deliveries.append(item)
                if found is not None and found.marker != _ADOPTING:
                    item.message = f"the ledger has it as {found.status}: resume it with `xmode-transfer run`"
                else:
                    error = self._one(store, item)
                    refused_in_a_row = refused_in_a_row + 1 if error is not None else 0
                    if error is not None and refused_in_a_row >= _MOST_IN_A_ROW:
                        raise error
            if not self.dry_run:
                tables.discover(self.context, self.customer, feed, store)

    def _held(self, of: ManifestKey) -> AbstractContextManager[Lease]:
        name = of_delivery(self.customer.name, of.feed, of.period)
        return held(self.context.ledger, name, self.context.holder)

    def _one(self, store: ObjectStore, item: AdoptedDelivery) -> StoreError | None:
        """Adopts one manifest. Returns the store's permanent error."""
        with telemetry.bind(feed=item.of.feed, period=item.of.period):
            try:
                with nullcontext() if self.dry_run else self._held(item.of) as lease:
                    self._take(store, item, lease)
            except (NoManifest, ObjectNotFound, AlreadyRunning) as error:
                item.message = str(error)
            except StoreError as error:
                if error.retryable:
                    raise
                item.message = error.message
                return error
        return None

    def _attest(self, store: ObjectStore, item: AdoptedDelivery, known: Delivery) -> bool:
        """Return whether our signature attests what the ledger has adopted without a key to check it."""
        ledger = self.context.ledger
        try:
            with self._manifest(store, item, known.id) as (body, _):
                receipts = (receipt for _, receipt in ledger.objects.planned(known.id) if receipt is not None)
                entries = ManifestReader(chunks_of(body))
                if item.not_attested is not None or any(manifest_differences(entries, receipts)):
                    return False
        except (NoManifest, ObjectNotFound):
            return False
        item.outcome = "found"
        if not self.dry_run:
            with self._held(item.of) as lease:
                attested = replace(known, not_attested=None, updated_at=self.context.clock.now())
                ledger.deliveries.update(lease, attested)
            item.outcome = "attested"
        return True

    def _take(self, store: ObjectStore, item: AdoptedDelivery, lease: Lease | None) -> None:
        """Proves the manifest and its objects, and records them under a lease."""
        identity = delivery_id(self.customer.name, *item.of)
        objects = self.context.ledger.objects
        with self._manifest(store, item, identity) as (body, delivery):
            if lease is not None:
                adopting = replace(delivery, status=Status.PLANNED, marker=_ADOPTING, delivered_at=None)
                self.context.ledger.deliveries.create(lease, adopting)
                receipts = map(receipt_of, ManifestReader(chunks_of(body)))
                planned = (PlannedObject(*known[:3], 0, _IDENTITY) for known in receipts)
                objects.plan(lease, identity, planned)
                missing = map(missing_of, ManifestReader(chunks_of(body), ("missing",)))
                while some := list(islice(missing, _BATCH)):
                    objects.leave_out(lease, identity, some)
                gone = map(withdrawn_of, ManifestReader(chunks_of(body), (WITHDRAWN,)))
                withdrawing.note_adopted(self.context, delivery, gone)
            self._prove_objects(store, item, lease, identity, body)
        if lease is None:
            item.outcome = "found"
            return
        objects.spread_receipts(lease, identity)
        native.adopt(self.context, self.customer, store, delivery, lease, item.formats)
        self.context.ledger.deliveries.update(lease, delivery)
        item.outcome = "adopted"
        telemetry.log(
            Event.DELIVERY_ADOPTED,
            revision=item.of.revision,
            objects=item.objects,
            total_bytes=item.bytes,
            unproven=item.unproven_count,
            not_attested=item.not_attested,
        )

    @contextmanager
    def _manifest(
        self, store: ObjectStore, item: AdoptedDelivery, identity: str
    ) -> Iterator[tuple[OpenFile, Delivery]]:
        """Reads and checks a manifest and its signature. Raises NoManifest."""
        context, destination, key = self.context, self.customer.destination, item.manifest_key
        now = context.clock.now()
        period = period_labelled(item.of.period)
        assert period is not None  # the key was parsed
        if period.kind is not PeriodKind.NONE and not _FIRST_YEAR <= period.start.year <= now.year + 1:
            raise NoManifest(f"we do not deliver its period {item.of.period}")
        info = store.head(key)
        if info is None or info.token != identity:
            why = "it does not have this delivery's token: it is not ours, or the customer had another name"
            raise NoManifest(why)
        if info.size > MAX_BYTES:
            raise NoManifest(f"its size is {info.size:,} bytes; our manifests have at most {MAX_BYTES:,}")
        with SpooledFile(_up_to(info.size, store.read(key))) as body:
            algorithm = info.checksum.algorithm if info.checksum is not None else "crc32"
            checksum = Checksum(algorithm, checksums.of(body, algorithm))
            if body.size != info.size or info.checksum not in (None, checksum):
                raise NoManifest(_CHANGED)
            read = partial(chunks_of, body)
            found = check(read, identity=identity, location=item.of, prefix=destination.prefix)
            item.objects, item.bytes, item.formats = found.objects, found.bytes, found.members
            item.not_attested = "no key is configured to check its manifest's signature"
            if context.attestation is not None:
                statement = signed_statement(read, found, destination.bucket)
                signature = found.members.get(SIGNATURE)
                item.not_attested = context.attestation.why_not_attested(statement, signature)
            delivery = Delivery(
                identity,
                self.customer.name,
                *item.of,
                status=Status.DELIVERED,
                created_at=now,
                updated_at=now,
                object_count=found.objects,
                total_bytes=found.bytes,
                missing_count=found.missing,
                manifest_key=key,
                manifest_checksum=":".join(checksum),
                delivered_at=info.modified_at,
                not_attested=item.not_attested,
                replaces=tuple(found.members.get("replaces", ())) or None,
            )
            yield body, delivery

    def _prove_objects(
        self, store: ObjectStore, item: AdoptedDelivery, lease: Lease | None, identity: str, body: OpenFile
    ) -> None:
        name, (feed, period, last) = self.customer.name, item.of
        first = max(1, last - _MOST_REVISIONS)
        tokens = {delivery_id(name, feed, period, revision) for revision in range(first, last + 1)}
        progress = self.context.progress
        progress.delivery_started(name, feed, period, item.objects, item.bytes)
        refused_in_a_row = 0

        def receipts() -> Iterator[Receipt]:
            for entry in ManifestReader(chunks_of(body)):
                self.context.check_stop(_WHEN_STOPPED)
                yield receipt_of(entry)

        def prove(receipt: Receipt) -> tuple[Receipt, str | None, StoreError | None]:
            answer = self._prove(store, receipt, tokens)
            if lease is not None:
                self.context.ledger.objects.record_receipt(lease, identity, answer[0]).result()
            return answer

        try:
            threads = self.context.parallel
            with in_order(prove, receipts(), name="adopt", threads=threads, ahead=_WINDOW) as proven:
                for receipt, discrepancy, refused in proven:
                    refused_in_a_row = refused_in_a_row + 1 if refused is not None else 0
                    if refused is not None and refused_in_a_row >= _MOST_IN_A_ROW:
                        raise refused
                    if discrepancy is not None:
                        item.unproven_count += 1
                        if len(item.unproven) < _MOST_KEPT:
                            item.unproven.append((receipt.key, discrepancy))
                    progress.bytes_sent(receipt.size)
                    progress.object_finished(receipt.name, receipt.size, "adopted")
        finally:
            progress.delivery_finished()

    def _prove(
        self, store: ObjectStore, receipt: Receipt, tokens: set[str]
    ) -> tuple[Receipt, str | None, StoreError | None]:
        """Return the receipt with S3's ETag; or without an ETag, with the discrepancy or the error.
        ``tokens`` are those of the deliveries that may have put the object."""
        try:
            info = store.head(receipt.key)
            if info is None:
                return receipt, judge(receipt, None).message, None
            proven = receipt._replace(etag=info.etag, version_id=info.version_id)
            judgement = judge(proven, info)
            if info.token not in tokens:
                return receipt, "it does not have our token: somebody else put it", None
            if judgement.proof is Proof.ETAG:  # there is no checksum to compare: compute it from the bytes
                read = self.reader.read(store, receipt.key, set(expected_checksums(receipt)), lambda _: None)
                judgement = judge_bytes(proven, read, judgement)
                if judgement.kind is None and judgement.proof is not Proof.BYTES:
                    reason = f"its {receipt.checksum.algorithm} cannot be computed on this machine"
                    return receipt, reason, None
        except (AccessDenied, KmsDenied, ObjectNotFound, RequestRefused) as error:
            return receipt, f"it cannot be checked: {error.message}", error
        if judgement.kind is not None:
            return receipt, judgement.message, None
        return proven, None, None


_CHANGED = "it was changed while it was read"


def _up_to(size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        size -= len(chunk)
        if size < 0:
            raise NoManifest(_CHANGED)
        yield chunk
