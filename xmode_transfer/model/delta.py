"""The Delta Lake format: records of a table at a destination.

Source: the Delta transaction log protocol (delta-io/delta, PROTOCOL.md).
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from xmode_transfer.model.delta_schema import SchemaChange as SchemaChange
from xmode_transfer.model.delta_schema import compact
from xmode_transfer.model.delta_schema import merged as merged
from xmode_transfer.model.keys import MAX_KEY_BYTES
from xmode_transfer.model.layout import partition_values

MAX_LINE_BYTES = 16 * 1024 * 1024  # a schema of ten thousand columns has a tenth of it
_MAX_TEXT = 1024  # characters of a name
_MAX_NUMBER = 2**63 - 1
_MAX_ACTIONS = 5_000_000  # one commit: a delivery of as many files and what it replaces
_SAFE = "/=~!$&'()*+,;@-._"  # a colon would end a URI's scheme
_LOG_FILE = re.compile(r"[0-9]{20}(\.checkpoint\.parquet|\.json)|_last_checkpoint")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_READ_FEATURES = ("timestampNtz",)


class TableFormat(StrEnum):
    """The format in which a feed is a table too (docs/tables.md)."""

    DELTA = "delta"
    NONE = "none"


class DeltaTable(NamedTuple):
    """A feed of one customer as a table. ``root`` is the prefix of its files and its log. ``version`` is the
    last one that the ledger knows, -1 before the first commit. ``columns`` are the partition columns,
    ``table_schema`` is the JSON of Delta's schema, empty before the first commit. ``checkpoint`` is the
    version of the last checkpoint, ``hint_etag`` the ETag of ``_last_checkpoint`` as we put it. From
    ``ending_at`` on, its log is being deleted."""

    customer: str
    feed: str
    root: str
    id: str
    columns: tuple[str, ...]
    created_at: datetime
    version: int = -1
    table_schema: str = ""
    checkpoint: int | None = None
    hint_etag: str | None = None
    ending_at: datetime | None = None


class TableFile(NamedTuple):
    """A Parquet object as a table names it. ``statistics`` is Delta's JSON with numRecords, minValues,
    maxValues and nullCount. ``version`` is the commit that added it; None: its footer was read, and it is
    not in the table."""

    period: str
    key: str
    size: int
    rows: int
    statistics: str
    modified_at: datetime
    version: int | None = None


class TableCommit(NamedTuple):
    """One version of a table. ``revision`` is that of the delivery; None for a removal. ``files`` and
    ``rows`` are what the delivery has in the table, or what was removed."""

    customer: str
    feed: str
    version: int
    period: str
    revision: int | None
    files: int
    rows: int
    committed_at: datetime


class Change(NamedTuple):
    """What the next commit changes: of a delivery, or with ``revision`` None a removal. ``files`` and
    ``rows`` are what the period has in the table afterwards; None counts ``added``."""

    period: str
    revision: int | None
    added: Sequence[TableFile]
    removed: Sequence[TableFile]
    table_schema: str
    files: int | None = None
    rows: int | None = None


def token(customer: str, feed: str) -> str:
    """Return what marks a log's objects as ours, in their metadata."""
    return f"table/{customer}/{feed}"


def log_key(root: str, version: int) -> str:
    return f"{root}_delta_log/{version:020d}.json"


def checkpoint_key(root: str, version: int) -> str:
    return f"{root}_delta_log/{version:020d}.checkpoint.parquet"


def hint_key(root: str) -> str:
    return f"{root}_delta_log/_last_checkpoint"


def is_log_key(root: str, key: str) -> bool:
    """Return True for a key that a log of ours can have."""
    log = f"{root}_delta_log/"
    return key.startswith(log) and _LOG_FILE.fullmatch(key[len(log) :]) is not None


def app_id(feed: str, period: str) -> str:
    """Return the name of a period in the table's transactions; their version is the revision."""
    return f"xmode:{feed}/{period}"


def protocol(table_schema: str) -> dict[str, Any]:
    """Return the features that a reader needs."""
    if '"timestamp_ntz"' not in table_schema:
        return {"minReaderVersion": 1, "minWriterVersion": 2}
    features = list(_READ_FEATURES)
    return {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": features,
        "writerFeatures": features,
    }


