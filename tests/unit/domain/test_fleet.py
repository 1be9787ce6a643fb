"""Turns on several machines: virtual time, priorities, and what a seat becomes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.domain import seats
from xmode_transfer.domain.fleet import (
    BACKFILL_HANDICAP,
    BACKFILL_PERIODS,
    BACKFILL_SPAN,
    SILENT_AFTER,
    Call,
    FleetState,
    FleetTurn,
    FleetTurnEnd,
    WorkerRecord,
    cost,
    entering,
    is_backfill,
    priority,
)
from xmode_transfer.domain.seats import REBASE_ABOVE, Seat

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
spendings = st.floats(0, 1e12, allow_nan=False)


def a_seat(state: FleetState = FleetState.RESTING, **changes: object) -> Seat:
    seat = Seat(FleetTurn("acme", state, NOW, 7))
    return replace(seat, **changes)  # type: ignore[arg-type]


# --- Virtual time ----------------------------------------------------------------------------------------


def test_a_turn_costs_less_where_the_weight_is_more() -> None:
    assert [cost(weight) for weight in (1, 2, 100)] == [1.0, 0.5, 0.01]


def test_nobody_comes_back_from_a_rest_with_a_credit() -> None:
    assert entering(3.0, 10.0) == 10.0
    assert entering(12.0, 10.0) == 12.0


@given(spendings, spendings, st.booleans())
def test_who_has_had_less_is_never_less_urgent(one: float, other: float, backfill: bool) -> None:
    less, more = sorted((one, other))
    assert priority(less, backfill=backfill) >= priority(more, backfill=backfill)


@given(spendings, st.booleans())
def test_a_priority_fits_32_bits(spent: float, backfill: bool) -> None:
    assert -(2**31) <= priority(spent, backfill=backfill) <= 0


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


# --- Seats -----------------------------------------------------------------------------------------------


def test_a_call_queues_who_rests_at_the_present_virtual_time() -> None:
    after = seats.called(a_seat(), Call("acme", True, NOW), 5.0, LATER, 8)
    assert after.is_queued
    assert (after.spent, after.hurried, after.serving_at) == (5.0, True, NOW)
    assert (after.turn.since_at, after.turn.serial) == (LATER, 8)


@pytest.mark.parametrize("state", FleetState)
@given(hurried=st.booleans(), serving_at=st.none() | st.just(NOW) | st.just(LATER))
def test_a_call_said_twice_is_said_once(
    state: FleetState, hurried: bool, serving_at: datetime | None
) -> None:
    call = Call("acme", hurried, serving_at)
    once = seats.called(a_seat(state), call, 5.0, LATER, 8)
    assert seats.is_called(once, call)
    assert seats.called(once, call, 9.0, LATER, 9) == once
    assert seats.is_called(a_seat(state), Call("acme")) is (state is FleetState.QUEUED)


def test_a_call_while_the_turn_runs_is_not_seen_by_others() -> None:
    running = a_seat(FleetState.RUNNING)
    after = seats.called(running, Call("acme", True, NOW), 0.0, LATER, 8)
    assert after.turn == running.turn
    assert (after.called_again, after.called_hurried, after.called_serving_at) == (True, True, NOW)


def test_nobody_is_called_who_leaves() -> None:
    leaving = seats.leaving(a_seat(FleetState.RUNNING, called_again=True), 8)
    assert leaving.turn.stop_asked
    assert not leaving.called_again
    assert seats.called(leaving, Call("acme", True, NOW), 0.0, NOW, 9) == leaving
    assert not seats.ended(leaving, 0.0, NOW, 9, FleetTurnEnd(again=True)).is_queued


def test_a_turn_is_charged_as_it_begins_and_moves_the_virtual_time() -> None:
    queued = a_seat(FleetState.QUEUED, weight=4, spent=6.0)
    after, clock = seats.begun(queued, 5.0, LATER, 8, "host-a", 3)
    assert (after.spent, clock) == (6.25, 6.0)
    assert (after.turn.holder, after.generation, after.turn.since_at) == ("host-a", 3, LATER)
    assert seats.begun(queued, 7.0, LATER, 8, "host-a", 3)[1] == 7.0


def test_a_turn_of_the_waiting_queue_does_not_move_the_virtual_time() -> None:
    queued = a_seat(FleetState.QUEUED, spent=6.0)
    waiting = replace(queued, turn=replace(queued.turn, reason="The role refused us."))
    assert waiting.waiting
    assert seats.begun(waiting, 5.0, LATER, 8, "host-a", 3)[1] == 5.0


def test_a_take_over_keeps_all_that_the_turn_was_to_do() -> None:
    running = a_seat(
        FleetState.RUNNING,
        hurried=True,
        serving_at=NOW,
        called_again=True,
        called_serving_at=LATER,
        generation=3,
        spent=2.0,
    )
    after = seats.taken_over(running, 4.0, LATER, 8)
    assert after.is_queued
    assert (after.hurried, after.serving_at, after.generation, after.spent) == (True, LATER, 0, 4.0)
    assert (after.called_again, after.called_serving_at, after.turn.ended_serial) == (False, None, 0)


def test_a_backfill_is_remembered_until_a_turn_says_otherwise() -> None:
    running = a_seat(FleetState.RUNNING)
    behind = seats.ended(running, 0.0, NOW, 8, FleetTurnEnd(again=True, backfill=True))
    assert behind.priority == priority(0.0, backfill=True)
    again, _ = seats.begun(behind, 0.0, NOW, 9, "host-a", 1)
    assert not seats.ended(again, 0.0, NOW, 10, FleetTurnEnd(again=True, backfill=False)).backfill


@given(st.floats(0, 2e6), st.floats(0, 2e6), st.floats(0, 2e6))
def test_putting_the_clock_back_keeps_the_order(one: float, other: float, clock: float) -> None:
    """For those who would be queued: they count as having spent what the clock says at least."""
    before = [entering(spent, clock) - clock for spent in (one, other)]
    after = [entering(seats.rebased(a_seat(spent=spent), clock).spent, 0.0) for spent in (one, other)]
    assert after == before


@given(st.floats(0, REBASE_ABOVE), st.integers(1, 99))
def test_one_turn_of_any_weight_makes_a_difference(spent: float, weight: int) -> None:
    """Also at the latest moment before the clock is put back."""
    assert priority(spent + cost(weight), backfill=True) < priority(spent, backfill=True)
