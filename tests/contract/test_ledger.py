"""The contract of ``Ledger``, for each database."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.clock import MemoryClock
from tests.forms import examples
from xmode_transfer.access.catalogue import Cause, finding
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.checks import Check, Decision, FailedCheck, Judgement, Release, Verdict
from xmode_transfer.model.delta import DeltaTable, TableCommit, TableFile
from xmode_transfer.model.errors import AlreadyRunning, LeaseLost, LedgerError, Responsible
from xmode_transfer.model.findings import (
    AccessReport,
    Challenge,
    Finding,
    Leftover,
    LeftoverKind,
    Result,
    Severity,
)
from xmode_transfer.model.health import SupersededLeft
from xmode_transfer.model.native import NativeKind, NativeManifest
from xmode_transfer.model.process import DaemonRecord
from xmode_transfer.model.recall import (
    Content,
    Recall,
    RecallProgress,
    RecallState,
    Withdrawn,
    WithdrawnObject,
)
from xmode_transfer.model.records import (
    Capabilities,
    Checksum,
    Delivery,
    Failure,
    Holding,
    Lease,
    MissingObject,
    MissingReason,
    MultipartUpload,
    PlannedObject,
    Receipt,
    Run,
    SourceFile,
    Status,
    UploadedPart,
    UploadStatus,
)
from xmode_transfer.model.upkeep import REMOVED, OperationKind, OperationRecord, Removal, RemovalOutcome

NOW = datetime(2026, 11, 23, 6, 30, 0, 123456, tzinfo=UTC)
Reopen = Callable[[], Ledger]


@pytest.fixture
def clock() -> MemoryClock:
    return MemoryClock(NOW)


@pytest.fixture
def reopen(ledger_url: str, clock: MemoryClock) -> Iterator[Reopen]:
    """Opens the same ledger again, as another process would."""
    opened: list[Ledger] = []

    def open_it() -> Ledger:
        opened.append(open_ledger(ledger_url, clock))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(reopen: Reopen) -> Ledger:
    return reopen()


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    return ledger.leases.claim("delivery/acme/us-daily/2026-11-22", "host-a", 90)


def a_delivery(revision: int = 1, period: str = "2026-11-22", **changes: object) -> Delivery:
    delivery = Delivery(
        id=f"id-{period}-{revision}",
        customer="acme",
        feed="us-daily",
        period=period,
        revision=revision,
        status=Status.PLANNED,
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(delivery, **changes)  # type: ignore[arg-type]


def an_object(name: str, **changes: object) -> PlannedObject:
    return PlannedObject(name, f"xmode/{name}", 1_000, 17, "inode-1")._replace(**changes)


def a_receipt(name: str, **changes: object) -> Receipt:
    receipt = Receipt(name, f"xmode/{name}", 1_000, Checksum("crc64nvme", "AAAAAAAAAAE="), '"etag"', NOW)
    return receipt._replace(**changes)


def an_upload(upload_id: str = "upload-1", **changes: object) -> MultipartUpload:
    upload = MultipartUpload(
        upload_id,
        "id-2026-11-22-1",
        "acme",
        "a.parquet",
        "xmode/a.parquet",
        5**15,
        17,
        "i",
        2**26,
        "crc32",
        NOW,
    )
    return replace(upload, **changes)  # type: ignore[arg-type]


def a_part(number: int, size: int = 2**26) -> UploadedPart:
    return UploadedPart(number, size, f'"etag-{number}"', "AAAAAQ==")


@pytest.fixture
def delivery(ledger: Ledger, lease: Lease) -> Delivery:
    """A delivery that is recorded, with nothing planned yet."""
    delivery = a_delivery()
    ledger.deliveries.create(lease, delivery)
    return delivery


def test_proving_writable_changes_nothing(ledger: Ledger, lease: Lease) -> None:
    ledger.prove_writable()
    ledger.prove_writable()
    assert ledger.leases.claim("written/and-taken-back", "host-a", 1).generation == 1


# --- Leases ------------------------------------------------------------------------------------------


def test_a_claim_has_an_end_and_a_new_generation(ledger: Ledger) -> None:
    first = ledger.leases.claim("work", "host-a", 90)
    ledger.leases.release(first)
    second = ledger.leases.claim("work", "host-a", 60)
    assert (first.name, first.holder, first.expires_at) == ("work", "host-a", NOW + timedelta(seconds=90))
    assert second.generation > first.generation
    assert second.expires_at == NOW + timedelta(seconds=60)


def test_a_held_lease_cannot_be_claimed_and_the_refusal_names_the_holder(
    ledger: Ledger, reopen: Reopen, clock: MemoryClock
) -> None:
    ledger.leases.claim("work", "host-a", 90)
    clock.advance(10)
    for holder in ("host-b", "host-a"):
        with pytest.raises(AlreadyRunning, match=r"work .* by host-a since 2026-11-23T06:30:00"):
            reopen().leases.claim("work", holder, 90)
    assert reopen().leases.claim("other work", "host-b", 90).holder == "host-b"


def test_an_expired_lease_can_be_claimed_and_a_renewed_one_cannot(ledger: Ledger, clock: MemoryClock) -> None:
    lease = ledger.leases.claim("work", "host-a", 90)
    clock.advance(80)
    renewed = ledger.leases.renew(lease, 90)
    assert (renewed.generation, renewed.expires_at) == (lease.generation, NOW + timedelta(seconds=170))
    clock.advance(60)
    with pytest.raises(AlreadyRunning):
        ledger.leases.claim("work", "host-b", 90)
    clock.advance(30)
    ledger.deliveries.create(renewed, a_delivery())  # late, but not replaced
    assert ledger.leases.claim("work", "host-b", 90).generation > lease.generation
    with pytest.raises(LeaseLost, match="host-b"):
        ledger.leases.renew(renewed, 90)


def test_releasing_a_lost_lease_has_no_effect(ledger: Ledger, clock: MemoryClock) -> None:
    stale = ledger.leases.claim("work", "host-a", 90)
    clock.advance(100)
    ledger.leases.claim("work", "host-b", 90)
    ledger.leases.release(stale)
    with pytest.raises(AlreadyRunning, match="host-b"):
        ledger.leases.claim("work", "host-c", 90)
    ledger.leases.release(Lease("never claimed", 1, "host-a", NOW))


LOST_CALLS: dict[str, Callable[[Ledger, Lease], object]] = {
    "renew": lambda ledger, lease: ledger.leases.renew(lease, 90),
    "create_delivery": lambda ledger, lease: ledger.deliveries.create(lease, a_delivery(2)),
    "update_delivery": lambda ledger, lease: ledger.deliveries.update(lease, a_delivery(attempts=9)),
    "plan_objects": lambda ledger, lease: ledger.objects.plan(lease, a_delivery().id, [an_object("c")]),
    "restamp": lambda ledger, lease: ledger.objects.restamp(
        lease, "acme", "us-daily", "2026-11-22", [SourceFile("a", 1_000, 99, "x")]
    ),
    "forget_planned": lambda ledger, lease: ledger.objects.forget(lease, a_delivery().id, ["b"]),
    "record_receipt": lambda ledger, lease: ledger.objects.record_receipt(
        lease, a_delivery().id, a_receipt("b")
    ).result(),
    "start_run": lambda ledger, lease: ledger.runs.start(lease, Run("r2", a_delivery().id, NOW, "h", "e")),
    "finish_run": lambda ledger, lease: ledger.runs.finish(
        lease, Run("r1", a_delivery().id, NOW, "h", "e", outcome="delivered")
    ),
    "open_upload": lambda ledger, lease: ledger.uploads.open(lease, an_upload("upload-2")),
    "record_part": lambda ledger, lease: ledger.uploads.record_part(lease, "upload-1", a_part(2)).result(),
    "close_upload": lambda ledger, lease: ledger.uploads.close(lease, "upload-1", UploadStatus.ABORTED),
    "start_operation": lambda ledger, lease: ledger.operations.start(lease, an_operation(2)),
    "finish_operation": lambda ledger, lease: ledger.operations.finish(lease, an_operation(outcome="done")),
    "record_removals": lambda ledger, lease: ledger.operations.record_removals(
        lease, "act-1", [a_removal("xmode/a")]
    ),
    "settle_removals": lambda ledger, lease: ledger.operations.settle_removals(
        lease, [an_operation()], ["xmode/a"], RemovalOutcome.DELETED, NOW
    ),
    "forget_removals": lambda ledger, lease: ledger.operations.forget_planned(lease, "act-1"),
    "record_alerts": lambda ledger, lease: ledger.alerts.record(lease),
    "record_notices": lambda ledger, lease: ledger.notices.record(lease, []),
    "note_daemon": lambda ledger, lease: ledger.daemons.note(lease, a_daemon()),
}


def everything(ledger: Ledger) -> object:
    return (
        ledger.deliveries.find(),
        list(ledger.objects.planned(a_delivery().id)),
        ledger.runs.newest(),
        ledger.uploads.find(),
        ledger.operations.newest(),
        list(ledger.operations.removals("act-1")),
        ledger.daemons.newest(),
    )


def test_held_leases_are_found_by_name_or_prefix(ledger: Ledger, clock: MemoryClock) -> None:
    kept = ledger.leases.claim("daemon/one", "one", 90)
    ledger.leases.claim("daemon/two", "two", 10)
    ledger.leases.release(ledger.leases.claim("daemon/three", "three", 90))
    alone = ledger.leases.claim("daemon", "one", 90)
    ledger.leases.claim("daemons", "one", 90)
    clock.advance(30)
    assert [(lease.name, lease.holder) for lease in ledger.leases.held("daemon/")] == [("daemon/one", "one")]
    assert ledger.leases.held("daemon/") == [kept]
    assert ledger.leases.held("daemon") == [alone]
    assert ledger.leases.held("worker/") == []


@pytest.mark.parametrize("returned", [True, False], ids=["returned", "taken over"])
def test_a_lost_lease_is_refused_and_nothing_is_written(
    ledger: Ledger, lease: Lease, delivery: Delivery, clock: MemoryClock, returned: bool
) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a"), an_object("b")])
    ledger.objects.record_receipt(lease, delivery.id, a_receipt("a")).result()
    ledger.runs.start(lease, Run("r1", delivery.id, NOW, "h", "e"))
    ledger.uploads.open(lease, an_upload())
    ledger.uploads.record_part(lease, "upload-1", a_part(1)).result()
    ledger.operations.start(lease, an_operation())
    if returned:
        ledger.leases.release(lease)
    else:
        clock.advance(91)
        ledger.leases.claim(lease.name, "host-b", 90)
    before = everything(ledger)
    for name, call in LOST_CALLS.items():
        with pytest.raises(LeaseLost, match="no longer ours"):
            call(ledger, lease)
        assert everything(ledger) == before, name


def test_a_record_under_a_lost_lease_does_not_stop_others(
    ledger: Ledger, lease: Lease, delivery: Delivery, clock: MemoryClock
) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object(f"{n:03}") for n in range(300)])
    clock.advance(91)
    fresh = ledger.leases.claim(lease.name, "host-b", 90)
    futures = [
        ledger.objects.record_receipt(fresh if n % 3 else lease, delivery.id, a_receipt(f"{n:03}"))
        for n in range(300)
    ]
    for n, future in enumerate(futures):
        assert isinstance(future.exception(timeout=120), LeaseLost if n % 3 == 0 else type(None))
    assert [o.name for o in ledger.objects.pending(delivery.id)] == [f"{n:03}" for n in range(0, 300, 3)]


# --- Deliveries --------------------------------------------------------------------------------------

COMPLETE = a_delivery(
    status=Status.BLOCKED,
    updated_at=NOW + timedelta(minutes=5),
    marker="2026-11-23T06:00:00Z",
    object_count=3,
    total_bytes=7 * 2**40,
    manifest_key="xmode/_manifests/us-daily/2026-11-22.r1.json",
    manifest_checksum="AAAA",
    delivered_at=NOW + timedelta(minutes=4),
    failure=Failure(
        "access_denied", "customer", "S3 said no", "ask them", retryable=True, request_id="4442587FB7D0A2F9"
    ),
    attempts=4,
    next_attempt_at=NOW + timedelta(hours=1),
)


def test_a_delivery_is_read_as_it_was_recorded(ledger: Ledger, lease: Lease, reopen: Reopen) -> None:
    ledger.deliveries.create(lease, COMPLETE)
    ledger.deliveries.create(lease, a_delivery(2))
    again = reopen()
    assert again.deliveries.find() == [COMPLETE, a_delivery(2)]
    (found,) = again.deliveries.find(statuses=[Status.BLOCKED])
    for moment in (found.created_at, found.updated_at, found.delivered_at, found.next_attempt_at):
        assert moment is not None
        assert moment.tzinfo is UTC


def test_times_are_read_in_utc_and_refused_without_a_zone(ledger: Ledger, lease: Lease) -> None:
    eastern = timezone(timedelta(hours=-5))
    ledger.deliveries.create(lease, a_delivery(updated_at=NOW.astimezone(eastern)))
    assert ledger.deliveries.find()[0].updated_at.isoformat() == "2026-11-23T06:30:00.123456+00:00"
    with pytest.raises(ValueError, match="no time zone"):
        ledger.deliveries.create(lease, a_delivery(2, updated_at=NOW.replace(tzinfo=None)))


def test_a_revision_exists_only_once(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.deliveries.create(lease, replace(delivery, attempts=3))  # the same ID: no change
    with pytest.raises(LedgerError, match=r"acme/us-daily/2026-11-22/r1 .* id-2026-11-22-1"):
        ledger.deliveries.create(lease, replace(delivery, id="another"))
    assert ledger.deliveries.find() == [delivery]


def test_an_update_overwrites_all_but_the_identity(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.deliveries.update(lease, COMPLETE)
    assert ledger.deliveries.latest("acme", "us-daily", "2026-11-22") == COMPLETE
    ledger.deliveries.update(lease, delivery)
    assert ledger.deliveries.latest("acme", "us-daily", "2026-11-22") == delivery
    with pytest.raises(LedgerError, match="has no delivery unheard-of"):
        ledger.deliveries.update(lease, replace(delivery, id="unheard-of"))


def test_the_latest_has_the_highest_revision(ledger: Ledger, lease: Lease) -> None:
    assert ledger.deliveries.latest("acme", "us-daily", "2026-11-22") is None
    for revision in (2, 10, 9):
        ledger.deliveries.create(lease, a_delivery(revision))
    ledger.deliveries.create(lease, a_delivery(11, period="2026-11-21"))
    assert ledger.deliveries.latest("acme", "us-daily", "2026-11-22") == a_delivery(10)
    assert ledger.deliveries.latest("globex", "us-daily", "2026-11-22") is None


def test_deliveries_are_found_newest_first(ledger: Ledger, lease: Lease) -> None:
    def minutes(count: int) -> datetime:
        return NOW + timedelta(minutes=count)

    a1 = a_delivery(1, status=Status.DELIVERED, updated_at=minutes(5))
    a2 = a_delivery(2, status=Status.FAILED, updated_at=minutes(1))
    other_day = a_delivery(1, period="2026-11-21", status=Status.RUNNING, updated_at=minutes(3))
    other_feed = replace(a1, id="f", feed="eu-daily", status=Status.BLOCKED, updated_at=minutes(2))
    other = replace(a1, id="c", customer="globex", status=Status.BLOCKED, updated_at=minutes(4))
    for delivery in (a1, a2, other_day, other_feed, other):
        ledger.deliveries.create(lease, delivery)
    assert ledger.deliveries.find() == [a1, other, other_day, other_feed, a2]
    assert ledger.deliveries.find(limit=2) == [a1, other]
    assert ledger.deliveries.find("acme") == [a1, other_day, other_feed, a2]
    assert ledger.deliveries.find("acme", "us-daily") == [a1, other_day, a2]
    assert ledger.deliveries.find("acme", "us-daily", "2026-11-22") == [a1, a2]
    assert ledger.deliveries.find(statuses=[Status.BLOCKED, Status.FAILED]) == [other, other_feed, a2]
    assert ledger.deliveries.find("acme", statuses=iter([Status.BLOCKED]), limit=9) == [other_feed]
    assert ledger.deliveries.find(statuses=[]) == []
    assert [ledger.deliveries.get(known.id) for known in (a2, other)] == [a2, other]
    assert ledger.deliveries.get("unheard-of") is None


# --- The plan ----------------------------------------------------------------------------------------

NAMES = [
    "A",
    "B/a",
    "B/b",
    "Z",
    "a",
    "a b",
    "é",
    "ﬀ",
    "\uffff",
    "𝄞",
    "😀",
]  # by code point, not by UTF-16 unit


def test_a_plan_is_in_the_order_of_code_points(
    ledger: Ledger, lease: Lease, delivery: Delivery, reopen: Reopen
) -> None:
    planned = [an_object(name, size=2**42, modified_ns=1_795_415_400_123_456_789) for name in NAMES]
    assert sorted(NAMES) == NAMES
    assert ledger.objects.plan(lease, delivery.id, reversed(planned)) == len(planned)
    assert list(reopen().objects.planned(delivery.id)) == [(item, None) for item in planned]
    assert list(ledger.objects.pending(delivery.id)) == planned


def test_planning_again_replaces_objects_without_a_receipt(
    ledger: Ledger, lease: Lease, delivery: Delivery
) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a"), an_object("b"), an_object("c")])
    ledger.objects.record_receipt(lease, delivery.id, a_receipt("a")).result()
    changed = [an_object(name, size=7, identity="new", key=f"elsewhere/{name}") for name in "abd"]
    assert ledger.objects.plan(lease, delivery.id, changed) == 3
    assert list(ledger.objects.planned(delivery.id)) == [
        (an_object("a"), a_receipt("a")),
        (changed[1], None),
        (an_object("c"), None),
        (changed[2], None),
    ]
    assert list(ledger.objects.pending(delivery.id)) == [changed[1], an_object("c"), changed[2]]
    assert ledger.objects.plan(lease, delivery.id, []) == 0
    ledger.objects.plan(lease, delivery.id, [an_object("e", size=1), an_object("e", size=2)])
    assert [item.size for item in ledger.objects.pending(delivery.id)][-1] == 2


def test_a_page_of_a_plan_is_filtered_by_name(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    names = ["a/1.csv", "a/2.csv", "b%_\\1.csv", "b/1.CSV.gz", "ä"]
    ledger.objects.plan(lease, delivery.id, [an_object(name) for name in names])
    ledger.objects.record_receipt(lease, delivery.id, a_receipt("a/2.csv")).result(timeout=120)

    def found(**which: object) -> list[str]:
        return [item.name for item, _ in ledger.objects.page(delivery.id, **which)]  # type: ignore[arg-type]

    assert found() == names
    assert found(limit=2) == names[:2]
    assert found(after="a/2.csv", limit=2) == names[2:4]
    assert found(beginning="a/") == names[:2]
    assert found(beginning="b", after=names[2]) == [names[3]]
    assert found(beginning="ä") == ["ä"]
    assert found(containing="1.csv") == [names[0], names[2], names[3]]
    assert found(containing="%_\\") == [names[2]]
    assert found(containing="%") == [names[2]]
    assert found(after="b", containing=".csv", limit=1) == [names[2]]
    assert found(containing="nothing") == []
    assert ledger.objects.page("unheard-of") == []
    assert [receipt for _, receipt in ledger.objects.page(delivery.id, limit=2)] == [
        None,
        a_receipt("a/2.csv"),
    ]


def test_a_plan_that_fails_half_way_leaves_nothing(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a")])

    def broken() -> Iterator[PlannedObject]:
        yield from (an_object(f"b{n:05}") for n in range(12_000))
        raise OSError("the source went away")

    with pytest.raises(OSError, match="went away"):
        ledger.objects.plan(lease, delivery.id, broken())
    with pytest.raises(LedgerError, match="cannot hold a value"):
        ledger.objects.plan(lease, delivery.id, [an_object("b"), an_object("\udcff")])
    with pytest.raises(LedgerError, match="has no delivery"):
        ledger.objects.plan(lease, "unheard-of", [an_object("b")])
    assert list(ledger.objects.pending(delivery.id)) == [an_object("a")]
    assert ledger.objects.plan(lease, delivery.id, [an_object("c")]) == 1
    assert [item.name for item in ledger.objects.pending(delivery.id)] == ["a", "c"]


def test_a_plan_may_be_made_from_the_ledger_itself_while_others_write(
    ledger: Ledger, lease: Lease, delivery: Delivery
) -> None:
    ledger.objects.plan(lease, delivery.id, (an_object(f"{n:05}") for n in range(6_000)))
    for n in range(3):
        ledger.objects.record_receipt(lease, delivery.id, a_receipt(f"{n:05}")).result()

    def grown() -> Iterator[PlannedObject]:
        for item, receipt in ledger.objects.planned(delivery.id):
            if receipt is None:
                yield item._replace(size=2)
        ledger.objects.restamp(
            lease, "acme", "us-daily", "2026-11-22", [SourceFile("00001", 1_000, 99, "restored")]
        )
        ledger.deliveries.update(lease, replace(delivery, attempts=1))

    assert ledger.objects.plan(lease, delivery.id, grown()) == 5_997
    sizes = {item.name: item.size for item, _ in ledger.objects.planned(delivery.id)}
    assert sum(sizes.values()) == 3 * 1_000 + 5_997 * 2


def test_planned_objects_without_a_receipt_are_forgotten(
    ledger: Ledger, lease: Lease, delivery: Delivery
) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object(f"{n:04}") for n in range(1_300)])
    ledger.objects.record_receipt(lease, delivery.id, a_receipt("0000")).result()
    gone = (f"{n:04}" for n in range(1_298))
    assert ledger.objects.forget(lease, delivery.id, gone) == 1_297
    assert [item.name for item, _ in ledger.objects.planned(delivery.id)] == ["0000", "1298", "1299"]
    assert ledger.objects.forget(lease, delivery.id, ["never planned"]) == 0


def test_carried_objects_keep_their_receipt(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a"), an_object("b")])
    proofs = {
        name: a_receipt(name, version_id=f"v-{name}", sha256="00" * 32, delivered_at=NOW - timedelta(days=1))
        for name in "ab"
    }
    for receipt in proofs.values():
        ledger.objects.record_receipt(lease, delivery.id, receipt).result()
    second, third = a_delivery(2), a_delivery(3)
    for later in (second, third):
        ledger.deliveries.create(lease, later)
    carried = an_object("a", carried=True, modified_ns=99)
    corrected = an_object("b", key="xmode/b.r2", size=5)
    assert ledger.objects.plan(lease, second.id, [carried, corrected]) == 2
    assert list(ledger.objects.planned(second.id)) == [(carried, proofs["a"]), (corrected, None)]
    assert list(ledger.objects.pending(second.id)) == [corrected]
    ledger.objects.plan(lease, third.id, [carried, an_object("b", carried=True)])
    assert list(ledger.objects.planned(third.id)) == [
        (carried, proofs["a"]),
        (an_object("b", carried=True), proofs["b"]),
    ]


def test_nothing_can_be_carried_that_was_never_delivered(
    ledger: Ledger, lease: Lease, delivery: Delivery
) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a"), an_object("b")])
    ledger.objects.record_receipt(lease, delivery.id, a_receipt("a")).result()
    ledger.deliveries.create(lease, a_delivery(2))
    for wrong in (an_object("b", carried=True), an_object("a", key="other", carried=True)):
        with pytest.raises(LedgerError, match=f"no receipt for them, the first of them {wrong.name}"):
            ledger.objects.plan(lease, a_delivery(2).id, [an_object("z"), wrong])
    assert list(ledger.objects.planned(a_delivery(2).id)) == []


def test_new_times_are_recorded_on_the_last_delivery_of_a_name(
    ledger: Ledger, lease: Lease, delivery: Delivery
) -> None:
    ledger.deliveries.create(lease, a_delivery(2))
    for revision in (1, 2):
        planned = [an_object(name, key=f"r{revision}/{name}") for name in "abc"]
        ledger.objects.plan(lease, a_delivery(revision).id, planned)
    for revision, name in ((1, "a"), (1, "b"), (2, "b")):
        receipt = a_receipt(name, key=f"r{revision}/{name}")
        ledger.objects.record_receipt(lease, a_delivery(revision).id, receipt).result()
    files = (SourceFile(name, 1_000, 99, "restored") for name in ["a", "b", "c", "never delivered"])
    ledger.objects.restamp(lease, "acme", "us-daily", "2026-11-22", files)
    ledger.objects.restamp(lease, "acme", "us-daily", "1999-01-01", [SourceFile("a", 1, 1, "")])
    stamps = {
        (revision, item.name): (item.modified_ns, item.identity)
        for revision in (1, 2)
        for item, _ in ledger.objects.planned(a_delivery(revision).id)
    }
    assert {at for at, stamp in stamps.items() if stamp == (99, "restored")} == {(1, "a"), (2, "b")}
    answered = ledger.objects.delivered("acme", "us-daily", "2026-11-22")
    assert [(item.name, item.modified_ns) for item, _ in answered] == [("a", 99), ("b", 99)]


# --- Receipts ----------------------------------------------------------------------------------------


def test_an_acknowledged_receipt_is_visible_to_other_processes(
    ledger: Ledger, lease: Lease, delivery: Delivery, reopen: Reopen
) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a", carried=False)])
    receipt = a_receipt("a", version_id="v1", sha256="ab" * 32, checksum=Checksum("crc32", "AAAAAQ=="))
    assert ledger.objects.record_receipt(lease, delivery.id, receipt).result(timeout=120) is None
    ((item, found),) = reopen().objects.planned(delivery.id)
    assert (item, found) == (an_object("a"), receipt)
    assert found is not None
    assert found.delivered_at.tzinfo is UTC
    assert list(ledger.objects.pending(delivery.id)) == []


def test_a_second_receipt_replaces_the_first(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a")])
    futures = [
        ledger.objects.record_receipt(lease, delivery.id, a_receipt("a", etag=etag))
        for etag in ("1", "2", "3")
    ]
    for future in futures:
        future.result(timeout=120)
    assert [r and r.etag for _, r in ledger.objects.planned(delivery.id)] == ["3"]


def test_a_record_that_cannot_be_stored_fails_alone(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object(f"{n:03}") for n in range(200)])
    good = [ledger.objects.record_receipt(lease, delivery.id, a_receipt(f"{n:03}")) for n in range(100)]
    bad = [
        ledger.objects.record_receipt(lease, delivery.id, a_receipt("never planned")),
        ledger.objects.record_receipt(lease, "unheard-of", a_receipt("000")),
        ledger.objects.record_receipt(lease, delivery.id, a_receipt("\udcff")),
        ledger.uploads.record_part(lease, "unheard-of", a_part(1)),
    ]
    good += [ledger.objects.record_receipt(lease, delivery.id, a_receipt(f"{n:03}")) for n in range(100, 200)]
    for future in good:
        assert future.exception(timeout=120) is None
    for future in bad:
        assert isinstance(future.exception(timeout=120), LedgerError)
    assert list(ledger.objects.pending(delivery.id)) == []


def test_closing_writes_what_is_queued(
    ledger: Ledger, lease: Lease, delivery: Delivery, reopen: Reopen
) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object(f"{n:04}") for n in range(3_000)])
    futures = [ledger.objects.record_receipt(lease, delivery.id, a_receipt(f"{n:04}")) for n in range(3_000)]
    ledger.close()
    ledger.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert list(reopen().objects.pending(delivery.id)) == []
    for call in (
        lambda: ledger.objects.record_receipt(lease, delivery.id, a_receipt("0000")),
        lambda: ledger.leases.release(lease),
        lambda: list(ledger.objects.planned(delivery.id)),
        lambda: ledger.deliveries.latest("acme", "us-daily", "2026-11-22"),
    ):
        with pytest.raises(LedgerError, match="closed"):
            call()


def test_a_callback_of_a_receipt_may_use_the_ledger(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.objects.plan(lease, delivery.id, [an_object("a")])
    finished = threading.Event()

    def next_step(_: object) -> None:
        ledger.deliveries.update(lease, replace(delivery, status=Status.DELIVERED))
        finished.set()

    ledger.objects.record_receipt(lease, delivery.id, a_receipt("a")).add_done_callback(next_step)
    assert finished.wait(120)
    assert ledger.deliveries.find()[0].status is Status.DELIVERED


def test_many_threads_at_once_lose_nothing(ledger: Ledger, clock: MemoryClock) -> None:
    def deliver(worker: int) -> None:
        lease = ledger.leases.claim(f"work-{worker}", f"host-{worker}", 90)
        delivery = a_delivery(period=f"day-{worker}")
        ledger.deliveries.create(lease, delivery)
        ledger.objects.plan(lease, delivery.id, [an_object(f"{n:03}") for n in range(40)])
        futures = [
            ledger.objects.record_receipt(lease, delivery.id, a_receipt(item.name))
            for item in ledger.objects.pending(delivery.id)
        ]
        for future in futures:
            future.result(timeout=120)
        ledger.leases.renew(lease, 90)
        ledger.deliveries.update(lease, replace(delivery, status=Status.DELIVERED))
        ledger.leases.release(lease)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(deliver, range(24)))
    assert len(ledger.deliveries.find(statuses=[Status.DELIVERED])) == 24
    for worker in range(24):
        assert len(list(ledger.objects.delivered("acme", "us-daily", f"day-{worker}"))) == 40


# --- What a whole period has received ----------------------------------------------------------------


def test_a_period_has_the_highest_delivered_revision_of_each_name(ledger: Ledger, lease: Lease) -> None:
    """More revisions and names than fit on one page, so that a page ends between the revisions of a name."""
    expected: dict[str, tuple[PlannedObject, Receipt]] = {}
    for revision in range(1, 21):
        delivery = a_delivery(revision)
        ledger.deliveries.create(lease, delivery)
        names = [f"{n:03}" for n in range(0, 300, 1 + revision % 7)]
        items = [an_object(name, key=f"r{revision}/{name}", size=revision) for name in names]
        ledger.objects.plan(lease, delivery.id, items)
        for item in items[: 40 * (revision % 5)]:
            receipt = a_receipt(item.name, key=item.key, size=item.size, etag=f"e{revision}")
            expected[item.name] = (item, receipt)
            future = ledger.objects.record_receipt(lease, delivery.id, receipt)
        future.result(timeout=120)
    elsewhere = a_delivery(period="2026-11-21")
    ledger.deliveries.create(lease, elsewhere)
    ledger.objects.plan(lease, elsewhere.id, [an_object("of another day")])
    ledger.objects.record_receipt(lease, elsewhere.id, a_receipt("of another day")).result()
    answered = list(ledger.objects.delivered("acme", "us-daily", "2026-11-22"))
    assert answered == [expected[name] for name in sorted(expected)]
    assert list(ledger.objects.delivered("globex", "us-daily", "2026-11-22")) == []


def test_each_key_of_a_customer_is_listed_once_with_its_revision(
    ledger: Ledger, lease: Lease, clock: MemoryClock
) -> None:
    first = a_delivery(
        status=Status.DELIVERED,
        manifest_key="xmode/_m/1",
        manifest_checksum="crc32:AAAAAA==",
        delivered_at=NOW,
    )
    second = a_delivery(2, status=Status.RUNNING, manifest_key="xmode/_m/2", delivered_at=NOW)
    other = replace(first, id="g", customer="globex", manifest_key="xmode/_m/g")
    for delivery in (first, second, other):
        ledger.deliveries.create(lease, delivery)
    ledger.objects.plan(lease, first.id, [an_object(name) for name in ("Z", "a", "é", "never sent")])
    for name in ("Z", "a", "é"):
        ledger.objects.record_receipt(lease, first.id, a_receipt(name)).result(timeout=120)
    ledger.objects.plan(lease, second.id, [an_object("a", carried=True), an_object("é", key="xmode/é.r2")])
    ledger.objects.record_receipt(lease, second.id, a_receipt("é", key="xmode/é.r2")).result(timeout=120)
    found = [
        (item.key, item.revision, item.size, item.delivered_at) for item in ledger.keys.delivered("acme")
    ]
    assert found == [
        ("xmode/Z", 1, 1_000, NOW),
        ("xmode/_m/1", 1, None, NOW),
        ("xmode/a", 1, 1_000, NOW),
        ("xmode/é", 1, 1_000, NOW),
        ("xmode/é.r2", 2, 1_000, NOW),
    ]
    assert [item.key for item in ledger.keys.delivered("globex")] == ["xmode/_m/g"]
    by_key = {item.key: item for item in ledger.keys.delivered("acme", "us-daily", "2026-11-22")}
    assert (by_key["xmode/a"].name, by_key["xmode/a"].checksum) == (
        "a",
        Checksum("crc64nvme", "AAAAAAAAAAE="),
    )
    assert (by_key["xmode/_m/1"].name, by_key["xmode/_m/1"].checksum) == ("", Checksum("crc32", "AAAAAA=="))
    assert list(by_key) == [key for key, *_ in found]
    assert not list(ledger.keys.delivered("acme", "us-daily", "2026-11-21"))
    assert not list(ledger.keys.delivered("acme", "eu-daily"))
    half_read = ledger.keys.delivered("acme")
    next(half_read)
    ledger.deliveries.update(lease, replace(second, attempts=1))
    half_read.close()  # type: ignore[attr-defined]


@settings(
    deadline=None, max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.dictionaries(st.text("aé\U0001d11e/", min_size=1, max_size=3), st.booleans(), max_size=6),
        max_size=5,
    ),
    st.integers(0, 10**9),
)
def test_any_history_yields_the_last_revision_of_each_name(
    ledger: Ledger, lease: Lease, revisions: list[dict[str, bool]], day: int
) -> None:
    period = f"day-{day}-{len(ledger.deliveries.find())}"
    expected: dict[str, tuple[PlannedObject, Receipt]] = {}
    for revision, names in enumerate(revisions, start=1):
        delivery = a_delivery(revision, period)
        ledger.deliveries.create(lease, delivery)
        items = {name: an_object(name, identity=str(revision)) for name in names}
        ledger.objects.plan(lease, delivery.id, items.values())
        futures = []
        for name, sent in names.items():
            if sent:
                receipt = a_receipt(name, etag=str(revision))
                futures.append(ledger.objects.record_receipt(lease, delivery.id, receipt))
                expected[name] = (items[name], receipt)
        for future in futures:
            future.result(timeout=120)
        waiting = sorted(name for name, sent in names.items() if not sent)
        assert [item.name for item in ledger.objects.pending(delivery.id)] == waiting
    answered = list(ledger.objects.delivered("acme", "us-daily", period))
    assert answered == [expected[name] for name in sorted(expected)]


def test_a_slow_reader_does_not_block_writers(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.objects.plan(lease, delivery.id, (an_object(f"{n:05}") for n in range(5_000)))
    readers = [ledger.objects.pending(delivery.id) for _ in range(40)]
    for reader in readers:
        assert next(reader).name == "00000"
    for n in range(5_000):
        future = ledger.objects.record_receipt(lease, delivery.id, a_receipt(f"{n:05}"))
    future.result(timeout=120)
    rest = [item.name for item in readers[0]]
    assert rest == sorted(rest)
    assert len(rest) < 5_000
    for reader in readers:
        reader.close()  # type: ignore[attr-defined]


# --- Runs --------------------------------------------------------------------------------------------


def test_runs_are_found_newest_first(
    ledger: Ledger, lease: Lease, delivery: Delivery, reopen: Reopen
) -> None:
    other = replace(delivery, id="g", customer="globex")
    ledger.deliveries.create(lease, other)
    runs = [
        Run(f"run-{n}", other.id if n == 2 else delivery.id, NOW + timedelta(minutes=n), "host-a", "portable")
        for n in range(4)
    ]
    for run in (runs[1], runs[3], runs[0], runs[2]):
        ledger.runs.start(lease, run)
    finished = replace(
        runs[1],
        finished_at=NOW + timedelta(hours=1),
        outcome="failed",
        uploaded=3,
        skipped=4,
        failed=1,
        bytes=2**45,
        seconds=12.5,
        failure=Failure("unavailable", "aws", "S3 did not answer"),
    )
    ledger.runs.finish(lease, finished)
    again = reopen()
    assert again.runs.newest() == [runs[3], runs[2], finished, runs[0]]
    assert again.runs.newest(limit=2) == [runs[3], runs[2]]
    assert again.runs.newest("acme", limit=2) == [runs[3], finished]
    assert again.runs.newest("globex") == [runs[2]]
    assert again.runs.newest(delivery_id=delivery.id) == [runs[3], finished, runs[0]]
    assert again.runs.newest("globex", delivery_id=delivery.id) == []
    with pytest.raises(LedgerError, match="has no run"):
        ledger.runs.finish(lease, replace(finished, id="unheard-of"))
    with pytest.raises(LedgerError, match="has no delivery"):
        ledger.runs.start(lease, replace(runs[0], id="new", delivery_id="unheard-of"))


# --- Multipart uploads -------------------------------------------------------------------------------


def test_an_upload_is_recorded_with_its_parts(
    ledger: Ledger, lease: Lease, delivery: Delivery, reopen: Reopen
) -> None:
    upload = an_upload(abort_at=NOW + timedelta(days=7))
    ledger.uploads.open(lease, upload)
    ledger.uploads.open(lease, upload)
    assert ledger.uploads.find() == [upload]
    parts = [a_part(number) for number in (3, 1, 10, 2)]
    for future in [ledger.uploads.record_part(lease, "upload-1", part) for part in parts]:
        future.result(timeout=120)
    ledger.uploads.record_part(lease, "upload-1", replace(parts[0], etag='"sent again"')).result(timeout=120)
    (found,) = reopen().uploads.find(delivery_id=delivery.id)
    assert found == replace(
        upload,
        parts=(parts[1], parts[3], replace(parts[0], etag='"sent again"'), parts[2]),
        sent_bytes=4 * 2**26,
    )


def test_uploads_are_found_by_customer_delivery_and_status_oldest_first(
    ledger: Ledger, lease: Lease, delivery: Delivery
) -> None:
    second = a_delivery(2)
    ledger.deliveries.create(lease, second)
    early = an_upload("early", opened_at=NOW - timedelta(hours=1))
    late = an_upload("late", delivery_id=second.id)
    other = an_upload("other", customer="globex", opened_at=NOW + timedelta(hours=1))
    for upload in (late, other, early):
        ledger.uploads.open(lease, upload)
    assert ledger.uploads.find() == [early, late, other]
    assert ledger.uploads.find("acme") == [early, late]
    assert ledger.uploads.find(delivery_id=delivery.id) == [early, other]
    ledger.uploads.close(lease, "late", UploadStatus.ORPHANED)
    assert ledger.uploads.find(statuses=[UploadStatus.OPEN]) == [early, other]
    assert ledger.uploads.find(statuses=iter([UploadStatus.ORPHANED, UploadStatus.ABORTED])) == [
        replace(late, status=UploadStatus.ORPHANED)
    ]


@pytest.mark.parametrize("status", [UploadStatus.COMPLETED, UploadStatus.ABORTED, UploadStatus.ORPHANED])
def test_a_closed_upload_keeps_the_sum_of_its_parts(
    ledger: Ledger, lease: Lease, delivery: Delivery, status: UploadStatus
) -> None:
    ledger.uploads.open(lease, an_upload())
    for number in (1, 2, 3):
        ledger.uploads.record_part(lease, "upload-1", a_part(number)).result(timeout=120)
    ledger.uploads.close(lease, "upload-1", status)
    (found,) = ledger.uploads.find()
    assert (found.status, found.sent_bytes) == (status, 3 * 2**26)
    kept = (1, 2, 3) if status is UploadStatus.ORPHANED else ()
    assert tuple(part.number for part in found.parts) == kept
    ledger.uploads.close(lease, "upload-1", status)
    assert ledger.uploads.find() == [found]


def test_an_upload_belongs_to_one_object(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    ledger.uploads.open(lease, an_upload())
    with pytest.raises(LedgerError, match=r"for another object \(a.parquet\)"):
        ledger.uploads.open(lease, an_upload(name="b.parquet"))
    with pytest.raises(LedgerError, match="has no delivery"):
        ledger.uploads.open(lease, an_upload("upload-2", delivery_id="unheard-of"))
    with pytest.raises(LedgerError, match="has no upload"):
        ledger.uploads.close(lease, "upload-2", UploadStatus.ABORTED)
    assert ledger.uploads.find() == [an_upload()]


# --- What destinations allow -------------------------------------------------------------------------


def test_capabilities_stay_until_they_are_learnt_anew(ledger: Ledger, reopen: Reopen) -> None:
    assert ledger.checks.capabilities("acme") == Capabilities()
    ledger.checks.learn("acme", Capabilities(multipart=False, region="us-east-1", learned_at=NOW))
    ledger.checks.learn("acme", Capabilities(multipart=True, abort=False, kms=False, versioned=True))
    ledger.checks.learn("globex", Capabilities(region="eu-west-1"))
    assert reopen().checks.capabilities("acme") == Capabilities(
        multipart=True, abort=False, region="us-east-1", versioned=True, kms=False, learned_at=NOW
    )
    assert reopen().checks.capabilities("globex") == Capabilities(region="eu-west-1")


# --- Checks of access --------------------------------------------------------------------------------


def a_check(hours: int = 0, **changes: object) -> AccessReport:
    report = AccessReport(
        "acme",
        NOW + timedelta(hours=hours),
        (
            Finding("list", Result.OK, Cause.OK, None, Severity.INFO, "may list", None, "R-1"),
            Finding(
                "put",
                Result.DENIED,
                Cause.PUT_DENIED,
                Responsible.CUSTOMER,
                Severity.ERROR,
                "may not put",
                None,
                "R-2",
                "🚫 403",
            ),
            Finding("delete", Result.SKIPPED, None, None, Severity.INFO, "nothing to delete"),
        ),
        (
            Leftover(LeftoverKind.UPLOAD, "xmode/_xmode-check/x", 5**9, "upload-1"),
            Leftover(LeftoverKind.OBJECT, "xmode/_xmode-check/y", 56),
        ),
        0.25,
    )
    return replace(report, **changes)  # type: ignore[arg-type]


def test_the_history_of_checks_is_newest_first(ledger: Ledger, reopen: Reopen) -> None:
    assert ledger.checks.last("acme") is None
    for hours in (1, 3, 2):
        ledger.checks.record(a_check(hours))
    ledger.checks.record(a_check(9, customer="globex", findings=(), left=(), interrupted=True))
    assert reopen().checks.last("acme") == a_check(3)
    assert ledger.checks.newest("acme") == [a_check(3), a_check(2), a_check(1)]
    assert ledger.checks.newest("acme", limit=2) == [a_check(3), a_check(2)]
    assert [check.customer for check in ledger.checks.newest()] == ["globex", "acme", "acme", "acme"]
    assert ledger.checks.newest("globex")[0].outcome == "interrupted"
    assert ledger.checks.newest("nobody") == []


def test_of_two_checks_at_one_time_the_later_counts(ledger: Ledger) -> None:
    ledger.checks.record(a_check())
    ledger.checks.record(a_check(left=()))
    assert ledger.checks.last("acme") == a_check(left=())


def test_a_check_is_stored_without_fixes_and_external_id(ledger: Ledger, tmp_path: Path) -> None:
    facts = SetupValues("SecretlyAcme", "arn:aws:iam::111122223333:role/XMode", "acme-data", "xmode/")
    found = finding(Cause.EXTERNAL_ID_NOT_REQUIRED, "external_id_none", facts)
    assert found.fix is not None
    ledger.checks.record(a_check(findings=(found,)))
    kept = ledger.checks.last("acme")
    assert kept is not None
    assert kept.findings == (replace(found, fix=None),)
    assert b"SecretlyAcme" not in b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))


def test_the_last_challenge_of_a_customer_is_kept(ledger: Ledger, reopen: Reopen) -> None:
    lease = ledger.leases.claim("ownership/acme", "here", 60)
    assert ledger.challenges.last("acme") is None
    first = Challenge("acme", "acme-data", "xmode/_xmode-check/ownership/1.txt", "5f" * 32, NOW, "alice")
    ledger.challenges.record(lease, first)
    second = replace(first, key="2.txt", tries=2, confirmed_at=NOW, confirmed_by="bob")
    ledger.challenges.record(lease, replace(second, tries=1))
    ledger.challenges.record(lease, second)
    assert reopen().challenges.last("acme") == second
    assert reopen().challenges.last("globex") is None
    ledger.leases.release(lease)
    with pytest.raises(LeaseLost):
        ledger.challenges.record(lease, first)


# --- Acts and removals -------------------------------------------------------------------------------


def an_operation(number: int = 1, **changes: object) -> OperationRecord:
    operation = OperationRecord(
        id=f"act-{number}",
        kind=OperationKind.CLEANUP,
        customer="acme",
        holder="host-a",
        person="alice",
        reason="retention",
        started_at=NOW + timedelta(seconds=number),
    )
    return replace(operation, **changes)  # type: ignore[arg-type]


def a_removal(key: str, **changes: object) -> Removal:
    removal = Removal(
        key,
        "us-daily",
        "2026-11-22",
        1,
        manifest=False,
        size=1_000,
        etag='"etag"',
        delivered_at=NOW,
        reason="31 days old",
        outcome=RemovalOutcome.PLANNED,
        at=NOW,
    )
    return removal._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def delivered(ledger: Ledger, lease: Lease) -> Delivery:
    """A delivery with three objects and its manifest."""
    delivery = a_delivery(status=Status.DELIVERED, manifest_key="xmode/_m/1", delivered_at=NOW)
    ledger.deliveries.create(lease, delivery)
    ledger.objects.plan(lease, delivery.id, [an_object(name) for name in "abc"])
    for name in "abc":
        ledger.objects.record_receipt(lease, delivery.id, a_receipt(name)).result(timeout=120)
    return delivery


def test_an_operation_is_recorded_at_its_start_and_its_end(
    ledger: Ledger, lease: Lease, reopen: Reopen
) -> None:
    ledger.operations.start(lease, an_operation())
    ledger.operations.start(lease, an_operation(2, kind=OperationKind.REPAIR, person="bob"))
    ledger.operations.start(lease, an_operation(3, customer="globex"))
    failure = Failure("access_denied", Responsible.CUSTOMER, "S3 refuses", "ask", False, "request-1")
    done = an_operation(finished_at=NOW, outcome="failed", objects=3, bytes=5, failed=1, failure=failure)
    ledger.operations.finish(lease, done)
    other = reopen()
    assert other.operations.newest("acme") == [an_operation(2, kind=OperationKind.REPAIR, person="bob"), done]
    assert other.operations.newest("acme", OperationKind.CLEANUP) == [done]
    assert [act.id for act in other.operations.newest(limit=2)] == ["act-3", "act-2"]
    assert [act.id for act in other.operations.newest(limit=None)] == ["act-3", "act-2", "act-1"]
    with pytest.raises(LedgerError, match="act-9"):
        ledger.operations.finish(lease, an_operation(9))


def test_removals_are_in_the_order_of_periods_and_keys(
    ledger: Ledger, lease: Lease, delivered: Delivery
) -> None:
    ledger.deliveries.create(lease, a_delivery(period="2026-11-21"))
    ledger.operations.start(lease, an_operation())
    ledger.operations.start(lease, an_operation(2))
    many = [a_removal(f"k/{number:05}") for number in range(2_500)]
    other_day = a_removal("a", period="2026-11-21", manifest=True, etag="")
    ledger.operations.record_removals(lease, "act-1", [*reversed(many), other_day])
    ledger.operations.record_removals(lease, "act-2", [a_removal("k/00000", reason="another's")])
    assert list(ledger.operations.removals("act-1")) == [*many, other_day]
    gone = many[1]._replace(outcome=RemovalOutcome.DELETED, at=NOW + timedelta(seconds=1))
    ledger.operations.record_removals(lease, "act-1", [gone])
    assert list(ledger.operations.removals("act-1", outcomes=[RemovalOutcome.DELETED])) == [gone]
    assert list(ledger.operations.removals("act-1", "us-daily", "2026-11-21")) == [other_day]
    assert [item.reason for item in ledger.operations.removals("act-2")] == ["another's"]
    with pytest.raises(LedgerError, match="act-9"):
        ledger.operations.record_removals(lease, "act-9", [gone])
    with pytest.raises(LedgerError, match="2027"):
        ledger.operations.record_removals(lease, "act-1", [gone._replace(period="2027-01-01")])


@pytest.mark.parametrize("outcome", RemovalOutcome)
def test_a_removed_key_is_not_delivered_but_its_receipt_stays(
    ledger: Ledger, lease: Lease, delivered: Delivery, outcome: RemovalOutcome
) -> None:
    ledger.operations.start(lease, an_operation())
    some = [a_removal("xmode/b", outcome=outcome), a_removal("xmode/_m/1", manifest=True, outcome=outcome)]
    ledger.operations.record_removals(lease, "act-1", some)
    removed = outcome in REMOVED or outcome is RemovalOutcome.CHANGED
    left = {item.key for item in ledger.keys.delivered("acme")}
    assert ("xmode/b" in left, "xmode/_m/1" in left) == (not removed, outcome not in REMOVED)
    assert left >= {"xmode/a", "xmode/c"}
    assert ledger.keys.holdings("acme") == [
        Holding("us-daily", "2026-11-22", 1, 2 if removed else 3, 2_000 if removed else 3_000)
    ]
    names = [
        (item.name, receipt.removed)
        for item, receipt in ledger.objects.delivered("acme", "us-daily", "2026-11-22")
    ]
    assert names == [("a", False), ("b", removed), ("c", False)]
    page = [(item.name, receipt and receipt.removed) for item, receipt in ledger.objects.page(delivered.id)]
    assert page == names


def test_a_key_that_is_delivered_again_exists_whatever_the_clock_says(
    ledger: Ledger, lease: Lease, delivered: Delivery
) -> None:
    ledger.operations.start(lease, an_operation())
    ledger.operations.record_removals(lease, "act-1", [a_removal("xmode/b", outcome=RemovalOutcome.DELETED)])
    second = a_delivery(2)
    ledger.deliveries.create(lease, second)
    ledger.objects.plan(lease, second.id, [an_object("b"), an_object("a", carried=True)])
    earlier = NOW - timedelta(days=1)
    ledger.objects.record_receipt(lease, second.id, a_receipt("b", delivered_at=earlier)).result(timeout=120)
    found = {item.key: item for item in ledger.keys.delivered("acme")}
    assert (found["xmode/b"].named_by, found["xmode/b"].delivered_at) == ((2,), earlier)
    assert (found["xmode/a"].revision, found["xmode/a"].named_by) == (1, (1, 2))
    assert ledger.keys.holdings("acme") == [
        Holding("us-daily", "2026-11-22", 1, 1, 1_000),
        Holding("us-daily", "2026-11-22", 2, 2, 2_000),
    ]
    assert not any(
        receipt.removed for _, receipt in ledger.objects.delivered("acme", "us-daily", "2026-11-22")
    )


# --- What is gone, and what no manifest names


def a_missing(name: str, reason: MissingReason = MissingReason.DELETED) -> MissingObject:
    return MissingObject(name, f"xmode/{name}", 1_000, Checksum("crc64nvme", "AAAAAAAAAAE="), reason)


def test_the_newest_proof_of_a_delivery_is_of_its_own_objects(
    ledger: Ledger, lease: Lease, delivered: Delivery
) -> None:
    assert ledger.objects.last_proof(delivered.id) == NOW
    second = a_delivery(2)
    assert ledger.objects.last_proof(second.id) is None
    ledger.deliveries.create(lease, second)
    ledger.objects.plan(lease, second.id, [an_object("d")])
    assert ledger.objects.last_proof(second.id) is None
    later = NOW + timedelta(hours=1)
    ledger.objects.record_receipt(lease, second.id, a_receipt("d", delivered_at=later)).result(timeout=30)
    assert (ledger.objects.last_proof(second.id), ledger.objects.last_proof(delivered.id)) == (later, NOW)


def test_objects_to_send_again_are_pending(ledger: Ledger, lease: Lease, delivered: Delivery) -> None:
    beside = an_object("b", key="xmode/_r2/b", identity="inode-2")
    ledger.objects.send_again(lease, delivered.id, [an_object("a"), beside])
    assert list(ledger.objects.pending(delivered.id)) == [an_object("a"), beside]
    assert [item.name for item, _ in ledger.objects.proven(delivered.id)] == ["c"]
    ledger.objects.record_receipt(lease, delivered.id, a_receipt("b", key="xmode/_r2/b")).result(timeout=30)
    assert {item.key for item in ledger.keys.delivered("acme")} == {"xmode/_r2/b", "xmode/c", "xmode/_m/1"}


def test_left_out_objects_are_recorded_until_they_are_planned_again(
    ledger: Ledger, lease: Lease, delivered: Delivery, reopen: Reopen
) -> None:
    gone = [a_missing("a"), a_missing("c", MissingReason.EXPIRED)]
    ledger.objects.leave_out(lease, delivered.id, gone)
    ledger.objects.leave_out(lease, delivered.id, gone[:1])
    other = reopen()
    assert list(other.objects.left_out(delivered.id)) == gone
    assert [item.name for item, _ in other.objects.planned(delivered.id)] == ["b"]
    assert other.objects.totals(delivered.id) == (1, 1_000)
    ledger.deliveries.update(lease, replace(delivered, missing_count=2))
    assert other.deliveries.get(delivered.id).missing_count == 2  # type: ignore[union-attr]
    ledger.objects.plan(lease, delivered.id, [an_object("a")])
    assert list(ledger.objects.left_out(delivered.id)) == gone[1:]
    assert list(ledger.objects.pending(delivered.id)) == [an_object("a")]


def test_many_are_left_out_and_sent_again_at_once(ledger: Ledger, lease: Lease, delivery: Delivery) -> None:
    names = [f"{number:05}" for number in range(2_500)]
    ledger.objects.plan(lease, delivery.id, map(an_object, names))
    for future in [ledger.objects.record_receipt(lease, delivery.id, a_receipt(name)) for name in names]:
        future.result(timeout=30)
    ledger.objects.send_again(lease, delivery.id, [an_object(name) for name in names[:1_200]])
    ledger.objects.leave_out(lease, delivery.id, [a_missing(name) for name in names[1_200:]])
    assert [item.name for item in ledger.objects.pending(delivery.id)] == names[:1_200]
    assert [item.name for item in ledger.objects.left_out(delivery.id)] == names[1_200:]


def test_receipts_are_copied_to_revisions_with_the_same_key(
    ledger: Ledger, lease: Lease, delivered: Delivery
) -> None:
    second = a_delivery(2)
    ledger.deliveries.create(lease, second)
    planned = [an_object("a", carried=True), an_object("b", key="xmode/_r2/b"), an_object("c", carried=True)]
    ledger.objects.plan(lease, second.id, planned)
    later = {"delivered_at": NOW + timedelta(hours=1), "etag": '"new"', "version_id": "v2"}
    ledger.objects.record_receipt(lease, second.id, a_receipt("a", **later)).result(timeout=30)
    ledger.objects.record_receipt(lease, second.id, a_receipt("b", key="xmode/_r2/b", **later)).result(
        timeout=30
    )
    for _ in range(2):
        ledger.objects.spread_receipts(lease, second.id)
    first = {
        receipt.name: receipt for _, receipt in ledger.objects.planned(delivered.id) if receipt is not None
    }
    assert first == {"a": a_receipt("a", **later), "b": a_receipt("b"), "c": a_receipt("c")}
    found = {item.key: (item.etag, item.named_by) for item in ledger.keys.delivered("acme") if item.name}
    assert found == {
        "xmode/a": ('"new"', (1, 2)),
        "xmode/b": ('"etag"', (1,)),
        "xmode/_r2/b": ('"new"', (2,)),
        "xmode/c": ('"etag"', (1, 2)),
    }


def test_what_is_withdrawn_is_known_by_its_content(ledger: Ledger, lease: Lease, delivered: Delivery) -> None:
    recall = Recall("r-1", "us-daily", "an opt-out", "alice", NOW)
    (key, *_) = [item for item in ledger.keys.delivered("acme") if item.name]
    assert key.checksum is not None
    assert key.size is not None
    content = (key.size, key.checksum)
    of = Withdrawn("r-1", "us-daily", "2026-11-22", key.name, *content)
    other = of._replace(checksum=Checksum("crc32", "BBBBBB=="), customer="globex")
    waiting = RecallProgress("r-1", "acme", RecallState.PENDING, NOW)
    for _ in range(2):
        ledger.recalls.start(recall, [of, other], [waiting])
    later = replace(recall, id="r-2", started_at=NOW + timedelta(days=1))
    ledger.recalls.start(later, [of._replace(recall="r-2")], [])
    withdrawn = ledger.recalls.withdrawn
    assert withdrawn("acme", "us-daily", "2026-11-22") == {key.name: {Content(*content)}}
    assert len(withdrawn("globex", "us-daily", "2026-11-22")[key.name]) == 2
    assert withdrawn("acme", "us-daily", "2026-11-23") == {}
    assert [item.key for item in ledger.keys.delivered("acme") if item.withdrawn] == [key.key]
    received = ledger.recalls.received(delivered)
    assert received == [WithdrawnObject(key.name, key.key, *content, NOW)]
    assert ledger.recalls.received(replace(delivered, revision=0)) == []
    assert [item.recall for item in ledger.recalls.files("r-2")] == ["r-2"]
    ledger.recalls.record(replace(waiting, state=RecallState.DONE))
    found = ledger.recalls.get("r-1")
    assert found is not None
    assert found.finished_at == NOW


def test_only_superseded_revisions_have_keys_that_no_manifest_lists(
    ledger: Ledger, lease: Lease, delivered: Delivery
) -> None:
    failure = Failure("superseded", "vendor", "the source changed")
    second, third = a_delivery(2, status=Status.FAILED, failure=failure), a_delivery(3)
    for delivery, names in ((second, "xy"), (third, "x")):
        ledger.deliveries.create(lease, delivery)
        carried = [an_object("a", carried=True)]
        ledger.objects.plan(lease, delivery.id, [*map(an_object, names), *carried])
        for name in names:
            ledger.objects.record_receipt(lease, delivery.id, a_receipt(name)).result(timeout=30)

    def keys(**how: bool) -> list[str]:
        return [item.key for item in ledger.keys.superseded("acme", **how)]

    assert keys() == []  # nothing has taken its place yet
    assert [item.key for item in ledger.keys.delivered("acme") if item.superseded] == ["xmode/y"]
    names = {
        item.name: receipt for item, receipt in ledger.objects.delivered("acme", "us-daily", "2026-11-22")
    }
    assert [name for name, receipt in names.items() if receipt.superseded] == ["y"]
    ledger.deliveries.update(lease, replace(third, status=Status.DELIVERED, delivered_at=NOW))
    assert keys() == ["xmode/y"]
    assert ledger.keys.superseded("acme", "another") == ledger.keys.superseded("globex") == []

    ledger.operations.start(lease, an_operation(kind=OperationKind.SUPERSEDED))
    refused = a_removal("xmode/y", outcome=RemovalOutcome.RETAINED)
    ledger.operations.record_removals(lease, "act-1", [refused])
    assert (keys(), keys(refused=True)) == ([], ["xmode/y"])
    assert ledger.snapshot().superseded == {"acme": SupersededLeft(1, 1_000, NOW)}
    # A process that was killed had put its manifest after all.
    ledger.deliveries.update(lease, replace(second, manifest_key="xmode/_m/2"))
    assert keys(refused=True) == []
    ledger.deliveries.update(lease, second)
    ledger.operations.record_removals(lease, "act-1", [refused._replace(outcome=RemovalOutcome.DELETED)])
    assert keys(refused=True) == []
    assert ledger.snapshot().superseded == {}


def test_native_manifests_are_keys_of_their_deliveries(
    ledger: Ledger, lease: Lease, delivered: Delivery, reopen: Reopen
) -> None:
    of, checksum = ("us-daily", "2026-11-22"), Checksum("crc32", "AAAAAA==")
    first = NativeManifest(NativeKind.REDSHIFT, *of, 1, "xmode/_r/1", 50, '"r1"', checksum, NOW)
    symlink = NativeManifest(NativeKind.SYMLINK, *of, 1, "xmode/_s", 40, '"s1"', checksum, NOW)
    failure = Failure("superseded", "vendor", "the source changed")
    ledger.deliveries.create(lease, a_delivery(2, status=Status.FAILED, failure=failure))
    second = first._replace(revision=2, key="xmode/_r/2")
    for manifest in (first, symlink, second, symlink._replace(revision=2, etag='"s2"')):
        ledger.native.record(lease, "acme", manifest)
    replaced = symlink._replace(revision=2, etag='"s2"')
    ledger = reopen()
    assert ledger.native.find("acme", *of) == [first, second, replaced]
    assert ledger.native.find("acme", "us-daily", "2026-11-23") == ledger.native.find("beta", *of) == []
    known = {item.key: item for item in ledger.keys.delivered("acme") if item.is_manifest}
    assert list(known) == ["xmode/_m/1", "xmode/_r/1", "xmode/_r/2", "xmode/_s"]
    assert known["xmode/_r/1"][:9] == ("xmode/_r/1", 50, '"r1"', *of, 1, NOW, (1,), "")
    assert (known["xmode/_r/1"].checksum, known["xmode/_r/1"].superseded) == (checksum, False)
    assert (known["xmode/_s"].etag, known["xmode/_r/2"].superseded) == ('"s2"', True)
    assert [item.objects for item in ledger.keys.holdings("acme")] == [3, 0]

    assert ledger.keys.superseded("acme") == []
    ledger.deliveries.create(lease, a_delivery(3, status=Status.DELIVERED, delivered_at=NOW))
    assert [item.key for item in ledger.keys.superseded("acme")] == ["xmode/_r/2"]
    ledger.operations.start(lease, an_operation(kind=OperationKind.SUPERSEDED))
    gone = [a_removal(f"xmode/_r/{number}", manifest=True, revision=number) for number in (1, 2)]
    deleted = [item._replace(outcome=RemovalOutcome.DELETED) for item in gone]
    ledger.operations.record_removals(lease, "act-1", deleted)
    assert ledger.keys.superseded("acme", refused=True) == []
    assert ledger.native.find("acme", *of) == [replaced]
    later = first._replace(delivered_at=NOW + timedelta(hours=1))  # put again
    ledger.native.record(lease, "acme", later)
    assert ledger.native.find("acme", *of) == [later, replaced]
    with pytest.raises(LedgerError):
        ledger.native.record(lease, "acme", first._replace(period="2026-11-23"))


def test_a_delivery_without_keys_is_no_holding(ledger: Ledger, lease: Lease, delivered: Delivery) -> None:
    ledger.operations.start(lease, an_operation())
    gone = [a_removal(f"xmode/{name}", outcome=RemovalOutcome.GONE) for name in "abc"]
    ledger.operations.record_removals(lease, "act-1", gone)
    assert ledger.keys.holdings("acme") == [Holding("us-daily", "2026-11-22", 1, 0, 0)]
    manifest = a_removal("xmode/_m/1", manifest=True, outcome=RemovalOutcome.HIDDEN)
    ledger.operations.record_removals(lease, "act-1", [manifest])
    assert ledger.keys.holdings("acme") == []
    assert ledger.keys.holdings("globex") == []


def test_the_plan_of_a_dead_operation_is_settled_or_forgotten(
    ledger: Ledger, lease: Lease, delivered: Delivery
) -> None:
    later = NOW + timedelta(hours=1)
    for number in (1, 2):
        ledger.operations.start(lease, an_operation(number))
    planned = [
        a_removal("xmode/a"),
        a_removal("xmode/b", outcome=RemovalOutcome.CHANGED),
        a_removal("xmode/c", outcome=RemovalOutcome.INCONCLUSIVE),
    ]
    ledger.operations.record_removals(lease, "act-1", planned)
    ledger.operations.record_removals(lease, "act-2", [a_removal("xmode/a")])
    keys = ["xmode/a", "xmode/b", "xmode/nobody's"]
    assert ledger.operations.settle_removals(lease, [], keys, RemovalOutcome.DELETED, later) == set()
    assert ledger.operations.settle_removals(
        lease, [an_operation()], keys, RemovalOutcome.DELETED, later
    ) == {"xmode/a"}
    assert ledger.operations.forget_planned(lease, "act-1") == 1
    assert list(ledger.operations.removals("act-1")) == [
        planned[0]._replace(outcome=RemovalOutcome.DELETED, at=later),
        planned[1],
    ]
    assert [item.outcome for item in ledger.operations.removals("act-2")] == [RemovalOutcome.PLANNED]


# --- Daemons and their visits --------------------------------------------------------------------------


def a_daemon(holder: str = "host/boot/1/1", **changes: object) -> DaemonRecord:
    daemon = DaemonRecord(holder, NOW, NOW, tick_seconds=60, workers=16, configuration_loaded_at=NOW)
    return replace(daemon, **changes)  # type: ignore[arg-type]


def test_a_daemon_is_recorded_at_each_tick(ledger: Ledger, lease: Lease, reopen: Reopen) -> None:
    ledger.daemons.note(lease, a_daemon())
    failure = Failure(
        "vendor_identity", "vendor", "AWS refuses our key", "put the new one in place", request_id="r"
    )
    later = a_daemon(
        ticked_at=NOW + timedelta(seconds=60),
        busy=3,
        configuration_problems=("acme.yaml:1:1: wrong", "globex.yaml: wrong too"),
        trouble=failure,
        stopping=True,
    )
    ledger.daemons.note(lease, later)
    assert ledger.daemons.newest() == reopen().daemons.newest() == [later]
    ended = replace(later, stopped_at=NOW + timedelta(seconds=90), trouble=None, configuration_problems=())
    ledger.daemons.note(lease, ended)
    assert ledger.daemons.newest() == [ended]
    assert later.is_alive(NOW + timedelta(minutes=5))
    assert not later.is_alive(NOW + timedelta(minutes=6))
    assert not ended.is_alive(NOW)


def test_daemons_that_ended_long_ago_are_forgotten(ledger: Ledger, lease: Lease) -> None:
    old, recent = NOW - timedelta(days=31), NOW - timedelta(days=29)
    ledger.daemons.note(lease, a_daemon("host/boot/1/1", ticked_at=old))
    ledger.daemons.note(lease, a_daemon("host/boot/2/2", ticked_at=recent))
    assert [daemon.holder for daemon in ledger.daemons.newest(1)] == ["host/boot/2/2"]
    ledger.daemons.note(lease, a_daemon("host/boot/3/3"))
    assert [daemon.holder for daemon in ledger.daemons.newest()] == ["host/boot/3/3", "host/boot/2/2"]


def test_the_last_served_time_of_a_customer(ledger: Ledger, reopen: Reopen) -> None:
    assert ledger.daemons.served() == {}
    ledger.daemons.serve("acme", "deliver", NOW)
    ledger.daemons.serve("acme", "cleanup", NOW)
    ledger.daemons.serve(
        "acme", "deliver", NOW - timedelta(days=1)
    )  # the clock was set back: the last word holds
    assert reopen().daemons.served() == {
        ("acme", "deliver"): NOW - timedelta(days=1),
        ("acme", "cleanup"): NOW,
    }


def test_skipped_periods(ledger: Ledger, reopen: Reopen) -> None:
    ledger.sources.skip("acme", "us-daily", {"2026-11-20": "m1", "2026-11-21": ""}, NOW)
    ledger.sources.skip("acme", "us-daily", {"2026-11-20": "m2"}, NOW)
    assert reopen().sources.skipped("acme", "us-daily") == {"2026-11-20": "m2", "2026-11-21": ""}
    assert ledger.sources.skipped("acme", "us-hourly") == ledger.sources.skipped("globex", "us-daily") == {}


# --- Checks before release ----------------------------------------------------------------------------


def a_judgement(period: str = "2026-11-22", **changes: object) -> Judgement:
    failed = (FailedCheck(Check.MIN_FILES, "1 file; at least 2 are expected", ""),)
    judgement = Judgement(
        "us-daily", period, "", "f1", Verdict.QUARANTINED, 1, 2, failed, NOW, {"csv": "id"}, "r"
    )
    return replace(judgement, **changes)  # type: ignore[arg-type]


def a_release(period: str = "2026-11-22", **changes: object) -> Release:
    release = Release("us-daily", period, "", "f1", "", Decision.RELEASED, "alice", "why", NOW, ())
    return replace(release, **changes)  # type: ignore[arg-type]


def test_the_last_verdict_replaces_the_one_before(ledger: Ledger, reopen: Reopen) -> None:
    ledger.judgements.record(a_judgement())
    assert reopen().judgements.last("us-daily", "2026-11-22") == a_judgement()
    sound = a_judgement(verdict=Verdict.SOUND, failed=(), shape={}, fingerprint="f2")
    ledger.judgements.record(sound)
    ledger.judgements.record(a_judgement(name="a.csv"))
    assert ledger.judgements.last("us-daily", "2026-11-22") == sound
    assert ledger.judgements.find("us-daily", verdicts=[Verdict.QUARANTINED]) == [a_judgement(name="a.csv")]
    ledger.judgements.forget("us-daily", "2026-11-22", ["a.csv", "b.csv"])
    assert ledger.judgements.find() == [sound]


def test_a_later_decision_replaces_one_on_the_same_source(ledger: Ledger) -> None:
    ledger.judgements.decide([a_release(), a_release(customer="acme")])
    later = a_release(decision=Decision.REJECTED, decided_at=NOW + timedelta(hours=1))
    ledger.judgements.decide([later, a_release(fingerprint="f2", decided_at=NOW + timedelta(hours=2))])
    assert ledger.judgements.decisions("us-daily", "2026-11-22", "f1") == [a_release(customer="acme"), later]
    assert len(ledger.judgements.decisions("us-daily", "2026-11-22")) == 3
    assert ledger.judgements.decisions("us-daily", "2026-11-21") == []


def test_what_later_periods_are_compared_with_was_let_out(ledger: Ledger) -> None:
    verdicts = {"2026-11-19": Verdict.SOUND, "2026-11-20": Verdict.WARNED}
    for period in ("2026-11-19", "2026-11-20", "2026-11-21", "2026-11-22"):
        ledger.judgements.record(a_judgement(period, verdict=verdicts.get(period, Verdict.QUARANTINED)))

    def found(until: str) -> list[str]:
        return [judgement.period for judgement in ledger.judgements.references("us-daily", until)]

    assert found("2026-11-22") == ["2026-11-20", "2026-11-19"]
    ledger.judgements.decide(
        [
            a_release("2026-11-21", fingerprint="another"),
            a_release("2026-11-22", decision=Decision.REJECTED),
        ]
    )
    assert found("2026-11-22") == ["2026-11-20", "2026-11-19"]
    ledger.judgements.decide([a_release("2026-11-21", customer="acme")])
    assert found("2026-11-22") == ["2026-11-21", "2026-11-20", "2026-11-19"]
    assert found("2026-11-20") == ["2026-11-20", "2026-11-19"]
    assert len(ledger.judgements.references("us-daily", "2026-11-22", limit=2)) == 2


def test_the_history_has_what_was_delivered_to_any_customer(ledger: Ledger, lease: Lease) -> None:
    assert not ledger.judgements.has_delivered_files("us-daily")
    delivered = {
        "status": Status.DELIVERED,
        "manifest_key": "k",
        "manifest_checksum": "c",
        "delivered_at": NOW,
    }
    for number, (customer, period, revision, changes) in enumerate(
        (
            ("acme", "2026-11-19", 1, delivered | {"object_count": 0}),
            ("acme", "2026-11-20", 1, delivered | {"object_count": 5, "total_bytes": 50}),
            ("globex", "2026-11-20", 1, delivered | {"object_count": 6, "total_bytes": 40}),
            ("acme", "2026-11-21", 1, delivered | {"object_count": 7, "total_bytes": 70}),
            ("acme", "2026-11-21", 2, delivered | {"object_count": 8, "total_bytes": 80}),
            ("acme", "2026-11-21", 3, {"status": Status.QUARANTINED, "object_count": 1}),
            ("acme", "2026-11-22", 1, {"status": Status.QUARANTINED, "object_count": 1}),
        )
    ):
        ledger.deliveries.create(
            lease, a_delivery(revision, period, id=f"id-{number}", customer=customer, **changes)
        )
        assert ledger.judgements.has_delivered_files("us-daily") is (number > 0)
    assert ledger.judgements.history("us-daily", "2026-11-23", 9) == [
        ("2026-11-21", 8, 80),
        ("2026-11-20", 6, 50),
        ("2026-11-19", 0, 0),
    ]
    assert ledger.judgements.history("us-daily", "2026-11-21", 1) == [("2026-11-20", 6, 50)]
    assert ledger.judgements.history("other", "2026-11-23", 9) == []


def a_file(name: str, rows: int = 3, **changes: object) -> TableFile:
    file = TableFile("2026-11-22", f"xmode/us-daily/{name}", 100, rows, f'{{"numRecords":{rows}}}', NOW)
    return file._replace(**changes)


def test_a_table_has_what_its_commits_add_and_not_what_they_remove(
    ledger: Ledger, lease: Lease, delivery: Delivery, reopen: Reopen
) -> None:
    tables, of_period = ledger.tables, ("acme", "us-daily", "2026-11-22")
    table = DeltaTable("acme", "us-daily", "xmode/us-daily/", "an-id", ("dt",), NOW)
    tables.put(lease, table)
    assert tables.find("acme") == [tables.get("acme", "us-daily")] == [table]
    one, two = a_file("1"), a_file("2")
    tables.prepare(lease, delivery.id, [one, two], "{}")
    assert tables.prepared_schema(delivery.id) == "{}"
    assert list(tables.files(*of_period)) == []
    assert list(tables.files(*of_period, in_table=False)) == [one, two]
    commit = TableCommit("acme", "us-daily", 0, "2026-11-22", 1, 2, 6, NOW)
    committed = [item._replace(version=0) for item in (one, two)]
    for _ in range(2):  # idempotent
        tables.apply(lease, table._replace(version=0), commit, committed, ())
    assert list(tables.files("acme", "us-daily")) == committed
    assert tables.deliveries("acme", "us-daily") == {"2026-11-22": 1}
    tables.prepare(lease, delivery.id, [one._replace(rows=4)])
    assert list(tables.named(*of_period, [one.key, "other"])) == [one._replace(rows=4, version=0)]
    removal = commit._replace(version=1, revision=None, files=1, rows=4)
    later = table._replace(version=1, table_schema="{}", checkpoint=0, hint_etag="etag")
    tables.apply(lease, later, removal, (), [one.key])
    assert reopen().tables.get("acme", "us-daily") == later
    assert [item.key for item in tables.files(*of_period)] == [two.key]
    assert tables.commits("acme", "us-daily") == [removal, commit]
    assert tables.commits("acme", "us-daily", limit=1) == [removal]
    tables.end(lease, later)
    assert (tables.find(), tables.commits("acme", "us-daily")) == ([], [])
    assert tables.prepared_schema(delivery.id) is None
    assert [item.version for item in tables.files(*of_period, in_table=False)] == [None, None]
