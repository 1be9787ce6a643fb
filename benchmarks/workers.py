"""The set `workers`: one, two and four real worker processes that share a ledger on PostgreSQL, with S3 50 ms away;
and what a delivery costs more there than by `run` on SQLite.

Each worker has few places and few requests in flight, so that what is measured is the distance and the sharing,
not the cores of one machine. All of it comes from the ledger's own times: from the first run's start to the last
delivery, so that no process's start counts.

    python benchmarks/workers.py                  48 customers x 100 objects, two rounds
    python benchmarks/workers.py --days 12        12 customers
"""

import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import clients
import database
import psycopg
import sink as sinks
from measuring import CACHE, Measured, Runs, alone, measure, note

NAME, WHAT = "workers", "48 customers x 100 x 16 KiB by 1, 2 and 4 workers, 50 ms away"
PEERS = False
"""Nobody else shares work like this."""
DAYS, ROUNDS = 48, 2
"""``DAYS`` is the number of customers."""
OBJECTS, SIZE = 100, 16 * 1024
ROUND_TRIP_SECONDS = 0.05
WORKERS = (1, 2, 4)
PLACES, IN_FLIGHT = 2, 2
"""Of each worker: turns at once, and requests for all of them together."""
SMALL = 100
"""Deliveries of one object each, for the overhead."""
PATIENCE_SECONDS = 900
_SPAN = "SELECT (SELECT min(started_at) FROM runs), max(delivered_at) FROM deliveries"
_PROGRAM = str(Path(sys.executable).with_name("xmode-transfer"))
_SMALL_FLEET, _SMALL_RUN = f"{SMALL} small, 1 worker", f"{SMALL} small, run"


def write_config(directory: Path, data: Path, ledger: str, customers: int) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    clients.write_config(directory, data, customers=customers)
    service = {
        "ledger": ledger,
        "status_page": False,
        "limits": {"parallel_objects": IN_FLIGHT},
        "daemon": {"spread_seconds": 0},
    }
    (directory / "service.yaml").write_text(json.dumps(service))
    return directory


@contextmanager
def started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.returncode is None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()


def by_fleet(
    url: str, config: Path, workers: int, places: int, customers: int, environment: dict[str, str]
) -> Measured:
    """Wall seconds by the ledger's times; CPU and memory of daemon and workers."""
    log = CACHE / "workers.log"
    command = [_PROGRAM, "--config", str(config), "--log-level", "warning"]
    with psycopg.connect(url, autocommit=True) as connection, ExitStack() as ended:
        processes = [
            ended.enter_context(started([*command, "worker", "--places", str(places)], environment, log))
            for _ in range(workers)
        ]
        _until(connection, "SELECT count(*) FROM workers", workers, processes, log)
        daemon = [*command, "daemon", "--engine", "procrastinate"]
        processes.append(ended.enter_context(started(daemon, environment, log)))
        delivered = "SELECT count(*) FROM deliveries WHERE status = 'delivered'"
        _until(connection, delivered, customers, processes, log)
        wall = _seconds(connection.execute(_SPAN.encode()).fetchone())
        usages = []
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            usages.append(usage)
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    rss = max(usage.ru_maxrss for usage in usages) / 1024
    return Measured(wall, cpu, rss, 0)


def _seconds(row: "tuple[object, ...] | None") -> float:
    assert row is not None
    first, last = (datetime.fromisoformat(str(value)) for value in row)
    return (last - first).total_seconds()


def _until(
    connection: "psycopg.Connection[tuple[object, ...]]",
    query: str,
    count: int,
    processes: list[subprocess.Popen[bytes]],
    log: Path,
) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            raise SystemExit(f"a daemon or worker has ended; see {log}")
        try:
            row = connection.execute(query.encode()).fetchone()
        except psycopg.errors.UndefinedTable:
            row = None  # the first worker is making the ledger
        if row is not None and int(str(row[0])) >= count:
            return
        time.sleep(0.05)
    raise SystemExit(f"the fleet has not got on; see {log}")


