"""Plan a delivery: its revision, and what is uploaded, skipped or carried over.

The plan is recorded before the first byte is sent, so that after a crash the ledger knows what to expect.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from xmode_transfer.aws import checksums
from xmode_transfer.config import Customer, Feed
from xmode_transfer.model import keys
from xmode_transfer.model.errors import SourceError
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.records import (
    FINISHED,
    SUPERSEDED,
    DeliveredKey,
    Delivery,
    Failure,
    Lease,
    PlannedObject,
    Receipt,
    SourceFile,
    SourceProblem,
    Status,
)
from xmode_transfer.sources.interface import PeriodState, Source
from xmode_transfer.transfer import collisions, withdrawing
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.plan import Action, Difference, Kind, PlanEntry, ScanTotals, diff

ILLEGAL_NAME = "illegal_name"  # the other codes of problems are the sources' (``ProblemCode``)


@dataclass(slots=True)
class Plan:
    """``delivery`` is None if there is nothing to do. Counts are objects; ``scanned`` is of all files."""

    delivery: Delivery | None = None
    upload_count: int = 0
    upload_bytes: int = 0
    skipped: int = 0
    problems: list[SourceProblem] = field(default_factory=list)
    scanned: ScanTotals = field(default_factory=ScanTotals)


@dataclass(frozen=True)
class Planner:
    """Plans one period of one subscription. ``screen`` may change a difference, or take it out (None)."""

    context: Context
    customer: Customer
    feed: Feed
    state: PeriodState
    source: Source
    screen: Callable[[Difference], Difference | None] | None = None

    def record(self, lease: Lease) -> Plan:
        """Idempotent: after a crash it continues the recorded plan."""
        latest = self.latest()
        if (
            latest is not None
            and latest.replaces
            and not latest.is_superseded
            and latest.status not in FINISHED
        ):
            # A reader that has taken what it replaces takes nothing from it: it must not have anything else.
            if not latest.object_count or self.context.ledger.objects.totals(latest.id)[0]:
                return Plan(delivery=latest, skipped=latest.object_count)
            self.supersede(lease, latest)  # the recall was killed before it was planned
            latest = self.latest()
        if latest is not None and latest.status in FINISHED and not latest.is_rejected:
            news, known_count = self._news(lease, latest)
            if not news:
                if latest.marker != self.state.marker:  # the same content need not be read again
                    self.context.ledger.deliveries.update(lease, replace(latest, marker=self.state.marker))
                return Plan(skipped=known_count)
        delivery = self._open_revision(latest)
        if delivery is not latest:
            self.context.ledger.deliveries.create(lease, delivery)
        while (plan := self._record(lease, delivery)) is None:  # nothing of a new revision can be stale
            delivery = self._open_revision(self.latest())
            self.context.ledger.deliveries.create(lease, delivery)
        return plan

    def key(self, name: str, revision: int = 1) -> str:
        """Return the key of a file of this period, or of its correction. Raises IllegalName."""
        return self.layout.key(name, self.state.period, revision)

    @cached_property
    def layout(self) -> Layout:
        return self.customer.layout(self.feed)

    @property
    def prefix(self) -> str:
        """The prefix of this period's keys; of a drop folder, the prefix of all batches."""
        return self.layout.period_prefix(self.state.period)

    def counted(self, lease: Lease, delivery: Delivery) -> Delivery:
        """Return and records the delivery with the counts of its current plan."""
        count, total = self.context.ledger.objects.totals(delivery.id)
        delivery = replace(
            delivery,
            object_count=count,
            total_bytes=total,
            missing_count=sum(1 for _ in self.context.ledger.objects.left_out(delivery.id)),
            marker=self.state.marker,
            updated_at=self.context.clock.now(),
        )
        self.context.ledger.deliveries.update(lease, delivery)
        return delivery

    def preview(self, scanned: ScanTotals | None = None) -> Iterator[PlanEntry]:
        """Yield what ``record`` would do, name by name, with reasons. Writes nothing."""
        return (entry for entry, _ in self._preview(scanned))

    def to_upload(self) -> Iterator[SourceFile]:
        """Yield the files that ``preview`` would upload."""
        for entry, file in self._preview(None):
            if entry.action is Action.UPLOAD and file is not None:
                yield file

    def _preview(self, scanned: ScanTotals | None) -> Iterator[tuple[PlanEntry, SourceFile | None]]:
        latest = self.latest()
        delivery = self._open_revision(latest)
        renewed = latest is not None and self._declared_anew(latest)
        entries = self._entries(delivery, scanned, renewed=renewed)
        if self.layout.keeps_paths:
            yield from entries
            return
        known = self.context.ledger.objects.receipts(self.customer.name, self.feed.name, self._period)
        meeting = collisions.meeting(known, (entry for entry, _ in self._entries(delivery, None)))
        for entry, file in entries:
            yield collisions.screened(entry, meeting), file

    def _entries(
        self, delivery: Delivery, scanned: ScanTotals | None, *, renewed: bool = False
    ) -> Iterator[tuple[PlanEntry, SourceFile | None]]:
        for difference in self._differences(delivery, scanned=scanned):
            yield self._entry(difference, delivery.revision, renewed=renewed), difference.file

    def supersede(self, lease: Lease, delivery: Delivery) -> None:
        """Closes a revision with a delivered object that the source has replaced since."""
        supersede(self.context, lease, delivery, "the source changed")

    def _open_revision(self, latest: Delivery | None) -> Delivery:
        """Return the unfinished delivery, or the next revision, which is not recorded yet."""
        unfinished = latest is not None and (latest.status not in FINISHED or latest.is_rejected)
        if latest is not None and unfinished and not latest.is_superseded:
            return latest
        revision = latest.revision + 1 if latest else 1
        now = self.context.clock.now()
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
        """Records the plan, or updates it from the source. Returns None if the revision had to be closed."""
        plan = Plan()
        gone: list[str] = []
        stale = False
        renewed = self._declared_anew(delivery)

        def objects() -> Iterator[PlannedObject]:
            nonlocal stale
            for difference in self._differences(delivery, lease, plan.scanned):
                if difference.kind is Kind.GONE:
                    if difference.current and difference.receipt is None:
                        gone.append(difference.name)
                    elif difference.current:
                        plan.skipped += 1
                        stale = stale or renewed
                    elif self._is_drop_folder and _never_published(difference) and not _swept(difference):
                        plan.skipped += 1
                        yield _carried(difference)
                elif difference.kind is Kind.DELIVERED and not _swept(difference):
                    plan.skipped += 1
                    # A batch of a drop folder lists what no earlier batch lists.
                    if not difference.current and (not self._is_drop_folder or _never_published(difference)):
                        yield _carried(difference)
                elif difference.kind is Kind.CHANGED and difference.current:
                    stale = True
                else:
                    yield from self._planned(plan, difference, delivery.revision)

        self.context.ledger.objects.plan(lease, delivery.id, objects())
        if stale:
            self.supersede(lease, delivery)
            return None
        if gone:
            self.context.ledger.objects.forget(lease, delivery.id, gone)
        if plan.upload_count and not self.layout.keeps_paths:
            for planned, problem in collisions.taken_out(self.context, lease, delivery):
                plan.problems.append(problem)
                plan.upload_count -= 1
                plan.upload_bytes -= planned.size
        plan.delivery = self.counted(lease, replace(delivery, fingerprint=plan.scanned.fingerprint))
        return plan

    def _news(self, lease: Lease, latest: Delivery) -> tuple[bool, int]:
        """Return whether the source has anything that the latest revision does not list, and the number of
        delivered files. Gone files count only if the period was declared anew: sources are cleaned up."""
        known = 0
        renewed = self._declared_anew(latest)
        for difference in self._differences(latest, lease):
            kind, current = difference.kind, difference.current
            if (
                kind in (Kind.NEW, Kind.CHANGED, Kind.PROBLEM)
                or (kind is Kind.GONE and current and renewed)
                or (kind is Kind.DELIVERED and not current and self._is_back(difference))
            ):
                return True, known
            known += difference.kind is Kind.DELIVERED
        return False, known

    def _is_back(self, difference: Difference) -> bool:
        """Return whether to list a file again that only an earlier revision had. Expired files stay out."""
        assert difference.receipt is not None
        if self._is_drop_folder:
            return _never_published(difference)
        return _swept(difference) or not difference.receipt.removed

    def _declared_anew(self, delivery: Delivery) -> bool:
        """Return whether the producer has renewed the period's marker since this revision was planned."""
        return bool(self.state.marker) and delivery.marker != self.state.marker

    @property
    def _period(self) -> str:
        return self.state.period.label

    def latest(self) -> Delivery | None:
        return self.context.ledger.deliveries.latest(self.customer.name, self.feed.name, self._period)

    def _differences(
        self, delivery: Delivery, lease: Lease | None = None, scanned: ScanTotals | None = None
    ) -> Iterator[Difference]:
        current = self.context.ledger.objects.planned(delivery.id)
        delivered = self.context.ledger.objects.delivered(self.customer.name, self.feed.name, self._period)
        files = self.source.scan(self.state.period)
        if scanned is not None:
            files = scanned.seen(files)
        compared = self._with_same_content(diff(files, current, delivered), lease)
        unfinished = lease is not None and delivery.status not in FINISHED
        kept = self._without_withdrawn(compared, unfinished=unfinished)
        return kept if self.screen is None else filter(None, map(self.screen, kept))

    def _without_withdrawn(
        self, differences: Iterable[Difference], *, unfinished: bool
    ) -> Iterator[Difference]:
        contents = self.context.ledger.recalls.withdrawn(self.customer.name, self.feed.name, self._period)
        for difference in differences:
            kept: Difference | None = difference
            if difference.name in contents:
                kept = withdrawing.screen(self.source, difference, contents, unfinished=unfinished)
            if kept is not None:
                yield kept

    def _planned(self, plan: Plan, difference: Difference, revision: int) -> Iterator[PlannedObject]:
        entry = self._entry(difference, revision)
        if entry.action is Action.CONFLICT:
            code = difference.problem.code if difference.problem is not None else ILLEGAL_NAME
            plan.problems.append(SourceProblem(entry.name, code, entry.reason))
            return
        file = difference.file
        assert file is not None
        plan.upload_count += 1
        plan.upload_bytes += file.size
        yield PlannedObject(file.name, entry.key, file.size, file.modified_ns, file.identity)

    def _key(self, difference: Difference, revision: int) -> str:
        known, before = difference.known, difference.before
        # A manifest that names a key must stay right: other content gets another key.
        named = known is not None and before is not None and before.key == known.key
        changed = difference.kind is Kind.CHANGED or (difference.kind is Kind.MOVED_ON and named)
        if not changed and difference.kind is not Kind.NEW and known is not None:
            return known.key
        return self.key(difference.name, revision if changed else 1)

    @property
    def _is_drop_folder(self) -> bool:
        return self.feed.period is PeriodKind.NONE

    def _with_same_content(
        self, differences: Iterable[Difference], lease: Lease | None
    ) -> Iterator[Difference]:
        """Reads files that seem changed: a copy has other times. With a lease, records the new times."""
        touched: list[SourceFile] = []
        for difference in differences:
            file, receipt = difference.file, difference.receipt
            if difference.kind is Kind.CHANGED and file is not None and receipt is not None:
                known = difference.known
                if known is not None and same_content(self.source, file, receipt):
                    touched.append(file)
                    known = known._replace(modified_ns=file.modified_ns, identity=file.identity)
                    yield difference._replace(kind=Kind.DELIVERED, known=known)
                    continue
            yield difference
        if touched and lease is not None:
            self.context.ledger.objects.restamp(
                lease, self.customer.name, self.feed.name, self._period, touched
            )

    def _entry(self, difference: Difference, revision: int, *, renewed: bool = False) -> PlanEntry:
        kind, name, known, receipt = difference[:4]
        if difference.problem is not None:
            return PlanEntry(Action.CONFLICT, keys.readable(name), 0, "", difference.problem.message)
        if kind is Kind.GONE:
            assert known is not None
            reason = "no longer at the source, was never delivered"
            if receipt is not None:
                what = "its marker was renewed: not listed any more" if renewed else "stays as delivered"
                reason = f"no longer at the source; {what}"
            return PlanEntry(Action.SKIP, name, known.size, known.key, reason)
        assert difference.file is not None
        size = difference.file.size
        if kind is Kind.DELIVERED and not _swept(difference):
            assert known is not None
            removed = receipt is not None and receipt.removed
            reason = "delivered, removed by a cleanup since" if removed else "delivered, unchanged"
            return PlanEntry(Action.SKIP, name, size, known.key, reason)
        try:
            key = self._key(difference, revision)
        except keys.IllegalName as error:
            return PlanEntry(Action.CONFLICT, keys.readable(name), size, "", str(error))
        return PlanEntry(Action.UPLOAD, name, size, key, _REASONS[kind])


