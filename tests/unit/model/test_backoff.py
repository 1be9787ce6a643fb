"""When a failed delivery is tried again, and whether the customer's others wait for it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from xmode_transfer.model.errors import ExitCode
from xmode_transfer.model.jobs import Backoff, may_be_tried, suspends
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Failure, Status

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
REFUSED = Failure("role_refused", "customer", "refused")
PLANNED = Delivery("id", "acme", "us-daily", "2026-11-22", 1, Status.PLANNED, NOW, NOW)


def test_the_pause_doubles_up_to_the_longest() -> None:
    backoff, now, delivery, pauses = Backoff(30, 900), NOW, PLANNED, []
    for _ in range(8):
        then = backoff.next_attempt_at(delivery, now)
        pauses.append((then - now).total_seconds())
        delivery = replace(delivery, failure=REFUSED, updated_at=now, next_attempt_at=then)
        now = then + timedelta(seconds=7)  # tried a little later than it might have been
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]
    assert backoff.next_attempt_at(None, now) - now == timedelta(seconds=30)


def test_a_pause_that_a_kill_or_a_wrong_clock_left_behind_begins_anew() -> None:
    killed = replace(PLANNED, failure=REFUSED, updated_at=NOW, next_attempt_at=NOW - timedelta(hours=1))
    assert Backoff(30, 900).next_attempt_at(killed, NOW) == NOW + timedelta(seconds=30)


def test_the_pause_counts_for_nothing_when_it_was_noted_in_the_future() -> None:
    waiting = replace(PLANNED, failure=REFUSED, updated_at=NOW, next_attempt_at=NOW + timedelta(minutes=5))
    assert not may_be_tried(waiting, NOW + timedelta(minutes=4))
    assert may_be_tried(waiting, NOW + timedelta(minutes=5))
    assert may_be_tried(waiting, NOW - timedelta(days=1))
    assert may_be_tried(PLANNED, NOW)
    assert may_be_tried(None, NOW)


@pytest.mark.parametrize(
    ("outcome", "exit_code", "ends_run", "retryable", "expected"),
    [
        ("delivered", ExitCode.DONE, False, None, False),
        ("blocked", ExitCode.BLOCKED, True, False, True),  # the role, the bucket
        ("failed", ExitCode.WILL_RETRY, False, True, True),  # throttled, no answer
        ("failed", ExitCode.WILL_RETRY, False, False, False),  # some files, a source
        ("blocked", ExitCode.BLOCKED, False, False, False),  # a key that is taken
        ("interrupted", ExitCode.INTERRUPTED, True, False, False),
        ("already_running", ExitCode.ALREADY_RUNNING, False, False, False),
    ],
)
def test_what_breaks_a_customer_off(
    outcome: str, exit_code: int, ends_run: bool, retryable: bool | None, expected: bool
) -> None:
    failure = None if retryable is None else Failure("cause", "aws", "why", retryable=retryable)
    came = DeliveryOutcome(
        "acme", "f", "p", 1, outcome, failure=failure, exit_code=exit_code, ends_run=ends_run
    )
    assert suspends(came) is expected
