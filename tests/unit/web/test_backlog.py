"""The backlog, and the part of it that workers could send now."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from xmode_transfer.alerting.health_records import Assessment, CustomerHealth, Health, SubscriptionHealth
from xmode_transfer.model.health import OpenDelivery, SourceScan
from xmode_transfer.model.records import Delivery, Status
from xmode_transfer.web.metrics import left_of, work_of

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def a_delivery(total: int, status: Status = Status.DELIVERED) -> Delivery:
    return Delivery("id", "acme", "us-daily", "2026-11-24", 1, status, NOW, NOW, total_bytes=total)


def a_part(
    customer: str = "acme",
    *,
    last: int | None = None,
    due: int = 0,
    open_: tuple[tuple[int, int], ...] = (),
    **changes: object,
) -> SubscriptionHealth:
    """Due for two hours, what is open for one; ``open_`` is what each holds and has sent."""
    labels = tuple(f"{number:04}" for number in range(due))
    look = (
        SourceScan(customer, "us-daily", NOW, NOW, due=labels, due_since_at=NOW - 2 * HOUR) if due else None
    )
    part = SubscriptionHealth(
        customer,
        "us-daily",
        Health.DUE,
        last_delivered=None if last is None else a_delivery(last),
        open=tuple(
            OpenDelivery(a_delivery(total, Status.RUNNING), NOW - HOUR, sent) for total, sent in open_
        ),
        due=labels,
        due_count=due,
        scan=look,
    )
    return replace(part, **changes)  # type: ignore[arg-type]


def found(*parts: SubscriptionHealth, health: Health | None = None) -> tuple[int, datetime | None]:
    customers = [
        CustomerHealth(part.customer, part.customer, health or part.health, subscriptions=(part,))
        for part in parts
    ]
    return work_of(Assessment(NOW, tuple(customers)))


def test_no_backlog() -> None:
    assert found() == found(a_part(last=500)) == (0, None)


def test_sent_bytes_do_not_count() -> None:
    part = a_part(open_=((1_000, 400), (50, 0), (10, 70)))
    assert left_of(part) == 650
    assert found(part) == (650, NOW - HOUR)


def test_a_period_that_waits_is_as_large_as_the_last_one() -> None:
    assert found(a_part(last=500, due=3, open_=((100, 0),))) == (1_600, NOW - 2 * HOUR)


def test_without_a_last_one_it_is_as_large_as_those_of_others() -> None:
    others = (a_part("globex", last=100), a_part("initech", last=300))
    assert found(a_part(due=2), *others)[0] == 400
    assert found(a_part(due=2)) == (0, NOW - 2 * HOUR), "nobody knows how large"


@pytest.mark.parametrize("health", list(Health))
def test_blocked_customers_do_not_count(health: Health) -> None:
    """More workers would not help: an autoscaler that counted them would never come down."""
    idle = {Health.BROKEN, Health.BLOCKED, Health.FAILING, Health.PENDING, Health.RETIRED}
    work = found(a_part(last=500, due=1, health=health))
    assert work == ((0, None) if health in idle else (500, NOW - 2 * HOUR))


def test_a_failing_feed_does_not_hide_others() -> None:
    failing, sound = a_part(last=9, due=1, health=Health.FAILING), a_part(last=500, due=1)
    customer = CustomerHealth("acme", "Acme", Health.FAILING, subscriptions=(failing, sound))
    assert work_of(Assessment(NOW, (customer,)))[0] == 500
