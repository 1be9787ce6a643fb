"""A table beside the ledger and the newest manifests, as `verify` compares them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.delta_log import parquet
from tests.unit.upkeep.test_verify import BASE, CUSTOMER, DAY, FEED, World
from xmode_transfer.aws.stores import PutRequest
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.model.delta import Change, DeltaTable, TableFile, commit, log_key, token
from xmode_transfer.model.errors import AccessDenied, Interrupted, Unavailable
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.upkeep import (
    DiscrepancyKind,
    OperationKind,
    OperationRecord,
    Removal,
    RemovalOutcome,
    Scope,
)
from xmode_transfer.transfer.context import held, opened
from xmode_transfer.transfer.spooling import SpooledFile
from xmode_transfer.upkeep.verify import Verification

ALTERED, DIFFERS = DiscrepancyKind.TABLE_ALTERED, DiscrepancyKind.TABLE_DIFFERS
SCHEMA = '{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}'
STATISTICS = '{"numRecords":1}'
NAMES = ("a.parquet", "b b.parquet", "c.txt")


class Place:
    """A day of which the Parquet files are in a table."""

    def __init__(self, world: World) -> None:
        self.world = world
        for name in NAMES:
            world.source.write(f"2026/11/22/{name}", parquet(id=[len(name)]), period=DAY)
        world.deliver()
        self.table = DeltaTable("acme", "us-daily", BASE, "0" * 32, (), world.clock.now())
        self.commit(1, [self.file(name) for name in NAMES[:2]])

    def key(self, name: str) -> str:
        return f"{BASE}2026/11/22/{name}"

    def file(self, name: str, **changes: Any) -> TableFile:
        found = self.world.bucket.current(self.key(name))
        size = len(found.body or b"") if found is not None else 1
        file = TableFile(DAY.label, self.key(name), size, 1, STATISTICS, self.world.clock.now())
        return file._replace(**changes)

    def commit(
        self,
        revision: int | None,
        added: Sequence[TableFile],
        removed: Sequence[TableFile] = (),
        *,
        by: str = "",
    ) -> str:
        """One more version; not one of ours, and not in the ledger, where somebody else made it."""
        change = Change(DAY.label, revision, added, removed, SCHEMA)
        after, made, chunks = commit(self.table, change, self.world.clock.now())
        key = log_key(BASE, after.version)
        self.put(key, b"".join(chunks), by or token("acme", "us-daily"))
        if not by:
            with held(self.world.ledger, "table/acme/us-daily", "test") as lease:
                entered = [item._replace(version=after.version) for item in added]
                gone = [item.key for item in removed]
                self.world.ledger.tables.apply(lease, after, made, entered, gone)
            self.table = after
        return key

    def put(self, key: str, body: bytes, metadata: str) -> None:
        self.world.bucket.remove(key, self.world.clock.now())
        with opened(self.world.context, CUSTOMER) as store, SpooledFile([body]) as file:
            store.put(PutRequest(key, metadata, len(body), "application/json"), file).result()

    def verify(self, scope: Scope = Scope()) -> dict[str, tuple[DiscrepancyKind, str]]:  # noqa: B008 - it is frozen
        verification = Verification(self.world.context, CUSTOMER, scope, self.world.reader)
        found = {item.known.key: (item.kind, item.message) for _, item in verification if item}
        verified = verification.verified
        assert (verified.tables, verified.unmanaged or 0, verified.proven) == (1, 0, verified.keys)
        return found


@pytest.fixture
def place(world: World) -> Place:
    return Place(world)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, files=0)
    yield made
    made.ledger.close()


def test_a_table_as_the_manifests_say_has_nothing_to_name(place: Place) -> None:
    assert place.verify() == {}
    assert place.verify(Scope("us-daily", DAY.label)) == {}


def test_a_file_that_only_one_of_both_has(place: Place) -> None:
    one, other = place.file("a.parquet"), place.file("x.parquet")
    place.commit(None, [other], [one])
    found = {
        one.key: (DIFFERS, "the newest manifest lists it, the table does not"),
        other.key: (DIFFERS, "the table has it, and no newest manifest lists it"),
    }
    assert place.verify() == found
    assert place.verify(Scope("us-daily", DAY.label)) == found
    assert place.verify(Scope("us-daily", "2026-11-21")) == {}


def test_another_size(place: Place) -> None:
    one = place.file("a.parquet")
    place.commit(None, [one._replace(size=1)], [one])
    message = f"the table has it with 1 byte, the manifest with {one.size:,}"
    assert place.verify() == {one.key: (DIFFERS, message)}


def test_a_log_that_somebody_has_changed(place: Place) -> None:
    second = place.commit(None, [])
    third = place.commit(None, [])
    body = place.world.bucket.contents()[second]
    ours = token("acme", "us-daily")
    for change, message in (
        (b"", "it does not have our token"),
        (b"{", "it is not as put: "),
        (None, "the version no longer exists"),
    ):
        if change is None:
            place.world.bucket.remove(second, place.world.clock.now())
        else:
            place.put(second, change or body, ours if change else "theirs")
        (found,) = place.verify().items()
        assert found[0] == second
        assert found[1][0] is ALTERED
        assert found[1][1].startswith(message)
    place.put(second, body, ours)
    assert place.verify() == {}
    theirs = place.commit(None, [place.file("x.parquet")], by="theirs")
    assert place.verify() == {theirs: (ALTERED, "it is not ours: another writer has added a version")}
    place.put(theirs, place.world.bucket.contents()[third], ours)
    assert place.verify() == {}  # our own, and a process was killed before the ledger had it


def test_what_is_about_to_be_deleted_may_be_gone_from_the_table(place: Place) -> None:
    one = place.file("a.parquet")
    place.commit(None, [], [one])
    now, ledger = place.world.clock.now(), place.world.ledger
    current = place.world.bucket.current(one.key)
    assert current is not None
    with held(ledger, "cleanup/acme", "test") as lease:
        operation = OperationRecord("o1", OperationKind.CLEANUP, "acme", "test", "alice", "", now)
        ledger.operations.start(lease, operation)
        at = (one.size, current.etag, now, "expired")
        removal = Removal(one.key, "us-daily", DAY.label, 1, False, *at, RemovalOutcome.PLANNED, now)
        ledger.operations.record_removals(lease, "o1", [removal])
        assert place.verify() == {}
        ledger.operations.finish(lease, replace(operation, finished_at=now))
    assert set(place.verify()) == {one.key}


def test_a_revision_that_is_committed_and_not_published_yet(place: Place) -> None:
    """The process was killed between the two."""
    world = place.world
    world.source.write("2026/11/22/a.parquet", parquet(id=[2, 3]), period=DAY)

    def broken(operation: str, key: str, attempt: int) -> None:
        if operation == "put" and "_manifests" in key:
            raise Unavailable("killed")

    world.faults = broken
    state = world.source.state(DAY)
    assert state is not None
    assert deliver(world.context, CUSTOMER, FEED, state).exit_code == 3
    world.faults = None
    assert place.key("_r2/a.parquet") in {item.key for item in world.ledger.tables.files("acme", "us-daily")}
    assert place.verify() == {}
    world.deliver()
    assert place.verify() == {}


def test_a_log_that_we_may_not_read(place: Place) -> None:
    def broken(operation: str, key: str, attempt: int) -> None:
        if operation == "read" and "_delta_log" in key:
            raise AccessDenied("no")

    place.world.faults = broken
    assert place.verify() == {f"{BASE}_delta_log/": (DiscrepancyKind.UNREADABLE, "no")}


def test_a_request_to_stop_ends_the_verification(place: Place) -> None:
    def stop(operation: str, key: str, attempt: int) -> None:
        if operation == "read" and "_delta_log" in key:
            place.world.context.stop.set()

    place.world.faults = stop
    with pytest.raises(Interrupted):
        place.verify()


def test_a_table_that_is_ended_or_begun_meanwhile(place: Place) -> None:
    with held(place.world.ledger, "table/acme/us-daily", "test") as lease:
        place.world.ledger.tables.put(lease, place.table._replace(ending_at=place.world.clock.now()))
        place.world.bucket.remove(log_key(BASE, 0), place.world.clock.now())
        assert place.verify() == {}


def test_a_drop_folder_has_the_newest_of_each_name(tmp_path: Path) -> None:
    world = World(tmp_path, files=0)
    feed = FEED.model_copy(update={"period": PeriodKind.NONE, "partition": None})
    place = object.__new__(Place)
    place.world = world
    place.table = DeltaTable("acme", "us-daily", BASE, "0" * 32, (), world.clock.now())
    files = []
    for name in ("a.parquet", "b.parquet", "a.parquet"):
        world.source.write(name, parquet(id=[len(files)]), period=Period.none())
        state = world.source.state(Period.none())
        assert state is not None
        assert deliver(world.context, CUSTOMER, feed, state).exit_code == 0
        (key,) = {key for key in world.bucket.contents() if key.endswith(name)} - {one.key for one in files}
        files.append(
            TableFile("none", key, len(world.bucket.contents()[key]), 1, STATISTICS, world.clock.now())
        )
    place.commit(1, files[:2])
    assert {key: kind for key, (kind, _) in place.verify().items()} == {
        files[0].key: DIFFERS,
        files[2].key: DIFFERS,
    }
    place.commit(3, files[2:], files[:1])
    assert place.verify() == {}
    place.commit(None, [], files[2:])
    assert set(place.verify()) == {files[2].key}
    now = world.clock.now()
    with held(world.ledger, "cleanup/acme", "test") as lease:  # the older one does not come back
        world.bucket.remove(files[2].key, now)
        operation = OperationRecord("o1", OperationKind.CLEANUP, "acme", "test", "alice", "", now)
        world.ledger.operations.start(lease, operation)
        put = next(
            item
            for item in world.ledger.objects.receipts("acme", "us-daily", "none")
            if item.key == files[2].key
        )
        of = (put.key, "us-daily", "none", 3, False, put.size, put.etag, put.delivered_at, "recalled")
        world.ledger.operations.record_removals(lease, "o1", [Removal(*of, RemovalOutcome.DELETED, now)])
    assert place.verify() == {}
    world.ledger.close()
