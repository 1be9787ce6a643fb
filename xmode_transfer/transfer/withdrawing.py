"""What is withdrawn is never delivered again: compare files and objects with what recalls have withdrawn."""

from xmode_transfer.aws import checksums
from xmode_transfer.model.recall import Content, Contents
from xmode_transfer.model.records import DeliveredKey, Delivery, MissingObject, Receipt, SourceFile
from xmode_transfer.sources.interface import Source
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.plan import Difference, Kind


def is_withdrawn(item: Receipt | DeliveredKey | MissingObject, contents: Contents) -> bool:
    """Return whether an object has withdrawn content under its file's name."""
    if item.size is None or item.checksum is None:
        return False
    return Content(item.size, item.checksum) in contents.get(item.name, ())


def is_file_withdrawn(source: Source, file: SourceFile, contents: Contents) -> bool:
    """Return whether a source file has withdrawn content. It is read only if its size is one of theirs.
    Raises SourceError."""
    likely = {item.checksum for item in contents.get(file.name, ()) if item.size == file.size}
    for algorithm in {checksum.algorithm for checksum in likely}:
        with source.open(file) as body:
            value = checksums.of(body, algorithm)
            body.check_unchanged()
        if (algorithm, value) in likely:
            return True
    return False


def screen(
    source: Source, difference: Difference, contents: Contents, *, unfinished: bool
) -> Difference | None:
    """Return a difference as if what is withdrawn were neither at the source nor delivered; None if nothing
    is left of it. An ``unfinished`` revision that has it counts as changed, so that another replaces it."""
    kind, receipt, file = difference.kind, difference.receipt, difference.file
    listed = receipt is not None and is_withdrawn(receipt, contents)
    returns = (
        listed if kind is Kind.DELIVERED else file is not None and is_file_withdrawn(source, file, contents)
    )
    if not listed and not returns:
        return difference
    if difference.current and unfinished and (listed or receipt is None):
        return difference._replace(kind=Kind.CHANGED)
    if listed and not returns and kind in (Kind.CHANGED, Kind.PROBLEM):
        return difference
    if receipt is not None and not listed:
        return difference._replace(kind=Kind.GONE, file=None)
    return None


def lists_withdrawn(context: Context, delivery: Delivery) -> bool:
    """Return whether the delivery has an object that is withdrawn."""
    contents = context.ledger.recalls.withdrawn(delivery.customer, delivery.feed, delivery.period)
    return bool(contents) and any(
        receipt is not None and is_withdrawn(receipt, contents)
        for _, receipt in context.ledger.objects.planned(delivery.id)
    )
