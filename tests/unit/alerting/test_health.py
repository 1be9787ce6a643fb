"""The one evaluator: what the ledger says of a subscription, and the word that follows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.alerting.alerts import by_cause
from xmode_transfer.alerting.health import assess
from xmode_transfer.alerting.health_records import SOUND, Health, SubscriptionHealth
from xmode_transfer.config import (
    Configuration,
    Customer,
    CustomerState,
    Day,
    Destination,
    Feed,
    FeedFreshness,
    Freshness,
    Problem,
    Schedule,
    Service,
)
from xmode_transfer.config.times import deadlines_of
from xmode_transfer.model.checks import Check, FailedCheck, Judgement, Verdict
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.health import (
    CheckSummary,
    CleanupSummary,
    FailedVerdict,
    OpenDelivery,
    OrphanedUploads,
    Snapshot,
    SourceScan,
    Waiting,
)
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import Delivery, Failure, Status
from xmode_transfer.model.upkeep import Discrepancy, DiscrepancyKind

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACME = ("acme", "us-daily")
REFUSED = Failure("role_refused", "customer", "the role refuses us", "send the trust policy")


def a_feed(**changes: Any) -> Feed:
    values = {"name": "us-daily", "source": "/data", "period": "day", "partition": "%Y/%m/%d"}
    return Feed(**(values | changes))


def a_customer(**changes: Any) -> Customer:
    values: dict[str, Any] = {
        "name": "acme",
        "company": "Acme Corp",
        "external_id": "AcmeCorp",
        "role_arn": "arn:aws:iam::111122223333:role/XMode",
        "destination": Destination(bucket="acme-data", prefix="xmode/"),
        "feeds": ("us-daily",),
    }
    return Customer(**(values | changes))


def a_delivery(period: str = "2026-11-24", status: Status = Status.DELIVERED, **changes: Any) -> Delivery:
    made = Delivery(
        f"id-{period}", "acme", "us-daily", period, 1, status, NOW - 8 * HOUR, NOW - 7 * HOUR, object_count=3
    )
    return replace(made, **changes)


def a_look(**changes: Any) -> SourceScan:
    return replace(SourceScan("acme", "us-daily", NOW - HOUR / 60, NOW - 1000 * HOUR), **changes)


def begun(period: str, status: Status, failure: Failure | None = None, hours: float = 1) -> OpenDelivery:
    return OpenDelivery(a_delivery(period, status, failure=failure), NOW - hours * HOUR)


def judged(
    snapshot: Snapshot, *, customer: Customer | None = None, feed: Feed | None = None, now: datetime = NOW
) -> SubscriptionHealth:
    customer, feed = customer or a_customer(), feed or a_feed()
    configuration = Configuration(Service(), {feed.name: feed}, {customer.name: customer}, {})
    (found,) = assess(configuration, snapshot, now).customers
    (item,) = found.subscriptions
    assert found.health == (item.health if customer.state is CustomerState.ACTIVE else customer.state)
    return item


SNAPSHOTS: list[tuple[str, dict[str, Any], Health, str | None, Responsible | None]] = [
    ("nothing is known", {}, Health.HEALTHY, None, None),
    ("all is delivered", {"delivered": a_delivery(), "look": a_look()}, Health.HEALTHY, None, None),
    (
        "the role refuses us",
        {
            "delivered": a_delivery("2026-11-20"),
            "look": a_look(),
            "open": begun("2026-11-24", Status.BLOCKED, REFUSED),
        },
        Health.BLOCKED,
        "role_refused",
        Responsible.CUSTOMER,
    ),
    (
        "a refused delivery is being tried again",
        {"delivered": a_delivery(), "look": a_look(), "open": begun("2026-11-25", Status.RUNNING, REFUSED)},
        Health.BLOCKED,
        "role_refused",
        Responsible.CUSTOMER,
    ),
    (
        "AWS is out of reach",
        {
            "delivered": a_delivery(),
            "look": a_look(),
            "open": begun(
                "2026-11-25", Status.FAILED, Failure("unavailable", "aws", "no answer", retryable=True)
            ),
        },
        Health.FAILING,
        "unavailable",
        Responsible.AWS,
    ),
    (
        "a revision that another takes over is no failure",
        {
            "delivered": a_delivery(),
            "look": a_look(),
            "open": begun("2026-11-25", Status.FAILED, Failure("superseded", "vendor", "the source changed")),
        },
        Health.DUE,
        None,
        None,
    ),
    (
        "the source's root is gone",
        {
            "delivered": a_delivery(),
            "look": a_look(failure=Failure("source_missing", "vendor", "gone"), failing_since_at=NOW - HOUR),
        },
        Health.NO_SOURCE,
        "source_missing",
        Responsible.VENDOR,
    ),
    (
        "a day is due and there is time",
        {
            "delivered": a_delivery("2026-11-23"),
            "look": a_look(due=("2026-11-24",), due_count=1, due_since_at=NOW),
        },
        Health.DUE,
        None,
        None,
    ),
    (
        "a day is complete and its time is up",
        {
            "delivered": a_delivery("2026-11-22"),
            "look": a_look(due=("2026-11-23", "2026-11-24"), due_count=2, due_since_at=NOW),
        },
        Health.LATE,
        "late",
        Responsible.VENDOR,
    ),
    (
        "a day is being sent and its time is up",
        {
            "delivered": a_delivery("2026-11-22"),
            "look": a_look(),
            "open": begun("2026-11-23", Status.RUNNING),
        },
        Health.LATE,
        "late",
        Responsible.VENDOR,
    ),
    (
        "a day is incomplete and its time is up",
        {
            "delivered": a_delivery("2026-11-22"),
            "look": a_look(waiting=(Waiting("2026-11-23", "no _SUCCESS yet"),), waiting_count=1),
        },
        Health.NO_SOURCE,
        "no_source",
        Responsible.VENDOR,
    ),
    (
        "a day is not there at all",
        {"delivered": a_delivery("2026-11-22"), "look": a_look()},
        Health.NO_SOURCE,
        "no_source",
        Responsible.VENDOR,
    ),
    (
        "nobody has looked since",
        {"delivered": a_delivery("2026-11-22"), "look": a_look(looked_at=NOW - 30 * HOUR)},
        Health.LATE,
        "not_looked",
        Responsible.VENDOR,
    ),
    (
        "an older day came long after its time and waits",
        {
            "delivered": a_delivery(),
            "look": a_look(due=("2026-11-11",), due_count=1, due_since_at=NOW - 25 * HOUR),
        },
        Health.LATE,
        "late",
        Responsible.VENDOR,
    ),
    (
        "a new customer has time from the first look on",
        {
            "look": a_look(
                first_looked_at=NOW - HOUR, due=("2026-11-20",), due_count=1, due_since_at=NOW - HOUR
            )
        },
        Health.DUE,
        None,
        None,
    ),
    (
        "what was passed over is not late",
        {"delivered": a_delivery("2026-11-20"), "look": a_look(), "skipped": "2026-11-23"},
        Health.HEALTHY,
        None,
        None,
    ),
]


@pytest.mark.parametrize(
    ("case", "known", "health", "cause", "responsible"), SNAPSHOTS, ids=[row[0] for row in SNAPSHOTS]
)
def test_health_follows_from_the_ledger(
    case: str, known: dict[str, Any], health: Health, cause: str | None, responsible: Responsible | None
) -> None:
    item = judged(snapshot_of(**known))
    assert item.health is health
    assert (item.issue and item.issue.cause) == cause
    assert (item.issue and item.issue.responsible) == responsible
    if item.issue is not None:
        assert item.issue.message
        assert item.issue.hint or cause in ("unavailable", "source_missing")
        assert item.issue.since_at <= NOW
    assert (health in SOUND) == (item.issue is None)


def snapshot_of(
    delivered: Delivery | None = None,
    look: SourceScan | None = None,
    open: OpenDelivery | None = None,  # noqa: A002
    skipped: str | None = None,
) -> Snapshot:
    return Snapshot(
        scans={ACME: look} if look else {},
        delivered={ACME: delivered} if delivered else {},
        open={ACME: (open,)} if open else {},
        skipped={ACME: skipped} if skipped else {},
    )


def test_lateness_counts_from_the_first_missing_period() -> None:
    item = judged(snapshot_of(a_delivery("2026-11-20"), a_look()))
    assert item.issue is not None
    assert item.issue.period == "2026-11-21"
    assert item.issue.since_at == datetime(2026, 11, 23, tzinfo=UTC)


def test_a_deadline_follows_the_schedule_unless_configured() -> None:
    schedule = Schedule(cron="30 6 * * *", timezone="America/New_York")
    day = Period.parse("2026-11-23", PeriodKind.DAY)
    by_schedule = deadlines_of(a_customer(schedule=schedule), a_feed())
    assert by_schedule.of(day) == datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
    said = deadlines_of(a_customer(schedule=schedule), a_feed(freshness=FeedFreshness(within_hours=6)))
    assert said.of(day) == datetime(2026, 11, 24, 6, tzinfo=UTC)
    stricter = a_customer(schedule=schedule, freshness=Freshness(within_hours=1.5))
    assert deadlines_of(stricter, a_feed(freshness=FeedFreshness(within_hours=6))).of(day) == datetime(
        2026, 11, 24, 1, 30, tzinfo=UTC
    )


def test_days_that_are_not_expected_are_not_missed() -> None:
    weekdays = FeedFreshness(days=(Day.MON, Day.TUE, Day.WED, Day.THU, Day.FRI))
    friday, monday_noon = a_delivery("2026-11-20"), datetime(2026, 11, 23, 12, tzinfo=UTC)
    look = a_look(looked_at=monday_noon)
    every_day = judged(snapshot_of(friday, look), now=monday_noon)
    assert every_day.health is Health.NO_SOURCE
    on_weekdays = judged(snapshot_of(friday, look), feed=a_feed(freshness=weekdays), now=monday_noon)
    assert on_weekdays.health is Health.HEALTHY
    assert on_weekdays.fresh_until_at == datetime(2026, 11, 25, tzinfo=UTC)


def test_a_drop_folder_is_late_only_with_files_that_it_has() -> None:
    folder = a_feed(period="none", partition=None)
    delivered = a_delivery("none", delivered_at=NOW - 5000 * HOUR)
    assert judged(snapshot_of(delivered, a_look()), feed=folder).health is Health.HEALTHY
    slow = snapshot_of(delivered, a_look(), begun("none", Status.RUNNING, hours=25))
    assert judged(slow, feed=folder).health is Health.LATE


@pytest.mark.parametrize("state", [CustomerState.PENDING, CustomerState.RETIRED])
def test_an_inactive_customer_is_never_late(state: CustomerState) -> None:
    snapshot = snapshot_of(a_delivery("2026-01-01"), a_look(), begun("2026-01-02", Status.BLOCKED, REFUSED))
    item = judged(snapshot, customer=a_customer(state=state))
    assert item.issue is None


def test_a_broken_file_is_the_vendors_and_listed() -> None:
    problem = Problem("customers/acme.yaml", 3, 1, "feeds", "select at least one feed")
    configuration = Configuration(Service(), {}, {}, {"acme": (problem, problem)})
    (found,) = assess(configuration, Snapshot(), NOW).customers
    assert found.health is Health.BROKEN
    (issue,) = found.issues
    assert issue.responsible is Responsible.VENDOR
    assert "customers/acme.yaml:3:1" in issue.message


def test_warnings_stop_no_delivery() -> None:
    checked = CheckSummary(
        NOW, "blocked", ("external_id_not_required",), "customer", "anybody gets in", NOW - HOUR
    )
    snapshot = replace(
        snapshot_of(a_delivery(), a_look()),
        checks={"acme": checked},
        orphaned={"acme": OrphanedUploads(2, 10**9, NOW - HOUR, 1)},
        cleanups={
            "acme": CleanupSummary(
                NOW, "unconfirmed", 0, Failure("cleanup_cap", "vendor", "too many", "say so")
            )
        },
        free_bytes=10**6,
        daemon=DaemonRecord("h", NOW - HOUR, NOW - HOUR, 60, 4, configuration_problems=("a", "b")),
    )
    configuration = Configuration(Service(), {"us-daily": a_feed()}, {"acme": a_customer()}, {})
    assessment = assess(configuration, snapshot, NOW)
    (found,) = assessment.customers
    assert found.health is Health.HEALTHY
    assert {warning.cause for warning in found.warnings} == {
        "access_drift",
        "orphaned_uploads",
        "cleanup_cap",
    }
    assert {warning.cause for warning in assessment.warnings} == {
        "ledger_disk_low",
        "daemon_silent",
        "config_invalid",
    }
    assert all(item.health in SOUND for item in assessment.customers)
    assert len(list(assessment.all_issues())) == 6


@pytest.mark.parametrize(
    ("cause", "told"), [("role_refused", []), ("external_id_not_required", ["access_drift"])]
)
def test_a_refusal_and_the_check_after_it_are_one_cause(cause: str, told: list[str]) -> None:
    checked = CheckSummary(NOW, "blocked", (cause,), "customer", "refused", NOW - HOUR)
    snapshot = snapshot_of(a_delivery(), a_look(), begun("2026-11-25", Status.BLOCKED, REFUSED))
    configuration = Configuration(Service(), {"us-daily": a_feed()}, {"acme": a_customer()}, {})
    (found,) = assess(configuration, replace(snapshot, checks={"acme": checked}), NOW).customers
    assert [issue.cause for issue in found.issues] == ["role_refused"]
    assert [warning.cause for warning in found.warnings] == told


def test_a_check_that_got_no_answer_is_no_drift() -> None:
    snapshot = replace(snapshot_of(a_delivery(), a_look()), checks={"acme": CheckSummary(NOW, "failed")})
    configuration = Configuration(Service(), {"us-daily": a_feed()}, {"acme": a_customer()}, {})
    assert assess(configuration, snapshot, NOW).customers[0].warnings == ()


def test_discrepancies_and_refused_cleanups_need_attention() -> None:
    since = NOW - HOUR
    found = (
        Discrepancy("us-daily", "2026-11-20", DiscrepancyKind.MISSING, 3, "xmode/a.csv", since),
        Discrepancy("us-daily", "2026-11-21", DiscrepancyKind.ALTERED, 1, "xmode/b.csv", NOW),
        Discrepancy(
            "us-daily", "2026-11-21", DiscrepancyKind.MANIFEST_DIFFERS, 1, "xmode/_manifests/m.json", NOW
        ),
    )
    sound = snapshot_of(a_delivery(), a_look())
    configuration = Configuration(Service(), {"us-daily": a_feed()}, {"acme": a_customer()}, {})
    (item,) = assess(configuration, replace(sound, discrepancies={"acme": found}), NOW).customers
    assert (item.health, item.issues) == (Health.ATTENTION, ())
    ours, theirs = item.warnings
    assert (ours.cause, ours.responsible) == ("delivered_changed", Responsible.VENDOR)
    assert (theirs.cause, theirs.responsible, theirs.since_at) == (
        "delivered_changed",
        Responsible.CUSTOMER,
        since,
    )
    assert theirs.message == (
        "delivered objects: 3 missing, 1 altered (first: xmode/a.csv); in us-daily 2026-11-20, us-daily "
        "2026-11-21"
    )
    refused = CleanupSummary(NOW, "blocked", 0, Failure("access_denied", "customer", "0 of 6"))
    (item,) = assess(configuration, replace(sound, cleanups={"acme": refused}), NOW).customers
    assert (item.health, [warning.cause for warning in item.warnings]) == (
        Health.ATTENTION,
        ["access_denied"],
    )
    late = replace(snapshot_of(a_delivery("2026-11-20"), a_look()), discrepancies={"acme": found})
    assert assess(configuration, late, NOW).customers[0].health is Health.NO_SOURCE  # graver


# --- Checks before release

FAILED = FailedCheck(Check.CHANGE_BYTES, "1.0 MB, and the median of the last 14 is 900.0 MB")
STOPPED = Failure("quarantined", "vendor", FAILED.message, "release it")


def a_judgement(
    period: str = "2026-11-24", name: str = "", verdict: Verdict = Verdict.QUARANTINED, **changes: Any
) -> Judgement:
    failed = (FAILED._replace(file=name),)
    made = Judgement("us-daily", period, name, f"print-{period}", verdict, 3, 10**6, failed, NOW - HOUR)
    return replace(made, **changes)


def stopped(*periods: str, **changes: Any) -> Snapshot:
    """The periods are quarantined; everything else until 2026-11-24 is delivered."""
    begun_ = [
        OpenDelivery(
            a_delivery(period, Status.QUARANTINED, failure=STOPPED, fingerprint=f"print-{period}"), NOW - HOUR
        )
        for period in periods
    ]
    return replace(snapshot_of(a_delivery(), a_look()), open={ACME: tuple(begun_)}, **changes)


def test_each_quarantined_period_is_one_alert_for_all_customers() -> None:
    periods = ("2026-11-20", "2026-11-24")
    both = stopped(*periods)
    both = replace(both, open={(name, "us-daily"): both.open[ACME] for name in ("acme", "globex")})
    customers = {name: a_customer(name=name) for name in ("acme", "globex")}
    configuration = Configuration(Service(), {"us-daily": a_feed()}, customers, {})
    found = assess(configuration, both, NOW)
    assert {item.health for item in found.customers} == {Health.QUARANTINED}
    alerts = by_cause(found.all_issues())
    assert sorted(alert.detail for alert in alerts) == [f"us-daily {period}" for period in periods]
    for alert in alerts:
        assert (alert.cause, alert.responsible, alert.urgent) == ("quarantined", Responsible.VENDOR, False)
        assert (alert.customers, alert.message) == (("acme", "globex"), FAILED.message)
        assert alert.detail in alert.summary
    assert found.customers[0].subscriptions[0].quarantined == periods


@pytest.mark.parametrize(
    ("delivered", "held", "causes"),
    [
        ("2026-11-22", ["2026-11-23"], ["quarantined"]),  # it is past its deadline itself
        ("2026-11-21", ["2026-11-23"], ["quarantined", "no_source"]),  # the day before it is missing
        ("2026-11-21", ["2026-11-22"], ["quarantined", "no_source"]),  # the day after it is missing
        ("2026-11-21", ["2026-11-22", "2026-11-23"], ["quarantined", "quarantined"]),
        ("2026-11-23", ["2026-11-23"], ["quarantined"]),  # a correction
    ],
)
def test_a_quarantined_period_is_not_also_late(delivered: str, held: list[str], causes: list[str]) -> None:
    snapshot = replace(stopped(*held), delivered={ACME: a_delivery(delivered)})
    item = judged(snapshot)
    assert item.health is Health.QUARANTINED
    assert [issue.cause for _, issue in item.issues] == causes
    assert all(issue.period not in held for _, issue in item.issues if issue.cause != "quarantined")
    assert (item.overdue is None) == (delivered == "2026-11-23")  # the customer waits all the same
    assert item.last_delivered is not None
    assert item.last_delivered.period == delivered


def test_a_quarantine_is_reported_beside_a_graver_issue() -> None:
    snapshot = stopped("2026-11-23")
    refused = begun("2026-11-24", Status.BLOCKED, REFUSED)
    item = judged(replace(snapshot, open={ACME: (*snapshot.open[ACME], refused)}))
    assert [(word, issue.cause) for word, issue in item.issues] == [
        (Health.BLOCKED, "role_refused"),
        (Health.QUARANTINED, "quarantined"),
    ]


@pytest.mark.parametrize(
    ("decided", "fingerprint", "held"),
    [
        ([], "print-2026-11-24", True),
        ([""], "print-2026-11-24", False),
        (["acme"], "print-2026-11-24", False),
        (["globex"], "print-2026-11-24", True),
        ([""], "print-of-another-source", True),
    ],
)
def test_what_a_person_decided_on_is_not_quarantined(
    decided: list[str], fingerprint: str, held: bool
) -> None:
    verdict = FailedVerdict(a_judgement(fingerprint=fingerprint), frozenset(decided))
    item = judged(stopped("2026-11-24", verdicts={"us-daily": (verdict,)}))
    assert (item.health is Health.QUARANTINED) == held
    assert (item.quarantined == ("2026-11-24",)) == held


def test_the_quarantined_files_of_a_drop_folder_are_one_issue() -> None:
    folder = a_feed(period="none", partition=None)
    names = ("a.csv", "bad‮.csv", "c.csv", "d.csv")
    files = tuple(FailedVerdict(a_judgement("none", name), frozenset()) for name in names)
    released = FailedVerdict(a_judgement("none", "e.csv"), frozenset({"acme"}))
    warned = FailedVerdict(a_judgement("none", "f.csv", Verdict.WARNED), frozenset())
    snapshot = replace(
        snapshot_of(a_delivery("none"), a_look()), verdicts={"us-daily": (*files, released, warned)}
    )
    item = judged(snapshot, feed=folder)
    assert (item.health, item.quarantined) == (Health.QUARANTINED, names)
    ((_, issue),) = item.issues
    assert (issue.cause, issue.detail, issue.period) == ("quarantined", "us-daily", "none")
    assert issue.message.startswith("4 files are quarantined in the drop folder us-daily: a.csv: 1.0 MB")
    assert r"bad\u202e.csv" in issue.message
    assert issue.message.endswith("; and 1 more")
    assert "xmode-transfer release --feed us-daily --period none" in issue.hint


@pytest.mark.parametrize(("hours", "warns"), [(1, True), (71, True), (72, False)])
def test_a_check_that_only_warns_is_a_warning_for_three_days(hours: int, warns: bool) -> None:
    verdict = a_judgement(verdict=Verdict.WARNED, judged_at=NOW - hours * HOUR)
    snapshot = replace(
        snapshot_of(a_delivery(), a_look()), verdicts={"us-daily": (FailedVerdict(verdict, frozenset()),)}
    )
    configuration = Configuration(Service(), {"us-daily": a_feed()}, {"acme": a_customer()}, {})
    (found,) = assess(configuration, snapshot, NOW).customers
    assert (found.health, found.issues) == (Health.HEALTHY, ())
    assert [warning.cause for warning in found.warnings] == ["check_warned"] * warns
    for warning in found.warnings:
        assert (warning.detail, warning.responsible) == ("us-daily 2026-11-24", Responsible.VENDOR)
        assert FAILED.message in warning.message


# --- Deadlines


kinds = st.sampled_from([PeriodKind.HOUR, PeriodKind.DAY, PeriodKind.WEEK, PeriodKind.MONTH])
moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
partitions = {"hour": "%Y/%m/%d/%H", "day": "%Y/%m/%d", "week": "%G/W%V", "month": "%Y/%m"}


@given(kinds, moments, st.floats(0.1, 2000), st.sampled_from([None, "30 6 * * *", "0 3 * * 1", "15 4 1 * *"]))
def test_the_newest_expected_period_is_past_its_deadline_and_the_next_is_not(
    kind: PeriodKind, now: datetime, hours: float, cron: str | None
) -> None:
    freshness = FeedFreshness() if cron else FeedFreshness(within_hours=hours)
    feed = a_feed(period=kind, partition=partitions[kind], freshness=freshness)
    schedule = Schedule(cron=cron, timezone="America/New_York") if cron else None
    deadlines = deadlines_of(a_customer(schedule=schedule), feed)
    expected = deadlines.newest_expected(now)
    assert expected is not None
    assert deadlines.of(expected) <= now < deadlines.of(expected.step(1))


@given(kinds, moments, st.integers(-5000, 5000))
def test_steps_between_periods_lead_there_and_back(kind: PeriodKind, moment: datetime, count: int) -> None:
    period = Period.around(moment, kind)
    assert period.start <= moment.replace(tzinfo=None) < period.end
    assert period.step(count).step(-count) == period
    assert Period.parse(period.label, kind) == period
    assert period.end == period.step(1).start
