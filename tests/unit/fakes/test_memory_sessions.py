import threading
from datetime import timedelta

import pytest

from tests.fakes import (
    Fault,
    MemoryClock,
    MemoryRoles,
    MemoryRoleSessions,
)
from xmode_transfer.aws.policy.documents import (
    VENDOR_PRINCIPAL,
    Step,
    guide_permission_policy,
    guide_trust_policy,
    session_policy,
)
from xmode_transfer.config import Customer, Destination
from xmode_transfer.model.errors import RoleRefused, Throttled, Unavailable, VendorIdentityError

ROLE = "arn:aws:iam::111122223333:role/delivery/XMode"


def customer(**changes):
    settings = {
        "name": "acme",
        "company": "Acme Corp",
        "external_id": "AcmeCorp",
        "role_arn": ROLE,
        "destination": Destination(bucket="acme-data", prefix="xmode/"),
        "feeds": ("us-daily",),
    }
    return Customer(**settings | changes)


@pytest.fixture
def clock():
    return MemoryClock()


@pytest.fixture
def roles(clock):
    roles = MemoryRoles(clock)
    roles.put(
        ROLE,
        trust_policy=guide_trust_policy("AcmeCorp"),
        permission_policies=[guide_permission_policy("acme-data")],
    )
    return roles


def test_a_session_is_cut_down_to_its_step(roles, clock):
    credentials = MemoryRoleSessions(roles).open(customer(), Step.LIST).get()
    session = roles.session(credentials)
    assert session.session_policy == session_policy(Step.LIST, bucket="acme-data", prefix="xmode/")
    assert session.principal == "arn:aws:sts::111122223333:assumed-role/XMode/xmode-transfer"
    assert credentials.expires_at == clock.now() + timedelta(hours=1)


def test_credentials_are_reused_until_they_near_their_end(roles, clock):
    sessions = MemoryRoleSessions(roles)
    provider = sessions.open(customer(), Step.DELIVER)
    assert sessions.requests.count("assume_role") == 0
    first = provider.get()
    clock.advance(3600 - 300)
    assert provider.get() == first
    clock.advance(1)
    assert provider.get() != first
    assert sessions.requests.count("assume_role", "acme") == 2


def test_invalidated_credentials_are_renewed_once(roles):
    provider = MemoryRoleSessions(roles).open(customer(), Step.DELIVER)
    first = provider.get()
    provider.invalidate(first)
    second = provider.get()
    provider.invalidate(first)  # somebody else's late word about the old ones
    assert provider.get() == second != first


def test_many_threads_make_one_call(roles):
    sessions = MemoryRoleSessions(roles)
    provider = sessions.open(customer(), Step.DELIVER)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(provider.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert sessions.requests.count("assume_role") == 1


def test_secrets_do_not_show(roles):
    credentials = MemoryRoleSessions(roles).open(customer(), Step.DELIVER).get()
    assert credentials.secret_access_key not in repr(credentials)
    assert credentials.access_key_id not in repr(roles.session(credentials))


def test_an_ended_session_is_nobodys(roles, clock):
    provider = MemoryRoleSessions(roles).open(customer(), Step.DELIVER)
    credentials = provider.get()
    clock.advance(3600)
    assert roles.session(credentials) is None
    fresh = provider.get()
    roles.revoke(fresh)
    assert roles.session(fresh) is None


def test_a_policy_that_changes_holds_for_running_sessions(roles):
    credentials = MemoryRoleSessions(roles).open(customer(), Step.DELIVER).get()
    roles.put(ROLE, trust_policy=guide_trust_policy("Other"), permission_policies=[])
    assert roles.session(credentials).role.permission_policies == ()
    roles.delete(ROLE)
    assert roles.session(credentials) is None


@pytest.mark.parametrize(
    ("changes", "identity"),
    [
        ({"external_id": "acmecorp"}, VENDOR_PRINCIPAL),
        ({"role_arn": "arn:aws:iam::111122223333:role/Absent"}, VENDOR_PRINCIPAL),
        ({}, "arn:aws:iam::366810793500:user/somebody-else"),
    ],
)
def test_one_message_for_every_refusal(roles, changes, identity):
    sessions = MemoryRoleSessions(roles, identity=identity, principal=identity)
    with pytest.raises(RoleRefused) as caught:
        sessions.open(customer(**changes), Step.DELIVER).get()
    assert "not there, does not trust" in caught.value.message
    assert caught.value.aws_code == "AccessDenied"


def test_a_session_longer_than_the_role_allows(roles):
    with pytest.raises(RoleRefused) as caught:
        MemoryRoleSessions(roles, duration_seconds=7200).open(customer(), Step.DELIVER).get()
    assert caught.value.aws_code == "ValidationError"


@pytest.mark.parametrize("identity", [None, "arn:aws:iam::366810793500:user/somebody-else"])
def test_our_own_identity_is_ours_to_mend(roles, identity):
    sessions = MemoryRoleSessions(roles, identity=identity)
    for use in (sessions.verify_identity, sessions.open(customer(), Step.DELIVER).get):
        with pytest.raises(VendorIdentityError):
            use()
    assert sessions.requests.count("assume_role") == 0


def test_sts_may_fail(roles):
    faults = {1: Throttled("slow down"), 2: None}

    def hook(operation, key, attempt):
        assert (operation, key) == ("assume_role", "acme")
        if attempt == 1:
            raise faults[1]
        return Fault.LOSE_ANSWER if attempt == 2 else None

    provider = MemoryRoleSessions(roles, faults=hook).open(customer(), Step.DELIVER)
    with pytest.raises(Throttled):
        provider.get()
    with pytest.raises(Unavailable):
        provider.get()
    assert roles.session(provider.get()) is not None
