"""The Delta Lake format: records of a table at a destination.

Source: the Delta transaction log protocol (delta-io/delta, PROTOCOL.md).
"""

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


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
