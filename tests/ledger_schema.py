"""The ledger's schema as it was first released, for each database, and content for tests.

python -m tests.ledger_schema        writes it anew; only before the first release
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from xmode_transfer.ledger import files, open_ledger
from xmode_transfer.ledger.tables import metadata
from xmode_transfer.model.records import Checksum, Delivery, PlannedObject, Receipt, Status
from xmode_transfer.telemetry import SystemClock

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)

GOLDEN = Path(__file__).parent / "golden" / "ledger"
BASELINE = "0001"
DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(),  # type: ignore[no-untyped-call]
    "postgresql": postgresql.dialect(),  # type: ignore[no-untyped-call]
}


def released(kind: str) -> list[str]:
    """The statements that make the tables of the first release."""
    text = (GOLDEN / f"{BASELINE}.{kind}.sql").read_text(encoding="utf-8")
    return [statement for statement in text.split(";\n") if statement.strip()]


def current(kind: str) -> list[str]:
    """Those that make the tables as they are now."""
    dialect = DIALECTS[kind]
    made: list[CreateTable | CreateIndex] = []
    for table in metadata.sorted_tables:
        indices = sorted(table.indexes, key=lambda index: str(index.name))
        made += [CreateTable(table), *(CreateIndex(index) for index in indices)]
    texts = (str(step.compile(dialect=dialect)).strip() for step in made)
    return ["\n".join(line.rstrip() for line in text.splitlines()) for text in texts]


def damage(url: str) -> tuple[str, ...]:
    """What `ledger check` finds wrong with the ledger."""
    found = files.check(url)
    return found.damage + found.contradictions


def deliver(url: str, period: str, names: str = "abc") -> None:
    """Add a delivered period to the ledger, with an object for each name."""
    ledger = open_ledger(url, SystemClock())
    try:
        lease = ledger.leases.claim(f"delivery/acme/us-daily/{period}", "elsewhere", 90)
        delivery = Delivery(f"id-{period}", "acme", "us-daily", period, 1, Status.PLANNED, NOW, NOW)
        ledger.deliveries.create(lease, delivery)
        planned = [PlannedObject(name, f"x/{period}/{name}", 10, 1, "i") for name in names]
        ledger.objects.plan(lease, delivery.id, planned)
        for item in planned:
            receipt = Receipt(item.name, item.key, 10, Checksum("crc32", "AAAAAA=="), '"e"', NOW)
            ledger.objects.record_receipt(lease, delivery.id, receipt).result(timeout=120)
        done = replace(
            delivery,
            status=Status.DELIVERED,
            object_count=len(names),
            total_bytes=10 * len(names),
            manifest_key=f"x/_m/{period}",
            manifest_checksum="crc32:AAAAAA==",
            delivered_at=NOW,
        )
        ledger.deliveries.update(lease, done)
        ledger.leases.release(lease)
    finally:
        ledger.close()


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for kind in DIALECTS:
        text = "".join(f"{statement};\n" for statement in current(kind))
        (GOLDEN / f"{BASELINE}.{kind}.sql").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
