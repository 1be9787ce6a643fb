"""Cleaning up and recalling through both engines, in front of moto: versions, Object Lock, and a store that
ignores the ETags of DeleteObjects."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from tests.fakes import MemorySource
from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.s3_portable import PortableStores
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.cli.terminal import Tally
from xmode_transfer.config import Configuration, Customer, Feed, Limits, Service, Settled, Vendor
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.recall import RecallState
from xmode_transfer.model.upkeep import RemovalOutcome, Scope
from xmode_transfer.sandbox.accounts import client, forget
from xmode_transfer.telemetry import SystemClock
from xmode_transfer.transfer.context import Context
from xmode_transfer.upkeep.cleanup import CleanupOutcome, cleanup
from xmode_transfer.upkeep.recall import Request, begin, carry_out, plan

DAYS = [Period.parse(f"2020-01-{day:02}", PeriodKind.DAY) for day in (1, 2, 3)]
BASE = "xmode/us-daily/"
FEED = Feed(
    name="us-daily", source="/nowhere", period="day", partition="%Y/%m/%d", complete=Settled(settle_seconds=0)
)
_numbers = count()


class AnySessions:
    """moto lets everybody in."""

    def verify_identity(self) -> str:
        return Vendor().principal_arn

    def open(self, customer: Customer, step: object) -> "AnySessions":
        return self

    def get(self) -> Credentials:
        return Credentials("AKIAANYBODY", "secret", "token", datetime(2099, 1, 1, tzinfo=UTC))

    def invalidate(self, credentials: Credentials) -> None:
        pass


@dataclass
class Place:
    """A bucket with three days of long ago in it, and what the customer sees of it."""

    s3: Any
    context: Context
    configuration: Configuration

    @property
    def customer(self) -> Customer:
        return self.configuration.customers["acme"]

    @property
    def bucket(self) -> str:
        return self.customer.destination.bucket

    def contents(self) -> dict[str, bytes]:
        rows = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return {
            row["Key"]: self.s3.get_object(Bucket=self.bucket, Key=row["Key"])["Body"].read() for row in rows
        }

    def versions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.s3.list_object_versions(Bucket=self.bucket)["Versions"]
        return found

    def clean(self) -> CleanupOutcome:
        return cleanup(self.context, self.configuration, "acme", by="alice", confirmed=True)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    forget(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(params=[PortableStores, FastStores], ids=["portable", "fast"])
def place(
    request: pytest.FixtureRequest, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Place]]:
    """Makes the one place of a test. ``locked``: what is put is locked for a day."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    clock = SystemClock()
    monkeypatch.setattr("xmode_transfer.aws.s3_objects.PAGE_ROWS", 4)
    stores = request.param(Limits(), clock)
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    s3 = client("s3", endpoint=endpoint, access_key_id="a", secret_access_key="b", region="us-east-1")

    def make(*, locked: bool = False) -> Place:
        customer = Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn="arn:aws:iam::111122223333:role/XMode",
            destination={"bucket": f"cleanup-{next(_numbers)}", "prefix": "xmode/", "region": "us-east-1"},
            feeds=["us-daily"],
            retention={"days": 30},
        )
        bucket = customer.destination.bucket
        s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locked)
        if locked:
            rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
            lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
            s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock)
        source = MemorySource()
        context = Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: source,
            sessions=AnySessions(),  # type: ignore[arg-type]
            stores=stores,
            ledger=ledger,
            clock=clock,
            progress=Tally(),
            holder="here",
        )
        for day in DAYS:
            for name in ("a.csv", "b & c.csv", "é.csv"):
                path = f"{day.start:%Y/%m/%d}/{name}"
                source.write(path, path.encode(), period=day)
            state = source.state(day)
            assert state is not None
            outcome = deliver(context, customer, FEED, state)
            assert outcome.outcome == "delivered", outcome
        return Place(s3, context, Configuration(Service(), {FEED.name: FEED}, {"acme": customer}, {}))

    yield make
    stores.close()
    ledger.close()


def test_only_ours_go_though_the_store_ignores_conditions(place: Callable[..., Place]) -> None:
    here = place()
    theirs = {f"{BASE}2020/01/01/a.csv": b"their words under our key", f"{BASE}2020/01/02/theirs": b"theirs"}
    for key, data in theirs.items():
        here.s3.put_object(Bucket=here.bucket, Key=key, Body=data)
    before = here.contents()
    outcome = here.clean()
    assert (outcome.outcome, outcome.removed.keys[RemovalOutcome.DELETED]) == ("cleaned", 7)
    kept = {key: data for key, data in before.items() if "/01/03/" in key or "2020-01-03" in key}
    assert here.contents() == kept | theirs
    assert here.clean().outcome == "nothing"


def test_under_object_lock_what_is_locked_is_hidden_and_stays_stored(place: Callable[..., Place]) -> None:
    here = place(locked=True)
    stored = [(row["Key"], row["VersionId"], row["Size"]) for row in here.versions()]
    outcome = here.clean()
    assert outcome.outcome == "cleaned"
    assert outcome.removed.keys == {RemovalOutcome.HIDDEN: 8}
    hidden = sum(size for key, _, size in stored if "/01/03/" not in key and "2020-01-03" not in key)
    assert outcome.removed.bytes[RemovalOutcome.HIDDEN] == hidden
    assert outcome.lifecycle_rule is not None
    assert len(here.contents()) == 4
    assert [(row["Key"], row["VersionId"], row["Size"]) for row in here.versions()] == stored


@pytest.mark.parametrize("locked", [False, True], ids=["plain", "locked"])
def test_a_recall_takes_what_is_ours_and_hides_what_is_locked(
    place: Callable[..., Place], tmp_path: Path, locked: bool
) -> None:
    here = place(locked=locked)
    stored = {(row["Key"], row["VersionId"]) for row in here.versions()} if locked else set()
    theirs = f"{BASE}2020/01/01/b & c.csv"
    if not locked:
        here.s3.put_object(Bucket=here.bucket, Key=theirs, Body=b"their words under our key")
    request = Request("us-daily", Scope(), ("b & c.csv",), (), None, "an opt-out", "alice", "")
    made = plan(here.context, here.configuration, request)
    begin(here.context, made, tmp_path / "recalls.jsonl")
    done = carry_out(
        here.context, here.configuration, made.recall.id, "acme", may_send=lambda feed, state: False
    )
    expected = {"hidden": 6} if locked else {"deleted": 5, "changed": 1}
    assert (done.state, done.outcomes) == (RecallState.DONE, expected)
    contents = here.contents()
    assert [key for key in contents if key.endswith("b & c.csv")] == ([] if locked else [theirs])
    manifests = [json.loads(body) for key, body in contents.items() if "/_manifests/" in key]
    assert [(item["revision"], item["count"], len(item["withdrawn"])) for item in manifests] == [
        (2, 2, 1)
    ] * 3
    ends = [item.locked_until for item in here.context.ledger.operations.of_recall("acme", made.recall.id)]
    assert all((end is not None and end > here.context.clock.now()) == locked for end in ends)
    if locked:
        assert stored <= {(row["Key"], row["VersionId"]) for row in here.versions()}
    assert all(item["key"] in contents for manifest in manifests for item in manifest["objects"])
