"""A feed as a table: what a reader of 300 commits waits for beside one of 100, and what a table costs us.

Our whole command delivers three feeds of the same files into a local AWS (MiniStack): `once` (a commit for each
period), `thrice` (each period corrected twice, so three times as many commits, and a checkpoint for each hundred)
and `plain`, which is no table. Then deltalake and DuckDB read both tables in turn. The footers of 10,000 files
are read, and committed, without a network.

    python benchmarks/reading_tables.py                 in an environment with the development requirements
    python benchmarks/reading_tables.py --periods 20    shorter
"""

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from duckdb_extensions import import_extension
from measuring import CACHE

from xmode_transfer.model.delta import Change, DeltaTable, TableFile, commit, merged
from xmode_transfer.sandbox import accounts, server
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, Variant, write_config
from xmode_transfer.sources.parquet import read_footer

PERIODS, ROUNDS, FOOTERS = 100, 15, 10_000
FIRST = date(2026, 1, 1)
FEEDS = ("plain", "once", "thrice")
BATCHES = 5
ROWS = 800  # about 16 KiB


def parquet(seed: int) -> bytes:
    numbers = range(seed, seed + ROWS)
    columns = {
        "id": pa.array(numbers, pa.int64()),
        "price": pa.array([(number * 7919 % 1000003) / 8 for number in numbers], pa.float64()),
        "symbol": pa.array([f"S{number * 31 % 5000:04}" for number in numbers], pa.string()),
    }
    pq.write_table(pa.table(columns), buffer := io.BytesIO())
    return buffer.getvalue()


def feed(name: str) -> dict[str, object]:
    document: dict[str, object] = {
        "source": f"exports/{name}",
        "period": "day",
        "partition": "%Y/%m/%d",
        "complete": {"marker": "_SUCCESS"},
        "layout": "{feed}/dt={period:%Y-%m-%d}/{path}",
    }
    return document if name == "plain" else {**document, "table": "delta"}


def write(directory: Path, name: str, periods: range, revision: int = 0) -> None:
    for number in periods:
        day = directory / "exports" / name / f"{FIRST + timedelta(days=number):%Y/%m/%d}"
        day.mkdir(parents=True, exist_ok=True)
        (day / "part-0.parquet").write_bytes(parquet(number * 1000 + revision))
        (day / "_SUCCESS").write_bytes(b"%d" % revision)


def deliver(directory: Path, environment: dict[str, str], name: str) -> float:
    """Seconds of a run that delivers all periods of a feed."""
    command = [str(Path(sys.executable).with_name("xmode-transfer")), "--config", str(directory)]
    until = datetime.now(UTC).date()
    of = ["run", "--customer", "acme", "--feed", name, "--since", str(FIRST), "--until", str(until)]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--log-level", "error", *of], env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"run ended with {done.returncode}: {done.stdout}{done.stderr}")
    return time.perf_counter() - began


