"""The benchmarks: our whole command and our engine alone against the peers, side by side.

Every set is sent by each client in turn, A B C A B C ..., so that a machine whose speed drifts does so for
all. Told are medians of whole processes: wall and CPU seconds, peak memory, requests, and the ratios to s5cmd.
What was measured is kept set by set, so sets may run at different times; --table puts all of it together.

    python benchmarks/run.py                          the quick sets
    python benchmarks/run.py --sets small,large       some
    python benchmarks/run.py --all                    everything: about half an hour and 10 GB of disk
    python benchmarks/run.py --all --resume           of these what has not been measured yet
    python benchmarks/run.py --table                  measures nothing; writes the tables of docs/performance.md
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import clients
import sink as sinks
import table
from clients import Work
from measuring import CACHE, Measured, measure
from sets import GIB, MIB, SETS, Set
from table import Results

RESULTS = CACHE / "results"
KEPT_BYTES, KEPT_FILES = 4 * GIB, 200_000
"""Data of more than this is removed when its set has been measured, unless told otherwise."""


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
    os.sync()  # what is still on its way to the disk would slow down whoever comes first
    stamp.write_text(wanted)


def keys_of(data: Path) -> Iterator[tuple[str, int]]:
    for directory in sorted(data.iterdir()):
        for path in sorted(directory.iterdir()):
            yield f"xmode/set/{path.relative_to(data)}", path.stat().st_size


def run_set(one: Set, rounds: int, peers: Path) -> Results:
    data = CACHE / "data" / f"{one.files}x{one.size}"
    print("  making its files ...", flush=True)
    make(data, one.files, one.size)
    runs: dict[str, list[Measured]] = {}
    with sinks.running(
        CACHE / "sink", refused_percent=one.refused_percent, delay_seconds=one.round_trip_seconds / 2
    ) as there:
        environment = sinks.environment(there, tls=one.tls)
        state = CACHE / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        work = Work(data, state, there, peers, one.tls, one.customers)

        def tell(round_: str, name: str, found: Measured) -> None:
            runs.setdefault(name, []).append(found)
            print(
                f"  {round_:<8} {name:<14} {found.wall:8.2f} s wall {found.cpu:8.2f} s CPU {found.rss_mb:7.0f} MB "
                f"{found.requests:9,} requests",
                flush=True,
            )

        if one.again:
            tell("first", "ours_first", measure(clients.ours(work), environment, CACHE / "log.txt", there))
            sinks.lay_pages(there.directory, keys_of(data))
        for number in range(rounds):
            for client in one.clients:
                if not one.again:
                    shutil.rmtree(state, ignore_errors=True)
                    state.mkdir()
                found = measure(client(work), environment, CACHE / "log.txt", there)
                tell(f"round {number + 1}", client.__name__, found)
    return Results(table.machine(), time.strftime("%Y-%m-%d"), runs)


def drop(one: Set) -> None:
    if one.files * one.size > KEPT_BYTES or one.files > KEPT_FILES:
        data = CACHE / "data" / f"{one.files}x{one.size}"
        data.with_suffix(".made").unlink(missing_ok=True)
        shutil.rmtree(data, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = {one.name: one for one in SETS}
    known = [*names, *(one.NAME for one in table.OTHERS)]
    parser.add_argument("--sets", metavar="NAMES", help=f"of {', '.join(known)}, with commas between")
    parser.add_argument("--all", action="store_true", help="every set, the long ones too")
    parser.add_argument("--resume", action="store_true", help="leave out what has been measured already")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of each set's own number")
    parser.add_argument("--keep", action="store_true", help="leave large data on the disk, for the next time")
    parser.add_argument(
        "--table", action="store_true", help="write the tables of docs/performance.md, measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.table:
        table.write(table.saved(RESULTS))
        print(f"written to {table.DOCUMENT}")
        return
    wanted = arguments.sets.split(",") if arguments.sets else []
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"there is no set {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [one for one in SETS if (one.name in wanted if wanted else arguments.all or one.quick)]
    others = [one for one in table.OTHERS if (one.NAME in wanted if wanted else arguments.all)]
    if arguments.resume:
        done = table.saved(RESULTS)
        chosen = [one for one in chosen if one.name not in done]
        others = [one for one in others if one.NAME not in done]
    CACHE.mkdir(parents=True, exist_ok=True)
    peers = CACHE / "peers"
    if chosen or any(one.PEERS for one in others):
        print("fetching the peers ...", flush=True)
        clients.fetch_peers(peers)
        peers /= "bin"
    for one in chosen:
        print(f"{one.name}: {one.what}", flush=True)
        results = run_set(one, arguments.rounds or one.rounds, peers)
        table.save(RESULTS, one.name, results)
        print("\n".join(table.lines_of(one, results)), flush=True)
        if not arguments.keep:
            drop(one)
    for other in others:
        print(f"{other.NAME}: {other.WHAT}", flush=True)
        runs = other.run(other.DAYS, arguments.rounds or other.ROUNDS, peers)
        table.save(RESULTS, other.NAME, Results(table.machine(), time.strftime("%Y-%m-%d"), runs))
        print("\n".join(other.table(other.DAYS, runs)), flush=True)
    print(table.document(table.saved(RESULTS)).partition("###")[0])
    print(
        "`make context ARGS=--table` writes this, with all that was measured before, to docs/performance.md"
    )


if __name__ == "__main__":
    sys.exit(main())
