"""Role sessions: what STS is asked, how often, and whose matter a refusal is."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from xmode_transfer.aws.policy.documents import Step, session_policy
from xmode_transfer.aws.sessions import Credentials, session_name
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Customer, Vendor
from xmode_transfer.model.errors import (
    ConfigError,
    RequestRefused,
    Responsible,
    RoleRefused,
    Throttled,
    Unavailable,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.telemetry import SystemClock

VENDOR = Vendor()
STS = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'


@pytest.fixture
def session_for(reply: Any) -> Callable[..., Any]:
    """STS's answer: a session with that access key, of that account, until then."""

    def make(key: str, until: datetime, account: str = "111122223333") -> Any:
        body = f"""<AssumeRoleResponse {STS}><AssumeRoleResult>
          <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId>
            <Arn>arn:aws:sts::{account}:assumed-role/XMode/x</Arn></AssumedRoleUser>
          <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s-{key}</SecretAccessKey>
            <SessionToken>t-{key}</SessionToken><Expiration>{until.isoformat()}</Expiration></Credentials>
        </AssumeRoleResult></AssumeRoleResponse>"""
        return reply(200, body.encode())

    return make


@pytest.fixture
def refusal(reply: Any) -> Callable[..., Any]:
    def make(status: int, code: str, text: str = "because", **headers: str) -> Any:
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error>"
        body = f"<ErrorResponse {STS}>{error}<RequestId>id-1</RequestId></ErrorResponse>"
        return reply(status, body.encode(), {"x-amzn-RequestId": "id-1", **headers})

    return make


@pytest.fixture
def caller(reply: Any) -> Callable[[str], Any]:
    """GetCallerIdentity's answer."""

    def make(arn: str) -> Any:
        body = f"""<GetCallerIdentityResponse {STS}><GetCallerIdentityResult><Arn>{arn}</Arn>
          <UserId>AIDA</UserId><Account>366810793500</Account></GetCallerIdentityResult>
        </GetCallerIdentityResponse>"""
        return reply(200, body.encode())

    return make


@pytest.fixture
def sessions(
    stub: Any, clock: Any, our_keys: None, no_pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> RoleSessions:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stub.url)
    return RoleSessions(VENDOR, clock)


@pytest.fixture
def acme(customer_of: Callable[..., Customer]) -> Customer:
    return customer_of()


# --- What is asked ----------------------------------------------------------------------------------


def test_the_role_is_assumed_with_the_external_id_and_a_policy_for_this_step_alone(
    sessions: RoleSessions, stub: Any, clock: Any, acme: Customer, session_for: Callable[..., Any]
) -> None:
    until = clock.now() + timedelta(hours=1)
    stub.reply(session_for("A", until))
    assert sessions.open(acme, Step.DELIVER).get() == Credentials("A", "s-A", "t-A", until)
    (asked,) = stub.asked
    policy = asked.form.pop("Policy")
    assert {name: value for name, value in asked.form.items() if name != "Policy"} == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::111122223333:role/XMode",
        "RoleSessionName": "xmode-deliver-acme",
        "ExternalId": "AcmeCorp",
        "DurationSeconds": "3600",
    }
    assert json.loads(policy) == session_policy(Step.DELIVER, bucket="acme-data", prefix="xmode/")
    assert " " not in policy
    assert "Credential=AKIAOURS/" in asked.headers["authorization"]
    assert "/us-east-1/sts/" in asked.headers["authorization"]


def test_the_key_of_an_encrypted_bucket_is_in_the_policy(
    sessions: RoleSessions, stub: Any, clock: Any, customer_of: Any, session_for: Callable[..., Any]
) -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/1234"
    stub.reply(session_for("A", clock.now() + timedelta(hours=1)))
    sessions.open(customer_of(destination={"kms_key_arn": key}), Step.DELIVER).get()
    assert key in stub.asked[0].form["Policy"]


def test_nothing_is_asked_before_get(sessions: RoleSessions, stub: Any, acme: Customer) -> None:
    sessions.open(acme, Step.DELIVER)
    assert stub.asked == []


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        ("acme", "xmode-deliver-acme"),
        ("a b/c:d", "xmode-deliver-a-b-c-d"),
        ("a" * 50, "xmode-deliver-" + "a" * 50),
        ("a" * 63, "xmode-deliver-" + "a" * 41 + "-"),
    ],
)
def test_session_names_are_legal(customer: str, expected: str) -> None:
    name = session_name(Step.DELIVER, customer)
    assert name.startswith(expected)
    assert len(name) <= 64


