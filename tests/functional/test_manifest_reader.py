"""The program in docs/manifest.md, exactly as printed, run by a customer between our deliveries."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.cli.terminal import Tally
from xmode_transfer.config import files
from xmode_transfer.model.recall import RecallState
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.sandbox.accounts import owner
from xmode_transfer.sandbox.model import DEFAULT_FEEDS, CustomerSetup
from xmode_transfer.service import assembly
from xmode_transfer.upkeep.recall import Request, begin, carry_out, plan

PAGE = Path(__file__).parents[2] / "docs" / "manifest.md"
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
Make = Callable[..., Any]


# Runs the program in a process of its own each time. What it imports is imported once.
RUNNER = """\
import json, os, runpy, sys, traceback
import boto3

boto3.client("s3", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-")
for line in sys.stdin:
    if (child := os.fork()) == 0:
        program, home, environment = json.loads(line)
        os.chdir(home)
        os.environ.update(environment)
        code = 1
        try:
            runpy.run_path(program, run_name="__main__")
            code = 0
        except BaseException:
            print(traceback.format_exc())
        finally:
            sys.stdout.flush()
            os._exit(code)
    print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Run = Callable[[Path, Path, dict[str, str]], tuple[int, list[str]]]


@pytest.fixture(scope="module")
def run_program() -> Iterator[Run]:
    line = [sys.executable, "-W", "error", "-c", RUNNER]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:

        def run(program: Path, home: Path, environment: dict[str, str]) -> tuple[int, list[str]]:
            assert runner.stdin is not None
            assert runner.stdout is not None
            runner.stdin.write(json.dumps([str(program), str(home), environment]) + "\n")
            runner.stdin.flush()
            said = []
            for told in runner.stdout:
                if told.startswith("ended with "):
                    return int(told.split()[-1]), said
                said.append(told.rstrip("\n"))
            raise AssertionError(said)

        yield run


@dataclass
class Reader:
    """The customer's side: the program, and what it holds by now."""

    customer: CustomerSetup
    home: Path
    run: Run

    def take(self) -> list[str]:
        """Runs it; what it says, a line each."""
        program = self.home / "take.py"
        program.write_text(PROGRAM, encoding="utf-8")
        environment = {
            "HOME": os.environ["HOME"],
            "AWS_ENDPOINT_URL": self.customer.endpoint,
            "AWS_ACCESS_KEY_ID": self.customer.root.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.customer.root.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        code, said = self.run(program, self.home, environment)
        assert code == 0, said
        return said

    def holds(self, place: str) -> dict[str, bytes]:
        """Files by name."""
        below = self.home / "us-daily" / place
        return {path.name: path.read_bytes() for path in below.rglob("*") if path.is_file()}


@pytest.fixture
def reader(customer_factory: Callable[..., CustomerSetup], tmp_path: Path, run_program: Run) -> Reader:
    home = tmp_path / "reader"
    home.mkdir()
    return Reader(customer_factory("acme", bucket="acme-data"), home, run_program)


def fill(here: Any, day: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        here.write(f"{day}/{name}", data)
    marker = here.source() / day / "_SUCCESS"
    marker.parent.mkdir(parents=True, exist_ok=True)
    before = marker.stat().st_mtime_ns if marker.exists() else 0
    marker.touch()
    if before:
        os.utime(marker, ns=(before + 10**6, before + 10**6))


@pytest.mark.sandbox
def test_it_takes_what_is_new_whatever_day_it_belongs_to(project: Make, reader: Reader) -> None:
    acme = reader.customer
    checks = {"empty_period": "deliver"}
    here = project(acme, feeds={"us-daily": {**DEFAULT_FEEDS["us-daily"], "checks": checks}})
    fill(here, "2026/11/22", {"a.csv": b"old", "b.csv": b"same"})
    fill(here, "2026/11/23", {"a.csv": b"23"})
    here.deliver()
    assert reader.take() == ["2026-11-22 revision 1: 2 objects", "2026-11-23 revision 1: 1 objects"]
    assert reader.take() == []

    # A correction of an earlier day, beside a backfill of one before that; it has deleted what it took.
    for key in bucket.list_keys(acme):
        if "/_manifests/" not in key:
            bucket.delete_object(acme, key)
    fill(here, "2026/11/22", {"a.csv": b"corrected"})
    fill(here, "2026/11/20", {"a.csv": b"20"})
    here.deliver()
    assert reader.take() == ["2026-11-20 revision 1: 1 objects", "2026-11-22 revision 2: 2 objects"]
    assert reader.holds("2026-11-22") == {"a.csv": b"corrected", "b.csv": b"same"}

    # A first revision that fails and changes, and a period with nothing in it.
    bucket.put_object(acme, "xmode/us-daily/2026/11/24/b.csv", b"in the way")
    fill(here, "2026/11/24", {"a.csv": b"1", "b.csv": b"2"})
    assert here.deliver().code != 0
    assert reader.take() == []
    bucket.delete_object(acme, "xmode/us-daily/2026/11/24/b.csv")
    fill(here, "2026/11/24", {"a.csv": b"changed"})
    fill(here, "2026/11/25", {})
    here.deliver()
    assert reader.take() == ["2026-11-24 revision 2: 2 objects", "2026-11-25 revision 1: 0 objects"]
    assert reader.holds("2026-11-24") == {"a.csv": b"changed", "b.csv": b"2"}
    assert reader.holds("2026-11-25") == {}

    # A file is withdrawn.
    (here.source() / "2026/11/23/a.csv").unlink()
    fill(here, "2026/11/23", {"z.csv": b"instead"})
    here.deliver()
    assert reader.take() == ["2026-11-23 revision 2: 1 objects"]
    assert reader.holds("2026-11-23") == {"z.csv": b"instead"}

    # Retention removes what is old, and the customer the newest manifest of a period: both take nothing back.
    bucket.delete_object(acme, "xmode/us-daily/_manifests/2026-11-24/000002.json")
    with (here.directory / "customers" / "acme.yaml").open("a") as config:
        config.write("retention: {keep_last: 2}\n")
    assert here.run("cleanup", "--customer", "acme", "--confirm").code == 0
    left = {key.split("/")[3] for key in bucket.list_keys(acme) if "/_manifests/" in key}
    assert left == {"2026-11-25"}
    assert reader.take() == []
    assert reader.holds("2026-11-22") == {"a.csv": b"corrected", "b.csv": b"same"}


@pytest.mark.sandbox
def test_it_takes_each_batch_of_a_drop_folder(project: Make, reader: Reader) -> None:
    feeds = {"us-daily": {"source": "exports/us-daily", "period": "none", "complete": {"settle_seconds": 0}}}
    here = project(reader.customer, feeds=feeds)
    here.write("a.csv", b"1")
    here.deliver()
    here.write("b.csv", b"2")
    here.deliver()
    assert reader.take() == ["none revision 1: 1 objects", "none revision 2: 1 objects"]
    here.write("a.csv", b"changed")
    here.deliver()
    assert reader.take() == ["none revision 3: 1 objects"]
    assert [reader.holds(f"batch-{number}") for number in (1, 2, 3)] == [
        {"a.csv": b"1"},
        {"b.csv": b"2"},
        {"a.csv": b"changed"},
    ]


def recall(here: Any, pattern: str) -> None:
    """Takes files back from acme, with the guide's own role."""
    configuration = files.load(here.directory)
    request = Request("us-daily", Scope(), (pattern,), (), None, "an opt-out", "alice", "")
    with assembly.context(configuration, Tally()) as context:
        made = plan(context, configuration, request)
        begin(context, made, Path(configuration.service.recalls))
        work = (context, configuration, made.recall.id, "acme")
        done = carry_out(*work, may_send=lambda feed, state: True)
        assert (done.state, set(done.outcomes)) == (RecallState.DONE, {"deleted"})


@pytest.mark.sandbox
def test_it_gives_back_what_is_withdrawn(
    project: Make, reader: Reader, as_vendor: dict[str, str], tmp_path: Path
) -> None:
    here = project(reader.customer)
    fill(here, "2026/11/22", {"a.csv": b"1", "b.csv": b"a person"})
    fill(here, "2026/11/23", {"b.csv": b"a person"})
    here.deliver()
    reader.take()
    fill(here, "2026/11/22", {"b.csv": b"nobody"})
    recall(here, "b.csv")
    assert reader.take() == ["2026-11-22 revision 2: 2 objects", "2026-11-23 revision 2: 0 objects"]
    assert reader.holds("2026-11-22") == {"a.csv": b"1", "b.csv": b"nobody"}
    assert reader.holds("2026-11-23") == {}
    assert here.deliver().json["outcome"] == "skipped"
    assert reader.take() == []


@pytest.mark.sandbox
def test_it_gives_back_what_is_withdrawn_from_a_drop_folder(
    project: Make, reader: Reader, as_vendor: dict[str, str], tmp_path: Path
) -> None:
    feeds = {"us-daily": {"source": "exports/us-daily", "period": "none", "complete": {"settle_seconds": 0}}}
    here = project(reader.customer, feeds=feeds)
    here.write("a.csv", b"1")
    here.write("b.csv", b"a person")
    here.deliver()
    reader.take()
    here.write("b.csv", b"nobody")
    here.deliver()
    reader.take()
    here.write("b.csv", b"corrected")
    recall(here, "b.csv")
    late = Reader(reader.customer, tmp_path / "late", reader.run)
    late.home.mkdir()
    here.deliver()
    reader.take()
    late.take()
    assert [reader.holds(f"batch-{number}") for number in (1, 2, 3, 4, 5)] == [
        {"a.csv": b"1"},
        {},
        {},
        {},
        {"b.csv": b"corrected"},
    ]
    assert [late.holds(f"batch-{number}") for number in (3, 4, 5)] == [
        {"a.csv": b"1"},
        {},
        {"b.csv": b"corrected"},
    ]


@pytest.mark.sandbox
def test_what_is_removed_while_it_is_read_is_left_for_the_next_time(project: Make, reader: Reader) -> None:
    here = project(reader.customer)
    fill(here, "2026/11/22", {"a.csv": b"1"})
    here.deliver()
    key = "xmode/us-daily/2026/11/22/a.csv"
    data = bucket.read_object(reader.customer, key)
    bucket.delete_object(reader.customer, key)
    manifest = "xmode/us-daily/_manifests/2026-11-22/000001.json"
    assert reader.take() == [f"{manifest}: removed while it was read; it is left for the next time"]
    owner(reader.customer, "s3").put_object(Bucket="acme-data", Key=key, Body=data)
    assert reader.take() == ["2026-11-22 revision 1: 1 objects"]


@pytest.mark.parametrize(
    ("algorithm", "value"), [("crc32", "y/Q5Jg=="), ("crc64nvme", "rosUhgp5mIg=")], ids=["crc32", "crc64nvme"]
)
def test_its_checksums_are_those_of_the_standards(algorithm: str, value: str) -> None:
    """The check values of CRC-32/ISO-HDLC and CRC-64/NVME."""
    tree = ast.parse(PROGRAM)
    parts = [
        part
        for part in tree.body
        if isinstance(part, ast.Import | ast.ImportFrom) or getattr(part, "name", "") == "checksum"
    ]
    known: dict[str, Any] = {}
    exec(compile(ast.Module(parts, []), PAGE, "exec"), known)
    assert known["checksum"](algorithm, b"123456789") == value
    with pytest.raises(ValueError, match="md5"):
        known["checksum"]("md5", b"")
