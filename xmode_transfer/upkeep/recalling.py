"""Carry out a recall in one customer's bucket, period by period, each under its delivery's lease.

First a revision without what is withdrawn is published. Then the manifests that name it go, then the objects.
Each step follows from the ledger and the bucket, so that a call after a crash continues.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest

from xmode_transfer import telemetry
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed, held_by
from xmode_transfer.model.errors import AlreadyRunning, Defect, Interrupted, SourceError
from xmode_transfer.model.periods import Period, PeriodKind, period_labelled
from xmode_transfer.model.recall import Content, Contents, Recall
from xmode_transfer.model.records import (
    FINISHED,
    DeliveredKey,
    Delivery,
    Lease,
    PlannedObject,
    SourceFile,
    Status,
    same_etag,
)
from xmode_transfer.model.upkeep import INTENDED, REMOVED, Removal, RemovalOutcome
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import publishing
from xmode_transfer.transfer.context import Context, Operation, held, in_order, of_delivery
from xmode_transfer.transfer.large import LargeObjects
from xmode_transfer.transfer.planning import Planner, delivery_id, own_ids, supersede
from xmode_transfer.transfer.rechecking import Recheck
from xmode_transfer.transfer.removing import (
    ExpiringPeriod,
    Removed,
    Remover,
    in_batches,
    planned_removal,
    states_of,
)
from xmode_transfer.transfer.sending import Sender, receipt_of
from xmode_transfer.transfer.withdrawing import is_file_withdrawn, is_withdrawn

MaySend = Callable[[Feed, PeriodState], bool]

_WHEN_STOPPED = "the recall continues by itself, or when it is called again"
_WHY = "a recall withdrew something of it"
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Recalling:
    """``lease`` is the operation's."""

    context: Context
    configuration: Configuration
    customer: Customer
    recall: Recall
    may_send: MaySend
    store: ObjectStore
    operation: Operation
    lease: Lease
    removed: Removed

    def run(self, periods: Mapping[str, Contents]) -> None:
        """Raises the first AlreadyRunning at the end, when the other periods are done."""
        self._settle_died()
        self.operation.begin()
        self.operation.close_died()
        busy: AlreadyRunning | None = None
        for label, contents in sorted(periods.items()):
            self.context.check_stop(_WHEN_STOPPED)
            name = of_delivery(self.customer.name, self.recall.feed, label)
            try:
                with (
                    telemetry.bind(feed=self.recall.feed, period=label),
                    held(self.context.ledger, name, self.context.holder) as lease,
                ):
                    _Period(self, label, contents, lease).run()
            except AlreadyRunning as error:
                busy = busy or error
        if busy is not None:
            raise busy

    def _settle_died(self) -> None:
        """Records as removed what an operation that was killed had asked S3 to delete, and what is gone."""
        operations = self.context.ledger.operations
        for died in self.operation.died:
            planned = operations.removals(died.id, outcomes=[RemovalOutcome.PLANNED])
            gone = (item.key for item, found in self._heads(planned) if found is None)
            while some := list(islice(gone, _BATCH)):
                self.operation.settle(some)

    def prove(self, operation_ids: Iterable[str]) -> None:
        """Checks that what was removed is gone; what is there again will be deleted again."""
        operations = self.context.ledger.operations
        for operation_id in operation_ids:
            removed = operations.removals(operation_id, outcomes=sorted(REMOVED))
            there = (
                item._replace(outcome=RemovalOutcome.FAILED, at=self.context.clock.now())
                for item, etag in self._heads(removed)
                if etag is not None and item.etag and same_etag(etag, item.etag)
            )
            for some in in_batches(there):
                operations.record_removals(self.lease, operation_id, some)

    def _heads(self, items: Iterable[Removal]) -> Iterator[tuple[Removal, str | None]]:
        """Yield the ETag of what each key has; None if it has nothing."""

        def head(item: Removal) -> tuple[Removal, str | None]:
            self.context.check_stop(_WHEN_STOPPED)
            found = self.store.head(item.key)
            return item, found.etag if found is not None else None

        ours = (item for item in items if item.key.startswith(self.customer.destination.prefix))
        threads = self.context.parallel
        with in_order(head, ours, name="recall", threads=threads, ahead=8) as results:
            yield from results


@dataclass(slots=True)
class _Found:
    """What the destination should still have of a period: the objects that are withdrawn, the revisions that
    list them, and the manifests by key."""

    objects: list[DeliveredKey]
    listing: set[int]
    manifests: dict[str, DeliveredKey]