def metadata(table: DeltaTable) -> dict[str, Any]:
    return {
        "id": table.id,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": table.table_schema,
        "partitionColumns": list(table.columns),
        "configuration": {},
        "createdTime": _millis(table.created_at),
    }


def add(table: DeltaTable, file: TableFile) -> dict[str, Any]:
    return {
        **_named(table, file),
        "modificationTime": _millis(file.modified_at),
        "dataChange": True,
        "stats": file.statistics,
        "tags": {"xmode.period": file.period},
    }


def _named(table: DeltaTable, file: TableFile) -> dict[str, Any]:
    path = file.key.removeprefix(table.root)
    return {
        "path": quote(path, safe=_SAFE),
        "partitionValues": partition_values(path, table.columns),
        "size": file.size,
    }


def commit(
    table: DeltaTable, change: Change, at: datetime
) -> tuple[DeltaTable, TableCommit, Iterator[bytes]]:
    """Return the table after a change, its record, and the lines of the commit."""
    after = table._replace(version=table.version + 1, table_schema=change.table_schema)
    subject = change.added if change.revision is not None else change.removed
    record = TableCommit(
        table.customer,
        table.feed,
        after.version,
        change.period,
        change.revision,
        len(subject) if change.files is None else change.files,
        sum(item.rows for item in subject) if change.rows is None else change.rows,
        _moment(_millis(at)),
    )
    return after, record, _lines(table, after, change, record)


def _lines(table: DeltaTable, after: DeltaTable, change: Change, record: TableCommit) -> Iterator[bytes]:
    def line(kind: str, action: dict[str, Any]) -> bytes:
        return f"{compact({kind: action})}\n".encode()

    wanted = protocol(after.table_schema)
    if table.version < 0 or wanted != protocol(table.table_schema):
        yield line("protocol", wanted)
    if table.version < 0 or after.table_schema != table.table_schema:
        yield line("metaData", metadata(after))
    at = _millis(record.committed_at)
    for file in change.removed:
        extended = {"deletionTimestamp": at, "dataChange": True, "extendedFileMetadata": True}
        yield line("remove", {**_named(after, file), **extended})
    for file in change.added:
        yield line("add", add(after, file))
    if change.revision is not None:
        yield line("txn", {"appId": app_id(table.feed, change.period), "version": change.revision})
    ours = {name: getattr(record, name) for name in ("period", "revision", "files", "rows")}
    operation = "DELETE" if change.revision is None else "WRITE"
    yield line(
        "commitInfo",
        {"timestamp": at, "operation": operation, "engineInfo": "xmode-transfer", "xmode": ours},
    )


def _millis(at: datetime) -> int:
    return (at - _EPOCH) // _MILLISECOND


def _moment(millis: int) -> datetime:
    return _EPOCH + millis * _MILLISECOND


