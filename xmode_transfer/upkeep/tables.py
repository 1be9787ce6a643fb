"""Begin a Delta table of a feed that was delivered before, and end one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from xmode_transfer import telemetry
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.stores import Deletion, DeletionResult, ObjectStore
from xmode_transfer.config import Configuration, Customer, Feed
from xmode_transfer.ledger import Ledger
from xmode_transfer.model import delta
from xmode_transfer.model.delta import DeltaTable, TableFormat
from xmode_transfer.model.errors import ConfigError, ExitCode
from xmode_transfer.model.jobs import customer_lease
from xmode_transfer.model.periods import PeriodKind
from xmode_transfer.model.records import Delivery, Lease, Status
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import tables
from xmode_transfer.transfer.context import Context, held, in_order, opened
from xmode_transfer.transfer.removing import in_batches
from xmode_transfer.transfer.table_log import TableLog

_WHEN_STOPPED = "call it again: it continues"
_WAIT_SECONDS = 5.0


@dataclass(slots=True)
class Created:
    """``version`` is -1 without a commit. ``periods`` counts the deliveries that were added, ``known`` those
    that were in the table before, ``missing`` objects that are gone from the bucket."""

    customer: str
    feed: str
    outcome: str = "nothing"
    version: int = -1
    periods: int = 0
    known: int = 0
    files: int = 0
    rows: int = 0
    missing: int = 0


@dataclass(slots=True)
class Ended:
    """``left`` has the log's keys that stay, ``why`` the reason."""

    customer: str
    feed: str
    outcome: str = "ended"
    deleted: int = 0
    left: list[str] = field(default_factory=list)
    why: str = ""
    exit_code: int = ExitCode.DONE


@dataclass(frozen=True, slots=True)
class Listed:
    table: DeltaTable
    files: int
    rows: int


def listed(ledger: Ledger, customer: str | None = None) -> Iterator[Listed]:
    """Yield the tables by customer and feed."""
    for table in ledger.tables.find(customer):
        files = rows = 0
        for item in ledger.tables.files(table.customer, table.feed):
            files, rows = files + 1, rows + item.rows
        yield Listed(table, files, rows)


@contextmanager
def _alone(context: Context, customer: str) -> Iterator[Lease]:
    """Keep deliveries and cleanups of the customer out."""
    with ExitStack() as stack:
        for name in (customer_lease(customer), f"cleanup/{customer}"):
            holding = held(
                context.ledger, name, context.holder, wait_seconds=_WAIT_SECONDS, stop=context.stop
            )
            lease = stack.enter_context(holding)
        yield lease


def create(
    context: Context, configuration: Configuration, name: str, feed_name: str, *, dry_run: bool = False
) -> Created:
    """Begins the table with what was delivered, one commit a period. A second call continues. ``dry_run``
    reads the footers and compares their schemas. Raises SchemaChanged before the first commit."""
    customer = configuration.active_customer(name)
    feed = configuration.feeds.get(feed_name)
    if feed is None or feed_name not in customer.feeds:
        hint = f"its feeds: {', '.join(customer.feeds)}"
        raise ConfigError(f"{name} does not subscribe to a feed {feed_name}", hint=hint)
    if customer.subscription(feed).table is not TableFormat.DELTA:
        hint = f"add `table: delta` to feeds/{feed_name}.yaml, or to the feed in customers/{name}.yaml"
        raise ConfigError(f"{name}: {feed_name} is not configured to be a table", hint=hint)
    result = Created(name, feed_name)
    with (
        telemetry.bind(customer=name, feed=feed_name),
        _alone(context, name) as lease,
        tables.table_lease(context, name, feed_name) as of_table,
        opened(context, customer, Step.VERIFY if dry_run else Step.DELIVER) as store,
    ):
        log = TableLog(context, customer, store, of_table)
        _Creating(context, customer, feed, store, log, lease, of_table, result).run(dry_run=dry_run)
    return result


