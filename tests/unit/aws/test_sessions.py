"""How often STS is asked, by one process and by several that share the budget."""

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import MemoryClock
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.aws.sessions import SAVED_SECONDS, SessionBudget
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Vendor
from xmode_transfer.model.errors import Interrupted


def test_what_is_saved_goes_at_once_and_then_one_after_the_other() -> None:
    budget = SessionBudget(10, MemoryClock())
    waits = [budget.reserve() for _ in range(13)]
    assert waits == pytest.approx([0.0] * 10 + [0.1, 0.2, 0.3])


def test_time_earns_new_ones_but_never_more_than_a_second_s() -> None:
    clock = MemoryClock()
    budget = SessionBudget(10, clock)
    for _ in range(10):
        budget.reserve()
    clock.advance(0.5)
    assert [budget.reserve() for _ in range(6)] == pytest.approx([0.0] * 5 + [0.1])
    clock.advance(3600)
    assert [budget.reserve() for _ in range(11)] == pytest.approx([0.0] * 10 + [0.1])


def test_a_part_of_the_budget_is_slower() -> None:
    budget = SessionBudget(10, MemoryClock())
    budget.share(5)
    assert [budget.reserve() for _ in range(4)] == pytest.approx([0.0, 0.0, 0.5, 1.0])
    budget.share(0)  # nobody lives, as far as is known: we do
    assert budget.reserve() == pytest.approx(1.5)
    assert budget.reserve() == pytest.approx(1.6)


@given(
    per_second=st.integers(1, 30),
    participants=st.integers(1, 12),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=25),
    asks=st.integers(1, 40),
)
def test_all_processes_together_keep_to_it(
    per_second: int, participants: int, steps: list[float], asks: int
) -> None:
    """In every stretch of time, whoever asks how often."""
    clock = MemoryClock()
    budgets = [SessionBudget(per_second, clock) for _ in range(participants)]
    begun: list[float] = []
    for budget in budgets:
        budget.share(participants)
    for step in steps:
        for budget in budgets:
            begun += [clock.monotonic() + budget.reserve() for _ in range(asks)]
        clock.advance(step)
    begun.sort()
    saved = max(per_second * SAVED_SECONDS, participants)
    for first in range(0, len(begun), 7):
        for last in range(first, len(begun), 13):
            seconds = begun[last] - begun[first]
            assert last - first + 1 <= per_second * seconds + saved + 1e-6


def test_who_is_asked_to_stop_waits_no_longer() -> None:
    stop = threading.Event()
    budget = SessionBudget(1, MemoryClock(), stop)
    budget.wait()
    stop.set()
    with pytest.raises(Interrupted):
        budget.wait()


def test_each_role_session_takes_from_the_budget(
    stub: Any, our_keys: None, customer_of: Any, monkeypatch: pytest.MonkeyPatch, session_answer: Any
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stub.url)
    clock, stop = MemoryClock(), threading.Event()
    sessions = RoleSessions(Vendor(), clock, budget=SessionBudget(4, clock, stop))
    sessions.share_budget(2)
    stub.reply(session_answer)
    names = ("acme", "globex", "initech")
    providers = [sessions.open(customer_of(name=name), Step.DELIVER) for name in names]
    for provider in providers[:2]:
        provider.get()
        provider.get()  # the session is there: nobody is asked
    stop.set()
    with pytest.raises(Interrupted):
        providers[2].get()
    assert len(stub.asked) == 2
    clock.advance(1)
    providers[2].get()
    assert len(stub.asked) == 3


@pytest.fixture
def session_answer(stub: Any) -> Any:
    reply = type(stub).next_reply.__annotations__["return"]
    sts = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
    body = f"""<AssumeRoleResponse {sts}><AssumeRoleResult><Credentials>
        <AccessKeyId>A</AccessKeyId><SecretAccessKey>s-A-is-long</SecretAccessKey>
        <SessionToken>t-A-is-long</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
        <AssumedRoleUser><Arn>arn:aws:sts::111122223333:assumed-role/XMode/x</Arn><AssumedRoleId>R:x</AssumedRoleId>
        </AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"""
    return reply(200, body.encode())