@dataclass
class _Parsed:
    """A commit of ours as it is read."""

    table: DeltaTable
    added: list[TableFile] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    record: TableCommit | None = None
    transaction: tuple[str, int] | None = None

    def metaData(self, action: dict[str, Any]) -> None:  # noqa: N802 - the protocol's name
        columns, table_schema = action.get("partitionColumns"), _text(action, "schemaString", MAX_LINE_BYTES)
        _check_schema(table_schema)
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise ValueError("partitionColumns are not names")
        found, created = _text(action, "id"), _time(action, "createdTime")
        if self.table.version == 0:  # of the first commit: it begins the table
            self.table = self.table._replace(id=found, columns=tuple(columns), created_at=created)
        if (found, tuple(columns)) != (self.table.id, self.table.columns):
            raise ValueError("it has another table's ID or partition columns")
        self.table = self.table._replace(table_schema=table_schema)

    def protocol(self, action: dict[str, Any]) -> None:
        if action not in (protocol(""), protocol('"timestamp_ntz"')):
            raise ValueError("it has a protocol that we never write")

    def add(self, action: dict[str, Any]) -> None:
        tags, statistics = action.get("tags"), _text(action, "stats", MAX_LINE_BYTES)
        if not isinstance(tags, dict):
            raise ValueError("add has no tags")
        counts = _loaded(statistics)
        self.added.append(
            TableFile(
                _text(tags, "xmode.period"),
                self._key(action),
                _number(action, "size"),
                _number(counts, "numRecords"),
                statistics,
                _time(action, "modificationTime"),
                self.table.version,
            )
        )

    def remove(self, action: dict[str, Any]) -> None:
        self.removed.append(self._key(action))

    def txn(self, action: dict[str, Any]) -> None:
        self.transaction = (_text(action, "appId"), _number(action, "version"))

    def commitInfo(self, action: dict[str, Any]) -> None:  # noqa: N802 - the protocol's name
        ours = action.get("xmode")
        if not isinstance(ours, dict):
            raise ValueError("commitInfo lacks what we write there")
        revision = None if ours.get("revision") is None else _number(ours, "revision")
        self.record = TableCommit(
            self.table.customer,
            self.table.feed,
            self.table.version,
            _text(ours, "period"),
            revision,
            _number(ours, "files"),
            _number(ours, "rows"),
            _time(action, "timestamp"),
        )

    def _key(self, action: dict[str, Any]) -> str:
        path = _text(action, "path", 3 * _MAX_TEXT)
        plain = unquote(path, errors="strict")
        key = f"{self.table.root}{plain}"
        segments = plain.split("/")
        if quote(plain, safe=_SAFE) != path or len(key.encode()) > MAX_KEY_BYTES:
            raise ValueError("a path is not encoded as we do, or too long")
        if any(part in ("", ".", "..") for part in segments) or segments[0].startswith("_delta_log"):
            raise ValueError("a path leaves the table")
        return key

    def finished(self) -> TableCommit:
        if self.record is None:
            raise ValueError("it has no commitInfo: it is cut off")
        if not self.table.table_schema:
            raise ValueError("it has no metaData")
        revision, period = self.record.revision, self.record.period
        named = None if revision is None else (app_id(self.table.feed, period), revision)
        if self.transaction != named:
            raise ValueError("txn and commitInfo differ")
        return self.record


_ACTIONS = ("protocol", "metaData", "remove", "add", "txn", "commitInfo")


def parsed(
    table: DeltaTable, lines: Iterable[bytes]
) -> tuple[DeltaTable, TableCommit, list[TableFile], list[str]]:
    """Read the commit after ``table.version``. Return the table after it, its record, the files that it
    added, and the keys that it removed. Raises ValueError with the reason if it is not as we write it."""
    commit = _Parsed(table._replace(version=table.version + 1))
    for number, line in enumerate(lines, 1):
        if number > _MAX_ACTIONS or len(line) > MAX_LINE_BYTES:
            raise ValueError(f"line {number}: too long")
        try:
            action = _loaded(line.decode())
            (kind, value), *more = action.items()
            if more or kind not in _ACTIONS or not isinstance(value, dict) or commit.record is not None:
                raise ValueError("an action that we never write")
            getattr(commit, kind)(value)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return commit.table, commit.finished(), commit.added, commit.removed


def _loaded(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(value, dict) or not value:
        raise ValueError("it is not an object of JSON")
    return value


def _check_schema(table_schema: str) -> None:
    fields = _loaded(table_schema).get("fields")
    if not isinstance(fields, list):
        raise ValueError("the schema has no fields")
    for item in fields:
        known = isinstance(item, dict) and isinstance(item.get("metadata"), dict)
        if not known or not isinstance(item.get("nullable"), bool) or not item.get("type"):
            raise ValueError("a field of the schema is not as we write it")
        _text(item, "name", MAX_LINE_BYTES)


def _text(values: dict[str, Any], name: str, length: int = _MAX_TEXT) -> str:
    value = values.get(name)
    if not isinstance(value, str) or len(value) > length:
        raise ValueError(f"{name} is not a text of up to {length:,} characters")
    value.encode()  # a lone surrogate raises
    return value


def _number(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{name} is not a number")
    return value


def _time(values: dict[str, Any], name: str) -> datetime:
    try:
        return _moment(_number(values, name))
    except OverflowError:
        raise ValueError(f"{name} is not a time") from None
