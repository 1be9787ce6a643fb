"""The log of a Delta table at a destination: commits are created, never replaced; a version that another
process of ours has taken is read and applied to the ledger. The commits in the bucket are the truth."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from xmode_transfer import telemetry
from xmode_transfer.aws.stores import ObjectStore, PutAnswer, PutRequest
from xmode_transfer.config import Customer
from xmode_transfer.model import delta
from xmode_transfer.model.delta import Change, DeltaTable, TableCommit, TableFile
from xmode_transfer.model.errors import (
    AccessDenied,
    ObjectExists,
    ObjectNotFound,
    TableConflict,
    Unavailable,
    XmodeError,
)
from xmode_transfer.model.records import Lease
from xmode_transfer.sources.formats import arrow
from xmode_transfer.sources.parquet import NotATable, read_footer
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.spooling import SpooledFile, prove

CHECKPOINT_EVERY = 100
_ROWS_AT_A_TIME = 5_000


class TableLog:
    """The logs of one customer's tables. ``lease`` is the table's."""

    def __init__(self, context: Context, customer: Customer, store: ObjectStore, lease: Lease) -> None:
        self._context, self._customer, self._store, self._lease = context, customer, store, lease

    def found(self, feed: str, root: str) -> DeltaTable | None:
        """Rebuild a table that the ledger does not know from its log. Return None if there is no log. Raises
        TableConflict if it is not ours."""
        now = self._context.clock.now()
        unknown = DeltaTable(self._customer.name, feed, root, "", (), now)
        table = self.catch_up(unknown)
        return table if table.version >= 0 else None

    def catch_up(self, table: DeltaTable) -> DeltaTable:
        """Apply the commits in the bucket that the ledger lacks. Raises TableConflict."""
        while True:
            with suppress(AccessDenied):  # so S3 answers for a missing key, to a role that may not list
                if self._store.head(delta.log_key(table.root, table.version + 1)) is not None:
                    table = self._apply_next(table)
                    continue
            return table

    def commit(
        self, table: DeltaTable, change: Callable[[DeltaTable], Change | None]
    ) -> tuple[DeltaTable, TableCommit | None]:
        """Commit what ``change`` returns for the table's present state, and write a checkpoint if one is due.
        ``change`` is called again after each commit that another process made meanwhile, also if ours was
        put and its answer was lost. Return None if nothing was to be changed. Raises TableConflict."""
        is_current = False
        while True:
            self._context.check_stop("the next run commits it")
            wanted = change(table)
            if wanted is not None:
                after, record, lines = delta.commit(
                    table, self._counted(table, wanted), self._context.clock.now()
                )
                if self._created(table, after, lines):
                    break
                table = self._apply_next(table)
            elif is_current:
                return table, None
            else:
                table, is_current = self.catch_up(table), True
        added = [item._replace(version=after.version) for item in wanted.added]
        self._record(after, record, added, (item.key for item in wanted.removed))
        return self._checkpoint(after), record

    def _record(
        self, table: DeltaTable, record: TableCommit, added: Iterable[TableFile], removed: Iterable[str]
    ) -> None:
        self._context.ledger.tables.apply(self._lease, table, record, added, removed)

    def _counted(self, table: DeltaTable, change: Change) -> Change:
        """Add what a delivery's period has in the table afterwards."""
        if change.revision is None or change.files is not None:
            return change
        gone = {item.key for item in (*change.removed, *change.added)}
        known = self._context.ledger.tables.files(table.customer, table.feed, change.period)
        kept = [item.rows for item in known if item.key not in gone]
        added = [item.rows for item in change.added]
        return change._replace(files=len(kept) + len(added), rows=sum(kept) + sum(added))

    def _created(self, table: DeltaTable, after: DeltaTable, lines: Iterable[bytes]) -> bool:
        """Put a commit. Return False if its version is taken."""
        try:
            self._put(table, delta.log_key(table.root, after.version), lines)
        except ObjectExists:
            return False
        return True

    def _put(
        self,
        table: DeltaTable,
        key: str,
        chunks: Iterable[bytes],
        content_type: str = "application/json",
        replaces: str | None = None,
    ) -> PutAnswer:
        token = delta.token(table.customer, table.feed)
        with SpooledFile(chunks) as body:
            request = PutRequest(key, token, body.size, content_type, replaces=replaces)
            answer = self._store.put(request, body).result()
            if not answer.proven:
                prove(self._store, key, body.size)
        return answer

    def _apply_next(self, table: DeltaTable) -> DeltaTable:
        """Read the commit after the table's version and record it."""
        key = delta.log_key(table.root, table.version + 1)
        info = self._store.head(key)
        if info is None:
            raise Unavailable(
                f"{key} exists and is missing", hint="no action is needed: the next run retries"
            )
        if info.token != delta.token(table.customer, table.feed):
            raise TableConflict(
                f"{key} is a commit that we did not write",
                hint="ask the customer which program writes to the table and to end that, and remove the "
                "commit; or end the table with `xmode-transfer table end`. Nothing was overwritten",
            )
        try:
            after, record, added, removed = delta.parsed(table, _lines(self._store.read(key)))
        except ValueError as error:
            raise TableConflict(
                f"{key} has our token, and is not a commit as we write it: {error}",
                hint="ask the customer to restore the object. Nothing was overwritten",
            ) from None
        self._record(after, record, added, removed)
        return after

    def _checkpoint(self, table: DeltaTable) -> DeltaTable:
        """Write a checkpoint, and the hint that names it, if they are due. A failure is logged, and the next
        commit tries again."""
        due = table.version - (table.checkpoint or 0) >= CHECKPOINT_EVERY
        if not due and (table.checkpoint is None or table.hint_etag is not None):
            return table
        try:
            replaces = table.hint_etag
            if due:
                key = delta.checkpoint_key(table.root, table.version)
                with suppress(ObjectExists):
                    content = "application/vnd.apache.parquet"
                    self._put(table, key, self._checkpoint_chunks(table), content)
                table = table._replace(checkpoint=table.version, hint_etag=None)
                self._context.ledger.tables.put(self._lease, table)
            table = table._replace(hint_etag=self._hint(table, replaces))
            self._context.ledger.tables.put(self._lease, table)
        except XmodeError as error:
            telemetry.log(
                Event.TABLE_NOT_CHECKPOINTED, customer=table.customer, feed=table.feed, **error.log_context()
            )
        return table

    def _hint(self, table: DeltaTable, replaces: str | None) -> str:
        """Put ``_last_checkpoint`` and return its ETag."""
        key = delta.hint_key(table.root)
        name = delta.checkpoint_key(table.root, table.checkpoint or 0)
        info = self._store.head(name)
        if info is None or info.token != delta.token(table.customer, table.feed):
            raise TableConflict(f"{name} is not our checkpoint", hint="readers do without it")
        try:
            size = read_footer(lambda at, n: b"".join(self._store.read(name, at, n)), info.size).rows
        except NotATable as error:
            raise TableConflict(f"{name} is damaged: {error}", hint="readers do without it") from None
        hint = json.dumps({"version": table.checkpoint, "size": size}).encode()
        try:
            return self._put(table, key, [hint], replaces=replaces).etag
        except (ObjectExists, ObjectNotFound):
            there = self._store.head(key)
            if there is not None and there.token != delta.token(table.customer, table.feed):
                raise TableConflict(f"{key} is not ours", hint="readers do without it") from None
            return self._put(table, key, [hint], replaces=None if there is None else there.etag).etag

    def _checkpoint_chunks(self, table: DeltaTable) -> Iterator[bytes]:
        """Yield a classic checkpoint: the state of the table, written in pieces."""
        parquet = arrow("pyarrow.parquet", "the feed's table (table: delta) needs", "tables")
        library = arrow("pyarrow", "the feed's table (table: delta) needs", "tables")
        schema, sink = _checkpoint_schema(library), _Sink()
        with parquet.ParquetWriter(sink, schema, compression="snappy") as writer:
            rows: list[dict[str, Any]] = []
            for row in self._state(table):
                rows.append(row)
                if len(rows) == _ROWS_AT_A_TIME:
                    writer.write_table(library.Table.from_pylist(rows, schema=schema))
                    rows = []
                    yield sink.taken()
            writer.write_table(library.Table.from_pylist(rows, schema=schema))
        yield sink.taken()

    def _state(self, table: DeltaTable) -> Iterator[dict[str, Any]]:
        tables = self._context.ledger.tables
        yield {"protocol": delta.protocol(table.table_schema)}
        described = delta.metadata(table)
        yield {
            "metaData": described | {"format": {"provider": "parquet", "options": []}, "configuration": []}
        }
        for period, revision in tables.deliveries(table.customer, table.feed).items():
            yield {"txn": {"appId": delta.app_id(table.feed, period), "version": revision}}
        for file in tables.files(table.customer, table.feed):
            action = delta.add(table, file)
            maps = {name: list(action[name].items()) for name in ("partitionValues", "tags")}
            yield {"add": action | maps | {"dataChange": False}}


