"""Before a manifest is put: whether what it lists, and this run has not sent itself, is still in the bucket.

A customer may have deleted or overwritten what an earlier run or revision delivered, and its bucket may have
been made anew. One listing of the period's keys proves by size and ETag what is as we put it; a HEAD judges
the rest. What is gone is planned again if the source has it unchanged; else the manifest does not list it,
and says so. All of this is in the ledger before anything is sent, so a run that is killed is gone on with.
"""

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

from xmode_transfer import telemetry
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.model.errors import AccessDenied, SourceChanged, SourceUnreadable
from xmode_transfer.model.keys import IllegalName, manifest_key
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.records import (
    Delivery,
    Lease,
    ListedObject,
    MissingObject,
    MissingReason,
    ObjectInfo,
    PlannedObject,
    Receipt,
    SourceFile,
    SourceProblem,
    same_object,
)
from xmode_transfer.model.upkeep import DiscrepancyKind, judge
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, in_order
from xmode_transfer.transfer.planning import Planner, own_ids, same_content
from xmode_transfer.transfer.sending import receipt_of

_BATCH = 1000
_HEADS_AHEAD = 8  # for each thread
_MOST_LOGGED = 100
_Item = TypeVar("_Item")
_OF_REVISION = re.compile(r"_r[0-9]+/")


@dataclass(slots=True)
class Rechecked:
    """What came of it. ``again`` objects with ``again_bytes`` are pending once more; ``missing`` counts those
    that the manifest does not list, by reason. ``stale`` says that a key of this very revision is held by
    somebody else's object, so that a new revision is due."""

    again: int = 0
    again_bytes: int = 0
    missing: Counter[MissingReason] = field(default_factory=Counter)
    stale: bool = False


class _Lost(NamedTuple):
    """An object that is not in the bucket as we put it."""

    planned: PlannedObject
    receipt: Receipt
    reason: MissingReason


