"""Plans are read and staged straight through an index, and records are read as they were written."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.ledger import statements
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.objects import objects_of, pairs_of, receipt_row, stage
from xmode_transfer.ledger.rows import text_of, time_of
from xmode_transfer.ledger.schema import connect, prepare
from xmode_transfer.model.records import Checksum, PlannedObject, Receipt

EXAMPLE = {"period_id": 1, "revision": 1, "after": "", "after_revision": 0, "limit": 10}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = connect(f"sqlite:///{tmp_path}/ledger.db", create=True)
    prepare(database)
    yield database
    database.close()


@pytest.mark.parametrize(
    ("page", "walk"),
    [
        ("PLANNED_PAGE", "SEARCH objects USING PRIMARY KEY (period_id=? AND revision=? AND name>?)"),
        ("PENDING_PAGE", "SEARCH objects USING PRIMARY KEY (period_id=? AND revision=? AND name>?)"),
        ("DELIVERED_PAGE", "SEARCH receipts USING PRIMARY KEY (period_id=? AND (name,revision)>(?,?))"),
    ],
)
def test_a_page_is_read_through_an_index_without_sorting(database: Database, page: str, walk: str) -> None:
    query = database.prepared(getattr(statements, page))
    explain = f"EXPLAIN QUERY PLAN {query.sql}"
    plan = database.read(lambda c: [row[3] for row in c.exec_driver_sql(explain, query.arguments(**EXAMPLE))])
    assert plan[0] == walk
    assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step]


def test_staged_objects_are_invisible_and_lock_nothing(database: Database) -> None:
    planned = [PlannedObject(f"{n:05}", f"k/{n:05}", 1, 1, "i") for n in range(12_000)]
    with database.connected() as one:

        def source() -> Iterator[PlannedObject]:
            yield from planned
            with database.writing() as another:
                tables = another.exec_driver_sql("SELECT name FROM sqlite_temp_master").fetchall()
            assert tables == []

        assert stage(one, database, source()) == 12_000


texts = st.text(max_size=8)
zones = [UTC, timezone(timedelta(hours=-5)), timezone(timedelta(minutes=330))]
moments = st.datetimes(timezones=st.sampled_from(zones))
objects = st.builds(PlannedObject, texts, texts, st.integers(0, 2**50), st.integers(), texts, st.booleans())
receipts = st.builds(
    Receipt,
    texts,
    texts,
    st.integers(0, 2**50),
    st.builds(Checksum, texts, texts),
    texts,
    moments,
    st.none() | texts,
    st.none() | texts,
    st.just(False),
    st.just(False),
)


@given(objects, receipts)
def test_objects_and_receipts_are_read_as_they_were_written(item: PlannedObject, receipt: Receipt) -> None:
    receipt = receipt._replace(name=item.name)
    stored = item + receipt_row(receipt)[1:]
    assert list(pairs_of([stored])) == [(item, receipt)]
    assert list(pairs_of([(*stored, "one more column")])) == [(item, receipt)]
    assert list(pairs_of([item + (None,) * 8])) == [(item, None)]
    assert list(objects_of([item])) == [item]


@given(st.lists(moments, max_size=5))
def test_stored_times_sort_and_are_read_in_utc(times: list[datetime]) -> None:
    stored = [text_of(at) for at in times]
    assert [time_of(text) for text in sorted(stored)] == sorted(times)
    assert all(len(text) == 27 and time_of(text).tzinfo is UTC for text in stored)
