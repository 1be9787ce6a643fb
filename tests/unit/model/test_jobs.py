"""Jobs: priorities, requests, workers, and when a failed delivery is retried."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.errors import ExitCode
from xmode_transfer.model.jobs import (
    BACKFILL_HANDICAP,
    BACKFILL_PERIODS,
    BACKFILL_SPAN,
    Backoff,
    JobRequest,
    is_backfill,
    may_be_tried,
    merged,
    priority,
    suspends,
)
from xmode_transfer.model.process import SILENT_AFTER, WorkerRecord
from xmode_transfer.model.records import Delivery, DeliveryOutcome, Failure, Status

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
spendings = st.floats(0, 1e12, allow_nan=False)


# --- Priorities


@given(spendings, spendings, st.booleans())
def test_who_has_had_less_is_never_less_urgent(one: float, other: float, backfill: bool) -> None:
    less, more = sorted((one, other))
    assert priority(less, backfill=backfill) >= priority(more, backfill=backfill)


@given(st.floats(0, 1e6))
def test_a_backfill_is_behind_by_its_handicap(spent: float) -> None:
    assert priority(spent, backfill=True) == priority(spent + BACKFILL_HANDICAP, backfill=False)


def test_one_period_more_than_keeping_up_is_a_backfill() -> None:
    assert not is_backfill(BACKFILL_PERIODS, timedelta(days=60))
    assert is_backfill(BACKFILL_PERIODS + 1, timedelta(days=2))
    assert is_backfill(BACKFILL_PERIODS + 1, BACKFILL_SPAN)


def test_a_fleet_that_is_some_hours_late_takes_nobody_for_a_backfill() -> None:
    assert not is_backfill(20, timedelta(hours=19))


def test_a_worker_lives_until_it_is_silent_or_has_stopped() -> None:
    worker = WorkerRecord("host-a", NOW, NOW, places=4)
    assert worker.is_alive(NOW + SILENT_AFTER)
    assert not worker.is_alive(NOW + SILENT_AFTER + timedelta(seconds=1))
    assert not replace(worker, stopped_at=NOW).is_alive(NOW)


# --- Requests and results


def test_requests_for_one_customer_merge() -> None:
    one, other = JobRequest("acme", True, NOW), JobRequest("acme", serving_at=LATER)
    assert one.merged(other) == other.merged(one) == JobRequest("acme", True, LATER)
    assert one.merged(None) == one
    assert merged([one, JobRequest("beta"), other]) == {
        "acme": JobRequest("acme", True, LATER),
        "beta": JobRequest("beta"),
    }


def test_requests_of_schedules_and_people_are_live() -> None:
    asked = [JobRequest("acme"), JobRequest("acme", True), JobRequest("acme", serving_at=NOW)]
    assert [request.is_live for request in asked] == [False, True, True]


@given(st.floats(0, 1e6), st.integers(1, 99))
def test_one_job_of_any_weight_makes_a_difference(spent: float, weight: int) -> None:
    """Also at the latest moment before the clock is put back."""
    assert priority(spent + 1 / weight, backfill=True) < priority(spent, backfill=True)


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


def test_a_pause_from_a_killed_process_or_a_wrong_clock_starts_again() -> None:
    killed = replace(PLANNED, failure=REFUSED, updated_at=NOW, next_attempt_at=NOW - timedelta(hours=1))
    assert Backoff(30, 900).next_attempt_at(killed, NOW) == NOW + timedelta(seconds=30)


def test_a_pause_that_begins_in_the_future_does_not_count() -> None:
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
        ("quarantined", ExitCode.WILL_RETRY, False, False, False),
        ("skipped", ExitCode.DONE, False, False, False),  # rejected
    ],
)
def test_which_outcomes_suspend_a_customer(
    outcome: str, exit_code: int, ends_run: bool, retryable: bool | None, expected: bool
) -> None:
    failure = None if retryable is None else Failure("cause", "aws", "why", retryable=retryable)
    came = DeliveryOutcome(
        "acme", "f", "p", 1, outcome, failure=failure, exit_code=exit_code, ends_run=ends_run
    )
    assert suspends(came) is expected
