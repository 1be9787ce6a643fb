"""The life of a table by commands, against the local AWS under the guide's role: begun for what was delivered
before, corrected, refused, listed and ended."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests import bucket
from xmode_transfer.sandbox.model import CustomerSetup

pytestmark = pytest.mark.sandbox

FEED = {
    "source": "exports/us-daily",
    "period": "day",
    "partition": "dt=%Y-%m-%d",
    "complete": {"marker": "_SUCCESS"},
    "look_back": 3650,
}
OF_TABLE = ("--customer", "acme", "--feed", "us-daily", "--json")


def parquet(**columns: list[Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def read(acme: CustomerSetup, folder: Path) -> list[dict[str, Any]]:
    """Read the table from a copy of the bucket."""
    for key in bucket.list_keys(acme):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.read_object(acme, key))
    (log,) = folder.rglob("_delta_log")
    return sorted(
        deltalake.DeltaTable(str(log.parent)).to_pyarrow_table().to_pylist(), key=lambda row: row["id"]
    )


def test_a_table_is_begun_corrected_and_ended(
    project: Callable[..., Any], acme: CustomerSetup, tmp_path: Path
) -> None:
    here = project(acme, feeds={"us-daily": FEED})
    file = here.directory / "feeds" / "us-daily.yaml"
    for day in (21, 22):
        here.write(f"dt=2026-11-{day}/a.parquet", parquet(id=[day]))
        here.write(f"dt=2026-11-{day}/_SUCCESS", b"")
    assert here.run("run", "--customer", "acme").code == 0
    refused = here.run("table", "create", *OF_TABLE)
    assert (refused.code, refused.json["error"]["cause"]) == (2, "config_invalid")

    file.write_text(yaml.safe_dump({**FEED, "table": "delta"}))
    planned = here.run("table", "create", "--dry-run", *OF_TABLE)
    assert (planned.code, planned.json["outcome"], planned.json["rows"]) == (0, "dry_run", 2)
    made = here.run("table", "create", *OF_TABLE)
    assert made.code == 0
    assert made.json == {
        "customer": "acme",
        "feed": "us-daily",
        "outcome": "created",
        "version": 1,
        "periods": 2,
        "known": 0,
        "files": 2,
        "rows": 2,
        "missing": 0,
    }

    here.write("dt=2026-11-22/a.parquet", parquet(id=[22, 23], note=["x", None]))
    assert here.run("run", "--customer", "acme", "--period", "2026-11-22").code == 0
    here.write("dt=2026-11-23/a.parquet", parquet(id=["no number"]))
    here.write("dt=2026-11-23/_SUCCESS", b"")
    refused = here.run("run", "--customer", "acme", "--json")
    (delivery,) = refused.json["deliveries"]
    assert (refused.code, delivery["cause"], delivery["responsible"]) == (3, "schema_changed", "vendor")
    assert "column id has the type string, not long" in delivery["message"]
    (listed,) = here.run("table", "list", "--json").json["tables"]
    assert (listed["version"], listed["files"], listed["rows"], listed["ending"]) == (2, 2, 3, False)
    rows = read(acme, tmp_path / "bucket")
    assert [(row["id"], str(row["dt"]), row["note"]) for row in rows] == [
        (21, "2026-11-21", None),
        (22, "2026-11-22", "x"),
        (23, "2026-11-22", None),
    ]

    assert here.run("table", "end", *OF_TABLE).code == 2
    file.write_text(yaml.safe_dump(FEED))
    ended = here.run("table", "end", *OF_TABLE)
    assert (ended.code, ended.json["outcome"], ended.json["deleted"]) == (0, "ended", 3)
    assert not any("_delta_log" in key for key in bucket.list_keys(acme))
    assert here.run("table", "list").out.strip() == "no feed is a table"
