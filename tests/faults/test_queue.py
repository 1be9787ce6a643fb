"""The queue in the database of the ledger, against a real server: what several do with it at once, and how
its tables are made."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import resources

import psycopg
import pytest
from procrastinate.schema import SchemaManager

from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.jobs import Job, JobRequest, JobResult, WorkQueue
from xmode_transfer.model.process import WorkerRecord
from xmode_transfer.service import cluster
from xmode_transfer.telemetry import SystemClock

TTL = 45.0
NAMES = [f"customer-{number:02}" for number in range(40)]


@pytest.fixture
def ledgers(shared_queue: str) -> Iterator[Callable[[], Ledger]]:
    """Opens the ledger as another process would."""
    opened: list[Ledger] = []

    def open_it() -> Ledger:
        opened.append(open_ledger(shared_queue, SystemClock()))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


def drained(queue: WorkQueue) -> list[str]:
    """Whose jobs were queued, in their order."""
    names = []
    while (job := queue.next("worker", TTL, suspended=False)) is not None:
        queue.done(job, JobResult(looked=True))
        names.append(job.customer)
    return names


# --- Several at once -------------------------------------------------------------------------------------


def test_those_who_enqueue_the_same_customers_at_once_queue_one_job_each(
    ledgers: Callable[[], Ledger],
) -> None:
    queues = [ledgers().queue for _ in range(4)]
    queues[0].register(dict.fromkeys(NAMES, 1))

    def enqueue(number: int) -> None:
        names = NAMES if number % 2 else NAMES[::-1]  # in whatever order they are asked for
        queues[number % 4].enqueue(JobRequest(name) for name in names)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(enqueue, range(40)))
    assert drained(queues[0]) == NAMES


def test_many_that_take_at_once_take_each_job_once(ledgers: Callable[[], Ledger]) -> None:
    queues = [ledgers().queue for _ in range(4)]
    queues[0].register(dict.fromkeys(NAMES, 1))
    queues[0].enqueue(map(JobRequest, NAMES))

    def take(number: int) -> list[Job]:
        found = []
        while (job := queues[number].next(f"host-{number}", TTL, suspended=False)) is not None:
            found.append(job)
        return found

    with ThreadPoolExecutor(4) as threads:
        taken = [job for jobs in threads.map(take, range(4)) for job in jobs]
    assert sorted(job.customer for job in taken) == NAMES
    assert len({job.number for job in taken}) == len(NAMES)


def test_who_is_asked_for_while_its_job_is_being_taken_has_another_one(
    shared_queue: str, ledgers: Callable[[], Ledger]
) -> None:
    """The request waits for the transaction that takes the job, and then finds that it runs, or that it is
    queued still."""
    one, other = ledgers().queue, ledgers().queue
    one.register({"acme": 1})
    for outcome in ("commit", "rollback"):
        one.enqueue([JobRequest("acme")])
        with psycopg.connect(shared_queue) as taking:
            taking.execute("SELECT procrastinate_fetch_job_v2(ARRAY['regular']::varchar[], NULL)")
            asking = threading.Thread(target=other.enqueue, args=([JobRequest("acme", True)],))
            asking.start()
            while not blocked(shared_queue):
                assert asking.is_alive()
            getattr(taking, outcome)()
            asking.join(120)
        with psycopg.connect(shared_queue, autocommit=True) as connection:
            jobs = connection.execute(
                "SELECT status::text, (args->>'skip_backoff')::boolean FROM procrastinate_jobs ORDER BY id"
            ).fetchall()
            connection.execute("DELETE FROM procrastinate_jobs")
        assert jobs == ([("doing", False), ("todo", True)] if outcome == "commit" else [("todo", True)])


def blocked(url: str) -> bool:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0)"
        ).fetchone()
    return found is not None and bool(found[0])


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
    made = [name for name in cluster.known() if name <= upto]
    with psycopg.connect(url, autocommit=True) as connection:
        for name in made:
            connection.execute(resources.files(MIGRATIONS).joinpath(name).read_bytes())
        connection.execute("CREATE TABLE queue_migrations (name text PRIMARY KEY, made_at timestamptz)")
        for name in made:
            connection.execute("INSERT INTO queue_migrations (name) VALUES (%s)", (name,))


def test_many_that_start_at_once_make_the_tables_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(cluster.make, [postgres_url] * 6))
    assert noted(postgres_url) == cluster.known()
    cluster.make(postgres_url)


def test_tables_that_another_process_makes_meanwhile_are_ours(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_table = cluster._has_table

    def and_then_another_makes_them(connection: "psycopg.Connection[object]", name: str) -> bool:
        found = has_table(connection, name)
        monkeypatch.setattr(cluster, "_has_table", has_table)
        cluster.make(postgres_url)
        return found

    monkeypatch.setattr(cluster, "_has_table", and_then_another_makes_them)
    cluster.make(postgres_url)
    assert noted(postgres_url) == cluster.known()


def test_an_older_queue_is_brought_up_to_date(make_database: Callable[..., str]) -> None:
    older, newest = make_database(), make_database()
    made_by_an_older_release(older, "03.02.00_50_post_batch_defer_jobs.sql")
    cluster.make(older)
    cluster.make(newest)
    assert noted(older) == cluster.known()
    assert structure(older) == structure(newest)


def test_what_older_workers_do_not_bear_waits_until_none_lives(postgres_url: str) -> None:
    clock = SystemClock()
    ledger = open_ledger(postgres_url, clock)
    made_by_an_older_release(postgres_url, "03.02.00_50_post_batch_defer_jobs.sql")
    worker = WorkerRecord("host", clock.now(), clock.now(), places=1)
    ledger.queue.beat(worker)
    cluster.make(postgres_url)
    last = "03.04.00_50_post_add_retry_failed_job_procedure.sql"
    assert noted(postgres_url) == [name for name in cluster.known() if name != last]
    ledger.queue.beat(replace(worker, stopping=True, stopped_at=clock.now()))
    cluster.make(postgres_url)
    assert noted(postgres_url) == cluster.known()
    ledger.close()


def test_tables_that_somebody_else_made_are_left_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(SchemaManager.get_schema())
    with pytest.raises(ConfigError, match="xmode-transfer did not create") as told:
        cluster.make(postgres_url)
    assert "its own database or schema" in told.value.hint


def test_a_newer_queue_is_refused_where_we_would_not_understand_it(postgres_url: str) -> None:
    cluster.make(postgres_url)

    def note(name: str) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("INSERT INTO queue_migrations (name) VALUES (%s)", (name,))

    note("99.00.00_01_pre_more.sql")  # in the middle of a rolling upgrade
    cluster.make(postgres_url)
    note("99.00.00_50_post_more.sql")
    with pytest.raises(ConfigError, match="newer Procrastinate") as told:
        cluster.make(postgres_url)
    assert "same release" in told.value.hint


def test_the_last_release_s_second_half_goes_before_the_next_one_s_first() -> None:
    missing = ["1_pre_a", "1_50_post_a", "2_pre_b", "2_50_post_b"]
    assert cluster.due(missing, is_alone=False) == missing[:3]
    assert cluster.due(missing, is_alone=True) == missing
    assert cluster.due(["1_50_post_a"], is_alone=False) == []
