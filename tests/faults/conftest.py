"""A world that outlives processes: a source, a customer's account and a ledger on disk, and a file size from
which parts are used that tests can afford."""

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.adapters import checksums
from xmode_transfer.adapters.ledger import open_ledger
from xmode_transfer.adapters.memory import (
    Faults,
    MemoryBucket,
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
)
from xmode_transfer.adapters.spool import SpooledFile
from xmode_transfer.domain import parts
from xmode_transfer.domain.config import Customer, Destination, Feed, Limits, Marker, Vendor
from xmode_transfer.domain.errors import XmodeError
from xmode_transfer.domain.periods import Period, PeriodKind
from xmode_transfer.domain.policy import (
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.domain.records import DeliveryOutcome, UploadStatus
from xmode_transfer.services import sending
from xmode_transfer.services.deliver import deliver
from xmode_transfer.services.workbench import Workbench

PERIOD = Period.parse("2026-11-22", PeriodKind.DAY)
ROLE = "arn:aws:iam::111122223333:role/XMode"
CUSTOMER = Customer(
    name="acme",
    company="Acme Corp",
    external_id="AcmeCorp",
    role_arn=ROLE,
    destination=Destination(bucket="acme-data", prefix="xmode/", region="us-east-1"),
    feeds=("us-daily",),
)
FEED = Feed(
    name="us-daily",
    source="/nowhere",
    period=PeriodKind.DAY,
    partition="%Y/%m/%d",
    complete=Marker(marker="_SUCCESS"),
)


class World:
    """A source, a customer's account and a ledger on disk, which outlive every process."""

    def __init__(self, ledger: Path, files: dict[str, bytes], *, corrected: bool = True) -> None:
        self.clock = MemoryClock()
        self.url = f"sqlite:///{ledger}"
        self.files_at_first = files
        self.source = MemorySource(files, period=PERIOD)
        self.buckets = MemoryBuckets(self.clock, min_part_bytes=1)
        self.buckets.create("acme-data", "111122223333", versioned=True)
        self.roles = MemoryRoles(self.clock)
        self.roles.put(
            ROLE,
            trust_policy=guide_trust_policy("AcmeCorp"),
            permission_policies=[
                corrected_permission_policy("acme-data", "xmode/")
                if corrected
                else guide_permission_policy("acme-data")
            ],
        )

    @property
    def bucket(self) -> MemoryBucket:
        return self.buckets["acme-data"]

    def process(self, power: Any = None, faults: Faults | None = None) -> DeliveryOutcome | None:
        """One process's life: its outcome, or None when it ended with an error. ``power`` stands between it
        and the world."""
        self.clock.advance(120)  # a dead process's lease has expired
        ledger = open_ledger(self.url, self.clock)
        stores = MemoryObjectStores(self.buckets, self.roles, faults=faults)
        try:
            bench = Workbench(
                vendor=Vendor(),
                limits=Limits(),
                sources=lambda feed: self.source,
                sessions=MemoryRoleSessions(self.roles),
                stores=stores if power is None else power.stores(stores),
                ledger=ledger if power is None else power.adapter(ledger),
                clock=self.clock,
                progress=_Silent(),
                checksum_of=checksums.of,
                spool=SpooledFile,
                holder="elsewhere",
            )
            state = self.source.state(PERIOD)
            assert state is not None
            return deliver(bench, CUSTOMER, FEED, state)
        except XmodeError:
            return None
        finally:
            ledger.close()

    def manifests(self) -> list[dict[str, Any]]:
        """What a customer sees, oldest revision first; each must hold what it says."""
        contents = self.bucket.contents()
        found = [json.loads(contents[key]) for key in sorted(contents) if "/_manifests/" in key]
        for manifest in found:
            for item in manifest["objects"]:
                assert len(contents[item["key"]]) == item["size"], item
        return found

    def check_end(self) -> None:
        """Every source file is one object with one version, and the last manifest lists them all."""
        contents = self.bucket.contents()
        last = self.manifests()[-1]
        found = {item["source"]: contents[item["key"]] for item in last["objects"]}
        now = self.files()
        assert {name: found.get(name) for name in now} == now
        # a file that the source has removed since may be listed as it was, once it was delivered
        assert all(found[name] == self.files_at_first[name] for name in found.keys() - now.keys())
        for key in contents:
            assert len(self.bucket.versions(key)) == 1, key
        ledger = open_ledger(self.url, self.clock)
        try:
            assert ledger.uploads(statuses=[UploadStatus.OPEN]) == []
        finally:
            ledger.close()

    def files(self) -> dict[str, bytes]:
        found = {}
        for file in self.source.scan(PERIOD):
            with self.source.open(file) as body:  # type: ignore[arg-type]
                found[file.name] = body.read_at(0, body.size)
        return found


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: its tables take longer than a whole delivery."""
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    open_ledger(f"sqlite:///{path}", MemoryClock()).close()
    return path


@pytest.fixture
def make_world(tmp_path: Path, empty_ledger: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Makes worlds in which more than 100 bytes go in parts of 200."""
    monkeypatch.setattr(sending, "LARGE_BYTES", 100)
    monkeypatch.setattr(parts, "MIN_PART_BYTES", 200)
    monkeypatch.setattr(parts, "MIB", 1)
    numbers = count()

    def make(files: dict[str, bytes], **how: Any) -> World:
        ledger = Path(shutil.copy(empty_ledger, tmp_path / f"{next(numbers)}.db"))
        return World(ledger, files, **how)

    return make
