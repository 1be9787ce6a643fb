"""The queue in the database of the ledger, against a real server: jobs that are lost, and those that a
transaction has written or taken that comes to nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import resources

import psycopg
import pytest
import sqlalchemy
from procrastinate.schema import SchemaManager
from sqlalchemy import Connection, Engine

from xmode_transfer.adapters.clock import SystemClock
from xmode_transfer.adapters.ledger import open_ledger
from xmode_transfer.bootstrap import queue_schema
from xmode_transfer.bootstrap.queue import TURNS, WAITING, LedgerQueue
from xmode_transfer.domain.errors import ConfigError
from xmode_transfer.domain.fleet import WorkerRecord


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    queue_schema.make(postgres_url)
    engine = _engine(postgres_url)
    yield engine
    engine.dispose()


def _engine(url: str) -> Engine:
    return sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))


def rows(connection: Connection, sql: str, *values: object) -> list[tuple[object, ...]]:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql, values)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []  # type: ignore[return-value]
    finally:
        cursor.close()


def jobs(connection: Connection) -> list[tuple[object, ...]]:
    return rows(
        connection,
        "SELECT args->>'customer', queue_name, priority, status::text FROM procrastinate_jobs ORDER BY id",
    )


# --- What is put, and when it counts ---------------------------------------------------------------------


def test_a_job_stands_and_falls_with_the_transaction_that_wrote_it(engine: Engine) -> None:
    queue = LedgerQueue()
    with engine.connect() as connection:
        queue.put(connection, "acme", priority=-3, waiting=False)
        connection.rollback()
    with engine.connect() as connection:
        assert jobs(connection) == []
        queue.put(connection, "acme", priority=-3, waiting=False)
        connection.commit()
    with engine.connect() as connection:
        assert jobs(connection) == [("acme", TURNS, -3, "todo")]


def test_a_customer_has_one_queued_job_at_most_and_the_transaction_goes_on(engine: Engine) -> None:
    queue = LedgerQueue()
    with engine.begin() as connection:
        queue.put(connection, "acme", priority=-3, waiting=False)
        queue.put(connection, "acme", priority=7, waiting=True)
        queue.put(connection, "globex", priority=-1, waiting=True)
    with engine.connect() as connection:
        assert jobs(connection) == [("acme", TURNS, -3, "todo"), ("globex", WAITING, -1, "todo")]


def test_two_that_put_the_same_customer_at_once_put_one_job(engine: Engine) -> None:
    queue = LedgerQueue()

    def put(number: int) -> None:
        with engine.begin() as connection:
            for customer in ("acme", "globex", "initech"):
                queue.put(connection, customer, priority=number, waiting=False)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(40)))
    with engine.connect() as connection:
        assert sorted(str(customer) for customer, *_ in jobs(connection)) == ["acme", "globex", "initech"]


def test_the_higher_priority_is_taken_first_then_who_was_put_first(engine: Engine) -> None:
    queue = LedgerQueue()
    with engine.begin() as connection:
        for customer, priority in (("low", -9), ("first", -1), ("second", -1), ("high", 0)):
            queue.put(connection, customer, priority=priority, waiting=False)
        queue.put(connection, "apart", priority=9, waiting=True)
        found = [queue.take(connection, waiting=False) for _ in range(5)]
        assert found == ["high", "first", "second", "low", None]
        assert [queue.take(connection, waiting=True) for _ in range(2)] == ["apart", None]
        assert jobs(connection) == []


def test_who_is_taken_out_is_not_taken(engine: Engine) -> None:
    queue = LedgerQueue()
    with engine.begin() as connection:
        queue.put(connection, "acme", priority=0, waiting=False)
        queue.put(connection, "globex", priority=0, waiting=False)
        queue.take_out(connection, "acme")
        queue.take_out(connection, "nobody")
        assert queue.take(connection, waiting=False) == "globex"


# --- What is taken ---------------------------------------------------------------------------------------


def test_a_job_that_is_taken_by_a_transaction_that_comes_to_nothing_is_there_still(engine: Engine) -> None:
    """A worker that dies, or loses the server, between the job and the turn leaves nothing behind."""
    queue = LedgerQueue()
    with engine.begin() as connection:
        queue.put(connection, "acme", priority=0, waiting=False)
    with engine.connect() as connection:
        assert queue.take(connection, waiting=False) == "acme"
        connection.rollback()
    with engine.begin() as connection:
        assert jobs(connection) == [("acme", TURNS, 0, "todo")]
        assert queue.take(connection, waiting=False) == "acme"
        queue.put(connection, "acme", priority=-1, waiting=False)  # the next one waits for nothing
        assert queue.take(connection, waiting=False) == "acme"


def test_many_that_take_at_once_take_each_job_once_and_wait_for_nobody(engine: Engine) -> None:
    queue = LedgerQueue()
    names = [f"customer-{number:02}" for number in range(40)]
    with engine.begin() as connection:
        for name in names:
            queue.put(connection, name, priority=0, waiting=False)
    with engine.connect() as slow:
        taken = [queue.take(slow, waiting=False)]

        def take(_: int) -> list[str | None]:
            with engine.begin() as connection:
                return [queue.take(connection, waiting=False) for _ in range(5)]

        with ThreadPoolExecutor(8) as threads:
            for some in threads.map(take, range(8)):
                taken += some
        slow.commit()
    assert sorted(filter(None, taken)) == names


def test_queued_customers_whose_job_is_gone_are_lost(engine: Engine) -> None:
    queue = LedgerQueue()
    with engine.begin() as connection:
        queue.put(connection, "queued", priority=0, waiting=True)
        names = ["removed", "queued"]
        assert queue.lost(connection, names) == ["removed"]
        queue.put(connection, "removed", priority=0, waiting=False)
        assert queue.lost(connection, names) == []
        assert queue.lost(connection, []) == []


# --- Procrastinate's tables ------------------------------------------------------------------------------

MIGRATIONS = "procrastinate.sql.migrations"
STRUCTURE = """
    SELECT 'function', p.proname, pg_get_function_arguments(p.oid), md5(p.prosrc)
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'procrastinate%'
    UNION ALL
    SELECT 'index', indexname, indexdef, '' FROM pg_indexes WHERE tablename LIKE 'procrastinate%'
    UNION ALL
    SELECT 'column', table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name LIKE 'procrastinate%'
    ORDER BY 1, 2, 3
