"""Files of one period that have the same key by the feed's layout, found before the first byte is sent.

Either one would replace the other, so neither is sent. What was delivered stays as it is.
"""

from collections.abc import Iterable, Mapping
from itertools import chain

from xmode_transfer.model.errors import KeyCollision
from xmode_transfer.model.keys import readable
from xmode_transfer.model.records import Delivery, Lease, PlannedObject, Receipt, SourceProblem
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.plan import Action, PlanEntry

Names = Mapping[str, list[str]]
"""Keys that several files have, each with the first two of their names."""


def taken_out(
    context: Context, lease: Lease, delivery: Delivery
) -> list[tuple[PlannedObject, SourceProblem]]:
    """Take files out of a recorded plan whose key another file of the period has, and return them."""
    objects = context.ledger.objects
    found = objects.collisions(delivery.id)
    objects.forget(lease, delivery.id, [planned.name for planned, _ in found])
    return [
        (planned, SourceProblem(planned.name, KeyCollision.code, _reason(planned.key, other)))
        for planned, other in found
    ]


def meeting(known: Iterable[Receipt], entries: Iterable[PlanEntry]) -> Names:
    """Compare the keys of a plan that is not recorded with each other and with delivered ones."""
    names: dict[str, list[str]] = {}
    delivered = ((receipt.key, receipt.name) for receipt in known)
    planned = ((entry.key, entry.name) for entry in entries if entry.action is Action.UPLOAD)
    for key, name in chain(delivered, planned):
        of_key = names.setdefault(key, [])
        if name not in of_key and len(of_key) < 2:
            of_key.append(name)
    return {key: of_key for key, of_key in names.items() if len(of_key) > 1}


def screened(entry: PlanEntry, names: Names) -> PlanEntry:
    """Return an upload as a conflict if another file has its key."""
    others = [name for name in names.get(entry.key, ()) if name != entry.name]
    if not others or entry.action is not Action.UPLOAD:
        return entry
    return entry._replace(action=Action.CONFLICT, reason=_reason(entry.key, others[0]))


def _reason(key: str, other: str) -> str:
    return (
        f"its key {key} is that of {readable(other)} too; rename one of the two, or name the file by "
        "{path} in the layout"
    )
