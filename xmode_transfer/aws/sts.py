"""Role sessions of customers from AWS STS, and the proof of our own identity.

One STS client a Region serves all customers. Our own credentials come from the SDK's default chain, and only
from there; a customer's session never stands in for another's (a provider belongs to one customer and step).
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from xmode_transfer import telemetry
from xmode_transfer.aws import sts_errors
from xmode_transfer.aws.checksums import BodyFailed
from xmode_transfer.aws.policy.documents import Step, compact, session_policy
from xmode_transfer.aws.s3_errors import AWS_ERRORS, UNREADABLE
from xmode_transfer.aws.sdk import DEFAULT_REGION, make_client, making_clients, new_session
from xmode_transfer.aws.sessions import Credentials, SessionBudget
from xmode_transfer.config import Customer, Vendor
from xmode_transfer.model.errors import (
    OtherPrincipal,
    RequestRefused,
    RoleRefused,
    Throttled,
    Unavailable,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import Event

SESSION_SECONDS = 3600
"""Every role allows an hour (IAM API reference, CreateRole: MaxSessionDuration); more is the customer's to
grant."""
TRIAL_SECONDS = 900
"""The shortest session that AWS gives (STS API reference, AssumeRole)."""
REFRESH_BEFORE = timedelta(minutes=15)
"""A session with less life than this is renewed before it is used."""
USABLE_FOR = timedelta(minutes=2)
"""When the renewal fails, a session with more life than this is used all the same."""
RENEWAL_PAUSE_SECONDS = 30.0
"""After a failed renewal, how long the old session is used before STS is asked again."""

_NOTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True, slots=True)
class RoleRequest:
    """Everything that AssumeRole is asked with; two that differ in anything never share a session."""

    customer: str
    step: Step
    role_arn: str
    account_id: str
    external_id: str | None
    session_name: str
    policy: str
    regions: tuple[str, ...]
    trial: bool = False
    """A trial of the trust policy: the credentials are thrown away, and a refusal is no news for the log.
    Only a trial may go without an external ID."""


def session_name(step: Step, customer: str) -> str:
    """``xmode-<step>-<customer>``: what the customer's CloudTrail shows, always the same for the two.

    2 to 64 characters of ``[\\w+=,.@-]`` (STS API reference, AssumeRole). A name that has to be cut ends in a
    digest of the whole, so that two customers never share one.
    """
    legal = re.sub(r"[^A-Za-z0-9_+=,.@-]", "-", f"xmode-{step}-{customer}")
    if len(legal) <= 64:
        return legal
    return f"{legal[:55]}-{hashlib.sha256(customer.encode()).hexdigest()[:8]}"


class StsRoleSessions:
    """Implements ``aws.sessions.RoleSessions``. Thread-safe."""

    def __init__(
        self,
        vendor: Vendor,
        clock: Clock,
        *,
        budget: SessionBudget | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Without ``budget`` STS is asked as often as need be; once ``stop`` is set nobody waits for it."""
        self._vendor = vendor
        self._clock = clock
        self._budget = budget
        self.stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._clients: dict[str, Any] = {}
        self._providers: dict[tuple[str, Step], RoleProvider] = {}

    def verify_identity(self) -> str | None:
        """One GetCallerIdentity, which needs no permission (STS API reference)."""
        if not self._vendor.verify_identity:
            return None
        try:
            answer = self._call(self._vendor.sts_region, "get_caller_identity")
        except AWS_ERRORS as error:
            self._forget_clients()
            raise sts_errors.identity_error(error, self._clock.now()) from error
        arn = str(answer.get("Arn", ""))
        if arn != self._vendor.principal_arn:
            self._forget_clients()
            raise OtherPrincipal(
                f"our AWS credentials belong to {arn or 'nobody'}, but customers' roles trust "
                f"{self._vendor.principal_arn}",
                hint="Give the service the access key of that user (AWS_PROFILE, AWS_ACCESS_KEY_ID), or "
                "correct vendor.principal_arn in service.yaml",
            )
        return arn

    def open(self, customer: Customer, step: Step) -> "RoleProvider":
        """A provider for the customer's role; the same one for as long as the customer's configuration stays.

        Raises RequestRefused when the session policy is longer than STS takes.
        """
        request = self._request(customer, step)
        with self._lock:
            known = self._providers.get((customer.name, step))
            if known is None or known.request != request:
                known = RoleProvider(request, self._clock, self._assume)
                self._providers[(customer.name, step)] = known
            return known

    def share_budget(self, participants: int) -> None:
        if self._budget is not None:
            self._budget.share(participants)

    def narrowed(self, customer: Customer, step: Step, policy: Mapping[str, Any]) -> "RoleProvider":
        """A provider of its own, under a session policy other than the step's: for what a check tries out.

        Raises RequestRefused when the session policy is longer than STS takes.
        """
        return RoleProvider(self._request(customer, step, policy), self._clock, self._assume)

    def try_external_id(self, customer: Customer, external_id: str | None) -> None:
        """Assumes the role with that external ID, or with none, and throws the credentials away; the session
        could do nothing, since its policy denies everything. Raises RoleRefused when AWS refuses."""
        request = replace(self._request(customer, Step.CHECK, _NOTHING), external_id=external_id, trial=True)
        self._assume(request)

    def _request(
        self, customer: Customer, step: Step, policy: Mapping[str, Any] | None = None
    ) -> RoleRequest:
        destination = customer.destination
        try:
            text = compact(
                policy
                if policy is not None
                else session_policy(
                    step,
                    bucket=destination.bucket,
                    prefix=destination.prefix,
                    partition=customer.partition,
                    kms_key_arn=destination.kms_key_arn,
                )
            )
        except ValueError as error:
            raise RequestRefused(f"{customer.name}: {error}") from error
        # Where the customer has switched the Region of our STS endpoint off, another one answers.
        others = (DEFAULT_REGION[customer.partition], destination.region)
        regions = dict.fromkeys([self._vendor.sts_region, *(region for region in others if region)])
        return RoleRequest(
            customer=customer.name,
            step=step,
            role_arn=customer.role_arn,
            account_id=customer.account_id,
            external_id=customer.external_id,
            session_name=session_name(step, customer.name),
            policy=text,
            regions=tuple(regions),
        )

    def _assume(self, request: RoleRequest) -> Credentials:
        """One session, from the first Region that the customer's account has not switched off."""
        for answer in self._answers(request):
            credentials = sts_errors.credentials_in(answer)
            telemetry.protect(credentials.secret_access_key, credentials.session_token)
            _check_account(request, str((answer.get("AssumedRoleUser") or {}).get("Arn", "")))
            if not request.trial:
                telemetry.log(
                    Event.SESSION_OPENED,
                    customer=request.customer,
                    step=str(request.step),
                    role_arn=request.role_arn,
                    session_name=request.session_name,
                    expires_at=credentials.expires_at.isoformat(),
                )
            return credentials
        raise RoleRefused(
            f"{request.customer}: STS is switched off for {request.role_arn} in {', '.join(request.regions)}",
            hint="Set vendor.sts_region to a Region that is active in the customer's account, or ask the "
            "customer to activate one (IAM, Account settings, Security Token Service)",
            aws_code=sts_errors.REGION_DISABLED,
            http_status=403,
        )

    def _answers(self, request: RoleRequest) -> Iterator[dict[str, Any]]:
        if request.external_id is None and not request.trial:
            raise RequestRefused(f"{request.customer}: no role is assumed without an external ID")
        identified = {} if request.external_id is None else {"ExternalId": request.external_id}
        for region in request.regions:
            if self._budget is not None:
                self._budget.wait()
            try:
                yield self._call(
                    region,
                    "assume_role",
                    RoleArn=request.role_arn,
                    RoleSessionName=request.session_name,
                    DurationSeconds=TRIAL_SECONDS if request.trial else SESSION_SECONDS,
                    Policy=request.policy,
                    **identified,
                )
            except AWS_ERRORS as error:
                if sts_errors.is_region_disabled(error):
                    continue
                told = sts_errors.assume_role_error(
                    error,
                    request.customer,
                    request.role_arn,
                    request.external_id or "(none)",
                    self._vendor.principal_arn,
                    self._clock.now(),
                )
                if isinstance(told, VendorIdentityError):
                    self._forget_clients()
                if not request.trial:
                    telemetry.warn(
                        Event.SESSION_REFUSED,
                        customer=request.customer,
                        step=str(request.step),
                        role_arn=request.role_arn,
                        **told.log_context(),
                    )
                raise told from error

    def _call(self, region: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """One call of STS, and one more when AWS refuses our keys and others lie where they came from: who
        rotates them replaces the file, disables the old key, and no delivery fails for it."""
        used = self._access_key_id()
        try:
            return self._send(region, operation, arguments)
        except ClientError as error:
            if not sts_errors.is_about_our_keys(error) or not self._finds_other_keys(used):
                raise
            telemetry.log(Event.CREDENTIALS_REPLACED)
            return self._send(region, operation, arguments)

    def _send(self, region: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(getattr(self._client(region), operation)(**arguments))
        except BodyFailed as failed:
            raise failed.error from None
        except UNREADABLE as error:
            raise sts_errors.unreadable(operation, error) from error

    def _finds_other_keys(self, used: str | None) -> bool:
        if self._access_key_id() == used:  # else another thread has found them
            self._forget_clients()
        return self._access_key_id() not in (None, used)

    def _access_key_id(self) -> str | None:
        """Of the keys in use. None when there are none, or they cannot be read: the next call says why."""
        with self._lock, making_clients, suppress(BotoCoreError):
            return getattr(self._own_session().get_credentials(), "access_key", None)
        return None

    def _own_session(self) -> Session:
        """With the locks held."""
        if self._session is None:
            self._session = new_session()
        return self._session

    def _client(self, region: str) -> Any:
        with self._lock:
            client = self._clients.get(region)
            if client is None:
                with making_clients:
                    session = self._own_session()
                client = self._clients[region] = make_client(
                    session,
                    "sts",
                    region,
                    attempts=4,
                    read_timeout_seconds=30,
                    stop=self.stop,
                    only_looks=True,
                )
            return client

    def _forget_clients(self) -> None:
        """Keys that were rotated on disk are read again at the next call, without a restart."""
        with self._lock:
            self._clients.clear()
            self._session = None


def _check_account(request: RoleRequest, arn: str) -> None:
    fields = arn.split(":")
    account = fields[4] if len(fields) > 5 else ""
    if account != request.account_id:
        raise RoleRefused(
            f"{request.customer}: STS answered with a session of account {account or 'unknown'} for "
            f"{request.role_arn}; it is not used",
            hint="A session of another account must never be used; report this with the STS endpoint in use",
        )


class RoleProvider:
    """Implements ``aws.sessions.CredentialsProvider``: one customer's session for one step, kept fresh."""

    def __init__(
        self, request: RoleRequest, clock: Clock, assume: Callable[[RoleRequest], Credentials]
    ) -> None:
        self.request = request
        self._clock = clock
        self._assume = assume
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._flight: Future[Credentials] | None = None
        self._renew_not_before = 0.0

    def __repr__(self) -> str:
        return f"RoleProvider({self.request.customer!r}, {self.request.step!r})"

    def get(self) -> Credentials:
        with self._lock:
            current = self._current
            if current is not None and self._is_fresh(current):
                return current
            flight = self._flight
            leads = flight is None
            if flight is None:
                flight = self._flight = Future()
        if leads:
            self._renew(flight)
        return flight.result()

    def invalidate(self, credentials: Credentials) -> None:
        with self._lock:
            if self._current == credentials:
                self._current = None

    def _is_fresh(self, credentials: Credentials) -> bool:
        left = credentials.expires_at - self._clock.now()
        if left >= REFRESH_BEFORE:
            return True
        # STS has just refused to renew it: do not ask again at every request while there is life in it.
        return left > USABLE_FOR and self._clock.monotonic() < self._renew_not_before

    def _renew(self, flight: Future[Credentials]) -> None:
        """One call to STS for everybody who waits for ``flight``, whatever becomes of it."""
        try:
            credentials = self._assume(self.request)
        except BaseException as error:
            with self._lock:
                self._flight = None
                fallback = self._current if self._outlives(error) else None
                self._renew_not_before = self._clock.monotonic() + RENEWAL_PAUSE_SECONDS
            if fallback is not None:
                flight.set_result(fallback)
            else:
                flight.set_exception(error)
            if not isinstance(error, XmodeError):
                raise
        else:
            with self._lock:
                self._flight = None
                self._current = credentials
                self._renew_not_before = 0.0
            flight.set_result(credentials)

    def _outlives(self, error: BaseException) -> bool:
        """Whether the old session may be used after this. A customer who refuses the role is obeyed at
        once."""
        if self._current is None or not isinstance(error, Throttled | Unavailable | VendorIdentityError):
            return False
        return self._current.expires_at - self._clock.now() > USABLE_FOR
