"""The manifest: a delivery's list of objects, put last. Its presence is the customer's commit mark.

Canonical JSON: keys sorted, no white space, UTF-8, one line. The same receipts always give the same bytes, so
a manifest whose answer was lost can be recognised by its checksum. The format is documented in
docs/manifest.md.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from xmode_transfer.domain.records import Delivery, Receipt

FORMAT = "xmode-manifest/1"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(value: object) -> str:
    """Canonical JSON text of one value."""
    return _ENCODER.encode(value)


def timestamp(at: datetime) -> str:
    """``2026-11-22T06:30:00.123456Z``: always UTC, always microseconds, so that texts sort as times do."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def entry(receipt: Receipt) -> dict[str, Any]:
    """One object's entry."""
    return {
        "checksum": {"algorithm": receipt.checksum.algorithm, "value": receipt.checksum.value},
        "delivered_at": timestamp(receipt.delivered_at),
        "key": receipt.key,
        "sha256": receipt.sha256,
        "size": receipt.size,
        "source": receipt.name,
    }


def chunks(delivery: Delivery, receipts: Iterable[Receipt], *, prefix: str) -> Iterator[bytes]:
    """The manifest as bytes, streamed. ``receipts`` in the order of their names; their number and bytes must
    be what ``delivery.object_count`` and ``delivery.total_bytes`` say, since these stand before the list.
    Raises ValueError if not."""
    head = {
        "bytes": delivery.total_bytes,
        "count": delivery.object_count,
        "delivery": delivery.id,
        "feed": delivery.feed,
        "format": FORMAT,
    }
    tail = {"period": delivery.period, "prefix": prefix, "revision": delivery.revision}
    yield (canonical(head)[:-1] + ',"objects":[').encode()
    count = total = 0
    for receipt in receipts:
        count += 1
        total += receipt.size
        yield (("," if count > 1 else "") + canonical(entry(receipt))).encode()
    if count != delivery.object_count or total != delivery.total_bytes:
        raise ValueError(
            f"the ledger holds {count} receipts with {total} bytes for {delivery.label}, "
            f"not {delivery.object_count} with {delivery.total_bytes}"
        )
    yield ("]," + canonical(tail)[1:]).encode()
