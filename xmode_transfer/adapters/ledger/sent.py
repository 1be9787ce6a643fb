"""How much of what was planned is proven to have arrived, for deliveries that are under way."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Table, and_, func, select

from xmode_transfer.adapters.ledger.tables import deliveries, objects, receipts, upload_parts, uploads
from xmode_transfer.domain.records import Delivery, UploadStatus

SUMMED_OBJECTS = 50_000
"""Of so many planned objects at most it is asked whether they were sent: a survey comes every few seconds."""
_ASKED_AT_ONCE = 500


def sent_bytes(connection: Connection, begun: Sequence[Delivery]) -> dict[str, int]:
    """Of each delivery the bytes that have receipts, as far as there are any. Where there are too many
    objects to look at, those deliveries come first whose objects are largest: they weigh most."""
    chosen, left = [], SUMMED_OBJECTS
    for item in sorted(begun, key=lambda item: item.total_bytes / max(1, item.object_count), reverse=True):
        if 0 < item.object_count <= left:
            left -= item.object_count
            chosen.append(item.id)
    sent: dict[str, int] = {}
    for start in range(0, len(chosen), _ASKED_AT_ONCE):
        # By the plan's own names: a drop folder's period has the receipts of all its revisions.
        query = (
            select(deliveries.c.id, func.sum(objects.c.size))
            .join_from(deliveries, objects, _same(objects, deliveries, "period_id", "revision"))
            .join(receipts, _same(receipts, objects, "period_id", "revision", "name"))
            .where(deliveries.c.id.in_(chosen[start : start + _ASKED_AT_ONCE]))
            .group_by(deliveries.c.id)
        )
        sent |= {number: int(size) for number, size in connection.execute(query)}
    for number, size in connection.execute(_PARTS):
        sent[number] = sent.get(number, 0) + int(size)
    return sent


# Of large objects that are on their way, the parts that have arrived.
_PARTS = (
    select(uploads.c.delivery_id, func.sum(upload_parts.c.size))
    .join_from(uploads, upload_parts, upload_parts.c.upload == uploads.c.id)
    .where(uploads.c.status == UploadStatus.OPEN)
    .group_by(uploads.c.delivery_id)
)


def _same(one: Table, other: Table, *names: str) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in names))