@dataclass(frozen=True, slots=True)
class _Period:
    work: Recalling
    label: str
    contents: Contents
    lease: Lease

    def run(self) -> None:
        hold = held_by(self._customer.hold, self._feed, self.label)
        if hold is not None and not self.work.recall.despite_hold:
            held = [self._removal(item, f"held (hold: {hold})") for item in self._found().objects]
            self._record(item._replace(outcome=RemovalOutcome.HELD) for item in held)
            return
        self._find_unrecorded()
        self._replace_manifests()
        self._remove()

    @property
    def _context(self) -> Context:
        return self.work.context

    @property
    def _customer(self) -> Customer:
        return self.work.customer

    @property
    def _feed(self) -> str:
        return self.work.recall.feed

    @property
    def _prefix(self) -> str:
        return self._customer.destination.prefix

    @property
    def _is_drop_folder(self) -> bool:
        return self.label == PeriodKind.NONE

    def _deliveries(self) -> list[Delivery]:
        found = self._context.ledger.deliveries.find(self._customer.name, self._feed, self.label)
        return sorted(found, key=lambda item: item.revision)

    def _withdrawn(self) -> Contents:
        """Return what any recall has withdrawn."""
        return self._context.ledger.recalls.withdrawn(self._customer.name, self._feed, self.label)

    def _found(self) -> _Found:
        found = _Found([], set(), {})
        for known in self._context.ledger.keys.delivered(self._customer.name, self._feed, self.label):
            if not known.name:
                found.manifests[known.key] = known
            elif is_withdrawn(known, self.contents):
                found.objects.append(known)
                found.listing.update(known.named_by)
        return found

    def _find_unrecorded(self) -> None:
        """Records receipts for withdrawn objects that a process put and did not live to record."""
        objects = self._context.ledger.objects
        for delivery in self._deliveries():
            for planned in objects.pending(delivery.id) if delivery.status not in FINISHED else ():
                known = self.contents.get(planned.name)
                info = (
                    self.work.store.head(planned.key)
                    if known and planned.key.startswith(self._prefix)
                    else None
                )
                if (
                    known is None
                    or info is None
                    or info.checksum is None
                    or info.token not in own_ids(delivery)
                ):
                    continue
                if Content(info.size, info.checksum) in known:
                    objects.record_receipt(self.lease, delivery.id, receipt_of(planned, info, None)).result()

    # The revision without what is withdrawn.

    def _replace_manifests(self) -> None:
        """Publishes a revision instead of the one that readers use; of a drop folder, one for each batch."""
        latest = self._deliveries()[-1]
        if latest.status not in FINISHED and not latest.is_superseded:
            bases = self._to_replace()
            if bases and self._continues(latest, bases[0]):
                self._publish(bases[0], latest, {})
            elif bases or self._has_withdrawn(latest):
                supersede(self._context, self.lease, latest, _WHY)
                latest = self._deliveries()[-1]
        if latest.is_superseded:
            self._note_published(self._next())
        bases = self._to_replace()
        if bases and self._is_drop_folder and any(self._never_published()):
            # What only superseded batches have would be deleted once a later one is published.
            self._publish_next(None, {})
        for base in bases:
            self._publish_next(base, self._corrected())

    def _note_published(self, delivery: Delivery) -> None:
        args = (self._context, self._customer, self.work.store, delivery, self.lease)
        publishing.note_published(*args)
        for earlier in self._deliveries():
            if earlier.is_superseded and earlier.replaces and earlier.manifest_key is None:
                self._context.ledger.objects.clear(self.lease, earlier.id)  # other batches list them

    def _to_replace(self) -> list[Delivery]:
        """Return the published deliveries with a manifest that lists what is withdrawn: the newest only, but
        of a drop folder all that no other one replaces."""
        found = self._found()
        published = [
            item
            for item in self._deliveries()
            if item.manifest_key is not None
            and (item.status is Status.FAILED or item.manifest_key in found.manifests)
        ]
        replaced = {number for item in published for number in item.replaces or ()}
        if not self._is_drop_folder:
            published = published[-1:]
        return [
            item
            for item in published
            if item.revision in found.listing - replaced and str(item.manifest_key).startswith(self._prefix)
        ]

    def _has_withdrawn(self, delivery: Delivery) -> bool:
        contents = self._withdrawn()
        return any(
            planned.name in contents if receipt is None else is_withdrawn(receipt, contents)
            for planned, receipt in self._context.ledger.objects.planned(delivery.id)
        )

    def _continues(self, latest: Delivery, base: Delivery) -> bool:
        """Return whether an unfinished revision is what a recall that was killed had planned."""
        if latest.replaces != self._replaces(base):
            return False
        there = ((item.name, item.key) for item, _ in self._context.ledger.objects.planned(latest.id))
        wanted = ((item.name, item.key) for item in self._planned(base, latest, {}))
        return all(one == other for one, other in zip_longest(there, wanted))

    def _replaces(self, base: Delivery | None) -> tuple[int, ...] | None:
        if base is None or not self._is_drop_folder:
            return None
        return tuple(sorted({base.revision, *(base.replaces or ())}))

    def _next(self, base: Delivery | None = None) -> Delivery:
        latest, now = self._deliveries()[-1], self._context.clock.now()
        of, revision = (self._customer.name, self._feed, self.label), latest.revision + 1
        return Delivery(
            delivery_id(*of, revision),
            *of,
            revision,
            status=Status.PLANNED,
            created_at=now,
            updated_at=now,
            marker=base.marker if base is not None else "",
            fingerprint=base.fingerprint if base is not None else None,
            replaces=self._replaces(base),
        )

    def _publish_next(self, base: Delivery | None, corrected: Mapping[str, SourceFile]) -> None:
        for files in (corrected, {}):
            delivery = self._next(base)
            if self._publish(base, delivery, files):
                return
        raise Defect(f"{self.lease.name}: stale twice", hint="report this with the log")

    def _publish(
        self, base: Delivery | None, delivery: Delivery, corrected: Mapping[str, SourceFile]
    ) -> bool:
        """Returns whether the revision is published; if not, it is superseded."""
        context, ledger, store = self._context, self._context.ledger, self.work.store
        objects = sum(1 for _ in self._planned(base, delivery, corrected))
        delivery = replace(delivery, object_count=objects)
        ledger.deliveries.create(self.lease, delivery)
        ledger.objects.plan(self.lease, delivery.id, self._planned(base, delivery, corrected))
        if base is not None:
            contents = self._withdrawn()
            left_out = [item for item in ledger.objects.left_out(base.id) if not is_withdrawn(item, contents)]
            ledger.objects.leave_out(self.lease, delivery.id, left_out)
        planner = self._planner(delivery)
        delivery = replace(delivery, status=Status.RUNNING, attempts=delivery.attempts + 1, failure=None)
        delivery = planner.counted(self.lease, delivery)
        before = ledger.objects.last_proof(delivery.id)
        args = (context, self._customer, store, delivery, self.lease)
        if corrected:
            sender = Sender(
                context, self._customer, planner.feed, planner.source, store, delivery, self.lease
            )
            sent = sender.send(ledger.objects.pending(delivery.id))
            if sent.halted is not None:
                raise sent.halted
            context.check_stop(_WHEN_STOPPED)
            if sent.stale or sent.failed:
                supersede(context, self.lease, delivery, "a file changed while it was sent")
                return False
        if before is not None:
            recheck = Recheck(context, planner, store, delivery, self.lease, before, from_source=False)
            recheck.run()
            delivery = planner.counted(self.lease, delivery)
            ledger.objects.spread_receipts(self.lease, delivery.id)
        self._note_published(delivery)
        LargeObjects(*args).tidy()
        if publishing.publish(context, self._customer, store, delivery, self.lease) is None:
            supersede(context, self.lease, delivery, _WHY)
            return False
        return True

    def _planned(
        self, base: Delivery | None, delivery: Delivery, corrected: Mapping[str, SourceFile]
    ) -> Iterator[PlannedObject]:
        contents, objects = self._withdrawn(), self._context.ledger.objects
        if base is None:
            yield from (item._replace(carried=True) for item in self._never_published())
            return
        planner = self._planner(delivery)
        for planned, receipt in objects.planned(base.id):
            file = corrected.get(planned.name)
            if receipt is None:
                continue
            if not is_withdrawn(receipt, contents):
                yield planned._replace(carried=True)
            elif file is not None:
                key = planner.key(file.name, delivery.revision)
                yield PlannedObject(file.name, key, file.size, file.modified_ns, file.identity)

    def _never_published(self) -> Iterator[PlannedObject]:
        contents = self._withdrawn()
        delivered = self._context.ledger.objects.delivered(self._customer.name, self._feed, self.label)
        for planned, receipt in delivered:
            if receipt.superseded and not receipt.removed and not is_withdrawn(receipt, contents):
                yield planned

    def _planner(self, delivery: Delivery) -> Planner:
        """Return what knows the period's keys. A feed that is gone has no partition."""
        feed, period = self.work.configuration.feeds.get(self._feed), period_labelled(self.label)
        assert period is not None
        if feed is None or feed.period is not period.kind:
            feed = Feed(name=self._feed, source="/nowhere", period=PeriodKind.NONE)
        state = PeriodState(period, complete=True, reason="", marker=delivery.marker)
        return Planner(self._context, self._customer, feed, state, self._context.sources(feed))

    def _corrected(self) -> dict[str, SourceFile]:
        """Return withdrawn files that the source has with other content, if they may be sent. A drop folder's
        are sent by the next run."""
        feed = self.work.configuration.feeds.get(self._feed)
        active = self._customer.state is CustomerState.ACTIVE and self._feed in self._customer.feeds
        if feed is None or self._is_drop_folder or not active:
            return {}
        contents = self._withdrawn()
        try:
            period, source = Period.parse(self.label, feed.period), self._context.sources(feed)
            state = source.state(period)
            if state is None or not state.complete or not self.work.may_send(feed, state):
                return {}
            named = (item for item in source.scan(period) if item.name in contents)
            files = [item for item in named if isinstance(item, SourceFile)]
            return {item.name: item for item in files if not is_file_withdrawn(source, item, contents)}
        except (SourceError, ValueError) as error:
            telemetry.warn(Event.SOURCE_FAILED, message=str(error))
            return {}

    # What goes.

    def _remove(self) -> None:
        deliveries, found = self._deliveries(), self._found()
        going: list[DeliveredKey] = []
        for item in deliveries:
            if item.manifest_key is None or item.revision not in found.listing:
                continue
            if item.status is Status.FAILED:  # put, but its revision was superseded
                of = (item.feed, item.period, item.revision, item.updated_at, (item.revision,))
                going.append(DeliveredKey(item.manifest_key, None, None, *of))
            elif item.manifest_key in found.manifests:
                going.append(found.manifests[item.manifest_key])
        going += found.objects
        away = [item for item in going if not item.key.startswith(self._prefix)]
        self._record(
            self._removal(item, f"not below {self._prefix}")._replace(outcome=RemovalOutcome.ELSEWHERE)
            for item in away
        )
        removals = [
            # An object without an ETag was not as its manifest says when it was adopted: it is not deleted.
            item._replace(outcome=RemovalOutcome.PLANNED) if item.manifest or item.etag else item
            for item in (self._removal(known, self.work.recall.reason) for known in going)
            if item.key.startswith(self._prefix)
        ]
        for some in in_batches(iter(removals)):
            self.work.operation.record(some)
        period = ExpiringPeriod(self._feed, self.label, self.work.recall.reason, states_of(deliveries))
        period.manifests = [item for item in removals if item.manifest]
        args = (self._context, self._customer, self.work.store, self.work.operation, self.work.removed)
        Remover(*args).remove_period(period, self.lease)
        if self.work.removed.interrupted:
            raise Interrupted("stopped on request", hint=_WHEN_STOPPED)
        if period.kept_because:
            self._keep_objects(period)

    def _keep_objects(self, period: ExpiringPeriod) -> None:
        """Records why objects stay: readers rely on a manifest that stays."""
        operations, id_ = self._context.ledger.operations, self.work.operation.id
        ended = operations.removals(id_, self._feed, self.label)
        manifests = {item.outcome for item in ended if item.manifest}
        outcome = RemovalOutcome.FAILED
        if RemovalOutcome.RETAINED in manifests:
            outcome = RemovalOutcome.RETAINED
        left = list(operations.removals(id_, self._feed, self.label, INTENDED))
        self._record(item._replace(outcome=outcome, reason=period.kept_because) for item in left)

    def _removal(self, known: DeliveredKey, reason: str) -> Removal:
        return planned_removal(known, None, reason, self._context.clock.now())

    def _record(self, ended: Iterable[Removal]) -> None:
        at = self._context.clock.now()
        for some in in_batches(iter(ended)):
            done: Sequence[Removal] = [item._replace(at=at) for item in some]
            self.work.operation.record(done)
            for item in done:
                self.work.removed.count(item)
