"""What the pages and ``status --json`` show of a delivery for the customer's tools."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.web.conftest import NOW, Page, ask
from xmode_transfer.alerting.health import assess
from xmode_transfer.cli.status import _document
from xmode_transfer.config import Configuration, Customer, Feed, Service
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.delta import DeltaTable, TableCommit
from xmode_transfer.model.native import NativeKind, NativeManifest
from xmode_transfer.model.records import Checksum, Delivery, Status
from xmode_transfer.web.server import Server

PERIOD = "2026-11-22"
ROOT = "x/us-daily/"
CUSTOMER = Customer.model_validate(
    {
        "name": "acme",
        "company": "Acme Corp",
        "external_id": "AcmeCorp",
        "role_arn": "arn:aws:iam::111122223333:role/XMode",
        "destination": {"bucket": "acme-data", "prefix": "x/"},
        "feeds": ["us-daily"],
    }
)
FEED = Feed(name="us-daily", source="/data", period="day", partition="%Y/%m/%d")


@pytest.fixture
def configuration(page: Page) -> Configuration:
    page.configuration = Configuration(Service(), {"us-daily": FEED}, {"acme": CUSTOMER}, {})
    return page.configuration


def deliver(ledger: Ledger, revision: int) -> Delivery:
    lease = ledger.leases.claim(f"delivery/acme/us-daily/{PERIOD}", "elsewhere", 90)
    delivery = Delivery(
        f"id-{revision}", "acme", "us-daily", PERIOD, revision, Status.PLANNED, NOW, NOW, object_count=2
    )
    ledger.deliveries.create(lease, delivery)
    done = replace(delivery, status=Status.DELIVERED, delivered_at=NOW, manifest_key=f"{ROOT}{revision}")
    ledger.deliveries.update(lease, done)
    ledger.leases.release(lease)
    return done


def commit(ledger: Ledger, version: int, revision: int | None, rows: int) -> None:
    lease = ledger.leases.claim("table/acme/us-daily", "elsewhere", 90)
    table = DeltaTable("acme", "us-daily", ROOT, "5fba94ed", ("dt",), NOW, version)
    ledger.tables.put(lease, table)
    ledger.tables.apply(
        lease, table, TableCommit("acme", "us-daily", version, PERIOD, revision, 2, rows, NOW), [], []
    )
    ledger.leases.release(lease)


def test_a_delivery_shows_its_own_version_rows_and_native_manifests(
    ledger: Ledger, configuration: Configuration, open_page: Callable[..., Server]
) -> None:
    deliver(ledger, 1)
    commit(ledger, 4, 1, 1_000)
    last = deliver(ledger, 2)
    commit(ledger, 5, 2, 12_345)
    commit(ledger, 6, None, 7)  # a removal, of no delivery
    lease = ledger.leases.claim("native", "elsewhere", 90)
    for kind, revision, key in (
        (NativeKind.REDSHIFT, 1, f"{ROOT}_redshift/{PERIOD}/000001.json"),
        (NativeKind.REDSHIFT, 2, f"{ROOT}_redshift/{PERIOD}/000002.json"),
        (NativeKind.SYMLINK, 2, f"{ROOT}_symlink/2026/11/22/manifest"),
    ):
        checksum = Checksum("crc32", "AAAAAA==")
        ledger.native.record(
            lease, "acme", NativeManifest(kind, "us-daily", PERIOD, revision, key, 9, '"e"', checksum, NOW)
        )
    address = open_page().address

    first = ask(address, "/deliveries/id-1").text
    assert "Delta, version 4: 1,000 rows in 2 files" in first
    assert "_redshift/2026-11-22/000001.json" in first
    assert "_symlink" not in first
    second = ask(address, "/deliveries/id-2").text
    assert "Delta, version 5: 12,345 rows in 2 files" in second
    assert "_redshift/2026-11-22/000002.json" in second
    assert "<dt>Symlink manifest</dt>" in second
    assert "Table us-daily" in (customer := ask(address, "/customers/acme").text)
    assert "Delta, version 6" in customer
    assert "s3://acme-data/x/us-daily/" in customer

    document = _document(assess(configuration, ledger.snapshot(), NOW), configuration, ledger)
    shown = document["customers"][0]["feeds"][0]["last_delivered"]
    assert shown["revision"] == last.revision
    assert shown["table"] == {"version": 5, "rows": 12_345}


def test_a_delivery_without_a_table_shows_none(
    ledger: Ledger, configuration: Configuration, open_page: Callable[..., Server]
) -> None:
    deliver(ledger, 1)
    address = open_page().address
    text = ask(address, "/deliveries/id-1").text
    assert "Delta" not in text
    assert "Redshift" not in text
    assert "Delta" not in ask(address, "/customers/acme").text
    document = _document(assess(configuration, ledger.snapshot(), NOW), configuration, ledger)
    assert document["customers"][0]["feeds"][0]["last_delivered"]["table"] is None
