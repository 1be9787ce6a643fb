"""Keep feeds' Delta tables in step with their deliveries (docs/tables.md).

Every change is a reconciliation under the table's lease: the files that a period should have in the table are
compared with those that it has. Therefore a repeated call after a crash adds nothing twice.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

from xmode_transfer import telemetry
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import ObjectStore
from xmode_transfer.config import Customer, Feed
from xmode_transfer.model import delta
from xmode_transfer.model.delta import Change, DeltaTable, SchemaChange, TableCommit, TableFile, TableFormat
from xmode_transfer.model.errors import (
    ObjectNotFound,
    SchemaChanged,
    SourceChanged,
    TableConflict,
    TableRefused,
)
from xmode_transfer.model.layout import Layout
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.records import Delivery, Lease, PlannedObject, Receipt, Status
from xmode_transfer.sources.interface import Source
from xmode_transfer.sources.parquet import Footer, NotATable, read_footer
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, held, in_order, opened
from xmode_transfer.transfer.planning import Planner, delivery_id
from xmode_transfer.transfer.table_log import TableLog
from xmode_transfer.transfer.withdrawing import newest_of_folder

_WAIT_SECONDS = 60.0
_AHEAD = 2
_AT_ONCE = 500


class Committed(NamedTuple):
    """``commit`` is the delivery's version of the table, None without one. ``stale``: the table has other
    files of this revision, so that a new one is due."""

    commit: TableCommit | None = None
    stale: bool = False

    @property
    def members(self) -> dict[str, Any]:
        """Return what the manifest has about the table."""
        if self.commit is None:
            return {}
        return {"table": {"format": "delta", "version": self.commit.version, "rows": self.commit.rows}}


@contextmanager
def table_lease(context: Context, customer: str, feed: str) -> Iterator[Lease]:
    """Hold the lease for changes to a table; wait for it."""
    name = f"table/{customer}/{feed}"
    with held(context.ledger, name, context.holder, wait_seconds=_WAIT_SECONDS, stop=context.stop) as lease:
        yield lease


def prepare(planner: Planner, store: ObjectStore, delivery: Delivery, lease: Lease) -> None:
    """Reads the footers of the Parquet files that the delivery adds, and records them with the schema that
    the table has then. Raises TableRefused, TableConflict, and SchemaChanged if a file does not fit."""
    context, customer, feed = planner.context, planner.customer, planner.feed
    table = _begun(context, customer, feed, store)
    if table is None:
        return
    ledger, files = context.ledger, Files(context, table, store, delivery)
    planned = [item for item in ledger.objects.planned(delivery.id) if files.is_of_table(item[0].key)]
    versions = files.versions(item.key for item, receipt in planned if receipt is not None)
    # What a superseded revision has put is carried, and its columns may be new.
    wanted = [
        (item, receipt)
        for item, receipt in planned
        if receipt is None or item.key not in versions or (item.carried and versions[item.key] is None)
    ]
    schema = None
    if any(receipt is not None and not item.carried for item, receipt in planned):
        schema = ledger.tables.prepared_schema(delivery.id)  # of a run that was killed
    merging = Merging(table, table.table_schema if schema is None else schema, date_columns(customer, feed))
    threads = context.parallel if feed.source.startswith("s3://") or versions else 1
    ledger.tables.prepare(lease, delivery.id, files.read(wanted, merging, threads, planner.source))
    if wanted:
        ledger.tables.prepare(lease, delivery.id, (), merging.table_schema)


def commit(
    context: Context, customer: Customer, store: ObjectStore, delivery: Delivery, lease: Lease
) -> Committed:
    """Makes the delivery's objects the period's files in the table. Idempotent. Raises TableConflict, and
    SchemaChanged if another delivery has changed the schema meanwhile."""
    if _maintained(context, customer, delivery.feed) is None:
        return Committed()
    with table_lease(context, customer.name, delivery.feed) as held_lease:
        log = TableLog(context, customer, store, held_lease)
        table = context.ledger.tables.get(customer.name, delivery.feed)
        if table is None or table.ending_at is not None:  # ended while this waited
            return Committed()
        return commit_to(context, log, table, store, delivery, lease)


def commit_to(
    context: Context, log: TableLog, table: DeltaTable, store: ObjectStore, delivery: Delivery, lease: Lease
) -> Committed:
    """Like ``commit``, for a caller that holds the table's lease."""
    tables, files = context.ledger.tables, Files(context, table, store, delivery)
    of_period = (delivery.customer, delivery.feed, delivery.period)
    proven = {
        item.key: item
        for _, item in context.ledger.objects.proven(delivery.id)
        if files.is_of_table(item.key) and not item.removed
    }
    prepared, versions = tables.prepared_schema(delivery.id), files.versions(proven)
    read = set(versions) if prepared is not None else {key for key, at in versions.items() if at is not None}
    wanted = (
        item for item in context.ledger.objects.proven(delivery.id) if item[1].key in proven.keys() - read
    )
    merging = Merging(table, table.table_schema or prepared or "")
    if len(read) < len(proven):
        tables.prepare(lease, delivery.id, files.read(wanted, merging, context.parallel))
    desired = {
        item.key: item._replace(size=proven[item.key].size, modified_at=proven[item.key].delivered_at)
        for item in tables.named(*of_period, proven)
    }
    replaced, known = files.replaced(proven.values()), Committed()
    newest: Collection[str] = proven
    if replaced is not None:  # a recall's batch lists older files again, which newer batches have replaced
        newest = {item.key for item in newest_of_folder(context, delivery, table.root)}
        desired = {key: item for key, item in desired.items() if key in newest}

    def change(now: DeltaTable) -> Change | None:
        nonlocal known
        known = Committed()
        there = (
            tables.files(*of_period) if replaced is None else tables.named(*of_period, {*desired, *replaced})
        )
        current = {item.key: item for item in there if item.version is not None}
        added = [item for key, item in desired.items() if key not in current]
        removed = [item for key, item in current.items() if key not in newest]
        commits = [item for item in tables.commits(*of_period) if item.revision is not None]
        last = max((item.revision or 0 for item in commits), default=0)
        if last >= delivery.revision:
            its = next((item for item in commits if item.revision == delivery.revision), None)
            known = Committed(its, stale=last == delivery.revision and bool(added or removed))
            return None
        if not desired and not removed:  # nothing of it is Parquet, or all of it has expired
            return None
        schema = _merged(now, prepared, merging.seen)
        figures = (len(desired), sum(item.rows for item in desired.values()))
        return Change(delivery.period, delivery.revision, added, removed, schema, *figures)

    _, made = log.commit(table, change)
    if made is None:
        return known
    telemetry.log(Event.TABLE_COMMITTED, version=made.version, revision=made.revision, rows=made.rows)
    return Committed(made)


