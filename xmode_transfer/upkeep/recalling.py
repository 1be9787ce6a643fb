"""Carry out a recall in one customer's bucket, period by period, each under its delivery's lease.

First a revision without what is withdrawn is published. Then the manifests that name it go, then the objects.
Each step follows from the ledger and the bucket, so that a call after a crash continues.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from xmode_transfer import telemetry
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Configuration, Customer, held_by
from xmode_transfer.model.errors import AlreadyRunning, Interrupted
from xmode_transfer.model.recall import Contents, Recall
from xmode_transfer.model.records import (
    DeliveredKey,
    Lease,
    ObjectInfo,
    Status,
    same_etag,
)
from xmode_transfer.model.upkeep import INTENDED, REMOVED, Removal, RemovalOutcome
from xmode_transfer.transfer.context import Context, Operation, held, in_order, of_delivery
from xmode_transfer.transfer.removing import (
    ExpiringPeriod,
    Removed,
    Remover,
    in_batches,
    planned_removal,
    states_of,
)
from xmode_transfer.upkeep.replacing import WHEN_STOPPED, MaySend, Replacing

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
            self.context.check_stop(WHEN_STOPPED)
            name = of_delivery(self.customer.name, self.recall.feed, label)
            try:
                with (
                    telemetry.bind(feed=self.recall.feed, period=label),
                    held(self.context.ledger, name, self.context.holder) as lease,
                ):
                    _Period(self, self._replacing(label, contents, lease)).run()
            except AlreadyRunning as error:
                busy = busy or error
        if busy is not None:
            raise busy

    def _replacing(self, label: str, contents: Contents, lease: Lease) -> Replacing:
        of = (self.context, self.configuration, self.customer, self.recall, self.may_send, self.store)
        return Replacing(*of, label, contents, lease)

    def _settle_died(self) -> None:
        """Records as removed what an operation that was killed had asked S3 to delete, and what is gone."""
        operations = self.context.ledger.operations
        for died in self.operation.died:
            planned = operations.removals(died.id, outcomes=[RemovalOutcome.PLANNED])
            gone = (item.key for item, found in self.heads(planned) if found is None)
            while some := list(islice(gone, _BATCH)):
                self.operation.settle(some)

    def settle(self, left: Iterable[Removal]) -> None:
        """Records what became meanwhile of keys that could not be deleted: a cleanup or the customer may have
        deleted them."""

        def ended() -> Iterator[Removal]:
            for item, found in self.heads(left):
                if found is None or (item.etag and not same_etag(found.etag, item.etag)):
                    outcome = RemovalOutcome.GONE if found is None else RemovalOutcome.CHANGED
                    yield item._replace(outcome=outcome, at=self.context.clock.now())

        for some in in_batches(ended()):
            self.operation.record(some)

    def prove(self, operation_ids: Iterable[str]) -> None:
        """Checks that what was removed is gone; what is there again will be deleted again."""
        operations = self.context.ledger.operations
        for operation_id in operation_ids:
            removed = operations.removals(operation_id, outcomes=sorted(REMOVED))
            there = (
                item._replace(outcome=RemovalOutcome.FAILED, at=self.context.clock.now())
                for item, found in self.heads(removed)
                if found is not None and item.etag and same_etag(found.etag, item.etag)
            )
            for some in in_batches(there):
                operations.record_removals(self.lease, operation_id, some)

    def heads(self, items: Iterable[Removal]) -> Iterator[tuple[Removal, ObjectInfo | None]]:
        """Yield what each key has."""

        def head(item: Removal) -> tuple[Removal, ObjectInfo | None]:
            self.context.check_stop(WHEN_STOPPED)
            return item, self.store.head(item.key)

        ours = (item for item in items if item.key.startswith(self.customer.destination.prefix))
        threads = self.context.parallel
        with in_order(head, ours, name="recall", threads=threads, ahead=8) as results:
            yield from results


@dataclass(frozen=True, slots=True)
class _Period:
    work: Recalling
    at: Replacing

    def run(self) -> None:
        hold = held_by(self.at.customer.hold, self.at.feed, self.at.label)
        if hold is not None and not self.work.recall.despite_hold:
            held = [self._removal(item, f"held (hold: {hold})") for item in self.at.found().objects]
            self._record(item._replace(outcome=RemovalOutcome.HELD) for item in held)
            return
        self.at.find_unrecorded()
        self.at.replace_manifests()
        self._remove()

    def _remove(self) -> None:
        deliveries, found = self.at.deliveries(), self.at.found()
        going: list[DeliveredKey] = []
        for item in deliveries:
            if item.manifest_key is None or item.revision not in found.listing:
                continue
            if item.status is Status.FAILED:  # put, but its revision was superseded
                of = (item.feed, item.period, item.revision, item.updated_at, (item.revision,))
                going.append(DeliveredKey(item.manifest_key, None, None, *of))
            elif item.manifest_key in found.manifests:
                going.append(found.manifests[item.manifest_key])
        native = (item for item in found.manifests.values() if item.etag is not None)
        going += [item for item in native if item.revision in found.listing]
        going += found.objects
        away = [item for item in going if not item.key.startswith(self.at.prefix)]
        self._record(
            self._removal(item, f"not below {self.at.prefix}")._replace(outcome=RemovalOutcome.ELSEWHERE)
            for item in away
        )
        removals = [
            # An object without an ETag was not as its manifest says when it was adopted: it is not deleted.
            item._replace(outcome=RemovalOutcome.PLANNED) if item.manifest or item.etag else item
            for item in (self._removal(known, self.work.recall.reason) for known in going)
            if item.key.startswith(self.at.prefix)
        ]
        removals = [
            item._replace(locked_until=found.locked_until if found is not None else None)
            for item, found in self.work.heads(removals)
        ]
        for some in in_batches(iter(removals)):
            self.work.operation.record(some)
        period = ExpiringPeriod(self.at.feed, self.at.label, self.work.recall.reason, states_of(deliveries))
        period.manifests = [item for item in removals if item.manifest]
        args = (self.at.context, self.at.customer, self.work.store, self.work.operation, self.work.removed)
        Remover(*args).remove_period(period, self.at.lease)
        if self.work.removed.interrupted:
            raise Interrupted("stopped on request", hint=WHEN_STOPPED)
        if period.kept_because:
            self._keep_objects(period)

    def _keep_objects(self, period: ExpiringPeriod) -> None:
        """Records why objects stay: readers rely on a manifest that stays."""
        operations, id_ = self.at.context.ledger.operations, self.work.operation.id
        ended = operations.removals(id_, self.at.feed, self.at.label)
        manifests = {item.outcome for item in ended if item.manifest}
        outcome = RemovalOutcome.FAILED
        if RemovalOutcome.RETAINED in manifests:
            outcome = RemovalOutcome.RETAINED
        left = list(operations.removals(id_, self.at.feed, self.at.label, INTENDED))
        self._record(item._replace(outcome=outcome, reason=period.kept_because) for item in left)

    def _removal(self, known: DeliveredKey, reason: str) -> Removal:
        return planned_removal(known, None, reason, self.at.context.clock.now())

    def _record(self, ended: Iterable[Removal]) -> None:
        at = self.at.context.clock.now()
        for some in in_batches(iter(ended)):
            done: Sequence[Removal] = [item._replace(at=at) for item in some]
            self.work.operation.record(done)
            for item in done:
                self.work.removed.count(item)
