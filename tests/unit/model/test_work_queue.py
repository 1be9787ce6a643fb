"""Jobs on several machines: priorities, requests, and who lives."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.jobs import (
    BACKFILL_HANDICAP,
    BACKFILL_PERIODS,
    BACKFILL_SPAN,
    JobRequest,
    is_backfill,
    merged,
    priority,
)
from xmode_transfer.model.process import SILENT_AFTER, WorkerRecord

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
spendings = st.floats(0, 1e12, allow_nan=False)


# --- Priorities ----------------------------------------------------------------------------------------


@given(spendings, spendings, st.booleans())
def test_who_has_had_less_is_never_less_urgent(one: float, other: float, backfill: bool) -> None:
    less, more = sorted((one, other))
    assert priority(less, backfill=backfill) >= priority(more, backfill=backfill)


@given(st.floats(0, 1e6))
def test_a_backfill_stands_as_far_behind_as_it_is_said(spent: float) -> None:
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


# --- Requests and results --------------------------------------------------------------------------------


def test_what_is_asked_for_twice_is_asked_for_together() -> None:
    one, other = JobRequest("acme", True, NOW), JobRequest("acme", serving_at=LATER)
    assert one.merged(other) == other.merged(one) == JobRequest("acme", True, LATER)
    assert one.merged(None) == one
    assert merged([one, JobRequest("beta"), other]) == {
        "acme": JobRequest("acme", True, LATER),
        "beta": JobRequest("beta"),
    }


def test_live_is_what_a_schedule_or_a_person_asks_for() -> None:
    asked = [JobRequest("acme"), JobRequest("acme", True), JobRequest("acme", serving_at=NOW)]
    assert [request.is_live for request in asked] == [False, True, True]


@given(st.floats(0, 1e6), st.integers(1, 99))
def test_one_job_of_any_weight_makes_a_difference(spent: float, weight: int) -> None:
    """Also at the latest moment before the clock is put back."""
    assert priority(spent + 1 / weight, backfill=True) < priority(spent, backfill=True)
