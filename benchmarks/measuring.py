"""Measuring whole processes, for whatever set."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import clients
from sink import Sink

CACHE = Path(__file__).parents[1] / ".cache" / "context"


@dataclass(frozen=True)
class Measured:
    """One whole process: wall and CPU seconds, peak memory in MB, requests to S3 and STS."""

    wall: float
    cpu: float
    rss_mb: float
    requests: int


Runs = dict[str, list[Measured]]
"""Of each client, in the order in which they took turns."""


def measure(command: list[str], environment: dict[str, str], log: Path, sink: Sink | None = None) -> Measured:
    """One whole process, by the operating system's own accounting (its children included); its requests where
    there is a ``sink`` to ask."""
    asked = 0 if sink is None else sink.requests()
    with log.open("ab") as output, tempfile.NamedTemporaryFile() as answer:
        launcher = [sys.executable, "-S", str(Path(__file__).with_name("one_process.py")), answer.name]
        subprocess.run([*launcher, *command], env=environment, stdout=output, stderr=output, check=True)
        told = json.load(answer)
    if told["code"] != 0:
        raise SystemExit(f"{command[0]} ended with {told['code']}; see {log}")
    requests = 0 if sink is None else sink.requests() - asked - 1
    return Measured(told["wall"], told["cpu"], told["rss_mb"], requests)


def note(results: Runs, number: int, name: str, found: Measured) -> None:
    """Keeps one run of a client, and tells of it."""
    results.setdefault(name, []).append(found)
    print(
        f"  round {number + 1} {name:<14} {found.wall:8.2f} s wall {found.cpu:8.2f} s CPU {found.rss_mb:7.0f} MB",
        flush=True,
    )


def keys_table(title: str, keys: int, results: Runs) -> list[str]:
    """Of a set that is counted in keys."""
    lines = [
        f"### {title}",
        "",
        "| client | wall s | CPU s | keys/s | peak MB |",
        "|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        wall = statistics.median(one.wall for one in runs)
        cpu = statistics.median(one.cpu for one in runs)
        rss = max(one.rss_mb for one in runs)
        lines.append(f"| {name} | {wall:.2f} | {cpu:.2f} | {keys / wall:,.0f} | {rss:.0f} |")
    return [*lines, ""]


def alone(
    what: str | None,
    days: int,
    rounds: int,
    run: Callable[[int, int, Path], Runs],
    table: Callable[[int, Runs], list[str]],
) -> None:
    """A set of days by itself, of whatever size."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=days)
    parser.add_argument("--rounds", type=int, default=rounds)
    arguments = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    results = run(arguments.days, arguments.rounds, clients.fetch_peers(CACHE / "peers"))
    print("\n".join(table(arguments.days, results)))
