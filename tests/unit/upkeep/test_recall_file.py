"""The file of recalls: complete recalls or none, and in step with any ledger."""

import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.recall import Recall, RecallProgress, RecallState, Withdrawn
from xmode_transfer.model.records import Checksum, Delivery, PlannedObject, Receipt, Status
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.upkeep.recall_file import append, synchronise

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
LEDGERS = Callable[[str], Ledger]


def recall(number: int = 1, **fields: str) -> Recall:
    return Recall(f"recall-{number}", "us-daily", "an opt-out: ü", "alice", AT, **fields)


def withdrawn(number: int = 1, files: int = 3, customer: str = "") -> list[Withdrawn]:
    checksum = Checksum("crc32", "AAAAAA==")
    names = [f"{number}/{name}.csv" for name in range(files)]
    return [
        Withdrawn(f"recall-{number}", "us-daily", "2026-11-22", name, 1, checksum, customer) for name in names
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "var" / "recalls.jsonl"


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[LEDGERS]:
    opened: list[Ledger] = []

    def ledger(name: str) -> Ledger:
        opened.append(open_ledger(f"sqlite:///{tmp_path}/{name}.db", SystemClock()))
        return opened[-1]

    yield ledger
    for one in opened:
        one.close()


def deliver(ledger: Ledger, customer: str, item: Withdrawn, value: str | None = None) -> None:
    """Record that the customer has a file under that name."""
    delivery = Delivery(f"{customer}-1", customer, item.feed, item.period, 1, Status.PLANNED, AT, AT)
    key = f"xmode/{item.name}"
    planned = PlannedObject(item.name, key, 1, 1, "i")
    lease = ledger.leases.claim(f"delivery/{customer}/{item.feed}/{item.period}", "test", 60)
    if ledger.deliveries.get(delivery.id) is None:
        ledger.deliveries.create(lease, delivery)
    ledger.objects.plan(lease, delivery.id, [planned])
    checksum = item.checksum if value is None else Checksum("crc32", value)
    receipt = Receipt(item.name, key, 1, checksum, '"e"', AT)
    ledger.objects.record_receipt(lease, delivery.id, receipt).result()


def test_a_recall_is_whole_private_and_written_once(file: Path, ledgers: LEDGERS) -> None:
    append(file, recall(), withdrawn())
    append(file, recall(2, customer="acme", despite_hold="a court's order"), withdrawn(2, customer="acme"))
    content = file.read_bytes()
    append(file, recall(), withdrawn())
    assert file.read_bytes() == content
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    ledger = ledgers("new")
    synchronise(ledger, file, AT)
    assert ledger.recalls.get("recall-1") == recall()
    assert ledger.recalls.get("recall-2") == recall(2, customer="acme", despite_hold="a court's order")
    assert ledger.recalls.files("recall-1") == withdrawn()
    assert ledger.recalls.files("recall-2") == withdrawn(2, customer="acme")
    assert file.read_bytes() == content


def test_nothing_is_written_without_a_recall(file: Path, ledgers: LEDGERS) -> None:
    synchronise(ledgers("new"), file, AT)
    assert not file.parent.exists()


def test_the_customers_of_a_restored_recall_are_those_that_hold_its_files(
    file: Path, ledgers: LEDGERS
) -> None:
    files = withdrawn()
    append(file, recall(), files)
    append(file, recall(2, customer="initech"), withdrawn(2, customer="initech"))
    ledger = ledgers("older")
    deliver(ledger, "acme", files[1])
    deliver(ledger, "globex", files[1], "BBBBBB==")  # other content: not withdrawn
    deliver(ledger, "initech", withdrawn(2)[0])
    deliver(ledger, "umbrella", withdrawn(2)[0])  # the recall is narrowed to another customer
    synchronise(ledger, file, AT)
    assert ledger.recalls.progress() == [
        RecallProgress("recall-1", "acme", RecallState.PENDING, AT),
        RecallProgress("recall-2", "initech", RecallState.PENDING, AT),
    ]
    assert ledger.recalls.extend("acme", AT) == 1
    deliver(ledger, "hooli", files[2])
    assert ledger.recalls.extend("hooli", AT) == 1
    assert [item.customer for item in ledger.recalls.progress("recall-1")] == ["acme", "hooli"]


def test_a_restored_recall_finds_its_customers_on_postgresql_too(file: Path, postgres_ledger: str) -> None:
    append(file, recall(), withdrawn())
    ledger = open_ledger(postgres_ledger, SystemClock())
    try:
        deliver(ledger, "acme", withdrawn()[1])
        synchronise(ledger, file, AT)
        assert ledger.recalls.progress() == [RecallProgress("recall-1", "acme", RecallState.PENDING, AT)]
        assert ledger.snapshot().recalls["acme"][0].feed == "us-daily"
        assert ledger.recalls.extend("acme", AT) == 1
        assert ledger.recalls.unnotified() == []
    finally:
        ledger.close()


def test_a_lost_file_is_written_anew_from_the_ledger(file: Path, ledgers: LEDGERS) -> None:
    ledger = ledgers("one")
    ledger.recalls.start(recall(), withdrawn(), [])
    synchronise(ledger, file, AT)
    other = ledgers("other")
    synchronise(other, file, AT)
    assert other.recalls.files("recall-1") == withdrawn()


def test_a_torn_recall_was_never_begun_and_harms_no_other(file: Path, ledgers: LEDGERS) -> None:
    append(file, recall(), withdrawn())
    first = file.stat().st_size
    append(file, recall(2), withdrawn(2))
    whole, ledger = file.read_bytes(), ledgers("new")
    for size in range(first, len(whole), 7):
        file.write_bytes(whole[:size])
        synchronise(ledger, file, AT)
        assert ledger.recalls.ids() == {"recall-1"}
        append(file, recall(2), withdrawn(2))
        assert file.read_bytes() == whole


def test_a_changed_byte_stops_everything(file: Path, ledgers: LEDGERS) -> None:
    append(file, recall(), withdrawn(files=1))
    first = file.stat().st_size
    append(file, recall(2), withdrawn(2, files=1))
    whole, ledger = file.read_bytes(), ledgers("new")
    for at in range(0, first - 1, 3):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ConfigError, match="is damaged") as caught:
            synchronise(ledger, file, AT)
        assert "Restore it from a backup" in caught.value.hint
    assert ledger.recalls.ids() == set()


def test_a_file_that_cannot_be_used_says_what_to_do(tmp_path: Path, ledgers: LEDGERS) -> None:
    (tmp_path / "recalls.jsonl").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        synchronise(ledgers("one"), tmp_path / "recalls.jsonl", AT)
    with pytest.raises(ConfigError, match="cannot be written"):
        append(tmp_path / "recalls.jsonl", recall(), withdrawn())
    ledger = ledgers("two")
    ledger.recalls.start(recall(), withdrawn(), [])
    synchronise(ledger, Path("/proc/recalls.jsonl"), AT)  # the ledger has it: deliveries go on


def test_recalls_that_are_added_at_once_are_all_there(file: Path, ledgers: LEDGERS) -> None:
    threads = [
        threading.Thread(target=append, args=(file, recall(number), withdrawn(number))) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = ledgers("new")
    synchronise(ledger, file, AT)
    assert len(ledger.recalls.ids()) == 8
