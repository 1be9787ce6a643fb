"""READING.md of the kit: its Python and DuckDB parts, exactly as printed, run by the customer itself."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.access.kit import KitDirectory
from xmode_transfer.aws.policy.documents import VENDOR_PRINCIPAL
from xmode_transfer.cli import demo_stage
from xmode_transfer.config import files
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

DAILY = {"period": "day", "partition": "%Y/%m/%d", "complete": {"marker": "_SUCCESS"}}
FEEDS = {
    "us-daily": {**DAILY, "source": "exports/us-daily", "include": ["*.csv"]},
    "places": {
        **DAILY,
        "source": "exports/places",
        "include": ["*.parquet"],
        "layout": "{feed}/dt={period:%Y-%m-%d}/{path}",
        "table": "delta",
    },
    "drops": {
        "source": "exports/drops",
        "period": "none",
        "include": ["*.csv"],
        "complete": {"settle_seconds": 0},
    },
}
PREFIX = "it's a & b;(c)/日本/"
_FENCE = re.compile(r"^```(\w+) (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def parquet(*numbers: int) -> bytes:
    pyarrow, writer = import_module("pyarrow"), io.BytesIO()
    import_module("pyarrow.parquet").write_table(pyarrow.table({"number": list(numbers)}), writer)
    return writer.getvalue()


@pytest.fixture
def acme(customer_factory: Callable[..., CustomerSetup]) -> CustomerSetup:
    return customer_factory("acme", prefix=PREFIX)


@pytest.fixture
def blocks(project: Callable[..., Any], acme: CustomerSetup, tmp_path: Path) -> dict[str, str]:
    """The page's texts by their titles; the bucket has a correction, and two batches of a drop folder."""
    here = project(acme, feeds=FEEDS)
    for revision, (rows, numbers) in enumerate((("1\n2\n", (1, 2)), ("1\n2\n3\n", (1, 2, 3)))):
        here.write("2026/11/22/it's one.csv", f"number\n{rows}".encode())
        here.write("2026/11/22/other.csv", b"number\n10\n")
        here.write("2026/11/22/a b%20#1.parquet", parquet(*numbers), feed="places")
        here.write("2026/11/22/other.parquet", parquet(10), feed="places")
        here.write(f"batch-{revision}.csv", f"number\n{revision}\n".encode(), feed="drops")
        for feed in ("us-daily", "places"):
            here.write("2026/11/22/_SUCCESS", b"again"[:revision], feed=feed)
        assert here.deliver().code == 0
    configuration = files.load(here.directory)
    kit = tmp_path / "kit"
    KitDirectory(kit).write(configuration.customers["acme"], VENDOR_PRINCIPAL, configuration.feeds)
    return {title: text for _, title, text in _FENCE.findall((kit / "READING.md").read_text("utf-8"))}


def run(program: str, acme: CustomerSetup, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env={
            "HOME": os.environ["HOME"],
            "AWS_ENDPOINT_URL": acme.endpoint,
            "AWS_ACCESS_KEY_ID": acme.root.access_key_id,
            "AWS_SECRET_ACCESS_KEY": acme.root.secret_access_key,
            "AWS_DEFAULT_REGION": acme.region,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def rows(acme: CustomerSetup, text: str) -> list[tuple[Any, ...]]:
    found = demo_stage.query(acme, text)
    assert found is not None
    return sorted(found)


def test_its_programs_and_queries_read_the_newest_revision_alone(
    acme: CustomerSetup, blocks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(blocks["Read everything that is current"], acme)
    read = {line.split(" ", 4)[4] for line in said}
    daily, drops = f"{PREFIX}us-daily/", f"{PREFIX}drops/"
    assert {key for key in read if not key.startswith(f"{PREFIX}places/")} == {
        f"{daily}2026/11/22/_r2/it's one.csv",
        f"{daily}2026/11/22/other.csv",
        f"{drops}batch-0.csv",
        f"{drops}batch-1.csv",
    }
    assert len(read) == len(said) == 6

    # In place of the page's "Credentials", which ask AWS.
    monkeypatch.chdir(tmp_path)
    listed = "The files of {} that the newest manifests list"
    assert rows(acme, blocks[listed.format("us-daily")]) == [(1,), (2,), (3,), (10,)]
    assert rows(acme, blocks[listed.format("drops")]) == [(0,), (1,)]
    assert [row[0] for row in rows(acme, blocks[listed.format("places")])] == [1, 2, 3, 10]
    day = date(2026, 11, 22)
    assert rows(acme, blocks["The table places in DuckDB"]) == [(it, day) for it in (1, 2, 3, 10)]


def test_its_program_prints_copy_statements_of_a_thousand_files(
    acme: CustomerSetup, blocks: dict[str, str]
) -> None:
    key = f"{PREFIX}us-daily/_manifests/2026-11-22/000002.json"
    program = blocks["copy_statements.py"]
    quoted = r"'us-daily/2026/11/22/_r2/it\'s one.csv', 'us-daily/2026/11/22/other.csv'"
    assert run(program, acme, "snowflake", key) == [
        f"COPY INTO xmode_us_daily FROM @xmode FILES = ({quoted})",
        "  FILE_FORMAT = (TYPE = CSV PARSE_HEADER = TRUE) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE;",
    ]
    place = PREFIX.replace("'", r"\'")
    (statement,) = run(program, acme, "databricks", key)
    assert statement == (
        f"COPY INTO xmode_us_daily FROM 's3://{acme.bucket}/{place}' FILEFORMAT = CSV FILES = ({quoted})"
        " FORMAT_OPTIONS ('header' = 'true');"
    )
    manifest = json.loads(bucket.read_object(acme, key))
    manifest["objects"] = [{"key": f"{PREFIX}us-daily/{number}.csv"} for number in range(2001)]
    bucket.put_object(acme, key, json.dumps(manifest).encode())
    said = run(program, acme, "databricks", key)
    assert [line.count(".csv'") for line in said] == [1000, 1000, 1]
