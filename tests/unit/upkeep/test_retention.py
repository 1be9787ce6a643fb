"""What expires and what stays: decisions by tables and golden files. Properties are next door."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.config import Customer
from xmode_transfer.model.records import DeliveredKey, Delivery, Holding, ListedObject, Status
from xmode_transfer.upkeep.retention import Action, Reason, decide, judge

GOLDEN = Path(__file__).parents[2] / "golden" / "retention"
NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
GB = 10**9


def customer(**said: Any) -> Customer:
    return Customer(
        name="acme",
        company="Acme Corp",
        external_id="AcmeCorp",
        role_arn="arn:aws:iam::111122223333:role/XMode",
        destination={"bucket": "acme-data", "prefix": "xmode/"},
        feeds=["us-daily", "eu-monthly", "drops"],
        **said,
    )


def delivery(
    period: str,
    revision: int = 1,
    *,
    feed: str = "us-daily",
    status: Status = Status.DELIVERED,
    days_ago: float = 0,
) -> Delivery:
    at = NOW - timedelta(days=days_ago)
    return Delivery(
        id=f"{feed}-{period}-{revision}",
        customer="acme",
        feed=feed,
        period=period,
        revision=revision,
        status=status,
        created_at=at,
        updated_at=at,
        delivered_at=at if status is Status.DELIVERED else None,
    )


def world() -> list[Delivery]:
    """Twelve days, the last of them under way, one corrected twice and one being corrected; three months; and
    a drop folder of which one batch took over another."""
    days = [
        delivery(f"2026-11-{day:02}", days_ago=21 - day + 0.5) for day in range(10, 21) if day not in (12, 15)
    ]
    return [
        *days,
        delivery("2026-11-12", 1, status=Status.FAILED, days_ago=9),  # superseded
        delivery("2026-11-12", 2, days_ago=9),
        delivery("2026-11-12", 3, days_ago=1),
        delivery("2026-11-15", 1, days_ago=6),
        delivery("2026-11-15", 2, status=Status.BLOCKED),
        delivery("2026-11-21", status=Status.RUNNING),
        *(
            delivery(f"2026-{month:02}", feed="eu-monthly", days_ago=d)
            for month, d in ((8, 80), (9, 50), (10, 20))
        ),
        delivery("none", 1, feed="drops", days_ago=40),
        delivery("none", 2, feed="drops", status=Status.FAILED, days_ago=31),  # superseded
        delivery("none", 3, feed="drops", days_ago=31),
        delivery("none", 4, feed="drops", days_ago=2),
        delivery("none", 5, feed="drops", status=Status.FAILED),
    ]


def holdings(deliveries: Iterable[Delivery], gigabytes: int = 1) -> list[Holding]:
    return [Holding(one.feed, one.period, one.revision, 10, gigabytes * GB) for one in deliveries]


SCENARIOS: dict[str, dict[str, Any]] = {
    "no-policy": {},
    "days-7": {"retention": {"days": 7}},
    "days-1": {"retention": {"days": 1}},
    "days-7-by-delivery": {"retention": {"days": 7, "by": "delivery"}},
    "keep-last-3": {"retention": {"keep_last": 3}},
    "keep-last-3-by-delivery": {"retention": {"keep_last": 3, "by": "delivery"}},
    "days-3-keep-last-5": {"retention": {"days": 3, "keep_last": 5}},
    "max-bytes": {"retention": {"max_bytes": "12GB"}},
    "max-bytes-too-small-for-what-must-stay": {"retention": {"max_bytes": "1GB"}},
    "days-and-max-bytes": {"retention": {"days": 9, "max_bytes": "12GB"}},
    "keep-last-and-max-bytes": {"retention": {"keep_last": 6, "max_bytes": "5GB"}},
    "feeds-of-their-own": {
        "retention": {"days": 5, "feeds": {"eu-monthly": {"keep_last": 2}, "drops": {"max_bytes": "1GB"}}}
    },
    "only-one-feed": {"retention": {"feeds": {"us-daily": {"keep_last": 2}}}},
    "hold-everything": {"retention": {"days": 1}, "hold": True},
    "hold-some": {"retention": {"days": 1}, "hold": ["drops", "us-daily/2026-11-11", "eu-monthly/2026-08"]},
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_decisions_are_those_of_the_golden_file(name: str) -> None:
    """``GOLDEN=write pytest ...`` writes the files anew, to be read before they are committed."""
    deliveries = world()
    verdicts = judge(customer(**SCENARIOS[name]), deliveries, holdings(deliveries), NOW)
    assert set(verdicts) == {(one.feed, one.period, one.revision) for one in deliveries}
    told = "".join(
        f"{'goes ' if verdict.expires else 'stays'}  {feed} {period} r{revision}: {verdict.reason}: "
        f"{verdict.words}\n"
        for (feed, period, revision), verdict in sorted(verdicts.items())
    )
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(told, encoding="utf-8")
    assert told == path.read_text(encoding="utf-8")


def test_every_golden_file_has_its_scenario() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)


def reasons(said: dict[str, Any], *deliveries: Delivery, now: datetime = NOW) -> list[Reason]:
    verdicts = judge(customer(**said), deliveries, holdings(deliveries), now)
    return [verdicts[one.feed, one.period, one.revision].reason for one in deliveries]


@pytest.mark.parametrize(
    ("feed", "label", "last_young"),
    [
        ("us-daily", "2026-10-20", datetime(2026, 11, 20, 0, 0, tzinfo=UTC)),
        ("us-daily", "2026-10-20T05", datetime(2026, 11, 19, 6, 0, tzinfo=UTC)),
        ("us-daily", "2026-W43", datetime(2026, 11, 25, 0, 0, tzinfo=UTC)),
        ("eu-monthly", "2026-10", datetime(2026, 12, 1, 0, 0, tzinfo=UTC)),
        ("eu-monthly", "2024-02", datetime(2024, 3, 31, 0, 0, tzinfo=UTC)),
    ],
)
def test_a_period_is_as_old_as_its_end(feed: str, label: str, last_young: datetime) -> None:
    """The end is the first instant after it, in UTC; days are whole ones."""
    newer = delivery("2030-01-01" if feed == "us-daily" else "2030-01", feed=feed)
    said = {"retention": {"days": 30}}
    for now, reason in ((last_young - timedelta(seconds=1), Reason.YOUNG), (last_young, Reason.TOO_OLD)):
        assert reasons(said, delivery(label, feed=feed), newer, now=now) == [reason, Reason.NEWEST]


def test_by_delivery_a_backfill_is_young_and_by_period_it_is_old() -> None:
    backfill, newest = delivery("2020-01-01", days_ago=1), delivery("2026-11-21")
    assert reasons({"retention": {"days": 30}}, backfill, newest) == [Reason.TOO_OLD, Reason.NEWEST]
    by_delivery = {"retention": {"days": 30, "by": "delivery"}}
    assert reasons(by_delivery, backfill, newest) == [Reason.YOUNG, Reason.NEWEST]


def test_by_delivery_the_newest_period_stays_too() -> None:
    said = {"retention": {"days": 1, "by": "delivery"}}
    newest, corrected = delivery("2026-11-20", days_ago=2), delivery("2026-11-12", 2, days_ago=1.5)
    old = delivery("2026-11-12", 1, days_ago=9)
    assert reasons(said, old, corrected, newest) == [Reason.TOO_OLD, Reason.NEWEST, Reason.NEWEST]


def test_the_newest_is_one_that_is_complete_and_of_which_something_is_left() -> None:
    old, newer, under_way = (
        delivery("2026-01-01"),
        delivery("2026-01-02"),
        delivery("2026-11-21", status=Status.FAILED),
    )
    deliveries = [old, newer, under_way]
    left = holdings([old, under_way])  # the customer's newest was removed, under another policy
    verdicts = judge(customer(retention={"days": 1}), deliveries, left, NOW)
    assert [verdicts["us-daily", one.period, 1].reason for one in deliveries] == [
        Reason.NEWEST,
        Reason.EMPTY,
        Reason.UNFINISHED,
    ]


def test_a_label_without_a_date_stays() -> None:
    odd, newest = delivery("last tuesday"), delivery("2026-11-21")
    assert reasons({"retention": {"days": 1}}, odd, newest) == [Reason.UNDATED, Reason.NEWEST]
    assert reasons({"retention": {"days": 1, "by": "delivery"}}, delivery("0-odd", days_ago=3), newest) == [
        Reason.TOO_OLD,
        Reason.NEWEST,
    ]


def test_the_oldest_go_first_and_what_must_stay_counts_too() -> None:
    deliveries = [delivery(f"2026-11-{day:02}") for day in range(1, 7)]
    said = {"retention": {"max_bytes": 3 * GB}, "hold": ["us-daily/2026-11-01"]}
    assert reasons(said, *deliveries) == [
        Reason.HELD,
        Reason.TOO_MUCH,
        Reason.TOO_MUCH,
        Reason.TOO_MUCH,
        Reason.FITS,
        Reason.NEWEST,
    ]


def test_feeds_that_share_a_policy_share_its_bytes_and_others_do_not() -> None:
    days = [delivery(f"2026-10-{day:02}") for day in (1, 2)]
    months = [delivery(f"2026-{month:02}", feed="eu-monthly") for month in (8, 10)]
    shared = {"retention": {"max_bytes": 3 * GB}}
    assert reasons(shared, *days, *months) == [Reason.FITS, Reason.NEWEST, Reason.TOO_MUCH, Reason.NEWEST]
    apart = {"retention": {"max_bytes": 3 * GB, "feeds": {"eu-monthly": {"max_bytes": 3 * GB}}}}
    assert reasons(apart, *days, *months) == [Reason.FITS, Reason.NEWEST, Reason.FITS, Reason.NEWEST]


# --- Keys ----------------------------------------------------------------------------------------------


def known(key: str, *named_by: int, **changes: Any) -> DeliveredKey:
    revisions = named_by or (1,)
    record = DeliveredKey(key, 10, '"e"', "us-daily", "2026-01-01", revisions[0], NOW, revisions)
    return record._replace(**changes)


def seen(key: str, size: int = 10, etag: str = '"e"') -> ListedObject:
    return ListedObject(key, size, etag, NOW)


def action(record: DeliveredKey, there: ListedObject | None, said: dict[str, Any] | None = None) -> Action:
    deliveries = [
        delivery("2026-01-01", 1, days_ago=300),
        delivery("2026-01-01", 2, days_ago=1),
        delivery("2026-11-21"),
    ]
    verdicts = judge(customer(**(said or {"retention": {"days": 30}})), deliveries, holdings(deliveries), NOW)
    found, reason = decide(verdicts, record, there, "xmode/")
    assert reason
    return found


KEY = "xmode/us-daily/2026/01/01/a"


@pytest.mark.parametrize(
    ("record", "there", "what"),
    [
        (known(KEY), seen(KEY), Action.EXPIRE),
        (known(KEY), seen(KEY, etag="e"), Action.EXPIRE),  # some stores leave out the quotes
        (known(KEY, size=None, etag=None), seen(KEY, 999, '"manifest"'), Action.EXPIRE),
        (known(KEY), seen(KEY, etag='"f"'), Action.LEAVE_CHANGED),
        (known(KEY), seen(KEY, size=11), Action.LEAVE_CHANGED),
        (known(KEY), None, Action.LEAVE_GONE),
        (known(KEY), seen(f"{KEY}.bak"), Action.LEAVE_GONE),
        (known(KEY, 1, 9), seen(KEY), Action.KEEP),  # of revision 9 nothing is known
        (known(KEY, feed="us-dayly"), seen(KEY), Action.KEEP),
        (known("elsewhere/a"), seen("elsewhere/a"), Action.KEEP),
        (known("xmode"), seen("xmode"), Action.KEEP),
        (known(KEY, named_by=()), seen(KEY), Action.KEEP),
    ],
)
def test_a_key_goes_only_as_it_was_put(
    record: DeliveredKey, there: ListedObject | None, what: Action
) -> None:
    assert action(record, there) is what


def test_a_key_that_a_staying_manifest_names_stays() -> None:
    """By delivery, the first revision has expired and the second has not; it carries over what is right."""
    said = {"retention": {"days": 30, "by": "delivery"}}
    assert action(known(KEY, 1), seen(KEY), said) is Action.EXPIRE
    assert action(known(KEY, 1, 2), seen(KEY), said) is Action.KEEP
    assert action(known(KEY, 2), seen(KEY), said) is Action.KEEP


def test_a_revision_of_which_nothing_else_is_left_keeps_nothing() -> None:
    """The first revision's manifest and own objects went before; the second still names what they share."""
    deliveries = [
        delivery("2026-01-01", 1, days_ago=300),
        delivery("2026-01-01", 2, days_ago=200),
        delivery("2026-11-21"),
    ]
    said = customer(retention={"days": 30, "by": "delivery"})
    verdicts = judge(said, deliveries, holdings(deliveries[1:]), NOW)
    assert decide(verdicts, known(KEY, 1, 2), seen(KEY), "xmode/")[0] is Action.EXPIRE
