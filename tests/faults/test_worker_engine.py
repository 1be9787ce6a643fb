"""The worker's engine on a real PostgreSQL with a real Procrastinate: its traps, and what it does when the
server goes away."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy

from xmode_transfer.bootstrap import queue_schema
from xmode_transfer.bootstrap.queue import LedgerQueue
from xmode_transfer.entrypoints.worker.engine import Engine
from xmode_transfer.services.worker import Worker

WAIT_SECONDS = 60.0


class Hands(Worker):
    """Takes turns as a worker does, and ends them when the test says so."""

    def __init__(self, places: int, waiting_places: int = 4) -> None:
        self.places = places
        self.waiting_places = waiting_places
        self.taken: list[tuple[str, bool]] = []
        self.running: dict[str, list[Callable[[], None]]] = {}  # a job may come before the last one is done
        self.most = 0
        self._changed = threading.Condition()

    def take(self, name: str, *, waiting: bool, freed: Callable[[], None]) -> None:
        with self._changed:
            self.taken.append((name, waiting))
            self.running.setdefault(name, []).append(freed)
            self.most = max(self.most, len(self.running))
            self._changed.notify_all()

    def end(self, *names: str) -> None:
        for name in names:
            with self._changed:
                freed = self.running[name].pop(0)
                if not self.running[name]:
                    del self.running[name]
            freed()

    def wait_for(self, *names: str) -> None:
        """Until exactly these have a turn."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.running.keys() == set(names), WAIT_SECONDS), (
                f"running: {sorted(self.running)}, not {sorted(names)}"
            )


