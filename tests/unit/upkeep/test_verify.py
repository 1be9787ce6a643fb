"""Verifying where something goes wrong on the way, or lies deeper than a HEAD can see."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import (
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
)
from xmode_transfer.aws.policy.documents import guide_permission_policy, guide_trust_policy
from xmode_transfer.aws.stores import Reader
from xmode_transfer.config import (
    Configuration,
    Customer,
    Feed,
    Limits,
    Service,
    Settled,
    Subscription,
    Vendor,
)
from xmode_transfer.config.secrets import SecretKind, SecretRef
from xmode_transfer.config.service import Receipts
from xmode_transfer.delivery.deliver import deliver
from xmode_transfer.ledger import open_ledger
from xmode_transfer.model.errors import AccessDenied, Unavailable, XmodeError
from xmode_transfer.model.manifest import canonical
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.upkeep import DiscrepancyKind, OperationKind, OperationRecord, Scope
from xmode_transfer.transfer.context import Context, opened
from xmode_transfer.transfer.manifest_reading import Checked, ManifestReader, signed_statement
from xmode_transfer.transfer.planning import delivery_id
from xmode_transfer.transfer.publishing import publish
from xmode_transfer.transfer.signing import ManifestSignatures, new_key
from xmode_transfer.upkeep.adopt import adopt
from xmode_transfer.upkeep.listing import Listing, why_nothing
from xmode_transfer.upkeep.verify import Verification

ROLE = "arn:aws:iam::111122223333:role/XMode"
BASE = "xmode/us-daily/"
DAY = Period.parse("2026-11-22", PeriodKind.DAY)
FEED = Feed(
    name="us-daily", source="/nowhere", period="day", partition="%Y/%m/%d", complete=Settled(settle_seconds=0)
)
CUSTOMER = Customer(
    name="acme",
    company="Acme Corp",
    external_id="AcmeCorp",
    role_arn=ROLE,
    destination={"bucket": "acme-data", "prefix": "xmode/", "region": "us-east-1"},
    feeds=["us-daily"],
)


class _Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class World:
    def __init__(self, directory: Path, files: int = 30) -> None:
        self.faults: Any = None
        self.receipts = Receipts()
        self.clock = MemoryClock()
        self.buckets = MemoryBuckets(self.clock)
        self.bucket = self.buckets.create("acme-data", "111122223333")
        roles = MemoryRoles(self.clock)
        roles.put(
            ROLE,
            trust_policy=guide_trust_policy("AcmeCorp"),
            permission_policies=[guide_permission_policy("acme-data")],
        )
        self.source = MemorySource(
            {f"2026/11/22/{number:03}": f"file {number}".encode() for number in range(files)}, period=DAY
        )
        self.directory = directory
        self.stores = MemoryObjectStores(
            self.buckets, roles, page_size=4, faults=lambda *asked: self.faults and self.faults(*asked)
        )
        self.sessions = MemoryRoleSessions(roles)
        self.open("ledger.db")

    def open(self, name: str) -> None:
        self.ledger = open_ledger(f"sqlite:///{self.directory}/{name}", self.clock)
        self.context = Context(
            vendor=Vendor(),
            limits=Limits(),
            sources=lambda feed: self.source,
            sessions=self.sessions,
            stores=self.stores,
            ledger=self.ledger,
            clock=self.clock,
            progress=_Silent(),  # type: ignore[arg-type]
            holder="elsewhere",
            stop=threading.Event(),
            attestation=ManifestSignatures(self.receipts),
        )

    def deliver(self) -> str:
        state = self.source.state(DAY)
        assert state is not None
        outcome = deliver(self.context, CUSTOMER, FEED, state)
        assert outcome.exit_code == 0, outcome
        return outcome.outcome

    @property
    def reader(self) -> Reader:
        return Reader(CUSTOMER, Limits(), self.clock, self.context.stop)

    def verification(self, **how: Any) -> Verification:
        return Verification(self.context, CUSTOMER, Scope(), self.reader, **how)

    def verify(self, **how: Any) -> dict[str, DiscrepancyKind]:
        return {finding.known.key: finding.kind for _, finding in self.verification(**how) if finding}

    def adopt(self, **how: Any) -> Any:
        self.clock.advance(1)  # an act's ID has its time in it
        configuration = Configuration(Service(), {"us-daily": FEED}, {"acme": CUSTOMER}, {})
        return adopt(self.context, configuration, CUSTOMER, Scope(), self.reader, by="alice", **how)

    def begin_anew(self, name: str, receipts: Receipts) -> None:
        """With another ledger, and other keys in service.yaml."""
        self.ledger.close()
        self.receipts = receipts
        self.open(name)

    def not_attested(self) -> dict[int, str | None]:
        return {item.revision: item.not_attested for item in self.ledger.deliveries.find("acme")}

    def tamper(self, name: str, **changes: Any) -> str:
        """Changes an object as no request could: what S3 says of it stays."""
        key = f"{BASE}2026/11/22/{name}"
        found = self.bucket.current(key)
        assert found is not None
        self.bucket.store(replace(found, **changes))
        return key


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.deliver()
    yield made
    made.ledger.close()


def test_only_the_bytes_tell_what_size_etag_and_checksum_hide(world: World) -> None:
    key = world.tamper("007", body=b"FILE 7")
    assert world.verify() == {}
    assert world.verify(deep=True) == {key: DiscrepancyKind.ALTERED}


def test_a_listing_that_breaks_off_calls_nothing_missing(world: World) -> None:
    def broken(operation: str, key: str, attempt: int) -> None:
        if operation == "list" and attempt >= 3:
            raise Unavailable("the network is gone")

    world.faults = broken
    found: list[Any] = []
    with pytest.raises(Unavailable):
        found += [finding for _, finding in world.verification() if finding]
    assert not found
    listing = Listing(world.context, CUSTOMER, {"us-daily": FEED})
    world.stores.requests._attempts.clear()
    with pytest.raises(Unavailable):
        list(listing)
    assert not listing.whole.counts["missing"]


def test_one_key_that_cannot_be_checked_does_not_stop_the_rest(world: World) -> None:
    errors: dict[str, XmodeError] = {"003": AccessDenied("no"), "011": Unavailable("not now")}

    def broken(operation: str, key: str, attempt: int) -> None:
        if operation == "head" and key[-3:] in errors:
            raise errors[key[-3:]]

    world.faults = broken
    discrepancies = {key[-3:]: flaw for key, flaw in world.verify().items()}
    assert discrepancies == {"003": DiscrepancyKind.UNREADABLE, "011": DiscrepancyKind.UNCHECKED}


def test_a_refusal_of_every_key_is_raised_once(world: World) -> None:
    def broken(operation: str, key: str, attempt: int) -> None:
        if operation == "head":
            raise AccessDenied("no right to look")

    world.faults = broken
    with pytest.raises(AccessDenied, match="no right to look"):
        world.verify()


def test_keys_below_an_earlier_prefix_are_elsewhere_and_not_requested(world: World) -> None:
    """Our own session may not look there: a refusal would be laid at the customer's door."""
    moved = CUSTOMER.model_copy(
        update={"destination": CUSTOMER.destination.model_copy(update={"prefix": "moved/"})}
    )
    found = Verification(world.context, moved, Scope(), world.reader)
    discrepancies = {finding.kind for _, finding in found if finding}
    assert discrepancies == {DiscrepancyKind.ELSEWHERE}
    assert (found.verified.outcome, found.verified.exit_code) == ("incomplete", 3)


