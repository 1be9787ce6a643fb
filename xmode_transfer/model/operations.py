"""What somebody did to a customer's bucket besides delivering, and what became of each key."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from xmode_transfer.model.records import Failure


class ActKind(StrEnum):
    """What was done."""

    CLEANUP = "cleanup"  # expired objects were removed
    REPAIR = "repair"  # what was missing was delivered again
    ADOPT = "adopt"  # objects that a manifest of ours lists were taken back into the ledger
    SUPERSEDED = "superseded"  # keys that no manifest ever named were removed


@dataclass(frozen=True, slots=True)
class Act:
    """One act: who, what, why, and what it came to.

    ``holder`` is the process (host/boot-id/pid/start-time), ``person`` who asked for it: a user of the
    operating system, a name that was given, or the daemon. ``objects`` and ``bytes`` are what it changed,
    ``failed`` the objects that it could not. While ``finished_at`` is None it is under way, or its process
    was killed.
    """

    id: str
    kind: ActKind
    customer: str
    holder: str
    person: str
    reason: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str | None = None
    objects: int = 0
    bytes: int = 0
    failed: int = 0
    failure: Failure | None = None


class RemovalOutcome(StrEnum):
    """What became of a key that was to be removed."""

    PLANNED = "planned"  # recorded before the request; so it stays where the process is killed
    DOUBTFUL = "doubtful"  # planned too, but not listed as we put it: it is looked at, never deleted
    DELETED = "deleted"  # gone, and its bytes are freed
    HIDDEN = "hidden"  # below a delete marker: the bucket keeps versions, and the customer pays for its bytes
    GONE = "gone"  # somebody else had removed it
    CHANGED = "changed"  # somebody else's bytes now: left alone, and no longer ours
    RETAINED = "retained"  # the customer's bucket does not let it go (a lock, or its policy)
    FAILED = "failed"  # tried again by the next cleanup


INTENDED = (RemovalOutcome.PLANNED, RemovalOutcome.DOUBTFUL)
"""What was only planned."""
REMOVED = frozenset({RemovalOutcome.DELETED, RemovalOutcome.HIDDEN, RemovalOutcome.GONE})
"""After these nothing of ours lies under the key."""


class Removal(NamedTuple):
    """One key of an act. ``delivered_at`` tells which delivery of the key is meant: one that is delivered
    again later is there again. ``reason`` says why it expired, ``at`` when the outcome was known."""

    key: str
    feed: str
    period: str
    revision: int
    manifest: bool
    size: int
    etag: str
    delivered_at: datetime
    reason: str
    outcome: RemovalOutcome
    at: datetime
