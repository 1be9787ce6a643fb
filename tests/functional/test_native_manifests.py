"""Native manifests by the installed command, against the local AWS, under the guide's documents."""

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests import bucket
from xmode_transfer.sandbox.model import DEFAULT_FEEDS, CustomerSetup

pytestmark = pytest.mark.sandbox

ROOT = "xmode/us-daily/"
SYMLINK = f"{ROOT}_symlink/2020/01/01/manifest"
FEEDS = {"us-daily": {**DEFAULT_FEEDS["us-daily"], "manifests": ["redshift", "symlink"]}}


def fill(here: Any, files: dict[str, bytes], day: str = "2020/01/01", *, marker: int = 1) -> None:
    for name, data in files.items():
        here.write(f"{day}/{name}", data)
    path = here.write(f"{day}/_SUCCESS", b"")
    os.utime(path, (marker, marker))


def lines(customer: CustomerSetup) -> list[str]:
    return bucket.read_object(customer, SYMLINK).decode().split()


def urls(customer: CustomerSetup, revision: int, folder: str = "_manifests") -> list[str]:
    key = f"{ROOT}{folder}/2020-01-01/{revision:06d}.json"
    found = json.loads(bucket.read_object(customer, key))
    if folder == "_redshift":
        return [entry["url"] for entry in found["entries"]]
    assert found["symlink"] == SYMLINK
    return [f"s3://{customer.bucket}/{item['key']}" for item in found["objects"]]


def test_from_a_delivery_to_its_cleanup(project: Callable[..., Any], acme: CustomerSetup) -> None:
    here = project(acme, feeds=FEEDS, overrides={"acme": {"retention": {"days": 30}}})
    fill(here, {"a.csv": b"1", "b.csv": b"2", "c.csv": b"3"})
    fill(here, {"a.csv": b"next"}, "2020/01/02")
    dates = ("--since", "2020-01-01")
    assert here.deliver("acme", *dates).code == 0
    first = urls(acme, 1)
    assert lines(acme) == urls(acme, 1, "_redshift") == first

    seen: list[list[str]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(lines(acme))

    reader = threading.Thread(target=look)
    reader.start()
    fill(here, {"b.csv": b"22"}, marker=2)
    corrected = here.deliver("acme", *dates)
    done.set()
    reader.join()
    assert corrected.code == 0, corrected.err
    second = urls(acme, 2)
    assert lines(acme) == urls(acme, 2, "_redshift") == second != first
    assert all(one in (first, second) for one in seen)
    verified = here.run("verify", "--customer", "acme", "--json").json
    assert (verified["outcome"], verified["unmanaged"]) == ("proven", 0)
    of = ("--feed", "us-daily", "--period", "2020-01-01", "--reason", "an opt-out", "--by", "alice")
    recalled = here.run("recall", *of, "--files", "c.csv", "--confirm")
    assert recalled.code == 0, recalled.err
    assert lines(acme) == [url for url in second if not url.endswith("c.csv")]
    assert here.run("verify", "--customer", "acme", "--json").json["outcome"] == "proven"

    assert here.run("cleanup", "--customer", "acme", "--confirm").code == 0
    left = [key.removeprefix(ROOT) for key in bucket.list_keys(acme) if key.startswith(ROOT)]
    assert len(left) == 4
    assert not [key for key in left if "2020/01/01" in key.replace("-", "/")]