@dataclass(frozen=True, slots=True)
class _Creating:
    context: Context
    customer: Customer
    feed: Feed
    store: ObjectStore
    log: TableLog
    lease: Lease
    of_table: Lease
    result: Created

    def run(self, *, dry_run: bool) -> None:
        known, layout = self.context.ledger.tables, self.customer.layout(self.feed)
        table = known.get(self.customer.name, self.feed.name)
        if table is not None:
            tables.check(table, layout)
            table = self.log.catch_up(table)
        else:
            found = None if dry_run else self.log.found(self.feed.name, layout.root)
            table = found or tables.new_table(self.context, self.customer, self.feed)
            tables.check(table, layout)
        deliveries = self._published(known.deliveries(self.customer.name, self.feed.name))
        self.result.version, self.result.periods = table.version, len(deliveries)
        table_schema = self._read(table, deliveries, records=not dry_run)
        if dry_run:
            self.result.outcome = "dry_run"
            return
        for delivery in deliveries:
            known.prepare(self.lease, delivery.id, (), table_schema)
        if table.version < 0:
            known.put(self.of_table, table)
        self.result.files = self.result.rows = 0
        for delivery in deliveries:
            self.context.check_stop(_WHEN_STOPPED)
            made, _ = tables.commit_to(self.context, self.log, table, self.store, delivery, self.lease)
            table = known.get(self.customer.name, self.feed.name) or table
            if made is not None:
                self.result.version, self.result.outcome = made.version, "created"
                self.result.files += made.files
                self.result.rows += made.rows

    def _published(self, committed: dict[str, int]) -> list[Delivery]:
        """Return the newest published revision of each period that is not in the table, or each batch of a
        drop folder, oldest first."""
        found = self.context.ledger.deliveries.find(
            self.customer.name, self.feed.name, statuses=[Status.DELIVERED]
        )
        of_folder = self.feed.period is PeriodKind.NONE
        newest: dict[tuple[str, int], Delivery] = {}
        for item in sorted(found, key=lambda item: item.revision):
            newest[item.period, item.revision if of_folder else 0] = item
        replaced = {number for item in found for number in item.replaces or ()}
        todo = [
            item
            for (_, revision), item in sorted(newest.items())
            if item.revision > committed.get(item.period, 0) and revision not in replaced
        ]
        self.result.known = len(newest) - len(todo)
        return todo

    def _read(self, table: DeltaTable, deliveries: Sequence[Delivery], *, records: bool) -> str:
        """Reads the footers. Returns the schema of the table with all files."""
        known, progress = self.context.ledger.tables, self.context.progress
        dates = tables.date_columns(self.customer, self.feed)
        merging = tables.Merging(table, table.table_schema, dates, later=True)
        before = [known.prepared_schema(delivery.id) for delivery in deliveries]  # by a call that was killed
        if all(before) and table.version >= 0:
            return table.table_schema
        objects = sum(item.object_count for item in deliveries)
        progress.delivery_started(self.customer.name, self.feed.name, "footers", objects, 0)
        try:
            for delivery in deliveries:
                files = tables.Files(self.context, table, self.store, delivery)
                wanted = [
                    (planned, receipt)
                    for planned, receipt in self.context.ledger.objects.proven(delivery.id)
                    if files.is_of_table(receipt.key) and not receipt.removed
                ]
                read = list(files.read(wanted, merging, self.context.parallel))
                if records:
                    known.prepare(self.lease, delivery.id, read)
                self.result.missing += len(wanted) - len(read)
                self.result.files += len(read)
                for file in read:
                    self.result.rows += file.rows
                    progress.object_finished(file.key, 0, "read")
        finally:
            progress.delivery_finished()
        return merging.end()


def end(context: Context, configuration: Configuration, name: str, feed: str) -> Ended:
    """Deletes the table's log, as far as it is as we put it, and forgets the table. The data stay. A second
    call continues. Raises ConfigError."""
    table = context.ledger.tables.get(name, feed)
    if table is None:
        raise ConfigError(
            f"{name} has no table of {feed}", hint="`xmode-transfer table list` shows the tables"
        )
    if name in configuration.broken:
        raise configuration.why_broken(name, "its tables stay")
    customer, its = configuration.customers.get(name), configuration.feeds.get(feed)
    if (
        customer is not None
        and its is not None
        and feed in customer.feeds
        and customer.subscription(its).table is TableFormat.DELTA
    ):
        where = f"feeds/{feed}.yaml"
        if customer.feeds[feed].table is not None:
            where = f"customers/{name}.yaml"
        hint = f"remove `table: delta` from {where} first; for this customer alone: {feed}: {{table: none}}"
        raise ConfigError(f"{name}: {feed} is still configured to be a table", hint=hint)
    result = Ended(name, feed)
    with (
        telemetry.bind(customer=name, feed=feed),
        _alone(context, name),
        tables.table_lease(context, name, feed) as lease,
    ):
        table = context.ledger.tables.get(name, feed) or table
        table = table._replace(ending_at=table.ending_at or context.clock.now())
        context.ledger.tables.put(lease, table)
        if customer is None:
            result.why = f"{name} is not configured any more, so its bucket cannot be reached"
        elif not table.root.startswith(customer.destination.prefix):
            result.why = f"it is not below the present prefix {customer.destination.prefix}"
        else:
            with opened(context, customer, Step.CLEANUP) as store:
                _delete_log(context, store, table, result)
        if result.exit_code == ExitCode.DONE:
            context.ledger.tables.end(lease, table)
        else:
            result.outcome = "partly"
        telemetry.log(
            Event.TABLE_ENDED, deleted=result.deleted, left=len(result.left), why=result.why or None
        )
    return result


def _delete_log(context: Context, store: ObjectStore, table: DeltaTable, result: Ended) -> None:
    """Deletes the hint and the checkpoints, then the commits, newest first: readers see older versions."""
    token, folder = delta.token(table.customer, table.feed), f"{table.root}_delta_log/"
    keys = sorted((item.key for item in store.list(folder)), key=lambda key: (not key.endswith(".json"), key))

    def head(key: str) -> tuple[str, str | None]:
        context.check_stop(_WHEN_STOPPED)
        found = store.head(key) if delta.is_log_key(table.root, key) else None
        return key, found.etag if found is not None and found.token == token else None

    with in_order(head, reversed(keys), name="log", threads=context.parallel, ahead=8) as heads:
        found = list(heads)
    result.left += [key for key, etag in found if etag is None]
    for some in in_batches(Deletion(key, etag) for key, etag in found if etag is not None):
        for answer in store.delete_many(some):
            if answer.result in (DeletionResult.DELETED, DeletionResult.HIDDEN, DeletionResult.GONE):
                result.deleted += 1
                continue
            result.left.append(answer.key)
            result.why = result.why or (
                answer.error.message if answer.error is not None else "it was changed"
            )
            if answer.result is DeletionResult.FAILED:
                result.exit_code = ExitCode.WILL_RETRY
            elif answer.result is DeletionResult.DENIED:
                result.exit_code = ExitCode.BLOCKED
        if result.exit_code != ExitCode.DONE:
            return
