"""Adopting: what a lost ledger no longer knows is taken back from the customer's own bucket.

A manifest of ours says what a delivery consists of, and each object's metadata carries its delivery's ID,
which follows from customer, feed, period and revision. So a delivery is taken back when its manifest is of
ours by that mark, and each object when size, checksum and mark agree with what the manifest says. An object
that does not is recorded as it was delivered, but without an ETag: verify names it, repair may deliver it
again, and no cleanup ever deletes it.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from xmode_transfer import telemetry
from xmode_transfer.domain.acts import Act, ActKind
from xmode_transfer.domain.config import Configuration, Customer
from xmode_transfer.domain.errors import AlreadyRunning, ExitCode, Interrupted, ObjectNotFound, XmodeError
from xmode_transfer.domain.keys import MANIFESTS
from xmode_transfer.domain.layout import ManifestPlace, manifest_place
from xmode_transfer.domain.manifest_reading import ManifestReader, NoManifest, receipt_of
from xmode_transfer.domain.policy import Step
from xmode_transfer.domain.records import (
    Checksum,
    Delivery,
    Failure,
    Lease,
    Receipt,
    Status,
)
from xmode_transfer.domain.verification import SHA256_HEX, Scope
from xmode_transfer.ports import ListedObject, ObjectInfo, ObjectStore, OpenFile, Reader
from xmode_transfer.services import acts, destination, leasing
from xmode_transfer.services.planning import delivery_id
from xmode_transfer.services.sending import failure_of
from xmode_transfer.services.spooled_manifest import check_missing, chunks, missing, planned
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

ADOPTING = "adopting"
"""The marker of a delivery that is being adopted: one that was killed is begun again."""
IDENTITY = "adopted"
"""The identity of an adopted object's source file, which nobody has seen: the next run looks into it."""
_WINDOW = 8
_MOST_KEPT = 1000


@dataclass(slots=True)
class AdoptedDelivery:
    """One manifest that the ledger did not know. ``outcome``: ``adopted``; ``found`` (a dry run);
    ``refused``, with the reason in ``message``. ``unproven`` are objects that are not as the manifest says,
    the first thousand, each with what is wrong."""

    place: ManifestPlace
    manifest_key: str
    outcome: str = "refused"
    message: str = ""
    objects: int = 0
    bytes: int = 0
    unproven_count: int = 0
    unproven: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Adoption:
    """What came of it. ``known`` counts manifests whose deliveries the ledger has already."""

    customer: str
    act_id: str | None = None
    deliveries: list[AdoptedDelivery] = field(default_factory=list)
    known: int = 0
    failure: Failure | None = None
    exit_code: int = ExitCode.DONE

    def settle(self) -> None:
        """The exit code, where nothing has ended it early: the customer must look at what is not proven."""
        if self.failure is None and any(
            item.outcome == "refused" or item.unproven_count for item in self.deliveries
        ):
            self.exit_code = ExitCode.BLOCKED


def adopt(
    bench: Workbench,
    configuration: Configuration,
    customer: Customer,
    scope: Scope,
    reader: Reader,
    *,
    by: str,
    dry_run: bool = False,
) -> Adoption:
    """Takes back what ``scope`` covers, oldest revision first. ``dry_run`` proves everything and records
    nothing. ``reader`` is used where the store has no checksum to compare.

    Answers what came of each manifest; what ended it early is in ``failure``. Raises LedgerError, and
    AlreadyRunning when another process adopts for this customer.
    """
    result = Adoption(customer.name)
    work = _Adopting(bench, configuration, customer, scope, reader, result)
    with telemetry.bind(customer=customer.name), ExitStack() as stack:
        act: Act | None = None
        lease: Lease | None = None
        if not dry_run:
            lease = stack.enter_context(leasing.held(bench.ledger, f"adopt/{customer.name}", bench.holder))
            act = _act(bench, customer, by)
            acts.close_died(bench.ledger, lease, customer.name, ActKind.ADOPT, act.started_at)
            bench.ledger.start_act(lease, act)
            result.act_id = act.id
        try:
            with destination.opened(bench, customer, Step.VERIFY) as store:
                work.run(store, dry_run=dry_run)
        except XmodeError as error:
            result.failure, result.exit_code = failure_of(error), error.exit_code
        result.settle()
        taken = [item for item in result.deliveries if item.outcome == "adopted"]
        if act is not None and lease is not None:
            done = replace(
                act,
                finished_at=bench.clock.now(),
                outcome="adopted" if taken else "nothing",
                objects=sum(item.objects for item in taken),
                bytes=sum(item.bytes for item in taken),
                failed=sum(item.unproven_count for item in result.deliveries),
                failure=result.failure,
            )
            bench.ledger.finish_act(lease, done)
        telemetry.log(
            Event.ADOPT_FINISHED,
            act=result.act_id,
            dry_run=dry_run,
            by=by,
            deliveries=len(taken),
            objects=sum(item.objects for item in taken),
            known=result.known,
            refused=sum(item.outcome == "refused" for item in result.deliveries),
        )
    return result


