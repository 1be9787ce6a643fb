"""Native manifests: lists of a delivery's objects in the formats of customers' tools.

Redshift's is read by COPY (Amazon Redshift Database Developer Guide, "Using a manifest to specify data
files"); the symlink file by Athena, Hive, Presto and Trino (SymlinkTextInputFormat), which read every file
of its folder.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.model.records import Checksum, Receipt


class NativeKind(StrEnum):
    """A list of a delivery's objects in the format of a customer's tool (docs/manifest.md)."""

    REDSHIFT = "redshift"  # for COPY of Amazon Redshift
    SYMLINK = "symlink"  # for Athena, Hive, Presto and Trino


class NativeManifest(NamedTuple):
    """A native manifest at a destination. A period has one symlink file, which belongs to the last
    ``revision`` that replaced it."""

    kind: NativeKind
    feed: str
    period: str
    revision: int
    key: str
    size: int
    etag: str
    checksum: Checksum
    delivered_at: datetime


def redshift_key(root: str, period: str, revision: int) -> str:
    """``root`` is the feed's prefix, with its closing slash."""
    return f"{root}_redshift/{period}/{revision:06d}.json"


def symlink_key(root: str, directory: str) -> str:
    """``directory`` names the period, like ``dt=2026-11-22``; empty for a drop folder."""
    return f"{root}_symlink/{directory}/manifest" if directory else f"{root}_symlink/manifest"


def redshift(bucket: str, receipts: Iterable[Receipt]) -> Iterator[bytes]:
    """Yield the manifest, an entry a line. COPY of Parquet and ORC needs the length."""
    yield b'{"entries":['
    for number, item in enumerate(receipts):
        entry = {
            "url": f"s3://{bucket}/{item.key}",
            "mandatory": True,
            "meta": {"content_length": item.size},
        }
        yield (("," if number else "") + "\n" + json.dumps(entry, ensure_ascii=False)).encode()
    yield b"\n]}\n"


def symlinks(bucket: str, receipts: Iterable[Receipt]) -> Iterator[bytes]:
    """Yield the text, an object's URL a line."""
    for item in receipts:
        yield f"s3://{bucket}/{item.key}\n".encode()