def readers(customer: CustomerSetup) -> dict[str, Callable[[str], object]]:
    """Each opens a table anew and reads all rows, as the bucket's owner."""
    options = {
        "AWS_ACCESS_KEY_ID": customer.root.access_key_id,
        "AWS_SECRET_ACCESS_KEY": customer.root.secret_access_key,
        "AWS_REGION": customer.region,
        "AWS_ENDPOINT_URL": customer.endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    secret = (
        f"CREATE SECRET (TYPE s3, USE_SSL false, URL_STYLE 'path', REGION '{customer.region}', "
        f"ENDPOINT '{customer.endpoint.removeprefix('http://')}', KEY_ID '{customer.root.access_key_id}', "
        f"SECRET '{customer.root.secret_access_key}')"
    )
    for extension in ("delta", "httpfs"):
        import_extension(extension)

    def by_deltalake(url: str) -> object:
        return deltalake.DeltaTable(url, storage_options=options).to_pyarrow_table().num_rows

    def by_duckdb(url: str) -> object:
        connection = duckdb.connect()
        connection.execute(f"LOAD delta; LOAD httpfs; {secret}")
        ((count, _),) = connection.sql(f"SELECT count(*), sum(price) FROM delta_scan('{url}')").fetchall()
        return count

    return {"deltalake": by_deltalake, "DuckDB": by_duckdb}


def read_both(customer: CustomerSetup, periods: int, rounds: int) -> list[str]:
    url = f"s3://{customer.bucket}/{customer.prefix}"
    lines = [
        f"| reader | {periods} commits, s | {3 * periods} commits, s | ratio |",
        "|---|---|---|---|",
    ]
    for reader, read in readers(customer).items():
        seconds: dict[str, list[float]] = {"once": [], "thrice": []}
        for _ in range(rounds):
            for name, found in seconds.items():
                began = time.perf_counter()
                if read(f"{url}{name}") != periods * ROWS:
                    raise SystemExit(f"{reader} has not read all rows of {name}")
                found.append(time.perf_counter() - began)
        once, thrice = (statistics.median(found) for found in seconds.values())
        lines.append(f"| {reader} | {once:.3f} | {thrice:.3f} | {thrice / once:.2f} |")
    return lines


def tables(sandbox: Sandbox, periods: int, rounds: int) -> list[str]:
    customer = accounts.add_customer(sandbox, "acme", Variant.GUIDE)
    directory = CACHE / "tables"
    shutil.rmtree(directory, ignore_errors=True)
    write_config(directory, sandbox, feeds={name: feed(name) for name in FEEDS})
    environment = {**os.environ, **sandbox.environment()}
    seconds: dict[str, list[float]] = {name: [] for name in FEEDS}
    some = max(periods // BATCHES, 1)
    for start in range(0, periods, some):  # in turn, on a machine of which the speed drifts
        for name in ("plain", "once"):
            write(directory, name, range(start, min(start + some, periods)))
            seconds[name].append(deliver(directory, environment, name) / some)
            print(f"  {name} from {start}: {seconds[name][-1] * 1000:.0f} ms a period", flush=True)
    for revision in range(3):
        write(directory, "thrice", range(periods), revision)
        deliver(directory, environment, "thrice")
        print(f"  thrice, revision {revision + 1}", flush=True)
    plain, once = (statistics.median(seconds[name]) * 1000 for name in ("plain", "once"))
    cost = (
        f"One delivery of one file: {plain:.0f} ms, as a table {once:.0f} ms, so {once - plain:.0f} ms for "
        "its footer and commit."
    )
    lines = [cost, "", *read_both(customer, periods, rounds)]
    shutil.rmtree(directory)
    return lines


def footers(count: int) -> list[str]:
    """A delivery of many files: their footers are read from a local disk, and one commit names them."""
    directory = CACHE / "footers"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for number in range(count):
        (directory / f"{number:05}.parquet").write_bytes(parquet(number))
    paths, at = sorted(directory.iterdir()), datetime.now(UTC)
    size = paths[0].stat().st_size
    began, files, schema = time.perf_counter(), [], ""
    for path in paths:
        with path.open("rb") as file:

            def read(start: int, length: int, descriptor: int = file.fileno()) -> bytes:
                return os.pread(descriptor, length, start)

            footer = read_footer(read, path.stat().st_size)
        schema = merged(schema, footer.table_schema, ("dt",), ("dt",))
        key = f"xmode/us-daily/dt=2026-11-22/{path.name}"
        files.append(TableFile("2026-11-22", key, path.stat().st_size, footer.rows, footer.statistics, at))
    reading = time.perf_counter() - began
    table = DeltaTable("acme", "us-daily", "xmode/us-daily/", "0" * 32, ("dt",), at)
    began = time.perf_counter()
    _, _, chunks = commit(table, Change("2026-11-22", 1, files, (), schema), at)
    written = sum(map(len, chunks))
    making = time.perf_counter() - began
    shutil.rmtree(directory)
    told = (
        f"{count:,} files of {size / 1024:.0f} KiB: {reading:.1f} s for their footers "
        f"({count / reading:,.0f} files/s); their commit has {written / 1e6:.1f} MB and is made in {making:.1f} s."
    )
    return [told, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--periods", type=int, default=PERIODS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--footers", type=int, default=FOOTERS)
    arguments = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    print("\n".join(footers(arguments.footers)))
    home = CACHE / "sandbox"
    server.install(home)
    with server.running(home, {}) as sandbox:
        print("\n".join(tables(sandbox, arguments.periods, arguments.rounds)))


if __name__ == "__main__":
    main()