def test_cut_session_names_stay_apart() -> None:
    assert session_name(Step.DELIVER, "a" * 62 + "b") != session_name(Step.DELIVER, "a" * 62 + "c")


def test_a_policy_that_is_too_long_is_said_before_sts_is_asked(
    sessions: RoleSessions, stub: Any, customer_of: Any
) -> None:
    customer: Customer = customer_of()
    destination = customer.destination.model_copy(update={"prefix": "p" * 980 + "/"})
    long = customer.model_copy(update={"destination": destination})
    with pytest.raises(RequestRefused, match=r"acme: .*destination\.prefix"):
        sessions.open(long, Step.CHECK)
    assert stub.asked == []


# --- How often --------------------------------------------------------------------------------------


def test_a_session_is_used_until_a_quarter_of_an_hour_is_left(
    sessions: RoleSessions, stub: Any, clock: Any, acme: Customer, session_for: Callable[..., Any]
) -> None:
    stub.reply(session_for("A", clock.now() + timedelta(hours=1)))
    provider = sessions.open(acme, Step.DELIVER)
    provider.get()
    clock.move(minutes=44)
    assert provider.get().access_key_id == "A"
    assert len(stub.asked) == 1
    stub.reply(session_for("B", clock.now() + timedelta(hours=1)))
    clock.move(minutes=2)
    assert provider.get().access_key_id == "B"
    assert len(stub.asked) == 2


def test_the_same_customer_and_step_share_a_session_and_others_do_not(
    sessions: RoleSessions, clock: Any, stub: Any, customer_of: Any, session_for: Callable[..., Any]
) -> None:
    until = clock.now() + timedelta(hours=1)
    stub.reply(*[session_for(key, until) for key in "ABCD"])
    assert sessions.open(customer_of(), Step.DELIVER).get().access_key_id == "A"
    assert sessions.open(customer_of(), Step.DELIVER).get().access_key_id == "A"
    assert sessions.open(customer_of(), Step.CLEANUP).get().access_key_id == "B"
    assert sessions.open(customer_of(name="globex"), Step.DELIVER).get().access_key_id == "C"
    changed = customer_of(external_id="Another")
    assert sessions.open(changed, Step.DELIVER).get().access_key_id == "D"
    assert stub.asked[-1].form["ExternalId"] == "Another"


def together(count: int, work: Callable[[], Any]) -> list[Any]:
    """Runs the work in so many threads that begin at the same moment."""
    barrier = threading.Barrier(count)

    def begin() -> Any:
        barrier.wait(120)
        return work()

    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(begin) for _ in range(count)]]


def test_many_threads_wait_for_one_call(
    sessions: RoleSessions, stub: Any, clock: Any, acme: Customer, session_for: Callable[..., Any]
) -> None:
    release = threading.Event()

    def slowly(_: Any) -> Any:
        release.wait(120)
        return session_for("A", clock.now() + timedelta(hours=1))

    stub.reply(slowly)
    provider = sessions.open(acme, Step.DELIVER)
    threading.Timer(1.5, release.set).start()
    got = together(8, provider.get)
    assert {credentials.access_key_id for credentials in got} == {"A"}
    assert len(stub.asked) == 1


def test_many_threads_are_told_of_one_refusal(
    sessions: RoleSessions, stub: Any, acme: Customer, refusal: Callable[..., Any]
) -> None:
    release = threading.Event()

    def slowly(_: Any) -> Any:
        release.wait(120)
        return refusal(403, "AccessDenied")

    def outcome() -> type[BaseException] | None:
        try:
            provider.get()
        except XmodeError as error:
            return type(error)
        return None

    stub.reply(slowly)
    provider = sessions.open(acme, Step.DELIVER)
    threading.Timer(1.5, release.set).start()
    assert together(8, outcome) == [RoleRefused] * 8
    assert len(stub.asked) == 1


def test_a_dead_session_is_replaced_once_however_many_report_it(
    sessions: RoleSessions, stub: Any, clock: Any, acme: Customer, session_for: Callable[..., Any]
) -> None:
    until = clock.now() + timedelta(hours=1)
    stub.reply(session_for("A", until), session_for("B", until), session_for("C", until))
    provider = sessions.open(acme, Step.DELIVER)
    dead = provider.get()

    def report() -> str:
        provider.invalidate(dead)
        return provider.get().access_key_id

    assert set(together(8, report)) == {"B"}
    provider.invalidate(dead)  # one that comes late, when the new session is long in use
    assert provider.get().access_key_id == "B"
    assert len(stub.asked) == 2


