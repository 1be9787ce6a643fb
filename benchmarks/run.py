"""The benchmarks: our whole command and our engine alone against the peers, side by side.

Every set is sent by each client in turn, A B C A B C ..., so that a machine whose speed drifts does so for
all. Printed are medians of whole processes: wall and CPU seconds, peak memory, and the ratios to s5cmd.

    python benchmarks/run.py                       the quick sets
    python benchmarks/run.py --sets small,large    some
    python benchmarks/run.py --all --rounds 3      everything, which takes an hour and 20 GB of disk
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cleaning
import clients
import sink as sinks
from clients import Client, Work

CACHE = Path(__file__).parents[1] / ".cache" / "bench"
KIB, MIB, GIB = 1024, 1024**2, 1024**3


@dataclass(frozen=True)
class Set:
    """Files to send, and who sends them."""

    name: str
    what: str
    files: int
    size: int
    clients: tuple[Client, ...]
    quick: bool = True
    tls: bool = False
    refused_percent: float = 0.0
    customers: int = 1
    again: bool = False


FAST: tuple[Client, ...] = (clients.ours, clients.engine_alone, clients.s5cmd, clients.rclone)
EVERY: tuple[Client, ...] = (*FAST, clients.aws_cli, clients.plain_boto3)

SETS = (
    Set("small", "2,000 x 64 KiB", 2_000, 64 * KIB, EVERY),
    Set("tiny", "20,000 x 16 KiB", 20_000, 16 * KIB, FAST),
    Set(
        "tiny-boto3",
        "20,000 x 16 KiB, plain boto3",
        20_000,
        16 * KIB,
        (clients.ours, clients.plain_boto3),
        False,
    ),
    Set("medium", "1,000 x 8 MiB", 1_000, 8 * MIB, FAST, False),
    Set("large", "8 x 256 MiB", 8, 256 * MIB, FAST),
    Set("huge", "1 x 10 GiB", 1, 10 * GIB, FAST, False),
    Set("small-tls", "2,000 x 64 KiB over TLS", 2_000, 64 * KIB, FAST, tls=True),
    Set("large-tls", "8 x 256 MiB over TLS", 8, 256 * MIB, FAST, False, tls=True),
    Set(
        "tiny-503",
        "20,000 x 16 KiB, 1 % refused with 503",
        20_000,
        16 * KIB,
        FAST[:3],
        False,
        refused_percent=1,
    ),
    Set("customers", "1,000 customers x 3 x 16 KiB", 3, 16 * KIB, (clients.ours,), False, customers=1_000),
    Set(
        "again",
        "nothing to do over 100,000 delivered files",
        100_000,
        16,
        (clients.ours, clients.s5cmd_sync, clients.rclone_again),
        False,
        again=True,
    ),
    Set(
        "again-million",
        "nothing to do over 1,000,000 delivered files",
        1_000_000,
        16,
        (clients.ours, clients.s5cmd_sync, clients.rclone_again),
        False,
        again=True,
    ),
)


@dataclass(frozen=True)
class Measured:
    wall: float
    cpu: float
    rss_mb: float


def make(data: Path, files: int, size: int) -> None:
    """The set's files, once: 1,000 a directory, of bytes that do not compress."""
    stamp = data.with_suffix(".made")
    wanted = f"{files} x {size}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(data, ignore_errors=True)
    block = os.urandom(min(size, 4 * MIB))
    for number in range(files):
        path = data / f"{number // 1000:04}" / f"{number:07}.bin"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            left = size
            while left > 0:
                left -= file.write(block[:left])
    stamp.write_text(wanted)


def measure(command: list[str], environment: dict[str, str], log: Path) -> Measured:
    """One whole process, by the operating system's own accounting (its children included)."""
    with log.open("ab") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}; see {log}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def keys_of(data: Path) -> Iterator[tuple[str, int]]:
    for directory in sorted(data.iterdir()):
        for path in sorted(directory.iterdir()):
            yield f"xmode/set/{path.relative_to(data)}", path.stat().st_size


