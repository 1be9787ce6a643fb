"""Orphaned uploads: each is reported with its bytes, and with the rule that frees them."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest

from xmode_transfer import telemetry
from xmode_transfer.alerting.health_records import CustomerHealth
from xmode_transfer.alerting.watch import assess_all
from xmode_transfer.config import Configuration, Customer, CustomerState, Destination, Service
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.records import UploadStatus

LARGE = "2026/11/22/large.bin"
ACME = Customer.model_construct(
    name="acme",
    company="Acme",
    state=CustomerState.ACTIVE,
    feeds=(),
    destination=Destination(bucket="acme-data", prefix="xmode/"),
)


def orphaned(make_world: Callable[..., Any], days: int | None) -> tuple[CustomerHealth, dict[str, Any]]:
    """A file that changes while its second part is sent, into a bucket where the guide's policy lets nobody
    abort: the customer's status, and the line in the log."""
    world = make_world({LARGE: bytes(range(256)) * 2}, corrected=False)
    world.bucket.abort_after_days = days

    def change(called: str, key: str, attempt: int) -> None:
        if called == "upload_part" and key.endswith("#2"):
            world.source.overwrite(LARGE, b"another")

    log = StringIO()
    telemetry.configure(stream=log, json=True, level="WARNING")
    world.process(faults=change)
    ledger = open_ledger(world.url, world.clock)
    try:
        (upload,) = ledger.uploads.find(customer="acme")
        assert upload.status is UploadStatus.ORPHANED
        assert upload.sent_bytes > 0
        stored = sum(len(part.body) for part in world.bucket.uploads[upload.upload_id].parts.values())
        assert upload.sent_bytes <= stored
        configuration = Configuration(
            service=Service(),
            feeds={},
            customers={"acme": ACME},
            broken={},
        )
        (status,) = assess_all(configuration, ledger, world.clock).customers
    finally:
        ledger.close()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (told,) = [line for line in lines if line["event"] == "multipart.orphaned"]
    assert (told["size_bytes"], told["upload_id"]) == (upload.sent_bytes, upload.upload_id)
    assert status.orphaned is not None
    assert (status.orphaned.count, status.orphaned.bytes) == (1, upload.sent_bytes)
    return status, told


def test_without_a_lifecycle_rule_one_is_proposed(make_world: Callable[..., Any]) -> None:
    status, told = orphaned(make_world, None)
    assert status.lifecycle_rule is not None
    assert status.lifecycle_rule["Filter"] == {"Prefix": "xmode/"}
    assert status.lifecycle_rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7
    assert "AbortIncompleteMultipartUpload" in told["hint"]
    (care,) = status.warnings
    assert care.cause == "orphaned_uploads"
    assert "AbortIncompleteMultipartUpload" in care.hint


@pytest.mark.parametrize("days", [1, 7])
def test_with_a_lifecycle_rule_its_date_is_reported(make_world: Callable[..., Any], days: int) -> None:
    status, told = orphaned(make_world, days)
    assert status.lifecycle_rule is None
    assert status.warnings == ()  # nobody needs to act
    left = status.orphaned
    assert left is not None
    assert left.ends_at is not None
    assert left.ends_at - left.oldest_at >= timedelta(days=days)
    assert f"{left.ends_at:%Y-%m-%d}" in told["hint"]
    assert told["ends_at"] == left.ends_at.isoformat()
