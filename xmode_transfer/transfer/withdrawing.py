"""What is withdrawn is never delivered again: compare files and objects with what recalls have withdrawn."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter

from xmode_transfer.aws import checksums
from xmode_transfer.model.recall import Content, Contents, Recall, Withdrawn, WithdrawnObject
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


def newest_of_folder(context: Context, delivery: Delivery, root: str) -> Iterator[Receipt]:
    """Yield the newest object of each file of a drop folder that is still to be read."""
    of_period = (delivery.customer, delivery.feed, delivery.period)
    withdrawn = context.ledger.recalls.withdrawn(*of_period)
    # By name and revision. A recall's batch lists older objects again, which are no newer for that.
    for _, some in groupby(context.ledger.objects.receipts(*of_period), attrgetter("name")):
        newest: dict[str, Receipt | None] = {}
        for receipt in some:
            gone = receipt.removed or receipt.superseded or not receipt.key.startswith(root)
            is_good = not gone and not is_withdrawn(receipt, withdrawn)
            newest[receipt.key] = receipt if is_good else newest.get(receipt.key)
        yield from [item for item in newest.values() if item is not None][-1:]


def note_adopted(context: Context, delivery: Delivery, gone: Iterable[WithdrawnObject]) -> None:
    """Record what a manifest that is adopted names as withdrawn: its customer must not receive it again."""
    customer, feed, period, key = delivery.customer, delivery.feed, delivery.period, delivery.manifest_key
    for at, some in groupby(sorted(gone, key=attrgetter("at")), attrgetter("at")):
        recall = Recall(
            id=f"adopted-{customer}-{feed}-{at:%Y%m%dT%H%M%S%f}",
            feed=feed,
            reason=f"withdrawn according to {key}",
            person="adopt",
            started_at=at,
            customer=customer,
            finished_at=context.clock.now(),
        )
        files = [
            Withdrawn(recall.id, feed, period, item.name, item.size, item.checksum, customer) for item in some
        ]
        context.ledger.recalls.start(recall, files, ())
