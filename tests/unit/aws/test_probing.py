"""What the prober sends: to whom, under which session, and with the account that must own the bucket."""

import json
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from xmode_transfer.aws.policy import decide, evaluate
from xmode_transfer.aws.policy.documents import ACL, Step, session_policy
from xmode_transfer.aws.policy.evaluate import Request, S3Call
from xmode_transfer.aws.probing import DEEP_READS, READS, Prober
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Customer, Vendor
from xmode_transfer.model.errors import RequestRefused, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import UploadedPart

pytestmark = pytest.mark.usefixtures("our_keys")

SESSION = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::{account}:assumed-role/XMode/x</Arn><AssumedRoleId>A:x</AssumedRoleId>
</AssumedRoleUser><Credentials><AccessKeyId>ASIATHEIRS</AccessKeyId><SecretAccessKey>their-secret
</SecretAccessKey><SessionToken>their-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>"""
DENIED = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"


@pytest.fixture
def customer(customer_of: Callable[..., Customer]) -> Customer:
    return customer_of()


@pytest.fixture
def aws(stub: Any, customer: Customer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """STS lets us in, and everything else says no."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", stub.url)
    session = SESSION.format(account=customer.account_id).encode()

    def answer(asked: Any) -> SimpleNamespace:
        from_sts = b"Action=AssumeRole" in asked.body
        return SimpleNamespace(
            status=200 if from_sts else 403,
            body=session if from_sts else DENIED,
            headers={"Content-Type": "text/xml"},
            cut=False,
        )

    stub.reply(answer)
    return stub


@pytest.fixture
def prober(clock: Clock) -> Prober:
    return Prober(RoleSessions(Vendor(), clock), clock)


def assumed(stub: Any) -> list[dict[str, str]]:
    return [asked.form for asked in stub.asked if b"Action=AssumeRole" in asked.body]


def to_s3(stub: Any) -> list[Any]:
    return [asked for asked in stub.asked if "/s3/aws4_request" in asked.headers.get("authorization", "")]


def do_everything(place: Any) -> None:
    key = f"{place.prefix}x/canary"
    for work in (
        place.locate,
        place.list,
        lambda: place.put(key, b"x"),
        lambda: place.put(key, b"x", acl=False),
        lambda: place.create_upload(key),
        lambda: place.upload_part(key, "u", 1, b"x"),
        lambda: place.list_parts(key, "u"),
        lambda: place.complete_upload(key, "u", [UploadedPart(1, 1, '"e"', "AAAAAQ==")]),
        lambda: place.abort_upload(key, "u"),
        lambda: place.head(key),
        lambda: place.read(key),
        lambda: place.acl(key),
        lambda: place.delete(key),
    ):
        with suppress(XmodeError):
            work()


def test_every_request_is_the_customers_session_and_names_the_owner(
    aws: Any, prober: Prober, customer: Customer
) -> None:
    place = prober.reserve(customer, None)
    do_everything(place)
    place.close()
    asked = to_s3(aws)
    assert len(asked) >= 13
    for one in asked:
        assert one.headers["x-amz-expected-bucket-owner"] == customer.account_id
        assert one.headers["x-amz-security-token"] == "their-token"
        assert "ASIATHEIRS" in one.headers["authorization"]
    writing = [one for one in asked if one.method in ("PUT", "POST", "DELETE")]
    assert all("_xmode-check/x/canary" in one.path for one in writing)
    with_acl = [one.headers.get("x-amz-acl") for one in writing]
    assert with_acl.count(ACL) == 2  # the object, and the upload that is created


def test_the_session_that_writes_is_cut_to_the_reserved_place(
    aws: Any, prober: Prober, customer: Customer
) -> None:
    place = prober.reserve(customer, None)
    do_everything(place)
    (form,) = assumed(aws)
    policy = json.loads(form["Policy"])
    destination = customer.destination
    reserved = f"{destination.prefix}_xmode-check/"
    assert policy == session_policy(Step.CHECK, bucket=destination.bucket, prefix=reserved)
    everything = [
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    ]
    inside = S3Call("PutObject", destination.bucket, f"{reserved}x", acl=ACL)
    outside = S3Call("PutObject", destination.bucket, f"{destination.prefix}us-daily/x", acl=ACL)
    assert decide(inside, everything, policy).allowed
    assert not decide(outside, everything, policy).allowed
    assert form["ExternalId"] == customer.external_id
    place.close()


@pytest.mark.parametrize("external_id", ["never-issued", None])
def test_a_trial_opens_a_session_that_may_do_nothing(
    aws: Any, prober: Prober, customer: Customer, external_id: str | None
) -> None:
    prober.assume(customer, external_id)
    (form,) = assumed(aws)
    assert form.get("ExternalId") == external_id
    assert form["DurationSeconds"] == "900"
    policy = json.loads(form["Policy"])
    for action in ("s3:GetObject", "s3:ListBucket", "iam:ListUsers", "sts:AssumeRole"):
        assert not evaluate([policy], Request("x", action, "*")).allowed
    assert to_s3(aws) == []


def test_nothing_but_a_trial_goes_without_an_external_id(aws: Any, clock: Clock, customer: Customer) -> None:
    sessions = RoleSessions(Vendor(), clock)
    without = customer.model_copy(update={"external_id": None})
    with pytest.raises(RequestRefused):
        sessions.open(without, Step.DELIVER).get()
    assert assumed(aws) == []


@pytest.mark.parametrize("deep", [False, True])
def test_rights_too_many_are_looked_for_with_a_session_for_these_reads_alone(
    aws: Any, prober: Prober, customer: Customer, deep: bool
) -> None:
    assert list(prober.excess(customer, deep=deep)) == []
    (form,) = assumed(aws)
    policy = json.loads(form["Policy"])
    rights = [right for right, _, _ in (DEEP_READS if deep else READS)]
    assert policy["Statement"] == [{"Effect": "Allow", "Action": rights, "Resource": "*"}]
    assert all(right.partition(":")[2].startswith(("Get", "List", "Describe")) for right in rights)
    asked = [one for one in aws.asked if b"Action=AssumeRole" not in one.body]
    assert len(asked) >= len(rights)
    assert all(one.headers["x-amz-security-token"] == "their-token" for one in asked)
    of_bucket = [one for one in to_s3(aws) if "policy" in one.query or "policy" in one.raw_path]
    assert [one.headers["x-amz-expected-bucket-owner"] for one in of_bucket] == [customer.account_id]
