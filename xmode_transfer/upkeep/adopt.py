"""Adopt deliveries: rebuild a lost ledger from the customer's bucket.

Our manifest lists the objects of a delivery. Each object's metadata has the delivery's ID as its token, which
is derived from customer, feed, period and revision. A delivery is adopted if its manifest has that token, and
an object if its size, checksum and token agree with the manifest. Any other object is recorded as delivered,
but without an ETag: verify reports it, repair may deliver it again, and no cleanup ever deletes it.

The token is derived from public names, so the customer can compute it too. Only our signature in the manifest
proves that we delivered what it lists. Without a signature, a delivery is adopted as not attested, and no
receipt is signed for it.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice

from xmode_transfer import telemetry
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import ObjectStore, Reader
from xmode_transfer.config import Configuration, Customer
from xmode_transfer.model.errors import AlreadyRunning, ExitCode, ObjectNotFound, StoreError, XmodeError
from xmode_transfer.model.keys import MANIFESTS
from xmode_transfer.model.records import Delivery, Failure, Lease, PlannedObject, Receipt, Status
from xmode_transfer.model.upkeep import OperationKind, Scope, manifest_differences
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, held, in_order, of_delivery, opened
from xmode_transfer.transfer.layout import ManifestPlace, manifest_place
from xmode_transfer.transfer.manifest_reading import ManifestReader, NoManifest, missing_of, receipt_of
from xmode_transfer.transfer.operations import Operation, begun
from xmode_transfer.transfer.planning import delivery_id
from xmode_transfer.transfer.publishing import chunks_of
from xmode_transfer.transfer.sending import failure_of
from xmode_transfer.upkeep import adoptable

ADOPTING = "adopting"
"""The marker of a delivery that is being adopted. An adoption that was killed begins again."""
IDENTITY = "adopted"
"""The identity of an adopted object's source file, which is unknown: the next run reads the file."""
_WINDOW = 8
_BATCH = 1000
_MOST_KEPT = 1000
_WHEN_STOPPED = "adopt again: what was adopted is recorded"
_MARKS = 100_000
"""The number of revisions before a manifest's own that may have put its objects."""
_MOST_IN_A_ROW = 20
"""After this many consecutive refusals, all manifests are assumed to be refused."""


@dataclass(slots=True)
class AdoptedDelivery:
    """One manifest that the ledger did not have. ``outcome``: ``adopted``; ``found`` (a dry run);
    ``refused``, with the reason in ``message``; ``attested``: it was not attested before, and is now.
    ``not_attested`` is why our signature does not attest it. ``unproven`` has the first thousand objects that
    differ from the manifest, each with the reason."""

    place: ManifestPlace
    manifest_key: str
    outcome: str = "refused"
    message: str = ""
    not_attested: str | None = None
    objects: int = 0
    bytes: int = 0
    unproven_count: int = 0
    unproven: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Adoption:
    """The result. ``known`` counts manifests of deliveries that the ledger already has."""

    customer: str
    operation_id: str | None = None
    deliveries: list[AdoptedDelivery] = field(default_factory=list)
    known: int = 0
    failure: Failure | None = None
    exit_code: int = ExitCode.DONE

    def settle(self) -> None:
        """Sets the exit code if no error ended the adoption: the customer has to check unproven objects."""
        if self.failure is None and any(
            item.outcome == "refused" or item.unproven_count for item in self.deliveries
        ):
            self.exit_code = ExitCode.BLOCKED


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
    """Adopts what ``scope`` covers, oldest revision first. ``dry_run`` proves everything and records nothing.
    ``reader`` is used if the store has no checksum to compare.

    Returns the result for each manifest; ``failure`` is the error that ended it early. Raises LedgerError,
    and AlreadyRunning while another process adopts for this customer.
    """
    result = Adoption(customer.name)
    work = _Adopting(context, configuration, customer, scope, reader, result)
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
                work.run(store, dry_run=dry_run)
        except XmodeError as error:
            result.failure, result.exit_code = failure_of(error), error.exit_code
        result.settle()
        taken = [item for item in result.deliveries if item.outcome == "adopted"]
        if operation is not None:
            operation.finish(
                "adopted" if taken else "nothing",
                objects=sum(item.objects for item in taken),
                size=sum(item.bytes for item in taken),
                failed=sum(item.unproven_count for item in result.deliveries),
                failure=result.failure,
            )
        telemetry.log(
            Event.ADOPT_FINISHED,
            act=result.operation_id,
            dry_run=dry_run,
            by=by,
            deliveries=len(taken),
            objects=sum(item.objects for item in taken),
            known=result.known,
            refused=sum(item.outcome == "refused" for item in result.deliveries),
        )
    return result