_REASONS = {
    Kind.NEW: "new",
    Kind.PENDING: "planned before, not delivered yet",
    Kind.MOVED_ON: "planned before, changed since",
    Kind.CHANGED: "changed since it was delivered: a correction",
    Kind.DELIVERED: "delivered before, but no manifest names it",
}


def supersede(context: Context, lease: Lease, delivery: Delivery, why: str) -> None:
    """Close an unfinished revision: the next one replaces it."""
    revision = delivery.revision
    reason = f"{why} before revision {revision} was complete; revision {revision + 1} takes over"
    failure = Failure(SUPERSEDED, "vendor", reason)
    now = context.clock.now()
    closed = replace(delivery, status=Status.FAILED, failure=failure, updated_at=now)
    context.ledger.deliveries.update(lease, closed)


def same_content(source: Source, file: SourceFile, known: Receipt | DeliveredKey) -> bool:
    """Return whether the file has the delivered content, by its checksum."""
    if file.size != known.size or known.checksum is None:
        return False
    try:
        with source.open(file) as body:
            value = checksums.of(body, known.checksum.algorithm)
            body.check_unchanged()
    except SourceError:
        return False  # it is being written, or cannot be read: sending it reports why
    return value == known.checksum.value


def own_ids(delivery: Delivery) -> set[str]:
    """Return the IDs of this delivery and of earlier revisions: the tokens of our objects."""
    return {
        delivery_id(delivery.customer, delivery.feed, delivery.period, revision)
        for revision in range(1, delivery.revision + 1)
    }


def delivery_id(customer: str, feed: str, period: str, revision: int) -> str:
    """Return the delivery's ID and token, which identify our objects even without the ledger."""
    return hashlib.sha256("\0".join((customer, feed, period, str(revision))).encode()).hexdigest()[:32]


def _carried(difference: Difference) -> PlannedObject:
    assert difference.known is not None
    return difference.known._replace(carried=True)


def _never_published(difference: Difference) -> bool:
    """Return whether only revisions without a manifest have delivered it."""
    return difference.receipt is not None and difference.receipt.superseded


def _swept(difference: Difference) -> bool:
    """Return whether we deleted it because no manifest named it, not because it expired."""
    return _never_published(difference) and difference.receipt is not None and difference.receipt.removed
