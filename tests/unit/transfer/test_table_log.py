"""The log of a table: whole for its readers after each step, and right whoever else writes."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import MemoryBuckets, MemoryClock, MemoryObjectStores, MemoryRoles, MemoryRoleSessions
from tests.fakes.faults import Fault
from xmode_transfer.aws.policy.documents import guide_permission_policy, guide_trust_policy
from xmode_transfer.aws.stores import ObjectStore, PutRequest
from xmode_transfer.config import Customer, Limits, Vendor
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model import delta
from xmode_transfer.model.delta import Change, DeltaTable, TableFile
from xmode_transfer.model.errors import Unavailable
from xmode_transfer.sources.parquet import read_footer
from xmode_transfer.transfer import table_log
from xmode_transfer.transfer.context import Context, held, opened
from xmode_transfer.transfer.spooling import SpooledFile
from xmode_transfer.transfer.table_log import TableConflict, TableLog

ROLE = "arn:aws:iam::111122223333:role/XMode"
ROOT = "xmode/us-daily/"
AT = datetime(2026, 11, 22, 6, tzinfo=UTC)
BEGUN = DeltaTable("acme", "us-daily", ROOT, "11111111-1111-5111-8111-111111111111", ("dt",), AT)
CUSTOMER = Customer(
    name="acme",
    company="Acme Corp",
    external_id="AcmeCorp",
    role_arn=ROLE,
    destination={"bucket": "acme-data", "prefix": "xmode/", "region": "us-east-1"},
    feeds=["us-daily"],
)


class _Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.faults: Callable[[str, str], Fault | None] = lambda operation, key: None
        self.clock = MemoryClock()
        buckets = MemoryBuckets(self.clock)
        self.bucket = buckets.create("acme-data", "111122223333")
        roles = MemoryRoles(self.clock)
        roles.put(
            ROLE,
            trust_policy=guide_trust_policy("AcmeCorp"),
            permission_policies=[guide_permission_policy("acme-data")],
        )
        self.stores = MemoryObjectStores(buckets, roles, faults=lambda *asked: self.faults(*asked[:2]))
        self.sessions = MemoryRoleSessions(roles)

    def process(self, ledger: str = "ledger.db") -> "Process":
        return Process(self, f"sqlite:///{self.directory}/{ledger}")

    def dumped(self, name: str) -> str:
        """The table's part of the bucket as a directory."""
        root = self.directory / name
        for key, body in self.bucket.contents().items():
            path = root / key.removeprefix(ROOT)
            if key.startswith(ROOT) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
            elif path.name == "_last_checkpoint":
                path.write_bytes(body)
        return str(root)


class Process:
    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.ledger = open_ledger(url, world.clock)
        self.context = Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: None,  # type: ignore[arg-type, return-value]
            sessions=world.sessions,
            stores=world.stores,
            ledger=self.ledger,
            clock=world.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            holder="elsewhere",
        )

    def with_log(self, work: Callable[[TableLog, ObjectStore], Any]) -> Any:
        lease_name = "table/acme/us-daily"
        with held(self.ledger, lease_name, "elsewhere") as lease, opened(self.context, CUSTOMER) as store:
            return work(TableLog(self.context, CUSTOMER, store, lease), store)

    @property
    def table(self) -> DeltaTable:
        return self.ledger.tables.get("acme", "us-daily") or BEGUN

    @property
    def files(self) -> dict[str, TableFile]:
        return {item.key: item for item in self.ledger.tables.files("acme", "us-daily")}

    def put(self, name: str, body: bytes, token: str = "other") -> None:
        def work(log: TableLog, store: ObjectStore) -> None:
            with SpooledFile([body]) as file:
                store.put(PutRequest(f"{ROOT}{name}", token, len(body), "x/y"), file).result()

        self.with_log(work)

    def data(self, day: str, name: str, numbers: list[int], **more: Any) -> tuple[TableFile, str]:
        """Put a Parquet file; return it with its schema."""
        at = pa.array([n * 1_000_001 for n in numbers], pa.timestamp("us"))
        sink = BytesIO()
        pq.write_table(pa.table({"id": pa.array(numbers, pa.int64()), "at": at, **more}), sink)
        body, key = sink.getvalue(), f"dt={day}/{name}"
        self.put(key, body)
        footer = read_footer(lambda at, n: body[at : at + n], len(body))
        file = TableFile(day, f"{ROOT}{key}", len(body), footer.rows, footer.statistics, AT)
        return file, delta.merged("", footer.table_schema, ("dt",), {"dt"})

    def deliver(self, day: str, revision: int, *files: tuple[TableFile, str]) -> Any:
        """Commit a delivery of these files, as a reconciliation."""

        def change(table: DeltaTable) -> Change | None:
            present = {item.key: item for item in self.ledger.tables.files("acme", "us-daily", day)}
            wanted = {item.key: item for item, _ in files}
            added = [item for key, item in wanted.items() if key not in present]
            removed = [item for key, item in present.items() if key not in wanted]
            if not added and not removed:
                return None
            return Change(day, revision, added, removed, files[0][1])

        return self.with_log(lambda log, store: log.commit(self.table, change))

    def remove(self, day: str, *keys: str) -> Any:
        def change(table: DeltaTable) -> Change | None:
            going = [item for key, item in self.files.items() if key in keys]
            return Change(day, None, [], going, table.table_schema) if going else None

        return self.with_log(lambda log, store: log.commit(self.table, change))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[int]]]:
    """Read the ids of a table by deltalake, Polars and DuckDB, which must agree."""
    home, before = tmp_path_factory.mktemp("duckdb"), os.environ.get("HOME")
    os.environ["HOME"] = str(home)
    try:
        import deltalake
        import duckdb
        import polars as pl
        from duckdb_extensions import import_extension

        import_extension("delta")
        import_extension("httpfs")
        connection = duckdb.connect(config={"home_directory": str(home)})
        connection.execute("LOAD delta")

        def read(root: str) -> list[int]:
            table = deltalake.DeltaTable(root)
            by_delta = sorted(table.to_pyarrow_table()["id"].to_pylist())
            by_polars = sorted(pl.read_delta(root)["id"].to_list())
            query = f"select id, \"at\" from delta_scan('{root}') order by id"
            rows = connection.execute(query).fetchall()
            assert by_delta == by_polars == [row[0] for row in rows]
            for number, at in rows[:2] + rows[-2:]:  # the statistics exclude none
                query = f"select id from delta_scan('{root}') where id = {number} and \"at\" = '{at}'"
                assert (number,) in connection.execute(query).fetchall()
            for name in table.to_pyarrow_table().column_names:
                for value in table.to_pyarrow_table()[name].to_pylist()[:3]:
                    assert table.to_pyarrow_table(filters=[(name, "=", value)]).num_rows
                    assert len(pl.scan_delta(root).filter(pl.col(name) == value).collect())
            return by_delta

        yield read
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before


