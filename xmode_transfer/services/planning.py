"""Making a delivery's plan: which revision, and what is uploaded, skipped or carried over.

The plan is recorded before the first byte is sent, so what a crash left behind can always be told from the
ledger.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from xmode_transfer.domain import keys
from xmode_transfer.domain.config import Customer, Feed
from xmode_transfer.domain.errors import SourceError
from xmode_transfer.domain.periods import Partition, PeriodKind
from xmode_transfer.domain.plan import Action, Difference, Kind, PlanEntry, diff, known_of
from xmode_transfer.domain.records import (
    FINISHED,
    Delivery,
    Failure,
    Lease,
    PlannedObject,
    Receipt,
    SourceFile,
    SourceProblem,
    Status,
)
from xmode_transfer.ports import ChecksumOf, Clock, Ledger, PeriodState, Source

SUPERSEDED = "superseded"
ILLEGAL_NAME = "illegal_name"
"""A problem of a source file whose name makes no object key of ours; the sources know the others."""


@dataclass(slots=True)
class Plan:
    """A recorded plan. ``delivery`` is None when there is nothing to do. Counts are objects, sizes bytes."""

    delivery: Delivery | None = None
    upload_count: int = 0
    upload_bytes: int = 0
    skipped: int = 0
    problems: list[SourceProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans one period of one subscription."""

    customer: Customer
    feed: Feed
    state: PeriodState
    source: Source
    ledger: Ledger
    clock: Clock
    checksum_of: ChecksumOf

    def record(self, lease: Lease) -> Plan:
        """Decides and records. Idempotent: after a crash it goes on with the plan that is there."""
        latest = self._latest()
        if latest is not None and latest.status in FINISHED:
            news, known_count = self._news(lease)
            if not news:
                self._remember_marker(lease, latest)
                return Plan(skipped=known_count)
        delivery = self._open_revision(latest)
        if delivery is not latest:
            self.ledger.create_delivery(lease, delivery)
        plan = self._record(lease, delivery)
        if plan is None:
            delivery = self._open_revision(self._latest())
            self.ledger.create_delivery(lease, delivery)
            plan = self._record(lease, delivery)
        assert plan is not None  # a revision that was just begun holds nothing that could be stale
        return plan

    def preview(self) -> Iterator[PlanEntry]:
        """What ``record`` would do, name by name, with reasons; writes nothing."""
        delivery = self._open_revision(self._latest())
        for difference in self._differences(delivery):
            yield self._entry(difference, delivery.revision)

    def supersede(self, lease: Lease, delivery: Delivery) -> None:
        """Closes a revision of which an object was delivered with content that the source has replaced since.
        The next revision takes over what is still right."""
        failure = Failure(
            cause=SUPERSEDED,
            party="us",
            message=f"the source changed before revision {delivery.revision} was complete; "
            f"revision {delivery.revision + 1} takes over",
        )
        self.ledger.update_delivery(
            lease,
            replace(delivery, status=Status.FAILED, failure=failure, updated_at=self.clock.now()),
        )

    def _open_revision(self, latest: Delivery | None) -> Delivery:
        """The unfinished delivery to go on with, or the next revision, not recorded yet."""
        if latest is not None and latest.status not in FINISHED and not _superseded(latest):
            return latest
        revision = latest.revision + 1 if latest else 1
        now = self.clock.now()
        return Delivery(
            id=delivery_id(self.customer.name, self.feed.name, self._period, revision),
            customer=self.customer.name,
            feed=self.feed.name,
            period=self._period,
            revision=revision,
            status=Status.PLANNED,
            created_at=now,
            updated_at=now,
            marker=self.state.marker,
        )

    def _record(self, lease: Lease, delivery: Delivery) -> Plan | None:
        """Records the plan, or brings it up to date with the source. None when the revision had to be
        closed."""
        plan = Plan()
        gone: list[str] = []
        stale = False
        drop_folder = self.feed.period is PeriodKind.NONE

        def objects() -> Iterator[PlannedObject]:
            nonlocal stale
            for difference in self._differences(delivery, lease):
                if difference.kind is Kind.GONE:
                    if difference.current and difference.receipt is None:
                        gone.append(difference.name)
                    elif difference.current:
                        plan.skipped += 1
                elif difference.kind is Kind.DELIVERED:
                    assert difference.known is not None
                    assert difference.receipt is not None
                    if drop_folder or difference.current:
                        plan.skipped += 1
                    elif difference.receipt.removed:
                        # A cleanup has taken it away, and this revision's manifest is to name what is there.
                        yield from self._planned(plan, difference, delivery.revision)
                    else:
                        plan.skipped += 1
                        yield replace(difference.known, carried=True)
                elif difference.kind is Kind.CHANGED and difference.current:
                    stale = True
                else:
                    yield from self._planned(plan, difference, delivery.revision)

        self.ledger.plan_objects(lease, delivery.id, objects())
        if stale:
            self.supersede(lease, delivery)
            return None
        if gone:
            self.ledger.forget_planned(lease, delivery.id, gone)
        plan.delivery = self._counted(lease, delivery)
        return plan

    def _news(self, lease: Lease) -> tuple[bool, int]:
        """Whether the source has anything that was not delivered, and how much was. Gone files are no news:
        sources are cleaned up too."""
        known = 0
        for difference in self._differences(None, lease):
            if difference.kind in (Kind.NEW, Kind.CHANGED, Kind.PROBLEM):
                return True, known
            known += difference.kind is Kind.DELIVERED
        return False, known

    def _remember_marker(self, lease: Lease, latest: Delivery) -> None:
        """The producer declared the period complete again with the same content; it need not be read again
        for that."""
        if latest.marker != self.state.marker:
            self.ledger.update_delivery(lease, replace(latest, marker=self.state.marker))

    # --- shared ---------------------------------------------------------------------------------------

    @property
    def _period(self) -> str:
        return self.state.period.label

    def _latest(self) -> Delivery | None:
        return self.ledger.latest(self.customer.name, self.feed.name, self._period)

    def _differences(self, delivery: Delivery | None, lease: Lease | None = None) -> Iterator[Difference]:
        """The source against the revision ``delivery``, if any, and everything delivered before."""
        current = self.ledger.planned(delivery.id) if delivery is not None else iter(())
        delivered = self.ledger.delivered_names(self.customer.name, self.feed.name, self._period)
        files = self.source.scan(self.state.period)
        return self._looked_into(diff(files, known_of(current, delivered)), lease)

    def _counted(self, lease: Lease, delivery: Delivery) -> Delivery:
        """The delivery with its counts as planned now, recorded."""
        count, total = self.ledger.totals(delivery.id)
        delivery = replace(
            delivery,
            object_count=count,
            total_bytes=total,
            marker=self.state.marker,
            updated_at=self.clock.now(),
        )
        self.ledger.update_delivery(lease, delivery)
        return delivery

    def _planned(self, plan: Plan, difference: Difference, revision: int) -> Iterator[PlannedObject]:
        """The object for a name that is to be uploaded, or a problem noted."""
        if difference.problem is not None:
            plan.problems.append(difference.problem)
            return
        file = difference.file
        assert file is not None
        try:
            key = self._key(difference, revision)
        except keys.IllegalName as error:
            plan.problems.append(SourceProblem(file.name, ILLEGAL_NAME, str(error)))
            return
        plan.upload_count += 1
        plan.upload_bytes += file.size
        yield PlannedObject(file.name, key, file.size, file.modified_ns, file.identity)

    def _key(self, difference: Difference, revision: int) -> str:
        if difference.kind in (Kind.PENDING, Kind.MOVED_ON, Kind.DELIVERED) and difference.known is not None:
            return difference.known.key
        return keys.object_key(
            self.customer.destination.prefix,
            self.feed.name,
            difference.name,
            partition=self._partition,
            revision=revision if difference.kind is Kind.CHANGED else 1,
        )

    @property
    def _partition(self) -> str:
        if self.feed.partition is None:
            return ""
        return Partition(self.feed.partition, self.feed.period).path(self.state.period)

    def _looked_into(self, differences: Iterable[Difference], lease: Lease | None) -> Iterator[Difference]:
        """Looks into files that only seem changed: a copy or a restored backup has other times and the same
        content, and must not become a correction. With a lease, the new times are remembered."""
        touched: list[SourceFile] = []
        for difference in differences:
            file, receipt = difference.file, difference.receipt
            if difference.kind is Kind.CHANGED and file is not None and receipt is not None:
                known = difference.known
                if known is not None and file.size == receipt.size and self._same_content(file, receipt):
                    touched.append(file)
                    known = replace(known, modified_ns=file.modified_ns, identity=file.identity)
                    yield difference._replace(kind=Kind.DELIVERED, known=known)
                    continue
            yield difference
        if touched and lease is not None:
            self.ledger.restamp(lease, self.customer.name, self.feed.name, self._period, touched)

    def _same_content(self, file: SourceFile, receipt: Receipt) -> bool:
        try:
            with self.source.open(file) as body:
                value = self.checksum_of(body, receipt.checksum.algorithm)
                body.check_unchanged()
        except SourceError:
            return False  # it is being written, or cannot be read: sending it will tell
        return value == receipt.checksum.value

    def _entry(self, difference: Difference, revision: int) -> PlanEntry:
        if difference.problem is not None:
            return PlanEntry(Action.CONFLICT, difference.name, 0, "", difference.problem.message)
        if difference.kind is Kind.GONE:
            assert difference.known is not None
            reason = "no longer at the source" + (
                "; stays as delivered" if difference.receipt else ", was never delivered"
            )
            return PlanEntry(
                Action.SKIP, difference.name, difference.known.size, difference.known.key, reason
            )
        assert difference.file is not None
        size = difference.file.size
        if difference.kind is Kind.DELIVERED:
            assert difference.known is not None
            removed = difference.receipt is not None and difference.receipt.removed
            reason = "delivered, removed by a cleanup since" if removed else "delivered, unchanged"
            return PlanEntry(Action.SKIP, difference.name, size, difference.known.key, reason)
        try:
            key = self._key(difference, revision)
        except keys.IllegalName as error:
            return PlanEntry(Action.CONFLICT, difference.name, size, "", str(error))
        reason = {
            Kind.NEW: "new",
            Kind.PENDING: "planned before, not delivered yet",
            Kind.MOVED_ON: "planned before, changed since",
            Kind.CHANGED: "changed since it was delivered: a correction",
        }[difference.kind]
        return PlanEntry(Action.UPLOAD, difference.name, size, key, reason)


def own_ids(delivery: Delivery) -> set[str]:
    """The IDs of this delivery and of the revisions before it: whose tokens mean that an object is of
    ours."""
    return {
        delivery_id(delivery.customer, delivery.feed, delivery.period, revision)
        for revision in range(1, delivery.revision + 1)
    }


def delivery_id(customer: str, feed: str, period: str, revision: int) -> str:
    """The delivery's ID and token: always the same for the same delivery, so that objects of a lost ledger
    are still known."""
    return hashlib.sha256("\0".join((customer, feed, period, str(revision))).encode()).hexdigest()[:32]


def _superseded(delivery: Delivery) -> bool:
    return delivery.failure is not None and delivery.failure.cause == SUPERSEDED
