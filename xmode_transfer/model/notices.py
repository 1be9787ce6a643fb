"""Notices to customers, as the ledger has them."""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

FIRST_PAUSE = timedelta(minutes=1)


LONGEST_PAUSE = timedelta(hours=1)


class NoticeKind(StrEnum):
    """What a notice tells."""

    LATE = "late"  # the period should have been delivered by now
    PAUSED = "paused"  # its delivery is stopped until the customer acts
    CORRECTED = "corrected"  # a later revision of it was delivered


class NoticeStatus(StrEnum):
    """How far a notice has come."""

    PLANNED = "planned"  # recorded, and not known to be in the bucket
    PUT = "put"  # it lies in the bucket, or did until the customer took it away
    WITHDRAWN = "withdrawn"  # overtaken by events before it could be put


class Mark(NamedTuple):
    """What is told once."""

    customer: str
    feed: str
    period: str
    kind: NoticeKind
    revision: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice as it is recorded before it is put. ``body`` is what is put: trying again puts the same
    bytes. ``error`` says why the last try did not get through."""

    mark: Mark
    key: str
    body: str
    made_at: datetime
    status: NoticeStatus = NoticeStatus.PLANNED
    attempts: int = 0
    next_attempt_at: datetime | None = None
    put_at: datetime | None = None
    error: str = ""

    @property
    def token(self) -> str:
        """What marks the object as this very notice, in its metadata."""
        return hashlib.sha256(f"{self.mark.customer}\0{self.key}\0{self.body}".encode()).hexdigest()[:32]

    def put(self, now: datetime) -> "Notice":
        return replace(self, status=NoticeStatus.PUT, put_at=now, next_attempt_at=None, error="")

    def refused(self, error: str, now: datetime) -> "Notice":
        """Tried again after a pause that doubles."""
        pause = min(FIRST_PAUSE * 2 ** min(self.attempts, 10), LONGEST_PAUSE)
        return replace(self, attempts=self.attempts + 1, next_attempt_at=now + pause, error=error)

    def withdrawn(self) -> "Notice":
        return replace(self, status=NoticeStatus.WITHDRAWN, next_attempt_at=None)