def run_set(one: Set, rounds: int, peers: Path) -> dict[str, list[Measured]]:
    data = CACHE / "data" / f"{one.files}x{one.size}"
    make(data, one.files, one.size)
    results: dict[str, list[Measured]] = {client.__name__: [] for client in one.clients}
    with sinks.running(CACHE / "sink", refused_percent=one.refused_percent) as there:
        environment = sinks.environment(there, tls=one.tls)
        state = CACHE / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        work = Work(data, state, there, peers, one.tls, one.customers)
        if one.again:
            print("  delivering it all once ...", flush=True)
            measure(clients.ours(work), environment, CACHE / "log.txt")
            sinks.lay_pages(there.directory, keys_of(data))
        for number in range(rounds):
            for client in one.clients:
                if not one.again:
                    shutil.rmtree(state, ignore_errors=True)
                    state.mkdir()
                found = measure(client(work), environment, CACHE / "log.txt")
                results[client.__name__].append(found)
                print(
                    f"  round {number + 1} {client.__name__:<14} {found.wall:8.2f} s wall {found.cpu:8.2f} s CPU "
                    f"{found.rss_mb:7.0f} MB",
                    flush=True,
                )
    return results


def table(one: Set, results: dict[str, list[Measured]]) -> list[str]:
    peer = next((name for name in ("s5cmd", "s5cmd_sync", "plain_boto3") if name in results), None)
    lines = [
        f"### {one.what}",
        "",
        f"| client | wall s | CPU s | objects/s | CPU s per 1,000 objects | CPU s per GiB | peak MB | wall / {peer} | CPU / {peer} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    files = one.files * one.customers
    for name, runs in results.items():
        wall = statistics.median(run.wall for run in runs)
        cpu = statistics.median(run.cpu for run in runs)
        rss = max(run.rss_mb for run in runs)
        ratios = ["-", "-"]
        if peer is not None:
            pairs = list(zip(runs, results[peer], strict=True))
            ratios = [
                f"{statistics.median(a.wall / b.wall for a, b in pairs):.2f}",
                f"{statistics.median(a.cpu / b.cpu for a, b in pairs):.2f}",
            ]
        lines.append(
            f"| {name} | {wall:.2f} | {cpu:.2f} | {files / wall:,.0f} | {1000 * cpu / files:.3f} | "
            f"{cpu / (files * one.size / GIB):.2f} | {rss:.0f} | {' | '.join(ratios)} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", help=f"of {','.join(one.name for one in SETS)},{cleaning.NAME}")
    parser.add_argument("--all", action="store_true", help="every set, the long ones too")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    wanted = set(arguments.sets.split(",")) if arguments.sets else None
    chosen = [one for one in SETS if (one.name in wanted if wanted else arguments.all or one.quick)]
    CACHE.mkdir(parents=True, exist_ok=True)
    print("fetching the peers ...", flush=True)
    peers = clients.fetch_peers(CACHE / "peers")
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {arguments.rounds} rounds, medians.",
        "",
    ]
    figures = {}
    for one in chosen:
        print(one.what, flush=True)
        results = run_set(one, arguments.rounds, peers)
        figures[one.name] = {name: [vars(run) for run in runs] for name, runs in results.items()}
        told = table(one, results)
        print("\n".join(told), flush=True)
        lines += told
    if wanted is None or cleaning.NAME in wanted:
        print(cleaning.WHAT, flush=True)
        removals = cleaning.run(cleaning.DAYS, arguments.rounds, peers)
        figures[cleaning.NAME] = {name: [vars(run) for run in runs] for name, runs in removals.items()}
        told = cleaning.table(cleaning.DAYS, removals)
        print("\n".join(told), flush=True)
        lines += told
    (CACHE / "results.json").write_text(json.dumps(figures, indent=1))
    (CACHE / "results.md").write_text("\n".join(lines))
    print(f"written to {CACHE / 'results.md'}")


if __name__ == "__main__":
    sys.exit(main())
