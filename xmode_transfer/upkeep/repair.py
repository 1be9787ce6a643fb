"""Repair a destination: deliver deleted objects again, as long as the source has them.

Only a file with the delivered content is sent, and only by a create-only PUT. The new receipt replaces the
old one in every revision that lists the key.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from xmode_transfer import telemetry
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.model.errors import AlreadyRunning, ExitCode, SourceError, StoreError, XmodeError
from xmode_transfer.model.keys import count
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import DeliveredKey, Delivery, Failure, Lease, PlannedObject, SourceFile
from xmode_transfer.model.upkeep import DiscrepancyKind, Finding, OperationKind
from xmode_transfer.sources.interface import Source
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import publishing
from xmode_transfer.transfer.context import Context, begun, held, of_delivery, opened
from xmode_transfer.transfer.planning import same_content
from xmode_transfer.transfer.sending import Sender, failure_of, halts
from xmode_transfer.transfer.withdrawing import is_withdrawn, lists_withdrawn

_WHEN_STOPPED = "verify and repair again: what was repaired is recorded"
MOST_AT_ONCE = 100_000  # the keys that one call repairs; they are held in memory

FEED_GONE = "feed_gone"
SOURCE_GONE = "source_missing"
SOURCE_CHANGED = "source_changed"
NOT_WHOLE = "not_whole"
WITHDRAWN = "withdrawn"


class LeftAsItIs(NamedTuple):
    """A missing key that was not delivered again. ``cause`` is for programs."""

    known: DeliveredKey
    cause: str
    message: str


@dataclass(slots=True)
class Repaired:
    """``sent`` counts the objects and manifests that exist again, ``bytes`` the objects'."""

    operation_id: str | None = None
    sent: int = 0
    bytes: int = 0
    left: list[LeftAsItIs] = field(default_factory=list)
    failure: Failure | None = None
    exit_code: int = ExitCode.DONE

    @property
    def outcome(self) -> str:
        if self.failure is not None:
            return "interrupted" if self.exit_code == ExitCode.INTERRUPTED else "failed"
        if not self.sent:
            return "nothing"
        return "partly" if self.left else "repaired"


def repair(
    context: Context,
    configuration: Configuration,
    customer: Customer,
    findings: Iterable[Finding],
    *,
    by: str,
) -> Repaired:
    """Delivers again what a verification found missing. The result has the error that ended it early. Raises
    LedgerError, AlreadyRunning, and what ``findings`` raises."""
    result = Repaired()
    work = _Repair(context, configuration, customer, result)
    missing = work.keep(findings)
    if not missing:
        return result
    reason = f"a verification found {count(len(missing), 'key')} missing"
    with begun(context, OperationKind.REPAIR, customer.name, person=by, reason=reason) as operation:
        result.operation_id = operation.id
        size = sum(known.size or 0 for known in missing)
        context.progress.delivery_started(customer.name, "all feeds", "repair", len(missing), size)
        try:
            with telemetry.bind(customer=customer.name), opened(context, customer) as store:
                work.run(store)
        except XmodeError as error:
            result.failure, result.exit_code = failure_of(error), error.exit_code
        finally:
            context.progress.delivery_finished()
            operation.finish(
                result.outcome,
                objects=result.sent,
                size=result.bytes,
                failed=len(result.left),
                failure=result.failure,
            )
    telemetry.log(
        Event.REPAIR_FINISHED,
        customer=customer.name,
        act=result.operation_id,
        by=by,
        outcome=result.outcome,
        sent=result.sent,
        sent_bytes=result.bytes,
        left=len(result.left),
    )
    return result