def test_readers_see_each_step(world: World, readers: Callable[[str], list[int]]) -> None:
    process = world.process()
    first = process.data("2026-11-22", "a b%#?é.parquet", [1, 2])
    table, record = process.deliver("2026-11-22", 1, first, process.data("2026-11-22", "b.parquet", [3]))
    assert (record.version, record.files, record.rows) == (0, 2, 3)
    assert readers(world.dumped("t")) == [1, 2, 3]
    corrected = process.data("2026-11-22", "_r2/b.parquet", [4, 5])
    table, record = process.deliver("2026-11-22", 2, first, corrected)
    assert (record.version, record.files, record.rows) == (1, 2, 4)
    assert readers(world.dumped("t")) == [1, 2, 4, 5]
    table, record = process.remove("2026-11-22", first[0].key)
    assert (record.version, record.revision, record.files, record.rows) == (2, None, 1, 2)
    assert readers(world.dumped("t")) == [4, 5]
    assert process.deliver("2026-11-22", 2, corrected) == (table, None)


def test_a_filter_hides_no_row(world: World, readers: Callable[[str], list[int]]) -> None:
    process = world.process()
    more = {"price": [1.5, -0.0], "flag": [True, False], "text": ["a" * 40, "é"], "raw": [b"x", b""]}
    process.deliver("2026-11-22", 1, process.data("2026-11-22", "a:b.parquet", [1, 2], **more))
    process.deliver("2026-11-23", 1, process.data("2026-11-23", "b.parquet", [3, 4], **more))
    assert readers(world.dumped("t")) == [1, 2, 3, 4]


def test_a_hundred_commits_have_a_checkpoint(world: World, readers: Callable[[str], list[int]]) -> None:
    process = world.process()
    days = [f"2026-{1 + number // 28:02}-{1 + number % 28:02}" for number in range(103)]
    for number, day in enumerate(days):
        process.deliver(day, 1, process.data(day, "a.parquet", [number]))
    assert process.table.version == 102
    assert process.table.checkpoint == 100
    contents = world.bucket.contents()
    assert contents[delta.hint_key(ROOT)] == b'{"version": 100, "size": 204}'
    root = world.dumped("t")
    for version in range(100):  # what a reader has no need of
        Path(root, "_delta_log", f"{version:020d}.json").unlink()
    assert readers(root) == list(range(103))
    import deltalake

    assert deltalake.DeltaTable(root).transaction_version(f"xmode:us-daily/{days[7]}") == 1


def test_a_version_that_another_process_took_is_applied(world: World) -> None:
    one, other = world.process(), world.process("other.db")
    one.deliver("2026-11-22", 1, one.data("2026-11-22", "a.parquet", [1]))
    other.deliver("2026-11-23", 1, other.data("2026-11-23", "a.parquet", [2]))
    assert other.table.version == 1
    _, record = one.deliver("2026-11-24", 1, one.data("2026-11-24", "a.parquet", [3]))
    assert record.version == 2
    assert one.with_log(lambda log, store: log.catch_up(one.table)) == one.table
    other.with_log(lambda log, store: log.catch_up(other.table))
    assert other.files == one.files
    assert len(other.files) == 3
    assert other.ledger.tables.commits("acme", "us-daily") == one.ledger.tables.commits("acme", "us-daily")


