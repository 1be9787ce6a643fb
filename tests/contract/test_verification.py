"""Verifying, repairing and adopting through every adapter: both engines on the local AWS with authorisation
and in front of moto, and the store in memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import MemorySource
from tests.forms import IS_SOAK
from xmode_transfer.aws.stores import Reader
from xmode_transfer.cli.terminal import Tally
from xmode_transfer.config import Configuration, Feed, Limits, Service, Settled, Vendor
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.upkeep import DiscrepancyKind, OperationKind, OperationRecord, Scope
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.transfer.context import Context
from xmode_transfer.upkeep.adopt import Adoption, adopt
from xmode_transfer.upkeep.listing import Listing, Standing
from xmode_transfer.upkeep.repair import Repaired, repair
from xmode_transfer.upkeep.verify import Verification

DAYS = ("2026-11-21", "2026-11-22")
FEED = Feed(
    name="us-daily", source="/nowhere", period="day", partition="%Y/%m/%d", complete=Settled(settle_seconds=0)
)


def on(*names: str) -> Callable[[Any], Any]:
    """What these show is no single store's doing; the long form tries all."""
    stores = [pytest.param(name, marks=pytest.mark.sandbox if name == "fast" else ()) for name in names]
    few = pytest.mark.parametrize("store_case", stores, indirect=True)
    return lambda test: pytest.mark.short(test if IS_SOAK else few(test))


of_each_kind = on("memory", "fast", "portable-moto")


class Place:
    """Two days, delivered to the case's customer."""

    def __init__(self, case: Any, directory: Path) -> None:
        self.case = case
        self.directory = directory
        self.source = MemorySource()
        self.clock = SystemClock()
        self.open("ledger.db")
        for day in DAYS:
            for number in range(4):
                name = f"{day.replace('-', '/')}/part {number}.csv"
                self.source.write(name, f"{day} {number}".encode(), period=Period.parse(day, PeriodKind.DAY))
            self.deliver(day)

    def open(self, name: str) -> None:
        self.ledger = open_ledger(f"sqlite:///{self.directory}/{name}", self.clock)
        self.context = Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: self.source,
            sessions=self.case.sessions,
            stores=self.case.stores,
            ledger=self.ledger,
            clock=self.clock,
            progress=Tally(),
            holder="elsewhere",
        )

    @property
    def configuration(self) -> Configuration:
        return Configuration(Service(), {"us-daily": FEED}, {"acme": self.case.customer}, {})

    @property
    def reader(self) -> Reader:
        return Reader(self.case.customer, Limits(), self.clock, self.context.stop)

    def key(self, day: str, number: int) -> str:
        return self.case.key(f"us-daily/{day.replace('-', '/')}/part {number}.csv")

    def manifest(self, day: str) -> str:
        return self.case.key(f"us-daily/_manifests/{day}/000001.json")

    def deliver(self, day: str) -> str:
        state = self.source.state(Period.parse(day, PeriodKind.DAY))
        assert state is not None
        outcome = deliver(self.context, self.case.customer, FEED, state)
        assert outcome.exit_code == 0, outcome
        return outcome.outcome

    def verify(self, scope: Scope = Scope(), **how: Any) -> dict[str, DiscrepancyKind]:  # noqa: B008 - it is frozen
        self.last = Verification(self.context, self.case.customer, scope, self.reader, **how)
        self.findings = [finding for _, finding in self.last if finding is not None]
        return {finding.known.key: finding.kind for finding in self.findings}

    def repair(self) -> Repaired:
        self.verify()
        return repair(self.context, self.configuration, self.case.customer, self.findings, by="alice")

    def adopt(self, **how: Any) -> Adoption:
        return adopt(
            self.context, self.configuration, self.case.customer, Scope(), self.reader, by="alice", **how
        )


@pytest.fixture
def place(store_case: Any, tmp_path: Path) -> Iterator[Place]:
    made = Place(store_case, tmp_path)
    yield made
    made.ledger.close()


