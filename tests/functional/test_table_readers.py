"""What a customer's tools read of a feed that is a table, after everything that changes it."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from tests import bucket
from tests.forms import IS_SOAK
from tests.functional.conftest import Project
from tests.table_readers import Readers, parquet, rows_of
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox

pytestmark = pytest.mark.sandbox

FEEDS = {
    "us-daily": {
        "source": "exports/us-daily",
        "period": "day",
        "partition": "%Y/%m/%d",
        "complete": {"marker": "_SUCCESS"},
        "layout": "{feed}/dt={period:%Y-%m-%d}/{path}",
        "table": "delta",
    }
}
DAYS = ("2026/11/20", "2026/11/21", "2026/11/22", "2026/11/23")


def check(here: Project, readers: Readers, seen: set[int]) -> None:
    """Each reader sees the newest manifests' rows, each commit of a delivery (but those ``seen`` before) has
    that delivery's, and `verify` finds nothing."""
    newest = readers.newest()
    assert newest
    assert readers.read() == dict.fromkeys(("deltalake", "polars", "duckdb"), newest)
    manifests = readers.manifests()
    for version, of in readers.commits().items():
        if of in manifests and version not in seen:
            day = [("dt", "=", date.fromisoformat(of[0]))]
            read = rows_of(readers.table(version).to_pyarrow_table(filters=day))
            assert read == sorted(readers.rows(manifests[of]), key=repr), version
            seen.add(version)
    verified = here.run("verify", "--customer", "acme", "--json")
    assert (verified.code, verified.json["outcome"]) == (0, "proven"), verified.out
    assert (verified.json["tables"], verified.json["unmanaged"]) == (1, 0)


def lose_and_adopt_the_ledger(here: Project) -> None:
    for path in (here.directory / "var").glob("ledger.db*"):
        path.unlink()
    assert here.run("list", "--customer", "acme", "--adopt").code == 0


@pytest.mark.short
def test_every_reader_sees_the_newest_manifests_rows(
    project: Callable[..., Any], sandbox: Sandbox, acme: CustomerSetup
) -> None:
    here: Project = project(acme, feeds=FEEDS, overrides={"acme": {"retention": {"keep_last": 3}}})
    for number, day in enumerate(DAYS):
        for part in range(2):
            here.write(f"{day}/part-{part}.parquet", parquet(number, range(part * 10, part * 10 + 10)))
        here.write(f"{day}/notes.txt", b"delivered, and not in the table")
        here.write(f"{day}/_SUCCESS", b"")
    answer = here.deliver("acme", "--since", "2026-11-20")
    assert answer.code == 0, answer.err
    readers, seen = Readers.of(sandbox, acme), set[int]()
    assert len(readers.commits()) == len(DAYS)
    check(here, readers, seen)

    # corrected: one file changed, with a column more, and one is new
    here.write(f"{DAYS[1]}/part-1.parquet", parquet(100, range(10), extra=["x"] * 10))
    here.write(f"{DAYS[1]}/part-2.parquet", parquet(100, range(10, 15)))
    here.write(f"{DAYS[1]}/_SUCCESS", b"")
    assert here.deliver().json["deliveries"][0]["revision"] == 2
    check(here, readers, seen)
    assert sum(row[1] == 100 for row in readers.newest()) == 15

    cleaned = here.run("cleanup", "--customer", "acme", "--confirm", "--json")
    assert cleaned.json["outcome"] == "cleaned", cleaned.err
    check(here, readers, seen)
    assert {row[0] for row in readers.newest()} == {"2026-11-21", "2026-11-22", "2026-11-23"}

    of = ("--feed", "us-daily", "--period", "2026-11-22", "--reason", "opt-out", "--by", "alice")
    recalled = here.run("recall", *of, "--files", f"{DAYS[2]}/part-0.parquet", "--confirm", "--json")
    assert recalled.code == 0, recalled.err
    check(here, readers, seen)
    assert sum(row[0] == "2026-11-22" for row in readers.newest()) == 10
    assert len(seen) == 6  # four deliveries, the correction, and what the recall leaves

    if IS_SOAK:
        lose_and_adopt_the_ledger(here)
        check(here, readers, seen)
        here.write(f"{DAYS[3]}/part-1.parquet", parquet(200, range(10), extra=["x"] * 10))
        here.write(f"{DAYS[3]}/_SUCCESS", b"")
        assert here.deliver().code == 0
        check(here, readers, seen)
        assert sum(row[1] == 200 for row in readers.newest()) == 10

    listed = here.run("list", "--customer", "acme", "--json").json
    log = [item["key"] for item in listed["objects"] if item["standing"] == "table"]
    assert log == bucket.list_keys(acme, f"{readers.root}_delta_log/")
    assert (listed["counts"]["unmanaged"], listed["counts"]["table"]) == (0, len(log))


def test_verify_names_what_others_did_to_the_log(
    project: Callable[..., Any], sandbox: Sandbox, acme: CustomerSetup
) -> None:
    here: Project = project(acme, feeds=FEEDS)
    for number, day in enumerate(DAYS[:2]):
        here.write(f"{day}/a.parquet", parquet(number, range(10)))
        here.write(f"{day}/_SUCCESS", b"")
    assert here.deliver("acme", "--since", "2026-11-20").code == 0
    log = f"{acme.prefix}us-daily/_delta_log/"
    first, second = bucket.list_keys(acme, log)
    bucket.put_object(acme, f"{log}{2:020d}.json", bucket.read_object(acme, second))
    bucket.delete_object(acme, first)
    verified = here.run("verify", "--customer", "acme", "--json")
    assert (verified.code, verified.json["outcome"]) == (4, "differs")
    found = {item["key"]: (item["discrepancy"], item["message"]) for item in verified.json["findings"]}
    assert found == {
        first: ("table_altered", "the version no longer exists"),
        f"{log}{2:020d}.json": ("table_altered", "it is not ours: another writer has added a version"),
    }
    (status,) = here.run("status", "--no-look", "--json").json["customers"]
    assert [item["cause"] for item in status["warnings"]] == ["delivered_changed"]
    assert "2 table altered" in status["warnings"][0]["message"]
    assert first in here.run("verify", "--customer", "acme").out
