"""Our durable record."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Protocol

from xmode_transfer.domain.acts import Act, ActKind, Removal, RemovalOutcome
from xmode_transfer.domain.alerts import Alert
from xmode_transfer.domain.daemons import DaemonRecord
from xmode_transfer.domain.findings import AccessReport
from xmode_transfer.domain.looks import Look, Survey
from xmode_transfer.domain.notices import Notice, NoticeStatus
from xmode_transfer.domain.records import (
    Capabilities,
    DeliveredKey,
    Delivery,
    Holding,
    Lease,
    MissingObject,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    SourceFile,
    Status,
    UploadedPart,
    UploadStatus,
)
from xmode_transfer.domain.verification import Discrepancy, Scope


class Ledger(Protocol):
    """Our durable record. What a method has acknowledged survives kill -9 and power loss.

    Methods that take a ``lease`` raise LeaseLost, and write nothing, when the lease has been taken over.
    Every method may raise LedgerLocked, LedgerReadOnly, LedgerFull or LedgerCorrupt; then nothing of that
    call was written. Thread-safe.
    """

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        """Takes the lease, if nobody holds it, if it has expired, or if its holder is known to be dead.
        Raises AlreadyRunning naming the holder and since when."""
        ...

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease:
        """Prolongs a lease that is still ours."""
        ...

    def release(self, lease: Lease) -> None:
        """Gives it back; no error when it is no longer ours."""
        ...

    def leases(self, name: str) -> list[Lease]:
        """The leases that are held now, by name: the one of that name, or those whose names begin with it,
        where it ends in ``/``. One that anybody might claim is not held."""
        ...

    def latest(self, customer: str, feed: str, period: str) -> Delivery | None:
        """The delivery with the highest revision."""
        ...

    def deliveries(
        self,
        customer: str | None = None,
        feed: str | None = None,
        period: str | None = None,
        statuses: Iterable[Status] | None = None,
        limit: int | None = None,
        since: str | None = None,
    ) -> list[Delivery]:
        """Newest first (by update). ``since`` is the label of the oldest period that is wanted; labels of one
        kind sort as periods do."""
        ...

    def delivery(self, delivery_id: str) -> Delivery | None:
        """The delivery of that ID."""
        ...

    def create_delivery(self, lease: Lease, delivery: Delivery) -> None:
        """Adds it. Idempotent for the same ID."""
        ...

    def update_delivery(self, lease: Lease, delivery: Delivery) -> None:
        """Overwrites status, counts, manifest, failure and times."""
        ...

    def calendar(self, customer: str, feed: str | None = None, since: str | None = None) -> list[Delivery]:
        """The delivery with the highest revision of each period of a customer, in the order of feeds and
        periods; ``since`` is the label of the oldest period that is asked for. A revision above 1 that is
        delivered is a correction (or a drop folder's next batch). Together with ``Look.due`` and
        ``Look.waiting`` of the survey this is what a calendar shows: delivered, corrected, under way or
        refused, due and waiting."""
        ...

    def record_look(self, look: Look) -> Look:
        """Remembers a look at a feed's source for a customer, in place of the one before; answers it with
        what the one before knew (``Look.after``). A delivery of a due period that is closed later takes that
        period out again."""
        ...

    def last_look(self, customer: str, feed: str) -> Look | None: ...

    def survey(self) -> Survey:
        """How every subscription stands, in one consistent view. Costs by the number of subscriptions and of
        what is open, not by the length of the history."""
        ...

    def alerts(self) -> list[Alert]:
        """All that are remembered, in the order of fingerprints."""
        ...

    def record_alerts(
        self, lease: Lease, changed: Iterable[Alert] = (), forgotten: Iterable[str] = ()
    ) -> None:
        """Adds or overwrites alerts; forgets those of these fingerprints. All of it or nothing."""
        ...

    def notices(
        self, customer: str | None = None, statuses: Iterable[NoticeStatus] | None = None
    ) -> list[Notice]:
        """What customers were told, or are to be, in their buckets; the oldest first."""
        ...

    def record_notices(self, lease: Lease, changed: Iterable[Notice]) -> None:
        """Adds notices, or overwrites those of the same mark. All of it or nothing."""
        ...

    def corrections(self, since: datetime) -> list[Delivery]:
        """Deliveries, delivered since then, that replaced one that had been; the oldest first. Batches of
        drop folders are none."""
        ...

    def plan_objects(self, lease: Lease, delivery_id: str, objects: Iterable[PlannedObject]) -> int:
        """Adds or replaces planned objects by name, in bulk, streaming; returns their number. An object that
        has a receipt is left as it is. ``carried`` objects must have had a receipt in an earlier revision,
        which is copied."""
        ...

    def restamp(
        self, lease: Lease, customer: str, feed: str, period: str, files: Iterable[SourceFile]
    ) -> None:
        """The files' content is what was delivered, though their times changed: remembers the new
        ``modified_ns`` and ``identity`` on the objects that ``delivered_names`` answers for these names."""
        ...

    def forget_planned(self, lease: Lease, delivery_id: str, names: Iterable[str]) -> int:
        """Takes planned objects without a receipt out of the plan again (their source file is gone)."""
        ...

    def last_proof(self, delivery_id: str) -> datetime | None:
        """When the newest of the delivery's receipts says that its object was delivered; None when it has no
        receipt."""
        ...

    def send_again(self, lease: Lease, delivery_id: str, objects: Sequence[PlannedObject]) -> None:
        """Their objects are gone: takes their receipts out of the delivery, so that they are pending, and
        replaces what was planned under their names."""
        ...

    def leave_out(self, lease: Lease, delivery_id: str, gone: Sequence[MissingObject]) -> None:
        """Takes them, and their receipts, out of the delivery, and remembers that its manifest does not list
        them. What is planned again under such a name is in the delivery again."""
        ...

    def left_out(self, delivery_id: str) -> Iterator[MissingObject]:
        """What ``leave_out`` took out of the delivery, in the order of names, streamed."""
        ...

    def spread_receipts(self, lease: Lease, delivery_id: str) -> None:
        """Gives the delivery's receipts to all other revisions of the period that name the same keys: what
        was delivered again under its key is another object now, for all of them."""
        ...

    def totals(self, delivery_id: str) -> tuple[int, int]:
        """How many objects are planned, and their bytes."""
        ...

    def planned(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt | None]]:
        """The delivery's objects in the order of their names, streamed, each with its receipt if it has
        one."""
        ...

    def proven(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt]]:
        """As ``planned``, those that have a receipt. A receipt says whether its object was removed since."""
        ...

    def planned_page(
        self,
        delivery_id: str,
        *,
        after: str = "",
        beginning: str = "",
        containing: str = "",
        limit: int = 100,
    ) -> list[tuple[PlannedObject, Receipt | None]]:
        """As ``planned``, but only the first ``limit`` objects whose names come after ``after``, begin with
        ``beginning``, and have ``containing`` somewhere in them, in whatever case. A receipt
        says whether its object was removed since."""
        ...

    def pending(self, delivery_id: str) -> Iterator[PlannedObject]:
        """The planned objects without a receipt, in the order of their names, streamed. What is acknowledged
        while the iterator runs may or may not still appear."""
        ...

    def delivered_names(
        self, customer: str, feed: str, period: str
    ) -> Iterator[tuple[PlannedObject, Receipt]]:
        """For every source name ever delivered in that (customer, feed, period), the object of its highest
        revision, in the order of names, streamed. A drop folder's plan is made against this. A receipt says
        whether its object was removed since, and whether its revision was superseded."""
        ...

    def delivered_keys(
        self, customer: str, feed: str | None = None, period: str | None = None
    ) -> Iterator[DeliveredKey]:
        """Every key that was delivered to the customer (or of one feed, one period of it), manifests
        included, once each, in the order of keys, streamed. What a cleanup has removed is left out, until it
        is delivered again."""
        ...

    def superseded_keys(
        self, customer: str, feed: str | None = None, *, refused: bool = False
    ) -> list[DeliveredKey]:
        """Keys of revisions that were superseded, where a later one is delivered: those that no other
        revision names and that were not removed, by feed, period and key. ``refused`` also answers those that
        the bucket did not let us remove."""
        ...

    def holdings(self, customer: str) -> list[Holding]:
        """What the destination should hold of each delivery, by feed, period and revision. Deliveries of
        which nothing is left, not even the manifest, are not named."""
        ...

    def record_receipt(self, lease: Lease, delivery_id: str, receipt: Receipt) -> Future[None]:
        """Group commit: the future is done when the receipt is on disk."""
        ...

    def start_run(self, lease: Lease, run: Run) -> None: ...

    def finish_run(self, lease: Lease, run: Run) -> None: ...

    def runs(self, customer: str | None = None, limit: int = 20, delivery_id: str | None = None) -> list[Run]:
        """Newest first."""
        ...

    def open_upload(self, lease: Lease, upload: MultipartUpload) -> None:
        """Journals a multipart upload before its first part."""
        ...

    def record_part(self, lease: Lease, upload_id: str, part: UploadedPart) -> Future[None]:
        """Group commit, like ``record_receipt``."""
        ...

    def close_upload(self, lease: Lease, upload_id: str, status: UploadStatus) -> None: ...

    def uploads(
        self,
        customer: str | None = None,
        delivery_id: str | None = None,
        statuses: Iterable[UploadStatus] | None = None,
    ) -> list[MultipartUpload]:
        """With their parts, oldest first."""
        ...

    def start_act(self, lease: Lease, act: Act) -> None:
        """Records that something is being done to a customer's bucket, before the first request."""
        ...

    def finish_act(self, lease: Lease, act: Act) -> None:
        """Overwrites everything but its ID."""
        ...

    def acts(
        self, customer: str | None = None, kind: ActKind | None = None, limit: int | None = 20
    ) -> list[Act]:
        """Newest first (by start)."""
        ...

    def record_removals(self, lease: Lease, act_id: str, removals: Sequence[Removal]) -> None:
        """Adds or replaces an act's removals by key, all in one commit. Their periods must be known."""
        ...

    def removals(
        self,
        act_id: str,
        feed: str | None = None,
        period: str | None = None,
        outcomes: Iterable[RemovalOutcome] | None = None,
    ) -> Iterator[Removal]:
        """An act's removals, period by period and in the order of keys, streamed. Those that are recorded
        while the iterator runs may or may not appear with what they were before."""
        ...

    def settle_removals(
        self, lease: Lease, acts: Sequence[Act], keys: Iterable[str], outcome: RemovalOutcome, at: datetime
    ) -> set[str]:
        """Of these keys, those that one of the (unfinished) acts had planned to remove get that outcome;
        answers which they were. The acts are one customer's."""
        ...

    def forget_planned_removals(self, lease: Lease, act_id: str) -> int:
        """Takes out of an act what it had only planned."""
        ...

    def capabilities(self, customer: str) -> Capabilities: ...

    def learn(self, customer: str, capabilities: Capabilities) -> None:
        """Remembers what is not None; the rest stays as it was."""
        ...

    def record_check(self, report: AccessReport) -> None:
        """Adds a check of a customer's access to the history. Fixes are not kept: they are made anew from the
        cause and the customer's file, which the ledger does not repeat."""
        ...

    def last_check(self, customer: str) -> AccessReport | None:
        """The newest, its findings in their order and without fixes."""
        ...

    def checks(self, customer: str | None = None, limit: int = 20) -> list[AccessReport]:
        """Newest first, as ``last_check``."""
        ...

    def note_daemon(self, lease: Lease, daemon: DaemonRecord) -> None:
        """Adds the daemon, or overwrites what is known of that holder. Daemons that ended long ago are
        forgotten."""
        ...

    def daemons(self, limit: int = 10) -> list[DaemonRecord]:
        """The one that ticked last, first."""
        ...

    def served(self) -> dict[tuple[str, str], datetime]:
        """By customer and work, the time of the schedule for which the customer was visited last."""
        ...

    def serve(self, customer: str, work: str, served_at: datetime) -> None:
        """Remembers such a time; it replaces the one before."""
        ...

    def pass_over(self, customer: str, feed: str, markers: Mapping[str, str], passed_at: datetime) -> None:
        """Remembers periods (by label, with the source's completeness mark) that are not delivered unless
        somebody names them, or the source declares them anew. Idempotent."""
        ...

    def record_discrepancies(self, customer: str, scope: Scope, found: Iterable[Discrepancy]) -> None:
        """What a verification of the scope found, in place of what was known of it; the survey has it. What
        was found before keeps since when."""
        ...

    def passed_over(self, customer: str, feed: str) -> dict[str, str]:
        """Such periods by label, with the mark for which they were passed over."""
        ...

    def prove_writable(self) -> None:
        """Raises what any write would raise now. Commits to the disk, and leaves nothing behind."""
        ...

    def hurry(self) -> None:
        """The process is to end soon: from now on nobody waits for a ledger that is away. Every method goes
        on with one last attempt, also in other threads and where it waits already, and answers, or raises
        LedgerUnreachable, within seconds. Idempotent; waits for nothing."""
        ...

    def close(self) -> None:
        """Flushes what is queued. Idempotent."""
        ...