def test_what_was_deleted_altered_or_shared_is_named_and_nothing_else(place: Place) -> None:
    case = place.case
    assert place.verify() == {}
    assert place.verify(deep=True, acl_sample=None) == {}
    assert place.last.verified.outcome == "proven"
    assert (place.last.verified.keys, place.last.verified.acl_checked) == (10, 10)
    assert place.last.verified.unmanaged == 0
    case.customer_puts(case.key("us-daily/theirs.txt"), b"theirs")
    case.customer_puts(case.key("us-daily/2026/11/22/part 9.csv"), b"theirs too")
    case.customer_deletes(place.key(DAYS[0], 0))
    case.customer_puts(place.key(DAYS[0], 1), b"2026-11-21 X")  # as many bytes as ours had
    case.customer_puts(place.key(DAYS[1], 2), b"longer than ours")
    case.customer_shares(place.key(DAYS[1], 3))
    expected = {
        place.key(DAYS[0], 0): DiscrepancyKind.MISSING,
        place.key(DAYS[0], 1): DiscrepancyKind.ALTERED,
        place.key(DAYS[1], 2): DiscrepancyKind.ALTERED,
        place.key(DAYS[1], 3): DiscrepancyKind.ACL_CHANGED,
    }
    assert place.verify(acl_sample=None) == expected
    assert place.last.verified.unmanaged == 2
    assert place.last.verified.outcome == "differs"
    assert place.last.verified.exit_code == 4
    assert place.verify(deep=True) == expected
    assert place.verify(Scope(period=DAYS[0])) == dict(list(expected.items())[:2])
    assert place.last.verified.unmanaged is None
    assert place.verify(Scope("us-daily", since=DAYS[1], until=DAYS[1])) == dict(list(expected.items())[2:])
    standings = {
        item.key: item.standing for item in Listing(place.context, case.customer, {"us-daily": FEED})
    }
    wrong = {key: standing for key, standing in standings.items() if standing not in ("ours", "manifest")}
    assert wrong == {
        case.key("us-daily/2026/11/22/part 9.csv"): Standing.UNMANAGED,
        case.key("us-daily/theirs.txt"): Standing.UNMANAGED,
        place.key(DAYS[0], 0): Standing.MISSING,
        place.key(DAYS[0], 1): Standing.CHANGED,
        place.key(DAYS[1], 2): Standing.CHANGED,
    }


@of_each_kind
def test_other_rights_do_not_keep_a_manifest_from_being_put_again(place: Place) -> None:
    place.case.customer_shares(place.key(DAYS[0], 1))
    place.case.customer_deletes(place.manifest(DAYS[0]))
    repaired = place.repair()
    assert (repaired.outcome, repaired.sent, repaired.left) == ("repaired", 1, [])
    assert place.verify(acl_sample=None) == {place.key(DAYS[0], 1): DiscrepancyKind.ACL_CHANGED}


