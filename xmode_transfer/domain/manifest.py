"""The manifest: a delivery's list of objects, put last. Its presence is the customer's commit mark.

Canonical JSON: keys sorted, no white space, UTF-8, one line. The same receipts always give the same bytes, so
a manifest whose answer was lost can be recognised by its checksum. The format is documented in
docs/manifest.md.

Its signature, where there is one, is over the same canonical JSON with the bucket's name added, and without
the signature itself and the times of the objects: these may differ when an answer was lost, and what is
signed must not.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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


SIGNATURE = "signature"


def statement(sha256_hex: str) -> bytes:
    """What a signature is over: a digest, and what it is a digest of."""
    return f"{FORMAT} sha256 {sha256_hex}\n".encode()


class SignedDigest:
    """The digest of what is signed of a manifest in that bucket; ``members`` are all but its objects, which
    are added in their order."""

    def __init__(self, members: Mapping[str, Any], bucket: str) -> None:
        said = {name: value for name, value in members.items() if name != SIGNATURE} | {"bucket": bucket}
        before = {name: value for name, value in said.items() if name < "objects"}
        self._after = {name: value for name, value in said.items() if name > "objects"}
        self._sha256 = hashlib.sha256((canonical(before)[:-1] + ',"objects":[').encode())
        self._count = 0

    def add(self, item: Mapping[str, Any]) -> None:
        essence = {name: value for name, value in item.items() if name != "delivered_at"}
        self._sha256.update((("," if self._count else "") + canonical(essence)).encode())
        self._count += 1

    def statement(self) -> bytes:
        """What is signed, after the last object."""
        self._sha256.update(("]," + canonical(self._after)[1:]).encode())
        return statement(self._sha256.hexdigest())


def chunks(
    delivery: Delivery,
    receipts: Iterable[Receipt],
    *,
    prefix: str,
    bucket: str = "",
    sign: Callable[[bytes], dict[str, str] | None] | None = None,
) -> Iterator[bytes]:
    """The manifest as bytes, streamed. ``receipts`` in the order of their names; their number and bytes must
    be what ``delivery.object_count`` and ``delivery.total_bytes`` say, since these stand before the list.
    ``sign`` gives the signature of a statement, for a manifest in ``bucket``. Raises ValueError if not."""
    head = {
        "bytes": delivery.total_bytes,
        "count": delivery.object_count,
        "delivery": delivery.id,
        "feed": delivery.feed,
        "format": FORMAT,
    }
    tail: dict[str, Any] = {"period": delivery.period, "prefix": prefix, "revision": delivery.revision}
    yield (canonical(head)[:-1] + ',"objects":[').encode()
    digest = SignedDigest(head | tail, bucket) if sign is not None else None
    count = total = 0
    for receipt in receipts:
        count += 1
        total += receipt.size
        item = entry(receipt)
        if digest is not None:
            digest.add(item)
        yield (("," if count > 1 else "") + canonical(item)).encode()
    if count != delivery.object_count or total != delivery.total_bytes:
        raise ValueError(
            f"the ledger holds {count} receipts with {total} bytes for {delivery.label}, "
            f"not {delivery.object_count} with {delivery.total_bytes}"
        )
    signature = sign(digest.statement()) if sign is not None and digest is not None else None
    if signature is not None:
        tail[SIGNATURE] = signature
    yield ("]," + canonical(tail)[1:]).encode()
