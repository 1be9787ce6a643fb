"""Role sessions of customers from AWS STS, the check of our own identity, and the meaning of STS's refusals.

Our own credentials come from the SDK's default chain only. Sources: STS API reference, AssumeRole and "Common
errors"; IAM User Guide, "Troubleshoot IAM roles".
"""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from botocore import exceptions as aws
from botocore.session import Session

from xmode_transfer import telemetry
from xmode_transfer.aws.checksums import BodyFailed
from xmode_transfer.aws.policy.documents import Step, compact, step_policy
from xmode_transfer.aws.s3_errors import (
    AWS_ERRORS,
    NETWORK_ERRORS,
    NETWORK_HINT,
    UNREADABLE,
    Answer,
    answer_of,
    clock_difference,
    one_line,
    skewed,
    unreadable,
)
from xmode_transfer.aws.sdk import DEFAULT_REGION, make_client, making_clients, new_session
from xmode_transfer.aws.sessions import (
    Credentials,
    CredentialsProvider,
    RoleRequest,
    SessionBudget,
    session_name,
)
from xmode_transfer.config import Customer, Vendor
from xmode_transfer.model import errors
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import Event

SESSION_SECONDS = 3600
"""Every role allows an hour (IAM API reference, CreateRole: MaxSessionDuration)."""
TRIAL_SECONDS = 900
"""The shortest session that AWS gives (STS API reference, AssumeRole)."""

_NOTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}