@pytest.mark.parametrize("trouble", ["throttled", "unreachable", "our keys"])
def test_while_sts_is_in_trouble_the_old_session_is_used_to_its_end(
    sessions: RoleSessions,
    stub: Any,
    clock: Any,
    acme: Customer,
    session_for: Callable[..., Any],
    refusal: Callable[..., Any],
    reply: Any,
    trouble: str,
) -> None:
    stub.reply(session_for("A", clock.now() + timedelta(hours=1)))
    provider = sessions.open(acme, Step.DELIVER)
    provider.get()
    stub.reply(
        {
            "throttled": refusal(400, "Throttling", "Rate exceeded"),
            "unreachable": reply(cut=True),
            "our keys": refusal(403, "InvalidClientTokenId"),
        }[trouble]
    )
    clock.move(minutes=50)
    assert provider.get().access_key_id == "A"
    asked = len(stub.asked)
    assert asked > 1
    assert provider.get().access_key_id == "A"
    assert len(stub.asked) == asked, "STS in trouble must not be asked at every request"
    clock.move(seconds=31)
    assert provider.get().access_key_id == "A"
    assert len(stub.asked) > asked
    clock.move(minutes=8)
    with pytest.raises((Throttled, Unavailable, VendorIdentityError)):
        provider.get()


def test_a_customer_who_takes_the_role_back_is_obeyed_at_once(
    sessions: RoleSessions,
    stub: Any,
    clock: Any,
    acme: Customer,
    session_for: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    stub.reply(session_for("A", clock.now() + timedelta(hours=1)))
    provider = sessions.open(acme, Step.DELIVER)
    provider.get()
    stub.reply(refusal(403, "AccessDenied"))
    clock.move(minutes=50)
    with pytest.raises(RoleRefused):
        provider.get()


# --- Whose matter a refusal is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "responsible", "retryable"),
    [
        (403, "AccessDenied", RoleRefused, Responsible.CUSTOMER, False),
        (400, "MalformedPolicyDocument", RequestRefused, Responsible.VENDOR, False),
        (400, "PackedPolicyTooLarge", RequestRefused, Responsible.VENDOR, False),
        (400, "ValidationError", RequestRefused, Responsible.VENDOR, False),
        (400, "Throttling", Throttled, Responsible.AWS, True),
        (500, "InternalFailure", Unavailable, Responsible.AWS, True),
        (503, "ServiceUnavailable", Unavailable, Responsible.AWS, True),
        (403, "InvalidClientTokenId", VendorIdentityError, Responsible.VENDOR, False),
        (403, "SignatureDoesNotMatch", VendorIdentityError, Responsible.VENDOR, False),
        (403, "ExpiredToken", VendorIdentityError, Responsible.VENDOR, False),
        (418, "SomethingNew", RequestRefused, Responsible.VENDOR, False),
    ],
)
def test_each_refusal_has_its_responsible(
    sessions: RoleSessions,
    stub: Any,
    acme: Customer,
    refusal: Callable[..., Any],
    status: int,
    code: str,
    kind: type[XmodeError],
    responsible: Responsible,
    retryable: bool,
) -> None:
    stub.reply(refusal(status, code))
    with pytest.raises(XmodeError) as caught:
        sessions.open(acme, Step.DELIVER).get()
    error = caught.value
    assert type(error) is kind
    assert (error.responsible, error.retryable) == (responsible, retryable)
    assert (error.aws_code, error.http_status, error.request_id) == (code, status, "id-1")
    assert "because" in error.message
    assert error.hint


def test_a_refused_role_lists_the_causes_and_the_guides_steps(
    sessions: RoleSessions, stub: Any, acme: Customer, refusal: Callable[..., Any]
) -> None:
    stub.reply(refusal(403, "AccessDenied"))
    with pytest.raises(RoleRefused) as caught:
        sessions.open(acme, Step.DELIVER).get()
    assert acme.role_arn in caught.value.message
    for cause in ("step 12", "step 17", "external ID AcmeCorp,", VENDOR.principal_arn, "SCP", "our user"):
        assert cause in caught.value.hint