@dataclass(slots=True)
class Recheck:
    """One look at one delivery. ``before`` is when the newest object was delivered that this run has not
    sent. Use once."""

    context: Context
    planner: Planner
    store: ObjectStore
    delivery: Delivery
    lease: Lease
    before: datetime
    result: Rechecked = field(default_factory=Rechecked)
    _chains: dict[str, "_Cursor[ListedObject]"] = field(default_factory=dict)
    _listing_refused: bool = False
    _at_source: "_Cursor[SourceFile | SourceProblem] | None" = None

    def run(self) -> Rechecked:
        """Raises what the store and the source raise: where an object cannot be looked at, nothing is known
        of it, and the manifest must not be put."""
        if self._is_published():
            return self.result
        with closing(self._lost()) as lost:
            while not self.result.stale and (batch := list(islice(lost, _BATCH))):
                self._settle(batch)
        return self.result

    def _is_published(self) -> bool:
        """Whether this revision's manifest is there already, put before a crash: its customer may have taken
        its objects away by now."""
        if self.delivery.attempts <= 1:
            return False
        delivery, prefix = self.delivery, self.planner.customer.destination.prefix
        key = manifest_key(prefix, delivery.feed, delivery.period, delivery.revision)
        try:
            info = self.store.head(key)
        except AccessDenied:  # so S3 says of an absent key to who may not list
            return False
        return info is not None and info.token == delivery.id

    # --- What is there ------------------------------------------------------------------------------

    def _lost(self) -> Generator[_Lost]:
        """In the order of names."""

        def unclear() -> Iterator[tuple[PlannedObject, Receipt, bool]]:
            """What the listing does not show as we put it, and whether a HEAD is asked."""
            for planned, receipt in self.context.ledger.objects.proven(self.delivery.id):
                self.context.check_stop("the next run looks again")
                if receipt.delivered_at > self.before:
                    continue  # sent by this very run
                listed = self._listed(receipt.key)
                if isinstance(listed, ListedObject) and not receipt.removed and same_object(receipt, listed):
                    continue
                # What expired is not there, as it should be; of all else a HEAD is the judge.
                yield planned, receipt, listed is not None or not receipt.removed

        def look(
            item: tuple[PlannedObject, Receipt, bool],
        ) -> tuple[PlannedObject, Receipt, ObjectInfo | None]:
            planned, receipt, asked = item
            return planned, receipt, self._head(receipt.key) if asked else None

        with in_order(
            look, unclear(), name="recheck", threads=self.context.parallel, ahead=_HEADS_AHEAD
        ) as looked_at:
            for planned, receipt, info in looked_at:
                reason = self._judged(planned, receipt, info)
                if reason is not None:
                    yield _Lost(planned, receipt, reason)

    def _listed(self, key: str) -> ListedObject | bool | None:
        """What the listing shows under the key; None: nothing; False: it is not listed, so nobody knows."""
        place = self.planner.place
        if not key.startswith(self.planner.customer.destination.prefix):
            return None
        # A drop folder may hold millions of keys of other batches.
        unknown = self.planner.feed.period is PeriodKind.NONE or not key.startswith(place)
        if unknown or self._listing_refused:
            return False
        # Names and keys have the same order among what the same revision put.
        of_revision = _OF_REVISION.match(key, len(place))
        prefix = place + (of_revision[0] if of_revision else "")
        if prefix not in self._chains:
            self._chains[prefix] = _Cursor(self.store.list(prefix), "key")
        try:
            return self._chains[prefix].find(key)
        except AccessDenied as error:  # the role is narrower than the guide's: one by one, then
            telemetry.log(Event.LISTING_REFUSED, **error.log_context())
            self._listing_refused = True
            return False

    def _head(self, key: str) -> ObjectInfo | None:
        if not key.startswith(self.planner.customer.destination.prefix):
            return None  # our own session would be refused there
        try:
            return self.store.head(key)
        except AccessDenied as error:
            raise AccessDenied(
                f"whether {key} is still there cannot be told, so the manifest is not put: {error.message}",
                hint="the customer grants s3:ListBucket and s3:GetObject, as the setup guide does; "
                f"`xmode-transfer check-access --customer {self.delivery.customer}` has the statement",
                aws_code=error.aws_code,
                http_status=error.http_status,
                request_id=error.request_id,
            ) from error

    def _judged(
        self, planned: PlannedObject, receipt: Receipt, info: ObjectInfo | None
    ) -> MissingReason | None:
        """Why it is not in the bucket as we put it; None when it is."""
        judgement = judge(receipt, info)
        if judgement.kind is None and info is not None:
            ours = info.token in own_ids(self.delivery) and info.checksum is not None
            if ours and (judgement.rewritten or receipt.removed):
                # ours, sent again by a run that did not live to write it down
                renewed = receipt_of(planned, info, receipt.sha256)
                self.context.ledger.objects.record_receipt(self.lease, self.delivery.id, renewed).result()
            return None
        if receipt.removed:
            return MissingReason.EXPIRED
        if not receipt.key.startswith(self.planner.customer.destination.prefix):
            return MissingReason.MOVED
        return (
            MissingReason.DELETED if judgement.kind is DiscrepancyKind.MISSING else MissingReason.OVERWRITTEN
        )

    # --- What becomes of it -------------------------------------------------------------------------

    def _settle(self, batch: list[_Lost]) -> None:
        again: list[PlannedObject] = []
        gone: list[MissingObject] = []
        for lost in batch:
            file = None
            if lost.reason is not MissingReason.EXPIRED:  # the retention policy let it go
                file = self._source(lost.planned.name)
            if file is None:
                receipt = lost.receipt
                gone.append(
                    MissingObject(receipt.name, receipt.key, receipt.size, receipt.checksum, lost.reason)
                )
                continue
            planned = self._planned_again(lost, file)
            if planned is None:
                self.result.stale = True
                return
            again.append(planned)
        ledger = self.context.ledger
        if again:
            ledger.objects.send_again(self.lease, self.delivery.id, again)
        if gone:
            ledger.objects.leave_out(self.lease, self.delivery.id, gone)
        self._note(batch, {item.name for item in again})
        self.result.again += len(again)
        self.result.again_bytes += sum(item.size for item in again)
        self.result.missing.update(item.reason for item in gone)

    def _planned_again(self, lost: _Lost, file: SourceFile | SourceProblem) -> PlannedObject | None:
        """As it is to be sent. None where this revision has no other key for it."""
        name, planned = lost.planned.name, lost.planned
        if isinstance(file, SourceProblem) or not same_content(
            self.context, self.planner.source, file, lost.receipt
        ):
            raise SourceChanged(
                f"{name} is to be delivered again, and is not what it was when the run began",
                hint="the next run delivers the period as it is then",
            )
        key = planned.key
        try:
            if lost.reason is MissingReason.OVERWRITTEN:
                key = self.planner.key(name, self.delivery.revision)
            elif lost.reason is MissingReason.MOVED:
                key = self.planner.key(name)
        except IllegalName as error:
            raise SourceUnreadable(
                f"{name} is to be delivered again, and cannot: {error}",
                hint=f"{planned.key} is held by something that is not ours; have the customer move it away",
            ) from error
        if key == planned.key and lost.reason is not MissingReason.DELETED:
            return None
        return PlannedObject(name, key, file.size, file.modified_ns, file.identity)

    def _source(self, name: str) -> SourceFile | SourceProblem | None:
        if self._at_source is None:
            self._at_source = _Cursor(self.planner.source.scan(self.planner.state.period), "name")
        return self._at_source.find(name)

    def _note(self, batch: list[_Lost], again: set[str]) -> None:
        told = self.result.again + self.result.missing.total()
        for lost in batch[: max(0, _MOST_LOGGED - told)]:
            telemetry.warn(
                Event.OBJECT_GONE,
                name=lost.planned.name,
                key=lost.receipt.key,
                cause=str(lost.reason),
                sent_again=lost.planned.name in again,
            )


class _Cursor(Generic[_Item]):
    """Items that ascend by an attribute, walked beside what is looked for, which ascends too."""

    def __init__(self, items: Iterator[_Item], attribute: str) -> None:
        self._items = items
        self._key_of: Callable[[_Item], str] = attrgetter(attribute)
        self._next: _Item | None = None
        self._begun = False

    def find(self, key: str) -> _Item | None:
        if not self._begun:
            self._next, self._begun = next(self._items, None), True
        while self._next is not None and self._key_of(self._next) < key:
            self._next = next(self._items, None)
        return self._next if self._next is not None and self._key_of(self._next) == key else None
