"""A layout and its change in mid-life, with the installed command against the local AWS."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.model import DEFAULT_FEEDS, CustomerSetup

pytestmark = pytest.mark.sandbox


def test_a_layout_changes_while_everything_goes_on(project: Callable[..., Any], acme: CustomerSetup) -> None:
    of_day = {**DEFAULT_FEEDS["us-daily"], "layout": "{feed}/dt={period:%Y-%m-%d}/{name}"}
    here = project(acme, feeds={"us-daily": of_day}, overrides={"acme": {"retention": {"keep_last": 1}}})
    for day in ("2026/11/21", "2026/11/22"):
        here.write(f"{day}/eu/a.csv", b"1")
        here.write(f"{day}/eu/b.csv", b"2")
        here.write(f"{day}/_SUCCESS", b"")
    (checked,) = here.run("config", "check", "--json").json["customers"]
    assert checked["example_keys"] == {"us-daily": "xmode/us-daily/dt=2026-11-22/part-0"}
    here.write("2026/11/21/us/a.csv", b"meets eu/a.csv")
    dry = here.deliver("acme", "--dry-run").out
    assert "2026/11/21/us/a.csv" in dry
    assert "its key xmode/us-daily/dt=2026-11-21/a.csv is that of 2026/11/21/eu/a.csv too" in dry
    failed = here.deliver()
    assert failed.code == 3
    assert "us-daily/dt=2026-11-21/a.csv" not in "".join(accounts.list_keys(acme))
    (here.source() / "2026/11/21/us/a.csv").unlink()
    assert here.deliver().code == 0

    customer = here.directory / "customers/acme.yaml"
    text = customer.read_text()
    assert "feeds:\n- us-daily\n" in text
    own = "feeds:\n  us-daily:\n    layout: '{feed}/new/{period}/{path}'\n"
    customer.write_text(text.replace("feeds:\n- us-daily\n", own))
    here.write("2026/11/22/eu/b.csv", b"corrected")
    marker = here.write("2026/11/22/_SUCCESS", b"")
    os.utime(marker, ns=(later := marker.stat().st_mtime_ns + 10**9, later))
    answer = here.deliver()
    assert answer.code == 0, answer.err
    below = "xmode/us-daily/"
    of_new = f"{below}new/2026-11-22/_r2/eu/b.csv"
    assert bucket.read_object(acme, of_new) == b"corrected"
    assert here.run("verify", "--customer", "acme", "--json").json["outcome"] == "proven"
    objects = {key for key in accounts.list_keys(acme) if "/_manifests/" not in key}
    days = {f"{below}dt=2026-11-{day}/{name}.csv" for day in (21, 22) for name in "ab"}
    assert objects == {*days, of_new}
    listed = here.run("list", "--customer", "acme", "--json", "--summary").json
    assert {item["period"] for item in listed["periods"]} == {"2026-11-21", "2026-11-22"}

    cleaned = here.run("cleanup", "--customer", "acme", "--confirm", "--json")
    assert cleaned.json["outcome"] == "cleaned", cleaned.err
    assert not [key for key in accounts.list_keys(acme) if "2026-11-21" in key]
    assert here.run("verify", "--customer", "acme", "--json").json["outcome"] == "proven"
