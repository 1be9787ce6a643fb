"""How the ledger's queries tell what we have taken away, and what no manifest ever named."""

from typing import Any

from sqlalchemy import ColumnElement, Exists, and_, exists, func, or_

from xmode_transfer.adapters.ledger.tables import deliveries, removals
from xmode_transfer.domain.acts import REMOVED, RemovalOutcome
from xmode_transfer.domain.records import SUPERSEDED, Status


def was_removed(table: Any, key: Any = None) -> Exists:
    """Whether an act removed the key of a row of ``receipts`` (or another table's ``key`` column) as it was
    delivered then. By the delivery's own time, not by comparing clocks: a key that was delivered again is
    there."""
    return exists().where(
        removals.c.period_id == table.c.period_id,
        removals.c.key == (table.c.key if key is None else key),
        removals.c.delivered_at == table.c.delivered_at,
        or_(
            *(removals.c.outcome == outcome for outcome in sorted(REMOVED)),
            # An object that is somebody else's now is their business. Not so a manifest: while one is
            # there, its objects stay.
            and_(removals.c.outcome == RemovalOutcome.CHANGED, ~removals.c.manifest),
        ),
    )


def is_superseded(table: Any = deliveries) -> ColumnElement[bool]:
    """Whether a row of ``deliveries`` is a revision that was never published and that another replaced: its
    manifest was not put, not even by a process that did not live to record it."""
    cause = func.coalesce(table.c.failure_cause, "")
    return and_(table.c.status == Status.FAILED, cause == SUPERSEDED, table.c.manifest_key.is_(None))


def of_superseded(table: Any) -> Exists:
    """The same, of a row of ``receipts``."""
    revision = deliveries.alias("its_revision")
    return exists().where(
        revision.c.period_id == table.c.period_id,
        revision.c.revision == table.c.revision,
        is_superseded(revision),
    )
