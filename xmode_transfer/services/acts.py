"""Acts whose processes are no more."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from xmode_transfer.domain.acts import Act, ActKind
from xmode_transfer.domain.records import Lease
from xmode_transfer.ports import Ledger

INTERRUPTED = "interrupted"


def died(acts: Iterable[Act]) -> list[Act]:
    """Those that were never finished."""
    return [act for act in acts if act.finished_at is None]


def close_died(ledger: Ledger, lease: Lease, customer: str, kind: ActKind, now: datetime) -> None:
    """Closes the customer's acts of this kind that were never finished. ``lease`` is the one that every such
    act holds while it lasts, so whoever began them was killed."""
    for act in died(ledger.acts(customer, kind, None)):
        ledger.finish_act(lease, replace(act, finished_at=now, outcome=INTERRUPTED))
