"""Feeds as Delta tables, from delivery to recall: a reader's rows are the newest manifests' rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.delta_log import ROOT, keys_of_manifests, parquet, parquet_of, replay, rows
from tests.fakes import MemoryClock
from tests.faults.conftest import FEED, PERIOD, World
from xmode_transfer.aws.stores import Reader
from xmode_transfer.config import Configuration, Destination, Limits, Service
from xmode_transfer.config.feed import Subscription
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.delta import TableFormat
from xmode_transfer.model.errors import ConfigError, SchemaChanged
from xmode_transfer.model.native import NativeKind
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.recall import RecallState
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.transfer import tables as transfer_tables
from xmode_transfer.upkeep import tables
from xmode_transfer.upkeep.adopt import adopt
from xmode_transfer.upkeep.listing import Listing, Standing
from xmode_transfer.upkeep.recall import Request, begin, carry_out, plan
from xmode_transfer.upkeep.verify import Verification

NEXT = Period.parse("2026-11-23", PeriodKind.DAY)
NONE = Period.none()
A, B = "2026/11/22/a.parquet", "2026/11/22/b.parquet"
LATE = "2026/11/23/a.parquet"


@pytest.fixture(scope="session")
def no_deliveries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    open_ledger(f"sqlite:///{path}", MemoryClock()).close()
    return path


@pytest.fixture
def world(tmp_path: Path, no_deliveries: Path) -> World:
    world = World(Path(shutil.copy(no_deliveries, tmp_path / "ledger.db")), {})
    world.feed = FEED.model_copy(update={"table": TableFormat.DELTA})
    world.source.write(A, parquet(id=[1, 2]), period=PERIOD)
    world.source.write(B, parquet(id=[3]), period=PERIOD)
    return world


def configuration(world: World) -> Configuration:
    return Configuration(Service(), {FEED.name: world.feed}, {"acme": world.customer}, {})


def delivered(world: World, period: Period = PERIOD) -> None:
    outcome = world.process(period=period)
    assert outcome is not None
    assert (outcome.outcome, outcome.failure) == ("delivered", None)
    check(world)


def check(world: World) -> list[int]:
    """Check that the table has the rows of the newest manifests; return them."""
    contents = world.bucket.contents()
    table = replay(contents)
    assert set(table.files) == keys_of_manifests(contents)
    found = rows(contents, table.files)
    assert sum(json.loads(item["stats"])["numRecords"] for item in table.files.values()) == len(found)
    return [row["id"] for row in found]


def refused(world: World, period: Period = PERIOD) -> Any:
    before = set(world.bucket.contents())
    outcome = world.process(period=period)
    assert outcome is not None
    assert outcome.failure is not None
    assert set(world.bucket.contents()) == before
    return outcome.failure


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_manifest_names_its_version_and_rows(world: World) -> None:
    delivered(world)
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    delivered(world, NEXT)
    found = [item["table"] for item in world.manifests()]
    assert found == [
        {"format": "delta", "version": 0, "rows": 3},
        {"format": "delta", "version": 1, "rows": 1},
    ]


def test_a_file_that_does_not_fit_is_refused_before_the_first_byte_until_it_is_corrected(
    world: World,
) -> None:
    delivered(world)
    world.source.write(LATE, parquet(id=["4"]), period=NEXT)
    failure = refused(world, NEXT)
    assert (failure.cause, failure.responsible) == ("schema_changed", "vendor")
    assert failure.message.startswith(
        f"{LATE} does not fit the table of us-daily: column id has the type string"
    )
    world.source.write(LATE, b"PAR1 nonsense PAR1", period=NEXT)
    assert "its footer" in refused(world, NEXT).message
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    delivered(world, NEXT)
    assert check(world) == [1, 2, 3, 4]


def test_an_older_period_may_be_corrected_after_a_column_was_added(world: World) -> None:
    delivered(world)
    world.source.write(LATE, parquet(id=[4], note=["x"]), period=NEXT)
    delivered(world, NEXT)
    world.source.write(B, parquet(id=[5]))
    delivered(world)
    table = replay(world.bucket.contents())
    assert (table.version, table.columns) == (2, ["id", "note"])
    assert check(world) == [1, 2, 4, 5]


def test_an_added_column_survives_a_revision_that_was_superseded(world: World) -> None:
    delivered(world)
    world.source.write(A, parquet(id=[1], note=["x"]))
    world.source.write(B, parquet(id=[3, 4]))
    puts: list[str] = []

    def overwrite(name: str, offset: int) -> None:  # while it is sent, after its footer was read
        puts.append(name)
        if name == B and puts.count(B) > 1:
            world.source.on_read = None
            world.source.write(B, parquet(id=[5]))

    world.source.on_read = overwrite
    world.process()
    outcome = world.process()
    assert outcome is not None
    assert outcome.outcome in ("delivered", "skipped")
    assert check(world) == [1, 5]
    assert replay(world.bucket.contents()).columns == ["id", "note"]


def test_what_is_not_parquet_is_delivered_and_not_in_the_table(world: World) -> None:
    world.source.write("2026/11/22/readme.txt", b"hello", period=PERIOD)
    delivered(world)
    assert f"{ROOT}2026/11/22/readme.txt" in world.bucket.contents()
    assert check(world) == [1, 2, 3]


@pytest.mark.parametrize("how", ["prefix", "columns"])
def test_the_root_and_the_partition_columns_do_not_change(world: World, how: str) -> None:
    delivered(world)
    if how == "prefix":
        there = Destination(bucket="acme-data", prefix="elsewhere/", region="us-east-1")
        world.customer = world.customer.model_copy(update={"destination": there})
    else:
        layout = "{feed}/dt={period:%Y-%m-%d}/{path}"
        world.feed = world.feed.model_copy(update={"layout": layout})
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    failure = refused(world, NEXT)
    assert (failure.cause, failure.responsible) == ("table_refused", "vendor")
    assert "table end --customer acme --feed us-daily" in failure.hint


def test_a_table_is_maintained_though_it_is_no_longer_configured(world: World) -> None:
    delivered(world)
    world.feed = FEED
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    delivered(world, NEXT)
    assert check(world) == [1, 2, 3, 4]


def test_a_commit_that_is_not_ours_stops_the_delivery_and_is_named(world: World) -> None:
    delivered(world)
    theirs = f"{ROOT}_delta_log/{1:020d}.json"
    world.put(theirs, b"{}")
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    outcome = world.process(period=NEXT)
    assert outcome is not None
    assert outcome.failure is not None
    assert (outcome.failure.cause, outcome.failure.responsible) == ("table_conflict", "customer")
    assert theirs in outcome.failure.message
    assert len(world.manifests()) == 1
    cleaned = world.clean(days=1)  # the newest stays, as its manifest is the only one
    assert cleaned is not None
    world.take(theirs)
    delivered(world, NEXT)


def test_nothing_is_deleted_while_the_log_has_a_commit_that_is_not_ours(world: World) -> None:
    delivered(world)
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    delivered(world, NEXT)
    world.put(f"{ROOT}_delta_log/{2:020d}.json", b"{}")
    before = world.bucket.contents()
    outcome = world.clean(keep_last=1)
    assert outcome is not None
    assert world.bucket.contents() == before
    assert "is a commit that we did not write" in outcome.periods[0].kept_because


def test_a_ledger_that_was_restored_reads_what_it_lacks(world: World, tmp_path: Path) -> None:
    path = Path(world.url.removeprefix("sqlite:///"))
    delivered(world)
    shutil.copy(path, tmp_path / "backup.db")
    world.source.write(B, parquet(id=[5]))
    delivered(world)
    shutil.copy(tmp_path / "backup.db", path)
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    delivered(world, NEXT)
    outcome = world.process()
    assert outcome is not None
    assert outcome.outcome == "delivered"
    assert check(world) == [1, 2, 4, 5]
    assert replay(world.bucket.contents()).version == 2


def test_after_an_adoption_what_expires_leaves_the_table_first(world: World, no_deliveries: Path) -> None:
    delivered(world)
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    delivered(world, NEXT)
    shutil.copy(no_deliveries, world.url.removeprefix("sqlite:///"))
    adopted(world)
    assert world.clean(keep_last=1) is not None
    assert check(world) == [4]
    assert replay(world.bucket.contents()).version == 2
    world.source.write(LATE, parquet(id=[6]), period=NEXT)
    delivered(world, NEXT)


def adopted(world: World) -> None:
    with world.context() as context:
        reader = Reader(world.customer, Limits(), world.clock, context.stop)
        result = adopt(context, configuration(world), world.customer, Scope(), reader, by="alice")
        assert result.failure is None


def recalled(world: World, scope: Scope, *names: str) -> None:
    with world.context() as context:
        of = Request("us-daily", scope, names, (), None, "an opt-out", "alice", "")
        made = plan(context, configuration(world), of)
        begin(context, made, Path(world.url.removeprefix("sqlite:///")).with_suffix(".jsonl"))
        work = (context, configuration(world), made.recall.id, "acme")
        assert carry_out(*work, may_send=lambda feed, state: True).state is RecallState.DONE


def test_a_recall_takes_its_rows_out_of_the_table(world: World) -> None:
    delivered(world)
    recalled(world, Scope(), "b.parquet")
    assert check(world) == [1, 2]
    recalled(world, Scope(), "a.parquet")
    assert check(world) == []


def test_a_recall_replaces_a_file_that_fits_and_no_other(world: World) -> None:
    delivered(world)
    world.source.write(B, parquet(id=[7]))
    world.source.write(A, parquet(other=["does not fit"]))
    recalled(world, Scope(), "b.parquet")
    assert check(world) == [1, 2, 7]
    recalled(world, Scope(), "a.parquet")
    assert check(world) == [7]


def test_a_drop_folder_has_the_newest_of_each_file(world: World) -> None:
    for name in (A, B):
        world.source.remove(name)
    layout = {"period": PeriodKind.NONE, "partition": None}
    world.feed = world.feed.model_copy(update=layout)

    def rows_in_table() -> list[int]:
        contents = world.bucket.contents()
        return [row["id"] for row in rows(contents, replay(contents).files)]

    for name, ids in (("a.parquet", [1]), ("b.parquet", [2]), ("a.parquet", [3]), ("c.parquet", [4])):
        world.source.write(name, parquet(id=ids), period=NONE)
        assert world.process(period=NONE).outcome == "delivered"  # type: ignore[union-attr]
    assert rows_in_table() == [2, 3, 4]
    assert [item["table"]["rows"] for item in world.manifests()] == [1, 1, 1, 1]
    recalled(world, Scope(), "c.parquet")
    assert rows_in_table() == [2, 3]
    assert replay(world.bucket.contents()).version == 4
    for name, ids in (("d.parquet", [5]), ("e.parquet", [6])):
        world.source.write(name, parquet(id=ids), period=NONE)
    assert world.process(period=NONE).outcome == "delivered"  # type: ignore[union-attr]
    world.source.write("d.parquet", parquet(id=[7]), period=NONE)
    assert world.process(period=NONE).outcome == "delivered"  # type: ignore[union-attr]
    recalled(world, Scope(), "e.parquet")  # its batch lists the older d.parquet again
    assert rows_in_table() == [2, 3, 7]


def test_two_periods_at_once_add_the_same_column(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered(world)
    world.source.write(LATE, parquet(id=[4], note=["x"]), period=NEXT)
    world.source.write(B, parquet(id=[3], note=["y"]))
    commit = transfer_tables.commit

    def commit_after_another(*args: Any) -> Any:
        monkeypatch.setattr(transfer_tables, "commit", commit)
        delivered(world, NEXT)
        return commit(*args)

    monkeypatch.setattr(transfer_tables, "commit", commit_after_another)
    delivered(world)
    table = replay(world.bucket.contents())
    assert (table.version, table.columns) == (2, ["id", "note"])
    assert check(world) == [1, 2, 3, 4]


def test_a_feed_that_was_delivered_before_gets_its_table_by_a_command(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.feed = FEED
    world.process()
    world.source.write(LATE, parquet(id=[4], note=["x"]), period=NEXT)
    world.process(period=NEXT)
    with pytest.raises(ConfigError, match="not configured to be a table"):
        created(world)
    world.feed = FEED.model_copy(update={"table": TableFormat.DELTA})
    world.source.write(B, parquet(id=[5]))
    world.process()
    assert "table.missing" in events(caplog)
    contents = set(world.bucket.contents())
    assert created(world, dry_run=True).outcome == "dry_run"
    assert set(world.bucket.contents()) == contents
    made = created(world)
    assert (made.outcome, made.version, made.periods, made.files, made.rows) == ("created", 1, 2, 3, 4)
    assert check(world) == [1, 2, 4, 5]
    made = created(world)
    assert (made.outcome, made.version, made.periods, made.known) == ("nothing", 1, 0, 2)
    world.source.write(B, parquet(id=[6]))
    delivered(world)


def test_a_table_begins_without_what_has_expired_and_what_is_gone(world: World) -> None:
    world.feed = FEED
    world.process()
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    world.source.write("2026/11/23/b.parquet", parquet(id=[5]), period=NEXT)
    world.process(period=NEXT)
    world.clean(keep_last=1)
    world.take(f"{ROOT}{LATE}")
    world.feed = FEED.model_copy(update={"table": TableFormat.DELTA})
    made = created(world)
    assert (made.version, made.files, made.rows, made.missing) == (0, 1, 1, 1)
    assert set(replay(world.bucket.contents()).files) == {f"{ROOT}2026/11/23/b.parquet"}


def created(world: World, *, dry_run: bool = False, power: Any = None) -> tables.Created:
    with world.context(power) as context:
        return tables.create(context, configuration(world), "acme", "us-daily", dry_run=dry_run)


def test_a_table_of_schemas_that_do_not_fit_is_not_begun(world: World) -> None:
    world.feed = FEED
    world.process()
    world.source.write(LATE, parquet(id=["4"]), period=NEXT)
    world.process(period=NEXT)
    world.feed = FEED.model_copy(update={"table": TableFormat.DELTA})
    with pytest.raises(SchemaChanged, match="column id has the type string, not long"):
        created(world)
    assert not any("_delta_log" in key for key in world.bucket.contents())


def ended(world: World, power: Any = None) -> tables.Ended:
    with world.context(power) as context:
        return tables.end(context, configuration(world), "acme", "us-daily")


def test_a_table_ends_when_it_is_no_longer_configured_and_the_data_stay(world: World) -> None:
    delivered(world)
    with pytest.raises(ConfigError, match="still configured"):
        ended(world)
    world.customer = world.customer.model_copy(
        update={"feeds": {"us-daily": Subscription(table=TableFormat.NONE)}}
    )
    world.put(f"{ROOT}_delta_log/theirs.txt", b"notes")
    result = ended(world)
    assert (result.outcome, result.deleted) == ("ended", 1)
    assert result.left == [f"{ROOT}_delta_log/theirs.txt"]
    assert f"{ROOT}{A}" in world.bucket.contents()
    assert replay(world.bucket.contents()).version == -1
    with pytest.raises(ConfigError, match="no table"):
        ended(world)
    world.source.write(B, parquet(id=[8]))
    assert world.process().outcome == "delivered"  # type: ignore[union-attr]
    world.customer = world.customer.model_copy(update={"feeds": {"us-daily": Subscription()}})
    created(world)
    assert check(world) == [1, 2, 8]


def test_partition_columns_come_from_the_keys(world: World) -> None:
    for name in (A, B):
        world.source.remove(name)
    world.feed = world.feed.model_copy(update={"partition": "dt=%Y-%m-%d"})
    world.source.write("dt=2026-11-22/a.parquet", parquet(id=[1]), period=PERIOD)
    delivered(world)
    world.source.write("dt=2026-11-22/a.parquet", parquet(id=[2]), period=PERIOD)
    delivered(world)
    table = replay(world.bucket.contents())
    assert table.metadata["partitionColumns"] == ["dt"]
    assert [item["partitionValues"]["dt"] for item in table.files.values()] == ["2026-11-22"]
    fields = {item["name"]: item["type"] for item in json.loads(table.metadata["schemaString"])["fields"]}
    assert fields == {"id": "long", "dt": "date"}
    world.source.write("dt=2026-11-23/a.parquet", parquet(id=[4], dt=["2026"]), period=NEXT)
    assert "partition column" in refused(world, NEXT).message


def test_a_column_that_becomes_nullable_is_refused(world: World) -> None:
    not_null = pa.schema([pa.field("id", pa.int64(), nullable=False)])
    for name in (A, B):
        world.source.write(name, parquet_of(pa.table({"id": [1]}, schema=not_null)))
    delivered(world)
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    assert "column id can be null" in refused(world, NEXT).message


def test_layout_native_manifests_and_table_agree_through_everything(
    world: World, no_deliveries: Path
) -> None:
    layout = {"layout": "{feed}/dt={period:%Y-%m-%d}/{name}", "manifests": tuple(NativeKind)}
    world.feed = world.feed.model_copy(update=layout)

    unlisted: set[str] = set()

    def checked(*expected: int) -> None:
        contents = world.bucket.contents()
        listed = {
            line.removeprefix("s3://acme-data/")
            for key, body in contents.items()
            if "/_symlink/" in key
            for line in body.decode().splitlines()
        }
        assert listed == set(replay(contents).files)
        newest = sorted(key for key in contents if "/_redshift/" in key)
        for key in newest:
            entries = json.loads(contents[key])["entries"]
            assert all(entry["url"].removeprefix("s3://acme-data/") in contents for entry in entries)
        assert check(world) == list(expected)
        with world.context() as context:
            reader = Reader(world.customer, Limits(), world.clock, context.stop)
            verification = Verification(context, world.customer, Scope(), reader)
            assert [finding for _, finding in verification if finding is not None] == []
            listing = Listing(context, world.customer, {FEED.name: world.feed})
            standings = {item.key: item.standing for item in listing if item.there is not None}
        ours = (Standing.OURS, Standing.MANIFEST, Standing.TABLE)
        assert {key for key, how in standings.items() if how not in ours} <= unlisted

    delivered(world)
    checked(1, 2, 3)
    world.source.write(LATE, parquet(id=[4]), period=NEXT)
    delivered(world, NEXT)
    world.source.write(B, parquet(id=[5], note=["added"]))
    delivered(world)
    checked(1, 2, 4, 5)
    recalled(world, Scope(), "a.parquet")  # of both periods
    checked(5)
    world.source.write(LATE, parquet(id=[6]), period=NEXT)
    world.source.write("2026/11/23/c.parquet", parquet(id=[7]), period=NEXT)
    delivered(world, NEXT)
    checked(5, 6, 7)
    Path(shutil.copy(no_deliveries, Path(world.url.removeprefix("sqlite:///"))))
    world.feed = world.feed.model_copy(update={"layout": "{feed}/{period:%Y}/dt={period:%Y-%m-%d}/x-{name}"})
    adopted(world)
    unlisted = {f"{ROOT}dt=2026-11-22/b.parquet"}  # the recall deleted the manifest that listed it
    checked(5, 6, 7)
    world.source.write(B, parquet(id=[8]))
    delivered(world)
    checked(6, 7, 8)
    assert world.clean(keep_last=1) is not None
    checked(6, 7)
