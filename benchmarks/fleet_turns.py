"""What a job costs the ledger of a fleet: taken, told, ended and queued anew, with its lease and its result, each time in
the ledger's own transactions on a real PostgreSQL. Nothing is sent.

    python benchmarks/fleet_turns.py
    python benchmarks/fleet_turns.py --customers 1000 --turns 300

Each process writes by one thread; what processes have in common is the queue. So the jobs are taken by 1, 4 and 16
threads in each of 1 and 4 processes.
"""

import argparse
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import database
import psycopg

from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.jobs import JobRequest, JobResult
from xmode_transfer.service import cluster
from xmode_transfer.telemetry import SystemClock

CUSTOMERS, TURNS = 10_000, 1_000
TTL_SECONDS = 45.0


@dataclass(frozen=True)
class Found:
    """Of so many processes with so many threads: milliseconds of the middle, and turns a second."""

    processes: int
    threads: int
    begin_ms: float
    end_ms: float
    per_second: float


def prepare(url: str, customers: int) -> float:
    """A ledger with a fleet in which everybody is queued; seconds that queueing one of them took."""
    ledger = open_ledger(url, SystemClock())
    cluster.make(url)
    try:
        queue = ledger.queue
        names = [f"customer-{number:05}" for number in range(customers)]
        queue.register(dict.fromkeys(names, 1))
        began = time.perf_counter()
        with_threads(16, names, lambda name: queue.enqueue([JobRequest(name)]))
        return (time.perf_counter() - began) / customers
    finally:
        ledger.close()


def with_threads(count: int, names: list[str], work: Callable[[str], object]) -> None:
    def some(start: int) -> None:
        for name in names[start::count]:
            work(name)

    threads = [threading.Thread(target=some, args=(start,)) for start in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def take(url: str, holder: str, threads: int, names: list[str], answer: Connection) -> None:
    """In a process of its own: one turn of each of these, when it is told to begin."""
    ledger = open_ledger(url, SystemClock(), holder=holder)
    queue = ledger.queue
    began, ended = [], []

    def one(name: str) -> None:
        start = time.perf_counter()
        job = queue.next(holder, TTL_SECONDS, suspended=False)
        began.append(time.perf_counter() - start)
        if job is None:
            raise SystemExit(f"{name} was not queued")
        queue.delivers(job, "us-daily", "2026-11-25T00")
        start = time.perf_counter()
        queue.done(job, JobResult(again=True, looked=True))
        ended.append(time.perf_counter() - start)

    answer.send("ready")
    answer.recv()
    with_threads(threads, names, one)
    answer.send((began, ended))
    ledger.close()


def measure(url: str, customers: int, turns: int, processes: int, threads: int) -> Found:
    context = multiprocessing.get_context("spawn")
    names = [f"customer-{number:05}" for number in range(customers)][: max(turns, processes * threads)]
    here = []
    for number in range(processes):
        near, far = context.Pipe()
        work = (url, f"context-{number}-{processes}-{threads}", threads, names[number::processes], far)
        process = context.Process(target=take, args=work)
        process.start()
        near.recv()
        here.append((near, process))
    start = time.perf_counter()
    for near, _ in here:
        near.send("go")
    told = [near.recv() for near, _ in here]
    wall = time.perf_counter() - start
    for _, process in here:
        process.join()
    begin = statistics.median(value for began, _ in told for value in began)
    end = statistics.median(value for _, ended in told for value in ended)
    return Found(processes, threads, 1000 * begin, 1000 * end, len(names) / wall)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    with database.running() as url:
        call = prepare(url, arguments.customers)
        print(f"{arguments.customers:,} customers; to queue one takes {1000 * call:.2f} ms with 16 at once")
        print()
        print(
            "| processes x threads | begin ms | end ms | turns/s | rows read a turn | log KB a turn | commits a turn |"
        )
        print("|---|---|---|---|---|---|---|")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            for processes in (1, 4):
                for threads in (1, 4, 16):
                    before = database.load(connection)
                    found = measure(url, arguments.customers, arguments.turns, processes, threads)
                    asked = database.load(connection).since(before)
                    print(
                        f"| {processes} x {threads} | {found.begin_ms:.2f} | {found.end_ms:.2f} | {found.per_second:,.0f} | "
                        f"{asked.read / arguments.turns:,.0f} | {asked.wal_bytes / arguments.turns / 1024:.1f} | "
                        f"{asked.commits / arguments.turns:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
