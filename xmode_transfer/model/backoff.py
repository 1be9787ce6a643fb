"""When a delivery that failed or was refused is tried again, and what a failure says about the customer's
other deliveries."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from xmode_transfer.model.errors import ExitCode, ObjectExists, PartsRefused
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Status


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that doubles with each failure, from the first to the longest. It is kept in the ledger, as the
    time between a delivery's ``updated_at`` and its ``next_attempt_at``, so that it outlives the process."""

    first_seconds: float = 30.0
    longest_seconds: float = 900.0

    def next_attempt_at(self, earlier: Delivery | None, now: datetime) -> datetime:
        """When to try again after a failure that is noted at ``now``; ``earlier`` is the delivery as the
        ledger had it before this attempt."""
        pause = self.first_seconds
        if earlier is not None and earlier.failure is not None and earlier.next_attempt_at is not None:
            before = (earlier.next_attempt_at - earlier.updated_at).total_seconds()
            pause = max(self.first_seconds, 2 * before)
        return now + timedelta(seconds=min(pause, self.longest_seconds))


def breaks_off(outcome: DeliveryOutcome) -> bool:
    """Whether the customer's other deliveries would meet the same, so that they wait for this one: a refusal
    of the role or the bucket, a destination that throttles or does not answer. A file that cannot be read, or
    a key that is taken, is this delivery's own trouble."""
    if outcome.exit_code in (ExitCode.DONE, ExitCode.ALREADY_RUNNING, ExitCode.INTERRUPTED):
        return False
    return outcome.ends_run or (outcome.failure is not None and outcome.failure.retryable)


def broke_off(delivery: Delivery) -> bool:
    """The same for a delivery as the ledger has it, whose outcome nobody remembers."""
    return delivery.failure is not None and (
        (delivery.status is Status.BLOCKED and delivery.failure.cause not in _OF_ONE_DELIVERY)
        or (delivery.status is Status.FAILED and delivery.failure.retryable)
    )


_OF_ONE_DELIVERY = frozenset({ObjectExists.code, PartsRefused.code, "incomplete"})
"""Causes for which the customer must act, and its other deliveries go through."""


def may_be_tried(latest: Delivery | None, now: datetime) -> bool:
    """Whether the delivery's pause is over. A pause that is longer than any can be was noted while the clock
    was wrong, and counts for nothing."""
    if latest is None or latest.next_attempt_at is None:
        return True
    return latest.next_attempt_at <= now or latest.updated_at > now
