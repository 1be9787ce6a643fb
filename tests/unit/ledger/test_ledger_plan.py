"""How the plan is read and staged: straight through an index, and without leaving anything behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from xmode_transfer.ledger import statements
from xmode_transfer.ledger.database import Database
from xmode_transfer.ledger.objects import stage
from xmode_transfer.ledger.schema import connect, prepare
from xmode_transfer.model.records import PlannedObject

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
def test_a_page_is_one_walk_with_lookups_and_no_sorting(database: Database, page: str, walk: str) -> None:
    query = database.prepared(getattr(statements, page))
    plan = [row[3] for row in database.fetch(f"EXPLAIN QUERY PLAN {query.sql}", query.arguments(**EXAMPLE))]
    assert plan[0] == walk
    assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step]


def test_what_is_staged_is_seen_by_nobody_and_locks_nothing(database: Database) -> None:
    planned = [PlannedObject(f"{n:05}", f"k/{n:05}", 1, 1, "i") for n in range(12_000)]
    with database.connected() as one:

        def source() -> Iterator[PlannedObject]:
            yield from planned
            with database.writing() as another:
                tables = another.exec_driver_sql("SELECT name FROM sqlite_temp_master").fetchall()
            assert tables == []

        assert stage(one, database, source()) == 12_000
