"""What lies at a customer's destination, beside what the ledger says should."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.policy import Step
from xmode_transfer.domain.records import DeliveredKey
from xmode_transfer.ports import ListedObject
from xmode_transfer.services.workbench import Workbench


class Standing(StrEnum):
    """How a key at the destination stands to the ledger."""

    OURS = "ours"  # delivered by us, and there as delivered by size and ETag
    MANIFEST = "manifest"  # a manifest of ours
    CHANGED = "changed"  # delivered by us, and another size or ETag now
    MISSING = "missing"  # delivered by us, and no longer there
    FOREIGN = "foreign"  # below our prefix, and not in our ledger


class ListedKey(NamedTuple):
    """One key. ``there`` is what the bucket has, ``known`` what the ledger has of it; one of them may be
    None."""

    standing: Standing
    key: str
    there: ListedObject | None
    known: DeliveredKey | None


def list_destination(bench: Workbench, customer: Customer, feed: str | None = None) -> Iterator[ListedKey]:
    """Every key below the customer's prefix (below one feed's, if named), streamed in the order of keys. Only
    lists and reads. Raises what the role or the store refuses."""
    prefix = customer.destination.prefix + (f"{feed}/" if feed else "")
    bench.sessions.verify_identity()
    credentials = bench.sessions.open(customer, Step.LIST)
    credentials.get()
    store = bench.stores.open(customer, credentials, bench.ledger.capabilities(customer.name).region)
    try:
        known = (item for item in bench.ledger.delivered_keys(customer.name) if item.key.startswith(prefix))
        yield from compare(store.list(prefix), known)
    finally:
        store.close()


def compare(there: Iterable[ListedObject], known: Iterable[DeliveredKey]) -> Iterator[ListedKey]:
    """Both sides in the order of keys, walked side by side."""
    left, right = iter(there), iter(known)
    item, record = next(left, None), next(right, None)
    while item is not None or record is not None:
        if record is None or (item is not None and item.key < record.key):
            assert item is not None
            yield ListedKey(Standing.FOREIGN, item.key, item, None)
            item = next(left, None)
        elif item is None or record.key < item.key:
            yield ListedKey(Standing.MISSING, record.key, None, record)
            record = next(right, None)
        else:
            yield ListedKey(_standing(item, record), item.key, item, record)
            item, record = next(left, None), next(right, None)


def _standing(there: ListedObject, known: DeliveredKey) -> Standing:
    if known.etag is None:
        return Standing.MANIFEST
    same = (there.size, there.etag.strip('"')) == (known.size, known.etag.strip('"'))
    return Standing.OURS if same else Standing.CHANGED
