"""Many processes and threads that write in one ledger on PostgreSQL at once."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from tests.forms import IS_SOAK
from xmode_transfer.ledger import leases, open_ledger
from xmode_transfer.ledger.database import Database
from xmode_transfer.model.errors import LeaseLost
from xmode_transfer.model.records import Lease
from xmode_transfer.service import cluster
from xmode_transfer.telemetry import SystemClock

PROCESSES, SECONDS = 3, 30 if IS_SOAK else 1


@pytest.mark.short
@pytest.mark.timeout(600)
def test_a_crowd_of_writers_never_waits_in_a_circle(
    postgres_ledger: str, figures: Callable[..., None]
) -> None:
    """The server would find a circle after a second, and make one of them begin anew. Nothing would be lost,
    but it would be a second in which that process writes nothing."""
    cluster.make(postgres_ledger)
    program = Path(__file__).with_name("crowd.py")
    crowd = [
        subprocess.Popen(
            [sys.executable, program, postgres_ledger, str(SECONDS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    did: Counter[str] = Counter()
    errors: list[Any] = []
    for process in crowd:
        out, err = process.communicate(timeout=540)
        assert process.returncode == 0, err
        told = json.loads(out)
        did.update(told["did"])
        errors += told["errors"]
    assert not errors, errors[0]
    with psycopg.connect(postgres_ledger, autocommit=True) as connection:
        (deadlocks,) = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone() or (None,)
        lost = connection.execute(
            "SELECT count(*) FROM deliveries JOIN objects USING (period_id, revision) "
            "LEFT JOIN receipts USING (period_id, revision, name) "
            "WHERE status = 'delivered' AND receipts.name IS NULL"
        ).fetchone()
    figures(f"{PROCESSES} processes, {SECONDS} s: {dict(did)}, {deadlocks} deadlocks")
    assert lost == (0,)
    assert min(did["turns"], did["uploads"], did["renewed"]) > 0
    assert deadlocks == 0


@pytest.mark.timeout(600)
def test_nobody_writes_under_a_lease_that_another_has_claimed(postgres_ledger: str) -> None:
    """Writers and renewals pass each other. A claim passes nobody: what was written under the lease before it
    is there when it is made, and nothing comes later."""
    clock = SystemClock()
    with ExitStack() as stack:
        ledgers = [open_ledger(postgres_ledger, clock) for _ in range(4)]
        for ledger in ledgers:
            stack.callback(ledger.close)
        claiming, renewing, *_ = (ledger.leases for ledger in ledgers)
        claimer, _, *writers = (ledger._database for ledger in ledgers)
        claimer.write(lambda c: c.exec_driver_sql("CREATE TABLE written (generation bigint)"))
        held = [claimer.write(lambda c: _claim(c, claiming))]
        seen: dict[int, int] = {}
        refused: list[int] = []
        over = Event()

        def repeat(what: Callable[[], object]) -> None:
            while not over.is_set():
                try:
                    what()
                except LeaseLost:
                    refused.append(1)

        def write(database: Database) -> None:
            lease = held[0]

            def action(connection: Connection) -> None:
                leases.check(connection, lease)
                connection.exec_driver_sql(f"INSERT INTO written VALUES ({lease.generation})")

            database.write(action)

        def renew() -> None:
            renewing.renew(held[0], 0)

        def claim() -> None:
            def action(connection: Connection) -> tuple[Lease, int]:
                lease = _claim(connection, claiming)
                return lease, _written(connection, lease.generation)

            lease, count = claimer.write(action)
            held[0], seen[lease.generation] = lease, count
            sleep(0.002)

        with ThreadPoolExecutor(8) as threads:
            does = [partial(write, writers[number % 2]) for number in range(4)]
            repeated = [threads.submit(repeat, what) for what in (*does, renew, claim)]
            for _ in range(60):  # a second or two, and on a slow machine until there is something to see
                sleep(2)
                if len(seen) > 5 and refused:
                    break
            over.set()
        for future in repeated:
            future.result()
        assert len(seen) > 5
        assert refused
        later = claimer.read(lambda c: {generation: _written(c, generation) for generation in seen})
    assert later == seen


def _claim(connection: Connection, claiming: leases.Leases) -> Lease:
    """For no time, so that anybody may claim it next."""
    return claiming.claim_in(connection, "work", "anybody", None, 0)


def _written(connection: Connection, before: int) -> int:
    query = f"SELECT count(*) FROM written WHERE generation < {before}"
    return int(connection.exec_driver_sql(query).scalar_one())
