"""What a destination has for customers' tools: native manifests, and feeds as tables."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import sqlalchemy as sa
from sqlalchemy import Connection, and_, delete, func, select, update

from xmode_transfer.ledger.deliveries import known_place, of_period, period_id
from xmode_transfer.ledger.statements import was_removed
from xmode_transfer.ledger.tables import (
    NATIVE,
    TABLE,
    TABLE_COMMIT,
    TABLE_FILE,
    customer_tables,
    native_manifests,
    periods,
    table_commits,
    table_files,
    table_schemas,
)
from xmode_transfer.ledger.writer import LedgerPart, only, unknown
from xmode_transfer.model.delta import DeltaTable, TableCommit, TableFile
from xmode_transfer.model.native import NativeManifest
from xmode_transfer.model.records import Delivery, Lease

_ROWS_AT_A_TIME = 500
_PAGE = 1_000


class NativeManifests(LedgerPart):
    def record(self, lease: Lease, customer: str, manifest: NativeManifest) -> None:
        """Add a manifest, or replace the one with its key."""

        def action(connection: Connection) -> None:
            number = _known_period(connection, customer, manifest.feed, manifest.period)
            row = {"period_id": number, **NATIVE.values(manifest)}
            connection.execute(self._database.upsert(native_manifests), [row])

        self._fenced(lease, action)

    def find(self, customer: str, feed: str, period: str) -> list[NativeManifest]:
        """Return the manifests of a period that no operation removed, by key."""
        query = (
            select(native_manifests, periods.c.feed, periods.c.period)
            .join(periods, periods.c.id == native_manifests.c.period_id)
            .where(~was_removed(native_manifests, native_manifests.c.key))
            .order_by(native_manifests.c.key)
        )
        return self._records(NATIVE, only(query, *of_period(customer, feed, period)))


class CustomerTables(LedgerPart):
    """Feeds as tables. What changes one holds its lease."""

    def get(self, customer: str, feed: str) -> DeltaTable | None:
        return self._first(TABLE, select(customer_tables).filter_by(customer=customer, feed=feed))

    def find(self, customer: str | None = None) -> list[DeltaTable]:
        """Return the tables, by customer and feed."""
        query = select(customer_tables).order_by(customer_tables.c.customer, customer_tables.c.feed)
        return self._records(TABLE, only(query, (customer_tables.c.customer, customer)))

    def put(self, lease: Lease, table: DeltaTable) -> None:
        """Begin a table, or overwrite its record."""
        putting = self._database.upsert(customer_tables)
        self._fenced(lease, lambda c: c.execute(putting, [TABLE.values(table)]))

    def end(self, lease: Lease, table: DeltaTable) -> None:
        """Forget a table, its commits and schemas, and which files it had; what is known of files stays."""
        of_table = {"customer": table.customer, "feed": table.feed}

        def action(connection: Connection) -> None:
            connection.execute(delete(table_commits).filter_by(**of_table))
            connection.execute(delete(customer_tables).filter_by(**of_table))
            its = select(periods.c.id).filter_by(**of_table)
            connection.execute(delete(table_schemas).where(table_schemas.c.period_id.in_(its)))
            of_files = table_files.c.period_id.in_(its)
            connection.execute(update(table_files).where(of_files).values(version=None))

        self._fenced(lease, action)

    def prepare(
        self, lease: Lease, delivery_id: str, files: Iterable[TableFile], table_schema: str | None = None
    ) -> None:
        """Record what was read of Parquet files, and the schema of all that a delivery is about to add. A
        file that is in the table keeps its version."""
        remaining = iter(files)
        while some := list(islice(remaining, _ROWS_AT_A_TIME)):
            self._fenced(lease, partial(self._prepare, delivery_id, some))
        if table_schema is not None:

            def action(connection: Connection) -> None:
                number, revision = known_place(connection, delivery_id)
                row = {"period_id": number, "revision": revision, "table_schema": table_schema}
                connection.execute(self._database.upsert(table_schemas), [row])

            self._fenced(lease, action)

    def _prepare(self, delivery_id: str, files: Sequence[TableFile], connection: Connection) -> None:
        number, _ = known_place(connection, delivery_id)
        rows = [{"period_id": number, **TABLE_FILE.values(file)} for file in files]
        adding = self._database.insert(table_files)
        of_file = ("size", "rows", "statistics", "modified_at")
        keeping = adding.on_conflict_do_update(
            index_elements=["period_id", "key"], set_={name: adding.excluded[name] for name in of_file}
        )
        connection.execute(keeping, rows)

    def prepared_schema(self, delivery_id: str) -> str | None:
        """Return the schema of the files that a delivery is about to add."""

        def read(connection: Connection) -> str | None:
            number, revision = known_place(connection, delivery_id)
            query = select(table_schemas.c.table_schema).filter_by(period_id=number, revision=revision)
            return connection.execute(query).scalar_one_or_none()

        return self._read(read)

    def files(
        self, customer: str, feed: str, period: str | None = None, *, in_table: bool = True
    ) -> Iterator[TableFile]:
        """Yield the files that are in the table, or with ``in_table=False`` all that are known, by period
        and key, read in pages."""
        query = only(
            select(table_files, periods.c.period)
            .join(periods, periods.c.id == table_files.c.period_id)
            .order_by(table_files.c.period_id, table_files.c.key)
            .limit(_PAGE),
            *of_period(customer, feed, period),
        )
        if in_table:
            query = query.where(table_files.c.version.is_not(None))
        after = query
        while True:
            rows = self._rows(after)
            yield from (TABLE_FILE.record(row) for row in rows)
            if len(rows) < _PAGE:
                return
            last = (rows[-1].period_id, rows[-1].key)
            after = query.where(sa.tuple_(table_files.c.period_id, table_files.c.key) > sa.tuple_(*last))

    def named(self, customer: str, feed: str, period: str, keys: Iterable[str]) -> Iterator[TableFile]:
        """Yield what is known of these keys."""
        query = select(table_files, periods.c.period).join(periods, periods.c.id == table_files.c.period_id)
        its = only(query, *of_period(customer, feed, period))
        remaining = iter(keys)
        while some := list(islice(remaining, _ROWS_AT_A_TIME)):
            yield from self._records(TABLE_FILE, its.where(table_files.c.key.in_(some)))

    def apply(
        self,
        lease: Lease,
        table: DeltaTable,
        commit: TableCommit,
        added: Iterable[TableFile],
        removed: Iterable[str],
    ) -> None:
        """Record a commit and the table as it is after it, all at once. Idempotent."""
        adding, removing = list(added), list(removed)

        def action(connection: Connection) -> None:
            numbers = {
                period: self._period(connection, table, period) for period in {item.period for item in adding}
            }
            rows = [{"period_id": numbers[item.period], **TABLE_FILE.values(item)} for item in adding]
            for start in range(0, len(rows), _ROWS_AT_A_TIME):
                connection.execute(self._database.upsert(table_files), rows[start : start + _ROWS_AT_A_TIME])
            of_table = select(periods.c.id).filter_by(customer=table.customer, feed=table.feed)
            for start in range(0, len(removing), _ROWS_AT_A_TIME):
                some = removing[start : start + _ROWS_AT_A_TIME]
                going = and_(table_files.c.period_id.in_(of_table), table_files.c.key.in_(some))
                connection.execute(update(table_files).where(going).values(version=None))
            connection.execute(self._database.upsert(table_commits), [TABLE_COMMIT.values(commit)])
            connection.execute(self._database.upsert(customer_tables), [TABLE.values(table)])

        self._fenced(lease, action)

    def _period(self, connection: Connection, table: DeltaTable, period: str) -> int:
        """Return the row of a period. After a lost ledger a log names periods that nothing else knows."""
        row = {"customer": table.customer, "feed": table.feed, "period": period}
        connection.execute(self._database.insert(periods).values(row).on_conflict_do_nothing())
        return _known_period(connection, **row)

    def commits(
        self, customer: str, feed: str, period: str | None = None, limit: int | None = None
    ) -> list[TableCommit]:
        """Return commits, the newest first."""
        query = select(table_commits).filter_by(customer=customer, feed=feed).limit(limit)
        newest = query.order_by(table_commits.c.version.desc())
        return self._records(TABLE_COMMIT, only(newest, (table_commits.c.period, period)))

    def of_delivery(self, delivery: Delivery) -> TableCommit | None:
        """Return the commit of a delivery; None if it has none."""
        place = {"customer": delivery.customer, "feed": delivery.feed, "period": delivery.period}
        query = select(table_commits).filter_by(**place, revision=delivery.revision)
        return self._first(TABLE_COMMIT, query.order_by(table_commits.c.version.desc()).limit(1))

    def deliveries(self, customer: str, feed: str) -> dict[str, int]:
        """Return the last committed revision of each period."""
        query = (
            select(table_commits.c.period, func.max(table_commits.c.revision))
            .filter_by(customer=customer, feed=feed)
            .where(table_commits.c.revision.is_not(None))
            .group_by(table_commits.c.period)
        )
        return {period: int(revision) for period, revision in self._rows(query)}


def _known_period(connection: Connection, customer: str, feed: str, period: str) -> int:
    number = period_id(connection, customer, feed, period)
    if number is None:
        raise unknown("period", f"{customer}/{feed}/{period}")
    return number