"""


def structure(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return list(connection.execute(STRUCTURE))


def noted(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM queue_migrations ORDER BY name")]


def made_by_an_older_release(url: str, upto: str) -> None:
    """The queue as a release made it whose last migration is ``upto``."""
    made = [name for name in queue_schema.known() if name <= upto]
    with psycopg.connect(url, autocommit=True) as connection:
        for name in made:
            connection.execute(resources.files(MIGRATIONS).joinpath(name).read_bytes())
        connection.execute("CREATE TABLE queue_migrations (name text PRIMARY KEY, made_at timestamptz)")
        for name in made:
            connection.execute("INSERT INTO queue_migrations (name) VALUES (%s)", (name,))


def test_many_that_start_at_once_make_the_tables_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(queue_schema.make, [postgres_url] * 6))
    assert noted(postgres_url) == queue_schema.known()
    queue_schema.make(postgres_url)


def test_an_older_queue_is_brought_up_to_date(make_database: Callable[..., str]) -> None:
    older, newest = make_database(), make_database()
    made_by_an_older_release(older, "03.02.00_50_post_batch_defer_jobs.sql")
    queue_schema.make(older)
    queue_schema.make(newest)
    assert noted(older) == queue_schema.known()
    assert structure(older) == structure(newest)


def test_what_older_workers_do_not_bear_waits_until_none_lives(postgres_url: str) -> None:
    clock = SystemClock()
    ledger = open_ledger(postgres_url, clock)
    made_by_an_older_release(postgres_url, "03.02.00_50_post_batch_defer_jobs.sql")
    worker = WorkerRecord("host", clock.now(), clock.now(), places=1)
    ledger.fleet(LedgerQueue()).beat(worker)
    queue_schema.make(postgres_url)
    last = "03.04.00_50_post_add_retry_failed_job_procedure.sql"
    assert noted(postgres_url) == [name for name in queue_schema.known() if name != last]
    ledger.fleet(LedgerQueue()).beat(replace(worker, stopping=True, stopped_at=clock.now()))
    queue_schema.make(postgres_url)
    assert noted(postgres_url) == queue_schema.known()
    ledger.close()


def test_tables_that_somebody_else_made_are_left_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(SchemaManager.get_schema())
    with pytest.raises(ConfigError, match="not made by xmode-transfer") as told:
        queue_schema.make(postgres_url)
    assert "a database or a schema" in told.value.hint


def test_a_newer_queue_is_refused_where_we_would_not_understand_it(postgres_url: str) -> None:
    queue_schema.make(postgres_url)

    def note(name: str) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("INSERT INTO queue_migrations (name) VALUES (%s)", (name,))

    note("99.00.00_01_pre_more.sql")  # in the middle of a rolling upgrade
    queue_schema.make(postgres_url)
    note("99.00.00_50_post_more.sql")
    with pytest.raises(ConfigError, match="newer Procrastinate") as told:
        queue_schema.make(postgres_url)
    assert "same release" in told.value.hint


def test_the_last_release_s_second_half_goes_before_the_next_one_s_first() -> None:
    missing = ["1_pre_a", "1_50_post_a", "2_pre_b", "2_50_post_b"]
    assert queue_schema.due(missing, is_alone=False) == missing[:3]
    assert queue_schema.due(missing, is_alone=True) == missing
    assert queue_schema.due(["1_50_post_a"], is_alone=False) == []
