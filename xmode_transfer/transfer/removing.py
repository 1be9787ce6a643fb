"""Delete what a plan names: period by period, the manifests first, then their objects.

If a manifest stays, its objects stay too, because readers rely on it. The period's delivery lease is held
meanwhile, so that no correction carries over what is being deleted.
"""

import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from itertools import groupby, islice
from typing import TypeVar
from zlib import crc32

from xmode_transfer import telemetry
from xmode_transfer.aws import checksums
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import DELETE_MANY_KEYS, Deletion, DeletionResult, ObjectStore
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import AccessDenied, AlreadyRunning, TableConflict, XmodeError
from xmode_transfer.model.records import (
    DeliveredKey,
    Delivery,
    Lease,
    ListedObject,
    ObjectInfo,
    Status,
    same_etag,
)
from xmode_transfer.model.upkeep import (
    INTENDED,
    REMOVED,
    REMOVED_BY_US,
    OperationKind,
    Removal,
    RemovalOutcome,
)
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import native, tables
from xmode_transfer.transfer.context import (
    TTL_SECONDS,
    Context,
    Operation,
    begun,
    held,
    in_order,
    of_delivery,
    opened,
)
from xmode_transfer.transfer.planning import own_ids
from xmode_transfer.transfer.sending import failure_of

_Item = TypeVar("_Item")
States = tuple[tuple[int, Status], ...]


@dataclass(slots=True)
class ExpiringPeriod:
    """The part of a period that expires. ``objects`` and ``bytes`` are listed as we put them, ``doubtful``
    objects are not. ``states`` is from the plan; ``kept_because`` says why nothing was deleted after all."""

    feed: str
    period: str
    reason: str
    states: States
    objects: int = 0
    bytes: int = 0
    doubtful: int = 0
    manifests: list[Removal] = field(default_factory=list)
    removed: int = 0
    removed_bytes: int = 0
    kept_because: str = ""


def states_of(deliveries: Sequence[Delivery]) -> States:
    """Return what must not change between the plan and the deletion."""
    return tuple(sorted((item.revision, item.status) for item in deliveries))


def planned_removal(known: DeliveredKey, there: ListedObject | None, reason: str, now: datetime) -> Removal:
    """Plans to delete the key as it is ``there``; or, with None, only to check it."""
    return Removal(
        known.key,
        known.feed,
        known.period,
        known.revision,
        manifest=known.is_manifest,
        size=there.size if there is not None else known.size or 0,
        etag=there.etag if there is not None else known.etag or "",
        delivered_at=known.delivered_at,
        reason=reason,
        outcome=RemovalOutcome.INCONCLUSIVE if there is None else RemovalOutcome.PLANNED,
        at=now,
    )


LEFT_NAMED = 1000  # of the keys that were not deleted, those that a result names; the ledger has all


@dataclass(slots=True)
class Removed:
    """Keys and their bytes by outcome, including manifests. ``left`` has the first thousand keys that we did
    not delete; ``refusal`` is the first refusal."""

    keys: Counter[RemovalOutcome] = field(default_factory=Counter)
    bytes: Counter[RemovalOutcome] = field(default_factory=Counter)
    left: list[Removal] = field(default_factory=list)
    interrupted: bool = False
    refusal: XmodeError | None = None

    @property
    def ours(self) -> int:
        """The number of keys that this operation deleted itself."""
        return sum(self.keys[outcome] for outcome in REMOVED_BY_US)

    @property
    def our_bytes(self) -> int:
        return sum(self.bytes[outcome] for outcome in REMOVED_BY_US)

    def count(self, removal: Removal) -> None:
        self.keys[removal.outcome] += 1
        self.bytes[removal.outcome] += removal.size
        if removal.outcome not in REMOVED_BY_US and len(self.left) < LEFT_NAMED:
            self.left.append(removal)


