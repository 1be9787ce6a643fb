"""What Prometheus scrapes: the assessment and the process in its text format, few series, and quickly."""

import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.clock import MemoryClock
from tests.unit.web.conftest import OneDaemon
from xmode_transfer.alerting.health_records import (
    Assessment,
    CustomerHealth,
    Health,
    Issue,
    SubscriptionHealth,
)
from xmode_transfer.model.errors import LedgerLocked, Responsible
from xmode_transfer.model.health import OpenDelivery, OrphanedUploads
from xmode_transfer.model.jobs import JobState, QueueEntry
from xmode_transfer.model.process import WorkerRecord
from xmode_transfer.model.records import Delivery, Status
from xmode_transfer.web.catalogue import CATALOGUE
from xmode_transfer.web.metrics import KEPT_SECONDS, Counters, of_process, renderer

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


def made(
    assessment: Callable[[], Assessment], clock: MemoryClock | None = None, **changes: Any
) -> Callable[[], bytes]:
    """A renderer of metrics with everything that it needs."""
    daemon = OneDaemon(
        QueueEntry("acme", JobState.RUNNING, NOW),
        QueueEntry("globex", JobState.RESTING, NOW),
        workers=8,
        busy=3,
        configuration_problems=("customers/acme.yaml:3: prefx",),
        ticked_at=NOW,
    )
    needs = {"status_view": daemon, "counters": Counters(), "open_alerts": list, "fleet": None}
    return renderer(assessment, clock or MemoryClock(NOW), **(needs | changes))