def unlist(context: Context, customer: Customer, feed: str, period: str, keys: Iterable[str]) -> None:
    """Takes keys that are about to be deleted out of the table. Raises TableConflict."""
    if _maintained(context, customer, feed) is None or not (named := list(keys)):
        return
    tables = context.ledger.tables
    with (
        opened(context, customer, Step.DELIVER) as store,
        table_lease(context, customer.name, feed) as lease,
    ):
        log, table = TableLog(context, customer, store, lease), tables.get(customer.name, feed)
        if table is None or table.ending_at is not None:
            return

        def change(now: DeltaTable) -> Change | None:
            known = tables.named(customer.name, feed, period, named)
            going = [item for item in known if item.version is not None]
            return Change(period, None, (), going, now.table_schema) if going else None

        _, made = log.commit(table, change)
    if made is not None:
        telemetry.log(Event.TABLE_COMMITTED, version=made.version, revision=None, rows=made.rows)


def discover(context: Context, customer: Customer, feed: str, store: ObjectStore) -> None:
    """Finds the table of a feed in the bucket, and reads what the ledger lacks of it. A log that is not ours
    is only reported."""
    with telemetry.bind(feed=feed), table_lease(context, customer.name, feed) as lease:
        table, log = context.ledger.tables.get(customer.name, feed), TableLog(context, customer, store, lease)
        try:
            if table is None:
                log.found(feed, f"{customer.destination.prefix}{feed}/")
            elif table.ending_at is None:
                log.catch_up(table)
        except TableConflict as error:
            telemetry.warn(Event.TABLE_NOT_OURS, **error.log_context())


