"""What a queue of Procrastinate costs: to put a turn into it, to take one, to be done with one, and what each
turn asks of the database, for queues of several depths. With Procrastinate's own SQL on a real PostgreSQL.

    python benchmarks/fleet_queue.py
    python benchmarks/fleet_queue.py --depths 100,10000 --turns 500

Each turn is one customer's: taken (priority first), ended and deleted, and queued anew behind the others, so
that the queue stays as deep as it is. The times are those of the statements alone (synchronous_commit is off
for them); the turns a second are with commits that wait for the disk. The last rows hold vacuum back, as a
long transaction does (a dump, a forgotten session): what was deleted stays in the way of whoever looks for
the first.
"""

import argparse
import random
import statistics
import threading
import time
from dataclasses import dataclass
from importlib.resources import files

import database
import psycopg

TURNS, DEPTHS = 1_000, (100, 1_000, 10_000)
Connection = psycopg.Connection[tuple[object, ...]]

# As the ledger writes them (ledger/statements.py), without what it keeps beside them.
_PUT = """
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, queueing_lock, lock, args)
VALUES ('turns', 'turn', %s, %s, %s, jsonb_build_object('customer', %s::text))
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
"""
_TAKE = "SELECT id, args->>'customer' FROM procrastinate_fetch_job_v2(ARRAY['turns']::varchar[], %s)"
_DONE = "SELECT procrastinate_finish_job_v1(%s, 'succeeded', true)"


@dataclass(frozen=True)
class Costs:
    """Of one depth: milliseconds of the middle and of the 99th percentile, turns a second with so many
    takers at once, and what one turn asks of the database."""

    depth: int
    put_ms: tuple[float, float]
    take_ms: tuple[float, float]
    done_ms: tuple[float, float]
    per_second: dict[int, float]
    load: database.Load
    turns: int


def prepare(connection: Connection, depth: int, *, lock: bool = False) -> None:
    """A queue of so many customers, each with one turn, of priorities that are spread as in a fleet."""
    connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    connection.execute(files("procrastinate").joinpath("sql/schema.sql").read_text().encode())
    connection.execute("INSERT INTO procrastinate_workers DEFAULT VALUES")
    with connection.transaction():
        for number in range(depth):
            put(connection, number, random.randrange(-64, 0), lock=lock)
    connection.execute("VACUUM ANALYZE")


def put(connection: Connection, number: int, priority: int, *, lock: bool = False) -> None:
    name = f"customer-{number:05}"
    connection.execute(_PUT, (priority, f"turn/{name}", name if lock else None, name))


def _worker(connection: Connection) -> int:
    row = connection.execute("SELECT min(id) FROM procrastinate_workers").fetchone()
    assert row is not None
    return int(str(row[0]))


def turn(
    connection: Connection, worker: int, lowest: int, *, lock: bool = False
) -> tuple[float, float, float] | None:
    """One turn; seconds to take it, to be done, and to put the customer in again. None without one to take."""
    began = time.perf_counter()
    row = connection.execute(_TAKE, (worker,)).fetchone()
    taken = time.perf_counter()
    if row is None or row[0] is None:
        return None
    number, name = row
    connection.execute(_DONE, (number,))
    done = time.perf_counter()
    put(connection, int(str(name).rpartition("-")[2]), lowest, lock=lock)
    return taken - began, done - taken, time.perf_counter() - done


def measure(
    url: str, depth: int, turns: int, takers: tuple[int, ...] = (1, 4, 16), *, lock: bool = False
) -> Costs:
    """``lock`` also gives each job one of Procrastinate's own locks."""
    with psycopg.connect(url, autocommit=True) as connection:
        prepare(connection, depth, lock=lock)
        worker = _worker(connection)
        connection.execute("SET synchronous_commit = off")
        before = database.load(connection)
        took = [turn(connection, worker, -65 - number, lock=lock) for number in range(turns)]
        asked = database.load(connection).since(before)
        found = list(zip(*(item for item in took if item is not None), strict=True))
        per_second = {count: _at_once(url, worker, count, turns) for count in takers}
    take, done, again = (_in_ms(seconds) for seconds in found)
    return Costs(depth, again, take, done, per_second, asked, turns)


