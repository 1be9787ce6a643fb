"""Publish, for one customer and period, a revision without what a recall has withdrawn."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

from xmode_transfer import telemetry
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Configuration, Customer, CustomerState, Feed, Subscription
from xmode_transfer.model.errors import Defect, SchemaChanged, SourceError, TableRefused
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
)
from xmode_transfer.sources.interface import PeriodState
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import publishing, tables
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.large import LargeObjects
from xmode_transfer.transfer.planning import Planner, delivery_id, own_ids, supersede
from xmode_transfer.transfer.rechecking import Recheck
from xmode_transfer.transfer.sending import Sender, receipt_of
from xmode_transfer.transfer.withdrawing import is_file_withdrawn, is_withdrawn

MaySend = Callable[[Feed, PeriodState], bool]

WHEN_STOPPED = "the recall continues by itself, or when it is called again"
_WHY = "a recall withdrew something of it"


@dataclass(slots=True)
class Found:
    """What the destination should still have of a period: the objects that are withdrawn, the revisions that
    list them, and the manifests by key."""

    objects: list[DeliveredKey]
    listing: set[int]
    manifests: dict[str, DeliveredKey]


@dataclass(frozen=True, slots=True)
class Replacing:
    """One period of a customer. ``contents`` is what this recall withdraws, ``lease`` the delivery's."""

    context: Context
    configuration: Configuration
    customer: Customer
    recall: Recall
    may_send: MaySend
    store: ObjectStore
    label: str
    contents: Contents
    lease: Lease

    @property
    def feed(self) -> str:
        return self.recall.feed

    @property
    def prefix(self) -> str:
        return self.customer.destination.prefix

    @property
    def is_drop_folder(self) -> bool:
        return self.label == PeriodKind.NONE

    def deliveries(self) -> list[Delivery]:
        found = self.context.ledger.deliveries.find(self.customer.name, self.feed, self.label)
        return sorted(found, key=lambda item: item.revision)

    def withdrawn(self) -> Contents:
        """Return what any recall has withdrawn."""
        return self.context.ledger.recalls.withdrawn(self.customer.name, self.feed, self.label)

    def found(self) -> Found:
        found = Found([], set(), {})
        for known in self.context.ledger.keys.delivered(self.customer.name, self.feed, self.label):
            if known.is_manifest:
                found.manifests[known.key] = known
            elif is_withdrawn(known, self.contents):
                found.objects.append(known)
                found.listing.update(known.named_by)
        return found

    def find_unrecorded(self) -> None:
        """Records receipts for withdrawn objects that a process put before it was killed."""
        objects = self.context.ledger.objects
        for delivery in self.deliveries():
            for planned in objects.pending(delivery.id) if delivery.status not in FINISHED else ():
                known = self.contents.get(planned.name)
                info = self.store.head(planned.key) if known and planned.key.startswith(self.prefix) else None
                if (
                    known is None
                    or info is None
                    or info.checksum is None
                    or info.token not in own_ids(delivery)
                ):
                    continue
                if Content(info.size, info.checksum) in known:
                    objects.record_receipt(self.lease, delivery.id, receipt_of(planned, info, None)).result()

    def replace_manifests(self) -> None:
        """Publishes a revision instead of the one that readers use; of a drop folder, one for each batch."""
        latest = self.deliveries()[-1]
        if latest.status not in FINISHED and not latest.is_superseded:
            bases = self._to_replace()
            corrected = self._corrected() if bases else {}
            if bases and self._continues(latest, bases[0], corrected):
                self._publish(bases[0], latest, corrected)
            elif bases or self._has_withdrawn(latest):
                supersede(self.context, self.lease, latest, _WHY)
                latest = self.deliveries()[-1]
        if latest.is_superseded:
            self._note_published(self._next())
        bases = self._to_replace()
        if bases and self.is_drop_folder and any(self._never_published()):
            # What only superseded batches have would be deleted once a later one is published.
            self._publish_next(None, {})
        for base in bases:
            self._publish_next(base, self._corrected())

    def _note_published(self, delivery: Delivery) -> None:
        args = (self.context, self.customer, self.store, delivery, self.lease)
        publishing.note_published(*args)
        for earlier in self.deliveries():
            if earlier.is_superseded and earlier.replaces and earlier.manifest_key is None:
                self.context.ledger.objects.clear(self.lease, earlier.id)  # other batches list them

    def _to_replace(self) -> list[Delivery]:
        """Return the published deliveries with a manifest that lists what is withdrawn: the newest only, but
        of a drop folder all that no other one replaces."""
        found = self.found()
        published = [
            item
            for item in self.deliveries()
            if item.manifest_key is not None
            and (item.status is Status.FAILED or item.manifest_key in found.manifests)
        ]
        replaced = {number for item in published for number in item.replaces or ()}
        if not self.is_drop_folder:
            published = published[-1:]
        return [
            item
            for item in published
            if item.revision in found.listing - replaced and str(item.manifest_key).startswith(self.prefix)
        ]

    def _has_withdrawn(self, delivery: Delivery) -> bool:
        contents = self.withdrawn()
        return any(
            planned.name in contents if receipt is None else is_withdrawn(receipt, contents)
            for planned, receipt in self.context.ledger.objects.planned(delivery.id)
        )

    def _continues(self, latest: Delivery, base: Delivery, corrected: Mapping[str, SourceFile]) -> bool:
        """Return whether an unfinished revision is what a recall that was killed had planned."""
        if latest.replaces != self._replaces(base):
            return False
        there = ((item.name, item.key) for item, _ in self.context.ledger.objects.planned(latest.id))
        wanted = ((item.name, item.key) for item in self._planned(base, latest, corrected))
        return all(one == other for one, other in zip_longest(there, wanted))

    def _replaces(self, base: Delivery | None) -> tuple[int, ...] | None:
        if base is None or not self.is_drop_folder:
            return None
        return tuple(sorted({base.revision, *(base.replaces or ())}))

    def _next(self, base: Delivery | None = None) -> Delivery:
        latest, now = self.deliveries()[-1], self.context.clock.now()
        of, revision = (self.customer.name, self.feed, self.label), latest.revision + 1
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
        context, ledger, store = self.context, self.context.ledger, self.store
        objects = sum(1 for _ in self._planned(base, delivery, corrected))
        delivery = replace(delivery, object_count=objects)
        ledger.deliveries.create(self.lease, delivery)
        ledger.objects.plan(self.lease, delivery.id, self._planned(base, delivery, corrected))
        if base is not None:
            contents = self.withdrawn()
            left_out = [item for item in ledger.objects.left_out(base.id) if not is_withdrawn(item, contents)]
            ledger.objects.leave_out(self.lease, delivery.id, left_out)
        planner = self._planner(delivery)
        delivery = replace(delivery, status=Status.RUNNING, attempts=delivery.attempts + 1, failure=None)
        delivery = planner.counted(self.lease, delivery)
        before = ledger.objects.last_proof(delivery.id)
        args = (context, self.customer, store, delivery, self.lease)
        if corrected:
            try:
                tables.prepare(planner, store, delivery, self.lease)
            except (SchemaChanged, TableRefused) as error:
                supersede(context, self.lease, delivery, error.message)
                return False
            sender = Sender(context, self.customer, planner.feed, planner.source, store, delivery, self.lease)
            sent = sender.send(ledger.objects.pending(delivery.id))
            if sent.halted is not None:
                raise sent.halted
            context.check_stop(WHEN_STOPPED)
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
        feed = self._feed()
        subscription = self.customer.subscription(feed) if feed is not None else Subscription()
        layout = self.customer.layout(feed) if feed is not None else None
        if publishing.publish(*args[:3], delivery, self.lease, subscription, layout) is None:
            supersede(context, self.lease, delivery, _WHY)
            return False
        return True

    def _planned(
        self, base: Delivery | None, delivery: Delivery, corrected: Mapping[str, SourceFile]
    ) -> Iterator[PlannedObject]:
        contents, objects = self.withdrawn(), self.context.ledger.objects
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
        contents = self.withdrawn()
        delivered = self.context.ledger.objects.delivered(self.customer.name, self.feed, self.label)
        for planned, receipt in delivered:
            if receipt.superseded and not receipt.removed and not is_withdrawn(receipt, contents):
                yield planned

    def _planner(self, delivery: Delivery) -> Planner:
        """Return what knows the period's keys. A feed that is gone has no partition."""
        feed, period = self._feed(), period_labelled(self.label)
        assert period is not None
        if feed is None:
            feed = Feed(name=self.feed, source="/nowhere", period=PeriodKind.NONE)
        state = PeriodState(period, complete=True, reason="", marker=delivery.marker)
        return Planner(self.context, self.customer, feed, state, self.context.sources(feed))

    def _feed(self) -> Feed | None:
        """Return the feed, if it is configured and still has such periods."""
        feed, period = self.configuration.feeds.get(self.feed), period_labelled(self.label)
        return feed if feed is not None and period is not None and feed.period is period.kind else None

    def _corrected(self) -> dict[str, SourceFile]:
        """Return withdrawn files that the source has with other content, if they may be sent. A drop folder's
        are sent by the next run."""
        feed = self.configuration.feeds.get(self.feed)
        active = self.customer.state is CustomerState.ACTIVE and self.feed in self.customer.feeds
        if feed is None or self.is_drop_folder or not active:
            return {}
        contents = self.withdrawn()
        try:
            period, source = Period.parse(self.label, feed.period), self.context.sources(feed)
            state = source.state(period)
            if state is None or not state.complete or not self.may_send(feed, state):
                return {}
            named = (item for item in source.scan(period) if item.name in contents)
            files = [item for item in named if isinstance(item, SourceFile)]
            return {item.name: item for item in files if not is_file_withdrawn(source, item, contents)}
        except (SourceError, ValueError) as error:
            telemetry.warn(Event.SOURCE_FAILED, message=str(error))
            return {}
