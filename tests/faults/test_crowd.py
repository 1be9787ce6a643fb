"""Many processes and threads that write in one ledger on PostgreSQL at once."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from xmode_transfer.bootstrap import queue_schema

PROCESSES, SECONDS = 3, 6


@pytest.mark.timeout(300)
def test_a_crowd_of_writers_never_waits_in_a_circle(
    postgres_ledger: str, figures: Callable[..., None]
) -> None:
    """The server would find a circle after a second, and make one of them begin anew. Nothing would be lost,
    but it would be a second in which that process writes nothing."""
    queue_schema.make(postgres_ledger)
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
        out, err = process.communicate(timeout=200)
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
    assert did["turns"] > PROCESSES
    assert deadlocks == 0