def _act(bench: Workbench, customer: Customer, by: str) -> Act:
    now = bench.clock.now()
    return Act(
        id=f"adopt-{customer.name}-{now:%Y%m%dT%H%M%S%f}",
        kind=ActKind.ADOPT,
        customer=customer.name,
        holder=bench.holder,
        person=by,
        reason="manifests of ours that the ledger did not know",
        started_at=now,
    )


@dataclass(frozen=True, slots=True)
class _Adopting:
    """One execution. ``result`` is filled as it goes."""

    bench: Workbench
    configuration: Configuration
    customer: Customer
    scope: Scope
    reader: Reader
    result: Adoption

    def run(self, store: ObjectStore, *, dry_run: bool) -> None:
        for feed in self._feeds():
            known = {
                (item.period, item.revision): item
                for item in self.bench.ledger.deliveries(self.customer.name, feed)
            }
            prefix = self.customer.destination.prefix
            for listed in store.list(f"{prefix}{feed}/{MANIFESTS}/"):
                place = manifest_place(prefix, listed.key)
                if place is None or not self.scope.covers(place.feed, place.period):
                    continue
                self._check_stop()
                found = known.get((place.period, place.revision))
                if found is not None and found.status is Status.DELIVERED:
                    self.result.known += 1
                    continue
                item = AdoptedDelivery(place, listed.key)
                self.result.deliveries.append(item)
                if found is not None and found.marker != ADOPTING:
                    item.message = (
                        f"the ledger has it as {found.status}: `xmode-transfer run` goes on with it"
                    )
                else:
                    self._one(store, item, listed, dry_run=dry_run)

    def _feeds(self) -> list[str]:
        """A feed that the customer has given up may have left manifests too."""
        if self.scope.feed is not None:
            return [self.scope.feed]
        return sorted({*self.customer.feeds, *self.configuration.feeds})

    def _check_stop(self) -> None:
        if self.bench.stop.is_set():
            raise Interrupted("stopped on request", hint="what was adopted is recorded; adopt again")

    def _one(self, store: ObjectStore, item: AdoptedDelivery, listed: ListedObject, *, dry_run: bool) -> None:
        place, name = item.place, self.customer.name
        with telemetry.bind(feed=place.feed, period=place.period):
            try:
                if dry_run:
                    self._take(store, item, None)
                    return
                lease_name = leasing.of_delivery(name, place.feed, place.period)
                with leasing.held(self.bench.ledger, lease_name, self.bench.holder) as lease:
                    self._take(store, item, lease)
            except (NoManifest, ObjectNotFound, AlreadyRunning) as error:
                item.message = str(error)

    def _take(self, store: ObjectStore, item: AdoptedDelivery, lease: Lease | None) -> None:
        """Proves the manifest and its objects, and records them if there is a lease. Raises NoManifest."""
        place = item.place
        identity = delivery_id(self.customer.name, place.feed, place.period, place.revision)
        info = store.head(item.manifest_key)
        if info is None or info.token != identity:
            raise NoManifest(
                "it does not carry this delivery's mark: it is not of ours, or the customer had another name"
            )
        with self.bench.spool(store.read(item.manifest_key)) as body:
            checksum = self._prove_manifest(info, body)
            item.objects, item.bytes = self._check(identity, place, body)
            delivery = self._delivery(identity, item, info, checksum)
            if lease is not None:
                adopting = replace(delivery, status=Status.PLANNED, marker=ADOPTING, delivered_at=None)
                self.bench.ledger.create_delivery(lease, adopting)
                self.bench.ledger.plan_objects(lease, identity, planned(body, IDENTITY))
                delivery = replace(delivery, missing_count=self._leave_out(lease, identity, body))
            self._prove_objects(store, item, lease, identity, body)
            if lease is None:
                item.outcome = "found"
                return
            self.bench.ledger.spread_receipts(lease, identity)
            self.bench.ledger.update_delivery(lease, delivery)
            item.outcome = "adopted"
            telemetry.log(
                Event.DELIVERY_ADOPTED,
                revision=place.revision,
                objects=item.objects,
                total_bytes=item.bytes,
                unproven=item.unproven_count,
            )

    def _prove_manifest(self, info: ObjectInfo, body: OpenFile) -> Checksum:
        """The bytes that were read are the object's."""
        algorithm = info.checksum.algorithm if info.checksum is not None else "crc32"
        value = self.bench.checksum_of(body, algorithm)
        if body.size != info.size or (info.checksum is not None and value != info.checksum.value):
            raise NoManifest("it was changed while it was read")
        return Checksum(algorithm, value)

    def _check(self, identity: str, place: ManifestPlace, body: OpenFile) -> tuple[int, int]:
        """Reads it once before anything is recorded. Raises NoManifest for what no manifest of ours says."""
        reader = ManifestReader(chunks(body))
        below = f"{self.customer.destination.prefix}{place.feed}/"
        count = total = 0
        last = ""
        for entry in reader:
            receipt = receipt_of(entry)
            if not receipt.key.startswith(below):
                raise NoManifest(f"it lists {receipt.key}, which does not lie below {below}")
            if count and receipt.name <= last:
                raise NoManifest(f"it lists {receipt.name} out of order or twice")
            last, count, total = receipt.name, count + 1, total + receipt.size
        said = {name: reader.members.get(name) for name in ("delivery", "feed", "period", "revision")}
        meant = {
            "delivery": identity,
            "feed": place.feed,
            "period": place.period,
            "revision": place.revision,
        }
        if said != meant:
            raise NoManifest("it names another delivery than its key does")
        check_missing(body)
        if (reader.members.get("count"), reader.members.get("bytes")) != (count, total):
            raise NoManifest(f"it says {reader.members.get('count')} objects and lists {count}")
        return count, total

    def _leave_out(self, lease: Lease, identity: str, body: OpenFile) -> int:
        """What the manifest says is missing; how much it is."""
        count = 0
        for some in missing(body):
            self.bench.ledger.leave_out(lease, identity, some)
            count += len(some)
        return count

    def _delivery(
        self, identity: str, item: AdoptedDelivery, info: ObjectInfo, checksum: Checksum
    ) -> Delivery:
        now = self.bench.clock.now()
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
            manifest_checksum=f"{checksum.algorithm}:{checksum.value}",
            delivered_at=info.modified_at,
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
        limits, place = self.bench.limits, item.place
        threads = min(limits.parallel_objects, limits.parallel_objects_per_customer)
        marks = {
            delivery_id(self.customer.name, place.feed, place.period, revision)
            for revision in range(1, place.revision + 1)
        }
        self.bench.progress.delivery_started(
            self.customer.name, place.feed, place.period, item.objects, item.bytes
        )
        window: deque[Future[tuple[Receipt, str | None]]] = deque()
        written: deque[Future[None]] = deque()
        prove = telemetry.carry(self._prove)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="adopt")

        def settle() -> None:
            receipt, wrong = window.popleft().result()
            if wrong is not None:
                item.unproven_count += 1
                if len(item.unproven) < _MOST_KEPT:
                    item.unproven.append((receipt.key, wrong))
            if lease is not None:
                written.append(self.bench.ledger.record_receipt(lease, identity, receipt))
                if len(written) > 2_000:
                    written.popleft().result()
            self.bench.progress.bytes_sent(receipt.size)
            self.bench.progress.object_finished(receipt.name, receipt.size, "adopted")

        try:
            for entry in ManifestReader(chunks(body)):
                self._check_stop()
                window.append(pool.submit(prove, store, receipt_of(entry), marks))
                if len(window) >= threads * _WINDOW:
                    settle()
            while window:
                settle()
            while written:
                written.popleft().result()
        finally:
            for future in window:
                future.cancel()
            pool.shutdown()
            self.bench.progress.delivery_finished()

    def _prove(self, store: ObjectStore, receipt: Receipt, marks: set[str]) -> tuple[Receipt, str | None]:
        """The receipt with what S3 says of the object; or without an ETag, and what is wrong."""
        info = store.head(receipt.key)
        wrong = self._wrong(store, receipt, info, marks)
        if wrong is not None or info is None:
            return receipt, wrong
        return replace(receipt, etag=info.etag, version_id=info.version_id), None

    def _wrong(
        self, store: ObjectStore, receipt: Receipt, info: ObjectInfo | None, marks: set[str]
    ) -> str | None:
        if info is None:
            return "nothing lies under this key any more"
        if info.token not in marks:
            return "it does not carry our mark: somebody else has put it"
        if info.size != receipt.size:
            return f"it has {info.size:,} bytes, and the manifest says {receipt.size:,}"
        algorithm, expected = receipt.checksum.algorithm, receipt.checksum.value
        if info.checksum is not None and info.checksum.algorithm == algorithm:
            value: str | None = info.checksum.value
        else:  # the store has none to compare: the bytes have
            wanted = {algorithm, *([SHA256_HEX] if receipt.sha256 else [])}
            read = self.reader.read(store, receipt.key, wanted, _nobody)
            value = read.checksums.get(algorithm)
            if value is None and receipt.sha256 is not None:
                value, expected = read.checksums.get(SHA256_HEX), receipt.sha256
        if value != expected:
            return f"its {algorithm} is {value}, and the manifest says {expected}"
        return None


def _nobody(_: int) -> None:
    """Who is told of the bytes that are read: the object counts as a whole when it is proven."""
