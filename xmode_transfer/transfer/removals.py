"""What is to be removed of a period, as it was planned."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from xmode_transfer.model.operations import Removal, RemovalOutcome
from xmode_transfer.model.records import DeliveredKey, Delivery, ListedObject, Status

States = tuple[tuple[int, Status], ...]


@dataclass(slots=True)
class ExpiringPeriod:
    """What goes of one period. ``objects`` and ``bytes`` were listed as we put them; ``manifests`` are beside
    them, ``doubtful`` objects too. ``states`` are the revisions when it was judged. ``kept_because`` says why
    nothing of it was removed after all."""

    feed: str
    period: str
    reason: str
    states: States
    objects: int = 0
    bytes: int = 0
    doubtful: int = 0
    manifests: list[Removal] = field(default_factory=list)
    removed: int = 0
    removed_bytes: int = 0
    kept_because: str = ""


def states_of(deliveries: Sequence[Delivery]) -> States:
    """What must not have changed between the plan and the removal."""
    return tuple(sorted((item.revision, item.status) for item in deliveries))


def planned_removal(known: DeliveredKey, there: ListedObject | None, reason: str, now: datetime) -> Removal:
    """As it is planned: to be deleted as it is ``there``, or (None) only to be looked at."""
    return Removal(
        known.key,
        known.feed,
        known.period,
        known.revision,
        manifest=known.etag is None,
        size=there.size if there is not None else known.size or 0,
        etag=there.etag if there is not None else known.etag or "",
        delivered_at=known.delivered_at,
        reason=reason,
        outcome=RemovalOutcome.INCONCLUSIVE if there is None else RemovalOutcome.PLANNED,
        at=now,
    )
