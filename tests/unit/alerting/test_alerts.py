"""Alerts: one a cause, opened once, not repeated within the interval, resolved once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmode_transfer.alerting.alerts import Message, advance, by_cause, fingerprint, next_event
from xmode_transfer.alerting.health_records import Issue
from xmode_transfer.config import Alerting, Channel
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.health import Alert, AlertState, Event, Notification

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ALERTING = Alerting()
OPS = Channel(name="ops", webhook="env:OPS")


def issue(
    cause: str = "role_refused",
    responsible: Responsible = Responsible.CUSTOMER,
    minutes: float = 60,
    **more: str,
) -> Issue:
    return Issue(cause, responsible, f"{cause} happened", f"mend {cause}", NOW - minutes * MINUTE, **more)  # type: ignore[arg-type]


def an_alert(cause: str = "role_refused", customers: int = 1, **changes: object) -> Alert:
    names = tuple(f"c{number}" for number in range(customers))
    made = Alert(
        fingerprint(cause), cause, "", Responsible.CUSTOMER, False, cause, "m", "h", NOW, names, customers
    )
    return replace(made, **changes)  # type: ignore[arg-type]


# --- From issues to causes


def test_one_alert_per_cause_for_any_number_of_customers() -> None:
    members = [(f"c{number:03}", issue(minutes=60 * number)) for number in range(1, 38)]
    (found,) = by_cause(members * 3)
    assert found.customer_count == 37
    assert found.summary == "37 customers: AssumeRole is refused since 2026-11-23 23:00 UTC"
    assert found.customers[0] == "c001"
    assert found.since_at == NOW - 37 * HOUR
    assert found.responsible is Responsible.CUSTOMER
    assert not found.urgent


def test_a_burst_points_to_the_vendor() -> None:
    members = [(f"c{number}", issue(minutes=60 - number)) for number in range(37)]
    (found,) = by_cause([*members, ("old", issue(minutes=6000))])
    assert found.responsible is Responsible.VENDOR
    assert found.urgent
    assert "37 customers between 2026-11-25 11:00 and 2026-11-25 11:36 UTC" in found.message
    assert "get-caller-identity" in found.hint
    (same,) = by_cause([("old", issue(minutes=6000))])
    assert same.fingerprint == found.fingerprint


@pytest.mark.parametrize("count", [1, 4])
def test_a_few_customers_are_not_a_burst(count: int) -> None:
    (found,) = by_cause([(f"c{number}", issue()) for number in range(count)])
    assert found.responsible is Responsible.CUSTOMER


def test_details_are_separate_alerts_up_to_a_limit() -> None:
    def feeds(count: int) -> list[tuple[str, Issue]]:
        return [
            ("acme", issue("no_source", Responsible.VENDOR, detail=f"feed-{number}", feed=f"feed-{number}"))
            for number in range(count)
        ]

    few = by_cause(feeds(5))
    assert len(few) == 5
    assert "(feed-0)" in " ".join(item.summary for item in few)
    (many,) = by_cause(feeds(6))
    assert many.detail == ""


def test_an_alert_about_the_service_names_no_customer() -> None:
    (found,) = by_cause([("", issue("ledger_full", Responsible.VENDOR))])
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
    members = [(customer, issue(cause)) for customer, cause in rows]
    shuffled = list(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert by_cause(members) == by_cause(shuffled)
    assert {item.fingerprint for item in by_cause(members)} == {fingerprint(cause) for _, cause in rows}


# --- The life of an alert


def test_an_alert_opens_and_resolves() -> None:
    alerts: dict[str, Alert] = {}
    for minute in range(6):
        now = NOW + minute * MINUTE
        alerts = advance(alerts, [an_alert(since_at=now)] if 0 < minute < 4 else [], now)
        if minute:
            (alert,) = alerts.values()
            assert alert.opened_at == NOW + MINUTE
            assert alert.since_at == NOW + min(minute, 3) * MINUTE
            assert alert.resolved_at == (NOW + 4 * MINUTE if minute >= 4 else None)
        else:
            assert alerts == {}


def test_an_alert_reopens_and_is_forgotten_after_a_month() -> None:
    known = {"ops": Notification(Event.RESOLVED, NOW)}
    resolved = an_alert(opened_at=NOW, resolved_at=NOW, notifications=known)
    (again,) = advance({resolved.fingerprint: resolved}, [an_alert()], NOW + HOUR).values()
    assert (again.state, again.opened_at, again.resolved_at) == (AlertState.OPEN, NOW + HOUR, None)
    assert next_event(again, OPS, ALERTING, NOW + HOUR) is Event.OPENED
    assert advance({resolved.fingerprint: resolved}, [], NOW + HOUR) == {resolved.fingerprint: resolved}
    assert advance({resolved.fingerprint: resolved}, [], NOW + timedelta(days=30)) == {}


# --- What a channel is sent


def heard(alert: Alert, event: Event, at: datetime = NOW) -> Alert:
    return replace(alert, notifications={"ops": Notification(event, at)})


def test_a_channel_is_notified_once_and_again_after_the_interval() -> None:
    assert next_event(an_alert(), OPS, ALERTING, NOW) is Event.OPENED
    alert = heard(an_alert(), Event.OPENED)
    assert next_event(alert, OPS, ALERTING, NOW + 4 * HOUR - MINUTE) is None
    assert next_event(alert, OPS, ALERTING, NOW + 4 * HOUR) is Event.REPEATED
    assert next_event(replace(alert, customer_count=100), OPS, ALERTING, NOW + HOUR) is None


def test_an_alert_that_becomes_urgent_is_sent_at_once() -> None:
    urgent = replace(heard(an_alert(), Event.OPENED), urgent=True, responsible=Responsible.VENDOR)
    assert next_event(urgent, OPS, ALERTING, NOW + MINUTE) is Event.OPENED
    told = replace(urgent, notifications={"ops": Notification(Event.OPENED, NOW + MINUTE, urgent=True)})
    assert next_event(told, OPS, ALERTING, NOW + HOUR) is None
    calmer = replace(told, urgent=False)
    assert next_event(calmer, OPS, ALERTING, NOW + HOUR) is None
    assert next_event(replace(calmer, resolved_at=NOW), OPS, ALERTING, NOW + HOUR) is Event.RESOLVED


def test_only_notified_channels_get_the_resolution() -> None:
    over = an_alert(resolved_at=NOW + HOUR)
    assert next_event(heard(over, Event.REPEATED), OPS, ALERTING, NOW + HOUR) is Event.RESOLVED
    assert next_event(over, OPS, ALERTING, NOW + HOUR) is None
    assert next_event(heard(over, Event.RESOLVED), OPS, ALERTING, NOW + 9 * HOUR) is None


def test_routes_go_by_responsible_and_urgency() -> None:
    theirs, ours = an_alert(), an_alert(responsible=Responsible.VENDOR, urgent=True)
    only_us = Channel(name="a", webhook="env:A", responsible=["vendor"])
    only_urgent = Channel(name="a", webhook="env:A", only_urgent=True)
    for channel in (only_us, only_urgent):
        assert next_event(theirs, channel, ALERTING, NOW) is None
        assert next_event(ours, channel, ALERTING, NOW) is Event.OPENED


@pytest.mark.parametrize(
    ("moment", "quiet"),
    [("21:59", False), ("22:00", True), ("03:00", True), ("06:59", True), ("07:00", False), ("12:00", False)],
)
def test_quiet_hours_may_pass_midnight_in_their_own_zone(moment: str, quiet: bool) -> None:
    def alerting(begins: str, until: str, timezone: str = "UTC") -> Alerting:
        return Alerting(quiet_hours={"from": begins, "until": until, "timezone": timezone})

    hour, minute = map(int, moment.split(":"))
    at = datetime(2026, 11, 25, hour, minute, tzinfo=UTC) - HOUR  # Berlin is an hour ahead
    berlin = alerting("22:00", "7:00", "Europe/Berlin")
    assert (next_event(an_alert(), OPS, berlin, at) is None) is quiet
    assert next_event(an_alert(urgent=True), OPS, berlin, at) is Event.OPENED
    assert next_event(an_alert(), OPS, alerting("12:00", "13:00"), NOW) is None
    assert next_event(an_alert(), OPS, alerting("13:00", "14:00"), NOW) is Event.OPENED


def test_a_failed_channel_is_retried_with_backoff() -> None:
    alert, known, pauses = an_alert(), Notification(), []
    for _ in range(8):
        known = known.failed("no answer", NOW)
        assert known.next_attempt_at is not None
        pauses.append((known.next_attempt_at - NOW).total_seconds())
        alert = replace(alert, notifications={"ops": known})
        assert next_event(alert, OPS, ALERTING, known.next_attempt_at - MINUTE / 60) is None
        assert next_event(alert, OPS, ALERTING, known.next_attempt_at) is Event.OPENED
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800, 1800]


def test_a_message_has_the_event_the_responsible_and_the_fix() -> None:
    alert = an_alert(customers=30, message="the role refuses us", hint="send the trust policy")
    message = Message(Event.REPEATED, alert, NOW)
    assert message.title == "still: role_refused"
    assert "Responsible: customer. Send the trust policy" in message.body
    assert "and 10 more" in message.body
    assert Message(Event.RESOLVED, alert, NOW).title == "resolved: role_refused"


CAUSES = ("a", "b", "c")


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(CAUSES)), st.integers(1, 90), st.booleans(), st.integers(1, 4)),
        max_size=60,
    ),
    st.integers(1, 12),
)
def test_no_event_is_sent_twice(rounds: list[tuple[set[str], int, bool, int]], repeat: int) -> None:
    """Rounds at any distance, and channels that fail; restarts too, since all state is handed on."""
    alerting = Alerting(repeat_hours=repeat)
    now, alerts = NOW, {}
    sent: dict[str, list[tuple[Event, datetime]]] = {}
    for present, minutes, works, customers in rounds:
        now += minutes * MINUTE
        here = [an_alert(cause, customers, since_at=now) for cause in sorted(present)]
        alerts = advance(alerts, here, now)
        assert {alert.cause for alert in alerts.values() if alert.state is AlertState.OPEN} == present
        for mark, alert in alerts.items():
            event = next_event(alert, OPS, alerting, now)
            if event is None:
                continue
            assert (event is Event.RESOLVED) == (alert.state is AlertState.RESOLVED)
            known = alert.notifications.get("ops", Notification())
            if works:
                sent.setdefault(mark, []).append((event, now))
                known = Notification(event, now)
            else:
                known = known.failed("no answer", now)
            alerts[mark] = replace(alert, notifications={"ops": known})
    for events in sent.values():
        assert events[0][0] is Event.OPENED
        for (before, earlier), (event, later) in pairwise(events):
            assert (event is Event.OPENED) == (before is Event.RESOLVED)
            if event is Event.REPEATED:
                assert later - earlier >= timedelta(hours=repeat)