class _Sink:
    """What pyarrow writes to; the bytes are taken away as they come."""

    closed = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def taken(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data


def _checkpoint_schema(pa: Any) -> Any:
    text, number, texts = pa.string(), pa.int64(), pa.list_(pa.string())
    pairs = pa.map_(text, text)
    add = {"path": text, "partitionValues": pairs, "size": number, "modificationTime": number}
    add |= {"dataChange": pa.bool_(), "stats": text, "tags": pairs}
    described = {"id": text, "name": text, "description": text}
    described["format"] = pa.struct([("provider", text), ("options", pairs)])
    described |= {"schemaString": text, "partitionColumns": texts}
    described |= {"configuration": pairs, "createdTime": number}
    needed = {"minReaderVersion": pa.int32(), "minWriterVersion": pa.int32()}
    needed |= {"readerFeatures": texts, "writerFeatures": texts}
    actions = {
        "txn": {"appId": text, "version": number, "lastUpdated": number},
        "add": add,
        "remove": {"path": text, "deletionTimestamp": number, "dataChange": pa.bool_()},
        "metaData": described,
        "protocol": needed,
    }
    return pa.schema([(name, pa.struct(list(fields.items()))) for name, fields in actions.items()])


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines, without their ends. Raises ValueError if one is too long."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > delta.MAX_LINE_BYTES:
            raise ValueError("a line is too long")
    if rest:
        yield rest
