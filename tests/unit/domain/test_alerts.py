"""Alerts: one a cause, opened once, not repeated within the interval, resolved once."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmode_transfer.domain.alerts import (
    GROWTH_INTERVAL,
    Alert,
    AlertState,
    Condition,
    Event,
    Message,
    Quiet,
    Route,
    Rules,
    Telling,
    advance,
    conditions,
    fingerprint,
    next_message,
    not_told,
    told,
)
from xmode_transfer.domain.errors import Party
from xmode_transfer.domain.health import Trouble

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
RULES = Rules(hold=5 * MINUTE, repeat=4 * HOUR)
OPS = Route("ops")


def trouble(
    cause: str = "role_refused", party: Party = Party.CUSTOMER, minutes: float = 60, **more: str
) -> Trouble:
    return Trouble(cause, party, f"{cause} happened", f"mend {cause}", NOW - minutes * MINUTE, **more)  # type: ignore[arg-type]


def condition(
    cause: str = "role_refused", since_at: datetime = NOW, customers: int = 1, **changes: object
) -> Condition:
    names = tuple(f"c{number}" for number in range(customers))
    made = Condition(
        fingerprint(cause), cause, "", Party.CUSTOMER, False, cause, "m", "h", since_at, names, customers
    )
    return replace(made, **changes)  # type: ignore[arg-type]


# --- From troubles to causes


def test_one_condition_a_cause_however_many_customers() -> None:
    members = [(f"c{number:03}", trouble(minutes=60 * number)) for number in range(1, 38)]
    (found,) = conditions(members * 3)
    assert found.customer_count == 37
    assert found.summary == "37 customers: AssumeRole is refused since 2026-11-23 23:00 UTC"
    assert found.customers[0] == "c001"
    assert found.since_at == NOW - 37 * HOUR
    assert found.party is Party.CUSTOMER
    assert not found.urgent


def test_many_customers_at_one_time_point_to_us() -> None:
    members = [(f"c{number}", trouble(minutes=60 - number)) for number in range(37)]
    (found,) = conditions([*members, ("old", trouble(minutes=6000))])
    assert found.party is Party.US
    assert found.urgent
    assert "37 customers between 2026-11-25 11:00 and 2026-11-25 11:36 UTC" in found.message
    assert "get-caller-identity" in found.hint
    (same,) = conditions([("old", trouble(minutes=6000))])
    assert same.fingerprint == found.fingerprint


@pytest.mark.parametrize("count", [1, 4])
def test_a_few_customers_at_one_time_are_their_own_concern(count: int) -> None:
    (found,) = conditions([(f"c{number}", trouble()) for number in range(count)])
    assert found.party is Party.CUSTOMER


def test_what_is_mended_apart_is_told_apart_until_it_is_too_much() -> None:
    def feeds(count: int) -> list[tuple[str, Trouble]]:
        return [
            ("acme", trouble("no_source", Party.US, detail=f"feed-{number}", feed=f"feed-{number}"))
            for number in range(count)
        ]

    few = conditions(feeds(5))
    assert len(few) == 5
    assert "(feed-0)" in " ".join(item.summary for item in few)
    (many,) = conditions(feeds(6))
    assert many.detail == ""


def test_what_concerns_the_service_names_no_customer() -> None:
    (found,) = conditions([("", trouble("ledger_full", Party.US))])
    assert (found.customers, found.customer_count, found.urgent) == ((), 0, True)
    assert found.summary.startswith("the ledger's disk is full since")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "c"]), st.sampled_from(["late", "role_refused", "no_source"])
        ),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_fingerprints_do_not_depend_on_order_or_customers(
    rows: list[tuple[str, str]], random: object
) -> None:
    members = [(customer, trouble(cause)) for customer, cause in rows]
    shuffled = list(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert conditions(members) == conditions(shuffled)
    assert {item.fingerprint for item in conditions(members)} == {fingerprint(cause) for _, cause in rows}


# --- The life of an alert


def test_an_alert_opens_after_it_held_and_is_resolved_after_it_was_well() -> None:
    alerts: list[Alert] = []
    states = []
    for minute in range(20):
        now = NOW + minute * MINUTE
        here = [condition()] if minute < 8 else []
        step = advance(alerts, here, RULES, now)
        alerts = list(step.alerts.values())
        states.append(alerts[0].state if alerts else None)
        assert [alert.opened_at for alert in step.opened] == ([now] if minute == 5 else [])
        assert [alert.resolved_at for alert in step.resolved] == ([now] if minute == 12 else [])
    pending, is_open, resolved = AlertState.PENDING, AlertState.OPEN, AlertState.RESOLVED
    assert states == [pending] * 5 + [is_open] * 7 + [resolved] * 8


def test_what_has_long_been_wrong_opens_at_once() -> None:
    step = advance([], [condition(since_at=NOW - HOUR)], RULES, NOW)
    assert [alert.state for alert in step.opened] == [AlertState.OPEN]


def test_what_comes_and_goes_is_never_told() -> None:
    alerts: list[Alert] = []
    for minute in range(60):
        here = [condition(since_at=NOW + minute * MINUTE)] if minute % 4 < 3 else []
        step = advance(alerts, here, RULES, NOW + minute * MINUTE)
        alerts = list(step.alerts.values())
        assert step.opened == ()


def test_an_open_alert_survives_a_short_calm() -> None:
    (alert,) = advance([], [condition(since_at=NOW - HOUR)], RULES, NOW).opened
    calm = advance([alert], [], RULES, NOW + 4 * MINUTE)
    assert calm.resolved == ()
    again = advance(calm.alerts.values(), [condition()], RULES, NOW + 4.5 * MINUTE)
    assert again.opened == ()
    assert again.alerts[alert.fingerprint].episode == 1


def test_a_resolved_alert_comes_back_as_a_new_episode_and_is_forgotten_after_a_month() -> None:
    resolved = Alert(condition(), 3, NOW, NOW, NOW, NOW)
    step = advance([resolved], [condition(since_at=NOW)], RULES, NOW + HOUR)
    assert step.alerts[resolved.fingerprint].episode == 4
    assert advance([resolved], [], RULES, NOW + timedelta(days=31)).forgotten == (resolved.fingerprint,)


# --- What a channel is told


def an_open(**changes: object) -> Alert:
    return Alert(condition(**changes), 1, NOW, NOW, NOW)  # type: ignore[arg-type]


def test_a_channel_hears_of_it_once_and_again_after_the_interval() -> None:
    alert = an_open()
    assert next_message(alert, None, OPS, RULES, NOW) is Event.OPENED
    heard = told(alert, "ops", Event.OPENED, NOW)
    assert next_message(alert, heard, OPS, RULES, NOW + 4 * HOUR - MINUTE) is None
    assert next_message(alert, heard, OPS, RULES, NOW + 4 * HOUR) is Event.REPEATED


def test_a_channel_hears_of_more_customers_but_not_of_each() -> None:
    heard = told(an_open(customers=3), "ops", Event.OPENED, NOW)
    grown = an_open(customers=4)
    assert next_message(grown, heard, OPS, RULES, NOW + MINUTE) is None
    assert next_message(grown, heard, OPS, RULES, NOW + GROWTH_INTERVAL) is Event.GREW
    assert next_message(an_open(customers=2), heard, OPS, RULES, NOW + GROWTH_INTERVAL) is None


def test_only_who_heard_of_it_hears_that_it_is_resolved() -> None:
    alert = replace(an_open(), resolved_at=NOW + HOUR)
    heard = told(alert, "ops", Event.OPENED, NOW)
    assert next_message(alert, heard, OPS, RULES, NOW + HOUR) is Event.RESOLVED
    assert next_message(alert, None, OPS, RULES, NOW + HOUR) is None
    done = told(alert, "ops", Event.RESOLVED, NOW + HOUR)
    assert next_message(alert, done, OPS, RULES, NOW + 9 * HOUR) is None


def test_routes_go_by_party_and_urgency() -> None:
    theirs, ours = an_open(), an_open(party=Party.US, urgent=True)
    assert next_message(theirs, None, Route("a", frozenset({Party.US})), RULES, NOW) is None
    assert next_message(ours, None, Route("a", frozenset({Party.US})), RULES, NOW) is Event.OPENED
    assert next_message(theirs, None, Route("a", only_urgent=True), RULES, NOW) is None
    assert next_message(ours, None, Route("a", only_urgent=True), RULES, NOW) is Event.OPENED


@pytest.mark.parametrize(
    ("moment", "quiet"),
    [("21:59", False), ("22:00", True), ("03:00", True), ("06:59", True), ("07:00", False), ("12:00", False)],
)
def test_quiet_hours_hold_over_midnight_in_their_own_zone(moment: str, quiet: bool) -> None:
    hour, minute = map(int, moment.split(":"))
    hours = Quiet(time(22), time(7), "Europe/Berlin")
    at = datetime(2026, 11, 25, hour, minute, tzinfo=UTC) - HOUR  # Berlin is an hour ahead
    assert hours.holds(at) is quiet
    rules = replace(RULES, quiet=hours)
    assert (next_message(an_open(), None, OPS, rules, at) is None) is quiet
    assert next_message(an_open(urgent=True), None, OPS, rules, at) is Event.OPENED
    assert Quiet(time(12), time(13), "UTC").holds(NOW)
    assert not Quiet(time(13), time(14), "UTC").holds(NOW)


def test_a_channel_that_fails_is_tried_again_with_growing_pauses() -> None:
    alert, telling, pauses = an_open(), None, []
    for _ in range(8):
        telling = not_told(alert, telling, "ops", "no answer", NOW)
        assert telling.next_attempt_at is not None
        pauses.append((telling.next_attempt_at - NOW).total_seconds())
        assert next_message(alert, telling, OPS, RULES, telling.next_attempt_at - MINUTE / 60) is None
        assert next_message(alert, telling, OPS, RULES, telling.next_attempt_at) is Event.OPENED
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800, 1800]


def test_a_message_says_what_who_and_what_to_do() -> None:
    alert = an_open(customers=30, message="the role refuses us", hint="send the trust policy")
    message = Message(Event.REPEATED, alert, NOW)
    assert message.title == "still: role_refused"
    assert "Who must act: the customer. Send the trust policy" in message.body
    assert "and 10 more" in message.body
    resolved = Message(Event.RESOLVED, alert, NOW)
    assert resolved.title == "resolved: role_refused"


CAUSES = ("a", "b", "c")


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(CAUSES)), st.integers(1, 90), st.booleans(), st.integers(1, 4)),
        max_size=60,
    ),
    st.integers(0, 30),
    st.integers(1, 12),
)
def test_whatever_happens_nobody_is_told_twice(
    rounds: list[tuple[set[str], int, bool, int]], hold: int, repeat: int
) -> None:
    """Rounds at any distance, and channels that fail; restarts too, since all state is handed on."""
    rules = Rules(hold * MINUTE, repeat * HOUR)
    now, alerts, tellings = NOW, {}, {}
    heard: dict[str, list[tuple[Event, int, datetime]]] = {}
    for present, minutes, works, customers in rounds:
        now += minutes * MINUTE
        here = [condition(cause, now, customers) for cause in sorted(present)]
        alerts = dict(advance(alerts.values(), here, rules, now).alerts)
        for mark, alert in alerts.items():
            before: Telling | None = tellings.get(mark)
            event = next_message(alert, before, OPS, rules, now)
            if event is None:
                continue
            assert event is not Event.OPENED or alert.state is AlertState.OPEN
            if works:
                tellings[mark] = told(alert, "ops", event, now)
                heard.setdefault(mark, []).append((event, alert.episode, now))
            else:
                tellings[mark] = not_told(alert, before, "ops", "no answer", now)
    for events in heard.values():
        assert events[0][0] is Event.OPENED
        for (before_it, episode, earlier), (kind, later_episode, later) in pairwise(events):
            if kind is Event.OPENED:
                assert before_it is Event.RESOLVED or later_episode > episode
            else:
                assert before_it is not Event.RESOLVED
            if kind is Event.REPEATED:
                assert later - earlier >= rules.repeat
            if kind is Event.GREW:
                assert later - earlier >= GROWTH_INTERVAL
        assert len({episode for kind, episode, _ in events if kind is Event.OPENED}) == sum(
            kind is Event.OPENED for kind, _, _ in events
        )


def test_an_end_that_a_channel_could_not_be_told_is_told_though_it_came_back_for_a_moment() -> None:
    heard = told(an_open(), "ops", Event.OPENED, NOW)
    ended = replace(an_open(), resolved_at=NOW)
    back = advance([ended], [condition(since_at=NOW + MINUTE)], RULES, NOW + MINUTE)
    (pending,) = back.alerts.values()
    assert (pending.state, pending.episode) == (AlertState.PENDING, 2)
    heard = not_told(pending, heard, "ops", "no answer", NOW - HOUR)
    assert next_message(pending, heard, OPS, RULES, NOW + MINUTE) is Event.RESOLVED
    done = told(pending, "ops", Event.RESOLVED, NOW + MINUTE)
    calm = advance([pending], [], RULES, NOW + 2 * MINUTE)
    (calmed,) = calm.alerts.values()
    assert (calmed.state, calmed.episode, calm.resolved) == (AlertState.RESOLVED, 2, ())
    assert next_message(calmed, done, OPS, RULES, NOW + 9 * HOUR) is None
    opened = replace(pending, opened_at=NOW + 6 * MINUTE)
    assert next_message(opened, done, OPS, RULES, NOW + 6 * MINUTE) is Event.OPENED
