"""`run --customer C` on a ledger in PostgreSQL, as somebody else's scheduler starts it on any machine."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.link import Wire
from xmode_transfer.sandbox.accounts import owner
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, Variant

pytestmark = pytest.mark.sandbox

DAYS = ["2026-11-20", "2026-11-21"]
FILES = 3


@pytest.fixture
def gate(sandbox: Sandbox) -> Iterator[Wire]:
    """A way to the sandbox that lets nothing through until it is mended."""
    gate = Wire(urlsplit(sandbox.endpoint).port or 0)
    gate.cut()
    yield gate
    gate.close()


def fill(project: Any, day: str) -> None:
    folder = day.replace("-", "/")
    for number in range(FILES):
        project.write(f"{folder}/{number}.csv", f"{day} {number}".encode())
    project.write(f"{folder}/_SUCCESS", b"")


def versions(customer: CustomerSetup) -> Counter[str]:
    """How many versions there are of each key; delete markers count as one."""
    found: Counter[str] = Counter()
    for page in owner(customer, "s3").get_paginator("list_object_versions").paginate(Bucket=customer.bucket):
        found.update(row["Key"] for row in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())))
    return found


def finished(launched: Any) -> tuple[int, Any]:
    """Its exit code and its document."""
    code = launched.process.wait(300)
    return code, json.loads(launched.process.stdout.read())


RUN = ("--log-level", "info", "run", "--customer", "acme", "--json")


@pytest.mark.timeout(900)
def test_of_two_at_once_one_delivers_and_the_other_says_that_it_is_running(
    project: Callable[..., Any],
    customer_factory: Callable[..., CustomerSetup],
    postgres_url: str,
    gate: Wire,
) -> None:
    acme = customer_factory("acme", Variant.VERSIONED)
    here = project(acme, service={"ledger": postgres_url, "status_page": "off"})
    for day in DAYS:
        fill(here, day)
    first = here.launch(*RUN, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{gate.port}")
    first.wait("delivery.started", seconds=300)

    second = here.run(*RUN)
    assert (second.code, second.json["outcome"]) == (5, "already_running"), second.err
    (told,) = second.json["deliveries"]
    assert (told["feed"], told["period"], told["cause"]) == ("us-daily", "", "already_running")
    assert "customer/acme is already being worked on, by " in told["message"]
    assert f"pid {first.process.pid} on " in told["message"]
    assert not versions(acme)

    gate.mend()
    code, document = finished(first)
    assert code == 0, first.told()
    assert [(one["period"], one["outcome"], one["uploaded"]) for one in document["deliveries"]] == [
        (day, "delivered", FILES) for day in DAYS
    ]
    keys = versions(acme)
    assert set(keys.values()) == {1}
    assert sum("/_manifests/" in key for key in keys) == len(DAYS)

    third = here.run(*RUN)
    assert (third.code, third.json["outcome"]) == (0, "skipped"), third.err
    assert versions(acme) == keys


@pytest.mark.timeout(900)
def test_the_next_one_goes_on_where_one_was_killed(
    project: Callable[..., Any],
    customer_factory: Callable[..., CustomerSetup],
    postgres_url: str,
    gate: Wire,
) -> None:
    """A scheduler that starts a task anew whose machine has gone need not wait for the lease to end."""
    acme = customer_factory("acme", Variant.VERSIONED)
    here = project(acme, service={"ledger": postgres_url, "status_page": "off"})
    fill(here, DAYS[0])
    first = here.launch(*RUN, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{gate.port}")
    first.wait("delivery.started", seconds=300)
    first.process.kill()
    first.process.wait()
    second = here.run(*RUN)
    assert (second.code, second.json["outcome"]) == (0, "delivered"), second.err
    keys = versions(acme)
    assert set(keys.values()) == {1}
    assert sum("/_manifests/" in key for key in keys) == 1