REQUESTS_AT_ONCE = 8
PERIODS_AT_ONCE = 8
_ROUNDS = 4
_LONGEST_PAUSE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Remover:
    """Carries out an operation's plan. Records each key's outcome and counts it in ``result``."""

    context: Context
    customer: Customer
    store: ObjectStore
    operation: Operation
    result: Removed
    _halted: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def remove(self, periods: Sequence[ExpiringPeriod]) -> None:
        """Raise what a whole request raises: keys without an answer stay planned in the ledger."""
        several = max(1, min(len(periods), PERIODS_AT_ONCE))
        requests = max(1, REQUESTS_AT_ONCE // several)  # of one period

        def work_on(period: ExpiringPeriod) -> None:
            if self.context.stop.is_set():
                self.result.interrupted = True
            elif not self._halted.is_set():
                try:
                    with telemetry.bind(feed=period.feed, period=period.period):
                        self._remove_period(period, requests)
                except BaseException:
                    self._halted.set()  # the other periods would fail too
                    raise

        with ThreadPoolExecutor(several, thread_name_prefix="cleanup") as threads:
            futures = [threads.submit(telemetry.carry(work_on), period) for period in periods]
        for future in futures:
            future.result()

    def _remove_period(self, period: ExpiringPeriod, requests: int) -> None:
        ledger = self.context.ledger
        name = of_delivery(self.customer.name, period.feed, period.period)
        try:
            with held(ledger, name, self.context.holder) as delivering:
                now = ledger.deliveries.find(self.customer.name, period.feed, period.period)
                if states_of(now) != period.states:
                    period.kept_because = "it was delivered or corrected meanwhile"
                else:
                    self.remove_period(period, delivering, requests)
        except AlreadyRunning:
            period.kept_because = "it is being delivered right now"

    def remove_period(
        self, period: ExpiringPeriod, delivering: Lease, requests: int = REQUESTS_AT_ONCE
    ) -> None:
        """Removes one period: first from what names its objects, then from the bucket. The caller holds its
        delivery lease."""
        of_period, context = (period.feed, period.period), self.context
        planned = context.ledger.operations.removals
        going = (item.key for item in planned(self.operation.id, *of_period, INTENDED) if not item.manifest)
        try:
            tables.unlist(context, self.customer, *of_period, going)
        except TableConflict as error:
            period.kept_because = error.message
            return
        going = (item.key for item in planned(self.operation.id, *of_period, INTENDED))
        native.unlist(context, self.customer, *of_period, delivering, going)
        if self._remove_manifests(period):
            self._remove_objects(period, delivering, requests)
        else:
            period.kept_because = "its manifest stays, so its objects do"

    def _remove_manifests(self, period: ExpiringPeriod) -> bool:
        """Return whether all manifests are gone. The ledger has the checksums of ours, not their ETags."""
        done: list[Removal] = []
        ours = []
        for manifest in period.manifests:
            found = self.store.head(manifest.key)
            if found is None:
                done.append(manifest._replace(outcome=RemovalOutcome.GONE))
            elif manifest.outcome is RemovalOutcome.INCONCLUSIVE:  # not listed, or not as we put it
                same = not manifest.etag or same_etag(found.etag, manifest.etag)
                outcome = RemovalOutcome.FAILED if same else RemovalOutcome.CHANGED
                done.append(manifest._replace(outcome=outcome))
            elif self._is_ours(manifest, found):
                ours.append(manifest._replace(etag=found.etag))
            else:
                done.append(manifest._replace(outcome=RemovalOutcome.CHANGED))
        for some in in_batches(ours):
            done += self._deleted(some)
        self._settle(period, done)
        return all(item.outcome in REMOVED for item in done)

    def _is_ours(self, manifest: Removal, found: ObjectInfo) -> bool:
        if manifest.etag and not same_etag(found.etag, manifest.etag):
            return False
        of_period = self.context.ledger.deliveries.find(self.customer.name, manifest.feed, manifest.period)
        for delivery in of_period:
            if delivery.manifest_key == manifest.key:
                algorithm, _, value = (delivery.manifest_checksum or "").partition(":")
                return found.token in own_ids(delivery) and self._checksum(found, algorithm) == value
        put_natively = self.context.ledger.native.find(self.customer.name, manifest.feed, manifest.period)
        put = {item.key: item.etag for item in put_natively}.get(manifest.key, "")
        return same_etag(found.etag, put) and found.token in {item.id for item in of_period}

    def _checksum(self, found: ObjectInfo, algorithm: str) -> str | None:
        if found.checksum is not None and found.checksum.algorithm == algorithm:
            return found.checksum.value
        if algorithm != checksums.ALGORITHM:
            return None
        return checksums.encode(reduce(lambda crc, chunk: crc32(chunk, crc), self.store.read(found.key), 0))

    def _remove_objects(self, period: ExpiringPeriod, delivering: Lease, requests: int) -> None:
        operations = self.context.ledger.operations
        planned = operations.removals(self.operation.id, period.feed, period.period, INTENDED)

        def batches() -> Iterator[list[Removal]]:
            for some in in_batches(item for item in planned if not item.manifest):
                if self.context.stop.is_set():
                    self.result.interrupted = True
                if self.result.interrupted or self._halted.is_set():
                    return
                # After a suspension longer than the lease, a correction may carry over these objects.
                self.context.ledger.leases.renew(delivering, TTL_SECONDS)
                yield some

        def work(some: list[Removal]) -> None:
            # Recorded at once, so that the error of another request loses nothing.
            done = self._deleted([item for item in some if item.outcome is RemovalOutcome.PLANNED])
            done += [self._checked(item) for item in some if item.outcome is RemovalOutcome.INCONCLUSIVE]
            self._settle(period, done)

        with in_order(work, batches(), name="cleanup-request", threads=requests) as results:
            for _ in results:
                pass

    def _checked(self, item: Removal) -> Removal:
        """Return the outcome for an object that is not listed as we put it. It is never deleted."""
        found = self.store.head(item.key)
        if found is None:
            return item._replace(outcome=RemovalOutcome.GONE)
        same = same_etag(found.etag, item.etag)
        return item._replace(outcome=RemovalOutcome.FAILED if same else RemovalOutcome.CHANGED)

    def _deleted(self, some: Sequence[Removal]) -> list[Removal]:
        """Deletes the keys, with retries of transient failures, and returns their outcomes."""
        todo = {item.key: item for item in some}
        done: list[Removal] = []
        for attempt in range(1, _ROUNDS + 1):
            again: dict[str, Removal] = {}
            wanted = [Deletion(item.key, item.etag) for item in todo.values()]
            for answer in self.store.delete_many(wanted) if wanted else ():
                item, error = todo[answer.key], answer.error
                transient = error is not None and error.retryable
                if answer.result is DeletionResult.FAILED and transient and attempt < _ROUNDS:
                    again[item.key] = item
                    continue
                outcome = RemovalOutcome.RETAINED
                if answer.result is DeletionResult.DENIED:
                    self.result.refusal = self.result.refusal or error
                else:
                    outcome = RemovalOutcome(answer.result)
                done.append(item._replace(outcome=outcome))
                if error is not None:
                    telemetry.log(Event.REMOVAL_REFUSED, key=item.key, **error.log_context())
            todo = again
            pause = random.uniform(0, min(_LONGEST_PAUSE_SECONDS, 2.0 ** (attempt - 1)))
            if not todo or self.context.stop.wait(pause):
                break
        return done + [item._replace(outcome=RemovalOutcome.FAILED) for item in todo.values()]

    def _settle(self, period: ExpiringPeriod, done: Sequence[Removal]) -> None:
        at = self.context.clock.now()
        done = [item._replace(at=at) for item in done]
        self.operation.record(done)
        for item in done:
            ours = item.outcome in REMOVED_BY_US
            with self._lock:
                self.result.count(item)
                period.removed += ours and not item.manifest
                period.removed_bytes += item.size if ours else 0
            if ours:
                self.context.progress.bytes_sent(item.size)
            self.context.progress.object_finished(item.key, item.size, str(item.outcome))


def in_batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    source = iter(items)
    return iter(lambda: list(islice(source, DELETE_MANY_KEYS)), [])


_SUPERSEDED = "no manifest names it: its revision was superseded"


def sweep(
    context: Context, customer: Customer, feed: str | None = None, *, refused: bool = False
) -> Removed | None:
    """Deletes objects that only superseded revisions have, of one feed or of all. ``refused`` also retries
    what the bucket refused to delete before. An error is only logged: a later sweep continues."""
    with telemetry.bind(customer=customer.name):
        try:
            found = context.ledger.keys.superseded(customer.name, feed, refused=refused)
            if not found:
                return None
            kind, person = OperationKind.SUPERSEDED, "xmode-transfer"
            with begun(context, kind, customer.name, person=person, reason=_SUPERSEDED) as operation:
                return _remove(context, customer, operation, found)
        except AlreadyRunning:
            pass
        except XmodeError as error:
            telemetry.warn(Event.SUPERSEDED_KEPT, **error.log_context())
        return None


def _remove(
    context: Context, customer: Customer, operation: Operation, found: Sequence[DeliveredKey]
) -> Removed:
    now = context.clock.now()
    planned = [
        planned_removal(item, None, _SUPERSEDED, now)._replace(outcome=RemovalOutcome.PLANNED)
        for item in found
    ]
    for batch in in_batches(planned):
        operation.record(batch)
    removed, failure = Removed(), None
    size = sum(item.size or 0 for item in found)
    context.progress.delivery_started(customer.name, found[0].feed, "superseded", len(found), size)
    try:
        with opened(context, customer, Step.CLEANUP) as store:
            periods = []
            for (feed, period), its in groupby(planned, lambda item: (item.feed, item.period)):
                states = states_of(context.ledger.deliveries.find(customer.name, feed, period))
                manifests = [item for item in its if item.manifest]
                periods.append(ExpiringPeriod(feed, period, _SUPERSEDED, states, manifests=manifests))
            Remover(context, customer, store, operation, removed).remove(periods)
    except XmodeError as error:
        failure = failure_of(error)
        if not isinstance(error, AccessDenied):
            raise
        # some stores refuse all keys at once
        left = context.ledger.operations.removals(operation.id, outcomes=[RemovalOutcome.PLANNED])
        for some in in_batches(item._replace(outcome=RemovalOutcome.RETAINED) for item in left):
            operation.record(some)
            for item in some:
                removed.count(item)
    finally:
        context.progress.delivery_finished()
        operation.finish(
            "removed" if removed.ours else "nothing",
            objects=removed.ours,
            size=removed.our_bytes,
            failed=len(found) - removed.ours,
            failure=failure,
        )
    counts = {str(outcome): count for outcome, count in removed.keys.items()}
    telemetry.log(Event.SUPERSEDED_REMOVED, act=operation.id, **counts)
    return removed