@dataclass(frozen=True, slots=True)
class _Repair:
    context: Context
    configuration: Configuration
    customer: Customer
    result: Repaired
    findings: list[Finding] = field(default_factory=list)
    beyond: set[tuple[str, str]] = field(default_factory=set)

    def keep(self, findings: Iterable[Finding]) -> list[DeliveredKey]:
        """Return the missing keys to repair. Manifests wait in periods with more than one call repairs."""
        missing: list[DeliveredKey] = []
        for finding in findings:
            known = finding.known
            if finding.kind is DiscrepancyKind.MISSING:
                if len(missing) >= MOST_AT_ONCE:
                    self.beyond.add((known.feed, known.period))
                    continue
                missing.append(known)
            self.findings.append(finding)
        return missing

    def run(self, store: ObjectStore) -> None:
        of = attrgetter("known.period", "known.feed")
        for _, some in groupby(sorted(self.findings, key=of), of):
            findings = list(some)
            wanted = [finding.known for finding in findings if finding.kind is DiscrepancyKind.MISSING]
            if not wanted:
                continue
            self.context.check_stop(_WHEN_STOPPED)
            try:
                self._period(store, wanted, findings)
            except (AlreadyRunning, SourceError) as error:
                self._leave(wanted, error.code, error.message)

    def _period(
        self, store: ObjectStore, wanted: Sequence[DeliveredKey], findings: Sequence[Finding]
    ) -> None:
        """Repairs one period: objects first, then manifests, as a reader expects."""
        name, label = wanted[0].feed, wanted[0].period
        feed = self.configuration.feeds.get(name)
        if feed is None:
            why = f"the feed {name} is no longer configured, so its source is unknown"
            self._leave(wanted, FEED_GONE, why)
            return
        try:
            period = Period.parse(label, feed.period)
        except ValueError as error:
            self._leave(wanted, FEED_GONE, f"the feed's periods have changed: {error}")
            return
        ledger, customer = self.context.ledger, self.customer.name
        with (
            telemetry.bind(feed=name, period=label),
            held(ledger, of_delivery(customer, name, label), self.context.holder) as lease,
        ):
            deliveries = {item.revision: item for item in ledger.deliveries.find(customer, name, label)}
            source = self.context.sources(feed)
            contents = ledger.recalls.withdrawn(customer, name, label)
            taken = [item for item in wanted if is_withdrawn(item, contents)]
            self._leave(taken, WITHDRAWN, "a recall has withdrawn it")
            wanted = [item for item in wanted if item not in taken]
            objects = sorted((item for item in wanted if item.name), key=attrgetter("revision", "name"))
            names = {item.name for item in objects}
            files = {item.name: item for item in (source.scan(period) if names else ()) if item.name in names}
            for revision, some in groupby(objects, attrgetter("revision")):
                items = {item.name: item for item in some}
                planned = self._with_content(source, feed, items.values(), files)
                sender = Sender(self.context, self.customer, feed, source, store, deliveries[revision], lease)
                sent = sender.send(planned)
                self.result.sent += sent.uploaded + sent.adopted
                self.result.bytes += sent.uploaded_bytes
                for failed, failure in sent.failures.items():
                    self._leave([items[failed]], failure.cause, failure.message)
                if any(len(item.named_by) > 1 for item in items.values()):
                    ledger.objects.spread_receipts(lease, deliveries[revision].id)
                if sent.halted is not None:
                    raise sent.halted
                self.context.check_stop(_WHEN_STOPPED)
            # changed permissions do not make a manifest wrong
            sound = (DiscrepancyKind.MISSING, DiscrepancyKind.ACL_CHANGED)
            left = {item.known.key for item in self.result.left}
            wrong = [item.known for item in findings if item.known.name and item.kind not in sound]
            wrong += [item for item in (*taken, *objects) if item.key in left]
            broken = {revision for item in wrong for revision in item.named_by}
            beyond = (name, label) in self.beyond
            for item in wanted:
                if not item.is_manifest:
                    continue
                if beyond or item.revision in broken:
                    why = "some of the objects that it lists are missing or differ"
                    self._leave([item], NOT_WHOLE, why)
                else:
                    self._publish(store, feed, deliveries[item.revision], lease, item)

    def _with_content(
        self, source: Source, feed: Feed, items: Iterable[DeliveredKey], files: Mapping[str, object]
    ) -> Iterator[PlannedObject]:
        for item in items:
            file = files.get(item.name)
            if not isinstance(file, SourceFile):
                reason = f"{item.name} cannot be read from {feed.source}"
                if file is None:
                    reason = f"{feed.source} no longer has {item.name}"
                self._leave([item], SOURCE_GONE, reason)
            elif not same_content(source, file, item):
                self._leave([item], SOURCE_CHANGED, f"{item.name} has changed since it was delivered")
            else:
                assert item.size is not None
                yield PlannedObject(item.name, item.key, item.size, file.modified_ns, file.identity)

    def _publish(
        self, store: ObjectStore, feed: Feed, delivery: Delivery, lease: Lease, item: DeliveredKey
    ) -> None:
        if lists_withdrawn(self.context, delivery):
            self._leave([item], WITHDRAWN, "it lists objects that a recall has withdrawn")
            return
        try:
            formats = self.customer.subscription(feed), self.customer.layout(feed)
            published = publishing.publish(self.context, self.customer, store, delivery, lease, *formats)
        except StoreError as error:
            if halts(error):
                raise
            self._leave([item], error.code, error.message)
            return
        if published is None:
            self._leave([item], NOT_WHOLE, "a manifest of this revision exists and differs from the ledger")
            return
        self.context.progress.object_finished(item.key, 0, "delivered")
        self.result.sent += 1

    def _leave(self, items: Sequence[DeliveredKey], cause: str, message: str) -> None:
        self.result.left += [LeftAsItIs(item, cause, message) for item in items]