class RoleSessions:
    """The customers' roles, assumed with their external IDs. Thread-safe."""

    def __init__(
        self,
        vendor: Vendor,
        clock: Clock,
        *,
        budget: SessionBudget | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Without ``budget`` calls of STS are not limited. Once ``stop`` is set, no call waits."""
        self._vendor = vendor
        self._clock = clock
        self._budget = budget
        self.stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._clients: dict[str, Any] = {}
        self._providers: dict[tuple[str, Step], CredentialsProvider] = {}

    def verify_identity(self) -> str | None:
        """Return our own credentials' ARN; None if vendor.verify_identity is off. Raises VendorIdentityError
        unless it is the vendor principal's. GetCallerIdentity needs no permission (STS API reference)."""
        if not self._vendor.verify_identity:
            return None
        try:
            answer = self._call(self._vendor.sts_region, "get_caller_identity")
        except AWS_ERRORS as error:
            self._forget_clients()
            raise _identity_error(error, self._clock.now()) from error
        arn = str(answer.get("Arn", ""))
        if arn != self._vendor.principal_arn:
            self._forget_clients()
            raise errors.OtherPrincipal(
                f"our AWS credentials belong to {arn or 'nobody'}, but customers' roles trust "
                f"{self._vendor.principal_arn}",
                hint="Give the service the access key of that user (AWS_PROFILE, AWS_ACCESS_KEY_ID), or "
                "correct vendor.principal_arn in service.yaml",
            )
        return arn

    def open(self, customer: Customer, step: Step) -> CredentialsProvider:
        """Return the provider of this customer and step, the same one until the configuration changes. Raises
        RequestRefused for a session policy that is longer than STS accepts."""
        request = self._request(customer, step)
        with self._lock:
            known = self._providers.get((customer.name, step))
            if known is None or known.request != request:
                known = CredentialsProvider(request, self._clock, self._assume)
                self._providers[(customer.name, step)] = known
            return known

    def share_budget(self, participants: int) -> None:
        """Share the budget of sessions a second with this number of processes, this one included."""
        if self._budget is not None:
            self._budget.share(participants)

    def narrowed(self, customer: Customer, step: Step, policy: Mapping[str, Any]) -> CredentialsProvider:
        """Return a provider under a session policy other than the step's, for an access check."""
        return CredentialsProvider(self._request(customer, step, policy), self._clock, self._assume)

    def try_external_id(self, customer: Customer, external_id: str | None) -> None:
        """Assume the role and discard the credentials. Raises RoleRefused if AWS refuses."""
        request = self._request(customer, Step.CHECK, _NOTHING)
        self._assume(replace(request, external_id=external_id, trial=True))

    def _request(
        self, customer: Customer, step: Step, policy: Mapping[str, Any] | None = None
    ) -> RoleRequest:
        # Where the customer has disabled the Region of our STS endpoint, another one answers.
        regions = (self._vendor.sts_region, DEFAULT_REGION[customer.partition], customer.destination.region)
        try:
            text = compact(step_policy(customer, step) if policy is None else policy)
        except ValueError as error:
            raise errors.RequestRefused(f"{customer.name}: {error}") from error
        return RoleRequest(
            customer=customer.name,
            step=step,
            role_arn=customer.role_arn,
            account_id=customer.account_id,
            external_id=customer.external_id,
            session_name=session_name(step, customer.name),
            policy=text,
            regions=tuple(dict.fromkeys(filter(None, regions))),
        )

    def _assume(self, request: RoleRequest) -> Credentials:
        """Open a session in the first Region that the customer's account has not disabled."""
        if request.external_id is None and not request.trial:
            raise errors.RequestRefused(f"{request.customer}: no role is assumed without an external ID")
        asked: dict[str, Any] = {
            "RoleArn": request.role_arn,
            "RoleSessionName": request.session_name,
            "DurationSeconds": TRIAL_SECONDS if request.trial else SESSION_SECONDS,
            "Policy": request.policy,
        }
        if request.external_id is not None:
            asked["ExternalId"] = request.external_id
        for region in request.regions:
            if self._budget is not None:
                self._budget.wait()
            try:
                answer = self._call(region, "assume_role", **asked)
            except AWS_ERRORS as error:
                if isinstance(error, aws.ClientError) and answer_of(error).code == _REGION_DISABLED:
                    continue
                raise self._refused(error, request) from error
            return _opened(answer, request)
        raise errors.RoleRefused(
            f"{request.customer}: STS is switched off for {request.role_arn} in {', '.join(request.regions)}",
            hint="Set vendor.sts_region to a Region that is active in the customer's account, or ask the "
            "customer to activate one (IAM, Account settings, Security Token Service)",
            aws_code=_REGION_DISABLED,
            http_status=403,
        )

    def _refused(self, error: Exception, request: RoleRequest) -> errors.XmodeError:
        refusal = _assume_role_error(error, request, self._vendor.principal_arn, self._clock.now())
        if isinstance(refusal, errors.VendorIdentityError):
            self._forget_clients()
        if not request.trial:
            telemetry.warn(Event.SESSION_REFUSED, **_logged(request), **refusal.log_context())
        return refusal

    def _call(self, region: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call STS, and once more if AWS refuses our keys and the credentials file has others: no delivery
        fails for a rotation."""
        used = self._access_key_id()
        try:
            return self._send(region, operation, arguments)
        except aws.ClientError as error:
            code = answer_of(error).code
            if code != "SignatureDoesNotMatch" and _MEANINGS.get(code) not in (_UNKNOWN_KEYS, _EXPIRED):
                raise
            if self._access_key_id() == used:  # else another thread has found other keys
                self._forget_clients()
            if self._access_key_id() in (None, used):
                raise
            telemetry.log(Event.CREDENTIALS_REPLACED)
            return self._send(region, operation, arguments)

    def _send(self, region: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(getattr(self._client(region), operation)(**arguments))
        except BodyFailed as failed:
            raise failed.error from None
        except UNREADABLE as error:
            raise unreadable(operation, error, service="STS") from error

    def _access_key_id(self) -> str | None:
        """Return the access key ID in use, or None: the next call then raises the reason."""
        with self._lock, making_clients, suppress(aws.BotoCoreError):
            return getattr(self._own_session().get_credentials(), "access_key", None)
        return None

    def _own_session(self) -> Session:
        """Return the session with our own credentials. Call it with both locks held."""
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
                    reads_only=True,
                )
            return client

    def _forget_clients(self) -> None:
        """Read our own keys again at the next call, without a restart."""
        with self._lock:
            self._clients.clear()
            self._session = None


def _opened(answer: dict[str, Any], request: RoleRequest) -> Credentials:
    """Raise Unavailable if the answer is malformed, RoleRefused for a session of another account."""
    try:
        found = answer["Credentials"]
        credentials = Credentials(
            access_key_id=found["AccessKeyId"],
            secret_access_key=found["SecretAccessKey"],
            session_token=found["SessionToken"],
            expires_at=found["Expiration"].astimezone(UTC),
        )
    except UNREADABLE as error:
        raise unreadable("assume_role", error, service="STS") from None
    telemetry.protect(credentials.secret_access_key, credentials.session_token)
    fields = str((answer.get("AssumedRoleUser") or {}).get("Arn", "")).split(":")
    account = fields[4] if len(fields) > 5 else ""
    if account != request.account_id:
        raise errors.RoleRefused(
            f"{request.customer}: STS answered with a session of account {account or 'unknown'} for "
            f"{request.role_arn}; it is not used",
            hint="A session of another account must never be used; report this with the STS endpoint in use",
        )
    if not request.trial:
        telemetry.log(
            Event.SESSION_OPENED,
            **_logged(request),
            session_name=request.session_name,
            expires_at=credentials.expires_at.isoformat(),
        )
    return credentials


def _logged(request: RoleRequest) -> dict[str, str]:
    return {"customer": request.customer, "step": str(request.step), "role_arn": request.role_arn}


_REGION_DISABLED = "RegionDisabledException"
_TRIED_AGAIN = "Tried again by itself"
_ROTATE_HINT = "Look at AWS_ACCESS_KEY_ID, AWS_PROFILE and the shared credentials file of this service"
_WHERE_HINT = (
    "Give the service the access key of its own IAM user: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE and the shared credentials file"
)
_CLOCK_HINT = "Set this machine's clock (chrony or ntpd); AWS accepts a few minutes at most"
_REQUEST_HINT = "Compare role_arn, external_id and destination.prefix in the customer's file with STS's words"
_ROLE_HINT = (
    "Check, in this order: 1. The role exists under this ARN (setup guide, step 12). 2. Its trust policy "
    "names {principal} (step 17). 3. It requires exactly the external ID {external_id}, in this letter case "
    "(steps 5 and 8). 4. No policy of the customer's organisation (SCP) denies it. 5. An identity policy "
    "allows our user sts:AssumeRole on this ARN. A new role may need a few minutes. AWS does not say which "
    "of these it is"
)

_Meaning = tuple[
    type[errors.VendorIdentityError | errors.Throttled | errors.Unavailable | errors.RequestRefused], str, str
]
_UNKNOWN_KEYS: _Meaning = (errors.VendorIdentityError, "AWS does not know our access key", _ROTATE_HINT)
_EXPIRED: _Meaning = (errors.VendorIdentityError, "our own AWS credentials have expired", _ROTATE_HINT)
_SIGNATURE: _Meaning = (
    errors.VendorIdentityError,
    "our secret access key does not belong to our access key",
    f"{_ROTATE_HINT}, and at this machine's clock",
)
_SLOW_DOWN: _Meaning = (errors.Throttled, "STS asks us to slow down ({what})", _TRIED_AGAIN)
_AWAY: _Meaning = (errors.Unavailable, "STS cannot answer now ({what})", _TRIED_AGAIN)
_OUR_REQUEST: _Meaning = (
    errors.RequestRefused,
    "STS does not accept our request ({what})",
    "A defect of ours or a mistake in the configuration",
)
_MEANINGS: Mapping[str, _Meaning] = {
    code: meaning
    for meaning, codes in (
        (_UNKNOWN_KEYS, "InvalidAccessKeyId InvalidClientTokenId MissingAuthenticationToken"),
        (_UNKNOWN_KEYS, "UnrecognizedClientException"),
        (_EXPIRED, "ExpiredToken ExpiredTokenException InvalidToken"),
        (_SIGNATURE, "IncompleteSignature InvalidSignatureException RequestExpired RequestTimeTooSkewed"),
        (_SIGNATURE, "SignatureDoesNotMatch"),
        (_SLOW_DOWN, "RequestLimitExceeded Throttling ThrottlingException TooManyRequestsException"),
        (_AWAY, "IDPCommunicationError InternalFailure ServiceUnavailable"),
        (_OUR_REQUEST, "InvalidParameterValue MalformedPolicyDocument PackedPolicyTooLarge ValidationError"),
    )
    for code in codes.split()
}


def _identity_error(error: Exception, now: datetime) -> errors.XmodeError:
    if not isinstance(error, aws.ClientError):
        return _without_answer(error)
    answer = answer_of(error)
    return _known(answer, "GetCallerIdentity", now) or answer.error(
        errors.VendorIdentityError, f"AWS refuses our own credentials: {answer.said}", _ROTATE_HINT
    )


def _assume_role_error(
    error: Exception, request: RoleRequest, principal_arn: str, now: datetime
) -> errors.XmodeError:
    if not isinstance(error, aws.ClientError):
        return _without_answer(error)
    answer, customer = answer_of(error), request.customer
    known = _known(answer, f"AssumeRole for {customer}", now)
    if known is not None:
        return known
    if answer.code in ("AccessDenied", "AccessDeniedException") or answer.status == 403:
        return answer.error(
            errors.RoleRefused,
            f"{customer}: AWS refuses to let us assume {request.role_arn}: {answer.said}",
            _ROLE_HINT.format(principal=principal_arn, external_id=request.external_id or "(none)"),
        )
    return answer.error(
        errors.RequestRefused,
        f"{customer}: STS does not accept our request for {request.role_arn}: {answer.said}",
        _REQUEST_HINT,
    )


def _known(answer: Answer, what: str, now: datetime) -> errors.XmodeError | None:
    """Return the error for a refusal that does not depend on the operation."""
    meaning = _MEANINGS.get(answer.code)
    if meaning in (None, _OUR_REQUEST) and answer.status == 429:
        meaning = _SLOW_DOWN
    elif meaning in (None, _OUR_REQUEST) and answer.status >= 500:
        meaning = _AWAY
    if meaning is None:
        return None
    if meaning is _SIGNATURE:
        skew = clock_difference(answer, now)
        if skew is not None and abs(skew.total_seconds()) > 240:
            words = f"this machine's clock is {skewed(skew)} AWS's: {answer.said}"
            return answer.error(errors.VendorClockSkew, words, _CLOCK_HINT)
    kind, words, hint = meaning
    return answer.error(kind, f"{words.format(what=what)}: {answer.said}", hint)


def _without_answer(error: Exception) -> errors.XmodeError:
    said = one_line(str(error))
    if isinstance(error, aws.NoCredentialsError):
        return errors.VendorIdentityError("this process has no AWS credentials", hint=_WHERE_HINT)
    if isinstance(error, NETWORK_ERRORS):
        return errors.Unavailable(f"STS cannot be reached: {said}", hint=NETWORK_HINT)
    if isinstance(error, aws.ParamValidationError):
        return errors.RequestRefused(f"our request to STS is malformed: {said}", hint=_REQUEST_HINT)
    if isinstance(error, aws.BotoCoreError):  # profiles, credential processes, container and SSO tokens
        return errors.VendorIdentityError(f"our AWS credentials cannot be read: {said}", hint=_WHERE_HINT)
    return errors.Unavailable(f"STS's answer could not be read: {said}", hint=_TRIED_AGAIN)