@dataclass(frozen=True, slots=True)
class _Adopting:
    """One execution. ``result`` is filled as it goes."""

    context: Context
    configuration: Configuration
    customer: Customer
    scope: Scope
    reader: Reader
    result: Adoption

    def run(self, store: ObjectStore, *, dry_run: bool) -> None:
        refused_in_a_row = 0
        for feed in self._feeds():
            known = {
                (item.period, item.revision): item
                for item in self.context.ledger.deliveries.find(self.customer.name, feed)
            }
            prefix = self.customer.destination.prefix
            for listed in store.list(f"{prefix}{feed}/{MANIFESTS}/"):
                place = manifest_place(prefix, listed.key)
                if place is None or not self.scope.covers(place.feed, place.period):
                    continue
                self.context.check_stop(_WHEN_STOPPED)
                found = known.get((place.period, place.revision))
                item = AdoptedDelivery(place, listed.key)
                if found is not None and found.status is Status.DELIVERED:
                    if found.not_attested is None or not self._attest(store, item, found, dry_run=dry_run):
                        self.result.known += 1
                    else:
                        self.result.deliveries.append(item)
                    continue
                self.result.deliveries.append(item)
                if found is not None and found.marker != ADOPTING:
                    item.message = f"the ledger has it as {found.status}: resume it with `xmode-transfer run`"
                else:
                    error = self._one(store, item, dry_run=dry_run)
                    refused_in_a_row = refused_in_a_row + 1 if error is not None else 0
                    if error is not None and refused_in_a_row >= _MOST_IN_A_ROW:
                        raise error

    def _feeds(self) -> list[str]:
        """Returns the feeds to adopt. A feed that the customer no longer receives may have manifests too."""
        if self.scope.feed is not None:
            return [self.scope.feed]
        return sorted({*self.customer.feeds, *self.configuration.feeds})

    def _one(self, store: ObjectStore, item: AdoptedDelivery, *, dry_run: bool) -> StoreError | None:
        """Adopts one manifest. Returns the store's permanent error, if there is one."""
        place, name = item.place, self.customer.name
        with telemetry.bind(feed=place.feed, period=place.period):
            try:
                if dry_run:
                    self._take(store, item, None)
                    return None
                lease_name = of_delivery(name, place.feed, place.period)
                with held(self.context.ledger, lease_name, self.context.holder) as lease:
                    self._take(store, item, lease)
            except (NoManifest, ObjectNotFound, AlreadyRunning) as error:
                item.message = str(error)
            except StoreError as error:
                if error.retryable:
                    raise
                item.message = error.message
                return error
        return None

    def _take(self, store: ObjectStore, item: AdoptedDelivery, lease: Lease | None) -> None:
        """Proves the manifest and its objects. Records them if there is a lease. Raises NoManifest."""
        place = item.place
        identity = delivery_id(self.customer.name, place.feed, place.period, place.revision)
        with adoptable.manifest(
            self.context, self.customer, store, item.manifest_key, place, identity
        ) as found:
            body = found.body
            item.objects, item.bytes, item.not_attested = found.objects, found.bytes, found.not_attested
            delivery = self._delivery(identity, item, found)
            if lease is not None:
                adopting = replace(delivery, status=Status.PLANNED, marker=ADOPTING, delivered_at=None)
                self.context.ledger.deliveries.create(lease, adopting)
                self.context.ledger.objects.plan(lease, identity, _planned(body))
                delivery = replace(delivery, missing_count=self._leave_out(lease, identity, body))
            self._prove_objects(store, item, lease, identity, body)
            if lease is None:
                item.outcome = "found"
                return
            self.context.ledger.objects.spread_receipts(lease, identity)
            self.context.ledger.deliveries.update(lease, delivery)
            item.outcome = "adopted"
            telemetry.log(
                Event.DELIVERY_ADOPTED,
                revision=place.revision,
                objects=item.objects,
                total_bytes=item.bytes,
                unproven=item.unproven_count,
                not_attested=item.not_attested,
            )

    def _leave_out(self, lease: Lease, identity: str, body: OpenFile) -> int:
        """Records the objects that the manifest lists as missing. Returns their number."""
        count = 0
        gone = map(missing_of, ManifestReader(chunks_of(body), ("missing",)))
        while some := list(islice(gone, _BATCH)):
            self.context.ledger.objects.leave_out(lease, identity, some)
            count += len(some)
        return count

    def _attest(self, store: ObjectStore, item: AdoptedDelivery, known: Delivery, *, dry_run: bool) -> bool:
        """Returns whether our signature now attests a delivery that was adopted without one, because a
        key was missing then. The signature must cover what the ledger has."""
        place, ledger = item.place, self.context.ledger
        try:
            with adoptable.manifest(
                self.context, self.customer, store, item.manifest_key, place, known.id
            ) as found:
                receipts = (receipt for _, receipt in ledger.objects.planned(known.id) if receipt is not None)
                entries = ManifestReader(chunks_of(found.body))
                if found.not_attested is not None or any(manifest_differences(entries, receipts)):
                    return False
        except (NoManifest, ObjectNotFound):
            return False
        item.objects, item.bytes = found.objects, found.bytes
        item.outcome = "found"
        if not dry_run:
            lease_name = of_delivery(self.customer.name, place.feed, place.period)
            with held(ledger, lease_name, self.context.holder) as lease:
                attested = replace(known, not_attested=None, updated_at=self.context.clock.now())
                ledger.deliveries.update(lease, attested)
            item.outcome = "attested"
        return True

    def _delivery(self, identity: str, item: AdoptedDelivery, found: adoptable.Manifest) -> Delivery:
        now = self.context.clock.now()
        return Delivery(
            id=identity,
            customer=self.customer.name,
            feed=item.place.feed,
            period=item.place.period,
            revision=item.place.revision,
            status=Status.DELIVERED,
            created_at=now,
            updated_at=now,
            object_count=item.objects,
            total_bytes=item.bytes,
            manifest_key=item.manifest_key,
            manifest_checksum=f"{found.checksum.algorithm}:{found.checksum.value}",
            delivered_at=found.info.modified_at,
            not_attested=item.not_attested,
        )

    # --- Its objects ------------------------------------------------------------------------------------

    def _prove_objects(
        self,
        store: ObjectStore,
        item: AdoptedDelivery,
        lease: Lease | None,
        identity: str,
        body: OpenFile,
    ) -> None:
        place = item.place
        marks = {
            delivery_id(self.customer.name, place.feed, place.period, revision)
            for revision in range(max(1, place.revision - _MARKS), place.revision + 1)
        }
        self.context.progress.delivery_started(
            self.customer.name, place.feed, place.period, item.objects, item.bytes
        )
        refused_in_a_row = 0

        def receipts() -> Iterator[Receipt]:
            for entry in ManifestReader(chunks_of(body)):
                self.context.check_stop(_WHEN_STOPPED)
                yield receipt_of(entry)

        def prove(receipt: Receipt) -> tuple[Receipt, str | None, StoreError | None]:
            answer = adoptable.prove(self.reader, store, receipt, marks)
            if lease is not None:
                self.context.ledger.objects.record_receipt(lease, identity, answer[0]).result()
            return answer

        try:
            with in_order(
                prove, receipts(), name="adopt", threads=self.context.parallel, ahead=_WINDOW
            ) as proven:
                for receipt, wrong, refused in proven:
                    refused_in_a_row = refused_in_a_row + 1 if refused is not None else 0
                    if refused is not None and refused_in_a_row >= _MOST_IN_A_ROW:
                        raise refused
                    if wrong is not None:
                        item.unproven_count += 1
                        if len(item.unproven) < _MOST_KEPT:
                            item.unproven.append((receipt.key, wrong))
                    self.context.progress.bytes_sent(receipt.size)
                    self.context.progress.object_finished(receipt.name, receipt.size, "adopted")
        finally:
            self.context.progress.delivery_finished()


def _planned(body: OpenFile) -> Iterator[PlannedObject]:
    for entry in ManifestReader(chunks_of(body)):
        receipt = receipt_of(entry)
        yield PlannedObject(receipt.name, receipt.key, receipt.size, 0, IDENTITY)
