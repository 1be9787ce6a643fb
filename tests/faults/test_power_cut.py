"""The power fails at every single point of a delivery, once before the call takes effect and once after.

Each case: deliver until the cut, look at the bucket as a customer would, start again on the same ledger,
and compare the end with the source. Ledger and destination are real adapters; from the cut on, nothing that
the old process does has any effect.
"""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.adapters import checksums
from xmode_transfer.adapters.ledger import open_ledger
from xmode_transfer.adapters.memory import (
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
from xmode_transfer.domain.errors import Defect, XmodeError
from xmode_transfer.domain.periods import Period, PeriodKind
from xmode_transfer.domain.policy import corrected_permission_policy, guide_trust_policy
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
SMALL = {f"2026/11/22/{name}": name.encode() * 3 for name in ("a.csv", "b.csv", "c.csv")}
LARGE = {"2026/11/22/large.bin": bytes(range(256)) * 2}


class PowerCutError(Defect):
    """What the old process meets from the cut on."""


class Power:
    """Fails at the ``at``-th call, before it takes effect or after."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.off = False

    def call(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self.off:
            raise PowerCutError("the power is off")
        self.left -= 1
        fails = self.left == 0
        if fails and not self.after:
            self.off = True
            raise PowerCutError("the power fails before the call")
        answer = work(*arguments, **options)
        if fails:
            if isinstance(answer, Future):
                answer.exception()
            self.off = True
            raise PowerCutError("the power fails after the call")
        return answer


class Powered:
    """An adapter that runs on that power."""

    def __init__(self, inner: Any, power: Power) -> None:
        self.inner = inner
        self.power = power

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return value
        return lambda *arguments, **options: self.power.call(value, *arguments, **options)


class PoweredStores:
    def __init__(self, inner: MemoryObjectStores, power: Power) -> None:
        self.info = inner.info
        self.inner = inner
        self.power = power

    def open(self, *arguments: Any) -> Any:
        return Powered(self.inner.open(*arguments), self.power)

    def close(self) -> None:
        self.inner.close()


class World:
    """A source, a customer's account and a ledger on disk, which outlive every process."""

    def __init__(self, ledger: Path, files: dict[str, bytes]) -> None:
        self.clock = MemoryClock()
        self.url = f"sqlite:///{ledger}"
        self.source = MemorySource(files, period=PERIOD)
        self.buckets = MemoryBuckets(self.clock, min_part_bytes=1)
        self.buckets.create("acme-data", "111122223333", versioned=True)
        self.roles = MemoryRoles(self.clock)
        self.roles.put(
            ROLE,
            trust_policy=guide_trust_policy("AcmeCorp"),
            permission_policies=[corrected_permission_policy("acme-data", "xmode/")],
        )

    @property
    def bucket(self) -> MemoryBucket:
        return self.buckets["acme-data"]

    def process(self, power: Power, progress: Any) -> DeliveryOutcome | None:
        """One process's life; None when the power failed in it."""
        self.clock.advance(120)  # a dead process's lease has expired
        ledger = open_ledger(self.url, self.clock)
        try:
            bench = Workbench(
                vendor=Vendor(),
                limits=Limits(),
                sources=lambda feed: self.source,
                sessions=MemoryRoleSessions(self.roles),
                stores=PoweredStores(MemoryObjectStores(self.buckets, self.roles), power),
                ledger=Powered(ledger, power),
                clock=self.clock,
                progress=progress,
                checksum_of=checksums.of,
                spool=SpooledFile,
                holder="elsewhere",
            )
            state = self.source.state(PERIOD)
            assert state is not None
            return deliver(bench, CUSTOMER, FEED, state)
        except XmodeError:
            assert power.off
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
        assert all(found[name] == SMALL[name] for name in found.keys() - now.keys())
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


class Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


def nothing(world: World) -> None:
    pass


def change_small(world: World) -> None:
    world.source.write("2026/11/22/b.csv", b"corrected at the worst moment")


def change_large(world: World) -> None:
    world.source.write("2026/11/22/large.bin", bytes(range(255, -1, -1)) * 2)


def add_and_remove(world: World) -> None:
    world.source.write("2026/11/22/d.csv", b"late")
    world.source.remove("2026/11/22/c.csv")


@pytest.fixture(scope="module")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: its tables take longer than a whole delivery."""
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    open_ledger(f"sqlite:///{path}", MemoryClock()).close()
    return path


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("meanwhile", [nothing, change_small, change_large, add_and_remove])
def test_wherever_the_power_fails_the_next_run_ends_whole(
    tmp_path: Path,
    empty_ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
    meanwhile: Callable[[World], None],
) -> None:
    monkeypatch.setattr(sending, "LARGE_BYTES", 100)
    monkeypatch.setattr(parts, "MIN_PART_BYTES", 200)
    monkeypatch.setattr(parts, "MIB", 1)
    cuts = 0
    every = 1 if meanwhile is nothing or "XMODE_SOAK" in os.environ else 4
    for at in range(1, 400, every):
        ledger = shutil.copy(empty_ledger, tmp_path / f"{at}.db")
        world = World(ledger, {**SMALL, **LARGE})
        first = world.process(power := Power(at, after=after), Silent())
        world.manifests()
        if not power.off:
            assert first is not None
            assert first.outcome == "delivered"
            break
        cuts += 1
        meanwhile(world)
        for _ in range(3):
            last = world.process(Power(-1, after=False), Silent())
            assert last is not None
            world.manifests()
            if last.outcome in ("delivered", "skipped"):
                break
        assert last is not None
        assert last.outcome in ("delivered", "skipped"), last
        world.check_end()
    assert cuts * every > 50