@on("memory", "fast")
def test_a_manifest_waits_for_what_is_beyond_one_repair(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmode_transfer.upkeep.repair.MOST_AT_ONCE", 3)
    for number in range(4):
        place.case.customer_deletes(place.key(DAYS[0], number))
    place.case.customer_deletes(place.manifest(DAYS[0]))
    place.verify()
    # a feed's files may sort behind its manifests
    place.findings.sort(key=lambda finding: finding.known.name != "")
    left = repair(place.context, place.configuration, place.case.customer, place.findings, by="alice")
    assert (left.sent, [item.cause for item in left.left]) == (2, ["not_whole"])
    assert (place.repair().outcome, place.verify()) == ("repaired", {})


@on("memory")
def test_a_repair_that_was_killed_is_closed_by_the_next(place: Place) -> None:
    now = place.clock.now()
    act = OperationRecord(
        "repair-1", OperationKind.REPAIR, "acme", "dead", "bob", "a verification found 1 key missing", now
    )
    lease = place.ledger.leases.claim("repair/acme", "dead", 1)
    place.ledger.operations.start(lease, act)
    ended = replace(act, id="repair-0", person="carol", finished_at=now, outcome="repaired", objects=3)
    place.ledger.operations.start(lease, ended)
    place.ledger.leases.release(lease)
    place.case.customer_deletes(place.key(DAYS[0], 0))
    assert place.repair().outcome == "repaired"
    acts = {item.person: item for item in place.ledger.operations.newest("acme", OperationKind.REPAIR)}
    assert {person: item.outcome for person, item in acts.items()} == {
        "alice": "repaired",
        "bob": "interrupted",
        "carol": "repaired",
    }
    assert acts["carol"] == ended
    assert acts["bob"].finished_at is not None


@of_each_kind
def test_a_repair_delivers_again_what_is_missing_and_touches_nothing_else(place: Place) -> None:
    case = place.case
    before = {item.key: item for item in place.ledger.keys.delivered("acme")}
    manifests = {day: b"".join(case.open().read(place.manifest(day))) for day in DAYS}
    case.customer_deletes(place.key(DAYS[0], 0))
    case.customer_deletes(place.manifest(DAYS[0]))
    case.customer_puts(place.key(DAYS[1], 1), b"theirs")
    for number in (2, 3):
        case.customer_deletes(place.key(DAYS[1], number))
    place.source.write("2026/11/22/part 2.csv", b"2026-11-22 X")
    place.source.remove("2026/11/22/part 3.csv")
    repaired = place.repair()
    assert (repaired.sent, repaired.outcome) == (2, "partly")
    assert {left.known.key: left.cause for left in repaired.left} == {
        place.key(DAYS[1], 2): "source_changed",
        place.key(DAYS[1], 3): "source_missing",
    }
    assert place.verify() == {
        place.key(DAYS[1], 1): DiscrepancyKind.ALTERED,
        place.key(DAYS[1], 2): DiscrepancyKind.MISSING,
        place.key(DAYS[1], 3): DiscrepancyKind.MISSING,
    }
    store = case.open()
    assert b"".join(store.read(place.key(DAYS[1], 1))) == b"theirs"
    after = {item.key: item for item in place.ledger.keys.delivered("acme")}
    mended = after[place.key(DAYS[0], 0)]
    assert mended.checksum == before[mended.key].checksum
    assert mended.delivered_at > before[mended.key].delivered_at
    info = store.head(mended.key)
    assert (info.etag, info.checksum) == (mended.etag, mended.checksum)
    assert b"".join(store.read(place.manifest(DAYS[1]))) == manifests[DAYS[1]]
    (act,) = place.ledger.operations.newest("acme", OperationKind.REPAIR)
    assert (act.person, act.objects, act.failed, act.outcome) == ("alice", 2, 2, "partly")
    assert act.finished_at is not None
    assert place.deliver(DAYS[0]) == "skipped"


@of_each_kind
def test_a_lost_ledger_is_adopted_and_then_knows_all_it_did(place: Place) -> None:
    case = place.case
    before = {item.key: item for item in place.ledger.keys.delivered("acme")}
    place.ledger.close()
    place.open("another.db")
    assert list(place.ledger.keys.delivered("acme")) == []
    dry = place.adopt(dry_run=True)
    assert [item.outcome for item in dry.deliveries] == ["found", "found"]
    assert list(place.ledger.keys.delivered("acme")) == []
    case.customer_deletes(place.key(DAYS[1], 0))
    case.customer_puts(place.key(DAYS[1], 1), b"2026-11-22 X")
    found = place.adopt()
    assert [(item.outcome, item.objects, item.unproven_count) for item in found.deliveries] == [
        ("adopted", 4, 0),
        ("adopted", 4, 2),
    ]
    assert [key for key, _ in found.deliveries[1].unproven] == [place.key(DAYS[1], 0), place.key(DAYS[1], 1)]
    assert found.exit_code == 4
    after = {item.key: item for item in place.ledger.keys.delivered("acme")}
    unproven = {key for key, _ in found.deliveries[1].unproven}
    manifests = {place.manifest(day) for day in DAYS}
    assert after.keys() == before.keys()
    for key, item in after.items():
        if key in unproven:
            assert item == before[key]._replace(etag="")
        elif key not in manifests:  # the time of a manifest is the object's own
            assert item == before[key]
    assert place.verify() == {
        place.key(DAYS[1], 0): DiscrepancyKind.MISSING,
        place.key(DAYS[1], 1): DiscrepancyKind.ALTERED,
    }
    assert [place.deliver(day) for day in DAYS] == ["skipped", "skipped"]
    assert (place.adopt().known, place.adopt().deliveries) == (2, [])
    acts = place.ledger.operations.newest("acme", OperationKind.ADOPT)
    assert (acts[-1].objects, acts[-1].failed, acts[-1].person) == (8, 2, "alice")