def test_why_there_is_nothing_to_prove(world: World) -> None:
    world.ledger.close()
    world.open("another.db")
    found = world.verification()
    assert list(found) == []
    assert (found.verified.outcome, found.verified.exit_code) == ("nothing", 0)
    assert why_nothing(world.ledger, CUSTOMER, Scope()) == "nothing has been delivered yet"
    world.ledger.close()
    world.open("ledger.db")
    assert why_nothing(world.ledger, CUSTOMER, Scope(period="2026-11-21")) == (
        "nothing has been delivered of what is named"
    )
    assert why_nothing(world.ledger, CUSTOMER, Scope(feed="us-daily")) == (
        "cleanups have removed all that was delivered"
    )


def test_the_vendor_is_responsible_for_a_manifest_that_differs_from_the_ledger(world: World) -> None:
    key = f"{BASE}_manifests/2026-11-22/000001.json"
    found = world.bucket.current(key)
    assert found is not None
    world.bucket.store(replace(found, body=found.body.replace(b'"size":7', b'"size":8')))
    assert world.verify() == {key: DiscrepancyKind.MANIFEST_DIFFERS}
    world.bucket.store(replace(found, body=found.body[:-20]))
    assert world.verify() == {key: DiscrepancyKind.ALTERED}


def test_a_manifest_without_our_token_is_never_adopted(world: World) -> None:
    world.ledger.close()
    world.open("another.db")
    key = f"{BASE}_manifests/2026-11-22/000001.json"
    found = world.bucket.current(key)
    assert found is not None
    for forged in (
        replace(found, request=None),
        replace(found, body=b"{}", checksum=None),
        replace(
            found, body=found.body.replace(b"xmode/us-daily/2026", b"xmode/eu-daily/2026"), checksum=None
        ),
    ):
        world.bucket.store(forged)
        (item,) = world.adopt().deliveries
        assert (item.outcome, bool(item.message)) == ("refused", True)
        assert world.ledger.deliveries.find("acme") == []