def a_delivery(customer: str, feed: str, period: str = "2026-11-24", **changes: object) -> Delivery:
    made = Delivery(
        f"{customer}-{feed}-{period}", customer, feed, period, 1, Status.DELIVERED, NOW - 9 * HOUR,
        NOW - HOUR,
        object_count=3, total_bytes=3_000, delivered_at=NOW - HOUR,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def a_subscription(customer: str, feed: str = "us-daily", **changes: object) -> SubscriptionHealth:
    made = SubscriptionHealth(
        customer,
        feed,
        Health.HEALTHY,
        last_delivered=a_delivery(customer, feed),
        fresh_until_at=NOW + 12 * HOUR,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def refused(customer: str, feed: str = "us-daily") -> SubscriptionHealth:
    issue = Issue("role_refused", Responsible.CUSTOMER, 'it says "no"\n', "send it", NOW, feed=feed)
    waits = a_delivery(customer, feed, "2026-11-25", status=Status.BLOCKED, total_bytes=500)
    return a_subscription(
        customer, feed, health=Health.BLOCKED, issue=issue, open=(OpenDelivery(waits, NOW),), due_count=2
    )


def a_customer(name: str, *subscriptions: SubscriptionHealth, **changes: object) -> CustomerHealth:
    issues = tuple(item.issue for item in subscriptions if item.issue)
    word = subscriptions[0].health if subscriptions else Health.HEALTHY
    return replace(
        CustomerHealth(name, name.title(), word, issues, (), subscriptions),
        **changes,  # type: ignore[arg-type]
    )


def scraped(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("xmode_")
    }


def rendered(*customers: CustomerHealth, **changes: object) -> Callable[..., float | None]:
    found = replace(Assessment(NOW, customers, ledger_used_bytes=7), **changes)  # type: ignore[arg-type]
    samples = scraped(made(lambda: found)())

    def value(name: str, **labels: str) -> float | None:
        return samples.get((name, tuple(sorted(labels.items()))))

    return value


def test_a_healthy_customer() -> None:
    value = rendered(a_customer("acme", a_subscription("acme")))
    labels = {"customer": "acme", "feed": "us-daily"}
    at = (NOW + 12 * HOUR).timestamp()
    assert value("xmode_customers", health="healthy") == 1
    assert value("xmode_customers", health="late") == 0
    assert value("xmode_customer_health", customer="acme", health="healthy") == 1
    assert value("xmode_subscription_delivered_timestamp_seconds", **labels) == (NOW - HOUR).timestamp()
    assert value("xmode_subscription_delivered_bytes", **labels) == 3_000
    # The period 2026-11-24 ended at midnight, twelve hours ago.
    assert value("xmode_subscription_freshness_seconds", **labels) == 12 * 3600
    assert value("xmode_subscription_fresh_until_timestamp_seconds", **labels) == at
    assert value("xmode_subscription_periods_due", **labels) is None
    assert value("xmode_orphaned_upload_bytes") == 0
    assert value("xmode_ledger_readable") == 1
    assert value("xmode_ledger_free_bytes") is None, "no room is known, so none is told"


def test_a_drop_folder_is_as_fresh_as_its_last_delivery() -> None:
    last = a_delivery("acme", "drops", "none", delivered_at=NOW - 3 * HOUR)
    value = rendered(
        a_customer("acme", a_subscription("acme", "drops", last_delivered=last, fresh_until_at=None))
    )
    labels = {"customer": "acme", "feed": "drops"}
    assert value("xmode_subscription_freshness_seconds", **labels) == 3 * 3600
    assert value("xmode_subscription_fresh_until_timestamp_seconds", **labels) is None


def test_issues_are_counted_by_cause_a_customer_once() -> None:
    two_feeds = a_customer("acme", refused("acme", "us-daily"), refused("acme", "eu-daily"))
    value = rendered(two_feeds, a_customer("globex", refused("globex")), a_customer("initech"))
    labels = {"health": "blocked", "cause": "role_refused", "responsible": "customer"}
    assert value("xmode_customers_unhealthy", **labels) == 2
    assert value("xmode_backlog_bytes") == 1_500
    assert value("xmode_periods_due") == 6
    labels = {"customer": "acme", "feed": "eu-daily"}
    assert value("xmode_subscription_backlog_bytes", **labels) == 500
    assert value("xmode_subscription_deliveries_open", **labels) == 1
    assert value("xmode_subscription_periods_due", **labels) == 2


def held(customer: str, *periods: str, feed: str = "us-daily") -> SubscriptionHealth:
    issue = Issue("quarantined", Responsible.VENDOR, "1 file, and at least 10", "correct it", NOW, feed=feed)
    begun = [
        OpenDelivery(a_delivery(customer, feed, period, status=Status.QUARANTINED, total_bytes=500), NOW)
        for period in periods
    ]
    return a_subscription(
        customer,
        feed,
        health=Health.QUARANTINED,
        issue=issue,
        further=((Health.LATE, replace(issue, cause="late")),),
        open=tuple(begun),
        quarantined=periods,
    )


def test_a_quarantined_period_counts_once_for_all_customers() -> None:
    acme = a_customer("acme", held("acme", "2026-11-23", "2026-11-24"), a_subscription("acme", "eu-daily"))
    globex = a_customer("globex", held("globex", "2026-11-24", "2026-11-25"))
    found = [replace(item, issues=tuple(i for s in item.subscriptions for _, i in s.issues)) for item in
             (acme, globex)]  # fmt: skip
    value = rendered(*found)
    assert value("xmode_quarantined_periods", feed="us-daily") == 3
    assert value("xmode_quarantined_periods", feed="eu-daily") == 0
    assert value("xmode_customers", health="quarantined") == 2
    assert value("xmode_customer_health", customer="acme", health="quarantined") == 1
    labels = {"responsible": "vendor"}
    assert value("xmode_customers_unhealthy", health="quarantined", cause="quarantined", **labels) == 2
    assert value("xmode_customers_unhealthy", health="late", cause="late", **labels) == 2
    assert value("xmode_backlog_bytes") == value("xmode_work_bytes") == 0, "nothing of it may be sent"
    assert value("xmode_work_oldest_seconds") == 0


def test_warnings_and_the_services_own_issues() -> None:
    warning = Issue("orphaned_uploads", Responsible.CUSTOMER, "3 uploads", "ask", NOW)
    ours = Issue("vendor_identity", Responsible.VENDOR, "the key is refused", "rotate it", NOW)
    customer = a_customer(
        "acme", a_subscription("acme"), warnings=(warning,), orphaned=OrphanedUploads(3, 12_000, NOW, 3)
    )
    value = rendered(customer, warnings=(ours,), ledger_free_bytes=9)
    assert value("xmode_customers_with_warnings", cause="orphaned_uploads", responsible="customer") == 1
    assert value("xmode_service_issues", cause="vendor_identity", responsible="vendor") == 1
    assert value("xmode_customer_orphaned_upload_bytes", customer="acme") == 12_000
    assert value("xmode_orphaned_upload_bytes") == 12_000
    assert value("xmode_ledger_free_bytes") == 9


def test_the_daemon() -> None:
    value = rendered()
    assert value("xmode_daemon_ticked_timestamp_seconds") == NOW.timestamp()
    assert (value("xmode_daemon_slots"), value("xmode_daemon_slots_busy")) == (8, 3)
    assert value("xmode_daemon_customers", state="running") == 1
    assert value("xmode_daemon_customers", state="queued") == 0
    assert value("xmode_daemon_stopping") == 0
    assert value("xmode_configuration_problems") == 1


def test_counters_of_the_process() -> None:
    counters = Counters()
    render = made(lambda: Assessment(NOW, ()), counters=counters)
    assert scraped(render())["xmode_objects_total", (("outcome", "delivered"),)] == 0
    counters.delivery_started("acme", "us-daily", "2026-11-24", 2, 30)
    counters.bytes_sent(10)
    counters.object_finished("a", 10, "delivered")
    counters.object_finished("b", 20, "delivered")
    counters.delivery_finished()
    samples = scraped(render())
    assert samples["xmode_objects_total", (("outcome", "delivered"),)] == 2
    assert samples["xmode_object_bytes_total", (("outcome", "delivered"),)] == 30
    assert samples["xmode_deliveries_started_total", ()] == 1
    worker = scraped(of_process(counters)())
    assert worker["xmode_objects_total", (("outcome", "delivered"),)] == 2
    assert not any(name.startswith("xmode_daemon") for name, _ in worker), "a worker has no daemon's status"


def test_open_alerts_by_cause() -> None:
    render = made(lambda: Assessment(NOW, ()), open_alerts=lambda: ["late", "late", "role_refused"])
    samples = scraped(render())
    assert samples["xmode_alerts_open", (("cause", "late"),)] == 2
    assert samples["xmode_alerts_open", (("cause", "role_refused"),)] == 1


def test_an_unreadable_ledger_leaves_the_metrics_of_the_process() -> None:
    def locked() -> Assessment:
        raise LedgerLocked("the ledger is locked")

    samples = scraped(made(locked)())
    assert samples["xmode_ledger_readable", ()] == 0
    assert samples["xmode_daemon_ticked_timestamp_seconds", ()] == NOW.timestamp()
    assert not any(name == "xmode_customers" for name, _ in samples)


# --- A fleet


class OneFleet:
    """What metrics ask of a fleet."""

    def __init__(self, entries: Sequence[QueueEntry] = (), workers: Sequence[WorkerRecord] = ()) -> None:
        self.entries, self.here = list(entries), list(workers)

    def snapshot(self) -> list[QueueEntry]:
        return self.entries

    def workers(self) -> list[WorkerRecord]:
        return self.here


def fleet_of(one: OneFleet, clock: MemoryClock) -> Callable[[], bytes]:
    return made(lambda: Assessment(clock.now(), ()), clock, fleet=one)


def test_the_queue_of_a_fleet() -> None:
    at = NOW - HOUR
    entries = [
        QueueEntry("acme", JobState.RUNNING, at, holder="w1"),
        QueueEntry("globex", JobState.QUEUED, NOW - timedelta(minutes=5)),
        QueueEntry("initech", JobState.QUEUED, NOW - timedelta(minutes=3)),
        QueueEntry("refused", JobState.QUEUED, at, reason="the role refuses us"),
    ]
    samples = scraped(fleet_of(OneFleet(entries), MemoryClock(NOW))())
    states = {
        dict(labels)["state"]: n for (name, labels), n in samples.items() if name == "xmode_fleet_customers"
    }
    assert states == {"resting": 0, "queued": 3, "running": 1, "suspended": 0}
    assert samples["xmode_fleet_queued_oldest_seconds", ()] == 300, "who is suspended does not count"


def test_the_workers_of_a_fleet() -> None:
    def worker(name: str, **changes: object) -> WorkerRecord:
        return replace(WorkerRecord(name, NOW - HOUR, NOW, 8, 3, 1), **changes)  # type: ignore[arg-type]

    workers = [
        worker("a"),
        worker("b"),
        worker("leaving", stopping=True),
        worker("no-key", trouble="AWS refuses our own credentials", busy=0, waiting=0),
        worker("frozen", seen_at=NOW - timedelta(minutes=2)),
        worker("gone", stopped_at=NOW - HOUR),
    ]
    samples = scraped(fleet_of(OneFleet(workers=workers), MemoryClock(NOW))())
    states = {
        dict(labels)["state"]: n for (name, labels), n in samples.items() if name == "xmode_fleet_workers"
    }
    assert states == {"working": 2, "stopping": 1, "troubled": 1, "silent": 1}
    assert samples["xmode_fleet_slots", ()] == 16
    assert samples["xmode_fleet_slots_busy", ()] == 9
    assert samples["xmode_fleet_jobs_stalled", ()] == 3


def test_a_fleet_without_workers() -> None:
    samples = scraped(fleet_of(OneFleet(), MemoryClock(NOW))())
    assert samples["xmode_fleet_workers", (("state", "working"),)] == 0
    assert samples["xmode_fleet_slots", ()] == 0
    assert not any(name.startswith("xmode_fleet") for name, _ in scraped(made(lambda: Assessment(NOW, ()))()))


def test_scrapes_share_one_assessment() -> None:
    clock, asked = MemoryClock(NOW), []

    def assessment() -> Assessment:
        asked.append(clock.now())
        return Assessment(clock.now(), ())

    render = made(assessment, clock)
    first = render()
    clock.advance(KEPT_SECONDS - 1)
    assert scraped(render()) == scraped(first)
    assert len(asked) == 1
    clock.advance(1)
    render()
    assert len(asked) == 2


def test_every_metric_is_documented() -> None:
    rows = re.findall(r"^\| `(xmode_\w+)` \| (gauge|counter) \|(.*?)\|", DOCUMENT.read_text(), re.MULTILINE)
    written = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert written == {
        item.name: ("counter" if item.is_counter else "gauge", item.labels) for item in CATALOGUE
    }
    assert len(rows) == len(CATALOGUE)
    for item in CATALOGUE:
        assert item.help.endswith("."), item.name


def fleet(customers: int, feeds: int) -> Assessment:
    """One in ten is refused."""
    made = []
    for number in range(customers):
        name = f"customer-{number:04}"
        one = refused if number % 10 == 0 else a_subscription
        made.append(a_customer(name, *(one(name, f"feed-{feed}") for feed in range(feeds))))
    return Assessment(NOW, tuple(made))


def test_many_customers_are_assessed_once_for_scrapes_that_follow_each_other(
    figures: Callable[..., None],
) -> None:
    found, clock, asked = fleet(2_000, 3), MemoryClock(NOW), []

    def assess() -> Assessment:
        asked.append(clock.now())
        return found

    render = made(assess, clock)
    took = []
    for _ in range(3):
        clock.advance(60)
        began = time.process_time()
        text = render()
        took.append(time.process_time() - began)
    began = time.process_time()
    render()
    again = time.process_time() - began
    series = sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
    figures(
        f"2,000 customers x 3 feeds: {series:,} series, {len(text) / 1e6:.1f} MB, "
        f"{statistics.median(took) * 1000:.0f} ms of CPU, {again * 1000:.0f} ms again within 5 s"
    )
    assert series < 30_000
    assert len(asked) == len(took)


def test_the_number_of_series_for_each_customer() -> None:
    customers = 10
    healthy = [
        a_customer(f"c{number}", *(a_subscription(f"c{number}", f"f{feed}") for feed in range(3)))
        for number in range(customers)
    ]
    samples = scraped(made(lambda: Assessment(NOW, tuple(healthy)))())
    of_customers = [name for name, labels in samples if "customer" in dict(labels)]
    assert len(of_customers) == customers * (1 + 3 * 4)
