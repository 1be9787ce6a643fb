"""A manifest that was read to disk, as adoption walks through it: again and again, never all in memory."""

from collections.abc import Iterator
from heapq import merge
from itertools import islice

from xmode_transfer.domain.manifest_reading import ManifestReader, NoManifest, missing_of, receipt_of
from xmode_transfer.domain.records import MissingObject, PlannedObject
from xmode_transfer.ports import OpenFile

_CHUNK_BYTES = 1024 * 1024
_BATCH = 1000


def chunks(body: OpenFile) -> Iterator[bytes]:
    for offset in range(0, body.size, _CHUNK_BYTES):
        yield body.read_at(offset, min(_CHUNK_BYTES, body.size - offset))


def planned(body: OpenFile, identity: str) -> Iterator[PlannedObject]:
    """What it lists, as it would have been planned; ``identity`` is that of every file."""
    for entry in ManifestReader(chunks(body)):
        receipt = receipt_of(entry)
        yield PlannedObject(receipt.name, receipt.key, receipt.size, 0, identity)


def missing(body: OpenFile) -> Iterator[list[MissingObject]]:
    """What it says is missing, in batches."""
    gone = map(missing_of, ManifestReader(chunks(body), "missing"))
    while some := list(islice(gone, _BATCH)):
        yield some


def check_missing(body: OpenFile) -> None:
    """No name comes twice, neither among what is missing nor there and in the list. Raises NoManifest."""
    if not next(missing(body), []):
        return
    listed = (str(entry["source"]) for entry in ManifestReader(chunks(body)))
    last = ""
    for name in merge(listed, (item.name for some in missing(body) for item in some)):
        if name <= last:
            raise NoManifest(f"it says that {name} is missing, out of order or twice")
        last = name
