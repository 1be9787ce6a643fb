"""The power fails at every point of a delivery into a table, of its correction and of its expiry, once before
the call takes effect and once after.

At the cut, the table has the whole old delivery or the whole new one. After the next run, its rows are the
newest manifest's, and nothing was committed twice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pytest

from tests.delta_log import ROOT, keys_of_manifests, parquet, replay, rows, stored
from tests.forms import points
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.config import Configuration, Service
from xmode_transfer.model.delta import TableFormat
from xmode_transfer.model.errors import XmodeError
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.recall import RecallState
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.transfer import sending
from xmode_transfer.transfer.context import opened
from xmode_transfer.upkeep import tables
from xmode_transfer.upkeep.recall import Request, begin, carry_out, plan
from xmode_transfer.upkeep.table_check import TableCheck

NEXT = Period.parse("2026-11-23", PeriodKind.DAY)
FIRST = {
    "2026/11/22/a.parquet": parquet(id=[1, 2], price=[1.5, 2.5]),
    "2026/11/22/b.parquet": parquet(id=[3], price=[3.5]),
    "2026/11/22/readme.txt": b"not of the table",
}
CORRECTED = parquet(id=[3, 4], price=[3.5, 4.5], note=["new", None])


@pytest.fixture
def make_table(make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    def make() -> Any:
        world = make_world(FIRST)
        monkeypatch.setattr(sending, "LARGE_BYTES", 1_000_000)
        world.feed = world.feed.model_copy(update={"table": TableFormat.DELTA})
        return world

    return make


def check_whole(world: Any, *deliveries: set[str]) -> None:
    """The table is one of these deliveries, and each of its files is there."""
    contents = world.bucket.contents()
    files = set(replay(contents).files)
    assert files in deliveries
    assert files <= contents.keys()


def verify(world: Any) -> None:
    """`verify` names nothing that is only unfinished."""
    with world.context() as context, opened(context, world.customer, Step.VERIFY) as store:
        for table in context.ledger.tables.find():
            found = TableCheck(context, world.customer, store, table, Scope())
            assert [(item.known.key, item.judgement.message) for item in found] == []


def check_end(world: Any) -> None:
    contents = world.bucket.contents()
    table = replay(contents)
    verify(world)
    assert set(table.files) == keys_of_manifests(contents)
    for key in contents:
        assert len(world.bucket.versions(key)) == 1, key


A, B, B2 = (f"{ROOT}2026/11/22/{name}" for name in ("a.parquet", "b.parquet", "_r2/b.parquet"))


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_a_delivery_is_one_version(
    make_table: Callable[[], Any], make_power: Callable[..., Any], after: bool
) -> None:
    for at in points(18, first=1 + 9 * after):
        world = make_table()
        world.process(power := make_power(at, after=after))
        check_whole(world, set(), {A, B})
        verify(world)
        if not power.off:
            break
        assert world.process().outcome in ("delivered", "skipped")
        check_end(world)
        assert replay(world.bucket.contents()).version == 0
    assert at > 30


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_a_correction_is_one_version(
    make_table: Callable[[], Any], make_power: Callable[..., Any], after: bool, tmp_path: Path
) -> None:
    for at in points(24, first=1 + 12 * after):
        world = make_table()
        world.process()
        world.source.write("2026/11/22/b.parquet", CORRECTED)
        world.process(power := make_power(at, after=after))
        check_whole(world, {A, B}, {A, B2})
        verify(world)
        if not power.off:
            break
        assert world.process().outcome in ("delivered", "skipped")
        check_end(world)
        assert replay(world.bucket.contents()).version == 1
    assert at > 30
    contents = world.bucket.contents()
    root = stored(contents, tmp_path / f"bucket-{after}") / ROOT
    table = deltalake.DeltaTable(str(root))
    read = sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["id"])
    assert read == [
        {"id": 1, "price": 1.5, "note": None},
        {"id": 2, "price": 2.5, "note": None},
        {"id": 3, "price": 3.5, "note": "new"},
        {"id": 4, "price": 4.5, "note": None},
    ]


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_an_expiry_leaves_the_table_first(
    make_table: Callable[[], Any], make_power: Callable[..., Any], after: bool
) -> None:
    for at in points(18, first=1 + 9 * after):
        world = make_table()
        world.process()
        world.source.write("2026/11/23/a.parquet", FIRST["2026/11/22/a.parquet"], period=NEXT)
        world.process(period=NEXT)
        late = f"{ROOT}2026/11/23/a.parquet"
        world.clean(power := make_power(at, after=after), keep_last=1)
        check_whole(world, {A, B, late}, {late})
        verify(world)
        if not power.off:
            break
        world.clean(keep_last=1)
        contents = world.bucket.contents()
        assert set(replay(contents).files) == {late} == keys_of_manifests(contents)
        assert replay(contents).version == 2
        assert rows(contents, [late]) == [{"id": 1, "price": 1.5}, {"id": 2, "price": 2.5}]
        assert A not in contents
    assert at > 20


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_a_recall_leaves_the_table_first(
    make_table: Callable[[], Any], make_power: Callable[..., Any], after: bool
) -> None:
    def carried_out(recall: str, power: Any = None) -> RecallState | None:
        with world.context(power) as context:
            try:
                work = (context, configuration(world), recall, "acme")
                return carry_out(*work, may_send=lambda feed, state: True).state
            except XmodeError:
                return None

    for at in points(26, first=1 + 13 * after):
        world = make_table()
        world.process()
        with world.context() as context:
            of = Request("us-daily", Scope(), ("b.parquet",), (), None, "an opt-out", "alice", "")
            made = plan(context, configuration(world), of)
            begin(context, made, Path(world.url.removeprefix("sqlite:///")).with_suffix(".jsonl"))
        carried_out(made.recall.id, power := make_power(at, after=after))
        check_whole(world, {A, B}, {A})
        verify(world)
        if not power.off:
            break
        assert carried_out(made.recall.id) is RecallState.DONE
        check_end(world)
        assert B not in world.bucket.contents()
        assert replay(world.bucket.contents()).version == 1
    assert at > 30


def configuration(world: Any) -> Configuration:
    return Configuration(Service(), {"us-daily": world.feed}, {"acme": world.customer}, {})


@pytest.mark.short
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_power_fails_a_table_is_begun_and_ended(
    make_table: Callable[[], Any], make_power: Callable[..., Any], after: bool
) -> None:
    def work(command: Callable[..., Any], power: Any = None) -> Any:
        with world.context(power) as context:
            try:
                return command(context, configuration(world), "acme", "us-daily")
            except XmodeError:
                return None

    is_table = {"update": {"table": TableFormat.DELTA}}
    ends = 0
    for at in points(30, first=1 + 15 * after):
        world = make_table()
        world.feed = plain = world.feed.model_copy(update={"table": None})
        world.process()
        world.source.write("2026/11/23/a.parquet", FIRST["2026/11/22/a.parquet"], period=NEXT)
        world.process(period=NEXT)
        late = f"{ROOT}2026/11/23/a.parquet"
        world.feed = plain.model_copy(**is_table)
        work(tables.create, power := make_power(at, after=after))
        check_whole(world, set(), {A, B}, {A, B, late})
        begun = not power.off
        assert work(tables.create) is not None
        check_end(world)
        assert replay(world.bucket.contents()).version == 1
        world.feed = plain
        data = {key for key in world.bucket.contents() if "_delta_log" not in key}
        work(tables.end, power := make_power(at, after=after))
        if power.off:
            work(tables.end)
            ends += 1
        assert set(world.bucket.contents()) == data
        with world.context() as context:
            assert context.ledger.tables.find() == []
        if begun:
            break
    assert at > 30
    assert ends
