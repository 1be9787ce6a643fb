"""The Delta Lake format: records of a table at a destination.

Source: the Delta transaction log protocol (delta-io/delta, PROTOCOL.md).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote, unquote


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


_LOG = re.compile(r"_delta_log/([0-9]{20}(\.checkpoint\.parquet|\.json)|_last_checkpoint)")


def log_key(root: str, version: int) -> str:
    return f"{root}_delta_log/{version:020d}.json"


def is_log_key(root: str, key: str) -> bool:
    """Return whether a key is one that we put into the log of the table at ``root``."""
    return key.startswith(root) and _LOG.fullmatch(key, len(root)) is not None


def token(customer: str, feed: str) -> str:
    return hashlib.sha256(f"{customer}\0{feed}".encode()).hexdigest()[:32]


# Enough of the log for verify, until the core of tables is merged.


class Change(NamedTuple):
    period: str
    revision: int | None
    added: Sequence[TableFile]
    removed: Sequence[TableFile]
    table_schema: str


def commit(
    table: DeltaTable, change: Change, at: datetime
) -> tuple[DeltaTable, TableCommit, Iterator[bytes]]:
    version = table.version + 1
    rows: list[dict[str, object]] = []
    if version == 0 or change.table_schema != table.table_schema:
        rows.append(
            {"metaData": {"schemaString": change.table_schema, "partitionColumns": list(table.columns)}}
        )
    for f in change.removed:
        rows.append({"remove": {"path": quote(f.key.removeprefix(table.root))}})
    for f in change.added:
        rows.append(
            {
                "add": {
                    "path": quote(f.key.removeprefix(table.root)),
                    "size": f.size,
                    "stats": f.statistics,
                    "modificationTime": int(f.modified_at.timestamp() * 1000),
                    "tags": {"xmode.period": f.period},
                }
            }
        )
    if change.revision is not None:
        rows.append({"txn": {"appId": f"xmode:{table.feed}/{change.period}", "version": change.revision}})
    rows.append({"commitInfo": {"timestamp": int(at.timestamp() * 1000), "period": change.period}})
    made = TableCommit(
        table.customer, table.feed, version, change.period, change.revision, len(change.added), 0, at
    )
    return (
        table._replace(version=version, table_schema=change.table_schema),
        made,
        (json.dumps(row).encode() + b"\n" for row in rows),
    )


def parsed(
    table: DeltaTable, lines: Iterable[bytes]
) -> tuple[DeltaTable, TableCommit, list[TableFile], list[str]]:
    added, removed, revision, schema, period = [], [], None, table.table_schema, ""
    at = datetime.now(UTC)
    for line in lines:
        row = json.loads(line)
        if "metaData" in row:
            schema = row["metaData"]["schemaString"]
        elif "add" in row:
            a = row["add"]
            added.append(
                TableFile(
                    a["tags"]["xmode.period"],
                    table.root + unquote(a["path"]),
                    a["size"],
                    0,
                    a["stats"],
                    datetime.fromtimestamp(a["modificationTime"] / 1000, UTC),
                    table.version + 1,
                )
            )
        elif "remove" in row:
            removed.append(table.root + unquote(row["remove"]["path"]))
        elif "txn" in row:
            revision = row["txn"]["version"]
        elif "commitInfo" in row:
            period = row["commitInfo"]["period"]
        else:
            raise ValueError("an unknown action")
    after = table._replace(version=table.version + 1, table_schema=schema)
    return (
        after,
        TableCommit(table.customer, table.feed, after.version, period, revision, len(added), 0, at),
        added,
        removed,
    )
