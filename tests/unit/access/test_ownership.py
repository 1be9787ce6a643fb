"""The ownership of a bucket: what is put, compared, counted, recorded and taken away."""

import hashlib
import io
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes import (
    MemoryBucket,
    MemoryBuckets,
    MemoryClock,
    MemoryProber,
    MemoryRoles,
    MemoryRoleSessions,
)
from tests.fakes.probing import MemoryReservedPrefix
from xmode_transfer import telemetry
from xmode_transfer.access import ownership
from xmode_transfer.access.check_access import check_access
from xmode_transfer.aws.policy.documents import guide_permission_policy, guide_trust_policy
from xmode_transfer.config import Customer, Destination, Vendor
from xmode_transfer.ledger import Ledger, open_ledger
from xmode_transfer.model.errors import (
    AlreadyRunning,
    ObjectExists,
    OwnershipUnproven,
    Responsible,
    RoleRefused,
)
from xmode_transfer.model.findings import Challenge, Proof
from xmode_transfer.model.keys import is_token, token_key
from xmode_transfer.telemetry import rendering
from xmode_transfer.transfer.context import held

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
DAYS = timedelta(days=1)
ASKED = Challenge("acme", "acme-data", token_key("xmode/", "0" * 32), "", NOW, "alice")


# --- The rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "after", "proof"),
    [
        ({}, 0 * DAYS, Proof.OPEN),
        ({"tries": 2}, 0 * DAYS, Proof.OPEN),
        ({"tries": 3}, 0 * DAYS, Proof.USED_UP),
        ({}, 7 * DAYS - timedelta(microseconds=1), Proof.OPEN),
        ({}, 7 * DAYS, Proof.EXPIRED),
        ({"tries": 3}, 8 * DAYS, Proof.USED_UP),
        ({"confirmed_at": NOW}, 900 * DAYS, Proof.PROVEN),
        ({"confirmed_at": NOW, "tries": 2}, 0 * DAYS, Proof.PROVEN),
        ({"bucket": "other-data"}, 0 * DAYS, Proof.NONE),
        ({"bucket": "other-data", "confirmed_at": NOW}, 0 * DAYS, Proof.NONE),
    ],
)
def test_the_state_of_a_proof(changes: dict[str, Any], after: timedelta, proof: Proof) -> None:
    assert replace(ASKED, **changes).proof("acme-data", NOW + after) is proof


def test_hashes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(ownership.hmac, "compare_digest", compare)
    digest = hashlib.sha256(b"right").hexdigest()
    asked = replace(ASKED, token_sha256=digest)
    assert ownership.answered(asked, "right", "bob", NOW) == replace(
        asked, confirmed_at=NOW, confirmed_by="bob"
    )
    assert ownership.answered(asked, "wrong\udcff", "bob", NOW) == replace(asked, tries=1)
    assert [(len(one), other) for one, other in compared] == [(64, digest), (64, digest)]


def test_the_keys_of_tokens() -> None:
    key = token_key("xmode/", "0af9" * 8)
    assert key == f"xmode/_xmode-check/ownership/{'0af9' * 8}.txt"
    assert is_token("xmode/", key)
    for other in (
        f"{key}x",
        key.replace("xmode/_", "_"),
        key.replace("0a", "0A"),
        "xmode/_xmode-check/x/canary",
    ):
        assert not is_token("xmode/", other)


# --- The bucket ----------------------------------------------------------------------------------------


@dataclass
class World:
    """A customer by the guide, in memory."""

    ledger: Ledger
    clock: MemoryClock
    prober: MemoryProber
    bucket: MemoryBucket
    customer: Customer

    @property
    def context(self) -> Any:
        stop = threading.Event()
        return SimpleNamespace(
            vendor=Vendor(), ledger=self.ledger, clock=self.clock, stop=stop, holder="here"
        )

    def challenge(self) -> Challenge:
        return ownership.challenge(self.context, self.prober, self.customer, person="alice")

    def prove(self, token: str | None = None) -> Proof:
        return ownership.prove(self.context, self.prober, self.customer, token, person="bob")

    def refused(self, token: str | None) -> OwnershipUnproven:
        with pytest.raises(OwnershipUnproven) as refused:
            self.prove(token)
        assert refused.value.responsible is Responsible.CUSTOMER
        return refused.value

    def grant(self, permissions: dict[str, Any], external_id: str = "AcmeCorp") -> None:
        trust = guide_trust_policy(external_id)
        self.prober.roles.put(self.customer.role_arn, trust_policy=trust, permission_policies=[permissions])

    @property
    def token(self) -> str:
        """What the customer reads."""
        ((key, found),) = self.bucket.contents().items()
        assert is_token("xmode/", key)
        return bytes(found).decode().strip()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = MemoryClock()
    buckets, roles = MemoryBuckets(clock), MemoryRoles(clock)
    customer = Customer(
        name="acme",
        company="Acme Corp",
        external_id="AcmeCorp",
        role_arn="arn:aws:iam::111122223333:role/XMode",
        destination=Destination(bucket="acme-data", prefix="xmode/", region="us-east-1"),
        feeds=("us-daily",),
    )
    bucket = buckets.create("acme-data", customer.account_id)
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    world = World(ledger, clock, MemoryProber(MemoryRoleSessions(roles), buckets), bucket, customer)
    world.grant(guide_permission_policy("acme-data"))
    yield world
    ledger.close()