def measure_held_back(url: str, depth: int, turns: int) -> Costs:
    """The same while somebody's transaction stays open, from before so many turns: vacuum removes nothing."""
    with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url) as idle:
        prepare(connection, depth)
        worker = _worker(connection)
        connection.execute("SET synchronous_commit = off")
        idle.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        idle.execute("SELECT count(*) FROM procrastinate_jobs")
        for number in range(turns):
            turn(connection, worker, -65 - number // 100)
        before = database.load(connection)
        took = [turn(connection, worker, -65 - turns - number) for number in range(200)]
        asked = database.load(connection).since(before)
        idle.rollback()
    take, done, again = (_in_ms(seconds) for seconds in zip(*filter(None, took), strict=True))
    return Costs(depth, again, take, done, {}, asked, 200)


def _at_once(url: str, worker: int, takers: int, turns: int) -> float:
    """Turns a second, by so many connections that take them side by side."""
    each = max(1, turns // takers)
    ready = threading.Barrier(takers + 1)

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            ready.wait()
            for number in range(each):
                turn(connection, worker, -10_000 - number)

    threads = [threading.Thread(target=work) for _ in range(takers)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return takers * each / (time.perf_counter() - began)


def commit_ms(url: str) -> float:
    """What one small commit waits for the disk."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE one_row AS SELECT 0 AS number")
        took = []
        for _ in range(200):
            began = time.perf_counter()
            connection.execute("UPDATE one_row SET number = number + 1")
            took.append(time.perf_counter() - began)
        connection.execute("DROP TABLE one_row")
    return _in_ms(tuple(took))[0]


def _in_ms(seconds: tuple[float, ...]) -> tuple[float, float]:
    ordered = sorted(1000 * value for value in seconds)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99) - 1]


def table(found: list[Costs], locked: Costs | None, held_back: dict[int, Costs]) -> list[str]:
    """Markdown. ``locked`` has locks too; ``held_back`` is by how many turns were taken while vacuum could
    remove nothing."""
    lines = [
        (
            "| queued | put ms (p99) | take ms (p99) | done ms (p99) | turns/s by 1, 4, 16 takers | "
            "commits a turn | rows read a turn | log KB a turn |"
        ),
        "|---" * 8 + "|",
    ]
    rows: list[tuple[str, Costs]] = [(f"{one.depth:,}", one) for one in found]
    if locked is not None:
        rows.append((f"{locked.depth:,}, with Procrastinate's `lock` too", locked))
    rows += [
        (f"{one.depth:,}, and {turns:,} turns ended since vacuum could last remove any", one)
        for turns, one in held_back.items()
    ]
    for what, one in rows:
        cells = [
            what,
            *(f"{pair[0]:.2f} ({pair[1]:.2f})" for pair in (one.put_ms, one.take_ms, one.done_ms)),
            ", ".join(f"{rate:,.0f}" for rate in one.per_second.values()),
            f"{one.load.commits / one.turns:.1f}",
            f"{one.load.read / one.turns:,.0f}",
            f"{one.load.wal_bytes / one.turns / 1024:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depths", default=",".join(map(str, DEPTHS)))
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--held-back", default="10000,100000", help="turns while vacuum removes nothing")
    arguments = parser.parse_args()
    depths = [int(depth) for depth in arguments.depths.split(",")]
    with database.running() as url:
        print(f"  a commit waits {commit_ms(url):.2f} ms for the disk", flush=True)
        found = []
        for depth in depths:
            found.append(measure(url, depth, arguments.turns))
            print(f"  {depth:,} queued: take {found[-1].take_ms[0]:.2f} ms", flush=True)
        locked = measure(url, depths[-1], min(200, arguments.turns), (), lock=True)
        held = {
            int(turns): measure_held_back(url, depths[-1], int(turns))
            for turns in arguments.held_back.split(",")
            if turns
        }
    print("\n".join(table(found, locked, held)))


if __name__ == "__main__":
    main()
