"""A world that outlives processes: a source, a customer's account and a ledger on disk, and a file size from
which parts are used that tests can afford."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import (
    Faults,
    MemoryBucket,
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
    StoredVersion,
)
from xmode_transfer.aws.policy.documents import (
    corrected_permission_policy,
    guide_permission_policy,
    guide_trust_policy,
)
from xmode_transfer.config import (
    Configuration,
    Customer,
    Destination,
    Feed,
    Limits,
    Marker,
    Retention,
    Service,
    Vendor,
)
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import open_ledger
from xmode_transfer.ledger.writer import LedgerPart
from xmode_transfer.model.errors import Defect, XmodeError
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import DeliveryOutcome, UploadStatus
from xmode_transfer.transfer import large, sending
from xmode_transfer.transfer.context import Context
from xmode_transfer.upkeep.cleanup import CleanupOutcome, cleanup

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

    def adapter(self, inner: Any) -> "Powered":
        return Powered(inner, self)

    def stores(self, inner: Any) -> "PoweredStores":
        return PoweredStores(inner, self)


class Powered:
    """An adapter that runs on that power."""

    def __init__(self, inner: Any, power: Power) -> None:
        self.inner = inner
        self.power = power

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if isinstance(value, LedgerPart):
            return Powered(value, self.power)
        if not callable(value):
            return value
        return lambda *arguments, **options: self.power.call(value, *arguments, **options)


class PoweredStores:
    def __init__(self, inner: Any, power: Power) -> None:
        self.info = inner.info
        self.inner = inner
        self.power = power

    def open(self, *arguments: Any) -> Any:
        return Powered(self.inner.open(*arguments), self.power)

    def close(self) -> None:
        self.inner.close()


class World:
    """A source, a customer's account and a ledger on disk, which outlive every process."""

    def __init__(self, ledger: Path, files: dict[str, bytes], *, corrected: bool = True) -> None:
        self.clock = MemoryClock()
        self.customer, self.feed = CUSTOMER, FEED
        self.url = f"sqlite:///{ledger}"
        self.files_at_first = files
        self.markers = 0
        self.source = MemorySource(files, period=PERIOD)
        self.buckets = MemoryBuckets(self.clock, min_part_bytes=1)
        self.buckets.create("acme-data", "111122223333", versioned=True)
        self.roles = MemoryRoles(self.clock)
        self.grant(
            corrected_permission_policy("acme-data", "xmode/")
            if corrected
            else guide_permission_policy("acme-data")
        )

    def grant(self, document: dict[str, Any]) -> None:
        """The customer's role has this permission policy from now on."""
        self.roles.put(ROLE, trust_policy=guide_trust_policy("AcmeCorp"), permission_policies=[document])

    @property
    def bucket(self) -> MemoryBucket:
        return self.buckets["acme-data"]

    @contextmanager
    def context(self, power: Any = None, faults: Faults | None = None) -> Iterator[Context]:
        """What one process works with. ``power`` stands between it and the world."""
        self.clock.advance(120)  # a dead process's lease has expired
        ledger = open_ledger(self.url, self.clock)
        stores = MemoryObjectStores(self.buckets, self.roles, faults=faults)
        try:
            yield Context(
                vendor=Vendor(),
                limits=Limits(),
                sources=lambda feed: self.source,
                sessions=MemoryRoleSessions(self.roles),
                stores=stores if power is None else power.stores(stores),
                ledger=ledger if power is None else power.adapter(ledger),
                clock=self.clock,
                progress=_Silent(),
                holder="elsewhere",
            )
        finally:
            ledger.close()

    def process(
        self, power: Any = None, faults: Faults | None = None, *, period: Period = PERIOD
    ) -> DeliveryOutcome | None:
        """One process's life: its outcome, or None when it ended with an error."""
        with self.context(power, faults) as context:
            try:
                state = self.source.state(period)
                assert state is not None
                return deliver(context, self.customer, self.feed, state)
            except XmodeError:
                return None

    def clean(self, power: Any = None, faults: Faults | None = None, **policy: Any) -> CleanupOutcome | None:
        """The same for a cleanup that a person has confirmed."""
        customer = self.customer.model_copy(update={"retention": Retention(**policy) if policy else None})
        configuration = Configuration(Service(), {FEED.name: self.feed}, {customer.name: customer}, {})
        with self.context(power, faults) as context:
            try:
                return cleanup(context, configuration, customer.name, by="alice", confirmed=True)
            except XmodeError:
                return None

    def manifests(self, *, since: int = 1) -> list[dict[str, Any]]:
        """What a customer sees, oldest revision first; each must hold what it says, from the revision
        ``since`` on: the customer may have removed objects of those before."""
        contents = self.bucket.contents()
        found = [json.loads(contents[key]) for key in sorted(contents) if "/_manifests/" in key]
        for manifest in found:
            for item in manifest["objects"] if manifest["revision"] >= since else ():
                assert len(contents[item["key"]]) == item["size"], item
        return found

    def put(self, key: str, data: bytes) -> None:
        """The customer writes an object of its own, over whatever is there."""
        etag = f'"{data.hex()}"'
        version = StoredVersion(key, self.bucket.new_id("theirs"), self.clock.now(), body=data, etag=etag)
        self.bucket.store(version)

    def take(self, *keys: str) -> None:
        """The customer deletes objects."""
        for key in keys:
            self.bucket.remove(key, self.clock.now())

    def renew_marker(self) -> None:
        self.markers += 1
        self.source.set_state(PERIOD, complete=True, marker=str(self.markers))

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
            assert ledger.uploads.find(statuses=[UploadStatus.OPEN]) == []
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
    monkeypatch.setattr(large, "MIN_PART_BYTES", 200)
    monkeypatch.setattr(large, "MIB", 1)
    numbers = count()

    def make(files: dict[str, bytes], **how: Any) -> World:
        ledger = Path(shutil.copy(empty_ledger, tmp_path / f"{next(numbers)}.db"))
        return World(ledger, files, **how)

    return make


@pytest.fixture
def make_power() -> Callable[..., Power]:
    """Makes power that fails at a call: ``make_power(3, after=True)``."""
    return Power
