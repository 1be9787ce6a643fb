"""The manifest, put last: its presence is the customer's commit mark. The same receipts give the same bytes
of canonical JSON (docs/manifest.md), so that a checksum identifies a manifest after a lost response."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from xmode_transfer.model.recall import WithdrawnObject
from xmode_transfer.model.records import Delivery, MissingObject, Receipt

FORMAT = "xmode-manifest/1"
RECALLED = "recalled"  # the reason in the list of what is withdrawn
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(value: object) -> str:
    return _ENCODER.encode(value)


def timestamp(at: datetime) -> str:
    """Return ``2026-11-22T06:30:00.123456Z``; such texts sort as times do."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def content(item: Receipt | MissingObject | WithdrawnObject) -> dict[str, Any]:
    """Return the members that are compared and signed: all but the time of a delivery."""
    checksum = item.checksum._asdict()
    members = {"key": item.key, "size": item.size, "checksum": checksum, "source": item.name}
    if isinstance(item, MissingObject):
        return {**members, "reason": str(item.reason)}
    if isinstance(item, WithdrawnObject):
        return {**members, "at": timestamp(item.at), "reason": RECALLED}
    return {**members, "sha256": item.sha256}


def entry(receipt: Receipt) -> dict[str, Any]:
    return {**content(receipt), "delivered_at": timestamp(receipt.delivered_at)}


SIGNATURE = "signature"
LISTS = ("missing", "objects")  # in their order; they may be long, so they are never in memory as a whole
WITHDRAWN = "withdrawn"  # a third list, the last member, only if something was withdrawn
ALL_LISTS = (*LISTS, WITHDRAWN)


class SignedDigest:
    """The digest that is signed: of the canonical JSON with ``bucket``, without signature and objects'
    times. ``members`` has all but the lists: ``begin`` each in order, and ``add`` its entries."""

    def __init__(self, members: Mapping[str, Any], bucket: str) -> None:
        signed = {name: value for name, value in members.items() if name not in (SIGNATURE, *ALL_LISTS)}
        signed["bucket"] = bucket
        self._members = sorted(signed.items(), reverse=True)
        self._sha256 = hashlib.sha256(b"{")
        self._end = ""  # of the member before
        self._comma = ""

    def begin(self, name: str) -> None:
        self._add_members(before=name)
        self._sha256.update(f"{self._end}{canonical(name)}:[".encode())
        self._end, self._comma = "],", ""

    def _add_members(self, before: str) -> None:
        while self._members and (not before or self._members[-1][0] < before):
            name, value = self._members.pop()
            self._sha256.update(f"{self._end}{canonical(name)}:{canonical(value)}".encode())
            self._end = ","

    def add(self, item: Mapping[str, Any]) -> None:
        signed = {name: value for name, value in item.items() if name != "delivered_at"}
        self._sha256.update((self._comma + canonical(signed)).encode())
        self._comma = ","

    def statement(self) -> bytes:
        """Return the statement to sign, after the last list."""
        self._add_members(before="")
        self._sha256.update((self._end.rstrip(",") + "}").encode())
        return f"{FORMAT} sha256 {self._sha256.hexdigest()}\n".encode()


def chunks(
    delivery: Delivery,
    receipts: Iterable[Receipt],
    missing: Iterable[MissingObject] = (),
    withdrawn: Sequence[WithdrawnObject] = (),
    *,
    prefix: str,
    bucket: str = "",
    released: Mapping[str, Any] | None = None,
    formats: Mapping[str, Any] | None = None,
    sign: Callable[[bytes], dict[str, str] | None] | None = None,
) -> Iterator[bytes]:
    """Yield the manifest. ``receipts``, ``missing`` and ``withdrawn`` are sorted by name; ``released`` says
    who released it despite failed checks; ``formats`` has the keys of native manifests and the table's
    version; ``sign`` signs a statement. Raises ValueError if number and bytes of the receipts are not those
    of the delivery."""
    head = {
        "bytes": delivery.total_bytes,
        "count": delivery.object_count,
        "delivery": delivery.id,
        "feed": delivery.feed,
        "format": FORMAT,
    }
    tail: dict[str, Any] = {"period": delivery.period, "prefix": prefix, "revision": delivery.revision}
    tail |= formats or {}
    if released is not None:
        tail["released"] = released
    if delivery.replaces:
        tail["replaces"] = list(delivery.replaces)
    digest = SignedDigest(head | tail, bucket)
    yield (canonical(head)[:-1] + ',"missing":[').encode()
    digest.begin("missing")
    for number, gone in enumerate(missing):
        item = content(gone)
        digest.add(item)
        yield (("," if number else "") + canonical(item)).encode()
    yield b'],"objects":['
    digest.begin("objects")
    count = total = 0
    for receipt in receipts:
        count += 1
        total += receipt.size
        item = entry(receipt)
        if sign is not None:
            digest.add(item)
        yield (("," if count > 1 else "") + canonical(item)).encode()
    if count != delivery.object_count or total != delivery.total_bytes:
        raise ValueError(
            f"the ledger holds {count} receipts with {total} bytes for {delivery.label}, "
            f"not {delivery.object_count} with {delivery.total_bytes}"
        )
    withdrawals = [content(item) for item in withdrawn]
    if withdrawals:
        digest.begin(WITHDRAWN)
        for item in withdrawals:
            digest.add(item)
    signature = sign(digest.statement()) if sign is not None else None
    if signature is not None:
        tail[SIGNATURE] = signature
    yield ("]," + canonical(tail)[1:-1]).encode()
    for number, item in enumerate(withdrawals):
        yield (("," if number else f',"{WITHDRAWN}":[') + canonical(item)).encode()
    yield b"]}" if withdrawals else b"}"