def test_the_right_token_is_recorded_and_its_object_goes(world: World) -> None:
    assert world.prove() is Proof.NONE
    made = world.challenge()
    assert world.token.startswith("xmode-")
    assert made.token_sha256 == hashlib.sha256(world.token.encode()).hexdigest()
    assert made == world.ledger.challenges.last("acme")
    assert world.prove() is Proof.OPEN
    world.clock.advance(60)
    assert world.prove(world.token) is Proof.PROVEN
    assert world.bucket.contents() == {}
    proven = world.ledger.challenges.last("acme")
    assert proven == replace(made, confirmed_at=world.clock.now(), confirmed_by="bob")
    assert world.prove() is world.prove("any token") is Proof.PROVEN


def test_three_wrong_tokens_end_a_challenge(world: World) -> None:
    world.challenge()
    right = world.token
    for left in ("2 tries", "1 try", "0 tries"):
        assert len(world.bucket.contents()) == 1
        assert f"not the token in the bucket ({left} left)" in world.refused(f"{right}x").message
    assert world.bucket.contents() == {}
    fourth = world.refused(right)
    assert "3 wrong tokens were given" in fourth.message
    assert "`xmode-transfer onboard --challenge acme`" in fourth.hint
    assert world.prove() is Proof.USED_UP
    world.challenge()
    assert "(2 tries left)" in world.refused(right).message  # it is the first challenge's
    assert world.prove(world.token) is Proof.PROVEN


def test_a_token_expires(world: World) -> None:
    world.challenge()
    token = world.token
    world.clock.advance(7 * 86_400)
    assert "has expired" in world.refused(token).message
    assert world.bucket.contents() == {}
    assert world.prove() is Proof.EXPIRED


def test_a_new_challenge_replaces_an_earlier_one(world: World) -> None:
    first = world.challenge()
    earlier = world.token
    second = world.challenge()
    assert [*world.bucket.contents()] == [second.key] != [first.key]
    assert world.token != earlier
    assert "(2 tries left)" in world.refused(earlier).message
    assert world.prove(world.token) is Proof.PROVEN
    # A challenge of a customer that has proven it starts anew.
    world.challenge()
    assert world.prove() is Proof.OPEN


def test_a_proof_is_for_one_bucket(world: World) -> None:
    world.challenge()
    token = world.token
    world.prove(token)
    there = world.customer.destination.model_copy(update={"bucket": "other-data"})
    world.customer = world.customer.model_copy(update={"destination": there})
    assert world.prove() is Proof.NONE
    assert "no token was put into its bucket" in world.refused(token).message


def test_nothing_foreign_is_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership.secrets, "token_hex", lambda _: "0" * 32)
    place = world.prober.reserve(world.customer, None)
    place.put(token_key("xmode/", "0" * 32), b"theirs")
    with pytest.raises(ObjectExists):
        world.challenge()
    assert place.read(token_key("xmode/", "0" * 32)) == b"theirs"


def test_a_put_that_is_sent_twice_is_no_mistake(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    once = MemoryReservedPrefix.put

    def twice(*given: Any, **how: Any) -> None:
        once(*given, **how)  # its response is lost
        once(*given, **how)

    monkeypatch.setattr(MemoryReservedPrefix, "put", twice)
    world.challenge()
    assert world.prove(world.token) is Proof.PROVEN


def test_an_object_of_a_process_that_died_is_taken_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = MemoryReservedPrefix.put

    def die(*given: Any, **how: Any) -> None:
        put(*given, **how)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryReservedPrefix, "put", die)
        with pytest.raises(KeyboardInterrupt):
            world.challenge()
    assert len(world.bucket.contents()) == 1
    second = world.challenge()
    assert [*world.bucket.contents()] == [second.key]


def test_an_object_that_stays_is_taken_away_later(world: World) -> None:
    world.challenge()
    token = world.token
    guide = guide_permission_policy("acme-data")
    world.grant(json.loads(json.dumps(guide).replace("s3:DeleteObject", "s3:GetObject")))
    assert world.prove(token) is Proof.PROVEN
    assert len(world.bucket.contents()) == 1
    world.grant(guide)
    assert world.prove() is Proof.PROVEN
    assert world.bucket.contents() == {}


def test_an_access_check_leaves_the_token_until_it_has_expired(world: World) -> None:
    world.challenge()
    world.clock.advance(7 * 86_400)
    check_access(world.context, world.prober, world.customer)
    assert len(world.bucket.contents()) == 1
    world.clock.advance(1)
    check_access(world.context, world.prober, world.customer)
    assert world.bucket.contents() == {}


def test_a_role_that_refuses_us_is_reported(world: World) -> None:
    world.grant(guide_permission_policy("acme-data"), external_id="Other")
    with pytest.raises(RoleRefused):
        world.challenge()
    assert world.bucket.contents() == {}


def test_two_processes_do_not_compare_at_once(world: World) -> None:
    world.challenge()
    with held(world.ledger, "ownership/acme", "elsewhere"):
        for work in (world.challenge, lambda: world.prove("x")):
            with pytest.raises(AlreadyRunning):
                work()
    assert world.prove(world.token) is Proof.PROVEN


def test_no_log_line_ledger_or_error_has_the_token(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(rendering, "_protected", rendering._Protected())
    log = io.StringIO()
    telemetry.configure(log, json=True)
    world.challenge()
    token = world.token
    wrong = f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}"
    error = world.refused(wrong)
    telemetry.log("probe", text=f"a token, {token}, and {wrong}")
    world.prove(token)
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    names = [event["event"] for event in events if event["event"].startswith("onboarding.")]
    assert names == ["onboarding.challenged", "onboarding.wrong_token", "onboarding.proven"]
    (told,) = (event for event in events if event["event"] == "onboarding.wrong_token")
    assert (told["tries_left"], told["by"]) == (2, "bob")
    for secret in (token, wrong):
        assert secret not in log.getvalue()
        assert secret not in f"{error.message}{error.hint}{error.log_context()}"
        assert not any(secret.encode() in path.read_bytes() for path in tmp_path.glob("ledger.db*"))
