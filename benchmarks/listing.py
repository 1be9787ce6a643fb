"""The set `list`: a million keys beside a ledger that knows them all, against `rclone lsf` and `s5cmd ls`.

The other end is that of the set `cleanup`: a server in a process of its own that lists pages made beforehand.
The peers only print what is listed; ours joins each key with the ledger and sums by feed and period.

    python benchmarks/listing.py                  1,000,000 keys, three rounds
    python benchmarks/listing.py --days 10        10,000, to see that memory does not grow
"""

import shutil
import sys
from pathlib import Path

import cleaning
import clients
from measuring import CACHE, Runs, alone, keys_table, measure, note

NAME, WHAT = "list", "1,000,000 keys of 1,000 days are listed"
PEERS = True
DAYS, ROUNDS = 1_000, 3


def commands(state: Path, peers: Path, environment: dict[str, str]) -> dict[str, list[str]]:
    program = Path(sys.executable).with_name("xmode-transfer")
    ours = [str(program), "--config", str(state / "config"), "--log-level", "error", "list"]
    endpoint, bucket = environment["AWS_ENDPOINT_URL_S3"], f"{clients.BUCKET}-0"
    remote = f":s3,provider=Other,env_auth,region=us-east-1,endpoint='{endpoint}',force_path_style,list_version=2:{bucket}"
    return {
        "list": [*ours, "--customer", "c0000"],
        "list --json": [*ours, "--customer", "c0000", "--json"],
        "rclone lsf": [
            *(
                str(peers / "rclone"),
                "lsf",
                f"{remote}/xmode/set/",
                "--recursive",
                "--fast-list",
                "--files-only",
            ),
            *("--format", "tsp", "--use-server-modtime", "--config", "/dev/null", "--quiet"),
        ],
        "s5cmd ls": [str(peers / "s5cmd"), "--endpoint-url", endpoint, "ls", f"s3://{bucket}/xmode/set/*"],
    }


def run(count: int, rounds: int, peers: Path) -> Runs:
    days = cleaning.days_of(count)
    state = CACHE / "list-state"
    shutil.rmtree(state, ignore_errors=True)
    print("  writing the ledger ...", flush=True)
    cleaning.write_state(state, days)
    results: Runs = {}
    with cleaning.other_end(days) as environment:
        for number in range(rounds):
            for name, command in commands(state, peers, environment).items():
                log = CACHE / "list.log"
                log.unlink(missing_ok=True)
                found = measure(command, environment, log)
                _check(name, log, count)
                note(results, number, name, found)
    shutil.rmtree(state)
    (CACHE / "list.log").unlink(missing_ok=True)
    return results


def _check(name: str, log: Path, count: int) -> None:
    """Each client has told of every key; ours, that all are as delivered."""
    keys = count * (cleaning.OBJECTS_A_DAY + 1)
    objects = count * cleaning.OBJECTS_A_DAY
    with log.open("rb") as file:
        if name == "list":
            file.seek(max(0, log.stat().st_size - 400))
            right = f"{objects:,} ours, {count:,} manifest;".encode() in file.readlines()[-1]
        elif name == "list --json":
            file.seek(max(0, log.stat().st_size - 400_000))
            right = (
                f'"counts": {{"ours": {objects}, "manifest": {count}, "changed": 0'.encode() in file.read()
            )
        else:
            right = sum(1 for _ in file) == keys
    if not right:
        raise SystemExit(f"{name} has not told of all keys; see {log}")


def table(count: int, results: Runs) -> list[str]:
    keys = count * (cleaning.OBJECTS_A_DAY + 1)
    return keys_table(f"list: {keys:,} keys of {count:,} days, joined with the ledger", keys, results)


if __name__ == "__main__":
    alone(__doc__, DAYS, ROUNDS, run, table)
