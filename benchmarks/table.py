"""What was measured, as the tables of docs/performance.md.

Each set's results lie in a file of their own, so sets that ran at different times come together here.
"""

import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cleaning
import listing
import workers
from measuring import Measured
from sets import GIB, SETS, Set

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
OTHERS = (cleaning, listing, workers)
"""Sets that are modules of their own."""
PEERS = ("s5cmd", "s5cmd_sync", "plain_boto3")
"""Whose time and CPU are 1: the first of them that took part."""
NAMES = {
    "ours": "**run**",
    "ours_first": "run, the first delivery",
    "engine_alone": "engine alone",
    "s5cmd_sync": "s5cmd sync",
    "rclone_again": "rclone copy",
    "aws_cli": "aws-cli",
    "plain_boto3": "plain boto3",
}


@dataclass(frozen=True)
class Results:
    """Of one set: the runs of each client, in the order in which they took turns."""

    machine: str
    day: str
    runs: dict[str, list[Measured]]

    def median(self, client: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in self.runs[client])

    def ratio(self, one: str, other: str, field: str) -> float | None:
        """The median of the rounds' ratios: both clients had the machine as it was then."""
        if len(self.runs.get(one, ())) != len(self.runs.get(other, ())) or one not in self.runs:
            return None  # the first delivery of a set runs once
        pairs = zip(self.runs[one], self.runs[other], strict=True)
        return statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs)


def save(directory: Path, name: str, results: Results) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(asdict(results), indent=1))


def saved(directory: Path) -> dict[str, Results]:
    """By the set's name, whatever has been measured so far."""
    found = {}
    for name in (*(one.name for one in SETS), *(one.NAME for one in OTHERS)):
        path = directory / f"{name}.json"
        if path.exists():
            document = json.loads(path.read_text())
            runs = {
                client: [Measured(**run) for run in measured] for client, measured in document["runs"].items()
            }
            found[name] = Results(document["machine"], document["day"], runs)
    return found


def machine() -> str:
    """This machine in a few words."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return (
        f"{named[1] if named else platform.processor() or platform.machine()}, {os.cpu_count()} cores for clients "
        f"and server together, {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}"
    )


def lines_of(one: Set, results: Results) -> Iterator[str]:
    """One set's table."""
    peer = next((name for name in PEERS if name in results.runs), None)
    rounds = max(len(runs) for runs in results.runs.values())
    yield f"### {one.what}"
    yield ""
    yield f"`{one.name}`, {results.day}, {rounds} {'rounds' if rounds > 1 else 'round'}"
    yield ""
    against = f" wall / {NAMES.get(peer, peer)} | CPU / {NAMES.get(peer, peer)} |" if peer else ""
    yield (
        "| client | wall s | CPU s | objects/s | CPU s per 1,000 objects | CPU s per GiB | peak MB | "
        f"requests per object |{against}"
    )
    yield "|---" * (10 if peer else 8) + "|"
    for name, runs in results.runs.items():
        wall, cpu = results.median(name, "wall"), results.median(name, "cpu")
        cells = [
            NAMES.get(name, name),
            f"{wall:.2f}",
            f"{cpu:.2f}",
            f"{one.objects / wall:,.0f}",
            f"{1000 * cpu / one.objects:.3f}" if one.objects >= 1000 else "",
            f"{cpu / (one.bytes / GIB):.2f}" if one.bytes >= GIB / 16 else "",
            f"{max(run.rss_mb for run in runs):.0f}",
            f"{results.median(name, 'requests') / one.objects:.3f}",
        ]
        if peer:
            ratios = (results.ratio(name, peer, field) for field in ("wall", "cpu"))
            cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _aims(found: dict[str, Results]) -> Iterator[tuple[str, float | None, str, Callable[[float], bool]]]:
    """Each aim with what was measured, or None where its set has not run."""

    def ratio(name: str, one: str, other: str, field: str = "wall") -> float | None:
        return found[name].ratio(one, other, field) if name in found else None

    for name, what in (("tiny", "20,000 x 16 KiB"), ("small", "2,000 x 64 KiB")):
        aim = f"whole `run` <= 0.9 of s5cmd's time, {what}"
        yield aim, ratio(name, "ours", "s5cmd"), "{:.2f}", lambda x: x <= 0.9
    yield (
        "large: <= 0.9 of s5cmd's CPU, 8 x 256 MiB",
        ratio("large", "ours", "s5cmd", "cpu"),
        "{:.2f}",
        lambda x: x <= 0.9,
    )
    yield (
        "large: no slower than s5cmd, 8 x 256 MiB",
        ratio("large", "ours", "s5cmd"),
        "{:.2f}",
        lambda x: x <= 1.0,
    )
    for name, what in (("tiny-boto3", "20,000 x 16 KiB"), ("small", "2,000 x 64 KiB")):
        aim = f">= 8 times faster than plain boto3, {what}"
        yield aim, ratio(name, "plain_boto3", "ours"), "{:.1f} times", lambda x: x >= 8
    peaks = [
        run.rss_mb
        for results in found.values()
        for name, runs in results.runs.items()
        if name.startswith("ours")
        for run in runs
    ]
    yield "peak memory under 250 MB, all sets", max(peaks, default=None), "{:.0f} MB", lambda x: x < 250
    flat = None
    if "flat" in found and "again-million" in found:
        million = max(run.rss_mb for run in found["again-million"].runs["ours_first"])
        flat = million / max(run.rss_mb for run in found["flat"].runs["ours"])
    yield (
        "memory flat: delivering 1,000,000 files against 10,000",
        flat,
        "{:.2f} times",
        lambda x: x <= 1.5,
    )
    for peer in ("s5cmd_sync", "rclone_again"):
        aim = f"nothing to do over 1,000,000 files: >= 5 times quicker than `{NAMES[peer]}`"
        yield aim, ratio("again-million", peer, "ours"), "{:.1f} times", lambda x: x >= 5
    yield (
        "four workers: >= 3 times the throughput of one, S3 50 ms away",
        ratio(workers.NAME, "1 worker", "4 workers"),
        "{:.2f} times",
        lambda x: x >= 3,
    )


def document(found: dict[str, Results]) -> str:
    """Everything that has been measured so far, the aims first."""
    lines = ["| aim | measured | |", "|---|---|---|"]
    for aim, value, form, is_met in _aims(found):
        told = "not measured" if value is None else form.format(value)
        word = "" if value is None else "met" if is_met(value) else "**missed**"
        lines.append(f"| {aim} | {told} | {word} |")
    lines += ["", *(f"Machine: {named}." for named in dict.fromkeys(r.machine for r in found.values())), ""]
    for one in SETS:
        if one.name in found:
            lines += lines_of(one, found[one.name])
    for other in OTHERS:
        if other.NAME in found:
            lines += other.table(other.DAYS, found[other.NAME].runs)
    return "\n".join(lines).rstrip()


def write(found: dict[str, Results]) -> None:
    """Puts the tables into docs/performance.md, between its marks."""
    before, begin, rest = DOCUMENT.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{DOCUMENT} has no place for the tables: {BEGIN} and {END} are missing")
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{document(found)}\n\n{END}{after}")