def test_a_bad_manifest_is_refused_and_leaves_nothing(world: World) -> None:
    """The customer can make the mark, for it follows from public names."""
    world.ledger.close()
    world.open("another.db")
    good = world.bucket.current(f"{BASE}_manifests/2026-11-22/000001.json")
    assert good is not None
    bad = {
        "2026-11-20/000001": b'{"count":' + b"[" * 200_000,
        "2026-11-21/000001": good.body.replace(b'"size":6', b'"size":' + b"6" * 6_000, 1),
        "2026-11-22/000002": good.body.replace(b"2026/11/22/000", b"2026/11/22/\\ud800"),
        "2026-11-22/999999999": good.body,
        "2026-11-23/000001": good.body.replace(b".000000Z", b".000000+23:59"),
        "9999-12-31/000001": good.body,
    }
    for name, body in bad.items():
        period, _, revision = name.partition("/")
        identity = delivery_id("acme", "us-daily", period, int(revision))
        forged = replace(
            good, key=f"{BASE}_manifests/{name}.json", body=body, checksum=None, etag=f'"{name}"'
        )
        assert forged.request is not None
        world.bucket.store(replace(forged, request=replace(forged.request, token=identity)))
    found = {f"{item.of.period}/{item.of.revision:06d}": item for item in world.adopt().deliveries}
    assert found.pop("2026-11-22/000001").outcome == "adopted"
    assert found.keys() == bad.keys()
    assert all((item.outcome, bool(item.message)) == ("refused", True) for item in found.values())
    assert "nested" in found["2026-11-20/000001"].message
    assert [(item.period, item.status) for item in world.ledger.deliveries.find("acme")] == [
        ("2026-11-22", "delivered")
    ]
    assert world.verify() == {}


def test_a_manifest_and_an_object_that_may_not_be_read_do_not_stop_the_rest(world: World) -> None:
    world.ledger.close()
    world.open("another.db")

    def refused(operation: str, key: str, attempt: int) -> None:
        if key.endswith(("000001.json", "/007")):
            raise AccessDenied("no")

    world.faults = refused
    (item,) = world.adopt().deliveries
    assert (item.outcome, item.message) == ("refused", "no")
    world.faults = lambda operation, key, attempt: refused(operation, key[-4:], attempt)
    (item,) = world.adopt().deliveries
    assert (item.outcome, [key[-3:] for key, _ in item.unproven]) == ("adopted", ["007"])


def key_of(directory: Path, name: str) -> tuple[Receipts, str]:
    """A key to sign with, and what service.yaml says of it elsewhere."""
    _, public = new_key(directory / name)
    return Receipts(key=SecretRef(SecretKind.FILE, str(directory / name))), public.base64


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[tuple[World, Receipts, str]]:
    """What was delivered with a key to sign manifests with."""
    made = World(tmp_path)
    receipts, public = key_of(tmp_path, "receipts.pem")
    made.begin_anew("signed.db", receipts)
    made.deliver()
    yield made, receipts, public
    made.ledger.close()


