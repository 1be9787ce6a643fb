"""Acts whose processes are no more."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.acts import Act, ActKind
from xmode_transfer.domain.records import Lease

INTERRUPTED = "interrupted"


def died(acts: Iterable[Act]) -> list[Act]:
    """Those that were never finished."""
    return [act for act in acts if act.finished_at is None]


def close_died(ledger: Ledger, lease: Lease, customer: str, kind: ActKind, now: datetime) -> None:
    """Closes the customer's acts of this kind that were never finished. ``lease`` is the one that every such
    act holds while it lasts, so whoever began them was killed."""
    for act in died(ledger.operations.newest(customer, kind, None)):
        ledger.operations.finish(lease, replace(act, finished_at=now, outcome=INTERRUPTED))