class Database:
    """The queue as the ledger writes it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=sqlalchemy.NullPool
        )
        queue_schema.make(url)

    def put(self, *customers: str, waiting: bool = False) -> None:
        with self._engine.begin() as connection:
            for number, customer in enumerate(customers):
                LedgerQueue().put(connection, customer, priority=-number, waiting=waiting)

    def execute(self, sql: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def wait(self, sql: str, expected: object) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while (found := self.execute(sql)) != expected:
            assert time.monotonic() < until, f"{sql}: {found}, not {expected}"
            time.sleep(0.05)


JOBS = "SELECT args->>'customer', status::text FROM procrastinate_jobs ORDER BY id"
FETCHERS = "SELECT count(*) FROM procrastinate_workers"


@pytest.fixture
def database(postgres_url: str) -> Database:
    return Database(postgres_url)


@contextmanager
def working(worker: Hands, url: str) -> Iterator[Engine]:
    engine = Engine(worker, url)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        assert engine.wait(WAIT_SECONDS)


# --- Places ----------------------------------------------------------------------------------------------


def test_as_many_turns_run_at_once_as_there_are_places(database: Database) -> None:
    """Procrastinate gives synchronous tasks to the event loop's threads, of which there are fewer than 20 on
    a small machine."""
    worker = Hands(20)
    names = [f"customer-{number:02}" for number in range(30)]
    database.put(*names)
    with working(worker, database.url):
        worker.wait_for(*names[:20])
        worker.end(*names[:5])
        worker.wait_for(*names[5:25])
        worker.end(*names[5:25])
        worker.wait_for(*names[25:])
        worker.end(*names[25:])
        database.wait(JOBS, [])
    assert worker.most == 20
    assert len(worker.taken) == 30


def test_those_who_are_broken_off_take_no_place_of_those_who_get_on(database: Database) -> None:
    worker = Hands(2, waiting_places=2)
    database.put("broken-1", "broken-2", "broken-3", waiting=True)
    with working(worker, database.url):
        worker.wait_for("broken-1", "broken-2")
        database.put("fine-1", "fine-2", "fine-3")
        worker.wait_for("broken-1", "broken-2", "fine-1", "fine-2")
        worker.end("fine-1")
        worker.wait_for("broken-1", "broken-2", "fine-2", "fine-3")
        worker.end("broken-1", "broken-2", "fine-2", "fine-3")
        worker.wait_for("broken-3")
        worker.end("broken-3")
    assert [(name, waiting) for name, waiting in worker.taken if waiting] == [
        ("broken-1", True),
        ("broken-2", True),
        ("broken-3", True),
    ]


def test_a_turn_that_is_put_at_the_end_of_the_last_one_begins_without_a_poll(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmode_transfer.entrypoints.worker.fetching._POLL_SECONDS", 3600.0)
    # said again when the fetcher has looked for sure, on a slow machine too
    monkeypatch.setattr("xmode_transfer.entrypoints.worker.fetching._AGAIN_SECONDS", 1.0)
    worker = Hands(4)
    with working(worker, database.url):
        database.wait("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^LISTEN'", [(2,)])
        for _ in range(10):
            database.put("acme")
            worker.wait_for("acme")
            database.put("acme")  # as the end of a turn does, before its job is done
            worker.end("acme")
            worker.wait_for("acme")
            worker.end("acme")
    assert worker.taken == [("acme", False)] * 20


# --- The end ---------------------------------------------------------------------------------------------


def test_the_end_lets_go_of_the_jobs_and_leaves_the_turns(database: Database) -> None:
    worker = Hands(4)
    database.put("acme", "globex")
    with working(worker, database.url) as engine:
        worker.wait_for("acme", "globex")
        engine.stop()
        assert engine.wait(WAIT_SECONDS)
        database.put("initech")
    assert worker.running.keys() == {"acme", "globex"}  # they go on, and may end when nobody listens
    worker.end("acme", "globex")
    assert database.execute(JOBS) == [("initech", "todo")]
    assert database.execute(FETCHERS) == [(0,)]


def test_nothing_is_fetched_while_turns_are_not_wanted(database: Database) -> None:
    worker = Hands(4)
    with working(worker, database.url) as engine:
        database.put("acme")
        worker.wait_for("acme")
        engine.want(False)
        database.wait(FETCHERS, [(0,)])
        database.put("globex")
        worker.wait_for("acme")
        engine.want(True)
        worker.wait_for("acme", "globex")
        worker.end("acme", "globex")


def test_a_worker_that_was_never_let_in_ends_all_the_same(tmp_path: object) -> None:
    worker = Hands(4)
    with working(worker, "postgresql://postgres@127.0.0.1:1/nowhere"):
        time.sleep(0.2)
    assert worker.taken == []


# --- When the server goes away ---------------------------------------------------------------------------


@pytest.fixture
def server(own_postgres: Any) -> Any:
    return own_postgres


def test_a_server_that_is_restarted_is_found_again_and_what_runs_goes_on(server: Any) -> None:
    database = Database(server.url("xmode"))
    worker = Hands(2)
    with working(worker, database.url):
        database.put("acme", "globex")
        worker.wait_for("acme", "globex")
        server.restart()
        ((since,),) = database.execute("SELECT clock_timestamp()::text")
        database.wait(f"SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > '{since}'", [(2,)])
        database.put("initech")
        worker.wait_for("acme", "globex")  # both places are taken still, by turns from before
        worker.end("acme")
        worker.wait_for("globex", "initech")
        worker.end("globex", "initech")
        database.put("hooli")
        worker.wait_for("hooli")
        worker.end("hooli")
    assert worker.most == 2


def test_a_server_that_is_away_for_long_is_told_of_once_and_looked_for(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    database = Database(server.url("xmode"))
    worker = Hands(2)
    with working(worker, database.url):
        database.put("acme")
        worker.wait_for("acme")
        server.stop()
        worker.end("acme")
        _wait_for_event(caplog, "queue.lost")
        time.sleep(1.0)  # several tries, which all fail
        server.start()
        _wait_for_event(caplog, "queue.found")
        database.put("globex")
        worker.wait_for("globex")
        worker.end("globex")
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["queue.lost"]


def test_the_end_does_not_wait_for_a_server_that_answers_nothing(server: Any) -> None:
    database = Database(server.url("xmode"))
    worker = Hands(2)
    with working(worker, database.url) as engine:
        database.put("acme")
        worker.wait_for("acme")
        server.freeze()
        try:
            engine.stop()
            assert engine.wait(WAIT_SECONDS)
        finally:
            server.thaw()
    worker.end("acme")


def test_a_worker_whose_jobs_were_given_to_others_while_it_was_frozen_goes_on_fetching(
    database: Database,
) -> None:
    worker = Hands(2)
    with working(worker, database.url):
        database.put("acme")
        worker.wait_for("acme")
        # What others do to a worker that has not been heard of.
        database.execute("DELETE FROM procrastinate_jobs")
        database.execute("DELETE FROM procrastinate_workers")
        worker.end("acme")
        database.put("globex")
        worker.wait_for("globex")
        worker.end("globex")
        database.wait(JOBS, [])


def _wait_for_event(caplog: pytest.LogCaptureFixture, event: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while event not in [record.getMessage() for record in caplog.records]:
        assert time.monotonic() < until, event
        time.sleep(0.05)