def test_what_we_have_signed_is_attested_by_whoever_has_the_public_key(
    signed: tuple[World, Receipts, str], tmp_path: Path
) -> None:
    world, receipts, public = signed
    assert world.not_attested() == {1: None}
    newer, _ = key_of(tmp_path, "newer.pem")
    with_both = newer.model_copy(update={"public_keys": (public,)})
    pem = (tmp_path / "receipts.pem.pub").read_text().splitlines()[1]
    for number, keys in enumerate((receipts, Receipts(public_keys=[pem]), with_both)):
        world.begin_anew(f"{number}.db", keys)
        (item,) = world.adopt().deliveries
        assert (item.outcome, item.not_attested, item.unproven_count) == ("adopted", None, 0)
        assert world.not_attested() == {1: None}


def test_what_no_key_attests_is_adopted_as_not_attested(
    signed: tuple[World, Receipts, str], tmp_path: Path
) -> None:
    world, receipts, _ = signed
    other, _ = key_of(tmp_path, "other.pem")
    key = f"{BASE}_manifests/2026-11-22/000001.json"
    ours = world.bucket.current(key)
    assert ours is not None

    def adopted_with(name: str, keys: Receipts, body: bytes) -> str:
        world.bucket.store(replace(ours, body=body, checksum=None))
        world.begin_anew(name, keys)
        (item,) = world.adopt().deliveries
        assert item.outcome == "adopted"
        assert world.not_attested() == {1: item.not_attested}
        return str(item.not_attested)

    assert "no key" in adopted_with("no key.db", Receipts(), ours.body)
    assert "not in receipts.public_keys" in adopted_with("other key.db", other, ours.body)
    unsigned = ours.body[: ours.body.index(b',"signature"')] + b"}"
    assert "no signature" in adopted_with("unsigned.db", receipts, unsigned)
    start = ours.body.rindex(b'"value":"') + len(b'"value":"')
    first = ours.body[start : start + 1]
    for number, other_than in enumerate((b"B" if first == b"A" else b"A", b"!")):
        broken = ours.body[:start] + other_than + ours.body[start + 1 :]
        assert "not ours" in adopted_with(f"broken {number}.db", receipts, broken)


def test_a_signature_for_another_place_or_other_objects_counts_for_nothing(
    signed: tuple[World, Receipts, str],
) -> None:
    """Whatever of the manifest is forged, the bucket included, our signature does not go with it."""
    world, receipts, _ = signed
    signatures = ManifestSignatures(receipts)
    key = f"{BASE}_manifests/2026-11-22/000001.json"
    ours = world.bucket.current(key)
    assert ours is not None
    document = json.loads(ours.body)
    signature = document["signature"]

    def why_not_attested(changed: dict[str, Any], bucket: str = "acme-data") -> str | None:
        body = canonical(changed).encode()
        reader = ManifestReader([body])
        found = Checked(len(list(reader)), 0, reader.counts["missing"], reader.members)
        return signatures.why_not_attested(signed_statement(lambda: [body], found, bucket), signature)

    assert why_not_attested(document) is None
    later = [{**item, "delivered_at": "2027-01-01T00:00:00.000000Z"} for item in document["objects"]]
    assert why_not_attested({**document, "objects": later}) is None  # an answer was lost
    first = document["objects"][0]
    for name, value in {
        "prefix": "other/",
        "delivery": "e" * 32,
        "feed": "eu-daily",
        "period": "2026-11-23",
        "revision": 2,
        "missing": [first],
    }.items():
        assert why_not_attested({**document, name: value}), name
    for name, value in {
        "size": first["size"] + 1,
        "key": first["key"] + "x",
        "checksum": {"algorithm": "crc32", "value": "AAAAAA=="},
        "sha256": "ab" * 32,
    }.items():
        assert why_not_attested(
            {**document, "objects": [{**first, name: value}, *document["objects"][1:]]}
        ), name
    assert why_not_attested({**document, "objects": document["objects"][1:]})
    assert why_not_attested(document, "globex-data")


