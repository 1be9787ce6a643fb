"""The signed report of a recall: what was removed from which customer and when, and what was not and why. It
has the form of a receipt, so that `verify --receipt` checks it offline."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xmode_transfer.config import Configuration
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.manifest import timestamp
from xmode_transfer.model.recall import Contents, Recall, RecallProgress, RecallState
from xmode_transfer.model.upkeep import Removal, RemovalOutcome
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.withdrawing import is_withdrawn
from xmode_transfer.upkeep.recall import contents_of
from xmode_transfer.upkeep.receipts import RECALL_FORMAT, ReceiptFile

REASONS = {
    RemovalOutcome.HIDDEN: "behind a delete marker: only the customer can delete the versions below",
    RemovalOutcome.GONE: "already deleted by someone else",
    RemovalOutcome.CHANGED: "overwritten by someone else since delivery: not ours any more, and not touched",
    RemovalOutcome.RETAINED: "a lock or a policy of the bucket refuses the deletion",
    RemovalOutcome.FAILED: "the request failed; it is tried again",
    RemovalOutcome.HELD: "kept by the customer's hold",
    RemovalOutcome.ELSEWHERE: "below a former prefix, which the role does not cover: the customer deletes it",
    RemovalOutcome.PLANNED: "not reached yet: the customer's line has the reason; it is tried again",
    RemovalOutcome.INCONCLUSIVE: "not listed as we put it; it is checked again",
}


def reason_of(removal: Removal) -> str:
    """Return why a key is not gone, and how long it is locked, where we may see that."""
    reason = REASONS[removal.outcome]
    if removal.locked_until is not None:
        return f"{reason}; locked until {removal.locked_until:%Y-%m-%d %H:%M} UTC"
    return f"{reason}; how long is not known" if removal.outcome is RemovalOutcome.RETAINED else reason


def state_of(progress: Sequence[RecallProgress]) -> RecallState:
    """Return the state of a recall as a whole: the one that most needs somebody."""
    order = (RecallState.BLOCKED, RecallState.FAILED, RecallState.PENDING, RecallState.DONE)
    return min((item.state for item in progress), key=order.index, default=RecallState.DONE)


def write(context: Context, configuration: Configuration, recall: Recall, file: ReceiptFile) -> None:
    """Write and sign the report of a recall as it is now."""
    ledger, now = context.ledger, context.clock.now()
    progress = ledger.recalls.progress(recall.id)
    head = {
        "format": RECALL_FORMAT,
        "vendor": context.vendor.principal_arn,
        "recall": recall.id,
        "feed": recall.feed,
        "customer": recall.customer or None,
        "reason": recall.reason,
        "by": recall.person,
        "despite_hold": recall.despite_hold or None,
        "started_at": timestamp(recall.started_at),
        "reported_at": timestamp(now),
    }
    file.add(head)
    files = ledger.recalls.files(recall.id)
    for item in files:
        file.add(
            {"file": item.name, "period": item.period, "size": item.size, "checksum": item.checksum._asdict()}
        )
    outcomes = Counter[str]()
    for of_customer in progress:
        file.add(_customer(configuration, of_customer))
        for removal in _keys(ledger, recall, of_customer, contents_of(files)):
            outcomes[str(removal.outcome)] += 1
            file.add(_key(of_customer.customer, removal))
    state = state_of(progress)
    tail = {"state": str(state), "customers": len(progress), "files": len(files)}
    file.sign({**tail, "keys": dict(sorted(outcomes.items()))})


def _keys(
    ledger: Ledger, recall: Recall, progress: RecallProgress, periods: Mapping[str, Contents]
) -> Iterator[Removal]:
    """Yield the last outcome of each key, and the objects that no attempt has reached."""
    customer, seen = progress.customer, set[str]()
    for removal in ledger.operations.of_recall(customer, recall.id):
        seen.add(removal.key)
        yield removal
    for period, contents in sorted(periods.items()):
        for item in ledger.objects.receipts(customer, recall.feed, period):
            if not item.removed and item.key not in seen and is_withdrawn(item, contents):
                seen.add(item.key)
                of, at = (item.key, recall.feed, period, 0, False, item.size, item.etag), progress.updated_at
                yield Removal(*of, item.delivered_at, recall.id, RemovalOutcome.PLANNED, at)


def _customer(configuration: Configuration, progress: RecallProgress) -> dict[str, Any]:
    customer, failure = configuration.customers.get(progress.customer), progress.failure
    return {
        "customer": progress.customer,
        "company": customer and customer.company,
        "destination": customer and customer.destination.url,
        "state": str(progress.state),
        "objects": progress.objects,
        "bytes": progress.bytes,
        "outcomes": dict(progress.outcomes),
        "updated_at": timestamp(progress.updated_at),
        "finished_at": timestamp(progress.finished_at) if progress.finished_at else None,
        "cause": failure and failure.cause,
        "responsible": failure and failure.responsible,
        "message": failure and failure.message,
    }


def _key(customer: str, removal: Removal) -> dict[str, Any]:
    return {
        "customer": customer,
        "key": removal.key,
        "kind": "manifest" if removal.manifest else "object",
        "period": removal.period,
        "revision": removal.revision or None,
        "size": removal.size,
        "etag": removal.etag,
        "delivered_at": timestamp(removal.delivered_at),
        "verdict": str(removal.outcome),
        "at": timestamp(removal.at),
        "locked_until": timestamp(removal.locked_until) if removal.locked_until else None,
        "message": reason_of(removal) if removal.outcome in REASONS else None,
    }
