"""Check, before a manifest is put, that the bucket still has what it lists and this run has not sent itself.

One listing of the period's keys proves by size and ETag what is as we put it; a HEAD judges the rest. A gone
object is planned again if the source has it unchanged; else the manifest lists it as missing.
"""

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import attrgetter
from typing import NamedTuple, TypeVar

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
    """``again`` objects are pending again. If ``stale``, a key of this revision holds an unmanaged object."""

    again: int = 0
    again_bytes: int = 0
    missing: Counter[MissingReason] = field(default_factory=Counter)
    stale: bool = False


class _Lost(NamedTuple):
    planned: PlannedObject
    receipt: Receipt
    reason: MissingReason


@dataclass(slots=True)
class Recheck:
    """Use once. ``before`` is the time of the newest object that this run has not sent. Without
    ``from_source`` the source is not asked: the manifest lists as missing what is gone."""

    context: Context
    planner: Planner
    store: ObjectStore
    delivery: Delivery
    lease: Lease
    before: datetime
    result: Rechecked = field(default_factory=Rechecked)
    from_source: bool = True
    _listings: dict[str, Callable[[str], ListedObject | None]] = field(default_factory=dict)
    _listing_refused: bool = False

    def run(self) -> Rechecked:
        """Raise if an object cannot be checked: the manifest must not be put then."""
        if self._is_published():
            return self.result
        files = self.planner.source.scan(self.planner.state.period) if self.from_source else iter(())
        at_source = _finder(files, attrgetter("name"))
        with closing(self._lost()) as lost:
            while not self.result.stale and (batch := list(islice(lost, _BATCH))):
                self._settle(batch, at_source)
        return self.result

    def _is_published(self) -> bool:
        """Return whether the manifest was put before a crash: the customer may have moved objects since."""
        if self.delivery.attempts <= 1:
            return False
        delivery, prefix = self.delivery, self.planner.customer.destination.prefix
        key = manifest_key(prefix, delivery.feed, delivery.period, delivery.revision)
        try:
            info = self.store.head(key)
        except AccessDenied:  # S3's answer for an absent key without s3:ListBucket
            return False
        return info is not None and info.token == delivery.id

    def _lost(self) -> Generator[_Lost]:
        def unclear() -> Iterator[tuple[PlannedObject, Receipt, bool]]:
            """Yield what is not listed as we put it, and whether it needs a HEAD."""
            for planned, receipt in self.context.ledger.objects.proven(self.delivery.id):
                self.context.check_stop("the next run checks again")
                if receipt.delivered_at > self.before:
                    continue
                listed = self._listed(receipt.name, receipt.key)
                if isinstance(listed, ListedObject) and not receipt.removed and same_object(receipt, listed):
                    continue
                # an expired object that is not listed needs no HEAD
                yield planned, receipt, listed is not None or not receipt.removed

        def check(
            item: tuple[PlannedObject, Receipt, bool],
        ) -> tuple[PlannedObject, Receipt, ObjectInfo | None]:
            planned, receipt, needs_head = item
            return planned, receipt, self._head(receipt.key) if needs_head else None

        threads = self.context.parallel
        with in_order(check, unclear(), name="recheck", threads=threads, ahead=_HEADS_AHEAD) as checked:
            for planned, receipt, info in checked:
                reason = self._judged(planned, receipt, info)
                if reason is not None:
                    yield _Lost(planned, receipt, reason)

    def _listed(self, name: str, key: str) -> ListedObject | bool | None:
        """Return the key's row in the listing; None without one; False if the listing does not cover it."""
        planner = self.planner
        if not key.startswith(planner.customer.destination.prefix):
            return None
        # A drop folder may hold millions of keys of other batches.
        if planner.feed.period is PeriodKind.NONE or self._listing_refused:
            return False
        top = planner.prefix
        if not planner.layout.keeps_paths or not key.startswith(top):
            return False
        # Names and keys have the same order only within one revision.
        of_revision = _OF_REVISION.match(key, len(top))
        prefix = top + (of_revision[0] if of_revision else "")
        if key != prefix + planner.layout.path_of(name, planner.state.period):
            return False  # of a former layout
        if prefix not in self._listings:
            self._listings[prefix] = _finder(self.store.list(prefix), attrgetter("key"))
        try:
            return self._listings[prefix](key)
        except AccessDenied as error:  # the role grants less than the guide's: use HEAD
            telemetry.log(Event.LISTING_REFUSED, **error.log_context())
            self._listing_refused = True
            return False

    def _head(self, key: str) -> ObjectInfo | None:
        if not key.startswith(self.planner.customer.destination.prefix):
            return None  # the session policy denies it
        try:
            return self.store.head(key)
        except AccessDenied as error:
            raise AccessDenied(
                f"{key} cannot be checked, so the manifest is not put: {error.message}",
                hint="ask the customer to allow s3:ListBucket and s3:GetObject, as the setup guide does "
                f"(`xmode-transfer check-access --customer {self.delivery.customer}` prints the statement)",
                aws_code=error.aws_code,
                http_status=error.http_status,
                request_id=error.request_id,
            ) from error

    def _judged(
        self, planned: PlannedObject, receipt: Receipt, info: ObjectInfo | None
    ) -> MissingReason | None:
        """Return why the object is not as we put it; None if it is."""
        judgement = judge(receipt, info)
        if judgement.kind is None and info is not None:
            ours = info.token in own_ids(self.delivery) and info.checksum is not None
            if ours and (judgement.rewritten or receipt.removed):
                # ours, sent again by a run that was killed before it recorded the receipt
                renewed = receipt_of(planned, info, receipt.sha256)
                self.context.ledger.objects.record_receipt(self.lease, self.delivery.id, renewed).result()
            return None
        if receipt.removed:
            return MissingReason.EXPIRED
        if not receipt.key.startswith(self.planner.customer.destination.prefix):
            return MissingReason.MOVED
        if judgement.kind is DiscrepancyKind.MISSING:
            return MissingReason.DELETED
        return MissingReason.OVERWRITTEN

    def _settle(
        self, batch: list[_Lost], at_source: Callable[[str], SourceFile | SourceProblem | None]
    ) -> None:
        again: list[PlannedObject] = []
        gone: list[MissingObject] = []
        for lost in batch:
            expired = lost.reason is MissingReason.EXPIRED
            file = None if expired else at_source(lost.planned.name)
            if file is None:
                name, key, size, checksum = lost.receipt[:4]
                gone.append(MissingObject(name, key, size, checksum, lost.reason))
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
        names = {item.name for item in again}
        logged = self.result.again + self.result.missing.total()
        for lost in batch[: max(0, _MOST_LOGGED - logged)]:
            telemetry.warn(
                Event.OBJECT_GONE,
                name=lost.planned.name,
                key=lost.receipt.key,
                cause=str(lost.reason),
                sent_again=lost.planned.name in names,
            )
        self.result.again += len(again)
        self.result.again_bytes += sum(item.size for item in again)
        self.result.missing.update(item.reason for item in gone)

    def _planned_again(self, lost: _Lost, file: SourceFile | SourceProblem) -> PlannedObject | None:
        """Return None if this revision has no other key for it."""
        name, planned = lost.planned.name, lost.planned
        if isinstance(file, SourceProblem) or not same_content(self.planner.source, file, lost.receipt):
            raise SourceChanged(
                f"{name} must be delivered again, but has changed since the run began",
                hint="the next run delivers the period with its current content",
            )
        key = planned.key
        try:
            if lost.reason is MissingReason.OVERWRITTEN:
                key = self.planner.key(name, self.delivery.revision)
            elif lost.reason is MissingReason.MOVED:
                key = self.planner.key(name)
        except IllegalName as error:
            raise SourceUnreadable(
                f"{name} must be delivered again, but cannot: {error}",
                hint=f"{planned.key} holds an object that is not ours: ask the customer to move it",
            ) from error
        if key == planned.key and lost.reason is not MissingReason.DELETED:
            return None
        return PlannedObject(name, key, file.size, file.modified_ns, file.identity)


def _finder(items: Iterator[_Item], key_of: Callable[[_Item], str]) -> Callable[[str], _Item | None]:
    """Return a function that finds keys, in ascending order, in items that ascend by their keys."""
    current: _Item | None = None

    def find(key: str) -> _Item | None:
        nonlocal current
        while current is None or key_of(current) < key:
            current = next(items, None)
            if current is None:
                return None
        return current if key_of(current) == key else None

    return find
