"""The contract of the port ``Ledger``: looks, the calendar, and the snapshot that health comes from."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.clock import MemoryClock
from xmode_transfer.access.catalogue import Cause
from xmode_transfer.alerting.alerts import fingerprint
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.checks import Check, Decision, FailedCheck, Judgement, Release, Verdict
from xmode_transfer.model.errors import Responsible
from xmode_transfer.model.findings import AccessReport, Finding, Result, Severity
from xmode_transfer.model.health import (
    KEPT_PERIODS,
    Alert,
    Event,
    Mark,
    Notice,
    NoticeKind,
    NoticeStatus,
    Notification,
    PeriodSummary,
    Snapshot,
    SourceScan,
    Waiting,
)
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.records import (
    Capabilities,
    Checksum,
    Delivery,
    Failure,
    Lease,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    Status,
    UploadedPart,
    UploadStatus,
)
from xmode_transfer.model.upkeep import Discrepancy, DiscrepancyKind, OperationKind, OperationRecord, Scope

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
REFUSED = Failure("role_refused", "customer", "the role refuses us", "send the trust policy")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    opened = open_ledger(ledger_url, MemoryClock(NOW))
    yield opened
    opened.close()


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    return ledger.leases.claim("delivery/anything", "host-a", 90)


def a_delivery(
    period: str, status: Status = Status.DELIVERED, revision: int = 1, **changes: object
) -> Delivery:
    made = Delivery(
        f"{changes.get('customer', 'acme')}-{changes.get('feed', 'us-daily')}-{period}-{revision}",
        "acme",
        "us-daily",
        period,
        revision,
        status,
        NOW - 9 * HOUR,
        NOW - HOUR,
        delivered_at=NOW - HOUR if status is Status.DELIVERED else None,
        failure=REFUSED if status is Status.BLOCKED else None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def a_scan(**changes: object) -> SourceScan:
    return replace(SourceScan("acme", "us-daily", NOW, NOW), **changes)  # type: ignore[arg-type]


# --- Source scans


def test_a_source_scan_is_read_as_it_was_recorded(ledger: Ledger) -> None:
    scan = a_scan(
        newest_complete="2026-11-24",
        due=("2026-11-23", "2026-11-24"),
        due_count=2,
        waiting=(Waiting("2026-11-25", 'no "_SUCCESS" yet, é'),),
        waiting_count=1,
    )
    written = ledger.sources.record(scan)
    assert written == replace(scan, due_since_at=NOW)
    assert ledger.sources.last("acme", "us-daily") == written
    assert ledger.snapshot().scans == {("acme", "us-daily"): written}
    assert ledger.sources.last("acme", "drops") is None


def test_a_source_scan_keeps_its_start_times(ledger: Ledger) -> None:
    ledger.sources.record(a_scan(due=("2026-11-23",), due_count=1))
    later = NOW + HOUR
    same = ledger.sources.record(
        a_scan(looked_at=later, first_looked_at=later, due=("2026-11-23", "2026-11-24"))
    )
    assert (same.first_looked_at, same.due_since_at) == (NOW, NOW)
    other = ledger.sources.record(a_scan(looked_at=later, first_looked_at=later, due=("2026-11-24",)))
    assert other.due_since_at == later


def test_a_failed_source_scan_keeps_the_last_result(ledger: Ledger) -> None:
    ledger.sources.record(a_scan(newest_complete="2026-11-24", due=("2026-11-24",), due_count=1))
    gone = Failure("source_missing", "vendor", "the disk is not mounted", "mount it")
    for hours in (1, 2):
        at = NOW + hours * HOUR
        failed = ledger.sources.record(a_scan(looked_at=at, first_looked_at=at, failure=gone))
        assert (failed.due, failed.newest_complete) == (("2026-11-24",), "2026-11-24")
        assert (failed.looked_at, failed.failing_since_at, failed.failure) == (at, NOW + HOUR, gone)
    fixed = ledger.sources.record(a_scan(looked_at=NOW + 3 * HOUR, first_looked_at=NOW))
    assert (fixed.failure, fixed.failing_since_at, fixed.due) == (None, None, ())


def test_a_delivered_period_leaves_the_source_scan(ledger: Ledger, lease: Lease) -> None:
    ledger.sources.record(a_scan(due=("2026-11-23", "2026-11-24"), due_count=2))
    delivery = a_delivery("2026-11-23", Status.RUNNING)
    ledger.deliveries.create(lease, delivery)
    ledger.deliveries.update(lease, delivery)
    assert ledger.snapshot().scans["acme", "us-daily"].due_count == 2
    ledger.deliveries.update(lease, replace(delivery, status=Status.DELIVERED, updated_at=NOW + HOUR))
    left = ledger.snapshot().scans["acme", "us-daily"]
    assert (left.due, left.due_count, left.due_since_at) == (("2026-11-24",), 1, NOW + HOUR)


def test_more_due_periods_than_are_named_are_counted(ledger: Ledger) -> None:
    labels = tuple(f"{number:05}" for number in range(KEPT_PERIODS))
    scan = ledger.sources.record(a_scan(due=labels, due_count=KEPT_PERIODS + 500))
    assert scan.without(labels[0], NOW).due_count == KEPT_PERIODS + 499


# --- The calendar


def test_the_calendar_has_the_highest_revision_of_each_period(ledger: Ledger, lease: Lease) -> None:
    for delivery in (
        a_delivery("2026-11-22"),
        a_delivery("2026-11-23"),
        a_delivery("2026-11-23", revision=2, status=Status.BLOCKED),
        a_delivery("2026-11-24", feed="drops"),
        a_delivery("2026-11-24", customer="globex"),
    ):
        ledger.deliveries.create(lease, delivery)
    assert [(item.feed, item.period, item.revision) for item in ledger.deliveries.calendar("acme")] == [
        ("drops", "2026-11-24", 1),
        ("us-daily", "2026-11-22", 1),
        ("us-daily", "2026-11-23", 2),
    ]
    assert [item.period for item in ledger.deliveries.calendar("acme", "us-daily", "2026-11-23")] == [
        "2026-11-23"
    ]


# --- The snapshot


def test_a_feed_is_summarized_by_period_for_all_customers(ledger: Ledger, lease: Lease) -> None:
    size: dict[str, object] = {"object_count": 3, "total_bytes": 30}
    rejected = Failure("rejected", "vendor", "ann rejected it")
    for delivery in (
        a_delivery("2026-11-22", delivered_at=NOW - 5 * HOUR, **size),
        a_delivery("2026-11-22", revision=2, object_count=4, total_bytes=20),
        a_delivery("2026-11-22", customer="globex", delivered_at=NOW - 3 * HOUR, **size),
        a_delivery("2026-11-23", **size),
        a_delivery("2026-11-23", Status.QUARANTINED, revision=2, failure=REFUSED),
        a_delivery("2026-11-24", Status.SKIPPED, failure=rejected),
        a_delivery("2026-11-24", Status.SKIPPED, customer="globex"),
        a_delivery("2026-11-21"),
        a_delivery("2026-11-22", feed="eu-daily"),
    ):
        ledger.deliveries.create(lease, delivery)
    found = sorted(ledger.deliveries.by_period("us-daily", "2026-11-22"))
    assert found == [
        PeriodSummary("2026-11-22", 2, 2, 0, 0, 4, 30, 2, NOW - 3 * HOUR),
        PeriodSummary("2026-11-23", 1, 0, 1, 0, 0, 0, 2, None),
        PeriodSummary("2026-11-24", 2, 0, 0, 1, 0, 0, 1, None),
    ]
    judgements = [
        Judgement("us-daily", f"2026-11-{day}", name, "p", Verdict.SOUND, 1, 9, (), NOW)
        for day, name in ((21, ""), (22, ""), (23, "a file"), (24, ""))
    ]
    for judgement in judgements:
        ledger.judgements.record(judgement)
    of_periods = ledger.judgements.since("us-daily", "2026-11-22")
    assert {item.period for item in of_periods} == {"2026-11-22", "2026-11-24"}
    assert ledger.judgements.since("eu-daily", "2026-11-22") == []


def test_the_snapshot_of_an_empty_ledger(ledger: Ledger, ledger_url: str) -> None:
    snapshot = ledger.snapshot()
    assert replace(snapshot, free_bytes=None, used_bytes=0) == Snapshot()
    # nobody can say how much room a server has left
    assert (snapshot.free_bytes or 0) > 0 if ledger_url.startswith("sqlite") else snapshot.free_bytes is None
    assert snapshot.used_bytes > 10_000


def test_the_snapshot_has_of_each_subscription_the_newest_that_was_delivered(
    ledger: Ledger, lease: Lease
) -> None:
    for delivery in (
        a_delivery("2026-11-22"),
        a_delivery("2026-11-23"),
        a_delivery("2026-11-23", revision=2),
        a_delivery("2026-11-24", Status.BLOCKED),
        a_delivery("2026-11-21", customer="acme-2", feed="a"),
        a_delivery("2026-11-20", customer="acme-2", feed="b", status=Status.PLANNED),
        a_delivery("none", customer="zeta", feed="drops", revision=7),
    ):
        ledger.deliveries.create(lease, delivery)
    snapshot = ledger.snapshot()
    assert {place: (item.period, item.revision) for place, item in snapshot.delivered.items()} == {
        ("acme", "us-daily"): ("2026-11-23", 2),
        ("acme-2", "a"): ("2026-11-21", 1),
        ("zeta", "drops"): ("none", 7),
    }
    assert snapshot.delivered["acme", "us-daily"] == a_delivery("2026-11-23", revision=2)


def test_the_snapshot_has_what_is_open_since_it_first_failed(ledger: Ledger, lease: Lease) -> None:
    blocked = a_delivery("2026-11-24", Status.BLOCKED)
    for delivery in (
        blocked,
        a_delivery("2026-11-22", Status.FAILED, failure=Failure("superseded", "vendor", "taken over")),
        a_delivery("2026-11-22", revision=2),
        a_delivery("2026-11-23", Status.RUNNING),
    ):
        ledger.deliveries.create(lease, delivery)
    for number, outcome in enumerate(("interrupted", "blocked", "blocked")):
        at = NOW - (5 - number) * HOUR
        run = Run(f"run-{number}", blocked.id, at, "host-a", "fast", at, outcome)
        ledger.runs.start(lease, run)
        ledger.runs.finish(lease, run)
    (running, refused) = ledger.snapshot().open["acme", "us-daily"]
    assert (running.delivery.period, running.since_at) == ("2026-11-23", running.delivery.created_at)
    assert (refused.delivery, refused.since_at) == (blocked, NOW - 4 * HOUR)


def test_the_snapshot_has_what_is_quarantined_and_who_may_have_it(ledger: Ledger, lease: Lease) -> None:
    ledger.deliveries.create(lease, a_delivery("2026-11-24"))
    correction = a_delivery("2026-11-24", Status.QUARANTINED, revision=2, fingerprint="p", failure=REFUSED)
    ledger.deliveries.create(lease, correction)
    ledger.runs.start(lease, Run("run", correction.id, NOW - HOUR, "host", "fast"))
    run = Run("run", correction.id, NOW - HOUR, "host", "fast", NOW - HOUR / 2, Status.QUARANTINED)
    ledger.runs.finish(lease, run)
    failed = (FailedCheck(Check.MIN_FILES, "3 files, and at least 10"),)
    verdicts = {
        name: Judgement("drops", "none", name, "p", verdict, 1, 9, failed, NOW - HOUR)
        for name, verdict in (
            ("a", Verdict.QUARANTINED),
            ("b", Verdict.QUARANTINED),
            ("c", Verdict.WARNED),
            ("d", Verdict.SOUND),
        )
    }
    for judgement in verdicts.values():
        ledger.judgements.record(judgement)
    decision = Release("drops", "none", "a", "p", "acme", Decision.RELEASED, "ann", "ok", NOW, failed)
    of_before = replace(decision, name="b", fingerprint="before")
    ledger.judgements.decide([decision, replace(decision, customer="globex"), of_before])
    found = ledger.snapshot()
    assert found.delivered["acme", "us-daily"].revision == 1
    (open_,) = found.open["acme", "us-daily"]
    assert (open_.delivery, open_.since_at) == (correction, NOW - HOUR / 2)
    assert {item.judgement.name: item.decided for item in found.verdicts["drops"]} == {
        "a": {"acme", "globex"},
        "b": frozenset(),
        "c": frozenset(),
    }
    assert all(item.judgement == verdicts[item.judgement.name] for item in found.verdicts["drops"])


def test_the_snapshot_has_a_limited_number_of_verdicts(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmode_transfer.ledger.snapshot._VERDICTS", 3)
    for day in range(1, 8):
        at = NOW + day * HOUR
        judgement = Judgement("us-daily", f"2026-11-{day:02}", "", "p", Verdict.QUARANTINED, 1, 9, (), at)
        ledger.judgements.record(judgement)
    newest = [item.judgement.period for item in ledger.snapshot().verdicts["us-daily"]]
    assert newest == ["2026-11-05", "2026-11-06", "2026-11-07"]


def test_the_snapshot_has_what_was_sent_of_what_is_open(ledger: Ledger, lease: Lease) -> None:
    """Whole objects by their receipts, large ones by their parts; what an earlier revision sent is not it."""
    first = a_delivery("none", feed="drops")
    second = a_delivery("none", Status.RUNNING, 2, feed="drops", object_count=3, total_bytes=3_500)
    for delivery, names in ((first, ("a",)), (second, ("b", "c", "d"))):
        ledger.deliveries.create(lease, delivery)
        planned = [PlannedObject(name, f"xmode/{name}", 1_000, 1, "inode") for name in names]
        ledger.objects.plan(lease, delivery.id, planned)
        proven = Receipt(names[0], planned[0].key, 1_000, Checksum("crc32", "AAAAAA=="), "etag", NOW)
        ledger.objects.record_receipt(lease, delivery.id, proven).result(120)
    upload = MultipartUpload("up-1", second.id, "acme", "c", "xmode/c", 1_500, 1, "inode", 100, "crc32", NOW)
    ledger.uploads.open(lease, upload)
    ledger.uploads.record_part(lease, "up-1", UploadedPart(1, 100, "etag", "AAAAAA==")).result(120)
    (running,) = ledger.snapshot().open["acme", "drops"]
    assert (running.delivery.id, running.sent_bytes) == (second.id, 1_100)
    ledger.uploads.close(lease, "up-1", UploadStatus.ABORTED)
    (running,) = ledger.snapshot().open["acme", "drops"]
    assert running.sent_bytes == 1_000


def test_the_snapshot_counts_a_limited_number_of_objects(
    ledger: Ledger, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmode_transfer.ledger.snapshot.SUMMED_OBJECTS", 2)
    for period, count, total in (("2026-11-22", 3, 9_000), ("2026-11-23", 2, 4_000), ("2026-11-24", 1, 1)):
        delivery = a_delivery(period, Status.RUNNING, object_count=count, total_bytes=total)
        ledger.deliveries.create(lease, delivery)
        planned = PlannedObject("a", f"xmode/{period}", 1, 1, "inode")
        ledger.objects.plan(lease, delivery.id, [planned])
        proven = Receipt("a", planned.key, 1, Checksum("crc32", "AAAAAA=="), "etag", NOW)
        ledger.objects.record_receipt(lease, delivery.id, proven).result(120)
    found = {item.delivery.period: item.sent_bytes for item in ledger.snapshot().open["acme", "us-daily"]}
    assert found == {"2026-11-22": 0, "2026-11-23": 1, "2026-11-24": 0}


def a_check(outcome: str, hours: float) -> AccessReport:
    findings = {
        "ok": (Finding("put", Result.OK, Cause.OK, None, Severity.INFO, "fine"),),
        "blocked": (
            Finding(
                "put", Result.DENIED, Cause.PUT_DENIED, Responsible.CUSTOMER, Severity.ERROR, "put is denied"
            ),
            Finding(
                "assume",
                Result.UNEXPECTED,
                Cause.EXTERNAL_ID_NOT_REQUIRED,
                Responsible.CUSTOMER,
                Severity.CRITICAL,
                "anybody gets in",
            ),
            Finding("get", Result.OK, Cause.OK, None, Severity.WARNING, "a note"),
        ),
    }
    return AccessReport("acme", NOW - hours * HOUR, findings[outcome])


def test_the_snapshot_has_the_last_check_and_since_when_it_is_bad(ledger: Ledger) -> None:
    for outcome, hours in (("blocked", 9), ("ok", 8), ("blocked", 7), ("blocked", 6)):
        ledger.checks.record(a_check(outcome, hours))
    ledger.checks.record(replace(a_check("ok", 1), customer="globex"))
    checks = ledger.snapshot().checks
    assert (checks["globex"].outcome, checks["globex"].causes) == ("ok", ())
    bad = checks["acme"]
    assert bad.causes == ("external_id_not_required", "put_denied")
    assert (bad.responsible, bad.message) == ("customer", "anybody gets in")
    assert (bad.checked_at, bad.bad_since_at) == (NOW - 6 * HOUR, NOW - 7 * HOUR)


@pytest.mark.parametrize(
    ("outcome", "uploaded", "hours_after", "disproved"),
    [
        ("delivered", 1, 1, True),
        ("delivered", 0, 1, True),  # all was there already: the manifest was put
        ("failed", 1, 1, True),
        ("failed", 0, 1, False),
        ("delivered", 1, -1, False),  # it began before the check
    ],
)
def test_findings_that_a_later_run_disproved_are_left_out(
    ledger: Ledger, lease: Lease, outcome: str, uploaded: int, hours_after: int, disproved: bool
) -> None:
    check = a_check("blocked", 6)
    ledger.checks.record(check)
    ledger.checks.record(replace(check, customer="globex"))
    delivery = a_delivery("2026-11-24")
    ledger.deliveries.create(lease, delivery)
    run = Run("run-1", delivery.id, check.checked_at + hours_after * HOUR, "host-a", "fast", NOW, outcome)
    ledger.runs.start(lease, run)
    ledger.runs.finish(lease, replace(run, uploaded=uploaded))
    checks = ledger.snapshot().checks
    rest = ("external_id_not_required",)  # no delivery shows that this has been fixed
    assert checks["acme"].causes == (rest if disproved else (*rest, "put_denied"))
    assert checks["globex"].causes == (*rest, "put_denied")


def test_the_snapshot_has_leftovers_cleanups_and_what_is_known_of_destinations(
    ledger: Ledger, lease: Lease
) -> None:
    delivery = a_delivery("2026-11-24")
    ledger.deliveries.create(lease, delivery)
    for number in range(2):
        at = NOW - number * HOUR
        upload = MultipartUpload(
            f"u{number}", delivery.id, "acme", "a", "xmode/a", 10, 1, "i", 5, "crc32", at, sent_bytes=5
        )
        upload = replace(upload, abort_at=NOW + HOUR if number else None)
        ledger.uploads.open(lease, upload)
        ledger.uploads.close(lease, upload.upload_id, UploadStatus.ORPHANED)
    too_many = Failure("cleanup_cap", "vendor", "too many", "say so")
    for number, failure in enumerate((None, too_many)):
        at = NOW - (3 - number) * HOUR
        act = OperationRecord(f"act-{number}", OperationKind.CLEANUP, "acme", "h", "daemon", "retention", at)
        ledger.operations.start(lease, act)
        ledger.operations.finish(lease, replace(act, finished_at=at, outcome="unconfirmed", failure=failure))
    ledger.operations.start(
        lease, OperationRecord("act-9", OperationKind.CLEANUP, "acme", "h", "daemon", "retention", NOW)
    )
    ledger.checks.learn("acme", Capabilities(region="eu-west-1"))
    ledger.sources.skip("acme", "us-daily", {"2026-11-20": "", "2026-11-21": ""}, NOW)
    ledger.daemons.note(ledger.leases.claim("daemon", "h", 90), DaemonRecord("h", NOW - HOUR, NOW, 60, 4))
    snapshot = ledger.snapshot()
    left = snapshot.orphaned["acme"]
    assert (left.count, left.bytes, left.oldest_at) == (2, 10, NOW - HOUR)
    assert (left.kept, left.ends_at) == (1, NOW + HOUR)
    assert snapshot.cleanups["acme"].failure == too_many
    assert snapshot.capabilities["acme"].region == "eu-west-1"
    assert snapshot.skipped == {("acme", "us-daily"): "2026-11-21"}
    assert snapshot.daemon is not None
    assert snapshot.daemon.holder == "h"


# --- Alerts


def an_alert(**changes: object) -> Alert:
    alert = Alert(
        fingerprint("role_refused"),
        "role_refused",
        "a detail",
        Responsible.CUSTOMER,
        True,
        "2 customers: AssumeRole is refused",
        "the role refuses us, é",
        "send the trust policy",
        NOW - HOUR,
        ("acme", "globex"),
        2,
        NOW,
    )
    return replace(alert, **changes)  # type: ignore[arg-type]


def test_alerts_are_read_with_their_notifications(ledger: Ledger, lease: Lease) -> None:
    assert ledger.alerts.known() == []
    heard = Notification(Event.OPENED, NOW, urgent=True)
    failed = Notification(attempts=2, next_attempt_at=NOW + HOUR, error="no answer")
    alert = an_alert(notifications={"ops": heard, "pager": failed})
    ledger.alerts.record(lease, [alert])
    assert ledger.alerts.known() == [alert]
    later = an_alert(resolved_at=NOW + HOUR, urgent=False, notifications={"ops": heard})
    ledger.alerts.record(lease, [later])
    assert ledger.alerts.known() == [later]
    ledger.alerts.record(lease, (), [alert.fingerprint, "unknown"])
    assert ledger.alerts.known() == []


# --- Notices


def a_notice(period: str = "2026-11-22", hours: float = 0, customer: str = "acme") -> Notice:
    mark = Mark(customer, "us-daily", period, NoticeKind.LATE, 1)
    return Notice(mark, f"xmode/_notices/{period}.json", '{"kind":"late"}', NOW + hours * HOUR)


def test_notices_are_found_oldest_first(ledger: Ledger, lease: Lease) -> None:
    late, later, other = a_notice("2026-11-23"), a_notice(hours=1), a_notice(hours=-1, customer="globex")
    ledger.notices.record(lease, [later, late, other])
    assert ledger.notices.find() == [other, late, later]
    assert ledger.notices.find("acme") == [late, later]
    refused, put = late.refused("no answer", NOW), later.put(NOW + 2 * HOUR)
    ledger.notices.record(lease, [refused, put, other.withdrawn()])
    assert ledger.notices.find("acme") == [refused, put]
    assert ledger.notices.find(statuses=[NoticeStatus.PLANNED]) == [refused]


def test_corrections_replaced_a_delivered_revision(ledger: Ledger, lease: Lease) -> None:
    first, second = a_delivery("2026-11-20"), a_delivery("2026-11-20", revision=2)
    third = a_delivery("2026-11-20", revision=3, delivered_at=NOW)
    never = a_delivery("2026-11-21", Status.FAILED)  # its source changed before it was delivered
    batch, next_batch = a_delivery("none"), a_delivery("none", revision=2)
    under_way = a_delivery("2026-11-22", Status.RUNNING, revision=2)
    for delivery in (first, second, third, never, batch, next_batch, a_delivery("2026-11-22"), under_way):
        ledger.deliveries.create(lease, delivery)
    ledger.deliveries.create(lease, a_delivery("2026-11-21", revision=2))
    assert ledger.deliveries.corrections(NOW - 2 * HOUR) == [second, third]
    assert (
        ledger.deliveries.corrections(NOW - HOUR / 2) == []
    )  # by when the row was changed: adopted ones are not new
    ledger.deliveries.update(lease, replace(third, updated_at=NOW))
    assert ledger.deliveries.corrections(NOW - HOUR / 2) == [replace(third, updated_at=NOW)]


def test_a_verification_replaces_earlier_results_in_its_scope(ledger: Ledger) -> None:
    def a_discrepancy(
        period: str, flaw: DiscrepancyKind = DiscrepancyKind.MISSING, keys: int = 1, **changes: object
    ) -> Discrepancy:
        return Discrepancy("us-daily", period, flaw, keys, f"{period}/a.csv", NOW)._replace(**changes)

    first = [
        a_discrepancy("2026-11-20", keys=2),
        a_discrepancy("2026-11-21"),
        a_discrepancy("2026-11-21", DiscrepancyKind.ALTERED),
    ]
    other = a_discrepancy("2026-11-20", feed="us-hourly")
    ledger.discrepancies.record("acme", Scope(), [*first, other])
    ledger.discrepancies.record("globex", Scope(), [a_discrepancy("2026-11-20")])
    assert ledger.snapshot().discrepancies == {
        "acme": (first[0], first[2], first[1], other),  # in the order of their names
        "globex": (a_discrepancy("2026-11-20"),),
    }
    again = a_discrepancy("2026-11-21", keys=9, since_at=NOW + HOUR)
    ledger.discrepancies.record("acme", Scope(feed="us-daily", since="2026-11-21"), [again])
    kept = (first[0], again._replace(since_at=NOW), other)  # since it was first found
    assert ledger.snapshot().discrepancies["acme"] == kept
    ledger.discrepancies.record("acme", Scope(feed="us-daily", period="2026-11-20"), [])
    assert ledger.snapshot().discrepancies["acme"] == kept[1:]
    ledger.discrepancies.record("acme", Scope(), [])
    assert set(ledger.snapshot().discrepancies) == {"globex"}
