"""How the ledger's queries tell what a cleanup has taken away."""

from typing import Any

from sqlalchemy import Exists, and_, exists, or_

from xmode_transfer.adapters.ledger.tables import removals
from xmode_transfer.domain.acts import REMOVED, RemovalOutcome


def was_removed(table: Any, key: Any = None) -> Exists:
    """Whether an act removed the key of a row of ``receipts`` (or another table's ``key`` column) as it was
    delivered then. By the delivery's own time, not by comparing clocks: a key that was delivered again is
    there."""
    return exists().where(
        removals.c.period_id == table.c.period_id,
        removals.c.key == (table.c.key if key is None else key),
        removals.c.delivered_at == table.c.delivered_at,
        or_(
            *(removals.c.outcome == str(outcome) for outcome in sorted(REMOVED)),
            # An object that is somebody else's now is their business. Not so a manifest: while one is
            # there, its objects stay.
            and_(removals.c.outcome == str(RemovalOutcome.CHANGED), ~removals.c.manifest),
        ),
    )