def test_a_delivery_is_attested_once_its_key_is_known(signed: tuple[World, Receipts, str]) -> None:
    world, _, public = signed
    world.begin_anew("late.db", Receipts())
    assert [item.outcome for item in world.adopt().deliveries] == ["adopted"]
    assert world.adopt().known == 1
    world.begin_anew("late.db", Receipts(public_keys=[public]))
    assert [item.outcome for item in world.adopt(dry_run=True).deliveries] == ["found"]
    assert world.not_attested() != {1: None}
    assert [item.outcome for item in world.adopt().deliveries] == ["attested"]
    assert world.not_attested() == {1: None}
    assert world.adopt().known == 1


def test_no_detour_leads_to_our_signature(signed: tuple[World, Receipts, str]) -> None:
    """By a repair of the manifest, or by a later revision that carries what was never ours."""
    world, receipts, _ = signed
    key = f"{BASE}_manifests/2026-11-22/000001.json"
    ours = world.bucket.current(key)
    assert ours is not None
    unsigned = ours.body[: ours.body.index(b',"signature"')] + b"}"
    world.bucket.store(replace(ours, body=unsigned, checksum=None))
    world.begin_anew("forged.db", receipts)
    world.adopt()
    delivery = world.ledger.deliveries.find("acme")[0]
    world.bucket.remove(key, world.clock.now())
    lease = world.ledger.leases.claim("test", "test", 60)
    with opened(world.context, CUSTOMER) as store:
        published = publish(world.context, CUSTOMER, store, delivery, lease, Subscription())
    assert published is not None
    assert published.not_attested
    again = world.bucket.current(key)
    assert again is not None
    assert b"signature" not in again.body
    world.source.write("2026/11/22/000", b"corrected")
    assert world.deliver() == "delivered"
    assert "carries over" in str(world.not_attested()[2])
    second = world.bucket.current(f"{BASE}_manifests/2026-11-22/000002.json")
    assert second is not None
    assert b"signature" not in second.body


def test_a_key_that_cannot_be_read_stops_no_delivery(tmp_path: Path) -> None:
    world = World(tmp_path)
    gone = Receipts(key=SecretRef(SecretKind.FILE, str(tmp_path / "gone.pem")))
    world.begin_anew("ledger.db", gone)
    assert world.deliver() == "delivered"
    body = world.bucket.current(f"{BASE}_manifests/2026-11-22/000001.json")
    assert body is not None
    assert b"signature" not in body.body
    world.ledger.close()


def test_an_answer_that_was_lost_is_recognised_although_the_key_is_another_by_now(
    signed: tuple[World, Receipts, str], tmp_path: Path
) -> None:
    world, _, _ = signed
    other, _ = key_of(tmp_path, "other.pem")
    delivery = world.ledger.deliveries.find("acme")[0]
    world.begin_anew("signed.db", other)
    lease = world.ledger.leases.claim("test", "test", 60)
    with opened(world.context, CUSTOMER) as store:
        published = publish(world.context, CUSTOMER, store, delivery, lease, Subscription())
    assert published is not None
    assert published.status == "delivered"


def test_an_adoption_that_dies_is_begun_again_and_run_goes_on_from_it(world: World) -> None:
    world.ledger.close()
    world.open("another.db")

    def broken(operation: str, key: str, attempt: int) -> None:
        if operation == "head" and key.endswith("/020"):
            raise Unavailable("the network is gone")

    world.faults = broken
    died = world.adopt()
    assert died.failure is not None
    lease = world.ledger.leases.claim("adopt/acme", "dead", 1)
    killed = OperationRecord("adopt-1", OperationKind.ADOPT, "acme", "dead", "bob", "", world.clock.now())
    world.ledger.operations.start(lease, killed)
    world.ledger.leases.release(lease)
    world.faults = None
    assert [item.outcome for item in world.adopt().deliveries] == ["adopted"]
    outcomes = {
        act.person: act.outcome for act in world.ledger.operations.newest("acme", OperationKind.ADOPT)
    }
    assert outcomes["bob"] == "interrupted"
    assert world.verify() == {}
    before = world.stores.requests.count("put")
    assert world.deliver() == "skipped"
    assert world.stores.requests.count("put") == before
