"""Recalls: taking back what was delivered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.model.records import Checksum, Failure


class Content(NamedTuple):
    """The identity of a file's content. ``size`` is compared first: a checksum costs a read of the file."""

    size: int
    checksum: Checksum


Contents = Mapping[str, frozenset[Content]]  # by the file's name at the source


class Withdrawn(NamedTuple):
    """A file that must not be with customers: by its name at the source, and a checksum of its whole content.
    Other content under the same name is not withdrawn. ``customer`` is empty if it holds for all."""

    recall: str
    feed: str
    period: str
    name: str
    size: int
    checksum: Checksum
    customer: str = ""


class WithdrawnObject(NamedTuple):
    """An object that a customer has received and that is withdrawn: a manifest names it. ``at`` is when the
    first recall withdrew it."""

    name: str
    key: str
    size: int
    checksum: Checksum
    at: datetime


@dataclass(frozen=True, slots=True)
class Recall:
    """One recall. ``customer`` narrows it to one. ``despite_hold`` is the reason for which objects that are
    held are withdrawn too. ``finished_at`` is set when the end is known for every customer."""

    id: str
    feed: str
    reason: str
    person: str
    started_at: datetime
    customer: str = ""
    despite_hold: str = ""
    finished_at: datetime | None = None


class RecallState(StrEnum):
    """The state of a recall for one customer. Those that are not done are tried again."""

    PENDING = "pending"  # recorded, not carried out yet
    BLOCKED = "blocked"  # waits for the customer
    FAILED = "failed"  # an error of ours or of AWS
    DONE = "done"  # each key's end is known, although some may not have been removed


UNFINISHED = (RecallState.PENDING, RecallState.BLOCKED, RecallState.FAILED)


@dataclass(frozen=True, slots=True)
class RecallProgress:
    """How far a recall has come for one customer. ``outcomes`` counts its keys, manifests included, by
    ``RemovalOutcome``. ``notified_at``: when the notices of what this attempt removed were recorded."""

    recall: str
    customer: str
    state: RecallState
    updated_at: datetime
    objects: int = 0
    bytes: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    failure: Failure | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    finished_at: datetime | None = None
    notified_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        return self.next_attempt_at is None or self.next_attempt_at <= now