@contextmanager
def fresh(server: str, number: int) -> Iterator[str]:
    """A database of its own on the server."""
    name = f"ledger_{number}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield database.named(server, name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _make(data: Path, objects: int, size: int) -> Path:
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    for number in range(objects):
        (data / f"{number:05}.bin").write_bytes(os.urandom(size))
    return data


def run(count: int, rounds: int, peers: Path) -> Runs:
    del peers
    state = CACHE / "workers-state"
    shutil.rmtree(state, ignore_errors=True)
    (CACHE / "workers.log").unlink(missing_ok=True)
    results: Runs = {}
    number = 0
    with database.running(max_wal_size="4GB") as server:
        large, small = _make(state / "large", OBJECTS, SIZE), _make(state / "small", 1, 1024)
        with sinks.running(CACHE / "sink", delay_seconds=ROUND_TRIP_SECONDS / 2) as there:
            environment = sinks.environment(there)
            for round_ in range(rounds):
                for workers in WORKERS:
                    number += 1
                    with fresh(server, number) as url:
                        config = write_config(state / "config", large, url, count)
                        found = by_fleet(url, config, workers, PLACES, count, environment)
                    note(results, round_, f"{workers} worker{'s' if workers > 1 else ''}", found)
        with sinks.running(CACHE / "sink") as there:
            environment = sinks.environment(there)
            for round_ in range(rounds):
                number += 1
                with fresh(server, number) as url:
                    config = write_config(state / "config", small, url, SMALL)
                    found = by_fleet(url, config, 1, 1, SMALL, environment)
                note(results, round_, _SMALL_FLEET, found)
                ledger = state / "ledger.db"
                for path in state.glob("ledger.db*"):
                    path.unlink()
                config = write_config(state / "config", small, f"sqlite:///{ledger}", SMALL)
                command = [
                    _PROGRAM,
                    "--config",
                    str(config),
                    "--log-level",
                    "error",
                    "run",
                    "--all",
                    "--json",
                ]
                found = measure(command, environment, CACHE / "workers.log", there)
                with closing(sqlite3.connect(ledger)) as connection:
                    wall = _seconds(connection.execute(_SPAN).fetchone())
                note(results, round_, _SMALL_RUN, replace(found, wall=wall))
    shutil.rmtree(state)
    return results


def table(count: int, results: Runs) -> list[str]:
    objects = count * OBJECTS
    title = (
        f"### workers: {count} customers x {OBJECTS} x {SIZE // 1024} KiB, S3 {ROUND_TRIP_SECONDS * 1000:.0f} ms away, "
        f"each worker with {PLACES} places and {IN_FLIGHT} requests in flight"
    )
    lines = [
        title,
        "",
        "| who | wall s | objects/s | times one worker | CPU s, all processes | peak MB of one |",
        "|---|---|---|---|---|---|",
    ]
    one = statistics.median(run.wall for run in results["1 worker"])
    for name, runs in results.items():
        if name in (_SMALL_FLEET, _SMALL_RUN):
            continue
        wall, cpu = (statistics.median(getattr(run, field) for run in runs) for field in ("wall", "cpu"))
        rss = max(run.rss_mb for run in runs)
        lines.append(
            f"| {name} | {wall:.2f} | {objects / wall:,.0f} | {one / wall:.2f} | {cpu:.2f} | {rss:.0f} |"
        )
    fleet, alone_ = (
        1000 * statistics.median(run.wall for run in results[name]) / SMALL
        for name in (_SMALL_FLEET, _SMALL_RUN)
    )
    told = (
        f"A delivery of one object, S3 beside it: {fleet:.0f} ms by one worker with one place (PostgreSQL, queue, turn), "
        f"{alone_:.0f} ms by `run --all` on SQLite: {fleet - alone_:+.0f} ms."
    )
    return [*lines, "", told, ""]


if __name__ == "__main__":
    alone(__doc__, DAYS, ROUNDS, run, table)