def check(table: DeltaTable, layout: Layout) -> None:
    """Raise TableRefused if the layout does not agree with the table."""
    ending = f"`xmode-transfer table end --customer {table.customer} --feed {table.feed}`"
    if table.ending_at is not None:
        raise TableRefused(
            f"{table.customer}: the table of {table.feed} is being ended",
            hint=f"finish it with {ending}; `table create` begins a new one",
        )
    for what, before, now in (
        ("folder", table.root, layout.root),
        ("partition columns", _listed(table.columns), _listed(layout.columns)),
    ):
        if before != now:
            raise TableRefused(
                f"{table.customer}: the table of {table.feed} has the {what} {before}, and the configuration "
                f"now gives {now}",
                hint=f"undo the change. Or remove `table: delta`, call {ending}, and begin a new table",
            )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "(none)"


def _maintained(context: Context, customer: Customer, feed: str) -> DeltaTable | None:
    """Return the table that deliveries and removals change; None for one that the role session of the present
    prefix does not reach: it has none of the present keys."""
    table = context.ledger.tables.get(customer.name, feed)
    if table is None or table.ending_at is not None:
        return None
    return table if table.root.startswith(customer.destination.prefix) else None


def _begun(context: Context, customer: Customer, feed: Feed, store: ObjectStore) -> DeltaTable | None:
    """Return the feed's table. The first delivery of a feed begins it, if it is asked for."""
    tables = context.ledger.tables
    table = tables.get(customer.name, feed.name)
    is_wanted = customer.subscription(feed).table is TableFormat.DELTA
    if table is None and not is_wanted:
        return None
    if table is not None and table.ending_at is not None and not is_wanted:
        return None
    layout = customer.layout(feed)
    if table is None:
        if context.ledger.deliveries.find(customer.name, feed.name, statuses=[Status.DELIVERED], limit=1):
            command = f"xmode-transfer table create --customer {customer.name} --feed {feed.name}"
            telemetry.warn(Event.TABLE_MISSING, hint=f"begin the table with `{command}`")
            return None
        with table_lease(context, customer.name, feed.name) as lease:
            table = TableLog(context, customer, store, lease).found(feed.name, layout.root)
            if table is None:
                table = new_table(context, customer, feed)
                tables.put(lease, table)
    check(table, layout)
    return table


def new_table(context: Context, customer: Customer, feed: Feed) -> DeltaTable:
    layout, now = customer.layout(feed), context.clock.now()
    return DeltaTable(customer.name, feed.name, layout.root, str(uuid4()), layout.columns, now)


def date_columns(customer: Customer, feed: Feed) -> set[str]:
    """Return the partition columns with values that can only be dates."""
    parts = (segment.partition("=") for segment in customer.layout(feed).head.split("/"))
    return {name for name, _, value in parts if value == "%Y-%m-%d"}


@dataclass(slots=True)
class Merging:
    """The schema of a table with the files that are added to it. ``seen`` has the files' schemas, each with
    the first file that has it. ``later``: they are merged by ``end``, in no order of the files."""

    table: DeltaTable
    table_schema: str
    dates: Collection[str] = ()
    later: bool = False
    seen: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, schema: str) -> None:
        """Raise SchemaChanged if the file does not fit."""
        if schema not in self.seen:
            self.seen[schema] = name
            if not self.later:
                self._merge(name, schema)

    def end(self) -> str:
        """Return the merged schema; those with the fewest columns come first, so that the others add some."""
        for schema in sorted(self.seen, key=lambda item: len(json.loads(item)["fields"])):
            self._merge(self.seen[schema], schema)
        return self.table_schema

    def _merge(self, name: str, schema: str) -> None:
        with _as_ours(self.table, name):
            self.table_schema = delta.merged(self.table_schema, schema, self.table.columns, self.dates)


