"""The ledger in an SQL database: the port ``Ledger``, method by method."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from xmode_transfer.adapters.ledger import (
    access,
    acts,
    deliveries,
    keys,
    leases,
    looks,
    objects,
    schema,
    uploads,
)
from xmode_transfer.adapters.ledger.database import Database
from xmode_transfer.adapters.ledger.engine import connect
from xmode_transfer.adapters.ledger.fleet import SWEEP_SECONDS, Queue, SqlFleet
from xmode_transfer.adapters.ledger.statements import Statements
from xmode_transfer.adapters.ledger.tables import PART
from xmode_transfer.adapters.ledger.watched import Watched
from xmode_transfer.adapters.ledger.writer import GroupCommit
from xmode_transfer.domain.acts import Act, ActKind, Removal, RemovalOutcome
from xmode_transfer.domain.findings import AccessReport
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

if TYPE_CHECKING:
    from xmode_transfer.ports import Clock


def open_ledger(
    url: str, clock: "Clock", *, create: bool = True, holder: str | None = None, waits: bool = True
) -> "SqlLedger":
    """Opens the ledger at a URL such as ``sqlite:////var/lib/xmode/ledger.db`` or
    ``postgresql://xmode@db/xmode`` and brings its schema up to date.

    A relative path is relative to the working directory. ``?timeout=5`` waits that many seconds for another
    process's lock instead of 30. Without ``create`` the ledger must be there already. ``holder`` is the name
    under which this process will claim leases (``processes.this_process()`` when left out): of this one alone
    another machine can see at once that it has died. Unless ``waits``, a server that says that it is starting
    is as one that is not there. Raises ConfigError for a URL that is none, LedgerTooNew
    when a later version made the ledger, and the other LedgerErrors.
    """
    database = connect(url, create=create, holder=holder, waits=waits)
    try:
        schema.prepare(database, create=create)
    except BaseException:
        database.close()
        raise
    return SqlLedger(database, clock)


class SqlLedger(Watched):
    """Passes the contract suite of the port ``Ledger``; ``open_ledger`` makes it."""

    def __init__(self, database: Database, clock: "Clock") -> None:
        super().__init__(database, GroupCommit(database, leases.check))
        self._clock = clock
        self._statements = Statements(database)
        self._receipts = objects.Receipts(self._statements)
        self._parts = uploads.Parts(self._statements)

    def _held(self, lease: Lease, work: Callable[[Connection], None]) -> None:
        """Does the work in one transaction, if the lease is still ours."""

        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            work(connection)

        self._writer.call(action)

    # --- Leases

    def claim(self, name: str, holder: str, ttl_seconds: float) -> Lease:
        presence, attempt = self._database.presence(holder), leases.Attempt()
        return self._writer.call(
            lambda c: leases.claim(
                c, self._database, name, holder, presence, self._clock, ttl_seconds, attempt=attempt
            )
        )

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease:
        presence = self._database.presence(lease.holder)
        return self._writer.call(
            lambda c: leases.renew(c, self._database, lease, presence, self._clock, ttl_seconds)
        )

    def release(self, lease: Lease) -> None:
        self._writer.call(lambda c: leases.release(c, lease))

    def leases(self, name: str) -> list[Lease]:
        return self._database.read(lambda c: leases.held(c, self._database, name, self._clock))

    # --- Deliveries

    def latest(self, customer: str, feed: str, period: str) -> Delivery | None:
        return self._database.read(lambda c: deliveries.latest(c, customer, feed, period))

    def deliveries(
        self,
        customer: str | None = None,
        feed: str | None = None,
        period: str | None = None,
        statuses: Iterable[Status] | None = None,
        limit: int | None = None,
        since: str | None = None,
    ) -> list[Delivery]:
        wanted = None if statuses is None else list(statuses)
        return self._database.read(
            lambda c: deliveries.newest(c, customer, feed, period, wanted, limit, since)
        )

    def delivery(self, delivery_id: str) -> Delivery | None:
        return self._database.read(lambda c: deliveries.by_id(c, delivery_id))

    def create_delivery(self, lease: Lease, delivery: Delivery) -> None:
        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            deliveries.create(connection, self._database, delivery)

        self._writer.call(action)

    def update_delivery(self, lease: Lease, delivery: Delivery) -> None:
        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            deliveries.overwrite(connection, delivery)
            looks.settle(connection, self._database, delivery)

        self._writer.call(action)

    # --- The plan and the receipts

    def plan_objects(self, lease: Lease, delivery_id: str, objects_: Iterable[PlannedObject]) -> int:
        with self._database.repeatable(objects_) as planned:
            return self._database.patiently(lambda: self._plan(lease, delivery_id, planned))

    def _plan(self, lease: Lease, delivery_id: str, planned: Iterable[PlannedObject]) -> int:
        with self._database.connected() as connection:
            try:
                count = objects.stage(connection, self._statements, planned)
                with self._database.begin_writing(connection):
                    leases.check(connection, lease)
                    objects.merge_stage(connection, self._statements, delivery_id)
            except BaseException:
                connection.invalidate()  # what is staged goes with the connection
                raise
            if not connection.invalidated:
                objects.clear_stage(connection)
        return count

    def restamp(
        self, lease: Lease, customer: str, feed: str, period: str, files: Iterable[SourceFile]
    ) -> None:
        touched = list(files)

        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            objects.restamp(connection, self._statements, customer, feed, period, touched)

        self._writer.call(action)

    def forget_planned(self, lease: Lease, delivery_id: str, names: Iterable[str]) -> int:
        gone = list(names)

        def action(connection: Connection) -> int:
            leases.check(connection, lease)
            return objects.forget(connection, delivery_id, gone)

        return self._writer.call(action)

    def last_proof(self, delivery_id: str) -> datetime | None:
        return self._database.read(lambda c: objects.last_proof(c, delivery_id))

    def send_again(self, lease: Lease, delivery_id: str, objects_: Sequence[PlannedObject]) -> None:
        self._held(lease, lambda c: objects.send_again(c, self._statements, delivery_id, objects_))

    def leave_out(self, lease: Lease, delivery_id: str, gone: Sequence[MissingObject]) -> None:
        self._held(lease, lambda c: objects.leave_out(c, delivery_id, gone))

    def left_out(self, delivery_id: str) -> Iterator[MissingObject]:
        return objects.left_out(self._database, self._statements, delivery_id)

    def spread_receipts(self, lease: Lease, delivery_id: str) -> None:
        self._held(lease, lambda c: objects.spread_receipts(c, self._statements, delivery_id))

    def totals(self, delivery_id: str) -> tuple[int, int]:
        return self._database.read(lambda c: objects.totals(c, delivery_id))

    def planned(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt | None]]:
        return objects.planned(self._database, self._statements, delivery_id)

    def proven(self, delivery_id: str) -> Iterator[tuple[PlannedObject, Receipt]]:
        return objects.proven(self._database, self._statements, delivery_id)

    def planned_page(
        self,
        delivery_id: str,
        *,
        after: str = "",
        beginning: str = "",
        containing: str = "",
        limit: int = 100,
    ) -> list[tuple[PlannedObject, Receipt | None]]:
        return objects.planned_page(
            self._database, self._statements, delivery_id, after, beginning, containing, limit
        )

    def pending(self, delivery_id: str) -> Iterator[PlannedObject]:
        return objects.pending(self._database, self._statements, delivery_id)

    def delivered_names(
        self, customer: str, feed: str, period: str
    ) -> Iterator[tuple[PlannedObject, Receipt]]:
        return objects.delivered(self._database, self._statements, customer, feed, period)

    def delivered_keys(
        self, customer: str, feed: str | None = None, period: str | None = None
    ) -> Iterator[DeliveredKey]:
        return keys.delivered_keys(self._database, customer, feed, period)

    def superseded_keys(
        self, customer: str, feed: str | None = None, *, refused: bool = False
    ) -> list[DeliveredKey]:
        return self._database.read(lambda c: keys.superseded(c, customer, feed, refused=refused))

    def holdings(self, customer: str) -> list[Holding]:
        return acts.holdings(self._database, customer)

    def record_receipt(self, lease: Lease, delivery_id: str, receipt: Receipt) -> Future[None]:
        return self._writer.record(self._receipts, lease, delivery_id, objects.receipt_row(receipt))

    # --- Runs

    def start_run(self, lease: Lease, run: Run) -> None:
        self._held(lease, lambda c: deliveries.start_run(c, self._database, run))

    def finish_run(self, lease: Lease, run: Run) -> None:
        self._held(lease, lambda c: deliveries.finish_run(c, run))

    def runs(self, customer: str | None = None, limit: int = 20, delivery_id: str | None = None) -> list[Run]:
        return self._database.read(lambda c: deliveries.newest_runs(c, customer, limit, delivery_id))

    # --- Multipart uploads

    def open_upload(self, lease: Lease, upload: MultipartUpload) -> None:
        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            uploads.open_upload(connection, self._database, upload)

        self._writer.call(action)

    def record_part(self, lease: Lease, upload_id: str, part: UploadedPart) -> Future[None]:
        return self._writer.record(self._parts, lease, upload_id, PART.stored(part))

    def close_upload(self, lease: Lease, upload_id: str, status: UploadStatus) -> None:
        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            uploads.close_upload(connection, upload_id, status)

        self._writer.call(action)

    def uploads(
        self,
        customer: str | None = None,
        delivery_id: str | None = None,
        statuses: Iterable[UploadStatus] | None = None,
    ) -> list[MultipartUpload]:
        wanted = None if statuses is None else list(statuses)
        return self._database.read(lambda c: uploads.found(c, customer, delivery_id, wanted))

    # --- Acts

    def start_act(self, lease: Lease, act: Act) -> None:
        self._held(lease, lambda c: acts.start(c, self._database, act))

    def finish_act(self, lease: Lease, act: Act) -> None:
        self._held(lease, lambda c: acts.finish(c, act))

    def acts(
        self, customer: str | None = None, kind: ActKind | None = None, limit: int | None = 20
    ) -> list[Act]:
        return self._database.read(lambda c: acts.newest(c, customer, kind, limit))

    def record_removals(self, lease: Lease, act_id: str, removals: Sequence[Removal]) -> None:
        def action(connection: Connection) -> None:
            leases.check(connection, lease)
            acts.record(connection, self._statements, act_id, removals)

        self._writer.call(action)

    def removals(
        self,
        act_id: str,
        feed: str | None = None,
        period: str | None = None,
        outcomes: Iterable[RemovalOutcome] | None = None,
    ) -> Iterator[Removal]:
        return acts.of_act(self._database, act_id, feed, period, outcomes)

    def settle_removals(
        self,
        lease: Lease,
        acts_: Sequence[Act],
        keys_: Iterable[str],
        outcome: RemovalOutcome,
        at: datetime,
    ) -> set[str]:
        if not acts_:
            return set()
        named = list(keys_)

        def action(connection: Connection) -> set[str]:
            leases.check(connection, lease)
            ids = [act.id for act in acts_]
            return acts.settle(connection, acts_[0].customer, named, outcome, at, ids)

        return self._writer.call(action)

    def forget_planned_removals(self, lease: Lease, act_id: str) -> int:
        def action(connection: Connection) -> int:
            leases.check(connection, lease)
            return acts.forget_planned(connection, act_id)

        return self._writer.call(action)

    # --- What destinations allow

    def capabilities(self, customer: str) -> Capabilities:
        return self._database.read(lambda c: deliveries.known_capabilities(c, customer))

    def learn(self, customer: str, capabilities: Capabilities) -> None:
        self._writer.call(lambda c: deliveries.learn(c, self._database, customer, capabilities))

    def record_check(self, report: AccessReport) -> None:
        self._writer.call(lambda c: access.record(c, report))

    def last_check(self, customer: str) -> AccessReport | None:
        found = self._database.read(lambda c: access.newest(c, customer, 1))
        return found[0] if found else None

    def checks(self, customer: str | None = None, limit: int = 20) -> list[AccessReport]:
        return self._database.read(lambda c: access.newest(c, customer, limit))

    # --- The fleet

    def fleet(self, queue: Queue, *, sweep_seconds: float = SWEEP_SECONDS) -> SqlFleet:
        """The round of the fleet in this ledger, with ``queue`` to wake its workers. It is open as long as
        the ledger is."""
        return SqlFleet(self._database, self._writer, self._clock, queue, sweep_seconds=sweep_seconds)

    # --- The ledger itself

    def check(self) -> list[str]:
        """What the database finds wrong with itself, a line each; empty when all is well. Reads the whole
        ledger."""
        return self._database.problems()

    def prove_writable(self) -> None:
        self._writer.call(lambda c: leases.write_and_take_back(c, self._database))

    def hurry(self) -> None:
        self._database.hurry()

    def close(self) -> None:
        self._database.hurry()
        self._writer.close()
        self._database.close()
