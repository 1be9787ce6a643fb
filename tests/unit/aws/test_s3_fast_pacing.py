"""How fast a customer is sent to, and how often anything is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.aws.retrying import RETRY_BUDGET, Pace
from xmode_transfer.aws.s3_fast.engine import ATTEMPTS, LONGEST_PAUSE_SECONDS, deadline_seconds, pause_before


@given(attempt=st.integers(2, 40), chance=st.floats(0, 1))
def test_a_pause_is_anything_up_to_its_bound(attempt: int, chance: float) -> None:
    bound = min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0 ** (attempt - 2))
    assert 0 <= pause_before(attempt, chance) <= bound
    assert pause_before(attempt, 1.0) == bound
    assert pause_before(attempt, 0.0) == 0


def test_all_pauses_of_one_request_are_short() -> None:
    assert sum(pause_before(attempt, 1.0) for attempt in range(2, ATTEMPTS + 1)) == 7.5


def test_a_deadline_grows_with_the_size() -> None:
    assert deadline_seconds(0) == 120
    assert deadline_seconds(16 * 2**20) == 120 + 1024


def test_slowdown_halves_once_for_what_was_in_flight_together() -> None:
    pace = Pace(16)
    for _ in range(5):  # all five were sent before the first refusal came
        pace.slow_down(sent_at=10.0, now=11.0)
    assert pace.allowed == 8
    pace.slow_down(sent_at=11.5, now=12.0)
    assert pace.allowed == 4


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 64))
def test_the_pace_stays_between_one_and_its_limit(fine: list[bool], most: int) -> None:
    pace = Pace(most)
    for now, succeeded in enumerate(fine):
        if succeeded:
            pace.succeeded()
        else:
            pace.slow_down(sent_at=float(now), now=float(now))
        assert 1 <= pace.allowed <= most
        assert pace.has_room()


def test_it_recovers_by_one_a_round() -> None:
    pace = Pace(16)
    for now in (1.0, 2.0, 3.0):
        pace.slow_down(sent_at=now, now=now)
    assert pace.allowed == 2
    rounds = 0
    while pace.allowed < 16:
        for _ in range(int(pace.allowed)):
            pace.succeeded()
        rounds += 1
    assert 12 <= rounds <= 16


def test_the_budget_of_retries_runs_out_and_is_earned_again() -> None:
    pace = Pace(4)
    assert sum(pace.may_retry() for _ in range(1000)) == RETRY_BUDGET
    for _ in range(5):
        pace.succeeded()
    assert pace.may_retry()
    assert not pace.may_retry()
    for _ in range(10_000):
        pace.succeeded()
    assert sum(pace.may_retry() for _ in range(1000)) == RETRY_BUDGET
