"""Acts whose processes are no more."""

from dataclasses import replace
from datetime import datetime

from xmode_transfer.domain.acts import ActKind
from xmode_transfer.domain.records import Lease
from xmode_transfer.ports import Ledger

INTERRUPTED = "interrupted"


def close_died(ledger: Ledger, lease: Lease, customer: str, kind: ActKind, now: datetime) -> None:
    """Closes the customer's acts of this kind that were never finished. ``lease`` is the one that every such
    act holds while it lasts, so whoever began them was killed."""
    for act in ledger.acts(customer, kind, None):
        if act.finished_at is None:
            ledger.finish_act(lease, replace(act, finished_at=now, outcome=INTERRUPTED))
