"""What there is to tell a customer, in whose words, and when it is tried again."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from xmode_transfer.alerting.health import assess
from xmode_transfer.alerting.notices import (
    SHUT,
    Happening,
    happenings,
    is_shut,
    notice,
    overtaken,
    ready,
    unreported,
    wanting,
)
from xmode_transfer.config import Configuration, Customer, CustomerState, Destination, Feed, Service
from xmode_transfer.model.health import (
    Mark,
    Notice,
    NoticeKind,
    NoticeStatus,
    OpenDelivery,
    Snapshot,
    SourceScan,
    Waiting,
)
from xmode_transfer.model.records import Delivery, Failure, Status

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
FEED = Feed(name="us-daily", source="/secret/exports", period="day", partition="%Y/%m/%d")
DROPS = Feed(name="drops", source="/secret/drops", period="none")


def a_customer(**changes: Any) -> Customer:
    values: dict[str, Any] = {
        "name": "acme",
        "company": "Acme Corp",
        "external_id": "AcmeCorp",
        "role_arn": "arn:aws:iam::111122223333:role/XMode",
        "destination": Destination(bucket="acme-data", prefix="xmode/"),
        "feeds": ("us-daily",),
        "notices": True,
    }
    return Customer(**(values | changes))


def a_delivery(period: str, status: Status = Status.DELIVERED, revision: int = 1, **changes: Any) -> Delivery:
    made = Delivery(
        f"id-{period}-{revision}",
        "acme",
        changes.pop("feed", "us-daily"),
        period,
        revision,
        status,
        NOW - 8 * HOUR,
        NOW - HOUR,
        delivered_at=NOW - HOUR,
    )
    return replace(made, **changes)


def begun(
    period: str, status: Status, cause: str = "", hours: float = 1, revision: int = 1, **how: Any
) -> OpenDelivery:
    failure = Failure(cause, "customer", "somebody at /secret refuses", "our hint") if cause else None
    return OpenDelivery(a_delivery(period, status, revision, failure=failure, **how), NOW - hours * HOUR)


def a_look(**changes: Any) -> SourceScan:
    return replace(SourceScan("acme", "us-daily", NOW - HOUR / 60, NOW - 1000 * HOUR), **changes)


def found(
    delivered: Delivery | None,
    *opened: OpenDelivery,
    look: SourceScan | None = None,
    feed: Feed = FEED,
    corrections: tuple[Delivery, ...] = (),
    **customer: Any,
) -> list[Happening]:
    acme = a_customer(feeds=(feed.name,), **customer)
    configuration = Configuration(Service(), {feed.name: feed}, {"acme": acme}, {})
    key = ("acme", feed.name)
    snapshot = Snapshot(
        scans={key: replace(look or a_look(), feed=feed.name)},
        delivered={key: delivered} if delivered else {},
        open={key: opened} if opened else {},
    )
    assessment = assess(configuration, snapshot, NOW)
    return happenings(wanting(configuration), assessment, corrections)


def told(items: list[Happening]) -> list[tuple[str, str, int]]:
    return [(item.mark.kind, item.mark.period, item.mark.revision) for item in items]


OLD = a_delivery("2026-11-22")
CASES: list[tuple[str, Any, list[tuple[str, str, int]]]] = [
    ("all is well", lambda: found(a_delivery("2026-11-24")), []),
    ("a day is not there", lambda: found(OLD), [("late", "2026-11-23", 1)]),
    (
        "a day is incomplete, though a later one is there",
        lambda: found(OLD, look=a_look(waiting=(Waiting("2026-11-23", "no _SUCCESS"),), waiting_count=1)),
        [("late", "2026-11-23", 1)],
    ),
    ("its first day is late", lambda: found(None), [("late", "2026-11-23", 1)]),
    (
        "the source cannot be read, and a day is late",
        lambda: found(OLD, look=a_look(failure=Failure("source_missing", "vendor", "gone"))),
        [("late", "2026-11-23", 1)],
    ),
    (
        "a day is late that fails, whosever fault it is",
        lambda: found(OLD, begun("2026-11-23", Status.FAILED, "unavailable")),
        [("late", "2026-11-23", 1)],
    ),
    (
        "a failure within the deadline",
        lambda: found(a_delivery("2026-11-24"), begun("2026-11-25", Status.FAILED, "checksum_mismatch")),
        [],
    ),
    (
        "a refusal",
        lambda: found(a_delivery("2026-11-24"), begun("2026-11-25", Status.BLOCKED, "kms_denied")),
        [("paused", "2026-11-25", 1)],
    ),
    (
        "a refusal of a moment",
        lambda: found(a_delivery("2026-11-24"), begun("2026-11-25", Status.BLOCKED, "kms_denied", 0.05)),
        [],
    ),
    (
        "one that is late and refused is told once",
        lambda: found(OLD, begun("2026-11-23", Status.BLOCKED, "access_denied", 30)),
        [("paused", "2026-11-23", 1)],
    ),
    (
        "one day is refused and another late",
        lambda: found(
            OLD,
            begun("2026-11-23", Status.RUNNING, hours=30),
            begun("2026-11-24", Status.BLOCKED, "kms_denied", 1),
        ),
        [("late", "2026-11-23", 1), ("paused", "2026-11-24", 1)],
    ),
    *(
        (
            f"{cause} lets no notice in",
            lambda cause=cause: found(a_delivery("2026-11-24"), begun("2026-11-25", Status.BLOCKED, cause)),
            [],
        )
        for cause in sorted(SHUT)
    ),
    (
        "a correction that is under way for too long is late by its own revision",
        lambda: found(a_delivery("2026-11-24"), begun("2026-11-20", Status.RUNNING, revision=2, hours=30)),
        [("late", "2026-11-20", 2)],
    ),
    (
        "an older day that nobody has begun may be a correction: its revision is not known yet",
        lambda: found(
            a_delivery("2026-11-24"),
            look=a_look(due=("2026-11-20",), due_count=1, due_since_at=NOW - 30 * HOUR),
        ),
        [],
    ),
    (
        "the next batch of a drop folder",
        lambda: found(
            a_delivery("none", revision=4, feed="drops"),
            look=a_look(due=("none",), due_count=1, due_since_at=NOW - 30 * HOUR),
            feed=DROPS,
        ),
        [("late", "none", 5)],
    ),
    (
        "a correction",
        lambda: found(a_delivery("2026-11-24"), corrections=(a_delivery("2026-11-20", revision=2),)),
        [("corrected", "2026-11-20", 2)],
    ),
    (
        "a correction of a feed that it receives no longer",
        lambda: found(
            a_delivery("2026-11-24"), corrections=(a_delivery("2026-11-20", revision=2, feed="old"),)
        ),
        [],
    ),
    ("it wants none", lambda: found(OLD, notices=False), []),
    ("it is retired", lambda: found(OLD, state=CustomerState.RETIRED), []),
]


@pytest.mark.parametrize(("case", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_events_to_report(case: Any, expected: list[tuple[str, str, int]]) -> None:
    assert told(case()) == expected


@pytest.mark.parametrize("cause", ["role_refused", "kms_denied"])
def test_causes_that_stop_notices_too(cause: str) -> None:
    acme = a_customer()
    configuration = Configuration(Service(), {"us-daily": FEED}, {"acme": acme}, {})
    item = begun("2026-11-24", Status.BLOCKED, cause)
    assessment = assess(configuration, Snapshot(open={("acme", "us-daily"): (item,)}), NOW)
    assert is_shut(assessment.customer("acme")) is (cause in SHUT)
    assert is_shut(assessment.customer("nobody"))


def a_notice(kind: NoticeKind = NoticeKind.LATE, cause: str = "late", period: str = "2026-11-23") -> Notice:
    item = Happening(Mark("acme", "us-daily", period, kind, 2), NOW - HOUR, cause)
    return notice(item, a_customer(), NOW)


def test_one_notice_for_each_event_unless_withdrawn() -> None:
    known = a_notice()
    item = Happening(known.mark, NOW, "late")
    assert unreported([item], []) == unreported([item], [known.withdrawn()]) == [item]
    assert unreported([item], [known]) == unreported([item], [known.put(NOW)]) == []
    assert unreported([item._replace(mark=known.mark._replace(revision=3))], [known]) != []


def test_obsolete_notices_are_not_written() -> None:
    late, corrected = a_notice(), a_notice(NoticeKind.CORRECTED)
    acme = {"acme": a_customer()}
    assert overtaken([late, corrected], acme, [Happening(late.mark, NOW)]) == []
    assert overtaken([late, corrected], acme, []) == [late]
    assert overtaken([late, corrected], {}, [Happening(late.mark, NOW)]) == [late, corrected]


def test_customers_with_notices() -> None:
    customers = {
        "acme": a_customer(),
        "globex": a_customer(name="globex", notices=False),
        "initech": a_customer(name="initech", state=CustomerState.RETIRED),
    }
    assert list(wanting(Configuration(Service(), {"us-daily": FEED}, customers, {}))) == ["acme"]


def test_a_refused_notice_is_retried_with_backoff() -> None:
    item, pauses = a_notice(), []
    assert ready([item], NOW)
    for _ in range(8):
        item = item.refused("no", NOW)
        assert item.next_attempt_at is not None
        assert not ready([item], NOW)
        assert ready([item], item.next_attempt_at)
        pauses.append((item.next_attempt_at - NOW).total_seconds() / 60)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert ready([item], NOW - timedelta(days=1))  # the clock was wrong when it was noted
    done = item.put(NOW)
    assert (done.status, done.error, done.next_attempt_at) == (NoticeStatus.PUT, "", None)


KINDS = [
    (NoticeKind.LATE, "late", "vendor", False),
    (NoticeKind.LATE, "no_source", "vendor", False),
    (NoticeKind.PAUSED, "access_denied", "customer", True),
    (NoticeKind.PAUSED, "multipart_denied", "customer", True),
    (NoticeKind.PAUSED, "kms_denied", "customer", True),
    (NoticeKind.PAUSED, "object_exists", "customer", True),
    (NoticeKind.PAUSED, "something_new", "customer", True),
    (NoticeKind.CORRECTED, "", "customer", True),
]


@pytest.mark.parametrize(("kind", "cause", "responsible", "acts"), KINDS)
@pytest.mark.parametrize("period", ["2026-11-23", "none"])
def test_a_notice_says_what_happened_and_what_to_do(
    kind: NoticeKind, cause: str, responsible: str, acts: bool, period: str
) -> None:
    made = a_notice(kind, cause, period)
    body = json.loads(made.body)
    assert body.pop("message").startswith(
        "The next batch of " if period == "none" else "Period 2026-11-23 of "
    )
    assert bool(body.pop("action")) is acts
    assert body == {
        "format": "xmode-notice/1",
        "kind": kind,
        "feed": "us-daily",
        "period": period,
        "revision": 2,
        "responsible": responsible,
        "made_at": "2026-11-25T12:00:00.000000Z",
        "since_at": "2026-11-25T11:00:00.000000Z",
        "manifest": f"xmode/us-daily/_manifests/{period}/000002.json",
    }
    assert made.key == f"xmode/_notices/2026-11-25T12-00-00-000000Z-us-daily-{period}-{kind}.json"
    assert "{" not in made.body[1:]  # nothing is left to fill in
    assert "secret" not in made.body
    assert len(made.token) == 32
    assert made.token != a_notice(kind, cause, "2026-11-24").token