def test_an_answer_without_any_code_is_still_an_error_of_ours(
    sessions: RoleSessions, stub: Any, acme: Customer, reply: Any
) -> None:
    stub.reply(reply(403, b"<html>no</html>"))
    with pytest.raises(XmodeError):
        sessions.open(acme, Step.DELIVER).get()


def test_another_region_answers_where_the_customer_has_switched_ours_off(
    sessions: RoleSessions,
    stub: Any,
    clock: Any,
    acme: Customer,
    session_for: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    stub.reply(refusal(403, "RegionDisabledException"), session_for("A", clock.now() + timedelta(hours=1)))
    assert sessions.open(acme, Step.DELIVER).get().access_key_id == "A"
    assert "/us-east-1/" in stub.asked[0].headers["authorization"]
    assert "/eu-west-1/" in stub.asked[1].headers["authorization"]


def test_a_customer_whose_regions_are_all_off_is_told_which(
    sessions: RoleSessions, stub: Any, acme: Customer, refusal: Callable[..., Any]
) -> None:
    stub.reply(refusal(403, "RegionDisabledException"))
    with pytest.raises(RoleRefused, match=r"switched off.* us-east-1, eu-west-1"):
        sessions.open(acme, Step.DELIVER).get()


def test_a_session_of_another_account_is_never_used(
    sessions: RoleSessions, stub: Any, clock: Any, acme: Customer, session_for: Callable[..., Any]
) -> None:
    stub.reply(session_for("A", clock.now() + timedelta(hours=1), account="999988887777"))
    provider = sessions.open(acme, Step.DELIVER)
    with pytest.raises(RoleRefused, match="999988887777"):
        provider.get()


def test_a_lost_connection_is_tried_again_and_then_said(
    sessions: RoleSessions, stub: Any, acme: Customer, reply: Any
) -> None:
    stub.reply(reply(cut=True))
    with pytest.raises(Unavailable):
        sessions.open(acme, Step.DELIVER).get()
    assert len(stub.asked) == 4


def test_no_secret_shows(
    sessions: RoleSessions, stub: Any, clock: Any, acme: Customer, session_for: Callable[..., Any]
) -> None:
    stub.reply(session_for("A", clock.now() + timedelta(hours=1)))
    provider = sessions.open(acme, Step.DELIVER)
    shown = repr(provider) + repr(provider.get()) + repr(vars(provider))
    assert "s-A" not in shown
    assert "t-A" not in shown


# --- Our own identity -------------------------------------------------------------------------------


def test_our_identity_is_the_configured_one(
    sessions: RoleSessions, stub: Any, caller: Callable[[str], Any]
) -> None:
    stub.reply(caller(VENDOR.principal_arn))
    assert sessions.verify_identity() == VENDOR.principal_arn


def test_a_store_whose_sts_cannot_say_who_we_are_is_not_asked(clock: Any, stub: Any) -> None:
    """Ceph RGW and MinIO."""
    vendor = Vendor(verify_identity=False)
    assert RoleSessions(vendor, clock).verify_identity() is None
    assert stub.asked == []


def test_another_identity_is_refused(sessions: RoleSessions, stub: Any, caller: Callable[[str], Any]) -> None:
    stub.reply(caller("arn:aws:iam::366810793500:user/somebody-else"))
    with pytest.raises(VendorIdentityError, match=r"somebody-else.*xmode-data-transfer"):
        sessions.verify_identity()


@pytest.mark.parametrize(
    "code", ["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"]
)
def test_keys_that_aws_refuses_are_our_matter(
    sessions: RoleSessions, stub: Any, refusal: Callable[..., Any], code: str
) -> None:
    stub.reply(refusal(403, code))
    with pytest.raises(VendorIdentityError) as caught:
        sessions.verify_identity()
    assert caught.value.aws_code == code
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize(("minutes", "words"), [(20, "1200 s behind"), (-20, "1200 s ahead of")])
def test_a_wrong_clock_is_measured(
    sessions: RoleSessions, stub: Any, clock: Any, refusal: Callable[..., Any], minutes: int, words: str
) -> None:
    theirs = format_datetime(clock.now() + timedelta(minutes=minutes), usegmt=True)
    stub.reply(refusal(403, "SignatureDoesNotMatch", "Signature expired", Date=theirs))
    with pytest.raises(VendorIdentityError, match=words) as caught:
        sessions.verify_identity()
    assert "clock" in caught.value.hint


def test_no_keys_at_all_are_our_matter(clock: Any, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stub.url)
    with pytest.raises(VendorIdentityError, match="no AWS credentials"):
        RoleSessions(VENDOR, clock).verify_identity()
    assert stub.asked == []


def test_a_profile_that_is_not_there_is_our_matter(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(VendorIdentityError, match="absent"):
        RoleSessions(VENDOR, clock).verify_identity()


def test_an_endpoint_that_is_no_url_is_a_mistake_in_the_configuration(
    clock: Any, our_keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "not a url")
    with pytest.raises(ConfigError, match="not a url"):
        RoleSessions(VENDOR, clock).verify_identity()


def test_a_network_that_is_down_is_not_an_identity_problem(
    sessions: RoleSessions, stub: Any, reply: Any
) -> None:
    stub.reply(reply(cut=True))
    with pytest.raises(Unavailable):
        sessions.verify_identity()


@pytest.fixture
def keys_file(tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts another access key into the credentials file that the sessions read."""
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", stub.url)

    def put(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s-{key}\n")

    return put


def keys_used(stub: Any) -> list[str]:
    return [asked.headers["authorization"].split("Credential=")[1].split("/")[0] for asked in stub.asked]


def test_keys_that_were_rotated_on_disk_are_found_without_a_restart(
    stub: Any,
    clock: Any,
    keys_file: Callable[[str], None],
    refusal: Callable[..., Any],
    caller: Callable[[str], Any],
) -> None:
    keys_file("AKIAOLD")
    sessions = RoleSessions(VENDOR, clock)
    stub.reply(refusal(403, "InvalidClientTokenId"))
    with pytest.raises(VendorIdentityError):
        sessions.verify_identity()
    keys_file("AKIANEW")
    stub.reply(caller(VENDOR.principal_arn))
    assert sessions.verify_identity() == VENDOR.principal_arn
    assert keys_used(stub) == ["AKIAOLD", "AKIANEW"]


@pytest.mark.parametrize("code", ["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_nothing_fails_when_the_old_key_is_disabled_after_the_file_was_replaced(
    stub: Any,
    clock: Any,
    keys_file: Callable[[str], None],
    refusal: Callable[..., Any],
    caller: Callable[[str], Any],
    session_for: Callable[..., Any],
    acme: Customer,
    code: str,
) -> None:
    keys_file("AKIAOLD")
    sessions = RoleSessions(VENDOR, clock)
    stub.reply(caller(VENDOR.principal_arn))
    sessions.verify_identity()
    keys_file("AKIANEW")
    stub.reply(refusal(403, code), session_for("A", clock.now() + timedelta(hours=1)))
    assert sessions.open(acme, Step.DELIVER).get().access_key_id == "A"
    stub.reply(caller(VENDOR.principal_arn))
    sessions.verify_identity()
    assert keys_used(stub) == ["AKIAOLD", "AKIAOLD", "AKIANEW", "AKIANEW"]


def test_a_refused_key_without_another_is_asked_once(
    stub: Any, clock: Any, keys_file: Callable[[str], None], refusal: Callable[..., Any], acme: Customer
) -> None:
    keys_file("AKIAOLD")
    stub.reply(refusal(403, "InvalidClientTokenId"))
    with pytest.raises(VendorIdentityError):
        RoleSessions(VENDOR, clock).open(acme, Step.DELIVER).get()
    assert keys_used(stub) == ["AKIAOLD"]


# --- Against the local AWS with authorisation --------------------------------------------------------


@pytest.fixture
def setup_of(customer_of: Callable[..., Customer]) -> Callable[[Any], Customer]:
    """A customer of the sandbox as the configuration has it."""

    def make(setup: Any) -> Customer:
        return customer_of(
            name=setup.name,
            external_id=setup.external_id,
            role_arn=setup.role_arn,
            destination={"bucket": setup.bucket, "prefix": setup.prefix, "region": setup.region},
        )

    return make


@pytest.mark.sandbox
def test_a_customer_of_the_guide_lets_us_in(
    acme_setup: Any, as_vendor: dict[str, str], setup_of: Callable[[Any], Customer]
) -> None:
    sessions = RoleSessions(VENDOR, SystemClock())
    assert sessions.verify_identity() == VENDOR.principal_arn
    credentials = sessions.open(setup_of(acme_setup), Step.DELIVER).get()
    assert credentials.expires_at - SystemClock().now() > timedelta(minutes=55)


@pytest.fixture
def acme_setup(customer_factory: Callable[..., Any]) -> Any:
    return customer_factory("acme")