def test_a_lost_answer_commits_once(world: World) -> None:
    process = world.process()
    data = process.data("2026-11-22", "a.parquet", [1])
    world.faults = lambda operation, key: Fault.LOSE_ANSWER if operation == "put" else None
    with pytest.raises(Unavailable):
        process.deliver("2026-11-22", 1, data)
    world.faults = lambda operation, key: None
    assert process.files == {}
    table, record = process.deliver("2026-11-22", 1, data)
    assert (table.version, record) == (0, None)
    assert list(process.files) == [data[0].key]
    assert process.ledger.tables.deliveries("acme", "us-daily") == {"2026-11-22": 1}


def test_a_removal_sees_a_commit_that_the_ledger_lacks(world: World) -> None:
    one, behind = world.process(), world.process("behind.db")
    file, _ = one.data("2026-11-22", "a.parquet", [1])
    one.deliver("2026-11-22", 1, (file, one.data("2026-11-22", "b.parquet", [1])[1]))
    _, record = behind.remove("2026-11-22", file.key)
    assert (record.version, record.files) == (1, 1)
    assert behind.files == {}


def test_a_lost_ledger_finds_its_table(world: World) -> None:
    process = world.process()
    assert process.with_log(lambda log, store: log.found("us-daily", ROOT)) is None
    for day in ("2026-11-22", "2026-11-23"):
        process.deliver(day, 1, process.data(day, "a.parquet", [1]))
    process.remove("2026-11-22", f"{ROOT}dt=2026-11-22/a.parquet")
    lost = world.process("new.db")
    assert lost.with_log(lambda log, store: log.found("us-daily", ROOT)) == process.table
    assert lost.table == process.table
    assert lost.files == process.files


@pytest.mark.parametrize(
    ("token", "body"), [("", b"{}\n"), ("table/acme/us-daily", b""), ("table/acme/us-daily", b"{}\n")]
)
def test_what_we_did_not_write_is_a_conflict(world: World, token: str, body: bytes) -> None:
    process = world.process()
    process.deliver("2026-11-22", 1, process.data("2026-11-22", "a.parquet", [1]))
    process.put("_delta_log/00000000000000000001.json", body, token)
    data = process.data("2026-11-23", "a.parquet", [1])
    for _ in range(2):
        with pytest.raises(TableConflict, match=r"_delta_log/00000000000000000001\.json"):
            process.deliver("2026-11-23", 1, data)
    assert world.bucket.contents()[delta.log_key(ROOT, 1)] == body
    assert process.table.version == 0


@pytest.mark.parametrize("failing", ["checkpoint.parquet", "_last_checkpoint"])
def test_a_failed_checkpoint_is_tried_after_the_next_commit(
    world: World, failing: str, monkeypatch: pytest.MonkeyPatch, readers: Callable[[str], list[int]]
) -> None:
    monkeypatch.setattr(table_log, "CHECKPOINT_EVERY", 2)

    def refuse(operation: str, key: str) -> None:
        if operation == "put" and key.endswith(failing):
            raise Unavailable("out of order")

    process = world.process()
    days = [f"2026-11-{number:02}" for number in range(1, 8)]
    for day in days[:3]:
        if day == days[2]:
            world.faults = refuse
        process.deliver(day, 1, process.data(day, "a.parquet", [1]))
    assert process.table.version == 2
    assert delta.hint_key(ROOT) not in world.bucket.contents()
    world.faults = lambda operation, key: None
    process.deliver(days[3], 1, process.data(days[3], "a.parquet", [1]))
    assert process.table.checkpoint == (3 if failing == "checkpoint.parquet" else 2)
    assert process.table.hint_etag is not None
    assert readers(world.dumped("t")) == [1, 1, 1, 1]


def test_a_hint_that_another_process_replaced_is_replaced_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_log, "CHECKPOINT_EVERY", 2)
    one, other = world.process(), world.process("other.db")
    for number in range(1, 10):
        process, day = (one, other)[number % 2], f"2026-11-{number:02}"
        process.deliver(day, 1, process.data(day, "a.parquet", [1]))
    newest = max(one.table.checkpoint or 0, other.table.checkpoint or 0)
    assert newest == 8
    assert world.bucket.contents()[delta.hint_key(ROOT)].startswith(b'{"version": 8,')


def test_a_hint_of_somebody_else_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_log, "CHECKPOINT_EVERY", 1)
    process = world.process()
    process.put("_delta_log/_last_checkpoint", b"theirs")
    for day in ("2026-11-01", "2026-11-02"):
        process.deliver(day, 1, process.data(day, "a.parquet", [1]))
    assert process.table.version == 1
    assert process.table.checkpoint == 1
    assert world.bucket.contents()[delta.hint_key(ROOT)] == b"theirs"