@contextmanager
def _as_ours(table: DeltaTable, name: str) -> Iterator[None]:
    try:
        yield
    except (SchemaChange, NotATable) as error:
        raise SchemaChanged(
            f"{name} does not fit the table of {table.feed}: {error}",
            hint="correct the file at the source: the next run reads it again. For another schema, end the "
            f"table (`xmode-transfer table end --customer {table.customer} --feed {table.feed}`) and begin "
            "a new one",
        ) from error


def _merged(table: DeltaTable, prepared: str | None, file_schemas: Iterable[str]) -> str:
    """Return the schema to commit: that of the table as it is now, with what the delivery adds."""
    schema = table.table_schema
    with _as_ours(table, "the delivery"):
        if prepared and not schema:
            schema = prepared
        elif prepared:
            schema = delta.merged(schema, without_partitions(prepared, table.columns), table.columns)
        for other in file_schemas:
            schema = delta.merged(schema, other, table.columns)
    return schema


def without_partitions(table_schema: str, columns: Collection[str]) -> str:
    """Return a table's schema as if it was a file's."""
    schema = json.loads(table_schema)
    fields = [{**item, "metadata": {}} for item in schema["fields"] if item["name"] not in columns]
    return json.dumps({**schema, "fields": fields})


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a delivery that belong in the table."""

    context: Context
    table: DeltaTable
    store: ObjectStore
    delivery: Delivery

    def is_of_table(self, key: str) -> bool:
        return key.endswith(".parquet") and key.startswith(self.table.root)

    def versions(self, keys: Iterable[str]) -> dict[str, int | None]:
        """Return, of keys with a footer that was read, the version that added each to the table."""
        of_period = (self.delivery.customer, self.delivery.feed, self.delivery.period)
        return {item.key: item.version for item in self.context.ledger.tables.named(*of_period, keys)}

    def replaced(self, receipts: Iterable[Receipt]) -> set[str] | None:
        """Return the older keys that a batch of a drop folder takes out of the table; None for a period: its
        delivery replaces all that it has."""
        delivery, objects = self.delivery, self.context.ledger.objects
        if delivery.period != PeriodKind.NONE:
            return None
        of_period = (delivery.customer, delivery.feed, delivery.period)
        names = {item.name for item in receipts}
        found = {item.key for item in objects.receipts(*of_period) if item.name in names}
        for revision in delivery.replaces or ():
            found.update(item.key for item, _ in objects.planned(delivery_id(*of_period, revision)))
        return found

    def read(
        self,
        wanted: Iterable[tuple[PlannedObject, Receipt | None]],
        merging: Merging,
        threads: int,
        source: Source | None = None,
    ) -> Iterator[TableFile]:
        """Yield what the footers say, read from the bucket if there is a receipt, else from the source. An
        object that is gone from the bucket is left out, and a file that changes while it is read: it is not
        sent in that state."""

        def footer(item: tuple[PlannedObject, Receipt | None]) -> tuple[PlannedObject, int, Footer | None]:
            self.context.check_stop("the next run continues")
            planned, receipt = item
            with _as_ours(self.table, planned.name):
                try:
                    if receipt is not None:
                        size, key = receipt.size, receipt.key
                        return (
                            planned,
                            size,
                            read_footer(lambda *at: b"".join(self.store.read(key, *at)), size),
                        )
                    assert source is not None
                    with source.open(planned.source_file()) as body:
                        found = read_footer(body.read_range, body.size)
                        body.check_unchanged()
                    return planned, body.size, found
                except (ObjectNotFound, SourceChanged):
                    return planned, 0, None

        now = self.context.clock.now()
        with in_order(footer, wanted, name="footer", threads=threads, ahead=_AHEAD) as found:
            for planned, size, read in found:
                if read is not None:
                    merging.add(planned.name, read.table_schema)
                    yield TableFile(self.delivery.period, planned.key, size, read.rows, read.statistics, now)
